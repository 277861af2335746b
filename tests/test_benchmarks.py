"""The benchmarks measure what they say: statistics, refusals, workers, files and commands."""

import ast
import functools
import itertools
import json
import math
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import facts, floor, harness, memory, peers, problem, recurrent, team, text, worker
from benchmarks.comparison import show, summary
from benchmarks.per_gate import PerGate
from benchmarks.problem import AGREEMENT, MODES, Problem, Shape
from gpulstm.backend import CPU
from tests.benchmark_fakes import ROOT, SHAPE, HereTeam, comparison, results_of, sequence_row
from tests.cases import fast_path
from tests.conftest import require

pytestmark = pytest.mark.slow  # harnesses that no version of a dependency changes


def run(module: str, *arguments: object) -> subprocess.CompletedProcess:
    """A benchmark as people run it."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


# -- statistics, rows and files
# ----------------------------------------------------------------------------------
def test_percentiles():
    assert harness.percentiles([3.0, 1.0, 2.0, 5.0, 4.0, 6.0]) == (2.0, 3.5, 5.0)
    assert harness.percentiles([7.0]) == (7.0, 7.0, 7.0)
    for none in ([], [1.0, math.nan], [math.inf]):
        with pytest.raises(ValueError, match="expected at least one"):
            harness.percentiles(none)


def test_a_row_has_the_fields_and_its_place_beside_the_peer():
    rows = [sequence_row("gpulstm", 4.0, gpu=3.0, mib=3), sequence_row("torch", 1.0, gpu=6.0, mib=2)]
    harness.compare_with(rows, "torch")
    ours, theirs = rows
    assert tuple(ours) == harness.FIELDS
    assert (ours["T"], ours["B"], ours["D"], ours["H"]) == (6, 3, 5, 4)
    assert (ours["dtype"], ours["tf32"], ours["samples"]) == ("float32", True, 3)
    assert (ours["speed"], ours["gpu_speed"], ours["memory_ratio"]) == (0.25, 2.0, 1.5)
    assert (theirs["speed"], theirs["gpu_speed"], theirs["memory_ratio"]) == (1, 1, 1)
    assert ours["us_per_step"] == 1e3 * 3.0 / 6 and sequence_row("x", 4.0)["us_per_step"] == 666.67


def test_a_row_without_a_peer_is_set_beside_nothing():
    rows = [sequence_row("gpulstm", 4.0)]
    harness.compare_with(rows, "torch")
    assert rows[0]["peer"] is None and rows[0]["speed"] is None


def test_a_result_file_is_read_as_it_was_written(tmp_path):
    file = tmp_path / "new" / "result.json"
    record = {
        "command": 'say "rows": []',
        "rows": [{"a": 1.5, "b": None}, {"a": math.inf, "b": [math.nan, "x"]}],
    }
    harness.write_json(file, record)
    rows = [{"a": 1.5, "b": None}, {"a": None, "b": [None, "x"]}]
    assert harness.read(file) == {"command": 'say "rows": []', "rows": rows}
    harness.write_json(file, {"rows": []})
    assert harness.read(file) == {"rows": []}


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    file = tmp_path / "result.json"
    harness.write(file, "old")
    monkeypatch.setattr(harness.os, "fsync", lambda handle: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        harness.write(file, "new")
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_a_table():
    rows = [{"a": 0.12345, "b": None, "c": "x|y"}, {"a": 1234.5, "b": True}]
    want = "| A | B | C |\n| --- | --- | --- |\n| 0.123 |  | x\\|y |\n| 1,234 | yes |  |\n"
    assert harness.table(rows, {"a": "A", "b": "B", "c": "C"}) == want


def test_facts_say_machine_versions_and_commit():
    head = facts.facts("benchmarks.text", ["--corpus", "/some/folder/book.txt", "--hidden", "5"], commit="abc")
    assert head["command"] == "python -m benchmarks.text --corpus book.txt --hidden 5" and head["commit"] == "abc"
    assert head["machine"]["cores"] >= 1 and head["machine"]["processor"]
    assert head["versions"]["numpy"] == np.__version__ and head["versions"]["python"]
    assert re.fullmatch(r"unknown|[0-9a-f]{40}(-dirty)?", facts.git_commit())


def test_facts_say_what_openblas_is_told(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert "OPENBLAS_CORETYPE=Haswell" in facts.facts("benchmarks.text", [])["versions"]["blas"]
    monkeypatch.delenv("OPENBLAS_CORETYPE")
    assert "CORETYPE" not in facts.facts("benchmarks.text", [])["versions"]["blas"]


def test_memory_counts_what_was_used_and_forgets():
    before = memory.in_use()
    block = np.ones(8 << 20)  # 64 MiB
    del block
    assert memory.most() - before > 50 << 20
    if Path("/proc/self/clear_refs").exists():
        memory.forget()
        assert memory.most() - before < 50 << 20


# -- the problem, and the agreement that comes before any timing
# ------------------------------------------------------
def test_a_problem_is_the_same_everywhere_and_exact_in_every_dtype():
    import ml_dtypes

    shape = Shape(3, 6, 5, 300, layers=2)
    problems = [Problem.of(shape) for _ in range(2)]
    for array, again in zip(*((p.x, p.dy, *itertools.chain(*p.weights)) for p in problems), strict=True):
        np.testing.assert_array_equal(array, again)
        assert len(np.unique(array)) > 20
        for dtype in (np.float16, ml_dtypes.bfloat16):
            np.testing.assert_array_equal(array.astype(dtype).astype(np.float32), array)


@pytest.mark.parametrize("text", ["1,2,3", "1,2,3,4,5", "1,2,3,x", "0,1,1,1", "1,2,3,4,0,1", "1,2,3,4,1,3", ""])
def test_what_is_no_shape_is_refused(text):
    with pytest.raises(ValueError, match="expected B,T,D,H"):
        Shape.parse(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [("3,6,5,4", ""), ("3,6,5,4,2,1", ", 2 layers"), ("3,6,5,4,3,2", ", 3 layers, both directions")],
)
def test_a_shape_is_read_as_it_is_written(text, words):
    shape = Shape.parse(text)
    assert str(shape) == text and shape.words() == "3,6,5,4" + words
    assert Shape.of_row(sequence_row("gpulstm", 1.0, shape=shape)) == shape
    if shape.loops > 1:
        with pytest.raises(ValueError, match="one layer in one direction"):
            Shape.parse_layer(text)


def test_a_row_of_an_older_file_is_one_layer_in_one_direction():
    row = sequence_row("gpulstm", 1.0)
    del row["layers"], row["directions"]
    assert Shape.of_row(row) == SHAPE


@pytest.mark.oracle
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [Shape(3, 6, 5, 4, layers=3), Shape(3, 6, 5, 4, 2, directions=2)], ids=str)
def test_layers_and_directions_are_the_same_function_for_all(shape, mode):
    require("torch")
    problem_ = Problem.of(shape)
    reference, *others = (peers.find(name)(problem_, "cpu", "float64") for name in ("numpy", "gpulstm", "torch"))
    names = problem_.names(mode)
    want = results_of(reference, mode, names)
    assert want["y"].shape == (6, 3, 4 * shape.directions) and want["h_n"].shape == (shape.loops, 3, 4)
    for other in others:
        got = results_of(other, mode, names)
        assert problem.disagreement(got, want, names)[0] < 1e-12
        for name in names[3:]:  # each of them counts
            assert problem.disagreement(got | {name: 1.1 * got[name]}, want, names)[1] == name


def exchanged(array: np.ndarray, one: int, other: int) -> None:
    parts = np.split(array.copy(), 4)
    parts[one], parts[other] = parts[other], parts[one]
    array[...] = np.concatenate(parts)


def lost(array: np.ndarray) -> None:
    array[...] = 0


FAULTS = {f"gates {one} and {other} exchanged": functools.partial(exchanged, one=one, other=other)
          for one, other in itertools.combinations(range(4), 2)} | {"lost": lost}  # fmt: skip


@pytest.mark.parametrize("name", ["w_ih", "w_hh", "b_ih", "b_hh"])
@pytest.mark.parametrize("fault", FAULTS)
def test_another_function_never_agrees(fault, name):
    shape = Shape(16, 20, 24, 32)
    want = results_of(PerGate(Problem.of(shape), "cpu", "float64"), "training")
    changed = Problem.of(shape)
    FAULTS[fault](getattr(changed.weights[0], name))
    got = results_of(PerGate(changed, "cpu", "float32"), "training")
    for mode in MODES:
        assert problem.disagreement(got, want, MODES[mode])[0] > 2 * max(AGREEMENT.values())


@pytest.mark.parametrize("name", MODES["training"])
def test_one_wrong_result_never_agrees(name):
    want = results_of(PerGate(Problem.of(SHAPE), "cpu", "float64"), "training")
    assert problem.disagreement(want, want, MODES["training"])[0] == 0
    broken = want[name].copy()
    broken.flat[-1] = np.nan
    for bad in (0 * want[name], -want[name], broken, want[name][None], None):
        error, worst = problem.disagreement(want | {name: bad}, want, MODES["training"])
        assert error > max(AGREEMENT.values()) and worst == name
    assert problem.disagreement({}, want, MODES["training"])[0] == math.inf


def test_a_floor_is_the_longer_of_the_products_and_of_reading_the_weights(monkeypatch):
    shape, weights = Shape(3, 10, 5, 4), [(16, 5), (16, 4)]
    assert floor.operations(shape, weights, "inference") == 2 * 10 * 3 * 16 * (5 + 4)
    # The gradients: of both weights, and of h alone.
    assert floor.operations(shape, weights, "training") == 2 * 10 * 3 * 16 * (3 * (5 + 4) - 5)
    rates = iter([(4e3, 100.0), (2e3, 300.0)])

    def measured(mode, dtype="float32", threads=1, weights=weights):
        return floor.measure(shape, weights, mode, dtype, threads)

    floors = floor.Floors()
    for arithmetic, reading in rates:
        monkeypatch.setattr(floor, "arithmetic_rate", lambda real, rate=arithmetic: rate * real.itemsize / 4)
        monkeypatch.setattr(floor, "reading_rate", lambda nbytes, threads, rate=reading: rate)
        for dtype in ("float32", "float64"):
            floors.add(measured("inference", dtype))
        floors.add(measured("inference", weights=weights[:1]))
    assert floors.milliseconds(measured("inference")) == 1e3 * 10 * 16 * 4 * 4 / 300  # the best rates
    floors.reading = dict.fromkeys(floors.reading, 1e9)
    assert floors.milliseconds(measured("inference")) == 1e3 * 8640 / 4e3
    assert floors.milliseconds(measured("inference", "float64")) == 1e3 * 8640 / 8e3
    assert floors.milliseconds(measured("training", "float16")) == 1e3 * 2 * 10 * 3 * 16 * 22 / 4e3
    assert floors.milliseconds(measured("inference", weights=weights[:1])) == 1e3 * 4800 / 4e3


def test_rates_are_those_of_the_machine():
    real = np.dtype(np.float32)
    assert 1e8 < floor.arithmetic_rate(real) < 1e14 and 1e8 < floor.reading_rate(1 << 20, 1) < 1e13


# -- workers
# --------------------------------------------------------------------------------------------------------
def test_a_comparison_measures_every_mode():
    compared = comparison()
    compared.run(HereTeam(), [SHAPE], ["float32"], show)
    assert [(row["implementation"], row["mode"]) for row in compared.rows] == [
        (name, mode) for mode in MODES for name in ("gpulstm", "numpy")
    ]
    assert not compared.refused and not compared.missing
    for row in compared.rows:
        assert tuple(row) == harness.FIELDS
        assert 0 < row["p20_ms"] <= row["p50_ms"] <= row["p80_ms"] and row["samples"] >= 2
        assert 0 < row["error"] < 1e-5 and row["gpu_p50_ms"] is None
        assert row["floor_ms"] > 0 and row["after_sleep"] >= 1 and row["beside_lstm"] is None
    assert {row["path"] for row in compared.rows} == {fast_path(CPU), "per gate"}


def test_what_does_not_agree_is_refused_and_never_timed(monkeypatch):
    class Wrong(PerGate):
        def training(self):
            *results, db = super().training()
            return *results, 2 * db

    find = peers.find
    monkeypatch.setattr(peers, "find", lambda name, cell="lstm": Wrong if name == "numpy" else find(name))
    monkeypatch.setattr(HereTeam, "dismiss", lambda self: None)
    crew, compared = HereTeam(), comparison()
    compared.run(crew, [SHAPE], ["float32"], show)
    assert [row["mode"] for row in compared.rows if row["implementation"] == "numpy"] == ["inference"]
    assert [row["mode"] for row in compared.rows if row["implementation"] == "gpulstm"] == list(MODES)
    (line,) = compared.complaints()
    assert line.startswith("numpy 3,6,5,4 training float32 db_hh is off by 1")
    assert crew.worker("numpy").asked == ["load", "block", "block", "after_sleep", "load"]


def test_what_breaks_while_it_is_timed_is_refused(monkeypatch):
    class Breaking(PerGate):
        calls = 0

        def inference(self):
            Breaking.calls += 1
            if Breaking.calls > 6:
                raise RuntimeError("out of order")
            return super().inference()

    monkeypatch.setattr(peers, "find", lambda name, cell="lstm": {"gpulstm": peers.Gpulstm, "numpy": Breaking}[name])
    compared = comparison()
    compared.run(HereTeam(), [SHAPE], ["float32"], show)
    assert "out of order" in compared.complaints()[0]
    assert [row["implementation"] for row in compared.rows] == ["gpulstm", "gpulstm", "numpy"]


def test_what_is_not_installed_is_left_out_and_named(monkeypatch):
    find = peers.find

    def without_torch(name, cell="lstm"):
        if name == "torch":
            raise ImportError("No module named 'torch'")
        return find(name)

    monkeypatch.setattr(peers, "find", without_torch)
    compared = comparison(names=("gpulstm", "torch"))
    compared.run(HereTeam(), [SHAPE], ["float32"], show)
    assert compared.missing == {"torch": "No module named 'torch'"} and not compared.refused
    head = facts.facts("benchmarks.recurrent", []) | {"load_before": 3.0}
    markdown = recurrent.report(head, compared)
    assert "torch was left out: No module named 'torch'" in markdown and "trust no small difference" in markdown


def test_what_time_does_not_allow_is_named():
    compared = comparison(end=time.monotonic() - 1)
    compared.run(HereTeam(), [SHAPE], ["float32"], show)
    assert not compared.rows and len(compared.refused) == 2 and "no time was left" in compared.complaints()[0]


def test_a_summary_gives_the_least_the_median_and_the_most():
    rows = [sequence_row("gpulstm", 1.0, speed=speed, memory_ratio=ratio) for speed, ratio in ((0.5, 1.0), (0.9, 1.4))]
    assert summary([*rows, sequence_row("torch", 1.0, speed=0.1)]) == [
        "training, tf32: speed beside torch 0.50 at least, 0.70 in the median; memory 1.40 at most"
    ]


def test_a_worker_answers_and_its_end_is_noticed(tmp_path):
    with team.Team(threads=1) as crew:
        file = str(tmp_path / "reference.npz")
        first = crew.worker("numpy")
        assert first.ask("reference", shape=str(SHAPE), file=file) is None
        assert set(np.load(file)) == set(MODES["training"]) and np.load(file)["y"].dtype == np.float64
        with pytest.raises(team.WorkerFailed, match="no attribute 'dance'"):
            first.ask("dance")
        assert crew.worker("numpy") is first and crew.worker("numpy", tf32=True) is not first
        with pytest.raises(team.WorkerFailed, match="ended with -9"):
            first.ask("reference", patience=0.05, shape="64,400,512,512", file=file)
        assert crew.worker("numpy") is not first
        processes = [member.process for member in crew._workers.values()]
    assert all(process.poll() is not None for process in processes)


@pytest.mark.parametrize("mode", MODES)
def test_memory_is_all_that_a_sequence_needs(tmp_path, mode):
    """h of every step at least, in training gates and c too; what the equations keep, a few times, at most."""
    shape, file = Shape(32, 60, 64, 128), str(tmp_path / "reference.npz")
    least, most = (4 * shape.T * shape.B * shape.H * n for n in ((1, 6) if mode == "inference" else (6, 10)))
    case = {"shape": str(shape), "mode": mode, "device": "cpu", "precision": "float32", "reference": file}
    with team.Team(threads=1) as crew:
        crew.worker("reference").ask("reference", shape=str(shape), file=file)
        used = crew.worker("gpulstm").ask("load", peer="gpulstm", **case)["memory"]
    assert 0.9 * least < used < 3 * most + (4 << 20)


def test_a_process_that_spins_is_not_asleep(monkeypatch):
    clock = time.perf_counter
    for share, asleep in ((0.0, True), (0.01, True), (0.2, False), (1.0, False), (2.0, False)):  # of one core
        monkeypatch.setattr(worker.time, "process_time", lambda share=share: share * clock())
        assert worker.fall_asleep(limit=0.1) is asleep


def test_a_process_is_waited_for_until_its_threads_have_stopped(monkeypatch):
    clock, end = time.perf_counter, time.perf_counter() + 0.1
    monkeypatch.setattr(worker.time, "process_time", lambda: min(clock(), end))
    assert worker.fall_asleep(limit=20) and clock() >= end


# -- the commands
# ------------------------------------------------------------------------------------------------------
def test_recurrent_as_a_command(tmp_path):
    done = run("recurrent", "--quick", "--threads", 1, "--peers", "numpy", "--shapes", SHAPE, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    record = harness.read(tmp_path / "recurrent-cpu.json")
    assert {
        "command",
        "machine",
        "versions",
        "commit",
        "threads",
        "refused",
        "missing",
        "rows",
    } <= record.keys()
    assert record["threads"] == [1] and not record["refused"] and record["answers_without_sleep"] == 0
    assert [row["implementation"] for row in record["rows"]] == ["gpulstm", "numpy"] * 2
    assert all(tuple(row) == harness.FIELDS for row in record["rows"])
    row = f"| 1 | 3 | 6 | 5 | 4 | float32 | training | gpulstm | {fast_path(CPU)} |"
    assert row in (tmp_path / "recurrent-cpu.md").read_text()


def test_an_update_keeps_the_rows_of_other_threads_and_precisions(tmp_path, capsys):
    given = ["--quick", "--peers", "numpy", "--shapes", str(SHAPE), "--out", str(tmp_path)]
    with pytest.raises(SystemExit):
        recurrent.main([*given, "--update"])
    assert "--update: expected a folder with recurrent-cpu.json" in capsys.readouterr().err
    recurrent.main([*given, "--threads", "1,2"])
    first = harness.read(tmp_path / "recurrent-cpu.json")
    recurrent.main([*given, "--threads", "1", "--update"])
    second = harness.read(tmp_path / "recurrent-cpu.json")
    kept = [row for row in first["rows"] if row["threads"] == 2]
    assert second["rows"][:4] == kept and [row["threads"] for row in second["rows"]] == [2] * 4 + [1] * 4
    assert [run["command"] for run in second["earlier"]] == [first["command"]]
    assert first["command"] in (tmp_path / "recurrent-cpu.md").read_text()


@pytest.mark.oracle
def test_recurrent_beside_other_libraries(tmp_path):
    require("onnxruntime")
    arguments = ("--threads", 1, "--peers", "torch,gpulstm.torch,onnxruntime", "--shapes", SHAPE, "--out", tmp_path)
    done = run("recurrent", "--quick", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = harness.read(tmp_path / "recurrent-cpu.json")["rows"]
    assert [(row["implementation"], row["mode"]) for row in rows] == [
        ("gpulstm", "inference"), ("torch", "inference"), ("gpulstm.torch", "inference"), ("onnxruntime", "inference"),
        ("gpulstm", "training"), ("torch", "training"), ("gpulstm.torch", "training"),
    ]  # fmt: skip
    assert all(row["peer"] == "torch" and row["speed"] > 0 and row["error"] < 1e-5 for row in rows)
    assert "\ntraining, 1 thread, float32: speed beside torch" in done.stdout
    assert "\ngpulstm.torch, training, 1 thread, float32: speed beside torch" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--peers", "tensorflow"], "--peers: expected some of gpulstm, gpulstm fused, gpulstm persistent, torch"),
        (["--precisions", "float8"], "--precisions: expected some of float64"),
        (["--precisions", "tf32"], "tf32 is the GPU's"),
        (["--shapes", "1,2,3"], "invalid parse_layer value: '1,2,3'"),
    ],
)
def test_wrong_arguments_end_in_2(arguments, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        recurrent.main(arguments)
    assert stopped.value.code == 2 and said in capsys.readouterr().err


def test_text_as_a_command(tmp_path):
    corpus = tmp_path / "book.txt"
    corpus.write_text("to be or not to be, that is the question\n" * 60)
    done = run("text", "--quick", "--corpus", corpus, "--hidden", 12, "--device", "cpu", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    record = harness.read(tmp_path / "text-book.json")
    (row,) = record["rows"]
    assert record["command"].endswith("--corpus book.txt --hidden 12 --device cpu --out " + tmp_path.name)
    assert (row["corpus"], row["hidden"], row["clip"], row["steps"]) == ("book", 12, 1.0, text.QUICK["steps"])
    log = [json.loads(line) for line in (tmp_path / "text-book.log.jsonl").read_text().splitlines()]
    assert row["val_loss"] == min(record["val_loss"] for record in log if record["val_loss"])
    assert f"{row['val_loss']:.4f} nats a character" in (tmp_path / "text-book.md").read_text()
    assert run("text", "--corpus", tmp_path / "none.txt").returncode == 2


def test_the_recipe_of_the_text_benchmark():
    _, settings = text.arguments([])
    chosen = (
        settings.hidden,
        settings.layers,
        settings.batch,
        settings.window,
        settings.steps,
        settings.lr,
        settings.clip,
    )
    assert chosen == (512, 1, 64, 64, 3000, 3e-3, 1.0)
    assert text.arguments(["--patience", "3", "--lr", "0.01"])[1].patience == 3


def test_a_known_corpus_stands_beside_what_others_publish():
    (digest,) = text.PUBLISHED
    row = {"val_loss": 1.475, "sha256": digest, "layers": 1, "hidden": 512, "steps": 3000, "device": "cpu"}
    assert [line["who"] for line in text.beside(row)][:3] == [
        "nanoGPT, README",
        "gpulstm, this run",
        "minGRU, arXiv 2410.01201",
    ]
    assert len(text.beside(row | {"sha256": "another"})) == 1


# -- the files
# -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.name)
def test_every_file_says_what_it_is_for_and_leaves_cupy_to_the_backend(path):
    tree = ast.parse(path.read_text())
    docstring = ast.get_docstring(tree)
    assert docstring and len(docstring.splitlines()[0]) > 40
    if path.stem not in ("__init__", "part"):
        assert ("__main__" in path.read_text()) == (f"python -m benchmarks.{path.stem}" in docstring)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert "cupy" not in {name.split(".")[0] for name in names}


def test_result_files_hold_rows_with_their_origin():
    for file in (ROOT / "benchmarks" / "results").glob("*.json"):
        record = harness.read(file)
        assert record["rows"] and {"command", "machine", "versions", "commit"} <= record.keys(), file

"""The benchmarks measure what they say: statistics, refusals, files, and every GPU part on the emulated CUDA."""

import ast
import functools
import itertools
import json
import math
import re
import shutil
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest

from gpulstm import DeviceError, backend, device
from tests.conftest import require
from tests.emulated_cuda.raw import RawKernel

ROOT = Path(__file__).parents[1]
# As conftest.py does for tests: benchmarks is found without the checkout on sys.path.
if "benchmarks" not in sys.modules:
    sys.modules["benchmarks"] = types.ModuleType("benchmarks")
    sys.modules["benchmarks"].__path__ = [str(ROOT / "benchmarks")]

from benchmarks import (  # noqa: E402
    cublas,
    cudnn,
    facts,
    gpu,
    hardware,
    harness,
    losses,
    memory,
    part,
    peers,
    problem,
    recurrent,
    suite,
    team,
    text,
    worker,
)
from benchmarks.problem import AGREEMENT, MODES, Problem, Shape  # noqa: E402

SHAPE = Shape(3, 6, 5, 4)


def run(module: str, *arguments: object) -> subprocess.CompletedProcess:
    """A benchmark as people run it."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


# -- statistics, rows and files ----------------------------------------------------------------------------------
def test_percentiles():
    assert harness.percentiles([3.0, 1.0, 2.0, 5.0, 4.0, 6.0]) == (2.0, 3.5, 5.0)
    assert harness.percentiles([7.0]) == (7.0, 7.0, 7.0)
    for none in ([], [1.0, math.nan], [math.inf]):
        with pytest.raises(ValueError, match="want at least one"):
            harness.percentiles(none)


def sequence_row(name: str, ms: float, gpu: float | None = None, mib: int = 1, **changes) -> dict:
    loaded = {"path": "way", "error": 1e-7, "memory": mib * 2**20}
    samples = {"wall": [ms] * 3, "gpu": [gpu] * 3 if gpu else []}
    return harness.sequence_row(name, SHAPE, "training", "cuda", "tf32", loaded, samples) | changes


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
    head = facts.facts(
        "benchmarks.text", ["--corpus", "/some/folder/book.txt", "--hidden", "5"], commit="abc"
    )
    assert (
        head["command"] == "python -m benchmarks.text --corpus book.txt --hidden 5"
        and head["commit"] == "abc"
    )
    assert head["machine"]["cores"] >= 1 and head["machine"]["processor"]
    assert head["versions"]["numpy"] == np.__version__ and head["versions"]["python"]
    assert re.fullmatch(r"unknown|[0-9a-f]{40}(-dirty)?", facts.git_commit())


def test_memory_counts_what_was_used_and_forgets():
    before = memory.in_use()
    block = np.ones(8 << 20)  # 64 MiB
    del block
    assert memory.most() - before > 50 << 20
    if Path("/proc/self/clear_refs").exists():
        memory.forget()
        assert memory.most() - before < 50 << 20


# -- the problem, and the agreement that comes before any timing ------------------------------------------------------
def arrays_of(p: Problem) -> dict[str, np.ndarray]:
    return {name: getattr(p, name) for name in ("x", "dy", "w_ih", "w_hh", "b_ih", "b_hh")}


def test_a_problem_is_the_same_everywhere_and_exact_in_every_dtype():
    import ml_dtypes

    for name, array in arrays_of(Problem.of(Shape(3, 6, 5, 300))).items():
        np.testing.assert_array_equal(array, arrays_of(Problem.of(Shape(3, 6, 5, 300)))[name])
        assert len(np.unique(array)) > 20
        for dtype in (np.float16, ml_dtypes.bfloat16):
            np.testing.assert_array_equal(array.astype(dtype).astype(np.float32), array)


@pytest.mark.parametrize("text", ["1,2,3", "1,2,3,4,5", "1,2,3,x", "0,1,1,1", ""])
def test_what_is_no_shape_is_refused(text):
    assert str(Shape.parse(str(SHAPE))) == str(SHAPE)
    with pytest.raises(ValueError, match="want B,T,D,H"):
        Shape.parse(text)


def results_of(peer: peers.Peer, mode: str) -> dict[str, np.ndarray]:
    return dict(zip(MODES[mode], peer.host(getattr(peer, mode)()), strict=True))


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
    want = results_of(peers.PerGate(Problem.of(shape), "cpu", "float64"), "training")
    changed = Problem.of(shape)
    FAULTS[fault](getattr(changed, name))
    got = results_of(peers.PerGate(changed, "cpu", "float32"), "training")
    for mode in MODES:
        assert problem.disagreement(got, want, mode)[0] > 2 * max(AGREEMENT.values())


@pytest.mark.parametrize("name", MODES["training"])
def test_one_wrong_result_never_agrees(name):
    want = results_of(peers.PerGate(Problem.of(SHAPE), "cpu", "float64"), "training")
    assert problem.disagreement(want, want, "training")[0] == 0
    broken = want[name].copy()
    broken.flat[-1] = np.nan
    for bad in (0 * want[name], -want[name], broken, want[name][None], None):
        error, worst = problem.disagreement(want | {name: bad}, want, "training")
        assert error > max(AGREEMENT.values()) and worst == name
    assert problem.disagreement({}, want, "training")[0] == math.inf


# -- workers --------------------------------------------------------------------------------------------------------
class HereTeam:
    """A team whose workers answer in this process, so that what they do can be exchanged."""

    restless = 0

    def __init__(self) -> None:
        self._workers: dict = {}

    def worker(self, name: str, tf32: bool = False) -> "HereTeam.Worker":
        return self._workers.setdefault((name, tf32), HereTeam.Worker())

    def dismiss(self) -> None:
        self._workers.clear()

    class Worker:
        def __init__(self) -> None:
            self.session = worker.Session()
            self.asked: list[str] = []

        def ask(self, do: str, **arguments):
            self.asked.append(do)
            return team.result(do, json.loads(json.dumps(self.session.answer({"do": do, **arguments}))))


def comparison(device: str = "cpu", names: tuple = ("gpulstm", "numpy"), **changes) -> recurrent.Comparison:
    return recurrent.Comparison(device, names, rounds=2, seconds=0.001, **changes)


def test_a_comparison_measures_every_mode():
    compared = comparison()
    compared.run(HereTeam(), [SHAPE], ["float32"], recurrent.show)
    assert [(row["implementation"], row["mode"]) for row in compared.rows] == [
        (name, mode) for mode in MODES for name in ("gpulstm", "numpy")
    ]
    assert not compared.refused and not compared.missing
    for row in compared.rows:
        assert tuple(row) == harness.FIELDS
        assert 0 < row["p20_ms"] <= row["p50_ms"] <= row["p80_ms"] and row["samples"] >= 2
        assert 0 < row["error"] < 1e-5 and row["gpu_p50_ms"] is None
    assert {row["path"] for row in compared.rows} == {"inplace", "per gate"}


def test_what_does_not_agree_is_refused_and_never_timed(monkeypatch):
    class Wrong(peers.PerGate):
        def training(self):
            *results, db = super().training()
            return *results, 2 * db

    find = peers.find
    monkeypatch.setattr(peers, "find", lambda name: Wrong if name == "numpy" else find(name))
    monkeypatch.setattr(HereTeam, "dismiss", lambda self: None)
    crew, compared = HereTeam(), comparison()
    compared.run(crew, [SHAPE], ["float32"], recurrent.show)
    assert [row["mode"] for row in compared.rows if row["implementation"] == "numpy"] == ["inference"]
    assert [row["mode"] for row in compared.rows if row["implementation"] == "gpulstm"] == list(MODES)
    (line,) = compared.complaints()
    assert line.startswith("numpy 3,6,5,4 training float32 db_hh is off by 1")
    assert crew.worker("numpy").asked == ["load", "block", "block", "load"]


def test_what_breaks_while_it_is_timed_is_refused(monkeypatch):
    class Breaking(peers.PerGate):
        calls = 0

        def inference(self):
            Breaking.calls += 1
            if Breaking.calls > 6:
                raise RuntimeError("out of order")
            return super().inference()

    monkeypatch.setattr(peers, "find", lambda name: {"gpulstm": peers.Gpulstm, "numpy": Breaking}[name])
    compared = comparison()
    compared.run(HereTeam(), [SHAPE], ["float32"], recurrent.show)
    assert "out of order" in compared.complaints()[0]
    assert [row["implementation"] for row in compared.rows] == ["gpulstm", "gpulstm", "numpy"]


def test_what_is_not_installed_is_left_out_and_named(monkeypatch):
    find = peers.find

    def without_torch(name):
        if name == "torch":
            raise ImportError("No module named 'torch'")
        return find(name)

    monkeypatch.setattr(peers, "find", without_torch)
    compared = comparison(names=("gpulstm", "torch"))
    compared.run(HereTeam(), [SHAPE], ["float32"], recurrent.show)
    assert compared.missing == {"torch": "No module named 'torch'"} and not compared.refused
    head = facts.facts("benchmarks.recurrent", []) | {"load_before": 3.0}
    markdown = recurrent.report(head, compared)
    assert (
        "torch was left out: No module named 'torch'" in markdown and "trust no small difference" in markdown
    )


def test_what_time_does_not_allow_is_named():
    compared = comparison(end=time.monotonic() - 1)
    compared.run(HereTeam(), [SHAPE], ["float32"], recurrent.show)
    assert not compared.rows and len(compared.refused) == 2 and "no time was left" in compared.complaints()[0]


def test_a_summary_gives_the_least_the_median_and_the_most():
    rows = [
        sequence_row("gpulstm", 1.0, speed=speed, memory_ratio=ratio)
        for speed, ratio in ((0.5, 1.0), (0.9, 1.4))
    ]
    assert recurrent.summary([*rows, sequence_row("torch", 1.0, speed=0.1)]) == [
        "training: speed beside torch 0.50 at least, 0.70 in the median; memory beside torch 1.40 at most"
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


def test_a_process_that_spins_is_not_asleep():
    assert worker.fall_asleep(limit=10)
    stop = threading.Event()

    def spin():
        while not stop.is_set():
            pass

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        assert not worker.fall_asleep(limit=0.2)
    finally:
        stop.set()
        thread.join()


# -- the commands ------------------------------------------------------------------------------------------------------
def test_recurrent_as_a_command(tmp_path):
    done = run(
        "recurrent", "--quick", "--threads", 1, "--peers", "numpy", "--shapes", SHAPE, "--out", tmp_path
    )
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
    assert record["threads"] == 1 and not record["refused"] and record["answers_without_sleep"] == 0
    assert [row["implementation"] for row in record["rows"]] == ["gpulstm", "numpy"] * 2
    assert all(tuple(row) == harness.FIELDS for row in record["rows"])
    assert (
        "| 3 | 6 | 5 | 4 | float32 | training | gpulstm | inplace |"
        in (tmp_path / "recurrent-cpu.md").read_text()
    )


@pytest.mark.oracle
def test_recurrent_beside_other_libraries(tmp_path):
    require("onnxruntime")
    arguments = ("--threads", 1, "--peers", "torch,onnxruntime", "--shapes", SHAPE, "--out", tmp_path)
    done = run("recurrent", "--quick", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = harness.read(tmp_path / "recurrent-cpu.json")["rows"]
    assert [(row["implementation"], row["mode"]) for row in rows] == [
        ("gpulstm", "inference"), ("torch", "inference"), ("onnxruntime", "inference"),
        ("gpulstm", "training"), ("torch", "training"),
    ]  # fmt: skip
    assert all(row["peer"] == "torch" and row["speed"] > 0 and row["error"] < 1e-5 for row in rows)
    assert "training: speed beside torch" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--peers", "tensorflow"], "--peers: want some of gpulstm, torch"),
        (["--precisions", "float8"], "--precisions: want some of float64"),
        (["--precisions", "tf32"], "tf32 is the GPU's"),
        (["--shapes", "1,2,3"], "invalid parse value: '1,2,3'"),
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


# -- the GPU's parts, one after the other -------------------------------------------------------------------------------
def scripted(code: str) -> list[str]:
    """A part that is a line of Python; it finds its --out FILE in sys.argv[2]."""
    return [sys.executable, "-c", "import sys, json, time, pathlib\nout = pathlib.Path(sys.argv[2])\n" + code]


def test_a_part_that_fails_costs_no_other(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "GRACE", 1)
    wrote = "out.write_text(json.dumps({'notes': ['so far'], 'failures': %s, 'rows': [{'k': 1}]}))\n"
    parts = {
        "raises": (scripted("raise ValueError('planted')"), 20),
        "dies": (scripted("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), 20),
        "hangs": (scripted(wrote % "[]" + "time.sleep(60)"), 1),
        "complains": (scripted(wrote % "['one test failed']" + "sys.exit(1)"), 20),
        "works": (scripted(wrote % "[]"), 20),
    }
    started = time.monotonic()
    outcomes = {outcome.part: outcome for outcome in gpu.run_parts(parts, tmp_path)}
    assert time.monotonic() - started < 40
    assert {name: outcome.status for name, outcome in outcomes.items()} == dict.fromkeys(parts, "failed") | {
        "works": "passed"
    }
    assert "planted" in outcomes["raises"].error and "-9" in outcomes["dies"].error
    assert outcomes["hangs"].error == "stopped after 2 s" and outcomes["hangs"].rows == [{"k": 1}]
    assert outcomes["complains"].error == "one test failed" and outcomes["works"].rows == [{"k": 1}]
    head = facts.facts("benchmarks.gpu", [])
    markdown = gpu.report(head, list(outcomes.values()))
    assert "| hangs | failed |" in markdown and "| works | passed |" in markdown and "so far" in markdown


def test_no_part_is_begun_when_time_is_over(tmp_path):
    (outcome,) = gpu.run_parts({"late": (scripted("pass"), 20)}, tmp_path, limit=gpu.GRACE + 0.5)
    assert outcome.status == "failed" and "no time was left" in outcome.error


def test_all_parts_fit_into_8_minutes():
    assert gpu.LIMIT + gpu.GRACE <= 8 * 60
    *others, last = gpu.PARTS.values()
    assert gpu.LIMIT - sum(others) - gpu.GRACE * len(gpu.PARTS) >= 100 and last == gpu.LIMIT


def test_without_a_gpu_the_reason_is_said(monkeypatch, capsys):
    def refuse(name):
        raise DeviceError("device 'cuda' cannot be used: no NVIDIA driver was found")

    for module, arguments in ((gpu, []), (recurrent, ["--device", "cuda"]), (part, [])):
        monkeypatch.setattr(module, "device", refuse)
        code = module.main(arguments, "x", None) if module is part else module.main(arguments)
        assert code == 2 and "no NVIDIA driver was found" in capsys.readouterr().err


def test_the_whole_command(tmp_path, emulated_gpu, monkeypatch):
    def one_row(name, command, seconds, folder):
        assert command[1:] == ["-m", f"benchmarks.{name}", "--quick"]
        rows = {
            "cudnn": [sequence_row("gpulstm", 1.0, gpu=2.0)],
            "losses": losses.rows_of([1.0], [1.0], [1.0]),
        }
        return gpu.Outcome(
            name, "failed" if name == "suite" else "passed", 1.0, "", ["done"], rows.get(name, [])
        )

    monkeypatch.setattr(gpu, "run_part", one_row)
    assert gpu.main(["--quick", "--out", str(tmp_path), "--commit", "abc"]) == 1
    record = harness.read(tmp_path / "gpu.json")
    assert [line["part"] for line in record["parts"]] == list(gpu.PARTS) and record["commit"] == "abc"
    assert record["machine"]["gpu"] == "emulated CUDA device"
    assert [row["part"] for row in record["rows"]] == ["losses", "cudnn"]
    assert "## Beside cuDNN" in (tmp_path / "gpu.md").read_text()
    assert gpu.main(["--quick", "--only", "losses,cudnn"]) == 0


# -- the tests as a part ----------------------------------------------------------------------------------------------
def suite_of(tmp_path: Path, source: str) -> part.Part:
    file = tmp_path / "test_planted.py"
    file.write_text(source)
    done = part.Part(None, 60, quick=True)
    suite.run_tests(done, [*suite.command([str(file)]), "--rootdir", str(tmp_path)], suite.environment())
    return done


def test_failures_of_the_suite_are_kept_by_name(tmp_path):
    done = suite_of(
        tmp_path, "def test_cuda_a(): pass\ndef test_cuda_b(): assert 0\ndef test_cpu(): assert 0\n"
    )
    (row,) = done.rows
    assert (row["exit"], row["passed"], row["failed"], row["deselected"]) == ("1", 1, 1, 1)
    assert len(done.failures) == 1 and "test_planted.py::test_cuda_b" in done.failures[0]
    assert "1 failed, 1 passed" in done.notes[0]


@pytest.mark.parametrize(
    "source", ["def test_cpu(): pass\n", "import nowhere_to_be_found\n", "syntax error\n"]
)
def test_a_suite_that_tests_nothing_has_failed(tmp_path, source):
    assert suite_of(tmp_path, source).failures


def test_a_suite_that_hangs_is_stopped(tmp_path):
    done = part.Part(None, 1, quick=True)
    suite.run_tests(
        done,
        [sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)"],
        suite.environment(),
    )
    assert done.rows[0]["exit"].startswith("stopped after") and "begun" in done.failures[0]


def test_the_suite_is_the_tests_of_cuda_alone(monkeypatch):
    monkeypatch.setenv("CI", "true")
    environment = suite.environment()
    assert environment["GPULSTM_TEST_DEVICES"] == "cuda" and "CI" not in environment
    files = ["tests/test_recurrent.py", "tests/test_emulated_cuda.py"]
    done = subprocess.run(
        [*suite.command(files), "--collect-only"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    names = [line for line in done.stdout.splitlines() if "::" in line]
    assert len(names) > 20, done.stdout + done.stderr
    assert all(re.search(r"\[.*cuda", name) and "test_recurrent" in name for name in names)


# -- the losses as a part -------------------------------------------------------------------------------------------------
def test_losses_that_differ_by_rounding_agree_and_others_do_not(monkeypatch):
    exact = [4.0, 3.0, 2.0]
    rows = losses.rows_of([4.0000001, 3.0, 2.0], [4.0, 3.00001, 2.0], exact)
    assert rows[0]["allowed"] == losses.FLOOR and rows[1]["allowed"] == pytest.approx(
        4 * 1e-5 / 3 + losses.FLOOR
    )
    assert rows[2]["allowed"] == rows[1]["allowed"] and rows[0]["difference"] == pytest.approx(2.5e-8)

    settings = losses.Settings()
    for cuda, agrees in (
        (exact, True),
        ([4.0, 3.0, 2.0001], False),
        ([4.0, math.nan, 2.0], False),
        ([4.1, 3.0, 2.0], False),
    ):
        monkeypatch.setattr(
            losses,
            "first_losses",
            lambda text, s, where, steps, cuda=cuda: cuda if where == "cuda" else exact,
        )
        done = part.Part(None, 60, quick=True)
        losses.compare(done, "cuda", "", settings, 3)
        assert bool(done.failures) is not agrees
        assert ("agree to float32 accuracy" in done.notes[0]) is agrees


def test_losses_on_the_emulated_gpu(emulated_gpu, tmp_path, capsys):
    assert part.main(["--quick", "--out", str(tmp_path / "losses.json")], "losses", losses.work) == 0
    record = harness.read(tmp_path / "losses.json")
    assert [row["step"] for row in record["rows"]] == [1, 2, 3, 4, 5] and not record["failures"]
    assert len({row["cuda"] for row in record["rows"]}) == 5
    assert any(row["cpu"] != row["cpu_float64"] for row in record["rows"])


# -- cuDNN as a part ------------------------------------------------------------------------------------------------------
def test_lines_beside_cudnn():
    ours = sequence_row("gpulstm", 4.0, gpu=3.0, gpu_speed=2.0)
    rows = [ours, sequence_row("torch", 8.0, gpu=6.0), sequence_row("torch graph", 2.0, gpu=1.5)]
    (line,) = cudnn.side_by_side(rows)
    assert set(cudnn.COLUMNS) <= line.keys()
    assert (line["precision"], line["ours_gpu"], line["eager_gpu"], line["graph_gpu"]) == (
        "tf32",
        3.0,
        6.0,
        1.5,
    )
    assert (line["speed"], line["graph_speed"], line["ours_us"]) == (2.0, 0.5, 500.0)
    other = sequence_row("gpulstm", 4.0, gpu=3.0) | {"B": 9}
    assert len(cudnn.side_by_side([*rows, other])) == 2


def test_cudnn_shapes_are_those_planned_for():
    assert {shape.H for shape in cudnn.SHAPES} == {128, 256, 512, 1024}
    assert {shape.B for shape in cudnn.SHAPES} == {1, 16, 64, 128}
    assert set(cudnn.PRECISIONS) == {"float32", "tf32", "float16", "bfloat16"}


def test_gpulstm_on_the_emulated_gpu_where_torch_is_missing(emulated_gpu, monkeypatch, capsys):
    find = peers.find

    def without_torch(name):
        if name.startswith("torch"):
            raise ImportError("No module named 'torch'")
        return find(name)

    monkeypatch.setattr(peers, "find", without_torch)
    monkeypatch.setattr(cudnn, "Team", lambda threads: HereTeamInContext())
    done = part.Part(None, 600, quick=True)
    cudnn.work(done, emulated_gpu)
    assert not done.failures
    assert len(done.rows) == len(cudnn.PRECISIONS) * len(MODES)
    assert all(
        row["path"] == "kernel" and row["gpu_p50_ms"] > 0 and row["device"] == "cuda" for row in done.rows
    )
    assert {row["dtype"] for row in done.rows} == {"float32", "float16", "bfloat16"}
    assert "torch is not here, so nothing is set beside it: No module named 'torch'" in done.notes


class HereTeamInContext(HereTeam):
    def __enter__(self) -> HereTeam:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


@pytest.mark.oracle
def test_a_captured_torch_layer_gives_what_the_eager_one_gives(monkeypatch):
    """The capture itself needs a GPU; here its calls of torch are exchanged for ones that do the work at once."""
    torch, torch_peer = require("torch"), __import__("benchmarks.torch_peer").torch_peer
    threads, called = torch.get_num_threads(), []

    class Context:
        def __init__(self, *arguments):
            called.append("stream" if arguments == ("a stream",) else "graph")

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            pass

    class Graph:
        def replay(self):
            called.append("replay")

    stream = types.SimpleNamespace(wait_stream=lambda other: None)
    fakes = {"Stream": lambda: stream, "current_stream": lambda: stream, "stream": Context, "graph": Context}
    for name, fake in (fakes | {"CUDAGraph": Graph}).items():
        assert hasattr(torch.cuda, name)
        monkeypatch.setattr(torch.cuda, name, fake)
    eager, captured = (
        kind(Problem.of(SHAPE), "cpu", "float32") for kind in (torch_peer.Torch, torch_peer.TorchGraph)
    )
    for mode in MODES:
        got, want = results_of(captured, mode), results_of(eager, mode)
        for name in MODES[mode]:
            np.testing.assert_array_equal(got[name], want[name])
    results_of(captured, "training")
    assert called.count("replay") == 3 and called.count("graph") == 4  # two side streams, two captures
    torch.set_num_threads(threads)


# -- the small measurements as a part ----------------------------------------------------------------------------------
class Event:
    """cupy.cuda.Event where every launch has ended when it returns; the GPU is never ahead of the host."""

    done = False

    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self.at = None

    def record(self, stream=None):
        self.at = time.perf_counter()

    def synchronize(self):
        assert self.at is not None


class Stream:
    """cupy.cuda.Stream that captures: between begin and end, launches are kept and not run."""

    null, ptr, kept, on = None, 4711, None, None

    def __init__(self, null=False, non_blocking=False, ptds=False, priority=None):
        assert non_blocking  # the legacy default stream cannot be captured, nor one that waits for it

    def __enter__(self):
        Stream.on = self
        return self

    def __exit__(self, *exception):
        Stream.on = None

    def synchronize(self):
        pass

    def begin_capture(self, mode=None):
        assert Stream.on is self
        Stream.kept = []

    def end_capture(self):
        kept, Stream.kept = Stream.kept, None
        return types.SimpleNamespace(launch=lambda stream=None: [launch() for launch in kept])


@pytest.fixture
def emulated_gpu(emulated, monkeypatch):
    """The emulated GPU with what timing and graphs need beside; its Backend."""
    for name, fake in (("Event", Event), ("Stream", Stream), ("get_elapsed_time", elapsed)):
        monkeypatch.setattr(emulated.cuda, name, fake, raising=False)
    for kind, name in ((RawKernel, "__call__"), (cublas.Cublas, "_call")):
        original = getattr(kind, name)

        def call(self, *arguments, original=original, **options):
            if Stream.kept is None:
                original(self, *arguments, **options)
            else:
                Stream.kept.append(lambda: original(self, *arguments, **options))

        monkeypatch.setattr(kind, name, call)
    return device("cuda").backend


def elapsed(start: Event, stop: Event) -> float:
    return 1e3 * (stop.at - start.at)


def test_copy_launch_and_host_on_the_emulated_gpu(emulated_gpu):
    rows = [
        *hardware.copy(emulated_gpu, 1 << 12), *hardware.launches(emulated_gpu, 3, 4), *hardware.host(emulated_gpu, 2)
    ]  # fmt: skip
    assert [row["measurement"] for row in rows] == ["copy"] + ["launch"] * 3 + ["host"] * 5
    assert all(row["value"] > 0 and row["unit"] in ("GB/s", "µs") and row["how"] for row in rows)


def test_a_copy_that_does_not_copy_is_not_timed(emulated_gpu, monkeypatch):
    monkeypatch.setattr(emulated_gpu.xp, "copyto", lambda target, source: target.fill(1))
    with pytest.raises(ValueError, match="not the source"):
        list(hardware.copy(emulated_gpu, 1 << 12))


def test_work_that_was_not_queued_in_time_is_not_counted(emulated_gpu, monkeypatch):
    late = iter([True, True, *[False] * 100])
    monkeypatch.setattr(Event, "done", property(lambda self: next(late)))
    calls = []
    assert hardware.queue_behind(emulated_gpu, lambda: calls.append(1), 3) > 0
    assert len(calls) == 3 * (2 + hardware.TAKES + 1)
    monkeypatch.setattr(hardware, "OCCUPY", hardware.OCCUPY.replace("k < steps", "k < 1"))
    monkeypatch.setattr(Event, "done", True)
    with pytest.raises(RuntimeError, match="never filled"):
        hardware.queue_behind(emulated_gpu, lambda: None, 3)


@pytest.mark.parametrize("dtype", hardware.DTYPES)
def test_products_on_the_emulated_gpu(emulated_gpu, dtype):
    factors = hardware.Factors(3, 8)
    (row,) = hardware.product(emulated_gpu, factors, dtype, 2)
    assert (row["dtype"], row["B"], row["H"], row["unit"]) == (dtype, 3, 8, "µs") and row["value"] > 0
    factors.product[1, 2] += 1
    with pytest.raises(ValueError, match="the product is off"):
        list(hardware.product(emulated_gpu, factors, dtype, 2))


# cuBLAS's few functions as the header declares them, on the processor: what ctypes is told must fit.
FAKE_CUBLAS = """
#include <cstddef>
struct Handle { void* stream; void* workspace; size_t bytes; };
extern "C" int cublasCreate_v2(Handle** handle) { *handle = new Handle{}; return 0; }
extern "C" int cublasSetStream_v2(Handle* handle, void* stream) { handle->stream = stream; return 0; }
extern "C" int cublasSetWorkspace_v2(Handle* handle, void* at, size_t bytes) {
    handle->workspace = at; handle->bytes = bytes; return 0;
}
extern "C" int cublasGemmEx(Handle* handle, int transa, int transb, int m, int n, int k, const void* alpha,
                            const void* A, int a_type, int lda, const void* B, int b_type, int ldb, const void* beta,
                            void* C, int c_type, int ldc, int compute, int algorithm) {
    if (!handle->stream || !handle->workspace || handle->bytes < (1 << 20)) return 1;
    if (a_type != 0 || b_type != 0 || c_type != 0 || (compute != 68 && compute != 77) || algorithm != -1) return 15;
    for (int col = 0; col < n; ++col)
        for (int row = 0; row < m; ++row) {
            float sum = 0;
            for (int at = 0; at < k; ++at)
                sum += ((const float*)A)[transa ? at + row * lda : row + at * lda]
                     * ((const float*)B)[transb ? col + at * ldb : at + col * ldb];
            float* c = (float*)C + row + (size_t)col * ldc;
            float before = *(const float*)beta;
            *c = *(const float*)alpha * sum + (before ? before * *c : 0);
        }
    return 0;
}
"""


@pytest.fixture
def fake_cublas(tmp_path) -> str:
    (tmp_path / "cublas.cpp").write_text(FAKE_CUBLAS)
    library = tmp_path / "libcublas.so"
    compiler = shutil.which("g++") or "g++"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", str(library), str(tmp_path / "cublas.cpp")], check=True
    )
    return str(library)


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_products_in_a_graph_on_the_emulated_gpu(emulated_gpu, fake_cublas, precision):
    made = cublas.Cublas(emulated_gpu, emulated_gpu.xp.cuda.Stream(non_blocking=True), fake_cublas)
    (row,) = hardware.product_graph(emulated_gpu, hardware.Factors(3, 8), precision, 2, made)
    assert (row["dtype"], row["B"], row["H"]) == (precision, 3, 8) and row["value"] > 0
    with pytest.raises(RuntimeError, match="cublasGemmEx failed with status 15"):
        list(hardware.product_graph(emulated_gpu, hardware.Factors(3, 8), "float16", 2, made))


def test_a_graph_that_computes_nothing_is_not_timed(emulated_gpu, fake_cublas, monkeypatch):
    made = cublas.Cublas(emulated_gpu, emulated_gpu.xp.cuda.Stream(non_blocking=True), fake_cublas)
    monkeypatch.setattr(Stream, "end_capture", lambda self: types.SimpleNamespace(launch=lambda stream: None))
    monkeypatch.setattr(Stream, "kept", None)
    try:
        with pytest.raises(ValueError, match="the product is off"):
            list(hardware.product_graph(emulated_gpu, hardware.Factors(3, 8), "float32", 2, made))
    finally:
        Stream.kept = None


def test_small_measurements_on_the_emulated_gpu_go_on_without_cublas(emulated_gpu, tmp_path, capsys):
    """The emulated GPU has no cuBLAS: the part fails and keeps all else."""
    assert part.main(["--quick", "--out", str(tmp_path / "hardware.json")], "hardware", hardware.work) == 1
    record = harness.read(tmp_path / "hardware.json")
    assert record["failures"] == ["cuBLAS: this process has loaded no libcublas"]
    assert len(record["rows"]) == 1 + 3 + 5 + len(hardware.DTYPES)


def test_the_loaded_library_is_found(tmp_path):
    maps = tmp_path / "maps"
    line = "7f00-7f01 r-xp 00000000 08:01 42                         "
    maps.write_text(f"{line}/lib/libc.so.6\n{line}/a folder/libcublasLt.so.13\n")
    with pytest.raises(OSError, match="no libcublas"):
        cublas.loaded_library(maps)
    maps.write_text(f"{maps.read_text()}{line}/a folder/libcublas.so.13\n")
    assert cublas.loaded_library(maps) == "/a folder/libcublas.so.13"


def test_a_measurement_that_breaks_costs_no_other(emulated_gpu, monkeypatch, capsys):
    monkeypatch.setattr(hardware, "copy", lambda *arguments: 1 / 0)
    done = part.Part(None, 60, quick=True)
    hardware.work(done, emulated_gpu)
    assert done.failures[0].startswith("copy: ZeroDivisionError") and len(done.rows) == 3 + 5 + len(
        hardware.DTYPES
    )
    late = part.Part(None, -1, quick=True)
    hardware.work(late, emulated_gpu)
    assert not late.rows and "no time was left" in late.failures[0]


# -- against the real CuPy, which imports without a GPU ------------------------------------------------------------------
def test_what_the_benchmarks_use_of_cupy_is_there():
    import inspect

    cupy = require("cupy")
    cuda = cupy.cuda
    for fake, real in ((Event, cuda.Event), (Stream, cuda.Stream)):
        for name in ("__init__", "record", "synchronize", "begin_capture", "end_capture"):
            if name in vars(fake):
                assert list(inspect.signature(getattr(real, name)).parameters) == list(
                    inspect.signature(getattr(fake, name)).parameters
                ), f"{real.__name__}.{name}"
    assert hasattr(cuda.Event, "done") and hasattr(cuda.Graph, "launch") and callable(cuda.get_elapsed_time)
    assert {"total_bytes", "free_all_blocks"} <= set(dir(cupy.get_default_memory_pool()))
    runtime = cuda.runtime
    assert cublas._STORED == {
        "float32": runtime.CUDA_R_32F, "float16": runtime.CUDA_R_16F, "bfloat16": runtime.CUDA_R_16BF
    }  # fmt: skip


# -- the files -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.name)
def test_every_file_says_what_it_is_for_and_leaves_cupy_to_the_backend(path):
    tree = ast.parse(path.read_text())
    docstring = ast.get_docstring(tree)
    assert docstring and len(docstring.splitlines()[0]) > 40
    if path.stem not in ("__init__", "part"):
        assert ("__main__" in path.read_text()) == (f"python -m benchmarks.{path.stem}" in docstring)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in node.names]
            )
            assert "cupy" not in {name.split(".")[0] for name in names}


def test_result_files_hold_rows_with_their_origin():
    for file in (ROOT / "benchmarks" / "results").glob("*.json"):
        record = harness.read(file)
        assert record["rows"] and {"command", "machine", "versions", "commit"} <= record.keys(), file


@pytest.fixture(autouse=True)
def _devices_as_before():
    yield
    backend._forget_devices()

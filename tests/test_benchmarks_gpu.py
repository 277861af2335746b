"""Every part of benchmarks.gpu: going on past what fails, and the parts themselves on the emulated CUDA."""

import dataclasses
import math
import re
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest

from benchmarks import (
    clock,
    cudnn,
    facts,
    gpu,
    hardware,
    harness,
    losses,
    part,
    peers,
    products,
    recurrent,
    suite,
    warm,
)  # fmt: skip
from benchmarks.problem import MODES, Problem
from gpulstm import DeviceError, backend, cublas, device, info
from tests.benchmark_fakes import ROOT, SHAPE, HereTeam, results_of, sequence_row
from tests.conftest import require

pytestmark = pytest.mark.slow  # harnesses that no version of a dependency changes


@pytest.fixture(autouse=True)
def _devices_as_before():
    yield
    backend._forget_devices()


# -- the GPU's parts, one after the other
# -------------------------------------------------------------------------------
def scripted(code: str) -> list[str]:
    """A part that is a line of Python; it finds its --out FILE in sys.argv[2]."""
    return [sys.executable, "-c", "import sys, json, time, pathlib\nout = pathlib.Path(sys.argv[2])\n" + code]


def ended(pid: int) -> bool:
    """Whether a process is gone, or dead and waiting for its parent to notice."""
    for _ in range(50):
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
        if not state or state.startswith("Z"):
            return True
        time.sleep(0.1)
    return False


def test_a_part_that_fails_costs_no_other(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "GRACE", 1)
    wrote = "out.write_text(json.dumps({'notes': ['so far'], 'failures': %s, 'rows': [{'k': 1}]}))\n"
    child = (
        "import subprocess; child = subprocess.Popen(['sleep', '60'])\n"
        "out.with_suffix('.pid').write_text(str(child.pid))\n"
    )
    parts = {
        "raises": (scripted("raise ValueError('planted')"), 20),
        "dies": (scripted("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), 20),
        "hangs": (scripted(wrote % "[]" + child + "time.sleep(60)"), 1),
        "complains": (scripted(wrote % "['one test failed']" + "sys.exit(1)"), 20),
        "works": (scripted(wrote % "[]"), 20),
    }
    started = time.monotonic()
    outcomes = {outcome.part: outcome for outcome in gpu.run_parts(parts, tmp_path)}
    assert time.monotonic() - started < 40
    assert {name: outcome.status for name, outcome in outcomes.items()} == dict.fromkeys(parts, "failed") | {
        "works": "passed"
    }
    assert "planted" in outcomes["raises"].errors[0] and "-9" in outcomes["dies"].errors[0]
    assert outcomes["hangs"].errors == ["stopped after 2 s"] and outcomes["hangs"].rows == [{"k": 1}]
    assert outcomes["complains"].errors == ["one test failed"] and outcomes["works"].rows == [{"k": 1}]
    assert ended(int((tmp_path / "hangs.pid").read_text())), "what the part had started was left behind"
    head = facts.facts("benchmarks.gpu", [])
    markdown = gpu.report(head, list(outcomes.values()))
    assert "| hangs | failed |" in markdown and "| works | passed |" in markdown and "so far" in markdown


def test_a_table_shows_some_of_the_errors_and_says_how_many_there_are():
    outcome = gpu.Outcome("suite", 1.0, ["a", "b", "c"], ["note"])
    assert outcome.line(2)["said"] == "a / b / and 1 more / note" and outcome.line()["said"] == "a / b / c / note"


def test_no_part_is_begun_when_time_is_over(tmp_path):
    (outcome,) = gpu.run_parts({"late": (scripted("pass"), 20)}, tmp_path, limit=gpu.GRACE + 0.5)
    assert outcome.status == "failed" and "no time was left" in outcome.errors[0]


def test_a_part_has_no_more_time_than_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "GRACE", 1)
    (outcome,) = gpu.run_parts({"hangs": (scripted("time.sleep(60)"), 60)}, tmp_path, limit=3)
    assert outcome.errors == ["stopped after 3 s"] and outcome.seconds < 20


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
        return gpu.Outcome(name, 1.0, ["planted"] if name == "suite" else [], ["done"], rows.get(name, []))

    monkeypatch.setattr(gpu, "run_part", one_row)
    assert gpu.main(["--quick", "--out", str(tmp_path), "--commit", "abc"]) == 1
    record = harness.read(tmp_path / "gpu.json")
    assert [line["part"] for line in record["parts"]] == list(gpu.PARTS) and record["commit"] == "abc"
    assert record["machine"]["gpu"] == "emulated CUDA device"
    assert [row["part"] for row in record["rows"]] == ["losses", "cudnn"]
    assert "## Beside cuDNN" in (tmp_path / "gpu.md").read_text()
    assert gpu.main(["--quick", "--only", "losses,cudnn"]) == 0


# -- the tests as a part
# ----------------------------------------------------------------------------------------------
def suite_of(tmp_path: Path, source: str) -> part.Part:
    file = tmp_path / "test_planted.py"
    file.write_text(source)
    done = part.Part(None, 60, quick=True)
    suite.run_tests(done, [*suite.command([str(file)]), "--rootdir", str(tmp_path)], suite.environment())
    return done


def test_failures_of_the_suite_are_kept_by_name(tmp_path):
    done = suite_of(
        tmp_path,
        "import pytest\n"
        "@pytest.mark.parametrize('device', ['cpu', 'cuda'])\n"
        "@pytest.mark.parametrize('right', [True, False])\n"
        "def test_planted(device, right): assert right and device == 'cuda'\n"
        "def test_cuda(): assert 0\n",
    )
    (row,) = done.rows
    assert (row["exit"], row["passed"], row["failed"], row["deselected"]) == ("1", 1, 1, 3)
    assert len(done.failures) == 1 and "test_planted.py::test_planted[False-cuda]" in done.failures[0]
    assert "1 failed, 1 passed" in done.notes[0]


ALL_SKIPPED = (
    "import pytest\n@pytest.mark.parametrize('device', ['cuda'])\ndef test_it(device): pytest.skip('no oracle')\n"
)


@pytest.mark.parametrize(
    "source", [ALL_SKIPPED, "def test_cuda(): pass\n", "import nowhere_to_be_found\n", "syntax error\n"]
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


def test_the_suite_takes_the_tests_of_one_device_alone(monkeypatch):
    monkeypatch.setenv("CI", "true")
    environment = suite.environment()
    assert environment["GPULSTM_TEST_DEVICES"] == "cuda" and "CI" not in environment
    files = ["tests/test_recurrent.py", "tests/test_emulated_cuda.py"]
    done = subprocess.run(
        [*suite.command(files), "--collect-only"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    names = [line for line in done.stdout.splitlines() if "::" in line]
    assert len(names) > 20, done.stdout + done.stderr
    assert all(re.search(r"[\[-]cuda[\]-]", name) and "test_recurrent" in name for name in names)


# -- the losses as a part
# -------------------------------------------------------------------------------------------------
def test_losses_that_differ_by_rounding_agree_and_others_do_not(monkeypatch):
    exact = [4.0, 3.0, 2.0]
    rows = losses.rows_of([4.0000001, 3.0, 2.0], [4.0, 3.00001, 2.0], exact)
    assert rows[0]["allowed"] == losses.FLOOR and rows[1]["allowed"] == pytest.approx(4 * 1e-5 / 3 + losses.FLOOR)
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


# -- cuDNN as a part
# ------------------------------------------------------------------------------------------------------
def test_lines_beside_cudnn():
    ours = sequence_row("gpulstm", 4.0, gpu=3.0, gpu_speed=2.0)
    rows = [ours, sequence_row("torch", 8.0, gpu=6.0), sequence_row("torch graph", 2.0, gpu=1.5)]
    rows += [sequence_row(f"gpulstm {path}", 1.0, gpu=gpu) for path, gpu in (("fused", 1.25), ("persistent", 0.5))]
    (line,) = cudnn.side_by_side(rows)
    assert set(cudnn.COLUMNS) <= line.keys()
    assert (line["precision"], line["ours_gpu"], line["eager_gpu"], line["graph_gpu"]) == (
        "tf32",
        3.0,
        6.0,
        1.5,
    )
    assert (line["fused_gpu"], line["persistent_gpu"]) == (1.25, 0.5)
    assert (line["speed"], line["graph_speed"], line["ours_us"]) == (2.0, 0.5, 500.0)
    other = sequence_row("gpulstm", 4.0, gpu=3.0) | {"B": 9}
    stacked = sequence_row("gpulstm", 4.0, gpu=3.0, shape=dataclasses.replace(SHAPE, layers=2, directions=2))
    lines = cudnn.side_by_side([*rows, other, stacked])
    assert len(lines) == 3 and (lines[2]["layers"], lines[2]["directions"]) == (2, 2)
    assert "eager_gpu" not in lines[2]


def test_cudnn_shapes_are_those_planned_for():
    sizes = {str(shape) for shape in cudnn.SHAPES}
    assert {"1,512,128,128", "64,512,512,512", "16,1024,768,768", "256,256,1024,1024", "33,300,500,500"} <= sizes
    assert {"64,512,512,512,4,1", "64,512,512,512,1,2"} <= sizes
    assert set(cudnn.PRECISIONS) == {"float32", "tf32", "float16", "bfloat16"}


def test_gpulstm_on_the_emulated_gpu_where_torch_is_missing(emulated_gpu, monkeypatch, capsys):
    find = peers.find

    def without_torch(name, cell="lstm"):
        if name.startswith("torch"):
            raise ImportError("No module named 'torch'")
        return find(name)

    monkeypatch.setattr(peers, "find", without_torch)
    monkeypatch.setattr(cudnn, "Team", lambda threads: HereTeam())
    done = part.Part(None, 600, quick=True)
    cudnn.work(done, emulated_gpu)
    assert not done.failures
    assert len(done.rows) == len(cudnn.PRECISIONS) * len(MODES) * len(cudnn.QUICK_SHAPES) * 3
    assert {(row["layers"], row["directions"]) for row in done.rows} == {(1, 1), (2, 1), (1, 2)}
    assert {row["path"] for row in done.rows} == {"graph", "fused", "persistent"}
    assert all(row["gpu_p50_ms"] > 0 and row["device"] == "cuda" for row in done.rows)
    assert {row["dtype"] for row in done.rows} == {"float32", "float16", "bfloat16"}
    assert "torch is not here, so nothing is set beside it: No module named 'torch'" in done.notes


@pytest.mark.oracle
@pytest.mark.parametrize("shape", [SHAPE, dataclasses.replace(SHAPE, layers=2, directions=2)], ids=str)
def test_a_captured_torch_layer_gives_what_the_eager_one_gives(monkeypatch, shape):
    """The capture itself needs a GPU; here torch's part of it is exchanged for what does the work at once."""
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
    problem = Problem.of(shape)
    eager, captured = (kind(problem, "cpu", "float32") for kind in (torch_peer.Torch, torch_peer.TorchGraph))
    for mode in MODES:
        names = problem.names(mode)
        got, want = results_of(captured, mode, names), results_of(eager, mode, names)
        for name in names:
            np.testing.assert_array_equal(got[name], want[name])
    captured.training()
    assert not eager.inference()[0].requires_grad and eager.training()[0].requires_grad
    assert called.count("replay") == 3 and called.count("graph") == 4  # two side streams, two captures
    torch.set_num_threads(threads)


# -- the small measurements as a part
# ----------------------------------------------------------------------------------
@pytest.fixture
def emulated_gpu(emulated, monkeypatch):
    """The emulated GPU's Backend; its host is always ahead of it."""

    class Event(emulated.cuda.Event):
        done = False

    monkeypatch.setattr(emulated.cuda, "Event", Event)
    return device("cuda").backend


def test_kernels_are_compiled_before_the_rest(emulated_gpu, monkeypatch, capsys):
    texts = [text for text in info.kernel_texts() if text.title in ("adam", "dropout")]
    monkeypatch.setattr(info, "kernel_texts", lambda: texts)
    done = part.Part(None, 60, quick=False)
    warm.work(done, emulated_gpu)
    assert not done.failures and done.notes[0].startswith("8 kernels compiled")
    monkeypatch.setattr(info, "kernel_texts", lambda: [text._replace(defines=("ACC=nonsense",)) for text in texts])
    warm.work(done, emulated_gpu)
    assert len(done.failures) == 8 and "adam float32: CompileException" in done.failures[0]
    assert next(iter(gpu.PARTS)) == "warm"


def test_copy_launch_and_host_on_the_emulated_gpu(emulated_gpu):
    rows = [
        *hardware.copy(emulated_gpu, 1 << 12),
        *hardware.launches(emulated_gpu, 3, 4),
        *hardware.host(emulated_gpu, 2),
    ]  # fmt: skip
    assert [row["measurement"] for row in rows] == ["copy"] + ["launch"] * 3 + ["host"] * 5
    assert all(row["value"] > 0 and row["unit"] in ("GB/s", "µs") and row["how"] for row in rows)


def test_values_are_for_one_call_in_the_units_they_name(emulated_gpu, monkeypatch):
    monkeypatch.setattr(emulated_gpu.xp.cuda, "get_elapsed_time", lambda start, stop: 6.0)  # ms, whatever is measured
    monkeypatch.setattr(hardware, "host_seconds", lambda backend, call: 6e-3)
    factors = products.Factors(3, 8)
    copied, queued, launched, in_graph, *host = [
        *hardware.copy(emulated_gpu, 6_000_000),
        *hardware.launches(emulated_gpu, 3, 4),
        *hardware.host(emulated_gpu, 2),
        *products.product(emulated_gpu, factors, "float32", 5),
        *products.product_graph(emulated_gpu, factors, "float32", 6),
    ]
    assert (copied["value"], copied["unit"]) == (2.0, "GB/s")  # 6 MB read and 6 MB written in 6 ms
    assert [row["value"] for row in (queued, launched, in_graph)] == [2000.0, 1500.0, 1500.0]
    assert [row["value"] for row in host] == [3000.0] * 5 + [1200.0, 1000.0]


def test_a_copy_that_does_not_copy_is_not_timed(emulated_gpu, monkeypatch):
    monkeypatch.setattr(emulated_gpu.xp, "copyto", lambda target, source: target.fill(1))
    with pytest.raises(ValueError, match="not the source"):
        list(hardware.copy(emulated_gpu, 1 << 12))


def test_work_that_was_not_queued_in_time_is_not_counted(emulated_gpu, monkeypatch):
    late = iter([True, True, *[False] * 100])

    class Event(emulated_gpu.xp.cuda.Event):
        done = property(lambda self: next(late))

    monkeypatch.setattr(emulated_gpu.xp.cuda, "Event", Event)
    calls = []
    assert clock.queue_behind(emulated_gpu, lambda: calls.append(1), 3) > 0
    assert len(calls) == 3 * (2 + clock.TAKES + 1)
    monkeypatch.setattr(clock, "OCCUPY", clock.OCCUPY.replace("k < steps", "k < 1"))
    Event.done = True
    with pytest.raises(RuntimeError, match="never filled"):
        clock.queue_behind(emulated_gpu, lambda: None, 3)


@pytest.mark.parametrize("dtype", hardware.DTYPES)
def test_products_on_the_emulated_gpu(emulated_gpu, dtype):
    factors = products.Factors(3, 8)
    (row,) = products.product(emulated_gpu, factors, dtype, 2)
    assert (row["dtype"], row["B"], row["H"], row["unit"]) == (dtype, 3, 8, "µs") and row["value"] > 0
    factors.product[1, 2] += 1
    with pytest.raises(ValueError, match="the product is off"):
        list(products.product(emulated_gpu, factors, dtype, 2))


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_products_in_a_graph_on_the_emulated_gpu(emulated_gpu, precision):
    (row,) = products.product_graph(emulated_gpu, products.Factors(3, 8), precision, 2)
    assert (row["dtype"], row["B"], row["H"]) == (precision, 3, 8) and row["value"] > 0


def test_a_graph_that_computes_nothing_is_not_timed(emulated_gpu, monkeypatch):
    class Stream(emulated_gpu.xp.cuda.Stream):
        def end_capture(self):
            super().end_capture()
            return types.SimpleNamespace(launch=lambda stream: None)

    monkeypatch.setattr(emulated_gpu.xp.cuda, "Stream", Stream)
    with pytest.raises(ValueError, match="the product is off"):
        list(products.product_graph(emulated_gpu, products.Factors(3, 8), "float32", 2))


ROWS = 1 + 3 + 5 + len(hardware.DTYPES) + len((*hardware.DTYPES, "tf32"))  # of hardware with --quick


def test_all_small_measurements_on_the_emulated_gpu(emulated_gpu, tmp_path, capsys):
    assert part.main(["--quick", "--out", str(tmp_path / "hardware.json")], "hardware", hardware.work) == 0
    record = harness.read(tmp_path / "hardware.json")
    assert record["failures"] == [] and len(record["rows"]) == ROWS


def test_a_measurement_that_breaks_costs_no_other(emulated_gpu, monkeypatch, capsys):
    monkeypatch.setattr(hardware, "copy", lambda *arguments: 1 / 0)
    done = part.Part(None, 60, quick=True)
    hardware.work(done, emulated_gpu)
    assert done.failures[0].startswith("copy: ZeroDivisionError") and len(done.rows) == ROWS - 1
    late = part.Part(None, -1, quick=True)
    hardware.work(late, emulated_gpu)
    assert not late.rows and "no time was left" in late.failures[0]


def test_the_types_have_cudas_numbers(emulated):
    runtime = emulated.cuda.runtime
    assert {dtype: kind for dtype, (kind, _, _) in cublas._TYPES.items()} == {
        "float32": runtime.CUDA_R_32F, "float64": runtime.CUDA_R_64F,
        "float16": runtime.CUDA_R_16F, "bfloat16": runtime.CUDA_R_16BF,
    }  # fmt: skip

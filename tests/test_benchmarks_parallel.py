"""Several processes on one machine: what benchmarks.parallel measures, and the predictions beside it."""

import itertools
import json
import re
import subprocess

import pytest

from benchmarks import cost_links, cost_nodes, cost_nodes_report, harness, model, parallel
from benchmarks.team import WorkerFailed
from tests.conftest import require

pytestmark = pytest.mark.slow  # harnesses that no version of a dependency changes

KB, MB = 1 << 10, 1 << 20


def results(folder):
    """A result file as benchmarks.parallel writes it: sums of 50 µs and then 2 GB/s, and training at 1.9 times."""
    rows = [
        {
            "measurement": "all-reduce",
            "processes": 2,
            "bytes": size,
            "p50_ms": 1e-3 * (50 + size / 2e3),
            "gb_per_second": size / (50 + size / 2e3) / 1e3,
        }
        for size in parallel.SIZES
    ]
    for processes, threads, speed in ((1, 1, 1.0), (2, 1, 1.9), (1, 2, 1.5)):
        rows.append({
            "measurement": "training", "processes": processes, "threads": threads, "batch": 64, "window": 64,
            "gradient_bytes": 5 * 10**6, "tokens_per_second": 4000 * speed, "speed": speed,
        })  # fmt: skip
    harness.write_json(folder / "parallel-cpu.json", {"machine": {"cores": 2, "processor": "P"}, "rows": rows})
    return rows


def test_the_two_constants_are_found_again(tmp_path):
    found = parallel.fitted(results(tmp_path))
    assert found == {"latency_us": pytest.approx(50, rel=0.05), "gb_per_second": pytest.approx(2, rel=0.05)}


def test_predictions_of_processes_stand_beside_what_was_measured(tmp_path):
    results(tmp_path)
    text, rows = cost_nodes_report.processes(cost_nodes_report.read(tmp_path))
    largest = next(row for row in rows if row.get("kb") == 64 * KB)
    assert largest["measured_ms"] == pytest.approx(0.05 + 64 * MB / 2e6)
    assert largest["predicted_ms"] == pytest.approx(1e-3 * cost_nodes.shared_all_reduce(64 * MB, 2))
    one, two = (row for row in rows if "speed" in row)  # threads are no processes
    assert one["processes"] == one["speed"] == 1 and two["processes"] == 2
    step_us = 64 * 64 / 4000 * 1e6
    assert two["speed"] == pytest.approx(step_us / (step_us / 2 + cost_nodes.shared_all_reduce(5 * 10**6, 2)))
    assert 1.9 < two["speed"] < 2 and two["predicted"] == pytest.approx(4000 * two["speed"])
    assert re.search(r"^ +64 +2 +[\d,]+ +7,600 +[\d.]+ +1\.90$", text, re.M) and "Measured on 2 cores, P." in text


def test_processes_that_share_a_machine():
    latency, bandwidth = cost_links.SHARED.latency.value, cost_links.SHARED.bandwidth.value
    assert cost_nodes.shared_all_reduce(10**6, 1) == 0
    assert cost_nodes.shared_all_reduce(10**6, 2) == pytest.approx(latency + 1e6 / (bandwidth * 1e3))
    assert cost_nodes.shared_all_reduce(10**6, 4) == pytest.approx(2 * latency + 1.5e6 / (bandwidth * 1e3))
    assert cost_nodes.speed_of_processes(1e6, 10**6, 1) == 1


@pytest.mark.parametrize("text", ["{", "[]", '{"rows": []}', '{"machine": {}, "rows": [1]}'])
def test_a_result_file_that_is_none_is_named(text, tmp_path, capsys):
    (tmp_path / "parallel-cpu.json").write_text(text)
    with pytest.raises(SystemExit):
        model.main(["--nodes", "1", "--results", str(tmp_path)])
    assert "parallel-cpu.json: expected a result file of benchmarks.parallel" in capsys.readouterr().err


# -- the benchmark
# ------------------------------------------------------------------------------------------------


def test_several_processes_are_measured(tmp_path, capsys):
    require("mpi4py")
    assert parallel.main(["--quick", "--out", str(tmp_path)]) == 0
    record = harness.read(tmp_path / "parallel-cpu.json")
    summed, trained = (
        [row for row in record["rows"] if row["measurement"] == what] for what in ("all-reduce", "training")
    )
    assert [(row["processes"], row["bytes"]) for row in summed] == [*itertools.product((2, 4), parallel.SIZES[:3])]
    assert all(row["samples"] == 3 and 0 < row["p20_ms"] <= row["p50_ms"] <= row["p80_ms"] for row in summed)
    assert [(row["processes"], row["threads"]) for row in trained] == [*parallel.WAYS]
    alone, together, _ = trained
    assert all(row["tokens_per_second"] > 0 for row in trained) and alone["speed"] == 1
    assert record["ratios"] == {"4": together["speed"]}
    assert together["speed"] == pytest.approx(together["tokens_per_second"] / alone["tokens_per_second"], rel=1e-4)
    assert {"latency_us", "gb_per_second"} == record["fit"].keys() and record["versions"]["mpi4py"]
    markdown = (tmp_path / "parallel-cpu.md").read_text()
    assert markdown in capsys.readouterr().out and f"{together['speed']:.2f} times with a batch of 4" in markdown
    text, _ = cost_nodes_report.processes(cost_nodes_report.read(tmp_path))
    assert text.count("  measured") == 3


def test_processes_are_started_with_their_threads(monkeypatch):
    started = []

    def run(command, **options):
        started.append((command, {name: options["env"][name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}))
        return subprocess.CompletedProcess(command, 0, 'a line of the lab\n{"answer": 1}\n', "")

    monkeypatch.setattr(parallel.subprocess, "run", run)
    monkeypatch.setattr(parallel, "launcher", lambda: "/bin/mpiexec")
    assert parallel.ask(1, 2, do="x") == parallel.ask(2, 1, do="x") == {"answer": 1}
    (alone, two_threads), (together, one_thread) = started
    assert "mpiexec" not in alone[0] and set(two_threads.values()) == {"2"}
    assert together[:3] == ["/bin/mpiexec", "-n", "2"] and set(one_thread.values()) == {"1"}
    assert json.loads(together[-1]) == {"do": "x"}


def test_what_cannot_be_measured_is_said(monkeypatch, capsys):
    monkeypatch.setattr(parallel, "launcher", lambda: None)
    assert parallel.main(["--quick"]) == 2 and "several processes need mpi4py" in capsys.readouterr().err
    monkeypatch.undo()
    require("mpi4py")
    with pytest.raises(WorkerFailed, match=r"(?s)what by 2 processes: exit code \d+: .*KeyError: 'what'"):
        parallel.ask(2, 1, do="what")


def test_the_speed_is_that_of_the_medians(monkeypatch):
    speeds = {
        way: iter(values) for way, values in zip(parallel.WAYS, ([10, 30, 20], [50, 40, 30], [9, 9, 99]), strict=True)
    }

    def answer(processes, threads, **request):
        assert request["do"] == "train" and request["characters"] == 7
        return {"tokens_per_second": next(speeds[processes, threads]), "gradient_bytes": 5}

    monkeypatch.setattr(parallel, "ask", answer)
    rows = parallel.training({"hidden": 1, "batch": 2, "window": 3}, 7, 3)
    assert [row["speed"] for row in rows] == [1, 2, 0.45]
    assert [parallel.speed_of(rows, way, 2) for way in parallel.WAYS] == [1, 2, 0.45]
    assert [row["tokens_per_second"] for row in rows] == [20, 40, 9]

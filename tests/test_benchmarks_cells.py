"""The benchmark of the cells: both sides compute the same, what disagrees is refused, and it leaves its files."""

import json
import re

import numpy as np
import pytest

from benchmarks import cells, harness
from benchmarks.cell_problem import FORMS, CellProblem
from benchmarks.comparison import Comparison, show
from benchmarks.problem import Shape, disagreement
from tests.benchmark_fakes import HereTeam

SHAPE = Shape(3, 6, 5, 4)


@pytest.mark.oracle
@pytest.mark.parametrize("cell", FORMS)
def test_gpulstm_and_torch_compute_the_same(cell):
    from benchmarks.cell_peers import GpulstmCell, GpulstmTorchCell, TorchCell

    problem = CellProblem(SHAPE, cell)
    for mode in ("inference", "training"):
        names = problem.names(mode)
        ours, inside, exact, theirs = (
            dict(zip(names, peer.host(getattr(peer, mode)()), strict=True))
            for peer in (
                GpulstmCell(problem, "cpu", "float64"),
                GpulstmTorchCell(problem, "cpu", "float64"),
                TorchCell(problem, "cpu", "float64"),
                TorchCell(problem, "cpu", "float32"),
            )
        )
        assert disagreement(ours, exact, names)[0] < 1e-10
        assert disagreement(inside, exact, names)[0] < 1e-10
        assert disagreement(theirs, exact, names)[0] < 1e-5
        spoiled = {**ours, names[-1]: ours[names[-1]] * 1.01}
        assert disagreement(spoiled, exact, names)[0] > 1e-3


@pytest.mark.oracle
def test_a_cell_that_disagrees_is_refused(monkeypatch):
    from benchmarks import cell_peers

    monkeypatch.setitem(cell_peers.LAYERS, "coupled", ("LSTM", {}))
    compared = Comparison("cpu", ("gpulstm", "torch"), rounds=1, seconds=0.001, cell="coupled", modes=("training",))
    compared.run(HereTeam(), [SHAPE], ["float32"], show)
    assert [row["implementation"] for row in compared.rows] == ["torch"] and compared.refused


@pytest.mark.oracle
def test_noise_is_drawn_once_what_is_computed_has_been_compared():
    from benchmarks.cell_peers import GpulstmCell, GpulstmTorchCell, TorchCell

    for kind in (GpulstmCell, GpulstmTorchCell, TorchCell):
        peer = kind(CellProblem(SHAPE, "lstm, zoneout"), "cpu", "float32")
        still = [peer.host(peer.inference())[0] for _ in range(2)]
        peer.timed()
        moving = [peer.host(peer.inference())[0] for _ in range(2)]
        assert (still[0] == still[1]).all() and not (moving[0] == moving[1]).all()


@pytest.mark.oracle
def test_the_command_leaves_rows_a_task_and_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cells, "Team", lambda threads: HereTeam())
    given = ["--quick", "--cells", "lstm", "gru", "mingru", "--shapes", "2,3,4,5", "--out", str(tmp_path)]
    given += ["--peers", "torch,gpulstm.torch"]
    assert cells.main(given) == 0
    record = json.loads((tmp_path / "cells-cpu.json").read_text())
    assert {(row["cell"], row["implementation"]) for row in record["rows"]} == {
        (cell, name) for cell in ("gru", "mingru") for name in ("gpulstm", "torch", "gpulstm.torch")
    }
    assert [row["cell"] for row in record["task"]] == ["lstm", "gru", "mingru"]
    assert all(np.isfinite(row["val_loss"]) and row["parameters"] > 0 for row in record["task"])
    text = (tmp_path / "cells-cpu.md").read_text()
    for name in ("gru, training", "gru, gpulstm.torch, inference"):
        assert re.search(rf"^{name}, \d threads?, float32: speed beside torch's fused layer", text, re.M)
    assert "beside gpulstm's LSTM" in text and "| mingru |" in text
    assert text in capsys.readouterr().out
    assert harness.read(tmp_path / "cells-cpu.json")["refused"] == []


@pytest.mark.oracle
def test_some_cells_measured_again_leave_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cells, "Team", lambda threads: HereTeam())
    quick = ["--quick", "--shapes", "2,3,4,5", "--out", str(tmp_path)]
    with pytest.raises(SystemExit):
        cells.main([*quick, "--update"])
    assert "--update: expected a folder with cells-cpu.json" in capsys.readouterr().err
    cells.main([*quick, "--cells", "gru", "mingru"])
    first = harness.read(tmp_path / "cells-cpu.json")
    for row in first["rows"]:
        del row["threads"]  # as in files of before rows said it
    harness.write_json(tmp_path / "cells-cpu.json", first)
    cells.main([*quick, "--cells", "mingru", "--no-task", "--update"])
    second = harness.read(tmp_path / "cells-cpu.json")
    assert second["task"] == first["task"]
    before, after = ([r for r in record["rows"] if r["cell"] == "gru"] for record in (first, second))
    assert before == after != [] and len(second["rows"]) == len(first["rows"])
    assert [run["command"] for run in second["earlier"]] == [first["command"]] != [second["command"]]
    assert first["command"] in (tmp_path / "cells-cpu.md").read_text()


def test_a_cell_that_does_not_exist_is_named(capsys):
    with pytest.raises(SystemExit):
        cells.main(["--cells", "lstn"])
    assert "invalid choice: 'lstn'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cells.main(["--peers", "torch,keras"])
    assert "--peers: expected some of torch, gpulstm.torch, got keras" in capsys.readouterr().err


def test_the_readme_shows_what_was_measured():
    record = harness.read(harness.RESULTS / "cells-cpu.json")
    table = cells.choice(record["task"], [*cells.lstm_rows(harness.RESULTS, "cpu"), *record["rows"]])
    assert table in (harness.RESULTS.parents[1] / "README.md").read_text(encoding="utf-8")
    assert "| coupled | 247,296 |" in table and table.count("\n") == 2 + len(["lstm", *cells.FORMS]) - len(
        cells.NO_TASK
    )

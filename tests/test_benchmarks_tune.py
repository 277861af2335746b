"""benchmarks.tune: it times what agrees, writes the table that "auto" follows, and keeps what that has."""

import itertools
import json

import numpy as np
import pytest

import gpulstm as gl
from benchmarks import peers, tune
from gpulstm import DeviceError
from gpulstm.errors import NoKernel
from gpulstm.functional import path_table
from gpulstm.functional.path_table import Case
from tests.conftest import GPUS

pytestmark = pytest.mark.slow  # a harness that no version of a dependency changes
on_gpus = pytest.mark.parametrize("device", GPUS, indirect=True)


def rows(folder) -> list[dict]:
    (file,) = folder.iterdir()
    return json.loads(file.read_text())["rows"]


@on_gpus
def test_what_it_writes_is_what_auto_follows(device, tmp_path, monkeypatch, capsys):
    assert tune.main(["--quick", "--out", str(tmp_path)]) == 0
    (row,) = rows(tmp_path)
    assert {key: row[key] for key in Case._fields[:6]} == {
        "cell": "lstm", "dtype": "float32", "precision": "ieee", "T": 4, "B": 2, "H": 16,
    }  # fmt: skip
    assert set(row["us_per_step"]) == set(path_table.PATHS)
    assert "lstm float32 T=4 B=2 H=16: graph " in capsys.readouterr().out
    monkeypatch.setattr(path_table, "cache_folder", lambda: tmp_path)
    layer = gl.LSTM(16, 16, device=device.name)
    with gl.explain() as runs, gl.no_grad():
        for _ in range(2):
            layer(np.ones((4, 2, 16), np.float32))
    taken = min(row["us_per_step"], key=row["us_per_step"].__getitem__)
    if row["us_per_step"][taken] < 0.95 * row["us_per_step"]["graph"]:
        assert runs[1].path == taken
    assert runs[1].measured.startswith(f"measured on this GPU at B=2 H=16, µs a step: {taken} ")


@on_gpus
def test_the_time_is_that_of_one_step(device, monkeypatch, tmp_path):
    took = {"graph": 8.0, "fused": 4.0, "persistent": 2.0}  # ms
    paths = []
    training = peers.Gpulstm.training
    monkeypatch.setattr(peers.Gpulstm, "training", lambda self: paths.append(self.layer.path) or training(self))

    def gpu_ms(backend, call):
        paths.clear()
        call()
        return len(paths) * took[paths[0]]

    monkeypatch.setattr(tune, "gpu_ms", gpu_ms)
    monkeypatch.setattr(tune, "SECONDS", 0.01)
    tuning = tune.Tuning(device, takes=2, seconds=0.01)
    tuning.measure("lstm", "float32", tune.Shape(2, 4, 16, 16))
    (case,) = tuning.cases.values()
    assert case.us_per_step == {"graph": 2000, "fused": 1000, "persistent": 500}


@on_gpus
@pytest.mark.parametrize("cell", ["gru", "rnn"])
@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_other_cells_and_precisions(device, cell, precision, capsys):
    tuning = tune.Tuning(device, 1, 0.0)
    tuning.measure(cell, precision, tune.Shape(2, 3, 8, 8))
    ((*key, times),) = tuning.cases.values()
    assert key == [cell, "float32", "tf32" if precision == "tf32" else "ieee", 3, 2, 8]
    assert set(times) == set(path_table.PATHS) and not tuning.refused


@on_gpus
@pytest.mark.parametrize("path", path_table.PATHS)
def test_what_does_not_agree_is_refused_and_not_timed(device, tmp_path, monkeypatch, capsys, path):
    training = peers.Gpulstm.training

    def wrong(self):
        *others, last = training(self)
        return *others, 2 * last if self.layer.path == path else last

    monkeypatch.setattr(peers.Gpulstm, "training", wrong)
    assert tune.main(["--quick", "--out", str(tmp_path)]) == 1
    assert f"refused: lstm float32 2,4,16,16 {path}: db_hh is off by 1" in capsys.readouterr().out
    got = rows(tmp_path)
    assert got == [] if path == "graph" else path not in got[0]["us_per_step"]


@on_gpus
def test_what_cannot_serve_is_left_out_and_what_breaks_is_named(device, monkeypatch, capsys):
    def training(self):
        if self.layer.path == "persistent":
            raise NoKernel("too many blocks")
        if self.layer.path == "fused":
            raise MemoryError("out of it")
        return before(self)

    before = peers.Gpulstm.training
    monkeypatch.setattr(peers.Gpulstm, "training", training)
    assert tune.main(["--quick"]) == 1
    said = capsys.readouterr().out
    assert "µs a step, too many blocks\n" in said and "1 cases in no file" in said
    assert "refused: lstm float32 2,4,16,16 fused: MemoryError: out of it" in said


@on_gpus
def test_a_table_keeps_what_is_not_measured_again(device, tmp_path, capsys):
    file = path_table.file_of(device.gpu, tmp_path)
    other, again = (Case("lstm", "float32", "ieee", 4, B, 16, {"graph": 1.0}) for B in (1, 2))
    file.write_text(json.dumps(path_table.contents(device.gpu, [other, again])))
    assert tune.main(["--quick", "--out", str(tmp_path)]) == 0
    got = rows(tmp_path)
    assert got[0] == other._asdict() and got[1] != again._asdict() and len(got) == 2
    file.write_text("{")
    assert tune.main(["--quick", "--out", str(tmp_path)]) == 0
    assert "takes the place of a table that cannot be read" in capsys.readouterr().out and len(rows(tmp_path)) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            ["--cells", "layer_norm"],
            "--cells: expected some of lstm, gru, rnn, peephole, coupled, slstm, got layer_norm",
        ),
        (["--precisions", "float64"], "--precisions: expected some of float32, tf32, bfloat16, float16, got float64"),
        (["--batch", "0"], "--batch: invalid numbers value: '0'"),
        (["--hidden", "x"], "--hidden: invalid numbers value: 'x'"),
    ],
)
def test_wrong_arguments_are_named(given, said, capsys):
    with pytest.raises(SystemExit) as ended:
        tune.main(given)
    assert ended.value.code == 2 and said in capsys.readouterr().err.replace("\n", " ")


def test_without_a_gpu_the_reason_is_said(monkeypatch, capsys):
    def refuse(name):
        raise DeviceError("no NVIDIA driver was found")

    monkeypatch.setattr(gl, "device", refuse)
    assert tune.main(["--quick"]) == 2 and "no NVIDIA driver was found" in capsys.readouterr().err


def test_the_usual_sizes_leave_no_gap():
    options = tune.arguments(["--out", "somewhere"])
    for sizes in (options.batch, options.hidden):
        assert all(larger <= 4 * size for size, larger in itertools.pairwise(sizes))

"""functional/path_table.py: "auto" on a GPU takes what was measured there, and ignores a table that is wrong."""

import dataclasses
import json
import os

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.backend import CPU
from gpulstm.building import kernel_folder
from gpulstm.cells import Kernels, layer_norm, lstm
from gpulstm.dtypes import as_dtype
from gpulstm.errors import FormatError
from gpulstm.functional import path_table, recurrent
from gpulstm.functional.path_table import Case, Table
from tests.conftest import GPUS

on_gpus = pytest.mark.parametrize("device", GPUS, indirect=True)
T, B, D, H = 4, 3, 2, 5
CASE = Case("lstm", "float32", "ieee", T, B, H, {"graph": 10.0, "fused": 4.0, "persistent": 2.0})


@pytest.fixture
def write(device, tmp_path, monkeypatch):
    """Writes the table of the device, or the text that lies in its place; gives the file."""
    monkeypatch.setattr(path_table, "cache_folder", lambda: tmp_path)
    file = path_table.file_of(device.gpu)

    def written(*cases: Case, text: str | None = None, **changes) -> object:
        file.write_text(json.dumps(path_table.contents(device.gpu, cases) | changes) if text is None else text)
        device.path_table = None
        return file

    return written


def given(device, cell=lstm.CELL, dtype="float32", P=None):
    """The arguments of ``recurrent``, from x on."""
    rng, G, number = np.random.default_rng(1), len(cell.gates), as_dtype(dtype)
    shapes = {"w_ih": (G * H, D), "w_hh": (G * H, P or H), "b_ih": (G * H,), "b_hh": (G * H,)}
    shapes |= {"w_hr": (P, H)} if P else {}
    shapes = {name: shape for name, shape in shapes.items() if cell.biases or name not in ("b_ih", "b_hh")}
    shapes |= {form.name: (form.blocks * H,) for form in cell.extra}
    drawn = {name: rng.standard_normal(shape) / 2 for name, shape in shapes.items()}
    x = rng.standard_normal((T, B, D))
    arrays = [x, *(drawn.get(name) for name in cell.arguments)]
    return [None if a is None else device.asarray(a.astype(number)) for a in arrays]


def run(device, path="auto", times=1, cell=lstm.CELL, arguments=None, **modes):
    """(the last of so many Runs, its outputs and gradients on the host)."""
    arguments = arguments or given(device, cell)
    with gl.explain() as runs:
        for _ in range(times):
            outputs, pullback = recurrent(*arguments, cell=cell, path=path, **modes)
    gradients = pullback(*(device.xp.ones(y.shape, y.dtype) for y in outputs))
    return runs[-1], [None if a is None else device.to_numpy(a) for a in (*outputs, *gradients)]


def same(one, other):
    return all((a is None and b is None) or a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


# -- what is measured is taken ----------------------------------------
@on_gpus
@pytest.mark.parametrize(
    ("times", "taken"),
    [
        ({"graph": 10.0, "fused": 5.0, "persistent": 8.0}, "fused"),
        ({"graph": 10.0, "fused": 8.0, "persistent": 5.0}, "persistent"),
        ({"graph": 10.0, "persistent": 5.0}, "persistent"),
        ({"graph": 5.0, "fused": 8.0, "persistent": 10.0}, "graph"),
        ({"graph": 10.0, "fused": 9.6}, "graph"),  # a difference that is noise
        ({"graph": 10.0}, "graph"),
    ],
)
def test_auto_takes_what_was_the_fastest(device, write, times, taken):
    write(CASE._replace(us_per_step=times))
    got, results = run(device, times=3)
    assert got.path == taken
    said = ", ".join(f"{path} {us:.3g}" for path, us in sorted(times.items(), key=lambda item: item[1]))
    assert got.measured == f"measured on this GPU at B=3 H=5, µs a step: {said}"
    assert str(got).endswith(f"{taken} ({got.measured})")
    assert same(results, run(device, taken, times=3)[1])
    for mine, wanted in zip(results, run(device, "reference")[1], strict=True):
        if wanted is not None:
            np.testing.assert_allclose(mine, wanted, rtol=1e-4, atol=1e-5)


@on_gpus
def test_layers_learn_on_the_path_that_was_measured(device, write):
    write(CASE)
    layer = gl.LSTM(D, H, num_layers=2, bidirectional=True, device=device.name)
    x = gl.tensor(np.ones((T, B, D), np.float32), device=device.name)
    gradients = {}
    for path in ("reference", "auto"):
        layer.path = path
        layer.zero_grad()
        with gl.explain() as runs:
            (layer(x)[0] ** 2).sum().backward()
        gradients[path] = [device.to_numpy(p.grad) for p in layer.parameters()]
    assert [each.path for each in runs] == ["persistent"] * 4
    for mine, wanted in zip(gradients["auto"], gradients["reference"], strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-4, atol=1e-5)


@on_gpus
def test_without_a_table_everything_is_as_before(device, write):
    for asked in ("auto", "fused"):
        got, _ = run(device, asked)
        assert got.path == {"auto": "kernel"}.get(asked, asked) and got.measured == ""
    write(CASE)
    got, _ = run(device, "kernel")
    assert got.path == "kernel" and got.measured == ""


@on_gpus
def test_a_path_that_cannot_serve_leaves_the_case_to_the_next(device, write):
    device.kernels.__dict__["multiprocessors"] = 0
    write(CASE)
    got, _ = run(device, times=2)
    del device.kernels.__dict__["multiprocessors"]
    assert got.path == "fused" and "fused 4" in got.measured
    assert got.why_not_faster.startswith(
        "path 'persistent': it takes at most 0 blocks, which run at once on this device"
    )


@on_gpus
def test_a_case_that_neither_serves_is_left_to_the_graph(device, write):
    write(CASE, CASE._replace(cell="layer_norm"))
    normed = layer_norm.CELL
    got, _ = run(device, times=2, cell=normed, arguments=given(device, normed))
    assert got.path == "graph" and "the layer_norm has norms over whole rows" in got.why_not_faster
    got, _ = run(device, times=2, arguments=given(device, P=3))
    assert got.path == "graph" and "h is projected" in got.why_not_faster


@on_gpus
def test_a_cell_of_the_users_own_is_not_the_librarys(device, write, tmp_path):
    write(CASE)
    file = tmp_path / "own.cuh"
    file.write_text((kernel_folder() / "cells" / "lstm.cuh").read_text(encoding="utf-8"), encoding="utf-8")
    own = dataclasses.replace(lstm.CELL, kernel=Kernels(str(file), "Lstm"))
    got, _ = run(device, cell=own, arguments=given(device))
    assert got.path == "kernel" and got.measured == SILENT


@on_gpus
def test_each_type_and_precision_has_cases_of_its_own(device, write):
    write(
        CASE,
        CASE._replace(precision="tf32", us_per_step={"graph": 2.0, "fused": 1.0}),
        CASE._replace(dtype="float16", us_per_step={"graph": 2.0, "fused": 1.0}),
    )
    assert run(device)[0].path == "persistent"
    with gl.precision("tf32"):
        assert run(device)[0].path == "fused"
        assert run(device, arguments=given(device, dtype="float16"))[0].path == "fused"
    with gl.precision("bf16"):
        assert run(device)[0].measured == SILENT
    assert run(device, arguments=given(device, dtype="float64"))[0].measured == SILENT


@on_gpus
def test_steps_that_are_recomputed_count_by_their_chunks(device, write):
    write(CASE)
    assert run(device, recompute=True)[0].path == "persistent"  # two steps at once, four measured
    write(CASE._replace(T=5))
    got, _ = run(device, recompute=True)
    assert got.path == "kernel" and got.measured == SILENT


@on_gpus
def test_a_table_is_read_once(device, write, monkeypatch):
    file = write(CASE)
    run(device)
    file.unlink()
    monkeypatch.setattr(Table, "_nearest", None)  # nor is the case looked for again
    assert run(device)[0].path == "persistent"


# -- which case speaks for which sequence ----------------------------------------
SILENT = "the table of measured paths has no case near this one"
FLOAT32 = np.dtype(np.float32)


@pytest.mark.parametrize(
    ("sizes", "speaks"),
    [
        ((64, 16, 256), True), ((64, 8, 128), True), ((64, 32, 512), True), ((32, 16, 256), True),
        ((10000, 16, 256), True), ((64, 7, 256), False), ((64, 33, 256), False), ((64, 16, 127), False),
        ((64, 16, 513), False), ((31, 16, 256), False), ((64, 0, 256), False),
    ],
)  # fmt: skip
def test_a_case_speaks_within_a_factor_of_two(sizes, speaks):
    table = Table([CASE._replace(T=64, B=16, H=256)])
    answer = table.answer(lstm.CELL, FLOAT32, *sizes)
    assert answer.paths == (("persistent", "fused") if speaks else ()) and (answer.words == SILENT) is not speaks


def test_the_nearest_case_speaks_and_of_its_size_the_longest():
    cases = [
        CASE._replace(B=16, H=256, us_per_step={"graph": 3.0, "fused": 1.0}),
        CASE._replace(B=32, H=256, us_per_step={"graph": 3.0, "persistent": 1.0}),
        CASE._replace(B=16, H=256, T=40, us_per_step={"graph": 1.0, "fused": 2.0}),
    ]
    table = Table(cases)
    for sizes, want in (
        ((4, 20, 256), ("fused",)), ((4, 24, 256), ("persistent",)), ((4, 24, 500), ("persistent",)),
        ((20, 16, 256), ()), ((19, 16, 256), ("fused",)),
    ):  # fmt: skip
        assert table.answer(lstm.CELL, FLOAT32, *sizes).paths == want, sizes


def test_a_file_is_named_by_the_gpu():
    assert path_table.file_of("NVIDIA H200").name == "paths-nvidia-h200.json"
    assert path_table.file_of("../../etc/passwd").name == "paths-etc-passwd.json"


# -- a table that is wrong ----------------------------------------
def changed(**changes) -> dict:
    return {"rows": [CASE._asdict() | changes]}


WRONG = {
    "format 2": ({"format": 2}, "expected format 1, got 2; run benchmarks.tune"),
    "no format": ({"format": None}, "expected format 1, got None"),
    "another GPU": ({"gpu": "NVIDIA H200"}, "expected a table of {gpu}, got one of 'NVIDIA H200'"),
    "no rows": ({"rows": None}, "expected a table with rows, as written by benchmarks.tune"),
    "a row that is none": ({"rows": [CASE._asdict(), 3]}, "row 1: expected an object, got 3"),
    "no cell": (changed(cell=None), "row 0: cell: expected a name, got None"),
    "B below 1": (changed(B=0), "row 0: B: expected a whole number above 0, got 0"),
    "H no whole number": (changed(H=2.5), "row 0: H: expected a whole number above 0, got 2.5"),
    "T true": (changed(T=True), "row 0: T: expected a whole number above 0, got True"),
    "no graph": (changed(us_per_step={"fused": 1.0}), "row 0: us_per_step: expected a time above 0 for graph"),
    "a path of no table": (changed(us_per_step={"graph": 1.0, "reference": 0.5}), "row 0: us_per_step: expected"),
    "no time": (changed(us_per_step={"graph": 1.0, "fused": float("nan")}), "row 0: us_per_step: expected"),
    "a list of times": (changed(us_per_step=[1.0]), "row 0: us_per_step: expected"),
}
NO_JSON = {
    "cut short": '{"format": 1, "gpu"',
    "deep": "[" * 100000,
    "empty": "",
    "bytes": "\x00\x01",
    "digits": "9" * 10000,
}


def ignored(device, because: str) -> None:
    got, results = run(device, times=2)
    assert got.path == "graph" and because.format(gpu=device.gpu) in got.measured
    assert got.measured.startswith("the table of measured paths is ignored: ") and got.measured in str(got)
    assert same(results, run(device, "graph", times=2)[1])


@on_gpus
@pytest.mark.parametrize("case", WRONG)
def test_a_table_that_is_wrong_is_ignored_and_explained(device, write, case):
    changes, because = WRONG[case]
    file = write(CASE, **changes)
    ignored(device, because)
    with pytest.raises(FormatError):
        path_table.read(file, device.gpu)


@on_gpus
@pytest.mark.parametrize("case", NO_JSON)
def test_a_file_that_is_no_json_is_ignored_and_explained(device, write, case):
    write(text=NO_JSON[case])
    ignored(device, "is not JSON")


@on_gpus
def test_what_is_no_file_is_ignored_and_explained(device, write, monkeypatch):
    file = write(text="x" * (path_table._LARGEST + 1))
    ignored(device, "expected at most 4194304 bytes")
    file.unlink()
    os.mkfifo(file)  # which nobody writes to
    device.path_table = None
    ignored(device, "is not a file")
    file.unlink()

    def homeless():
        raise RuntimeError("no home")

    monkeypatch.setattr(path_table, "cache_folder", homeless)
    device.path_table = None
    ignored(device, "no home")


def test_the_processor_has_no_table(monkeypatch):
    monkeypatch.setattr(path_table, "cache_folder", None)
    got, _ = run(CPU)
    assert got.measured == ""

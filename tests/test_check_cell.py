"""gl.check_cell passes what is right, and names each kind of mistake that one makes in writing a cell."""

import dataclasses
import os

import pytest

import gpulstm as gl
from gpulstm import engine, errors
from gpulstm.cells import Cell, Extra, Kernels
from tests.cases import CELL_CASES
from tests.conftest import GPUS, skip
from tests.own_cells import middle, rich


@pytest.fixture
def quick(monkeypatch):
    """Cells of these tests are compiled without optimisation, in a quarter of the time."""
    if engine.library() is None or engine.why_cannot_compile():
        skip(f"no engine, or no compiler: {engine.why_none() or engine.why_cannot_compile()}")
    monkeypatch.setenv("GPULSTM_CXX", "g++ -O0")


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CELL_CASES])
def test_every_cell_of_the_library_passes(case):
    report = gl.check_cell(case.cell)
    assert report[0].startswith(f"{case.cell.name}: backward is the derivative of forward")
    if engine.library() is not None:
        assert "agrees with the equations on the processor's engine (float64, float32)" in report[1]


@pytest.mark.parametrize("make", [rich, middle])
def test_cells_of_ones_own_pass_and_the_report_says_what_was_held(make, tmp_path, quick):
    cell = make(tmp_path)
    lines = str(gl.check_cell(cell)).splitlines()
    assert lines[0] == f"{cell.name}: backward is the derivative of forward (one step, and 12 sequences with every " + (
        "mode, float64)"
    )
    agrees = f"{cell.name}: {cell.name}.cuh agrees with the equations on the processor's engine (float64, float32)"
    assert lines[1] == agrees
    assert len(lines) == 3 and "on a GPU" in lines[2]


@pytest.mark.parametrize("device", GPUS, indirect=True)
@pytest.mark.parametrize("make", [rich, middle])
def test_on_a_gpu_too(device, make, tmp_path, monkeypatch):
    monkeypatch.setenv("GPULSTM_CXX", "none")  # the processor's half stands above
    report = gl.check_cell(make(tmp_path))
    assert "not checked on the processor's engine: no compiler was found" in report[1]
    assert report[2].endswith(".cuh agrees with the equations on a GPU (float64, float32)")


def test_without_a_kernel_there_is_less_to_check(tmp_path):
    assert gl.check_cell(rich(tmp_path, kernel=None))[1:] == ["rich: no kernel to check: the Cell has none"]


def test_without_an_engine_the_report_says_why(tmp_path, monkeypatch):
    off = engine._Engine(None, "", "", "GPULSTM_ISA=none turns it off")
    monkeypatch.setattr(engine, "_engine", lambda: off)
    assert gl.check_cell(rich(tmp_path))[1] == (
        "rich: not checked on the processor's engine: GPULSTM_ISA=none turns it off"
    )


def test_a_cell_with_a_scan_is_refused():
    with pytest.raises(errors.ShapeError, match="cell: expected one with a recurrent product, got minlstm"):
        gl.check_cell("minlstm")


# What is wrong with the equations: (edits of their text, the row, what the error says).
EQUATIONS = {
    "a wrong slope": (
        [("* (1 - t * t)", "* (1 - t)")], {},
        r"backward of the equations: dzx\[gate [ab]\] is not the derivative of forward \(state h\): expected .*, got ",
    ),
    "gates in another order": (
        [("dzx = xp.concatenate([dz_a, dz_b]", "dzx = xp.concatenate([dz_b, dz_a]")], {}, r"dzx\[gate [ab]\] is not",
    ),
    "a wrong gradient of the recurrent part": (
        [("[dz_a * p, dz_b]", "[dz_a, dz_b]")], {}, r"dzr\[gate a\] is not the derivative",
    ),
    "a forgotten direct term": (
        [("(0.5 * dh, 0.75 * dc", "(None, 0.75 * dc")], {},
        r"dstates_prev\[h\]: expected the gradient of h_prev outside its product, got None",
    ),
    "a direct term of zeros": ([("(0.5 * dh, 0.75", "(0 * dh, 0.75")], {}, r"dstates_prev\[h\] is not the derivative"),
    "direct not declared": ([], {"direct": False}, "direct: forward uses h_prev .* set direct=True"),
    "split not declared": ([], {"split": False}, "split: .* zx and zr of gate a .* set split=True"),
    "a wrong gradient of another state": ([("dm * b)", "dm)")], {}, r"dstates_prev\[m\] is not the derivative"),
    "a wrong gradient of a vector": (
        [("[dz_a * r_a, dt * m_new]", "[dz_a * r_a, dt]")], {}, r"dextra\[look\], block 1, is not the derivative",
    ),
    "a vector's gradient that is a sum": (
        [("(dlook,)", "(dlook.sum(0),)")], {}, r"dextra\[look\]: expected an array \(2, 6\), got an array \(6,\)",
    ),
    "too few gradients of vectors": ([("(dlook,)", "()")], {}, "dextra: expected a tuple of 1, got a tuple of 0"),
    "too few states": ([("(0.5 * h + t, c_new, m_new)", "(0.5 * h + t, c_new)")], {}, "expected a tuple of the states"),
    "a wrong shape of a state": ([("return (0.5 * h + t,", "return ((0.5 * h + t)[:1],")], {},
                                 r"of the equations: state h: expected an array \(2, 3\), got an array \(1, 3\)"),
    "too little saved": ([(", (a, b, r_a, t, m, m_new)\n\n", ", (a,)\n\n")], {}, "expected saved to begin with the 2"),
    "a changed input": ([("c_new, m_new = ", "c += 1; c_new, m_new = ")], {}, "forward .* modifies an argument"),
    "a changed gradient": ([("dt = dh *", "dh *= 2; dt = dh *")], {}, "backward .* modifies an argument"),
    "a part of zr saved": ([("r_a = r_a.copy()", "pass")], {}, "it saves a view of zr"),
    "a constant of NumPy": (
        [("0.75 * c + 0.25", "np.float64(0.75) * c + 0.25")], {},
        "state h: expected float32, .*, got float64; write constants",
    ),
    "a NaN": ([("c_new, m_new = 0.75 * c", "c_new, m_new = xp.log(-abs(c))")], {}, "state [hc]: expected finite"),
    "a name that is not there": ([("xp.tanh(c_new", "xp.tang(c_new")], {}, "forward .* fails: AttributeError"),
    "sequences that meet": (
        [("t = xp.tanh(c_new + q * m_new)", "t = xp.tanh(c_new + q * m_new) + m.mean(0)")], {}, "is not the derivative",
    ),
    "a vector too many": ([], {"extra": (Extra("weight_c", 1, matrix=True), Extra("look", 2), Extra("more", 1))},
                          "forward of the equations fails: ValueError: too many values"),
}  # fmt: skip


@pytest.mark.parametrize(("edits", "row", "words"), EQUATIONS.values(), ids=EQUATIONS)
def test_a_mistake_in_the_equations_is_named(tmp_path, edits, row, words):
    with pytest.raises(errors.CellError, match=f"^rich: .*{words}"):
        gl.check_cell(rich(tmp_path, python=tuple(edits), **{"kernel": None, **row}))


INNER = {
    "the product's columns read": ([("(x_r, _), (r_r, _) =", "(x_r, _), (_, r_r) =")], "inner.forward.*finite"),
    "a wrong part through the product": (
        [("(dstates[0] + dv * r,)", "(dstates[0] + dv,)")],
        r"inner.backward of the equations: dstates_prev\[h\] is not .* \(factor of the inner product\)",
    ),
    "what backward had is lost": (
        [("(dstates[0] + dv * r,)", "(dv * r,)")], r"backward of the equations: dstates_prev\[h\] .* \(state h\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("edits", "words"), INNER.values(), ids=INNER)
def test_a_mistake_in_the_inner_product_is_named(tmp_path, edits, words):
    with pytest.raises(errors.CellError, match=f"^middle: .*{words}"):
        gl.check_cell(middle(tmp_path, python=tuple(edits), kernel=None))


# What is wrong with the kernel's text: (edits, what the error says).
TEXT = {
    "another constant in a state": (
        [("before[2] * b + a;", "before[2] * b + 2 * a;")], "forward: state [hm] differs .*: expected .*, got",
    ),
    "gates in another order": (
        [("dzx[0] = dz_a", "dzx[0] = dz_b"), ("dzx[1] = dz_b", "dzx[1] = dz_a")],
        r"backward: dzx\[0\] \(gate a\) differs from the equations",
    ),
    "a wrong gradient of the recurrent part": ([("dzr[0] = dz_a * e[0];", "dzr[0] = dz_a;")], r"dzr\[0\] \(gate a\) "),
    "a forgotten direct term": ([("d[0] = number<V>(0.5) * d[0];", "")], r"backward: d\[0\] \(state h\) differs"),
    "a wrong gradient of a vector": ([("de[1] = dt *", "de[1] = dc *")], r"backward: de\[1\] \(look\) differs"),
    "something not kept": ([("keep[3] = t;", "keep[3] = a;")], "backward: .* differs.*keep must hold"),
    "a constant in single precision": ([("number<V>(0.5) * before", "number<V>(0.5f + 1e-8f + 1e-7f) * before")],
                                       "forward: state h differs"),
    "text that does not compile": ([("V t = tanh_(after", "V t = tang_(after")], "the compiler failed: .*tang_"),
    "another number of gates": ([("gates = 2", "gates = 3")], "gates: the struct Rich has 3, the row .* 2"),
}  # fmt: skip


@pytest.mark.parametrize(("edits", "words"), TEXT.values(), ids=TEXT)
def test_a_mistake_in_the_kernel_is_named(tmp_path, quick, edits, words):
    with pytest.raises(errors.CellError, match=rf"^rich: rich\.cuh.*{words}|^rich: {words}"):
        gl.check_cell(rich(tmp_path, text=tuple(edits)))


def test_a_mistake_in_an_inner_product_of_the_kernel_is_named(tmp_path, quick):
    with pytest.raises(
        errors.CellError, match=r"^middle: middle\.cuh on the processor's engine: .* of a sequence of T="
    ):
        gl.check_cell(middle(tmp_path, text=(("d[0] += dv * keep[0];", "d[0] += dv;"),)))


@pytest.mark.parametrize("device", GPUS, indirect=True)
def test_a_mistake_on_a_gpu_is_named(device, tmp_path, monkeypatch):
    monkeypatch.setenv("GPULSTM_CXX", "none")
    with pytest.raises(errors.CellError, match=r"^rich: rich\.cuh on a GPU: backward: d\[2\] \(state m\) differs"):
        gl.check_cell(rich(tmp_path, text=(("d[2] = dm * b;", "d[2] = dm;"),)))
    with pytest.raises(
        errors.CellError, match=r"^rich: rich\.cuh: the compiler failed: .*split: the struct and the row"
    ):
        gl.check_cell(rich(tmp_path, text=(("split = true", "split = false"),)))


def test_a_file_that_changed_is_not_checked_in_its_old_form(tmp_path):
    cell = rich(tmp_path)
    changed = (tmp_path / "rich.cuh").read_text() + "\n"
    (tmp_path / "rich.cuh").write_text(changed)
    with pytest.raises(
        errors.CellError, match=r"rich\.cuh was changed or deleted after the cell was made; make a new Cell"
    ):
        gl.check_cell(cell)
    again = dataclasses.replace(cell, kernel=Kernels(os.fspath(tmp_path / "rich.cuh"), "Rich", (0.75,), kept=2))
    assert again.kernel.stamp == again.kernel.state() != cell.kernel.stamp


def test_nan_for_large_pre_activations_is_a_remark():
    def forward(xp, zx, zr, states, extra):
        grown = xp.exp(zx + zr)
        s = grown / (grown + 1)
        return (s,), (s,)

    def backward(xp, dstates, saved, extra):
        dz = dstates[0] * saved[0] * (1 - saved[0])
        return dz, dz, (None,), ()

    report = gl.check_cell(Cell("naive", ("s",), ("h",), forward, backward))
    assert report[1] == "naive: warning: h is NaN in float32 if pre-activations are 100 or -100"


@pytest.mark.parametrize("seed", range(1, 5))
def test_other_random_numbers_say_the_same(seed):
    assert gl.check_cell("slstm", seed=seed)

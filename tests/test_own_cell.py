"""Cells of a user's own, the README's among them: on every device and path, and with every mistake in their files."""

import re
from pathlib import Path

import numpy as np
import pytest

import gpulstm as gl
from gpulstm import functional
from gpulstm.cells import Cell, Extra, Kernels, Product
from gpulstm.errors import NoKernel, ShapeError
from tests.cases import fast_path, launched
from tests.first_principles import sequence
from tests.own_cells import INNER_TEXT, RICH_TEXT, middle, rich
from tests.tolerances import assert_close, assert_ratio

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def leaky(tmp_path, monkeypatch):
    section = README[README.index("### A cell of your own") :]
    python, cuda = (re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)[1] for language in ("python", "cpp"))
    monkeypatch.chdir(tmp_path)
    Path("leaky.cuh").write_text(cuda)
    x = np.random.default_rng(0).standard_normal((10, 4, 8), dtype=np.float32)
    names: dict = {"x": x, "target": x[..., :1]}
    exec(python.replace("range(100)", "range(2)"), names)  # our own README
    (check,) = re.findall(r"```python\n(print.*?)```", section, re.DOTALL)
    exec(check, {"gl": gl, **names})
    assert np.isfinite(names["loss"].item())
    return names["leaky"]


def step(x, states, w):
    n = np.tanh(w["w_ih"] @ x + w["b_ih"] + w["w_hh"] @ states[0] + w["b_hh"])
    return [0.9 * states[0] + 0.1 * n]


def test_it_is_first_principles_with_every_mode(device, leaky, rng):
    T, B, D, H = 5, 3, 4, 6
    x, h0, dy = (rng.standard_normal(s) for s in ((T, B, D), (B, H), (T, B, H)))
    weights = {n: rng.standard_normal(s) for n, s in (("w_ih", (H, D)), ("w_hh", (H, H)), ("b_ih", H), ("b_hh", H))}
    modes = {"reset": rng.random((T, B)) < 0.3, "zoneout": (functional.Noise(0.4, 7), None), "reverse": True}
    alive = np.arange(T)[:, None] < np.array([5, 0, 3])
    want = sequence.run(step, x, [h0], {**weights, "w_hr": None}, alive=alive, **modes)
    results = {}
    for dtype in (np.float64, np.float32):
        arrays = [device.asarray(a.astype(dtype)) for a in (x, h0, *weights.values())]
        with device, gl.explain() as runs:
            outputs, pullback = functional.recurrent(*arrays, cell=leaky, lengths=[5, 0, 3], **modes)
            gradients = pullback(device.asarray(dy.astype(dtype)), None)
        results[dtype] = [device.to_numpy(a) for a in (*outputs, *gradients) if a is not None]
        assert launched(runs[0].path) == fast_path(device)
    for got, wanted in zip(results[np.float64], want, strict=False):
        assert_close(got, wanted)
    for exact, single in zip(results[np.float64], results[np.float32], strict=True):
        assert_ratio(single, exact.astype(np.float32), exact)
    if device.is_cuda:
        with device:
            arrays = [device.asarray(a) for a in (x, h0, *weights.values())]
            _, pullback = functional.recurrent(*arrays, cell=leaky, lengths=[5, 0, 3], path="reference", **modes)
            readable = [device.to_numpy(a) for a in pullback(device.asarray(dy), None) if a is not None]
        for got, wanted in zip(results[np.float64][2:], readable, strict=True):
            assert_close(got, wanted)


def test_it_learns(device, leaky):
    generator = np.random.default_rng(0)
    x = generator.standard_normal((20, 8, 3))
    target = 0.3 * x.cumsum(0)[..., :1]
    options = {"device": device.name, "dtype": "float64", "generator": generator}
    layer, head = gl.Recurrent(leaky, 3, 16, num_layers=2, **options), gl.Linear(16, 1, **options)
    optimizer = gl.Adam([*layer.parameters(), *head.parameters()], lr=3e-2)
    losses = []
    for _ in range(40):
        output, _ = layer(gl.tensor(x, device=device.name))
        loss = gl.mse(head(output), gl.tensor(target, device=device.name))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


PRODUCTS = {
    "a gate without a product": (Product("h", "w_hh", slice(1, 3)),),
    "columns that meet in part": (Product("h", "w_hh", slice(0, 2)), Product("c", "w_hh", slice(1, 3))),
    "one after the other, then over both": (
        Product("h", "w_hh", slice(0, 1)),
        Product("c", "w_hh", slice(1, 2)),
        Product("c", "w_hh", slice(0, 3)),
    ),
    "the same rows twice": (Product("h", "w_hh", slice(0, 3)), Product("c", "w_hh", slice(0, 3))),
    "two of h": (Product("h", "w_hh", slice(0, 1)), Product("h", "w_hh", slice(1, 3))),
    "none of h": (Product("c", "w_hh", slice(0, 2)),),
}
MET = """
#include "cell.cuh"

struct Met : Cell {
    static constexpr int gates = 3, states = 2, kept = 3;
    using Cell::Cell;

    template <class V> FN void forward(const V* zx, const V* zr, const V* before, const V* e, V* after, V* keep) const {
        for (int k = 0; k < gates; ++k) keep[k] = zx[k] + zr[k];
        after[0] = tanh_(keep[0]) * keep[1];
        after[1] = tanh_(keep[2]);
    }

    template <class V> FN void backward(const V* keep, const V* before, const V* e, V* d, V* dzx, V* dzr, V* de) const {
        V a = tanh_(keep[0]), b = tanh_(keep[2]);
        dzx[0] = d[0] * keep[1] * (1 - a * a);
        dzx[1] = d[0] * a;
        dzx[2] = d[1] * (1 - b * b);
        d[1] = number<V>(0);
    }
};
"""


@pytest.mark.parametrize("path", ["fast", "reference"])
@pytest.mark.parametrize("products", PRODUCTS.values(), ids=PRODUCTS)
def test_products_may_meet_in_any_way(device, rng, tmp_path, products, path):
    """Each adds to its columns of zr, whatever others do there, and to the gradient of its rows of the weight."""
    T, B, D, H = 4, 2, 3, 5

    def forward(xp, zx, zr, states, extra):
        p, q, r = xp.split(zx + zr, 3, axis=1)
        zr[...] = np.nan  # used up
        return (xp.tanh(p) * q, xp.tanh(r)), (p, q, r)

    def backward(xp, dstates, saved, extra):
        (dh, dc), (p, q, r) = dstates, saved
        dz = xp.concatenate([dh * q * (1 - xp.tanh(p) ** 2), dh * xp.tanh(p), dc * (1 - xp.tanh(r) ** 2)], axis=1)
        return dz, dz, (None, xp.zeros_like(dc)), ()

    (tmp_path / "met.cuh").write_text(MET)
    kernel = Kernels(tmp_path / "met.cuh", "Met")
    cell = Cell("met", ("p", "q", "r"), ("h", "c"), forward, backward, products=products, kernel=kernel)
    x, w_ih, w_hh = (rng.standard_normal(s) for s in ((T, B, D), (3 * H, D), (3 * H, H)))
    h = c = np.zeros((B, H))
    want = []
    for t in range(T):
        z = x[t] @ w_ih.T
        for each in products:
            z[:, each.columns(H)] += {"h": h, "c": c}[each.source] @ w_hh[each.weight_rows(H)].T
        h, c = np.tanh(z[:, :H]) * z[:, H : 2 * H], np.tanh(z[:, 2 * H :])
        want.append(h)

    def run(w):
        with device:
            arrays = [device.asarray(a) for a in (x, w_ih, w)]
            given = (*arrays[:1], None, None, *arrays[1:], None, None)
            with gl.explain() as runs:
                result = functional.recurrent(*given, cell=cell, path="auto" if path == "fast" else path)
        rows = {row for each in products for row in range(each.gates.start, each.gates.stop)}
        shared = sum(each.gates.stop - each.gates.start for each in products) > len(rows)
        served = path == "fast" and (device.is_cuda or not shared)  # the engine writes each row's gradient once
        assert launched(runs[0].path) == (fast_path(device) if served else "reference")
        return result

    (y, *_), pullback = run(w_hh)
    assert_close(device.to_numpy(y), np.stack(want))
    dy, along = rng.standard_normal((T, B, H)), rng.standard_normal(w_hh.shape)
    with device:
        dw = device.to_numpy(pullback(device.asarray(dy), None, None)[4])
    up, down = (device.to_numpy(run(w_hh + s * along)[0][0]) for s in (1e-6, -1e-6))
    assert abs((dw * along).sum() - (dy * (up - down)).sum() / 2e-6) <= 1e-6 * np.abs(dw).sum()


# -- all that a row can say -----------------------------------------------------------------------------------
@pytest.mark.parametrize("make", [rich, middle])
def test_every_path_is_the_equations(device, rng, tmp_path, make):
    cell = make(tmp_path)
    T, B, D, H, G = 5, 3, 4, 7, 2
    extra = [rng.standard_normal((H, H)), rng.standard_normal(2 * H)] if make is rich else []
    weights = [rng.standard_normal(s) for s in ((G * H, D), (G * H, H), G * H, G * H)]
    arguments = [rng.standard_normal((T, B, D)), *(rng.standard_normal((B, H)) for _ in cell.states), *weights, None]
    arguments += extra
    given = [rng.standard_normal((T, B, H)), *(rng.standard_normal((B, H)) for _ in cell.states)]
    modes = {"reset": rng.random((T, B)) < 0.3, "recurrent_dropout": functional.Noise(0.3, 5), "lengths": [5, 0, 3]}
    if make is rich:
        modes["zoneout"] = (functional.Noise(0.4, 7), functional.Noise(0.2, 3))
    results = {}
    for path in (fast_path(device), "reference"):
        there = [None if a is None else device.asarray(a) for a in arguments]
        with device:
            outputs, pullback = functional.recurrent(*there, cell=cell, path=path, **modes)
            gradients = pullback(*map(device.asarray, given))
        results[path] = [device.to_numpy(a) for a in (*outputs, *gradients) if a is not None]
    for got, want in zip(*results.values(), strict=True):
        assert_close(got, want)


# -- a text or a row that is wrong: the equations run, and the reason is said -----------------------------------
def run(device, cell, path="auto"):
    """(the path taken, why no faster one) of one sequence of a cell of two gates and some states."""
    H = 3
    extra = [np.ones((H, H)), np.ones(2 * H)] if cell.extra else []
    given = [np.ones((2, 2, 4)), *(np.zeros((2, H)) for _ in cell.states), np.ones((2 * H, 4)), np.ones((2 * H, H))]
    with device, gl.explain() as runs:
        arrays = [device.asarray(a) for a in given]
        functional.recurrent(*arrays, None, None, None, *map(device.asarray, extra), cell=cell, path=path)
    return runs[0].path, runs[0].why_not_faster


OTHERS = {
    "gates": "gates = 3", "states": "states = 4", "vectors": "vectors = 3", "kept besides the gates": "kept = 5",
    "split": "split = false", "direct": "direct = false", "options": "options = 2",
}  # fmt: skip


@pytest.mark.parametrize("what", OTHERS)
def test_a_struct_that_is_not_its_rows_is_never_run(device, tmp_path, monkeypatch, what):
    monkeypatch.setenv("GPULSTM_CXX", "g++ -O0")
    name, _, number = OTHERS[what].partition(" = ")
    old = next(f"{name} = {value}" for value in ("2", "3", "4", "1", "true") if f"{name} = {value}" in RICH_TEXT)
    cell = rich(tmp_path, text=((old, f"{name} = {number}"),))
    path, why = run(device, cell)
    assert path == "reference" and why.startswith("rich.cuh: ") and what.split()[0] in why
    with pytest.raises(NoKernel, match=rf"cannot serve this rich: rich\.cuh: .*{what.split()[0]}"):
        run(device, cell, fast_path(device))


def test_an_inner_product_that_the_struct_has_not_is_not_run(device, tmp_path, monkeypatch):
    monkeypatch.setenv("GPULSTM_CXX", "g++ -O0")
    path, why = run(device, middle(tmp_path, text=(("inner = true", "inner = false"),)))
    assert path == "reference" and "inner: the struct" in why
    assert "inner = true" in INNER_TEXT


def test_text_that_does_not_compile_is_a_reason(device, tmp_path, monkeypatch):
    monkeypatch.setenv("GPULSTM_CXX", "g++ -O0")
    path, why = run(device, rich(tmp_path, text=(("V t = tanh_(", "V t = tang_("),)))
    assert path == "reference" and re.match(r"rich\.cuh: the compiler failed: .*tang_", why)


@pytest.mark.parametrize("name", ["nowhere.cuh", "C:\\cells\\leaky.cuh", "folder.cuh"])
def test_a_file_that_is_missing_is_a_reason(device, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.cuh").mkdir()
    path, why = run(device, rich(tmp_path, kernel=Kernels(name, "Rich", (0.75,), kept=2)))
    assert path == "reference" and re.search(r"expected .*path of a \.cuh file", why)


@pytest.mark.parametrize(("file", "struct"), [("lstm", "Lstm"), ("leaky", "Leaky"), ("", "Rich"), ("own.cu", "Rich")])
def test_what_is_no_file_of_ones_own_and_no_cell_of_the_library(device, tmp_path, file, struct):
    """On a GPU it is an error, since the library's own kernels are there or something is broken."""
    cell = rich(tmp_path, kernel=Kernels(file, struct))
    if device.is_cuda:
        with pytest.raises(NoKernel, match=r"gates: the struct and the row|expected one of .*, or the path of a \.cuh"):
            run(device, cell)
    else:
        path, why = run(device, cell)
        assert path == "reference" and re.search("gates: the struct|expected a cell of the library or the path", why)


def test_a_file_that_is_no_text_is_a_reason(device, tmp_path):
    (tmp_path / "image.cuh").write_bytes(b"\xff\xfe\x00")
    path, why = run(device, rich(tmp_path, kernel=Kernels(tmp_path / "image.cuh", "Rich", (0.75,), kept=2)))
    assert path == "reference" and why.startswith("image.cuh: expected a readable file in UTF-8")


def test_a_file_with_a_header_of_its_own(device, tmp_path, monkeypatch):
    monkeypatch.setenv("GPULSTM_CXX", "g++ -O0")
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "share.cuh").write_text("#define SHARE number<V>(0.5)\n")
    edits = (
        ('#include "cell.cuh"', '#include "cell.cuh"\n#include "share.cuh"'),
        ("after[0] = number<V>(0.5)", "after[0] = SHARE"),
    )
    assert launched(run(device, rich(folder, text=edits))[0]) == fast_path(device)


def test_a_changed_file_counts_for_rows_made_after(device, tmp_path, monkeypatch):
    """So a long run goes on with what it began with, and a notebook's next row has the new text."""
    monkeypatch.setenv("GPULSTM_CXX", "g++ -O0")
    x, w_ih, w_hh = np.ones((1, 1, 1)), np.zeros((2, 1)), np.zeros((2, 1))

    def last(cell):
        with device:
            given = (x, np.ones((1, 1)), w_ih, w_hh)
            (y, _), _ = functional.recurrent(*map(device.asarray, given), None, None, cell=cell, path=fast_path(device))
        return float(device.to_numpy(y)[0, 0, 0])

    old = middle(tmp_path)
    assert last(old) == 0.5
    new = middle(tmp_path, text=(("number<V>(0.5) * before", "number<V>(0.25) * before"),))
    assert last(new) == 0.25 and last(old) == 0.5
    monkeypatch.chdir("/")
    assert last(new) == 0.25


# -- rows that contradict themselves ---------------------------------------------------------------------------
ROWS = {
    "no gates": ({"gates": ()}, "gates of rich: expected at least one"),
    "the same name twice": ({"gates": ("a", "a")}, "gates of rich: expected different names"),
    "h is not first": ({"states": ("c", "h", "m")}, "states of rich: expected h first"),
    "a product of what is no state": (
        {"products": (Product("q", "w_hh", slice(0, 2)),)}, "source of a product of rich: expected c, .*, m, got 'q'",
    ),
    "a product with what is no weight": (
        {"products": (Product("h", "look", slice(0, 2)),)}, "weight of a product of rich: expected w_hh, weight_c, got",
    ),
    "gates that are not there": (
        {"products": (Product("h", "w_hh", slice(0, 3)),)}, r"gates of a product of rich: expected slice.* within 2",
    ),
    "rows that are not there": (
        {"products": (Product("h", "w_hh", slice(0, 1), slice(2, 3)),)}, "rows of a product of rich: .* within 2",
    ),
    "more rows than gates": (
        {"products": (Product("h", "w_hh", slice(0, 1), slice(0, 2)),)}, "rows of a product of rich: .* 1, .* got 2",
    ),
    "a matrix without a product": (
        {"products": (Product("h", "w_hh", slice(0, 2)),)}, "products of rich: expected w_hh, weight_c in them, got",
    ),
    "an inner product that is nowhere": (
        {"products": (Product("inner", "w_hh", slice(0, 2)), Product("c", "weight_c", slice(1, 2), slice(0, 1)))},
        "products of rich: expected one of source 'inner' if the cell has inner=, got one",
    ),
    "an empty extra": ({"extra": (Extra("weight_c", 1, matrix=True), Extra("look", 0))}, "look of rich: expected one"),
}  # fmt: skip


@pytest.mark.parametrize(("row", "words"), ROWS.values(), ids=ROWS)
def test_a_row_that_contradicts_itself_is_refused(tmp_path, row, words):
    with pytest.raises(ShapeError, match=f"^{words}"):
        rich(tmp_path, **row)


def test_an_inner_product_is_not_split(tmp_path):
    with pytest.raises(ShapeError, match="split of middle: expected False for a cell with an inner product"):
        middle(tmp_path, split=True)

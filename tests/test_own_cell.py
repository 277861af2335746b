"""The README's cell of the user's own: its code is run as it stands there, on every device, and learns."""

import re
from pathlib import Path

import numpy as np
import pytest

import gpulstm as gl
from gpulstm import functional
from gpulstm.cells import Cell, Product
from tests.first_principles import sequence
from tests.tolerances import assert_close, assert_ratio

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def leaky(tmp_path, monkeypatch):
    section = README[README.index("### A cell of your own") :]
    python, cuda = (re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)[1] for language in ("python", "cpp"))
    monkeypatch.chdir(tmp_path)
    Path("leaky.cu").write_text(cuda)
    x = np.random.default_rng(0).standard_normal((10, 4, 8), dtype=np.float32)
    names: dict = {"x": x, "target": x[..., :1]}
    exec(python.replace("range(100)", "range(2)"), names)  # our own README
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
        assert runs[0].path == ("kernel" if device.is_cuda else "reference")
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
}


@pytest.mark.parametrize("products", PRODUCTS.values(), ids=PRODUCTS)
def test_products_may_meet_in_any_way(device, rng, products):
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

    cell = Cell("met", ("p", "q", "r"), ("h", "c"), forward, backward, products=products)
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
            return functional.recurrent(arrays[0], None, None, *arrays[1:], None, None, cell=cell)

    (y, *_), pullback = run(w_hh)
    assert_close(device.to_numpy(y), np.stack(want))
    dy, along = rng.standard_normal((T, B, H)), rng.standard_normal(w_hh.shape)
    with device:
        dw = device.to_numpy(pullback(device.asarray(dy), None, None)[4])
    up, down = (device.to_numpy(run(w_hh + s * along)[0][0]) for s in (1e-6, -1e-6))
    assert abs((dw * along).sum() - (dy * (up - down)).sum() / 2e-6) <= 1e-6 * np.abs(dw).sum()

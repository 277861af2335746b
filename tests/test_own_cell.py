"""The README's cell of the user's own: its code is run as it stands there, on every device, and learns."""

import re
from pathlib import Path

import numpy as np
import pytest

import gpulstm as gl
from gpulstm import functional
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

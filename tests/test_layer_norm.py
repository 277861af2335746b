"""The layer-normalised LSTM: torch's layer_norm and autograd, rows without variance, rows longer than a block."""

import numpy as np
import pytest

import gpulstm as gl
from gpulstm import as_dtype, functional
from gpulstm.backend import CPU
from gpulstm.cells import layer_norm
from tests.conftest import require
from tests.make_golden import one_thread
from tests.tolerances import assert_close, assert_gradient, assert_ratio, central_differences

NAMES = ("x", "h0", "c0", "w_ih", "w_hh", "b_ih", "b_hh", "w_hr", "norm_ih", "norm_hh", "bias", "norm_c", "bias_c")


def arguments(rng, T, B, D, H, states=True):
    """{name: float64 array or None} in the order of functional.recurrent."""
    make = rng.standard_normal
    values = [make((T, B, D)), *(make((B, H)) if states else None for _ in range(2)), make((4 * H, D))]
    values += [make((4 * H, H)) / np.sqrt(H), None, None, None, make(4 * H), make(4 * H), make(4 * H), make(H), make(H)]
    return dict(zip(NAMES, values, strict=True))


def run(device, given, cotangents=None, dtype="float64", **modes):
    """{name: host array} of y, h, c and, with cotangents, of every gradient as d<name>."""

    def there(array):
        return None if array is None else device.asarray(array.astype(as_dtype(dtype)))

    with device:
        outputs, pullback = functional.recurrent(*map(there, given.values()), cell=layer_norm.CELL, **modes)
        results = dict(zip(("y", "h", "c"), outputs, strict=True))
        if cotangents is not None:
            gradients = pullback(*map(there, cotangents))
            results |= {f"d{name}": d for name, d in zip(given, gradients, strict=True) if d is not None}
    return {name: device.to_numpy(array) for name, array in results.items()}


def cotangents_of(rng, T, B, H):
    return [rng.standard_normal(shape) for shape in ((T, B, H), (B, H), (B, H))]


@pytest.mark.oracle
def test_values_and_gradients_are_those_of_torch(device):
    torch = require("torch")
    layer_norm_of = torch.nn.functional.layer_norm
    rng = np.random.default_rng(1)
    T, B, D, H = 4, 3, 5, 9
    given, cotangents = arguments(rng, T, B, D, H), cotangents_of(rng, T, B, H)
    got = run(device, given, cotangents)
    with one_thread():
        w = {k: torch.tensor(a, requires_grad=True) for k, a in given.items() if a is not None}
        h, c, outputs = w["h0"], w["c0"], []
        for x in w["x"]:
            z = layer_norm_of(x @ w["w_ih"].T, [4 * H], w["norm_ih"], w["bias"])
            i, f, g, o = (z + layer_norm_of(h @ w["w_hh"].T, [4 * H], w["norm_hh"])).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * layer_norm_of(c, [H], w["norm_c"], w["bias_c"]).tanh()
            outputs.append(h)
        want = {"y": torch.stack(outputs), "h": h, "c": c}
        pairs = zip(want.values(), cotangents, strict=True)
        sum((out * torch.tensor(d)).sum() for out, d in pairs).backward()
    want |= {f"d{name}": value.grad for name, value in w.items()}
    assert set(got) == set(want)
    for name, value in want.items():
        assert_close(got[name], value.detach().numpy(), name=name)


def test_a_mean_far_from_zero_costs_no_digits(device):
    # All numbers about 1000 that are to be normalised, products and cell state, are exact in float32.
    rng = np.random.default_rng(7)
    H = 40
    given = arguments(rng, 1, 3, 2, H)
    given["x"][:] = [1, 1000]
    given["w_ih"] = np.stack([rng.integers(-16, 16, 4 * H) / 8, np.ones(4 * H)], axis=1)
    given["c0"] = 1000 + rng.integers(-16, 16, (3, H)) / 8
    for name, value in (("norm_ih", 0), ("norm_hh", 0), ("bias", 30)):  # a forget gate of 1
        given[name][H : 2 * H] = value
    want, got = (run(device, given, dtype=dtype)["y"] for dtype in ("float64", "float32"))
    np.testing.assert_allclose(got, want, atol=1e-3)


@pytest.mark.parametrize("H", [1, 3])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_rows_without_variance_are_finite(device, dtype, H):
    # h_prev of zero, one unit, an input of zero: what is left is EPS beside a variance of zero.
    rng = np.random.default_rng(2)
    given = arguments(rng, 1, 2, 3, H, states=False)
    given["x"][0, 1] = 0
    got = run(device, given, cotangents_of(rng, 1, 2, H), dtype)
    assert all(np.isfinite(array.astype(np.float64)).all() for array in got.values())
    assert not got["dw_hh"].any() and got["dw_ih"].any()
    if H == 1:  # LN(c) is zero whatever c is
        assert not got["dnorm_c"].any() and got["dbias_c"].all()


def test_gradients_at_rows_without_variance_are_central_differences():
    rng = np.random.default_rng(3)
    given, cotangents = arguments(rng, 2, 2, 3, 2), cotangents_of(rng, 2, 2, 2)
    given["h0"][0] = 0
    given["x"][:, 1] = 0
    gradients = run(CPU, given, cotangents)

    def loss(_):
        outputs = run(CPU, given)
        return sum((outputs[name] * d).sum() for name, d in zip(("y", "h", "c"), cotangents, strict=True))

    for name, value in given.items():
        if value is not None:
            assert_gradient(gradients[f"d{name}"], central_differences(loss, value), name=name)


@pytest.mark.parametrize("H", [33, 300, 1100])  # more than a warp, no power of two, more than a block
def test_the_kernel_is_the_reference_for_rows_of_any_length(device, H):
    rng = np.random.default_rng(H)
    T, B, D = (2, 6, 5) if H < 1000 else (1, 2, 3)
    given, cotangents = arguments(rng, T, B, D, H), cotangents_of(rng, T, B, H)
    modes = {"lengths": [T, T - 1] * (B // 2)}
    want = run(CPU, given, cotangents, path="reference", **modes)
    plain = run(CPU, given, cotangents, "float32", path="reference", **modes)
    for name, got in run(device, given, cotangents, **modes).items():
        assert_close(got, want[name], name=name)
    for name, got in run(device, given, cotangents, "float32", **modes).items():
        assert_ratio(got, plain[name], want[name], name=name)


def test_sums_of_half_types_are_made_wider(device):
    # Products about 20000, four to a thread: their sum, and any square of a deviation, pass the largest float16.
    rng = np.random.default_rng(4)
    given = arguments(rng, 2, 2, 8, 64)
    given["w_ih"] *= 1000
    given["x"][..., 0], given["w_ih"][:, 0] = 1, 20000
    rounded = {k: None if a is None else a.astype(np.float16).astype(np.float64) for k, a in given.items()}
    want, got = run(CPU, rounded), run(device, rounded, dtype="float16")
    assert_close(got["y"].astype(np.float64), want["y"], rtol=16 * 2.0**-11)


def test_a_scale_of_the_products_changes_nothing(device):
    rng = np.random.default_rng(5)
    given = arguments(rng, 3, 2, 4, 6)
    scaled = {**given, "w_ih": 1e3 * given["w_ih"]}
    # All but what EPS = 1e-5 changes in a variance of about 4.
    assert_close(run(device, scaled)["y"], run(device, given)["y"], rtol=1e-4)


def test_the_norms_begin_as_the_identity():
    parameters = dict(gl.LayerNormLSTM(3, 4, device="cpu").named_parameters())
    for name, first in {"norm_ih": 1, "norm_hh": 1, "bias": 0, "norm_c": 1, "bias_c": 0}.items():
        assert (parameters[f"{name}_l0"].numpy() == first).all(), name

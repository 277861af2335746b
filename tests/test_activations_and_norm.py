"""Layers for the activations, Flatten and LayerNorm: values and gradients are PyTorch's, in every type."""

import math

import numpy as np
import pytest

import gpulstm as gl
from gpulstm import functional
from gpulstm.errors import DTypeError, ShapeError
from tests.tolerances import STEP, assert_close

LAYERS = {
    "Tanh": [{}], "Sigmoid": [{}], "ReLU": [{}], "LeakyReLU": [{}, {"negative_slope": 0.3}],
    "ELU": [{}, {"alpha": 0.5}], "Softplus": [{}], "Softsign": [{}], 
    "GELU": [{}, {"approximate": "tanh"}], "SiLU": [{}],
    "Softmax": [{"axis": 0}, {}], "LogSoftmax": [{"axis": 1}, {}],
}  # fmt: skip
CASES = [(name, options) for name, all_options in LAYERS.items() for options in all_options]
FLOATS = ["float64", "float32", "float16", "bfloat16"]


def grid(dtype, device):
    """Numbers around every corner and far out, (4, 2, 32)."""
    x = np.concatenate([np.linspace(-4, 4, 192), np.linspace(-30, 30, 64)]).reshape(4, 2, 32)
    return gl.Tensor(device.asarray(x.astype(gl.as_dtype(dtype))), requires_grad=True)


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_activations_are_torchs(device, name, options, dtype):
    import torch

    x = grid(dtype, device)
    dy = np.random.default_rng(1).standard_normal(x.shape).astype(x.dtype)
    y = getattr(gl, name)(**options)(x)
    y.backward(gl.Tensor(device.asarray(dy)))
    theirs = torch.tensor(x.numpy().astype(np.float64), requires_grad=True)  # the same numbers, computed in float64
    options = {"dim": options.get("axis", -1)} if "oftmax" in name else options
    options = {"threshold": 1000} if name == "Softplus" else options  # by default theirs is linear from 20 on
    want = getattr(torch.nn, name)(**options)(theirs)
    want.backward(torch.tensor(dy.astype(np.float64)))
    assert y.dtype == x.dtype == x.grad.dtype
    assert_close(y.numpy(), want.detach().numpy().astype(x.dtype))
    assert_close(device.to_numpy(x.grad), theirs.grad.numpy().astype(x.dtype))


def test_the_error_function_is_that_of_the_c_library(device):
    x = np.concatenate([np.linspace(-9, 9, 2001), [0.0, -0.0, 40.0, -40.0]])
    y, _ = functional.gelu(device.asarray(x))
    want = np.array([v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x])
    assert np.abs(device.to_numpy(y) - want).max() < 1e-14


@pytest.mark.parametrize("name", ["Softplus", "ELU", "GELU", "LeakyReLU", "Softsign"])
def test_slopes_are_central_differences(rng, name):
    layer, x = getattr(gl, name)(), rng.standard_normal(50)
    t = gl.Tensor(x, requires_grad=True)
    layer(t).sum().backward()
    want = (layer(x + STEP).numpy() - layer(x - STEP).numpy()) / (2 * STEP)
    assert np.abs(t.grad - want).max() < 1e-8


def test_flatten_joins_axes(rng):
    x = gl.Tensor(rng.standard_normal((2, 3, 4, 5)), requires_grad=True)
    assert gl.Flatten()(x).shape == (2, 60) and gl.Flatten(0, 1)(x).shape == (6, 4, 5)
    assert gl.Flatten(-2, -1)(x).shape == (2, 3, 20)
    (gl.Flatten()(x) * np.arange(120.0).reshape(2, 60)).sum().backward()
    assert (x.grad.reshape(-1) == np.arange(120)).all()
    for axes in ((2, 1), (1, 4), (-5, -1)):
        with pytest.raises(ShapeError, match="x: expected axes"):
            gl.Flatten(*axes)(x)


def test_options_that_do_not_fit_are_named():
    with pytest.raises(ShapeError, match="approximate: expected 'none' or 'tanh', got 'erf'"):
        gl.GELU("erf")
    with pytest.raises(ShapeError, match="alpha of leaky_relu: expected a finite number, got 'x'"):
        gl.LeakyReLU("x")
    with pytest.raises(ShapeError, match="axis: expected one axis of"):
        gl.Softmax(3)(np.ones((2, 2)))


def test_they_show_and_hold_no_parameters():
    shown = [repr(getattr(gl, name)(**options)) for name, options in CASES]
    assert shown[:5] == [
        "Tanh()",
        "Sigmoid()",
        "ReLU()",
        "LeakyReLU(negative_slope=0.01)",
        "LeakyReLU(negative_slope=0.3)",
    ]
    assert "GELU(approximate='tanh')" in shown and "Softmax(axis=-1)" in shown and "ELU(alpha=0.5)" in shown
    model = gl.Sequential(*(getattr(gl, name)(**options) for name, options in CASES), gl.Flatten())
    assert not list(model.parameters()) and not model.state_dict()


# -- LayerNorm -----------------------------------------------------------------------------------------------
@pytest.mark.oracle
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("shape", "normalized", "options"),
    [
        ((5, 2, 7), 7, {}),
        ((5, 2, 7), (2, 7), {"eps": 1e-2}),
        ((3, 4), [4], {"bias": False}),
        ((6,), 6, {"elementwise_affine": False}),
        ((0, 3), 3, {}),
        ((2, 9), 9, {"eps": 0.0}),
    ],
)
def test_layer_norm_is_torchs(device, rng, dtype, shape, normalized, options):
    import torch

    ours = gl.LayerNorm(normalized, device=device.name, dtype=dtype, **options)
    theirs = torch.nn.LayerNorm(normalized, dtype=torch.float64, **options)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        p.data[...] = device.asarray(rng.standard_normal(p.shape).astype(p.dtype))
        q.data[...] = torch.tensor(p.numpy().astype(np.float64))
    x = gl.Tensor(device.asarray((rng.standard_normal(shape) * 3 + 1).astype(gl.as_dtype(dtype))), requires_grad=True)
    dy = rng.standard_normal(shape).astype(x.dtype)
    y = ours(x)
    y.backward(gl.Tensor(device.asarray(dy)))
    other = torch.tensor(x.numpy().astype(np.float64), requires_grad=True)
    want = theirs(other)
    want.backward(torch.tensor(dy.astype(np.float64)))
    assert_close(y.numpy(), want.detach().numpy().astype(x.dtype))
    assert_close(device.to_numpy(x.grad), other.grad.numpy().astype(x.dtype))
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert_close(device.to_numpy(p.grad), q.grad.numpy().astype(x.dtype))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert theirs.state_dict().keys() == ours.state_dict().keys()


def test_layer_norm_gradients_are_central_differences(rng):
    x, w, b, dy = (rng.standard_normal(shape) for shape in ((3, 4, 5), (4, 5), (4, 5), (3, 4, 5)))
    _, pullback = functional.layer_norm(x, w, b, axes=2)
    for k, gradient in enumerate(pullback(dy)):
        arrays = [x, w, b]
        for at in np.ndindex(arrays[k].shape):
            ends = []
            for sign in (1, -1):
                moved = [a.copy() for a in arrays]
                moved[k][at] += sign * STEP
                ends.append((functional.layer_norm(*moved, axes=2)[0] * dy).sum())
            assert abs((ends[0] - ends[1]) / (2 * STEP) - gradient[at]) < 1e-7


def test_half_types_are_summed_in_float32():
    x = np.full((1, 4096), 300.0, np.float16)  # the sum of the squares, and each of them, is beyond float16
    x[0, ::2] = -300
    y = gl.LayerNorm(4096, device="cpu", dtype="float16")(x)
    assert_close(y.numpy(), np.sign(x))


def test_layer_norm_says_what_does_not_fit():
    layer = gl.LayerNorm((2, 3), device="cpu")
    with pytest.raises(ShapeError, match=r"x: expected \(\.\.\., 2, 3\), got \(4, 3\)"):
        layer(np.ones((4, 3), np.float32))
    with pytest.raises(DTypeError, match="x: expected float32, the type of the weights, got float64"):
        layer(np.ones((2, 3)))
    with pytest.raises(DTypeError, match="x: expected an array or a Tensor, got list"):
        layer([1.0])
    for given in (0, (2, -1), "a", ()):
        with pytest.raises(ShapeError, match="normalized_shape: expected"):
            gl.LayerNorm(given)
    for eps in (-1.0, math.nan, "x", True):
        with pytest.raises(ShapeError, match="eps: expected a number from 0 up"):
            gl.LayerNorm(3, eps)
    with pytest.raises(ShapeError, match=r"weight: expected \(3,\) = the last axes of x, got \(2,\)"):
        functional.layer_norm(np.ones((2, 3)), np.ones(2))
    assert repr(gl.LayerNorm(3, bias=False, device="cpu")) == "LayerNorm((3,), eps=1e-05, bias=False)"
    assert repr(gl.LayerNorm(3, elementwise_affine=False)) == "LayerNorm((3,), eps=1e-05, elementwise_affine=False)"

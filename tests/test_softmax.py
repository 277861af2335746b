"""Softmax and log_softmax: values and gradients by formulas, at the edges of the number range, against PyTorch."""

import numpy as np
import pytest

import gpulstm as gl
from gpulstm import functional
from gpulstm.errors import DTypeError, ShapeError
from tests.test_arithmetic import DTYPES, check
from tests.tolerances import RELATIVE

NAMES = ("softmax", "log_softmax")


def formula(name, a, axis=-1):
    exps = np.exp(a)
    y = exps / exps.sum(axis=axis if a.ndim else (), keepdims=True) if a.size else exps
    return y if name == "softmax" else np.log(y)


SHAPES = [((3,), -1), ((2, 3), -1), ((2, 3), 0), ((2, 3, 4), 1), ((2, 3, 4), -3), ((1, 5), 0)]
SHAPES += [((), -1), ((), 0), ((0, 3), 1), ((3, 0), 1)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape, axis", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients(device, rng, name, shape, axis):
    x = np.asarray(rng.standard_normal(shape))
    check(device, getattr(functional, name), lambda a: formula(name, a, axis), [x], axis=axis)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_nothing_overflows(device, dtype):
    x = device.asarray(np.array([[1e4, 1e4, -1e4], [-6e4, -6e4, -6e4]], dtype))
    y, pullback = functional.softmax(x)
    np.testing.assert_allclose(device.to_numpy(y), [[0.5, 0.5, 0], [1 / 3] * 3], rtol=1e-3)
    z, log_pullback = functional.log_softmax(x)
    np.testing.assert_allclose(device.to_numpy(z), np.array([[-np.log(2)] * 2 + [-2e4], [-np.log(3)] * 3]), rtol=1e-3)
    for back in (pullback, log_pullback):
        assert np.isfinite(device.to_numpy(back(device.xp.ones_like(x))[0])).all()


@pytest.mark.parametrize("name", NAMES)
def test_half_types_go_through_float32(device, name):
    """4096 equal numbers: counting in float16 stops at 2048, in bfloat16 at 256."""
    for dtype in DTYPES:
        dtype = gl.as_dtype(dtype)
        x = device.asarray(np.zeros((2, 4096), dtype))
        y, pullback = getattr(functional, name)(x)
        (dx,) = pullback(y)
        assert y.dtype == dx.dtype == dtype and y.shape == dx.shape == x.shape
        want = 1 / 4096 if name == "softmax" else -np.log(4096)
        got = device.to_numpy(y).astype(np.float64)
        np.testing.assert_allclose(got, np.full(x.shape, want), rtol=RELATIVE[dtype.name])
        assert np.abs(device.to_numpy(dx).astype(np.float64)).max() <= RELATIVE[dtype.name] * 10


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.oracle
def test_rows_of_infinities_as_in_pytorch(name):
    import torch

    inf, nan = np.inf, np.nan
    x = np.array([[-inf, -inf, -inf], [inf, 0, 1], [nan, 0, 1], [-inf, 0, 1], [0, 1, 2]], np.float32)
    ours, theirs = gl.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = getattr(ours, name)(), getattr(theirs, name)(-1)
    np.testing.assert_allclose(y.numpy(), z.detach().numpy(), rtol=1e-6)
    dy = np.arange(15, dtype=np.float32).reshape(5, 3)
    y.backward(dy)
    z.backward(torch.tensor(dy))
    np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), rtol=1e-5, atol=1e-6)


def test_on_the_tape(device, rng):
    x = gl.Tensor(device.asarray(rng.standard_normal((2, 3))), requires_grad=True)
    for y, z in ((x.softmax(0), gl.softmax(x, axis=0)), (x.log_softmax(0), gl.log_softmax(x, 0))):
        assert y.requires_grad and (y.numpy() == z.numpy()).all()
    assert np.allclose(x.softmax().numpy().sum(axis=1), 1)
    assert np.allclose(gl.exp(gl.log_softmax(x)).numpy().sum(axis=1), 1)


@pytest.mark.parametrize("name", NAMES)
def test_what_does_not_fit_is_named(name):
    function = getattr(functional, name)
    for axis in (2, -3, None, 1.0, True, (0, 1)):
        with pytest.raises(ShapeError, match=r"axis: expected one axis of \(2, 3\), from -2 to 1, got"):
            function(np.ones((2, 3)), axis=axis)
    with pytest.raises(DTypeError, match=r"x: expected float32, .* got int64"):
        function(np.ones((2, 3), np.int64))

"""linear: y = x W' + b and its gradients, on every device and type."""

import ml_dtypes
import numpy as np
import pytest

from gpulstm.errors import DTypeError, ShapeError
from gpulstm.functional import linear

SHAPES = [(3,), (5, 3), (2, 4, 3), (0, 3), (2, 0, 3)]


def case(shape, dtype=np.float64, out=6, seed=0):
    rng = np.random.default_rng(seed)
    arrays = (shape, (out, shape[-1]), (out,), (*shape[:-1], out))
    return [rng.standard_normal(s).astype(dtype) for s in arrays]


def by_definition(x, weight, bias, dy):
    """y and the three gradients as sums written out, in float64."""
    x, weight, bias, dy = (a.astype(np.float64) for a in (x, weight, bias, dy))
    y = np.einsum("...i,oi->...o", x, weight) + bias
    N = np.prod(x.shape[:-1], dtype=int)
    rows, drows = x.reshape(N, weight.shape[1]), dy.reshape(N, weight.shape[0])
    return y, np.einsum("...o,oi->...i", dy, weight), np.einsum("no,ni->oi", drows, rows), drows.sum(axis=0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("biased", [True, False])
def test_value_and_gradients(device, shape, biased):
    x, weight, bias, dy = case(shape)
    if not biased:
        bias = np.zeros_like(bias)
    y, pullback = linear(device.asarray(x), device.asarray(weight), device.asarray(bias) if biased else None)
    want = by_definition(x, weight, bias, dy)
    for _ in range(2):  # a pullback may be called again
        dx, dweight, dbias = pullback(device.asarray(dy))
        assert (dbias is None) == (not biased)
        got = (y, dx, dweight) + ((dbias,) if biased else ())
        for one, other in zip(got, want, strict=False):
            assert one.shape == other.shape and one.dtype == np.float64
            np.testing.assert_allclose(device.to_numpy(one), other, rtol=1e-12, atol=1e-13)


def test_input_gradient_can_be_skipped(device):
    x, weight, bias, dy = map(device.asarray, case((4, 3)))
    _, pullback = linear(x, weight, bias, input_gradient=False)
    dx, dweight, dbias = pullback(dy)
    assert dx is None and dweight.shape == (6, 3) and dbias.shape == (6,)


def test_arrays_need_not_be_contiguous(device):
    x, weight, bias, dy = case((4, 5, 3))
    want = by_definition(x, weight, bias, dy)

    def strided(a):
        """The same numbers with another memory order and gaps."""
        wide = np.zeros((*a.shape[::-1], 2))
        wide[..., 0] = a.T
        return device.asarray(wide)[..., 0].T

    y, pullback = linear(*map(strided, (x, weight, bias)))
    for one, other in zip((y, *pullback(strided(dy))), want, strict=True):
        np.testing.assert_allclose(device.to_numpy(one), other, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_types_accumulate_in_float32(device, dtype):
    x, weight, bias, dy = case((4096, 3), dtype)
    y, pullback = linear(*map(device.asarray, (x, weight, bias)))
    eps = float(ml_dtypes.finfo(dtype).eps)
    want = by_definition(x, weight, bias, dy)
    for one, other in zip((y, *pullback(device.asarray(dy))), want, strict=True):
        assert one.dtype == dtype
        # Rounded at most twice; sums of 4096 numbers in the half type itself would be off fifty times as far.
        scale = np.abs(other).max()
        np.testing.assert_allclose(device.to_numpy(one).astype(np.float64), other, atol=eps * scale)
    # A running sum of ones in half precision stops at 2048, or at 256.
    ones = device.xp.ones((4096, 3), dtype)
    np.testing.assert_array_equal(device.to_numpy(pullback(device.xp.ones((4096, 6), dtype))[2]), 4096)
    assert float(linear(ones.T, device.xp.ones((1, 4096), dtype))[0][0, 0]) == 4096


@pytest.mark.oracle
def test_matches_torch(device):
    torch = pytest.importorskip("torch")
    x, weight, bias, dy = case((7, 5, 3))
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, weight, bias)]
    out = torch.nn.functional.linear(*tensors)
    out.backward(torch.tensor(dy))
    y, pullback = linear(*map(device.asarray, (x, weight, bias)))
    np.testing.assert_allclose(device.to_numpy(y), out.detach().numpy(), rtol=1e-12)
    for got, tensor in zip(pullback(device.asarray(dy)), tensors, strict=True):
        np.testing.assert_allclose(device.to_numpy(got), tensor.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 4), (6, 3), (6,)), r"x: expected \(..., 3\) = \(..., in\), got \(2, 4\)"),
        (((), (6, 3), (6,)), r"x: expected \(..., 3\)"),
        (((2, 3), (6,), (6,)), r"weight: expected \(out, in\), got \(6,\)"),
        (((2, 3), (6, 3), (5,)), r"bias: expected \(6,\) = \(out,\), got \(5,\)"),
    ],
)
def test_shapes_that_do_not_fit(device, shapes, message):
    with pytest.raises(ShapeError, match=message):
        linear(*(device.xp.zeros(shape, np.float32) for shape in shapes))


def test_types_that_do_not_fit(device):
    x, weight = device.xp.zeros((2, 3), np.float32), device.xp.zeros((6, 3), np.float64)
    with pytest.raises(DTypeError, match="weight: expected float32 as x has, got float64"):
        linear(x, weight)
    with pytest.raises(DTypeError, match="x: expected float32, float64, float16, bfloat16, got int32"):
        linear(x.astype(np.int32), weight)


def test_half_types_are_summed_in_float32_whatever_the_shape(device):
    """CuPy multiplies half types whose result is one number without cuBLAS, in the half type: here it overflows."""
    for rows, outputs in ((1, 1), (1, 3), (2, 1)):
        x = np.full((rows, 300), 300, np.float16)
        w = np.where(np.arange(300) % 2, 300, -300).astype(np.float16) * np.ones((outputs, 1), np.float16)
        y, pullback = linear(device.asarray(x), device.asarray(w))
        np.testing.assert_array_equal(device.to_numpy(y), np.zeros((rows, outputs)))
        dx = pullback(device.asarray(np.ones((rows, outputs), np.float16)))[0]
        assert np.isfinite(device.to_numpy(dx)).all()

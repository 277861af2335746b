"""mse, huber and binary cross-entropy: torch's numbers, and the definitions' where torch is missing."""

import math

import ml_dtypes
import numpy as np
import pytest

from gpulstm.errors import DTypeError, ShapeError
from gpulstm.functional import binary_cross_entropy_with_logits, huber, mse
from tests.tolerances import assert_gradient, central_differences

REDUCTIONS = ["mean", "sum", "none"]


def mse_of(x, t):
    return (x - t) ** 2


def huber_of(x, t, delta=1.0):
    d = abs(x - t)
    return d * d / 2 if d <= delta else delta * (d - delta / 2)


def bce_of(x, t, weight=1.0, pos_weight=1.0):
    p = 1 / (1 + math.exp(-x))
    return -weight * (pos_weight * t * math.log(p) + (1 - t) * math.log(1 - p))


# function, its definition for one element, torch's name, further arguments
CASES = [
    (mse, mse_of, "mse_loss", {}),
    (huber, huber_of, "huber_loss", {}),
    (huber, huber_of, "huber_loss", {"delta": 0.3}),
    (binary_cross_entropy_with_logits, bce_of, "binary_cross_entropy_with_logits", {}),
    (
        binary_cross_entropy_with_logits,
        bce_of,
        "binary_cross_entropy_with_logits",
        {"weight": np.array([[0.5], [2.0], [0.0], [3.0]]), "pos_weight": np.array([3.0, 0.2, 1.0, 5.0, 0.5])},
    ),
]
each_case = pytest.mark.parametrize(("function", "definition", "torch_name", "arguments"), CASES)
each_function = pytest.mark.parametrize("function", [mse, huber, binary_cross_entropy_with_logits])


def arrays(seed=0, shape=(4, 5), dtype=np.float64):
    rng = np.random.default_rng(seed)
    return (2 * rng.standard_normal(shape)).astype(dtype), rng.random(shape).astype(dtype)


def on(device, arguments):
    return {name: device.asarray(a) if isinstance(a, np.ndarray) else a for name, a in arguments.items()}


def reduced(loss, reduction):
    return {"mean": np.mean, "sum": np.sum, "none": np.asarray}[reduction](loss)


@each_case
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_matches_definition(device, function, definition, torch_name, arguments, reduction):
    x, t = arrays()
    extra = {name: np.broadcast_to(a, x.shape) for name, a in arguments.items()}

    def loss_of(x, t):
        loss = np.empty(x.shape)
        for at in np.ndindex(x.shape):
            loss[at] = definition(x[at], t[at], **{name: a[at] for name, a in extra.items()})
        return reduced(loss, reduction)

    given = {**on(device, arguments), "reduction": reduction}
    loss, pullback = function(device.asarray(x), device.asarray(t), **given)
    want = loss_of(x, t)
    assert loss.shape == want.shape and loss.dtype == np.float64
    np.testing.assert_allclose(device.to_numpy(loss), want, rtol=1e-12)
    dloss = np.random.default_rng(1).standard_normal(want.shape)
    for _ in range(2):  # a pullback may be called again
        dx, dt, *rest = pullback(device.asarray(np.asarray(dloss)))
        assert not any(d is not None for d in rest)
        assert_gradient(dx, central_differences(lambda a: (loss_of(a, t) * dloss).sum(), x), "dinput")
        assert_gradient(dt, central_differences(lambda a: (loss_of(x, a) * dloss).sum(), t), "dtarget")


@pytest.mark.oracle
@each_case
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(4, 5), (), (7,), (0, 5), (2, 4, 5)])
def test_matches_torch(device, function, definition, torch_name, arguments, reduction, shape):
    torch = pytest.importorskip("torch")
    if arguments.get("weight") is not None and shape[-2:] != (4, 5):
        arguments = {"weight": np.array(0.7), "pos_weight": np.array(2.5)}
    x, t = arrays(2, shape)
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, t)]
    theirs = {name: torch.tensor(a) if isinstance(a, np.ndarray) else a for name, a in arguments.items()}
    want = getattr(torch.nn.functional, torch_name)(*tensors, **theirs, reduction=reduction)
    dloss = np.random.default_rng(3).standard_normal(tuple(want.shape))
    want.backward(torch.tensor(dloss))
    given = {**on(device, arguments), "reduction": reduction}
    loss, pullback = function(device.asarray(x), device.asarray(t), **given)
    np.testing.assert_allclose(device.to_numpy(loss), want.detach().numpy(), rtol=1e-12)
    for got, tensor in zip(pullback(device.asarray(np.asarray(dloss))), tensors, strict=False):
        np.testing.assert_allclose(device.to_numpy(got), tensor.grad.numpy(), rtol=1e-11, atol=1e-15)


def test_binary_cross_entropy_of_large_logits(device):
    x = np.array([1e4, -1e4, 1e4, -1e4, 0.0], np.float32)
    t = np.array([1, 0, 0, 1, 0.5], np.float32)
    loss, pullback = binary_cross_entropy_with_logits(device.asarray(x), device.asarray(t), reduction="none")
    np.testing.assert_allclose(device.to_numpy(loss), [0, 0, 1e4, 1e4, math.log(2)], rtol=1e-6)
    dx = pullback(device.xp.ones(5, np.float32))[0]
    np.testing.assert_array_equal(device.to_numpy(dx), [0, 0, 1, -1, 0])


@each_function
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_types(device, function, dtype, reduction):
    """Half types are computed in float32 and rounded once, so they are as good as their last place."""
    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    x, t = arrays(4, (300, 20), dtype)
    exact, exact_pullback = function(x.astype(np.float64), t.astype(np.float64), reduction=reduction)
    loss, pullback = function(device.asarray(x), device.asarray(t), reduction=reduction)
    dloss = np.ones(exact.shape)
    eps = float(ml_dtypes.finfo(dtype).eps) * (4 if dtype == np.float32 else 1)
    got = (loss, *pullback(device.asarray(dloss.astype(dtype)))[:2])
    for one, want in zip(got, (exact, *exact_pullback(dloss)[:2]), strict=True):
        assert one.dtype == dtype
        # Below the smallest normal number of float16 the places are absolute.
        tiny = float(ml_dtypes.finfo(dtype).smallest_subnormal)
        scale = np.abs(want) + (np.abs(x - t).astype(np.float64) + 1) * np.finfo(np.float32).eps / eps
        error = np.abs(device.to_numpy(one).astype(np.float64) - want)
        assert (error <= eps * scale + tiny).all()


@each_function
def test_input_need_not_be_contiguous(device, function):
    x, t = arrays(5, (6, 8))
    want, want_pullback = function(np.ascontiguousarray(x.T[::2]), np.ascontiguousarray(t.T[::2]))
    loss, pullback = function(device.asarray(x).T[::2], device.asarray(t).T[::2])
    np.testing.assert_allclose(device.to_numpy(loss), want, rtol=1e-14)
    one = np.ones(())
    for got, other in zip(pullback(device.asarray(one))[:2], want_pullback(one)[:2], strict=True):
        np.testing.assert_allclose(device.to_numpy(got), other, rtol=1e-14)


@each_function
def test_mean_of_nothing_is_nan(device, function):
    empty = device.xp.zeros((0, 3), np.float32)
    loss, pullback = function(empty, empty)
    assert np.isnan(float(loss)) and loss.shape == () and loss.dtype == np.float32
    assert pullback(device.xp.ones((), np.float32))[0].shape == (0, 3)
    assert float(function(empty, empty, reduction="sum")[0]) == 0


@each_function
def test_bad_arguments(device, function):
    x = device.xp.zeros((2, 3), np.float32)
    with pytest.raises(ShapeError, match=r"target: expected \(2, 3\) = the shape of input, got \(3,\)"):
        function(x, x[0])
    with pytest.raises(DTypeError, match="target: expected float32 as input has, got float64"):
        function(x, x.astype(np.float64))
    with pytest.raises(DTypeError, match="input: expected float32, float64, float16, bfloat16, got int64"):
        function(x.astype(np.int64), x)
    with pytest.raises(ShapeError, match="reduction: expected mean, sum, none, got 'average'"):
        function(x, x, reduction="average")


@pytest.mark.parametrize("delta", [0, -1.0, float("nan")])
def test_delta_must_be_above_zero(device, delta):
    x = device.xp.zeros(3, np.float32)
    with pytest.raises(ShapeError, match="delta: expected a number above 0, got"):
        huber(x, x, delta=delta)


def test_delta_may_be_numpys(device):
    x = device.asarray(np.array([-3, -0.2, 5], np.float32))
    loss, pullback = huber(x, device.xp.zeros(3, np.float32), delta=np.float64(0.5), reduction="sum")
    assert loss.dtype == pullback(device.xp.ones((), np.float32))[0].dtype == np.float32
    np.testing.assert_allclose(float(loss), 0.5 * 2.75 + 0.02 + 0.5 * 4.75, rtol=1e-6)


@pytest.mark.parametrize("name", ["weight", "pos_weight"])
def test_weights_must_fit(device, name):
    x = device.xp.zeros((2, 3), np.float32)
    for shape in ((2,), (1, 2, 3), (3, 2), (3, 3)):
        with pytest.raises(ShapeError, match=rf"{name}: expected a shape that broadcasts to \(2, 3\)"):
            binary_cross_entropy_with_logits(x, x, **{name: device.xp.ones(shape, np.float32)})
    with pytest.raises(DTypeError, match=f"{name}: expected float32 as input has, got float64"):
        binary_cross_entropy_with_logits(x, x, **{name: device.xp.ones(3, np.float64)})

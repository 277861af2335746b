"""cross_entropy: the definition written out, torch, every type and row width, and odd cases."""

import math

import ml_dtypes
import numpy as np
import pytest

from gpulstm.errors import DTypeError, ShapeError
from gpulstm.functional import cross_entropy
from tests.tolerances import assert_gradient, assert_ratio, central_differences

SHAPES = [(7, 5), (5,), (1, 1), (3, 2), (40, 17), (2, 6, 3), (3, 4, 2, 2), (0, 5), (2, 3, 0)]


def case(seed, shape, dtype=np.float64, spread=3.0):
    """(logits, target, further arguments, gradient of the loss) drawn at random."""
    rng = np.random.default_rng(seed)
    C = shape[min(1, len(shape) - 1)]
    logits = (spread * rng.standard_normal(shape)).astype(dtype)
    ignore_index = int(rng.choice([-100, 0, -1]))
    target = rng.integers(0, C, shape[:1] + shape[2:] if len(shape) > 1 else ())
    target = np.where(rng.random(target.shape) < 0.3, ignore_index, target)
    reduction = str(rng.choice(["mean", "sum", "none"]))
    arguments = {
        "weight": (rng.random(C) + 0.1).astype(dtype) if rng.random() < 0.5 else None,
        "ignore_index": ignore_index,
        "label_smoothing": float(rng.choice([0, 0, 0.1, 1])),
        "reduction": reduction,
    }
    dloss = rng.standard_normal(target.shape if reduction == "none" else ())
    return logits, target, arguments, np.asarray(dloss, dtype)


def by_definition(logits, target, weight=None, ignore_index=-100, label_smoothing=0.0, reduction="mean"):
    """The loss, one row and one class after the other."""
    x = np.moveaxis(logits, min(1, logits.ndim - 1), -1)
    loss, counted = np.zeros(x.shape[:-1]), 0.0
    C = x.shape[-1]
    w = np.ones(C) if weight is None else weight
    for row in np.ndindex(x.shape[:-1]):
        y = int(target[row])
        if y == ignore_index:
            continue
        largest = max(x[row])
        log_total = largest + math.log(math.fsum(math.exp(v - largest) for v in x[row]))
        spread = math.fsum(w[c] * (log_total - x[row][c]) for c in range(C))
        loss[row] = (1 - label_smoothing) * w[y] * (log_total - x[row][y]) + label_smoothing / C * spread
        counted += w[y]
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    return np.asarray(loss.sum() / counted if counted else np.nan)


def run(device, logits, target, arguments, dloss):
    """[loss, dlogits] on the host, and the pullback itself."""
    arguments = dict(arguments)
    weight = arguments.pop("weight", None)
    weight = None if weight is None else device.asarray(weight)
    loss, pullback = cross_entropy(device.asarray(logits), device.asarray(target), weight, **arguments)
    dlogits, *rest = pullback(device.asarray(dloss))
    assert rest == [None, None]
    return device.to_numpy(loss), device.to_numpy(dlogits), pullback


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(4))
def test_matches_definition(device, shape, seed):
    logits, target, arguments, dloss = case(seed, shape)
    loss, dlogits, pullback = run(device, logits, target, arguments, dloss)
    want = by_definition(logits, target, **arguments)
    assert loss.shape == want.shape and loss.dtype == dlogits.dtype == np.float64
    np.testing.assert_allclose(loss, want, rtol=1e-12, atol=1e-14)
    assert dlogits.shape == logits.shape

    def loss_of(x):
        return float((by_definition(x, target, **arguments) * dloss).sum())

    if not np.isnan(want).any():
        assert_gradient(dlogits, central_differences(loss_of, logits))
    again = device.to_numpy(pullback(device.asarray(dloss))[0])
    np.testing.assert_array_equal(again, dlogits)  # a pullback may be called again


@pytest.mark.oracle
@pytest.mark.parametrize("seed", range(60))
def test_matches_torch(device, seed):
    torch = pytest.importorskip("torch")
    logits, target, arguments, dloss = case(seed, SHAPES[seed % 7])
    loss, dlogits, _ = run(device, logits, target, arguments, dloss)
    tensor = torch.tensor(logits, requires_grad=True)
    weight = arguments.pop("weight")
    want = torch.nn.functional.cross_entropy(
        tensor, torch.tensor(target), None if weight is None else torch.tensor(weight), **arguments
    )
    want.backward(torch.tensor(dloss))
    np.testing.assert_allclose(loss, want.detach().numpy(), rtol=1e-12, atol=1e-14)
    if not np.isnan(loss).any():
        np.testing.assert_allclose(dlogits, tensor.grad.numpy(), rtol=1e-11, atol=1e-14)


def by_formula(logits, target, weight, smoothing, dtype):
    """(mean loss, its gradient) of two-dimensional logits in one type, whole arrays at a time."""
    x, C = logits.astype(dtype), logits.shape[1]
    w, s = weight.astype(dtype), dtype(smoothing)
    z = x - x.max(axis=1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    p, w_y = np.exp(log_p), w[target][:, None]
    own = np.arange(C) == target[:, None]
    loss = -(((1 - s) * w_y * own + s / C * w) * log_p).sum() / w_y.sum()
    dlogits = (1 - s) * w_y * (p - own) + s / C * (p * w.sum() - w)
    return np.asarray(loss), dlogits / w_y.sum()


# As many threads on a row as classes ask for: below, at and above each border, and many rows for the grid.
@pytest.mark.parametrize("shape", [(5000, 2), (9, 16), (9, 17), (600, 103), (3, 1024), (3, 1025), (2, 5000)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_every_row_width_and_type(device, shape, smoothing, dtype):
    rng = np.random.default_rng(shape[1])
    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    logits, target = (3 * rng.standard_normal(shape)).astype(dtype), rng.integers(0, shape[1], shape[0])
    weight = (rng.random(shape[1]) + 0.5).astype(dtype) if smoothing else None
    w = np.ones(shape[1]) if weight is None else weight
    arguments = {"label_smoothing": smoothing, "weight": weight}
    loss, dlogits, _ = run(device, logits, target, arguments, np.ones((), dtype))
    assert loss.dtype == dlogits.dtype == dtype
    reference = by_formula(logits, target, w, smoothing, np.float64)
    if dtype == np.float64:
        np.testing.assert_allclose(loss, reference[0], rtol=1e-12)
        np.testing.assert_allclose(dlogits, reference[1], rtol=1e-10, atol=1e-17)
    plain = by_formula(logits, target, w, smoothing, np.float32)
    assert_ratio(loss, plain[0], reference[0], "loss")
    assert_ratio(dlogits, plain[1], reference[1], "dlogits")


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_types_accumulate_in_float32(device, dtype):
    """5000 equal logits: in the half type itself the sum of exponentials would stop at 2048, or at 256."""
    logits = np.full((3, 5000), 7, dtype)
    loss, dlogits, _ = run(device, logits, np.zeros(3, np.int64), {"reduction": "sum"}, np.ones((), dtype))
    assert loss == np.asarray(3 * math.log(5000)).astype(dtype)
    want = np.full((3, 5000), 1 / 5000)
    want[:, 0] -= 1
    np.testing.assert_array_equal(dlogits, want.astype(dtype))


def test_rows_all_ignored(device):
    logits, target = np.random.default_rng(0).standard_normal((4, 3)), np.full(4, -100)
    for smoothing in (0, 0.1):
        for reduction, want in (("mean", math.nan), ("sum", 0), ("none", np.zeros(4))):
            arguments = {"reduction": reduction, "label_smoothing": smoothing}
            loss, dlogits, _ = run(device, logits, target, arguments, np.ones(np.shape(want)))
            np.testing.assert_array_equal(loss, want)
            np.testing.assert_array_equal(dlogits, 0)


def test_an_ignored_row_may_hold_anything(device):
    logits = np.array([[1.0, 2.0], [math.nan, math.nan], [math.nan, 0.0]])
    loss, dlogits, _ = run(device, logits, np.array([0, -1, -1]), {"ignore_index": -1}, np.ones(()))
    np.testing.assert_allclose(loss, math.log(1 + math.e), rtol=1e-12)
    assert (dlogits[1:] == 0).all() and np.isfinite(dlogits).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_logits(device, dtype):
    """Large offsets cancel, a logit of minus infinity is a class of probability zero, nothing overflows."""
    inf = math.inf
    rows = [[1e4, 0, -1e4], [-1e4, 1e4, 1e4], [-inf, 3, 3], [-inf, -inf, -7], [1e30, -1e30, 0]]
    logits, ones, each = np.array(rows, dtype), np.ones(5, dtype), {"reduction": "none"}
    loss, dlogits, _ = run(device, logits, np.array([0, 1, 2, 2, 0]), each, ones)
    np.testing.assert_allclose(loss, [0, math.log(2), math.log(2), 0, 0], rtol=1e-6)
    want = [[0, 0, 0], [0, -0.5, 0.5], [0, 0.5, -0.5], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(dlogits, want, atol=1e-7)
    wrong, _, _ = run(device, logits, np.array([2, 0, 0, 0, 1]), each, ones)
    np.testing.assert_allclose(wrong, [2e4, 2e4 + math.log(2), inf, inf, 2e30], rtol=1e-6)


@pytest.mark.parametrize("C", [3, 17, 40, 1030])
def test_the_largest_logit_may_stand_anywhere(device, C):
    """A row's maximum that misses one class overflows as soon as that class is the largest by far."""
    target = np.arange(C)[-50:]
    logits = np.where(np.arange(C) == target[:, None], np.float32(1e4), np.float32(0))
    loss, dlogits, _ = run(device, logits, target, {"reduction": "none"}, np.ones(len(target), np.float32))
    np.testing.assert_array_equal(loss, 0)
    np.testing.assert_array_equal(dlogits, 0)


# One for each number of threads on a row, and one row more than a block serves.
@pytest.mark.parametrize("C", [16, 17, 1024, 1025])
def test_rows_do_not_see_each_other(device, C):
    """A row's maximum that takes in a logit of a later row, 1000 higher, leaves a sum of zero."""
    logits = np.repeat(1000.0 * np.arange(33)[:, None], C, axis=1)
    loss, dlogits, _ = run(device, logits, np.zeros(33, np.int64), {"reduction": "none"}, np.ones(33))
    np.testing.assert_allclose(loss, math.log(C), rtol=1e-13)
    np.testing.assert_allclose(dlogits[:, 1:], 1 / C, rtol=1e-13)


def test_logits_that_are_not_numbers_show(device):
    inf = math.inf
    logits = np.array([[0, math.nan, 1], [inf, 1, 2], [inf, 1, 2], [-inf, -inf, -inf], [0, 1, 2]])
    loss, dlogits, _ = run(device, logits, np.array([0, 0, 1, 2, 0]), {"reduction": "none"}, np.ones(5))
    np.testing.assert_array_equal(np.isnan(loss), [True] * 4 + [False])
    np.testing.assert_array_equal(np.isnan(dlogits), [[True] * 3] * 4 + [[False] * 3])


def test_arrays_need_not_be_contiguous(device):
    rng = np.random.default_rng(0)
    logits, target, weight = rng.standard_normal((5, 12)), rng.integers(0, 5, (12, 2)), rng.random((5, 2))
    arguments = {"label_smoothing": 0.1, "reduction": "none"}
    whole = map(np.ascontiguousarray, (logits.T, target[:, 0], weight[:, 0]))
    want, want_pullback = cross_entropy(*whole, **arguments)
    logits, target, weight = map(device.asarray, (logits, target, weight))
    loss, pullback = cross_entropy(logits.T, target[:, 0], weight[:, 0], **arguments)
    np.testing.assert_allclose(device.to_numpy(loss), want, rtol=1e-13)
    dloss = rng.standard_normal((12, 3))
    got = pullback(device.asarray(dloss)[:, 1])[0]
    np.testing.assert_allclose(device.to_numpy(got), want_pullback(dloss[:, 1])[0], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.uint64])
def test_targets_of_any_integer_type(device, kind):
    logits, target = np.random.default_rng(0).standard_normal((4, 3)), np.array([2, 0, 1, 2])
    want = run(device, logits, target, {}, np.ones(()))
    got = run(device, logits, target.astype(kind), {}, np.ones(()))
    assert got[0] == want[0] and (got[1] == want[1]).all()


def test_numbers_may_be_numpys(device):
    logits, target = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3), np.array([2, 0, 1, 0])
    want = run(device, logits, target, {"ignore_index": 0, "label_smoothing": 0.5}, np.ones((), np.float32))
    arguments = {"ignore_index": np.int8(0), "label_smoothing": np.float64(0.5)}
    got = run(device, logits, target, arguments, np.ones((), np.float32))
    assert got[0] == want[0] and (got[1] == want[1]).all() and got[1].dtype == np.float32


@pytest.mark.parametrize(("bad", "ignore_index"), [(3, -100), (-1, -100), (-100, -1), (2**33, -100)])
def test_a_target_out_of_range_is_named(device, bad, ignore_index):
    target = device.asarray(np.array([0, 2, bad, ignore_index]))
    message = f"target: expected 0 <= index < 3, the classes of input, got {bad} at 2"
    with pytest.raises(ShapeError, match=message):
        cross_entropy(device.xp.zeros((4, 3), np.float32), target, ignore_index=ignore_index)


def test_bad_arguments(device):
    xp = device.xp
    x, target = xp.zeros((4, 3), np.float32), xp.zeros(4, np.int64)
    with pytest.raises(ShapeError, match=r"target: expected \(4,\) = input's shape without .*, got \(3,\)"):
        cross_entropy(x, target[:3])
    with pytest.raises(ShapeError, match=r"target: expected \(4, 2\) = input's shape without .*, got \(4,\)"):
        cross_entropy(xp.zeros((4, 3, 2), np.float32), target)
    with pytest.raises(ShapeError, match=r"weight: expected \(3,\) = \(classes,\), got \(4,\)"):
        cross_entropy(x, target, xp.ones(4, np.float32))
    with pytest.raises(ShapeError, match=r"input: expected at least one class, got \(4, 0\)"):
        cross_entropy(x[:, :0], target)
    with pytest.raises(ShapeError, match=r"input: expected \(N, C\), \(C,\) or \(N, C, d1, ...\), got \(\)"):
        cross_entropy(xp.zeros((), np.float32), target)
    with pytest.raises(ShapeError, match=r"label_smoothing: expected 0 <= label_smoothing <= 1, got 1\.5"):
        cross_entropy(x, target, label_smoothing=1.5)
    with pytest.raises(ShapeError, match="reduction: expected mean, sum, none, got 'all'"):
        cross_entropy(x, target, reduction="all")
    with pytest.raises(DTypeError, match="target: expected integers, got float32"):
        cross_entropy(x, target.astype(np.float32))
    with pytest.raises(DTypeError, match="weight: expected float32 as input has, got float64"):
        cross_entropy(x, target, xp.ones(3, np.float64))
    with pytest.raises(DTypeError, match="input: expected float32, float64, float16, bfloat16, got int64"):
        cross_entropy(x.astype(np.int64), target)

"""Choices, bounds and casts of each element, extrema and sums over axes: values, gradients, corners as in PyTorch."""

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import DTypeError, ShapeError
from gpulstm.functional import comparisons, elementwise, rearrange, reductions
from tests.test_arithmetic import DTYPES, PAIRS, check
from tests.tolerances import assert_close

NAN, INF = np.nan, np.inf


def apart(rng, shape):
    """Values that differ by 0.1 at least, so that a small step changes no order."""
    size = int(np.prod(shape, dtype=int))
    return (rng.permutation(size).reshape(shape) - size / 2 + 0.25) * 0.1


# -- two arrays ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shapes", PAIRS, ids=str)
@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_maximum_and_minimum(device, rng, name, shapes):
    a, b = (rng.standard_normal(shape) for shape in shapes)
    check(device, getattr(elementwise, name), getattr(np, name), [a, b])
    check(device, getattr(elementwise, name), getattr(np, name), [a, 0.25])
    check(device, getattr(elementwise, name), getattr(np, name), [0.25, b])


@pytest.mark.parametrize("shapes", PAIRS, ids=str)
def test_where(device, rng, shapes):
    a, b = (rng.standard_normal(shape) for shape in shapes)
    for condition in (rng.random(np.broadcast_shapes(*shapes)) < 0.5, np.array(True)):

        def chosen(*operands, condition=condition):
            return elementwise.where(device.asarray(condition), *operands)

        def without_condition(*operands, chosen=chosen):
            y, pullback = chosen(*operands)
            return y, lambda dy: pullback(dy)[1:]

        formula = lambda *operands, condition=condition: np.where(condition, *operands)  # noqa: E731
        check(device, without_condition, formula, [a, b])
        check(device, without_condition, formula, [a, 2.0])
        check(device, without_condition, formula, [1, b])
        assert chosen(device.asarray(a), 2.0)[1](device.asarray(formula(a, 2.0)))[0] is None


@pytest.mark.parametrize(
    ("a", "b", "dtype", "want"),
    [
        (np.array([1, 2]), 0.5, "float64", [1, 0.5]),
        (0.5, np.array([True, False]), "float64", [0.5, 0]),
        (np.array([True, True]), 3, "int64", [1, 3]),
        (np.array([1, 2], np.int8), np.array([3, 300], np.int16), "int16", [1, 300]),
        (np.array([1, 2], np.float32), 0.1, "float32", [1, np.float32(0.1)]),
        (np.array([1, 2]), np.array([0.5, 0.5], np.float32), "float32", [1, 0.5]),
    ],
)
def test_where_has_a_type_that_holds_both(device, a, b, dtype, want):
    a, b = (device.asarray(x) if isinstance(x, np.ndarray) else x for x in (a, b))
    y, _ = elementwise.where(device.asarray([True, False]), a, b)
    assert y.dtype == dtype and y.tolist() == want


def test_where_does_not_read_what_it_does_not_choose(device):
    condition, a = device.asarray(np.array([True, False])), device.asarray(np.array([1.0, NAN]))
    y, pullback = elementwise.where(condition, a, 0.0)
    np.testing.assert_array_equal(device.to_numpy(y), [1, 0])
    np.testing.assert_array_equal(device.to_numpy(pullback(y + 1)[1]), [2, 0])


@pytest.mark.parametrize("bounds", [(-0.5, 0.7), (None, 0.3), (0, None), (np.float64(-0.5), np.int64(1))], ids=str)
def test_clip(device, rng, bounds):
    low, high = bounds
    x = rng.standard_normal((3, 4))
    check(device, elementwise.clip, lambda a: np.clip(a, low, high), [x], min=low, max=high)


@pytest.mark.oracle
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_corners_ties_and_nan_are_pytorchs(dtype):
    import torch

    x = np.array([[1, 1, 0, -2], [NAN, 1, NAN, 0], [INF, -INF, 0, 0], [-0.0, 0, 2, 2]], dtype)
    other = np.array([1, 0, 0, NAN], dtype)
    cases = {
        "max": (lambda t: t.max(), lambda t: t.max()),
        "max of a row": (lambda t: t.max(axis=1), lambda t: t.max(1).values),
        "max of columns": (lambda t: t[:1].max(axis=(0, 1)), lambda t: t[:1].amax((0, 1))),
        "min": (lambda t: t[::3].min(), lambda t: t[::3].min()),
        "min of a row": (lambda t: t.min(axis=-1), lambda t: t.min(-1).values),
        "abs": (lambda t: t.abs(), lambda t: t.abs()),
        "sqrt": (lambda t: t.sqrt(), lambda t: t.sqrt()),
        "clip": (lambda t: t.clip(0, 1), lambda t: t.clamp(0, 1)),
        "relu": (lambda t: t.relu(), lambda t: t.relu()),
        "maximum": (lambda t: gl.maximum(t, other), lambda t: torch.maximum(t, torch.tensor(other))),
        "minimum": (lambda t: gl.minimum(t, other), lambda t: torch.minimum(t, torch.tensor(other))),
        "where": (lambda t: gl.where(t > 0, t, t * 2), lambda t: torch.where(t > 0, t, t * 2)),
        "cumsum": (lambda t: t[3].cumsum(0), lambda t: t[3].cumsum(0)),
    }
    for name, (ours, theirs) in cases.items():
        a, b = gl.tensor(x.copy(), requires_grad=True), torch.tensor(x.copy(), requires_grad=True)
        with np.errstate(all="ignore"):
            y, z = ours(a), theirs(b)
            dy = np.arange(1, y.size + 1).reshape(y.shape).astype(dtype)
            y.backward(dy)
        z.backward(torch.tensor(dy))
        last_place = 2 * np.finfo(dtype).eps  # of roots
        np.testing.assert_allclose(y.numpy(), z.detach().numpy(), rtol=last_place, err_msg=name)
        np.testing.assert_allclose(a.grad, b.grad.numpy(), rtol=last_place, err_msg=name)
    for axis in (0, 1, None):
        assert (gl.tensor(x).argmax(axis).numpy() == torch.tensor(x).argmax(axis).numpy()).all()
        assert (gl.tensor(x).argmin(axis).numpy() == torch.tensor(x).argmin(axis).numpy()).all()


# -- over axes -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("axis", [None, 0, 1, -1, -3, (0, 2), (2, 0, 1), ()], ids=str)
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", ["max", "min"])
def test_extrema(device, rng, name, axis, keepdims):
    static = {"axis": axis, "keepdims": keepdims}
    check(device, getattr(reductions, name), lambda a: getattr(a, name)(**static), [apart(rng, (2, 3, 4))], **static)


def test_extrema_of_one_number_of_no_rows_and_of_integers(device):
    check(device, reductions.max, np.max, [np.array(3.0)])
    y, pullback = reductions.max(device.xp.zeros((0, 3)), axis=1)
    assert y.shape == (0,) and pullback(y)[0].shape == (0, 3)
    assert int(reductions.max(device.asarray(np.array([3, 7, 2])))[0]) == 7
    for function in (reductions.max, reductions.argmin):
        with pytest.raises(ShapeError, match=r"expected at least one element along the axis, got \(0, 3\)"):
            function(device.xp.zeros((0, 3)), axis=0)


@pytest.mark.parametrize("axis", [None, 0, -1])
@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_positions(device, rng, name, axis):
    x = apart(rng, (3, 4))
    for keepdims in (False, True):
        place, pullback = getattr(reductions, name)(device.asarray(x), axis=axis, keepdims=keepdims)
        want = getattr(np, name)(x, axis=axis, keepdims=keepdims)
        assert place.dtype == np.int64 and pullback is None
        np.testing.assert_array_equal(device.to_numpy(place), want)
    with pytest.raises(ShapeError, match=r"axis: expected one axis or None, got \(0, 1\)"):
        getattr(reductions, name)(device.asarray(x), axis=(0, 1))


@pytest.mark.parametrize("axis", [None, 0, (0, 1)], ids=str)
@pytest.mark.parametrize("name", ["any", "all"])
def test_any_and_all(device, name, axis):
    for x in (np.array([[True, False], [True, True]]), np.array([[0.0, 0.0], [2.0, 0.0]]), np.zeros((0, 2), int)):
        got, _ = getattr(reductions, name)(device.asarray(x), axis=axis)
        np.testing.assert_array_equal(device.to_numpy(got), getattr(np, name)(x, axis=axis))
        assert got.dtype == np.bool_


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_cumsum(device, rng, axis):
    check(device, reductions.cumsum, lambda a: a.cumsum(axis), [rng.standard_normal((2, 3, 4))], axis=axis)
    counts = device.asarray(np.arange(6).reshape(2, 3))
    assert reductions.cumsum(counts, axis=1)[0].dtype == np.int64


# -- shapes, types, places -----------------------------------------------------------------------------------
@pytest.mark.parametrize("shape, axis", [((2, 1, 3), 1), ((1, 2, 1), None), ((1, 2, 1), (0, -1)), ((), None)], ids=str)
def test_squeeze(device, rng, shape, axis):
    check(device, rearrange.squeeze, lambda a: a.squeeze(axis), [np.asarray(rng.standard_normal(shape))], axis=axis)
    with pytest.raises(ShapeError, match=r"axis: expected axes of size 1 of \(2, 3\), got 0"):
        rearrange.squeeze(device.xp.zeros((2, 3)), axis=0)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_expand_dims(device, rng, axis):
    check(device, rearrange.expand_dims, lambda a: np.expand_dims(a, axis), [rng.standard_normal((2, 3))], axis=axis)
    with pytest.raises(ShapeError, match="axis: expected one of 3 axes, got 3"):
        rearrange.expand_dims(device.xp.zeros((2, 3)), axis=3)


@pytest.mark.parametrize("after", DTYPES)
@pytest.mark.parametrize("before", DTYPES)
def test_casts_carry_the_gradient(device, before, after):
    before, after = gl.as_dtype(before), gl.as_dtype(after)
    x = gl.Tensor(device.asarray(np.array([1.5, -2.0]).astype(before)), requires_grad=True)
    y = x.astype(after)
    assert y.dtype == after and y.requires_grad and (y is x) == (before == after)
    (y * 3).sum().backward()
    assert x.grad.dtype == before and device.to_numpy(x.grad).astype(np.float64).tolist() == [3, 3]
    assert not x.astype("int64").requires_grad and x.astype(np.int32).dtype == np.int32


def test_casts_by_name(device):
    x = gl.Tensor(device.asarray(np.ones(2)), requires_grad=True)
    assert [t.dtype.name for t in (x.half(), x.float(), x.double())] == ["float16", "float32", "float64"]
    assert x.double() is x and x.to(device.name) is x and x.to("float64") is x
    assert x.to(dtype="float32").dtype == x.to(np.float32).dtype == np.float32
    assert x.to(gl.device(device.name), "bfloat16").dtype.name == "bfloat16"
    for wrong in ("float31", "gpu"):
        with pytest.raises(DTypeError, match=f"dtype: expected a NumPy dtype, got '{wrong}'"):
            x.to(wrong)
    with pytest.raises(DTypeError, match="to: expected a device, a dtype or both, got none"):
        x.to()


def test_moves_carry_the_gradient(emulated):
    x = gl.tensor([1.0, 2.0], requires_grad=True)
    there = x.cuda()
    assert there.device == "cuda:0" and x.to("cuda:1").device == "cuda:1" and there.cpu().device == "cpu"
    (there.to("cuda:1", "float64") ** 2).cpu().sum().backward()
    assert isinstance(x.grad, np.ndarray) and x.grad.tolist() == [2, 4] and x.grad.dtype == np.float32


def test_copies_have_memory_of_their_own(device, rng):
    check(device, elementwise.copy, lambda a: a + 0, [rng.standard_normal((2, 3))])
    x = gl.Tensor(device.xp.ones(3), requires_grad=True)
    assert not device.xp.may_share_memory(x.clone().data, x.data) and x.copy().requires_grad


# -- comparisons ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"])
def test_comparisons(device, name):
    a, b = np.array([[1.0, 2.0, NAN]]), np.array([[1], [2]])
    for left, right in ((a, b), (a, 2), (1.5, a), (a.astype(np.float32), a), (b, True)):
        given = [device.asarray(x) if isinstance(x, np.ndarray) else x for x in (left, right)]
        got, _ = getattr(comparisons, name)(*given)
        np.testing.assert_array_equal(device.to_numpy(got), getattr(np, name)(left, right))
        assert got.dtype == np.bool_
    with pytest.raises(ShapeError, match=rf"{name}: expected shapes that broadcast, got \(2,\) and \(3,\)"):
        getattr(comparisons, name)(np.ones(2), np.ones(3))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_choose_and_compare(device, dtype):
    dtype = gl.as_dtype(dtype)
    x = device.asarray(np.array([[1, -2, 3], [4, 4, -6]]).astype(dtype))
    calls = [
        elementwise.maximum(x, x[0]), elementwise.where(x > 0, x, 0), elementwise.clip(x, min=-1, max=2),
        elementwise.absolute(x), reductions.max(x), reductions.max(x, axis=1), reductions.cumsum(x, axis=0),
        elementwise.sqrt(x * x), elementwise.relu(x), rearrange.squeeze(x[None]),
    ]  # fmt: skip
    for y, pullback in calls:
        gradients = [g for g in pullback(y) if g is not None]
        assert y.dtype == dtype and {g.dtype for g in gradients} == {dtype}
    assert device.to_numpy(reductions.argmax(x, axis=1)[0]).tolist() == [2, 0]
    assert_close(device.to_numpy(calls[5][0]).astype(float), [3.0, 4.0])


def test_what_does_not_fit_is_named(device):
    x = device.xp.ones((2, 3), np.float32)

    def refused(error, message, function, *args, **static):
        with pytest.raises(error, match=message):
            function(*args, **static)

    refused(
        DTypeError, "condition: expected an array of bool, got float32; use a comparison", elementwise.where, x, x, x
    )
    refused(
        DTypeError, "condition: expected an array of bool, got bool; use a comparison", elementwise.where, True, x, x
    )
    refused(DTypeError, "where: expected one dtype", elementwise.where, x > 0, x, x.astype(np.float64))
    refused(ShapeError, "where: expected shapes that broadcast", elementwise.where, x > 0, x, x[:, :2])
    refused(DTypeError, "min: expected a number or None, got ndarray; use gl.maximum", elementwise.clip, x, min=x)
    refused(DTypeError, "clip: expected min, max or both, got neither", elementwise.clip, x)
    refused(DTypeError, "maximum: expected one dtype", elementwise.maximum, x, x.astype(np.float64))
    refused(DTypeError, "x: expected float32, .* got int64", elementwise.sqrt, x.astype(np.int64))
    refused(DTypeError, "bitwise_and: expected booleans or integers, got float32", comparisons.bitwise_and, x > 0, x)
    refused(ShapeError, r"axis: expected axes of \(2, 3\), each once, got 2", reductions.max, x, axis=2)

"""The functions behind Tensor's operators: values against formulas, gradients against central differences."""

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import DeviceError, DTypeError, ShapeError
from gpulstm.functional import arithmetic, elementwise, rearrange, reductions
from tests.tolerances import assert_close, assert_gradient, central_differences

PAIRS = [
    ((2, 3), (2, 3)),
    ((2, 3), (3,)),
    ((1, 3), (2, 1)),
    ((4, 1, 2), (3, 1)),
    ((), (2, 3)),
    ((2, 3), ()),
    ((), ()),
    ((1,), (1,)),
    ((0, 3), (3,)),
    ((1, 3), (0, 3)),
]
BINARY = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "power": np.power,
}
UNARY = {
    "negative": (arithmetic.negative, np.negative),
    "exp": (elementwise.exp, np.exp),
    "log": (elementwise.log, np.log),
    "sqrt": (elementwise.sqrt, np.sqrt),
    "absolute": (elementwise.absolute, np.abs),
    "tanh": (elementwise.tanh, np.tanh),
    "sigmoid": (elementwise.sigmoid, lambda a: 1 / (1 + np.exp(-a))),
    "relu": (elementwise.relu, lambda a: np.where(a > 0, a, 0)),
}


def positive(rng, shape):
    """Values from 0.5 to 2, where every function here is smooth."""
    return rng.uniform(0.5, 2, shape)


def check(device, function, formula, inputs, **static):
    """``function`` on the device against ``formula`` in NumPy, and every gradient against its differences.

    Inputs are float64 arrays or Python numbers; a number has no gradient. The pullback is called twice.
    """
    host = [np.array(x) if isinstance(x, np.ndarray) else x for x in inputs]
    want = np.asarray(formula(*host))
    dy = np.random.default_rng(1).standard_normal(want.shape)
    with device:
        given = [device.asarray(x) if isinstance(x, np.ndarray) else x for x in inputs]
        y, pullback = function(*given, **static)
        results = pullback(device.asarray(dy)), pullback(device.asarray(dy))
    assert_close(y, want)
    for gradients in results:
        assert len(gradients) == len(inputs)
        for k, (x, gradient) in enumerate(zip(host, gradients, strict=True)):
            if not isinstance(x, np.ndarray):
                assert gradient is None
                continue
            differences = central_differences(lambda _: (np.asarray(formula(*host)) * dy).sum(), x)
            assert_gradient(gradient, differences, name=f"gradient {k}")
    for x, before in zip(given, host, strict=True):
        if isinstance(before, np.ndarray):
            np.testing.assert_array_equal(device.to_numpy(x), before)


@pytest.mark.parametrize("shapes", PAIRS, ids=str)
@pytest.mark.parametrize("name", BINARY)
def test_binary_functions_and_broadcasting(device, rng, name, shapes):
    check(device, getattr(arithmetic, name), BINARY[name], [positive(rng, shape) for shape in shapes])


@pytest.mark.parametrize("name", BINARY)
def test_a_number_on_either_side(device, rng, name):
    for number in (3, 0.5, True):
        check(device, getattr(arithmetic, name), BINARY[name], [positive(rng, (2, 3)), number])
        check(device, getattr(arithmetic, name), BINARY[name], [number, positive(rng, (2, 3))])


@pytest.mark.parametrize("exponent", [2, 3, 1, 0, -1, 0.5, -2.5])
def test_powers(device, rng, exponent):
    check(device, arithmetic.power, np.power, [positive(rng, (2, 3)), exponent])
    if exponent in (2, 3, 1, 0):  # of negative numbers too
        check(device, arithmetic.power, np.power, [-positive(rng, (2, 3)), exponent])


def test_slopes_of_powers_at_zero(device):
    zero, exponents = device.asarray(np.zeros(4)), device.asarray(np.array([0.0, 1.0, 2.0, 3.0]))
    y, pullback = arithmetic.power(zero, exponents)
    da, db = map(device.to_numpy, pullback(device.asarray(np.ones(4))))
    np.testing.assert_array_equal(device.to_numpy(y), [1, 0, 0, 0])
    np.testing.assert_array_equal(da, [0, 1, 0, 0])
    np.testing.assert_array_equal(db, [0, 0, 0, 0])
    _, pullback = arithmetic.power(zero, 0)
    np.testing.assert_array_equal(device.to_numpy(pullback(device.asarray(np.ones(4)))[0]), 0)


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("shape", [(2, 3), (), (0, 2), (1,)], ids=str)
def test_unary_functions(device, rng, name, shape):
    check(device, UNARY[name][0], UNARY[name][1], [positive(rng, shape)])
    if name not in ("log", "sqrt"):
        check(device, UNARY[name][0], UNARY[name][1], [np.asarray(-positive(rng, shape))])


def test_sigmoid_and_relu_at_their_edges(device):
    x = device.asarray(np.array([-1e4, 0.0, 1e4]))
    y, pullback = elementwise.sigmoid(x)
    np.testing.assert_array_equal(device.to_numpy(y), [0, 0.5, 1])
    np.testing.assert_array_equal(device.to_numpy(pullback(x * 0 + 1)[0]), [0, 0.25, 0])
    y, pullback = elementwise.relu(x)
    np.testing.assert_array_equal(device.to_numpy(y), [0, 0, 1e4])
    np.testing.assert_array_equal(device.to_numpy(pullback(x * 0 + 1)[0]), [0, 0, 1])


@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 3), (3, 4)),
        ((3,), (3, 4)),
        ((2, 3), (3,)),
        ((3,), (3,)),
        ((5, 2, 3), (3, 4)),
        ((5, 2, 3), (3,)),
        ((3,), (5, 3, 4)),
        ((5, 2, 3), (5, 3, 4)),
        ((5, 1, 2, 3), (4, 3, 2)),
        ((2, 3), (5, 3, 4)),
        ((1, 3), (3, 1)),
        ((0, 3), (3, 4)),
        ((2, 0), (0, 4)),
        ((0, 2, 0), (0, 4)),
        ((2, 3), (3, 0)),
    ],
    ids=str,
)
def test_products(device, rng, shapes):
    check(device, arithmetic.matmul, np.matmul, [rng.standard_normal(shape) for shape in shapes])


def test_products_of_arrays_that_are_not_contiguous(device, rng):
    left, right = rng.standard_normal((3, 2, 5)), rng.standard_normal((4, 6))
    y, pullback = arithmetic.matmul(device.asarray(left).T, device.asarray(right)[:, ::2].T)
    want = np.ascontiguousarray(left.T) @ np.ascontiguousarray(right[:, ::2].T)
    assert_close(y, want)
    da, db = pullback(y)
    assert_close(da, want @ right[:, ::2])
    assert_close(db, np.einsum("abi,abj->ij", left.T, want))


@pytest.mark.parametrize("axis", [None, 0, 1, -1, -3, (0, 2), (2, 0, 1), ()], ids=str)
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", ["sum", "mean"])
def test_reductions(device, rng, name, axis, keepdims):
    formula = getattr(np, name)
    static = {"axis": axis, "keepdims": keepdims}
    x = rng.standard_normal((2, 3, 4))
    check(device, getattr(reductions, name), lambda a: formula(a, **static), [x], **static)


def test_reductions_of_nothing_and_of_one(device):
    zeros = device.xp.zeros
    y, pullback = reductions.sum(zeros((0, 3)))
    assert float(y) == 0 and pullback(zeros(()))[0].shape == (0, 3)
    y, pullback = reductions.mean(zeros((0, 3)))
    assert np.isnan(float(y)) and pullback(zeros(()))[0].shape == (0, 3)
    y, _ = reductions.mean(zeros((0, 3)), axis=1)
    assert y.shape == (0,)
    check(device, reductions.mean, np.mean, [np.array(3.0)])


KEYS = {
    "number": 1,
    "last": -1,
    "numpy's number": np.int64(2),
    "slice": slice(1, None, 2),
    "backwards": slice(None, None, -1),
    "two": (0, slice(None, 2)),
    "all": (),
    "ellipsis": (Ellipsis, 0),
    "new axis": (None, slice(None), None, 1),
    "element": (1, 2, 0),
    "list": [2, 0, 2, 2],
    "array": np.array([2, 0, 2, 2]),
    "array of two axes": np.array([[0, 1], [1, 1]]),
    "array behind": (slice(None), np.array([1, 1, 0])),
    "pairs": (np.array([0, 1, 0]), np.array([2, 2, 2])),
    "mask": np.array([True, False, True]),
    "mask of all": np.arange(24).reshape(3, 4, 2) % 5 == 0,
    "mask and number": (np.array([True, False, True]), 2),
    "nothing": np.array([], np.int64),
}


@pytest.mark.parametrize("name", KEYS)
def test_indexing(device, rng, name):
    def there(part):
        return device.asarray(part) if isinstance(part, np.ndarray) else part

    key = KEYS[name]
    on_device = tuple(map(there, key)) if isinstance(key, tuple) else there(key)
    check(device, rearrange.index, lambda a: a[key], [rng.standard_normal((3, 4, 2))], key=on_device)


def test_elements_taken_often_add_up_the_same_way_every_time(device, rng):
    x, ids = device.asarray(rng.standard_normal((5, 3))), rng.integers(0, 5, 400)
    dy = rng.standard_normal((400, 3))
    _, pullback = rearrange.index(x, key=device.asarray(ids))
    first, second = (device.to_numpy(pullback(device.asarray(dy))[0]) for _ in range(2))
    want = np.zeros((5, 3))
    np.add.at(want, ids, dy)
    assert_close(first, want)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("shape", [(4, 6), (-1,), (2, -1, 3), (24, 1)], ids=str)
def test_reshape(device, rng, shape):
    check(device, rearrange.reshape, lambda a: a.reshape(shape), [rng.standard_normal((2, 3, 4))], shape=shape)
    transposed = rng.standard_normal((4, 3, 2)).T
    check(device, rearrange.reshape, lambda a: a.reshape(shape), [transposed], shape=shape)


@pytest.mark.parametrize("axes", [None, (1, 2, 0), (2, 0, 1), (0, -1, 1), (-3, 2, 1), [0, 1, 2]], ids=str)
def test_transpose(device, rng, axes):
    check(device, rearrange.transpose, lambda a: a.transpose(axes), [rng.standard_normal((2, 3, 4))], axes=axes)


def test_transpose_of_no_axes(device):
    check(device, rearrange.transpose, lambda a: a, [np.array(2.0)])


@pytest.mark.parametrize("axis", [0, 1, -1, -3])
def test_concatenate(device, rng, axis):
    sizes = [(2, 3, 4)] * 3
    shapes = [tuple(n + k if i == axis % 3 else n for i, n in enumerate(s)) for k, s in enumerate(sizes)]
    arrays = [rng.standard_normal(shape) for shape in shapes]
    check(device, rearrange.concatenate, lambda *a: np.concatenate(a, axis), arrays, axis=axis)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_stack(device, rng, axis):
    arrays = [rng.standard_normal((2, 3)) for _ in range(3)]
    check(device, rearrange.stack, lambda *a: np.stack(a, axis), arrays, axis=axis)


def test_stack_and_concatenate_of_one_and_of_numbers(device, rng):
    check(device, rearrange.stack, lambda a: a[None], [rng.standard_normal((2, 3))])
    check(device, rearrange.concatenate, lambda a: a, [rng.standard_normal((2, 3))])
    check(device, rearrange.stack, lambda *a: np.stack(a), [np.array(1.0), np.array(2.0)])
    check(device, rearrange.concatenate, lambda *a: np.concatenate(a), [np.zeros(0), rng.standard_normal(3)])


# -- the checks are able to fail -----------------------------------------------------------------------------
def _pair(da, db):
    """a - b with these gradients of dy, for a (1, 3) and b (2, 3)."""
    return lambda a, b: (a - b, lambda dy: (da(dy), db(dy)))


def _summed(dy):
    return dy.sum(axis=0, keepdims=True)


def _serves_once(a, b):
    calls = iter((1, 2))
    return a - b, lambda dy: (next(calls) * _summed(dy), -dy)


def _writes(a, b):
    y = a - b
    a += 1
    return y, lambda dy: (_summed(dy), -dy)


FAULTS = {
    "value": lambda a, b: (a - 1.001 * b, lambda dy: (_summed(dy), -dy)),
    "sign": _pair(_summed, lambda dy: dy),
    "zero": _pair(lambda dy: 0 * _summed(dy), lambda dy: -dy),
    "broadcasting": _pair(lambda dy: dy[:1], lambda dy: -dy),
    "shape": _pair(lambda dy: dy.sum(axis=0), lambda dy: -dy),
    "swapped": _pair(lambda dy: -dy[:1], _summed),
    "missing": lambda a, b: (a - b, lambda dy: (_summed(dy),)),
    "right only once": _serves_once,
    "writes to its input": _writes,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_sees_a_fault(rng, fault):
    inputs = [rng.standard_normal((1, 3)), rng.standard_normal((2, 3))]
    backend = gl.device("cpu").backend
    check(backend, _pair(_summed, lambda dy: -dy), np.subtract, inputs)
    with pytest.raises(AssertionError):
        check(backend, FAULTS[fault], np.subtract, inputs)


# -- element types -------------------------------------------------------------------------------------------
DTYPES = ("float16", "bfloat16", "float32", "float64")


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_function_keeps_the_element_type(device, dtype):
    dtype = gl.as_dtype(dtype)
    x = device.asarray(np.linspace(0.5, 1.5, 6).reshape(2, 3).astype(dtype))
    row = x[0]
    calls = [(getattr(arithmetic, name), (x, row), {}) for name in BINARY]
    calls += [
        (getattr(arithmetic, name), (x, number), {}) for name in BINARY for number in (2, 2.5, True, np.float64(2.5))
    ]
    calls += [(getattr(arithmetic, name), (number, x), {}) for name in BINARY for number in (2, 2.5, np.float64(2.5))]
    calls += [(function, (x,), {}) for function, _ in UNARY.values()]
    calls += [(reductions.sum, (x,), {}), (reductions.mean, (x,), {})]
    calls += [
        (arithmetic.matmul, (x, x.T), {}),
        (arithmetic.matmul, (x[None], x[None].transpose(0, 2, 1)), {}),
    ]
    calls += [
        (rearrange.concatenate, (x, x), {}),
        (rearrange.stack, (x, x), {}),
        (rearrange.index, (x,), {"key": (0,)}),
    ]
    calls += [(rearrange.index, (x,), {"key": device.asarray(np.array([1, 1, 0]))})]
    for function, inputs, static in calls:
        y, pullback = function(*inputs, **static)
        assert y.dtype == dtype, function.__name__
        for x_k, gradient in zip(inputs, pullback(y), strict=True):
            if hasattr(x_k, "shape") and x_k.shape:
                assert gradient.dtype == dtype and gradient.shape == x_k.shape, function.__name__


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("kind", ["int64", "int32", "uint8", "bool"])
def test_integers_and_booleans_take_the_floating_type(device, name, kind):
    x = device.asarray(np.array([1.5, 2.5, 0.5], np.float32))
    counts = device.asarray(np.array([1, 2, 1]).astype(kind))
    for inputs in ((x, counts), (counts, x)):
        y, pullback = getattr(arithmetic, name)(*inputs)
        assert y.dtype == np.float32
        want = BINARY[name](*(device.to_numpy(a).astype(np.float64) for a in inputs))
        assert_close(device.to_numpy(y).astype(np.float64), want, rtol=1e-6)
        gradients = pullback(y)
        assert [g is None for g in gradients] == [a is counts for a in inputs]


def test_integers_among_themselves_are_numpys(device):
    a, b = device.asarray(np.array([1, 2, 3])), device.asarray(np.array([2, 2, 2]))
    assert arithmetic.add(a, b)[0].dtype == np.int64
    assert (device.to_numpy(arithmetic.power(a, 2)[0]) == [1, 4, 9]).all()
    assert int(reductions.sum(a)[0]) == 6


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_are_summed_in_float32(device, dtype):
    dtype = gl.as_dtype(dtype)
    ones = device.asarray(np.ones((4096, 2), dtype))  # counting in half precision stops at 2048 or 256
    assert float(reductions.sum(ones)[0].astype(np.float32)) == 8192
    assert (device.to_numpy(reductions.sum(ones, axis=0)[0]).astype(np.float32) == 4096).all()
    _, pullback = arithmetic.add(ones, ones[0])
    assert (device.to_numpy(pullback(ones)[1]).astype(np.float32) == 4096).all()
    y, pullback = arithmetic.matmul(ones[:, 0], ones[:, 0])
    assert float(y.astype(np.float32)) == 4096
    large = device.asarray(np.full(100, 60000, dtype))  # the sum is over float16's range, the mean is not
    assert abs(float(reductions.mean(large)[0].astype(np.float32)) / 60000 - 1) < 0.01


# -- errors --------------------------------------------------------------------------------------------------
def test_what_does_not_fit_is_named(device):
    x, y = device.xp.ones((2, 3), np.float32), device.xp.ones((4, 3), np.float32)

    def refused(error, message, function, *args, **static):
        with pytest.raises(error, match=message):
            function(*args, **static)

    wide = x.astype(np.float64)
    refused(ShapeError, r"add: expected shapes that broadcast, got \(2, 3\) and \(4, 3\)", arithmetic.add, x, y)
    refused(DTypeError, "multiply: expected one dtype, got float32 and float64", arithmetic.multiply, x, wide)
    refused(DTypeError, "divide: expected arrays or numbers, got NoneType", arithmetic.divide, x, None)
    refused(DTypeError, "divide: expected arrays or numbers, got NoneType", arithmetic.divide, None, x)
    refused(DTypeError, "str", arithmetic.add, x, "2")
    refused(ShapeError, r"matmul: expected .* got \(2, 3\) @ \(4, 3\)", arithmetic.matmul, x, y)
    refused(ShapeError, r"matmul: expected .* got \(2, 3\) @ \(\)", arithmetic.matmul, x, x[0, 0])
    refused(ShapeError, "stacks that broadcast", arithmetic.matmul, x[None].repeat(2, 0), y.T[None].repeat(3, 0))
    refused(DTypeError, "b: expected float32 as a has, got float64", arithmetic.matmul, x, wide.T)
    refused(DTypeError, "x: expected float32, .* got int64", elementwise.tanh, x.astype(np.int64))
    refused(DTypeError, "a: expected float32, .* got int64", reductions.mean, x.astype(np.int64))
    refused(ShapeError, r"axis: expected axes of \(2, 3\), each once, got 2", reductions.sum, x, axis=2)
    refused(ShapeError, r"each once, got \(0, -2\)", reductions.mean, x, axis=(0, -2))
    refused(ShapeError, r"reshape: expected .* \(2, 3\), got \(4, 2\)", rearrange.reshape, x, shape=(4, 2))
    refused(ShapeError, r"transpose: expected the 2 axes .* got \(0, 0\)", rearrange.transpose, x, axes=(0, 0))
    refused(ShapeError, r"got \(0, 1, 2\)", rearrange.transpose, x, axes=(0, 1, 2))
    refused(ShapeError, r"got \(0, 2\)", rearrange.transpose, x, axes=(0, 2))
    refused(ShapeError, r"got \(1, 2\)", rearrange.transpose, x, axes=(1, 2))
    refused(ShapeError, "equal except on axis 1", rearrange.concatenate, x, y, axis=1)
    refused(ShapeError, "equal except on axis 0", rearrange.concatenate, x, y[0])
    refused(ShapeError, "equal except on axis 0", rearrange.concatenate, x, y.T)
    refused(ShapeError, r"axis: expected an axis of \(2, 3\), got 2", rearrange.concatenate, x, x, axis=2)
    refused(ShapeError, "concatenate: expected at least one array, got none", rearrange.concatenate)
    refused(DTypeError, "concatenate: expected float32, as the first, got float64", rearrange.concatenate, x, wide)
    refused(ShapeError, r"stack: expected one shape, got \(2, 3\) and \(4, 3\)", rearrange.stack, x, y)
    refused(ShapeError, "axis: expected one of 3 axes, got 3", rearrange.stack, x, x, axis=3)
    refused(ShapeError, "axis: expected one of 3 axes, got -4", rearrange.stack, x, x, axis=-4)
    refused(ShapeError, "stack: expected at least one array, got none", rearrange.stack)
    refused(IndexError, "out of bounds", rearrange.index, x, key=(2,))


def test_arrays_on_different_devices_are_named(emulated):
    there = gl.device("cuda").backend.asarray(np.ones(3))
    for function in (arithmetic.add, arithmetic.matmul, rearrange.concatenate, rearrange.stack):
        with pytest.raises(DeviceError, match=r"expected cpu, the device of|got cpu and cuda:0"):
            function(np.ones(3), there)
    with pytest.raises(DeviceError, match=r"^key: expected cuda:0, the device of tensor, got cpu; move it with"):
        rearrange.index(there, key=(np.array([0, 1]),))

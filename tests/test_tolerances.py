"""Every comparison of tolerances.py passes what is right and catches each fault it is there for."""

import ml_dtypes
import numpy as np
import pytest

from tests.tolerances import assert_close, assert_gradient, assert_ratio, central_differences

B, H = 3, 5


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


def _gates(z, c_prev, fault=""):
    """One LSTM step with its gradient of z for dh = 1, whole or with one fault planted."""
    z_i, z_f, z_g, z_o = np.split(z, 4, axis=1)
    if fault == "swapped gate":
        z_i, z_f = z_f, z_i
    i, f, g, o = _sigmoid(z_i), _sigmoid(z_f), np.tanh(z_g), _sigmoid(z_o)
    c = f * c_prev + (0 if fault == "dropped term" else i * g)
    h = o * np.tanh(c)
    dc = o * (1 - np.tanh(c) ** 2)
    dz = [dc * g * i * (1 - i), dc * c_prev * f * (1 - f), dc * i * (1 - g**2), np.tanh(c) * o * (1 - o)]
    if fault == "zero gradient":
        dz[0] *= 0
    result = np.concatenate([h, *dz], axis=1)
    if fault == "NaN":
        result[1, 2] = np.nan
    if fault == "infinity":
        result[0, 0] = np.inf
    if fault == "one element off":
        result[2, 1] *= 1.001
    if fault == "wrong shape":
        result = result.T
    return result


FAULTS = (
    "swapped gate",
    "dropped term",
    "zero gradient",
    "NaN",
    "infinity",
    "one element off",
    "wrong shape",
)


@pytest.fixture
def inputs(rng):
    return rng.standard_normal((B, 4 * H)), rng.standard_normal((B, H))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_close_passes_another_order_of_the_same_sum(rng, dtype):
    x = rng.standard_normal((40, 300)).astype(dtype)
    assert_close(x[:, ::-1].sum(axis=1), x.sum(axis=1))


@pytest.mark.parametrize("fault", FAULTS)
def test_close_catches(inputs, fault):
    want = _gates(*inputs)
    assert_close(want.copy(), want)
    with pytest.raises(AssertionError):
        assert_close(_gates(*inputs, fault), want)


def test_close_is_as_tight_as_the_table_says(rng):
    want = rng.standard_normal((4, 4))
    step = np.zeros_like(want)
    step[1, 1] = np.abs(want).max()
    assert_close(want + 0.9e-10 * step, want)
    with pytest.raises(AssertionError, match="relative error"):
        assert_close(want + 1.1e-10 * step, want)


def test_close_refuses_another_dtype_and_not_finite_on_either_side():
    ones = np.ones(3)
    with pytest.raises(AssertionError, match="dtype"):
        assert_close(ones.astype(np.float32), ones)
    for bad in (np.nan, np.inf):
        broken = np.array([1.0, bad, 1.0])
        for pair in ((broken, ones), (ones, broken), (broken, broken)):
            with pytest.raises(AssertionError, match="not finite"):
                assert_close(*pair)


def test_close_wants_exact_zeros_where_zeros_are_wanted():
    assert_close(np.zeros(3), np.zeros(3))
    assert_close(np.zeros((0, 3)), np.zeros((0, 3)))
    with pytest.raises(AssertionError):
        assert_close(np.full(3, 1e-200), np.zeros(3))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_ratio_catches(inputs, fault, dtype):
    if dtype == "bfloat16":
        dtype = ml_dtypes.bfloat16
    z, c_prev = (x.astype(np.float32) for x in inputs)
    reference = _gates(z.astype(np.float64), c_prev.astype(np.float64))
    assert_ratio(_gates(z, c_prev).astype(dtype), _gates(z, c_prev), reference)
    if fault == "one element off" and np.dtype(dtype) != np.float32:
        return  # a thousandth is within the half types' rounding
    with pytest.raises(AssertionError):
        assert_ratio(_gates(z, c_prev, fault).astype(dtype), _gates(z, c_prev), reference)


def test_ratio_allows_twice_the_plain_error_and_four_units():
    reference = np.ones(2)
    plain, within, beyond = (np.array([1.0, 1.0 + off]) for off in (2.0**-20, 19 * 2.0**-23, 22 * 2.0**-23))
    assert_ratio(within.astype(np.float32), plain, reference)  # 2 * 8 + 4 units are allowed
    with pytest.raises(AssertionError, match="error"):
        assert_ratio(beyond.astype(np.float32), plain, reference)


def test_ratio_refuses_a_reference_of_less_precision():
    ones = np.ones(3, np.float32)
    with pytest.raises(AssertionError, match="float64"):
        assert_ratio(ones, ones, ones)


@pytest.mark.parametrize("fault", FAULTS)
def test_gradient_catches(inputs, fault):
    z, c_prev = inputs
    differences = central_differences(lambda z: _gates(z, c_prev)[:, :H].sum(), z)
    assert_gradient(_gates(z, c_prev)[:, H:], differences)
    with pytest.raises(AssertionError):
        assert_gradient(_sabotaged(z, c_prev, fault), differences)


def _sabotaged(z, c_prev, fault):
    if fault == "one element off":  # this comparison has a thousandth to spare
        gradient = _gates(z, c_prev)[:, H:]
        gradient[2, 1] += 0.01
        return gradient
    result = _gates(z, c_prev, fault)
    return result if fault == "wrong shape" else result[:, H:] + (np.nan if fault in ("NaN", "infinity") else 0)


def test_central_differences_leave_x_as_it_was(rng):
    x = rng.standard_normal(4)
    before = x.copy()
    assert_gradient(central_differences(lambda x: (x**3).sum(), x), 3 * before**2)
    np.testing.assert_array_equal(x, before)

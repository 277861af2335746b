"""The one table of tolerances, each with its reason, and the comparisons that use it.

Errors are measured against the largest magnitude of the array wanted: a gradient of 1e-9 in an array of ones
is noise. What is not finite, or has another shape or dtype, is never close.
"""

from typing import Any

import numpy as np

# Largest relative error between two exact ways to compute the same thing in one dtype.
RELATIVE = {
    # Two orders of summing 10^3 terms differ by up to 10^3 * 2^-53 = 1e-13; a recurrence and cancellation in
    # a gradient may raise that.
    "float64": 1e-10,
    # The same in 2^-24: sums of 10^3 terms in another order.
    "float32": 2e-5,
    # Eight units of 2^-11: stored values are rounded at every step and feed the next.
    "float16": 4e-3,
    # Eight units of 2^-8, likewise.
    "bfloat16": 3e-2,
}

# The ratio rule: error(kernel) <= FACTOR * error(NumPy in float32) + ULPS units in the last place, both
# against the float64 reference. As flash-attention tests: a kernel may sum in another order, not worse.
FACTOR = 2
ULPS = {
    # A kernel's tanh and exp are within 2 ulp of NumPy's, and the last rounding adds one.
    "float32": 4,
    "float64": 4,
    # The plain run beside it is in float32; the kernel rounds what it stores at every step of the sequence.
    "float16": 16,
    "bfloat16": 16,
    # Factors of float16's ten bits in every product, in arrays of float32.
    "tf32": 16,
}
_EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7, "tf32": 2.0**-10}

# The largest and the smallest relative error of products of float32 whose factors gl.precision rounds: half a unit of
# 2^-10 or 2^-7 each. Two factors, and the steps of a short sequence, may double it twice; the mean of many is smaller.
_ROUNDED = {"tf32": 2.0**-11, "bf16": 2.0**-8, "fp16": 2.0**-11}
FACTORS = {"ieee": (0.0, RELATIVE["float32"])}
FACTORS |= {name: (error / 32, 4 * error) for name, error in _ROUNDED.items()}

# Central differences in float64 with step 1e-6 and the tolerances of PyTorch's gradcheck.
STEP, GRADIENT_RELATIVE, GRADIENT_ABSOLUTE = 1e-6, 1e-3, 1e-5


def _host(x: Any) -> np.ndarray:
    """x in host memory: from CuPy and its stand-in, PyTorch, a gpulstm Tensor, or NumPy."""
    for way in ("get", "numpy"):
        if hasattr(x, way):
            return np.asarray(getattr(x, way)())
    return np.asarray(x)


def _checked(got: Any, want: Any, name: str, same_dtype: bool = True) -> tuple[np.ndarray, np.ndarray]:
    got, want = _host(got), _host(want)
    assert got.shape == want.shape, f"{name}: expected shape {want.shape}, got {got.shape}"
    assert not same_dtype or got.dtype == want.dtype, f"{name}: expected dtype {want.dtype}, got {got.dtype}"
    wide = got.astype(np.float64), want.astype(np.float64)
    for side, array in zip(("got", "want"), wide, strict=True):
        assert np.isfinite(array).all(), f"{name}: {side} has {np.count_nonzero(~np.isfinite(array))} values not finite"
    return wide


def _largest(x: np.ndarray) -> float:
    return float(np.abs(x).max(initial=0.0))


def assert_close(got: Any, want: Any, name: str = "array", rtol: float | None = None) -> None:
    """max|got - want| <= rtol * max|want|, with the dtype's row of RELATIVE unless ``rtol`` is given."""
    tolerance = RELATIVE[_host(want).dtype.name] if rtol is None else rtol
    got, want = _checked(got, want, name)
    error, scale = _largest(got - want), max(_largest(want), np.finfo(np.float64).tiny)
    assert error <= tolerance * scale, f"{name}: relative error {error / scale:.2e}, expected at most {tolerance:.0e}"


def assert_ratio(kernel: Any, plain: Any, reference: Any, name: str = "array", row: str = "") -> None:
    """The ratio rule: ``kernel`` in any dtype, ``plain`` NumPy's float32 run, ``reference`` in float64.

    ``row`` is that of the table where it is not the dtype's.
    """
    dtype = row or _host(kernel).dtype.name
    assert _host(reference).dtype == np.float64, f"{name}: expected a float64 reference, got {_host(reference).dtype}"
    kernel, reference = _checked(kernel, reference, name, same_dtype=False)
    plain, _ = _checked(plain, reference, name, same_dtype=False)
    error, plain_error = _largest(kernel - reference), _largest(plain - reference)
    allowed = FACTOR * plain_error + ULPS[dtype] * _EPSILON[dtype] * _largest(reference)
    assert error <= allowed, f"{name}: error {error:.2e}, expected at most {allowed:.2e} (NumPy's is {plain_error:.2e})"


def assert_factors(got: Any, want: Any, precision: str, name: str = "array") -> None:
    """float32 arrays by products of that precision against float64: within its row of FACTORS.

    Each array may be as near as it likes; the largest error of them must be that of rounded factors.
    """
    least, most = FACTORS[precision]
    largest = 0.0
    for k, (mine, reference) in enumerate(zip(got, want, strict=True)):
        mine, reference = _checked(mine, reference, f"{name} {k}", same_dtype=False)
        error = _largest(mine - reference) / max(_largest(reference), np.finfo(np.float64).tiny)
        assert error <= most, f"{name} {k}: relative error {error:.2e}, expected at most {most:.0e} in {precision}"
        largest = max(largest, error)
    assert largest >= least, (
        f"{name}: relative error {largest:.2e}, expected {least:.0e} at least: no factor is rounded"
    )


def assert_gradient(got: Any, differences: Any, name: str = "gradient") -> None:
    """An exact gradient against central differences, both float64, element by element."""
    got, differences = _checked(got, differences, name)
    over = np.abs(got - differences) - GRADIENT_ABSOLUTE - GRADIENT_RELATIVE * np.abs(differences)
    assert over.max(initial=-1.0) <= 0, f"{name}: off by {_largest(got - differences):.2e}"


def central_differences(function: Any, x: np.ndarray) -> np.ndarray:
    """The gradient of ``function(x)``, a number, by central differences; x is float64 and left as it was."""
    gradient = np.zeros_like(x)
    for k in np.ndindex(x.shape):
        kept = x[k]
        x[k] = kept + STEP
        above = float(function(x))
        x[k] = kept - STEP
        gradient[k] = (above - float(function(x))) / (2 * STEP)
        x[k] = kept
    return gradient

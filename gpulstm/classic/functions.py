"""The functions of the minimal LSTM: sigmoid, the two derivatives, and uniform random arrays."""

import math
from typing import Any

import numpy as np

from gpulstm import checks
from gpulstm.backend import Array, backend_of
from gpulstm.cells import activation
from gpulstm.errors import DTypeError
from gpulstm.random import as_generator

_SIGMOID = activation.of("sigmoid")


def as_numbers(name: str, x: Any) -> Array:
    """A number, a list or a NumPy or CuPy array as an array; raises DTypeError, with ``name``, for anything else."""
    array = x if hasattr(x, "dtype") else np.asarray(x)
    if array.dtype.kind in "OUScmM":
        raise DTypeError(f"{name}: expected real numbers, got {array.dtype if hasattr(x, 'dtype') else repr(x)}")
    backend_of(**{name: array})
    return array


def sigmoid(x: Any) -> Array:
    """Return 1 / (1 + exp(-x)), elementwise, of a number, a list or an array; large numbers do not overflow.

    The result has the shape (...) of the argument. Raises DTypeError for anything but real numbers.

    >>> gl.classic.sigmoid([0.0, 1000.0])
    array([0.5, 1. ])
    """
    x = as_numbers("x", x)
    return _SIGMOID.forward(backend_of(x).xp, x)


def sigmoid_derivative(values: Any) -> Array:
    """Return the derivative of sigmoid at x, given its value ``values = sigmoid(x)``: values * (1 - values).

    The result has the shape (...) of the argument. Raises DTypeError for anything but real numbers.

    >>> gl.classic.sigmoid_derivative(np.array([0.5]))
    array([0.25])
    """
    values = as_numbers("values", values)
    return values * (1 - values)


def tanh_derivative(values: Any) -> Array:
    """Return the derivative of tanh at x, given its value ``values = tanh(x)``: 1 - values ** 2.

    The result has the shape (...) of the argument. Raises DTypeError for anything but real numbers.

    >>> gl.classic.tanh_derivative(np.array([0.5]))
    array([0.75])
    """
    values = as_numbers("values", values)
    return 1.0 - values**2


def rand_arr(a: float, b: float, *shape: int, generator: np.random.Generator | None = None) -> Any:
    """Draw a float64 NumPy array (rows, columns), uniform in [a, b): ``rand_arr(-0.1, 0.1, rows, columns)``.

    Without a shape it is one number. Without a generator the numbers come from gpulstm's own, which ``gl.manual_seed``
    seeds and ``np.random.seed`` does not. Raises ShapeError for bounds that are not numbers and for sizes that are not
    integers from 0 up.

    >>> gl.classic.rand_arr(-0.1, 0.1, 2, 3).shape
    (2, 3)
    """
    for size in shape:
        checks.integer("shape", size, 0, 2**63, "integers from 0 up, one by one, as in rand_arr(a, b, 2, 3)")
    low, high = (checks.number(name, value, -math.inf) for name, value in (("a", a), ("b", b)))
    return low + (high - low) * as_generator(generator).random(shape or None)

"""Checks of plain arguments: counts, numbers, flags, choices. Each returns Python's own value, or names the argument.

NumPy's numbers are taken as Python's: the results of the checks never are NumPy's, whose arithmetic would widen or
wrap what it meets.
"""

import contextlib
import math
import numbers
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpulstm.errors import DTypeError, ShapeError


def count(name: str, value: Any, least: int = 0) -> int:
    """An integer of Python or NumPy from ``least`` up. Raises ShapeError for others, booleans among them."""
    whole = None
    if not isinstance(value, bool | np.bool_):
        with contextlib.suppress(TypeError):
            whole = operator.index(value)
    if whole is None or whole < least:
        raise ShapeError(f"{name}: want a whole number from {least} up, got {value!r}")
    return whole


def number(name: str, value: Any, least: float = 0, most: float = math.inf, words: str = "") -> float:
    """A finite real number, ``least <= value <= most``. Raises ShapeError for others, with ``words`` for the range."""
    real = isinstance(value, numbers.Real | np.floating | np.integer) and not isinstance(value, bool | np.bool_)
    if not (real and math.isfinite(value) and least <= value <= most):
        upper = "up" if most == math.inf else f"to {most:g}"
        raise ShapeError(f"{name}: want a number {words or f'from {least:g} {upper}'}, got {value!r}")
    return float(value)


def flag(name: str, value: Any) -> bool:
    """True or False, NumPy's too. Raises DTypeError for others."""
    if not isinstance(value, bool | np.bool_):
        raise DTypeError(f"{name}: want True or False, got {value!r}")
    return bool(value)


def choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """One of the words. Raises ShapeError for others."""
    if not isinstance(value, str) or value not in choices:
        raise ShapeError(f"{name}: want {' or '.join(map(repr, choices))}, got {value!r}")
    return value

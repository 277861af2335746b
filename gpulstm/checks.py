"""Checks of plain arguments: counts, numbers, flags, choices. Errors name the argument.

Each check accepts NumPy scalars but returns a Python value, because NumPy scalars in later arithmetic could overflow or
change the dtype of the result.
"""

import math
import numbers
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpulstm.errors import DTypeError, ShapeError


def _whole(value: Any) -> int | None:
    if isinstance(value, bool | np.bool_):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def count(name: str, value: Any, least: int = 0) -> int:
    """An integer of Python or NumPy, ``value >= least``; raises ShapeError for anything else, also for booleans."""
    whole = _whole(value)
    if whole is None or whole < least:
        raise ShapeError(f"{name}: expected a whole number from {least} up, got {value!r}")
    return whole


def integer(name: str, value: Any, least: int, below: int, words: str = "") -> int:
    """An integer of Python or NumPy, ``least <= value < below``; raises ShapeError for anything else, also booleans."""
    whole = _whole(value)
    if whole is None or not least <= whole < below:
        raise ShapeError(f"{name}: expected {words or f'{least} <= {name} < {below}'}, got {value!r}")
    return whole


def number(
    name: str, value: Any, least: float = 0, most: float = math.inf, words: str = "", finite: bool = True
) -> float:
    """A real number, ``least <= value <= most``; else raises ShapeError, in which ``words`` say what is valid."""
    real = isinstance(value, numbers.Real | np.floating | np.integer) and not isinstance(value, bool | np.bool_)
    if not (real and least <= value <= most and (math.isfinite(value) or not finite)):
        upper = "up" if most == math.inf else f"to {most:g}"
        raise ShapeError(f"{name}: expected {words or f'a number from {least:g} {upper}'}, got {value!r}")
    return float(value)


def flag(name: str, value: Any) -> bool:
    """True or False, also NumPy's; raises DTypeError for anything else."""
    if not isinstance(value, bool | np.bool_):
        raise DTypeError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """One of the choices; raises ShapeError for anything else."""
    if not isinstance(value, str) or value not in choices:
        raise ShapeError(f"{name}: expected {' or '.join(map(repr, choices))}, got {value!r}")
    return value

"""Checks of the parameters and options of optimisers and clipping; each error names the argument."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from gpulstm.arguments import check_writable
from gpulstm.dtypes import FLOATS
from gpulstm.errors import DTypeError, ShapeError, TapeError, type_name
from gpulstm.nn import Module
from gpulstm.tape import Tensor


def parameters_or_groups(parameters: Any) -> list[Any]:
    """Return the Parameters or groups as a list; raises DTypeError for anything else, ShapeError for an empty one."""
    if isinstance(parameters, Tensor | dict | str | Module) or not isinstance(parameters, Iterable):
        want = "a list of Parameters or of groups, e.g. model.parameters()"
        raise DTypeError(f"parameters: expected {want}, got {type(parameters).__name__}")
    given = list(parameters)
    if not given:
        raise ShapeError("parameters: expected at least one, got none (an iterator works only once)")
    return given


def parameters_of(name: str, given: Any) -> list[Any]:
    """Return the Parameters as a list, which may be a single one; raises DTypeError for anything else."""
    if isinstance(given, Tensor):
        return [given]
    if isinstance(given, str | dict | Module) or not isinstance(given, Iterable):
        got = type(given).__name__
        raise DTypeError(f"{name}: expected a list of Parameters, e.g. model.parameters(), got {got}")
    return list(given)


def check_parameter(name: str, p: Any) -> None:
    """Raise DTypeError unless p is a writable floating Tensor, TapeError if it is the result of an operation."""
    if not isinstance(p, Tensor):
        raise DTypeError(f"{name}: expected a Parameter, got {type_name(p)}")
    if not p.is_leaf:
        raise TapeError(f"{name}: expected a Parameter, got the result of an operation, which has no grad")
    if p.dtype.name not in FLOATS:
        raise DTypeError(f"{name}: expected {', '.join(FLOATS)}, got {p.dtype.name}")
    check_writable(name, p.data)


def check_option(name: str, value: Any, below: float = math.inf) -> None:
    """Raise ShapeError unless 0 <= value < below."""
    real = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not (real and 0 <= value < below):
        upper = "up" if below == math.inf else f"to below {below:g}"
        raise ShapeError(f"{name}: expected a number from 0 {upper}, got {value!r}")

"""Loads the state of a module, arrays by name; it checks all of them before it changes any."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gpulstm.backend import CPU, Array, backend_of
from gpulstm.dtypes import FLOATS, accumulator
from gpulstm.errors import DTypeError, GpulstmError, ShapeError
from gpulstm.tape import Tensor, increment_version, raw


class Loaded(NamedTuple):
    """The names that ``load_state_dict`` skipped; the fields are named as in PyTorch."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def load(own: Mapping[str, Tensor], state: Any, strict: bool, kind: str) -> Loaded:
    """Copy the arrays of ``state`` into the tensors of the same names; ``kind`` is the module's name in errors."""
    if not isinstance(state, Mapping):
        raise DTypeError(
            f"state of {kind}: expected a dict of arrays by name, as state_dict() returns, got {type(state).__name__}; "
            "gl.load(path, model) reads a file"
        )
    passed = Loaded([name for name in own if name not in state], [name for name in state if name not in own])
    wrong: list[str] = []
    if strict:
        wrong += [f"missing {name}" for name in passed.missing_keys]
        wrong += [f"unexpected {name}" for name in passed.unexpected_keys]
    new: dict[str, Array] = {}
    for name in (name for name in own if name in state):
        try:
            new[name] = _fitting(own[name], state[name])
        except GpulstmError as error:
            wrong.append(f"{name}: {error}")
    wrong += _unlike(own, new)
    if wrong:
        raise ShapeError(f"state of {kind}: " + "; ".join(wrong))
    for name, value in new.items():
        with backend_of(own[name].data):
            own[name].data[...] = value
        increment_version(own[name])
    return passed


def _fitting(own: Tensor, value: Any) -> Array:
    """Convert the value to the device and dtype of ``own``; raises GpulstmError for a value that does not fit."""
    value = _array(value)
    if value.shape != own.shape:
        raise ShapeError(f"expected {own.shape}, got {value.shape}")
    if value.dtype.name not in FLOATS and value.dtype.kind not in "iub":
        raise DTypeError(f"expected real numbers, got {value.dtype}")
    if isinstance(own.data, np.ndarray) and not own.data.flags.writeable:
        raise DTypeError("expected a writable array in the module, got a read-only one")
    with backend_of(own.data) as backend, np.errstate(all="ignore"):
        xp, value = backend.xp, backend.asarray(value)
        cast = value.astype(own.dtype, copy=False)
        if cast is value:
            return value
        if own.dtype.name not in FLOATS:
            held = (cast == value) | (value.dtype.kind == "b")
        else:
            held = _finite(xp, cast) | ~_finite(xp, value)
        if not xp.all(held):
            raise DTypeError(f"expected numbers that {own.dtype} can hold, got {value.dtype} numbers that it cannot")
    return cast


def _finite(xp: Any, x: Array) -> Array:
    """Where x is finite; CuPy's isfinite does not support bfloat16."""
    return xp.isfinite(x.astype(accumulator(x.dtype), copy=False) if x.dtype.name in FLOATS else x)


def _unlike(own: Mapping[str, Tensor], new: Mapping[str, Array]) -> list[str]:
    """An error for each name that shares a tensor with another name but has different values."""
    first: dict[int, str] = {}
    wrong = []
    for name, value in new.items():
        other = first.setdefault(id(own[name]), name)
        if other != name:
            with backend_of(value):
                known = new[other]
                same = bool(((value == known) | ((value != value) & (known != known))).all())  # NaN != NaN
            if not same:
                wrong.append(f"{name}: expected the values of {other}, because both share one tensor, got others")
    return wrong


def _array(value: Any) -> Array:
    """Read an array of any library on its device, including PyTorch tensors that NumPy cannot read."""
    if hasattr(value, "detach"):
        value = value.detach()  # PyTorch does not convert a tensor that requires a gradient
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value  # exact: float32 is wider
    array = raw(value)
    return array if hasattr(array, "dtype") else CPU.asarray(array)

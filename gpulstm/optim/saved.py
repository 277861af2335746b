"""Reads the saved state of an optimiser, from gpulstm or from PyTorch's optimiser of the same name."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpulstm.backend import Array, backend_of
from gpulstm.dtypes import accumulator
from gpulstm.errors import DTypeError, FormatError, ShapeError
from gpulstm.tape import Tensor, tensor

# PyTorch's options that do not change the result of a step, or that only describe a group.
PASSED_OVER = ("foreach", "fused", "capturable", "differentiable", "param_names", "initial_lr")


def read_groups(state_dict: Any, sizes: list[int]) -> tuple[list[dict[str, Any]], dict[int, dict[str, Any]]]:
    """Return the options of each group and the states by parameter number; ``sizes`` are the expected group sizes."""
    try:
        groups = [dict(group) for group in state_dict["param_groups"]]
        got = [len(group.pop("params")) for group in groups]
        by_number = {int(k): dict(state) for k, state in state_dict["state"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError("optimiser state: expected the result of state_dict(), got something else") from error
    if got != sizes:
        raise FormatError(f"optimiser state: expected groups of {sizes} parameters, got {got}")
    if by_number and not 0 <= min(by_number) <= max(by_number) < sum(sizes):
        raise FormatError(f"optimiser state: expected parameters 0 to {sum(sizes) - 1}, got {sorted(by_number)}")
    return groups, by_number


def read_options(kind: str, saved: Mapping[str, Any], known: Mapping[str, Any], fixed: Mapping[str, Any]) -> dict:
    """Return the ``known`` options of a group as plain values.

    Raises FormatError for an option that is missing or unknown, and for one with another value than its ``fixed`` one:
    PyTorch's optimiser supports it and this one does not.
    """
    for name, only in fixed.items():
        if name in saved and bool(_plain(saved[name])) is not only:
            raise FormatError(
                f"optimiser state: {name}: expected {only}, which is all that {kind} supports, got {saved[name]!r}"
            )
    saved = {name: value for name, value in saved.items() if name not in PASSED_OVER and name not in fixed}
    if saved.keys() != known.keys():
        want = f"the options {sorted(known)} of {kind}"
        raise FormatError(f"optimiser state: expected {want}, got {sorted(saved)}; is it another optimiser's?")
    return {name: _plain(saved[name]) for name in known}


def read_state(
    k: int, data: Array, saved: dict[str, Any], want: tuple[str, ...], known: tuple[str, ...], counts: bool
) -> dict[str, Any]:
    """Return the step and the arrays of parameter k, copied to its device in the dtype of states.

    ``want`` are the arrays that the options need, ``known`` all arrays that are allowed. ``counts`` is False for SGD:
    PyTorch's SGD saves no number of steps, but if it has a buffer, it has made at least one step. None stands for a
    buffer before the first step.
    """
    saved = {name: value for name, value in saved.items() if value is not None}
    if not saved:
        return {}
    needed = {"step", *want} if counts else set(want)
    if not needed <= saved.keys() or saved.keys() - {"step", *known}:
        raise FormatError(f"state of parameter {k}: expected {['step', *want]}, got {sorted(saved)}")
    state: dict[str, Any] = {"step": _step(k, saved.pop("step", 1))}
    backend = backend_of(data)
    for name, value in saved.items():
        array = _array(f"{name} of parameter {k}", value)
        if array.shape != data.shape:
            raise ShapeError(f"{name} of parameter {k}: expected {data.shape}, got {array.shape}")
        with backend:
            state[name] = backend.xp.array(backend.asarray(array), accumulator(data.dtype), order="C")
    return state


def _step(k: int, value: Any) -> int:
    """The number of steps so far, which PyTorch saves as a tensor of one float."""
    value = _plain(value)
    real = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not real or value < 0 or value != int(value):
        raise FormatError(f"step of parameter {k}: expected a whole number from 0 up, got {value!r}")
    return int(value)


def _array(name: str, value: Any) -> Array:
    """Read an array of any library, including PyTorch tensors that NumPy cannot read."""
    if not isinstance(value, Tensor) and str(getattr(value, "dtype", "")) == "torch.bfloat16":
        value = value.float()  # exact: float32 is wider
    try:
        array = tensor(value).data
    except (TypeError, ValueError) as error:
        raise DTypeError(f"{name}: expected an array, got {type(value).__name__}") from error
    if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
        raise DTypeError(f"{name}: expected real numbers, got {array.dtype}")
    return array


def _plain(value: Any) -> Any:
    """Convert arrays of one element to Python numbers, also in tuples and lists."""
    if isinstance(value, tuple | list):
        return type(value)(map(_plain, value))
    one = isinstance(value, np.generic) or (hasattr(value, "item") and getattr(value, "shape", None) == ())
    return value.item() if one else value

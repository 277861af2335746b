"""Reading a saved state of an optimiser: gpulstm's own, or that of PyTorch's optimiser of the same name."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpulstm.backend import Array, backend_of
from gpulstm.dtypes import accumulator
from gpulstm.errors import DTypeError, FormatError, ShapeError
from gpulstm.tape import Tensor, tensor

# PyTorch's options that say how a step is computed, not what it gives, or that note where a group came from.
PASSED_OVER = ("foreach", "fused", "capturable", "differentiable", "param_names", "initial_lr")


def read_groups(state_dict: Any, sizes: list[int]) -> tuple[list[dict[str, Any]], dict[int, dict[str, Any]]]:
    """The options of every group and the state of every parameter by its number, of groups of these sizes."""
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
    """The ``known`` options of a group, as plain values.

    Raises FormatError for an option that is missing or unknown, and for one whose only value is ``fixed`` to another:
    what PyTorch's optimiser can do and this one can not.
    """
    for name, only in fixed.items():
        if name in saved and bool(_plain(saved[name])) is not only:
            raise FormatError(
                f"optimiser state: {name}: expected {only}, the only one for {kind} here, got {saved[name]!r}"
            )
    saved = {name: value for name, value in saved.items() if name not in PASSED_OVER and name not in fixed}
    if saved.keys() != known.keys():
        want = f"the options {sorted(known)} of {kind}"
        raise FormatError(f"optimiser state: expected {want}, got {sorted(saved)}; is it another optimiser's?")
    return {name: _plain(saved[name]) for name in known}


def read_state(
    k: int, data: Array, saved: dict[str, Any], want: tuple[str, ...], known: tuple[str, ...], counts: bool
) -> dict[str, Any]:
    """The step and the arrays of parameter number k, copied to its device in the type that states are kept in.

    ``want`` are the arrays that the options ask for, ``known`` all that there may be. PyTorch's SGD ``counts`` no
    steps: with a buffer it has made one at least. None stands for a buffer that no step has made yet.
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
    """The number of steps made, which PyTorch keeps as a tensor of one float."""
    value = _plain(value)
    real = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not real or value < 0 or value != int(value):
        raise FormatError(f"step of parameter {k}: expected a whole number from 0 up, got {value!r}")
    return int(value)


def _array(name: str, value: Any) -> Array:
    """An array of any library; of PyTorch's tensors also those that NumPy could not read."""
    if not isinstance(value, Tensor) and str(getattr(value, "dtype", "")) == "torch.bfloat16":
        value = value.float()  # no loss: it is wider
    try:
        array = tensor(value).data
    except (TypeError, ValueError) as error:
        raise DTypeError(f"{name}: expected an array, got {type(value).__name__}") from error
    if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
        raise DTypeError(f"{name}: expected real numbers, got {array.dtype}")
    return array


def _plain(value: Any) -> Any:
    """A number in an array of one element as Python's; tuples and lists of them likewise."""
    if isinstance(value, tuple | list):
        return type(value)(map(_plain, value))
    one = isinstance(value, np.generic) or (hasattr(value, "item") and getattr(value, "shape", None) == ())
    return value.item() if one else value

"""Checks of the arguments of layers; each error names the argument."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpulstm.arguments import moved, renamed
from gpulstm.backend import backend_of
from gpulstm.dtypes import FLOATS
from gpulstm.errors import DTypeError, GpulstmError, ShapeError
from gpulstm.tape import Tensor, tensor


def as_tensor(x: Any, name: str, beside: Tensor | None = None) -> Tensor:
    """Return x, an array of any library, as a Tensor; raises DTypeError, naming the argument, for anything else.

    If the Tensor ``beside`` is on a GPU, an array on the host is moved there; ``gl.explain()`` lists such moves.
    """
    if isinstance(x, Tensor):
        return x
    if not any(hasattr(x, mark) for mark in ("dtype", "__dlpack__", "__cuda_array_interface__")):
        raise DTypeError(f"{name}: expected an array or a Tensor, got {type(x).__name__}; make one with gl.tensor")
    try:
        made = tensor(x)
    except GpulstmError as error:  # it names the argument of gl.tensor
        raise renamed(error, name) from error
    if beside is None or type(beside.data) is type(made.data):
        return made
    return Tensor(moved(name, made.data, backend_of(beside.data)))


def as_ids(ids: Any, name: str, beside: Tensor) -> Tensor:
    """Return integers as a Tensor: ids is a Tensor, an array, a list or an int; raises ShapeError for a ragged list."""
    if not isinstance(ids, list | tuple | int):
        return as_tensor(ids, name, beside)
    try:
        array = np.asarray(ids)
    except ValueError as error:
        raise ShapeError(
            f"{name}: expected equal lengths in a list, got {ids!r:.60}; see gl.data.pad_sequences"
        ) from error
    return as_tensor(array.astype(np.int64) if array.size == 0 else array, name, beside)  # else float64


def on_host(lengths: Any, name: str = "lengths") -> Any:
    """Return lengths or a mask as a NumPy array, so that only one layer waits for the device; lists are unchanged."""
    is_array = isinstance(lengths, Tensor) or hasattr(lengths, "dtype") or hasattr(lengths, "__dlpack__")
    return as_tensor(lengths, name).numpy() if is_array else lengths


def time_first(name: str, mask: Any, leading: tuple[int, ...], batch_first: bool, of: str = "x") -> np.ndarray | None:
    """Return a mask of shape ``leading``, the leading axes of the argument ``of``, as (T, B) bool on the host.

    None stays None.
    """
    if mask is None:
        return None
    try:
        host = np.asarray(on_host(mask, name))
    except ValueError as error:
        raise ShapeError(f"{name}: expected an array, or a list with rows of one length, got {mask!r:.60}") from error
    if host.shape != leading:
        raise ShapeError(f"{name}: expected {leading}, the leading axes of {of}, got {host.shape}")
    if host.dtype != bool:
        raise DTypeError(f"{name}: expected bool, got {host.dtype}")
    if host.ndim == 1:
        return host[:, None]
    return host.T if batch_first else host


def check_input(x: Tensor, input_size: int, batch_first: bool, weight: Tensor) -> None:
    """Raise ShapeError, DTypeError or DeviceError unless x fits a recurrent layer with this weight_ih_l0."""
    want = "(B, T, D)" if batch_first else "(T, B, D)"
    if x.ndim not in (2, 3):
        raise ShapeError(f"x: expected {want}, or (T, D) for a single sequence, got {x.shape}")
    if x.shape[-1] != input_size:
        raise ShapeError(f"x: expected {input_size} = input_size in the last axis, got {x.shape}")
    check_fits("x", x, weight_ih_l0=weight)
    if x.shape[0 if x.ndim == 2 else int(batch_first)] == 0:
        raise ShapeError(f"x: expected at least one step, got {x.shape}")


def check_fits(name: str, x: Tensor, **weight: Tensor) -> None:
    """Raise DeviceError or DTypeError unless the argument has the device and the dtype of the weight."""
    check_device(name, x, **weight)
    check_type(name, x, *weight.values())


def check_device(name: str, x: Tensor, **weight: Tensor) -> None:
    """Raise DeviceError unless the argument is on the device of the weight."""
    ((first, parameter),) = weight.items()
    if not type(x.data) is type(parameter.data) is np.ndarray:
        backend_of(**{first: parameter.data, name: x.data})


def check_type(name: str, x: Tensor, weight: Tensor) -> None:
    """Raise DTypeError unless the argument has the dtype of the weight."""
    if x.dtype != weight.dtype:
        layer = f", or the layer with layer.to('{x.dtype}')" if name == "x" and x.dtype.name in FLOATS else ""
        way = f"; convert it with {name}.astype('{weight.dtype}'){layer}" if x.dtype.kind in "biufV" else ""
        raise DTypeError(f"{name}: expected {weight.dtype}, the type of the weights, got {x.dtype}{way}")


def as_states(hx: Any, names: Sequence[str]) -> list:
    """Return the states as a list, with None for those not given; raises ShapeError for a wrong number of states."""
    if hx is None:
        return [None] * len(names)
    if len(names) == 1:
        return list(hx) if isinstance(hx, tuple | list) and len(hx) == 1 else [hx]
    if not isinstance(hx, tuple | list) or len(hx) != len(names):
        got = f"{len(hx)} of them" if isinstance(hx, tuple | list) else type(hx).__name__
        count = "a pair of" if len(names) == 2 else str(len(names))
        raise ShapeError(f"hx: expected {count} states {' and '.join(names)}, got {got}")
    return list(hx)


def check_states(
    hx: Any, names: Sequence[str], rows: int, B: int, widths: Sequence[int], batched: bool, weight: Tensor
) -> list[Tensor | None]:
    """Return the initial states as (rows, B, width) Tensors, or None for zeros.

    Raises ShapeError, DTypeError or DeviceError, naming the state, unless they fit a layer with this weight_ih_l0.
    """
    checked: list[Tensor | None] = []
    for name, state, width in zip(names, as_states(hx, names), widths, strict=True):
        if state is None:
            checked.append(None)
            continue
        state = as_tensor(state, f"{name}_0", weight)
        want = (rows, B, width) if batched else (rows, width)
        if state.shape != want:
            words = (
                "(layers*directions, batch, units)" if batched else "(layers*directions, units) for a single sequence"
            )
            raise ShapeError(f"{name}_0: expected {want} = {words}, got {state.shape}")
        check_fits(f"{name}_0", state, weight_ih_l0=weight)
        checked.append(state if batched else state.reshape(rows, 1, width))
    return checked

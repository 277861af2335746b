"""The ONNX operators that move or cast the elements of an array without computing new ones, in NumPy."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpulstm.errors import FormatError
from gpulstm.io.onnx.call import Call
from gpulstm.io.onnx.proto import MOST_AXES, element_type
from gpulstm.io.onnx.source import library


def _cast(call: Call) -> Any:
    to = call.attributes.get("to")
    if isinstance(to, str):  # before version 6
        numbers = library().TensorProto.DataType
        to = numbers.Value(to) if to in numbers.keys() else 0  # noqa: SIM118, which is no dict
    return _as(call, call.inputs[0], element_type(0 if to is None else to, call.where))


def _cast_like(call: Call) -> Any:
    return _as(call, call.inputs[0], call.inputs[1].dtype)


def _as(call: Call, array: Any, dtype: np.dtype) -> Any:
    if array.dtype == dtype:
        return array
    call.reserve(array.size * dtype.itemsize)
    if dtype.name == "bfloat16" and array.dtype.kind in "iub":  # ml_dtypes can convert from float32
        array = array.astype(np.float32)
    return array.astype(dtype)


def _unsqueeze(call: Call) -> Any:
    x, axes = call.inputs[0], call.option("axes", 1, 13)
    if axes is None:
        raise FormatError(f"{call.where}: expected axes, got none")
    rank = x.ndim + len(axes)
    places = [call.axis(axis, rank) for axis in axes]
    return np.expand_dims(x, tuple(places))


def _squeeze(call: Call) -> Any:
    x, axes = call.inputs[0], call.option("axes", 1, 13)
    return np.squeeze(x, None if axes is None else tuple(call.axis(axis, x.ndim) for axis in axes))


def _reshape(call: Call) -> Any:
    x, shape = call.inputs[0], call.option("shape", 1, 5)
    if shape is None or len(shape) > MOST_AXES:
        raise FormatError(f"{call.where}: expected a shape of at most {MOST_AXES} axes, got {shape}")
    if not call.attributes.get("allowzero"):  # 0 means: keep the size
        shape = [x.shape[n] if size == 0 else size for n, size in enumerate(shape)]
    return _reshaped(call, x, shape)


def _reshaped(call: Call, x: Any, shape: Sequence[int]) -> Any:
    """x in another shape; a copy if it is not contiguous."""
    if not x.flags.c_contiguous:
        call.reserve(x.nbytes)
    return x.reshape(shape)


def _flatten(call: Call) -> Any:
    x, axis = call.inputs[0], call.attributes.get("axis", 1)
    place = axis if axis == x.ndim else call.axis(axis, x.ndim)
    return _reshaped(call, x, (math.prod(x.shape[:place]), math.prod(x.shape[place:])))


def _transpose(call: Call) -> Any:
    return np.transpose(call.inputs[0], call.attributes.get("perm"))


def _slice(call: Call) -> Any:
    x = call.inputs[0]
    starts, ends = call.option("starts", 1, 10), call.option("ends", 2, 10)
    if starts is None or ends is None:
        raise FormatError(f"{call.where}: expected starts and ends, got none")
    axes, steps = call.option("axes", 3, 10), call.option("steps", 4, 10) if call.version >= 10 else None
    axes = list(range(len(starts))) if axes is None else axes
    places = [slice(None)] * x.ndim
    seen = set()
    for start, end, axis, step in zip(starts, ends, axes, steps or [1] * len(starts), strict=True):
        if step == 0 or (place := call.axis(axis, x.ndim)) in seen:
            raise FormatError(f"{call.where}: expected each axis once and steps that are not 0, got {axes} and {steps}")
        seen.add(place)
        places[place] = _places(start, end, step, x.shape[place])
    return x[tuple(places)]


def _places(start: int, end: int, step: int, size: int) -> slice:
    """ONNX' slice of an axis as Python's slice.

    Bounds beyond an end are clipped to it; for negative steps Python's rule is different.
    """
    start, end = (bound + size if bound < 0 else bound for bound in (start, end))
    if step > 0:
        return slice(min(max(start, 0), size), min(max(end, 0), size), step)
    start, end = min(max(start, 0), size - 1), min(max(end, -1), size - 1)
    return slice(start, None if end < 0 else end, step) if size else slice(0, 0)


def _split(call: Call) -> Any:
    x, sizes = call.inputs[0], call.option("split", 1, 13)
    place, count = call.axis(call.attributes.get("axis", 0), x.ndim), call.outputs
    if sizes is None:
        each = -(-x.shape[place] // count)  # from version 18 on the last one may be smaller
        sizes = [max(0, min(each, x.shape[place] - n * each)) for n in range(count)]
        if call.version < 18 and len(set(sizes)) > 1:
            raise FormatError(f"{call.where}: expected an axis of {count} equal parts, got size {x.shape[place]}")
    if len(sizes) != count or min(sizes) < 0 or sum(sizes) != x.shape[place]:
        raise FormatError(f"{call.where}: expected {count} parts of an axis of size {x.shape[place]}, got {sizes}")
    return np.split(x, np.cumsum(sizes)[:-1], place)


def _gather(call: Call) -> Any:
    x, indices = call.inputs[:2]
    place = call.axis(call.attributes.get("axis", 0), x.ndim)
    if indices.dtype.kind != "i":
        raise FormatError(f"{call.where}: expected integers as indices, got {indices.dtype}")
    call.reserve(x.nbytes // max(x.shape[place], 1) * indices.size)
    return np.take(x, indices, place)


def _expand(call: Call) -> Any:
    shape = call.shape(call.option("shape", 1, 0))
    return call.own(np.broadcast_to(call.inputs[0], np.broadcast_shapes(call.inputs[0].shape, shape)))


def _tile(call: Call) -> Any:
    repeats = call.option("repeats", 1, 6)
    if repeats is None or len(repeats) != call.inputs[0].ndim or min(repeats, default=0) < 0:
        raise FormatError(f"{call.where}: expected repeats for each axis of {call.inputs[0].shape}, got {repeats}")
    call.reserve(call.inputs[0].nbytes * math.prod(repeats))
    return np.tile(call.inputs[0], repeats)


# For each operator its attributes with the fields of their types, and the function that computes it.
MOVES: dict[str, tuple[dict[str, str], Callable[[Call], Any]]] = {
    "Identity": ({}, lambda call: call.inputs[0]),
    "Cast": ({"to": "i", "saturate": "i"}, _cast),
    "CastLike": ({"saturate": "i"}, _cast_like),
    "Unsqueeze": ({"axes": "ints"}, _unsqueeze),
    "Squeeze": ({"axes": "ints"}, _squeeze),
    "Reshape": ({"shape": "ints", "allowzero": "i"}, _reshape),
    "Flatten": ({"axis": "i"}, _flatten),
    "Transpose": ({"perm": "ints"}, _transpose),
    "Slice": ({"starts": "ints", "ends": "ints", "axes": "ints"}, _slice),
    "Split": ({"axis": "i", "split": "ints", "num_outputs": "i"}, _split),
    "Gather": ({"axis": "i"}, _gather),
    "Expand": ({}, _expand),
    "Tile": ({}, _tile),
}

"""Pads sequences of different lengths to one array."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from gpulstm import checks
from gpulstm.backend import Array, backend_of
from gpulstm.data.arguments import as_array, held
from gpulstm.errors import DeviceError, DTypeError, ShapeError


def pad_sequences(sequences: Iterable[Any], value: float = 0, batch_first: bool = False) -> tuple[Array, np.ndarray]:
    """Pad sequences (T_b, ...) to one array (T, B, ...), and return it with their lengths (B,) int64.

    T is the longest length. With ``batch_first`` the array is (B, T, ...). Steps beyond the end of a sequence hold
    ``value``. The layers take the two results as x and ``lengths``. They need at least one step, so T is at least 1,
    even if all lengths are 0.

    Sequences are lists or arrays of any library. The padded array is on their device; the lengths are on the host. Its
    element type can hold all their elements; empty sequences do not affect it.

    Raises ShapeError for no sequences and for sequences that differ in more than their length; DTypeError for anything
    but numbers, for element types without a common one and for a ``value`` that it cannot hold; DeviceError for
    sequences on several devices.

    >>> padded, lengths = gl.data.pad_sequences([[1, 2, 3], [4]])
    >>> padded, lengths
    (array([[1, 4],
           [2, 0],
           [3, 0]]), array([3, 1]))
    """
    ragged = Ragged("sequences", sequences, value)
    if not len(ragged):
        raise ShapeError("sequences: expected at least one, got none")
    return ragged.padded(range(len(ragged)), checks.flag("batch_first", batch_first))


class Ragged:
    """Sequences (T_n, ...) with the same element type, device and shape of a step."""

    def __init__(self, name: str, sequences: Iterable[Any], value: Any) -> None:
        if isinstance(sequences, str | bytes | dict | set | frozenset) or not isinstance(sequences, Iterable):
            raise DTypeError(f"{name}: expected a list of sequences, got {type(sequences).__name__}")
        given = list(sequences)
        arrays = [as_array(f"{name}[{n}]", sequence) for n, sequence in enumerate(given)]
        self._step = _shape_of_steps(name, arrays)
        self.dtype = _type_of_all(name, given, arrays, value)
        self._backend = _backend_of_all(name, arrays)
        self._value = held("value", value, self.dtype, of=name)
        self._arrays = [
            self._backend.asarray(array).reshape(len(array), *self._step).astype(self.dtype, copy=False)
            for array in arrays
        ]

    def __len__(self) -> int:
        return len(self._arrays)

    def padded(self, numbers: Iterable[int], batch_first: bool) -> tuple[Array, np.ndarray]:
        """The sequences with these indices, padded, and their lengths; see ``pad_sequences``."""
        arrays = [self._arrays[n] for n in numbers]
        lengths = np.array([len(array) for array in arrays], np.int64)
        steps = max(1, lengths.max())
        with self._backend as backend:
            shape = (len(arrays), steps) if batch_first else (steps, len(arrays))
            padded = backend.xp.full((*shape, *self._step), self._value, self.dtype)
            rows = padded if batch_first else padded.swapaxes(0, 1)
            for b, array in enumerate(arrays):
                rows[b, : len(array)] = array
        return padded, lengths


def _shape_of_steps(name: str, arrays: list[Array]) -> tuple[int, ...]:
    """The shape of a step, the same in all sequences; an empty list has none and is skipped."""
    telling = [array for array in arrays if array.ndim != 1 or array.size]
    step = telling[0].shape[1:] if telling else ()
    for n, array in enumerate(arrays):
        if array.ndim == 0 or (array.shape[1:] != step and array.shape != (0,)):
            raise ShapeError(f"{name}[{n}]: expected ({', '.join(['steps', *map(str, step)])}), got {array.shape}")
    return step


def _type_of_all(name: str, given: list[Any], arrays: list[Array], value: Any) -> np.dtype:
    """The common type of the arrays that have elements, else of the empty arrays, else of ``value``."""
    filled = [n for n, array in enumerate(arrays) if array.size]
    typed = filled or [n for n, sequence in enumerate(given) if not isinstance(sequence, list | tuple)]
    if not typed:
        return as_array("value", value).dtype
    first = arrays[typed[0]].dtype
    try:
        common = np.result_type(*{arrays[n].dtype for n in typed}).newbyteorder("=")
    except TypeError:  # bfloat16 has no type in common with most integers
        common = first
    for n in typed:
        dtype = arrays[n].dtype
        if (dtype.kind == "b") != (first.kind == "b") or not _holds(common, arrays[n]):
            want = f"{first.name} as {name}[{typed[0]}] has"
            if n == typed[0]:
                want = f"numbers that {common.name}, the common type of all {name}, can hold"
            raise DTypeError(f"{name}[{n}]: expected {want}, got {dtype.name}")
    return common


def _holds(dtype: np.dtype, array: Array) -> bool:
    """Whether the type can hold every element; integers must be exact in a floating type."""
    if array.dtype.kind not in "iu" or dtype.kind in "iu":
        return np.can_cast(array.dtype, dtype)
    digits = 8 if dtype.name == "bfloat16" else np.finfo(dtype).nmant + 1
    return bool(-(2**digits) <= array.min() and array.max() <= 2**digits)


def _backend_of_all(name: str, arrays: list[Array]) -> Any:
    backends = [backend_of(array) for array in arrays if array.size] or [backend_of(array) for array in arrays]
    for n, array in enumerate(arrays):
        if (backend := backend_of(array)) is not backends[0] and array.size:
            want = f"expected {backends[0].name}, the device of the others, got {backend.name}"
            raise DeviceError(f"{name}[{n}]: {want}; use gl.tensor(sequence, device={backends[0].name!r})")
    return backends[0] if backends else backend_of()

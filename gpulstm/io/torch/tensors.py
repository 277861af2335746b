"""Tensors as views of the file's storages; every size is checked against the bytes that are there."""

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from gpulstm.errors import FormatError
from gpulstm.io.torch import budget as cost
from gpulstm.io.torch import dtypes
from gpulstm.io.torch.budget import Budget
from gpulstm.io.torch.unread import Refused, Unread

_MOST_AXES = 64  # NumPy's limit
_LARGEST_COPY = 1 << 26  # bytes, or the file's size if larger: the limit for a view that repeats elements


class _Storage:
    """A storage, bytes of the file; ``data`` is (size,) uint8."""

    __slots__ = ("array", "data", "dtype", "key", "used")

    def __init__(self, key: str, data: np.ndarray, dtype: np.dtype | None) -> None:
        self.key, self.data = key, data
        self.dtype = dtype  # None if it comes with each tensor
        self.array = data.view(dtype) if dtype else data
        self.used = dtype  # the type for which ``finish`` converts the bytes


class Tensors:
    """The storages of a file, and the tensors that are views of them.

    ``find(key, size)`` returns the bytes of a storage as (size,) uint8, or raises FormatError; the bytes may be filled
    in later, before ``finish``. ``order`` is the byte order of the file.
    """

    def __init__(self, find: Callable[[str, int], np.ndarray], budget: Budget, order: str = "little") -> None:
        self.find, self.budget, self.swapped = find, budget, order != sys.byteorder
        self.whole: dict[str, _Storage] = {}
        self.parts: dict[tuple[str, str, int, int], _Storage] = {}
        self.known: dict[int, _Storage] = {}  # by the identity of their arrays
        self.later: list[Callable[[], object]] = []

    def storage(self, kind: Any, key: Any, length: Any, view: Any = None) -> np.ndarray:
        """A storage as a one-dimensional array, by its kind, key and length in elements.

        In old files ``view``, (key, first element, length), may select a part of it.
        """
        text = kind.name.replace("torch.UntypedStorage", dtypes.UNTYPED) if isinstance(kind, Unread) else ""
        name = dtypes.STORAGES.get(text) or dtypes.QUANTIZED.get(text)
        if name is None and text != dtypes.UNTYPED:
            raise FormatError("expected a type of storage, got something else")
        if type(key) is not str or type(length) is not int:
            raise FormatError("expected the name and length of a storage, got something else")
        dtype = dtypes.numpy_dtype(name) if name else None
        size = dtype.itemsize if dtype else 1
        if key not in self.whole:
            self.budget.spend(cost.STORAGE)
            self._note(_Storage(key, self.find(key, length * size), dtype))
        whole = self.whole[key]
        if len(whole.data) != length * size:
            raise FormatError(
                f"storage {key}: expected {len(whole.data)} bytes, as the file holds, got {length * size}"
            )
        if dtype and whole.dtype and dtype != whole.dtype:
            raise FormatError(f"storage {key}: expected one element type, got {whole.dtype} and {dtype}")
        if dtype == whole.dtype and view is None:
            return whole.array
        return self._part(whole, dtype, size, (key, text, 0, length) if view is None else (key, text, *_ends(view)))

    def _note(self, storage: _Storage) -> None:
        self.whole[storage.key] = storage
        self.known[id(storage.array)] = storage

    def _part(self, whole: _Storage, dtype: np.dtype | None, size: int, place: tuple[str, str, int, int]) -> np.ndarray:
        """Some elements of a storage, or all of them in another type."""
        key, _, start, stop = place
        if place not in self.parts:
            if stop * size > len(whole.data):
                raise FormatError(
                    f"storage {key}: expected a part of {len(whole.data)} bytes, got one up to {stop * size}"
                )
            self.budget.spend(cost.STORAGE)
            part = self.parts[place] = _Storage(key, whole.data[start * size : stop * size], dtype)
            self.known[id(part.array)] = part
            if dtype:
                self._use(key, dtype)
        return self.parts[place].array

    def _use(self, key: str, dtype: np.dtype) -> None:
        """Note the type for which the bytes are converted; two types are an error if that matters."""
        whole = self.whole[key]
        whole.used = known = whole.used or dtype
        if known != dtype and (self.swapped or np.dtype(bool) in (known, dtype)):
            raise FormatError(f"storage {key}: expected one element type, got {known} and {dtype}")

    def tensor(self, arguments: tuple[Any, ...], dtype: Any = None, notes: Any = None) -> Any:
        """A view of a storage; the arguments are storage, offset, shape and strides, in elements."""
        array, offset, shape, strides = arguments
        storage = self.known.get(id(array))
        if storage is None or not are_sizes((offset,)):
            raise FormatError("expected a tensor of a storage and an offset, got something else")
        if not are_sizes(shape) or not are_sizes(strides) or len(shape) != len(strides) or len(shape) > _MOST_AXES:
            raise FormatError("expected a tensor of sizes and strides from 0 up, as many of each, got others")
        if type(dtype) is str and dtype in dtypes.NAMES:
            return without_dtype(dtype)
        if (dtype is None and storage.dtype is None) or not isinstance(dtype, np.dtype | None):
            raise FormatError("expected one element type for a tensor, got none or two")
        dtype = dtype or storage.dtype
        self._use(storage.key, dtype)
        self._check_place(storage, dtype, offset, shape, strides)
        self.budget.spend(cost.ARRAY)
        if 0 in shape:
            return np.empty(shape, dtype)
        steps = [stride * dtype.itemsize if n > 1 else dtype.itemsize for n, stride in zip(shape, strides, strict=True)]
        made = np.ndarray(shape, dtype, storage.data, offset * dtype.itemsize, steps)
        return self._noted(made, notes) if notes else made

    def _check_place(
        self, storage: _Storage, dtype: np.dtype, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> None:
        """Raises FormatError for elements outside the storage and for views that repeat elements too often."""
        held, rest = divmod(len(storage.data), dtype.itemsize)
        if rest:
            raise FormatError(
                f"storage {storage.key}: expected whole elements of {dtype}, got {len(storage.data)} bytes"
            )
        last = offset - 1
        if 0 not in shape:
            last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        if last >= held:
            raise FormatError(f"tensor {shape}: expected its elements in a storage of {held}, got one at place {last}")
        largest = max(self.budget.size, _LARGEST_COPY) if 0 not in shape else 2**62
        if math.prod(n or 1 for n in shape) * dtype.itemsize > largest:
            raise FormatError(f"tensor {shape}: expected at most {largest} bytes, got more")

    def _noted(self, made: np.ndarray, notes: Any) -> np.ndarray:
        """A tensor that is the conjugate or the negative of the storage's values, as a copy."""
        if type(notes) is not dict or not set(notes) <= {"conj", "neg"}:
            raise FormatError("expected the notes conj and neg of a tensor, got others")
        if notes.get("conj"):
            made = self.copy(made, made.dtype, np.conjugate)
        return self.copy(made, made.dtype, np.negative) if notes.get("neg") else made

    def copy(self, source: np.ndarray, dtype: np.dtype, function: Any = np.positive) -> np.ndarray:
        """A new array that ``finish`` fills, when all bytes are there."""
        self.budget.spend(math.prod(source.shape) * dtype.itemsize + 2 * cost.ARRAY)
        made = np.empty(source.shape, dtype)
        if function is np.positive:
            self.later.append(lambda: np.copyto(made, source, casting="unsafe"))
        else:
            self.later.append(lambda: function(source, out=made))
        return made

    def finish(self) -> None:
        """Convert the bytes, which are all there now, for NumPy: the machine's order, and 0 or 1 for bool."""
        for storage in self.whole.values():
            if storage.used == np.bool_:
                np.not_equal(storage.data, 0, out=storage.data.view(np.bool_))
            elif self.swapped and storage.used:
                storage.data.view(storage.used).byteswap(inplace=True)
        for step in self.later:
            step()


def _ends(view: Any) -> tuple[int, int]:
    """The first element of a part, and the end, exclusive."""
    if type(view) is not tuple or len(view) != 3 or not are_sizes(view[1:]):
        raise FormatError("expected a part of a storage, got something else")
    return view[1], view[1] + view[2]


def without_dtype(name: str) -> Refused:
    """A placeholder for a tensor of a type that NumPy lacks. Raises DTypeError if only ml_dtypes is missing."""
    dtypes.check_there(dtypes.NAMES[name])
    return Refused("torch.Tensor", (f"a tensor of the type {name}, which NumPy lacks",))


def are_sizes(values: Any) -> bool:
    """Whether this is a tuple of integers from 0 to 2^63 - 1."""
    return type(values) is tuple and all(type(n) is int and 0 <= n < 2**63 for n in values)

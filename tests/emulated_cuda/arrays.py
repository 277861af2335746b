"""The stand-in's ``cupy.ndarray``: NumPy memory that refuses to mix with NumPy's arrays, as CuPy's does.

An array is a NumPy view of a ``Block``. Results that share no memory with an input are moved into a block of
their own on the current device, in C order as CuPy's kernels write them.
"""

import types
from typing import Any

import numpy as np

from . import devices
from .memory import Block

FUNCTIONS: dict[str, Any] = {}  # the module's functions by name; functions.py fills it
_SCALARS = (bool, int, float, complex, np.generic)


class ndarray:
    """cupy.ndarray."""

    __module__ = "cupy"
    __slots__ = ("__weakref__", "_array", "_block", "base")
    __array_priority__ = 100
    __hash__ = None

    def __new__(cls, shape: Any, dtype: Any = float, memptr: Any = None, strides: Any = None, order: str = "C"):
        if memptr is not None or strides is not None:
            raise NotImplementedError("the stand-in makes no array from a pointer")
        return empty(shape, dtype, order)

    # -- what it is -----
    shape = property(lambda self: self._array.shape)
    dtype = property(lambda self: self._array.dtype)
    strides = property(lambda self: self._array.strides)
    ndim = property(lambda self: self._array.ndim)
    size = property(lambda self: self._array.size)
    itemsize = property(lambda self: self._array.itemsize)
    nbytes = property(lambda self: self._array.nbytes)
    flags = property(lambda self: self._array.flags)
    device = property(lambda self: devices.Device(self._block.device))
    T = property(lambda self: view(self, self._array.T))
    mT = property(lambda self: view(self, self._array.mT))

    @property
    def data(self) -> types.SimpleNamespace:
        return types.SimpleNamespace(ptr=pointer(self), device_id=self._block.device, device=self.device)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        described = self._array.__array_interface__
        strides = None if self.flags.c_contiguous else self.strides
        return {
            "shape": self.shape,
            "typestr": described["typestr"],
            "descr": described["descr"],
            "stream": 1,
            "version": 3,
            "strides": strides,
            "data": (pointer(self), False),
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self._block.device  # kDLCUDA

    def __dlpack__(self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: Any = None):
        if dl_device == (1, 0):  # the consumer asked for a copy in host memory
            return self.get().__dlpack__()
        if dl_device not in (None, self.__dlpack_device__()):
            raise BufferError("unsupported device requested.")
        return self._array.__dlpack__()

    # -- to the host, the only ways there are -----
    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        if out is None:
            return self._array.copy(order=order)
        if out.dtype != self.dtype or out.shape != self.shape:
            raise TypeError(f"cannot get {self.dtype} {self.shape} into {out.dtype} {out.shape}")
        out[...] = self._array
        return out

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if self.dtype != arr.dtype or self.shape != arr.shape:
            raise TypeError(f"{arr.dtype} {arr.shape} array cannot be set to {self.dtype} {self.shape} array")
        self._array[...] = arr

    def item(self) -> Any:
        return self.get().item()

    def tolist(self) -> Any:
        return self.get().tolist()

    def tobytes(self, order: str = "C") -> bytes:
        return self.get().tobytes(order)

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())

    def __complex__(self) -> complex:
        return complex(self.get())

    def __repr__(self) -> str:
        return repr(self.get())

    def __str__(self) -> str:
        return str(self.get())

    def __format__(self, spec: str) -> str:
        return format(self.get(), spec)

    def __reduce__(self) -> Any:
        return FUNCTIONS["array"], (self.get(),)

    # -- copies and views -----
    def copy(self, order: str = "C") -> "ndarray":
        return new(self._array, order)  # from any device to the current one

    def __copy__(self) -> "ndarray":
        return self.copy()

    def __deepcopy__(self, memo: Any) -> "ndarray":
        with self.device:
            return self.copy()

    def view(self, dtype: Any = None, type: Any = None) -> "ndarray":
        return view(self, self._array.view() if dtype is None else self._array.view(dtype))

    def fill(self, value: Any) -> None:
        self[...] = value

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Any:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[k] for k in range(len(self)))

    def __getitem__(self, index: Any) -> "ndarray":
        parts, basic = _index(index)
        if not basic:
            return run(lambda array: array[parts], (self,))
        if not any(part is Ellipsis for part in parts):
            parts = (*parts, Ellipsis)  # so that NumPy answers a view even where one element is meant
        return view(self, self._array[parts])

    def __setitem__(self, index: Any, value: Any) -> None:
        parts, basic = _index(index)
        if isinstance(value, ndarray):
            _check_device(value)
            value = value._array
        elif np.ndim(value) > 0:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        if not basic:
            places = np.arange(self.size).reshape(self.shape)[parts]
            if np.unique(places).size < places.size:
                raise IndexError("an element is assigned twice in one call; which value stays is undefined on a GPU")
        _check_device(self)
        with np.errstate(all="ignore"):
            self._array[parts] = value

    # -- NumPy's functions, called on these arrays, become the stand-in's -----
    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        function = FUNCTIONS.get(ufunc.__name__)
        if method != "__call__" or function is None:
            return NotImplemented
        if not all(isinstance(x, (*_SCALARS, ndarray, np.ndarray)) for x in inputs):
            return NotImplemented
        if "out" in kwargs:
            (kwargs["out"],) = kwargs["out"]
        return function(*inputs, **kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        mine = FUNCTIONS.get(function.__name__) if function.__module__ == "numpy" else None
        if mine is None or not all(issubclass(kind, (ndarray, np.ndarray)) for kind in types):
            return NotImplemented
        return mine(*args, **kwargs)


def _index(index: Any) -> tuple[tuple, bool]:
    """An index with stand-in arrays unwrapped, and whether it is basic (gives a view)."""
    parts = index if isinstance(index, tuple) else (index,)
    basic = all(
        part is None or part is Ellipsis or isinstance(part, slice)
        or (isinstance(part, (int, np.integer)) and not isinstance(part, bool))
        for part in parts
    )  # fmt: skip
    for part in parts:
        if isinstance(part, ndarray):
            _check_device(part)
    return tuple(part._array if isinstance(part, ndarray) else part for part in parts), basic


# -- memory ----------------------------------------
def pointer(x: ndarray) -> int:
    """The device address; 0 for an empty array, which owns no memory in CuPy either."""
    return x._array.__array_interface__["data"][0] if x.size else 0


def view(x: ndarray, array: np.ndarray) -> ndarray:
    """``array``, some of x's memory, as a stand-in array."""
    return wrapped(array, x._block, x if x.base is None else x.base)


def wrapped(array: np.ndarray, block: Any, base: ndarray | None = None) -> ndarray:
    """``array``, in memory of ``block``, as a stand-in array; ``base`` is the array that it is a view of."""
    result = object.__new__(ndarray)
    result._array, result._block, result.base = array, block, base
    return result


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    """A new array on the current device that holds NaN."""
    dtype = np.dtype(dtype)
    if dtype.kind not in "biufc" and dtype.name != "bfloat16":
        raise ValueError(f"Unsupported dtype {dtype}")
    shape = tuple(int(n) for n in shape) if isinstance(shape, (tuple, list)) else (int(shape),)
    block = Block(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize, dtype, devices.current())
    return wrapped(np.ndarray(shape, dtype, buffer=block.data, order=order), block)


def new(array: np.ndarray, order: str = "C") -> ndarray:
    """A copy of NumPy's ``array`` in a block of its own on the current device."""
    array = np.asarray(array)
    if order in "KA":  # the memory order of a transposed array survives, as in CuPy
        order = "F" if array.flags.fnc else "C"
    result = empty(array.shape, array.dtype, order)
    result._array[...] = array
    return result


# -- calling NumPy ----------------------------------------
def run(function: Any, args: tuple, kwargs: dict[str, Any] | None = None, order: str = "C", views: bool = False) -> Any:
    """Call a NumPy function on the memory of stand-in arrays; its arrays come back as stand-in arrays.

    ``views``: the function only looks at its argument in another way, which needs no kernel.
    """
    inputs: list[ndarray] = []
    args = _unwrapped(args, inputs)
    kwargs = {name: _unwrapped(x, inputs) for name, x in (kwargs or {}).items()}
    if not views:
        for x in inputs:
            _check_device(x)
    with np.errstate(all="ignore"):  # a GPU never warns
        result = function(*args, **kwargs)
    return _results(result, inputs, order, views)


def _unwrapped(x: Any, inputs: list[ndarray]) -> Any:
    if isinstance(x, ndarray):
        inputs.append(x)
        return x._array
    if isinstance(x, np.ndarray):
        raise TypeError(f"Unsupported type {type(x)}")
    if type(x) in (tuple, list):
        return type(x)(_unwrapped(item, inputs) for item in x)
    return x


def _results(result: Any, inputs: list[ndarray], order: str, views: bool) -> Any:
    if isinstance(result, (tuple, list)):
        return type(result)([_results(item, inputs, order, views) for item in result])
    for x in inputs:
        if result is x._array:
            return x
    if isinstance(result, (np.ndarray, np.generic)):
        if views and isinstance(result, np.ndarray) and result.size:
            for x in inputs:
                if x._block.holds(result):
                    return view(x, result)
        return new(result, order)
    return result


def _check_device(x: ndarray) -> None:
    if x._block.device != devices.current():
        raise ValueError(
            f"The device where the array resides ({x._block.device}) is different from the current device "
            f"({devices.current()}). Peer access is unavailable between these devices."
        )

"""The stand-in's functions and array methods: CuPy's signatures from signatures.py, NumPy's arithmetic."""

import ctypes
import inspect
import math
from typing import Any

import numpy as np

from . import devices, signatures
from .arrays import FUNCTIONS, empty, ndarray, new, run, wrapped
from .memory import ForeignBlock

# These look at an array in another way: CuPy answers a view where the strides allow one.
_VIEWS = """
reshape ravel transpose swapaxes moveaxis expand_dims squeeze broadcast_to split array_split flip diagonal
"""
# These keep the memory order of a transposed argument; everything else CuPy writes in C order.
_KEEP_ORDER = {"copy", "astype", "zeros_like", "ones_like", "full_like"}
_PRODUCTS = {"matmul", "dot", "tensordot", "einsum", "outer"}
_REDUCTIONS = {"sum", "prod", "max", "min", "amax", "amin", "var", "std", "cumsum"}
_HALF = ("float16", "bfloat16")


# -- one rule for every function of the tables ----------------------------------------
def _delegate(name: str, function: Any, signature: inspect.Signature) -> Any:
    """NumPy's ``function`` under CuPy's signature."""
    required = [p.name for p in signature.parameters.values() if p.default is p.empty]
    order, views = "K" if name in _KEEP_ORDER else "C", name in _VIEWS.split()
    adapted = _adapted(name, function)

    def call(*args: Any, **kwargs: Any) -> Any:
        given = dict(signature.bind(*args, **kwargs).arguments)
        first = tuple(given.pop(key) for key in required)
        return run(adapted, first, given, order, views)

    call.__name__, call.__signature__ = name, signature
    return call


def _adapted(name: str, function: Any) -> Any:
    """``function`` with CuPy's arithmetic where it is not NumPy's."""
    if name in ("argsort", "sort"):  # CuPy's sorts are stable
        return lambda *args, **kwargs: function(*args, **{**kwargs, "kind": "stable"})
    if name in _PRODUCTS:
        return lambda *args, **kwargs: _product(function, args, kwargs)
    if name in _REDUCTIONS:  # CuPy has no bfloat16 reductions: the first loop that fits is float32's
        return lambda a, *args, **kwargs: function(_widened(a), *args, **kwargs)
    if name == "mean":
        return _mean
    if name in ("array_equal", "allclose", "count_nonzero"):  # arrays without dimensions, not Python scalars
        return lambda *args, **kwargs: np.asarray(function(*args, **kwargs))
    return function


def _widened(x: Any) -> Any:
    return x.astype(np.float32) if isinstance(x, np.ndarray) and x.dtype.name == "bfloat16" else x


def _mean(a: np.ndarray, **kwargs: Any) -> Any:
    result = np.mean(_widened(a), **kwargs)
    return result.astype(a.dtype) if a.dtype.name == "bfloat16" and not kwargs.get("dtype") else result


def _product(function: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """A matrix product; half types accumulate in float32, ``out`` is in C order and none of the factors."""
    out = kwargs.pop("out", None)
    factors = [x for x in args if isinstance(x, np.ndarray)]
    if out is not None and any(np.may_share_memory(out, x) for x in factors):
        raise ValueError("out shares memory with a factor: cuBLAS would overwrite what it still reads")
    if out is not None and not out.flags.c_contiguous:
        raise AssertionError("out is not C-contiguous")  # as CuPy's dot asserts
    dtype = np.result_type(*[x.dtype for x in factors]) if factors else None
    if dtype is not None and dtype.name in _HALF:
        args = tuple(x.astype(np.float32) if isinstance(x, np.ndarray) else x for x in args)
    result = np.asarray(function(*args, **kwargs)).astype(dtype, copy=False)
    if out is None:
        return result
    if out.dtype != result.dtype:
        raise ValueError("out is of another type than the product")  # as CuPy's dot does
    if out.shape != result.shape:
        raise ValueError(f"Output operand 0 has invalid shape {out.shape} expected {result.shape}")
    np.copyto(out, result, casting="same_kind")
    return out


def _ufunc(name: str) -> Any:
    """An elementwise function with the arguments CuPy's have: out, dtype and casting."""
    numpys = getattr(np, name)

    def call(*args: Any, out: Any = None, dtype: Any = None, casting: str = "same_kind") -> Any:
        for x in (*args, out):
            if x is not None and not isinstance(x, (bool, int, float, complex, np.generic, ndarray)):
                raise TypeError(f"Unsupported type {type(x)}")
        given = {"out": out, "dtype": dtype, "casting": casting}
        return run(numpys, args, {key: value for key, value in given.items() if value is not None})

    call.__name__ = name
    return call


def _method(name: str, signature: inspect.Signature) -> Any:
    bound = signature.replace(parameters=[inspect.Parameter("self", 0), *signature.parameters.values()])
    return _delegate(name, _METHODS.get(name, getattr(np.ndarray, name)), bound)


def _reshape(self: np.ndarray, shape: tuple, order: str = "C", copy: Any = None) -> np.ndarray:
    return self.reshape(*shape, order=order)


def _transpose(self: np.ndarray, axes: tuple) -> np.ndarray:
    return self.transpose(*axes)


def _astype(self: np.ndarray, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: bool = True):
    return self.astype(dtype, order=order, copy=copy)


def _clip(self: np.ndarray, min: Any = None, max: Any = None, out: Any = None) -> np.ndarray:
    return np.clip(self, min, max, out=out)


_METHODS = {"reshape": _reshape, "transpose": _transpose, "astype": _astype, "clip": _clip}


# -- functions with a body of their own ----------------------------------------
def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    """cupy.array: from another array, a CUDA array of another library, or whatever NumPy understands."""
    if not isinstance(obj, ndarray) and hasattr(obj, "__cuda_array_interface__"):
        obj = _from_cuda_array_interface(obj)
    if isinstance(obj, (list, tuple)) and any(isinstance(item, ndarray) for item in obj):
        obj = FUNCTIONS["stack"](obj)
    if not isinstance(obj, ndarray):
        result = new(np.array(obj, dtype=dtype, copy=None, ndmin=ndmin), order or "K")
    elif obj._block.device != devices.current():
        result = new(obj._array.astype(dtype or obj.dtype, copy=False), "K")
    elif copy or (dtype is not None and np.dtype(dtype) != obj.dtype):
        result = new(obj._array.astype(dtype or obj.dtype, copy=False), order or "K")
    else:
        result = obj
    return result if result.ndim >= ndmin else result.reshape((1,) * (ndmin - result.ndim) + result.shape)


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    return array(a, dtype, copy=bool(copy), order=order or "K")


def ascontiguousarray(a, dtype=None):
    a = asarray(a, dtype)
    return a if a.flags.c_contiguous else new(a._array)


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    if isinstance(a, ndarray):
        return a.get(stream=stream, order=order, out=out)
    return np.asarray(a, order=order)


def empty_like(prototype, dtype=None, order="K", subok=None, shape=None):
    kept = "F" if order in "KA" and prototype.flags.fnc else order if order in "CF" else "C"
    return empty(prototype.shape if shape is None else shape, dtype or prototype.dtype, kept)


def where(condition, x=None, y=None):
    if x is None and y is None:
        return FUNCTIONS["nonzero"](condition)
    return run(lambda condition, x, y: np.where(condition, _widened(x), _widened(y)), (condition, x, y))


def einsum(*operands, **kwargs):
    return run(_adapted("einsum", np.einsum), operands, kwargs)


def result_type(*arrays_and_dtypes):
    return run(np.result_type, arrays_and_dtypes)


def matmul(*args, axes=None, axis=None, keepdims=False, casting="same_kind", dtype=None,
           signature=None, order="K", out=None):  # fmt: skip
    if axes or axis or keepdims or casting != "same_kind" or dtype or signature or order != "K":
        raise NotImplementedError("the stand-in's matmul takes two arrays and out=")
    return run(_adapted("matmul", np.matmul), args, {} if out is None else {"out": out})


def from_dlpack(array, *, device=None, copy=None):
    """cupy.from_dlpack: memory of another library on a GPU, without a copy."""
    kind, number = array.__dlpack_device__()
    if kind != 2:
        raise TypeError(
            "CPU arrays cannot be directly imported to CuPy. Use `cupy.array(numpy.from_dlpack(input))` instead."
        )
    memory = np.from_dlpack(_HostCapsule(array))
    return _at(memory.ctypes.data, memory.shape, memory.dtype, memory.strides, (array, memory), number)


class _HostCapsule:
    """Shows a capsule of emulated device memory to NumPy, which reads host memory only."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    def __dlpack__(self, **ignored: Any) -> Any:
        return self._array.__dlpack__(stream=1)


def _from_cuda_array_interface(obj: Any) -> ndarray:
    described = obj.__cuda_array_interface__
    shape, dtype = described["shape"], np.dtype(described["typestr"])
    return _at(described["data"][0], shape, dtype, described.get("strides"), obj, devices.current())


def _at(address: int, shape: tuple, dtype: np.dtype, strides: tuple | None, owner: object, device: int) -> ndarray:
    """The memory at an address, which ``owner`` keeps alive, as a stand-in array."""
    if 0 in shape:
        return empty(shape, dtype)
    if strides is None:
        extent = math.prod(shape) * dtype.itemsize
    else:
        extent = dtype.itemsize + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    buffer = (ctypes.c_char * extent).from_address(address)
    return wrapped(np.ndarray(shape, dtype, buffer=buffer, strides=strides), ForeignBlock(buffer, owner, device))


# -- the tables, filled ----------------------------------------
_OWN = (
    array, asarray, ascontiguousarray, asnumpy, empty, empty_like, where, einsum, result_type, matmul,
    from_dlpack,
)  # fmt: skip


def fill_tables() -> None:
    """Give FUNCTIONS its functions and ndarray its methods."""
    FUNCTIONS.update({function.__name__: function for function in _OWN})
    FUNCTIONS.update({name: _ufunc(name) for name in signatures.UFUNCS})
    for name, signature in signatures.parse(signatures.FUNCTIONS).items():
        if name not in FUNCTIONS:
            FUNCTIONS[name] = _delegate(name, getattr(np, name), signature)
    for name, signature in signatures.parse(signatures.METHODS).items():
        setattr(ndarray, name, _method(name, signature))

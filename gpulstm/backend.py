"""Which library an array belongs to, and what that library offers; the only file that imports cupy.

The array decides: functions ask ``backend_of(x, w)`` and use ``.xp``. There is no global device.
"""

import functools
import importlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpulstm import pool
from gpulstm.cublas import Cublas
from gpulstm.dtypes import accumulator
from gpulstm.errors import DeviceError, DTypeError, type_name
from gpulstm.explain import note_precision
from gpulstm.launch import Launcher
from gpulstm.plain import check_plain, native

Array = Any  # a numpy.ndarray or a cupy.ndarray: neither library offers a common static type

_SCALARS = (bool, int, float, np.generic)
_DLPACK_CPU = 1  # kDLCPU of the DLPack specification
# By the major version of CUDA; [ctk] brings the libraries that CuPy loads, NVRTC among them.
_INSTALL_CUPY = {12: 'pip install "cupy-cuda12x[ctk]"', 13: 'pip install "cupy-cuda13x[ctk]"'}


def _from_dlpack(x: Any) -> np.ndarray:
    """The memory of another library's array; raises DTypeError, with its own words, if it does not share it."""
    try:
        return np.from_dlpack(x)
    except (BufferError, RuntimeError) as error:
        raise DTypeError(f"array: expected one that NumPy can share, got a {type_name(x)}: {error}") from error


class NumpyBackend:
    """The processor, through NumPy. Large arrays come from a pool (see pool.py)."""

    name, is_cuda, xp = "cpu", False, np
    kernels: Launcher | None = None
    why_no_kernels = "CUDA kernels run on CuPy arrays; these are NumPy's"

    def __enter__(self) -> "NumpyBackend":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def __repr__(self) -> str:
        return f"<backend {self.name}>"

    def asarray(self, x: Any, dtype: Any = None) -> np.ndarray:
        """x as a NumPy array: a list, an array of any library, or an object with DLPack; no copy where none is due."""
        check_plain(x)
        if _is_cupy(x):
            x = x.get()
        elif not isinstance(x, np.ndarray) and hasattr(x, "__dlpack__") and x.__dlpack_device__()[0] == _DLPACK_CPU:
            x = _from_dlpack(x)
        return native(np.asarray(x, dtype=dtype))

    def to_numpy(self, x: np.ndarray) -> np.ndarray:
        return x

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return pool.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        array = pool.empty(shape, dtype)
        array[...] = 0
        return array

    def where(self, condition: np.ndarray, a: np.ndarray, b: Any) -> np.ndarray:
        """a where the condition holds, else b, an array or a number, in the type of a."""
        return np.where(condition, a, np.asarray(b, a.dtype))

    def multiply(self, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        """out (M, N) = a (M, K) @ b (K, N); half types are summed in float32."""
        note_precision(self.is_cuda, self.name, a.dtype)
        if a.dtype.itemsize == 2:  # NumPy multiplies these one number at a time, and sums them as they are
            out[...] = np.matmul(a.astype(np.float32), b.astype(np.float32))
        else:
            np.matmul(a, b, out=out)

    def multiply_rows(self, a: np.ndarray, b: np.ndarray, out: np.ndarray, add: bool = False) -> Callable[[int], None]:
        """What computes out = a[t] @ b for t, a of (T, M, K); with ``add`` out += a[t] @ b. out may be (T, M, N)."""
        rows = list(a)  # once: indexing an array costs as much as a small product
        to = list(out) if out.ndim == 3 else [out] * len(rows)
        if not add:
            return lambda t: self.multiply(rows[t], b, to[t])
        product = self.empty(to[0].shape, out.dtype)

        def multiply(t: int) -> None:
            self.multiply(rows[t], b, product)
            to[t][...] += product

        return multiply

    def matmul(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """a (..., M, K) @ b (..., K, N) for stacks of matrices, which broadcast; half types are summed in float32."""
        wide = accumulator(a.dtype)
        note_precision(self.is_cuda, self.name, a.dtype)
        y = np.matmul(a.astype(wide, copy=False), b.astype(wide, copy=False))
        return y.astype(a.dtype, copy=False)

    def synchronize(self) -> None:
        pass

    def memory(self) -> tuple[int, int]:
        """(free, total) bytes of the machine; zeros where the system does not say."""
        try:
            page = os.sysconf("SC_PAGE_SIZE")
            return page * os.sysconf("SC_AVPHYS_PAGES"), page * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, ValueError, OSError):
            return 0, 0


class CupyBackend:
    """One NVIDIA GPU, through CuPy. As a context manager it makes its device the current one."""

    is_cuda = True
    why_no_kernels = ""

    def __init__(self, cupy: Any, index: int) -> None:
        self.name, self.xp, self.index = f"cuda:{index}", cupy, index
        self.device = cupy.cuda.Device(index)
        self.kernels: Launcher | None = Launcher(cupy, self.device)
        self._products = Cublas(cupy, self.device)
        self.graphs: Any = None  # what functional/graphs.py keeps for this GPU
        self.path_table: Any = None  # what functional/path_table.py has read for this GPU
        self.sides: Any = None  # the streams of functional/directions.py

    @functools.cached_property
    def gpu(self) -> str:
        """The name of the GPU's model."""
        return self.xp.cuda.runtime.getDeviceProperties(self.index)["name"].decode(errors="replace")

    def __enter__(self) -> "CupyBackend":
        self.device.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.device.__exit__(*exception)

    def __repr__(self) -> str:
        return f"<backend {self.name}>"

    def asarray(self, x: Any, dtype: Any = None) -> Array:
        """x as a CuPy array on this device: a list, an array of any library, or an object with DLPack or
        ``__cuda_array_interface__``; no copy where x is there already."""
        check_plain(x)
        with self.device:
            if _is_cupy(x) and x.device.id != self.index:
                x = x.copy()  # CuPy copies to the current device
            elif not isinstance(x, np.ndarray) and not _is_cupy(x) and hasattr(x, "__dlpack__"):
                # Before __cuda_array_interface__, which has no name for bfloat16.
                x = _from_dlpack(x) if x.__dlpack_device__()[0] == _DLPACK_CPU else self.xp.from_dlpack(x)
            return self.xp.asarray(native(x), dtype=dtype)

    def to_numpy(self, x: Array) -> np.ndarray:
        return x.get()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        with self.device:
            return self.xp.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Array:
        with self.device:
            return self.xp.zeros(shape, dtype)

    def where(self, condition: Array, a: Array, b: Any) -> Array:
        """a where the condition holds, else b, an array or a number, in the type of a.

        CuPy's own has no bfloat16 and gives float32 for it.
        """
        with self.device:
            return self.xp.where(condition, a, b).astype(a.dtype, copy=False)

    def multiply(self, a: Array, b: Array, out: Array) -> None:
        """out (M, N) = a (M, K) @ b (K, N); half types are summed in float32."""
        self._products.multiply(a, b, out)

    def multiply_rows(self, a: Array, b: Array, out: Array, add: bool = False) -> Callable[[int], None]:
        """What computes out = a[t] @ b for t, a of (T, M, K), on the stream that is current now; with ``add``
        out += a[t] @ b. out may be (T, M, N)."""
        return self._products.by_row(a, b, out, add)

    def matmul(self, a: Array, b: Array) -> Array:
        """a (..., M, K) @ b (..., K, N) for stacks of matrices, which broadcast; half types are summed in float32."""
        M, N, stack = a.shape[-2], b.shape[-1], np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        with self.device:
            out, S = self.xp.empty((*stack, M, N), a.dtype), math.prod(stack)
            left, right = (self.xp.broadcast_to(m, (*stack, *m.shape[-2:])).reshape(S, *m.shape[-2:]) for m in (a, b))
            self._products.multiply_stacks(left, right, out.reshape(S, M, N))
        return out

    def lend_products(self, stream: Any) -> None:
        """Before a stream is captured: its products take what those of the current stream have."""
        with self.device:
            self._products.lend(stream.ptr)

    def synchronize(self) -> None:
        self.device.synchronize()

    def memory(self) -> tuple[int, int]:
        """(free, total) bytes of the device."""
        return self.device.mem_info


Backend = NumpyBackend | CupyBackend
CPU = NumpyBackend()


def _is_cupy(x: Any) -> bool:
    return type(x).__module__ in ("cupy", "cupy._core.core")


def _backend_of_one(x: Any) -> Backend | None:
    """None for what is no array."""
    if isinstance(x, np.ndarray):
        return CPU
    return _cuda_backend(x.device.id) if _is_cupy(x) else None


def backend_of(*arrays: Array | float | None, **named: Array | float | None) -> Backend:
    """The backend that all the arrays belong to; None and numbers belong to any.

    Raises DTypeError for what is no array and DeviceError for an array that is not where the first one is; both name
    an array that was given by keyword. Without any array the answer is the processor.
    """
    given = (*arrays, *named.values()) if named else arrays
    for x in given:
        if x is not None and (type(x) is not np.ndarray or not x.dtype.isnative):
            return _common(given, arrays, named)
    return CPU


def _common(given: tuple, arrays: tuple, named: dict[str, Any]) -> Backend:
    """``backend_of`` for what is not NumPy's plain arrays alone."""
    found: Backend | None = None
    for k, x in enumerate(given):
        if x is None or isinstance(x, _SCALARS):
            continue
        backend = _backend_of_one(x)
        if backend is None:
            got = f"{type_name(x)}{_way_to_an_array(x)}"
            raise DTypeError(f"{_name(k, arrays, named)}: expected a NumPy or CuPy array, got {got}")
        if backend is CPU and type(x) is not np.ndarray:
            check_plain(x, _name(k, arrays, named))
        if not x.dtype.isnative:
            way = f"convert it with x.astype({x.dtype.name!r})"
            raise DTypeError(f"{_name(k, arrays, named)}: expected this machine's byte order, got {x.dtype.str}; {way}")
        if found is None:
            found, first = backend, k
        elif backend is not found:
            name, reference = _name(k, arrays, named), _name(first, arrays, named)
            raise DeviceError(_on_another_device(name, backend, reference, found))
    return found if found is not None else CPU


def _name(k: int, arrays: tuple, named: dict[str, Any]) -> str:
    return [*["array"] * len(arrays), *named][k]


def _way_to_an_array(x: Any) -> str:
    if type_name(x) in ("Tensor", "Parameter"):
        return "; give its .data, or call the function through gl.apply"
    if hasattr(x, "__dlpack__"):
        return "; gl.tensor(x).data is one"
    return "; make one with np.asarray" if isinstance(x, list | tuple) or hasattr(x, "__array__") else ""


def _on_another_device(name: str, backend: Backend, first: str, found: Backend) -> str:
    array = name if name.isidentifier() else "array"
    way = f"gl.tensor({array}, device={found.name!r})"
    if name == first:  # neither has a name
        return f"arrays: expected all on one device, got {found.name} and {backend.name}; move one, e.g. with {way}"
    way += f", a Tensor with {array}.to({found.name!r})"
    return f"{name}: expected {found.name}, the device of {first}, got {backend.name}; move it with {way}"


@functools.cache
def _cuda_backend(index: int) -> CupyBackend:
    return CupyBackend(importlib.import_module("cupy"), index)


@functools.cache
def why_no_cuda() -> str:
    """The empty string when CuPy, a driver, a device and NVRTC work together; otherwise what is missing."""
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            return f"CuPy is not installed ({_INSTALL_CUPY[13]}; for a driver older than CUDA 13: {_INSTALL_CUPY[12]})"
        return f"CuPy is installed but does not import: {_first_line(error)}"
    try:
        runtime = cupy.cuda.runtime
        driver, built_for = runtime.driverGetVersion(), runtime.runtimeGetVersion()
        if driver == 0:
            return "no NVIDIA driver was found"
        if driver // 1000 < built_for // 1000:
            fitting = _INSTALL_CUPY.get(driver // 1000)
            return (
                f"CuPy was built for CUDA {built_for // 1000} and the driver serves up to CUDA {driver // 1000}; "
                f"{f'{fitting} in place of it' if fitting else 'update the driver'}"
            )
        if runtime.getDeviceCount() == 0:
            return "no NVIDIA GPU was found"
    except Exception as error:  # whatever a broken driver raises is the reason
        return f"CUDA does not start: {_first_line(error)}"
    try:
        cupy.RawModule(code='extern "C" __global__ void probe() {}').compile()
    except Exception as error:  # a missing NVRTC shows as one of several exceptions
        return f"CuPy cannot compile a kernel (is NVRTC installed? {_install(built_for)}): {_first_line(error)}"
    try:
        square = cupy.ones((2, 2), "float32")
        cupy.matmul(square, square)
    except Exception as error:  # found at the first product, not before
        return f"CuPy cannot multiply matrices (is cuBLAS installed? {_install(built_for)}): {_first_line(error)}"
    return ""


def _install(cuda: int) -> str:
    return _INSTALL_CUPY.get(cuda // 1000, _INSTALL_CUPY[13])


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or '(no message)').splitlines()[0]}"


def _forget_devices() -> None:
    """Forget what was found out about CUDA, for tests that exchange cupy."""
    _cuda_backend.cache_clear()
    why_no_cuda.cache_clear()


@dataclass(frozen=True)
class Device:
    """The place where arrays are stored, as ``gl.device`` returns it.

    ``name`` is "cpu" or "cuda:N". ``reason`` says why "auto" did not take a GPU; it is empty otherwise. Raises nothing.

    >>> str(gl.device("cpu"))
    'cpu'
    """

    name: str
    backend: Backend
    reason: str = ""

    def __str__(self) -> str:
        return self.name


def device(name: "str | Device" = "auto") -> Device:
    """The device of that name: "auto" (a GPU if one works, else the processor), "cpu", "cuda", "cuda:1".

    Raises DeviceError when CUDA is asked for and cannot be used, with the reason, and for any other name.

    >>> gl.device("cpu").name
    'cpu'
    """
    if isinstance(name, Device):
        return name
    kind, _, number = str(name).partition(":")
    if name == "cpu":
        return Device("cpu", CPU)
    if name == "auto":
        reason = why_no_cuda()
        return Device("cpu", CPU, reason) if reason else device("cuda")
    if kind != "cuda" or (number and not number.isdecimal()) or str(name).endswith(":"):
        raise DeviceError(f"device: expected 'auto', 'cpu', 'cuda' or 'cuda:<number>', got {name!r}")
    if reason := why_no_cuda():
        raise DeviceError(f"device {name!r} cannot be used: {reason}")
    cupy = importlib.import_module("cupy")
    index = int(number) if number else cupy.cuda.runtime.getDevice()
    count = cupy.cuda.runtime.getDeviceCount()
    if index >= count:
        raise DeviceError(f"device {name!r}: expected a number below {count}, the GPUs found, got {index}")
    return Device(f"cuda:{index}", _cuda_backend(index))

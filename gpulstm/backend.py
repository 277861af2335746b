"""Backends: which library an array belongs to, and the operations of that library; the only file that imports cupy.

The arrays choose the backend: functions call ``backend_of(x, w)`` and use its ``.xp``. There is no global device.
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
# By the major version of CUDA. [ctk] installs the libraries that CuPy loads, such as NVRTC.
_INSTALL_CUPY = {12: 'pip install "cupy-cuda12x[ctk]"', 13: 'pip install "cupy-cuda13x[ctk]"'}


def _from_dlpack(x: Any) -> np.ndarray:
    """View another library's array as a NumPy array; raises DTypeError, with that library's reason, if it refuses."""
    try:
        return np.from_dlpack(x)
    except (BufferError, RuntimeError) as error:
        raise DTypeError(f"array: expected one whose memory NumPy can share, got a {type_name(x)}: {error}") from error


class NumpyBackend:
    """The processor, through NumPy. Large arrays come from a pool (see pool.py)."""

    name, is_cuda, xp = "cpu", False, np
    kernels: Launcher | None = None
    why_no_kernels = "CUDA kernels run on CuPy arrays; these are NumPy arrays"

    def __enter__(self) -> "NumpyBackend":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def __repr__(self) -> str:
        return f"<backend {self.name}>"

    def asarray(self, x: Any, dtype: Any = None) -> np.ndarray:
        """Convert a list, an array of any library or an object with DLPack to a NumPy array; copies only if needed."""
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
        """a where the condition is True, else b, in the dtype of a; b is an array or a number."""
        return np.where(condition, a, np.asarray(b, a.dtype))

    def multiply(self, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        """out (M, N) = a (M, K) @ b (K, N); float16 and bfloat16 are summed in float32."""
        note_precision(self.is_cuda, self.name, a.dtype)
        if a.dtype.itemsize == 2:  # NumPy is slow for these and sums in 16 bits
            out[...] = np.matmul(a.astype(np.float32), b.astype(np.float32))
        else:
            np.matmul(a, b, out=out)

    def multiply_rows(self, a: np.ndarray, b: np.ndarray, out: np.ndarray, add: bool = False) -> Callable[[int], None]:
        """Return a function of t that computes out = a[t] @ b, or out += a[t] @ b with ``add``.

        a is (T, M, K) and b (K, N). out is (M, N), or (T, M, N) to write to out[t].
        """
        rows = list(a)  # only once: indexing an array takes as long as a small product
        to = list(out) if out.ndim == 3 else [out] * len(rows)
        if not add:
            return lambda t: self.multiply(rows[t], b, to[t])
        product = self.empty(to[0].shape, out.dtype)

        def multiply(t: int) -> None:
            self.multiply(rows[t], b, product)
            to[t][...] += product

        return multiply

    def matmul(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """a (..., M, K) @ b (..., K, N) for stacks of matrices, which broadcast.

        float16 and bfloat16 are summed in float32.
        """
        wide = accumulator(a.dtype)
        note_precision(self.is_cuda, self.name, a.dtype)
        y = np.matmul(a.astype(wide, copy=False), b.astype(wide, copy=False))
        return y.astype(a.dtype, copy=False)

    def synchronize(self) -> None:
        pass

    def memory(self) -> tuple[int, int]:
        """(free, total) bytes of the machine's memory; zeros if the system does not report them."""
        try:
            page = os.sysconf("SC_PAGE_SIZE")
            return page * os.sysconf("SC_AVPHYS_PAGES"), page * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, ValueError, OSError):
            return 0, 0


class CupyBackend:
    """One NVIDIA GPU, through CuPy. As a context manager, it makes its device the current one."""

    is_cuda = True
    why_no_kernels = ""

    def __init__(self, cupy: Any, index: int) -> None:
        self.name, self.xp, self.index = f"cuda:{index}", cupy, index
        self.device = cupy.cuda.Device(index)
        self.kernels: Launcher | None = Launcher(cupy, self.device)
        self._products = Cublas(cupy, self.device)
        self.graphs: Any = None  # functional/graphs.py stores its CUDA graphs here
        self.path_table: Any = None  # functional/path_table.py stores its table here
        self.sides: Any = None  # the streams of functional/directions.py

    @functools.cached_property
    def gpu(self) -> str:
        """The name of the GPU model."""
        return self.xp.cuda.runtime.getDeviceProperties(self.index)["name"].decode(errors="replace")

    def __enter__(self) -> "CupyBackend":
        self.device.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.device.__exit__(*exception)

    def __repr__(self) -> str:
        return f"<backend {self.name}>"

    def asarray(self, x: Any, dtype: Any = None) -> Array:
        """Convert x to a CuPy array on this device; copies only if x is not there already.

        x is a list, an array of any library, or an object with DLPack or ``__cuda_array_interface__``.
        """
        check_plain(x)
        with self.device:
            if _is_cupy(x) and x.device.id != self.index:
                x = x.copy()  # CuPy copies to the current device
            elif not isinstance(x, np.ndarray) and not _is_cupy(x) and hasattr(x, "__dlpack__"):
                # DLPack first, because __cuda_array_interface__ has no bfloat16.
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
        """a where the condition is True, else b, in the dtype of a; b is an array or a number.

        CuPy's own ``where`` returns float32 for bfloat16.
        """
        with self.device:
            return self.xp.where(condition, a, b).astype(a.dtype, copy=False)

    def multiply(self, a: Array, b: Array, out: Array) -> None:
        """out (M, N) = a (M, K) @ b (K, N); float16 and bfloat16 are summed in float32."""
        self._products.multiply(a, b, out)

    def multiply_rows(self, a: Array, b: Array, out: Array, add: bool = False) -> Callable[[int], None]:
        """As ``NumpyBackend.multiply_rows``; the function runs on the stream that is current now."""
        return self._products.by_row(a, b, out, add)

    def matmul(self, a: Array, b: Array) -> Array:
        """a (..., M, K) @ b (..., K, N) for stacks of matrices, which broadcast.

        float16 and bfloat16 are summed in float32.
        """
        M, N, stack = a.shape[-2], b.shape[-1], np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        with self.device:
            out, S = self.xp.empty((*stack, M, N), a.dtype), math.prod(stack)
            left, right = (self.xp.broadcast_to(m, (*stack, *m.shape[-2:])).reshape(S, *m.shape[-2:]) for m in (a, b))
            self._products.multiply_stacks(left, right, out.reshape(S, M, N))
        return out

    def lend_products(self, stream: Any) -> None:
        """Let products on ``stream``, which will be captured, use the workspace of the current stream."""
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
    """The backend of x, or None if x is not an array."""
    if isinstance(x, np.ndarray):
        return CPU
    return _cuda_backend(x.device.id) if _is_cupy(x) else None


def backend_of(*arrays: Array | float | None, **named: Array | float | None) -> Backend:
    """Return the common backend of the arrays; None and numbers fit any backend.

    Raises DTypeError for anything but an array, and DeviceError for an array on another device than the first one. Both
    name an array that is passed by keyword. Without arrays the result is the processor.
    """
    given = (*arrays, *named.values()) if named else arrays
    for x in given:
        if x is not None and (type(x) is not np.ndarray or not x.dtype.isnative):
            return _common(given, arrays, named)
    return CPU


def _common(given: tuple, arrays: tuple, named: dict[str, Any]) -> Backend:
    """``backend_of`` if not all arrays are plain NumPy arrays."""
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
        return "; pass its .data, or call the function through gl.apply"
    if hasattr(x, "__dlpack__"):
        return "; convert it with gl.tensor(x).data"
    return "; convert it with np.asarray" if isinstance(x, list | tuple) or hasattr(x, "__array__") else ""


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
    """Why no GPU can be used, in words; an empty string if CuPy, the driver, a device and NVRTC work."""
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            return f"CuPy is not installed ({_INSTALL_CUPY[13]}; for a driver older than CUDA 13: {_INSTALL_CUPY[12]})"
        return f"CuPy is installed but cannot be imported: {_first_line(error)}"
    try:
        runtime = cupy.cuda.runtime
        driver, built_for = runtime.driverGetVersion(), runtime.runtimeGetVersion()
        if driver == 0:
            return "no NVIDIA driver was found"
        if driver // 1000 < built_for // 1000:
            fitting = _INSTALL_CUPY.get(driver // 1000)
            return (
                f"CuPy was built for CUDA {built_for // 1000}, but the driver supports CUDA up to {driver // 1000}; "
                f"{f'install another CuPy: {fitting}' if fitting else 'update the driver'}"
            )
        if runtime.getDeviceCount() == 0:
            return "no NVIDIA GPU was found"
    except Exception as error:  # a broken driver may raise anything
        return f"CUDA does not start: {_first_line(error)}"
    try:
        cupy.RawModule(code='extern "C" __global__ void probe() {}').compile()
    except Exception as error:  # a missing NVRTC raises one of several exceptions
        return f"CuPy cannot compile a kernel (is NVRTC installed? {_install(built_for)}): {_first_line(error)}"
    try:
        square = cupy.ones((2, 2), "float32")
        cupy.matmul(square, square)
    except Exception as error:  # CuPy loads cuBLAS at the first product
        return f"CuPy cannot multiply matrices (is cuBLAS installed? {_install(built_for)}): {_first_line(error)}"
    return ""


def _install(cuda: int) -> str:
    return _INSTALL_CUPY.get(cuda // 1000, _INSTALL_CUPY[13])


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or '(no message)').splitlines()[0]}"


def _forget_devices() -> None:
    """Clear what is known about CUDA, for tests that replace cupy."""
    _cuda_backend.cache_clear()
    why_no_cuda.cache_clear()


@dataclass(frozen=True)
class Device:
    """The place where arrays are stored, as ``gl.device`` returns it.

    ``name`` is "cpu" or "cuda:N". ``reason`` says why "auto" chose no GPU; otherwise it is empty. Raises nothing.

    >>> str(gl.device("cpu"))
    'cpu'
    """

    name: str
    backend: Backend
    reason: str = ""

    def __str__(self) -> str:
        return self.name


def device(name: "str | Device" = "auto") -> Device:
    """Return the device with this name: "auto" (a GPU if one works, else the processor), "cpu", "cuda" or "cuda:1".

    Raises DeviceError for any other name and, with the reason, if you ask for CUDA and it cannot be used.

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
        raise DeviceError(f"device {name!r}: expected a number below {count}, the number of GPUs, got {index}")
    return Device(f"cuda:{index}", _cuda_backend(index))

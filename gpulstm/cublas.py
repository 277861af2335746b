"""Matrix products on a GPU: direct calls of cuBLAS, with its own handle and workspace, in the current ``gl.precision``.

CuPy's products call the same library, but they take twice the host time, cannot be captured in a CUDA graph, can only
write whole arrays, and sum float16 and bfloat16 in 16 bits if the result is a single number.
"""

import ctypes
import functools
import importlib
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from gpulstm.precision import current

# cudaDataType, cublasComputeType_t and the type of alpha and beta, from library_types.h and cublas_api.h.
_TYPES = {
    "float32": (0, 68, ctypes.c_float),
    "float64": (1, 70, ctypes.c_double),
    "float16": (2, 68, ctypes.c_float),
    "bfloat16": (14, 68, ctypes.c_float),
}
# For float32, other precisions replace CUBLAS_COMPUTE_32F by CUBLAS_COMPUTE_32F_FAST_TF32, _16BF and _16F.
_COMPUTE = {"ieee": 68, "tf32": 77, "bf16": 75, "fp16": 74}
_AS_IS, _TRANSPOSED, _DEFAULT_ALGORITHM = 0, 1, -1
WORKSPACE = 32 << 20  # bytes; cuBLAS allocates as much by default on the largest GPUs
_MOST_STREAMS = 8  # each with its own workspace, because products of two streams may run at once


@functools.cache
def _library() -> Any:
    """The libcublas that CuPy uses. Calls keep the GIL, because they take no longer than a kernel launch."""
    found = importlib.import_module("cuda.pathfinder").load_nvidia_dynamic_lib("cublas")
    return ctypes.PyDLL(found.abs_path)


class _Laid(NamedTuple):
    """The memory layout of a matrix: rows, or columns if ``transposed``, and the distance to the next one."""

    transposed: bool
    step: int


def _laid(matrix: Any) -> _Laid | None:
    """The layout of a matrix; None if both its rows and its columns have gaps."""
    (rows, columns), (down, right) = matrix.shape, (stride // matrix.itemsize for stride in matrix.strides)
    if right == 1 or columns == 1:
        step = columns if rows == 1 else down
        if step >= columns:
            return _Laid(False, max(step, 1))
    if down == 1 or rows == 1:
        step = rows if columns == 1 else right
        if step >= rows:
            return _Laid(True, max(step, 1))
    return None


def _type(array: Any) -> tuple[int, int, Any]:
    """(cudaDataType, compute type, type of alpha and beta) for products of arrays of this dtype."""
    kind, compute, scalar = _TYPES[array.dtype.name]
    return kind, _COMPUTE[current()] if array.dtype.name == "float32" else compute, scalar


class Cublas:
    """The products of one device; each thread has its own cuBLAS handle, which lives as long as the thread."""

    def __init__(self, cupy: Any, device: Any) -> None:
        self._cupy, self._device, self._mine = cupy, device, threading.local()

    def multiply(self, a: Any, b: Any, out: Any, add: bool = False) -> None:
        """out (M, N) = a (M, K) @ b (K, N), or += with ``add``; sums are in float32 or float64.

        All arrays have the same dtype and are on this device. Rows of out have no gaps.
        """
        if out.size:
            with self._device:
                a = a if _laid(a) else self._cupy.ascontiguousarray(a)
                self._call(a, b, out, add)(a.data.ptr, out.data.ptr)

    def by_row(self, a: Any, b: Any, out: Any, add: bool = False) -> Callable[[int], None]:
        """Return a function of t that computes out = a[t] @ b (or out[t]), on the stream that is current now.

        a is (T, M, K), b (K, N), and out (M, N) or (T, M, N).
        """
        if not out.size or not len(a):
            return lambda t: None
        rows = out.ndim == 3
        with self._device:
            call = self._call(a[0], b, out[0] if rows else out, add)
        first, step, to, further = a.data.ptr, a.strides[0], out.data.ptr, out.strides[0] if rows else 0
        return lambda t: call(first + t * step, to + t * further)

    def multiply_stacks(self, a: Any, b: Any, out: Any) -> None:
        """out (S, M, N) = a (S, M, K) @ b (S, K, N), matrix by matrix; out has no gaps."""
        (S, M, K), N = a.shape, out.shape[2]
        if not out.size:
            return
        with self._device:
            if not K:
                out.fill(0)
                return
            a, b = (m if m.strides[0] >= 0 and _laid(m[0]) else self._cupy.ascontiguousarray(m) for m in (a, b))
            laid, laid_b = _laid(a[0]), _laid(b[0])
            assert laid is not None and laid_b is not None
            kind, compute, scalar = _type(a)
            one, zero, whole, pointer = scalar(1), scalar(0), ctypes.c_int, ctypes.c_void_p

            def operand(m: Any, step: int) -> tuple:
                further = m.strides[0] // m.itemsize
                return pointer(m.data.ptr), whole(kind), whole(step), ctypes.c_longlong(further)

            operations = [whole(_TRANSPOSED if each.transposed else _AS_IS) for each in (laid_b, laid)]
            head = (self._handle(), *operations, *map(whole, (N, M, K)), ctypes.byref(one))
            factors = (*operand(b, laid_b.step), *operand(a, laid.step), ctypes.byref(zero))
            end = (whole(S), whole(compute), whole(_DEFAULT_ALGORITHM))
            self._checked("cublasGemmStridedBatchedEx", *head, *factors, *operand(out, N), *end)

    def _call(self, a: Any, b: Any, out: Any, add: bool) -> Callable[[int, int], None]:
        """Return a function that multiplies, given the addresses of a and out, on the stream that is current now."""
        (M, K), N = a.shape, out.shape[1]
        if not K:
            return lambda first, to: None if add else out.fill(0)
        b = b if _laid(b) else self._cupy.ascontiguousarray(b)
        laid, laid_b, laid_out = _laid(a), _laid(b), _laid(out)
        assert laid is not None and laid_b is not None and laid_out is not None and not laid_out.transposed
        kind, compute, scalar = _type(a)
        one, beta, whole, pointer = scalar(1), scalar(add), ctypes.c_int, ctypes.c_void_p
        handle, multiply = self._handle(), _library().cublasGemmEx
        # cuBLAS is column-major, so this computes out' (N, M) = b' a', which is the same memory.
        operations = [whole(_TRANSPOSED if each.transposed else _AS_IS) for each in (laid_b, laid)]
        head = (handle, *operations, *map(whole, (N, M, K)), ctypes.byref(one))
        right = (pointer(b.data.ptr), whole(kind), whole(laid_b.step))
        left = (whole(kind), whole(laid.step), ctypes.byref(beta))
        end = (whole(kind), whole(laid_out.step), whole(compute), whole(_DEFAULT_ALGORITHM))

        def call(first: int, to: int, _kept: Any = b) -> None:
            status = multiply(*head, *right, pointer(first), *left, pointer(to), *end)
            if status:
                raise RuntimeError(f"cublasGemmEx failed with status {status}")

        return call

    def lend(self, stream: int) -> None:
        """Let products on ``stream``, which will be captured, use the workspace of the stream that is current now.

        The captured graph runs later on the current stream, in its order, and a capture must not allocate memory.
        """
        self._handle()
        self._mine.lent = (stream, self._cupy.cuda.get_current_stream().ptr)

    def _handle(self) -> ctypes.c_void_p:
        """This thread's handle, on the current stream, with that stream's workspace."""
        mine = self._mine
        if not hasattr(mine, "handle"):
            mine.handle, mine.stream, mine.lent, mine.workspaces = ctypes.c_void_p(), None, (None, None), {}
            self._checked("cublasCreate_v2", ctypes.byref(mine.handle))
        stream = self._cupy.cuda.get_current_stream().ptr
        if mine.stream != stream:
            self._checked("cublasSetStream_v2", mine.handle, ctypes.c_void_p(stream))  # this resets the workspace
            owner = mine.lent[1] if stream == mine.lent[0] else stream
            if owner not in mine.workspaces:
                if len(mine.workspaces) >= _MOST_STREAMS:
                    self._device.synchronize()  # none of them is in use
                    mine.workspaces.clear()
                mine.workspaces[owner] = self._cupy.empty(WORKSPACE, "uint8")
            workspace = ctypes.c_void_p(mine.workspaces[owner].data.ptr)
            self._checked("cublasSetWorkspace_v2", mine.handle, workspace, ctypes.c_size_t(WORKSPACE))
            mine.stream = stream
        return mine.handle

    def _checked(self, name: str, *arguments: Any) -> None:
        if status := getattr(_library(), name)(*arguments):
            raise RuntimeError(f"{name} failed with status {status}")

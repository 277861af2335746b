"""Products of matrices on a GPU, by cuBLAS itself on a handle and a workspace of our own, in the precision in force.

CuPy's products go to the same library, but take the host twice as long, cannot be captured in a CUDA graph, write whole
arrays alone, and sum half types in the half type where the result is a single number.
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
# What stands in place of CUBLAS_COMPUTE_32F for float32: CUBLAS_COMPUTE_32F_FAST_TF32, _16BF and _16F.
_COMPUTE = {"ieee": 68, "tf32": 77, "bf16": 75, "fp16": 74}
_AS_IS, _TRANSPOSED, _DEFAULT_ALGORITHM = 0, 1, -1
WORKSPACE = 32 << 20  # bytes; what cuBLAS takes for itself on the largest GPUs
_MOST_STREAMS = 8  # with a workspace each: products of two streams may run at the same time


@functools.cache
def _library() -> Any:
    """The libcublas that CuPy takes, which keeps the GIL: a call lasts no longer than a launch."""
    found = importlib.import_module("cuda.pathfinder").load_nvidia_dynamic_lib("cublas")
    return ctypes.PyDLL(found.abs_path)


class _Laid(NamedTuple):
    """How a matrix lies in memory: row by row, or column by column; and how far the next row or column is."""

    transposed: bool
    step: int


def _laid(matrix: Any) -> _Laid | None:
    """None for a matrix whose rows and columns both have gaps."""
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
    """(cudaDataType, compute type, type of alpha and beta) for products of arrays like this one."""
    kind, compute, scalar = _TYPES[array.dtype.name]
    return kind, _COMPUTE[current()] if array.dtype.name == "float32" else compute, scalar


class Cublas:
    """The products of one device; each thread has a handle of its own, which lasts as long as the thread."""

    def __init__(self, cupy: Any, device: Any) -> None:
        self._cupy, self._device, self._mine = cupy, device, threading.local()

    def multiply(self, a: Any, b: Any, out: Any, add: bool = False) -> None:
        """out (M, N) = a (M, K) @ b (K, N), or += with ``add``; sums in float32 at least.

        All are of one type and on this device; rows of out have no gaps.
        """
        if out.size:
            with self._device:
                a = a if _laid(a) else self._cupy.ascontiguousarray(a)
                self._call(a, b, out, add)(a.data.ptr, out.data.ptr)

    def by_row(self, a: Any, b: Any, out: Any, add: bool = False) -> Callable[[int], None]:
        """What computes out = a[t] @ b for t, a of (T, M, K), on the stream that is current now; out, or (T, M, N)."""
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
        """What multiplies with the addresses of a and out, on the stream that is current now."""
        (M, K), N = a.shape, out.shape[1]
        if not K:
            return lambda first, to: None if add else out.fill(0)
        b = b if _laid(b) else self._cupy.ascontiguousarray(b)
        laid, laid_b, laid_out = _laid(a), _laid(b), _laid(out)
        assert laid is not None and laid_b is not None and laid_out is not None and not laid_out.transposed
        kind, compute, scalar = _type(a)
        one, beta, whole, pointer = scalar(1), scalar(add), ctypes.c_int, ctypes.c_void_p
        handle, multiply = self._handle(), _library().cublasGemmEx
        # cuBLAS reads columns where C has rows, so it is asked for out' (N, M) = b' a': the same memory.
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
        """Let products on the stream, which is to be captured, use the workspace of the stream that is current now.

        What is captured runs on the current stream later, in its order, and nothing may be allocated meanwhile.
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
            self._checked("cublasSetStream_v2", mine.handle, ctypes.c_void_p(stream))  # which forgets the workspace
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

"""One cuBLAS product that may be captured in a CUDA graph, which CuPy refuses of its own.

CuPy's handle takes its workspace when it needs one, and that a capture forbids. A handle of our own with a
workspace of our own needs nothing. The library is the one that CuPy has loaded.
"""

import ctypes
from pathlib import Path
from typing import Any

# From cublas_api.h and library_types.h: cudaDataType and cublasComputeType_t.
_STORED = {"float32": 0, "float16": 2, "bfloat16": 14}
_COMPUTE_32F, _COMPUTE_32F_FAST_TF32 = 68, 77
_TRANSPOSED, _AS_IS = 1, 0
_DEFAULT_ALGORITHM = -1
WORKSPACE = 32 << 20  # bytes; what cuBLAS takes for itself on the largest GPUs


def loaded_library(maps: Path = Path("/proc/self/maps")) -> str:
    """The path of the libcublas that this process has loaded; OSError where it has none."""
    for line in maps.read_text().splitlines():
        if "/libcublas.so" in line:
            return line.split(maxsplit=5)[5]
    raise OSError("this process has loaded no libcublas")


class Cublas:
    """A handle with a workspace of its own, on a stream; it lasts as long as the process."""

    def __init__(self, backend: Any, stream: Any, library: str = "") -> None:
        """Raises OSError where no library is loaded, RuntimeError where cuBLAS refuses."""
        if not library:
            one = backend.xp.ones((1, 1), "float32")
            backend.xp.matmul(one, one)  # makes CuPy load it
        self.stream = stream
        self._library = ctypes.CDLL(library or loaded_library())
        self._workspace = backend.xp.empty(WORKSPACE, "uint8")  # kept alive as long as the handle
        self._handle = ctypes.c_void_p()
        self._call("cublasCreate_v2", ctypes.byref(self._handle))
        self._call("cublasSetStream_v2", self._handle, ctypes.c_void_p(stream.ptr))
        pointer = ctypes.c_void_p(self._workspace.data.ptr)
        self._call("cublasSetWorkspace_v2", self._handle, pointer, ctypes.c_size_t(WORKSPACE))

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            raise RuntimeError(f"{name} failed with status {status}")

    def step(self, h: Any, w: Any, z: Any, tf32: bool = False) -> None:
        """z (B, 4H) = h (B, H) @ w (4H, H) transposed, summed in float32; all C-contiguous and of one dtype.

        cuBLAS reads columns where C has rows, so it is asked for z' (4H, B) = w h': the same memory.
        """
        (B, H), (rows, _) = h.shape, w.shape
        stored = _STORED[h.dtype.name]
        one, zero = ctypes.c_float(1), ctypes.c_float(0)
        compute = _COMPUTE_32F_FAST_TF32 if tf32 else _COMPUTE_32F
        whole = ctypes.c_int
        self._call(
            "cublasGemmEx", self._handle, whole(_TRANSPOSED), whole(_AS_IS), whole(rows), whole(B), whole(H),
            ctypes.byref(one), ctypes.c_void_p(w.data.ptr), whole(stored), whole(H),
            ctypes.c_void_p(h.data.ptr), whole(stored), whole(H),
            ctypes.byref(zero), ctypes.c_void_p(z.data.ptr), whole(stored), whole(rows),
            whole(compute), whole(_DEFAULT_ALGORITHM),
        )  # fmt: skip

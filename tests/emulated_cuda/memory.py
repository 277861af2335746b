"""Device memory of the stand-in: blocks filled with NaN and fenced on both sides.

New memory holds NaN (a recognisable number for integers), so an element that a kernel forgot to write shows.
The fences hold *signalling* NaNs: a read outside gives NaN, and whatever arithmetic writes back is a quiet
NaN, so that even ``x[k] += 1`` outside an array changes the fence.
"""

from typing import Any

import numpy as np

FENCE = 4096  # bytes on either side; a stray index is rarely off by more than a small array
ALIGNMENT = 512  # what cudaMalloc guarantees
TOTAL = 4 << 30  # bytes that each emulated device claims to have

# dtype -> bit pattern of new memory, bit pattern of the fences. The quiet bit is the mantissa's highest.
_PATTERNS = {
    "float64": (0x7FF8000000000000, 0x7FF5BADBADBADBAD),
    "float32": (0x7FC00000, 0x7FBADBAD),
    "float16": (0x7E00, 0x7DBA),
    "bfloat16": (0x7FC0, 0x7FBA),
    "bool": (1, 1),
}
_INTEGER_PATTERNS = (0x7A7A7A7A7A7A7A7A, 0x6B6B6B6B6B6B6B6B)  # cut to the integer's width


class OutOfMemoryError(MemoryError):
    """cupy.cuda.memory.OutOfMemoryError."""

    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes).")


USED = {0: 0, 1: 0}  # bytes by device


class Block:
    """One allocation on one device: ``data`` is the usable part of ``raw``, which has the fences too."""

    def __init__(self, nbytes: int, dtype: np.dtype, device: int) -> None:
        if USED[device] + nbytes > TOTAL:
            self.nbytes = 0
            raise OutOfMemoryError(nbytes, USED[device])
        self.device, self.nbytes = device, nbytes
        USED[device] += nbytes
        raw = np.empty(nbytes + 2 * FENCE + ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % ALIGNMENT
        self.raw = raw[start : start + nbytes + 2 * FENCE]
        self.data = self.raw[FENCE : FENCE + nbytes]
        _fill(self.data, dtype, 0)
        _fill(self.raw[:FENCE], dtype, 1)
        _fill(self.raw[FENCE + nbytes :], dtype, 1)

    def __del__(self) -> None:
        if self.nbytes:
            USED[self.device] -= self.nbytes

    def holds(self, array: np.ndarray) -> bool:
        """Whether the array's memory lies in this block."""
        address = array.__array_interface__["data"][0]
        first = self.data.__array_interface__["data"][0]
        return first <= address < first + self.nbytes


class ForeignBlock(Block):
    """Memory that another library owns (DLPack, ``__cuda_array_interface__``): neither filled nor fenced."""

    def __init__(self, memory: Any, owner: object, device: int) -> None:
        self.raw = self.data = np.frombuffer(memory, np.uint8)
        self.owner, self.device, self.nbytes = owner, device, self.raw.size

    def __del__(self) -> None:
        pass  # the owner's to count


def _fill(memory: np.ndarray, dtype: np.dtype, which: int) -> None:
    if dtype.kind == "c":
        dtype = np.dtype(f"f{dtype.itemsize // 2}")
    pattern = _PATTERNS.get(dtype.name, _INTEGER_PATTERNS)[which]
    word = np.dtype(f"u{dtype.itemsize}")
    memory.view(word)[...] = pattern & (2 ** (8 * dtype.itemsize) - 1)

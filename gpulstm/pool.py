"""A memory pool for large NumPy arrays, so that a training step need not allocate new pages each time.

NumPy returns the memory of large arrays to the system at once, and the next step pays for new page faults. CuPy avoids
this with a pool; this file does the same for NumPy. ``empty`` returns an ordinary array. When its last view is deleted,
its memory goes to a list of free blocks.
"""

import math
import os
import threading

import numpy as np
from numpy.typing import DTypeLike

SMALLEST = 1 << 18  # bytes; malloc reuses smaller blocks itself
LARGEST_SHARE = 8  # free blocks may hold at most 1/8 of the machine's memory
ALIGNMENT = 64  # one cache line, one AVX-512 register


class Pool:
    """Free blocks by size; sizes are rounded up to an eighth of a power of two, so that similar sizes share blocks."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._free: dict[int, list[np.ndarray]] = {}
        # Re-entrant: the garbage collector may return a block while this thread is inside the pool.
        self._lock = threading.RLock()

    def take(self, size: int) -> np.ndarray:
        with self._lock:
            blocks = self._free.get(size)
            if blocks:
                self.held -= size
                return blocks.pop()
        return np.empty(size + ALIGNMENT, np.uint8)

    def give_back(self, size: int, memory: np.ndarray) -> None:
        with self._lock:
            if self.held + size <= self.limit:
                self.held += size
                self._free.setdefault(size, []).append(memory)

    def clear(self) -> None:
        """Return every free block to the system."""
        with self._lock:
            self._free.clear()
            self.held = 0


class _Block:
    """The owner of one block: it is the base of arrays, and returns the memory to the pool when it is deleted."""

    def __init__(self, size: int) -> None:
        self._size, self._memory = size, POOL.take(size)
        address = self._memory.ctypes.data
        address += -address % ALIGNMENT
        self.__array_interface__ = {
            "version": 3,
            "shape": (size,),
            "typestr": "|u1",
            "data": (address, False),
        }

    def __del__(self) -> None:
        POOL.give_back(self._size, self._memory)


def _machine_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # no sysconf on this system
        return 8 << 30


POOL = Pool(_machine_memory() // LARGEST_SHARE)


def rounded(size: int) -> int:
    """The block size for ``size`` bytes: the next multiple of an eighth of a power of two."""
    step = 1 << max(size.bit_length() - 4, 12)
    return -(-size // step) * step


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """An uninitialised C-contiguous array, as from ``np.empty``; a large one comes from the pool."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < SMALLEST:
        return np.empty(shape, dtype)
    return np.asarray(_Block(rounded(size)))[:size].view(dtype).reshape(shape)

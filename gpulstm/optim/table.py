"""One launch for many arrays: the tables by which each block of a kernel finds its array and its part of
it.
"""

import numpy as np

from gpulstm.backend import Array, Backend

# Elements that one block of 256 threads serves. Fewer would make the search for the array weigh, more would
# leave multiprocessors without work for models of a million parameters.
CHUNK = 2048


def first_chunks(sizes: list[int]) -> np.ndarray:
    """(count + 1) int64: the number of each array's first chunk, and the number of all chunks at the end."""
    return np.cumsum([0, *(-(-size // CHUNK) for size in sizes)], dtype=np.int64)


def address(backend: Backend, x: Array) -> int:
    """Where the array's first element lies."""
    return x.data.ptr if backend.is_cuda else x.ctypes.data


def to_device(backend: Backend, *tables: np.ndarray) -> list[Array]:
    """Tables of int64 or float64 on the device, flat, all sent in one copy."""
    whole = backend.asarray(np.concatenate([table.reshape(-1).view(np.int64) for table in tables]))
    ends = np.cumsum([table.size for table in tables]).tolist()
    return [whole[end - table.size : end].view(table.dtype) for table, end in zip(tables, ends, strict=True)]

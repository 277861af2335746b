"""One kernel launch for many arrays: tables in which each thread block finds its array and its part of it."""

import numpy as np

from gpulstm.backend import Array, Backend

# Elements per thread block of 256 threads. With fewer, the search for the array would cost too much time; with more,
# some multiprocessors would have no work in models of a million parameters.
CHUNK = 2048


def first_chunks(sizes: list[int]) -> np.ndarray:
    """(count + 1,) int64: the number of each array's first chunk, and at the end the number of all chunks."""
    return np.cumsum([0, *(-(-size // CHUNK) for size in sizes)], dtype=np.int64)


def address(backend: Backend, x: Array) -> int:
    """The address of the array's first element."""
    return x.data.ptr if backend.is_cuda else x.ctypes.data


def to_device(backend: Backend, *tables: np.ndarray) -> list[Array]:
    """Copy tables of int64 or float64 to the device in one transfer; the results are flat."""
    whole = backend.asarray(np.concatenate([table.reshape(-1).view(np.int64) for table in tables]))
    ends = np.cumsum([table.size for table in tables]).tolist()
    return [whole[end - table.size : end].view(table.dtype) for table, end in zip(tables, ends, strict=True)]

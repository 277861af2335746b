"""The number of threads of the compiled code for the processor; by default one per core that the process may use."""

import ctypes
import os

from gpulstm import checks

MOST = 256  # as in kernels/host/pool.cpp

_number: int | None = None
_library: ctypes.CDLL | None = None


def set_num_threads(n: int) -> None:
    """Let compiled code use at most ``n`` threads, 1 to 256; the number does not change any result.

    It does not change NumPy's own threads, which OPENBLAS_NUM_THREADS sets. Raises ShapeError for another number.

    >>> gl.set_num_threads(2)
    """
    global _number
    _number = checks.integer("n", n, 1, MOST + 1, words=f"1 to {MOST} threads")
    if _library is not None:
        _library.gpulstm_set_num_threads(_number)


def get_num_threads() -> int:
    """Return how many threads compiled code may use; raises nothing.

    This is the number from ``set_num_threads``, else OMP_NUM_THREADS, else the number of cores.

    >>> gl.set_num_threads(2)
    >>> gl.get_num_threads()
    2
    """
    global _number
    if _number is None:
        _number = min(_number_asked_for() or _number_of_cores(), MOST)
    return _number


def connect(library: ctypes.CDLL) -> None:
    """Set the number of threads of ``library``, which contains kernels/host/pool.cpp, now and at each change."""
    global _library
    _library = library
    library.gpulstm_set_num_threads(get_num_threads())


def _number_asked_for() -> int:
    """The first number of OMP_NUM_THREADS ("4" or "4,2"), or 0 if there is none."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() else 0


def _number_of_cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

"""Measures the time of work on the GPU: events around it, work queued behind other work, work in a CUDA graph."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.harness import rounded

TAKES = 7
# Keeps the GPU busy, each product waiting for the one before, so that the host can queue work behind it.
OCCUPY = """
extern "C" __global__ void occupy(double* x, long long steps) {
    double value = x[0];
    for (long long k = 0; k < steps; ++k) value = value * 0.999 + 0.001;
    x[0] = value;
}"""


def row(
    measurement: str, what: str, value: float, unit: str, how: str, dtype: str = "", B: int = 0, H: int = 0
) -> dict:
    """One small measurement, and how it was taken."""
    return {
        "measurement": measurement, "what": what, "dtype": dtype or None, "B": B or None, "H": H or None,
        "value": rounded(value), "unit": unit, "how": how,
    }  # fmt: skip


def gpu_ms(backend: Any, call: Callable[[], None], stream: Any = None) -> float:
    """Milliseconds of the GPU from before the call's work to its end."""
    cuda = backend.xp.cuda
    start, stop = cuda.Event(), cuda.Event()
    start.record(stream)
    call()
    stop.record(stream)
    stop.synchronize()
    return cuda.get_elapsed_time(start, stop)


def median_of(take: Callable[[], float], takes: int = TAKES) -> float:
    """The median, after one take that does not count."""
    take()
    return statistics.median(take() for _ in range(takes))


def repeat(call: Callable[[], None], count: int) -> None:
    for _ in range(count):
        call()


def host_seconds(backend: Any, call: Callable[[], None]) -> float:
    """Seconds until the call returns, begun with nothing queued and left with nothing queued."""
    backend.synchronize()
    start = time.perf_counter()
    call()
    seconds = time.perf_counter() - start
    backend.synchronize()
    return seconds


def capture(stream: Any, work: Callable[[], None]) -> Any:
    """A graph of what ``work`` launches; the stream may not be the default one."""
    with stream:
        stream.begin_capture()
        try:
            work()
        finally:
            graph = stream.end_capture()
    return graph


def queue_behind(backend: Any, call: Callable[[], None], count: int) -> float:
    """Microseconds of the GPU for one of ``count`` calls that all wait in its queue: no host holds them up.

    They are queued behind a kernel that keeps the GPU busy; when it was done before the last was queued, it
    is given twice as long. Raises RuntimeError when that never suffices.
    """
    cuda = backend.xp.cuda
    busy, cell = backend.xp.RawModule(code=OCCUPY).get_function("occupy"), backend.zeros((1,), np.float64)
    steps = 1 << 16
    taken = []
    while len(taken) <= TAKES:
        busy((1,), (1,), (cell, np.int64(steps)))
        start, stop = cuda.Event(), cuda.Event()
        start.record()
        repeat(call, count)
        stop.record()
        in_time = not start.done  # the GPU had not come to the first call when the last was queued
        stop.synchronize()
        if in_time:
            taken.append(1e3 * cuda.get_elapsed_time(start, stop) / count)
        elif steps > 1 << 34:
            raise RuntimeError("the queue was never filled before the GPU got to it")
        else:
            steps *= 2
    return statistics.median(taken[1:])

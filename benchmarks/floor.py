"""The least time that a sequence can take on this processor, from what its cores reach in NumPy.

Two rates, measured in the process that asks: the arithmetic of a large matrix product, and the reading of memory of
the size of the weights that every step takes anew. No way of computing the sequence beats either; what it does
element by element comes on top and is not counted.
"""

import time
from collections.abc import Callable, Iterable

import numpy as np

from benchmarks.problem import Shape

PRODUCT = 1024  # rows and columns of the large product
TAKES = 9


def operations(shape: Shape, weights: Iterable[tuple[int, int]], mode: str) -> int:
    """Multiplications and additions of the products of each (rows, columns) weight with every step of a batch.

    Training also has the gradients of the weights and of what they are multiplied with, but for the input's, which no
    implementation is asked for: the first of the weights is the input's.
    """
    sizes = [rows * columns for rows, columns in weights]
    products = sum(sizes) if mode == "inference" else 3 * sum(sizes) - sizes[0]
    return 2 * shape.T * shape.B * products


def floor_ms(shape: Shape, weights: Iterable[tuple[int, int]], mode: str, dtype: str, threads: int) -> float:
    """Milliseconds: the longer of the arithmetic and of reading the recurrent weights at each step of each pass."""
    weights = list(weights)
    real = np.dtype("float64" if dtype == "float64" else "float32")  # half types are computed in float32
    read = sum(rows * columns for rows, columns in weights[1:]) * real.itemsize
    passes = 1 if mode == "inference" else 2
    arithmetic = operations(shape, weights, mode) / arithmetic_rate(real)
    reading = passes * shape.T * read / reading_rate(read, threads) if read else 0.0
    return 1e3 * max(arithmetic, reading)


def arithmetic_rate(real: np.dtype) -> float:
    """Multiplications and additions a second of NumPy's product of two large matrices."""
    a, b = (np.ones((PRODUCT, PRODUCT), real) for _ in range(2))
    out = np.empty_like(a)
    return 2 * PRODUCT**3 / _shortest(lambda: np.matmul(a, b, out=out))


def reading_rate(nbytes: int, threads: int) -> float:
    """Bytes a second that ``threads`` cores read, each its part of ``nbytes`` again and again.

    One core is measured, on its part alone: what several share can only make the true rate lower.
    """
    part = np.zeros(max(nbytes // threads // 4, 1), np.float32)
    again = max(1, (1 << 24) // part.nbytes)

    def read() -> None:
        for _ in range(again):
            part.max()

    return threads * again * part.nbytes / _shortest(read)


def _shortest(call: Callable[[], object]) -> float:
    """Seconds of the fastest of several calls."""
    call()
    seconds = []
    for _ in range(TAKES):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)

"""A lower bound for the time of a sequence on this CPU, from the rates that its cores reach in NumPy.

There are two rates: the arithmetic of a large matrix product, and reading memory of the size of the weights, which
every step needs again. No implementation can beat either. Elementwise work takes additional time, which is not counted.
The speed of a machine drifts, so the best rates of a whole run count.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.problem import Shape

PRODUCT = 1024  # rows and columns of the large product
TAKES = 9


@dataclass
class Floors:
    """The floors of a run's sequences, by the best rates that were measured beside any of them."""

    arithmetic: dict[str, float] = field(default_factory=dict)  # by the type that is computed in
    reading: dict[int, float] = field(default_factory=dict)  # by the bytes read

    def add(self, measured: dict[str, Any]) -> None:
        """Take the rates of ``measure`` where they are better than those before."""
        dtype, read = measured["dtype"], measured["read"]
        self.arithmetic[dtype] = max(self.arithmetic.get(dtype, 0.0), measured["arithmetic"])
        self.reading[read] = max(self.reading.get(read, 0.0), measured["reading"])

    def milliseconds(self, measured: dict[str, Any]) -> float:
        """The longer of the arithmetic and of reading the recurrent weights at each step of each pass."""
        arithmetic = measured["operations"] / self.arithmetic[measured["dtype"]]
        reading = measured["reads"] * measured["read"] / self.reading[measured["read"]]
        return 1e3 * max(arithmetic, reading)


def operations(shape: Shape, weights: Iterable[tuple[int, int]], mode: str) -> int:
    """Multiplications and additions of the products of each (rows, columns) weight with every step of a batch.

    Training also has the gradients of the weights and of what they are multiplied with, but for the input's, which no
    implementation is asked for: the first of the weights is the input's.
    """
    sizes = [rows * columns for rows, columns in weights]
    products = sum(sizes) if mode == "inference" else 3 * sum(sizes) - sizes[0]
    return 2 * shape.T * shape.B * products


def measure(shape: Shape, weights: Iterable[tuple[int, int]], mode: str, dtype: str, threads: int) -> dict[str, Any]:
    """What a sequence has to compute and to read, and the rates at which this processor now does."""
    weights = list(weights)
    real = np.dtype("float64" if dtype == "float64" else "float32")  # half types are computed in float32
    read = sum(rows * columns for rows, columns in weights[1:]) * real.itemsize
    return {
        "dtype": real.name, "operations": operations(shape, weights, mode), "arithmetic": arithmetic_rate(real),
        "read": read, "reads": shape.T * (1 if mode == "inference" else 2), "reading": reading_rate(read, threads),
    }  # fmt: skip


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

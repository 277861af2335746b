"""The sequence that every implementation computes, and the agreement that comes before any timing.

All numbers of a problem are whole multiples, at most 127, of a power of two: float64, float32, float16 and
bfloat16 hold exactly the same ones, so that one float64 reference serves every dtype and an error is the
arithmetic's alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# What a mode computes, in order. No gradient of the input on any side: it is data.
OUTPUTS = ("y", "h_n", "c_n")
GRADIENTS = ("dw_ih", "dw_hh", "db_ih", "db_hh")
MODES = {"inference": OUTPUTS, "training": OUTPUTS + GRADIENTS}

# precision -> the largest error that still counts as the same function. Two exchanged gates or a lost bias
# give 0.2 and more on these problems; the error itself stands in every row.
AGREEMENT = {
    "float64": 1e-10,
    "float32": 1e-4,  # sums of up to 10^4 terms of 2^-24, through 100 steps; measured 6e-7
    "tf32": 1e-2,  # factors rounded to 2^-11
    "float16": 2e-2,  # states stored in 2^-11 at every step; measured 7e-4
    "bfloat16": 5e-2,  # states stored in 2^-8 at every step; measured 6e-3
}


@dataclass(frozen=True)
class Shape:
    """B sequences of T steps, D inputs, H units."""

    B: int
    T: int
    D: int
    H: int

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """From "B,T,D,H"; raises ValueError for anything but four whole numbers above 0."""
        try:
            sizes = [int(part) for part in text.split(",")]
        except ValueError:
            sizes = []
        if len(sizes) != 4 or min(sizes) < 1:
            raise ValueError(f"shape: want B,T,D,H, four whole numbers above 0, got {text!r}")
        return cls(*sizes)

    def __str__(self) -> str:
        return f"{self.B},{self.T},{self.D},{self.H}"


@dataclass(frozen=True)
class Problem:
    """One layer and one batch, float32 on the host, under torch's names; dy is the gradient of y."""

    shape: Shape
    x: np.ndarray  # (T, B, D)
    dy: np.ndarray  # (T, B, H)
    w_ih: np.ndarray  # (4H, D), gates i, f, g, o
    w_hh: np.ndarray  # (4H, H)
    b_ih: np.ndarray  # (4H,)
    b_hh: np.ndarray  # (4H,)

    @classmethod
    def of(cls, shape: Shape, seed: int = 0) -> "Problem":
        """The same numbers for the same shape, in every process."""
        generator = np.random.default_rng(seed)
        B, T, D, H = shape.B, shape.T, shape.D, shape.H
        scale = 1 / math.sqrt(H)  # torch's initial weights; more where an exchanged gate would hardly show
        sizes = ((T, B, D), (T, B, H), (4 * H, D), (4 * H, H), (4 * H,), (4 * H,))
        scales = (2.0, 1.0, scale, 2 * scale, 0.5, 0.5)
        return cls(shape, *(multiples(generator, *pair) for pair in zip(sizes, scales, strict=True)))

    def matrices(self) -> list[tuple[int, int]]:
        """(rows, columns) of the weights, the input's first."""
        return [self.w_ih.shape, self.w_hh.shape]

    def names(self, mode: str) -> tuple[str, ...]:
        """What a mode computes, in order."""
        return MODES[mode]


def multiples(generator: np.random.Generator, size: tuple[int, ...], largest: float) -> np.ndarray:
    """Whole multiples -127..127 of a power of two, so that 128 of it would be about ``largest``."""
    array = generator.integers(-127, 128, size, dtype=np.int8).astype(np.float32)
    array *= 2.0 ** (round(math.log2(largest)) - 7)
    return array


def disagreement(got: Mapping[str, np.ndarray], want: Mapping[str, Any], names: Sequence[str]) -> tuple[float, str]:
    """(the error, the array that has it): the largest max|got - want| / max|want| over the arrays named.

    Infinite for an array that is missing, has another shape or holds what is not finite.
    """
    errors = {name: _error(got.get(name), np.asarray(want[name])) for name in names}
    worst = max(errors, key=lambda name: errors[name])
    return errors[worst], worst


def _error(got: np.ndarray | None, want: np.ndarray) -> float:
    if got is None or got.shape != want.shape:
        return math.inf
    error = float(np.abs(got.astype(np.float64) - want).max(initial=0.0))
    return error / max(float(np.abs(want).max(initial=0.0)), 1e-300) if math.isfinite(error) else math.inf

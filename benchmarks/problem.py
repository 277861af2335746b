"""The sequence that every implementation computes, and the check of the results before any timing.

All numbers of a problem are integers of at most 127 times a power of two. float64, float32, float16 and bfloat16
represent them exactly. So one float64 reference serves every dtype, and an error comes from the arithmetic alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

# What a mode computes, in order: y (T, B, K*H) for K directions, the last states (layers * K, B, H), and the gradients
# of the weights of each layer and direction. No gradient of the input on any side: it is data.
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
# Norms make a sequence sensitive: rounding only the weights to float32 changes the results of 100 steps by 1e-3, on any
# path, where it changes those of the LSTM by 1e-6.
SENSITIVE = {"layer norm": 10}


def agreement(cell: str, precision: str) -> float:
    """The largest error that still counts as the same function, for a cell."""
    return AGREEMENT[precision] * SENSITIVE.get(cell, 1)


@dataclass(frozen=True)
class Shape:
    """B sequences of T steps, D inputs, H units, through layers of one size, in one direction or in both."""

    B: int
    T: int
    D: int
    H: int
    layers: int = 1
    directions: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """From "B,T,D,H" or "B,T,D,H,layers,directions"; raises ValueError for anything else."""
        try:
            sizes = [int(part) for part in text.split(",")]
        except ValueError:
            sizes = []
        if len(sizes) not in (4, 6) or min(sizes) < 1 or sizes[5:] > [2]:
            want = "four whole numbers above 0, or with the layers and 1 or 2 directions after them six"
            raise ValueError(f"shape: expected B,T,D,H, {want}, got {text!r}")
        return cls(*sizes)

    @classmethod
    def parse_layer(cls, text: str) -> "Shape":
        """From "B,T,D,H" alone: one layer in one direction; raises ValueError for anything else."""
        shape = cls.parse(text)
        if shape.loops > 1:
            raise ValueError(f"shape: expected one layer in one direction, got {text!r}")
        return shape

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> "Shape":
        """That of a row of a result file; those of older files say no layers and directions, and have one."""
        more = (row.get(name) or 1 for name in ("layers", "directions"))
        return cls(row["B"], row["T"], row["D"], row["H"], *more)

    def __str__(self) -> str:
        """What ``parse`` reads."""
        more = f",{self.layers},{self.directions}" if self.loops > 1 else ""
        return f"{self.B},{self.T},{self.D},{self.H}{more}"

    def words(self) -> str:
        """For people: "B,T,D,H, 4 layers, both directions"."""
        layers = f", {self.layers} layers" if self.layers > 1 else ""
        both = ", both directions" if self.directions > 1 else ""
        return f"{self.B},{self.T},{self.D},{self.H}{layers}{both}"

    @property
    def loops(self) -> int:
        """How many time loops there are: one for each layer and direction."""
        return self.layers * self.directions

    def inputs(self) -> list[int]:
        """The input size of each loop, layer by layer, forward before backward."""
        sizes = [self.D, *[self.H * self.directions] * (self.layers - 1)]
        return [size for size in sizes for _ in range(self.directions)]


class Weights(NamedTuple):
    """The weights of one layer in one direction, or their gradients."""

    w_ih: np.ndarray  # (4H, inputs), gates i, f, g, o
    w_hh: np.ndarray  # (4H, H)
    b_ih: np.ndarray  # (4H,)
    b_hh: np.ndarray  # (4H,)


@dataclass(frozen=True)
class Problem:
    """The weights and one batch, float32 on the host; dy is the gradient of y. K is the number of directions."""

    shape: Shape
    x: np.ndarray  # (T, B, D)
    dy: np.ndarray  # (T, B, K*H)
    weights: tuple[Weights, ...]  # layer by layer, forward before backward

    @classmethod
    def of(cls, shape: Shape, seed: int = 0) -> "Problem":
        """The same numbers for the same shape, in every process."""
        generator = np.random.default_rng(seed)
        B, T, H = shape.B, shape.T, shape.H
        x = multiples(generator, (T, B, shape.D), 2.0)
        dy = multiples(generator, (T, B, shape.directions * H), 1.0)
        scale = 1 / math.sqrt(H)  # torch's initial weights; more where an exchanged gate would hardly show
        scales, weights = (scale, 2 * scale, 0.5, 0.5), []
        for inputs in shape.inputs():
            sizes = ((4 * H, inputs), (4 * H, H), (4 * H,), (4 * H,))
            weights.append(Weights(*(multiples(generator, *pair) for pair in zip(sizes, scales, strict=True))))
        return cls(shape, x, dy, tuple(weights))

    def matrices(self) -> list[tuple[int, int]]:
        """(rows, columns) of the weights of one layer, the input's first."""
        first = self.weights[0]
        return [first.w_ih.shape, first.w_hh.shape]

    def names(self, mode: str) -> tuple[str, ...]:
        """What a mode computes, in order. Gradients of several layers or directions have torch's endings."""
        if self.shape.loops == 1 or mode == "inference":
            return MODES[mode]
        ways = ("", "_reverse")[: self.shape.directions]
        ends = [f"_l{layer}{way}" for layer in range(self.shape.layers) for way in ways]
        return OUTPUTS + tuple(f"{name}{end}" for end in ends for name in GRADIENTS)


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

"""What a time step works on, whatever path it takes: the buffers of one sequence, and what is asked of a path.

The time loop (loop.py) does not know which path it drives; a step has everything but the matrix products. Rows
that are not alive keep their state, and zoneout keeps a share of it.
"""

from abc import ABC, abstractmethod
from typing import Any

from gpulstm.backend import Array
from gpulstm.dtypes import accumulator
from gpulstm.functional.sequence import Sequence


class Steps(ABC):
    """The buffers of one sequence, which a step reads and writes. S is the number of the states besides h.

    gates (T, B, G*H) comes in as the input's pre-activations and, step by step, becomes what the cell keeps.
    before and after hold two arrays each, for h (T, B, H) and for the other states (T, S, B, H); that for h before
    is None where h is projected after the step. vectors are the extras that are no matrices, one after the other.
    """

    def __init__(self, seq: Sequence, gates: Array, before: tuple, after: tuple, biases: tuple, vectors: Array) -> None:
        self.seq, self.gates, self.before, self.after = seq, gates, before, after
        self.b_ih, self.b_hh, self.vectors = *biases, vectors

    @property
    def keeps_h(self) -> bool:
        """Whether a step keeps shares of the old h; with a projection that is done after it."""
        return self.before[0] is not None

    @abstractmethod
    def start(self, zr: Array, v: Array | None) -> None:
        """Before the first ``forward``: zr (B, G*H) will hold the products of the states before each step, used up
        by it; v (T, B, H) takes what an inner product multiplies, None where the cell has none."""

    def start_backward(
        self, dzx: Array, dzr: Array, dy: Array | None, dh: Array, direct: Array | None, ds: Array, dv: Array | None
    ) -> None:
        """Before the first ``backward``.

        dzx and dzr (T, B, G*H) take the gradients of the pre-activations. dy (T, B, H) is that of every h, or None; dh
        (B, H), used up by each step, comes through the product of the step after it, direct (B, H) or None is the rest;
        ds (S, B, H) are those of the other states, dv (B, H) that of what an inner product multiplies.
        """
        self.dzx, self.dzr, self.dy, self.dh, self.ds, self.dv = dzx, dzr, dy, dh, ds, dv
        self.direct: Any = direct
        # The gradient of the vectors, a row for each sequence: summed over steps here, over rows at the end.
        self.dvectors = self.seq.backend.zeros((self.seq.B, self.vectors.size), accumulator(self.seq.dtype))

    @abstractmethod
    def forward(self, t: int) -> None:
        """Step t: the states after it."""

    @abstractmethod
    def backward(self, t: int) -> None:
        """The derivative of step t: direct and ds leave as those of the states before, row t of dzx and dzr is
        written."""

    @abstractmethod
    def inner(self, t: int) -> None:
        """The first half of a step with an inner product: row t of v."""

    @abstractmethod
    def inner_backward(self, t: int) -> None:
        """The derivative of ``inner``, after ``backward``: completes what that has written."""


def by_step(arrays: tuple, T: int) -> list[tuple]:
    """The rows of all arrays (T, ...), a tuple for each step; None where there is no array."""
    return list(zip(*([None] * T if array is None else list(array) for array in arrays), strict=True))

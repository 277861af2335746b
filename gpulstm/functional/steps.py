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
        self.seq, self.gates = seq, gates
        self.b_ih, self.b_hh, self.vectors = *biases, vectors
        # Rows once, as lists: indexing an array costs as much as a small step's arithmetic.
        self.z_rows = list(gates)
        self.before_rows, self.after_rows = by_step(before, seq.T), by_step(after, seq.T)
        self.keep_h: list[Any] = seq.keep_h if before[0] is not None else [None] * seq.T

    def start_backward(self, dzx: Array, dzr: Array) -> None:
        """Before the first ``backward``: where the gradients (T, B, G*H) of the pre-activations go."""
        self.dzx_rows, self.dzr_rows = list(dzx), list(dzr)
        # The gradient of the vectors, a row for each sequence: summed over steps here, over rows at the end.
        self.dvectors = self.seq.backend.zeros((self.seq.B, self.vectors.size), accumulator(self.seq.dtype))

    @abstractmethod
    def forward(self, t: int, zr: Array) -> None:
        """Step t: the states after it from zr (B, G*H), the products of the states before it, used up."""

    @abstractmethod
    def backward(self, t: int, dy: Array | None, dh: Any, direct: Any, ds: Any) -> None:
        """The derivative of step t.

        dh (B, H), used up, is the gradient of h through the product of the step after it, direct (B, H) or
        None the rest but dy; ds (S, B, H) are the gradients of the other states. direct and ds leave as those of
        the states before, row t of dzx and dzr is written.
        """

    @abstractmethod
    def inner(self, t: int, zr: Array, v: Array) -> None:
        """The first half of a step with an inner product: v (B, H), what is multiplied."""

    @abstractmethod
    def inner_backward(self, t: int, dv: Array, direct: Any, ds: Any) -> None:
        """The derivative of ``inner``, after ``backward``: completes what that has written."""


def by_step(arrays: tuple, T: int) -> list[tuple]:
    """The rows of all arrays (T, ...), a tuple for each step; None where there is no array."""
    return list(zip(*([None] * T if array is None else list(array) for array in arrays), strict=True))

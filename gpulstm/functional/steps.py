"""The interface of a time step, the same for every path, and the buffers of one sequence that it works on.

The time loop (loop.py) computes the matrix products, and a step does everything else. The loop does not know which path
it drives. Sequences that are not alive keep their states, and zoneout keeps a share of them.
"""

from abc import ABC, abstractmethod
from typing import Any

from gpulstm.backend import Array
from gpulstm.dtypes import accumulator
from gpulstm.functional.sequence import Sequence


class Steps(ABC):
    """The buffers of one sequence, which a step reads and writes. S is the number of states besides h.

    gates (T, B, G*H) begins as the input's pre-activations; step by step, what the cell keeps replaces them. before and
    after hold two arrays each, for h (T, B, H) and for the other states (T, S, B, H). before's array for h is None if h
    is projected after the step. vectors holds the extra parameters that are vectors, one after the other.
    """

    def __init__(self, seq: Sequence, gates: Array, before: tuple, after: tuple, biases: tuple, vectors: Array) -> None:
        self.seq, self.gates, self.before, self.after = seq, gates, before, after
        self.b_ih, self.b_hh, self.vectors = *biases, vectors

    @property
    def keeps_h(self) -> bool:
        """Whether a step keeps shares of the old h; with a projection the loop does so after the step."""
        return self.before[0] is not None

    @abstractmethod
    def start(self, zr: Array, v: Array | None) -> None:
        """Called before the first ``forward``.

        zr (B, G*H) will hold the products of the states before each step, and the step may overwrite it. v (T, B, H)
        receives the factor of the inner product; None if the cell has no inner product.
        """

    def start_backward(
        self, dzx: Array, dzr: Array, dy: Array | None, dh: Array, direct: Array | None, ds: Array, dv: Array | None
    ) -> None:
        """Called before the first ``backward``.

        dzx and dzr (T, B, G*H) receive the gradients of the pre-activations. dy (T, B, H) is the gradient of every
        output, or None. dh (B, H) is the gradient of h through the product of the next step, and the step may overwrite
        it. direct (B, H), or None, is the rest of the gradient of h. ds (S, B, H) are the gradients of the other
        states, and dv (B, H) is that of the inner product's factor.
        """
        self.dzx, self.dzr, self.dy, self.dh, self.ds, self.dv = dzx, dzr, dy, dh, ds, dv
        self.direct: Any = direct
        # The gradient of the vectors, a row for each sequence: summed over the steps here, over the rows at the end.
        self.dvectors = self.seq.backend.zeros((self.seq.B, self.vectors.size), accumulator(self.seq.dtype))

    @abstractmethod
    def forward(self, t: int) -> None:
        """Compute step t: write the states after it."""

    @abstractmethod
    def backward(self, t: int) -> None:
        """Differentiate step t: write row t of dzx and dzr, and the gradients of the states before to direct and ds."""

    @abstractmethod
    def inner(self, t: int) -> None:
        """Compute the first half of a step with an inner product: write row t of v."""

    @abstractmethod
    def inner_backward(self, t: int) -> None:
        """Differentiate ``inner``, after ``backward``: complete the gradients that it has written."""


def by_step(arrays: tuple, T: int) -> list[tuple]:
    """For each step a tuple with its row of each array (T, ...), or None where there is no array."""
    return list(zip(*([None] * T if array is None else list(array) for array in arrays), strict=True))

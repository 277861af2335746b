"""Batches of examples of about one length, so that little is padded."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gpulstm.data import Passes

POOL = 64  # batches whose examples are put in the order of their lengths: many lengths are met, and chance has its part


class ByLength(Passes):
    """``make(numbers)`` of the numbers of each batch's examples, whose ``lengths`` (N,) or (N, several) are alike.

    With a ``generator`` every pass draws which examples share a pool; in a pool they are sorted by length and cut into
    batches, and all batches come in a new order. Without one the examples are sorted once.
    """

    def __init__(
        self,
        lengths: Any,
        batch_size: int,
        make: Callable[[np.ndarray], Any],
        generator: np.random.Generator | None = None,
    ) -> None:
        self.batch_size, self._make = batch_size, make
        self._lengths = np.asarray(lengths).reshape(len(lengths), -1)
        super().__init__(-(-len(self._lengths) // batch_size), generator)

    def _order(self, generator: np.random.Generator | None) -> list[np.ndarray]:
        N = len(self._lengths)
        order = np.arange(N) if generator is None else generator.permutation(N)
        size = N if generator is None else POOL * self.batch_size
        pools = [order[n : n + size] for n in range(0, N, size)]
        order = np.concatenate([pool[np.lexsort(self._lengths[pool].T[::-1])] for pool in pools])
        batches = [order[n : n + self.batch_size] for n in range(0, N, self.batch_size)]
        return batches if generator is None else [batches[k] for k in generator.permutation(len(batches))]

    def _batch(self, order: list[np.ndarray], k: int) -> Any:
        return self._make(order[k])

    def extra_repr(self) -> str:
        return f"{len(self._lengths)} examples, batch_size={self.batch_size}"

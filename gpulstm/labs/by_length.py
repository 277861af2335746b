"""Batches of examples of similar length, which need little padding."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gpulstm.data import Passes

POOL = 64  # batches whose examples are sorted by length together; the examples of a pool are drawn at random


class ByLength(Passes):
    """Yields ``make(numbers)`` for each batch, where ``numbers`` are the indices of examples of similar length.

    ``lengths`` is (N,), or (N, k) to sort by several lengths. With a ``generator`` every pass draws at random which
    examples share a pool, sorts each pool by length, cuts it into batches and shuffles all batches. Without one the
    examples are simply sorted.
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

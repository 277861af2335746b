"""Batches of sentence pairs of similar length."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpulstm.data import pad_sequences
from gpulstm.labs.by_length import ByLength
from gpulstm.train.batch import IGNORED


class Buckets(ByLength):
    """Batches ((source (T, B), lengths (B,)), targets (S, B)) of pairs of token ids; targets are padded with -100."""

    def __init__(
        self,
        sources: Sequence[np.ndarray],
        targets: Sequence[np.ndarray],
        batch_size: int,
        generator: np.random.Generator | None = None,
    ) -> None:
        self._sources, self._targets = list(sources), list(targets)
        lengths = [(len(x), len(y)) for x, y in zip(sources, targets, strict=True)]
        super().__init__(lengths, batch_size, self._padded, generator)

    def _padded(self, numbers: np.ndarray) -> Any:
        targets, _ = pad_sequences([self._targets[n] for n in numbers.tolist()], value=IGNORED)
        return pad_sequences([self._sources[n] for n in numbers.tolist()]), targets


def tokens_in(batch: Any) -> int:
    """Return the number of predicted target tokens in a batch, over which its loss averages."""
    return int((batch[1][1:] != IGNORED).sum())

"""The classifier's network: word vectors or features, a bidirectional LSTM, pooling over time, a logit per class."""

from typing import Any

import numpy as np

from gpulstm import functional
from gpulstm.backend import Array, backend_of
from gpulstm.nn import LSTM, Dropout, Embedding, Linear, Module, softmax, tanh, where
from gpulstm.tape import Tensor, apply

POOLINGS = ("max", "mean", "attention")
SPREAD = 0.1  # standard deviation of the initial vectors


class WordVectors(Module):
    """A word's vector: its own embedding plus the mean embedding of its n-grams (Bojanowski et al. 2017)."""

    def __init__(self, words: int, buckets: int, size: int, **made: Any) -> None:
        self.own = Embedding(words, size, **made)
        self.own.weight.data[...] *= SPREAD
        self.grams = Embedding(buckets + 1, size, padding_idx=0, **made) if buckets else None
        if self.grams is not None:
            self.grams.weight.data[...] *= SPREAD

    def forward(self, ids: Array, grams: Array) -> Tensor:
        """Map ids (U,) and grams (U, G), padded with 0, to vectors (U, size)."""
        vectors = self.own(ids)
        if self.grams is None or grams.shape[1] == 0:
            return vectors
        counts = np.maximum((grams > 0).sum(axis=1, keepdims=True), 1).astype(vectors.dtype)
        return vectors + self.grams(grams).sum(axis=1) / counts


class SequenceModel(Module):
    """Maps sequences to logits, pooling over the steps; "attention" scores each step (Yang et al. 2016)."""

    def __init__(
        self,
        features: int,
        classes: int,
        words: WordVectors | None,
        *,
        hidden_size: int,
        num_layers: int,
        dropout: float,
        pooling: str,
        **made: Any,
    ) -> None:
        self.words, self.pooling = words, pooling
        between = dropout if num_layers > 1 else 0.0
        self.lstm = LSTM(features, hidden_size, num_layers, bidirectional=True, dropout=between, **made)
        self.dropout = Dropout(dropout, batch_axis=-2)
        if pooling == "attention":
            self.hidden, self.score = Linear(2 * hidden_size, hidden_size, **made), Linear(hidden_size, 1, **made)
        self.linear = Linear(2 * hidden_size, classes, **made)

    def forward(self, x: Tensor, lengths: np.ndarray) -> Tensor:
        """Map x (T, B, features) and lengths (B,), each at least 1, to logits (B, classes)."""
        return self.explained(x, lengths)[0]

    def explained(self, x: Tensor, lengths: np.ndarray) -> tuple[Tensor, Array]:
        """Return logits (B, classes) and the weights of the steps (T, B), which sum to 1 over T.

        The weights are the attention weights, with "max" the share of units whose maximum is at the step, with "mean"
        equal shares.
        """
        y, _ = self.lstm(self.dropout(x) if self.words is not None else x, lengths=lengths)
        backend = backend_of(y.data)
        xp = backend.xp
        with backend:
            inside = xp.arange(y.shape[0])[:, None] < backend.asarray(lengths)  # (T, B)
        if self.pooling == "max":
            seen = where(inside[:, :, None], y, -2.0)  # h is above -1
            pooled = seen.max(axis=0)
            with backend:
                weights = (seen.data == pooled.data[None]).sum(axis=2)
                weights = weights / weights.sum(axis=0)  # two steps may share a maximum
        elif self.pooling == "mean":
            pooled = y.sum(axis=0) / backend.asarray(lengths.astype(y.dtype))[:, None]  # y is 0 past the lengths
            with backend:
                weights = inside / inside.sum(axis=0)
        else:
            scores = self.score(tanh(self.hidden(y)))[:, :, 0]
            shares = softmax(where(inside, scores, -1e30), axis=0)
            pooled, weights = (y * shares.reshape(*shares.shape, 1)).sum(axis=0), shares.data
        return self.linear(self.dropout(pooled)), weights


def gathered(vectors: Tensor, numbers: Array) -> Tensor:
    """Gather rows of ``vectors`` (U, size) by index: numbers (T, B) -> (T, B, size)."""
    return apply(functional.embedding, numbers, vectors)

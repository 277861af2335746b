"""The translator's network: a bidirectional LSTM encoder and an LSTM decoder with attention."""

import math
from typing import Any, NamedTuple

import numpy as np

from gpulstm import functional
from gpulstm.backend import Array, backend_of
from gpulstm.labs.translate.decoder import Memory, Weights, decode, step
from gpulstm.nn import LSTM, Dropout, Embedding, Linear, LSTMCell, Module, concatenate, cross_entropy, tanh
from gpulstm.nn.initial import Initial
from gpulstm.tape import Tensor, apply
from gpulstm.train.batch import IGNORED

SPREAD = 0.1  # standard deviation of the initial embeddings: tied to the output, N(0, 1) would give logits of +-16


class State(NamedTuple):
    """The state of the decoder; each row is a hypothesis."""

    joined: Array  # (B, H + D): the hidden state h and the last attentional vector
    c: Array  # (B, H)
    memory: Memory

    def rows(self, numbers: Array) -> "State":
        """Return the state of these rows; a number may occur several times."""
        keys, values, seen = self.memory
        memory = Memory(keys[numbers], values[numbers], None if seen is None else seen[numbers])
        return State(self.joined[numbers], self.c[numbers], memory)

    def moved(self, numbers: Array) -> "State":
        """Return the state of these rows with the same memory, for hypotheses that are reordered within a sentence."""
        return State(self.joined[numbers], self.c[numbers], self.memory)


class TranslationModel(Module):
    """Maps source ids (T, B) and target ids (S, B) to logits of the next target token.

    The encoder is a bidirectional LSTM with ``num_layers`` layers (Bahdanau, Cho & Bengio 2015). The decoder is an LSTM
    of one layer with general attention and input feeding (Luong, Pham & Manning 2015). The attentional vector has the
    size of the embeddings; with ``tied`` the target embedding is also the weight of the output layer (Press & Wolf
    2017).
    """

    def __init__(
        self,
        sources: int,
        targets: int,
        *,
        embedding_size: int,
        hidden_size: int,
        num_layers: int,
        dropout: float,
        tied: bool,
        **made: Any,
    ) -> None:
        H, D = hidden_size, embedding_size
        self.source_embedding, self.target_embedding = (Embedding(n, D, **made) for n in (sources, targets))
        for embedding in (self.source_embedding, self.target_embedding):
            embedding.weight.data[...] *= SPREAD
        layers_dropout = dropout if num_layers > 1 else 0.0
        self.encoder = LSTM(D, H, num_layers, bidirectional=True, dropout=layers_dropout, **made)
        self.first_h, self.first_c = (Linear(2 * H, H, **made) for _ in range(2))  # the decoder's initial state
        self.keys = Linear(2 * H, H, bias=False, **made)
        self.values = Linear(2 * H, D, **made)
        # Reads the token and the previous attentional vector; decoder.py computes the steps.
        self.cell: Any = LSTMCell(D + D, H, **made)
        self.attentional = Linear(H, D, bias=False, **made)
        self.output = None if tied else Linear(D, targets, bias=False, **made)
        self.bias = Initial(made.get("device"), made.get("dtype"), None).parameter(np.zeros(targets))
        self.dropout = Dropout(dropout, batch_axis=-2)

    def forward(self, source: Array, lengths: Array, target: Array) -> tuple[Tensor, Tensor]:
        """Map source (T, B), lengths (B,), target (S, B) to attentional vectors (S, B, D) and attention (S, B, T)."""
        keys, values, h, c, seen = self._read(source, lengths)
        zx = self._inputs(self.dropout(self.target_embedding(target)))
        D = values.shape[2]
        drop = None
        if self.training and self.dropout.p:
            with backend_of(source) as backend:
                ones = backend.xp.ones((*target.shape, D), zx.dtype)
            drop = self.dropout(ones).data
        fed = self.cell.weight_ih[:, D:]
        return apply(decode, zx, h, c, keys, values, self.cell.weight_hh, fed, self.attentional.weight, drop, seen)

    def logits(self, vectors: Any) -> Tensor:
        """Map attentional vectors (..., D) to logits (..., targets)."""
        weight = self.target_embedding.weight if self.output is None else self.output.weight
        return apply(functional.linear, vectors, weight, self.bias)

    def start(self, source: Array, lengths: Array) -> State:
        """Return the decoder's state before the first step, with a row for each sentence."""
        *read, seen = self._read(source, lengths)
        keys, values, h, c = (x.data for x in read)
        with backend_of(source) as backend:
            xp = backend.xp
            nothing = xp.zeros((h.shape[0], values.shape[2]), h.dtype)
            return State(xp.concatenate([h, nothing], axis=1), c, Memory.of(xp, keys, values, seen))

    def step(self, tokens: Array, state: State) -> tuple[Array, State]:
        """Read one token per row, (B,); return the logits of the next tokens (B, targets) and the new state."""
        zx = self._inputs(self.target_embedding(tokens)).data
        with backend_of(tokens) as backend:
            xp, D = backend.xp, self.attentional.weight.shape[0]
            fed = self.cell.weight_ih.data[:, D:]
            weights = Weights.of(xp, self.cell.weight_hh.data, fed, self.attentional.weight.data)
            h, c, a, _, _ = step(backend, weights, state.memory, zx, state.joined, state.c, None)
            state = State(xp.concatenate([h, a], axis=1), c, state.memory)
        return self.logits(a).data, state

    def _inputs(self, x: Tensor) -> Tensor:
        """Return the tokens' part of the decoder's pre-activations: x (..., D) -> (..., 4H)."""
        cell = self.cell
        return apply(functional.linear, x, cell.weight_ih[:, : x.shape[-1]], cell.bias_ih + cell.bias_hh)

    def _read(self, source: Array, lengths: Array) -> tuple[Tensor, Tensor, Tensor, Tensor, Array | None]:
        """Return keys (T, B, H), values (T, B, D), the initial h and c (B, H), and the mask of the source (B, T)."""
        x = self.dropout(self.source_embedding(source))
        output, (h, c) = self.encoder(x, lengths=lengths)
        output = self.dropout(output)
        last_h, last_c = (concatenate([state[-2], state[-1]], axis=1) for state in (h, c))  # both directions
        T, host = source.shape[0], np.asarray(lengths)
        with backend_of(source) as backend:
            seen = None if (host == T).all() else backend.asarray(np.arange(T) < host[:, None])
        return self.keys(output), self.values(output), tanh(self.first_h(last_h)), self.first_c(last_c), seen


def translation_loss(model: TranslationModel, batch: Any, label_smoothing: float) -> Tensor:
    """Return the mean cross-entropy per target token; batch is ((source (T, B), lengths), targets (S + 1, B)).

    Each target is predicted from the targets before it; -100 marks padding.
    """
    (source, lengths), targets = batch
    backend = backend_of(model.bias.data)
    inputs, wanted = targets[:-1], targets[1:].reshape(-1)
    vectors, _ = model(backend.asarray(source), lengths, backend.asarray(np.where(inputs == IGNORED, 0, inputs)))
    kept = np.flatnonzero(wanted != IGNORED)
    rows = vectors.reshape(wanted.size, vectors.shape[2])
    if kept.size < wanted.size:  # skip padding: the product with the output weights is by far the largest
        rows = apply(functional.embedding, backend.asarray(kept), rows)
    logits = model.logits(rows)
    return cross_entropy(logits, backend.asarray(wanted[kept]), label_smoothing=label_smoothing)


def log_softmax(xp: Any, logits: Array) -> Array:
    """Return log-probabilities along the last axis, without recording gradients."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - xp.log(xp.exp(shifted).sum(axis=-1, keepdims=True))


def numbers_in(sources: int, targets: int, embedding_size: int, hidden_size: int, num_layers: int, tied: bool) -> int:
    """Return the least number of parameters in a model of these sizes, to check a file's sizes against its arrays."""
    tables = embedding_size * (sources + targets * (1 if tied else 2))
    return tables + 8 * hidden_size * hidden_size * num_layers + math.prod((4, hidden_size, 2 * embedding_size))

"""The language model of the text lab: embedding, LSTM, dropout, linear."""

from typing import Any

import numpy as np

from gpulstm.backend import Array, Device, backend_of
from gpulstm.errors import FormatError
from gpulstm.labs.text_vocabulary import Vocabulary
from gpulstm.nn import LSTM, Dropout, Embedding, Linear, Module
from gpulstm.nn.contexts import evaluation
from gpulstm.tape import Tensor, no_grad

State = tuple[Any, Any]  # (h, c), each (layers, B, hidden)


class TextModel(Module):
    """Predicts the next token: embedding, LSTM layers, dropout, linear layer.

    It maps token ids (T, B) to a logit for every token of the vocabulary, (T, B, V).
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        embedding: int = 64,
        hidden: int = 256,
        layers: int = 1,
        dropout: float = 0.2,
        device: str | Device = "auto",
        dtype: Any = "float32",
        generator: np.random.Generator | None = None,
    ) -> None:
        """``dropout`` acts between the LSTM layers and after the last. Raises ShapeError for sizes below 1."""
        made: dict[str, Any] = {"device": device, "dtype": dtype, "generator": generator}
        self.vocabulary = vocabulary
        self.config = {"embedding": embedding, "hidden": hidden, "layers": layers, "dropout": dropout}
        self.embedding = Embedding(len(vocabulary), embedding, **made)
        self.lstm = LSTM(embedding, hidden, layers, dropout=dropout if layers > 1 else 0.0, **made)
        self.dropout = Dropout(dropout, batch_axis=-2)
        self.linear = Linear(hidden, len(vocabulary), **made)

    def forward(self, tokens: Array, state: State | None = None) -> tuple[Tensor, State]:
        """Map integer tokens (T, B) to (logits (T, B, V), state); a state of None means zeros."""
        output, state = self.lstm(self.embedding(tokens), state)
        return self.linear(self.dropout(output)), state

    def unseen(self, text: str) -> str:
        """Return the characters or words of the text that are not in the vocabulary, quoted; empty if none."""
        return self.vocabulary.unseen(self.vocabulary.split(text))

    def prompt(self, text: str) -> np.ndarray:
        """Return the token ids (N,) of a prompt, at least one: an empty prompt stands for a line end.

        Unknown words become "<unk>". Raises FormatError for characters that are not in the vocabulary, and names them.
        """
        if self.vocabulary.level == "char" and (unseen := self.unseen(text)):
            raise FormatError(f"prompt: expected characters in the model's vocabulary, got {unseen}")
        if not text:
            return self.vocabulary.numbers("\n") if not self.vocabulary.unseen(["\n"]) else np.zeros(1, np.int64)
        return self.vocabulary.numbers(text)

    def step(self, numbers: np.ndarray, state: State | None) -> tuple[np.ndarray, State]:
        """Read token ids (N,) and return (logits (V,) of the next token as a NumPy array, state).

        The logit of "<unk>" is -inf.
        """
        backend = backend_of(self.linear.weight.data)
        with evaluation(self), no_grad(), np.errstate(all="ignore"):
            logits, state = self.forward(backend.asarray(numbers[:, None]), state)
        last = backend.to_numpy(logits.data[-1, 0]).astype(np.float64)
        if self.vocabulary.level == "word":
            last[0] = -np.inf
        return last, state

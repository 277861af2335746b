"""The transcriber's network: bidirectional LSTM layers read stacked frames and predict the class of every step."""

from typing import Any

from gpulstm.backend import Array
from gpulstm.nn import LSTM, Dropout, Linear, Module, log_softmax
from gpulstm.tape import Tensor


class SpeechModel(Module):
    """Maps steps (T, B, features) and lengths (B,) to log-probabilities (T, B, classes); class 0 is the blank."""

    def __init__(
        self, features: int, classes: int, *, hidden_size: int, num_layers: int, dropout: float, **made: Any
    ) -> None:
        between = dropout if num_layers > 1 else 0.0
        self.lstm = LSTM(features, hidden_size, num_layers, dropout=between, bidirectional=True, **made)
        self.dropout = Dropout(dropout, batch_axis=-2)
        self.linear = Linear(2 * hidden_size, classes, **made)

    def forward(self, x: Array, lengths: Any) -> Tensor:
        output, _ = self.lstm(x, lengths=lengths)
        return log_softmax(self.linear(self.dropout(output)))

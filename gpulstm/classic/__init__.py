"""The interfaces of the two small programs gpulstm began with, on this library's cells and layers.

``LstmParam``, ``LstmState``, ``LstmNode`` and ``LstmNetwork`` are a minimal LSTM, one object a time step, whose
output is h = s * o, without a tanh. ``LSTM_RNN`` learns sequences of integers. Both run on NumPy and on CuPy.
``python -m gpulstm.classic`` runs the demonstration with four targets.
"""

from gpulstm.classic.demonstration import example
from gpulstm.classic.network import FirstUnitLoss, LossLayer, LstmNetwork, LstmNode, LstmParam, LstmState
from gpulstm.classic.rnn import LSTM_RNN

__all__ = [
    "LSTM_RNN", "FirstUnitLoss", "LossLayer", "LstmNetwork", "LstmNode", "LstmParam", "LstmState", "example",
]  # fmt: skip

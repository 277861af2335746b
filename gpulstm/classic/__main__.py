"""``python -m gpulstm.classic``: runs the demonstration of the minimal LSTM."""

from gpulstm.classic import example_0

example_0()

"""``python -m gpulstm.classic``: the demonstration."""

from gpulstm.classic import example_0

example_0()

"""``python -m gpulstm.classic``: the demonstration."""

from gpulstm.classic import example

example()

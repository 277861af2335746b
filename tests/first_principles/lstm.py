"""One step of the LSTM for one sequence, gate by gate."""

import numpy as np


def step(x, states, w):
    h, c = states
    H = len(c)

    def z(gate):
        rows = slice(gate * H, (gate + 1) * H)
        total = w["w_ih"][rows] @ x + w["w_hh"][rows] @ h
        for bias in ("b_ih", "b_hh"):
            if w[bias] is not None:
                total = total + w[bias][rows]
        return total

    forgotten = c / (1 + np.exp(-z(1)))
    c = forgotten + np.tanh(z(2)) / (1 + np.exp(-z(0)))
    return [np.tanh(c) / (1 + np.exp(-z(3))), c]

"""One step of the LSTM with coupled gates for one sequence, gate by gate."""

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

    forget, let_in = 1 / (1 + np.exp(-z(0))), 1 / (1 + np.exp(z(0)))
    c = forget * c + let_in * np.tanh(z(1))
    return [np.tanh(c) / (1 + np.exp(-z(2))), c]

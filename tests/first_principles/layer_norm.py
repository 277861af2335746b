"""One step of the layer-normalised LSTM for one sequence, gate by gate."""

import numpy as np


def standardised(v):
    mean = sum(v) / len(v)
    variance = sum((number - mean) ** 2 for number in v) / len(v)
    return np.array([(number - mean) / np.sqrt(variance + 1e-5) for number in v])


def step(x, states, w):
    h, c = states
    H = len(c)
    from_x, from_h = standardised(w["w_ih"] @ x), standardised(w["w_hh"] @ h)

    def z(gate):
        rows = slice(gate * H, (gate + 1) * H)
        return w["norm_ih"][rows] * from_x[rows] + w["norm_hh"][rows] * from_h[rows] + w["bias"][rows]

    c = c / (1 + np.exp(-z(1))) + np.tanh(z(2)) / (1 + np.exp(-z(0)))
    return [np.tanh(w["norm_c"] * standardised(c) + w["bias_c"]) / (1 + np.exp(-z(3))), c]

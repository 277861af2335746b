"""One step of the LSTM with peepholes for one sequence, gate by gate; a diagonal as the matrix it stands for."""

import numpy as np


def step(x, states, w):
    h, c = states
    H = len(c)
    look_i, look_f, look_o = w["weight_ch"].reshape(3, H, -1)
    if w["weight_ch"].ndim == 1:
        look_i, look_f, look_o = np.diag(look_i[:, 0]), np.diag(look_f[:, 0]), np.diag(look_o[:, 0])

    def z(gate, look, seen):
        rows = slice(gate * H, (gate + 1) * H)
        total = w["w_ih"][rows] @ x + w["w_hh"][rows] @ h + look @ seen
        for bias in ("b_ih", "b_hh"):
            if w[bias] is not None:
                total = total + w[bias][rows]
        return total

    forgotten = c / (1 + np.exp(-z(1, look_f, c)))
    new = forgotten + np.tanh(z(2, np.zeros((H, H)), c)) / (1 + np.exp(-z(0, look_i, c)))
    return [np.tanh(new) / (1 + np.exp(-z(3, look_o, new))), new]

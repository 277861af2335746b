"""One step of the sLSTM for one sequence, unit by unit: what was seen and its weight without the stabiliser
(Beck et al. 2024, eq. 8-10), which comes last."""

import math

import numpy as np


def step(x, states, w):
    h_prev, c_prev, n_prev, m_prev = states
    H = len(c_prev)
    z = w["w_ih"] @ x + w["w_hh"] @ h_prev
    for bias in ("b_ih", "b_hh"):
        if w[bias] is not None:
            z = z + w[bias]
    h, c, n, m = (np.zeros(H) for _ in range(4))
    for j in range(H):
        new, old = math.exp(z[j]), math.exp(m_prev[j]) / (1 + math.exp(-z[H + j]))
        if n_prev[j] == 0:  # nothing was weighed before
            m[j], old = z[j], min(old, math.exp(8) * new)
        else:
            m[j] = max(z[j], math.log(old))
        weighed = old * c_prev[j] + new * math.tanh(z[2 * H + j])
        weight = old * n_prev[j] + new
        h[j] = weighed / weight / (1 + math.exp(-z[3 * H + j]))
        c[j], n[j] = weighed * math.exp(-m[j]), weight * math.exp(-m[j])
    return [h, c, n, m]

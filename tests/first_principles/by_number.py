"""The LSTM written out number by number, as slow and as plain as can be: what every other form is held against."""

import math

import numpy as np


def _sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def lstm(x, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr, lengths=None, reverse=False):
    """(y, h_n, c_n) as functional.recurrent defines them, for float64 NumPy arrays."""
    T, B, D = x.shape
    H, P = w_hh.shape[0] // 4, w_hh.shape[1]
    y, h_n, c_n = np.zeros((T, B, P)), np.zeros((B, P)), np.zeros((B, H))
    for b in range(B):
        h = [0.0] * P if h0 is None else list(h0[b])
        c = [0.0] * H if c0 is None else list(c0[b])
        steps = range(T if lengths is None else lengths[b])
        for t in reversed(steps) if reverse else steps:
            z = []
            for row in range(4 * H):
                total = sum(w_ih[row, d] * x[t, b, d] for d in range(D)) + sum(w_hh[row, p] * h[p] for p in range(P))
                z.append(total + (0.0 if b_ih is None else b_ih[row]) + (0.0 if b_hh is None else b_hh[row]))
            out = []
            for unit in range(H):
                input_gate, forget_gate = _sigmoid(z[unit]), _sigmoid(z[H + unit])
                candidate, output_gate = math.tanh(z[2 * H + unit]), _sigmoid(z[3 * H + unit])
                c[unit] = forget_gate * c[unit] + input_gate * candidate
                out.append(output_gate * math.tanh(c[unit]))
            h = out if w_hr is None else [sum(w_hr[p, unit] * out[unit] for unit in range(H)) for p in range(P)]
            y[t, b] = h
        h_n[b], c_n[b] = h, c
    return y, h_n, c_n

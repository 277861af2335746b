"""One step of the simple recurrent network for one sequence, unit by unit; every activation by its definition."""

import math

import numpy as np


def value(name, alpha, beta, z):
    """An ONNX activation of one number, with alpha and beta given."""
    if name in ("tanh", "scaled_tanh"):
        a, b = (1.0, 1.0) if name == "tanh" else (alpha, beta)
        grown, fallen = math.exp(b * z), math.exp(-b * z)
        return a * (grown - fallen) / (grown + fallen)
    if name == "sigmoid":
        return 1 / (1 + math.exp(-z))
    if name == "softplus":
        return math.log(1 + math.exp(z))
    if name == "softsign":
        return z / (1 + abs(z))
    if name == "affine":
        return alpha * z + beta
    if name == "hard_sigmoid":
        return max(0.0, min(1.0, alpha * z + beta))
    if name == "thresholded_relu":
        return z if z >= alpha else 0.0
    below = {"relu": 0.0, "leaky_relu": (alpha or 0.0) * z, "elu": (alpha or 0.0) * (math.exp(min(z, 0.0)) - 1)}
    return z if z >= 0 else below[name]


def activated(form, clip, z):
    """form (name, alpha, beta) of an array, one number at a time, limited to [-clip, clip] before."""
    name, alpha, beta = form
    limit = math.inf if clip is None else clip
    return np.array([value(name, alpha, beta, max(-limit, min(limit, number))) for number in z])


def step(x, states, w, activation=("tanh", None, None), clip=None):
    (h_prev,) = states
    H = w["w_ih"].shape[0]
    z = [sum(w["w_ih"][j] * x) + sum(w["w_hh"][j] * h_prev) for j in range(H)]
    for bias in ("b_ih", "b_hh"):
        if w[bias] is not None:
            z = [number + w[bias][j] for j, number in enumerate(z)]
    return [activated(activation, clip, z)]

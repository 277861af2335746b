"""One step of ONNX' LSTM for one sequence, gate by gate, number by number."""

import math

import numpy as np

FUNCTIONS = {
    "sigmoid": lambda z: 1 / (1 + math.exp(-z)),
    "tanh": math.tanh,
    "relu": lambda z: max(z, 0.0),
    "softsign": lambda z: z / (1 + abs(z)),
    "softplus": lambda z: math.log(1 + math.exp(z)),
    "affine": lambda z, alpha, beta: alpha * z + beta,
    "leaky_relu": lambda z, alpha=0.01: z if z >= 0 else alpha * z,
    "thresholded_relu": lambda z, alpha=1.0: z if z >= alpha else 0.0,
    "scaled_tanh": lambda z, alpha, beta: alpha * math.tanh(beta * z),
    "hard_sigmoid": lambda z, alpha=0.2, beta=0.5: min(max(alpha * z + beta, 0.0), 1.0),
    "elu": lambda z, alpha=1.0: z if z >= 0 else alpha * (math.exp(z) - 1),
}


def called(spec, values):
    """The function that a name, or (name, alpha, beta), stands for, of each of the values."""
    name, *parameters = (spec,) if isinstance(spec, str) else spec
    given = [parameter for parameter in parameters if parameter is not None]
    return np.array([FUNCTIONS[name](value, *given) for value in values])


def step(x, states, w, activations=("sigmoid", "tanh", "tanh"), clip=math.inf, coupled=False):
    h, c = states
    H = len(c)
    act_f, act_g, act_h = activations
    look_i, look_f, look_o = w["weight_ch"].reshape(3, H) if "weight_ch" in w else np.zeros((3, H))

    def z(gate):
        rows = slice(gate * H, (gate + 1) * H)
        total = w["w_ih"][rows] @ x + w["w_hh"][rows] @ h
        for bias in ("b_ih", "b_hh"):
            if w[bias] is not None:
                total = total + w[bias][rows]
        return total

    def limited(values):
        return [max(-clip, min(clip, value)) for value in values]

    let_in = called(act_f, limited(z(0) + look_i * c))
    kept = 1 - let_in if coupled else called(act_f, limited(z(1) + look_f * c))
    c = kept * c + let_in * called(act_g, limited(z(2)))
    out = called(act_f, limited(z(3) + look_o * c))
    return [out * called(act_h, c), c]

"""One step of the gated recurrent unit for one sequence, gate by gate."""

import numpy as np

from tests.first_principles.rnn import activated


def step(x, states, w, reset_before=False, update="torch", activations=(("sigmoid", None, None), ("tanh", None, None)),
         clip=None):  # fmt: skip
    (h_prev,) = states
    H = len(h_prev)

    def part(gate, weight, bias, vector):
        rows = slice(gate * H, (gate + 1) * H)
        total = w[weight][rows] @ vector
        return total if w[bias] is None else total + w[bias][rows]

    def gate(number):
        z = part(number, "w_ih", "b_ih", x) + part(number, "w_hh", "b_hh", h_prev)
        return activated(activations[0], clip, z)

    forget, renew = gate(0), gate(1)
    seen = part(2, "w_hh", "b_hh", forget * h_prev) if reset_before else forget * part(2, "w_hh", "b_hh", h_prev)
    candidate = activated(activations[1], clip, part(2, "w_ih", "b_ih", x) + seen)
    weight_of_old = renew if update == "torch" else 1 - renew
    return [np.array([s * a + (1 - s) * b for s, a, b in zip(weight_of_old, h_prev, candidate, strict=True)])]

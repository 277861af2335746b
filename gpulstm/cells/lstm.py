"""The LSTM of PyTorch, cuDNN and Keras: input, forget and output gate, no peepholes.

Hochreiter & Schmidhuber 1997, with the forget gate of Gers, Schmidhuber & Cummins 2000. This file has the step as
equations, to read and to test against. The fast C++ version is kernels/cells/lstm.cuh.
"""

from gpulstm.cells.cell import Cell, Kernels

GATES, STATES = ("i", "f", "g", "o"), ("h", "c")


def sigmoid(xp, z):
    return 0.5 * xp.tanh(0.5 * z) + 0.5  # the same function as 1 / (1 + exp(-z)), and never overflows


def forward(xp, zx, zr, states, extra):
    """One step: zx, zr (B, 4H), states = (h_prev, c_prev) (B, H) -> ((h, c), saved)."""
    _, c_prev = states
    z_i, z_f, z_g, z_o = xp.split(zx + zr, 4, axis=1)  # (B, H) each
    i, f, g, o = sigmoid(xp, z_i), sigmoid(xp, z_f), xp.tanh(z_g), sigmoid(xp, z_o)
    c = f * c_prev + i * g
    tanh_c = xp.tanh(c)
    h = o * tanh_c
    return (h, c), (i, f, g, o, tanh_c, c_prev)


def backward(xp, dstates, saved, extra):
    """dstates = (dh, dc) (B, H) -> (dzx, dzr, (None, dc_prev), dextra); dzx is dzr, as forward uses only zx + zr."""
    dh, dc = dstates
    i, f, g, o, tanh_c, c_prev = saved
    do, dc = dh * tanh_c, dc + dh * o * (1 - tanh_c**2)
    di, df, dg, dc_prev = dc * g, dc * c_prev, dc * i, dc * f
    dz = xp.concatenate([di * i * (1 - i), df * f * (1 - f), dg * (1 - g**2), do * o * (1 - o)], axis=1)
    return dz, dz, (None, dc_prev), ()


CELL = Cell(
    "lstm",
    GATES,
    STATES,
    forward,
    backward,
    kernel=Kernels("lstm", "Lstm"),
)

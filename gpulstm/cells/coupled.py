"""The LSTM with coupled input and forget gates (CIFG): i = 1 - f.

Greff, Srivastava, Koutnik, Steunebrink & Schmidhuber 2017, "LSTM: A Search Space Odyssey", the variant
CIFG, here without peepholes:

    f, o = sigmoid(z_f), sigmoid(z_o);  g = tanh(z_g)
    c = f * c_prev + (1 - f) * g
    h = o * tanh(c)

It has a quarter fewer parameters than an LSTM, and c stays between -1 and 1 if it starts there. The C++ version of the
step is kernels/cells/coupled.cuh.
"""

from gpulstm.cells.cell import Cell, Kernels
from gpulstm.cells.lstm import sigmoid

GATES, STATES = ("f", "g", "o"), ("h", "c")


def forward(xp, zx, zr, states, extra):
    """One step: zx, zr (B, 3H), states = (h_prev, c_prev) (B, H) -> ((h, c), saved)."""
    _, c_prev = states
    z_f, z_g, z_o = xp.split(zx + zr, 3, axis=1)  # (B, H) each
    f, g, o = sigmoid(xp, z_f), xp.tanh(z_g), sigmoid(xp, z_o)
    c = f * c_prev + (1 - f) * g
    tanh_c = xp.tanh(c)
    return (o * tanh_c, c), (f, g, o, tanh_c, c_prev)


def backward(xp, dstates, saved, extra):
    """dstates = (dh, dc) (B, H) -> (dzx, dzr, (None, dc_prev), dextra); dzx is dzr, as forward uses only zx + zr."""
    dh, dc = dstates
    f, g, o, tanh_c, c_prev = saved
    do, dc = dh * tanh_c, dc + dh * o * (1 - tanh_c**2)
    df, dg, dc_prev = dc * (c_prev - g), dc * (1 - f), dc * f
    dz = xp.concatenate([df * f * (1 - f), dg * (1 - g**2), do * o * (1 - o)], axis=1)
    return dz, dz, (None, dc_prev), ()


CELL = Cell(
    "coupled",
    GATES,
    STATES,
    forward,
    backward,
    kernel=Kernels("coupled", "Coupled"),
)

"""The LSTM of PyTorch, cuDNN and Keras: input, forget and output gate, no peepholes.

Hochreiter & Schmidhuber 1997, with the forget gate of Gers, Schmidhuber & Cummins 2000. The step stands here
twice: as equations to read and to test against, and written into given buffers for speed on NumPy. Its third
form is kernels/lstm.cu.
"""

import numpy as np

from gpulstm.cells.cell import Cell, Kernels
from gpulstm.cells.inplace import (
    Inplace,
    activate,
    cell_state_backward,
    new_cell_state,
    output_slope,
    slopes,
    split,
)

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
    """dstates = (dh, dc) (B, H) -> (dzx, dzr, (None, dc_prev), dextra); dzx is dzr, since only their sum enters."""
    dh, dc = dstates
    i, f, g, o, tanh_c, c_prev = saved
    do, dc = dh * tanh_c, dc + dh * o * (1 - tanh_c**2)
    di, df, dg, dc_prev = dc * g, dc * c_prev, dc * i, dc * f
    dz = xp.concatenate([di * i * (1 - i), df * f * (1 - f), dg * (1 - g**2), do * o * (1 - o)], axis=1)
    return dz, dz, (None, dc_prev), ()


KINDS = "ssts"  # of the activations, for cells.inplace


def inplace_forward(s, zr):
    """``forward`` without a new array; see Inplace for what is read and written."""
    (_, c_prev), (h, c) = s.before, s.after
    s.gates += zr
    activate(s.gates, KINDS)
    i, f, g, o = split(s.gates, 4)
    new_cell_state(i, f, g, c_prev, c, s.scratch)
    np.tanh(c, out=s.scratch)
    np.multiply(o, s.scratch, out=h)


def inplace_coefficients(s):
    """What ``backward`` multiplies dc and dh with, for any number of steps at once.

    dzx (..., 4H) is written with d(z_i, z_f, z_g)/dc and dz_o/dh, the first of factors with dc/dh.
    """
    (_, c_prev), (_, c) = s.before, s.after
    np.tanh(c, out=s.factors[0])
    coefficients(s, c_prev, s.factors[0])


def coefficients(s, c_prev, tanh_c):
    """d(z_i, z_f, z_g)/dc and dz_o/dh into dzx; tanh_c becomes dc/dh."""
    i, _, g, o = split(s.gates, 4)
    slopes(s, KINDS)
    for block, factor in zip(split(s.wide, 4), (g, c_prev, i, tanh_c), strict=True):
        block[...] = factor
    s.dzx *= s.wide
    output_slope(o, tanh_c)


def inplace_backward(s, dh, direct, ds):
    """``backward`` from the coefficients; see Inplace for what is read and written."""
    (dc,) = ds
    H = dc.shape[1]
    cell_state_backward(s, dh, dc, s.factors[0], s.gates[:, H : 2 * H])


CELL = Cell(
    "lstm",
    GATES,
    STATES,
    forward,
    backward,
    inplace=Inplace(inplace_forward, inplace_coefficients, inplace_backward),
    kernel=Kernels("lstm"),
)

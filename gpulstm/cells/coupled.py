"""The LSTM with coupled gates (CIFG): what is forgotten is let in, i = 1 - f.

Greff, Srivastava, Koutnik, Steunebrink & Schmidhuber 2017, "LSTM: A Search Space Odyssey", the variant
CIFG, here without peepholes:

    f, o = sigmoid(z_f), sigmoid(z_o);  g = tanh(z_g)
    c = f * c_prev + (1 - f) * g
    h = o * tanh(c)

A quarter fewer parameters than an LSTM, and c stays between -1 and 1 if it begins there. The third form of the
step is kernels/coupled.cu.
"""

import numpy as np

from gpulstm.cells.cell import Cell, Kernels
from gpulstm.cells.inplace import Inplace, activate, cell_state_backward, output_slope, slopes, split
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
    """dstates = (dh, dc) (B, H) -> (dzx, dzr, (None, dc_prev), dextra); dzx is dzr, since only their sum enters."""
    dh, dc = dstates
    f, g, o, tanh_c, c_prev = saved
    do, dc = dh * tanh_c, dc + dh * o * (1 - tanh_c**2)
    df, dg, dc_prev = dc * (c_prev - g), dc * (1 - f), dc * f
    dz = xp.concatenate([df * f * (1 - f), dg * (1 - g**2), do * o * (1 - o)], axis=1)
    return dz, dz, (None, dc_prev), ()


KINDS = "sts"  # of the activations, for cells.inplace


def inplace_forward(s, zr):
    """``forward`` without a new array; see Inplace for what is read and written."""
    (_, c_prev), (h, c) = s.before, s.after
    s.gates += zr
    activate(s.gates, KINDS)
    f, g, o = split(s.gates, 3)
    np.subtract(c_prev, g, out=c)
    c *= f
    c += g
    np.tanh(c, out=s.scratch)
    np.multiply(o, s.scratch, out=h)


def inplace_coefficients(s):
    """What ``backward`` multiplies dc and dh with, for any number of steps at once: d(z_f, z_g)/dc, dz_o/dh, dc/dh."""
    (_, c_prev), (_, c) = s.before, s.after
    f, g, o = split(s.gates, 3)
    (dh_to_dc,) = s.factors
    slopes(s, KINDS)
    of_f, of_g, of_o = split(s.wide, 3)
    np.subtract(c_prev, g, out=of_f)
    np.subtract(1, f, out=of_g)
    of_o[...] = np.tanh(c, out=dh_to_dc)
    s.dzx *= s.wide
    output_slope(o, dh_to_dc)


def inplace_backward(s, dh, direct, ds):
    """``backward`` from the coefficients; see Inplace for what is read and written."""
    (dc,) = ds
    cell_state_backward(s, dh, dc, s.factors[0], s.gates[:, : dc.shape[1]])


CELL = Cell(
    "coupled",
    GATES,
    STATES,
    forward,
    backward,
    inplace=Inplace(inplace_forward, inplace_coefficients, inplace_backward),
    kernel=Kernels("coupled"),
)

"""The LSTM whose gates see the cell state: i and f the old one, o the new one.

Gers & Schmidhuber 2000, "Recurrent nets that time and count", and ONNX' P, with a weight for each unit ("diagonal"):

    i, f = sigmoid(z_i + p_i * c_prev), sigmoid(z_f + p_f * c_prev);  g = tanh(z_g)
    c = f * c_prev + i * g
    o = sigmoid(z_o + p_o * c)
    h = o * tanh(c)

"full" has matrices in place of p_i, p_f and p_o: each gate's acts on [h_prev, x, C], where C is c_prev for i and f
and c for o. The o gate's product stands in the middle of the step, the rest of it is the plain LSTM's.

c is the new state before any of the old one is kept (zoneout). The third form of the steps is kernels/peephole.cu.
"""

import numpy as np

from gpulstm.cells import inplace, lstm
from gpulstm.cells.cell import Cell, Extra, Inner, Kernels, Product
from gpulstm.cells.inplace import Inplace, activate, cell_state_backward, new_cell_state, of_gates, split
from gpulstm.cells.lstm import sigmoid
from gpulstm.errors import ShapeError

GATES, STATES = ("i", "f", "g", "o"), ("h", "c")


def forward(xp, zx, zr, states, extra):
    """One step: zx, zr (B, 4H), states = (h_prev, c_prev) (B, H), extra = (weight_ch (3H,),) -> ((h, c), saved)."""
    _, c_prev = states
    p_i, p_f, p_o = xp.split(extra[0], 3)
    z_i, z_f, z_g, z_o = xp.split(zx + zr, 4, axis=1)  # (B, H) each
    i, f, g = sigmoid(xp, z_i + p_i * c_prev), sigmoid(xp, z_f + p_f * c_prev), xp.tanh(z_g)
    c = f * c_prev + i * g
    o = sigmoid(xp, z_o + p_o * c)
    tanh_c = xp.tanh(c)
    return (o * tanh_c, c), (i, f, g, o, tanh_c, c, c_prev)


def backward(xp, dstates, saved, extra):
    """dstates = (dh, dc) (B, H) -> (dzx, dzr, (None, dc_prev), (dweight_ch (B, 3H),)); dzx is dzr."""
    dh, dc = dstates
    i, f, g, o, tanh_c, c, c_prev = saved
    p_i, p_f, p_o = xp.split(extra[0], 3)
    dz_o = dh * tanh_c * o * (1 - o)
    dc = dc + dh * o * (1 - tanh_c**2) + dz_o * p_o
    dz_i, dz_f, dz_g = dc * g * i * (1 - i), dc * c_prev * f * (1 - f), dc * i * (1 - g**2)
    dc_prev = dc * f + dz_i * p_i + dz_f * p_f
    dz = xp.concatenate([dz_i, dz_f, dz_g, dz_o], axis=1)
    return dz, dz, (None, dc_prev), (xp.concatenate([dz_i * c_prev, dz_f * c_prev, dz_o * c], axis=1),)


def inner_forward(xp, zx, zr, states, extra):
    """c (B, H) of the full form, which the o gate's matrix is multiplied with."""
    _, c_prev = states
    z_i, z_f, z_g, _ = xp.split(zx + zr, 4, axis=1)
    return sigmoid(xp, z_f) * c_prev + sigmoid(xp, z_i) * xp.tanh(z_g)


def inner_backward(xp, dc, dzx, dzr, dstates, saved, extra):
    """Adds what reaches c through the o gate: dc (B, H) -> (dzx, dzr, dstates_prev); all but dz_o is linear in it."""
    i, f, g, *_, c_prev = saved
    _, dc_prev = dstates
    added = [dc * g * i * (1 - i), dc * c_prev * f * (1 - f), dc * i * (1 - g**2), xp.zeros_like(dc)]
    dz = dzx + xp.concatenate(added, axis=1)
    return dz, dz, (None, dc_prev + dc * f)


def inplace_forward(s, zr):
    """``forward`` without a new array; see Inplace for what is read and written."""
    (_, c_prev), (h, c) = s.before, s.after
    B, H = c.shape
    p_if, p_o = s.vectors[0][:, : 2 * H].reshape(B, 2, H), s.vectors[0][:, 2 * H :]
    s.gates += zr
    seen = zr.reshape(B, 4, H)[:, :2]  # zr has been used
    np.multiply(c_prev[:, None], p_if, out=seen)
    s.gates.reshape(B, 4, H)[:, :2] += seen
    _new_c(s, c_prev, h, c)
    np.multiply(c, p_o, out=h)
    _output(s, h, c, h)


def inplace_coefficients(s):
    """As the LSTM's; c is also seen by o, c_prev by i and f: factors are dc/dh and dc_prev/dc."""
    lstm.inplace_coefficients(s)
    p_i, p_f, p_o = split(s.vectors[0], 3)
    _, f, _, _ = split(s.gates, 4)
    di, df, _, do = split(s.dzx, 4)
    dh_to_dc, carried = s.factors
    np.multiply(do, p_o, out=carried)
    dh_to_dc += carried
    np.multiply(di, p_i, out=carried)
    carried += f
    work, *_ = split(s.wide, 4)
    np.multiply(df, p_f, out=work)
    carried += work


def inplace_backward(s, dh, direct, ds):
    """``backward`` from the coefficients; see Inplace for what is read and written."""
    (dc,) = ds
    cell_state_backward(s, dh, dc, *s.factors)


def inplace_finish(s, dvectors):
    """The gradient of the peepholes, from that of the gates they reach."""
    (_, c_prev), (_, c) = s.before, s.after
    di, df, _, do = split(s.dzx, 4)
    for dp, dz, seen in zip(split(dvectors[0], 3), (di, df, do), (c_prev, c_prev, c), strict=True):
        dp += np.einsum("tbh,tbh->h", dz, seen)


def inplace_inner(s, zr, v):
    """``inner_forward`` without a new array."""
    (_, c_prev), (h, c) = s.before, s.after
    H = c.shape[1]
    s.gates[:, : 3 * H] += zr[:, : 3 * H]
    _new_c(s, c_prev, h, c)
    v[...] = c


def inplace_full_forward(s, zr):
    """The rest of the step: o and h."""
    h, c = s.after
    _output(s, zr[:, 3 * c.shape[1] :], c, h)


def inplace_full_backward(s, dh, direct, ds):
    """dz_o, which the o gate's matrix waits for, and what reaches c besides."""
    (dc,) = ds
    *_, do = split(s.dzx, 4)
    do *= dh
    (dh_to_dc,) = s.factors
    dh_to_dc *= dh
    dc += dh_to_dc


def inplace_inner_backward(s, dv, direct, ds):
    """What all of dc, now whole, gives to the other gates and to c_prev."""
    (dc,) = ds
    H = dc.shape[1]
    dc += dv
    of_gates(s, dc, 1)
    dc *= s.gates[:, H : 2 * H]


def _new_c(s, c_prev, h, c):
    """c from the pre-activations of i, f and g; that of o moves to scratch, h is working space."""
    i, f, g, o = split(s.gates, 4)
    s.scratch[...] = o
    activate(s.gates, lstm.KINDS)
    new_cell_state(i, f, g, c_prev, c, h)


def _output(s, added, c, h):
    """o and h from the pre-activation of o, which stands in scratch but for ``added``."""
    *_, o = split(s.gates, 4)
    s.scratch += added
    inplace.sigmoid(s.scratch)
    o[...] = s.scratch
    np.tanh(c, out=h)
    h *= s.scratch


DIAGONAL = Cell(
    "peephole",
    GATES,
    STATES,
    forward,
    backward,
    extra=(Extra("weight_ch", 3),),
    inplace=Inplace(inplace_forward, inplace_coefficients, inplace_backward, finish=inplace_finish, factors=(1, 1)),
    kernel=Kernels("peephole"),
)
FULL = Cell(
    "peephole",
    GATES,
    STATES,
    lstm.forward,
    lstm.backward,
    extra=(Extra("weight_ch", 3, matrix=True),),
    products=(
        Product("h", "w_hh", slice(0, 4)),
        Product("c", "weight_ch", slice(0, 2), slice(0, 2)),
        Product("inner", "weight_ch", slice(3, 4), slice(2, 3)),
    ),
    inner=Inner(inner_forward, inner_backward),
    inplace=Inplace(
        inplace_full_forward,
        lstm.inplace_coefficients,
        inplace_full_backward,
        inner=inplace_inner,
        inner_backward=inplace_inner_backward,
    ),
    kernel=Kernels("peephole", "peephole_full"),
)
CELL = DIAGONAL


def cell(kind: str = "diagonal") -> Cell:
    """The cell with "diagonal" or "full" peepholes; raises ShapeError for another word."""
    kinds = {"diagonal": DIAGONAL, "full": FULL}
    if not isinstance(kind, str) or kind not in kinds:
        raise ShapeError(f"peepholes: want diagonal or full, got {kind!r}")
    return kinds[kind]

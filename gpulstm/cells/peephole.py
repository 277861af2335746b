"""The LSTM whose gates also read the cell state: i and f the old one, o the new one.

Gers & Schmidhuber 2000, "Recurrent nets that time and count", and ONNX's input P. "diagonal" has one weight per unit:

    i, f = sigmoid(z_i + p_i * c_prev), sigmoid(z_f + p_f * c_prev);  g = tanh(z_g)
    c = f * c_prev + i * g
    o = sigmoid(z_o + p_o * c)
    h = o * tanh(c)

"full" has matrices in place of p_i, p_f and p_o, so each gate is a function of all units of h_prev, x and C, where C
is c_prev for i and f, and c for o. The product of o is in the middle of the step; the rest is the plain LSTM.

c in the equations of o and h is the new state before zoneout. The C++ version of the steps is
kernels/cells/peephole.cuh.
"""

from gpulstm.cells import lstm
from gpulstm.cells.cell import Cell, Extra, Inner, Kernels, Product
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
    """c (B, H) of the full form, which is multiplied by the matrix of the o gate."""
    _, c_prev = states
    z_i, z_f, z_g, _ = xp.split(zx + zr, 4, axis=1)
    return sigmoid(xp, z_f) * c_prev + sigmoid(xp, z_i) * xp.tanh(z_g)


def inner_backward(xp, dc, dzx, dzr, dstates, saved, extra):
    """Add the gradients of c through the o gate: dc (B, H) -> (dzx, dzr, dstates_prev)."""
    i, f, g, *_, c_prev = saved
    _, dc_prev = dstates
    added = [dc * g * i * (1 - i), dc * c_prev * f * (1 - f), dc * i * (1 - g**2), xp.zeros_like(dc)]
    dz = dzx + xp.concatenate(added, axis=1)
    return dz, dz, (None, dc_prev + dc * f)


DIAGONAL = Cell(
    "peephole",
    GATES,
    STATES,
    forward,
    backward,
    extra=(Extra("weight_ch", 3),),
    kernel=Kernels("peephole", "Peephole"),
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
    kernel=Kernels("peephole", "PeepholeFull"),
)
CELL = DIAGONAL


def cell(kind: str = "diagonal") -> Cell:
    """The cell with "diagonal" or "full" peepholes; raises ShapeError for any other kind."""
    kinds = {"diagonal": DIAGONAL, "full": FULL}
    if not isinstance(kind, str) or kind not in kinds:
        raise ShapeError(f"peepholes: expected diagonal or full, got {kind!r}")
    return kinds[kind]

"""The LSTM with every attribute of ONNX's operator: any activations, clipping, peepholes, coupled gates.

ONNX, LSTM-22:

    i = act_f(z_i + p_i * c_prev);  f = act_f(z_f + p_f * c_prev), or 1 - i if coupled;  g = act_g(z_g)
    c = f * c_prev + i * g
    o = act_f(z_o + p_o * c)
    h = o * act_h(c)

``clip`` limits the arguments of act_f and act_g to [-clip, clip], but not that of act_h, as in onnxruntime. Coupled
gates do not use the rows of z_f. c in the equations of o and h is the new state before zoneout. The C++ version of the
step is kernels/cells/general.cuh.
"""

import functools
from dataclasses import dataclass
from typing import Any

from gpulstm.cells import activation
from gpulstm.cells.activation import Activation, check_clip
from gpulstm.cells.cell import Cell, Extra, Kernels
from gpulstm.errors import ShapeError

GATES, STATES = ("i", "f", "g", "o"), ("h", "c")


@dataclass(frozen=True)
class Form:
    """The options of the cell."""

    act_f: Activation
    act_g: Activation
    act_h: Activation
    clip: float | None
    peepholes: bool
    coupled: bool


def forward(xp, zx, zr, states, extra, *, form):
    """One step: zx, zr (B, 4H), states = (h_prev, c_prev) (B, H), extra = () or (weight_ch,) -> ((h, c), saved)."""
    _, c_prev = states
    act_f, act_g, act_h, clip = form.act_f, form.act_g, form.act_h, form.clip
    z_i, z_f, z_g, z_o = xp.split(zx + zr, 4, axis=1)  # (B, H) each
    if form.peepholes:
        p_i, p_f, p_o = xp.split(extra[0], 3)
        z_i, z_f = z_i + p_i * c_prev, z_f + p_f * c_prev
    i, g = act_f.forward(xp, z_i, clip), act_g.forward(xp, z_g, clip)
    f = 1 - i if form.coupled else act_f.forward(xp, z_f, clip)
    c = f * c_prev + i * g
    if form.peepholes:
        z_o = z_o + p_o * c
    o, h_c = act_f.forward(xp, z_o, clip), act_h.forward(xp, c)
    return (o * h_c, c), (i, f, g, o, z_i, z_f, z_g, z_o, h_c, c, c_prev)


def backward(xp, dstates, saved, extra, *, form):
    """dstates = (dh, dc) (B, H) -> (dzx, dzr, (None, dc_prev), dextra); dzx is dzr, as forward uses only zx + zr."""
    dh, dc = dstates
    i, f, g, o, z_i, z_f, z_g, z_o, h_c, c, c_prev = saved
    act_f, act_g, act_h, clip = form.act_f, form.act_g, form.act_h, form.clip
    dz_o = dh * h_c * act_f.slope(xp, z_o, clip)
    dc = dc + dh * o * act_h.slope(xp, c)
    if form.peepholes:
        p_i, p_f, p_o = xp.split(extra[0], 3)
        dc += dz_o * p_o
    di, df, dg, dc_prev = dc * g, dc * c_prev, dc * i, dc * f
    dz_g = dg * act_g.slope(xp, z_g, clip)
    if form.coupled:
        dz_i, dz_f = (di - df) * act_f.slope(xp, z_i, clip), xp.zeros_like(df)
    else:
        dz_i, dz_f = di * act_f.slope(xp, z_i, clip), df * act_f.slope(xp, z_f, clip)
    dz = xp.concatenate([dz_i, dz_f, dz_g, dz_o], axis=1)
    if not form.peepholes:
        return dz, dz, (None, dc_prev), ()
    dc_prev += dz_i * p_i + dz_f * p_f
    return dz, dz, (None, dc_prev), (xp.concatenate([dz_i * c_prev, dz_f * c_prev, dz_o * c], axis=1),)


def cell(
    activations: tuple[Any, Any, Any] = ("sigmoid", "tanh", "tanh"),
    clip: float | None = None,
    peepholes: bool = False,
    coupled: bool = False,
) -> Cell:
    """Make the cell with ``activations`` act_f, act_g and act_h, in a form that ``activation.of`` accepts.

    ``peepholes`` adds weight_ch (3H,), with rows i, f, o. Raises ShapeError unless clip is a finite number above 0.
    """
    if not isinstance(activations, tuple | list) or len(activations) != 3:
        raise ShapeError(f"activations: expected three, for the gates, the candidate and c, got {activations!r}")
    act_f, act_g, act_h = map(activation.of, activations)
    form = Form(act_f, act_g, act_h, check_clip(clip), peepholes, coupled)
    numbers = (*act_f.numbers(form.clip), *act_g.numbers(form.clip), *act_h.numbers(), float(coupled))
    return Cell(
        "general",
        GATES,
        STATES,
        functools.partial(forward, form=form),
        functools.partial(backward, form=form),
        extra=(Extra("weight_ch", 3),) if peepholes else (),
        kernel=Kernels("general", "GeneralPeephole" if peepholes else "General", numbers),
    )


CELL = cell()

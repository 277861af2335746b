"""The LSTM with layer normalisation of both products and of the cell state.

Ba, Kiros & Hinton 2016, "Layer Normalization", supplement eq. 20-22, in the form of Haste:

    z = norm_ih * LN(x W_ih') + norm_hh * LN(h_prev W_hh') + bias
    i, f, o = sigmoid(z_i), sigmoid(z_f), sigmoid(z_o);  g = tanh(z_g)
    c = f * c_prev + i * g
    h = o * tanh(norm_c * LN(c) + bias_c)

LN takes the mean and the standard deviation over the whole row, 4H or H numbers. A row without variance (h_prev
of zero, one unit) becomes zeros, since EPS stands beside the variance. The third form of the step is
kernels/layer_norm.cu.
"""

import functools

import numpy as np

from gpulstm.cells.cell import Cell, Extra, Kernels
from gpulstm.cells.inplace import Inplace, activate, new_cell_state, of_gates, split
from gpulstm.cells.lstm import KINDS, coefficients, sigmoid

GATES, STATES = ("i", "f", "g", "o"), ("h", "c")
EPS = 1e-5  # that of torch.nn.LayerNorm; also in kernels/layer_norm.cu


def normalise(xp, x):
    """x (B, N) -> (x with mean 0 and variance 1 in each row, the factor (B, 1) that made the variance so)."""
    deviation = x - x.mean(axis=1, keepdims=True)
    scale = 1 / xp.sqrt((deviation * deviation).mean(axis=1, keepdims=True) + EPS)
    return deviation * scale, scale


def normalise_backward(d_hat, x_hat, scale):
    """The gradient (B, N) of x from that of ``x_hat``, what ``normalise`` returned."""
    return scale * (d_hat - d_hat.mean(axis=1, keepdims=True) - x_hat * (d_hat * x_hat).mean(axis=1, keepdims=True))


def forward(xp, zx, zr, states, extra):
    """One step: zx, zr (B, 4H), states = (h_prev, c_prev) (B, H) -> ((h, c), saved)."""
    _, c_prev = states
    norm_ih, norm_hh, bias, norm_c, bias_c = extra
    # In the type of c: sums of a half type are made in float32.
    x_hat, x_scale = normalise(xp, zx.astype(c_prev.dtype, copy=False))
    r_hat, r_scale = normalise(xp, zr.astype(c_prev.dtype, copy=False))
    z_i, z_f, z_g, z_o = xp.split(norm_ih * x_hat + norm_hh * r_hat + bias, 4, axis=1)  # (B, H) each
    i, f, g, o = sigmoid(xp, z_i), sigmoid(xp, z_f), xp.tanh(z_g), sigmoid(xp, z_o)
    c = f * c_prev + i * g
    c_hat, c_scale = normalise(xp, c)
    tanh_c = xp.tanh(norm_c * c_hat + bias_c)
    saved = i, f, g, o, x_hat, x_scale, r_hat, r_scale, c_hat, c_scale, tanh_c, c_prev
    return (o * tanh_c, c), saved


def backward(xp, dstates, saved, extra):
    """dstates = (dh, dc) (B, H) -> (dzx, dzr, (None, dc_prev), dextra); zx and zr are the products as they come."""
    dh, dc = dstates
    i, f, g, o, x_hat, x_scale, r_hat, r_scale, c_hat, c_scale, tanh_c, c_prev = saved
    norm_ih, norm_hh, _, norm_c, _ = extra
    do, dv = dh * tanh_c, dh * o * (1 - tanh_c**2)  # v = norm_c * c_hat + bias_c
    dc = dc + normalise_backward(dv * norm_c, c_hat, c_scale)
    di, df, dg, dc_prev = dc * g, dc * c_prev, dc * i, dc * f
    dz = xp.concatenate([di * i * (1 - i), df * f * (1 - f), dg * (1 - g**2), do * o * (1 - o)], axis=1)
    dzx = normalise_backward(dz * norm_ih, x_hat, x_scale)
    dzr = normalise_backward(dz * norm_hh, r_hat, r_scale)
    return dzx, dzr, (None, dc_prev), (dz * x_hat, dz * r_hat, dz, dv * c_hat, dv)


# Kept are LN(zx) and LN(zr) (B, 4H each); in columns the factors of LN(zx), LN(zr) and LN(c).


def inplace_begin(s):
    """LN(zx) and its factor, for any number of steps at once; gates leave as norm_ih * LN(zx) + bias."""
    norm_ih, _, bias, _, _ = s.vectors
    x_hat, _ = s.kept
    _normalise_into(x_hat, s.columns[:, 0], s.gates)
    np.multiply(x_hat, norm_ih, out=s.gates)
    s.gates += bias


def inplace_forward(s, zr):
    """``forward`` without a new array but a number for each row; see Inplace for what is read and written."""
    (_, c_prev), (h, c) = s.before, s.after
    _, norm_hh, _, norm_c, bias_c = s.vectors
    _, r_hat = s.kept
    _normalise_into(r_hat, s.columns[1], zr)
    np.multiply(r_hat, norm_hh, out=s.wide)
    s.gates += s.wide
    activate(s.gates, KINDS)
    i, f, g, o = split(s.gates, 4)
    new_cell_state(i, f, g, c_prev, c, s.scratch)
    _normalise_into(s.scratch, s.columns[2], c)
    s.scratch *= norm_c
    s.scratch += bias_c
    np.tanh(s.scratch, out=s.scratch)
    np.multiply(o, s.scratch, out=h)


def inplace_coefficients(s):
    """As the LSTM's, with v = norm_c * LN(c) + bias_c in the place of c: factors are dv/dh and LN(c)."""
    (_, c_prev), (_, c) = s.before, s.after
    *_, norm_c, bias_c = s.vectors
    dh_to_dv, c_hat = s.factors
    _normalise_into(c_hat, np.empty_like(s.columns[:, 2]), c)
    np.multiply(norm_c, c_hat, out=dh_to_dv)
    dh_to_dv += bias_c
    np.tanh(dh_to_dv, out=dh_to_dv)
    coefficients(s, c_prev, dh_to_dv)


def inplace_backward(s, dh, direct, ds):
    """``backward`` from the coefficients, but for LN(zx); see Inplace for what is read and written."""
    (dc,) = ds
    B, H = dc.shape
    _, norm_hh, _, norm_c, _ = s.vectors
    _, r_hat = s.kept
    dv, c_hat = s.factors
    dv *= dh
    np.multiply(dv, norm_c, out=s.scratch)
    _normalise_backward_in(s.scratch, c_hat, s.columns[2], s.wide.ravel()[: B * H].reshape(B, H))
    dc += s.scratch
    of_gates(s, dc, dh)
    dc *= s.gates[:, H : 2 * H]
    np.multiply(s.dzx, norm_hh, out=s.dzr)
    _normalise_backward_in(s.dzr, r_hat, s.columns[1], s.wide)


def inplace_finish(s, dvectors):
    """The gradients of the vectors, and that of zx from that of what it was made into."""
    x_hat, r_hat = s.kept
    dv, c_hat = s.factors
    d_norm_ih, d_norm_hh, d_bias, d_norm_c, d_bias_c = dvectors
    d_norm_ih += _sum_of_rows(np.multiply(s.dzx, x_hat, out=s.wide))
    d_norm_hh += _sum_of_rows(np.multiply(s.dzx, r_hat, out=s.wide))
    d_bias += _sum_of_rows(s.dzx)
    d_bias_c += _sum_of_rows(dv)
    dv *= c_hat
    d_norm_c += _sum_of_rows(dv)
    s.dzx *= s.vectors[0]
    _normalise_backward_in(s.dzx, x_hat, s.columns[:, 0], s.wide)


def _normalise_into(x_hat, scale, x):
    """``normalise`` for rows of any number of steps, into x_hat (..., N) and scale (...)."""
    N = x.shape[-1]
    np.subtract(x, _mean(x, x_hat.dtype), out=x_hat)
    np.vecdot(x_hat, x_hat, out=scale)
    scale += N * EPS
    np.divide(N, scale, out=scale)
    np.sqrt(scale, out=scale)
    x_hat *= scale[..., None]


def _normalise_backward_in(d, x_hat, scale, work):
    """``normalise_backward``, d (..., N) coming in as that of x_hat and leaving as that of x; work (..., N)."""
    of_product = np.vecdot(d, x_hat)
    of_product /= d.shape[-1]
    np.multiply(x_hat, of_product[..., None], out=work)
    work += _mean(d, work.dtype)
    d -= work
    d *= scale[..., None]


def _mean(x, dtype):
    """(..., 1) of (..., N). BLAS adds several times as fast as NumPy's own sums do."""
    return x @ _average(x.shape[-1], dtype)


def _sum_of_rows(x):
    """(1, N) of (..., N), as ``_mean``."""
    rows = x.reshape(-1, x.shape[-1])
    return np.ones((1, len(rows)), x.dtype) @ rows


@functools.lru_cache(maxsize=16)
def _average(N, dtype):
    return np.full((N, 1), 1 / N, dtype)


CELL = Cell(
    "layer_norm",
    GATES,
    STATES,
    forward,
    backward,
    extra=(
        Extra("norm_ih", 4, initial=1.0),
        Extra("norm_hh", 4, initial=1.0),
        Extra("bias", 4, initial=0.0),
        Extra("norm_c", 1, initial=1.0),
        Extra("bias_c", 1, initial=0.0),
    ),
    biases=False,
    split=True,
    inplace=Inplace(
        inplace_forward,
        inplace_coefficients,
        inplace_backward,
        begin=inplace_begin,
        finish=inplace_finish,
        kept=(4, 4),
        columns=3,
        factors=(1, 1),
    ),
    kernel=Kernels("layer_norm", kept=4, rows=True),
)

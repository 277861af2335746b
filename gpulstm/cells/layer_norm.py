"""The LSTM with layer normalisation of both products and of the cell state.

Ba, Kiros & Hinton 2016, "Layer Normalization", supplement eq. 20-22, in the form of Haste:

    z = norm_ih * LN(x W_ih') + norm_hh * LN(h_prev W_hh') + bias
    i, f, o = sigmoid(z_i), sigmoid(z_f), sigmoid(z_o);  g = tanh(z_g)
    c = f * c_prev + i * g
    h = o * tanh(norm_c * LN(c) + bias_c)

LN uses the mean and standard deviation of a whole row, which has 4H or H numbers. EPS is added to the variance, so a
row whose numbers are all equal (h_prev = 0, or one unit) becomes zeros. The C++ version of the step is
kernels/cells/layer_norm.cuh.
"""

from gpulstm.cells.cell import Cell, Extra, Kernels
from gpulstm.cells.lstm import sigmoid

GATES, STATES = ("i", "f", "g", "o"), ("h", "c")
EPS = 1e-5  # as in torch.nn.LayerNorm and kernels/cells/layer_norm.cuh


def normalise(xp, x):
    """x (B, N) -> (x with mean 0 and variance 1 in each row, the scale factors (B, 1))."""
    deviation = x - x.mean(axis=1, keepdims=True)
    scale = 1 / xp.sqrt((deviation * deviation).mean(axis=1, keepdims=True) + EPS)
    return deviation * scale, scale


def normalise_backward(d_hat, x_hat, scale):
    """The gradient (B, N) of x from the gradient of x_hat; ``normalise`` returned x_hat and scale."""
    return scale * (d_hat - d_hat.mean(axis=1, keepdims=True) - x_hat * (d_hat * x_hat).mean(axis=1, keepdims=True))


def forward(xp, zx, zr, states, extra):
    """One step: zx, zr (B, 4H), states = (h_prev, c_prev) (B, H) -> ((h, c), saved)."""
    _, c_prev = states
    norm_ih, norm_hh, bias, norm_c, bias_c = extra
    # In the dtype of c, which is float32 for float16 and bfloat16 inputs, for accurate sums.
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
    """dstates = (dh, dc) (B, H) -> (dzx, dzr, (None, dc_prev), dextra); zx and zr have no bias."""
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
    kernel=Kernels("layer_norm", "LayerNorm", kept=4, rows=True),
)

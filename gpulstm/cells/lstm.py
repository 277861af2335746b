"""The LSTM of PyTorch, cuDNN and Keras: input, forget and output gate, no peepholes.

Hochreiter & Schmidhuber 1997, with the forget gate of Gers, Schmidhuber & Cummins 2000. The step stands here
twice: as equations to read and to test against, and written into given buffers for speed on NumPy. Its third
form is kernels/lstm.cu.
"""

import functools

import numpy as np

from gpulstm.cells.cell import Cell, Inplace, Kernels

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


@functools.lru_cache(maxsize=16)
def _tanh_to_gates(shape: tuple[int, int], dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Arrays (B, 4H) that make one tanh serve all gates: scale * tanh(scale * z) + shift is sigmoid for i, f, o
    and tanh for g. Whole arrays, since NumPy is slower with a row to be repeated."""
    scale, shift = np.full(shape, 0.5, dtype), np.full(shape, 0.5, dtype)
    _, _, scale_g, _ = _split(scale)
    _, _, shift_g, _ = _split(shift)
    scale_g[...], shift_g[...] = 1, 0
    return scale, shift


def _split(gates: np.ndarray) -> tuple[np.ndarray, ...]:
    """Views of (..., 4H) as i, f, g, o (..., H); np.split takes ten times as long."""
    H = gates.shape[-1] // 4
    return gates[..., :H], gates[..., H : 2 * H], gates[..., 2 * H : 3 * H], gates[..., 3 * H :]


def inplace_forward(gates, zr, before, after, kept, scratch):
    """``forward`` without a new array; see Inplace for what is read and written."""
    (_, c_prev), (h, c) = before, after
    scale, shift = _tanh_to_gates(gates.shape, gates.dtype)
    gates += zr
    gates *= scale
    np.tanh(gates, out=gates)
    gates *= scale
    gates += shift
    i, f, g, o = _split(gates)
    np.multiply(f, c_prev, out=c)
    np.multiply(i, g, out=scratch)
    c += scratch
    np.tanh(c, out=scratch)
    np.multiply(o, scratch, out=h)


def inplace_coefficients(gates, before, after, kept, dz, dzr, dh_to_dc):
    """What ``backward`` multiplies dc and dh with, for any number of steps at once: leading axes (..., B).

    dz (..., 4H) is written with d(z_i, z_f, z_g)/dc and dz_o/dh, dh_to_dc (..., H) with dc/dh.
    """
    (_, c_prev), (_, c) = before, after
    i, f, g, o = _split(gates)
    di, df, dg, do = _split(dz)
    # The slopes of the activations, s (1 - s) and 1 - g^2 ...
    np.multiply(gates, gates, out=dz)
    np.subtract(i, di, out=di)
    np.subtract(f, df, out=df)
    np.subtract(1, dg, out=dg)
    np.subtract(o, do, out=do)
    # ... each times what its gate is multiplied with in c = f c_prev + i g and h = o tanh(c).
    di *= g
    df *= c_prev
    dg *= i
    np.tanh(c, out=dh_to_dc)
    do *= dh_to_dc
    dh_to_dc *= dh_to_dc
    np.subtract(1, dh_to_dc, out=dh_to_dc)
    dh_to_dc *= o


def inplace_backward(gates, dh_to_dc, dz, dzr, dh, direct, ds):
    """``backward`` from the coefficients; see Inplace for what is read and written."""
    (dc,) = ds
    B, H = dc.shape
    dh_to_dc *= dh
    dc += dh_to_dc
    dz = dz.reshape(B, 4, H)
    dz[:, :3] *= dc[:, None]
    dz[:, 3] *= dh
    dc *= gates[:, H : 2 * H]


CELL = Cell(
    "lstm",
    GATES,
    STATES,
    forward,
    backward,
    inplace=Inplace(inplace_forward, inplace_coefficients, inplace_backward),
    kernel=Kernels("lstm"),
)

"""The LSTM of PyTorch, cuDNN and Keras: input, forget and output gate, no peepholes.

Hochreiter & Schmidhuber 1997, with the forget gate of Gers, Schmidhuber & Cummins 2000. The step stands here
twice: as equations to read and to test against, and written into given buffers for speed on NumPy. Its third
form is kernels/lstm.cu.
"""

import functools

import numpy as np

from gpulstm.cells.cell import Cell, Inplace

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
def _tanh_to_gates(H: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Rows (4H,) that make one tanh serve all gates: scale * tanh(scale * z) + shift is sigmoid for i, f, o and tanh for g."""
    scale, shift = np.full(4 * H, 0.5, dtype), np.full(4 * H, 0.5, dtype)
    scale[2 * H : 3 * H], shift[2 * H : 3 * H] = 1, 0
    return scale, shift


def inplace_forward(gates, zr, c_prev, h, c, scratch):
    """``forward`` without a new array; see Inplace for what is read and written."""
    H = c.shape[1]
    scale, shift = _tanh_to_gates(H, gates.dtype)
    gates += zr
    gates *= scale
    np.tanh(gates, out=gates)
    gates *= scale
    gates += shift
    i, f, g, o = (gates[:, n * H : (n + 1) * H] for n in range(4))
    np.multiply(f, c_prev, out=c)
    np.multiply(i, g, out=scratch)
    c += scratch
    np.tanh(c, out=scratch)
    np.multiply(o, scratch, out=h)


def inplace_backward(gates, c_prev, c, dh, dc, dz, scratch):
    """``backward`` without a new array; see Inplace for what is read and written."""
    H = c.shape[1]
    i, f, g, o = (gates[:, n * H : (n + 1) * H] for n in range(4))
    di, df, dg, do = (dz[:, n * H : (n + 1) * H] for n in range(4))
    # First the slopes of the four activations, s (1 - s) and 1 - g^2 ...
    np.multiply(gates, gates, out=dz)
    np.subtract(gates[:, : 2 * H], dz[:, : 2 * H], out=dz[:, : 2 * H])
    np.subtract(1, dg, out=dg)
    np.subtract(o, do, out=do)
    # ... then each times the gradient of its gate.
    np.tanh(c, out=scratch)
    do *= scratch
    do *= dh
    scratch *= scratch
    np.subtract(1, scratch, out=scratch)
    dh *= o
    dh *= scratch
    dc += dh
    di *= g
    di *= dc
    df *= c_prev
    df *= dc
    dg *= i
    dg *= dc
    dc *= f


CELL = Cell("lstm", GATES, STATES, forward, backward, Inplace(inplace_forward, inplace_backward))

"""The GRU's steps with sigmoid and tanh, written into given buffers, for speed on NumPy: gru.py has the equations.

What each function reads and writes is said in inplace.py.
"""

import functools

import numpy as np

from gpulstm.cells.inplace import Inplace, sigmoid, slopes, split


def after(update: str) -> Inplace:
    """The steps of the reset after the product; ``update`` as of ``gru.cell``."""
    return Inplace(
        functools.partial(forward, update=update),
        functools.partial(coefficients, update=update),
        backward,
        kept=(1,),
    )


def before(update: str) -> Inplace:
    """The same with the reset before it."""
    return Inplace(
        functools.partial(forward_before, update=update),
        functools.partial(coefficients_before, update=update),
        backward_before,
        inner=inner,
        inner_backward=inner_backward,
    )


def forward(s, zr, *, update):
    """``gru.forward`` without a new array; keeps q."""
    (h_prev,), (h,), (q,) = s.before, s.after, s.kept
    q[...] = split(zr, 3)[2]
    _reset_and_update(s, zr)
    r, z, n = split(s.gates, 3)
    np.multiply(r, q, out=h)
    s.scratch += h
    n[...] = np.tanh(s.scratch, out=s.scratch)
    _mix_into(h, update, z, h_prev, s.scratch)


def coefficients(s, *, update):
    """What ``gru.backward`` multiplies dh with, for any number of steps at once.

    dzx and dzr (..., 3H) are written with those of the pre-activations, factors with that of h_prev.
    """
    r, _, _ = split(s.gates, 3)
    of_r = _mix_coefficients(s, update)
    np.multiply(split(s.dzx, 3)[2], split(s.wide, 3)[2], out=of_r)
    of_r *= s.kept[0]
    s.dzx *= s.wide
    s.dzr[...] = s.dzx
    _, _, dq = split(s.dzr, 3)
    dq *= r


def backward(s, dh, direct, ds):
    """``gru.backward`` from the coefficients."""
    B, H = dh.shape
    s.wide.reshape(B, 3, H)[...] = dh[:, None]
    s.dzx *= s.wide
    s.dzr *= s.wide
    np.multiply(s.factors[0], dh, out=direct)


def inner(s, zr, v):
    """``gru.inner_forward`` without a new array."""
    (h_prev,) = s.before
    _reset_and_update(s, zr)
    r, _, _ = split(s.gates, 3)
    np.multiply(r, h_prev, out=v)


def forward_before(s, zr, *, update):
    """``gru.forward_before``, the rest of the step."""
    (h_prev,), (h,) = s.before, s.after
    _, z, n = split(s.gates, 3)
    s.scratch += split(zr, 3)[2]
    n[...] = np.tanh(s.scratch, out=s.scratch)
    _mix_into(h, update, z, h_prev, s.scratch)


def coefficients_before(s, *, update):
    """As ``coefficients``; the block of r is multiplied with dv."""
    of_r = _mix_coefficients(s, update)
    of_r[...] = s.before[0]
    s.dzx *= s.wide


def backward_before(s, dh, direct, ds):
    """``gru.backward_before`` from the coefficients."""
    B, H = dh.shape
    factors = s.wide.reshape(B, 3, H)
    factors[:, 0] = 1
    factors[:, 1:] = dh[:, None]
    s.dzx *= s.wide
    np.multiply(s.factors[0], dh, out=direct)


def inner_backward(s, dv, direct, ds):
    """``gru.inner_backward`` from the coefficients."""
    r, _, _ = split(s.gates, 3)
    dr, _, _ = split(s.dzx, 3)
    dr *= dv
    dv *= r
    direct += dv


def _reset_and_update(s, zr):
    """r and z, activated; the input's part of n's pre-activation moves to scratch."""
    *_, n = split(s.gates, 3)
    H = n.shape[1]
    s.scratch[...] = n
    s.gates[:, : 2 * H] += zr[:, : 2 * H]
    sigmoid(s.gates)  # that of n is written over


def _mix_into(h, update, z, h_prev, n):
    old, new = (h_prev, n) if update == "torch" else (n, h_prev)
    np.subtract(old, new, out=h)
    h *= z
    h += new


def _mix_coefficients(s, update):
    """By way of h alone: dh/dh_prev into factors, the slopes into dzx, what those are to be multiplied with into wide.

    Returns r's block of wide, still to be written.
    """
    (h_prev,), (old,) = s.before, s.factors
    _, z, n = split(s.gates, 3)
    slopes(s, "sst")
    of_r, of_z, of_n = split(s.wide, 3)
    if update == "torch":
        np.subtract(h_prev, n, out=of_z)
        np.subtract(1, z, out=of_n)
        old[...] = z
    else:
        np.subtract(n, h_prev, out=of_z)
        of_n[...] = z
        np.subtract(1, z, out=old)
    return of_r

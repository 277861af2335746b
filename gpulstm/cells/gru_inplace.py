"""The GRU's steps with sigmoid and tanh, written into given buffers, for speed on NumPy: gru.py has the equations.

What each function reads and writes is said in inplace.py.
"""

import functools

import numpy as np

from gpulstm.cells.inplace import Inplace, sigmoid, split


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
    (h_prev,), (h,) = s.before, s.after
    H = h.shape[1]
    r_z, r, z, n = s.gates[:, : 2 * H], *split(s.gates, 3)
    r_z += zr[:, : 2 * H]
    sigmoid(r_z)
    (q,) = s.kept
    q[...] = zr[:, 2 * H :]
    np.multiply(r, q, out=s.scratch)
    n += s.scratch
    np.tanh(n, out=n)
    _mix_into(h, update, z, h_prev, n)


def coefficients(s, *, update):
    """What ``gru.backward`` multiplies dh with, for any number of steps at once.

    dzx and dzr (..., 3H) are written with those of the pre-activations, factors with that of h_prev.
    """
    r, _, _ = split(s.gates, 3)
    dr, _, dn = split(s.dzx, 3)
    _mix_coefficients(s, update)
    np.subtract(1, r, out=dr)
    dr *= r
    dr *= s.kept[0]
    dr *= dn
    s.dzr[...] = s.dzx
    _, _, dq = split(s.dzr, 3)
    dq *= r


def backward(s, dh, direct, ds):
    """``gru.backward`` from the coefficients."""
    B, H = dh.shape
    for d in (s.dzx, s.dzr):
        d = d.reshape(B, 3, H)
        d *= dh[:, None]
    np.multiply(s.factors[0], dh, out=direct)


def inner(s, zr, v):
    """``gru.inner_forward`` without a new array."""
    (h_prev,) = s.before
    H = h_prev.shape[1]
    r_z, r = s.gates[:, : 2 * H], s.gates[:, :H]
    r_z += zr[:, : 2 * H]
    sigmoid(r_z)
    np.multiply(r, h_prev, out=v)


def forward_before(s, zr, *, update):
    """``gru.forward_before``, the rest of the step."""
    (h_prev,), (h,) = s.before, s.after
    _, z, n = split(s.gates, 3)
    n += zr[:, 2 * h.shape[1] :]
    np.tanh(n, out=n)
    _mix_into(h, update, z, h_prev, n)


def coefficients_before(s, *, update):
    """As ``coefficients``; the block of r is multiplied with dv."""
    (h_prev,) = s.before
    r, _, _ = split(s.gates, 3)
    dr, _, _ = split(s.dzx, 3)
    _mix_coefficients(s, update)
    np.subtract(1, r, out=dr)
    dr *= r
    dr *= h_prev


def backward_before(s, dh, direct, ds):
    """``gru.backward_before`` from the coefficients."""
    B, H = dh.shape
    dz = s.dzx.reshape(B, 3, H)
    dz[:, 1:] *= dh[:, None]
    np.multiply(s.factors[0], dh, out=direct)


def inner_backward(s, dv, direct, ds):
    """``gru.inner_backward`` from the coefficients."""
    r, _, _ = split(s.gates, 3)
    dr, _, _ = split(s.dzx, 3)
    dr *= dv
    dv *= r
    direct += dv


def _mix_into(h, update, z, h_prev, n):
    old, new = (h_prev, n) if update == "torch" else (n, h_prev)
    np.subtract(old, new, out=h)
    h *= z
    h += new


def _mix_coefficients(s, update):
    """Those of z and n, by way of h alone, into dzx, that of h_prev into factors; for any number of steps at once."""
    (h_prev,) = s.before
    _, z, n = split(s.gates, 3)
    _, dz, dn = split(s.dzx, 3)
    (old,) = s.factors
    np.subtract(1, z, out=old)
    np.subtract(h_prev, n, out=dz)
    dz *= z
    dz *= old
    np.multiply(n, n, out=dn)
    np.subtract(1, dn, out=dn)
    if update == "torch":
        dn *= old
        old[...] = z
    else:
        dn *= z
        dz *= -1

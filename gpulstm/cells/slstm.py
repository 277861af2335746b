"""The sLSTM of the xLSTM: an exponential input gate, a normaliser n and a stabiliser m that keeps both in range.

Beck et al. 2024, "xLSTM: Extended Long Short-Term Memory", eq. 8-17:

    m = max(log sigmoid(z_f) + m_prev, z_i)
    i = exp(z_i - m);  f = exp(log sigmoid(z_f) + m_prev - m);  z = tanh(z_z);  o = sigmoid(z_o)
    c = f * c_prev + i * z;  n = f * n_prev + i;  h = o * c / n

c and n stand for c * e^m and n * e^m, so h is the same whatever m is. Where n_prev is 0 nothing has been weighed
yet (first states of zero, a reset) and m = z_i, as in the authors' code: then i = 1 and h = o * z whatever z_i
is. One of f and i is 1 at every step, so n never falls below the smaller of 1 and n0: c / n needs no guard unless
a negative n0 is given.

The third form of the step is kernels/slstm.cu.
"""

import numpy as np

from gpulstm.cells.cell import Cell, Kernels
from gpulstm.cells.inplace import Inplace, activate, new_cell_state, split
from gpulstm.cells.lstm import sigmoid

GATES, STATES = ("i", "f", "z", "o"), ("h", "c", "n", "m")
# The largest log f. Only where n_prev is 0 may f pass 1; the state it multiplies there is zero, and neither that
# product nor the gradient of that state may overflow, in a half type either.
LARGEST = 8


def log_sigmoid(xp, z):
    return xp.minimum(z, 0) - xp.log1p(xp.exp(-abs(z)))


def forward(xp, zx, zr, states, extra):
    """One step: zx, zr (B, 4H), states = (h_prev, c_prev, n_prev, m_prev) (B, H) -> ((h, c, n, m), saved)."""
    _, c_prev, n_prev, m_prev = states
    z_i, z_f, z_z, z_o = xp.split(zx + zr, 4, axis=1)  # (B, H) each
    log_old = log_sigmoid(xp, z_f) + m_prev
    m = xp.where(n_prev == 0, z_i, xp.maximum(log_old, z_i))
    log_f = log_old - m
    i, f = xp.exp(z_i - m), xp.exp(xp.minimum(log_f, LARGEST))
    z, o = xp.tanh(z_z), sigmoid(xp, z_o)
    c, n = f * c_prev + i * z, f * n_prev + i
    mean = c / n  # of z, weighed by the gates
    slope = sigmoid(xp, -z_f)  # of log sigmoid(z_f)
    return (o * mean, c, n, m), (i, f, z, o, mean, n, slope, m == z_i, log_f <= LARGEST, c_prev, n_prev)


def backward(xp, dstates, saved, extra):
    """dstates = (dh, dc, dn, dm) (B, H) -> (dzx, dzr, (None, dc_prev, dn_prev, dm_prev), ()); dzx is dzr.

    What reaches the maximum, ``dm`` below, is zero but for rounding while the loss sees h alone; it is not when
    c, n and m are part of it, or zoneout mixes them with the old ones.
    """
    dh, dc, dn, dm = dstates
    i, f, z, o, mean, n, slope, from_i, free, c_prev, n_prev = saved
    do, dmean = dh * mean, dh * o / n
    dc, dn = dc + dmean, dn - dmean * mean
    dlog_i, dlog_f = (dc * z + dn) * i, (dc * c_prev + dn * n_prev) * f * free
    dm = dm - dlog_i - dlog_f
    dz_i, dlog_old = dlog_i + dm * from_i, dlog_f + dm * ~from_i
    dz = xp.concatenate([dz_i, dlog_old * slope, dc * i * (1 - z**2), do * o * (1 - o)], axis=1)
    return dz, dz, (None, dc * f, dn * f, dlog_old), ()


def inplace_forward(s, zr):
    """``forward`` without a new array but a mask; see Inplace for what is read and written.

    Keeps log sigmoid(z_f), 1 where m is z_i and 0 elsewhere, c / n and o / n.
    """
    (_, c_prev, n_prev, m_prev), (h, c, n, m) = s.before, s.after
    log_sigmoid_f, from_i, mean, o_by_n = s.kept
    s.gates += zr
    i, f, z, o = split(s.gates, 4)
    z_i, z_f = mean, o_by_n  # which are written last
    z_i[...], z_f[...] = i, f
    activate(s.gates, "ssts")  # of z and o; those of i and f are written over

    np.abs(z_f, out=log_sigmoid_f)
    log_sigmoid_f *= -1
    np.exp(log_sigmoid_f, out=log_sigmoid_f)
    np.log1p(log_sigmoid_f, out=log_sigmoid_f)
    np.minimum(z_f, 0, out=s.scratch)
    np.subtract(s.scratch, log_sigmoid_f, out=log_sigmoid_f)

    np.add(log_sigmoid_f, m_prev, out=s.scratch)
    np.maximum(s.scratch, z_i, out=m)
    np.copyto(m, z_i, where=n_prev == 0)
    np.equal(m, z_i, out=from_i)
    s.scratch -= m
    np.minimum(s.scratch, LARGEST, out=s.scratch)
    f[...] = np.exp(s.scratch, out=s.scratch)
    z_i -= m
    i[...] = np.exp(z_i, out=z_i)

    new_cell_state(z_i, s.scratch, z, c_prev, c, h)
    np.multiply(s.scratch, n_prev, out=n)
    n += z_i
    np.divide(c, n, out=mean)
    np.divide(o, n, out=o_by_n)
    np.multiply(o, mean, out=h)


def inplace_coefficients(s):
    """What ``backward`` multiplies dh, dc and dn with, for any number of steps at once.

    dzx (..., 4H) is written with d(z_f)/d(log_old), d(z_z)/dc and d(z_o)/dh, factors with dlog_i/dc, dlog_f/dc
    and dlog_f/dn.
    """
    (_, c_prev, n_prev, m_prev), (*_, m) = s.before, s.after
    i, f, z, o = split(s.gates, 4)
    log_sigmoid_f, _, mean, _ = s.kept
    _, df, dz, do = split(s.dzx, 4)
    dc_to_i, dc_to_f, dn_to_f = s.factors
    np.multiply(i, z, out=dc_to_i)
    np.add(log_sigmoid_f, m_prev, out=dn_to_f)
    dn_to_f -= m
    np.less_equal(dn_to_f, LARGEST, out=dn_to_f)
    dn_to_f *= f
    np.multiply(dn_to_f, c_prev, out=dc_to_f)
    dn_to_f *= n_prev
    np.expm1(log_sigmoid_f, out=df)
    df *= -1  # sigmoid(-z_f) = 1 - sigmoid(z_f)
    np.multiply(z, z, out=dz)
    np.subtract(1, dz, out=dz)
    dz *= i
    np.subtract(1, o, out=do)
    do *= o
    do *= mean


def inplace_backward(s, dh, direct, ds):
    """``backward`` from the coefficients; see Inplace for what is read and written."""
    dc, dn, dm = ds
    i, f, _, _ = split(s.gates, 4)
    _, from_i, mean, o_by_n = s.kept
    di, df, dz, do = split(s.dzx, 4)
    dlog_i, dlog_f, dn_to_f = s.factors
    do *= dh
    np.multiply(o_by_n, dh, out=s.scratch)
    dc += s.scratch
    s.scratch *= mean
    dn -= s.scratch
    dz *= dc
    dlog_i *= dc
    np.multiply(i, dn, out=s.scratch)
    dlog_i += s.scratch
    dlog_f *= dc
    dn_to_f *= dn
    dlog_f += dn_to_f
    dm -= dlog_i
    dm -= dlog_f
    np.multiply(from_i, dm, out=di)
    dm -= di
    di += dlog_i
    dm += dlog_f
    df *= dm
    dc *= f
    dn *= f


CELL = Cell(
    "slstm",
    GATES,
    STATES,
    forward,
    backward,
    inplace=Inplace(inplace_forward, inplace_coefficients, inplace_backward, kept=(1, 1, 1, 1), factors=(1, 1, 1)),
    kernel=Kernels("slstm"),
)

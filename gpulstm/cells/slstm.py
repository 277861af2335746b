"""The sLSTM of the xLSTM: an exponential input gate, a normaliser n, and a stabiliser m that prevents overflow.

Beck et al. 2024, "xLSTM: Extended Long Short-Term Memory", eq. 8-17:

    m = max(log sigmoid(z_f) + m_prev, z_i)
    i = exp(z_i - m);  f = exp(log sigmoid(z_f) + m_prev - m);  z = tanh(z_z);  o = sigmoid(z_o)
    c = f * c_prev + i * z;  n = f * n_prev + i;  h = o * c / n

c and n represent c * e^m and n * e^m, so h does not depend on m. n_prev is 0 if there are no past inputs: initial
states of zero, or a reset. Then m = z_i, as in the authors' code, so that i = 1 and h = o * z for any z_i. One of f and
i is 1 at every step, so n never falls below the smaller of 1 and n0. Therefore c / n cannot divide by zero, unless you
give a negative n0.

The C++ version of the step is kernels/cells/slstm.cuh.
"""

from gpulstm.cells.cell import Cell, Kernels
from gpulstm.cells.lstm import sigmoid

GATES, STATES = ("i", "f", "z", "o"), ("h", "c", "n", "m")
# The largest log f. f can exceed 1 only if n_prev is 0. It then multiplies a state of zero, and neither that product
# nor the gradient of that state may overflow, not even in float16.
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
    mean = c / n  # of z, weighted by the gates
    slope = sigmoid(xp, -z_f)  # of log sigmoid(z_f)
    return (o * mean, c, n, m), (i, f, z, o, mean, n, slope, m == z_i, log_f <= LARGEST, c_prev, n_prev)


def backward(xp, dstates, saved, extra):
    """dstates = (dh, dc, dn, dm) (B, H) -> (dzx, dzr, (None, dc_prev, dn_prev, dm_prev), ()); dzx is dzr.

    ``dm`` below, the gradient of the maximum, is zero up to rounding if the loss depends only on h. It is not zero if
    the loss depends on c, n or m, or if zoneout mixes them with the old states.
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


CELL = Cell(
    "slstm",
    GATES,
    STATES,
    forward,
    backward,
    kernel=Kernels("slstm", "Slstm"),
)

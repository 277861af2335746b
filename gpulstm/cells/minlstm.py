"""The minimal LSTM: its gates depend only on the input, so the recurrence is linear in h and a scan can compute it.

Feng et al. 2024, "Were RNNs all we needed?", section 3.2, with the linear candidate of the main text:

    f, i = sigmoid(z_f), sigmoid(z_i);  n = z_n                          z = x W_ih' + b
    h = f / (f + i) * h_prev + i / (f + i) * n

``coefficients`` and ``gradients`` accept any leading axes, so they process a whole sequence at once. functional/scan.py
does the rest. The CUDA version is kernels/scan.cu.
"""

from gpulstm.cells.cell import Cell

GATES, STATES = ("f", "i", "n"), ("h",)


def coefficients(xp, zx):
    """zx (..., 3H) -> (keep, take, n, saved) of h = keep * h_prev + take * n, (..., H) each; keep + take = 1.

    keep and take are quotients of sums of positive numbers. They are accurate to the last digit, also if f and i
    underflow, or if keep or take does.
    """
    z_f, z_i, n = xp.split(zx, 3, axis=-1)
    least = xp.minimum(xp.minimum(z_f, z_i), 0)
    one, u, v = xp.exp(least), xp.exp(least - z_i), xp.exp(least - z_f)  # 1, e^-z_i, e^-z_f, times one factor
    scale = 1 / (one + one + u + v)
    keep = (one + u) * scale  # (1 + e^-z_i) / (2 + e^-z_i + e^-z_f) = f / (f + i)
    take = (one + v) * scale
    return keep, take, n, (u * scale, v * scale)


def gradients(xp, coefficients, h_prev, dh):
    """dzx (..., 3H) from dh, the gradient of h at every step, and the ``coefficients`` of its zx."""
    keep, take, n, (u, v) = coefficients
    dkeep = dh * (h_prev - n)  # take = 1 - keep
    return xp.concatenate([dkeep * keep * v, -dkeep * take * u, dh * take], axis=-1)


def forward(xp, zx, zr, states, extra):
    """One step: zx (B, 3H), states = (h_prev,) (B, H) -> ((h,), saved); no recurrent product, so zr is None."""
    (h_prev,) = states
    keep, take, n, saved = coefficients(xp, zx)
    return (keep * h_prev + take * n,), (keep, take, n, saved, h_prev)


def backward(xp, dstates, saved, extra):
    """dstates = (dh,) (B, H) -> (dzx, None, (dh_prev,), ())."""
    (dh,) = dstates
    *shares, h_prev = saved
    return gradients(xp, shares, h_prev, dh), None, (dh * shares[0],), ()


CELL = Cell("minlstm", GATES, STATES, forward, backward, recurrent=False, direct=True)

"""The minimal GRU: its gate depends only on the input, so the recurrence is linear in h and a scan can compute it.

Feng et al. 2024, "Were RNNs all we needed?", section 3.1, with the linear candidate and the paper's sign, which is the
opposite of the GRU's:

    z = sigmoid(z_z);  n = z_n                                           z_z, z_n = x W_ih' + b
    h = (1 - z) * h_prev + z * n

``coefficients`` and ``gradients`` accept any leading axes, so they process a whole sequence at once. functional/scan.py
does the rest. The CUDA version is kernels/scan.cu.
"""

from gpulstm.cells.cell import Cell

GATES, STATES = ("z", "n"), ("h",)


def coefficients(xp, zx):
    """zx (..., 2H) -> (keep, take, n, saved) of h = keep * h_prev + take * n, (..., H) each; keep + take = 1.

    keep and take are accurate to the last digit, also if one of them is tiny.
    """
    z_z, n = xp.split(zx, 2, axis=-1)
    least = xp.minimum(z_z, 0)
    one, u = xp.exp(least), xp.exp(least - z_z)  # 1 and e^-z_z, times one factor
    scale = 1 / (one + u)
    return u * scale, one * scale, n, ()  # 1 - z, z


def gradients(xp, coefficients, h_prev, dh):
    """dzx (..., 2H) from dh, the gradient of h at every step, and the ``coefficients`` of its zx."""
    keep, take, n, _ = coefficients
    return xp.concatenate([dh * (n - h_prev) * keep * take, dh * take], axis=-1)


def forward(xp, zx, zr, states, extra):
    """One step: zx (B, 2H), states = (h_prev,) (B, H) -> ((h,), saved); no recurrent product, so zr is None."""
    (h_prev,) = states
    keep, take, n, saved = coefficients(xp, zx)
    return (keep * h_prev + take * n,), (take, n, keep, saved, h_prev)


def backward(xp, dstates, saved, extra):
    """dstates = (dh,) (B, H) -> (dzx, None, (dh_prev,), ())."""
    (dh,) = dstates
    take, n, keep, parts, h_prev = saved
    return gradients(xp, (keep, take, n, parts), h_prev, dh), None, (dh * keep,), ()


CELL = Cell("mingru", GATES, STATES, forward, backward, recurrent=False, direct=True)

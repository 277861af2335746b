"""The gated recurrent unit: a reset and an update gate, with the reset after or before the recurrent product.

Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder", whose reset comes before:

    r, z = f(z_r), f(z_z)                    z_r, z_z = W_r x + b_ir + U_r h_prev + b_hr, likewise for z
    n = g(W_n x + b_in + U_n (r * h_prev) + b_hn)
    h = z * h_prev + (1 - z) * n             ("torch")    or  (1 - z) * h_prev + z * n  ("cho")

With the reset after the product, as cuDNN, PyTorch and Keras have it, all products are one:

    n = g(W_n x + b_in + r * q)              q = U_n h_prev + b_hn

f is sigmoid and g tanh where nothing else is said. With these two the steps also stand here written into given
buffers, for speed on NumPy. Their third form is kernels/gru.cu.
"""

import functools
from typing import Any

import numpy as np

from gpulstm.cells import activation
from gpulstm.cells.activation import Activation
from gpulstm.cells.cell import Cell, Inner, Kernels, Product
from gpulstm.cells.inplace import Inplace, sigmoid, split
from gpulstm.errors import ShapeError

GATES, STATES = ("r", "z", "n"), ("h",)
RESETS, UPDATES = ("after", "before"), ("torch", "cho")
USUAL = Activation("sigmoid"), Activation("tanh")


def mix(update, z, h_prev, n):
    """h (B, H), the mean of the old state and the candidate."""
    return z * h_prev + (1 - z) * n if update == "torch" else (1 - z) * h_prev + z * n


def mix_backward(update, dh, z, h_prev, n):
    """(dz, dh_prev, dn)."""
    if update == "torch":
        return dh * (h_prev - n), dh * z, dh * (1 - z)
    return dh * (n - h_prev), dh * (1 - z), dh * z


def forward(xp, zx, zr, states, extra, *, update, activations, clip):
    """One step, reset after: zx, zr (B, 3H), states = (h_prev,) (B, H) -> ((h,), saved)."""
    (h_prev,), (f, g) = states, activations
    x_r, x_z, x_n = xp.split(zx, 3, axis=1)  # (B, H) each
    h_r, h_z, q = xp.split(zr.copy(), 3, axis=1)  # q is saved, zr is the loop's to use again
    z_r, z_z = x_r + h_r, x_z + h_z
    r, z = f.forward(xp, z_r, clip), f.forward(xp, z_z, clip)
    z_n = x_n + r * q
    n = g.forward(xp, z_n, clip)
    return (mix(update, z, h_prev, n),), (r, z, n, z_r, z_z, z_n, q, h_prev)


def backward(xp, dstates, saved, extra, *, update, activations, clip):
    """dstates = (dh,) (B, H) -> (dzx, dzr, (dh_prev,), dextra)."""
    (dh,), (f, g) = dstates, activations
    r, z, n, z_r, z_z, z_n, q, h_prev = saved
    dz, dh_prev, dn = mix_backward(update, dh, z, h_prev, n)
    dz_n = dn * g.slope(xp, z_n, clip)
    dz_z, dz_r = dz * f.slope(xp, z_z, clip), dz_n * q * f.slope(xp, z_r, clip)
    return xp.concatenate([dz_r, dz_z, dz_n], axis=1), xp.concatenate([dz_r, dz_z, dz_n * r], axis=1), (dh_prev,), ()


def inner_forward(xp, zx, zr, states, extra, *, update, activations, clip):
    """r * h_prev (B, H), which is multiplied with U_n where the reset comes before."""
    (h_prev,), (f, _) = states, activations
    x_r, _, _ = xp.split(zx, 3, axis=1)
    h_r, _, _ = xp.split(zr, 3, axis=1)
    return f.forward(xp, x_r + h_r, clip) * h_prev


def forward_before(xp, zx, zr, states, extra, *, update, activations, clip):
    """As ``forward``, once the inner product stands in zr."""
    (h_prev,), (f, g) = states, activations
    z_r, z_z, z_n = xp.split(zx + zr, 3, axis=1)
    r, z, n = f.forward(xp, z_r, clip), f.forward(xp, z_z, clip), g.forward(xp, z_n, clip)
    return (mix(update, z, h_prev, n),), (r, z, n, z_r, z_z, z_n, h_prev)


def backward_before(xp, dstates, saved, extra, *, update, activations, clip):
    """As ``backward``, without what goes through the inner product; dzx is dzr."""
    (dh,), (f, g) = dstates, activations
    r, z, n, _, z_z, z_n, h_prev = saved
    dz, dh_prev, dn = mix_backward(update, dh, z, h_prev, n)
    parts = [xp.zeros_like(r), dz * f.slope(xp, z_z, clip), dn * g.slope(xp, z_n, clip)]
    dz = xp.concatenate(parts, axis=1)
    return dz, dz, (dh_prev,), ()


def inner_backward(xp, dv, dzx, dzr, dstates, saved, extra, *, update, activations, clip):
    """The part of r and of h_prev that goes through v = r * h_prev: dv (B, H) -> (dzx, dzr, dstates_prev)."""
    (dh_prev,), (f, _) = dstates, activations
    r, _, _, z_r, *_, h_prev = saved
    _, dz_z, dz_n = xp.split(dzx, 3, axis=1)
    dz = xp.concatenate([dv * h_prev * f.slope(xp, z_r, clip), dz_z, dz_n], axis=1)
    return dz, dz, (dh_prev + dv * r,)


def inplace_forward(s, zr, *, update):
    """``forward`` with sigmoid and tanh, without a new array; keeps q. See Inplace for what is read and written."""
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


def inplace_coefficients(s, *, update):
    """What ``backward`` multiplies dh with, for any number of steps at once.

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


def inplace_backward(s, dh, direct, ds):
    """``backward`` from the coefficients; see Inplace for what is read and written."""
    B, H = dh.shape
    for d in (s.dzx, s.dzr):
        d = d.reshape(B, 3, H)
        d *= dh[:, None]
    np.multiply(s.factors[0], dh, out=direct)


def inplace_inner(s, zr, v):
    """``inner_forward`` without a new array."""
    (h_prev,) = s.before
    H = h_prev.shape[1]
    r_z, r = s.gates[:, : 2 * H], s.gates[:, :H]
    r_z += zr[:, : 2 * H]
    sigmoid(r_z)
    np.multiply(r, h_prev, out=v)


def inplace_forward_before(s, zr, *, update):
    """The rest of the step, as ``inplace_forward``."""
    (h_prev,), (h,) = s.before, s.after
    _, z, n = split(s.gates, 3)
    n += zr[:, 2 * h.shape[1] :]
    np.tanh(n, out=n)
    _mix_into(h, update, z, h_prev, n)


def inplace_coefficients_before(s, *, update):
    """As ``inplace_coefficients``; the block of r is multiplied with dv."""
    (h_prev,) = s.before
    r, _, _ = split(s.gates, 3)
    dr, _, _ = split(s.dzx, 3)
    _mix_coefficients(s, update)
    np.subtract(1, r, out=dr)
    dr *= r
    dr *= h_prev


def inplace_backward_before(s, dh, direct, ds):
    """``backward_before`` from the coefficients."""
    B, H = dh.shape
    dz = s.dzx.reshape(B, 3, H)
    dz[:, 1:] *= dh[:, None]
    np.multiply(s.factors[0], dh, out=direct)


def inplace_inner_backward(s, dv, direct, ds):
    """``inner_backward`` from the coefficients."""
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


def cell(
    reset: str = "after", update: str = "torch", activations: tuple[Any, Any] = ("sigmoid", "tanh"),
    clip: float | None = None,
) -> Cell:  # fmt: skip
    """The GRU with ``reset`` "after" or "before" the product and ``update`` "torch" or "cho", see above.

    ``activations`` are that of r and z and that of n, out of cells.activation; ``clip`` limits all their
    pre-activations to [-clip, clip]. On NumPy the step is in place for the usual activations and no clip. Raises
    ShapeError for what is none of these.
    """
    if reset not in RESETS:
        raise ShapeError(f"reset: want {' or '.join(RESETS)}, got {reset!r}")
    if update not in UPDATES:
        raise ShapeError(f"update: want {' or '.join(UPDATES)}, got {update!r}")
    if not isinstance(activations, tuple | list) or len(activations) != 2:
        raise ShapeError(f"activations: want two, that of r and z and that of n, got {activations!r}")
    f, g = map(activation.of, activations)
    clip = activation.check_clip(clip)
    options: dict[str, Any] = {"update": update, "activations": (f, g), "clip": clip}
    defines = f.defines("ACT_F", clip) + g.defines("ACT_G", clip) + (f"UPDATE_CHO={int(update == 'cho')}",)
    return (_after if reset == "after" else _before)(options, defines)


def _after(options: dict[str, Any], defines: tuple[str, ...]) -> Cell:
    update = {"update": options["update"]}
    inplace = Inplace(
        functools.partial(inplace_forward, **update),
        functools.partial(inplace_coefficients, **update),
        inplace_backward,
        kept=(1,),
    )
    return Cell(
        "gru",
        GATES,
        STATES,
        functools.partial(forward, **options),
        functools.partial(backward, **options),
        split=True,
        direct=True,
        inplace=inplace if _usual(options) else None,
        kernel=Kernels("gru", defines=defines, kept=1),
    )


def _before(options: dict[str, Any], defines: tuple[str, ...]) -> Cell:
    update = {"update": options["update"]}
    inplace = Inplace(
        functools.partial(inplace_forward_before, **update),
        functools.partial(inplace_coefficients_before, **update),
        inplace_backward_before,
        inner=inplace_inner,
        inner_backward=inplace_inner_backward,
    )
    return Cell(
        "gru",
        GATES,
        STATES,
        functools.partial(forward_before, **options),
        functools.partial(backward_before, **options),
        products=(Product("h", "w_hh", slice(0, 2)), Product("inner", "w_hh", slice(2, 3))),
        inner=Inner(functools.partial(inner_forward, **options), functools.partial(inner_backward, **options)),
        direct=True,
        inplace=inplace if _usual(options) else None,
        kernel=Kernels("gru", "gru_before", defines),
    )


def _usual(options: dict[str, Any]) -> bool:
    """Whether the steps in place serve, which know sigmoid and tanh alone."""
    return options["activations"] == USUAL and options["clip"] is None


CELL = cell()

"""The gated recurrent unit: a reset and an update gate, with the reset after or before the recurrent product.

In Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder", the reset comes before the product:

    r, z = f(z_r), f(z_z)                    z_r = W_r x + b_ir + U_r h_prev + b_hr, and likewise z_z
    n = g(W_n x + b_in + U_n (r * h_prev) + b_hn)
    h = z * h_prev + (1 - z) * n             ("torch")    or  (1 - z) * h_prev + z * n  ("cho")

In cuDNN, PyTorch and Keras the reset comes after the product, so that all recurrent products are one:

    n = g(W_n x + b_in + r * q)              q = U_n h_prev + b_hn

By default f is sigmoid and g is tanh. The C++ version of the steps is kernels/cells/gru.cuh.
"""

import functools
from typing import Any

from gpulstm.cells import activation
from gpulstm.cells.cell import Cell, Inner, Kernels, Product
from gpulstm.errors import ShapeError

GATES, STATES = ("r", "z", "n"), ("h",)
RESETS, UPDATES = ("after", "before"), ("torch", "cho")


def mix(update, z, h_prev, n):
    """h (B, H), the weighted mean of the old state and the candidate."""
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
    h_r, h_z, q = xp.split(zr.copy(), 3, axis=1)  # a copy, because q is saved and the loop overwrites zr
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
    """r * h_prev (B, H), the factor of U_n if the reset comes before the product."""
    (h_prev,), (f, _) = states, activations
    x_r, _, _ = xp.split(zx, 3, axis=1)
    h_r, _, _ = xp.split(zr, 3, axis=1)
    return f.forward(xp, x_r + h_r, clip) * h_prev


def forward_before(xp, zx, zr, states, extra, *, update, activations, clip):
    """As ``forward``, with the inner product already in zr."""
    (h_prev,), (f, g) = states, activations
    z_r, z_z, z_n = xp.split(zx + zr, 3, axis=1)
    r, z, n = f.forward(xp, z_r, clip), f.forward(xp, z_z, clip), g.forward(xp, z_n, clip)
    return (mix(update, z, h_prev, n),), (r, z, n, z_r, z_z, z_n, h_prev)


def backward_before(xp, dstates, saved, extra, *, update, activations, clip):
    """As ``backward``, without the gradients through the inner product; dzx is dzr."""
    (dh,), (f, g) = dstates, activations
    r, z, n, _, z_z, z_n, h_prev = saved
    dz, dh_prev, dn = mix_backward(update, dh, z, h_prev, n)
    parts = [xp.zeros_like(r), dz * f.slope(xp, z_z, clip), dn * g.slope(xp, z_n, clip)]
    dz = xp.concatenate(parts, axis=1)
    return dz, dz, (dh_prev,), ()


def inner_backward(xp, dv, dzx, dzr, dstates, saved, extra, *, update, activations, clip):
    """Add the gradients of r and h_prev through v = r * h_prev: dv (B, H) -> (dzx, dzr, dstates_prev)."""
    (dh_prev,), (f, _) = dstates, activations
    r, _, _, z_r, *_, h_prev = saved
    _, dz_z, dz_n = xp.split(dzx, 3, axis=1)
    dz = xp.concatenate([dv * h_prev * f.slope(xp, z_r, clip), dz_z, dz_n], axis=1)
    return dz, dz, (dh_prev + dv * r,)


def cell(
    reset: str = "after", update: str = "torch", activations: tuple[Any, Any] = ("sigmoid", "tanh"),
    clip: float | None = None,
) -> Cell:  # fmt: skip
    """Make the GRU with ``reset`` "after" or "before" the product and ``update`` "torch" or "cho", see above.

    ``activations`` are two from cells.activation, one for r and z and one for n. ``clip`` limits their pre-activations
    to [-clip, clip]. Raises ShapeError for anything else.
    """
    if reset not in RESETS:
        raise ShapeError(f"reset: expected {' or '.join(RESETS)}, got {reset!r}")
    if update not in UPDATES:
        raise ShapeError(f"update: expected {' or '.join(UPDATES)}, got {update!r}")
    if not isinstance(activations, tuple | list) or len(activations) != 2:
        raise ShapeError(f"activations: expected two, one for r and z and one for n, got {activations!r}")
    f, g = map(activation.of, activations)
    clip = activation.check_clip(clip)
    options: dict[str, Any] = {"update": update, "activations": (f, g), "clip": clip}
    numbers = (*f.numbers(clip), *g.numbers(clip), float(update == "cho"))
    return (_after if reset == "after" else _before)(options, numbers)


def _after(options: dict[str, Any], numbers: tuple[float, ...]) -> Cell:
    return Cell(
        "gru",
        GATES,
        STATES,
        functools.partial(forward, **options),
        functools.partial(backward, **options),
        split=True,
        direct=True,
        kernel=Kernels("gru", "Gru", numbers, kept=1),
    )


def _before(options: dict[str, Any], numbers: tuple[float, ...]) -> Cell:
    return Cell(
        "gru",
        GATES,
        STATES,
        functools.partial(forward_before, **options),
        functools.partial(backward_before, **options),
        products=(Product("h", "w_hh", slice(0, 2)), Product("inner", "w_hh", slice(2, 3))),
        inner=Inner(functools.partial(inner_forward, **options), functools.partial(inner_backward, **options)),
        direct=True,
        kernel=Kernels("gru", "GruBefore", numbers),
    )


CELL = cell()

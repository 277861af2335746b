"""The simple recurrent network, as in PyTorch's nn.RNN and Keras' SimpleRNN.

Elman 1990, "Finding Structure in Time":

    h = activation(W x + b_ih + U h_prev + b_hh)

The default activation is tanh. The C++ version of the step is kernels/cells/rnn.cuh.
"""

import functools
from typing import Any

from gpulstm.cells import activation as activations
from gpulstm.cells.cell import Cell, Kernels

GATES, STATES = ("n",), ("h",)


def forward(xp, zx, zr, states, extra, *, activation, clip):
    """One step: zx, zr (B, H), states = (h_prev,) (B, H) -> ((h,), saved)."""
    z = zx + zr
    h = activation.forward(xp, z, clip)
    return (h,), (h, z)


def backward(xp, dstates, saved, extra, *, activation, clip):
    """dstates = (dh,) (B, H) -> (dzx, dzr, (None,), dextra); dzx is dzr, as forward uses only zx + zr."""
    (dh,), (_, z) = dstates, saved
    dz = dh * activation.slope(xp, z, clip)
    return dz, dz, (None,), ()


def cell(activation: Any = "tanh", clip: float | None = None) -> Cell:
    """Make the RNN with an activation from cells.activation; ``clip`` limits its pre-activation to [-clip, clip].

    Raises ShapeError for another activation.
    """
    chosen, clip = activations.of(activation), activations.check_clip(clip)
    options: dict[str, Any] = {"activation": chosen, "clip": clip}
    return Cell(
        "rnn",
        GATES,
        STATES,
        functools.partial(forward, **options),
        functools.partial(backward, **options),
        kernel=Kernels("rnn", "Rnn", chosen.numbers(clip)),
    )


CELL = cell()

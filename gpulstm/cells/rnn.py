"""The simple recurrent network, as PyTorch's nn.RNN and Keras' SimpleRNN have it.

Elman 1990, "Finding Structure in Time":

    h = activation(W x + b_ih + U h_prev + b_hh)

tanh is the usual activation. The step stands here as equations and, for tanh and relu, written into given buffers
for speed on NumPy. Its third form is kernels/rnn.cu.
"""

import functools
from typing import Any

import numpy as np

from gpulstm.cells import activation as activations
from gpulstm.cells.activation import Activation
from gpulstm.cells.cell import Cell, Kernels
from gpulstm.cells.inplace import Inplace

GATES, STATES = ("n",), ("h",)


def forward(xp, zx, zr, states, extra, *, activation, clip):
    """One step: zx, zr (B, H), states = (h_prev,) (B, H) -> ((h,), saved)."""
    z = zx + zr
    h = activation.forward(xp, z, clip)
    return (h,), (h, z)


def backward(xp, dstates, saved, extra, *, activation, clip):
    """dstates = (dh,) (B, H) -> (dzx, dzr, (None,), dextra); dzx is dzr, since only their sum enters."""
    (dh,), (_, z) = dstates, saved
    dz = dh * activation.slope(xp, z, clip)
    return dz, dz, (None,), ()


def inplace_tanh(s, zr):
    """``forward`` without a new array; h stands in ``after`` alone, where ``coefficients_tanh`` reads it."""
    (h,) = s.after
    np.add(s.gates, zr, out=h)
    np.tanh(h, out=h)


def coefficients_tanh(s):
    """The slopes 1 - h^2, for any number of steps at once."""
    (h,) = s.after
    np.multiply(h, h, out=s.dzx)
    np.subtract(1, s.dzx, out=s.dzx)


def inplace_relu(s, zr):
    """As ``inplace_tanh``."""
    (h,) = s.after
    np.add(s.gates, zr, out=h)
    np.maximum(h, 0, out=h)


def coefficients_relu(s):
    """The slopes: 1 where h is above 0."""
    (h,) = s.after
    np.greater(h, 0, out=s.dzx)


def inplace_backward(s, dh, direct, ds):
    """``backward`` from the coefficients; see Inplace for what is read and written."""
    s.dzx *= dh


_INPLACE = {
    Activation("tanh"): Inplace(inplace_tanh, coefficients_tanh, inplace_backward, factors=()),
    Activation("relu"): Inplace(inplace_relu, coefficients_relu, inplace_backward, factors=()),
}


def cell(activation: Any = "tanh", clip: float | None = None) -> Cell:
    """The RNN with an activation out of cells.activation; ``clip`` limits its pre-activation to [-clip, clip].

    On NumPy the step is in place for tanh and relu without a clip. Raises ShapeError for another activation.
    """
    chosen, clip = activations.of(activation), activations.check_clip(clip)
    options: dict[str, Any] = {"activation": chosen, "clip": clip}
    return Cell(
        "rnn",
        GATES,
        STATES,
        functools.partial(forward, **options),
        functools.partial(backward, **options),
        inplace=_INPLACE.get(chosen) if clip is None else None,
        kernel=Kernels("rnn", defines=chosen.defines("ACT_F", clip)),
    )


CELL = cell()

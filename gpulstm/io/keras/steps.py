"""The parts of a Keras model that gpulstm's own layers cannot be, as they also pass on the mask.

Each takes (x, mask) and returns (y, mask). x is batch first; mask is (B, T) bool on x's device, or None if every time
step is valid.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from gpulstm import nn
from gpulstm.backend import Array, backend_of
from gpulstm.errors import ShapeError
from gpulstm.io.keras.build import Backwards, flipped, merged
from gpulstm.tape import Tensor, apply


class Step(nn.Module):
    """The base class; ``label`` is what repr shows for a step without a layer."""

    label = ""

    def extra_repr(self) -> str:
        return self.label


class Symbols(Step):
    """An Embedding for which id 0 is padding (mask_zero)."""

    def __init__(self, layer: nn.Embedding) -> None:
        self.layer = layer

    def forward(self, x: Any, mask: Any = None) -> Any:
        """ids (B, T) -> vectors (B, T, D), and the mask of the ids that are not 0."""
        given = backend_of(self.layer.weight.data).asarray(x.data if isinstance(x, Tensor) else np.asarray(x))
        return self.layer(given), given != 0 if mask is None else mask


class Masking(Step):
    """Masks the time steps in which every feature has this value, and sets their features to 0."""

    def __init__(self, value: float) -> None:
        self.value, self.label = value, f"{value}"

    def forward(self, x: Tensor, mask: Any = None) -> Any:
        """x (B, T, D) -> the same, with the mask."""
        found = (x.data != self.value).any(axis=-1)
        return x * found[..., None].astype(x.dtype), found if mask is None else mask


class Recurrence(Step):
    """A recurrent layer that returns its output at every time step, or only at the last valid one.

    At a masked step Keras repeats the output before it, or returns 0 (``zeros``). To repeat the output of each
    direction separately, the layer concatenates both directions, and ``merge`` merges them afterwards.
    """

    def __init__(self, layer: Any, sequences: bool, zeros: bool, merge: str | None = None) -> None:
        self.layer, self.sequences, self.zeros, self.merge = layer, sequences, zeros, merge

    def forward(self, x: Tensor, mask: Any = None) -> Any:
        """x (B, T, D) -> (B, T, P) with the mask, or (B, P) without."""
        y, states = self.layer(x, mask=mask)
        if self.sequences:
            return self._filled(y, mask), mask
        h = states[0] if isinstance(states, tuple) else states
        if not getattr(self.layer, "bidirectional", False):
            return h[-1], None
        return merged(h[-2], h[-1], self.merge or self.layer.merge), None

    def _filled(self, y: Tensor, mask: Any) -> Tensor:
        """The output with Keras' values at masked steps."""
        half = y.shape[-1] // 2
        if mask is not None and not self.zeros:
            other = flipped(mask, 1)
            if self.merge:
                forward, backward = y[..., :half], flipped(y[..., half:], 1)
                backward = flipped(apply(held, backward, mask=other), 1)
                return merged(apply(held, forward, mask=mask), backward, self.merge)
            return apply(held, y, mask=other if isinstance(self.layer, Backwards) else mask)
        return merged(y[..., :half], y[..., half:], self.merge) if self.merge else y

    def extra_repr(self) -> str:
        return f"sequences={self.sequences}"


class Function(Step):
    """A function of x alone; ``masked`` says whether it keeps the time steps, and so the mask."""

    def __init__(self, label: str, function: Callable[[Tensor], Tensor], masked: bool = True) -> None:
        self.label, self.function, self.masked = label, function, masked

    def forward(self, x: Tensor, mask: Any = None) -> Any:
        """x -> (function of x, mask)."""
        return self.function(x), mask if self.masked else None


class EachStep(Step):
    """TimeDistributed: applies a model to every time step."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def forward(self, x: Any, mask: Any = None) -> Any:
        """x (B, T, ...) -> (B, T, ...)."""
        B, T = x.shape[:2]
        y = self.model(x.reshape(B * T, *x.shape[2:]))
        return y.reshape(B, T, *y.shape[1:]), mask


class Average(Step):
    """The mean over the valid time steps."""

    def forward(self, x: Tensor, mask: Any = None) -> Any:
        """x (B, T, D) -> (B, D)."""
        if mask is None:
            return x.mean(axis=1), None
        xp = backend_of(x.data).xp
        counts = xp.asarray(mask)[..., None].astype(x.dtype)
        return (x * counts).sum(axis=1) / counts.sum(axis=1), None


class Affine(nn.Module):
    """scale * x + shift over the last axis: a BatchNormalization in evaluation mode."""

    def __init__(self, scale: np.ndarray, shift: np.ndarray, device: Any = None) -> None:
        self.scale, self.shift = (_parameter(value, device) for value in (scale, shift))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> the same shape."""
        return x * self.scale + self.shift


class OverLast(Step):
    """A normalisation over an axis that Keras' configuration gives as a number, and that must be the last one."""

    def __init__(self, layer: nn.Module, axis: int) -> None:
        self.layer, self.axis = layer, axis

    def forward(self, x: Tensor, mask: Any = None) -> Any:
        """x (..., D) -> the same shape; raises ShapeError if ``axis`` is not the last one."""
        if self.axis != x.ndim - 1:
            raise ShapeError(f"normalisation: expected it over the last axis of {x.shape}, got axis {self.axis}")
        return self.layer(x), mask


def _parameter(value: np.ndarray, device: Any) -> nn.Parameter:
    from gpulstm.nn.initial import Initial

    return Initial(device, value.dtype, None).parameter(value)


def held(y: Array, *, mask: Array) -> tuple[Array, Callable]:
    """``z, pullback = held(y, mask=mask)``: repeat the last valid output of y (B, T, P) at the masked steps.

    mask is (B, T). Before the first valid step z is 0. ``pullback(dz)`` returns (dy,).
    """
    backend = backend_of(y)
    xp, host = backend.xp, backend_of(mask).to_numpy(mask)
    on_host = np.maximum.accumulate(np.where(host, np.arange(host.shape[1]), -1), axis=1)  # CuPy has no such function
    last, steps = backend.asarray(on_host), xp.arange(y.shape[1])  # (B, T), -1 before the first
    counts = (last >= 0)[..., None].astype(y.dtype)
    z = y[xp.arange(len(y))[:, None], xp.maximum(last, 0)] * counts

    def pullback(dz: Array) -> tuple[Array]:
        taken = (last[:, None, :] == steps[:, None]).astype(dz.dtype)  # (B, T of y, T of z)
        return (backend.matmul(taken, dz),)

    return z, pullback


def maximum(x: Array) -> tuple[Array, Callable]:
    """``y, pullback = maximum(x)``: the maximum over all time steps of x (B, T, D), masked ones too, as in Keras.

    ``pullback(dy)`` returns (dx,); among equal values the gradient goes to the first.
    """
    xp = backend_of(x).xp
    place = xp.argmax(x, axis=1)[:, None]  # (B, 1, D)

    def pullback(dy: Array) -> tuple[Array]:
        chosen = place == xp.arange(x.shape[1])[:, None]
        return (chosen.astype(dy.dtype) * dy[:, None],)

    return xp.take_along_axis(x, place, axis=1)[:, 0], pullback

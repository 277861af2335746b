"""The steps of a model out of Keras that gpulstm's own layers are not: they also pass on which steps count.

Each takes (x, mask) and gives (y, mask): x is batch first, mask (B, T) bool on x's device, or None where every step
counts.
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
    """The base of the steps; ``label`` is how repr shows those that hold no layer."""

    label = ""

    def extra_repr(self) -> str:
        return self.label


class Symbols(Step):
    """An Embedding whose symbol 0 is padding (mask_zero)."""

    def __init__(self, layer: nn.Embedding) -> None:
        self.layer = layer

    def forward(self, x: Any, mask: Any = None) -> Any:
        """ids (B, T) -> vectors (B, T, D), and the steps with another id than 0."""
        given = backend_of(self.layer.weight.data).asarray(x.data if isinstance(x, Tensor) else np.asarray(x))
        return self.layer(given), given != 0 if mask is None else mask


class Masking(Step):
    """Steps in which every feature has one value do not count; their features become 0."""

    def __init__(self, value: float) -> None:
        self.value, self.label = value, f"{value}"

    def forward(self, x: Tensor, mask: Any = None) -> Any:
        """x (B, T, D) -> the same, with the mask."""
        found = (x.data != self.value).any(axis=-1)
        return x * found[..., None].astype(x.dtype), found if mask is None else mask


class Recurrence(Step):
    """A recurrent layer: its output at every step, or at the last alone; with a mask the last step that counts.

    Where a step does not count Keras repeats the output before it, or gives 0 with ``zeros``. Where it repeats that of
    each direction, the layer gives both side by side, and ``merge`` joins them.
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
        """The output with what Keras gives for steps that do not count."""
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
    """A function of x alone; ``masked`` says whether the steps stay what they are, and with them the mask."""

    def __init__(self, label: str, function: Callable[[Tensor], Tensor], masked: bool = True) -> None:
        self.label, self.function, self.masked = label, function, masked

    def forward(self, x: Tensor, mask: Any = None) -> Any:
        """x -> (function of x, mask)."""
        return self.function(x), mask if self.masked else None


class EachStep(Step):
    """A model of its own for every step: TimeDistributed."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def forward(self, x: Any, mask: Any = None) -> Any:
        """x (B, T, ...) -> (B, T, ...)."""
        B, T = x.shape[:2]
        y = self.model(x.reshape(B * T, *x.shape[2:]))
        return y.reshape(B, T, *y.shape[1:]), mask


class Average(Step):
    """The mean over the steps that count."""

    def forward(self, x: Tensor, mask: Any = None) -> Any:
        """x (B, T, D) -> (B, D)."""
        if mask is None:
            return x.mean(axis=1), None
        xp = backend_of(x.data).xp
        counts = xp.asarray(mask)[..., None].astype(x.dtype)
        return (x * counts).sum(axis=1) / counts.sum(axis=1), None


class Affine(nn.Module):
    """scale * x + shift over the last axis: a BatchNormalization in use, with its running mean and variance."""

    def __init__(self, scale: np.ndarray, shift: np.ndarray, device: Any = None) -> None:
        self.scale, self.shift = (_parameter(value, device) for value in (scale, shift))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> the same shape."""
        return x * self.scale + self.shift


class OverLast(Step):
    """A normalisation over the last axis, which Keras' configuration names by its number."""

    def __init__(self, layer: nn.Module, axis: int) -> None:
        self.layer, self.axis = layer, axis

    def forward(self, x: Tensor, mask: Any = None) -> Any:
        """x (..., D) -> the same shape; raises ShapeError where ``axis`` is not the last."""
        if self.axis != x.ndim - 1:
            raise ShapeError(f"normalisation: expected it over the last axis of {x.shape}, got axis {self.axis}")
        return self.layer(x), mask


def _parameter(value: np.ndarray, device: Any) -> nn.Parameter:
    from gpulstm.nn.initial import Initial

    return Initial(device, value.dtype, None).parameter(value)


def held(y: Array, *, mask: Array) -> tuple[Array, Callable]:
    """``z, pullback = held(y, mask=mask)``: y (B, T, P) with the last output that counts at every step (0 before the
    first) and mask (B, T); ``pullback(dz)`` returns (dy,)."""
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
    """``y, pullback = maximum(x)``: the largest over the steps of x (B, T, D), all of them whatever counts, as in
    Keras; ``pullback(dy)`` returns (dx,), for the first of equal ones."""
    xp = backend_of(x).xp
    place = xp.argmax(x, axis=1)[:, None]  # (B, 1, D)

    def pullback(dy: Array) -> tuple[Array]:
        chosen = place == xp.arange(x.shape[1])[:, None]
        return (chosen.astype(dy.dtype) * dy[:, None],)

    return xp.take_along_axis(x, place, axis=1)[:, 0], pullback

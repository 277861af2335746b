"""Splits batches and states along the axis of their sequences, one part for each process."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from gpulstm.backend import backend_of
from gpulstm.errors import ShapeError
from gpulstm.parallel.group import Group
from gpulstm.shares import Share
from gpulstm.tape import Tensor, raw

Axes = Any  # the axes of the sequences: structured like a batch, with one axis per array or per part of the batch


class Part(NamedTuple):
    """One process's part of a batch; a process without sequences gets the first one, which does not count."""

    batch: Any
    share: Share | None  # None: all of it
    counts: bool = True


class Splitter:
    """Gives each process its part of every batch of a data set.

    A data set with ``share(rank, size)``, such as ``gl.data.Streams``, makes the parts itself. Of other data sets every
    process draws the whole batch and keeps its own sequences. Their axis is the data set's attribute ``batch_axes``;
    without that, ``axes``.
    """

    def __init__(self, group: Group, batches: Any, axes: Axes = None) -> None:
        self._group, self._axes = group, getattr(batches, "batch_axes", axes)
        self._whole = 0  # sequences per batch if the data set makes the parts, else 0
        self.batches = batches
        if group.size > 1 and hasattr(batches, "share") and getattr(batches, "streams", 0) >= group.size:
            self._whole, self.batches = batches.streams, batches.share(group.rank, group.size)
            self.batches.load_state_dict(batches.next_pass())

    def __call__(self, batch: Any) -> Part:
        """This process's part. Raises ShapeError if the axes of the sequences are not known or do not fit."""
        if self._group.size == 1:
            return Part(batch, None)
        if self._whole:
            return Part(batch, self._share(self._whole, self._axes == 0))
        if self._axes is None:
            raise ShapeError(
                "batch_axes: expected the axis of the sequences in the arrays of a batch, got None; call "
                "gl.parallel.init(batch_axes=1) for arrays (T, B, ...), batch_axes=0 for (B, ...)"
            )
        arrays = list(_arrays(batch, self._axes))
        sizes = {array.shape[axis] for array, axis in arrays}
        if len(sizes) != 1 or 0 in sizes:
            want = "the same number of sequences in all arrays, at least 1"
            raise ShapeError(f"batch: expected {want}, got {sorted(sizes)}")
        share = self._share(sizes.pop(), all(axis == 0 for _, axis in arrays))
        counts = share.count > 0
        if not counts:  # it still computes, to draw the same random numbers as the others
            share = replace(share, first=0, count=1)
        return Part(_cut(batch, self._axes, share.first, share.first + share.count), share, counts)

    def arrays(self, batch: Any) -> list[Any]:
        """The arrays of a batch; none if the data set makes the parts, as they then differ between processes."""
        return [] if self._whole else [array for array, _ in _arrays(batch, self._axes)]

    def _share(self, whole: int, batch_first: bool) -> Share:
        first, last = _bounds(self._group, whole)
        return Share(first, last - first, whole, batch_first)


def gathered(group: Group, state: Any) -> Any:
    """Join the carried states of all processes, on the host: arrays (layers, B, H) or (B, H)."""
    if group.size == 1:
        return state
    _sequences(state)

    def join(array: Any, axis: int) -> Any:
        own = raw(array)
        whole = np.concatenate(group.gather(backend_of(own).to_numpy(own)), axis)
        return Tensor(whole) if isinstance(array, Tensor) else whole

    return _mapped(state, _state_axis, join)


def own_part(group: Group, state: Any) -> Any:
    """This process's part of a state that ``gathered`` joined."""
    whole = 0 if group.size == 1 else _sequences(state)
    if whole == 0:
        return state
    return _cut(state, _state_axis, *_bounds(group, whole))


def _sequences(state: Any) -> int:
    """The number of sequences in a state; 0 for a state without arrays."""
    sizes = {array.shape[axis] for array, axis in _arrays(state, _state_axis)}
    if len(sizes) > 1:
        want = "arrays (layers, B, H) or (B, H) with the same number of sequences B"
        raise ShapeError(f"state: expected {want}, to split them between processes, got {sorted(sizes)}")
    return sizes.pop() if sizes else 0


def _state_axis(array: Any) -> int:
    return 1 if array.ndim > 2 else 0


def _bounds(group: Group, whole: int) -> tuple[int, int]:
    return whole * group.rank // group.size, whole * (group.rank + 1) // group.size


def _cut(batch: Any, axes: Axes, first: int, last: int) -> Any:
    return _mapped(batch, axes, lambda array, axis: array[(slice(None),) * axis + (slice(first, last),)])


def _arrays(nest: Any, axes: Axes) -> Iterator[tuple[Any, int]]:
    """Each array with its axis."""
    found: list[tuple[Any, int]] = []
    _mapped(nest, axes, lambda array, axis: found.append((array, axis)))
    return iter(found)


def _mapped(nest: Any, axes: Axes, of: Callable[[Any, int], Any]) -> Any:
    """The same nested tuples, lists and dicts with ``of(array, axis)`` in place of each array.

    The axis of a one-dimensional array is 0. Where ``axes`` is None nothing is changed.
    """
    if axes is None:
        return nest
    if hasattr(nest, "shape") and hasattr(nest, "dtype"):
        return of(nest, axes(nest) if callable(axes) else min(axes, nest.ndim - 1)) if nest.ndim else nest
    if isinstance(nest, dict):
        return {name: _mapped(part, axes[name] if isinstance(axes, dict) else axes, of) for name, part in nest.items()}
    if isinstance(nest, list | tuple):
        each = axes if isinstance(axes, list | tuple) else [axes] * len(nest)
        if len(each) != len(nest):
            raise ShapeError(f"batch_axes: expected {len(nest)} axes, one per part of a batch, got {len(each)}")
        parts = [_mapped(part, axis, of) for part, axis in zip(nest, each, strict=True)]
        if isinstance(nest, list):
            return parts
        return type(nest)(*parts) if hasattr(nest, "_fields") else tuple(parts)
    return nest

"""The share of a batch that this process computes, and the numbers of an array's random draws.

Several processes that train on one batch together (gpulstm/parallel) drop the same elements as one process with the
whole batch. For this, each element has the number of its position in the whole batch, on whichever process it is, and
its random draw depends on that number.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NamedTuple

from gpulstm.errors import ShapeError


class Draws(NamedTuple):
    """The numbers of an array's draws: element k, in C order, has number ``first + k // run * step + k % run``."""

    first: int
    run: int
    step: int

    def runs(self, size: int, most: int) -> Iterator[tuple[int, int, int]]:
        """Yield (k, number, length): elements k, k + 1, ... have number, number + 1, ...; length <= ``most``."""
        k = 0
        while k < size:
            row, within = divmod(k, self.run)
            length = min(most, self.run - within, size - k)
            yield k, self.first + row * self.step + within, length
            k += length


def plain_draws(size: int, first: int = 0) -> Draws:
    """The draws of an array of this size, numbered first, first + 1, ..."""
    return Draws(first, max(size, 1), max(size, 1))


@dataclass(frozen=True)
class Share:
    """The sequences first, ..., first + count - 1 of a batch of ``whole``; the data set sets ``batch_first``."""

    first: int
    count: int
    whole: int
    batch_first: bool = False

    def draws(self, shape: tuple[int, ...], axis: int, before: int = 0) -> Draws:
        """The draws of an array whose ``axis`` is this share of the batch; ``before`` rows precede the array.

        Raises ShapeError if the array has another number of sequences.
        """
        if shape[axis] != self.count:
            raise ShapeError(f"batch: expected {self.count}, this process's share of {self.whole}, got {shape[axis]}")
        rest = 1
        for size in shape[axis + 1 :]:
            rest *= size
        step = self.whole * rest
        return Draws(before * step + self.first * rest, max(shape[axis] * rest, 1), max(step, 1))

    def axis_of(self, shape: tuple[int, ...], known: int | None = None) -> int:
        """Find the batch axis of an array in the model by its size; if two axes have that size, use the ``known`` one.

        Axis 0 may also hold the rows of whole batches, (T * B, ...). If both axes fit, and the data are (T, B, ...), an
        array of three dimensions or more is assumed to be (T, B, ...). Raises ShapeError if no axis fits, or if two fit
        and none is known.
        """
        fits = [axis for axis in (0, 1) if shape[axis : axis + 1] == (self.count,)]
        if len(shape) < 3 and 0 not in fits and self._steps_of(shape):
            fits.append(0)
        if known is None and len(shape) > 2 and not self.batch_first:
            known = 1
        if len(fits) > 1 and known in fits:
            fits = [known]
        if len(fits) != 1:
            what = "tell which axis is the batch axis" if fits else "find the batch axis"
            raise ShapeError(
                f"Dropout in one of several processes: cannot {what} in shape {shape}; this process has "
                f"{self.count} of {self.whole} sequences; use gl.Dropout(..., batch_axis=1) for (T, B, ...), 0 for "
                "(B, ...), or None for an array without a batch axis"
            )
        return fits[0]

    def draws_of(self, shape: tuple[int, ...], axis: int) -> Draws:
        """The draws of an array in the model.

        With axis 0 the array may also have rows (T * B, ...), or (B * T, ...) with ``batch_first``.
        """
        if not -len(shape) <= axis < len(shape):
            raise ShapeError(f"batch_axis: expected an axis of an array {shape}, got {axis}")
        axis %= len(shape)
        if axis == 0 and shape[0] != self.count and (steps := self._steps_of(shape)):
            whole = (1, self.count, steps) if self.batch_first else (steps, self.count)
            return self.draws((*whole, *shape[1:]), 1)
        return self.draws(shape, axis)

    def _steps_of(self, shape: tuple[int, ...]) -> int:
        """The number of whole batches in the rows of axis 0, or 0 if they do not fit."""
        return shape[0] // self.count if shape and self.count and shape[0] % self.count == 0 else 0


_share: ContextVar[Share | None] = ContextVar("gpulstm_share", default=None)


def current() -> Share | None:
    """The current share; None if this process computes whole batches.

    A share has ``first``, ``count`` and ``whole``: the sequences of the whole batch that this process computes. It
    raises no errors.

    >>> gl.parallel.share() is None
    True
    """
    return _share.get()


@contextmanager
def computing(share: Share | None) -> Iterator[None]:
    """In this block, the model computes this share of a batch; None means the whole batch."""
    before = _share.set(share)
    try:
        yield
    finally:
        _share.reset(before)

"""The share of a batch that this process computes, and the numbers of the random draws of an array.

Several processes that train on one batch together (gpulstm/parallel) drop the same elements as one process with the
whole batch: an element's draw is numbered by its place in the whole batch, wherever it is computed.
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
        """(k, number, length): the elements k, k + 1, ... have number, number + 1, ...; no run is longer than most."""
        k = 0
        while k < size:
            row, within = divmod(k, self.run)
            length = min(most, self.run - within, size - k)
            yield k, self.first + row * self.step + within, length
            k += length


def plain_draws(size: int, first: int = 0) -> Draws:
    """The draws of an array of that size: first, first + 1, ..."""
    return Draws(first, max(size, 1), max(size, 1))


@dataclass(frozen=True)
class Share:
    """The sequences first, ..., first + count - 1 of a batch of ``whole``; ``batch_first`` as its data set says."""

    first: int
    count: int
    whole: int
    batch_first: bool = False

    def draws(self, shape: tuple[int, ...], axis: int, before: int = 0) -> Draws:
        """The draws of an array whose ``axis`` has this share of the batch; ``before`` rows came before it.

        Raises ShapeError for an array of another number of sequences.
        """
        if shape[axis] != self.count:
            raise ShapeError(f"batch: want {self.count}, this process's share of {self.whole}, got {shape[axis]}")
        rest = 1
        for size in shape[axis + 1 :]:
            rest *= size
        step = self.whole * rest
        return Draws(before * step + self.first * rest, max(shape[axis] * rest, 1), max(step, 1))

    def draws_of(self, shape: tuple[int, ...]) -> Draws:
        """The draws of an array of the model's, whose batch is found by its size.

        That is the axis of the batch in (T, B, ...) or (B, ...), with ``batch_first`` in (B, T, ...). Rows of whole
        batches, (T * B, ...), are taken for T batches. Raises ShapeError where no axis fits.
        """
        likely = [1, 0] if len(shape) > 2 and not self.batch_first else [0, 1]
        for axis in likely[: len(shape)]:
            if shape[axis] == self.count:
                return self.draws(shape, axis)
        if shape and self.count and shape[0] % self.count == 0:
            rows = shape[0] // self.count
            whole = (rows, self.count) if not self.batch_first else (1, self.count, rows)
            return self.draws((*whole, *shape[1:]), 1)
        raise ShapeError(
            f"dropout in one of several processes: want an array with {self.count} sequences, this process's share of "
            f"a batch of {self.whole}, got shape {shape}"
        )


_share: ContextVar[Share | None] = ContextVar("gpulstm_share", default=None)


def current() -> Share | None:
    """The share in force here; None where a process computes whole batches."""
    return _share.get()


@contextmanager
def computing(share: Share | None) -> Iterator[None]:
    """A block that computes this share of a batch; None for all of it."""
    before = _share.set(share)
    try:
        yield
    finally:
        _share.reset(before)

"""Draws the batches of a run: pass after pass over the data, in groups of one step each."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from gpulstm.errors import DTypeError, ShapeError
from gpulstm.train.plan import Memory

END = object()


def check_batches(name: str, batches: Any, again: str = "") -> None:
    """Raise DTypeError for anything but an iterable of batches; ``again`` is the reason to refuse an iterator too."""
    iterable = hasattr(batches, "__iter__") or hasattr(batches, "__getitem__")
    if isinstance(batches, str | bytes | dict | type) or not iterable:
        what = "a dict; put a batch into a list" if isinstance(batches, dict) else type(batches).__name__
        raise DTypeError(f"{name}: expected an iterable of batches, e.g. a list or gl.data.Batches, got {what}")
    if again and isinstance(batches, Iterator):
        raise DTypeError(
            f"{name}: expected batches that can be iterated over again, e.g. a list or gl.data.Batches, as {again}; "
            f"got a {type(batches).__name__}, which can be iterated over only once"
        )


class Source:
    """Draws groups of batches, and counts them in ``memory.drawn`` and ``memory.epoch``."""

    def __init__(self, batches: Iterable[Any], group: int, memory: Memory) -> None:
        self.batches, self._group, self._memory = batches, group, memory
        try:
            self.length: int | None = len(batches)  # type: ignore[arg-type]
        except (TypeError, NotImplementedError):
            self.length = None
        self._pass: Iterator[Any] | None = None

    @property
    def steps(self) -> int | None:
        """The steps per epoch, None if the batches have no length."""
        return None if self.length is None else -(-self.length // self._group)

    def draw(self) -> tuple[list[Any], bool]:
        """The batches of the next step, and whether the pass has ended.

        If the batches have no length, the end of a pass may come alone, without a batch. Raises ShapeError for a pass
        without batches, and for more batches than ``len`` says.
        """
        memory = self._memory
        if self._pass is None:
            self._pass = self._begin()
        group = list(itertools.islice(self._pass, self._group))
        memory.drawn += len(group)
        ended = len(group) < self._group
        if memory.drawn == self.length and not ended:
            if next(self._pass, END) is not END:
                raise ShapeError(f"batches: expected {self.length} in a pass, as their len() says, got more")
            ended = True
        if ended:
            self._end()
        return group, ended

    def _begin(self) -> Iterator[Any]:
        """A new pass, without the batches that a resumed run has already used."""
        skip = 0 if hasattr(self.batches, "load_state_dict") else self._memory.drawn
        return itertools.islice(self.batches, skip, None)

    def _end(self) -> None:
        memory = self._memory
        if memory.drawn == 0:
            once = "; an iterator gives its batches only once, give a list or gl.data.Batches"
            why = once if memory.epoch and isinstance(self.batches, Iterator) else ""
            raise ShapeError(f"batches: expected at least one in every pass, got none{why}")
        memory.epoch, memory.drawn, self._pass = memory.epoch + 1, 0, None

"""What the processes of a group do together in a training run: a step's counts and gradients, means, and states."""

import zlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from gpulstm import random
from gpulstm.backend import backend_of
from gpulstm.errors import ProcessError
from gpulstm.parallel import current
from gpulstm.parallel.gradients import Gradients
from gpulstm.parallel.split import Part, Splitter, gathered
from gpulstm.tape import Tensor, watching

Row = list[float]  # the count of a batch's items, its loss, its metrics


class Team:
    """The group's part in one run, or in one evaluation, over a data set; alone every method does nothing."""

    def __init__(self, batches: Any) -> None:
        self.group = current.group()
        self._split = Splitter(self.group, batches, current.batch_axes())
        self.batches = self._split.batches
        self._gradients: Gradients | None = None
        self._of: list[int] = []  # the parameters of the gradients

    @property
    def alone(self) -> bool:
        """Whether this process is the only one."""
        return self.group.size == 1

    def part(self, batch: Any) -> Part:
        """This process's part of a batch."""
        return self._split(batch)

    def agree(self, *numbers: float) -> list[float]:
        """The sum of each number over all processes."""
        return [*numbers] if self.alone else self.group.sum(numbers).tolist()

    # -- gradients ---------------------------------------------------------------------------------------------------

    def watching(self, parameters: Sequence[Tensor]) -> AbstractContextManager[None]:
        """A block for the last backward pass of a step, in which gradients are sent as they come."""
        if self.alone:
            return nullcontext()
        if self._of != (now := [id(p) for p in parameters if p.requires_grad]):
            self._gradients, self._of = Gradients(self.group, parameters), now
        assert self._gradients is not None
        return watching(self._gradients.ready)

    def sum_gradients(self) -> None:
        """Make the gradient of every parameter the sum over all processes."""
        if self._gradients is not None:
            self._gradients.sum()

    # -- numbers -----------------------------------------------------------------------------------------------------

    def means(self, rows: list[Row]) -> list[Row]:
        """The rows of whole batches from those of their parts: the counts added, of the rest the weighted means."""
        if self.alone or not rows:
            return rows
        table = np.array(rows, np.float64)
        counts = table[:, :1]
        sums = self.group.sum(np.hstack([counts, np.where(counts > 0, counts * table[:, 1:], 0)]))
        with np.errstate(invalid="ignore"):
            return np.hstack([sums[:, :1], sums[:, 1:] / sums[:, :1]]).tolist()

    def reason(self, reason: str) -> str:
        """The first reason that a process has to end the run; "" where none has."""
        return next(filter(None, self.group.gather(reason)), "")

    # -- states ------------------------------------------------------------------------------------------------------

    def whole_state(self, state: Any) -> Any:
        """The carried state of all processes, on the host."""
        return gathered(self.group, state)

    def begin(self, model: Any, generator: np.random.Generator, *data: Any) -> None:
        """Begin as rank 0 does: with its parameters, its generator and the order of its data."""
        if self.alone:
            return
        parts = [one for one in (model, *data) if hasattr(one, "load_state_dict")]
        states, drawn = self.group.broadcast(
            ([_on_host(one.state_dict()) for one in parts], random.generator_state(generator))
        )
        if not self.group.is_root:
            for one, state in zip(parts, states, strict=True):
                one.load_state_dict(state)
            random.set_generator_state(generator, drawn)

    def check_alike(self, arrays: dict[str, Any]) -> None:
        """Raise ProcessError, naming the ranks, where the parameters of processes are not the same bits."""
        if self.alone:
            return
        digest = 0
        for array in arrays.values():
            digest = zlib.crc32(backend_of(array).to_numpy(array).tobytes(), digest)
        digests = self.group.gather(digest)
        if other := [rank for rank, one in enumerate(digests) if one != digests[0]]:
            names = ", ".join(map(self.group.name, other))
            raise ProcessError(f"parameters: want the same bits in all processes, got others than rank 0's in {names}")


def _on_host(state: Any) -> Any:
    if isinstance(state, dict):
        return {name: _on_host(value) for name, value in state.items()}
    return backend_of(state).to_numpy(state) if hasattr(state, "dtype") and hasattr(state, "shape") else state

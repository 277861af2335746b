"""The joint work of a group's processes in a training run: counts and gradients of a step, means, and states."""

import zlib
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from gpulstm import random
from gpulstm.backend import backend_of
from gpulstm.errors import GpulstmError, ProcessError
from gpulstm.parallel import current
from gpulstm.parallel.gradients import Gradients
from gpulstm.parallel.split import Part, Splitter, gathered
from gpulstm.tape import Tensor, increment_version, no_grad, watching

Row = list[float]  # the count of a batch's items, its loss, its metrics


class Team:
    """The joint work of the group in one run or evaluation over a data set; for a single process it does nothing."""

    def __init__(self, batches: Any) -> None:
        self.group = current.group()
        self._split = Splitter(self.group, batches, current.batch_axes())
        self.batches = self._split.batches
        self._gradients: Gradients | None = None
        self._of: list[int] = []  # the ids of their parameters

    @property
    def alone(self) -> bool:
        """Whether this process is the only one."""
        return self.group.size == 1

    def part(self, batch: Any) -> Part:
        """This process's part of a batch."""
        return self._split(batch)

    def arrays(self, batch: Any) -> list[Any]:
        """The arrays of a batch that every process draws whole."""
        return self._split.arrays(batch)

    def agree(self, *numbers: float) -> list[float]:
        """The sum of each number over all processes."""
        return [*numbers] if self.alone else self.group.sum(numbers).tolist()

    # -- gradients ---------------------------------------------------------------------------------------------------

    def gradients_of(self, parameters: Sequence[Tensor]) -> None:
        """Prepare to sum the gradients of the parameters with requires_grad; all processes call this together."""
        self._gradients, self._of = Gradients(self.group, parameters), _wanted(parameters)

    def is_new(self, parameters: Sequence[Tensor]) -> bool:
        """Whether these parameters, or those of them that are frozen, differ from the last ``gradients_of``."""
        return self._of != _wanted(parameters)

    def watching(self) -> AbstractContextManager[None]:
        """A context for the last backward pass of a step: gradients are summed as soon as they are ready."""
        return nullcontext() if self._gradients is None else watching(self._gradients.ready)

    def sum_gradients(self) -> None:
        """Make the gradient of every parameter the sum over all processes."""
        if self._gradients is not None:
            self._gradients.sum()

    # -- numbers -----------------------------------------------------------------------------------------------------

    def means(self, rows: list[Row]) -> list[Row]:
        """The rows of whole batches from the rows of their parts: summed counts, and weighted means of the rest."""
        if self.alone or not rows:
            return rows
        table = np.array(rows, np.float64)
        counts = table[:, :1]
        sums = self.group.sum(np.hstack([counts, np.where(counts > 0, counts * table[:, 1:], 0)]))
        with np.errstate(invalid="ignore"):
            return np.hstack([sums[:, :1], sums[:, 1:] / sums[:, :1]]).tolist()

    def reason(self, reason: str) -> str:
        """The first reason of any process to end the run; "" if there is none."""
        return next(filter(None, self.group.gather(reason)), "")

    # -- states ------------------------------------------------------------------------------------------------------

    def whole_state(self, state: Any) -> Any:
        """The carried state of all processes, on the host."""
        return gathered(self.group, state)

    def begin(self, parts: Sequence[Any], parameters: Sequence[Tensor], generator: np.random.Generator) -> None:
        """Take over rank 0's states of the parts, values of the parameters, and state of the generator."""
        if self.alone:
            return
        parts = [one for one in parts if hasattr(one, "state_dict") and hasattr(one, "load_state_dict")]
        states = [_on_host(getattr(one, "next_pass", one.state_dict)()) for one in parts]
        values = [_on_host(parameter.data) for parameter in parameters]
        states, values, drawn = self.group.broadcast((states, values, random.generator_state(generator)))
        random.set_generator_state(generator, drawn)
        for one, state in zip(parts, states, strict=True):
            if not self.group.is_root or hasattr(one, "next_pass"):
                try:
                    one.load_state_dict(state)
                except GpulstmError as error:
                    raise ProcessError(
                        f"{type(one).__name__}: expected the same as on rank 0, got a different one: {error}"
                    ) from error
        for parameter, value in zip(parameters, values, strict=True):
            with backend_of(parameter.data) as backend, no_grad():
                parameter.data[...] = backend.asarray(value)
            increment_version(parameter)


def digest(arrays: Iterable[Any]) -> int:
    """A checksum of the bits of arrays."""
    number = 0
    for array in arrays:
        number = zlib.crc32(backend_of(array).to_numpy(array).tobytes(), number)
    return number


def _wanted(parameters: Sequence[Tensor]) -> list[int]:
    return [id(parameter) for parameter in parameters if parameter.requires_grad]


def _on_host(state: Any) -> Any:
    if isinstance(state, dict):
        return {name: _on_host(value) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(map(_on_host, state))
    return backend_of(state).to_numpy(state) if hasattr(state, "dtype") and hasattr(state, "shape") else state

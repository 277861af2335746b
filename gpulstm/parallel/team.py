"""What the processes of a group do together in a training run: a step's counts and gradients, means, and states."""

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

    def arrays(self, batch: Any) -> list[Any]:
        """The arrays of a batch that all processes draw as a whole."""
        return self._split.arrays(batch)

    def agree(self, *numbers: float) -> list[float]:
        """The sum of each number over all processes."""
        return [*numbers] if self.alone else self.group.sum(numbers).tolist()

    # -- gradients ---------------------------------------------------------------------------------------------------

    def gradients_of(self, parameters: Sequence[Tensor]) -> None:
        """Prepare the sums of the gradients of those that require one; all processes call it together."""
        self._gradients, self._of = Gradients(self.group, parameters), _wanted(parameters)

    def is_new(self, parameters: Sequence[Tensor]) -> bool:
        """Whether ``gradients_of`` has been called for other parameters, or with others frozen."""
        return self._of != _wanted(parameters)

    def watching(self) -> AbstractContextManager[None]:
        """A block for the last backward pass of a step, in which gradients are sent as they come."""
        return nullcontext() if self._gradients is None else watching(self._gradients.ready)

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

    def begin(self, parts: Sequence[Any], parameters: Sequence[Tensor], generator: np.random.Generator) -> None:
        """Begin as rank 0 does: with the state of each part, the values of the parameters, and the generator."""
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
                        f"{type(one).__name__}: expected one like rank 0's, got another: {error}"
                    ) from error
        for parameter, value in zip(parameters, values, strict=True):
            with backend_of(parameter.data) as backend, no_grad():
                parameter.data[...] = backend.asarray(value)
            increment_version(parameter)


def digest(arrays: Iterable[Any]) -> int:
    """A number that stands for the bits of arrays."""
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

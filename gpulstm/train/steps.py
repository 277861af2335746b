"""The gradient of a step: forward and backward passes over its batches, in one process or in several."""

import math
import zlib
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from gpulstm import random, shares
from gpulstm.errors import ShapeError
from gpulstm.parallel.split import Part
from gpulstm.parallel.team import Team, digest
from gpulstm.train.axes import Axes
from gpulstm.train.batch import ADVICE
from gpulstm.train.checkpoint import detached
from gpulstm.train.interrupt import SIGNALS, Interrupt
from gpulstm.train.plan import Memory
from gpulstm.train.recorder import Recorder

if TYPE_CHECKING:
    from gpulstm.train.trainer import Trainer


class Steps:
    """The steps of one run. Each process computes its parts of the batches; all share gradients, counts and signals."""

    def __init__(
        self, trainer: "Trainer", team: Team, recorder: Recorder, memory: Memory, axes: Axes, interrupt: Interrupt
    ) -> None:
        self._trainer, self._team, self._recorder, self._memory = trainer, team, recorder, memory
        self._axes, self._interrupt = axes, interrupt
        self._agreed = 0  # the signal that all processes will stop for
        self._first = True  # whether the next step is the first of this run

    @property
    def signal(self) -> int | None:
        """The number of the signal that stops the run; with several processes, one that all of them know of."""
        return self._interrupt.number if self._team.alone else self._agreed

    def differentiate(self, group: list[Any]) -> None:
        """Store in the parameters the gradient of the mean loss over all items of the group's batches."""
        trainer, memory, team = self._trainer, self._memory, self._team
        parts = [team.part(batch) for batch in group]
        counts = [trainer.count(part.batch, may_be_empty=not team.alone) if part.counts else 0 for part in parts]
        whole = sum(map(float, counts)) if len(counts) > 1 else None  # one batch of one process needs no weight
        if not team.alone:
            whole = self._agree(group, sum(map(float, counts)))
        trainer.zero_grad()
        for part, count in zip(parts, counts, strict=True):
            weight = None if whole is None else float(count) / whole
            with shares.computing(part.share):
                loss, state, values = trainer.compute(part.batch, memory.state, self._axes)
            self._check_state(part, state)
            if weight != 0:  # a part without items is computed only to draw the same random numbers
                with team.watching() if part is parts[-1] else nullcontext():
                    (loss if trainer.scaler is None else trainer.scaler.scale(loss)).backward(weight)
            memory.state = detached(state)
            self._recorder.add(memory.step + 1, [count, math.nan if weight == 0 else loss.data, *values])
        team.sum_gradients()

    def check_alike(self) -> None:
        """Raise ProcessError if the parameters or random generators of the processes are no longer the same."""
        trainer, group = self._trainer, self._team.group
        if group.size > 1:
            group.check_same("random generator", random.generator_state(trainer.generator))
            group.check_same("parameters", digest(parameter.data for parameter in parameters_of(trainer)))

    def _agree(self, group: list[Any], items: float) -> float:
        """Return the number of items in all processes' parts.

        In the same exchange the processes check that all of them are about to do the same step, and share signals and
        the news that parameters were frozen.
        """
        team, parameters = self._team, parameters_of(self._trainer)
        facts = self._facts(group)
        check = zlib.crc32(repr(facts).encode()) % 2**16
        came = [self._interrupt.number == number for number in SIGNALS]
        sums = team.agree(items, team.is_new(parameters), check, check**2, *came)
        whole, new, checks, squares, *signals = sums
        if team.group.size * squares != checks**2:  # not all the same
            team.group.check_same("position in the data, learning rate, shapes and first batch", facts)
        if new:
            team.gradients_of(parameters)
        self._agreed = next((number for number, sent in zip(SIGNALS, signals, strict=True) if sent), 0)
        if whole == 0:
            raise ShapeError(f"batch: expected at least one item for the loss to average over, got none; {ADVICE}")
        return whole

    def _facts(self, group: list[Any]) -> tuple:
        """Facts that must be the same in all processes in this step; in the first step also the arrays' contents."""
        arrays = [array for batch in group for array in self._team.arrays(batch)]
        held = digest(arrays) if self._first else None
        self._first = False
        place = self._memory.epoch, self._memory.drawn, self._trainer.optimizer.lr
        return (*place, [array.shape for array in arrays], held)

    def _check_state(self, part: Part, state: Any) -> None:
        processes = self._team.group.size
        if state is not None and part.share is not None and part.share.whole < processes:
            want = f"at least {processes} sequences, one for each process, as the state is carried on"
            raise ShapeError(f"batch: expected {want}, got {part.share.whole}")


def parameters_of(trainer: "Trainer") -> list[Any]:
    """The parameters of the model, and those that only the optimiser has."""
    groups = getattr(trainer.optimizer, "param_groups", [])
    return list(dict.fromkeys([*trainer.model.parameters(), *(p for one in groups for p in one["params"])]))

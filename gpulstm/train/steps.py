"""The gradient of a step: the batches' losses forward and backward, of one process or of several."""

import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from gpulstm import shares
from gpulstm.errors import ShapeError
from gpulstm.parallel.team import Team
from gpulstm.train.axes import Axes
from gpulstm.train.batch import ADVICE
from gpulstm.train.checkpoint import detached
from gpulstm.train.interrupt import SIGNALS, Interrupt
from gpulstm.train.plan import Memory
from gpulstm.train.recorder import Recorder

if TYPE_CHECKING:
    from gpulstm.train.trainer import Trainer


class Steps:
    """The steps of one run. A process computes its parts of the batches; gradients, counts and signals are shared."""

    def __init__(
        self, trainer: "Trainer", team: Team, recorder: Recorder, memory: Memory, axes: Axes, interrupt: Interrupt
    ) -> None:
        self._trainer, self._team, self._recorder, self._memory = trainer, team, recorder, memory
        self._axes, self._interrupt = axes, interrupt
        self._agreed = 0  # the signal by which all processes are to stop

    @property
    def signal(self) -> int | None:
        """The number of the signal by which the run is to stop, of several processes one that all know of."""
        return self._interrupt.number if self._team.alone else self._agreed

    def differentiate(self, group: list[Any]) -> None:
        """Into the parameters, the gradient of the mean loss over all items of the group's batches."""
        trainer, memory, team = self._trainer, self._memory, self._team
        parts = [team.part(batch) for batch in group]
        counts = [trainer.count(part.batch, may_be_empty=not team.alone) if part.counts else 0 for part in parts]
        whole = self._whole(counts)
        trainer.zero_grad()
        for part, count in zip(parts, counts, strict=True):
            weight = None if whole is None else float(count) / whole
            last = part is parts[-1]
            with shares.computing(part.share), team.watching(self._parameters()) if last else nullcontext():
                loss, state, values = trainer.compute(part.batch, memory.state, self._axes)
                if weight != 0:  # a part without items was computed for its draws alone
                    (loss if trainer.scaler is None else trainer.scaler.scale(loss)).backward(weight)
            if state is not None and part.share is not None and part.share.whole < team.group.size:
                want = f"at least {team.group.size} sequences, one for each process, where a state is carried on"
                raise ShapeError(f"batch: want {want}, got {part.share.whole}")
            memory.state = detached(state)
            self._recorder.add(memory.step + 1, [count, math.nan if weight == 0 else loss.data, *values])
        team.sum_gradients()

    def _whole(self, counts: list[Any]) -> float | None:
        """The items of all processes' parts; on the way they tell one another of signals.

        None for one batch of one process, which needs no weight: its count may stay on the device.
        """
        if self._team.alone:
            return sum(map(float, counts)) if len(counts) > 1 else None
        came = [self._interrupt.number == number for number in SIGNALS]
        whole, *signals = self._team.agree(sum(map(float, counts)), *came)
        self._agreed = next((number for number, sent in zip(SIGNALS, signals, strict=True) if sent), 0)
        if whole == 0:
            raise ShapeError(f"batch: want at least one item for the loss to average over, got none; {ADVICE}")
        return whole

    def _parameters(self) -> list[Any]:
        """Those of the model and, beside them, of the optimiser."""
        groups = getattr(self._trainer.optimizer, "param_groups", [])
        return list(dict.fromkeys([*self._trainer.model.parameters(), *(p for one in groups for p in one["params"])]))

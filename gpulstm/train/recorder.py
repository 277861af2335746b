"""The records of a run: means over the batches since the last record, and the time they took."""

import math
import time
from collections.abc import Callable
from typing import Any

from gpulstm.errors import NotFinite
from gpulstm.parallel.team import Team
from gpulstm.train.plan import Memory
from gpulstm.train.rows import Row, means, to_host


class Recorder:
    """Collects one row of numbers per batch, and makes records of them in ``memory.history``.

    The rows stay on the device until they are read, so that no step waits for it.
    """

    def __init__(self, memory: Memory, names: list[str], good: Callable[[], str], team: Team) -> None:
        """``names`` are the names of a row's numbers after the count; ``good()`` describes the last good checkpoint.

        The rows are those of this process's parts of the batches.
        """
        self._memory, self._names, self._good, self._team = memory, names, good, team
        self._unread: list[tuple[int, Row]] = []  # (step, row)
        self._clock = time.perf_counter()
        self._first_step, self._first_seconds = memory.step, memory.seconds

    def add(self, step: int, row: Row) -> None:
        """Add the row of a batch."""
        self._unread.append((step, row))

    @property
    def is_due(self) -> bool:
        """Whether there are batches since the last record."""
        return bool(self._unread or self._memory.rows)

    @property
    def pace(self) -> float:
        """Seconds per step since the run began or was resumed."""
        return (self._memory.seconds - self._first_seconds) / max(self._memory.step - self._first_step, 1)

    def tick(self, training: bool) -> None:
        """Add the time since the last tick to the run's time and, if it was spent training, to the record's."""
        now = time.perf_counter()
        self._memory.seconds += now - self._clock
        self._memory.train_seconds += now - self._clock if training else 0.0
        self._clock = now

    def read(self) -> None:
        """Copy the rows to the host, all at once; raises NotFinite for a loss that is not finite."""
        steps, unread = [step for step, _ in self._unread], [row for _, row in self._unread]
        self._unread = []
        for step, row in zip(steps, rows := self._team.means(to_host(unread)), strict=True):
            if not math.isfinite(row[1]):
                raise NotFinite(f"loss: expected a finite number, got {row[1]} at step {step}; {self._good()}")
        self._memory.rows += rows

    def record(
        self, epoch: int, lr: float, validated: dict[str, float] | None, more: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Make the record of the batches since the last one, with ``more``; see Trainer.fit for what it holds."""
        self.read()
        self.tick(training=validated is None)
        memory, made = self._memory, self._means()
        record = {
            "step": memory.step,
            "epoch": epoch,
            **made,
            **{f"val_{name}": None if validated is None else validated[name] for name in self._names},
            "lr": lr,
            "tokens_per_second": round(sum(row[0] for row in memory.rows) / max(memory.train_seconds, 1e-9), 1),
            "seconds": round(memory.seconds, 3),
            **(more or {}),
        }
        memory.rows, memory.train_seconds = [], 0.0
        memory.history.append(record)
        return record

    def _means(self) -> dict[str, float | None]:
        memory = self._memory
        if memory.rows:
            return dict(zip(self._names, means(memory.rows), strict=True))
        # A pass without a known length ended right after a record: repeat that record's means.
        return {name: memory.history[-1][name] if memory.history else None for name in self._names}

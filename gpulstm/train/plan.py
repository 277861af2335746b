"""The options of a run (Plan) and its progress (Memory), apart from the objects it works on."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.errors import DTypeError, ShapeError

EVERY = 500  # steps between validations and between checkpoints, in a run that is not counted in epochs
COUNTS = ("steps", "epochs", "validate_every", "patience", "checkpoint_every", "log_every")


@dataclass(frozen=True)
class Plan:
    """The arguments of Trainer.fit that are plain values. Raises ShapeError or DTypeError for wrong ones."""

    steps: int | None
    epochs: int | None
    validate_every: int | None  # None: at the end of each epoch; the same for checkpoint_every
    patience: int | None
    keep_best: bool
    monitor: str
    mode: str
    checkpoint: Path | None
    checkpoint_every: int | None
    log_every: int
    notes: dict[str, Any]
    about: dict[str, Any]

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            got = "neither" if self.steps is None else "both"
            raise ShapeError(f"steps, epochs: expected one of them, to say how long to train, got {got}")
        for name in COUNTS:
            count = getattr(self, name)
            if count is None:
                continue
            if isinstance(count, bool) or not isinstance(count, int | np.integer):
                raise DTypeError(f"{name}: expected a whole number, got {count!r}")
            if count < 1:
                raise ShapeError(f"{name}: expected at least 1, got {count}")
            object.__setattr__(self, name, int(count))  # json cannot write NumPy's integers
        if self.epochs is None:
            for name in ("validate_every", "checkpoint_every"):
                object.__setattr__(self, name, getattr(self, name) or EVERY)
        for name in ("notes", "about"):
            try:
                json.dumps(getattr(self, name), default=np.generic.item)
            except (TypeError, ValueError) as error:
                raise DTypeError(f"{name}: expected a dict of JSON values, got other values: {error}") from error
        if self.mode not in ("min", "max"):
            raise ShapeError(
                f"mode: expected 'min' or 'max', whichever is better for {self.monitor}, got {self.mode!r}"
            )

    @property
    def goal(self) -> list[int | None]:
        """The options that decide when the run ends."""
        return [self.steps, self.epochs, self.patience]

    def better(self, value: float, best: float | None) -> bool:
        """Whether a value of ``monitor`` is better than the best one so far."""
        return best is None or (value > best if self.mode == "max" else value < best)


@dataclass
class Memory:
    """The progress of a run: all it needs to continue with the same bits. A checkpoint holds every field."""

    step: int = 0
    epoch: int = 0  # whole passes over the batches
    drawn: int = 0  # batches drawn in this pass over the data
    state: Any = None  # the hidden state for the next batch
    rows: list[list[float]] = field(default_factory=list)  # [count, loss, *metrics] of batches since the last record
    train_seconds: float = 0.0  # since the last record
    seconds: float = 0.0  # in all, validation included
    best: float | None = None
    best_step: int = 0
    best_model: dict[str, np.ndarray] | None = None
    worse: int = 0  # validations since the best one
    validated: int = 0  # the step of the last validation
    stopped: str = ""  # why the run ended early
    goal: list[int | None] = field(default_factory=list)  # the goal of its plan
    history: list[dict[str, Any]] = field(default_factory=list)

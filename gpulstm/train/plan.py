"""What a run was asked for (Plan) and how far it has come (Memory), apart from the objects it works on."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.errors import ShapeError


@dataclass(frozen=True)
class Plan:
    """The arguments of Trainer.fit that are plain values. Raises ShapeError for counts below 1."""

    steps: int
    validate_every: int
    patience: int | None
    keep_best: bool
    checkpoint: Path | None
    checkpoint_every: int
    log_every: int
    notes: dict[str, Any]

    def __post_init__(self) -> None:
        for name in ("steps", "validate_every", "patience", "checkpoint_every", "log_every"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ShapeError(f"{name}: want at least 1, got {count}")


@dataclass
class Memory:
    """Everything a run has to remember to go on with the same bits; a checkpoint holds every field."""

    step: int = 0
    drawn: int = 0  # batches drawn in this pass over the data
    state: Any = None  # what the next batch starts from
    losses: list[float] = field(default_factory=list)  # since the last record
    tokens: int = 0  # since the last record
    train_seconds: float = 0.0  # since the last record
    seconds: float = 0.0  # in all, validation included
    best_loss: float = math.inf
    best_model: dict[str, np.ndarray] | None = None
    worse: int = 0  # validations since the best one
    history: list[dict[str, Any]] = field(default_factory=list)

"""Trainer: a model, an optimiser and a loss function put together, and fitted to batches."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from gpulstm import random
from gpulstm.errors import ShapeError
from gpulstm.nn import Module
from gpulstm.tape import Tensor, no_grad
from gpulstm.train.checkpoint import detached
from gpulstm.train.loop import Run
from gpulstm.train.plan import Plan

Loss = Callable[[Any, Any, Any], tuple[Tensor, Any]]


def count_tokens(batch: Any) -> int:
    """Tokens in a batch: the first two axes of its first array, (T, B, ...); the length of a vector."""
    first = batch[0] if isinstance(batch, list | tuple) else batch
    return math.prod(first.shape[:2])


class Trainer:
    """Trains any model on any batches.

    ``loss(model, batch, state)`` returns the loss of a batch, a Tensor of one number, and the state that the
    next batch of the same sequences starts from, or None. The state is cut from the tape between batches
    (truncated back-propagation, Williams & Peng 1990) and is None at the start of every pass over the data.

    ``schedule`` moves the optimiser's learning rate after each step, or after each validation where it goes
    by the validation loss. ``clip_norm`` and ``clip_value`` bound the gradients. ``tokens(batch)`` counts
    what the loss of a batch is the mean of (by default the first two axes of its first array). ``generator``
    is where the model's randomness comes from (by default gpulstm's).

    >>> def loss(model, batch, state):
    ...     x, y = batch                              # (T, B, D), (T, B, 1)
    ...     prediction, state = model(x, state)
    ...     return gl.mse(prediction, y), state
    >>> trainer = gl.Trainer(model, gl.AdamW(model.parameters(), lr=1e-3), loss, clip_norm=1.0)
    >>> records = trainer.fit(batches, 1000, validation=held_out, checkpoint="run.safetensors")
    """

    def __init__(
        self,
        model: Module,
        optimizer: Any,
        loss: Loss,
        *,
        schedule: Any = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        tokens: Callable[[Any], int] = count_tokens,
        generator: np.random.Generator | None = None,
    ) -> None:
        self.model, self.optimizer, self.loss, self.schedule = model, optimizer, loss, schedule
        self.clip_norm, self.clip_value, self.tokens = clip_norm, clip_value, tokens
        self.generator = random.default_generator() if generator is None else generator

    def fit(
        self,
        batches: Iterable[Any],
        steps: int,
        *,
        validation: Iterable[Any] | None = None,
        validate_every: int = 500,
        patience: int | None = None,
        keep_best: bool = True,
        checkpoint: str | Path | None = None,
        checkpoint_every: int = 500,
        resume: bool = False,
        log: str | Path | None = None,
        log_every: int = 50,
        progress: bool | TextIO = True,
        notes: dict[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Train for ``steps`` steps, going over the batches as often as that takes; return the records.

        A record, made every ``log_every`` steps and at every validation, is a dict of ``step``, ``loss`` (the
        mean since the record before), ``val_loss`` (or None), ``lr``, ``tokens_per_second`` and ``seconds``;
        each goes to the file ``log`` as one line of JSON, and to the stream ``progress`` (True: standard
        error).

        Every ``validate_every`` steps and at the end the loss of ``validation`` is taken; ``patience`` stops
        after so many validations without a better one, and ``keep_best`` leaves the model with its best
        parameters.

        Every ``checkpoint_every`` steps and at the end everything is written to the file ``checkpoint``,
        atomically. ``resume=True`` goes on from it, if it is there, and gives the same bits as a run that was
        never stopped, provided that ``batches`` either has ``state_dict`` and ``load_state_dict`` or gives
        the same batches in every pass. ``notes`` (JSON values) are kept in the checkpoint and must be the
        same on resuming. Ctrl-C finishes the step, writes the checkpoint and raises KeyboardInterrupt.

        Raises NotFinite when a loss or a parameter is not finite, naming the step and the last good
        checkpoint (looked for with every record and before every checkpoint); FormatError for a checkpoint of
        another model or run; ShapeError for counts below 1; OSError where a file cannot be written.
        """
        file = None if checkpoint is None else Path(checkpoint)
        plan = Plan(steps, validate_every, patience, keep_best, file, checkpoint_every, log_every, notes or {})
        return Run(self, batches, validation, plan).go(resume, log, progress)

    def evaluate(self, batches: Iterable[Any]) -> float:
        """The mean loss over all tokens of the batches, in evaluation mode, the state carried along."""
        training = self.model.training
        self.model.eval()
        total, tokens, state = 0.0, 0, None
        with no_grad():
            for batch in batches:
                loss, state = self.loss(self.model, batch, state)
                count = self.tokens(batch)
                total, tokens, state = total + loss.item() * count, tokens + count, detached(state)
        self.model.train(training)
        if tokens == 0:
            raise ShapeError("validation: want at least one token, got none")
        return total / tokens

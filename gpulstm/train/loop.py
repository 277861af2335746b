"""One run of a Trainer: the loop over steps, its records, and its checkpoints."""

import itertools
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from gpulstm import random
from gpulstm.backend import Array, backend_of
from gpulstm.clip import clip_grad_norm, clip_grad_value
from gpulstm.errors import FormatError, GpulstmError, NotFinite, ShapeError
from gpulstm.train import checkpoint
from gpulstm.train.interrupt import Interrupt
from gpulstm.train.plan import Memory, Plan
from gpulstm.train.report import Log, Progress, stream_of

if TYPE_CHECKING:
    from gpulstm.train.trainer import Trainer


class Run:
    """One call of ``Trainer.fit``."""

    def __init__(
        self, trainer: "Trainer", batches: Iterable[Any], validation: Iterable[Any] | None, plan: Plan
    ) -> None:
        self.trainer, self.batches, self.validation, self.plan = trainer, batches, validation, plan
        self.memory = Memory()
        # A schedule that goes by the validation loss is stepped after each validation, not after each step.
        self._schedule_waits = getattr(trainer.schedule, "needs_metric", False)
        if self._schedule_waits and validation is None:
            raise ShapeError(
                f"{type(trainer.schedule).__name__} goes by the validation loss: want validation, got None"
            )
        self._unread: list[Array] = []  # losses still on the device, so that no step waits for it
        self._saved_step: int | None = None

    # -- the loop --------------------------------------------------------------------------------------------

    def go(self, resume: bool, log: str | Path | None, progress: bool | TextIO) -> list[dict[str, Any]]:
        """Run to the end; see Trainer.fit."""
        file = self.plan.checkpoint
        if resume and file is not None and file.exists():
            self._resume(file)
        memory, self._clock = self.memory, time.perf_counter()
        self._first_step, self._first_seconds = memory.step, memory.seconds
        self.trainer.model.train()
        with (
            Interrupt() as interrupt,
            closing(Log(log, memory.history)) as self._log,
            closing(Progress(stream_of(progress), memory.step, self.plan.steps)) as self._progress,
        ):
            self._loop(interrupt)
        if memory.best_model is not None:
            self.trainer.model.load_state_dict(memory.best_model)
        return memory.history

    @np.errstate(all="ignore")  # what is not finite shows in the loss, on a GPU as here
    def _loop(self, interrupt: Interrupt) -> None:
        batches = self._stream()
        while not self._finished():
            self._train_on(next(batches))
            if self.validation is not None and self._due(self.plan.validate_every):
                self._record(self._validate())
            elif self._due(self.plan.log_every):
                self._record(None)
            if self.plan.checkpoint is not None and (interrupt.asked or self._due(self.plan.checkpoint_every)):
                self._save(self.plan.checkpoint)
            if interrupt.asked and not self._finished():
                saved = self.plan.checkpoint or "nothing: no checkpoint was asked for"
                raise KeyboardInterrupt(f"stopped after step {self.memory.step} of {self.plan.steps}; saved: {saved}")

    def _finished(self) -> bool:
        patience = self.plan.patience
        return self.memory.step >= self.plan.steps or (patience is not None and self.memory.worse >= patience)

    def _due(self, every: int) -> bool:
        return self.memory.step % every == 0 or self._finished()

    def _stream(self) -> Iterator[Any]:
        """The batches of this pass that are still to come, and then pass after pass."""
        memory = self.memory
        skip = 0 if hasattr(self.batches, "load_state_dict") else memory.drawn
        while True:
            for batch in itertools.islice(self.batches, skip, None):
                memory.drawn += 1
                yield batch
            if memory.drawn == 0:
                raise ShapeError("batches: want at least one in every pass over them, got none")
            memory.state, memory.drawn, skip = None, 0, 0

    def _train_on(self, batch: Any) -> None:
        trainer, memory = self.trainer, self.memory
        loss, state = trainer.loss(trainer.model, batch, memory.state)
        trainer.model.zero_grad()
        loss.backward()
        if trainer.clip_value is not None:
            clip_grad_value(trainer.model.parameters(), trainer.clip_value)
        if trainer.clip_norm is not None:
            clip_grad_norm(trainer.model.parameters(), trainer.clip_norm)
        self._lr = trainer.optimizer.lr
        trainer.optimizer.step()
        if trainer.schedule is not None and not self._schedule_waits:
            trainer.schedule.step()
        memory.state = checkpoint.detached(state)
        memory.step += 1
        memory.tokens += trainer.tokens(batch)
        self._unread.append(loss.data)
        self._progress.step()

    def _validate(self) -> float:
        """The validation loss; the best model so far is kept."""
        self._read_losses()
        self._tick(training=True)
        memory, value = self.memory, self.trainer.evaluate(self.validation or ())
        self._tick(training=False)
        if not math.isfinite(value):
            raise NotFinite(f"validation loss: want a finite number, got {value} at step {memory.step}; {self._good()}")
        if self._schedule_waits:
            self.trainer.schedule.step(value)
        memory.worse += 1
        if value < memory.best_loss:
            memory.best_loss, memory.worse = value, 0
            if self.plan.keep_best:
                memory.best_model = checkpoint.to_host(self.trainer.model.state_dict())
        return value

    # -- records ---------------------------------------------------------------------------------------------

    def _record(self, val_loss: float | None) -> None:
        """Make a record of the steps since the last one, log it and show it."""
        self._read_losses()
        self._tick(training=val_loss is None)
        memory = self.memory
        record = {
            "step": memory.step,
            "loss": float(np.mean(memory.losses)),
            "val_loss": val_loss,
            "lr": self._lr,
            "tokens_per_second": round(memory.tokens / max(memory.train_seconds, 1e-9), 1),
            "seconds": round(memory.seconds, 3),
        }
        memory.losses, memory.tokens, memory.train_seconds = [], 0, 0.0
        memory.history.append(record)
        self._log.write(record)
        pace = (memory.seconds - self._first_seconds) / (memory.step - self._first_step)
        self._progress.record(record, pace * (self.plan.steps - memory.step))

    def _tick(self, training: bool) -> None:
        now = time.perf_counter()
        self.memory.seconds += now - self._clock
        self.memory.train_seconds += now - self._clock if training else 0.0
        self._clock = now

    def _read_losses(self) -> None:
        """Bring the losses to the host, all in one copy, and look whether they are finite."""
        if not self._unread:
            return
        backend = backend_of(*self._unread)
        with backend:
            values = backend.to_numpy(backend.xp.stack(self._unread)).astype(np.float64).tolist()
        self._unread = []
        for step, value in enumerate(values, self.memory.step - len(values) + 1):
            if not math.isfinite(value):
                raise NotFinite(f"loss: want a finite number, got {value} at step {step}; {self._good()}")
        self.memory.losses += values

    def _good(self) -> str:
        if self._saved_step is None:
            return "no checkpoint was written"
        return f"the last good checkpoint is {self.plan.checkpoint}, of step {self._saved_step}"

    # -- checkpoints -----------------------------------------------------------------------------------------

    def _parts(self) -> dict[str, Any]:
        """The objects that keep a state of their own."""
        t = self.trainer
        parts = {"model": t.model, "optimizer": t.optimizer, "schedule": t.schedule, "batches": self.batches}
        return {name: part for name, part in parts.items() if hasattr(part, "load_state_dict")}

    def _save(self, file: Path) -> None:
        self._read_losses()
        self._tick(training=True)
        for name, values in self.trainer.model.state_dict().items():
            with (backend := backend_of(values)):
                finite = backend.xp.isfinite(values).all()
            if not finite:
                raise NotFinite(
                    f"{name}: want finite numbers, got others after step {self.memory.step}; {self._good()}"
                )
        tree: dict[str, Any] = {name: part.state_dict() for name, part in self._parts().items()}
        tree["generator"] = random.generator_state(self.trainer.generator)
        tree["run"] = {field.name: getattr(self.memory, field.name) for field in fields(Memory)}
        checkpoint.save(file, {**tree, "notes": self.plan.notes})
        self._saved_step = self.memory.step
        self._tick(training=False)

    def _resume(self, file: Path) -> None:
        """Go on from a checkpoint; raises FormatError for one that is not of this run."""
        tree = checkpoint.load(file)
        try:
            self._restore(tree)
        except (GpulstmError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{file}: want a checkpoint of this run: {error}") from error

    def _restore(self, tree: dict[str, Any]) -> None:
        """The notes are compared before anything is changed."""
        had, have = tree["notes"], self.plan.notes
        for name in sorted(had.keys() | have.keys()):
            if had.get(name) != have.get(name):
                raise FormatError(f"{name}: want {had.get(name)}, as it began, got {have.get(name)}")
        parts = self._parts()
        missing = (parts.keys() | {"run", "generator"}) - tree.keys()
        missing |= {field.name for field in fields(Memory)} - tree.get("run", {}).keys()
        if missing:
            raise FormatError(f"it has no {', '.join(sorted(missing))}")
        for name, part in parts.items():
            part.load_state_dict(tree[name])
        random.set_generator_state(self.trainer.generator, tree["generator"])
        self.memory = Memory(**tree["run"])
        backend = backend_of(*self.trainer.model.state_dict().values())
        self.memory.state = checkpoint.on_device(self.memory.state, backend)
        self._saved_step = self.memory.step

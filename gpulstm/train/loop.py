"""One run of a Trainer: the loop over steps, with validations, records and checkpoints."""

import math
from collections.abc import Iterable
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import numpy as np

from gpulstm.errors import FileExists, NotFinite
from gpulstm.io.files import check_writable, hold
from gpulstm.parallel.team import Team
from gpulstm.train import checkpoint
from gpulstm.train.axes import Axes
from gpulstm.train.callback import Callbacks
from gpulstm.train.interrupt import Interrupt, Interrupted, Terminated
from gpulstm.train.plan import Memory, Plan
from gpulstm.train.recorder import Recorder
from gpulstm.train.report import Log, Progress, check_log, stream_of
from gpulstm.train.saved import Saved, check_finite
from gpulstm.train.source import Source
from gpulstm.train.steps import Steps, parameters_of
from gpulstm.train.update import scaled, update

if TYPE_CHECKING:
    from gpulstm.train.trainer import Trainer


class Run:
    """One call of ``Trainer.fit``."""

    def __init__(
        self,
        trainer: "Trainer",
        batches: Iterable[Any],
        validation: Iterable[Any] | None,
        plan: Plan,
        callbacks: Callbacks | None = None,
    ) -> None:
        self.trainer, self.validation, self.plan = trainer, validation, plan
        self._team = Team(batches)
        self.batches, self._group = self._team.batches, self._team.group
        self.callbacks = callbacks or Callbacks([])
        self.memory = Memory(goal=plan.goal)
        self._parts = Saved(trainer, plan, self.batches, validation, self.callbacks.given)
        # A schedule that needs the validation loss is stepped after each validation, not after each step.
        self._schedule_waits = getattr(trainer.schedule, "needs_metric", False)
        self._saved_step: int | None = None  # the step of the last good checkpoint
        self._is_saved = False  # whether nothing has changed since then

    # -- the loop --------------------------------------------------------------------------------------------

    def go(self, resume: bool, force: bool, log: str | Path | None, progress: bool | TextIO) -> list[dict[str, Any]]:
        """Run to the end; see Trainer.fit. Only the first process reads and writes files."""
        trainer = self.trainer
        parts = trainer.model, trainer.optimizer, trainer.schedule, trainer.scaler, self.batches
        self._team.begin(parts, parameters_of(trainer), trainer.generator)
        with ExitStack() as held:
            self._group.on_root(lambda: self._hold(held, log))
            return self._go(resume, force, log, progress)

    def _hold(self, held: ExitStack, log: str | Path | None) -> None:
        if self.plan.checkpoint is not None:
            check_writable(self.plan.checkpoint)
        for path in (self.plan.checkpoint, log):
            if path is not None:
                held.enter_context(hold(path))

    def _go(self, resume: bool, force: bool, log: str | Path | None, progress: bool | TextIO) -> list[dict[str, Any]]:
        file, group = self.plan.checkpoint, self._group
        if file is not None and group.on_root(lambda: file.exists() and file.stat().st_size > 0):
            if resume:
                self.memory = self._parts.restore(file)
                self.memory.goal, self._saved_step, self._is_saved = self.plan.goal, self.memory.step, True
            elif not force:
                choices = "give resume=True to continue from it, force=True to replace it, or another name"
                raise FileExists(f"{file}: exists already; {choices}")
        if log is not None and not force:
            group.on_root(lambda: check_log(log, self.memory.history))
        self._begin()
        self._logs = log is not None
        with (
            self._interrupt as interrupt,
            closing(self._new_log(log)) as self._log,
            closing(self._new_progress(progress if group.is_root else False)) as self._progress,
        ):
            try:
                self._loop()
            except (KeyboardInterrupt, SystemExit) as stop:
                if interrupt.number is None or isinstance(stop, Interrupted | Terminated):
                    raise
                raise interrupt.error(
                    interrupt.number, f"stopped in step {self.memory.step + 1}; {self._good()}", self._good_file()
                ) from None
        if self.memory.best_model is not None:
            self.trainer.model.load_state_dict(self.memory.best_model)
        return self.memory.history

    def _new_log(self, path: str | Path | None) -> Log:
        """Open the log, which only the first process writes; raises OSError in all processes."""
        logs = [Log(None, [])]
        if path is not None:
            self._group.on_root(lambda: logs.append(Log(path, self.memory.history)))
        return logs[-1]

    def _begin(self) -> None:
        self._lr = self.trainer.optimizer.lr
        self._recorder = Recorder(self.memory, ["loss", *self.trainer.metrics], self._good, self._team)
        self._source = Source(self.batches, self.trainer.accumulate, self.memory)
        self._axes = Axes(self.trainer.model, self.batches)
        self._interrupt = Interrupt()
        self._steps = Steps(self.trainer, self._team, self._recorder, self.memory, self._axes, self._interrupt)
        self._asks = self._team.agree(bool(self.callbacks.given)) != [0]
        self.trainer.model.train()

    @np.errstate(all="ignore")  # NotFinite reports a loss that is not finite; NumPy's warnings add nothing
    def _loop(self) -> None:
        plan, memory = self.plan, self.memory
        while not self._finished():
            group, ended = self._source.draw()
            if group:
                self._step(group)
            if ended:
                memory.state = None
            if self.validation is not None and self._due(plan.validate_every, group, ended):
                self._record(self._validate())
            elif self._due(plan.log_every, group, ended) or (ended and plan.epochs is not None):
                self._record(None)
            if ended:
                last = memory.history[-1] if memory.history else None
                self._ask("on_epoch_end", self.trainer, memory.epoch, last)
            if plan.checkpoint is not None and self._due(plan.checkpoint_every, group, ended):
                self._save(plan.checkpoint)
            if (signal := self._steps.signal) and not self._finished():
                self._stop(signal)
        self._finish()

    def _finished(self) -> bool:
        memory, plan = self.memory, self.plan
        if memory.stopped:
            return True
        return memory.step >= plan.steps if plan.steps is not None else memory.epoch >= (plan.epochs or 0)

    def _due(self, every: int | None, group: list[Any], ended: bool) -> bool:
        return ended if every is None else bool(group) and self.memory.step % every == 0

    def _finish(self) -> None:
        """End the run with a validation, a record and a checkpoint, unless this step already had them."""
        memory = self.memory
        self._steps.check_alike()
        if self.validation is not None and memory.validated != memory.step:
            self._record(self._validate())
        elif self._recorder.is_due:
            self._record(None)
        if self.plan.checkpoint is not None and not self._is_saved:
            self._save(self.plan.checkpoint)
        self.trainer.stopped = memory.stopped
        if memory.stopped:
            whole = f"{self.plan.steps} steps" if self.plan.steps is not None else f"{self.plan.epochs} epochs"
            kept = f"the model of step {memory.best_step} is kept" if memory.best_model else "the last model is kept"
            self._progress.line(f"stopped early, after step {memory.step} of {whole}: {memory.stopped}; {kept}")

    def _stop(self, signal: int) -> NoReturn:
        file = self.plan.checkpoint
        if file is not None and not self._is_saved:
            self._save(file)
        of = (
            f"of {self.plan.steps}"
            if self.plan.steps is not None
            else f"in epoch {self._epoch()} of {self.plan.epochs}"
        )
        saved = file or "nothing, as no checkpoint= was given"
        message = f"stopped after step {self.memory.step} {of}; saved: {saved}"
        stop = Interrupt.error(signal, message, file)
        stop.together = True  # type: ignore[attr-defined]
        raise stop

    # -- steps and validations -------------------------------------------------------------------------------

    def _step(self, group: list[Any]) -> None:
        trainer, memory = self.trainer, self.memory
        self._steps.differentiate(group)
        self._lr = trainer.optimizer.lr
        try:
            update(trainer)
        except NotFinite as error:
            raise NotFinite(f"{error}, at step {memory.step + 1}; {self._good()}") from error
        if trainer.schedule is not None and not self._schedule_waits:
            trainer.schedule.step()
        memory.step += 1
        self._is_saved = False
        self._progress.step()

    def _validate(self) -> dict[str, float]:
        """Evaluate the validation batches; keep the model if it is the best so far."""
        self._recorder.read()
        self._recorder.tick(training=True)
        self._steps.check_alike()
        plan, memory = self.plan, self.memory
        try:
            values = self.trainer.evaluate(self.validation or (), return_dict=True)
        except NotFinite as error:
            raise NotFinite(f"validation {error}, at step {memory.step}; {self._good()}") from error
        self._recorder.tick(training=False)
        if self._schedule_waits:
            self.trainer.schedule.step(values["loss"])
        memory.validated, memory.worse = memory.step, memory.worse + 1
        value = values[plan.monitor.removeprefix("val_")]
        if not math.isfinite(value):
            raise NotFinite(
                f"{plan.monitor}: expected a finite number, got {value} at step {memory.step}; {self._good()}"
            )
        if plan.better(value, memory.best):
            memory.best, memory.best_step, memory.worse = value, memory.step, 0
            if plan.keep_best:
                memory.best_model = checkpoint.to_host(self.trainer.model.state_dict())
        if plan.patience is not None and memory.worse >= plan.patience:
            memory.stopped = f"{memory.worse} validation{'s'[: memory.worse > 1]} without a better {plan.monitor}"
        return values

    # -- records ---------------------------------------------------------------------------------------------

    def _epoch(self) -> int:
        """The number of this epoch, counted from 1."""
        return self.memory.epoch + (self.memory.drawn > 0)

    def _record(self, validated: dict[str, float] | None) -> None:
        """Make a record of the batches since the last one, log it, show it and hand it to the callbacks."""
        memory, record = (
            self.memory,
            self._recorder.record(self._epoch(), self._lr, validated, scaled(self.trainer.scaler)),
        )
        self._is_saved = False
        if len(memory.history) == 1 and self._logs and self.plan.checkpoint is not None:
            # A resumed run recognises its log by the first record in its checkpoint, so write that now.
            self._save(self.plan.checkpoint)
        if self._logs:
            self._group.on_root(lambda: self._log.write(record))
        self._progress.record(record, self._recorder.pace)
        self._ask("on_record", self.trainer, record)
        if validated is not None:
            self._ask("on_validation", self.trainer, record)

    def _ask(self, method: str, *args: Any) -> None:
        """Call the callbacks; one of them may end the run."""
        if not self._asks:
            return
        self._is_saved = False
        reason = self._team.reason(self.callbacks.call(method, *args))
        self.memory.stopped = self.memory.stopped or reason

    def _new_progress(self, progress: bool | TextIO) -> Progress:
        steps, each = self.plan.steps, self._source.steps
        if steps is None and each is not None:
            steps = each * (self.plan.epochs or 0)
        return Progress(stream_of(progress), self.memory.step, steps, self.plan.epochs)

    # -- checkpoints -----------------------------------------------------------------------------------------

    def _save(self, file: Path) -> None:
        self._recorder.read()
        self._recorder.tick(training=True)
        state = self.trainer.model.state_dict()
        check_finite(state, f" after step {self.memory.step}; {self._good()}")
        self._steps.check_alike()
        whole = replace(self.memory, state=self._team.whole_state(self.memory.state))
        self._group.on_root(lambda: self._parts.save(file, whole))
        self._saved_step, self._is_saved = self.memory.step, True
        self._recorder.tick(training=False)

    def _good_file(self) -> Path | None:
        return None if self._saved_step is None else self.plan.checkpoint

    def _good(self) -> str:
        if self._saved_step is None:
            return "no checkpoint was written"
        return f"the last good checkpoint is {self.plan.checkpoint}, from step {self._saved_step}"

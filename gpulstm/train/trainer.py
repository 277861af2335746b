"""The Trainer: fits a model to batches with an optimiser and a loss function."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, TextIO, overload

import numpy as np

from gpulstm import checks, random, shares
from gpulstm.errors import DTypeError, NotFinite, ShapeError
from gpulstm.grad_scaler import GradScaler
from gpulstm.nn import Module
from gpulstm.nn.contexts import evaluation
from gpulstm.parallel.team import Team
from gpulstm.precision import IEEE, precision
from gpulstm.tape import Tensor, no_grad
from gpulstm.train.arguments import check_parts, check_run
from gpulstm.train.axes import Axes
from gpulstm.train.batch import ADVICE, checked_count, count_tokens
from gpulstm.train.callback import Callback, Callbacks
from gpulstm.train.checkpoint import detached
from gpulstm.train.loop import Run
from gpulstm.train.losses import checked
from gpulstm.train.metrics import Metric, check_metrics, check_value
from gpulstm.train.plan import Plan
from gpulstm.train.rows import Row, means, to_host
from gpulstm.train.source import check_batches

Loss = Callable[[Any, Any, Any], tuple[Tensor, Any]]


class Trainer:
    """Trains a model on batches, with validation, checkpoints, gradient clipping and truncated backpropagation.

    ``loss(model, batch, state)`` returns the loss of a batch, a Tensor of one number, and the hidden state for the next
    batch of the same sequences, or None. The state is detached between batches (truncated backpropagation, Williams &
    Peng 1990) and is None at the start of every pass over the data.

    ``schedule`` changes the learning rate after each step, or after each validation if it needs the validation loss.
    ``clip_norm`` and ``clip_value`` limit the gradients. ``accumulate`` is the number of batches per optimiser step
    (gradient accumulation): the gradient is that of the mean loss over all their items, as for one large batch, but
    memory holds only one of them at a time. The last step of a pass may have fewer batches.

    ``tokens(batch)`` returns the number of items the batch loss averages over; it weights the batch in every mean. By
    default it counts the elements of the target (see ``gl.train.count_tokens``).

    ``metrics`` is a dict of functions ``metric(prediction, batch)`` by name, e.g. ``{"accuracy": gl.train.accuracy}``.
    Each returns one number per batch; the records hold their weighted means. The prediction is the result of the last
    call of the model in the loss function; if that is a tuple, its first entry.

    ``generator`` is the random generator that the model draws from, e.g. for dropout (default: gpulstm's own, see
    ``gl.manual_seed``). Checkpoints save and restore its state.

    ``precision`` sets the precision of float32 matrix products on a GPU, in training and in evaluation: "ieee", "tf32",
    "bf16" or "fp16" (see ``gl.precision``; a ``gl.precision`` block around ``fit`` has no effect). With "fp16" a
    ``gl.GradScaler``, the attribute ``scaler``, scales the loss. A step whose gradients overflow is skipped, but still
    counts as a step, also for the schedule; the records hold the number of skipped steps.

    Raises DTypeError for arguments of the wrong type, and ShapeError for an optimiser that has none of the model's
    parameters and for a schedule of another optimiser.

    >>> model = gl.LSTM(1, 1)
    >>> def loss(model, batch, state):
    ...     x, y = batch  # (T, B, 1) each
    ...     prediction, state = model(x, state)
    ...     return gl.mse(prediction, y), state
    >>> series = np.sin(np.arange(401) / 5)[:, None].astype(np.float32)  # (N, 1)
    >>> batches = gl.data.Streams(series, streams=4, window=10)
    >>> trainer = gl.Trainer(model, gl.AdamW(model.parameters(), lr=1e-2), loss, clip_norm=1.0)
    >>> records = trainer.fit(batches, 20, validation=batches, checkpoint="run.safetensors", progress=False)
    >>> records[-1]["step"], records[-1]["val_loss"] < 1
    (20, True)
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
        accumulate: int = 1,
        tokens: Callable[[Any], Any] = count_tokens,
        metrics: Mapping[str, Metric] | None = None,
        generator: np.random.Generator | None = None,
        precision: str = IEEE,
    ) -> None:
        check_parts(model, optimizer, loss, schedule, tokens, precision)
        self.model, self.optimizer, self.loss, self.schedule = model, optimizer, loss, schedule
        self.clip_norm = None if clip_norm is None else checks.number("clip_norm", clip_norm, finite=False)
        self.clip_value = None if clip_value is None else checks.number("clip_value", clip_value, finite=False)
        self.accumulate = checks.integer("accumulate", accumulate, 1, 2**63, "a whole number of batches from 1 up")
        self.tokens, self.metrics = tokens, check_metrics(metrics)
        self.generator, self.precision = random.as_generator(generator), precision
        self.scaler = GradScaler() if precision == "fp16" else None
        self.stopped = ""  # why the last run ended early; empty if it did not

    def __repr__(self) -> str:
        parts = [type(self.model).__name__, type(self.optimizer).__name__, getattr(self.loss, "__name__", "loss")]
        if self.schedule is not None:
            parts.append(f"schedule={type(self.schedule).__name__}")
        usual = {"clip_norm": None, "clip_value": None, "accumulate": 1, "precision": IEEE}
        parts += [f"{name}={getattr(self, name)}" for name, value in usual.items() if getattr(self, name) != value]
        if self.metrics:
            parts.append(f"metrics=[{', '.join(self.metrics)}]")
        return f"Trainer({', '.join(parts)})"

    def fit(
        self,
        batches: Iterable[Any],
        steps: int | None = None,
        *,
        epochs: int | None = None,
        validation: Iterable[Any] | None = None,
        validate_every: int | None = None,
        patience: int | None = None,
        keep_best: bool = True,
        monitor: str = "val_loss",
        mode: str | None = None,
        checkpoint: str | Path | None = None,
        checkpoint_every: int | None = None,
        resume: bool = False,
        force: bool = False,
        log: str | Path | None = None,
        log_every: int = 50,
        progress: bool | TextIO = True,
        callbacks: Callback | Callable | Sequence[Any] = (),
        notes: dict[str, Any] | None = None,
        about: dict[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Train for ``steps`` steps, repeating the batches as needed, or for ``epochs`` passes over them.

        Returns the records. A record is a dict of ``step``, ``epoch`` (counted from 1), ``loss`` (the mean since the
        last record), ``val_loss`` (or None), the same two for each metric (``accuracy``, ``val_accuracy``), ``lr``,
        ``tokens_per_second`` and ``seconds``; with precision "fp16" also ``skipped_steps`` (of the whole run) and
        ``loss_scale``. There is one every ``log_every`` steps, at every validation and, with ``epochs``, at the end of
        each epoch. Each record goes to the file ``log`` as one line of JSON, to the stream ``progress`` (True: standard
        error) and to the ``callbacks`` (functions ``callback(trainer, record)`` or ``gl.train.Callback`` objects, which
        may end the run).

        The ``validation`` batches are evaluated every ``validate_every`` steps (default: 500, or with ``epochs`` at the
        end of each epoch) and at the end of the run. ``patience`` stops the run after that many validations without a
        better value of ``monitor``. ``keep_best`` leaves the model with its best parameters. For a ``monitor`` other
        than "val_loss", ``mode`` says whether a lower ("min") or a higher ("max") value is better.

        A checkpoint of the whole run is written to the file ``checkpoint``, atomically, every ``checkpoint_every``
        steps (same defaults) and at the end. ``resume=True`` continues from this file if it exists, with the same bits
        as a run without interruption. For this, ``batches`` must have ``state_dict`` and ``load_state_dict``, or give
        the same batches in every pass. ``steps``, ``epochs``, ``patience``, the intervals and the files may differ on
        resuming: a finished run continues if you ask for more steps. A schedule made for another number of steps
        continues with the learning rates of the new one. ``notes`` (JSON values) are saved in the checkpoint and must
        be the same on resuming; ``about`` is saved and not compared.

        An existing checkpoint or log is not overwritten, except on resuming or with ``force=True``. Ctrl-C finishes the
        step, writes the checkpoint and raises KeyboardInterrupt; SIGTERM does the same and raises SystemExit with
        status 143. A second signal stops at once.

        Raises FileExists for files of another run; NotFinite, naming the step and the last good checkpoint, when a loss
        or a parameter is not finite (checked with every record and before every checkpoint); FormatError for a
        checkpoint of another model or run; DTypeError or ShapeError for batches, losses and options that do not fit;
        ShapeError for batches and recurrent layers that differ in ``batch_first``; OSError if a file cannot be written.
        """
        given = Callbacks(callbacks)
        check_run(self, batches, epochs, validation, patience, monitor, mode, resume, checkpoint, log)
        file = None if checkpoint is None else Path(checkpoint)
        plan = Plan(
            steps, epochs, validate_every, patience, keep_best, monitor, mode or "min", file, checkpoint_every,
            log_every, notes or {}, about or {},
        )  # fmt: skip
        self.stopped = ""
        return Run(self, batches, validation, plan, given).go(resume, force, log, progress)

    @overload
    def evaluate(self, batches: Iterable[Any], return_dict: Literal[False] = False) -> float: ...

    @overload
    def evaluate(self, batches: Iterable[Any], return_dict: Literal[True]) -> dict[str, float]: ...

    def evaluate(self, batches: Iterable[Any], return_dict: bool = False) -> float | dict[str, float]:
        """Return the mean loss over all items of the batches, in evaluation mode.

        The state is carried from batch to batch. With ``return_dict`` the result is a dict of ``loss`` and every
        metric. With several processes all of them call this together, and each evaluates its part. The model's mode is
        restored afterwards, also after an error. Raises ShapeError for batches without any item, and NotFinite for a
        loss that is not finite.
        """
        check_batches("batches", batches)
        team, axes, state = Team(batches), Axes(self.model, batches), None
        rows: list[Row] = []
        team.begin([team.batches], [], self.generator)
        with evaluation(self.model), no_grad(), np.errstate(all="ignore"):
            for part in map(team.part, team.batches):
                if not part.counts:
                    rows.append([0, *[math.nan] * (1 + len(self.metrics))])
                    continue
                count = self.count(part.batch, may_be_empty=True)
                with shares.computing(part.share):
                    loss, state, values = self.compute(part.batch, state, axes)
                state = detached(state)
                rows.append([count, loss.data, *values])
        read = team.means(to_host(rows))
        for number, (count, value, *_) in enumerate(read, 1):
            if count and not math.isfinite(value):
                raise NotFinite(f"loss: expected a finite number, got {value} in batch {number}")
        if not any(row[0] for row in read):
            raise ShapeError(f"batches: expected at least one item to average over, got none in {len(read)} batches")
        results = dict(zip(["loss", *self.metrics], means(read), strict=True))
        return results if return_dict else results["loss"]

    # -- used by a run ---------------------------------------------------------------------------------------

    def count(self, batch: Any, may_be_empty: bool = False) -> Any:
        """The number of items in a batch, maybe as an array; raises ShapeError for 0, unless it ``may_be_empty``."""
        count = checked_count(self.tokens(batch))
        if isinstance(count, int | float) and count == 0 and not may_be_empty:
            raise ShapeError(f"batch: expected at least one item for the loss to average over, got none; {ADVICE}")
        return count

    def zero_grad(self) -> None:
        """Clear all gradients, also of parameters that only the model or only the optimiser has."""
        self.model.zero_grad()
        if hasattr(self.optimizer, "zero_grad"):
            self.optimizer.zero_grad()

    def compute(self, batch: Any, state: Any, axes: Axes) -> tuple[Tensor, Any, list[Any]]:
        """Compute (loss, state, metric values) of a batch, in the model's current mode."""
        predictions: list[Any] = []
        with ExitStack() as hooks:
            if self.metrics:
                seen = self.model.register_forward_hook(lambda model, args, output: predictions.append(output))
                hooks.enter_context(seen)
            hooks.enter_context(precision(self.precision))
            loss, state = checked(axes.call(self.loss, self.model, batch, state), self.model.training)
        if self.metrics and not predictions:
            raise DTypeError("metrics: expected a loss function that calls the model, got one that does not")
        with no_grad():
            values = [self._value(name, predictions[-1], batch) for name in self.metrics]
        return loss, state, values

    def _value(self, name: str, prediction: Any, batch: Any) -> Any:
        first = prediction[0] if isinstance(prediction, tuple) else prediction
        return check_value(name, self.metrics[name](first, batch))

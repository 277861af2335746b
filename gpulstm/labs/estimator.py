"""The base class of the labs' estimators: common parameters, training, and saving to one file."""

import functools
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self, TextIO

import numpy as np

from gpulstm import checks, parallel, random
from gpulstm.backend import Backend, Device, backend_of
from gpulstm.errors import FormatError, GpulstmError, ShapeError
from gpulstm.labs import model_file
from gpulstm.labs.files import RunFiles
from gpulstm.labs.protocol import Protocol
from gpulstm.nn import Module
from gpulstm.optim import AdamW
from gpulstm.precision import IEEE
from gpulstm.precision import checked as check_precision
from gpulstm.schedules import CosineWarmup
from gpulstm.train import Callback, Trainer
from gpulstm.train.batch import count_tokens
from gpulstm.train.saved import check_finite

# Parameters that may differ when a run is resumed: they only decide how long it trains and where.
FREE = ("epochs", "patience", "device", "verbose")
MOST_VALIDATIONS = 40  # in a run; with patience there is one after each epoch instead


def silent(line: str) -> None:
    """Print nothing."""


def whole_or_not_at_all(fit: Any) -> Any:
    """Decorate ``fit``: if it raises, the estimator keeps the state it had before the call."""

    @functools.wraps(fit)
    def fit_or_undo(self: "Estimator", *args: Any, **options: Any) -> Any:
        before = dict(vars(self))
        try:
            fit(self, *args, **options)
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise
        vars(self)["_fitted_with"] = {name: getattr(self, name) for name in self._lasting()}
        return self

    return fit_or_undo


@dataclass(frozen=True)
class Run:
    """Options of ``fit`` for commands: the files to write, whether to resume, and how to report progress.

    The model is written to ``files.out``, with the checkpoint beside it; ``resume`` continues from that checkpoint.
    ``say`` receives facts about the run, one line per call. ``about`` holds more facts (JSON values) to store in the
    model file.
    """

    files: RunFiles = field(default_factory=RunFiles.of)
    checkpoint_every: int | None = None
    resume: bool = False
    force: bool = False
    progress: bool | TextIO = False
    say: Callable[[str], None] = silent
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True, eq=False, repr=False)
class Estimator(Protocol):
    """The base class of the estimators: common parameters, ``fit``, ``predict``, ``score``, ``save`` and ``load``.

    ``fit`` sets attributes that end in "_": ``model_`` (a gl.Module), ``history_`` (the records of ``Trainer.fit``),
    ``n_iter_`` (epochs trained).

    hidden_size, num_layers
        Size of the LSTM's hidden state and number of its layers.
    dropout
        Dropout rate in training.
    epochs
        The maximum number of passes over the training data.
    batch_size, learning_rate, weight_decay, clip_norm
        Batch size, peak learning rate and weight decay of AdamW, and the maximum gradient norm.
    warmup
        Share of the steps in which the learning rate rises to its peak. It then falls to 0 along a cosine.
    validation_fraction
        Share of the data held out for validation. ``fit`` keeps the model with the lowest validation loss. 0 holds
        nothing out.
    patience
        Stop after this many epochs without a lower validation loss; None trains all epochs.
    random_state
        An integer, a NumPy generator or None. The same integer gives the same model.
    device, dtype
        "auto", "cpu", "cuda" or "cuda:N"; "float32" or "float64".
    precision
        Precision of float32 matrix products on a GPU during ``fit``: "ieee", "tf32", "bf16" or "fp16"; see
        ``gl.precision``.
    verbose
        Show progress on standard error.
    """

    hidden_size: int = 64
    num_layers: int = 1
    dropout: float = 0.0
    epochs: int = 20
    batch_size: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    warmup: float = 0.05
    validation_fraction: float = 0.1
    patience: int | None = None
    random_state: Any = None
    device: str | Device = "auto"
    dtype: str = "float32"
    precision: str = IEEE
    verbose: bool = False

    kind: ClassVar[str]  # the kind of model, stored in its file
    made_of: ClassVar[tuple[str, ...]] = ()  # of the subclass: parameters that must not change after fit
    free: ClassVar[tuple[str, ...]] = ()  # of the subclass: parameters that may differ on resume
    _fitted_with: ClassVar[dict[str, Any]] = {}  # the values of the ``_lasting`` parameters in the last fit

    @classmethod
    def _lasting(cls) -> tuple[str, ...]:
        return ("hidden_size", "num_layers", "dtype", *cls.made_of)

    def check_is_fitted(self) -> None:
        """Raise NotFitted before ``fit``, and ShapeError if a parameter that defines the model has changed since."""
        super().check_is_fitted()
        for name, value in self._fitted_with.items():
            if getattr(self, name) != value:
                raise ShapeError(
                    f"{name}: expected {value!r}, as in fit(), got {getattr(self, name)!r}; call fit() again"
                )

    # -- files -----------------------------------------------------------------------------------------------

    def save(self, path: str | Path, facts: Mapping[str, Any] | None = None) -> None:
        """Write the fitted estimator to one safetensors file; the write is atomic.

        ``facts`` (JSON values) are saved too, by default the facts of the training run. Raises NotFitted, and OSError
        if the file cannot be written.
        """
        self.check_is_fitted()
        made = self._made_by if facts is None else facts
        model_file.save(path, self.kind, self.model_.state_dict(), self._description(), made)

    @classmethod
    def load(cls, path: str | Path, device: str | Device = "auto") -> Self:
        """Load an estimator from a file that ``save`` wrote, or the best model so far from a checkpoint.

        Loading never runs code from the file. Raises FormatError for any other file, OSError if it cannot be read.
        """
        arrays, header = model_file.load(path, cls.kind)
        try:
            check_finite(arrays)
            estimator = cls(**{**_tuples(header["params"]), "device": device})
            estimator.check_params()
            total = sum(array.size for array in arrays.values())
            if estimator.hidden_size**2 > total or estimator.num_layers > len(arrays):
                raise ShapeError(f"hidden_size: expected a size that fits {total} numbers, got {estimator.hidden_size}")
            with random.using(np.random.default_rng(0)):
                model = estimator._restore(header["fitted"], arrays)
            model.load_state_dict(dict(arrays))
        except (GpulstmError, AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else error
            raise FormatError(f"{path}: expected a gpulstm {cls.kind}, got a damaged one: {what}") from error
        model.eval()
        made = header.get("facts")
        estimator.model_, estimator._made_by = model, made if isinstance(made, dict) else {}
        vars(estimator)["_fitted_with"] = {name: getattr(estimator, name) for name in cls._lasting()}
        return estimator

    def _description(self) -> dict[str, Any]:
        """Everything besides the model's arrays that ``load`` needs, as JSON values."""
        params = self.get_params()
        for name in ("device", "random_state"):  # a device belongs to one machine; JSON cannot hold a generator
            if isinstance(params[name], np.integer):
                params[name] = int(params[name])
            if not isinstance(params[name], str | int | None):
                params[name] = None if name == "random_state" else "auto"
        return {"params": json.loads(json.dumps(params, default=_plain)), "fitted": self._fitted()}

    def _fitted(self) -> dict[str, Any]:
        """What ``fit`` learnt besides the model's arrays, as JSON values."""
        raise NotImplementedError

    def _restore(self, fitted: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Module:
        """Restore what ``_fitted`` returned, and return a model that fits the arrays.

        May raise any error for invalid values. The sizes come from an untrusted file: compare them with the arrays
        before allocating memory.
        """
        raise NotImplementedError

    # -- training --------------------------------------------------------------------------------------------

    def check_params(self) -> None:
        """Raise ShapeError or DTypeError for an invalid parameter."""
        for name in ("hidden_size", "num_layers", "epochs", "batch_size"):
            checks.count(name, getattr(self, name), 1)
        if self.patience is not None:
            checks.count("patience", self.patience, 1)
        for name in ("dropout", "warmup", "validation_fraction"):
            checks.number(name, value := getattr(self, name), most=1)
            if value == 1:
                raise ShapeError(f"{name}: expected a share from 0 up to, but not including, 1, got 1")
        for name in ("learning_rate", "clip_norm"):
            if checks.number(name, getattr(self, name)) == 0:
                raise ShapeError(f"{name}: expected a number above 0, got 0")
        checks.number("weight_decay", self.weight_decay)
        checks.choice("dtype", self.dtype, ("float32", "float64"))
        check_precision(self.precision)
        checks.flag("verbose", self.verbose)

    def _generator(self) -> np.random.Generator:
        """Return the generator for one ``fit``, from ``random_state``."""
        state = self.random_state
        if isinstance(state, np.random.RandomState):  # scikit-learn's
            state = parallel.group().broadcast(int(state.randint(2**31)))
        if isinstance(state, np.random.Generator):
            random.set_generator_state(state, parallel.group().broadcast(random.generator_state(state)))
            return state
        if state is None:  # the same for all processes
            return np.random.default_rng(parallel.group().broadcast(np.random.SeedSequence().entropy))
        return np.random.default_rng(checks.count("random_state", state))

    def _made(self) -> dict[str, Any]:
        """Return the arguments that every layer takes."""
        return {"device": self.device, "dtype": self.dtype}

    def _train(
        self,
        model: Module,
        loss: Callable[[Any, Any, Any], tuple[Any, Any]],
        batches: Any,
        validation: Any,
        digest: str,
        run: Run | None,
        *,
        tokens: Callable[[Any], Any] = count_tokens,
        callbacks: Iterable[Callback] = (),
    ) -> None:
        """Train the model on the batches and store it as ``model_``. ``digest`` identifies the data.

        Call it inside a ``random.using`` block.
        """
        run = run or Run(progress=self.verbose)
        params = self._description()["params"]
        notes = {**{name: value for name, value in params.items() if name not in (*FREE, *self.free)}, "data": digest}
        files = run.files
        group = parallel.group()
        group.check_same("data", digest)
        done = group.on_root(lambda: files.claim(notes, self._facts_of, ADVICE, resume=run.resume, force=run.force))
        if run.resume:
            run.say(_beginning(files, done))
        steps = self.epochs * len(batches)
        optimizer = AdamW(model.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        schedule = CosineWarmup(optimizer, min(int(self.warmup * steps), steps - 1), steps)
        # With many short epochs, validate only after some of them, unless patience counts epochs.
        every = len(batches) * (1 if self.patience is not None else -(-self.epochs // MOST_VALIDATIONS))
        options: dict[str, Any] = {"clip_norm": self.clip_norm, "precision": self.precision}
        trainer = Trainer(model, optimizer, loss, schedule=schedule, tokens=tokens, **options)
        records = trainer.fit(
            batches,
            steps,
            validation=validation,
            validate_every=every,
            log_every=max(50, every),
            patience=self.patience if validation is not None else None,
            checkpoint=files.checkpoint,
            checkpoint_every=every if run.checkpoint_every is None else run.checkpoint_every,
            resume=run.resume,
            force=run.force,
            log=files.log,
            progress=run.progress,
            notes=notes,
            about={self.kind: self._description(), **run.about, **files.about()},
            callbacks=list(callbacks),
        )
        model.eval()
        self.model_, self.history_, self.n_iter_ = model, records, records[-1]["epoch"]
        losses = [record["val_loss"] for record in records if record["val_loss"] is not None]
        self._made_by = {**notes, "epochs": self.n_iter_, "validation_loss": min(losses, default=None), **run.about}
        if (out := files.out) is not None:
            group.on_root(lambda: self.save(out))
        group.on_root(lambda: files.finish(records, "loss"))

    def _facts_of(self, path: Path) -> dict[str, Any]:
        return model_file.facts(path, self.kind)

    def _backend(self) -> Backend:
        """The backend of the fitted model."""
        return backend_of(next(iter(self.model_.state_dict().values())))


ADVICE = {"data": "the training data differ; use the data that the run started with"}


def _beginning(files: RunFiles, done: int | None) -> str:
    if done is None:
        return f"no checkpoint at {files.checkpoint}: starting from the beginning"
    return f"resuming from {files.checkpoint}, after step {done}"


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"expected a JSON value, got {value!r:.60}")


def _tuples(params: dict[str, Any]) -> dict[str, Any]:
    """Turn lists back into tuples, which JSON does not have."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in params.items()}

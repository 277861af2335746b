"""The parts of a training run of the text lab: settings, batches, model, trainer and loss."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from gpulstm import random
from gpulstm.backend import Device, backend_of
from gpulstm.data import LazyStreams
from gpulstm.errors import DTypeError, FormatError, ShapeError
from gpulstm.labs.text_corpus import Corpus
from gpulstm.labs.text_model import TextModel
from gpulstm.labs.text_vocabulary import LEVELS, Vocabulary
from gpulstm.nn import cross_entropy
from gpulstm.optim import Adam
from gpulstm.precision import IEEE, checked
from gpulstm.schedules import CosineWarmup
from gpulstm.tape import Tensor
from gpulstm.train import Trainer
from gpulstm.train.batch import IGNORED

# Validation always reads the held-out text in the same way, so that the losses of different runs can be compared. Of a
# long text it reads only the first million tokens: they suffice to compare models, and more would take hours.
HELD_OUT_STREAMS, HELD_OUT_WINDOW, MOST_HELD_OUT = 32, 128, 1 << 20


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a training run computes; ``gpulstm text train --help`` explains each."""

    level: str = "char"
    vocabulary: int = 10_000  # maximum vocabulary size at the levels "word" and "bpe"
    embedding: int = 64
    hidden: int = 256
    layers: int = 1
    dropout: float = 0.2
    batch: int = 32  # batch size: streams of text
    window: int = 64  # truncated backpropagation length in tokens
    steps: int = 1500  # in all, also when the run is resumed
    lr: float = 5e-3
    warmup: int = 100
    clip: float = 1.0
    seed: int = 0
    dtype: str = "float32"
    precision: str = IEEE  # of float32 matrix products on a GPU; see gl.precision
    validate_every: int = 250
    patience: int | None = None

    def __post_init__(self) -> None:
        """Raise ShapeError for a value out of range, DTypeError for a value of another type."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.generic):  # JSON cannot hold NumPy numbers
                object.__setattr__(self, field.name, value := value.item())
            kind = int if field.name == "patience" else type(field.default)
            fits = isinstance(value, int | float) if kind is float else isinstance(value, kind)
            if isinstance(value, bool) or not (fits or value is field.default):
                want = {int: "a whole number", float: "a number", str: "a string"}[kind]
                raise DTypeError(f"{field.name}: expected {want}, got {value!r}")
        if self.level not in LEVELS:
            raise ShapeError(f"level: expected one of {', '.join(LEVELS)}, got {self.level!r}")
        checked(self.precision)
        if self.vocabulary < 2:
            raise ShapeError(f"vocabulary: expected at least 2 tokens, got {self.vocabulary}")
        for name in (
            "embedding",
            "hidden",
            "layers",
            "batch",
            "window",
            "steps",
            "validate_every",
            "patience",
        ):
            if (count := getattr(self, name)) is not None and count < 1:
                raise ShapeError(f"{name}: expected at least 1, got {count}")
        for name in ("warmup", "seed"):
            if getattr(self, name) < 0:
                raise ShapeError(f"{name}: expected 0 or more, got {getattr(self, name)}")
        for name in ("lr", "clip"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ShapeError(f"{name}: expected a number above 0, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ShapeError(f"dropout: expected 0 <= dropout < 1, got {self.dropout}")


def settings_of(model: TextModel, **others: Any) -> Settings:
    """Return the settings to train a model further.

    The level, the vocabulary, the sizes, the dropout rate and the dtype are those of the model; ``others`` are further
    settings by name, and the rest are defaults. Raises ShapeError for a value out of range.
    """
    return Settings(**{**_fixed(model), "dropout": model.config["dropout"], **others})


def check_settings_of(model: TextModel, settings: Settings) -> None:
    """Raise ShapeError for settings that contradict the model to train further; the message names all of them."""
    fixed = {name: (want, getattr(settings, name)) for name, want in _fixed(model).items()}
    wrong = [
        f"{name}: expected {want}, as the model has, got {got}" for name, (want, got) in fixed.items() if got != want
    ]
    if wrong:
        raise ShapeError("; ".join(wrong))


def _fixed(model: TextModel) -> dict[str, Any]:
    """Return the settings that a model cannot change."""
    config = {name: model.config[name] for name in ("embedding", "hidden", "layers")}
    return {**_tokens_of(model.vocabulary, None), **config, "dtype": str(model.linear.weight.dtype)}


def _tokens_of(vocabulary: Vocabulary, limit: int | None) -> dict[str, Any]:
    """Return the settings of a vocabulary; ``limit`` is the size that it was learnt with, None if it was given."""
    size = {} if vocabulary.level == "char" else {"vocabulary": len(vocabulary) if limit is None else limit}
    return {"level": vocabulary.level, **size}


def settings_for(corpus: Corpus, **others: Any) -> Settings:
    """Return the settings to train on a prepared corpus: its level and vocabulary, ``others`` by name, and defaults."""
    return Settings(**{**_tokens_of(corpus.vocabulary, corpus.limit), **others})


def check_settings_for(corpus: Corpus, settings: Settings, base: TextModel | None) -> None:
    """Raise ShapeError for settings that contradict a prepared corpus.

    Raises FormatError if ``base``, the model to train further, has another vocabulary than the corpus.
    """
    if base is not None:
        if base.vocabulary.to_json() != corpus.vocabulary.to_json():
            raise FormatError(
                "corpus: expected the vocabulary of the model, got another; prepare the text with "
                "`gpulstm text prepare --from` that model"
            )
        return
    for name, want in _tokens_of(corpus.vocabulary, corpus.limit).items():
        if (got := getattr(settings, name)) != want:
            raise ShapeError(f"{name}: expected {want}, as the corpus has, got {got}")


def streams(corpus: Corpus, settings: Settings) -> tuple[LazyStreams, LazyStreams]:
    """Return the training batches and the validation batches.

    Validation predicts every held-out token but the first once, up to a million tokens. Raises FormatError for a text
    too short for the batch size and the window.
    """
    want = settings.batch * settings.window + 1
    if len(corpus.train) < want:
        raise FormatError(
            f"corpus: expected at least {want:,} tokens to train on, for {settings.batch} streams of "
            f"{settings.window}, got {len(corpus.train):,}; give more text, or a smaller batch or window"
        )
    validated = corpus.held_out if len(corpus.held_out) <= MOST_HELD_OUT else corpus.held_out[: MOST_HELD_OUT + 1]
    held_out = min(HELD_OUT_STREAMS, len(validated) - 1)
    return (
        LazyStreams(corpus.train, settings.batch, settings.window),
        LazyStreams(validated, held_out, HELD_OUT_WINDOW, fill=IGNORED),
    )


def new_model(corpus: Corpus, settings: Settings, place: Device) -> TextModel:
    """Return an untrained model. The seed decides its parameters and, by the default generator, its dropout."""
    generator = random.manual_seed(settings.seed)
    return TextModel(
        corpus.vocabulary,
        embedding=settings.embedding,
        hidden=settings.hidden,
        layers=settings.layers,
        dropout=settings.dropout,
        device=place,
        dtype=settings.dtype,
        generator=generator,
    )


def new_trainer(model: TextModel, settings: Settings) -> Trainer:
    """Return the trainer: Adam, warmup and cosine decay of the learning rate, and gradient clipping."""
    optimizer = Adam(model.parameters(), lr=settings.lr, betas=(0.9, 0.99))
    warmup = min(settings.warmup, settings.steps // 2)
    schedule = CosineWarmup(optimizer, warmup, settings.steps, min_lr=settings.lr / 100)
    options: dict[str, Any] = {"clip_norm": settings.clip, "precision": settings.precision}
    return Trainer(model, optimizer, language_loss, schedule=schedule, **options)


def language_loss(model: TextModel, batch: tuple[np.ndarray, np.ndarray], state: Any) -> tuple[Tensor, Any]:
    """Return the mean cross-entropy in nats of a window (inputs, targets), each (T, B), and the state after it."""
    backend = backend_of(model.linear.weight.data)
    inputs, targets = (backend.asarray(part) for part in batch)
    logits, state = model(inputs, state)
    rows = logits.reshape(-1, logits.shape[-1])
    return cross_entropy(rows, targets.reshape(-1), ignore_index=IGNORED), state

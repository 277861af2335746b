"""LanguageModel: the text lab as a scikit-learn-style estimator."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from gpulstm.backend import Device, backend_of
from gpulstm.errors import DTypeError, ShapeError
from gpulstm.labs import text
from gpulstm.labs.protocol import Protocol
from gpulstm.labs.text_file import model_facts
from gpulstm.labs.text_model import TextModel
from gpulstm.labs.text_training import Settings, language_loss, settings_of
from gpulstm.nn.contexts import evaluation
from gpulstm.precision import IEEE
from gpulstm.tape import no_grad

WINDOW = 256  # tokens that score reads at once


@dataclass(kw_only=True, eq=False, repr=False)
class LanguageModel(Protocol):
    """Learns a text and continues it: a language model, as ``gpulstm text train`` trains it.

    Train on a text with ``fit``; ``sample`` then generates text, and ``perplexity`` measures how well the model
    predicts other text.

    >>> model = LanguageModel(hidden_size=32, steps=30, batch_size=4, window=16, random_state=0)
    >>> model = model.fit("the cat sat on the mat. " * 60)
    >>> len("".join(model.sample("the ", 20, seed=1)))
    20
    >>> model.perplexity("the cat sat on the mat.") < 20
    True

    ``fit(X)`` takes a string or a list of strings, which are joined by blank lines. ``predict(X)`` returns the most
    probable next token of each text. ``score(X)`` returns the mean log-probability of a token in nats. After ``fit``,
    ``model_`` is the trained gl.Module.

    level, vocabulary_size
        The kind of tokens: "char", "word" or "bpe" (parts of words by byte-pair encoding, which needs the library
        tokenizers), and the maximum vocabulary size for "word" and "bpe".
    embedding_size, hidden_size, num_layers, dropout
        Embedding size, hidden size and number of layers of the LSTM, and the dropout rate.
    batch_size, window
        Batch size, and truncated backpropagation length in tokens.
    steps, learning_rate, warmup, clip_norm
        Number of steps of Adam, its peak learning rate, the number of steps in which the rate rises to it, and the
        maximum gradient norm.
    validate_every, patience
        Steps between validations on the last tenth of the text, and the number of validations without improvement after
        which training stops; None trains all steps.
    random_state, device, dtype, verbose
        A seed from 0 up; "auto", "cpu", "cuda" or "cuda:N"; "float32" or "float64"; whether to show progress on
        standard error.
    precision
        Precision of float32 matrix products on a GPU during ``fit``: "ieee", "tf32", "bf16" or "fp16"; see
        ``gl.precision``.

    Raises FormatError for a text that is too short for the window, ShapeError and DTypeError for invalid parameters,
    NotFitted before ``fit``.
    """

    level: str = "char"
    vocabulary_size: int = 10_000
    embedding_size: int = 64
    hidden_size: int = 256
    num_layers: int = 1
    dropout: float = 0.2
    batch_size: int = 32
    window: int = 64
    steps: int = 1500
    learning_rate: float = 5e-3
    warmup: int = 100
    clip_norm: float = 1.0
    validate_every: int = 250
    patience: int | None = None
    random_state: int = 0
    device: str | Device = "auto"
    dtype: str = "float32"
    precision: str = IEEE
    verbose: bool = False

    def fit(self, X: str | Sequence[str], y: Any = None) -> Self:
        """Train on a text or a list of texts; y must be None. Returns self.

        Raises FormatError for a text that is too short for the batch size and the window, ShapeError and DTypeError for
        invalid parameters.
        """
        if y is not None:
            raise DTypeError(f"y: expected None, because the text is its own target, got {type(y).__name__}")
        try:
            settings = Settings(**{name: getattr(self, parameter) for name, parameter in SETTINGS.items()})
        except (ShapeError, DTypeError) as error:  # it has the setting's name instead of the parameter's
            name, _, words = str(error).partition(":")
            raise type(error)(f"{SETTINGS.get(name, name)}:{words}") from error
        self.model_ = text.train("\n\n".join(_texts(X)), settings, device=self.device, progress=self.verbose)
        return self

    def predict(self, X: str | Sequence[str]) -> np.ndarray:
        """Return the most probable next token of each text of X, an array of strings (N,)."""
        return np.array(["".join(self.sample(prompt, 1, temperature=0)) for prompt in _texts(X)])

    def score(self, X: str | Sequence[str], y: Any = None) -> float:
        """Return the mean log-probability of a token of X in nats; at most 0, and higher is better.

        X is a text or a list of texts, each read from its start. Raises ShapeError if no text has two tokens,
        FormatError for characters that the training text does not contain, NotFitted before ``fit``.
        """
        self.check_is_fitted()
        model, total, count = self.model_, 0.0, 0
        backend = backend_of(model.linear.weight.data)
        for one in _texts(X):
            numbers, state = model.vocabulary.numbers(one), None
            for start in range(0, len(numbers) - 1, WINDOW):
                part = backend.asarray(numbers[start : start + WINDOW + 1, None])
                with evaluation(model), no_grad():
                    loss, state = language_loss(model, (part[:-1], part[1:]), state)
                total -= loss.item() * (len(part) - 1)
                count += len(part) - 1
        if count == 0:
            raise ShapeError("X: expected a text of at least 2 tokens, got only shorter texts")
        return total / count

    def perplexity(self, X: str | Sequence[str]) -> float:
        """Return the perplexity, exp(-score(X)): 1 is a perfect prediction. Raises as ``score`` does."""
        return math.exp(-self.score(X))

    def sample(self, prompt: str = "", length: int = 500, **options: Any) -> Iterator[str]:
        """Yield ``length`` tokens that continue the prompt.

        ``options`` are ``temperature``, ``top_k``, ``top_p`` and ``seed``, as in ``gl.labs.text.sample``. Raises
        NotFitted before ``fit``, and ShapeError or FormatError for invalid options and prompts.
        """
        self.check_is_fitted()
        return text.sample(self.model_, prompt, length, **options)

    def save(self, path: str | Path) -> None:
        """Write the fitted model to one safetensors file, as ``gpulstm text train`` does; the write is atomic.

        Raises NotFitted before ``fit``, and OSError if the file cannot be written.
        """
        self.check_is_fitted()
        text.save_model(path, self.model_, {name: getattr(self, parameter) for name, parameter in SETTINGS.items()})

    @classmethod
    def load(cls, path: str | Path, device: str | Device = "auto") -> Self:
        """Load a model that ``save`` or ``gpulstm text train`` wrote, or the best model so far from a checkpoint.

        Loading never runs code from the file. Raises FormatError for any other file, OSError if it cannot be read.
        """
        model: TextModel = text.load_model(path, device)
        kept = model_facts(path)
        usual = {name: getattr(settings_of(model), name) for name in SETTINGS}
        settings = {name: kept.get(name, value) for name, value in usual.items()}
        estimator = cls(**{parameter: settings[name] for name, parameter in SETTINGS.items()}, device=device)
        estimator.model_ = model
        return estimator

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.string = False, True
        return tags


# The settings of the text lab -> the parameters of the estimator.
SETTINGS = {
    "level": "level", "vocabulary": "vocabulary_size", "embedding": "embedding_size", "hidden": "hidden_size",
    "layers": "num_layers", "dropout": "dropout", "batch": "batch_size", "window": "window", "steps": "steps",
    "lr": "learning_rate", "warmup": "warmup", "clip": "clip_norm", "seed": "random_state", "dtype": "dtype",
    "precision": "precision",
    "validate_every": "validate_every", "patience": "patience",
}  # fmt: skip


def _texts(X: str | Sequence[str]) -> list[str]:
    """Return the texts of X, a text or a list of texts. Raises DTypeError for anything else."""
    texts = [X] if isinstance(X, str) else list(X) if isinstance(X, Sequence | np.ndarray) else None
    if texts is None or not all(isinstance(one, str) for one in texts):
        raise DTypeError(f"X: expected a text or a list of texts, got {X!r:.60}")
    return [str(one) for one in texts]

"""Sampling text from a language model: choosing the next token, and a generator that yields one token at a time."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gpulstm.errors import DTypeError, NotFinite, ShapeError
from gpulstm.labs.text_model import TextModel
from gpulstm.train.saved import check_finite


@dataclass(frozen=True)
class Choice:
    """Chooses a token from logits (V,). Raises ShapeError for options out of range."""

    temperature: float = 1.0  # divides the logits; 0 always takes the most likely token
    top_k: int | None = None  # keep only the k most likely tokens (Fan, Lewis & Dauphin 2018)
    top_p: float = 1.0  # then keep the fewest tokens whose probabilities add up to p (Holtzman et al. 2020)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ShapeError(f"temperature: expected a number from 0 up, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ShapeError(f"top_k: expected 1 or more, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ShapeError(f"top_p: expected a share above 0 and at most 1, got {self.top_p}")

    def __call__(self, logits: np.ndarray, generator: np.random.Generator) -> int:
        """Return the number of the chosen token."""
        if self.temperature == 0:
            return int(np.argmax(logits))
        likely_first = np.argsort(-logits, kind="stable")[: self.top_k]
        kept = logits[likely_first].astype(np.float64)
        # Subtract before dividing: a tiny temperature then gives -inf and a probability of 0, and never inf - inf.
        with np.errstate(over="ignore"):
            p = np.exp((kept - kept[0]) / self.temperature)
        cumulative = np.cumsum(p / p.sum())
        enough = min(int(np.searchsorted(cumulative, self.top_p)) + 1, len(cumulative))
        place = np.searchsorted(cumulative[:enough], generator.random() * cumulative[enough - 1], side="right")
        return int(likely_first[min(int(place), enough - 1)])  # rounding may put place one past the end


def sample(
    model: TextModel,
    prompt: str = "",
    length: int = 500,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    seed: int | None = None,
) -> Iterator[str]:
    """Sample ``length`` tokens that continue the prompt, and yield them one at a time, without the prompt.

    ``temperature``, ``top_k`` and ``top_p`` are those of ``Choice``. The same ``seed`` gives the same text on the same
    device; with None every text is different. An empty prompt means the end of a line. A word-level model never samples
    "<unk>". At level "bpe" a character can consist of several tokens; it is yielded with the last one.

    The model computes in evaluation mode, without dropout; its own mode does not change. The state is carried from
    token to token.

    Raises, before the first token, ShapeError for options out of range, DTypeError for options of another type,
    FormatError for a prompt with characters that are not in the vocabulary, and NotFinite for a model with
    weights that are not finite.

    >>> print("".join(sample(load_model("text.safetensors"), "The ", 80, seed=1)))  # doctest: +SKIP
    """
    if not isinstance(model, TextModel):
        raise DTypeError(f"model: expected a TextModel, got {model!r:.80}; read a file with load_model(path)")
    if not isinstance(prompt, str):
        raise DTypeError(f"prompt: expected a string, got {type(prompt).__name__}")
    for name, count in (("length", length), ("seed", seed), ("top_k", top_k)):
        if count is not None and (isinstance(count, bool) or not isinstance(count, int | np.integer)):
            raise DTypeError(f"{name}: expected a whole number, got {count!r}")
    if length < 0:
        raise ShapeError(f"length: expected 0 or more tokens, got {length}")
    if seed is not None and seed < 0:
        raise ShapeError(f"seed: expected 0 or more, got {seed}")
    choose = Choice(temperature, top_k, top_p)
    check_finite(model.state_dict())
    numbers = _numbers(model, model.prompt(prompt), length, choose, np.random.default_rng(seed))
    return model.vocabulary.stream(numbers)


def _numbers(
    model: TextModel, numbers: np.ndarray, length: int, choose: Choice, generator: np.random.Generator
) -> Iterator[int]:
    state = None
    for _ in range(length):
        logits, state = model.step(numbers, state)
        if not (logits < np.inf).all() or not np.isfinite(logits).any():  # NaN is below nothing
            raise NotFinite(
                "logits: expected finite numbers, got others; the model's weights are too large for its type"
            )
        number = choose(logits, generator)
        yield number
        numbers = np.array([number])

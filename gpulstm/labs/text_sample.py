"""Text out: choosing the next token, and a generator that yields the text as the model makes it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gpulstm.errors import DTypeError, NotFinite, ShapeError
from gpulstm.labs.text_model import TextModel
from gpulstm.train.saved import check_finite


@dataclass(frozen=True)
class Choice:
    """How a token is chosen from logits (V,). Raises ShapeError for options out of range."""

    temperature: float = 1.0  # divides the logits; 0 takes the largest
    top_k: int | None = None  # among the k most likely (Fan, Lewis & Dauphin 2018)
    top_p: float = 1.0  # then among the fewest whose probabilities reach p (Holtzman et al. 2020)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ShapeError(f"temperature: expected a number from 0 up, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ShapeError(f"top_k: expected 1 or more, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ShapeError(f"top_p: expected a share above 0 and at most 1, got {self.top_p}")

    def __call__(self, logits: np.ndarray, generator: np.random.Generator) -> int:
        """The number of the token."""
        if self.temperature == 0:
            return int(np.argmax(logits))
        likely_first = np.argsort(-logits, kind="stable")[: self.top_k]
        kept = logits[likely_first].astype(np.float64)
        # Subtracted before it is divided: a tiny temperature gives -inf and a probability of 0, never inf -
        # inf.
        with np.errstate(over="ignore"):
            p = np.exp((kept - kept[0]) / self.temperature)
        cumulative = np.cumsum(p / p.sum())
        enough = min(int(np.searchsorted(cumulative, self.top_p)) + 1, len(cumulative))
        place = np.searchsorted(cumulative[:enough], generator.random() * cumulative[enough - 1], side="right")
        return int(likely_first[min(int(place), enough - 1)])  # the product may be rounded up to the last sum


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
    """Yield ``length`` tokens that the model writes after the prompt, one at a time; the prompt is not
    repeated.

    The model's state is carried from token to token. For the options see ``Choice``. One ``seed`` gives one
    text on one device; None gives another each time. A word-level model never writes "<unk>". Of a character in
    several tokens of level "bpe" the last has all of it. An empty prompt stands for the end of a line. The model
    computes as in use, without dropout, and keeps the mode it is in.

    Raises, before the first token, ShapeError for options out of range, DTypeError for those of another kind,
    FormatError for a prompt with characters that the model has never seen, and NotFinite for a model with
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

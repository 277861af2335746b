"""The sentences that a translator is given, checked."""

from typing import Any

import numpy as np

from gpulstm.errors import DTypeError, ShapeError


def sentences_in(name: str, X: Any, *, empty: bool = False) -> list[str]:
    """A list of sentences from a list, a tuple, an array or a column of strings; with ``empty`` some may be empty.

    Raises ShapeError for none, for another shape and for empty ones, naming the first; DTypeError for what is no text.
    """
    if hasattr(X, "toarray"):
        raise DTypeError(f"{name}: expected a list of sentences, got a sparse array")
    if isinstance(X, str | bytes | dict | set) or not hasattr(X, "__len__"):
        one = ", e.g. [sentence]" if isinstance(X, str) else ""
        raise DTypeError(f"{name}: expected a list of sentences{one}, got {type(X).__name__}")
    if getattr(X, "ndim", 1) != 1:
        raise ShapeError(f"{name}: expected (N,), a sentence each, got {X.shape}")
    items = list(X)
    if not items:
        raise ShapeError(f"{name}: expected at least one sentence, got 0 sample(s)")
    for n, item in enumerate(items):
        if not isinstance(item, str):
            raise DTypeError(f"{name}[{n}]: expected a sentence, a str, got {item!r:.60}")
        if not empty and not item.strip():
            raise ShapeError(f"{name}[{n}]: expected a sentence, got an empty one")
    return [str(item) for item in items]


def pairs_in(name: str, X: Any, target_name: str, y: Any) -> tuple[list[str], list[str]]:
    """As many sentences as translations, none empty; raises as ``sentences_in``, and ShapeError for other numbers."""
    sources, targets = sentences_in(name, X), sentences_in(target_name, y)
    if len(sources) != len(targets):
        raise ShapeError(
            f"{target_name}: expected {len(sources)} sentences, one for each in {name}, got {len(targets)}"
        )
    return sources, targets


def held_out(N: int, fraction: float, generator: np.random.Generator) -> np.ndarray:
    """Which of N pairs are held out, a share of them drawn at random, (N,) bool; at least one stays."""
    chosen = np.zeros(N, bool)
    chosen[generator.permutation(N)[: min(round(fraction * N), N - 1)]] = True
    return chosen

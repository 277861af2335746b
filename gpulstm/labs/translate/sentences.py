"""Checks of the Translator's data: sentences and pairs of sentences."""

from typing import Any

import numpy as np

from gpulstm.errors import DTypeError, ShapeError


def sentences_in(name: str, X: Any, *, empty: bool = False) -> list[str]:
    """Return a list of sentences from a list, a tuple, an array or a column of strings.

    With ``empty``, sentences may be empty. Raises ShapeError if there are no sentences, for another shape and for empty
    sentences (the message names the first); DTypeError for anything but strings.
    """
    if hasattr(X, "toarray"):
        raise DTypeError(f"{name}: expected a list of sentences, got a sparse array")
    if isinstance(X, str | bytes | dict | set) or not hasattr(X, "__len__"):
        one = ", e.g. [sentence]" if isinstance(X, str) else ""
        raise DTypeError(f"{name}: expected a list of sentences{one}, got {type(X).__name__}")
    if getattr(X, "ndim", 1) != 1:
        raise ShapeError(f"{name}: expected (N,) sentences, got {X.shape}")
    items = list(X)
    if not items:
        raise ShapeError(f"{name}: expected at least one sentence, got 0 sample(s)")
    for n, item in enumerate(items):
        if not isinstance(item, str):
            raise DTypeError(f"{name}[{n}]: expected a string, got {item!r:.60}")
        if not empty and not item.strip():
            raise ShapeError(f"{name}[{n}]: expected a sentence, got an empty string")
    return [str(item) for item in items]


def pairs_in(name: str, X: Any, target_name: str, y: Any) -> tuple[list[str], list[str]]:
    """Return the sentences and their translations, none of them empty.

    Raises as ``sentences_in`` does, and ShapeError for lists of different lengths.
    """
    sources, targets = sentences_in(name, X), sentences_in(target_name, y)
    if len(sources) != len(targets):
        raise ShapeError(
            f"{target_name}: expected {len(sources)} sentences, one for each in {name}, got {len(targets)}"
        )
    return sources, targets


def held_out(N: int, fraction: float, generator: np.random.Generator) -> np.ndarray:
    """Choose at random which of N pairs to hold out, (N,) bool; at least one pair stays for training."""
    chosen = np.zeros(N, bool)
    chosen[generator.permutation(N)[: min(round(fraction * N), N - 1)]] = True
    return chosen

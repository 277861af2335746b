"""How wrong a transcript is: the edit distance, and the rates of wrong words and characters."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpulstm.errors import ShapeError


def edit_distance(a: Sequence[Any], b: Sequence[Any]) -> int:
    """The fewest insertions, deletions and substitutions of items that make a into b (Levenshtein 1966)."""
    numbers: dict[Any, int] = {}
    first, second = (np.array([numbers.setdefault(item, len(numbers)) for item in items], np.int64) for items in (a, b))
    columns = np.arange(len(second) + 1)
    row = columns
    for n, item in enumerate(first, 1):
        reached = np.concatenate([[n], np.minimum(row[1:] + 1, row[:-1] + (second != item))])
        row = np.minimum.accumulate(reached - columns) + columns  # insertions from the left
    return int(row[-1])


def word_error_rate(predicted: Sequence[str], truth: Sequence[str]) -> float:
    """Edits of words over the words of the truth, summed over all texts; words are what white space separates.

    Above 1 where too much is predicted. Raises ShapeError for lists of different lengths, and where the truth has no
    word.
    """
    return _rate([text.split() for text in predicted], [text.split() for text in truth], "word")


def character_error_rate(predicted: Sequence[str], truth: Sequence[str]) -> float:
    """As ``word_error_rate``, of characters."""
    return _rate(predicted, truth, "character")


def _rate(predicted: Sequence[Any], truth: Sequence[Any], item: str) -> float:
    if len(predicted) != len(truth):
        raise ShapeError(f"predicted: expected {len(truth)} texts, as many as the truth has, got {len(predicted)}")
    total = sum(map(len, truth))
    if total == 0:
        raise ShapeError(f"truth: expected at least one {item}, got none")
    return sum(map(edit_distance, predicted, truth)) / total

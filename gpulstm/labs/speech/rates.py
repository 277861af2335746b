"""Error measures of transcripts: the edit distance, and the word and character error rates."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpulstm.errors import ShapeError


def edit_distance(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Return the fewest insertions, deletions and substitutions that turn a into b (Levenshtein 1966)."""
    numbers: dict[Any, int] = {}
    first, second = (np.array([numbers.setdefault(item, len(numbers)) for item in items], np.int64) for items in (a, b))
    columns = np.arange(len(second) + 1)
    row = columns
    for n, item in enumerate(first, 1):
        reached = np.concatenate([[n], np.minimum(row[1:] + 1, row[:-1] + (second != item))])
        row = np.minimum.accumulate(reached - columns) + columns  # insertions from the left
    return int(row[-1])


def word_error_rate(predicted: Sequence[str], truth: Sequence[str]) -> float:
    """Return the word edits that turn ``predicted`` into ``truth``, divided by the number of words in ``truth``.

    Both sums run over all texts; white space separates words. The rate exceeds 1 if there are more edits than words.
    Raises ShapeError for lists of different lengths, and if ``truth`` has no words.
    """
    return _rate([text.split() for text in predicted], [text.split() for text in truth], "word")


def character_error_rate(predicted: Sequence[str], truth: Sequence[str]) -> float:
    """Return the same rate as ``word_error_rate``, with characters in place of words."""
    return _rate(predicted, truth, "character")


def _rate(predicted: Sequence[Any], truth: Sequence[Any], item: str) -> float:
    if len(predicted) != len(truth):
        raise ShapeError(f"predicted: expected {len(truth)} texts, as many as in truth, got {len(predicted)}")
    total = sum(map(len, truth))
    if total == 0:
        raise ShapeError(f"truth: expected at least one {item}, got none")
    return sum(map(edit_distance, predicted, truth)) / total

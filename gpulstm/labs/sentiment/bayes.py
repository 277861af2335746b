"""Naive Bayes on words and pairs of words, the baseline of the sentiment classifier."""

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpulstm.labs.sentiment.words import split


class NaiveBayes:
    """Multinomial naive Bayes with add-one smoothing (Manning, Raghavan & Schütze 2008, chapter 13)."""

    def fit(self, texts: Sequence[str], labels: Any) -> "NaiveBayes":
        """Count the words and pairs of each class. Returns self."""
        self.classes_, targets = np.unique(labels, return_inverse=True)
        counts: list[Counter[Any]] = [Counter() for _ in self.classes_]
        for text, target in zip(texts, targets, strict=True):
            counts[target].update(_features(text))
        known = {feature for count in counts for feature in count}
        self._numbers = {feature: number for number, feature in enumerate(known)}
        table = np.array([[1.0 + count[feature] for feature in known] for count in counts])
        self._log_p = np.log(table / table.sum(axis=1, keepdims=True))  # (classes, features)
        self._log_prior = np.log(np.bincount(targets) / len(targets))
        return self

    def predict(self, texts: Sequence[str]) -> np.ndarray:
        """Return the most probable class of each text; words that training never saw are ignored."""
        scores = np.tile(self._log_prior, (len(texts), 1))
        for row, text in zip(scores, texts, strict=True):
            numbers = [self._numbers[feature] for feature in _features(text) if feature in self._numbers]
            row += self._log_p[:, numbers].sum(axis=1)
        return self.classes_[scores.argmax(axis=1)]


def _features(text: str) -> list[Any]:
    words = split(text, lowercase=True)
    return [*words, *itertools.pairwise(words)]

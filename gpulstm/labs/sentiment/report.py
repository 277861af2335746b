"""Report a classifier's accuracy beside simpler classifiers, and show which words it weighs."""

import html
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpulstm import plot
from gpulstm.labs.sentiment.bayes import NaiveBayes
from gpulstm.labs.sentiment.estimator import SequenceClassifier
from gpulstm.labs.sentiment.texts import Labelled

SHOWN = 3  # words listed per text
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Words that the classifier weighs</title>
<style>
  :root { color-scheme: light dark; --mark: 255, 170, 0; }
  body { font: 16px/1.7 system-ui, sans-serif; margin: 0 auto; max-width: 55rem; padding: 1rem; }
  p { border-bottom: 1px solid rgba(128, 128, 128, .4); margin: 0; overflow-wrap: anywhere; padding: .5rem 0; }
  b { display: inline-block; min-width: 9rem; }
  span { border-radius: 2px; padding: 0 2px; }
</style>
</head>
<body>
<h1>Words that the classifier weighs</h1>
<p>A stronger mark means that the word counted more.</p>
BODY
</body>
</html>
"""


def lines(classifier: SequenceClassifier, train: Labelled, test: Labelled) -> tuple[list[str], np.ndarray]:
    """Return the lines of the test report, and the confusion matrix (K, K); its rows are the true classes."""
    predicted = classifier.predict(test.texts)
    bayes = NaiveBayes().fit(train.texts, train.labels).predict(test.texts)
    common = Counter(train.labels).most_common(1)[0][0]
    truth = np.array(test.labels)
    rows = {"LSTM": predicted, "naive Bayes, words and pairs": bayes, f"always {common}": np.full(len(truth), common)}
    width = max(map(len, rows))
    found = [f"test: {len(test):,} texts", *(f"{name:{width}}  {(p == truth).mean():6.1%}" for name, p in rows.items())]
    if (predicted == truth).mean() <= (bayes == truth).mean():
        found.append("the LSTM does not beat naive Bayes")
    places = {label: k for k, label in enumerate(classifier.classes_.tolist())}
    counts = np.zeros((len(places), len(places)), int)
    np.add.at(counts, ([places[label] for label in test.labels], [places[label] for label in predicted]), 1)
    return found, counts


def picture(path: Path, counts: np.ndarray, labels: Sequence[str]) -> None:
    """Draw the confusion matrix; raises as plot.save does."""
    size = (max(4.5, 0.5 * len(labels) + 3),) * 2
    plot.save(path, lambda axes: plot.confusion_matrix(axes, counts, labels), size=size)


def heaviest(words: Sequence[str], weights: np.ndarray) -> list[str]:
    """Return the words with the largest weights, in the order of the text."""
    chosen = sorted(np.argsort(-weights, kind="stable")[:SHOWN].tolist())
    return [words[k] for k in chosen]


@dataclass(frozen=True)
class Weighed:
    """A text's predicted class and probability, and its words with their weights."""

    label: str
    probability: float
    words: Sequence[str]
    weights: np.ndarray


def page(texts: Sequence[Weighed]) -> str:
    """Return a self-contained HTML page of the texts, their classes, and their words marked by weight."""
    body = []
    for text in texts:
        most = float(text.weights.max(initial=0)) or 1.0
        marked = " ".join(
            f'<span style="background: rgba(var(--mark), {share / most:.3f})">{html.escape(word)}</span>'
            for word, share in zip(text.words, text.weights, strict=True)
        )
        body.append(f"<p><b>{html.escape(text.label)} {text.probability:.0%}</b> {marked}</p>")
    return PAGE.replace("BODY", "\n".join(body))

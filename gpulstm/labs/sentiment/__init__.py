"""The sentiment lab: the SequenceClassifier, which sorts texts, or sequences of numbers, into classes.

``gpulstm sentiment train`` trains on a CSV file, or on one file or folder per class, and compares the result with naive
Bayes.

>>> classifier = gl.SequenceClassifier(random_state=0).fit(texts, labels)  # lists of strings and of labels
>>> classifier.predict(["a fine film"])
>>> classifier.predict_proba(["a fine film"])  # a column for each of classifier.classes_
>>> probabilities, weights = classifier.explain(["a fine film"])  # and how much each word counts
"""

from gpulstm.labs.sentiment.estimator import SequenceClassifier

__all__ = ["SequenceClassifier"]

"""The sentiment lab: texts sorted into classes by the SequenceClassifier, beside naive Bayes."""

from gpulstm.labs.sentiment.estimator import SequenceClassifier

__all__ = ["SequenceClassifier"]

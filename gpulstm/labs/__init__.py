"""The labs: ready-made applications, each an estimator with scikit-learn's interface and a ``gpulstm`` command.

==================  =====================  ==========================================================
estimator           command                task
==================  =====================  ==========================================================
LanguageModel       ``gpulstm text``       learn a text and continue it
Forecaster          ``gpulstm forecast``   forecast time series, with prediction intervals
SequenceClassifier  ``gpulstm sentiment``  sort texts, or sequences of numbers, into classes
Transcriber         ``gpulstm speech``     transcribe recordings to text
Translator          ``gpulstm translate``  translate sentences
==================  =====================  ==========================================================

The constructor takes the parameters, ``fit`` trains, ``predict`` and ``score`` use the fitted estimator, ``save`` and
``load`` keep it in one file. Estimators also work in scikit-learn's ``Pipeline``, ``cross_val_score`` and
``GridSearchCV``, but do not need scikit-learn.

>>> forecaster = gl.labs.Forecaster(horizon=12).fit(series)  # or gl.Forecaster
>>> forecaster.predict()  # the 12 steps that follow the series
>>> classifier = gl.labs.SequenceClassifier().fit(texts, labels)

``gl.labs.text`` holds the functions behind ``gpulstm text``, such as ``train`` and ``sample``.
"""

import importlib
from typing import Any

from gpulstm.labs import text

ESTIMATORS = {
    "Forecaster": "forecast",
    "LanguageModel": "language_model",
    "SequenceClassifier": "sentiment",
    "Transcriber": "speech",
    "Translator": "translate",
}


def __getattr__(name: str) -> Any:
    """Import an estimator at its first use."""
    if name not in ESTIMATORS:
        raise AttributeError(f"module 'gpulstm.labs' has no attribute {name!r}")
    return getattr(importlib.import_module(f"gpulstm.labs.{ESTIMATORS[name]}"), name)


__all__ = ["ESTIMATORS", "Forecaster", "LanguageModel", "SequenceClassifier", "Transcriber", "Translator", "text"]

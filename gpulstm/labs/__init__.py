"""The applications: each an estimator to import, with scikit-learn's habits, and a command of ``gpulstm``.

>>> forecaster = gl.labs.Forecaster(horizon=12).fit(series)  # or gl.Forecaster
>>> classifier = gl.labs.SequenceClassifier().fit(texts, labels)

``text`` is the text lab's own interface, which trains language models.
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
    """An estimator is imported at its first use."""
    if name not in ESTIMATORS:
        raise AttributeError(f"module 'gpulstm.labs' has no attribute {name!r}")
    return getattr(importlib.import_module(f"gpulstm.labs.{ESTIMATORS[name]}"), name)


__all__ = ["ESTIMATORS", "Forecaster", "LanguageModel", "SequenceClassifier", "Transcriber", "Translator", "text"]

"""The translation lab: sentences of one language into another by the Translator."""

from gpulstm.labs.translate.estimator import Translator

__all__ = ["Translator"]

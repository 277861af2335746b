"""The translation lab: the Translator, which translates sentences (sequence to sequence, with attention).

``gpulstm translate train`` trains on two parallel text files, or on one file with tabs.

>>> translator = gl.Translator(random_state=0).fit(sentences, translations)  # two lists of strings
>>> translator.predict(["guten morgen"])
>>> translator.score(sentences, translations)  # BLEU / 100; needs sacrebleu
>>> targets, sources, weights = translator.attention("guten morgen")
"""

from gpulstm.labs.translate.estimator import Translator

__all__ = ["Translator"]

"""The speech lab: the Transcriber, recordings in folders and zip files, decoding and error rates."""

from gpulstm.labs.speech.estimator import Transcriber
from gpulstm.labs.speech.features import log_mel
from gpulstm.labs.speech.rates import character_error_rate, word_error_rate
from gpulstm.labs.speech.wave import read_wave, resample

__all__ = ["Transcriber", "character_error_rate", "log_mel", "read_wave", "resample", "word_error_rate"]

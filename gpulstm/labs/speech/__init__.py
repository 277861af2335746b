"""The speech lab: the Transcriber, which turns recordings into text, and functions for audio and error rates.

``gpulstm speech train`` trains on WAV files in a folder or a zip, with a table of their transcripts.

>>> waves = [gl.labs.speech.read_wave(file, 8000) for file in files]  # each (N,), at 8,000 samples per second
>>> transcriber = gl.Transcriber(sample_rate=8000, random_state=0).fit(waves, texts)
>>> transcriber.predict(waves)  # a list of strings
>>> gl.labs.speech.word_error_rate(transcriber.predict(waves), texts)
"""

from gpulstm.labs.speech.estimator import Transcriber
from gpulstm.labs.speech.features import log_mel
from gpulstm.labs.speech.rates import character_error_rate, word_error_rate
from gpulstm.labs.speech.wave import read_wave, resample

__all__ = ["Transcriber", "character_error_rate", "log_mel", "read_wave", "resample", "word_error_rate"]

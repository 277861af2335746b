"""Batches for training: padded sequences, windows, streams that carry a state, from memory or from disk; positions
can be saved.

Sequences come time first, (T, B, ...), as the layers read them: ``gl.LSTM(D, H)``. Every data set takes
``batch_first=True``, which makes them (B, T, ...), for ``gl.LSTM(D, H, batch_first=True)``, and has an attribute of
that name. A column of ``Batches`` that is an array has no axis of time: a batch holds rows of it, (B, ...), whatever
their axes mean. Give sequences as a list, ``list(x)`` for an array (N, T, D) of them, or give the layer
``batch_first=True``.

Going over a data set with ``for`` is one pass. After ``load_state_dict`` the next pass begins where the saved one
stood, and gives the batches that the saved one would have given, in the same order.
"""

from gpulstm.data.batches import Batches
from gpulstm.data.lazy import LazyStreams
from gpulstm.data.padding import pad_sequences
from gpulstm.data.passes import Passes
from gpulstm.data.series import Streams, Windows

__all__ = ["Batches", "LazyStreams", "Passes", "Streams", "Windows", "pad_sequences"]

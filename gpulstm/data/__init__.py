"""Data sets for training: they make batches from arrays, sequences and long series.

``Batches`` makes batches of examples and pads sequences of different lengths. ``Windows`` cuts a series into windows.
``Streams`` reads a long series in consecutive windows, for truncated backpropagation; ``LazyStreams`` does the same for
a series that is too large for memory.

>>> sentences, classes = [[5, 3, 8], [2]], np.array([0, 1])
>>> batches = gl.data.Batches(sentences, classes, batch_size=2)
>>> for (ids, lengths), labels in batches:  # one pass
...     print(ids.shape, lengths, labels)
(3, 2) [3 1] [0 1]

A ``for`` loop over a data set is one pass. ``batches.state_dict()`` saves the position in it. After ``load_state_dict``
the next pass continues from there, with the same batches in the same order.

Sequences are time first, (T, B, ...), as ``gl.LSTM(D, H)`` reads them. With ``batch_first=True`` they are (B, T, ...),
for ``gl.LSTM(D, H, batch_first=True)``. An array given to ``Batches`` has no time axis: a batch holds rows of it,
(B, ...). So give sequences as a list, ``list(x)`` for an array (N, T, D), or make the layer with ``batch_first=True``.
"""

from gpulstm.data.batches import Batches
from gpulstm.data.lazy import LazyStreams
from gpulstm.data.padding import pad_sequences
from gpulstm.data.passes import Passes
from gpulstm.data.series import Streams, Windows

__all__ = ["Batches", "LazyStreams", "Passes", "Streams", "Windows", "pad_sequences"]

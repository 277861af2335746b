"""State dicts in PyTorch's files, without PyTorch: read, written, and made into layers.

>>> state = gl.io.torch.load("model.pt")  # no code in the file is run
>>> lstm = gl.io.torch.from_state_dict(state, prefix="encoder.rnn.")
>>> gl.io.torch.save("lstm.pt", lstm.state_dict())  # torch.load("lstm.pt") reads it

gpulstm's names, shapes and gate orders are PyTorch's, so a state dict needs no conversion.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpulstm.io.files import as_path, atomic_write
from gpulstm.io.torch import layers, read, write
from gpulstm.io.torch.unread import Unread

__all__ = ["Unread", "from_state_dict", "load", "save"]


def load(path: str | Path) -> Any:
    """What ``torch.save`` wrote to a file, in today's format or in that before PyTorch 1.6.

    Tensors come as NumPy arrays, in dicts, lists and tuples, beside numbers, texts, bytes, sets and None.
    Parameters and buffers come as arrays, OrderedDict as dict, torch.Size as tuple, torch.device as a text
    ("cuda:0"), torch.dtype as NumPy's (bfloat16 and the float8 types as those of ml_dtypes), layouts as texts, paths
    as pure paths. NumPy's numbers and arrays, Counter, defaultdict and argparse.Namespace stay what they are.
    Tensors that share memory share it here. PyTorch is not needed and no code in the file is run.

    Other objects in the file (an optimizer, a loss, an enum, a function) are not made: each becomes an ``Unread``,
    which names its class and keeps its data, and a warning lists them. Memory is taken for what the file holds
    alone, at most about 20 times its size.

    Raises FormatError, saying what is wrong and where, for a file that is damaged or something else, for a whole
    module, and for tensors that no array can hold (sparse, quantized, nested, without values, of a class of their
    own); DTypeError for bfloat16 and float8 without the package ml_dtypes; OSError where the file cannot be read.
    """
    return read.read(as_path(path))


def save(path: str | Path, state_dict: Any) -> None:
    """Write a state dict, or any nest of dicts, lists, tuples and sets of arrays, numbers, texts and bytes, so that
    ``torch.load(path)`` reads it, with ``weights_only=True`` too.

    NumPy and CuPy arrays and Tensors become tensors on the CPU, NumPy's types those of torch, NumPy's numbers
    Python's; the same array under two names stays one. The file is replaced whole or not at all, see
    ``gl.io.atomic_write``. Raises DTypeError for what PyTorch has no type for and for Unread, FormatError for what
    cannot be a key or is nested too deep, and OSError where the file cannot be written.
    """
    path = as_path(path, state_dict)
    pickled = write.Pickle(state_dict)
    atomic_write(path, lambda file: write.write(file, pickled))


def from_state_dict(state_dict: Mapping[str, Any], kind: str | None = None, prefix: str = "", **options: Any) -> Any:
    """The layer that a state dict belongs to, with its weights: gl.LSTM, GRU or RNN, or the cell of one step.

    Sizes, layers, directions, biases and projection follow from names and shapes, and so does the kind (4H
    rows: LSTM, 3H: GRU, H: RNN), which may be given too: "LSTM", "GRU" or "RNN". Of a larger model's state
    dict ``prefix`` ("encoder.rnn.") picks the names of the layer; what wrappers put before them ("module.",
    "_orig_mod.") is part of it. Of a checkpoint pass the entry with the weights (``checkpoint["state_dict"]``).
    The arrays are NumPy's, CuPy's or PyTorch's. ``options`` go to the layer: batch_first, dropout, device,
    dtype (without it that of the weights), and what no weight tells, such as an RNN's ``nonlinearity="relu"``.

    Raises ShapeError where names or shapes are not those of one such layer; the message says where in the dict
    recurrent layers are. Raises DTypeError for what is no dict of arrays.
    """
    return layers.from_state_dict(state_dict, kind, prefix, options)

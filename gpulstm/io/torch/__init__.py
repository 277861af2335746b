"""PyTorch's files without PyTorch: reads and writes state dicts, and makes layers of them.

>>> gl.io.torch.save("lstm.pt", gl.LSTM(3, 4).state_dict())  # torch.load("lstm.pt") reads it
>>> state = gl.io.torch.load("lstm.pt")  # runs no code from the file
>>> gl.io.torch.from_state_dict(state)  # prefix="encoder.rnn." selects a layer of a model
LSTM(3, 4)

gpulstm has PyTorch's parameter names, shapes and gate orders, so a state dict needs no conversion.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpulstm.io.files import as_path, atomic_write
from gpulstm.io.torch import layers, read, write
from gpulstm.io.torch.unread import Unread

__all__ = ["Unread", "from_state_dict", "load", "save"]


def load(path: str | Path) -> Any:
    """Read a file that ``torch.save`` wrote, in the current format or that before PyTorch 1.6, without PyTorch.

    No code in the file is run. Tensors, parameters and buffers become NumPy arrays. Dicts, lists, tuples, sets,
    numbers, strings, bytes and None stay as they are, and so do NumPy numbers and arrays, Counter, defaultdict and
    argparse.Namespace. An OrderedDict becomes a dict, a torch.Size a tuple, a torch.device a string ("cuda:0"), a
    torch.dtype a NumPy dtype (for bfloat16 and float8 that of ml_dtypes), a layout a string, and a path a pure path.
    Tensors that share memory in the file share it here too.

    Other objects in the file (an optimizer, a loss, an enum, a function) are not created. Each becomes an ``Unread``
    with its class name and data, and a warning lists them. Reading takes memory of at most about 20 times the file's
    size.

    Raises FormatError, saying what is wrong and where, for a file that is damaged or has another format, for a whole
    module, and for tensors that no NumPy array can hold (sparse, quantized, nested, without values, or of a subclass);
    DTypeError for bfloat16 and float8 without the package ml_dtypes; OSError if the file cannot be read.

    >>> gl.io.torch.save("model.pt", {"weight": np.ones(2)})
    >>> gl.io.torch.load("model.pt")
    {'weight': array([1., 1.])}
    """
    return read.read(as_path(path))


def save(path: str | Path, state_dict: Any) -> None:
    """Write a state dict, or nested dicts, lists, tuples and sets of arrays and plain values, in PyTorch's file format.

    ``torch.load(path)`` reads it, also with ``weights_only=True``. NumPy and CuPy arrays and Tensors become tensors on
    the CPU with the corresponding dtype, and NumPy numbers become Python numbers. An array under two names is written
    once and stays shared. Plain values are numbers, strings and bytes. The file is replaced as a whole or not at all,
    see ``gl.io.atomic_write``.

    Raises DTypeError for types that PyTorch lacks and for Unread, FormatError for invalid keys and too many nested
    levels, and OSError if the file cannot be written.

    >>> gl.io.torch.save("lstm.pt", gl.LSTM(3, 4).state_dict())
    """
    path = as_path(path, state_dict)
    pickled = write.Pickle(state_dict)
    atomic_write(path, lambda file: write.write(file, pickled))


def from_state_dict(state_dict: Mapping[str, Any], kind: str | None = None, prefix: str = "", **options: Any) -> Any:
    """Make the layer that a PyTorch state dict belongs to, with its weights: gl.LSTM, GRU, RNN, or a single-step cell.

    Names and shapes determine the sizes, layers, directions, biases and projection, and the kind of layer (weight_ih
    (4H, D): LSTM, (3H, D): GRU, (H, D): RNN). If you pass ``kind``, "LSTM", "GRU" or "RNN", the weights must be of that
    kind. ``prefix`` ("encoder.rnn.") selects the layer in a larger model's state dict; it includes the names that
    wrappers add ("module.", "_orig_mod."). For a checkpoint pass the entry with the weights
    (``checkpoint["state_dict"]``). The arrays are NumPy's, CuPy's or PyTorch's. ``options`` go to the layer's
    constructor: batch_first, dropout, device, dtype (default: that of the weights), and options that the weights do not
    determine, such as an RNN's ``nonlinearity="relu"``.

    Raises ShapeError for names or shapes that are not those of one such layer, saying where in the dict recurrent
    layers are; DTypeError for anything but a dict of arrays.

    >>> gl.io.torch.from_state_dict(gl.GRU(3, 4).state_dict())
    GRU(3, 4)
    """
    return layers.from_state_dict(state_dict, kind, prefix, options)

"""State dicts in PyTorch's files, without PyTorch: read, written, and made into layers.

>>> state = gl.io.torch.load("model.pt")  # no code in the file is run
>>> lstm = gl.io.torch.from_state_dict(state, prefix="encoder.rnn.")
>>> gl.io.torch.save("lstm.pt", lstm.state_dict())  # torch.load("lstm.pt") reads it

gpulstm's names, shapes and gate orders are PyTorch's, so a state dict needs no conversion.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpulstm.errors import ShapeError
from gpulstm.io.files import atomic_write
from gpulstm.io.torch import read, write

__all__ = ["from_state_dict", "load", "save"]

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def load(path: str | Path) -> Any:
    """What ``torch.save`` wrote to a file: tensors as NumPy arrays, in dicts, lists and tuples, beside numbers,
    texts and None.

    For a state dict this is a dict of arrays by name; parameters come as arrays, OrderedDict as dict,
    torch.Size as tuple. Tensors that share memory share it here; bfloat16 comes as ml_dtypes'. PyTorch is not
    needed and no code in the file is run. Memory is taken only for what the file holds.

    Raises FormatError, saying what is wrong and where, for a file that is damaged or holds something else (a
    whole module, a TorchScript program, a file of PyTorch before 1.6), DTypeError for bfloat16 without the
    package ml_dtypes, and OSError where the file cannot be read.
    """
    return read.read(path)


def save(path: str | Path, state_dict: Any) -> None:
    """Write a state dict, or any nest of dicts, lists and tuples of arrays, numbers and texts, so that
    ``torch.load(path)`` reads it, with ``weights_only=True`` too.

    NumPy and CuPy arrays and Tensors become tensors on the CPU; the same array under two names stays one.
    The file is replaced whole or not at all, see ``gl.io.atomic_write``. Raises DTypeError for what PyTorch
    has no type for, FormatError for what cannot be a key or is nested too deep, and OSError where the file
    cannot be written.
    """
    pickled = write.Pickle(state_dict)
    atomic_write(path, lambda file: write.write(file, pickled))


def from_state_dict(state_dict: Mapping[str, Any], kind: str | None = None, prefix: str = "", **options: Any) -> Any:
    """The layer that a state dict belongs to, with its weights: gl.LSTM, GRU or RNN, or the cell of one step.

    Sizes, layers, directions, biases and projection follow from names and shapes, and so does the kind (4H
    rows: LSTM, 3H: GRU, H: RNN), which may be given too: "LSTM", "GRU" or "RNN". Of a larger model's state
    dict ``prefix`` ("encoder.rnn.") picks the names of the layer. The arrays are NumPy's, CuPy's or PyTorch's.
    ``options`` go to the layer: batch_first, dropout, device, dtype (without it that of the weights), and
    what no weight tells, such as an RNN's ``nonlinearity="relu"``.

    Raises ShapeError where names or shapes are not those of one such layer.
    """
    from gpulstm import nn

    if kind not in (None, *GATES):
        raise ShapeError(f"kind: want one of {', '.join(GATES)}, or None, got {kind!r}")
    prefix = f"{prefix}." if prefix and not prefix.endswith(".") else prefix
    own = {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}
    suffix = "" if "weight_ih" in own else "_l0"
    for name in (f"weight_ih{suffix}", f"weight_hh{suffix}"):
        if name not in own:
            raise ShapeError(f"state dict: want {prefix}{name}, got {_found(state_dict)}")
        if len(own[name].shape) != 2 or not all(own[name].shape):
            raise ShapeError(f"{prefix}{name}: want (gates*hidden, size), got {tuple(own[name].shape)}")
    sizes = _sizes(own, suffix)
    rows = own[f"weight_ih{suffix}"].shape[0]
    found = next((name for name, gates in GATES.items() if rows == gates * sizes["hidden_size"]), None)
    if found is None or kind not in (None, found):
        want = ", ".join(f"{gates}*H ({name})" for name, gates in GATES.items() if kind in (None, name))
        raise ShapeError(f"{prefix}weight_ih{suffix}: want {want} rows for H = {sizes['hidden_size']}, got {rows}")
    options.setdefault("dtype", str(own[f"weight_ih{suffix}"].dtype).removeprefix("torch."))
    layer = getattr(nn, found if suffix else f"{found}Cell")(**sizes, **options)
    layer.load_state_dict(own)
    return layer


def _sizes(own: Mapping[str, Any], suffix: str) -> dict[str, Any]:
    """The arguments of a layer's constructor that its weights tell."""
    projection = own.get("weight_hr_l0")
    sizes: dict[str, Any] = {
        "input_size": int(own[f"weight_ih{suffix}"].shape[1]),
        "hidden_size": int((own[f"weight_hh{suffix}"] if projection is None else projection).shape[-1]),
        "bias": f"bias_ih{suffix}" in own,
    }
    if suffix:
        sizes["num_layers"] = sum(name.startswith("weight_ih_l") and name[11:].isdecimal() for name in own)
        sizes["bidirectional"] = "weight_ih_l0_reverse" in own
    return sizes if projection is None else sizes | {"proj_size": int(projection.shape[0])}


def _found(state_dict: Mapping[str, Any]) -> str:
    """Where the names of recurrent layers are, or the first names, for a message."""
    prefixes = [name.removesuffix("weight_ih_l0") for name in state_dict if name.endswith("weight_ih_l0")]
    if prefixes:
        return "recurrent layers under the prefixes " + ", ".join(map(repr, prefixes[:8]))
    return "the names " + ", ".join(map(str, list(state_dict)[:8]))

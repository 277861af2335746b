"""Weights from Keras 3's files, ``.keras`` and ``.weights.h5``, under gpulstm's names; Keras is not needed.

>>> file = gl.io.keras.load("model.keras")
>>> print(file)  # the layers with their names, kinds and shapes
>>> lstm = file.layer("lstm")  # a gl.LSTM with these weights, batch first as in Keras
>>> stack = file.layer("lstm", "lstm_1")  # two Keras layers as one of two levels
>>> mine.load_state_dict(file.state_dict("lstm"))
"""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.errors import FormatError, ShapeError
from gpulstm.io.archive import open_archive
from gpulstm.io.keras.file import KerasLayer, configurations, layers_of
from gpulstm.io.keras.hdf5 import read_groups
from gpulstm.io.keras.weights import bidirectional, converted, dense, embedding, gru, lstm, simple_rnn

__all__ = ["KerasFile", "KerasLayer", "bidirectional", "dense", "embedding", "gru", "load", "lstm", "simple_rnn"]

_LARGEST_CONFIG = 1 << 26  # bytes
_SKIPPED = ("optimizer",)  # what its variables are, is in no gpulstm layer
_MERGES = {"concat": "concat", "sum": "sum", "mul": "mul", "ave": "mean"}


def load(path: str | Path) -> "KerasFile":
    """The layers of a file that ``model.save("x.keras")`` or ``model.save_weights("x.weights.h5")`` wrote.

    Names are those of the model (``layer.name``; "encoder/lstm" for a layer of a model inside it). Files of
    Keras before 3.7 do not have them: there the names are Keras' paths ("lstm", "lstm_1"). What a ``.keras``
    file says about its layers is in ``file.layers[name].options``; ``.weights.h5`` says nothing. Weights of
    optimizers are left out. No class or function is looked up by a name in the file.

    Raises FormatError, saying what is wrong and where, for a file that is damaged or something else, DTypeError
    for bfloat16 without the package ml_dtypes, and OSError where the file cannot be read. Neither Keras nor
    h5py is needed.
    """
    with Path(path).open("rb") as file:
        if file.read(2) != b"PK":
            size = os.fstat(file.fileno()).st_size
            return KerasFile(path, layers_of(path, read_groups(file, size, str(path), _SKIPPED), None))
    with open_archive(path) as archive:
        for name in ("config.json", "model.weights.h5"):
            if name not in archive.members:
                raise FormatError(f"{path}: want a member {name}, as Keras 3 writes it, got none")
        if archive.members["config.json"].file_size > _LARGEST_CONFIG:
            raise FormatError(f"{path}, config.json: want at most {_LARGEST_CONFIG} bytes")
        options = configurations(path, archive.read("config.json").tobytes())
        weights = archive.read("model.weights.h5")
    groups = read_groups(io.BytesIO(weights.data), len(weights), f"{path}, model.weights.h5", _SKIPPED)
    return KerasFile(path, layers_of(path, groups, options))


class KerasFile:
    """The layers of a file by name."""

    def __init__(self, path: str | Path, layers: dict[str, KerasLayer]) -> None:
        self.path, self.layers = path, layers

    def state_dict(self, name: str, *more: str) -> dict[str, np.ndarray]:
        """A layer's weights under gpulstm's names, for ``load_state_dict``; several recurrent layers become the
        levels of one.

        The weights alone: activations, directions and the like are in ``layers[name].options``, and ``layer``
        compares them. Raises FormatError for a layer that gpulstm has not, and for names that are not there.
        """
        state: dict[str, np.ndarray] = {}
        for level, layer in enumerate(self._named(one) for one in (name, *more)):
            if more and layer.kind in ("Dense", "Embedding"):
                raise FormatError(f"{self.path}: want recurrent layers as levels of one, got {layer.kind}")
            try:
                own = converted(layer)
            except ShapeError as error:
                raise FormatError(f"{self.path}, {layer.path}: {error}") from error
            state |= {key.replace("_l0", f"_l{level}"): value for key, value in own.items()}
        return state

    def layer(self, name: str, *more: str, **options: Any) -> Any:
        """A gpulstm layer that computes what the Keras layer does, with its weights: gl.LSTM, GRU, RNN, Linear or
        Embedding, on the CPU unless ``device`` says otherwise.

        Recurrent layers are batch first as in Keras and give the output of all steps whatever Keras'
        return_sequences says; several names become the levels of one. ``options`` go to the constructor. A
        Dense layer's activation is not part of gl.Linear: apply it yourself. Raises FormatError for
        activations, directions and the like that the layer has not (a ``.weights.h5`` file does not tell them:
        Keras' defaults are assumed).
        """
        from gpulstm import nn
        from gpulstm.io.torch import from_state_dict

        state, first = self.state_dict(name, *more), self._named(name)
        if first.kind not in ("Dense", "Embedding"):
            wanted = [self._recurrent_options(one) for one in (name, *more)]
            if any(other != wanted[0] for other in wanted):
                raise FormatError(f"{self.path}: want layers alike as levels of one, got {', '.join((name, *more))}")
            kind = "RNN" if first.kind == "SimpleRNN" else first.kind
            return from_state_dict(state, kind, **{"batch_first": True, **wanted[0], **options})
        made: nn.Module
        options.setdefault("dtype", state["weight"].dtype)
        if first.kind == "Dense":
            made = nn.Linear(state["weight"].shape[1], state["weight"].shape[0], bias="bias" in state, **options)
        else:
            made = nn.Embedding(*state["weight"].shape, **options)
        made.load_state_dict(state)
        return made

    def _named(self, name: str) -> KerasLayer:
        if name not in self.layers:
            raise FormatError(f"{self.path}: want one of the layers {', '.join(self.layers)}, got {name!r}")
        return self.layers[name]

    def _recurrent_options(self, name: str) -> dict[str, Any]:
        """The options of the gpulstm layer for a recurrent Keras layer."""
        layer = self._named(name)
        told, kind = layer.options, layer.kind
        known = {"recurrent_activation": ("sigmoid",), "go_backwards": (False,), "merge_mode": tuple(_MERGES)}
        known["activation"] = ("tanh", "relu") if kind == "SimpleRNN" else ("tanh",)
        for option, values in known.items():
            if option in told and told[option] not in values:
                want = " or ".join(map(repr, values))
                raise FormatError(f"{self.path}, {name}: {option}: want {want}, got {told[option]!r}")
        if differ := [option for option in told if option.startswith("backward_")]:
            raise FormatError(f"{self.path}, {name}: want both directions alike, got another {', '.join(differ)}")
        options: dict[str, Any] = {}
        if told.get("merge_mode", "concat") != "concat":
            options["merge"] = _MERGES[told["merge_mode"]]
        if kind == "SimpleRNN":
            options["nonlinearity"] = told.get("activation", "tanh")
        bias = layer.weights.get("bias", layer.weights.get("forward/bias"))
        if kind == "GRU" and not told.get("reset_after", bias is None or bias.ndim == 2):
            options["reset"] = "before"
        return options

    def __repr__(self) -> str:
        lines = [
            f"{name}: {layer.kind} " + ", ".join(f"{key} {value.shape}" for key, value in layer.weights.items())
            for name, layer in self.layers.items()
        ]
        return "\n".join([f"KerasFile {self.path}", *(f"  {line}" for line in lines)])

"""Models and weights from Keras' files, ``.keras``, ``.h5`` and ``.weights.h5``; neither Keras nor h5py is needed.

    file = gl.io.keras.load("model.keras")
    print(file)  # the layers with their names, kinds and shapes
    model = file.model()  # the whole model, batch first as in Keras, if its layers form a chain
    lstm = file.layer("lstm")  # a gl.LSTM with the weights of the layer "lstm"
    stack = file.layer("lstm", "lstm_1")  # two Keras layers as one gl.LSTM with two layers
    mine.load_state_dict(file.state_dict("lstm"))  # the weights alone

Other functions convert the result of a Keras layer's ``get_weights()``:

>>> kernel, recurrent_kernel, bias = np.ones((3, 16)), np.ones((4, 16)), np.zeros(16)
>>> state = gl.io.keras.lstm(kernel, recurrent_kernel, bias)  # lstm(*layer.get_weights())
>>> loaded = gl.LSTM(3, 4).load_state_dict(state)
"""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm import nn
from gpulstm.errors import FormatError, ShapeError
from gpulstm.io.archive import open_archive
from gpulstm.io.files import as_path
from gpulstm.io.keras import legacy
from gpulstm.io.keras.build import OPTIONS, form_of, recurrent
from gpulstm.io.keras.config import LARGEST, RECURRENT, Entry, parse
from gpulstm.io.keras.file import KerasLayer, layers_of
from gpulstm.io.keras.hdf5 import Group, read_groups
from gpulstm.io.keras.model import KerasModel, chain
from gpulstm.io.keras.versions import NAMED, UNNAMED, Version
from gpulstm.io.keras.weights import bidirectional, converted, dense, embedding, gru, lstm, simple_rnn

__all__ = [
    "KerasFile",
    "KerasLayer",
    "KerasModel",
    "bidirectional",
    "dense",
    "embedding",
    "gru",
    "load",
    "lstm",
    "simple_rnn",
]

_SKIPPED = ("optimizer", "optimizer_weights")  # no gpulstm layer uses an optimizer's variables
_ZIP = ("config.json", "model.weights.h5")


def load(path: str | Path, config: str | Path | None = None) -> "KerasFile":
    """Read a file that ``model.save`` or ``model.save_weights`` of Keras 1.1 to 3 or TensorFlow's Keras wrote.

    The format is ``.keras``, ``.h5`` or ``.hdf5``, or ``.weights.h5``. Layers have the names that they have in the
    model (``layer.name``; "encoder/lstm" for a layer of a model inside the model). The file of a whole model also holds
    the layers' options, see ``file.layers[name].options``; a file of weights does not. If the weights were saved
    without the model, ``config`` may be a file with the result of ``model.to_json()``. Optimizer weights are skipped.
    No class or function is looked up by a name in the file.

    Raises FormatError, saying what is wrong and where, for a file that is damaged or has another format; DTypeError for
    bfloat16 without the package ml_dtypes; and OSError if the file cannot be read.

    >>> gl.io.keras.load("missing.keras")
    Traceback (most recent call last):
        ...
    FileNotFoundError: [Errno 2] No such file or directory: 'missing.keras'
    """
    path, config = as_path(path), None if config is None else as_path(config, name="config")
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            groups = read_groups(file, os.fstat(file.fileno()).st_size, str(path), _SKIPPED)
            return _from_hdf5(path, groups, config)
    if config is not None:
        raise FormatError(f"config: expected None, as {path} has its own, got {config}")
    with open_archive(path) as archive:
        for name in _ZIP:
            if name not in archive.members:
                raise FormatError(f"{path}: expected a member {name}, as Keras writes it, got none")
        texts = {}
        for name in ("config.json", "metadata.json"):
            if name in archive.members:
                if archive.members[name].file_size > LARGEST:
                    raise FormatError(f"{path}, {name}: expected at most {LARGEST} bytes")
                texts[name] = archive.read(name).tobytes()
        weights = archive.read("model.weights.h5")
    root = parse(texts["config.json"], f"{path}, config.json")
    groups = read_groups(io.BytesIO(weights.data), len(weights), f"{path}, model.weights.h5", _SKIPPED)
    version = _version(texts.get("metadata.json", b"")) or _by_names(groups)
    return KerasFile(path, layers_of(path, groups, root), root, version)


def _from_hdf5(path: Path, groups: dict[str, Group], config: Path | None) -> "KerasFile":
    """A file that is HDF5 alone: of the first layout, or with weights of Keras 2.12 or later."""
    top, own = legacy.top_of(groups), legacy.text_of(groups, "model_config")
    if own is not None and config is not None:
        raise FormatError(f"config: expected None, as {path} has its own, got {config}")
    text = None if own is None else own.encode()
    if config is not None:
        if config.stat().st_size > LARGEST:
            raise FormatError(f"{config}: expected at most {LARGEST} bytes")
        text = config.read_bytes()
    root = None if text is None else parse(text, f"{path}, model_config" if config is None else str(config))
    told = "" if config is None or root is None else str(root.source.get("keras_version", ""))
    if top is None:
        return KerasFile(path, layers_of(path, groups, root), root, told or _by_names(groups))
    version = legacy.version_of(groups, top) or told
    return KerasFile(path, legacy.layers_of(path, groups, top, root), root, version)


def _by_names(groups: dict[str, Group]) -> str:
    """The version of a file that does not say it, by whether its groups have names."""
    return NAMED if any(group.name for group in groups.values()) else UNNAMED


def _version(text: bytes) -> str:
    """The version of Keras in metadata.json, "" if it is not there."""
    try:
        found = json.loads(text[:10_000])
    except (ValueError, RecursionError):
        return ""
    version = found.get("keras_version") if isinstance(found, dict) else None
    return version if isinstance(version, str) else ""


class KerasFile:
    """The layers of a Keras file by name, as ``gl.io.keras.load`` returns them.

    ``version`` is the version of Keras that wrote the file, "" if unknown. The methods raise FormatError for layers and
    options that gpulstm cannot compute.

    >>> weights = {"kernel": np.ones((3, 16)), "recurrent_kernel": np.ones((4, 16)), "bias": np.zeros(16)}
    >>> layer = gl.io.keras.KerasLayer("lstm", "LSTM", weights)
    >>> gl.io.keras.KerasFile("model.h5", {"lstm": layer}).state_dict("lstm")["weight_ih_l0"].shape
    (16, 3)
    """

    def __init__(
        self, path: str | Path, layers: dict[str, KerasLayer], root: Entry | None = None, version: str = ""
    ) -> None:
        self.path, self.layers, self.version = path, layers, version
        self._root, self.version_of = root, Version(version)

    def state_dict(self, name: str, *more: str) -> dict[str, np.ndarray]:
        """Return a layer's weights with gpulstm's names, for ``load_state_dict``; several recurrent layers become one.

        It does not check the layer's options (activations, directions and the like), which ``layers[name].options``
        holds; ``layer`` does. Raises FormatError for an unsupported layer, and for an unknown name.
        """
        state: dict[str, np.ndarray] = {}
        for level, layer in enumerate(self._named(one) for one in (name, *more)):
            if more and layer.kind in ("Dense", "Embedding"):
                raise FormatError(f"{self.path}: expected recurrent layers to stack, got {layer.kind}")
            try:
                own = converted(layer)
            except ShapeError as error:
                raise FormatError(f"{self.path}, {layer.path}: {error}") from error
            state |= {key.replace("_l0", f"_l{level}"): value for key, value in own.items()}
        return state

    def layer(self, name: str, *more: str, **options: Any) -> Any:
        """Make a gpulstm layer that computes the same as the Keras layer, with its weights.

        The result is a gl.LSTM, GRU, RNN, GeneralLSTM, Linear or Embedding, on the CPU unless you pass ``device``.
        Recurrent layers are batch first, as in Keras. With several names they are stacked in one layer. They always
        return the output of all steps; Keras' return_sequences has no effect. With go_backwards the output is in the
        order of computation, as in Keras. Pass states in and out yourself; ``stateful`` has no effect. A Dense layer's
        activation is not part of gl.Linear: apply it yourself, or use ``model``.

        ``options`` with Keras' names (activation, recurrent_activation, reset_after, go_backwards, merge_mode) override
        those of the file. An activation may also be (name, alpha, beta), see gpulstm.cells.activation. Other options go
        to the layer's constructor. A file of weights has no options. For those that you do not pass, the defaults of
        its Keras version are assumed, and a UserWarning lists them.

        Raises FormatError for activations, directions and the like that the layer does not support, and if it is not
        certain which options in the file are the layer's.
        """
        names = (name, *more)
        state, first = self.state_dict(*names), self._named(name)
        given = {key: options.pop(key) for key in OPTIONS if key in options}
        if first.kind not in RECURRENT:
            for key, value in given.items():
                raise FormatError(f"{self.path}, {name}: {key}: expected none for {first.kind}, got {value!r:.100}")
            return self._plain(first, state, options)
        forms = []
        for one in names:
            whole, where = self._root is not None, f"{self.path}, {one}"
            forms.append(form_of(self._named(one), one, self.version_of, given, whole, where))
        if any(other != forms[0] for other in forms):
            raise FormatError(f"{self.path}: expected layers with the same options to stack, got {', '.join(names)}")
        if more and (forms[0].go_backwards or forms[0].backward):
            raise FormatError(
                f"{self.path}: expected go_backwards=False and the same options in both directions for layers to "
                f"stack, got {', '.join(names)}"
            )
        return recurrent(forms[0], state, options, f"{self.path}, {first.path}")

    def model(self, device: Any = None) -> KerasModel:
        """Make the whole model with its weights, if its layers form a chain (Sequential and the like).

        ``model(x)`` takes the input of the Keras model, batch first, and returns the result of its ``predict``. Every
        layer applies its activation, and returns only its last step if return_sequences is False. The model uses the
        masks of Embedding (mask_zero) and Masking layers; pass ``mask=`` or ``lengths=`` to replace them. Dropout and
        noise layers have no effect in evaluation and are left out. Raises FormatError for a file of weights, and for
        unsupported layers and options, by name.
        """
        if self._root is None:
            raise FormatError(
                f"{self.path}: expected a whole model, got only weights; make the layers one by one with layer()"
            )
        return chain(self, self._root, device)

    @staticmethod
    def _plain(layer: KerasLayer, state: dict[str, np.ndarray], options: dict[str, Any]) -> nn.Module:
        made: nn.Module
        options.setdefault("dtype", state["weight"].dtype)
        if layer.kind == "Dense":
            made = nn.Linear(state["weight"].shape[1], state["weight"].shape[0], bias="bias" in state, **options)
        else:
            made = nn.Embedding(*state["weight"].shape, **options)
        made.load_state_dict(state)
        return made

    def _named(self, name: str) -> KerasLayer:
        if name in self.layers:
            return self.layers[name]
        for layer in self.layers.values():
            if layer.path == name:  # the whole path in the file is unique
                return layer
        raise FormatError(f"{self.path}: expected one of the layers {', '.join(self.layers)}, got {name!r}")

    def __repr__(self) -> str:
        lines = [
            f"{name}: {layer.kind} " + ", ".join(f"{key} {value.shape}" for key, value in layer.weights.items())
            for name, layer in self.layers.items()
        ]
        of = f" of Keras {self.version}" if self.version else ""
        note = "" if self._root else ": only weights; layer() takes the options, or assumes Keras' defaults"
        return "\n".join([f"KerasFile {self.path}{of}{note}", *(f"  {line}" for line in lines)])

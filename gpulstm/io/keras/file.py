"""What a Keras 3 file says: layers by name out of the groups of its weights and the text of its configuration."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.errors import FormatError
from gpulstm.io.keras.hdf5 import DEEPEST, Group

GATES = {4: "LSTM", 3: "GRU", 1: "SimpleRNN"}
# What the arrays of each kind are, in Keras' order.
ARRAYS = {kind: ("kernel", "recurrent_kernel", "bias") for kind in GATES.values()} | {
    "Dense": ("kernel", "bias"),
    "Embedding": ("embeddings",),
}
_CELLS = {"LSTMCell": "LSTM", "GRUCell": "GRU", "SimpleRNNCell": "SimpleRNN"}
_KNOWN = {*GATES.values(), *_CELLS, "RNN", "Bidirectional", "Dense", "Embedding"}
# What is taken over from a layer's configuration, where it is there.
_OPTIONS = (
    "units", "input_dim", "output_dim", "use_bias", "activation", "recurrent_activation", "reset_after",
    "go_backwards", "return_sequences", "return_state", "merge_mode", "mask_zero", "dropout", "recurrent_dropout",
)  # fmt: skip
# What both directions of a layer of gpulstm share.
_SHARED = ("units", "use_bias", "activation", "recurrent_activation", "reset_after")


@dataclass
class KerasLayer:
    """One layer with weights: ``kind`` is LSTM, GRU, SimpleRNN, Dense, Embedding or another class's name.

    ``weights`` are Keras' arrays: "kernel", "recurrent_kernel", "bias", with "forward/" and "backward/" before
    them for both directions; those of other kinds are numbered. ``options`` are its arguments as the
    configuration tells them ("units", "activation", ...), empty where none does. ``path`` is Keras' own.
    """

    path: str
    kind: str
    weights: dict[str, np.ndarray]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def bidirectional(self) -> bool:
        """Whether it has weights for both directions."""
        return "forward/kernel" in self.weights


def layers_of(
    path: str | Path, groups: Mapping[str, Group], told: Mapping[str, tuple[str, dict[str, Any]]] | None
) -> dict[str, KerasLayer]:
    """The layers of a file by name, in the order of the configuration where there is one.

    Every layer keeps its arrays in a group "vars" of its own; a recurrent layer in that of its cell, with both
    directions in those of forward_layer and backward_layer.
    """
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for place in sorted(groups):
        owner, _, last = place.rpartition("/")
        if last != "vars" or not groups[place].arrays or owner.endswith("seed_generator"):
            continue
        owner, prefix = owner.removesuffix("/cell"), ""
        for direction in ("forward", "backward"):
            if owner.endswith(f"/{direction}_layer"):
                owner, prefix = owner.removesuffix(f"/{direction}_layer"), f"{direction}/"
        numbered = {f"{prefix}{name}": array for name, array in groups[place].arrays.items()}
        arrays.setdefault(owner, {}).update(numbered)
    if not arrays:
        raise FormatError(f"{path}: want the weights of Keras 3, in groups named 'vars', got none; save as .keras")
    layers: dict[str, KerasLayer] = {}
    for owner, numbered in arrays.items():
        name, named = _name(owner, groups)
        kind, options = (told or {}).get(name, ("", {})) if named else ("", {})
        layer = _layer(owner, numbered, kind, options)
        layers[owner if name in layers else name] = layer
    order = {name: place for place, name in enumerate(told or ())}
    return dict(sorted(layers.items(), key=lambda item: order.get(item[0], len(order))))


def _name(owner: str, groups: Mapping[str, Group]) -> tuple[str, bool]:
    """A layer's name behind those of the models it is in, "encoder/lstm", and whether the file has it."""
    names, named, steps = [], True, owner.split("/")
    for count in range(1, len(steps) + 1):
        group = groups.get("/".join([*steps[:count], "vars"]))
        if group is not None or count == len(steps):
            own = None if group is None else group.name
            named = named and own is not None
            names.append(own or steps[count - 1])
    return "/".join(names), named


def _layer(path: str, numbered: dict[str, np.ndarray], told: str, options: dict[str, Any]) -> KerasLayer:
    """The layer whose arrays these are; its kind follows from their shapes, unless the file tells another class."""
    prefixes = ("forward/", "backward/") if any(name.startswith("forward/") for name in numbered) else ("",)
    kinds: set[str] = set()
    weights: dict[str, np.ndarray] = {}
    for prefix in prefixes:
        own = [numbered[f"{prefix}{n}"] for n in range(4) if f"{prefix}{n}" in numbered]
        kind = _kind(own, path, told)
        kinds.add(kind)
        weights |= {f"{prefix}{name}": array for name, array in zip(ARRAYS.get(kind, ()), own, strict=False)}
    known = len(kinds) == 1 and len(weights) == len(numbered) and kinds != {""}
    if known and (not told or told in _KNOWN):
        return KerasLayer(path, kinds.pop(), weights, options)
    return KerasLayer(path, told or "a layer of another kind", numbered, options)


def _kind(arrays: list[np.ndarray], path: str, told: str) -> str:
    """The kind of a layer with these arrays, "" for none that is known."""
    shapes = [array.shape for array in arrays]
    if not shapes or any(array.dtype.kind in "iub" for array in arrays) or len(shapes[0]) != 2:
        return ""
    if len(shapes) in (2, 3) and len(shapes[1]) == 2 and shapes[1][0] > 0 and shapes[0][1] == shapes[1][1]:
        return GATES.get(shapes[1][1] // shapes[1][0], "") if shapes[1][1] % shapes[1][0] == 0 else ""
    if len(shapes) == 2 and shapes[1] == shapes[0][1:]:
        return "Dense"
    if len(shapes) == 1:
        # A Dense layer without a bias looks the same: the class or, where none is told, Keras' path decides.
        return told if told in ("Dense", "Embedding") else _kind_of_path(path)
    return ""


def _kind_of_path(path: str) -> str:
    last = path.rpartition("/")[2]
    return next((kind for kind in ("Embedding", "Dense") if last.startswith(kind.lower())), "")


def configurations(path: str | Path, text: bytes) -> dict[str, tuple[str, dict[str, Any]]]:
    """(class, options) of each layer by name, out of config.json; the class of what is not Keras' own has its
    package before it."""
    try:
        root = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}, config.json: want JSON, got something else ({error})") from error
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    todo: list[tuple[Any, str, int]] = [(entry, "", 0) for entry in reversed(_inner(root))]
    while todo:
        entry, prefix, depth = todo.pop()
        config = _mapping(entry, "config")
        name = config.get("name")
        if depth >= DEEPEST or not isinstance(name, str):
            continue
        found[f"{prefix}{name}"] = _class(entry), _options(config)
        todo += [(inner, f"{prefix}{name}/", depth + 1) for inner in reversed(_inner(entry))]
    return found


def _inner(entry: Any) -> list[Any]:
    """The layers that stand in another's configuration."""
    config = _mapping(entry, "config")
    lists = [config[key] for key in ("layers", "cells") if isinstance(config.get(key), list)]
    return [
        *(inner for entries in lists for inner in entries),
        *(config[key] for key in ("layer", "cell") if key in config),
    ]


def _mapping(entry: Any, key: str) -> dict[str, Any]:
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if isinstance(value, dict) else {}


def _class(entry: dict[str, Any]) -> str:
    """The class of a layer as a text, to be compared and shown; classes of the user's are not taken for Keras'."""
    name, own = entry.get("class_name"), str(entry.get("module")).split(".")[0] == "keras"
    if not isinstance(name, str) or not own or entry.get("registered_name") not in (None, name):
        return f"{entry.get('module')}.{name}"[:200]
    return name


def _options(config: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a layer, with those of the layer or cell inside it."""
    options: dict[str, Any] = {}
    for inner in (config, _mapping(_mapping(config, "layer"), "config"), _mapping(_mapping(config, "cell"), "config")):
        options |= {key: _plain(inner[key]) for key in _OPTIONS if key in inner}
    backward = _mapping(_mapping(config, "backward_layer"), "config")
    differ = {key: _plain(backward[key]) for key in _SHARED if key in backward}
    return options | {f"backward_{key}": value for key, value in differ.items() if value != options.get(key)}


def _plain(value: Any) -> Any:
    """Numbers, texts and None as they are; of an object its class's name."""
    if isinstance(value, dict):
        return str(value.get("class_name", "an object"))
    return value if isinstance(value, str | int | float | None) else str(value)[:200]

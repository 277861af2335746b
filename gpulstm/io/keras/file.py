"""The layers of a file in Keras 3's layout, from the groups of its weights and its configuration."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.errors import FormatError
from gpulstm.io.keras.config import MODELS, Entry, walk
from gpulstm.io.keras.hdf5 import Group

GATES = {4: "LSTM", 3: "GRU", 1: "SimpleRNN"}
# The arrays of each kind of layer, in Keras' order.
ARRAYS = {kind: ("kernel", "recurrent_kernel", "bias") for kind in GATES.values()} | {
    "Dense": ("kernel", "bias"),
    "Embedding": ("embeddings",),
}
# The groups of a model's layers, since Keras 2.13 and before.
_CONTAINERS = ("layers", "_layer_checkpoint_dependencies")
_NORMS = {
    "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"), "LayerNormalization": ("gamma", "beta"),
}  # fmt: skip


@dataclass
class KerasLayer:
    """One layer of a Keras file with its weights; ``kind`` is the class name, such as LSTM, GRU, SimpleRNN or Dense.

    ``weights`` are Keras' arrays by name: "kernel" (D, G*H), "recurrent_kernel" (H, G*H), "bias", with "forward/" or
    "backward/" in front for a bidirectional layer. For other kinds the names are those in the file, or numbers.
    ``options`` are the layer's arguments in the configuration ("units", "activation", ...). ``told`` is whether the
    layer was found in the configuration, which a file of weights does not have. ``path`` is the place of the weights in
    the file. Making one raises no error.

    >>> gl.io.keras.KerasLayer("dense", "Dense", {"kernel": np.ones((3, 2))}).kind
    'Dense'
    """

    path: str
    kind: str
    weights: dict[str, np.ndarray]
    options: dict[str, Any] = field(default_factory=dict)
    told: bool = False

    @property
    def bidirectional(self) -> bool:
        """Whether it has weights for both directions."""
        return "forward/kernel" in self.weights


def layers_of(path: str | Path, groups: Mapping[str, Group], root: Entry | None) -> dict[str, KerasLayer]:
    """The layers of a file by name, in the order of the configuration if there is one.

    Every layer keeps its arrays in a group "vars"; a recurrent layer keeps them in its cell's, a bidirectional layer in
    those of forward_layer and backward_layer. Keras 2.12 to 2.15 wrote backslashes on Windows.
    """
    turned = {place.replace("\\", "/"): group for place, group in groups.items()}
    if len(turned) != len(groups):
        raise FormatError(f"{path}: expected each group once, got some with '/' and with a backslash")
    groups = turned
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for place in sorted(groups):
        owner, _, last = place.rpartition("/")
        first = place.split("/")[0]
        if last != "vars" or not groups[place].arrays or owner.endswith("seed_generator") or first == "metrics":
            continue
        owner, prefix = owner.removesuffix("/cell"), ""
        for direction in ("forward", "backward"):
            if owner.endswith(f"/{direction}_layer"):
                owner, prefix = owner.removesuffix(f"/{direction}_layer"), f"{direction}/"
        numbered = {f"{prefix}{name}": array for name, array in groups[place].arrays.items()}
        arrays.setdefault(owner, {}).update(numbered)
    if not arrays:
        raise FormatError(
            f"{path}: expected the weights of Keras, in groups named 'vars' or with weight_names, got none"
        )
    told = {} if root is None else {place: (name, entry) for place, name, entry in _Match(groups).layers(root, "", "")}
    layers: dict[str, KerasLayer] = {}
    for owner, numbered in arrays.items():
        name, entry = told.get(owner, (_name(owner, groups), None))
        layer = layer_of(owner, numbered, entry)
        layers[owner if name in layers else name] = layer
    return in_order(layers, root)


def in_order(layers: dict[str, KerasLayer], root: Entry | None) -> dict[str, KerasLayer]:
    """The layers in the order of the configuration; layers inside a layer take its place."""
    order = {} if root is None else {name: place for place, (name, _) in enumerate(walk(root))}

    def place(name: str) -> int:
        while name and name not in order:
            name = name.rpartition("/")[0]
        return order.get(name, len(order))

    return dict(sorted(layers.items(), key=lambda item: place(item[0])))


class _Match:
    """Matches the groups of a file with the layers of its configuration."""

    def __init__(self, groups: Mapping[str, Group]) -> None:
        self.groups = groups
        self.inside: dict[str, dict[str, None]] = {}  # the names in each group, in order
        for place in sorted(groups):
            while place:
                place, _, last = place.rpartition("/")
                self.inside.setdefault(place, {})[last] = None

    def layers(self, entry: Entry, place: str, name: str) -> Iterator[tuple[str, str, Entry]]:
        """(group, name with those of the models around it, layer) for the layers inside the one at ``place``.

        Layers whose group is not certain are left out.
        """
        before, prefix = (f"{place}/" if place else ""), (f"{name}/" if name else "")
        for key in ("layer", "cell") if entry.kind != "Bidirectional" else ():
            inner, inside = entry.inner(key), f"{before}{key}"
            if inner is not None and inside in self.inside:
                yield inside, f"{prefix}{inner.name}", inner
                yield from self.layers(inner, inside, f"{prefix}{inner.name}")
        if entry.kind == "StackedRNNCells":
            yield from self._in_container(entry.cells, f"{before}cells", name)
        elif entry.kind in MODELS or (not place and entry.layers):
            for container in _CONTAINERS:
                yield from self._in_container(entry.layers, f"{before}{container}", name)

    def _in_container(self, entries: list[Entry], container: str, name: str) -> Iterator[tuple[str, str, Entry]]:
        """As ``layers``, for the layers of one group.

        Since Keras 3.6 the groups have the layers' names. Before, they are numbered by class in the order of the
        layers: lstm, lstm_1, ... (in steps of two before 2.13, which counted layers with weights twice).
        """
        by_name = {entry.name: entry for entry in entries}
        kinds: dict[str, list[Entry]] = {}
        for entry in entries:
            kinds.setdefault(_snake(entry.kind), []).append(entry)
        pairs: list[tuple[str, Entry]] = []
        steps: dict[str, list[tuple[int, str]]] = {}
        for step in self.inside.get(container, ()):
            group = self.groups.get(f"{container}/{step}/vars")
            kind, number = _numbered(step)
            if group is None or group.name is None:
                steps.setdefault(kind, []).append((number, step))
            elif group.name in by_name:
                pairs.append((step, by_name[group.name]))
        for kind, found in steps.items():
            own = kinds.get(kind, [])
            # Layers without weights may have no group: with fewer groups than layers the match is not certain.
            if len(found) == len(own):
                pairs += [(step, entry) for (_, step), entry in zip(sorted(found), own, strict=True)]
        for step, entry in pairs:
            inside, full = f"{container}/{step}", f"{name}/{entry.name}" if name else entry.name
            yield inside, full, entry
            yield from self.layers(entry, inside, full)


def _numbered(step: str) -> tuple[str, int]:
    """The class and the number in a group's name: ("lstm", 2) of "lstm_2", ("lstm", 0) of "lstm"."""
    found = re.fullmatch(r"(.+)_([1-9]\d{0,8})", step)
    return (found[1], int(found[2])) if found else (step, 0)


def _snake(kind: str) -> str:
    """A class name in the form that Keras uses for groups: snake case."""
    kind = re.sub(r"\W+", "", kind.rpartition(".")[2])
    kind = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", kind)
    return re.sub("([a-z])([A-Z])", r"\1_\2", kind).lower()


def _name(owner: str, groups: Mapping[str, Group]) -> str:
    """A layer's name with those of the models around it, "encoder/lstm", as far as the file has them."""
    names, steps = [], owner.split("/")
    for count in range(1, len(steps) + 1):
        group = groups.get("/".join([*steps[:count], "vars"]))
        if group is not None or count == len(steps):
            names.append((group.name if group else None) or steps[count - 1])
    return "/".join(names)


def layer_of(path: str, numbered: dict[str, np.ndarray], entry: Entry | None) -> KerasLayer:
    """The layer with these arrays; its kind follows from their shapes, unless the file says another class.

    ``numbered`` are its arrays by number, with the direction in front.
    """
    options, told = (entry.options(), entry.kind) if entry else ({}, "")
    if entry is not None and told in _NORMS:
        absent = {"gamma": "scale", "beta": "center"}
        names = [name for name in _NORMS[told] if entry.config.get(absent.get(name, ""), True)]
        if len(names) == len(numbered):
            return KerasLayer(path, told, dict(zip(names, numbered.values(), strict=True)), options, True)
        return KerasLayer(path, f"a {told} of other arrays", numbered, options, True)
    wanted = entry.recurrent or told if entry else ""
    prefixes = ("forward/", "backward/") if any(name.startswith("forward/") for name in numbered) else ("",)
    kinds: set[str] = set()
    weights: dict[str, np.ndarray] = {}
    for prefix in prefixes:
        own = [numbered[f"{prefix}{n}"] for n in range(4) if f"{prefix}{n}" in numbered]
        kind = _kind(own, path, wanted)
        kinds.add(kind)
        weights |= {f"{prefix}{name}": array for name, array in zip(ARRAYS.get(kind, ()), own, strict=False)}
    known = len(kinds) == 1 and len(weights) == len(numbered) and kinds != {""}
    if known and (entry is None or wanted in kinds):
        return KerasLayer(path, kinds.pop(), weights, options, entry is not None)
    return KerasLayer(path, told or "a layer of another kind", numbered, options, entry is not None)


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
        # A Dense layer without a bias looks the same: the class decides or, without one, Keras' path.
        return told if told in ("Dense", "Embedding") else _kind_of_path(path)
    return ""


def _kind_of_path(path: str) -> str:
    last = path.rpartition("/")[2]
    return next((kind for kind in ("Embedding", "Dense") if last.startswith(kind.lower())), "")

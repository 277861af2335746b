"""The layers of a file in Keras' first layout, HDF5 alone: ``model.save("x.h5")`` and ``save_weights``, Keras 1 to 3.

The attribute layer_names lists the groups, one per layer. A group's attribute weight_names lists its arrays, the
trainable ones first. A model inside the model is one such layer. Keras 1 stores one array per gate.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gpulstm.errors import FormatError
from gpulstm.io.keras.config import Entry, walk
from gpulstm.io.keras.file import KerasLayer, in_order, layer_of
from gpulstm.io.keras.hdf5 import Group

TOP = "model_weights"  # the group of the layers in the file of a whole model
_GATES = {"i": "ifco", "z": "zrh"}  # Keras 1's separate gates, by the first one, in the order of later versions
_NO_WEIGHTS = {
    "Activation", "ActivityRegularization", "AlphaDropout", "Dropout", "ELU", "Flatten", "GaussianDropout",
    "GaussianNoise", "GlobalAveragePooling1D", "GlobalMaxPooling1D", "InputLayer", "LeakyReLU", "Masking", "Permute",
    "ReLU", "RepeatVector", "Reshape", "Softmax", "SpatialDropout1D", "ThresholdedReLU",
}  # fmt: skip
_BEFORE_2 = re.compile(r"([^/]+)_([WUb](?:_[ifcozrh])?|gamma|beta|running_mean|running_std)")
_ONE = {"BatchNormalization", "Dense", "Embedding", "LayerNormalization"}


class _Run:
    """Successive arrays of one cell, Dense layer or the like: by role ("kernel"), with the path before their names."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.arrays: dict[str, np.ndarray] = {}


def top_of(groups: Mapping[str, Group]) -> str | None:
    """The group that holds the layers; None for a file in another layout."""
    return next((top for top in (TOP, "") if top in groups and _texts(groups[top], "layer_names") is not None), None)


def text_of(groups: Mapping[str, Group], name: str) -> str | None:
    """An attribute of a whole file: model_config, keras_version."""
    texts = (groups[place].texts.get(name) for place in ("", TOP) if place in groups)
    return next((text for text in texts if isinstance(text, str)), None)


def version_of(groups: Mapping[str, Group], top: str) -> str:
    """The version in the file; "1" if the arrays' names show it, as weights of Keras 1 do not say it; else ""."""
    told = text_of(groups, "keras_version")
    if told:
        return told
    places = (f"{top}/{name}" if top else name for name in _texts(groups[top], "layer_names") or [])
    names = (name for place in places if place in groups for name in _texts(groups[place], "weight_names") or [])
    return "1" if any(_BEFORE_2.fullmatch(re.sub(r":\d+$", "", name)) for name in names) else ""


def layers_of(path: str | Path, groups: Mapping[str, Group], top: str, root: Entry | None) -> dict[str, KerasLayer]:
    """The layers of a file by name, in the order of the configuration if there is one."""
    entries = {} if root is None else {entry.name: entry for entry in root.layers}
    found: dict[str, KerasLayer] = {}
    for name in _texts(groups[top], "layer_names") or []:
        place = f"{top}/{name}" if top else name
        if place not in groups:
            raise FormatError(f"{path}: expected a group {place!r:.200}, as layer_names says, got none")
        weights = _texts(groups[place], "weight_names")
        if weights is None:
            raise FormatError(f"{path}, {place!r:.200}: expected an attribute weight_names, got none")
        if len(set(weights)) < len(weights):
            raise FormatError(f"{path}, {place!r:.200}: expected each array once, got some of the same name")
        arrays = [_array(path, groups, f"{place}/{weight}") for weight in weights]
        if not arrays:
            continue
        runs = _runs(weights, arrays)
        for key, entry, own in _assigned(name, entries.get(name), runs, root is not None):
            if key in found:
                raise FormatError(f"{path}: expected each layer once, got {key!r:.200} twice")
            found[key] = _layer(place, own, entry)
    if not found:
        raise FormatError(f"{path}: expected layers with weights, got none")
    return in_order(found, root)


def _texts(group: Group, name: str) -> list[str] | None:
    """A list of strings in an attribute; a long list is split into several numbered attributes."""
    whole = group.texts.get(name)
    if isinstance(whole, list):
        return whole
    parts: list[list[str]] = []
    while isinstance(part := group.texts.get(f"{name}{len(parts)}"), list):
        parts.append(part)
    return [text for part in parts for text in part] if parts else None


def _array(path: str | Path, groups: Mapping[str, Group], place: str) -> np.ndarray:
    group, _, last = place.rpartition("/")
    if group not in groups or last not in groups[group].arrays:
        raise FormatError(f"{path}: expected an array {place!r:.200}, as weight_names says, got none")
    return groups[group].arrays[last]


def _runs(names: list[str], arrays: list[np.ndarray]) -> list[_Run]:
    """The arrays of a layer or model, cell by cell."""
    runs: list[_Run] = []
    first: dict[str, _Run] = {}  # by path
    for name, array in zip(names, arrays, strict=True):
        owner, _, last = re.sub(r":\d+$", "", name).rpartition("/")
        if not owner and (before_2 := _BEFORE_2.fullmatch(last)):
            owner, last = before_2[1], before_2[2]
        if last.startswith(("moving_", "running_")):  # after all trainable arrays
            run = first.get(owner)
        else:
            run = runs[-1] if runs and runs[-1].owner == owner else None
        if run is None or last in run.arrays:
            runs.append(run := _Run(owner))
            first.setdefault(owner, run)
        run.arrays[last] = array
    return runs


def _assigned(
    name: str, entry: Entry | None, runs: list[_Run], told: bool
) -> list[tuple[str, Entry | None, list[_Run]]]:
    """(name, layer, its arrays) for a group, or for each layer inside if the group is a model."""
    if entry is None:
        if told or len(runs) == 1 or (len(runs) == 2 and _is_pair(runs)):
            return [(name, None, runs)]
        return [(f"{name}/{key}", None, own) for key, own in _by_owner(runs).items()]
    leaves, place = [(name, entry)], entry
    while place.kind == "TimeDistributed" and (inner := place.inner("layer")) is not None:
        place, name = inner, f"{name}/{inner.name}"
        leaves = [(name, inner)]
    if place.kind == "RNN" and (cell := place.inner("cell")) is not None and cell.cells:
        leaves = [(f"{name}/{cell.name}/{each.name}", each) for each in cell.cells]
    if place.layers:
        leaves = [(f"{name}/{key}", inner) for key, inner in walk(place) if not inner.layers]
    if len(leaves) == 1:
        return [(*leaves[0], runs)]
    own = _by_name(leaves, runs) or _by_place(leaves, runs)
    return [(name, None, runs)] if own is None else own


def _by_name(leaves: list[tuple[str, Entry]], runs: list[_Run]) -> list[tuple[str, Entry | None, list[_Run]]] | None:
    """Assign each run to the layer whose name is in its path; None if that is not certain."""
    found: dict[str, list[_Run]] = {}
    keys: dict[str, list[str]] = {}
    for key, leaf in leaves:
        keys.setdefault(leaf.name, []).append(key)
    for run in runs:
        fits = [key for step in dict.fromkeys(run.owner.split("/")) for key in keys.get(step, ())]
        if len(fits) != 1:
            return None
        found.setdefault(fits[0], []).append(run)
    entries = dict(leaves)
    if any(len(own) != _count(entries[key]) for key, own in found.items()):
        return None
    return [(key, entries[key], own) for key, own in found.items()]


def _by_place(leaves: list[tuple[str, Entry]], runs: list[_Run]) -> list[tuple[str, Entry | None, list[_Run]]] | None:
    """Assign the runs in the order of the layers, frozen layers last; None if their numbers do not fit."""
    ordered = sorted(leaves, key=lambda leaf: leaf[1].config.get("trainable", True) is False)
    counts = [_count(leaf) for _, leaf in ordered]
    if None in counts or sum(count or 0 for count in counts) != len(runs):
        return None
    found: list[tuple[str, Entry | None, list[_Run]]] = []
    place = 0
    for (key, leaf), count in zip(ordered, counts, strict=True):
        own, place = runs[place : place + (count or 0)], place + (count or 0)
        recurrent = all(not {"recurrent_kernel", "U", "U_i", "U_z"}.isdisjoint(run.arrays) for run in own)
        if own and recurrent != (leaf.recurrent is not None):
            return None
        if own:
            found.append((key, leaf, own))
    return found


def _count(leaf: Entry) -> int | None:
    """The number of runs of arrays that a layer has; None if that is not known."""
    if leaf.recurrent:
        return 2 if leaf.kind == "Bidirectional" else 1
    if leaf.kind == "TimeDistributed" and (inner := leaf.inner("layer")) is not None:
        return _count(inner)
    return 1 if leaf.kind in _ONE else 0 if leaf.kind in _NO_WEIGHTS else None


def _is_pair(runs: list[_Run]) -> bool:
    """Whether two runs are the directions of a Bidirectional layer."""
    return all(f"/{way}_" in f"/{run.owner}" for way, run in zip(("forward", "backward"), runs, strict=True))


def _by_owner(runs: list[_Run]) -> dict[str, list[_Run]]:
    """The runs of a file without a configuration by their paths; the two directions of a layer stay together."""
    found: dict[str, list[_Run]] = {}
    own: list[_Run] = []
    for number, run in enumerate(runs):
        if len(own) == 1 and _is_pair([*own, run]):
            own.append(run)
            continue
        own = [run]
        key = re.sub(r"/[a-z_]+_cell(_\d+)?$", "", run.owner) or str(number)
        found[key if key not in found else f"{key}/{number}"] = own
    return found


def _layer(place: str, runs: list[_Run], entry: Entry | None) -> KerasLayer:
    """The layer with these arrays."""
    prefixes = ("forward/", "backward/") if len(runs) == 2 and _both(runs, entry) else ("",) * len(runs)
    numbered: dict[str, np.ndarray] = {}
    for prefix, run in zip(prefixes, runs, strict=True):
        start = 0 if prefix else len(numbered)
        numbered |= {f"{prefix}{start + n}": array for n, array in enumerate(_canonical(run.arrays))}
    return layer_of(place, numbered, entry)


def _both(runs: list[_Run], entry: Entry | None) -> bool:
    return entry.kind == "Bidirectional" if entry else _is_pair(runs)


def _canonical(arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The arrays of a cell in the form of Keras 2 and 3: [kernel, recurrent_kernel, bias], gates side by side."""
    for first, gates in _GATES.items():
        if f"W_{first}" in arrays:
            names = [[f"{role}_{gate}" for gate in gates] for role in "WUb"]
            if {name for each in names for name in each} == arrays.keys():
                parts = [[arrays[name] for name in each] for each in names]
                if all(part.shape == each[0].shape and part.ndim for each in parts for part in each):
                    return [np.concatenate(each, axis=-1) for each in parts]
    own = list(arrays.values())
    if len(own) == 3 and own[1].ndim == 2 and own[2].ndim == 1 and own[0].ndim == 2:
        for count in (4, 3):
            if own[1].shape == (len(own[1]), count * len(own[1])) and own[2].shape == (2 * count * len(own[1]),):
                return _from_cudnn(own[0], own[1], own[2], count)
    return own


def _from_cudnn(kernel: np.ndarray, recurrent: np.ndarray, bias: np.ndarray, gates: int) -> list[np.ndarray]:
    """Convert the arrays of a CuDNNLSTM or CuDNNGRU, whose matrix of each gate is transposed, to the usual layout."""
    if kernel.shape[1:] != recurrent.shape[1:]:
        return [kernel, recurrent, bias]
    D, H = len(kernel), len(recurrent)
    parts = [part.T.reshape((D, H), order="F") for part in np.split(kernel, gates, axis=1)]
    turned = [part.T for part in np.split(recurrent, gates, axis=1)]
    two = bias.reshape(2, gates * H)
    return [np.concatenate(parts, 1), np.concatenate(turned, 1), two.sum(0) if gates == 4 else two]

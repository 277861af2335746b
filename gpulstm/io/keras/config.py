"""Reads a model's configuration from JSON: its layers, and the layers and cells inside them.

It is data alone: no class or function is looked up by a name in it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from gpulstm.errors import FormatError

DEEPEST = 64  # models inside models
LARGEST = 1 << 26  # bytes of a configuration
_FEW = 10_000  # brackets that any configuration may have; they take little memory
_CELLS = {"LSTMCell": "LSTM", "GRUCell": "GRU", "SimpleRNNCell": "SimpleRNN"}
_CUDNN = {"CuDNNLSTM": "LSTM", "CuDNNGRU": "GRU"}
RECURRENT = ("LSTM", "GRU", "SimpleRNN")
MODELS = ("Sequential", "Functional", "Model", "Graph")
# The arguments that are read from a layer's configuration.
_OPTIONS = (
    "units", "input_dim", "output_dim", "use_bias", "activation", "recurrent_activation", "reset_after",
    "go_backwards", "return_sequences", "return_state", "merge_mode", "mask_zero", "dropout", "recurrent_dropout",
    "stateful", "time_major", "zero_output_for_mask",
)  # fmt: skip
# Their names in Keras 1, if different.
_BEFORE_2 = {"output_dim": "units", "inner_activation": "recurrent_activation", "bias": "use_bias"}
# The arguments that both directions of a bidirectional layer share.
_SHARED = ("units", "use_bias", "activation", "recurrent_activation", "reset_after", "return_sequences")


@dataclass(frozen=True, slots=True)
class Entry:
    """One layer of a configuration: its class, name and arguments, and if it is a model its layers.

    A class that is not Keras' own has its package in front.
    """

    kind: str
    name: str
    config: dict[str, Any]
    source: dict[str, Any]  # the whole entry as it is in the file
    layers: list["Entry"] = field(default_factory=list)

    def inner(self, key: str) -> "Entry | None":
        """The layer or cell in its argument ``key``."""
        found = self.config.get(key)
        return _entry(found, models=True) if isinstance(found, dict) else None

    @property
    def cells(self) -> list["Entry"]:
        """The cells of StackedRNNCells."""
        found = self.config.get("cells")
        return [_entry(each) for each in found] if isinstance(found, list) else []

    @property
    def cell(self) -> "Entry":
        """The entry with its recurrent arguments: the cell of an RNN, the layer of a Bidirectional, or itself."""
        found: Entry = self
        for _ in range(4):
            key = {"Bidirectional": "layer", "RNN": "cell"}.get(found.kind)
            found = (found.inner(key) if key else None) or found
        return found

    @property
    def recurrent(self) -> str | None:
        """LSTM, GRU or SimpleRNN, in one direction or both; None for other layers."""
        kind = self.cell.kind
        kind = _CELLS.get(kind) or _CUDNN.get(kind) or kind
        return kind if kind in RECURRENT else None

    @property
    def cudnn(self) -> bool:
        """Whether its weights are in cuDNN's order."""
        return self.cell.kind in _CUDNN

    def options(self) -> dict[str, Any]:
        """Its arguments that gpulstm knows, with Keras 2's names, and those of the layer or cell inside it."""
        options: dict[str, Any] = {}
        wrapped, cell = self.inner("layer"), self.cell
        for each in (self, *([wrapped] if wrapped else []), *([cell] if cell is not self else [])):
            renamed = _BEFORE_2 if each.kind != "Embedding" and "units" not in each.config else {}
            known = {renamed.get(key, key): value for key, value in each.config.items()}
            options |= {key: plain(known[key]) for key in _OPTIONS if key in known}
        if self.cudnn:
            options |= {"activation": "tanh", "recurrent_activation": "sigmoid", "reset_after": True}
        if self.kind == "Bidirectional" and (backward := self.inner("backward_layer")):
            told = {"go_backwards": False} | Entry(backward.kind, "", backward.config, {}).options()
            differ = {key: told[key] for key in _SHARED if key in told and told[key] != options.get(key)}
            if told["go_backwards"] == options.get("go_backwards", False):
                differ["go_backwards"] = told["go_backwards"]
            options |= {f"backward_{key}": value for key, value in differ.items()}
        return options


def parse(text: bytes, where: str) -> Entry:
    """Read the model that JSON describes; raises FormatError, beginning with ``where``, for anything else."""
    brackets = text.count(b"{") + text.count(b"[")
    if len(text) > LARGEST or brackets > _FEW + len(text) // 10:
        # An empty dict takes two bytes here and a hundred in memory.
        raise FormatError(
            f"{where}: expected at most {LARGEST} bytes, and one bracket in ten bytes, got {len(text)} with {brackets}"
        )
    try:
        root = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: expected JSON, got something else ({error})") from error
    try:
        return _entry(root, models=True)
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from error


def walk(root: Entry) -> Iterator[tuple[str, Entry]]:
    """(name with those of the models around it, layer) of all layers, also of models, in the file's order."""
    todo = [("", entry) for entry in reversed(root.layers)]
    while todo:
        prefix, entry = todo.pop()
        name = f"{prefix}{entry.name}"
        yield name, entry
        todo += [(f"{name}/", inner) for inner in reversed(entry.layers)]


def _entry(source: Any, models: bool = False, depth: int = 0) -> Entry:
    """A layer from JSON; with ``models`` also the layers of a model. Raises FormatError for too deep models."""
    source = source if isinstance(source, dict) else {}
    config = source.get("config")
    listed = config if isinstance(config, list) else None  # Keras 1 and 2.0: a Sequential is a list of layers
    config = config if isinstance(config, dict) else {}
    listed = config.get("layers") if listed is None else listed
    name = config.get("name", source.get("name"))
    layers = []
    if models and isinstance(listed, list):
        if depth == DEEPEST:
            raise FormatError(f"expected models at most {DEEPEST} deep, got deeper ones")
        inner = (_entry(each, True, depth + 1) for each in listed)
        layers = [each for each in inner if each.name]
    return Entry(_class(source), name if isinstance(name, str) else "", config, source, layers)


def _class(source: dict[str, Any]) -> str:
    """The class name of a layer, for comparisons and messages; a class of the user's never looks like Keras' own."""
    name = source.get("class_name")
    own = "module" not in source or str(source["module"]).split(".")[0] in ("keras", "tf_keras")
    if not isinstance(name, str) or not own or source.get("registered_name") not in (None, name):
        return f"{source.get('module')}.{name}"[:200]
    return name


def plain(value: Any) -> Any:
    """Numbers, strings and None unchanged; for a LeakyReLU (name, slope), for another object its class name."""
    if isinstance(value, dict):
        entry = _entry(value)
        if entry.kind == "LeakyReLU":
            return "leaky_relu", entry.config.get("negative_slope", entry.config.get("alpha", 0.3))
        return f"an object {entry.kind}"[:200]
    return value if isinstance(value, str | int | float | None) else str(value)[:200]

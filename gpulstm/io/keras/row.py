"""Finds the order of a model's layers, if they form a chain: each takes the output of the one before."""

from typing import Any

from gpulstm.errors import FormatError
from gpulstm.io.keras.config import Entry


def in_a_row(model: Entry, where: str) -> list[Entry]:
    """The layers of a model in the order of computation, without its inputs.

    Raises FormatError for a model with branches, several inputs or outputs, or layers that are used twice, and for a
    model class of the user's.
    """
    if model.kind == "Sequential":
        return [layer for layer in model.layers if layer.kind != "InputLayer"]
    if model.kind not in ("Functional", "Model") or not model.layers:
        raise FormatError(f"{where}: expected a Sequential or Functional model, got {model.kind}; use layer()")
    source: dict[str, str] = {}  # for each layer but the input, the layer before it
    inputs, by_name = [], {}
    for layer in model.layers:
        by_name[layer.name] = layer
        calls = layer.source.get("inbound_nodes")
        calls = calls if isinstance(calls, list) else []
        if layer.kind == "InputLayer":
            inputs.append(layer.name)
            continue
        names = _names(calls)
        if len(calls) != 1 or len(names) != 1:
            raise FormatError(
                f"{where}, {layer.name}: expected a layer used once, with one input, got {len(names)} inputs"
            )
        source[layer.name] = names[0]
    follows = {given: layer for layer, given in source.items()}
    if len(inputs) != 1 or len(follows) != len(source):
        raise FormatError(f"{where}: expected one input and a chain of layers, got branches; use layer()")
    row: list[Entry] = []
    name = inputs[0]
    while name in follows and len(row) < len(source):
        name = follows[name]
        row.append(by_name[name])
    outputs = _names(model.config.get("output_layers"))
    if len(row) < len(source) or outputs != [name]:
        raise FormatError(f"{where}: expected only the last layer's output, got {', '.join(outputs)[:200] or 'none'}")
    return row


def _names(value: Any) -> list[str]:
    """The layers that a configuration refers to: [name, number, number, ...] in lists and objects of any kind."""
    found: list[str] = []
    todo = [value]
    while todo:
        each = todo.pop()
        if isinstance(each, list):
            if len(each) >= 3 and isinstance(each[0], str) and type(each[1]) is int and type(each[2]) is int:
                found.append(each[0])
                todo += each[3:]
            else:
                todo += reversed(each)
        elif isinstance(each, dict):
            todo += reversed(list(each.values()))
    return found

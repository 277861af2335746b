"""The table of a model's layers, as ``model.summary()`` of Keras prints it."""

from collections.abc import Iterator
from typing import Any

from gpulstm.nn.module import Module
from gpulstm.nn.sequential import Sequential, called
from gpulstm.nn.tree import joined


def table(model: Module) -> str:
    """Return the table: name and type, output shape, and number of parameters of each layer.

    There is a line for each layer that has parameters of its own or no layers inside, and for each function of a
    Sequential. "..." in a shape stands for the axes that depend on the data. A shared parameter counts in the line of
    each layer that has it, and once in the totals.
    """
    parameters = list(model.parameters())
    rows = list(_rows(type(model).__name__.lower(), "", model))
    head = ("Layer (type)", "Output shape", "Param #")
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(3)]

    def line(row: tuple[str, str, str]) -> str:
        return f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}"

    learnt = [p for p in parameters if p.requires_grad]
    totals = [
        f"{what} params: {sum(p.size for p in group):,} ({_bytes(sum(p.data.nbytes for p in group))})"
        for what, group in (
            ("Total", parameters),
            ("Trainable", learnt),
            ("Non-trainable", [p for p in parameters if not p.requires_grad]),
        )
    ]
    if buffers := list(model.buffers()):
        size = _bytes(sum(b.data.nbytes for b in buffers))
        totals.append(f"Not trained, in buffers: {sum(b.size for b in buffers):,} ({size})")
    rule = "─" * (sum(widths) + 4)
    return "\n".join([f'Model: "{type(model).__name__}"', rule, line(head), rule, *map(line, rows), rule, *totals])


def _rows(shown: str, name: str, layer: Any) -> Iterator[tuple[str, str, str]]:
    """The lines of a layer or function: ``shown`` is its name in the table, ``name`` the prefix of those inside it."""
    if not isinstance(layer, Module):
        yield f"{shown} ({called(layer)})", "unknown", "0"
        return
    own = sum(p.size for _, p in layer.own_parameters())
    parts = list(layer.named_layers() if isinstance(layer, Sequential) else layer.named_children())
    if own or not parts:
        yield f"{shown} ({type(layer).__name__})", _output(layer), f"{own:,}"
    for key, part in parts:
        yield from _rows(joined(name, key), joined(name, key), part)


def _output(layer: Module) -> str:
    """The output shape in words, from the layer's ``output_size`` (of the last axis) or its ``keeps_shape``."""
    if (size := getattr(layer, "output_size", None)) is not None:
        return f"(..., {size})"
    return "same as input" if getattr(layer, "keeps_shape", False) else "unknown"


def _bytes(count: float) -> str:
    for unit in ("B", "KB", "MB"):
        if count < 1024:
            return f"{count:.2f} {unit}"
        count /= 1024
    return f"{count:.2f} GB"

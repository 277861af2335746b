"""The table of a model's layers that Keras users know."""

from collections.abc import Iterator
from typing import Any

from gpulstm.nn.module import Module
from gpulstm.nn.sequential import Sequential, called
from gpulstm.nn.tree import joined


def table(model: Module) -> str:
    """A line for each layer that has parameters of its own or no layers inside, and for each function of a Sequential:
    name and type, output shape, number of parameters. "..." in a shape stands for the axes that the data decides.

    A parameter that layers share counts in the line of each, and once in the totals.
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
        totals.append(f"Not learnt, in buffers: {sum(b.size for b in buffers):,} ({size})")
    rule = "─" * (sum(widths) + 4)
    return "\n".join([f'Model: "{type(model).__name__}"', rule, line(head), rule, *map(line, rows), rule, *totals])


def _rows(shown: str, name: str, layer: Any) -> Iterator[tuple[str, str, str]]:
    """The lines of a layer or function, which is shown under one name and has another in those below it."""
    if not isinstance(layer, Module):
        yield f"{shown} ({called(layer)})", "as it gives", "0"
        return
    own = sum(p.size for _, p in layer.own_parameters())
    parts = list(layer.named_layers() if isinstance(layer, Sequential) else layer.named_children())
    if own or not parts:
        yield f"{shown} ({type(layer).__name__})", _output(layer), f"{own:,}"
    for key, part in parts:
        yield from _rows(joined(name, key), joined(name, key), part)


def _output(layer: Module) -> str:
    """A layer that knows the size of its last axis says so by ``output_size``, one that keeps it by ``keeps_shape``."""
    if (size := getattr(layer, "output_size", None)) is not None:
        return f"(..., {size})"
    return "as its input" if getattr(layer, "keeps_shape", False) else "as it gives"


def _bytes(count: float) -> str:
    for unit in ("B", "KB", "MB"):
        if count < 1024:
            return f"{count:.2f} {unit}"
        count /= 1024
    return f"{count:.2f} GB"

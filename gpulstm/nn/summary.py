"""The table of a model's layers that Keras users know."""

from gpulstm.nn.module import Module


def table(model: Module) -> str:
    """A line for each layer that has parameters of its own or no layers inside: name and type, output shape,
    number of parameters. "..." in a shape stands for the axes that the data decides.

    A parameter that layers share counts in the line of each, and once in the totals.
    """
    rows = [
        (
            f"{name or type(model).__name__.lower()} ({type(layer).__name__})",
            _output(layer),
            f"{_count(layer):,}",
        )
        for name, layer in model.named_modules()
        if list(layer.own_parameters()) or not list(layer.children())
    ]
    head = ("Layer (type)", "Output shape", "Param #")
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(3)]

    def line(row: tuple[str, str, str]) -> str:
        return f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}"

    parameters = list(model.parameters())
    learnt = [p for p in parameters if p.requires_grad]
    totals = [
        f"{what} params: {sum(p.size for p in group):,} ({_bytes(sum(p.data.nbytes for p in group))})"
        for what, group in (
            ("Total", parameters),
            ("Trainable", learnt),
            ("Non-trainable", [p for p in parameters if not p.requires_grad]),
        )
    ]
    rule = "─" * (sum(widths) + 4)
    return "\n".join([f'Model: "{type(model).__name__}"', rule, line(head), rule, *map(line, rows), rule, *totals])


def _count(layer: Module) -> int:
    return sum(p.size for _, p in layer.own_parameters())


def _output(layer: Module) -> str:
    """A layer that knows the size of its last axis says so by ``output_size``."""
    size = getattr(layer, "output_size", None)
    return "as its input" if size is None else f"(..., {size})"


def _bytes(count: float) -> str:
    for unit in ("B", "KB", "MB"):
        if count < 1024:
            return f"{count:.2f} {unit}"
        count /= 1024
    return f"{count:.2f} GB"

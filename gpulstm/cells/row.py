"""Checks that the fields of a Cell do not contradict each other, before an engine or a kernel relies on them."""

from collections.abc import Iterable
from typing import Any

from gpulstm.errors import ShapeError


def check_row(cell: Any) -> None:
    """Raise ShapeError with the name of the field, what was expected and what it is."""
    for what, names in (("gates", cell.gates), ("states", cell.states), ("extra", [e.name for e in cell.extra])):
        if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise ShapeError(f"{what} of {cell.name}: expected different names, got {names!r}")
    if not cell.gates:
        raise ShapeError(f"gates of {cell.name}: expected at least one, got none")
    if cell.states[:1] != ("h",):
        raise ShapeError(f"states of {cell.name}: expected h first, got {cell.states!r}")
    for extra in cell.extra:
        if extra.blocks < 1:
            raise ShapeError(f"{extra.name} of {cell.name}: expected one block or more, got {extra.blocks}")
    if not cell.recurrent:
        return
    if cell.split and cell.inner is not None:
        raise ShapeError(f"split of {cell.name}: expected False for a cell with an inner product, got True")
    for product in cell.products:
        _check_product(cell, product)
    used, wanted = {p.weight for p in cell.products}, {"w_hh", *(e.name for e in cell.extra if e.matrix)}
    if used != wanted:
        raise ShapeError(f"products of {cell.name}: expected {_words(wanted)} in them, got {_words(used)}")
    if (cell.inner is not None) != any(p.source == "inner" for p in cell.products):
        got = "none" if cell.inner is not None else "one"
        raise ShapeError(f"products of {cell.name}: expected one of source 'inner' if the cell has inner=, got {got}")


def _check_product(cell: Any, product: Any) -> None:
    """Check that the source, columns and rows exist, and that there are as many columns as rows."""
    of = f"of a product of {cell.name}"
    if product.source not in (*cell.states, "inner"):
        raise ShapeError(f"source {of}: expected {_words((*cell.states, 'inner'))}, got {product.source!r}")
    blocks = {"w_hh": len(cell.gates)} | {extra.name: extra.blocks for extra in cell.extra if extra.matrix}
    if product.weight not in blocks:
        raise ShapeError(f"weight {of}: expected {_words(blocks)}, got {product.weight!r}")
    rows, sizes = product.rows or product.gates, []
    for what, part, most in (("gates", product.gates, len(cell.gates)), ("rows", rows, blocks[product.weight])):
        if not (isinstance(part.start, int) and isinstance(part.stop, int) and part.step is None
                and 0 <= part.start < part.stop <= most):  # fmt: skip
            raise ShapeError(f"{what} {of}: expected slice(first, last + 1) within {most}, got {part}")
        sizes.append(part.stop - part.start)
    if sizes[0] != sizes[1]:
        raise ShapeError(f"rows {of}: expected {sizes[0]}, as many as gates, got {sizes[1]}")


def _words(names: Iterable[str]) -> str:
    return ", ".join(sorted(set(names)))

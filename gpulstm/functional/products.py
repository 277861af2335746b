"""The parameters of a layer in one direction, and the matrix products that each step of the time loop makes."""

from dataclasses import dataclass
from typing import Any

from gpulstm.backend import Array
from gpulstm.cells.cell import Cell, Product
from gpulstm.functional.linear import product
from gpulstm.functional.sequence import Sequence


@dataclass
class Weights:
    """The parameters of one layer in one direction, None where there is none; extra as the cell lists them."""

    w_ih: Any
    w_hh: Any
    b_ih: Array | None
    b_hh: Array | None
    w_hr: Array | None
    extra: tuple

    def of(self, cell: Cell, name: str) -> Any:
        """A weight by the name a Product has for it."""
        return self.w_hh if name == "w_hh" else self.extra[[extra.name for extra in cell.extra].index(name)]

    def vectors(self, cell: Cell, xp: Any, dtype: Any) -> Array:
        """The extras that are no matrices, one after the other."""
        values = [value for form, value in zip(cell.extra, self.extra, strict=True) if not form.matrix]
        joined, end = xp.empty(sum(len(value) for value in values), dtype), 0
        for value in values:  # CuPy's concatenate sends the host's list of addresses, which no CUDA graph can
            joined[end : end + len(value)] = value
            end += len(value)
        return joined


def vectors_by_name(cell: Cell, vectors: Array, H: int) -> dict[str, Array]:
    """What ``Weights.vectors`` has put together, out of an array (..., V*H), by the names of the extras."""
    by_name, start = {}, 0
    for form in cell.extra:
        if not form.matrix:
            by_name[form.name] = vectors[..., start : start + form.blocks * H]
            start += form.blocks * H
    return by_name


class Multiplied:
    """One product of every step: what it takes, with which rows of a weight, into which columns of zr."""

    def __init__(self, seq: Sequence, form: Product, weights: Weights, sources: Array) -> None:
        self.form, self.backend, self.sources, self.given = form, seq.backend, sources, None
        if sources.dtype != seq.dtype:  # states but h are kept wider than a half type; the product is of one type
            self.sources, self.given = seq.backend.empty(sources.shape, seq.dtype), sources
        self.weight = weights.of(seq.cell, form.weight)[form.weight_rows(seq.H)]
        self.columns = form.columns(seq.H)
        # Dropout on the recurrent path acts on all that w_hh multiplies; h_prev comes with it already.
        self.dropped = seq.dropped if form.source == "inner" and form.weight == "w_hh" else None

    def write_to(self, zr: Array, first: bool) -> None:
        """Before the first step: the products go to columns of zr (B, G*H), over what is there if ``first``."""
        self._multiply = self.backend.multiply_rows(self.sources, self.weight.T, zr[:, self.columns], add=not first)

    def forward(self, t: int) -> None:
        """The product of step t."""
        if self.given is not None:
            self.sources[t][...] = self.given[t]
        if self.dropped is not None:
            self.sources[t][...] = self.sources[t] * self.dropped
        self._multiply(t)

    def start_backward(self, dzr: Array, out: Array | None = None, add: bool = False) -> None:
        """Before the first ``backward``: dzr (T, B, G*H), and where the gradients go, added there if ``add``."""
        rows = dzr[:, :, self.columns]
        self.gradient = self.backend.empty((rows.shape[1], self.weight.shape[1]), dzr.dtype) if out is None else out
        self._multiply_back = self.backend.multiply_rows(rows, self.weight, self.gradient, add)

    def backward(self, t: int) -> None:
        """``gradient`` becomes that of what was multiplied in step t."""
        self._multiply_back(t)
        if self.dropped is not None:
            self.gradient *= self.dropped

    def weight_gradient(self, dzr: Array) -> Array:
        """The gradient of the weight's rows, from dzr (T*B, G*H) of all steps."""
        return product(self.backend, dzr[:, self.columns].T, self.sources.reshape(len(dzr), self.weight.shape[1]))


def lay_out(products: list[Multiplied], zr: Array, G: int) -> bool:
    """Give the products their columns of zr (B, G*H); whether zr must be zeros before each step.

    The first product of a step that writes a gate takes its columns as they are, the next are added. zr is zeroed
    if a gate has no product, or a product meets columns of which only some are written.
    """
    written: set[int] = set()
    cleared = False
    for each in products:
        gates = set(range(each.form.gates.start, each.form.gates.stop))
        each.write_to(zr, first=not gates & written)
        cleared = cleared or bool(gates & written and gates - written)
        written |= gates
    return cleared or len(written) < G

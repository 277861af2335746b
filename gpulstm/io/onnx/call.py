"""The inputs and attributes of a node that computes a constant, and limits on its result."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpulstm.errors import FormatError
from gpulstm.io.onnx.proto import MOST_AXES
from gpulstm.io.onnx.source import Source

MOST_PARTS = 4096  # numbers of a shape, parts of an array


@dataclass
class Call:
    """The arguments of a node: ``inputs`` are arrays, None for an input that is left out."""

    where: str
    version: int
    inputs: list[Any]
    outputs: int
    attributes: dict[str, Any]
    reserve: Callable[[int], None]  # asks for bytes; raises FormatError for too many
    source: Source

    def input(self, place: int) -> Any:
        """An input; None if it is left out."""
        return self.inputs[place] if place < len(self.inputs) else None

    def option(self, name: str, place: int, since: int) -> list[int] | None:
        """Integers that are an attribute before version ``since`` and an input from then on."""
        if self.version < since:
            return self.attributes.get(name)
        value = self.input(place)
        if value is None:
            return None
        if value.dtype.kind not in "iu" or value.ndim > 1 or value.size > MOST_PARTS:
            got = f"{value.dtype} {value.shape}"
            raise FormatError(f"{self.where}, {name}: expected at most {MOST_PARTS} integers, got {got}")
        return [int(number) for number in value.reshape(-1)]

    def axis(self, axis: int, rank: int) -> int:
        """The axis as a number from 0 up."""
        if not -rank <= axis < rank:
            raise FormatError(f"{self.where}: expected an axis from {-rank} to {rank - 1}, got {axis}")
        return axis % rank

    def shape(self, sizes: list[int] | None) -> tuple[int, ...]:
        """The sizes as a shape."""
        if sizes is None or len(sizes) > MOST_AXES or min(sizes, default=0) < 0:
            raise FormatError(f"{self.where}: expected a shape of at most {MOST_AXES} axes, got {sizes}")
        return tuple(sizes)

    def own(self, view: Any) -> Any:
        """A copy of a view that repeats its elements."""
        self.reserve(view.size * view.dtype.itemsize)
        return np.array(view)

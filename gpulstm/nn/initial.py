"""Initial values of parameters, drawn on the host so that a seed gives the same values on every device."""

import math
import numbers
from collections.abc import Iterator
from typing import Any

import numpy as np

from gpulstm.backend import Device
from gpulstm.backend import device as find_device
from gpulstm.cells import Cell
from gpulstm.dtypes import as_dtype
from gpulstm.errors import ShapeError
from gpulstm.nn.module import Parameter
from gpulstm.random import as_generator


class Initial:
    """Draws the initial parameters of one layer, with its device, dtype and generator."""

    def __init__(self, device: "str | Device | None", dtype: Any, generator: np.random.Generator | None) -> None:
        self.backend = find_device("auto" if device is None else device).backend
        self.dtype = as_dtype(np.float32 if dtype is None else dtype)
        self.generator = as_generator(generator)

    def uniform(self, bound: float, *shape: int) -> Parameter:
        """A parameter drawn from U(-bound, bound)."""
        return self.parameter(self.generator.uniform(-bound, bound, shape))

    def normal(self, *shape: int) -> np.ndarray:
        """Values drawn from N(0, 1), on the host so that the caller can change them."""
        return self.generator.standard_normal(shape)

    def parameter(self, values: np.ndarray) -> Parameter:
        """A parameter with these values."""
        with self.backend:
            return Parameter(self.backend.asarray(values.astype(self.dtype)))


class Weights:
    """Draws the parameters of one direction of one recurrent layer.

    ``init`` is one of

    - "torch": U(-1/sqrt(H), 1/sqrt(H)) for all parameters, as PyTorch
    - "keras": Glorot & Bengio 2010 for the input weights, an orthogonal matrix for each gate's recurrent weights (Saxe
      2014), biases 0, and a forget bias of 1 (Jozefowicz 2015)
    - "orthogonal": an orthogonal matrix for each gate, biases 0

    ``forget_bias`` sets bias_ih of the forget gate, and sets its bias_hh to 0. Extra parameters of a cell that have an
    initial value of their own start at that value.
    """

    KINDS = ("torch", "keras", "orthogonal")

    def __init__(self, cell: Cell, hidden_size: int, init: str, forget_bias: float | None, initial: Initial) -> None:
        if init not in self.KINDS:
            raise ShapeError(f"init: expected {', '.join(self.KINDS)}, got {init!r}")
        if forget_bias is not None and ("f" not in cell.gates or not cell.biases):
            raise ShapeError(f"forget_bias: expected None, because a {cell.name} has no forget bias, got {forget_bias}")
        if forget_bias is not None and (isinstance(forget_bias, bool) or not isinstance(forget_bias, numbers.Real)):
            raise ShapeError(f"forget_bias: expected a number or None, got {forget_bias!r}")
        if forget_bias is None and init == "keras" and "f" in cell.gates and cell.biases:
            forget_bias = 1.0
        self.cell, self.H, self.init, self.forget_bias, self.initial = cell, hidden_size, init, forget_bias, initial

    def drawn(self, input_size: int, bias: bool, proj_size: int) -> Iterator[tuple[str, Parameter]]:
        """Yield (name, parameter), in the order in which they are drawn."""
        GH, P = len(self.cell.gates) * self.H, proj_size or self.H
        shapes: list[tuple[str, tuple[int, ...], float | None]] = [
            ("weight_ih", (GH, input_size), None),
            ("weight_hh", (GH, P), None),
        ]
        shapes += [("bias_ih", (GH,), None), ("bias_hh", (GH,), None)] if bias else []
        if not self.cell.recurrent:
            shapes = [shape for shape in shapes if not shape[0].endswith("_hh")]
        shapes += [("weight_hr", (proj_size, self.H), None)] if proj_size else []
        for extra in self.cell.extra:
            rows = extra.blocks * self.H
            shapes.append((extra.name, (rows, self.H) if extra.matrix else (rows,), extra.initial))
        for name, shape, value in shapes:
            yield name, self._one(name, shape, value)

    def _one(self, name: str, shape: tuple[int, ...], value: float | None) -> Parameter:
        if value is not None:
            return self.initial.parameter(np.full(shape, value))
        if self.init == "torch":
            values = self.initial.generator.uniform(-1 / math.sqrt(self.H), 1 / math.sqrt(self.H), shape)
        elif len(shape) == 1:
            values = np.zeros(shape)
        elif self.init == "keras" and name == "weight_ih":
            bound = math.sqrt(6 / sum(shape))
            values = self.initial.generator.uniform(-bound, bound, shape)
        else:
            blocks = max(1, shape[0] // self.H)
            values = np.concatenate([self._orthogonal(shape[0] // blocks, shape[1]) for _ in range(blocks)])
        if self.forget_bias is not None and name in ("bias_ih", "bias_hh"):
            at = self.cell.gates.index("f") * self.H
            values[at : at + self.H] = self.forget_bias if name == "bias_ih" else 0.0
        return self.initial.parameter(values)

    def _orthogonal(self, rows: int, columns: int) -> np.ndarray:
        """Draw a uniformly random (rows, columns) matrix with orthonormal rows or columns, whichever are fewer."""
        tall = self.initial.normal(max(rows, columns), min(rows, columns))
        q, r = np.linalg.qr(tall)
        q = q * np.sign(np.diag(r))  # the signs of r make q uniform (Mezzadri 2007)
        return q if rows >= columns else q.T

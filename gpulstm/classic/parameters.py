"""The parameters of the minimal LSTM."""

from typing import Any

import numpy as np

from gpulstm.backend import Array, Device
from gpulstm.backend import device as find_device
from gpulstm.classic.functions import as_numbers, rand_arr
from gpulstm.errors import ShapeError
from gpulstm.nn.module import check_sizes
from gpulstm.random import as_generator

GATES = ("i", "f", "g", "o")


class _GateRows:
    """A view of one gate's rows of ``weight``, ``bias`` or their gradients; assigning copies into the rows."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name, kind, gate, self.rest = name, name[0], name[1], name[2:]
        self.whole, self.number = {"w": "weight", "b": "bias"}[kind] + self.rest, GATES.index(gate)

    def __get__(self, param: Any, owner: type | None = None) -> Array:
        if param is None:
            return self
        first = self.number * param.mem_cell_ct
        return getattr(param, self.whole)[first : first + param.mem_cell_ct]

    def __set__(self, param: Any, value: Any) -> None:
        rows = self.__get__(param)
        with param.backend as backend:
            value = backend.asarray(as_numbers(self.name, value))
            if value.shape != rows.shape:
                raise ShapeError(f"{self.name}: expected {rows.shape}, got {value.shape}")
            rows[...] = value


class LstmParam:
    """The parameters of the minimal LSTM: weights of [x, h_prev] and biases for the gates g, i, f, o.

    They are drawn from U(-0.1, 0.1). wg, wi, wf, wo (mem_cell_ct, x_dim + mem_cell_ct) and bg, bi, bf, bo
    (mem_cell_ct,) may be read and assigned; their gradients are wg_diff and so on. All of them are views of ``weight``,
    ``bias``, ``weight_diff`` and ``bias_diff``, which hold the gates in the order i, f, g, o. Raises ShapeError for
    sizes that are not positive integers, and for assigning a value of another shape.

    >>> gl.classic.LstmParam(4, 2).wg.shape
    (4, 6)
    """

    wg, wi, wf, wo = _GateRows(), _GateRows(), _GateRows(), _GateRows()
    bg, bi, bf, bo = _GateRows(), _GateRows(), _GateRows(), _GateRows()
    wg_diff, wi_diff, wf_diff, wo_diff = _GateRows(), _GateRows(), _GateRows(), _GateRows()
    bg_diff, bi_diff, bf_diff, bo_diff = _GateRows(), _GateRows(), _GateRows(), _GateRows()

    def __init__(
        self,
        mem_cell_ct: int,
        x_dim: int,
        device: "str | Device" = "cpu",
        dtype: Any = np.float64,
        generator: np.random.Generator | None = None,
    ) -> None:
        check_sizes(mem_cell_ct=mem_cell_ct, x_dim=x_dim)
        self.mem_cell_ct, self.x_dim, self.backend = mem_cell_ct, x_dim, find_device(device).backend
        generator = as_generator(generator)
        weight = rand_arr(-0.1, 0.1, 4 * mem_cell_ct, x_dim + mem_cell_ct, generator=generator)
        bias = rand_arr(-0.1, 0.1, 4 * mem_cell_ct, generator=generator)
        with self.backend as backend:
            self.weight, self.bias = backend.asarray(weight.astype(dtype)), backend.asarray(bias.astype(dtype))
            self.weight_diff, self.bias_diff = (backend.xp.zeros_like(value) for value in (self.weight, self.bias))

    def apply_diff(self, lr: float = 1.0) -> None:
        """Take one step of gradient descent and set the gradients to zero."""
        with self.backend:
            for value, diff in ((self.weight, self.weight_diff), (self.bias, self.bias_diff)):
                value -= lr * diff
                diff[...] = 0

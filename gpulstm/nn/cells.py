"""The cells one time step at a time, for loops that you write yourself."""

import weakref
from typing import Any, TypedDict, Unpack

import numpy as np

from gpulstm import cells
from gpulstm.backend import Device
from gpulstm.cells import Cell
from gpulstm.errors import ShapeError
from gpulstm.functional.one_step import Steps, one_step
from gpulstm.nn.arguments import as_states, as_tensor, check_fits
from gpulstm.nn.initial import Initial, Weights
from gpulstm.nn.module import Module, Parameter, check_flags, check_sizes
from gpulstm.nn.options import spell_out
from gpulstm.tape import Tensor, apply, records
from gpulstm.tape.recording import recording

# Kept outside the cells, so that copies and pickles of a cell do not contain them.
_steps: "weakref.WeakKeyDictionary[RecurrentCell, Steps]" = weakref.WeakKeyDictionary()


class CellOptions(TypedDict, total=False):
    """The keyword options of every single-step cell; see RecurrentCell."""

    init: str
    forget_bias: float | None
    device: "str | Device | None"
    dtype: Any
    generator: np.random.Generator | None
    path: str


class RecurrentCell(Module):
    """Computes one time step of any cell: ``h, c = cell(x, (h, c))``, or ``h = cell(x, h)`` for a cell with one state.

    x is (B, D) or (D,) and each state is (B, H) or (H,), with D = input_size and H = hidden_size. States default to
    zeros. Parameters are weight_ih (G*H, D), weight_hh (G*H, H), bias_ih and bias_hh (G*H,), with G gates; some cells
    add parameters of their own. ``init``, ``forget_bias``, ``device``, ``dtype``, ``generator`` and ``path`` are as for
    gl.Recurrent.

    Raises ShapeError, DTypeError or DeviceError, naming the argument that does not fit.

    >>> cell = gl.RecurrentCell("coupled", 3, 4)
    >>> h, c = cell(np.zeros((2, 3), np.float32))
    >>> h.shape
    (2, 4)
    """

    weight_ih: Parameter
    _steps_again = True  # whether to expect more steps with the same arrays

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        spell_out(cls, RecurrentCell)

    def __init__(
        self,
        cell: str | Cell,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        init: str = "torch",
        forget_bias: float | None = None,
        device: "str | Device | None" = None,
        dtype: Any = None,
        generator: np.random.Generator | None = None,
        path: str = "auto",
    ) -> None:
        self.cell = cells.find(cell)
        input_size, hidden_size = check_sizes(input_size=input_size, hidden_size=hidden_size)
        check_flags(bias=bias)
        if not bias and not self.cell.biases:
            raise ShapeError(
                f"bias: expected True, because the bias of a {self.cell.name} is part of its equations, got False"
            )
        self.input_size, self.hidden_size, self.bias, self.path = input_size, hidden_size, bias, path
        weights = Weights(self.cell, hidden_size, init, forget_bias, Initial(device, dtype, generator))
        for name, value in weights.drawn(input_size, bias and self.cell.biases, 0):
            setattr(self, name, value)
        if not bias:
            self.bias_ih = self.bias_hh = None

    @property
    def output_size(self) -> int:
        """The size of h's last axis."""
        return self.hidden_size

    def forward(self, x: Any, hx: Any = None) -> Any:
        """Return the states after one step; the docstring of the class describes arguments and shapes."""
        if self._steps_again and not recording() and (after := self._stepped(x, hx)) is not None:
            return after
        x = as_tensor(x, "x", self.weight_ih)
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise ShapeError(f"x: expected (B, {self.input_size}) or ({self.input_size},), got {x.shape}")
        check_fits("x", x, weight_ih=self.weight_ih)
        leading = x.shape[:-1]
        names = self.cell.states
        states = [
            None if state is None else self._state(name, state, leading)
            for name, state in zip(names, as_states(hx, names), strict=True)
        ]
        weights = [getattr(self, name, None) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        extra = [getattr(self, form.name) for form in self.cell.extra]
        inference = not records((x, *states, *weights, *extra))
        options = {"cell": self.cell, "path": self.path, "input_gradient": x.requires_grad, "inference": inference}
        after = apply(one_step, x, *states, *weights, None, *extra, **options)
        return after[0] if len(after) == 1 else after

    def _stepped(self, x: Any, hx: Any) -> Any:
        """A fast path of ``forward`` that skips most checks; None if it cannot be used for these arguments."""
        names = self.cell.states
        states = [None] * len(names) if hx is None else [hx] if len(names) == 1 else hx
        if self.path not in ("auto", "engine") or not isinstance(states, list | tuple) or len(states) != len(names):
            return None
        given = [y.data if isinstance(y, Tensor) else y for y in (x, *states)]
        if type(given[0]) is not np.ndarray:
            return None
        weights = [getattr(self, name, None) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        steps = _steps.get(self) or _steps.setdefault(self, Steps())
        after = steps.after(self.cell, given[0], given[1:], [w if w is None else w.data for w in weights])
        if after is None:
            return None
        return Tensor(after[0]) if len(after) == 1 else tuple(map(Tensor, after))

    def _state(self, name: str, state: Any, leading: tuple[int, ...]) -> Tensor:
        state = as_tensor(state, name, self.weight_ih)
        want = (*leading, self.hidden_size)
        if state.shape != want:
            raise ShapeError(f"{name}: expected {want}, got {state.shape}")
        check_fits(name, state, weight_ih=self.weight_ih)
        return state

    def extra_repr(self) -> str:
        kind = f"{self.cell.name}, " if type(self) is RecurrentCell else ""
        bias = ", bias=False" if self.cell.biases and self.bias_ih is None else ""
        return f"{kind}{self.input_size}, {self.hidden_size}{bias}"


class LSTMCell(RecurrentCell):
    """Computes one step of an LSTM, as ``torch.nn.LSTMCell``: ``h, c = cell(x, (h, c))``; gates i, f, g, o.

    Shapes, options and errors are as for gl.RecurrentCell.

    >>> cell = gl.LSTMCell(3, 4)
    >>> h, c = cell(np.zeros((2, 3), np.float32))
    >>> h, c = cell(np.ones((2, 3), np.float32), (h, c))
    >>> h.shape, c.shape
    ((2, 4), (2, 4))
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, **options: Unpack[CellOptions]) -> None:
        super().__init__("lstm", input_size, hidden_size, bias, **options)

"""The LSTM one step at a time, for loops of the user's own."""

import math
from typing import Any

import numpy as np

from gpulstm import functional
from gpulstm.backend import Device
from gpulstm.errors import ShapeError
from gpulstm.nn.initial import Initial
from gpulstm.nn.lstm import as_tensor, check_pair
from gpulstm.nn.module import Module, check_sizes
from gpulstm.tape import Tensor, apply


class LSTMCell(Module):
    """One step of an LSTM, as ``torch.nn.LSTMCell``: ``h, c = cell(x, (h, c))``.

    x (B, input_size) or (input_size,), h and c (B, hidden_size) or (hidden_size,), zeros without. Parameters
    are weight_ih (4H, D), weight_hh (4H, H), bias_ih and bias_hh (4H,), gates in the order i, f, g, o, all
    starting as U(-1/sqrt(H), 1/sqrt(H)). Raises ShapeError or DTypeError for arguments that do not fit.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: "str | Device | None" = None,
        dtype: Any = None,
        generator: np.random.Generator | None = None,
        path: str = "auto",
    ) -> None:
        check_sizes(input_size=input_size, hidden_size=hidden_size)
        self.input_size, self.hidden_size, self.path = input_size, hidden_size, path
        initial, bound = Initial(device, dtype, generator), 1 / math.sqrt(hidden_size)
        self.weight_ih = initial.uniform(bound, 4 * hidden_size, input_size)
        self.weight_hh = initial.uniform(bound, 4 * hidden_size, hidden_size)
        self.bias_ih = initial.uniform(bound, 4 * hidden_size) if bias else None
        self.bias_hh = initial.uniform(bound, 4 * hidden_size) if bias else None

    @property
    def output_size(self) -> int:
        """The size of h's last axis."""
        return self.hidden_size

    def forward(self, x: Any, hx: tuple[Any, Any] | None = None) -> tuple[Tensor, Tensor]:
        """See the class."""
        x = as_tensor(x, "x")
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise ShapeError(f"x: want (B, {self.input_size}) or ({self.input_size},), got {x.shape}")
        leading = x.shape[:-1]
        h = c = None
        if hx is not None:
            check_pair(hx)
            h, c = self._state("h", hx[0], leading), self._state("c", hx[1], leading)
        parameters = self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh
        wanted = x.requires_grad
        x = x.reshape(1, *(leading or (1,)), self.input_size)  # one step
        _, h, c = apply(functional.recurrent, x, h, c, *parameters, path=self.path, input_gradient=wanted)
        return h.reshape(*leading, self.hidden_size), c.reshape(*leading, self.hidden_size)

    def _state(self, name: str, state: Any, leading: tuple[int, ...]) -> Tensor:
        state = as_tensor(state, name)
        want = (*leading, self.hidden_size)
        if state.shape != want:
            raise ShapeError(f"{name}: want {want}, got {state.shape}")
        return state.reshape(*(leading or (1,)), self.hidden_size)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}{'' if self.bias_ih is not None else ', bias=False'}"

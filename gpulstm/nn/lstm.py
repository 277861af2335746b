"""The LSTM layer: everything ``torch.nn.LSTM`` has, and lengths."""

import math
import warnings
from typing import Any

import numpy as np

from gpulstm import functional
from gpulstm.backend import Device, backend_of
from gpulstm.errors import DTypeError, ShapeError
from gpulstm.functional import rearrange
from gpulstm.nn.initial import Initial
from gpulstm.nn.module import Module, check_flags, check_rate, check_sizes
from gpulstm.random import draw_seed
from gpulstm.tape import Tensor, apply, tensor


def as_tensor(x: Any, name: str) -> Tensor:
    """A Tensor, or an array of any library as one; raises DTypeError, naming the argument, for no array."""
    if isinstance(x, Tensor):
        return x
    if not any(hasattr(x, name) for name in ("dtype", "__dlpack__", "__cuda_array_interface__")):
        raise DTypeError(f"{name}: want an array or a Tensor, got {type(x).__name__}; make one with gl.tensor")
    return tensor(x)


def check_pair(hx: Any) -> None:
    """Raises ShapeError unless these are two states."""
    if not isinstance(hx, tuple | list) or len(hx) != 2:
        got = f"{len(hx)} of them" if isinstance(hx, tuple | list) else type(hx).__name__
        raise ShapeError(f"hx: want a pair of states h and c, got {got}")


def _on_host(lengths: Any) -> Any:
    """Lengths as a NumPy array, so that not every layer waits for the device; lists as they are."""
    is_array = hasattr(lengths, "dtype") or hasattr(lengths, "__dlpack__")
    return tensor(lengths).numpy() if is_array else lengths


class LSTM(Module):
    """A multi-layer long short-term memory network over whole sequences, as ``torch.nn.LSTM``.

    ``output, (h_n, c_n) = lstm(x, (h_0, c_0), lengths=lengths)`` with T steps, B sequences, D = input_size,
    H = hidden_size, P = proj_size or H, L = num_layers and K = 2 directions if bidirectional, else 1:

    =========== ===================================================================================
    x           (T, B, D); (B, T, D) with ``batch_first``; (T, D) for a single sequence
    h_0, h_n    (L*K, B, P) whatever ``batch_first`` says; layer by layer, forward before backward.
                Without B for a single sequence. h_0, c_0 default to zeros
    c_0, c_n    (L*K, B, H)
    lengths     (B,) integers from 0 to T in any order; None for T everywhere
    output      (T, B, K*P): the last layer's h at every step, forward beside backward, zero after a
                sequence's end
    =========== ===================================================================================

    The backward direction starts at each sequence's own end, so at step t it has seen the steps from the end
    down to t; h_n is each direction's state after its last step. For a bidirectional layer of one level
    ``h_n[0]`` equals ``output[lengths - 1, b, :P]`` and ``h_n[1]`` equals ``output[0, b, P:]``.

    Parameters are PyTorch's: weight_ih_l{k} (4H, D or K*P), weight_hh_l{k} (4H, P), bias_ih_l{k} and
    bias_hh_l{k} (4H,), weight_hr_l{k} (P, H) with proj_size, suffix _reverse for the backward direction,
    gates in the order i, f, g, o, all starting as U(-1/sqrt(H), 1/sqrt(H)). ``dropout`` acts on the output of
    every layer but the last, in training. ``path`` chooses how sequences are computed (see ``gl.explain``).

    Raises ShapeError, DTypeError or DeviceError for arguments that do not fit, naming them.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: "str | Device | None" = None,
        dtype: Any = None,
        generator: np.random.Generator | None = None,
        path: str = "auto",
    ) -> None:
        check_sizes(input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        check_rate("dropout", dropout)
        check_flags(bias=bias, batch_first=batch_first, bidirectional=bidirectional)
        if isinstance(proj_size, bool) or not isinstance(proj_size, int) or not 0 <= proj_size < hidden_size:
            raise ShapeError(
                f"proj_size: want an integer, 0 <= proj_size < hidden_size = {hidden_size}, got {proj_size!r}"
            )
        if dropout > 0 and num_layers == 1:
            warnings.warn("dropout acts between layers, and this LSTM has one: it changes nothing", stacklevel=2)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, dropout
        self.bidirectional, self.proj_size, self.path = bidirectional, proj_size, path
        self.generator = generator
        initial, bound = Initial(device, dtype, generator), 1 / math.sqrt(hidden_size)
        for layer in range(num_layers):
            for suffix in self._suffixes:
                for name, shape in self._shapes(layer):
                    setattr(self, f"{name}_l{layer}{suffix}", initial.uniform(bound, *shape))

    @property
    def _suffixes(self) -> tuple[str, ...]:
        return ("", "_reverse") if self.bidirectional else ("",)

    @property
    def output_size(self) -> int:
        """The size of output's last axis."""
        return (self.proj_size or self.hidden_size) * len(self._suffixes)

    def _shapes(self, layer: int) -> list[tuple[str, tuple[int, ...]]]:
        gates, width = 4 * self.hidden_size, self.proj_size or self.hidden_size
        shapes: list[tuple[str, tuple[int, ...]]] = [
            ("weight_ih", (gates, self.input_size if layer == 0 else self.output_size)),
            ("weight_hh", (gates, width)),
        ]
        shapes += [("bias_ih", (gates,)), ("bias_hh", (gates,))] if self.bias else []
        return shapes + ([("weight_hr", (self.proj_size, self.hidden_size))] if self.proj_size else [])

    def forward(
        self, x: Any, hx: tuple[Any, Any] | None = None, lengths: Any = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """See the class."""
        x = as_tensor(x, "x")
        self._check_input(x)
        batched = x.ndim == 3
        if not batched:
            if lengths is not None:
                raise ShapeError(f"lengths: want None with a single sequence (T, D), got {lengths!r}")
            x = x.reshape(x.shape[0], 1, x.shape[1])
        elif self.batch_first:
            x = x.transpose(1, 0, 2)
        h_0, c_0 = self._check_states(hx, x.shape[1], batched)
        lengths = _on_host(lengths)

        h_n: list[Tensor] = []
        c_n: list[Tensor] = []
        for layer in range(self.num_layers):
            if layer > 0 and self.dropout and self.training:
                x = apply(functional.dropout, x, rate=self.dropout, seed=draw_seed(self.generator))
            outputs = []
            for direction, suffix in enumerate(self._suffixes):
                row = len(h_n)
                y, h, c = apply(
                    functional.recurrent,
                    x,
                    None if h_0 is None else h_0[row],
                    None if c_0 is None else c_0[row],
                    *(getattr(self, f"{name}_l{layer}{suffix}", None)
                      for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")),
                    lengths=lengths, reverse=direction == 1, path=self.path, input_gradient=x.requires_grad,
                )  # fmt: skip
                outputs.append(y)
                h_n.append(h)
                c_n.append(c)
            x = outputs[0] if len(outputs) == 1 else apply(rearrange.concatenate, *outputs, axis=2)

        if not batched:
            x = x.reshape(x.shape[0], x.shape[2])
            return x, (
                self._stacked(h_n, (x.shape[1] // len(self._suffixes),)),
                self._stacked(c_n, (self.hidden_size,)),
            )
        return x.transpose(1, 0, 2) if self.batch_first else x, (self._stacked(h_n), self._stacked(c_n))

    def _stacked(self, states: list[Tensor], unbatched: tuple[int, ...] | None = None) -> Tensor:
        stacked = apply(rearrange.stack, *states)
        return stacked if unbatched is None else stacked.reshape(len(states), *unbatched)

    def _check_input(self, x: Tensor) -> None:
        weight = getattr(self, "weight_ih_l0")  # noqa: B009  set by setattr too
        want = "(B, T, D)" if self.batch_first else "(T, B, D)"
        if x.ndim not in (2, 3):
            raise ShapeError(f"x: want {want}, or (T, D) for a single sequence, got {x.shape}")
        if x.shape[-1] != self.input_size:
            raise ShapeError(f"x: want {self.input_size} = input_size in the last axis, got {x.shape}")
        backend_of(x.data, weight.data)
        if x.dtype != weight.dtype:
            raise DTypeError(
                f"x: want {weight.dtype}, the type of the weights, got {x.dtype}; "
                f"convert it with x.astype('{weight.dtype}') or the layer with layer.to('{x.dtype}')"
            )
        if x.shape[0 if x.ndim == 2 else int(self.batch_first)] == 0:
            raise ShapeError(f"x: want at least one step, got {x.shape}")

    def _check_states(self, hx: tuple[Any, Any] | None, B: int, batched: bool) -> tuple[Tensor | None, Tensor | None]:
        if hx is None:
            return None, None
        check_pair(hx)
        rows, checked = self.num_layers * len(self._suffixes), []
        for name, state, width in zip(
            ("h_0", "c_0"), hx, (self.proj_size or self.hidden_size, self.hidden_size), strict=True
        ):
            state = as_tensor(state, name)
            want = (rows, B, width) if batched else (rows, width)
            if state.shape != want:
                words = (
                    "(layers*directions, batch, units)"
                    if batched
                    else "(layers*directions, units) as x is one sequence"
                )
                raise ShapeError(f"{name}: want {want} = {words}, got {state.shape}")
            checked.append(state if batched else state.reshape(rows, 1, width))
        return checked[0], checked[1]

    def extra_repr(self) -> str:
        options = [f"{self.input_size}, {self.hidden_size}"]
        defaults: dict[str, Any] = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0}
        defaults |= {"bidirectional": False, "proj_size": 0, "path": "auto"}
        options += [f"{name}={getattr(self, name)}" for name, usual in defaults.items() if getattr(self, name) != usual]
        return ", ".join(options)

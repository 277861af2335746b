"""A minimal LSTM, one object a time step, whose output is h = s * o, without a tanh."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from gpulstm.backend import Array, Device
from gpulstm.backend import device as find_device
from gpulstm.cells import general
from gpulstm.errors import ShapeError
from gpulstm.nn.module import check_sizes
from gpulstm.random import as_generator

_CELL = general.cell(("sigmoid", "tanh", ("affine", 1.0, 0.0)))  # h = o * s: the output has no tanh
_GATES = ("i", "f", "g", "o")


class LossLayer(Protocol):
    """What ``LstmNetwork.y_list_is`` asks of a loss: pred is h (mem_cell_ct,), label whatever the list holds."""

    def loss(self, pred: Array, label: Any) -> Any:
        """A number."""

    def bottom_diff(self, pred: Array, label: Any) -> Array:
        """Its gradient (mem_cell_ct,)."""


class FirstUnitLoss:
    """The squared distance of the first unit from the label."""

    @classmethod
    def loss(cls, pred: Array, label: float) -> Any:
        """(pred[0] - label)^2."""
        return (pred[0] - label) ** 2

    @classmethod
    def bottom_diff(cls, pred: Array, label: float) -> Array:
        """Its gradient (mem_cell_ct,)."""
        diff = pred * 0
        diff[0] = 2 * (pred[0] - label)
        return diff


class LstmParam:
    """The parameters of the minimal LSTM, U(-0.1, 0.1): weights of [x, h_prev] and biases for g, i, f, o.

    wg, wi, wf, wo (mem_cell_ct, x_dim + mem_cell_ct) and bg, bi, bf, bo (mem_cell_ct,) are views that may be
    read and written; their gradients are wg_diff and so on.
    """

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
        draw = as_generator(generator).uniform
        with self.backend:
            weight = draw(-0.1, 0.1, (4 * mem_cell_ct, x_dim + mem_cell_ct)).astype(dtype)
            self.weight = self.backend.asarray(weight)
            self.bias = self.backend.asarray(draw(-0.1, 0.1, 4 * mem_cell_ct).astype(dtype))
            self.weight_diff = self.backend.xp.zeros_like(self.weight)
            self.bias_diff = self.backend.xp.zeros_like(self.bias)

    def __getattr__(self, name: str) -> Array:
        """wg ... bo_diff: one gate's rows."""
        kind, gate, rest = name[:1], name[1:2], name[2:]
        if kind not in ("w", "b") or gate not in _GATES or rest not in ("", "_diff"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        whole = {"w": "weight", "b": "bias"}[kind] + rest
        first = _GATES.index(gate) * self.mem_cell_ct
        return self.__dict__[whole][first : first + self.mem_cell_ct]

    def apply_diff(self, lr: float = 1.0) -> None:
        """One step of gradient descent; the gradients are zero then."""
        with self.backend:
            for value, diff in ((self.weight, self.weight_diff), (self.bias, self.bias_diff)):
                value -= lr * diff
                diff[...] = 0


class LstmState:
    """The gates g, i, f, o, the cell state s and the output h of one step, (mem_cell_ct,) each, and the
    gradients bottom_diff_h and bottom_diff_s that it hands to the step before."""

    g: Array
    i: Array
    f: Array
    o: Array
    s: Array
    h: Array
    bottom_diff_h: Array
    bottom_diff_s: Array

    def __init__(self, mem_cell_ct: int, x_dim: int, backend: Any = None) -> None:
        backend = backend or find_device("cpu").backend
        with backend:
            for name in ("g", "i", "f", "o", "s", "h", "bottom_diff_h", "bottom_diff_s"):
                setattr(self, name, backend.zeros((mem_cell_ct,), np.dtype(np.float64)))


class LstmNode:
    """One step of the minimal LSTM."""

    def __init__(self, lstm_param: LstmParam, lstm_state: LstmState) -> None:
        self.param, self.state = lstm_param, lstm_state
        self.xc: Any = None  # [x, h_prev]

    def bottom_data_is(self, x: Any, s_prev: Array | None = None, h_prev: Array | None = None) -> None:
        """The step forward from x (x_dim,) and the states before, zeros without."""
        param, state, H = self.param, self.state, self.param.mem_cell_ct
        with param.backend as backend:
            xp, dtype = backend.xp, param.weight.dtype
            x = backend.asarray(x).astype(dtype)
            if x.shape != (param.x_dim,):
                raise ShapeError(f"x: want ({param.x_dim},) = (x_dim,), got {x.shape}")
            h_prev, s_prev = (xp.zeros(H, dtype) if v is None else v for v in (h_prev, s_prev))
            self.xc = xp.concatenate([x, h_prev])
            z = (param.weight @ self.xc + param.bias)[None]
            ((h, s), self._saved) = _CELL.forward(xp, z, xp.zeros_like(z), (h_prev[None], s_prev[None]), ())
            state.h, state.s = h[0], s[0]
            state.i, state.f, state.g, state.o = (gate[0] for gate in self._saved[:4])

    def top_diff_is(self, top_diff_h: Array, top_diff_s: Array) -> None:
        """The step backward: adds to the parameters' gradients and sets the state's bottom_diff_h and _s."""
        param, state = self.param, self.state
        with param.backend as backend:
            xp = backend.xp
            dz, _, (_, ds_prev), _ = _CELL.backward(xp, (top_diff_h[None], top_diff_s[None]), self._saved, ())
            param.weight_diff += xp.outer(dz[0], self.xc)
            param.bias_diff += dz[0]
            state.bottom_diff_s = ds_prev[0]
            state.bottom_diff_h = dz[0] @ param.weight[:, param.x_dim :]


class LstmNetwork:
    """A chain of nodes, one for every input added; all share one LstmParam."""

    def __init__(self, lstm_param: LstmParam) -> None:
        self.lstm_param = lstm_param
        self.lstm_node_list: list[LstmNode] = []
        self.x_list: list[Any] = []

    def x_list_add(self, x: Any) -> None:
        """One more step, computed at once; its h is ``lstm_node_list[-1].state.h``."""
        param, before = self.lstm_param, self.lstm_node_list[len(self.x_list) - 1].state if self.x_list else None
        node = LstmNode(param, LstmState(param.mem_cell_ct, param.x_dim, param.backend))
        node.bottom_data_is(x, *(() if before is None else (before.s, before.h)))
        self.x_list.append(x)
        self.lstm_node_list.append(node)

    def x_list_clear(self) -> None:
        """Forget the steps; the parameters stay."""
        self.x_list.clear()
        self.lstm_node_list.clear()

    def y_list_is(self, y_list: Sequence[Any], loss_layer: Any) -> Any:
        """The loss summed over the steps, whose gradients are added to the parameters' (see LstmParam).

        loss_layer is a LossLayer, or a class of one.
        Raises ShapeError unless there is a label for every input.
        """
        if len(y_list) != len(self.x_list) or not self.x_list:
            raise ShapeError(f"y_list: want {len(self.x_list)} labels, one for each input, got {len(y_list)}")
        loss: Any = 0.0
        with self.lstm_param.backend:
            zero = self.lstm_node_list[-1].state.h * 0
            diff_h, diff_s = zero, zero
            for node, label in zip(reversed(self.lstm_node_list), reversed(y_list), strict=True):
                loss += loss_layer.loss(node.state.h, label)
                diff_h = diff_h + loss_layer.bottom_diff(node.state.h, label)
                node.top_diff_is(diff_h, diff_s)
                diff_h, diff_s = node.state.bottom_diff_h, node.state.bottom_diff_s
        return loss

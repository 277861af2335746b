"""A minimal LSTM with one object per time step; its output is h = s * o, without a tanh."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpulstm.backend import Array
from gpulstm.backend import device as find_device
from gpulstm.cells import general
from gpulstm.classic.functions import as_numbers
from gpulstm.classic.loss import check_loss_layer
from gpulstm.classic.parameters import LstmParam
from gpulstm.errors import DTypeError, ShapeError, TapeError
from gpulstm.nn.module import check_sizes

_CELL = general.cell(("sigmoid", "tanh", ("affine", 1.0, 0.0)))  # h = o * s: the output has no tanh


class LstmState:
    """The arrays of one step, (mem_cell_ct,) each: the gates g, i, f, o, the cell state s, the output h, and gradients.

    The gradients bottom_diff_h and bottom_diff_s are those of the previous step's h and s. All arrays start as zeros.

    Raises ShapeError for sizes that are not positive integers.

    >>> gl.classic.LstmState(3, 2).h
    array([0., 0., 0.])
    """

    g: Array
    i: Array
    f: Array
    o: Array
    s: Array
    h: Array
    bottom_diff_h: Array
    bottom_diff_s: Array

    def __init__(self, mem_cell_ct: int, x_dim: int, backend: Any = None) -> None:
        check_sizes(mem_cell_ct=mem_cell_ct, x_dim=x_dim)
        backend = backend or find_device("cpu").backend
        with backend:
            for name in ("g", "i", "f", "o", "s", "h", "bottom_diff_h", "bottom_diff_s"):
                setattr(self, name, backend.zeros((mem_cell_ct,), np.dtype(np.float64)))


class LstmNode:
    """One step of the minimal LSTM: its ``state``, the shared ``param``, and its inputs.

    ``bottom_data_is`` sets xc = [x, h_prev] (x_dim + mem_cell_ct,), s_prev and h_prev (mem_cell_ct,).

    Raises ShapeError for an input of another size.

    >>> node = gl.classic.LstmNode(gl.classic.LstmParam(4, 2), gl.classic.LstmState(4, 2))
    >>> node.bottom_data_is(np.ones(2))
    >>> node.state.h.shape
    (4,)
    """

    def __init__(self, lstm_param: LstmParam, lstm_state: LstmState) -> None:
        self.param, self.state = lstm_param, lstm_state
        self.xc: Any = None
        self.s_prev: Any = None
        self.h_prev: Any = None

    def bottom_data_is(self, x: Any, s_prev: Any = None, h_prev: Any = None) -> None:
        """Compute the step from x (x_dim,) and the previous states (mem_cell_ct,), zeros if not given.

        Raises ShapeError for other shapes and DTypeError for anything but real numbers.
        """
        param, state, H = self.param, self.state, self.param.mem_cell_ct
        with param.backend as backend:
            xp, dtype = backend.xp, param.weight.dtype
            x = self._vector("x", x, param.x_dim, "x_dim")
            self.s_prev, self.h_prev = (
                xp.zeros(H, dtype) if value is None else self._vector(name, value, H, "mem_cell_ct")
                for name, value in (("s_prev", s_prev), ("h_prev", h_prev))
            )
            self.xc = xp.concatenate([x, self.h_prev])
            z = backend.matmul(self.xc[None], param.weight.T) + param.bias
            before = (self.h_prev[None], self.s_prev[None])
            ((h, s), self._saved) = _CELL.forward(xp, z, xp.zeros_like(z), before, ())
            state.h, state.s = h[0], s[0]
            state.i, state.f, state.g, state.o = (gate[0] for gate in self._saved[:4])

    def top_diff_is(self, top_diff_h: Any, top_diff_s: Any) -> None:
        """Backpropagate the gradients of h and s (mem_cell_ct,) through the step.

        Adds to the parameters' gradients, and sets the state's bottom_diff_h and bottom_diff_s.
        Raises ShapeError for other shapes, and TapeError before ``bottom_data_is``.
        """
        if self.xc is None:
            raise TapeError("top_diff_is: expected a computed step, got one without x; call bottom_data_is first")
        param, state, H = self.param, self.state, self.param.mem_cell_ct
        with param.backend as backend:
            given = (("top_diff_h", top_diff_h), ("top_diff_s", top_diff_s))
            diffs = tuple(self._vector(name, diff, H, "mem_cell_ct")[None] for name, diff in given)
            dz, _, (_, ds_prev), _ = _CELL.backward(backend.xp, diffs, self._saved, ())
            param.weight_diff += backend.xp.outer(dz[0], self.xc)
            param.bias_diff += dz[0]
            state.bottom_diff_s = ds_prev[0]
            state.bottom_diff_h = backend.matmul(dz, param.weight[:, param.x_dim :])[0]

    def _vector(self, name: str, value: Any, size: int, what: str) -> Array:
        """The value as an array on the parameters' device and of their element type."""
        array = self.param.backend.asarray(as_numbers(name, value)).astype(self.param.weight.dtype, copy=False)
        if array.shape != (size,):
            raise ShapeError(f"{name}: expected ({size},) = ({what},), got {array.shape}")
        return array


class LstmNetwork:
    """A chain of nodes, one per input; all share one LstmParam.

    ``x_list_add(x)`` adds a step with the input x (x_dim,). ``y_list_is(labels, loss_layer)`` returns the loss and adds
    the gradients to the parameters. They raise ShapeError for an input of another size and a wrong number of labels.

    >>> network = gl.classic.LstmNetwork(gl.classic.LstmParam(4, 2))
    >>> network.x_list_add(np.ones(2))
    >>> bool(network.y_list_is([0.5], gl.classic.ToyLossLayer) > 0)
    True
    """

    def __init__(self, lstm_param: LstmParam) -> None:
        self.lstm_param = lstm_param
        self.lstm_node_list: list[LstmNode] = []
        self.x_list: list[Any] = []

    def x_list_add(self, x: Any) -> None:
        """Add one step and compute it from x (x_dim,); its output is ``lstm_node_list[-1].state.h``."""
        param, before = self.lstm_param, self.lstm_node_list[-1].state if self.lstm_node_list else None
        node = LstmNode(param, LstmState(param.mem_cell_ct, param.x_dim, param.backend))
        node.bottom_data_is(x, *(() if before is None else (before.s, before.h)))
        self.x_list.append(x)
        self.lstm_node_list.append(node)

    def x_list_clear(self) -> None:
        """Remove all steps; the parameters stay."""
        self.x_list.clear()
        self.lstm_node_list.clear()

    def y_list_is(self, y_list: Sequence[Any], loss_layer: Any) -> Any:
        """Return the loss summed over the steps, and add its gradients to those of the parameters.

        ``lstm_param.apply_diff(lr)`` then updates the parameters. loss_layer is a LossLayer, an object or a class.
        Raises ShapeError unless there is a label for every input, and at least one input.
        """
        check_loss_layer(loss_layer)
        if not hasattr(y_list, "__len__"):
            raise DTypeError(f"y_list: expected a list of labels, one for each input, got {y_list!r}")
        if len(y_list) != len(self.x_list):
            raise ShapeError(f"y_list: expected {len(self.x_list)} labels, one for each input, got {len(y_list)}")
        if not self.x_list:
            raise ShapeError("x_list: expected at least one input, got none; call x_list_add before y_list_is")
        loss: Any = 0.0
        with self.lstm_param.backend as backend:
            diff_h = diff_s = backend.xp.zeros_like(self.lstm_node_list[-1].state.h)
            for node, label in zip(reversed(self.lstm_node_list), reversed(list(y_list)), strict=True):
                loss += loss_layer.loss(node.state.h, label)
                diff_h = diff_h + self._gradient(loss_layer, node.state.h, label)
                node.top_diff_is(diff_h, diff_s)
                diff_h, diff_s = node.state.bottom_diff_h, node.state.bottom_diff_s
        return loss

    @staticmethod
    def _gradient(loss_layer: Any, pred: Array, label: Any) -> Array:
        """The result of bottom_diff, which must have pred's shape: a single number would broadcast to all units."""
        diff = as_numbers("loss_layer.bottom_diff", loss_layer.bottom_diff(pred, label))
        if diff.shape != pred.shape:
            raise ShapeError(f"loss_layer.bottom_diff: expected {pred.shape} = (mem_cell_ct,), got {diff.shape}")
        return diff

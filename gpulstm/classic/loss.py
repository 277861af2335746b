"""The loss layers of the minimal LSTM: their interface, and the one of the demonstration."""

from typing import Any, Protocol

from gpulstm.backend import Array, backend_of
from gpulstm.classic.functions import as_numbers
from gpulstm.errors import DTypeError


class LossLayer(Protocol):
    """The interface of a loss for ``LstmNetwork.y_list_is``: pred is h (mem_cell_ct,), label an entry of y_list.

    Raises TypeError if it is called: a loss has the two functions, and is not made of this class.

    >>> class Distance:
    ...     def loss(pred, label):
    ...         return abs(pred[0] - label)
    ...     def bottom_diff(pred, label):
    ...         return np.sign(pred - label) * (np.arange(len(pred)) == 0)
    >>> network = gl.classic.LstmNetwork(gl.classic.LstmParam(4, 2))
    >>> network.x_list_add(np.ones(2))
    >>> bool(network.y_list_is([0.5], Distance) > 0)
    True
    """

    def loss(self, pred: Array, label: Any) -> Any:
        """The loss of one step, a number."""

    def bottom_diff(self, pred: Array, label: Any) -> Array:
        """The gradient of the loss with respect to pred (mem_cell_ct,)."""


class ToyLossLayer:
    """The squared distance of the first unit from the label.

    ``loss(pred, label)`` and ``bottom_diff(pred, label)`` take pred (mem_cell_ct,). They raise DTypeError for
    anything but numbers.

    >>> gl.classic.ToyLossLayer.bottom_diff(np.array([0.5, 1.0]), 1.0)
    array([-1.,  0.])
    """

    @classmethod
    def loss(cls, pred: Any, label: float) -> Any:
        """(pred[0] - label)^2, for pred (mem_cell_ct,)."""
        return (as_numbers("pred", pred)[0] - label) ** 2

    @classmethod
    def bottom_diff(cls, pred: Any, label: float) -> Array:
        """The gradient (mem_cell_ct,): 2 (pred[0] - label) for the first unit, 0 for the others."""
        pred = as_numbers("pred", pred)
        diff = backend_of(pred).xp.zeros_like(pred, dtype=(pred[:1] * 1.0).dtype)
        diff[0] = 2 * (pred[0] - label)
        return diff


def check_loss_layer(loss_layer: Any) -> None:
    """Raises DTypeError for an object without the two functions of a LossLayer."""
    if not all(callable(getattr(loss_layer, name, None)) for name in ("loss", "bottom_diff")):
        raise DTypeError(f"loss_layer: expected loss(pred, label) and bottom_diff(pred, label), got {loss_layer!r}")

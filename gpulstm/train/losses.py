"""Checks the result of the user's loss function."""

from typing import Any

from gpulstm.errors import DTypeError, ShapeError, TapeError
from gpulstm.tape import Tensor

WANT = "loss: expected (loss, state), a Tensor of one number and the state for the next batch or None"


def checked(result: Any, training: bool) -> tuple[Tensor, Any]:
    """Return the result of a loss function as (loss, state).

    Raises DTypeError for anything but a pair that begins with a Tensor, ShapeError for a Tensor of more than one
    number, and TapeError, in training, for a loss without a gradient.
    """
    if isinstance(result, Tensor):
        raise DTypeError(
            f"{WANT}, got a Tensor alone, of shape {result.shape}; end the function with: return loss, None"
        )
    if not isinstance(result, tuple | list):
        raise DTypeError(f"{WANT}, got {_kind(result)}")
    if len(result) != 2:
        raise DTypeError(f"{WANT}, got {len(result)} values: ({', '.join(map(_kind, result))})")
    loss, state = result
    if not isinstance(loss, Tensor):
        raise DTypeError(f"{WANT}, got {_kind(loss)} as the loss; do not call item() or numpy() on it")
    if loss.size != 1:
        raise ShapeError(f"{WANT}, got a loss of shape {loss.shape}; take its mean() or sum()")
    if training and not loss.requires_grad:
        raise TapeError(
            f"{WANT}, got a loss without a gradient: it was detached, computed under no_grad, or depends on no "
            "parameter with requires_grad"
        )
    return loss, state


def _kind(value: Any) -> str:
    return "None" if value is None else type(value).__name__

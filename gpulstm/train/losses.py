"""The user's loss function: called with the model, a batch and a state, and held to what it must return."""

from typing import Any

from gpulstm.errors import DTypeError, ShapeError, TapeError
from gpulstm.tape import Tensor

WANT = "loss: expected (loss, state), a Tensor of one number and what the next batch starts from or None"


def checked(result: Any, training: bool) -> tuple[Tensor, Any]:
    """What a loss function returned, as (loss, state).

    Raises DTypeError for anything but a pair that begins with a Tensor, ShapeError for a Tensor of more than
    one number, and TapeError, in training, for one without a gradient.
    """
    if isinstance(result, Tensor):
        raise DTypeError(
            f"{WANT}, got a Tensor alone, of shape {result.shape}; end the function with: return loss, None"
        )
    if not isinstance(result, tuple | list):
        raise DTypeError(f"{WANT}, got {_kind(result)}")
    if len(result) != 2:
        raise DTypeError(f"{WANT}, got {len(result)} things: ({', '.join(map(_kind, result))})")
    loss, state = result
    if not isinstance(loss, Tensor):
        raise DTypeError(f"{WANT}, got {_kind(loss)} as the loss; do not call item() or numpy() on it")
    if loss.size != 1:
        raise ShapeError(f"{WANT}, got a loss of shape {loss.shape}; take its mean() or sum()")
    if training and not loss.requires_grad:
        raise TapeError(
            f"{WANT}, got a loss without a gradient: it was detached, made under no_grad, or depends on no "
            "parameter that requires one"
        )
    return loss, state


def _kind(value: Any) -> str:
    return "None" if value is None else type(value).__name__

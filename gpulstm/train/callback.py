"""Callbacks: code of the user's that a run calls, and that may end the run."""

from typing import TYPE_CHECKING, Any

import numpy as np

from gpulstm.errors import DTypeError

if TYPE_CHECKING:
    from gpulstm.train.trainer import Trainer

Record = dict[str, Any]
# The result of a method: True or a reason ends the run; None or False continues it.
Answer = bool | str | None


class Callback:
    """The base class of callbacks: override the methods you need. A method that returns True or a reason ends the run.

    A reason is a string. A plain function ``callback(trainer, record)`` is used as ``on_record``. A callback with
    ``state_dict`` and ``load_state_dict`` is saved in the checkpoint and restored on resuming. ``Trainer.fit`` raises
    DTypeError for a method that returns anything but None, a bool or a string.

    >>> class Enough(gl.train.Callback):
    ...     def on_validation(self, trainer, record):
    ...         return record["val_loss"] < 0.1 and "the validation loss is low enough"
    """

    def on_record(self, trainer: "Trainer", record: Record) -> Answer:
        """Called after each record; ``Trainer.fit`` describes its entries."""

    def on_validation(self, trainer: "Trainer", record: Record) -> Answer:
        """Called after each validation, whose results are in the record."""

    def on_epoch_end(self, trainer: "Trainer", epoch: int, record: Record | None) -> Answer:
        """Called after each whole pass over the batches, with the last record (None if there is none yet)."""


class _Function(Callback):
    def __init__(self, function: Any) -> None:
        self.on_record = function  # type: ignore[method-assign]


class Callbacks:
    """All callbacks of a run; the first one that asks to stop gives the reason."""

    def __init__(self, callbacks: Any) -> None:
        """Raises DTypeError for anything but Callbacks and functions."""
        given = list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks]
        for callback in given:
            if isinstance(callback, type) or not (isinstance(callback, Callback) or callable(callback)):
                raise DTypeError(f"callbacks: expected gl.train.Callback objects or functions, got {callback!r:.80}")
        self.given = given
        self._all = [c if isinstance(c, Callback) else _Function(c) for c in given]

    def call(self, method: str, *args: Any) -> str:
        """Call one method of every callback; return the reason to stop, "" if there is none."""
        reason = ""
        for callback, given in zip(self._all, self.given, strict=True):
            answer = getattr(callback, method)(*args)
            if answer is not None and not isinstance(answer, bool | np.bool_ | str):
                raise DTypeError(
                    f"callback {_name(given)}: expected None, True or a reason to stop, got {answer!r:.80}"
                )
            if answer and not reason:
                reason = answer if isinstance(answer, str) else f"the callback {_name(given)} asked for it"
        return reason


def _name(callback: Any) -> str:
    return getattr(callback, "__name__", type(callback).__name__)

"""The training loop, with progress, validation, metrics, callbacks, checkpoints and a log."""

from gpulstm.train.callback import Callback
from gpulstm.train.metrics import accuracy
from gpulstm.train.trainer import Trainer, count_tokens

__all__ = ["Callback", "Trainer", "accuracy", "count_tokens"]

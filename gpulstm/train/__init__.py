"""Training: the loop with its progress, validation, checkpoints and log."""

from gpulstm.train.trainer import Trainer, count_tokens

__all__ = ["Trainer", "count_tokens"]

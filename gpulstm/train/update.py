"""The end of a step: unscales and clips the gradients, and updates the parameters."""

from typing import TYPE_CHECKING, Any

from gpulstm.clip import clip_grad_norm, clip_grad_value
from gpulstm.grad_scaler import GradScaler

if TYPE_CHECKING:
    from gpulstm.train.trainer import Trainer


def update(trainer: "Trainer") -> None:
    """Clip the gradients and update the parameters; with a scaler, skip the update if a gradient overflowed.

    Raises NotFinite if gradients overflow at every scale.
    """
    scaler = trainer.scaler
    if scaler is not None:  # clipping includes parameters that only the model has
        scaler.unscale_(trainer.optimizer, trainer.model.parameters())
    if trainer.clip_value is not None:
        clip_grad_value(trainer.model.parameters(), trainer.clip_value)
    if trainer.clip_norm is not None:
        clip_grad_norm(trainer.model.parameters(), trainer.clip_norm)
    if scaler is None:
        trainer.optimizer.step()
    else:
        scaler.step(trainer.optimizer)
        scaler.update()


def scaled(scaler: GradScaler | None) -> dict[str, Any]:
    """The entries of a record about the scaler."""
    if scaler is None:
        return {}
    return {"skipped_steps": scaler.skipped_steps, "loss_scale": scaler.get_scale()}

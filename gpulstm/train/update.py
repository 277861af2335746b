"""The end of a step: from the gradients of the loss, which may be scaled, to new parameters."""

from typing import TYPE_CHECKING, Any

from gpulstm.clip import clip_grad_norm, clip_grad_value
from gpulstm.grad_scaler import GradScaler

if TYPE_CHECKING:
    from gpulstm.train.trainer import Trainer


def update(trainer: "Trainer") -> None:
    """Clip the gradients and move the parameters; with a scaler only where no gradient has overflowed.

    Raises NotFinite where gradients overflow at every scale.
    """
    scaler = trainer.scaler
    if scaler is not None:  # clipping also sees parameters that the optimiser does not have
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
    """What a record holds of the scaler."""
    if scaler is None:
        return {}
    return {"skipped_steps": scaler.skipped_steps, "loss_scale": scaler.get_scale()}

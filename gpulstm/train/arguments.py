"""Checks of the arguments of gl.Trainer and fit, before any work is done."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpulstm.errors import DTypeError, ShapeError
from gpulstm.nn import Module
from gpulstm.precision import checked
from gpulstm.train.source import check_batches

if TYPE_CHECKING:
    from gpulstm.train.trainer import Trainer


def check_parts(model: Any, optimizer: Any, loss: Any, schedule: Any, tokens: Any, precision: Any) -> None:
    """Raise DTypeError or ShapeError for arguments of Trainer that are wrong or do not belong together."""
    if not isinstance(model, Module):
        raise DTypeError(f"model: expected a gl.Module, got {model!r:.80}")
    if isinstance(optimizer, type) or not (hasattr(optimizer, "step") and hasattr(optimizer, "lr")):
        raise DTypeError(f"optimizer: expected e.g. gl.Adam(model.parameters()), got {optimizer!r:.80}")
    for name, function in (("loss", loss), ("tokens", tokens)):
        if not callable(function):
            raise DTypeError(f"{name}: expected a function, got {function!r:.80}")
    groups = getattr(optimizer, "param_groups", None)
    if checked(precision) == "fp16" and groups is None:
        raise DTypeError(
            "optimizer: expected one with param_groups, as precision 'fp16' scales their gradients, got one without"
        )
    if groups is not None:
        mine = {id(parameter) for parameter in model.parameters()}
        if not any(id(parameter) in mine for group in groups for parameter in group["params"]):
            raise ShapeError(
                "optimizer: expected parameters of the model, got none of them; was it made for another model?"
            )
    if schedule is not None and (isinstance(schedule, type) or not hasattr(schedule, "step")):
        raise DTypeError(f"schedule: expected e.g. gl.StepLR(optimizer, 1000) or None, got {schedule!r:.80}")
    if getattr(schedule, "optimizer", optimizer) is not optimizer:
        raise ShapeError("schedule: expected one made for this optimizer, got one of another optimizer")


def check_run(
    trainer: "Trainer",
    batches: Any,
    epochs: Any,
    validation: Any,
    patience: Any,
    monitor: str,
    mode: Any,
    resume: Any,
    file: Any,
    log: Any,
) -> None:
    """Raise DTypeError or ShapeError for arguments of fit that would fail or be ignored later."""
    check_batches("batches", batches, "" if epochs is None else "epochs counts passes over them")
    if validation is not None:
        check_batches("validation", validation, "it is evaluated several times")
    known = [f"val_{name}" for name in ("loss", *trainer.metrics)]
    if monitor not in known:
        raise ShapeError(f"monitor: expected one of {', '.join(known)}, got {monitor!r}")
    if mode is None and monitor != "val_loss":
        raise ShapeError(f"mode: expected 'min' or 'max', whichever is better for {monitor}, got None")
    waits = getattr(trainer.schedule, "needs_metric", False)
    if waits and validation is None:
        need = f"{type(trainer.schedule).__name__} needs the validation loss"
        raise ShapeError(f"validation: expected batches, as {need}, got None")
    by_validation = {"patience": patience is not None, "monitor": monitor != "val_loss", "mode": mode is not None}
    for name, given in by_validation.items():
        if given and validation is None:
            raise ShapeError(f"{name}: expected validation batches to compare, got validation=None")
    if resume and file is None:
        raise ShapeError("resume: expected checkpoint=, the file to continue from, got None")
    if file is not None and log is not None and Path(file).resolve() == Path(log).resolve():
        raise ShapeError(f"log: expected another file than the checkpoint, got {log} for both")

"""Metrics: numbers computed from the model's prediction and the batch, such as accuracy."""

from collections.abc import Callable, Mapping
from typing import Any

from gpulstm.backend import Array, backend_of
from gpulstm.errors import DTypeError, ShapeError
from gpulstm.tape import Tensor
from gpulstm.train.batch import IGNORED, target_of, within

Metric = Callable[[Any, Any], Any]


def accuracy(prediction: Any, batch: Any) -> Array:
    """Compute the share of correct predictions, an array of one number, as a metric of ``gl.Trainer``.

    prediction: logits (..., C) for the integer classes (...) of the batch's target (see ``count_tokens``), or one logit
    for each target of 0 or 1. Targets of -100 do not count, nor do the steps of a padded target beyond its lengths.
    Raises ShapeError for other sizes.

    >>> logits, classes = np.array([[0.0, 1.0], [0.0, 1.0]]), np.array([1, 0])
    >>> float(gl.train.accuracy(logits, (None, classes)))
    0.5
    """
    found = target_of(batch)
    target, lengths = found if isinstance(found, tuple) else (found, None)
    logits = prediction.data if isinstance(prediction, Tensor) else prediction
    with backend_of(logits) as backend:
        target = backend.asarray(target)
        counted = target.reshape(-1) != IGNORED if target.dtype.kind == "i" else None
        if lengths is not None and (counted is None or counted.all()):
            counted = within(target, backend.asarray(lengths)).reshape(-1)
        if logits.size == target.size:
            hits = (logits.reshape(-1) > 0) == (target.reshape(-1) > 0.5)
        elif logits.ndim > 1 and logits.size == target.size * logits.shape[-1]:
            hits = logits.reshape(-1, logits.shape[-1]).argmax(-1) == target.reshape(-1)
        else:
            raise ShapeError(
                f"accuracy: expected logits (..., C) for the target {target.shape}, or one for each target, "
                f"got {logits.shape}"
            )
        return hits.mean() if counted is None else (hits & counted).sum() / counted.sum()


def check_metrics(metrics: Mapping[str, Metric] | None) -> dict[str, Metric]:
    """The metrics by name. Raises DTypeError for anything but a dict of functions, ShapeError for a name in use."""
    metrics = {} if metrics is None else metrics
    if not isinstance(metrics, Mapping) or not all(callable(metric) for metric in metrics.values()):
        want = "a dict of functions, e.g. {'accuracy': gl.train.accuracy}"
        raise DTypeError(f"metrics: expected {want}, got {metrics!r:.80}")
    taken = {"step", "epoch", "loss", "lr", "tokens_per_second", "seconds", "skipped_steps", "loss_scale"}
    for name in metrics:
        if not isinstance(name, str) or name in taken or name.startswith("val_"):
            raise ShapeError(f"metrics: expected names that records do not use yet, got {name!r}")
    return dict(metrics)


def check_value(name: str, value: Any) -> Any:
    """A metric's value, a number or an array of one. Raises DTypeError, naming the metric, for anything else."""
    value = value.data if isinstance(value, Tensor) else value
    if isinstance(value, str) or getattr(value, "size", 1) != 1 or not hasattr(value, "__float__"):
        got = f"shape {value.shape}" if hasattr(value, "shape") else repr(value)[:80]
        raise DTypeError(f"metric {name!r}: expected one number for a batch, got {got}")
    return value

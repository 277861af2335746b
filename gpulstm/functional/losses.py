"""Losses for real-valued targets: mean squared error, Huber, binary cross-entropy. For classes see cross_entropy.py.

All return PyTorch's numbers (``torch.nn.functional``). ``reduction`` is "mean" over all elements, "sum" or "none". Half
types are computed in float32 and rounded once.
"""

import math
from collections.abc import Callable

from gpulstm import checks
from gpulstm.backend import Array, backend_of
from gpulstm.dtypes import accumulator
from gpulstm.errors import ShapeError
from gpulstm.functional.checks import check_arrays, check_floats, check_reduction, check_shape
from gpulstm.functional.needs import needs

SMALLEST = math.nextafter(0, 1)


def _reduced(loss: Array, reduction: str, dtype) -> tuple[Array, Callable]:
    """Reduce the loss and round it to ``dtype`` -> (loss, each); each(dloss) is the gradient of each element's loss."""
    xp = backend_of(loss).xp
    if reduction == "none":
        return loss.astype(dtype, copy=False), lambda dloss: dloss.astype(loss.dtype, copy=False)
    # The mean of no elements is nan, as in PyTorch; NumPy's own mean would warn about an empty slice.
    count = loss.size if reduction == "mean" else 1
    total = loss.sum() / count if count else float("nan")
    # The gradient is one number, which broadcasts; an array of equal numbers is not needed.
    return xp.asarray(total, dtype=dtype), lambda dloss: dloss.astype(loss.dtype, copy=False) / max(count, 1)


def _checked(input: Array, target: Array, reduction: str) -> tuple[Array, Array]:
    """Check both arrays and convert them to the dtype of the computation."""
    check_reduction(reduction)
    wide = accumulator(check_floats(input=input, target=target))
    check_shape("target", target, input.shape, "the shape of input")
    return input.astype(wide, copy=False), target.astype(wide, copy=False)


@needs({})
def mse(input: Array, target: Array, *, reduction: str = "mean") -> tuple[Array, Callable]:
    """Compute the mean squared error, as PyTorch's ``mse_loss``: ``loss, pullback = mse(input, target)``.

    input, target (...) of one shape -> loss () or, with reduction="none", (...). ``pullback(dloss)`` returns (dinput,
    dtarget). Raises ShapeError for shapes that differ: nothing is broadcast.

    >>> loss, pullback = gl.functional.mse(np.array([1.0, 2.0]), np.zeros(2))
    >>> float(loss), pullback(np.array(1.0))[0]
    (2.5, array([1., 2.]))
    """
    check_arrays(input=input, target=target)
    x, t = _checked(input, target, reduction)
    difference = x - t
    loss, each = _reduced(difference * difference, reduction, input.dtype)

    def pullback(dloss: Array) -> tuple[Array, Array]:
        dinput = (2 * each(dloss) * difference).astype(input.dtype, copy=False)
        return dinput, -dinput

    return loss, pullback


@needs({})
def huber(input: Array, target: Array, *, delta: float = 1.0, reduction: str = "mean") -> tuple[Array, Callable]:
    """Compute Huber's loss (Huber 1964), as PyTorch's ``huber_loss``: ``loss, pullback = huber(input, target)``.

    With d = input - target: d^2 / 2 where |d| <= delta, else delta * (|d| - delta / 2). input, target (...) of one
    shape -> loss () or, with reduction="none", (...). ``pullback(dloss)`` returns (dinput, dtarget). Raises ShapeError
    for shapes that differ and for delta <= 0.

    >>> loss, pullback = gl.functional.huber(np.array([0.5, 2.0]), np.zeros(2), reduction="none")
    >>> loss
    array([0.125, 1.5  ])
    """
    xp = check_arrays(input=input, target=target).xp
    # A Python number: a NumPy scalar would widen the arrays that it is combined with.
    delta = checks.number("delta", delta, least=SMALLEST, words="a number above 0", finite=False)
    x, t = _checked(input, target, reduction)
    difference = x - t
    slope = xp.clip(difference, -delta, delta)  # the loss's derivative, in both of its branches
    loss, each = _reduced(slope * (difference - slope / 2), reduction, input.dtype)

    def pullback(dloss: Array) -> tuple[Array, Array]:
        dinput = (each(dloss) * slope).astype(input.dtype, copy=False)
        return dinput, -dinput

    return loss, pullback


def binary_cross_entropy_with_logits(
    input: Array,
    target: Array,
    weight: Array | None = None,
    pos_weight: Array | None = None,
    *,
    reduction: str = "mean",
) -> tuple[Array, Callable]:
    """Compute sigmoid cross-entropy from logits: ``loss, pullback = binary_cross_entropy_with_logits(input, target)``.

    loss = weight * (-pos_weight * target * log sigmoid(input) - (1 - target) * log(1 - sigmoid(input))), in a form that
    does not overflow. input, target (...) of one shape -> loss () or, with reduction="none", (...); weight and
    pos_weight broadcast to that shape, and None is 1. As in PyTorch the mean divides by the number of elements, not by
    the weights. ``pullback(dloss)`` returns (dinput, dtarget, None, None): the weights are constants.

    Raises ShapeError for shapes that do not fit, DTypeError for types that differ.

    >>> loss, pullback = gl.functional.binary_cross_entropy_with_logits(np.zeros(2), np.array([0.0, 1.0]))
    >>> loss, pullback(np.array(1.0))[0]
    (array(0.69314718), array([ 0.25, -0.25]))
    """
    optional = ("weight", "pos_weight")
    xp = check_arrays(optional, input=input, target=target, weight=weight, pos_weight=pos_weight).xp
    check_floats(input=input, weight=weight, pos_weight=pos_weight)
    x, t = _checked(input, target, reduction)
    weight, pos_weight = _fitting("weight", weight, x), _fitting("pos_weight", pos_weight, x)
    positive = t if pos_weight is None else pos_weight * t
    small = xp.exp(-xp.abs(x))  # in (0, 1]
    log_sigmoid = xp.minimum(x, 0) - xp.log1p(small)
    loss = (1 - t) * x - (1 - t + positive) * log_sigmoid  # since log(1 - sigmoid(x)) = log sigmoid(x) - x
    if weight is not None:
        loss = weight * loss
    loss, each = _reduced(loss, reduction, input.dtype)

    def pullback(dloss: Array) -> tuple[Array, Array, None, None]:
        d = each(dloss) if weight is None else each(dloss) * weight
        sigmoid_minus = xp.where(x >= 0, small, 1) / (1 + small)  # sigmoid(-x) = 1 - sigmoid(x)
        dinput = d * (1 - t - (1 - t + positive) * sigmoid_minus)
        dtarget = d * (-x if pos_weight is None else (1 - pos_weight) * log_sigmoid - x)
        return dinput.astype(input.dtype, copy=False), dtarget.astype(input.dtype, copy=False), None, None

    return loss, pullback


def _fitting(name: str, weight: Array | None, x: Array) -> Array | None:
    """The weight in the dtype of x. Raises ShapeError unless it broadcasts to the shape of x."""
    if weight is None:
        return None
    # Axes are matched from the last one. Each must have size 1 or that of x, and x must have as many axes.
    fits = weight.ndim <= x.ndim and all(n in (1, m) for n, m in zip(weight.shape[::-1], x.shape[::-1], strict=False))
    if not fits:
        raise ShapeError(f"{name}: expected a shape that broadcasts to {x.shape}, input's shape, got {weight.shape}")
    return weight.astype(x.dtype, copy=False)

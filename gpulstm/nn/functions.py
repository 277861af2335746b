"""Functions on Tensors: activations, losses, and joining."""

from collections.abc import Iterable
from typing import Any

from gpulstm import functional
from gpulstm.errors import DTypeError
from gpulstm.functional import elementwise, rearrange
from gpulstm.nn.arguments import on_host
from gpulstm.tape import Tensor, apply, records


def tanh(x: Any) -> Tensor:
    """Compute the hyperbolic tangent of each element of x (...). Raises DTypeError unless x is floating.

    >>> gl.tanh(np.array([0.0, 1.0]))
    Tensor([0.        , 0.76159416], dtype=float64, device=cpu)
    """
    return apply(elementwise.tanh, x)


def sigmoid(x: Any) -> Tensor:
    """Compute 1 / (1 + e ** -x) for each element of x (...). Raises DTypeError unless x is floating.

    >>> gl.sigmoid(np.array([0.0, 1.0]))
    Tensor([0.5       , 0.73105858], dtype=float64, device=cpu)
    """
    return apply(elementwise.sigmoid, x)


def relu(x: Any) -> Tensor:
    """Compute max(x, 0) for each element of x (...). Raises DTypeError unless x is floating.

    >>> gl.relu(np.array([-1.0, 2.0]))
    Tensor([0., 2.], dtype=float64, device=cpu)
    """
    return apply(elementwise.relu, x)


def exp(x: Any) -> Tensor:
    """Compute e ** x for each element of x (...). Raises DTypeError unless x is floating.

    >>> gl.exp(np.array([0.0, 1.0]))
    Tensor([1.        , 2.71828183], dtype=float64, device=cpu)
    """
    return apply(elementwise.exp, x)


def log(x: Any) -> Tensor:
    """Compute the natural logarithm of each element of x (...). Raises DTypeError unless x is floating.

    >>> gl.log(np.array([1.0, 2.0]))
    Tensor([0.        , 0.69314718], dtype=float64, device=cpu)
    """
    return apply(elementwise.log, x)


def softmax(x: Any, axis: int = -1) -> Tensor:
    """Compute e ** x divided by its sum along ``axis``: x (...) -> (...).

    The results are positive and sum to 1 along the axis. Raises ShapeError for an axis that x does not have, DTypeError
    for anything but a floating array or Tensor.

    >>> gl.softmax(np.array([0.0, 0.0]))
    Tensor([0.5, 0.5], dtype=float64, device=cpu)
    """
    return apply(functional.softmax, x, axis=axis)


def log_softmax(x: Any, axis: int = -1) -> Tensor:
    """Compute the logarithm of ``softmax`` along ``axis`` without underflow; shapes and errors as for ``softmax``.

    >>> gl.log_softmax(np.array([0.0, 1000.0]))
    Tensor([-1000.,     0.], dtype=float64, device=cpu)
    """
    return apply(functional.log_softmax, x, axis=axis)


def where(condition: Any, a: Any, b: Any) -> Tensor:
    """Choose a where the condition is True, else b.

    The condition (bool), a and b are Tensors, arrays (...) or numbers that broadcast. Raises DTypeError unless the
    condition is bool, ShapeError for shapes that do not broadcast.

    >>> gl.where(np.array([True, False]), 1.0, 2.0)
    Tensor([1., 2.], dtype=float64, device=cpu)
    """
    return apply(elementwise.where, condition, a, b)


def maximum(a: Any, b: Any) -> Tensor:
    """Return the larger of a and b elementwise; a (...) and b (...) broadcast.

    The result is NaN if either is NaN. Where both are equal, each gets half of the gradient. Raises ShapeError for
    shapes that do not broadcast, DTypeError for anything but numbers, arrays and Tensors.

    >>> gl.maximum(np.array([1.0, 2.0]), 1.5)
    Tensor([1.5, 2. ], dtype=float64, device=cpu)
    """
    return apply(elementwise.maximum, a, b)


def minimum(a: Any, b: Any) -> Tensor:
    """Return the smaller of a and b elementwise; NaN, equal values, shapes and errors are as for ``maximum``.

    >>> gl.minimum(np.array([1.0, 2.0]), 1.5)
    Tensor([1. , 1.5], dtype=float64, device=cpu)
    """
    return apply(elementwise.minimum, a, b)


def concatenate(tensors: Any, axis: int = 0) -> Tensor:
    """Join Tensors or arrays along an existing axis, as ``torch.cat``: two of shape (B, D) give (2*B, D).

    Raises ShapeError for an empty list or if the shapes differ in another axis, DTypeError for anything but a list.

    >>> gl.concatenate([np.zeros(2), np.ones(1)])
    Tensor([0., 0., 1.], dtype=float64, device=cpu)
    """
    return apply(rearrange.concatenate, *_several(tensors), axis=axis)


def stack(tensors: Any, axis: int = 0) -> Tensor:
    """Join Tensors or arrays along a new axis, as ``torch.stack``: T of shape (B, D) give (T, B, D).

    Raises ShapeError for an empty list or if the shapes differ, DTypeError for anything but a list.

    >>> gl.stack([np.zeros(2), np.ones(2)]).shape
    (2, 2)
    """
    return apply(rearrange.stack, *_several(tensors), axis=axis)


def _several(tensors: Any) -> list[Any]:
    if isinstance(tensors, str | dict) or not isinstance(tensors, Iterable):
        raise DTypeError(f"tensors: expected a list of Tensors or arrays, got {type(tensors).__name__}")
    return list(tensors)


def mse(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """Compute the mean squared error, as ``torch.nn.functional.mse_loss``.

    input and target (...) have the same shape; the loss is () or, with reduction="none", (...). Raises ShapeError if
    the shapes differ, DTypeError if the types differ.

    >>> gl.mse(np.array([1.0, 2.0]), np.array([0.0, 0.0]))
    Tensor(2.5, dtype=float64, device=cpu)
    """
    return apply(functional.mse, input, target, reduction=reduction)


def huber(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """Compute Huber's loss, quadratic up to ``delta`` and linear beyond, as ``torch.nn.functional.huber_loss``.

    Shapes and errors as for ``mse``; ``delta`` must be above 0.

    >>> gl.huber(np.array([0.5, 2.0]), np.zeros(2), reduction="none")
    Tensor([0.125, 1.5  ], dtype=float64, device=cpu)
    """
    return apply(functional.huber, input, target, reduction=reduction, delta=delta)


def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Compute softmax cross-entropy from logits, as ``torch.nn.functional.cross_entropy``.

    input is (N, C), (C,) or (N, C, d1, ...) with C classes. target has the same shape without the axis C, and holds
    integers: a class or ``ignore_index``. weight (C,) weighs the classes. The loss is () or, with reduction="none", has
    target's shape. Raises ShapeError for shapes and targets that do not fit, DTypeError unless targets are integers.

    >>> gl.cross_entropy(np.zeros((2, 3)), np.array([0, 2]))
    Tensor(1.09861229, dtype=float64, device=cpu)
    """
    options = {"ignore_index": ignore_index, "reduction": reduction, "label_smoothing": label_smoothing}
    return apply(functional.cross_entropy, input, target, weight, **options)


def linear_cross_entropy(
    input: Any,
    linear_weight: Any,
    target: Any,
    *,
    linear_bias: Any = None,
    weight: Any = None,
    reduction: str = "mean",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Compute ``gl.cross_entropy`` of a linear layer's output without storing all logits, for large vocabularies.

    As ``torch.nn.functional.linear_cross_entropy``. input is (..., D); linear_weight (V, D) and linear_bias (V,) are as
    in ``gl.Linear``; target (...) holds integers, 0 <= target < V or ``ignore_index``; weight (V,) weighs the classes.
    The loss is () or, with reduction="none", has target's shape. Values and gradients equal those of the two functions
    up to rounding, in a fraction of the memory. The forward call already computes the gradients, so use ``gl.no_grad``
    for evaluation.

    Raises ShapeError, DTypeError or DeviceError, naming the argument that does not fit.

    >>> head, output = gl.Linear(4, 1000), np.zeros((5, 2, 4), np.float32)
    >>> gl.linear_cross_entropy(output, head.weight, np.zeros((5, 2), int), linear_bias=head.bias).shape
    ()
    """
    wanted = {"input": input, "weight": linear_weight, "bias": linear_bias}
    options: dict[str, Any] = {f"{name}_gradient": records((x,)) for name, x in wanted.items()}
    options |= {"ignore_index": ignore_index, "reduction": reduction, "label_smoothing": label_smoothing}
    return apply(functional.linear_cross_entropy, input, linear_weight, target, linear_bias, weight, **options)


def ctc_loss(
    log_probs: Any,
    targets: Any,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """Compute the connectionist temporal classification loss (Graves et al. 2006), as ``torch.nn.functional.ctc_loss``.

    log_probs is (T, B, C) or (T, C), from ``gl.log_softmax``. targets holds integers, (B, S) or all targets joined in
    one axis. input_lengths and target_lengths are (B,): arrays, Tensors, lists or numbers. The loss is () or, with
    reduction="none", (B,). It is infinite if a target is too long for its input; ``zero_infinity`` replaces that by 0.
    Raises ShapeError for shapes, lengths and targets that do not fit, DTypeError unless lengths and targets are
    integers.

    >>> gl.ctc_loss(gl.log_softmax(np.zeros((4, 1, 3))), np.array([[1, 2]]), [4], [2])
    Tensor(0.84319948, dtype=float64, device=cpu)
    """
    given = {"targets": targets, "input_lengths": input_lengths, "target_lengths": target_lengths}
    options = {"blank": blank, "reduction": reduction, "zero_infinity": zero_infinity}
    return apply(functional.ctc_loss, log_probs, **{name: on_host(x, name) for name, x in given.items()}, **options)


def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, reduction: str = "mean", pos_weight: Any = None
) -> Tensor:
    """Compute sigmoid cross-entropy from logits, as ``torch.nn.functional.binary_cross_entropy_with_logits``.

    input and target (...) have the same shape; weight and pos_weight broadcast to it. The loss is () or, with
    reduction="none", (...). Raises ShapeError for shapes that do not fit, DTypeError if the types differ.

    >>> gl.binary_cross_entropy_with_logits(np.zeros(2), np.array([0.0, 1.0]))
    Tensor(0.69314718, dtype=float64, device=cpu)
    """
    return apply(functional.binary_cross_entropy_with_logits, input, target, weight, pos_weight, reduction=reduction)

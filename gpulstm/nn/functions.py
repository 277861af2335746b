"""Activations, losses and joining as functions on Tensors."""

from collections.abc import Iterable
from typing import Any

from gpulstm import functional
from gpulstm.errors import DTypeError
from gpulstm.functional import elementwise, rearrange
from gpulstm.nn.arguments import on_host
from gpulstm.tape import Tensor, apply, records


def tanh(x: Any) -> Tensor:
    """The hyperbolic tangent, elementwise."""
    return apply(elementwise.tanh, x)


def sigmoid(x: Any) -> Tensor:
    """1 / (1 + e ** -x), elementwise."""
    return apply(elementwise.sigmoid, x)


def relu(x: Any) -> Tensor:
    """max(x, 0), elementwise."""
    return apply(elementwise.relu, x)


def exp(x: Any) -> Tensor:
    """e ** x, elementwise."""
    return apply(elementwise.exp, x)


def log(x: Any) -> Tensor:
    """The natural logarithm, elementwise."""
    return apply(elementwise.log, x)


def softmax(x: Any, axis: int = -1) -> Tensor:
    """e ** x divided by its sum along ``axis``: positive numbers that sum to 1."""
    return apply(functional.softmax, x, axis=axis)


def log_softmax(x: Any, axis: int = -1) -> Tensor:
    """The logarithm of ``softmax``, exact also where that is 0."""
    return apply(functional.log_softmax, x, axis=axis)


def where(condition: Any, a: Any, b: Any) -> Tensor:
    """a where the condition is True, else b; Tensors, arrays or numbers that broadcast, the condition of bool."""
    return apply(elementwise.where, condition, a, b)


def maximum(a: Any, b: Any) -> Tensor:
    """The larger of each two elements, nan if one is; where they are equal each has half of the gradient."""
    return apply(elementwise.maximum, a, b)


def minimum(a: Any, b: Any) -> Tensor:
    """The smaller of each two elements, nan if one is; where they are equal each has half of the gradient."""
    return apply(elementwise.minimum, a, b)


def concatenate(tensors: Any, axis: int = 0) -> Tensor:
    """The tensors one after the other along ``axis``."""
    return apply(rearrange.concatenate, *_several(tensors), axis=axis)


def stack(tensors: Any, axis: int = 0) -> Tensor:
    """The tensors along a new axis."""
    return apply(rearrange.stack, *_several(tensors), axis=axis)


def _several(tensors: Any) -> list[Any]:
    if isinstance(tensors, str | dict) or not isinstance(tensors, Iterable):
        raise DTypeError(f"tensors: want a list of Tensors or arrays, got {type(tensors).__name__}")
    return list(tensors)


def mse(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """The squared difference, as ``torch.nn.functional.mse_loss``."""
    return apply(functional.mse, input, target, reduction=reduction)


def huber(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """Huber's loss, as ``torch.nn.functional.huber_loss``: quadratic up to ``delta``, linear beyond."""
    return apply(functional.huber, input, target, reduction=reduction, delta=delta)


def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Softmax cross-entropy from logits, as ``torch.nn.functional.cross_entropy``.

    input (N, C), (C,) or (N, C, d1, ...), target integers of the same shape without the axis C.
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
    """``gl.cross_entropy`` of a linear layer's outputs, for large vocabularies: the logits are never held together.

    As ``torch.nn.functional.linear_cross_entropy``: input (..., D), linear_weight (V, D) and linear_bias (V,) as in
    ``gl.Linear``, target integers (...), each 0 <= target < V or ``ignore_index``; weight (V,) of the classes. The loss
    is () or, with reduction="none", of target's shape. Values and gradients are those of the two functions to
    rounding, in a fraction of the memory. The gradients are made in this call: evaluate under ``gl.no_grad``.

    Raises ShapeError, DTypeError or DeviceError, naming the argument, for what does not fit.

    >>> loss = gl.linear_cross_entropy(output, head.weight, target, linear_bias=head.bias)  # head = gl.Linear(D, V)
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
    """Connectionist temporal classification, as ``torch.nn.functional.ctc_loss``: targets without their times.

    log_probs (T, B, C) or (T, C) from ``gl.log_softmax``; targets integers (B, S), or all sequences' in one row;
    input_lengths and target_lengths (B,): arrays, Tensors, lists or numbers. See functional/ctc.py.
    """
    given = {"targets": targets, "input_lengths": input_lengths, "target_lengths": target_lengths}
    options = {"blank": blank, "reduction": reduction, "zero_infinity": zero_infinity}
    return apply(functional.ctc_loss, log_probs, **{name: on_host(x, name) for name, x in given.items()}, **options)


def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, reduction: str = "mean", pos_weight: Any = None
) -> Tensor:
    """Sigmoid cross-entropy from logits, as ``torch.nn.functional.binary_cross_entropy_with_logits``."""
    return apply(functional.binary_cross_entropy_with_logits, input, target, weight, pos_weight, reduction=reduction)

"""Exports activations, norms and changes of shape as ONNX nodes."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from gpulstm import nn
from gpulstm.errors import FormatError, ShapeError
from gpulstm.io.onnx.graph import Value

if TYPE_CHECKING:
    from gpulstm.io.onnx.layers import Exporter


def _same(kind: str, **options: str) -> Callable[..., Value]:
    """A rule that makes a node; ``options`` maps the node's attributes to the layer's."""

    def rule(graph: "Exporter", layer: nn.Module, name: str, x: Value) -> Value:
        return graph.elementwise(kind, x, **{key: getattr(layer, own) for key, own in options.items()})

    return rule


def _function(kind: str) -> Callable[..., Value]:
    return lambda graph, x: graph.elementwise(kind, x)


def _silu(graph: "Exporter", layer: nn.SiLU, name: str, x: Value) -> Value:
    return graph.elementwise("Mul", x, graph.elementwise("Sigmoid", x))


def _gelu(graph: "Exporter", layer: nn.GELU, name: str, x: Value) -> Value:
    def number(value: float, word: str) -> Value:
        return graph.constant(np.array(value, x.dtype), word)

    def scaled(value: Value, by: Value) -> Value:
        return graph.node("Mul", value, by, axes=x.axes)

    if layer.approximate == "none":  # x / 2 (1 + erf(x / sqrt(2)))
        bent = graph.elementwise("Erf", scaled(x, number(math.sqrt(0.5), "root_half")))
    else:  # x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
        cube = graph.elementwise("Mul", graph.elementwise("Mul", x, x), x)
        inner = graph.elementwise("Add", x, scaled(cube, number(0.044715, "gelu_cube")))
        bent = graph.elementwise("Tanh", scaled(inner, number(math.sqrt(2 / math.pi), "gelu_scale")))
    total = graph.node("Add", bent, number(1.0, "one_float"), axes=x.axes)
    return graph.elementwise("Mul", scaled(x, number(0.5, "half")), total)


def _flatten(graph: "Exporter", layer: nn.Flatten, name: str, x: Value) -> Value:
    rank = len(x.axes)
    first, last = (axis + rank if axis < 0 else axis for axis in (layer.start_axis, layer.end_axis))
    if not 0 <= first <= last < rank:
        raise ShapeError(f"{name or 'x'}: expected axes {layer.start_axis} to {layer.end_axis}, got {x.axes}")
    flat, behind = x.axes[first : last + 1], x.axes[last + 1 :]
    if not all(isinstance(size, int) for size in behind):
        raise FormatError(f"{name or 'x'}: expected known sizes for the axes after the flattened ones, got {behind}")
    shape = graph.constant(np.array([*[0] * first, -1, *behind], np.int64), f"{name}flat")
    size = math.prod(map(int, flat)) if all(isinstance(each, int) for each in flat) else "*".join(map(str, flat))
    return graph.node("Reshape", x, shape, axes=(*x.axes[:first], size, *behind))


def _layer_norm(graph: "Exporter", layer: nn.LayerNorm, name: str, x: Value) -> Value:
    axes = len(layer.normalized_shape)
    if x.axes[-axes:] != layer.normalized_shape:
        raise ShapeError(f"{name or 'x'}: expected last axes of {layer.normalized_shape}, got {x.axes}")
    weight = np.ones(layer.normalized_shape, x.dtype) if layer.weight is None else layer.weight.data
    given = [graph.constant(weight, f"{name}weight")]
    given += [] if layer.bias is None else [graph.constant(layer.bias.data, f"{name}bias")]
    return graph.node("LayerNormalization", x, *given, axes=x.axes, axis=-axes, epsilon=layer.eps)


# Layers, in the order of the search.
SHAPES: list[tuple[type[nn.Module], Callable[..., Any]]] = [
    (nn.Tanh, _same("Tanh")),
    (nn.Sigmoid, _same("Sigmoid")),
    (nn.ReLU, _same("Relu")),
    (nn.LeakyReLU, _same("LeakyRelu", alpha="negative_slope")),
    (nn.ELU, _same("Elu", alpha="alpha")),
    (nn.Softplus, _same("Softplus")),
    (nn.Softsign, _same("Softsign")),
    (nn.SiLU, _silu),
    (nn.GELU, _gelu),
    (nn.LogSoftmax, _same("LogSoftmax", axis="axis")),
    (nn.Softmax, _same("Softmax", axis="axis")),
    (nn.LayerNorm, _layer_norm),
    (nn.Flatten, _flatten),
]
# gpulstm's own functions, which a Sequential may contain.
FUNCTIONS: list[tuple[Callable[..., Any], Callable[..., Value]]] = [
    (nn.tanh, _function("Tanh")),
    (nn.sigmoid, _function("Sigmoid")),
    (nn.relu, _function("Relu")),
    (nn.exp, _function("Exp")),
    (nn.log, _function("Log")),
    (nn.softmax, lambda graph, x, axis=-1: graph.softmax(x, axis)),
    (nn.log_softmax, lambda graph, x, axis=-1: graph.log_softmax(x, axis)),
]

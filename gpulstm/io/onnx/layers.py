"""Exports layers as ONNX nodes that compute as in evaluation mode."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gpulstm import nn
from gpulstm.errors import DTypeError, FormatError, ShapeError
from gpulstm.io.onnx.activations import FUNCTIONS, SHAPES
from gpulstm.io.onnx.attention import attention
from gpulstm.io.onnx.graph import Builder, Value
from gpulstm.io.onnx.recurrent import recurrent


class Exporter(Builder):
    """Builds an ONNX model from layers; ``gl.io.onnx.export`` passes one to a function that describes a model.

    With ``states`` and ``lengths`` the states and lengths of recurrent layers become inputs of the model if the
    function passes none. Raises FormatError for layers that ONNX lacks.

    >>> lstm, linear = gl.LSTM(3, 4), gl.Linear(4, 2)
    >>> def classify(graph, x):
    ...     output, (h, c) = graph.apply(lstm, x)
    ...     return graph.softmax(graph.apply(linear, output))
    >>> model = gl.io.onnx.export(classify, gl.io.onnx.Input("x", ("time", "batch", 3)))
    >>> model.graph.output[0].name
    'output'
    """

    def __init__(self, states: bool = False, lengths: bool = False) -> None:
        super().__init__()
        self.states, self.lengths = states, lengths
        self.last_states: dict[str, Value] = {}  # outputs, by name

    def apply(self, layer: Any, *inputs: Any, name: str = "", **options: Any) -> Any:
        """Apply a layer to Values; arguments and results are those of the layer's call, with Values instead of Tensors.

        ``name`` is a prefix for the names of its arrays. Raises FormatError for a layer without matching ONNX nodes, a
        layer with hooks, and a function other than gpulstm's own activations.
        """
        own = vars(layer) if isinstance(layer, nn.Module) else {}
        plain = type(layer).__call__ is nn.Module.__call__
        if "forward" in own or own.get("_hooks"):
            got = "a forward of its own" if "forward" in own else "hooks"
            raise FormatError(
                f"{name or type(layer).__name__}: expected a layer without changes of its own, got one with {got}"
            )
        for kind, rule in RULES:
            # A subclass may compute something else.
            if isinstance(layer, kind) and type(layer).forward is kind.forward and plain:
                return rule(self, layer, name, *inputs, **options)
        for function, rule in FUNCTIONS:
            if layer is function:
                return rule(self, *inputs, **options)
        known = ", ".join([kind.__name__ for kind, _ in RULES] + [function.__name__ for function, _ in FUNCTIONS])
        what = type(layer).__name__
        if not isinstance(layer, nn.Module):
            what = f"{what} {getattr(layer, '__name__', '')}"
        raise FormatError(
            f"{name or what}: expected one of the layers and functions {known}, got {what:.100}; for a model of your "
            "own pass a function that takes the graph and applies its layers"
        )

    def softmax(self, x: Value, axis: int = -1) -> Value:
        """Add the softmax along an axis."""
        return self.node("Softmax", x, axes=x.axes, axis=axis)

    def log_softmax(self, x: Value, axis: int = -1) -> Value:
        """Add the logarithm of the softmax along an axis."""
        return self.node("LogSoftmax", x, axes=x.axes, axis=axis)

    def elementwise(self, kind: str, *inputs: Value, **attributes: Any) -> Value:
        """Add an elementwise ONNX function of values of one shape: Tanh, Relu, Sigmoid, Add, Mul, ..."""
        return self.node(kind, *inputs, axes=inputs[0].axes, **attributes)

    def transpose(self, x: Value, *order: int) -> Value:
        """Reorder the axes."""
        return self.node("Transpose", x, axes=tuple(x.axes[n] for n in order), perm=list(order))

    def fits(self, x: Value, size: int, dtype: Any, name: str) -> None:
        """Raises ShapeError or DTypeError unless x (..., size) has the element type of a layer's weights."""
        if not isinstance(x, Value):
            raise DTypeError(f"{name or 'x'}: expected a Value of the graph, got {type(x).__name__}")
        if isinstance(x.axes[-1], int) and x.axes[-1] != size:
            raise ShapeError(f"{name or 'x'}: expected (..., {size}), got {x.axes}")
        if x.dtype != np.dtype(dtype).name:
            raise DTypeError(f"{name or 'x'}: expected {np.dtype(dtype).name}, got {x.dtype}")

    def project(self, x: Value, weight: Any, name: str) -> Value:
        """Multiply x (..., n) by a matrix (n, m) that the file stores, to (..., m).

        A float16 matrix gets a leading axis: without it onnxruntime (1.23, on the processor) has a segmentation fault
        if x comes from a Transpose.
        """
        axes = (*x.axes[:-1], weight.shape[1])
        if x.dtype == "float16" and len(axes) > 2:
            weight = weight.reshape(1, *weight.shape)
        return self.node("MatMul", x, self.constant(weight, name), axes=axes)

    def concatenate(self, values: list[Value], axis: int) -> Value:
        """Join the values along an axis."""
        if len(values) == 1:
            return values[0]
        axes = list(values[0].axes)
        sizes = [value.axes[axis] for value in values]
        axes[axis] = sum(int(size) for size in sizes) if all(isinstance(size, int) for size in sizes) else "joined"
        return self.node("Concat", *values, axes=tuple(axes), axis=axis)


def _linear(graph: Exporter, layer: nn.Linear, name: str, x: Value) -> Value:
    graph.fits(x, layer.in_features, layer.weight.dtype, name)
    y = graph.project(x, layer.weight.data.T, f"{name}weight_transposed")
    if layer.bias is None:
        return y
    return graph.node("Add", y, graph.constant(layer.bias.data, f"{name}bias"), axes=y.axes)


def _embedding(graph: Exporter, layer: nn.Embedding, name: str, ids: Value) -> Value:
    table = graph.constant(layer.weight.data, f"{name}weight")
    return graph.node("Gather", table, ids, axes=(*ids.axes, layer.embedding_dim), axis=0)


def _dropout(graph: Exporter, layer: nn.Dropout, name: str, x: Value) -> Value:
    return x  # in evaluation mode dropout changes nothing


def _sequential(graph: Exporter, layer: nn.Sequential, name: str, x: Any) -> Any:
    for key, inner in layer.named_layers():
        x = graph.apply(inner, x, name=f"{name}{key}.")
        x = x[0] if isinstance(x, tuple) else x
    return x


RULES: list[tuple[type[nn.Module], Callable[..., Any]]] = [
    (nn.Sequential, _sequential),
    (nn.Recurrent, recurrent),
    (nn.Linear, _linear),
    (nn.Embedding, _embedding),
    (nn.Dropout, _dropout),
    (nn.Attention, attention),
    *SHAPES,
]

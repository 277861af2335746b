"""Layers as nodes of ONNX: what each kind of layer becomes, in use and not in training."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gpulstm import nn
from gpulstm.errors import FormatError, ShapeError
from gpulstm.io.onnx.attention import attention
from gpulstm.io.onnx.attributes import STATES
from gpulstm.io.onnx.graph import Axes, Builder, Value
from gpulstm.io.onnx.levels import operators_of
from gpulstm.io.onnx.node import INPUTS, onnx_arrays, onnx_attributes
from gpulstm.io.onnx.operator import Operator


class Exporter(Builder):
    """A model in the making out of layers; a function that describes a model is given one.

    >>> def classify(graph, ids):
    ...     output, (h, c) = graph.apply(lstm, graph.apply(embedding, ids))
    ...     return graph.softmax(graph.apply(linear, output))

    ``states`` and ``lengths`` tell whether recurrent layers that are given none take them from the model's inputs.
    """

    def __init__(self, states: bool = False, lengths: bool = False) -> None:
        super().__init__()
        self.states, self.lengths = states, lengths
        self.last_states: dict[str, Value] = {}  # outputs, by name

    def apply(self, layer: nn.Module, *inputs: Any, name: str = "", **options: Any) -> Any:
        """What the layer makes of the inputs; arguments and results are those of the layer's call, Values instead
        of Tensors. ``name`` stands before the names of its arrays. Raises FormatError for a layer that ONNX has
        no nodes for.
        """
        if vars(layer).get("_hooks") or "forward" in vars(layer):
            what = "a forward of its own" if "forward" in vars(layer) else "hooks"
            raise FormatError(f"{name or type(layer).__name__}: want a layer as its class has it, got one with {what}")
        for kind, rule in RULES:
            if isinstance(layer, kind) and type(layer).forward is kind.forward:  # a subclass may compute otherwise
                return rule(self, layer, name, *inputs, **options)
        known = ", ".join(kind.__name__ for kind, _ in RULES)
        what = type(layer).__name__
        raise FormatError(
            f"{name or what}: want one of the layers {known}, got {what}; for a model of your own give a function "
            "that takes the graph and applies its layers"
        )

    def softmax(self, x: Value, axis: int = -1) -> Value:
        """e ** x over its sum along an axis."""
        return self.node("Softmax", x, axes=x.axes, axis=axis)

    def log_softmax(self, x: Value, axis: int = -1) -> Value:
        """The logarithm of the softmax along an axis."""
        return self.node("LogSoftmax", x, axes=x.axes, axis=axis)

    def elementwise(self, kind: str, *inputs: Value) -> Value:
        """A function of ONNX of values of one shape: Tanh, Relu, Sigmoid, Add, Mul, ..."""
        return self.node(kind, *inputs, axes=inputs[0].axes)

    def transpose(self, x: Value, *order: int) -> Value:
        """The axes in another order."""
        return self.node("Transpose", x, axes=tuple(x.axes[n] for n in order), perm=list(order))

    def concatenate(self, values: list[Value], axis: int) -> Value:
        """The values one after the other along an axis."""
        if len(values) == 1:
            return values[0]
        axes = list(values[0].axes)
        sizes = [value.axes[axis] for value in values]
        axes[axis] = sum(int(size) for size in sizes) if all(isinstance(size, int) for size in sizes) else "joined"
        return self.node("Concat", *values, axes=tuple(axes), axis=axis)


def operator_nodes(
    graph: Exporter, operator: Operator, name: str, x: Value, lengths: Value | None = None, states: Any = ()
) -> list[Value]:
    """The node of an operator: [Y, Y_h] or [Y, Y_h, Y_c]; lengths and states that are None are the operator's own."""
    given: dict[str, Value] = {
        key: graph.constant(array, f"{name}{key}") for key, array in onnx_arrays(operator).items()
    }
    named = zip(("sequence_lens", "initial_h", "initial_c"), (lengths, *states), strict=False)
    given |= {"X": x, **{key: value for key, value in named if value is not None}}
    K, H = len(operator.weights), operator.hidden_size
    first, second = x.axes[:2]
    out: Axes = (first, K, second, H) if operator.layout == 0 else (first, second, K, H)
    state: Axes = (K, second, H) if operator.layout == 0 else (first, K, H)
    return graph.nodes_outputs(
        operator.kind, [given.get(key) for key in INPUTS], [out, *[state] * STATES[operator.kind]], x.dtype,
        f"{name}{operator.kind.lower()}", **onnx_attributes(operator),
    )  # fmt: skip


def _recurrent(
    graph: Exporter, layer: nn.Recurrent, name: str, x: Value, hx: Any = None, lengths: Value | None = None
) -> tuple[Value, Any]:
    """A chain of nodes, one for each level: (output, states)."""
    if not layer.return_sequences:
        raise FormatError(f"{name or 'layer'}: want return_sequences=True for ONNX, got False")
    operators = operators_of(layer, name)
    if len(x.axes) != 3:
        raise ShapeError(f"{name or 'x'}: want three axes, steps, batch and features, got {x.axes}")
    batch = x.axes[0 if layer.batch_first else 1]
    count = STATES[operators[0].kind]
    if lengths is None and graph.lengths:
        lengths = graph.input("lengths", (batch,), "int32")
    asked = hx is None and graph.states
    if asked and f"{name}h_n" in graph.last_states:
        raise FormatError(f"{name}h_n: want a name for each recurrent layer whose states go in and out, got one twice")
    if asked:
        rows = len(operators) * len(operators[0].weights)
        hx = [graph.input(f"{name}{s}_0", (rows, batch, layer.hidden_size), x.dtype) for s in "hc"[:count]]
    first = [hx] if isinstance(hx, Value) else list(hx or [])
    levels = [_levels(graph, state, len(operators)) for state in first] or [[None] * len(operators)] * count
    if layer.batch_first:
        x = graph.transpose(x, 1, 0, 2)
    last = []
    for level, operator in enumerate(operators):
        states = [state[level] for state in levels]
        Y, *after = operator_nodes(graph, operator, f"{name}l{level}.", x, lengths, states)
        x = _merged(graph, layer, Y)
        last.append(after)
    if layer.batch_first:
        x = graph.transpose(x, 1, 0, 2)
    stacked = [graph.concatenate(list(state), 0) for state in zip(*last, strict=True)]
    if asked:
        for state, value in zip("hc", stacked, strict=False):
            graph.last_states[f"{name}{state}_n"] = value
    return x, stacked[0] if count == 1 else tuple(stacked)


def _levels(graph: Exporter, state: Value, levels: int) -> list[Value | None]:
    """A state (levels*directions, B, H) level by level."""
    rows = int(state.axes[0]) // levels
    if levels == 1:
        return [state]
    return list(graph.nodes_outputs("Split", [state], [(rows, *state.axes[1:])] * levels, axis=0))


def _merged(graph: Exporter, layer: nn.Recurrent, Y: Value) -> Value:
    """Y (T, directions, B, H) as a layer's output (T, B, width)."""
    T, K, B, H = Y.axes
    if layer.bidirectional and layer.merge == "concat":
        shape = graph.constant(np.array([0, 0, int(K) * int(H)]), "joined_directions")
        return graph.node("Reshape", graph.transpose(Y, 0, 2, 1, 3), shape, axes=(T, B, int(K) * int(H)))
    each = [
        graph.node("Gather", Y, graph.constant(np.array(k), f"direction_{k}"), axes=(T, B, H), axis=1)
        for k in range(int(K))
    ]
    if len(each) == 1:
        return each[0]
    if layer.merge == "mul":
        return graph.elementwise("Mul", *each)
    total = graph.elementwise("Add", *each)
    half = graph.constant(np.array(0.5, Y.dtype), "half")
    return graph.node("Mul", total, half, axes=total.axes) if layer.merge == "mean" else total


def _linear(graph: Exporter, layer: nn.Linear, name: str, x: Value) -> Value:
    axes = (*x.axes[:-1], layer.out_features)
    weight = graph.constant(layer.weight.data.T, f"{name}weight_transposed")
    y = graph.node("MatMul", x, weight, axes=axes)
    return y if layer.bias is None else graph.node("Add", y, graph.constant(layer.bias.data, f"{name}bias"), axes=axes)


def _embedding(graph: Exporter, layer: nn.Embedding, name: str, ids: Value) -> Value:
    table = graph.constant(layer.weight.data, f"{name}weight")
    return graph.node("Gather", table, ids, axes=(*ids.axes, layer.embedding_dim), axis=0)


def _dropout(graph: Exporter, layer: nn.Dropout, name: str, x: Value) -> Value:
    return x  # in use it changes nothing


def _sequential(graph: Exporter, layer: nn.Sequential, name: str, x: Any) -> Any:
    for number, inner in enumerate(layer):
        x = graph.apply(inner, x, name=f"{name}{number}.")
        x = x[0] if isinstance(x, tuple) else x
    return x


RULES: list[tuple[type[nn.Module], Callable[..., Any]]] = [
    (nn.Sequential, _sequential),
    (nn.Recurrent, _recurrent),
    (nn.Linear, _linear),
    (nn.Embedding, _embedding),
    (nn.Dropout, _dropout),
    (nn.Attention, attention),
]

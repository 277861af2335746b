"""Exports the attention layer as ONNX nodes: scores, their masked softmax, and the weighted sum of the values."""

import math
from typing import TYPE_CHECKING

import numpy as np

from gpulstm import nn
from gpulstm.errors import ShapeError
from gpulstm.io.onnx.graph import Value

if TYPE_CHECKING:
    from gpulstm.io.onnx.layers import Exporter


def attention(
    graph: "Exporter", layer: nn.Attention, name: str, query: Value, keys: Value, values: Value | None = None,
    lengths: Value | None = None, mask: Value | None = None,
) -> tuple[Value, Value]:  # fmt: skip
    """(context, weights); see nn.Attention for the shapes. Inside, all arrays are (B, S, ...) or (B, T, ...)."""
    if lengths is not None and mask is not None:
        raise ShapeError("mask: expected lengths or mask, got both")
    single = len(query.axes) == 2
    if single:
        query = unsqueeze(graph, query, 1)
    elif not layer.batch_first:
        query = graph.transpose(query, 1, 0, 2)
    values = keys if values is None else values
    if not layer.batch_first:
        keys, values = graph.transpose(keys, 1, 0, 2), graph.transpose(values, 1, 0, 2)
        mask = None if mask is None else graph.transpose(mask, 1, 0)
    seen = mask if lengths is None else _seen(graph, lengths, keys)
    if seen is not None:  # padding may hold NaN, and 0 * NaN is NaN
        there = unsqueeze(graph, seen, 2)
        keys, values = (_where(graph, there, each, 0.0) for each in (keys, values))
    scores = _scores(graph, layer, name, query, keys)
    if seen is None:
        weights = graph.softmax(scores)
    else:
        there = unsqueeze(graph, seen, 1)
        weights = graph.softmax(_where(graph, there, scores, -math.inf))
        weights = _where(graph, there, weights, 0.0)  # also in a row where everything is masked
    context = graph.node("MatMul", weights, values, axes=(*weights.axes[:2], values.axes[2]))
    outputs = [_outwards(graph, each, single, layer.batch_first) for each in (context, weights)]
    return outputs[0], outputs[1]


def _scores(graph: "Exporter", layer: nn.Attention, name: str, query: Value, keys: Value) -> Value:
    """(B, S, T) of query (B, S, Q) and keys (B, T, K)."""
    (B, S, _), (_, T, _) = query.axes, keys.axes
    if layer.kind in ("additive", "concat"):
        if layer.kind == "additive":
            of_query, of_key = layer.weight_query.data, layer.weight_key.data
        else:
            of_query, of_key = layer.weight.data[:, : layer.query_size], layer.weight.data[:, layer.query_size :]
        A = of_query.shape[0]
        projected = [
            graph.project(x, weight.T, f"{name}{part}_transposed")
            for x, weight, part in ((query, of_query, "weight_query"), (keys, of_key, "weight_key"))
        ]
        q, k = unsqueeze(graph, projected[0], 2), unsqueeze(graph, projected[1], 1)
        score = graph.constant(layer.weight_score.data, f"{name}weight_score")
        activated = graph.elementwise("Tanh", graph.node("Add", q, k, axes=(B, S, T, A)))
        return graph.node("MatMul", activated, score, axes=(B, S, T))
    if layer.kind == "general":
        query = graph.project(query, layer.weight.data, f"{name}weight")
    scores = graph.node("MatMul", query, graph.transpose(keys, 0, 2, 1), axes=(B, S, T))
    if layer.kind == "scaled_dot":
        factor = graph.constant(np.array(1 / math.sqrt(layer.key_size), scores.dtype), f"{name}scale")
        scores = graph.node("Mul", scores, factor, axes=scores.axes)
    return scores


def _seen(graph: "Exporter", lengths: Value, keys: Value) -> Value:
    """(B, T) bool: which keys (B, T, K) are within the lengths."""
    B, T, _ = keys.axes
    zero, one = (graph.constant(np.array(n), word) for n, word in ((0, "zero"), (1, "one")))
    steps = graph.node("Gather", graph.node("Shape", keys, axes=(3,), dtype="int64"), one, axes=(), axis=0)
    places = graph.node("Range", zero, steps, one, axes=(T,))
    number = graph.onnx.TensorProto.INT64
    ends = unsqueeze(graph, graph.node("Cast", lengths, axes=lengths.axes, dtype="int64", to=number), 1)
    return graph.node("Less", places, ends, axes=(B, T), dtype="bool")


def _where(graph: "Exporter", there: Value, x: Value, other: float) -> Value:
    """x where ``there`` is true, else a number."""
    filling = graph.constant(np.array(other, x.dtype), "filling")
    return graph.node("Where", there, x, filling, axes=x.axes, dtype=x.dtype)


def _outwards(graph: "Exporter", x: Value, single: bool, batch_first: bool) -> Value:
    """(B, S, n) in the shape that the layer returns."""
    if single:
        one = graph.constant(np.array([1]), "axis_1")
        return graph.node("Squeeze", x, one, axes=(x.axes[0], x.axes[2]))
    return x if batch_first else graph.transpose(x, 1, 0, 2)


def unsqueeze(graph: "Exporter", x: Value, axis: int) -> Value:
    """x with a new axis of size one."""
    place = graph.constant(np.array([axis]), f"axis_{axis}")
    return graph.node("Unsqueeze", x, place, axes=(*x.axes[:axis], 1, *x.axes[axis:]))

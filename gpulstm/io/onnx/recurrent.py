"""Exports recurrent layers and operators as ONNX nodes."""

from typing import TYPE_CHECKING, Any

import numpy as np

from gpulstm import nn
from gpulstm.errors import FormatError, ShapeError
from gpulstm.io.onnx.attributes import STATES
from gpulstm.io.onnx.graph import Axes, Value
from gpulstm.io.onnx.levels import operators_of
from gpulstm.io.onnx.node import INPUTS, onnx_arrays, onnx_attributes
from gpulstm.io.onnx.operator import Operator

if TYPE_CHECKING:
    from gpulstm.io.onnx.layers import Exporter


def operator_nodes(
    graph: "Exporter", operator: Operator, name: str, x: Value, lengths: Value | None = None, states: Any = ()
) -> list[Value]:
    """Add an operator's node; return [Y, Y_h] or [Y, Y_h, Y_c]. Lengths and states default to the operator's own."""
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


def recurrent(
    graph: "Exporter", layer: nn.Recurrent, name: str, x: Value, hx: Any = None, lengths: Value | None = None
) -> tuple[Value, Any]:
    """Add a chain of nodes, one for each level; return (output, states)."""
    operators = operators_of(layer, name)
    if len(x.axes) != 3:
        raise ShapeError(f"{name or 'x'}: expected three axes, steps, batch and features, got {x.axes}")
    graph.fits(x, layer.input_size, operators[0].weights[0]["weight_ih"].dtype, name)
    batch = x.axes[0 if layer.batch_first else 1]
    count = STATES[operators[0].kind]
    if lengths is None and graph.lengths:
        lengths = graph.input("lengths", (batch,), "int32")
    asked = hx is None and graph.states
    if asked and f"{name}h_n" in graph.last_states:
        raise FormatError(
            f"{name}h_n: expected different names for recurrent layers with states, got one twice; give apply(name=)"
        )
    if asked:
        rows = len(operators) * len(operators[0].weights)
        hx = [graph.input(f"{name}{s}_0", (rows, batch, layer.hidden_size), x.dtype) for s in "hc"[:count]]
    first = [hx] if isinstance(hx, Value) else list(hx or [])
    levels = [_levels(graph, state, len(operators)) for state in first] or [[None] * len(operators)] * count
    if layer.batch_first:
        x = graph.transpose(x, 1, 0, 2)
    last: list[list[Value]] = []
    for level, operator in enumerate(operators):
        states = [state[level] for state in levels]
        Y, *after = operator_nodes(graph, operator, f"{name}l{level}.", x, lengths, states)
        ends = level == len(operators) - 1 and not layer.return_sequences
        x = _merged(graph, layer, after[0] if ends else Y)
        last.append(after)
    if layer.batch_first and layer.return_sequences:
        x = graph.transpose(x, 1, 0, 2)
    stacked = [graph.concatenate(list(state), 0) for state in zip(*last, strict=True)]
    if asked:
        for letter, value in zip("hc", stacked, strict=False):
            graph.last_states[f"{name}{letter}_n"] = value
    return x, stacked[0] if count == 1 else tuple(stacked)


def _levels(graph: "Exporter", state: Value, levels: int) -> list[Value | None]:
    """Split a state (levels*directions, B, H) into its levels."""
    rows = int(state.axes[0]) // levels
    if levels == 1:
        return [state]
    return list(graph.nodes_outputs("Split", [state], [(rows, *state.axes[1:])] * levels, axis=0))


def _merged(graph: "Exporter", layer: nn.Recurrent, Y: Value) -> Value:
    """Merge the directions: Y (T, directions, B, H) to (T, B, width), or Y_h (directions, B, H) to (B, width)."""
    *steps, K, B, H = Y.axes
    T = len(steps)  # axes before that of the directions
    if layer.bidirectional and layer.merge == "concat":
        shape = graph.constant(np.array([*[0] * (T + 1), int(K) * int(H)]), "joined_directions")
        turned = graph.transpose(Y, *range(T), T + 1, T, T + 2)
        return graph.node("Reshape", turned, shape, axes=(*steps, B, int(K) * int(H)))
    each = [
        graph.node("Gather", Y, graph.constant(np.array(k), f"direction_{k}"), axes=(*steps, B, H), axis=T)
        for k in range(int(K))
    ]
    if len(each) == 1:
        return each[0]
    if layer.merge == "mul":
        return graph.elementwise("Mul", *each)
    total = graph.elementwise("Add", *each)
    half = graph.constant(np.array(0.5, Y.dtype), "half")
    return graph.node("Mul", total, half, axes=total.axes) if layer.merge == "mean" else total

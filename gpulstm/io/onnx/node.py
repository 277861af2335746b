"""Between a node of ONNX and an Operator: reads the one out of the other, gate orders and shapes included."""

from typing import Any

import numpy as np

from gpulstm.errors import FormatError
from gpulstm.io.onnx.attributes import (
    DIRECTIONS,
    GATES,
    KNOWN,
    PEEPHOLES,
    activations_in,
    activations_out,
    blocks_in,
    blocks_out,
)
from gpulstm.io.onnx.operator import Operator
from gpulstm.io.onnx.read import Graph, attributes, text

INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")  # a GRU and an RNN have the first six
_FLOATS = ("float16", "bfloat16", "float32", "float64")


def read_operator(graph: Graph, place: str, node: Any) -> Operator:
    """The Operator of an LSTM, GRU or RNN node, with the node's name or that of its first output.

    Raises FormatError, saying where and what.
    """
    kind = node.op_type
    given = attributes(node, place, KNOWN[kind])
    direction = given.get("direction", "forward")
    if direction not in DIRECTIONS:
        raise FormatError(f"{place}, direction: want {', '.join(DIRECTIONS)}, got {direction!r:.60}")
    for name in ("layout", "input_forget", "linear_before_reset"):
        if given.get(name, 0) not in (0, 1):
            raise FormatError(f"{place}, {name}: want 0 or 1, got {given[name]}")
    clip = given.get("clip")
    if clip is not None and not 0 < clip < float("inf"):
        raise FormatError(f"{place}, clip: want a number above 0, got {clip}")
    directions, layout = len(DIRECTIONS[direction]), given.get("layout", 0)
    arrays, open_inputs = _arrays(graph, place, node)
    sizes = _check_weights(kind, place, directions, given.get("hidden_size"), arrays)
    _check_states(place, directions, layout, sizes[0], arrays)
    return Operator(
        kind=kind,
        name=text(node.name or next(filter(None, node.output), kind)),
        weights=tuple(_weights(kind, arrays, n) for n in range(directions)),
        activations=activations_in(kind, directions, given, place),
        direction=direction,
        clip=clip,
        input_forget=bool(given.get("input_forget", 0)),
        linear_before_reset=bool(given.get("linear_before_reset", 0)),
        layout=layout,
        open_inputs=open_inputs,
        **{name: arrays.get(name) for name in ("initial_h", "initial_c", "sequence_lens")},
    )


def _arrays(graph: Graph, place: str, node: Any) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """(the node's inputs that are in the file, by ONNX' names for them; the names of those that are not)."""
    known = INPUTS if node.op_type == "LSTM" else INPUTS[:6]
    if len(node.input) > len(known):
        raise FormatError(f"{place}: want the inputs {', '.join(known)}, got {len(node.input)} of them")
    arrays, missing = {}, []
    for name, value in list(zip(known, node.input, strict=False))[1:]:
        if not value:
            continue
        if (array := graph.array(value)) is not None:
            arrays[name] = array
        elif name in ("W", "R", "B", "P"):
            got = f"{value!r}, which it computes or leaves open"
            raise FormatError(f"{place}, {name}: want an array in the file, got {got}")
        else:
            missing.append(name)
    return arrays, tuple(missing)


def _check_weights(
    kind: str, place: str, directions: int, hidden_size: int | None, arrays: dict[str, np.ndarray]
) -> tuple[int, int]:
    """(H, D) of the weights; raises FormatError unless all have their shapes and one type."""
    for name in ("W", "R"):
        if name not in arrays:
            raise FormatError(f"{place}: want the weights {name}, got none")
        if arrays[name].ndim != 3:
            raise FormatError(f"{place}, {name}: want (directions, gates*hidden, size), got {arrays[name].shape}")
    H, D, gates = arrays["R"].shape[2], arrays["W"].shape[2], len(GATES[kind])
    if hidden_size not in (None, H):
        raise FormatError(f"{place}, hidden_size: want {H}, the last axis of R, got {hidden_size}")
    wanted = {
        "W": (directions, gates * H, D),
        "R": (directions, gates * H, H),
        "B": (directions, 2 * gates * H),
        "P": (directions, 3 * H),
    }
    for name, want in wanted.items():
        array = arrays.get(name)
        if array is None:
            continue
        if array.shape != want:
            raise FormatError(f"{place}, {name}: want {want} for {directions} directions, H = {H}, got {array.shape}")
        if array.dtype.name not in _FLOATS or array.dtype != arrays["W"].dtype:
            want_type = arrays["W"].dtype if arrays["W"].dtype.name in _FLOATS else " or ".join(_FLOATS)
            raise FormatError(f"{place}, {name}: want {want_type}, got {array.dtype}")
    return H, D


def _check_states(place: str, directions: int, layout: int, H: int, arrays: dict[str, np.ndarray]) -> None:
    """Raises FormatError unless the states and lengths in the file have shapes for one batch, and their types."""
    batches = set()
    for name in ("initial_h", "initial_c"):
        if (state := arrays.get(name)) is None:
            continue
        if state.ndim != 3 or state.shape[2] != H or state.shape[layout] != directions:
            want = ("directions, batch", "batch, directions")[layout]
            raise FormatError(f"{place}, {name}: want ({want}, hidden) = {directions} and {H}, got {state.shape}")
        if state.dtype != arrays["W"].dtype:
            raise FormatError(f"{place}, {name}: want {arrays['W'].dtype}, got {state.dtype}")
        batches.add(state.shape[1 - layout])
    if (lengths := arrays.get("sequence_lens")) is not None:
        if lengths.ndim != 1 or lengths.dtype.kind != "i" or lengths.min() < 0:
            raise FormatError(
                f"{place}, sequence_lens: want (batch,) integers from 0, got {lengths.dtype} {lengths.shape}"
            )
        batches.add(len(lengths))
    if len(batches) > 1:
        raise FormatError(
            f"{place}: want states and sequence_lens of one batch, got {', '.join(map(str, sorted(batches)))}"
        )


def _weights(kind: str, arrays: dict[str, np.ndarray], direction: int) -> dict[str, np.ndarray]:
    """The weights of one direction under our names and in our order."""
    order = GATES[kind]
    found = {
        "weight_ih": blocks_in(arrays["W"][direction], order),
        "weight_hh": blocks_in(arrays["R"][direction], order),
    }
    if "B" in arrays:
        b_ih, b_hh = np.split(arrays["B"][direction], 2)
        found |= {"bias_ih": blocks_in(b_ih, order), "bias_hh": blocks_in(b_hh, order)}
    if "P" in arrays:
        found["weight_ch"] = blocks_in(arrays["P"][direction], PEEPHOLES)
    return found


def onnx_arrays(operator: Operator) -> dict[str, np.ndarray]:
    """The operator's arrays under ONNX' names, in its order and shapes; those that it has."""
    order, arrays = GATES[operator.kind], {}
    for name, ours, blocks in (("W", ("weight_ih",), order), ("R", ("weight_hh",), order),
                               ("B", ("bias_ih", "bias_hh"), order), ("P", ("weight_ch",), PEEPHOLES)):  # fmt: skip
        if ours[0] in operator.weights[0]:
            rows = [np.concatenate([blocks_out(own[each], blocks) for each in ours]) for own in operator.weights]
            arrays[name] = np.stack(rows)
    for name in ("sequence_lens", "initial_h", "initial_c"):
        if (array := getattr(operator, name)) is not None:
            arrays[name] = array.astype(np.int32) if name == "sequence_lens" else array
    return arrays


def onnx_attributes(operator: Operator) -> dict[str, Any]:
    """The attributes of the operator's node; those that are not ONNX' defaults."""
    given: dict[str, Any] = {"hidden_size": operator.hidden_size}
    given |= activations_out(operator.kind, operator.activations)
    if operator.direction != "forward":
        given["direction"] = operator.direction
    if operator.clip is not None:
        given["clip"] = float(operator.clip)
    for name in ("input_forget", "linear_before_reset", "layout"):
        if getattr(operator, name):
            given[name] = 1
    return given

"""Converts an ONNX node to an Operator and back, with gate orders and shapes."""

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
from gpulstm.io.onnx.proto import text
from gpulstm.io.onnx.scopes import Node
from gpulstm.io.onnx.values import Open, Values

INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")  # a GRU and an RNN have the first six
_FLOATS = ("float16", "bfloat16", "float32", "float64")


def read_operator(values: Values, node: Node, name: str) -> Operator:
    """Read an LSTM, GRU or RNN node as an Operator with this name; raises FormatError, saying where and what."""
    kind, place = node.kind, node.where
    given = node.attributes(KNOWN[kind])
    direction = given.get("direction", "forward")
    if direction not in DIRECTIONS:
        raise FormatError(f"{place}, direction: expected {', '.join(DIRECTIONS)}, got {direction!r:.60}")
    for flag in ("layout", "input_forget", "linear_before_reset"):
        if given.get(flag, 0) not in (0, 1):
            raise FormatError(f"{place}, {flag}: expected 0 or 1, got {given[flag]}")
    clip = given.get("clip")
    if clip is not None and not 0 < clip < float("inf"):
        raise FormatError(f"{place}, clip: expected a number above 0, got {clip}")
    directions, layout = len(DIRECTIONS[direction]), given.get("layout", 0)
    arrays, open_inputs, any_batch = _arrays(values, place, node)
    sizes = _check_weights(kind, place, directions, given.get("hidden_size"), arrays)
    _check_states(place, directions, layout, sizes[0], arrays)
    return Operator(
        kind=kind,
        name=name,
        weights=tuple(_weights(values, kind, arrays, n) for n in range(directions)),
        activations=activations_in(kind, directions, given, place),
        direction=direction,
        clip=clip,
        input_forget=bool(given.get("input_forget", 0)),
        linear_before_reset=bool(given.get("linear_before_reset", 0)),
        layout=layout,
        open_inputs=open_inputs,
        any_batch=any_batch,
        **{key: arrays.get(key) for key in ("initial_h", "initial_c", "sequence_lens")},
    )


def _arrays(values: Values, place: str, node: Node) -> tuple[dict[str, np.ndarray], tuple[str, ...], tuple[str, ...]]:
    """(the node's inputs that the file contains, by ONNX' names; the names of the others; which of those the file
    computes from its own numbers, for any batch size).

    Initial states of zeros for any batch size are left out, as the operator starts from zeros anyway.
    """
    known, inputs = INPUTS if node.kind == "LSTM" else INPUTS[:6], node.proto.input
    if len(inputs) > len(known):
        raise FormatError(f"{place}: expected the inputs {', '.join(known)}, got {len(inputs)} of them")
    arrays, missing, held = {}, [], []
    for name, source in list(zip(known, map(text, inputs), strict=False))[1:]:
        if not source:
            continue
        array = values.array(node.scope, source)
        if not isinstance(array, Open):
            arrays[name] = array
        elif array.left_out or (array.zeros and name.startswith("initial")):
            continue
        elif name in ("W", "R", "B", "P"):
            got = array.why if array.why.startswith(f"{source!r:.100}") else f"{source!r:.100}, made from {array.why}"
            raise FormatError(f"{place}, {name}: expected an array in the file or in values, got {got}")
        else:
            missing.append(name)
            held += [name] if array.held else []
    return arrays, tuple(missing), tuple(held)


def _check_weights(
    kind: str, place: str, directions: int, hidden_size: int | None, arrays: dict[str, np.ndarray]
) -> tuple[int, int]:
    """(H, D) of the weights; raises FormatError unless all have the right shapes and the same type."""
    for name in ("W", "R"):
        if name not in arrays:
            raise FormatError(f"{place}: expected the weights {name}, got none")
        if arrays[name].ndim != 3:
            raise FormatError(f"{place}, {name}: expected (directions, gates*hidden, size), got {arrays[name].shape}")
        if not arrays[name].size:
            raise FormatError(f"{place}, {name}: expected no axis of zero, got {arrays[name].shape}")
    H, D, gates = arrays["R"].shape[2], arrays["W"].shape[2], len(GATES[kind])
    if hidden_size not in (None, H):
        raise FormatError(f"{place}, hidden_size: expected {H}, the last axis of R, got {hidden_size}")
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
            raise FormatError(
                f"{place}, {name}: expected {want} for {directions} directions, H = {H}, got {array.shape}"
            )
        if array.dtype.name not in _FLOATS or array.dtype != arrays["W"].dtype:
            want_type = arrays["W"].dtype if arrays["W"].dtype.name in _FLOATS else " or ".join(_FLOATS)
            raise FormatError(f"{place}, {name}: expected {want_type}, got {array.dtype}")
    return H, D


def _check_states(place: str, directions: int, layout: int, H: int, arrays: dict[str, np.ndarray]) -> None:
    """Raises FormatError unless the states and lengths in the file have the right types, and shapes for one batch."""
    batches = set()
    for name in ("initial_h", "initial_c"):
        if (state := arrays.get(name)) is None:
            continue
        if state.ndim != 3 or state.shape[2] != H or state.shape[layout] != directions:
            want = ("directions, batch", "batch, directions")[layout]
            raise FormatError(f"{place}, {name}: expected ({want}, hidden) = {directions} and {H}, got {state.shape}")
        if state.dtype != arrays["W"].dtype:
            raise FormatError(f"{place}, {name}: expected {arrays['W'].dtype}, got {state.dtype}")
        batches.add(state.shape[1 - layout])
    if (lengths := arrays.get("sequence_lens")) is not None:
        if lengths.ndim != 1 or lengths.dtype.kind != "i" or not lengths.size or lengths.min() < 0:
            raise FormatError(
                f"{place}, sequence_lens: expected (batch,) integers from 0, got {lengths.dtype} {lengths.shape}"
            )
        batches.add(len(lengths))
    if len(batches) > 1:
        raise FormatError(
            f"{place}: expected states and sequence_lens of one batch, got {', '.join(map(str, sorted(batches)))}"
        )


def _weights(values: Values, kind: str, arrays: dict[str, np.ndarray], n: int) -> dict[str, np.ndarray]:
    """The weights of direction n with gpulstm's names and order; nodes with the same weights share the arrays."""
    order, found = GATES[kind], {}
    for name, theirs, half, blocks in (
        ("weight_ih", "W", None, order), ("weight_hh", "R", None, order), ("bias_ih", "B", 0, order),
        ("bias_hh", "B", 1, order), ("weight_ch", "P", None, PEEPHOLES),
    ):  # fmt: skip
        if theirs not in arrays:
            continue
        key = (id(arrays[theirs]), n, half, blocks)
        if key not in values.shared:
            own = arrays[theirs][n]
            own = own if half is None else np.split(own, 2)[half]
            values.reserve(own.nbytes)
            values.shared[key] = blocks_in(own, blocks)
        found[name] = values.shared[key]
    return found


def onnx_arrays(operator: Operator) -> dict[str, np.ndarray]:
    """The operator's arrays with ONNX' names, order and shapes."""
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
    """The attributes of the operator's node that differ from ONNX' defaults."""
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

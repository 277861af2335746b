"""ONNX' names for the parts of a recurrent operator, and gpulstm's: gates, activations, attributes.

This is version 22 of ONNX' operators LSTM, GRU and RNN, which computes the same as versions 7 and 14. Gate orders:

======== ============ ============ ==================================
operator ONNX         gpulstm      rows of W and R; P holds i, o, f
======== ============ ============ ==================================
LSTM     i, o, f, c   i, f, g, o   4H
GRU      z, r, h      r, z, n      3H
RNN                                H
======== ============ ============ ==================================
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpulstm.cells.activation import Activation
from gpulstm.errors import FormatError

# For each of gpulstm's blocks, the number of ONNX' block.
GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
PEEPHOLES = (0, 2, 1)
STATES = {"LSTM": 2, "GRU": 1, "RNN": 1}
DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}

# The attributes with the fields of their types, see proto.attributes. In versions before 7 output_sequence says
# whether Y is an output, which changes no number.
_SHARED = {
    "activation_alpha": "floats", "activation_beta": "floats", "activations": "strings", "clip": "f",
    "direction": "s", "hidden_size": "i", "layout": "i",
    "output_sequence": "i",
}  # fmt: skip
KNOWN = {
    "LSTM": _SHARED | {"input_forget": "i"},
    "GRU": _SHARED | {"linear_before_reset": "i"},
    "RNN": _SHARED,
}


DEFAULTS = {
    "LSTM": (Activation("sigmoid"), Activation("tanh"), Activation("tanh")),
    "GRU": (Activation("sigmoid"), Activation("tanh")),
    "RNN": (Activation("tanh"),),
}

# ONNX' name, gpulstm's name, and ONNX' defaults for alpha and beta: a number, NaN if it is not defined, None for a
# function without this parameter.
_UNDEFINED = float("nan")
_ACTIVATIONS = (
    ("Relu", "relu", None, None),
    ("Tanh", "tanh", None, None),
    ("Sigmoid", "sigmoid", None, None),
    ("Affine", "affine", _UNDEFINED, _UNDEFINED),
    ("LeakyRelu", "leaky_relu", 0.01, None),
    ("ThresholdedRelu", "thresholded_relu", 1.0, None),
    ("ScaledTanh", "scaled_tanh", _UNDEFINED, _UNDEFINED),
    ("HardSigmoid", "hard_sigmoid", 0.2, 0.5),
    ("Elu", "elu", 1.0, None),
    ("Softsign", "softsign", None, None),
    ("Softplus", "softplus", None, None),
)
_FROM_ONNX = {row[0].lower(): row for row in _ACTIVATIONS}  # onnxruntime's LSTM and GRU ignore the case
_TO_ONNX = {row[1]: row for row in _ACTIVATIONS}


def activations_in(kind: str, directions: int, given: dict[str, Any], where: str) -> tuple[tuple[Activation, ...], ...]:
    """The activations of each direction: (f, g, h) for an LSTM, (f, g) for a GRU, (f,) for an RNN.

    The values of activation_alpha and activation_beta are assigned in order to the functions that take one.
    """
    count, names = len(DEFAULTS[kind]), given.get("activations")
    if names is None:
        return (DEFAULTS[kind],) * directions
    if len(names) != count * directions:
        raise FormatError(
            f"{where}: expected {count} activations for each of {directions} directions, got {len(names)}"
        )
    rows = []
    for name in names:
        if name.lower() not in _FROM_ONNX:
            raise FormatError(
                f"{where}: expected activations from {', '.join(row[0] for row in _ACTIVATIONS)}, got {name!r:.60}"
            )
        rows.append(_FROM_ONNX[name.lower()])
    alpha = _parameters("activation_alpha", given, [(row[0], row[2]) for row in rows], where)
    beta = _parameters("activation_beta", given, [(row[0], row[3]) for row in rows], where)
    found = [Activation(row[1], a, b) for row, a, b in zip(rows, alpha, beta, strict=True)]
    return tuple(tuple(found[n : n + count]) for n in range(0, len(found), count))


def _parameters(attribute: str, given: dict[str, Any], wanted: list, where: str) -> Iterator[float | None]:
    """The parameter of each function; None for a function without one."""
    values, takers = list(given.get(attribute, ())), [name for name, usual in wanted if usual is not None]
    # If no function takes one, the values change nothing; if too few do, it is not clear whose they are.
    if takers and len(values) > len(takers):
        raise FormatError(
            f"{where}, {attribute}: expected {len(takers)} values, for {', '.join(takers)}, got {len(values)}"
        )
    left = iter(values)
    for name, usual in wanted:
        value = None if usual is None else next(left, usual)
        if value is not None and not np.isfinite(value):
            what = "none" if value is usual else value
            raise FormatError(f"{where}, {attribute}: expected a finite value for {name}, got {what}")
        yield value


def activations_out(kind: str, activations: tuple[tuple[Activation, ...], ...]) -> dict[str, Any]:
    """The attributes for these activations; empty if all are the operator's defaults."""
    if all(each == DEFAULTS[kind] for each in activations):
        return {}
    flat = [activation for each in activations for activation in each]
    attributes: dict[str, Any] = {"activations": [_TO_ONNX[activation.name][0] for activation in flat]}
    for name, values in (("alpha", [a.alpha for a in flat]), ("beta", [a.beta for a in flat])):
        if set(values) != {None}:
            attributes[f"activation_{name}"] = [float(value) for value in values if value is not None]
    return attributes


def blocks_in(array: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """ONNX' blocks along the first axis, in gpulstm's order."""
    blocks = np.split(array, len(order))
    return np.concatenate([blocks[n] for n in order])


def blocks_out(array: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """gpulstm's blocks along the first axis, in ONNX' order."""
    return blocks_in(array, tuple(int(n) for n in np.argsort(order)))

"""The levels of a recurrent layer as ONNX' operators, where there is one that computes the same."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gpulstm import nn
from gpulstm.backend import backend_of
from gpulstm.cells import Cell, coupled, general, gru, lstm, peephole, rnn
from gpulstm.cells.activation import Activation
from gpulstm.errors import FormatError
from gpulstm.io.onnx.attributes import DEFAULTS
from gpulstm.io.onnx.operator import Operator

Blocks = tuple[np.ndarray, ...]


def operators_of(layer: nn.Recurrent, name: str = "") -> list[Operator]:
    """One operator for each level; raises FormatError for what ONNX has not, naming the layer."""
    what = f"{name.rstrip('.')} ({type(layer).__name__})" if name else type(layer).__name__
    zoneout = layer.regularization.zoneout
    if layer.proj_size:
        raise FormatError(f"{what}: expected no projection, which ONNX' LSTM has not, got proj_size={layer.proj_size}")
    if zoneout.h or zoneout.c:
        raise FormatError(f"{what}: expected no zoneout, which acts in use too and which ONNX has not, got {zoneout}")
    options, change = _described(layer.cell, what)
    directions = ("", "_reverse") if layer.bidirectional else ("",)
    activations = (options.pop("activations"),) * len(directions)
    options["direction"] = "bidirectional" if layer.bidirectional else "forward"
    levels = [tuple(_weights(layer, f"_l{level}{s}", change) for s in directions) for level in range(layer.num_layers)]
    return [
        Operator(name=f"{name}l{level}", weights=weights, activations=activations, **options)
        for level, weights in enumerate(levels)
    ]


def _weights(layer: nn.Recurrent, suffix: str, change: Callable[..., Blocks] | None) -> dict[str, np.ndarray]:
    """The parameters of one direction of one level, on the host; ``change`` takes and gives the gates' blocks."""
    arrays = {}
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_ch"):
        if (parameter := getattr(layer, f"{name}{suffix}", None)) is not None:
            array = backend_of(parameter.data).to_numpy(parameter.data)
            arrays[name] = array if change is None else np.concatenate(change(*np.split(array, 3)))
    return arrays


def _described(cell: Cell, what: str) -> tuple[dict[str, Any], Callable[..., Blocks] | None]:
    """(kind, activations and attributes of the operator that computes what the cell does, the change of its gates).

    Variants of a cell are its equations bound to their options.
    """
    plain = {"kind": "LSTM", "activations": DEFAULTS["LSTM"]}
    if cell is lstm.CELL or cell is peephole.DIAGONAL:
        return plain, None
    if cell is coupled.CELL:
        return plain | {"input_forget": True}, _coupled
    equations, bound = getattr(cell.forward, "func", None), getattr(cell.forward, "keywords", {})
    if equations is rnn.forward:
        return {"kind": "RNN", "activations": (bound["activation"],), "clip": bound["clip"]}, None
    if equations is general.forward:
        form = bound["form"]
        activations = (form.act_f, form.act_g, form.act_h)
        return plain | {"activations": activations, "clip": form.clip, "input_forget": form.coupled}, None
    if equations in (gru.forward, gru.forward_before):
        after, sigmoid = equations is gru.forward, bound["activations"][0] == Activation("sigmoid")
        if bound["update"] == "cho" and not sigmoid:
            raise FormatError(
                f"{what}: expected update='torch', as ONNX has it, where the gates are no sigmoid, got 'cho'"
            )
        change = _cho if bound["update"] == "cho" else None
        options = {"activations": bound["activations"], "clip": bound["clip"], "linear_before_reset": after}
        return {"kind": "GRU", **options}, change
    want = "an LSTM, GRU or RNN, with diagonal peepholes and coupled gates or without"
    raise FormatError(f"{what}: expected {want}, as ONNX has them, got a {cell.name} that is none of them")


def _coupled(f: np.ndarray, g: np.ndarray, o: np.ndarray) -> Blocks:
    """Of i = 1 - f, gates f, g, o, what ONNX has: f = 1 - i. As 1 - sigmoid(z) = sigmoid(-z), i takes the weights
    of f with the other sign; those of f have no use."""
    return -f, np.zeros_like(f), g, o


def _cho(r: np.ndarray, z: np.ndarray, n: np.ndarray) -> Blocks:
    """Of h = (1 - z) h_prev + z n what ONNX has, h = (1 - z) n + z h_prev: as above, z with the other sign."""
    return r, -z, n

"""Converts the levels of a recurrent layer to ONNX' operators, if there is one that computes the same."""

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
    """One operator for each level; raises FormatError, naming the layer, for anything that ONNX lacks."""
    what = f"{name.rstrip('.')} ({type(layer).__name__})" if name else type(layer).__name__
    zoneout = layer.regularization.zoneout
    if layer.proj_size:
        raise FormatError(f"{what}: expected no projection, as ONNX' LSTM has none, got proj_size={layer.proj_size}")
    if zoneout.h or zoneout.c:
        raise FormatError(f"{what}: expected no zoneout, which ONNX lacks (it acts in evaluation too), got {zoneout}")
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
    """The parameters of one direction of one level, on the host; ``change`` converts the blocks of the gates."""
    arrays = {}
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_ch"):
        if (parameter := getattr(layer, f"{name}{suffix}", None)) is not None:
            array = backend_of(parameter.data).to_numpy(parameter.data)
            arrays[name] = array if change is None else np.concatenate(change(*np.split(array, 3)))
    return arrays


def _described(cell: Cell, what: str) -> tuple[dict[str, Any], Callable[..., Blocks] | None]:
    """(the operator's kind, activations and attributes for the cell; a function that converts its gates' blocks).

    A variant of a cell is its equations with options bound to them (functools.partial).
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
            raise FormatError(f"{what}: expected update='torch', as in ONNX, for gates other than sigmoids, got 'cho'")
        change = _cho if bound["update"] == "cho" else None
        options = {"activations": bound["activations"], "clip": bound["clip"], "linear_before_reset": after}
        return {"kind": "GRU", **options}, change
    want = "an LSTM, GRU or RNN, with diagonal peepholes and coupled gates or without"
    raise FormatError(f"{what}: expected {want}, as ONNX has them, got a {cell.name}, which is none of them")


def _coupled(f: np.ndarray, g: np.ndarray, o: np.ndarray) -> Blocks:
    """From gpulstm's i = 1 - f with gates f, g, o to ONNX' f = 1 - i.

    As 1 - sigmoid(z) = sigmoid(-z), i gets the weights of f with the opposite sign; ONNX ignores those of f.
    """
    return -f, np.zeros_like(f), g, o


def _cho(r: np.ndarray, z: np.ndarray, n: np.ndarray) -> Blocks:
    """From h = (1 - z) h_prev + z n to ONNX' h = (1 - z) n + z h_prev: as above, z with the opposite sign."""
    return r, -z, n

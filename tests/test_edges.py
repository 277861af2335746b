"""The edges: what each public function, layer, loss, optimiser and data set says of arguments that do not fit.

``TABLE`` has a row for everything public: a call that works, and for each argument the kind of thing it is. From the
kind follow the values that must be refused, by a GpulstmError whose message begins with the argument's name. What is
public and has no row fails the last test.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import gpulstm as gl
from gpulstm import functional as F
from gpulstm import io, random
from gpulstm.errors import DeviceError, DTypeError, GpulstmError, ShapeError

T, B, D, H = 2, 3, 4, 4  # D = H, so that one layer serves as any; T, B and D differ


def floats(*shape):
    return np.random.default_rng(0).uniform(0.1, 0.9, shape).astype(np.float32)


class _Object:
    def __repr__(self):
        return "<an object>"


NO_ARRAY = {"None": None, "text": "abc", "dict": {}, "object": _Object(), "list": [[1.0, 2.0]], "list of texts": ["a"]}
NO_FLOATS = {
    "bool array": np.ones((B, D), bool),
    "complex array": np.ones((B, D), complex),
    "object array": np.full((B, D), None),
    "text array": np.full((B, D), "a"),
    "structured": np.zeros(B, [("a", np.float32)]),
    "masked": np.ma.ones((B, D), np.float32),
    "matrix": np.ones((B, D), np.float32).view(np.matrix),
}
NO_OPERAND = {name: bad for name, bad in NO_FLOATS.items() if name != "bool array"}
NO_NUMBER = {"text": "1", "None": None, "list": [1], "complex": 1j, "array": np.ones(2), "bool": True, "nan": np.nan}
NO_IDS = {
    "floats": np.ones((B,), np.float32),
    "bool array": np.ones(B, bool),
    "complex array": np.ones(B, complex),
    "object array": np.full(B, None),
    "text array": np.full(B, "a"),
    "masked": np.ma.zeros(B, int),
    "negative": np.full(B, -1),
    "too large": np.full(B, 2**40),
}
BAD: dict[str, dict[str, Any]] = {
    "floats": NO_ARRAY | NO_FLOATS | {"integers": np.ones((B, D), int), "no axis": np.ones((), np.float32)},
    "array": NO_ARRAY,
    "operand": NO_ARRAY | NO_OPERAND | {"shape": np.ones(D + 1, np.float32)},
    "condition": NO_ARRAY | {"floats": np.ones((B, D), np.float32), "text array": np.full((B, D), "a")},
    "any shape": NO_ARRAY | NO_FLOATS | {"integers": np.ones((B, D), int)},
    "listed": {name: bad for name, bad in NO_ARRAY.items() if "list" not in name},  # where lists are taken
    "ids": {name: bad for name, bad in NO_ARRAY.items() if name != "list"} | NO_IDS,
    "raw ids": NO_ARRAY | NO_IDS,
    "count": NO_NUMBER | {"negative": -1, "half": 1.5},
    "size": NO_NUMBER | {"negative": -1, "half": 1.5, "zero": 0},
    "number": NO_NUMBER | {"negative": -0.5},
    "flag": {"text": "yes", "number": 2, "None": None, "array": np.ones(2, bool)},
    "generator": {"seed": 0, "text": "0", "old": np.random.RandomState(0)},
    "dtype": {"text": "float33", "integers": "int32", "object": object, "number": 3},
    "device": {"text": "gpu", "number": 3, "negative": "cuda:-1", "list": ["cpu"]},
    "choice": {"text": "nothing", "None": None, "number": 3, "list": ["mean"]},
    "lengths": {"text": "abc", "floats": np.ones(B), "long": np.full(B, T + 1), "negative": [-1] * B, "few": [1]},
    "mask": {"text": "abc", "floats": np.ones((T, B)), "shape": np.ones((B, T), bool), "ragged": [[True], [True] * 2]},
    "path": {"None": None, "number": 3, "bytes": b"x", "list": ["x"]},
    "parameters": {"None": None, "text": "weight", "number": 3, "module": gl.Linear(2, 2), "empty text": ""},
    "optimizer": {"None": None, "text": "Adam", "list": [], "module": gl.Linear(2, 2)},
    "series": {
        "None": None, "text": "abc", "dict": {}, "complex": np.ones(9, complex), "texts": ["a"] * 9,
        "objects": np.full(9, None), "ragged": [[1], [1, 2]] * 4 + [[1]], "no axis": 3.0,
    },
    "sequences": {"None": None, "text": "abc", "dict": {}, "number": 3, "texts": [["a"]], "ragged": [[[1], [1, 2]]]},
    "value": {"text": "0", "None": None, "complex": 1j, "half": 0.5},
}  # fmt: skip


@dataclass
class Row:
    """A call with arguments that fit, and the kind of each argument that is tried with others."""

    call: Callable[..., Any]
    good: dict[str, Any]
    kinds: dict[str, str]
    optional: tuple[str, ...] = ()  # None is fine
    names: dict[str, str] = field(default_factory=dict)  # how the message begins, where not with the argument's name
    fine: tuple[str, ...] = ()  # "argument: bad" that the call takes after all


def layer(make: Callable[[], Any], states: int, arguments: tuple = ("lengths", "mask", "reset")) -> Row:
    """A recurrent layer's call."""
    zeros = [floats(1, B, H) for _ in range(states)]
    names = [f"s{k}" for k in range(states)]

    def call(x, lengths=None, mask=None, reset=None, **given):
        hx = [given.get(name, zero) for name, zero in zip(names, zeros, strict=True)]
        return made(x, hx[0] if states == 1 else tuple(hx), lengths=lengths, mask=mask, reset=reset)

    made = make()
    kinds = {"x": "floats", "lengths": "lengths", "mask": "mask", "reset": "mask"} | dict.fromkeys(names, "floats")
    state_names = {name: f"{state}_0" for name, state in zip(names, made.cell.states, strict=True)}
    return Row(call, {"x": floats(T, B, D)}, kinds, tuple(names), state_names)


def cell(make: Callable[[], Any], states: int) -> Row:
    """The call of one step."""
    made = make()
    names = [f"s{k}" for k in range(states)]

    def call(x, **given):
        hx = [given.get(name, floats(B, H)) for name in names]
        return made(x, hx[0] if states == 1 else tuple(hx))

    kinds = {"x": "floats"} | dict.fromkeys(names, "floats")
    return Row(call, {"x": floats(B, D)}, kinds, tuple(names), dict(zip(names, made.cell.states, strict=True)))


def made(kind: type, **sizes: int) -> Row:
    """A constructor with sizes and the usual options."""
    options = {"device": "device", "dtype": "dtype", "generator": "generator"}
    known = inspect.signature(kind).parameters
    known_options = {name: what for name, what in options.items() if name in known or "options" in known}
    kinds = {**dict.fromkeys(sizes, "size"), **known_options}
    kinds |= {name: "flag" for name in ("bias", "batch_first", "bidirectional") if name in known}
    return Row(kind, dict(sizes), kinds, tuple(known_options))


def weights(gates: int) -> dict[str, Any]:
    return {"w_ih": floats(gates * H, D), "w_hh": floats(gates * H, H), "b_ih": floats(gates * H)}


def optimizer(**options: Any) -> Any:
    return gl.SGD(gl.Linear(2, 2, device="cpu").parameters(), lr=1.0, **options)


def optimiser(kind: type, numbers: tuple[str, ...], flags: tuple[str, ...] = ()) -> Row:
    kinds = {"parameters": "parameters"} | dict.fromkeys(numbers, "number") | dict.fromkeys(flags, "flag")
    return Row(kind, {"parameters": list(gl.Linear(2, 2, device="cpu").parameters())}, kinds)


def clipped(clip: Callable) -> Callable:
    def call(parameters=None, grad=None, **limit):
        p = gl.Parameter(np.ones((B, D), np.float32))
        p.grad = np.ones((B, D), np.float32)
        if grad is not None:
            p.grad = grad
        return clip([p] if parameters is None else parameters, **limit)

    return call


def recurrent_call(x, h0=None, c0=None, w_ih=None, w_hh=None, b_ih=None, b_hh=None, **options):
    return F.recurrent(x, h0, c0, w_ih, w_hh, b_ih, b_hh, **options)


def trace_call(x, h0=None, c0=None, w_ih=None, w_hh=None, b_ih=None, b_hh=None, **options):
    return F.trace(x, h0, c0, w_ih, w_hh, b_ih, b_hh, **options)


def seeded(seed: Any) -> None:
    before = random._default
    try:
        gl.manual_seed(seed)
    finally:
        random._default = before


def threads(n: Any) -> None:
    before = gl.get_num_threads()
    try:
        gl.set_num_threads(n)
    finally:
        gl.set_num_threads(before)


def elementwise(fn: Callable) -> Row:
    return Row(fn, {"x": floats(B, D)}, {"x": "any shape"})


CPU = {"device": "cpu"}
ACTIVATIONS = ("Tanh", "Sigmoid", "ReLU", "SiLU", "Softplus", "Softsign")
ACTIVATIONS_WITH_OPTIONS = ("LeakyReLU", "ELU", "GELU", "Softmax", "LogSoftmax")
WITHOUT_WEIGHTS = {f"{name}()" for name in (*ACTIVATIONS, *ACTIVATIONS_WITH_OPTIONS, "Dropout", "Flatten")}
SEQUENCE = {"lengths": "lengths", "mask": "mask", "reset": "mask"}
ARRAYS = dict.fromkeys(("x", "h0", "c0", "w_ih", "w_hh", "b_ih", "b_hh"), "floats")
LOSS = {"input": floats(B, D), "target": floats(B, D)}
CLASSES = {"input": floats(B, D), "target": np.arange(B)}
HEAD = {"input": floats(B, D), "linear_weight": floats(5, D), "target": np.arange(B)}
CTC = {  # the others are read on the host, wherever they are
    "log_probs": -floats(T, B, D), "targets": [[1]] * B, "input_lengths": [T] * B, "target_lengths": [1] * B,
}  # fmt: skip

TABLE: dict[str, Row] = {
    # -- layers
    "Linear": made(gl.Linear, in_features=D, out_features=H),
    "Linear()": Row(gl.Linear(D, H, **CPU), {"x": floats(B, D)}, {"x": "floats"}),
    "Embedding": Row(
        lambda **given: gl.Embedding(**given), {"num_embeddings": 5, "embedding_dim": 2, "padding_idx": 1},
        {"num_embeddings": "size", "embedding_dim": "size", "padding_idx": "count", "device": "device",
         "dtype": "dtype", "generator": "generator"},
        ("padding_idx", "device", "dtype", "generator"), fine=("padding_idx: negative",),
    ),
    "Embedding()": Row(gl.Embedding(5, 2, **CPU), {"ids": np.arange(B)}, {"ids": "ids"}),
    "Dropout": Row(gl.Dropout, {"p": 0.5}, {"p": "number", "generator": "generator"}, ("generator",)),
    "Dropout()": Row(gl.Dropout(0.5), {"x": floats(B, D)}, {"x": "any shape"}),
    "Dropout().eval": Row(gl.Dropout(0.5).eval(), {"x": floats(B, D)}, {"x": "any shape"}),
    "Attention": made(gl.Attention, query_size=D, key_size=H),
    "Attention()": Row(
        gl.Attention(D, D, **CPU), {"query": floats(B, D), "keys": floats(T, B, D)},
        {"query": "floats", "keys": "floats", "values": "floats", "lengths": "lengths", "mask": "mask"},
        ("values", "lengths", "mask"),
    ),
    "Attention(dot)()": Row(
        gl.Attention(D, D, "dot", **CPU), {"query": floats(B, D), "keys": floats(T, B, D)},
        {"query": "floats", "keys": "floats", "values": "floats"}, ("values",),
    ),
    **{name: made(getattr(gl, name), input_size=D, hidden_size=H) for name in (
        "LSTM", "GRU", "RNN", "SLSTM", "CoupledLSTM", "GeneralLSTM", "LayerNormLSTM", "PeepholeLSTM", "MinLSTM",
        "MinGRU", "LSTMCell", "GRUCell", "RNNCell", "SLSTMCell", "CoupledLSTMCell", "GeneralLSTMCell",
        "LayerNormLSTMCell", "PeepholeLSTMCell", "MinLSTMCell", "MinGRUCell")},
    **{f"{name}()": layer(lambda name=name: getattr(gl, name)(D, H, **CPU), states) for name, states in {
        "LSTM": 2, "GRU": 1, "RNN": 1, "SLSTM": 4, "CoupledLSTM": 2, "GeneralLSTM": 2, "LayerNormLSTM": 2,
        "PeepholeLSTM": 2, "MinLSTM": 1, "MinGRU": 1}.items()},
    **{f"{name}()": cell(lambda name=name: getattr(gl, name)(D, H, **CPU), states) for name, states in {
        "LSTMCell": 2, "GRUCell": 1, "RNNCell": 1, "SLSTMCell": 4, "CoupledLSTMCell": 2, "GeneralLSTMCell": 2,
        "LayerNormLSTMCell": 2, "PeepholeLSTMCell": 2, "MinLSTMCell": 1, "MinGRUCell": 1}.items()},
    "Recurrent": Row(
        gl.Recurrent, {"cell": "lstm", "input_size": D, "hidden_size": H},
        {"cell": "choice", "input_size": "size", "hidden_size": "size", "num_layers": "size", "proj_size": "count",
         "dropout": "number", "merge": "choice", "path": "count"},
        fine=tuple(f"path: {bad}" for bad in BAD["count"]),  # looked at when a sequence is computed
    ),
    "RecurrentCell": Row(
        gl.RecurrentCell, {"cell": "lstm", "input_size": D, "hidden_size": H},
        {"cell": "choice", "input_size": "size", "hidden_size": "size", "bias": "flag"},
    ),
    **{name: Row(getattr(gl, name), {}, {}) for name in ACTIVATIONS},
    **{f"{name}()": elementwise(getattr(gl, name)()) for name in (*ACTIVATIONS, *ACTIVATIONS_WITH_OPTIONS)},
    "LeakyReLU": Row(
        gl.LeakyReLU, {"negative_slope": 0.1}, {"negative_slope": "number"}, ("negative_slope",),
        names={"negative_slope": "alpha of leaky_relu"}, fine=("negative_slope: negative",),
    ),
    "ELU": Row(
        gl.ELU, {"alpha": 0.1}, {"alpha": "number"}, ("alpha",), names={"alpha": "alpha of elu"},
        fine=("alpha: negative",),
    ),
    "GELU": Row(gl.GELU, {"approximate": "tanh"}, {"approximate": "choice"}),
    **{name: Row(getattr(gl, name), {"axis": -1}, {"axis": "count"}, fine=("axis: negative",))
       for name in ("Softmax", "LogSoftmax")},
    "Flatten": Row(
        gl.Flatten, {"start_axis": 1, "end_axis": 1}, {"start_axis": "count", "end_axis": "count"},
        fine=("start_axis: negative", "end_axis: negative"),
    ),
    "Flatten()": Row(gl.Flatten(), {"x": floats(B, D)}, {"x": "array"}),
    "LayerNorm": Row(
        gl.LayerNorm, {"normalized_shape": D},
        {"normalized_shape": "size", "eps": "number", "elementwise_affine": "flag", "bias": "flag", "device": "device",
         "dtype": "dtype"}, ("device", "dtype"), fine=("normalized_shape: list",),
    ),
    "LayerNorm()": Row(gl.LayerNorm(D, **CPU), {"x": floats(B, D)}, {"x": "floats"}),
    "Zoneout": Row(gl.Zoneout, {"h": 0.1}, {"h": "number", "c": "number"}, names={"h": "Zoneout.h", "c": "Zoneout.c"}),
    "VariationalDropout": Row(
        gl.VariationalDropout, {"input": 0.1}, {"input": "number", "recurrent": "number"},
        names={"input": "VariationalDropout.input", "recurrent": "VariationalDropout.recurrent"},
    ),
    "WeightDrop": Row(gl.WeightDrop, {"rate": 0.1}, {"rate": "number"}, names={"rate": "WeightDrop.rate"}),
    "Parameter": Row(gl.Parameter, {"data": floats(B, D)}, {"data": "any shape"}, names={"data": "data|requires_grad"}),
    # -- functions on Tensors
    **{name: elementwise(getattr(gl, name)) for name in ("tanh", "sigmoid", "relu", "exp", "log")},
    **{name: Row(getattr(gl, name), {"x": floats(B, D)}, {"x": "any shape", "axis": "choice"})
       for name in ("softmax", "log_softmax")},
    **{name: Row(getattr(gl, name), {"a": floats(B, D), "b": floats(B, D)}, {"a": "operand", "b": "operand"},
                   names={"a": f"a|{name}", "b": f"b|{name}"})
       for name in ("maximum", "minimum")},
    "where": Row(
        gl.where, {"condition": floats(B, D) > 0.5, "a": floats(B, D), "b": floats(B, D)},
        {"condition": "condition", "a": "operand", "b": "operand"}, names={"a": "a|where", "b": "b|where"},
    ),
    "mse": Row(gl.mse, LOSS, {"input": "any shape", "target": "floats", "reduction": "choice"}),
    "huber": Row(
        gl.huber, LOSS, {"input": "any shape", "target": "floats", "reduction": "choice", "delta": "number"},
    ),
    "binary_cross_entropy_with_logits": Row(
        gl.binary_cross_entropy_with_logits, LOSS,
        {"input": "any shape", "target": "floats", "weight": "any shape", "pos_weight": "any shape",
         "reduction": "choice"}, ("weight", "pos_weight"),
    ),
    "cross_entropy": Row(
        gl.cross_entropy, CLASSES,
        {"input": "floats", "target": "raw ids", "weight": "floats", "ignore_index": "count",
         "label_smoothing": "number", "reduction": "choice"}, ("weight",), fine=("ignore_index: negative",),
    ),
    "linear_cross_entropy": Row(
        gl.linear_cross_entropy, HEAD,
        {"input": "floats", "linear_weight": "floats", "target": "raw ids", "linear_bias": "floats", "weight": "floats",
         "ignore_index": "count", "label_smoothing": "number", "reduction": "choice"},
        ("linear_bias", "weight"), fine=("ignore_index: negative",),
    ),
    "ctc_loss": Row(
        gl.ctc_loss, CTC,
        {"log_probs": "floats", "targets": "ids", "input_lengths": "lengths", "target_lengths": "lengths",
         "blank": "count", "reduction": "choice", "zero_infinity": "flag"},
    ),
    # -- functions on arrays
    "functional.linear": Row(
        F.linear, {"x": floats(B, D), "weight": floats(H, D), "bias": floats(H)},
        {"x": "floats", "weight": "floats", "bias": "floats"}, ("bias",), fine=("x: no axis",),
    ),
    "functional.embedding": Row(
        F.embedding, {"ids": np.arange(B), "table": floats(5, 2)},
        {"ids": "raw ids", "table": "floats", "padding_idx": "count"}, ("padding_idx",),
        fine=("padding_idx: negative",),
    ),
    "functional.dropout": Row(
        F.dropout, {"x": floats(B, D), "rate": 0.5, "seed": 1}, {"x": "any shape", "rate": "number", "seed": "count"},
    ),
    "functional.variational_dropout": Row(
        F.variational_dropout, {"x": floats(T, B, D), "rate": 0.5, "seed": 1},
        {"x": "floats", "rate": "number", "seed": "count"},
    ),
    "functional.attention": Row(
        lambda query, keys, values=None, **given: F.attention(query, keys, values, kind="dot", **given),
        {"query": floats(B, D), "keys": floats(T, B, D)},
        {"query": "floats", "keys": "floats", "values": "floats", "lengths": "lengths", "mask": "mask"},
        ("values", "lengths", "mask"),
    ),
    "functional.mse": Row(F.mse, LOSS, {"input": "any shape", "target": "floats", "reduction": "choice"}),
    "functional.huber": Row(
        F.huber, LOSS, {"input": "any shape", "target": "floats", "delta": "number", "reduction": "choice"}
    ),
    "functional.binary_cross_entropy_with_logits": Row(
        F.binary_cross_entropy_with_logits, LOSS,
        {"input": "any shape", "target": "floats", "weight": "any shape", "pos_weight": "any shape"},
        ("weight", "pos_weight"),
    ),
    "functional.cross_entropy": Row(
        F.cross_entropy, CLASSES, {"input": "floats", "target": "raw ids", "weight": "floats"}, ("weight",)
    ),
    "functional.linear_cross_entropy": Row(
        F.linear_cross_entropy, HEAD,
        {"input": "floats", "linear_weight": "floats", "target": "raw ids", "linear_bias": "floats",
         "weight": "floats"}, ("linear_bias", "weight"),
    ),
    "functional.ctc_loss": Row(F.ctc_loss, CTC, {"log_probs": "floats", "targets": "ids", "input_lengths": "lengths"}),
    **{f"functional.{name}": Row(getattr(F, name), {"x": floats(B, D)}, {"x": "any shape", "axis": "choice"})
       for name in ("softmax", "log_softmax")},
    "functional.gelu": Row(F.gelu, {"x": floats(B, D)}, {"x": "any shape", "approximate": "choice"}),
    "functional.activation": Row(
        lambda x: F.activation(x, form=gl.ELU().form), {"x": floats(B, D)}, {"x": "any shape"}
    ),
    "functional.layer_norm": Row(
        F.layer_norm, {"x": floats(B, D), "weight": floats(D), "bias": floats(D)},
        {"x": "floats", "weight": "floats", "bias": "floats"}, ("weight", "bias"),
    ),
    "functional.recurrent": Row(
        recurrent_call, {"x": floats(T, B, D), **weights(4)}, ARRAYS | SEQUENCE,
        ("h0", "c0", "b_ih", "b_hh", "lengths", "mask", "reset"),
    ),
    "functional.trace": Row(
        trace_call, {"x": floats(T, B, D), **weights(4)}, ARRAYS | SEQUENCE,
        ("h0", "c0", "b_ih", "b_hh", "lengths", "mask", "reset"),
    ),
    "functional.minimal": Row(
        F.minimal, {"x": floats(T, B, D), "h0": floats(B, H), "w_ih": floats(3 * H, D), "b_ih": floats(3 * H)},
        {"x": "floats", "h0": "floats", "w_ih": "floats", "b_ih": "floats", "cell": "choice"} | SEQUENCE,
        ("h0", "b_ih", "lengths", "mask", "reset"),
    ),
    "functional.Noise": Row(F.Noise, {"rate": 0.1, "seed": 1}, {"rate": "number", "seed": "count"}, ("seed",)),
    # -- training
    "SGD": optimiser(gl.SGD, ("lr", "momentum", "dampening", "weight_decay"), ("nesterov",)),
    "Adagrad": optimiser(gl.Adagrad, ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps")),
    "RMSprop": optimiser(gl.RMSprop, ("lr", "alpha", "eps", "weight_decay", "momentum"), ("centered",)),
    "Adam": optimiser(gl.Adam, ("lr", "eps", "weight_decay", "betas"), ("amsgrad",)),
    "AdamW": optimiser(gl.AdamW, ("lr", "eps", "weight_decay", "betas"), ("amsgrad",)),
    "clip_grad_norm": Row(
        clipped(gl.clip_grad_norm), {"max_norm": 1.0},
        {"parameters": "parameters", "max_norm": "number", "error_if_nonfinite": "flag"}, ("parameters",),
    ),
    "clip_grad_value": Row(
        clipped(gl.clip_grad_value), {"clip_value": 1.0}, {"parameters": "parameters", "clip_value": "number"},
        ("parameters",),
    ),
    "GradScaler": Row(
        gl.GradScaler, {},
        {"init_scale": "number", "growth_factor": "number", "backoff_factor": "number", "growth_interval": "size",
         "enabled": "flag"},
    ),
    "precision": Row(gl.precision, {"name": "bf16"}, {"name": "choice"}),
    "ConstantLR": Row(
        lambda optimizer, **given: gl.ConstantLR(optimizer, **given), {"optimizer": optimizer()},
        {"optimizer": "optimizer", "factor": "number", "total_iters": "count"},
    ),
    "StepLR": Row(
        gl.StepLR, {"optimizer": optimizer(), "step_size": 2},
        {"optimizer": "optimizer", "step_size": "size", "gamma": "number"},
    ),
    "CosineWarmup": Row(
        gl.CosineWarmup, {"optimizer": optimizer(), "warmup_steps": 1, "total_steps": 9},
        {"optimizer": "optimizer", "warmup_steps": "count", "total_steps": "size", "min_lr": "number"},
    ),
    "ReduceLROnPlateau": Row(
        gl.ReduceLROnPlateau, {"optimizer": optimizer()},
        {"optimizer": "optimizer", "mode": "choice", "factor": "number", "patience": "count", "threshold": "number",
         "threshold_mode": "choice", "cooldown": "count", "min_lr": "number", "eps": "number"},
    ),
    # -- data
    "data.pad_sequences": Row(
        gl.data.pad_sequences, {"sequences": [[1, 2], [3]]},
        {"sequences": "sequences", "value": "value", "batch_first": "flag"},
    ),
    "data.Batches": Row(
        lambda columns, **given: gl.data.Batches(columns, **given), {"columns": [[1], [2]], "batch_size": 1},
        {"columns": "sequences", "batch_size": "size", "generator": "generator", "drop_last": "flag",
         "value": "value", "batch_first": "flag"}, ("generator", "batch_first"),
    ),
    "data.Windows": Row(
        gl.data.Windows, {"series": np.arange(9), "window": 2, "batch_size": 2},
        {"series": "series", "targets": "series", "window": "size", "batch_size": "size", "ahead": "count",
         "stride": "size", "horizon": "size", "generator": "generator", "drop_last": "flag", "batch_first": "flag"},
        ("targets", "stride", "horizon", "generator"),
    ),
    "data.Streams": Row(
        gl.data.Streams, {"series": np.arange(9), "streams": 2, "window": 2},
        {"series": "series", "targets": "series", "streams": "size", "window": "size", "ahead": "count",
         "fill": "value", "drop_last": "flag", "batch_first": "flag"}, ("targets", "fill"),
    ),
    "data.LazyStreams": Row(
        gl.data.LazyStreams, {"series": np.arange(9), "streams": 2, "window": 2},
        {"series": "series", "streams": "size", "window": "size", "ahead": "count", "fill": "value",
         "drop_last": "flag", "batch_first": "flag"}, ("fill",),
    ),
    "data.Streams.share": Row(
        gl.data.Streams(np.arange(9), 2, 2).share, {"rank": 0, "size": 1}, {"rank": "count", "size": "size"},
    ),
    # -- the rest
    "check_cell": Row(
        gl.check_cell, {"cell": "rnn"}, {"cell": "choice", "seed": "count"},
    ),
    "device": Row(gl.device, {"name": "cpu"}, {"name": "device"}, names={"name": "device"}),
    "as_dtype": Row(gl.as_dtype, {"dtype": "float32"}, {"dtype": "dtype"}),
    "manual_seed": Row(seeded, {"seed": 0}, {"seed": "count"}),
    "set_num_threads": Row(threads, {"n": 2}, {"n": "size"}),
    "get_num_threads": Row(gl.get_num_threads, {}, {}),
    "io.save_arrays": Row(
        io.save_arrays, {"path": "/", "arrays": {}}, {"path": "path", "arrays": "listed"}, fine=("arrays: dict",)
    ),
    "io.load_arrays": Row(io.load_arrays, {"path": "/"}, {"path": "path"}),
    "io.atomic_write": Row(io.atomic_write, {"path": "/", "write": print}, {"path": "path", "write": "listed"}),
    "save": Row(lambda path: gl.save(path, {}), {"path": "/"}, {"path": "path"}),
    "load": Row(gl.load, {"path": "/"}, {"path": "path"}),
    "io.check_writable": Row(io.check_writable, {"path": "/"}, {"path": "path"}),
}  # fmt: skip

# What takes anything, is no function of the user's, or has tests of these things elsewhere.
ELSEWHERE = {
    "Forecaster", "LanguageModel", "SequenceClassifier", "Transcriber", "Translator",  # the tests of the labs
    "Module", "Sequential", "Tensor", "tensor", "apply", "concatenate", "stack", "no_grad",  # test_tape, test_nn
    "enable_grad", "Device", "Trainer", "explain", "functional", "io", "data", "labs", "parallel", "plot", "train",
    "io.keras", "io.onnx", "io.torch", "data.Passes",
}  # fmt: skip


def cases() -> list:
    """(row, argument, the bad value's name) of all rows."""
    found = []
    for name, row in TABLE.items():
        for argument, kind in row.kinds.items():
            for bad, value in BAD[kind].items():
                if (value is None and argument in row.optional) or f"{argument}: {bad}" in row.fine:
                    continue
                found.append(pytest.param(row, argument, value, id=f"{name}-{argument}-{bad}"))
    return found


@pytest.mark.parametrize("row", [row for name, row in TABLE.items() if row.good.get("path") != "/"])
def test_the_calls_work_as_they_stand(row):
    row.call(**row.good)


@pytest.mark.parametrize(("row", "argument", "bad"), cases())
def test_what_does_not_fit_is_named(row, argument, bad):
    with pytest.raises(GpulstmError, match=rf"^({row.names.get(argument, argument)})(\[\d+\])*: expected ") as caught:
        row.call(**{**row.good, argument: bad})
    assert type(caught.value) is not GpulstmError


# -- what fits though it looks otherwise ----------------------------------------------------------------------


def arrays_of(row: Row) -> list[str]:
    return [name for name, value in row.good.items() if isinstance(value, np.ndarray) and name != "series"]


WITH_ARRAYS = [pytest.param(name, row, id=name) for name, row in TABLE.items() if arrays_of(row)]


def same(got: Any, want: Any) -> bool:
    """Whether two results are equal, pullbacks aside."""
    if isinstance(want, tuple):
        return len(got) == len(want) and all(map(same, got, want))
    if isinstance(want, dict):
        return got.keys() == want.keys() and all(same(got[name], want[name]) for name in want)
    if isinstance(want, gl.Tensor):
        return same(got.numpy(), want.numpy())
    if isinstance(want, np.ndarray):
        return got.dtype == want.dtype and np.array_equal(got, want)
    return True


@pytest.mark.parametrize(("name", "row"), WITH_ARRAYS)
def test_arrays_that_cannot_be_written_to_are_read(name, row):
    if name == "Parameter":
        return  # test_optim_states.py: it is to be written to
    good = {key: np.array(value) if isinstance(value, np.ndarray) else value for key, value in row.good.items()}
    for key in arrays_of(row):
        good[key].flags.writeable = False
    if "ropout" not in name:  # which draws anew
        assert same(row.call(**good), row.call(**row.good))


@pytest.mark.parametrize(("name", "row"), WITH_ARRAYS)
def test_arrays_of_the_other_byte_order(name, row):
    """Layers and functions on Tensors convert, with equal results; functions on raw arrays, and Parameters, refuse."""
    for argument in arrays_of(row):
        other = row.good[argument].astype(row.good[argument].dtype.newbyteorder())
        given = {**row.good, argument: other}
        if name.startswith("functional.") or name == "Parameter":
            with pytest.raises(DTypeError, match=f"^{argument}: expected this machine's byte order, got .*astype"):
                row.call(**given)
        elif "ropout" not in name:
            assert same(row.call(**given), row.call(**row.good))
        else:
            row.call(**given)


MOVING = ("Attention(dot)()", "maximum", "minimum", "where", "mse", "huber", "binary_cross_entropy_with_logits",
          "cross_entropy", "linear_cross_entropy")  # fmt: skip


@pytest.mark.parametrize(("name", "row"), WITH_ARRAYS)
def test_arrays_on_another_device(emulated, name, row):
    """The argument is named; for a layer it is the one that is not where the weights are, with what mends it.

    Functions on Tensors move what is on the host to the GPU.
    """
    names = arrays_of(row)
    weights = name.endswith("()") and name not in WITHOUT_WEIGHTS
    if len(names) + weights < 2:
        return  # one array is where it is
    for argument in names:
        there = gl.tensor(row.good[argument], device="cuda").data
        if name in MOVING:
            with gl.explain() as runs:
                row.call(**{**row.good, argument: there})
            assert len(runs.moved) == len(names) - 1
            continue
        wanted = argument if weights and "dot" not in name else "|".join(names)
        with pytest.raises(
            DeviceError, match=rf"^({wanted}): expected (cpu|cuda:0), the device of \w+, got .*gl.tensor\("
        ):
            row.call(**{**row.good, argument: there})


@pytest.mark.parametrize("dtype", ["float64", "float16"])
@pytest.mark.parametrize(("name", "row"), WITH_ARRAYS)
def test_floats_of_two_types(name, row, dtype):
    """They are named, and a layer's weights say which type is right."""
    arguments = {key: row.good[key] for key in arrays_of(row) if row.good[key].dtype == np.float32}
    states = [key for key in row.kinds if key.startswith("s") and key[1:].isdecimal()]
    arguments |= dict.fromkeys(states, floats(B, H) if "Cell" in name else floats(1, B, H))
    weights = name.endswith("()") and name not in WITHOUT_WEIGHTS
    if len(arguments) + weights < 2:
        return  # one array has the type it has
    for argument, array in arguments.items():
        wanted = row.names.get(argument, argument) if weights and "dot" not in name else r"\w+"
        why = "the type of the weights" if weights else ""
        with pytest.raises(DTypeError, match=rf"^{wanted}: expected (one dtype|\w+).*{why}"):
            row.call(**{**row.good, argument: array.astype(dtype)})


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_counts_may_be_numpys(row):
    counts = [name for name, kind in row.kinds.items() if kind in ("count", "size") and row.good.get(name, -1) >= 0]
    for kind in (np.int64, np.uint8):
        row.call(**{**row.good, **{name: kind(row.good[name]) for name in counts}}) if counts else None


def test_sizes_of_small_types_do_not_wrap():
    x = floats(T, B, 100)
    layer = gl.LSTM(np.uint8(100), np.int8(100), np.uint8(2), proj_size=np.int8(70), bidirectional=True, **CPU)
    assert layer.weight_ih_l1.shape == (400, 140) and layer(x)[0].shape == (T, B, 140)
    assert gl.LSTMCell(np.uint8(100), np.uint8(100), **CPU)(x[0])[0].shape == (B, 100)
    assert gl.Linear(np.uint8(100), np.uint8(200), **CPU)(x).shape == (T, B, 200)
    assert gl.Embedding(np.uint8(200), np.uint8(100), np.uint8(3), **CPU)([199, 3]).shape == (2, 100)
    assert gl.Attention(np.uint8(100), np.uint8(100), "concat", np.uint8(130), **CPU).weight.shape == (130, 200)


@pytest.mark.parametrize("name", [name for name in F.__all__ if name not in ("Noise", "explain")])
def test_functions_on_arrays_take_no_tensors(name):
    row = TABLE[f"functional.{name}"]
    for argument in arrays_of(row):
        with pytest.raises(
            DTypeError, match=f"^{argument}: expected a NumPy or CuPy array, got Tensor; pass its .data"
        ):
            row.call(**{**row.good, argument: gl.tensor(row.good[argument])})


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ("abc", DTypeError, "x: expected booleans, integers or floating numbers, got <U3"),
        (None, DTypeError, "x: expected booleans, integers or floating numbers, got object"),
        (1j, DTypeError, "x: expected booleans, integers or floating numbers, got complex128"),
        ([2**70], DTypeError, "x: expected booleans, integers or floating numbers, got object"),
        (np.array(["a"]), DTypeError, "x: expected booleans, integers or floating numbers, got <U1"),
        (np.ma.ones(2), DTypeError, "x: expected a plain array, got a MaskedArray"),
        ([[1], [2, 3]], ShapeError, "x: expected equal lengths in a list, got .* see gl.data.pad_sequences"),
    ],
)
def test_what_is_no_tensor(bad, error, message):
    with pytest.raises(error, match=f"^{message}"):
        gl.tensor(bad)


def test_numbers_that_an_integer_type_cannot_hold():
    for bad, dtype in (([300], "int8"), (-1, "uint8"), ([0.5], "int64"), ([np.nan], int), ([2**63], "int64")):
        with pytest.raises(DTypeError, match=r"^x: expected whole numbers from "):
            gl.tensor(bad, dtype=dtype)
    for good, dtype in (
        ([127, -128], "int8"),
        ([2**62 + 1], "int64"),
        ([2.0], "uint8"),
        ([2**63], "uint64"),
        ([], int),
    ):
        assert gl.tensor(good, dtype=dtype).numpy().tolist() == good


def test_axes_and_sizes():
    x = gl.tensor(floats(B, D))
    assert x.max(axis=np.int64(1)).shape == (B,) and x.sum(axis=[0, np.int8(1)]).shape == ()
    assert x.reshape(np.int64(D), np.uint8(B)).transpose(np.int64(1), 0).shape == (B, D)
    for bad in ("a", True, 1.0, 2, -3):
        for call in (
            lambda axis: x.sum(axis=axis), lambda axis: x.max(axis=axis), lambda axis: x.argmax(axis=axis),
            lambda axis: x.softmax(axis=axis), lambda axis: x.squeeze(axis=axis), lambda axis: x.cumsum(axis=axis),
            lambda axis: gl.concatenate([x, x], axis=axis),
        ):  # fmt: skip
            with pytest.raises(ShapeError, match=r"^axis: expected "):
                call(bad)
    for bad in ("a", 1.5, None, True):
        with pytest.raises(ShapeError, match=r"^shape: expected sizes, one of which may be -1, got "):
            x.reshape(bad, 2)
    for join in (gl.concatenate, gl.stack):
        for bad in ("ab", None, 3, {}):
            with pytest.raises(DTypeError, match=r"^tensors: expected a list of Tensors or arrays, got "):
                join(bad)
        with pytest.raises(DTypeError, match=r"^arrays\[1\]: expected a NumPy or CuPy array, got NoneType"):
            join([x, None])


def test_names_of_arguments_through_apply():
    def scaled(values, *factors):
        return values, lambda d: (d,)

    with pytest.raises(DTypeError, match=r"^values: expected an array or a Tensor, got str; make one with gl\.tensor"):
        gl.apply(scaled, "abc", floats(2))
    with pytest.raises(DTypeError, match=r"^factors\[1\]: expected an array or a Tensor, got list"):
        gl.apply(scaled, floats(2), floats(2), [1.0])
    with pytest.raises(DTypeError, match=r"^inputs\[0\]: expected an array or a Tensor, got dict"):
        gl.apply(max, {}, floats(2))
    with pytest.raises(
        DTypeError, match=r"^fn: expected a function of arrays that returns \(value, pullback\), got None"
    ):
        gl.apply(None, floats(2))


def test_everything_public_has_a_row():
    public = {
        name
        for name in gl.__all__
        if not (isinstance(getattr(gl, name), type) and issubclass(getattr(gl, name), Exception))
    }
    public |= {f"functional.{name}" for name in F.__all__}
    public |= {f"data.{name}" for name in gl.data.__all__} | {f"io.{name}" for name in io.__all__}
    rows = {name.partition("(")[0] for name in TABLE}
    assert public - rows - ELSEWHERE == set(), "expected a row in TABLE for each of these"
    assert not ELSEWHERE - public and not ELSEWHERE & rows

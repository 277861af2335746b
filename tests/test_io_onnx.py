"""ONNX: the published operator cases, random operators and whole models against onnxruntime, files that lie."""

import dataclasses
import importlib
import io
import sys
import warnings

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.cells import gru
from gpulstm.errors import DTypeError, FormatError, ShapeError
from gpulstm.io.onnx.read import tensor_array
from gpulstm.io.onnx.size import LARGEST, check_size
from tests.conftest import require
from tests.tolerances import assert_close

onnx = require("onnx")
onnxruntime = require("onnxruntime")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

pytestmark = pytest.mark.oracle
RTOL = 1e-5  # float32, a handful of steps: 1e-7 times the sums of both sides
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
OUTPUTS = {"LSTM": ("Y", "Y_h", "Y_c"), "GRU": ("Y", "Y_h"), "RNN": ("Y", "Y_h")}
# ONNX' activations with parameters that keep a few steps in bounds.
ACTIVATIONS = {
    "Relu": (None, None), "Tanh": (None, None), "Sigmoid": (None, None), "Affine": (0.4, 0.1), "LeakyRelu": (0.2, None),
    "ThresholdedRelu": (0.3, None), "ScaledTanh": (0.8, 0.7), "HardSigmoid": (0.3, 0.4), "Elu": (0.6, None),
    "Softsign": (None, None), "Softplus": (None, None),
}  # fmt: skip


def run(model, **feeds) -> list[np.ndarray]:
    """The model's outputs from onnxruntime, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    data = model.SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(None, feeds)


def published() -> list:
    """ONNX' cases for recurrent operators; each has a model of one node, inputs and outputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("gru", "lstm", "rnn"):  # collect_testcases would run those of all operators, for seconds
            importlib.import_module(f"onnx.backend.test.case.node.{name}")
    cases = importlib.import_module("onnx.backend.test.case.node")._NodeTestCases
    return [case for case in cases if case.model.graph.node[0].op_type in GATES]


CASES = published()


def parts(case) -> tuple[np.ndarray, dict, dict]:
    """(X, the other inputs by name, the outputs by name) of a published case."""
    inputs, outputs = case.data_sets[0]
    given = dict(zip((value.name for value in case.model.graph.input), inputs, strict=True))
    wanted = dict(zip((value.name for value in case.model.graph.output), outputs, strict=True))
    return given.pop("X"), given, wanted


def test_all_the_published_cases_are_there():
    assert len(CASES) == 18


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_published_case_through_import(case):
    X, values, wanted = parts(case)
    (operator,) = gl.io.onnx.load(case.model, values).operators.values()
    got = dict(zip(OUTPUTS[operator.kind], operator.run(X), strict=True))
    for name, want in wanted.items():
        assert_close(got[name], want, name, RTOL)
    if operator.direction == "reverse":
        with pytest.raises(FormatError, match="reverse"):
            operator.layer()
        return
    output, states = operator.layer()(X, operator.states, lengths=operator.sequence_lens)
    assert_close(as_output(got["Y"], operator.layout), output, "output", RTOL)
    first = states[0] if operator.kind == "LSTM" else states
    assert_close(got["Y_h"] if operator.layout == 0 else got["Y_h"].swapaxes(0, 1), first, "h_n", RTOL)


def as_output(Y: np.ndarray, layout: int = 0) -> np.ndarray:
    """ONNX' Y (T, directions, B, H) or (B, T, directions, H) as a layer's output."""
    Y = Y.transpose(0, 2, 1, 3) if layout == 0 else Y
    return Y.reshape(*Y.shape[:2], -1)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_published_case_through_export(case):
    X, values, wanted = parts(case)
    (operator,) = gl.io.onnx.load(case.model, values).operators.values()
    model = gl.io.onnx.export(operator)
    evaluate = onnx.reference.ReferenceEvaluator(model).run if operator.layout else None  # onnxruntime has no layout 1
    outputs = evaluate(None, {"X": X}) if evaluate else run(model, X=X)
    got = dict(zip(OUTPUTS[operator.kind], outputs, strict=True))
    for name, want in wanted.items():
        assert_close(got[name], want, name, RTOL)


def test_a_layer_of_batches_first_runs_where_the_operator_does_not():
    (case,) = (case for case in CASES if case.name == "test_lstm_batchwise")
    X, values, wanted = parts(case)
    (operator,) = gl.io.onnx.load(case.model, values).operators.values()
    (output,) = run(gl.io.onnx.export(operator.layer()), x=X)
    assert_close(output, as_output(wanted["Y"], 1), "output", RTOL)


def operator_model(kind: str, arrays: dict, inputs=("X", "initial_h", "initial_c", "sequence_lens"), **attributes):
    """A model of one node; arrays that are not among ``inputs`` stand in it."""
    names = ["X", "W", "R", "B", "sequence_lens", "initial_h", *(["initial_c", "P"] if kind == "LSTM" else [])]
    node = helper.make_node(
        kind, [name if name in arrays else "" for name in names], list(OUTPUTS[kind]), name="layer", **attributes
    )
    number = helper.np_dtype_to_tensor_dtype
    graph = helper.make_graph(
        [node], "one",
        [helper.make_tensor_value_info(n, number(a.dtype), a.shape) for n, a in arrays.items() if n in inputs],
        [helper.make_tensor_value_info(name, number(arrays["X"].dtype), None) for name in OUTPUTS[kind]],
        [numpy_helper.from_array(a, n) for n, a in arrays.items() if n not in inputs],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


def random_operator(kind: str, seed: int) -> tuple[dict, dict]:
    """(arrays, attributes) with every option of the operator drawn."""
    rng = np.random.default_rng([seed, GATES[kind]])
    maybe = lambda: rng.random() < 0.5  # noqa: E731
    direction = ("forward", "reverse", "bidirectional")[seed % 3]
    K, G, H, D = 1 + (direction == "bidirectional"), GATES[kind], int(rng.integers(1, 6)), int(rng.integers(1, 5))
    T, B = int(rng.integers(1, 6)), int(rng.integers(1, 4))
    shapes = {"X": (T, B, D), "W": (K, G * H, D), "R": (K, G * H, H)}
    shapes |= {"B": (K, 2 * G * H)} if maybe() else {}
    shapes |= {"initial_h": (K, B, H)} if maybe() else {}
    if kind == "LSTM":
        shapes |= ({"initial_c": (K, B, H)} if maybe() else {}) | ({"P": (K, 3 * H)} if maybe() else {})
    arrays = {name: rng.uniform(-0.8, 0.8, shape).astype(np.float32) for name, shape in shapes.items()}
    if maybe():
        arrays["sequence_lens"] = rng.integers(1, T + 1, B).astype(np.int32)
    attributes: dict = {"hidden_size": H, "direction": direction}
    if maybe():
        attributes["clip"] = 0.4
    if seed % 4:
        one = [str(name) for name in rng.choice(list(ACTIVATIONS), {"LSTM": 3, "GRU": 2, "RNN": 1}[kind])]
        other = one if maybe() else [str(name) for name in rng.choice(list(ACTIVATIONS), len(one))]
        names = attributes["activations"] = [*one, *(other if K == 2 else [])]
        for key, place in (("activation_alpha", 0), ("activation_beta", 1)):
            values = [ACTIVATIONS[name][place] for name in names if ACTIVATIONS[name][place] is not None]
            attributes |= {key: values} if values else {}
    if kind != "RNN":
        attributes["input_forget" if kind == "LSTM" else "linear_before_reset"] = int(maybe())
    return arrays, attributes


@pytest.mark.parametrize("seed", range(16))
@pytest.mark.parametrize("kind", GATES)
def test_random_operator_runs_as_in_onnxruntime(kind, seed):
    arrays, attributes = random_operator(kind, seed)
    model = operator_model(kind, arrays, **attributes)
    given = {name: a for name, a in arrays.items() if name in ("sequence_lens", "initial_h", "initial_c")}
    wanted = dict(zip(OUTPUTS[kind], run(model, X=arrays["X"], **given), strict=True))
    operator = gl.io.onnx.load(model.SerializeToString()).operators["layer"]
    check(operator.run(arrays["X"], **given), wanted, "run")

    states, lengths = any(name.startswith("initial") for name in given), "sequence_lens" in given
    again = gl.io.onnx.export(operator, states=states, lengths=lengths)
    zeros = np.zeros((len(operator.weights), arrays["X"].shape[1], operator.hidden_size), np.float32)
    feeds = {**{name: zeros for name in ("initial_h", "initial_c")[: len(OUTPUTS[kind]) - 1] if states}, **given}
    check(run(again, X=arrays["X"], **feeds), wanted, "export")

    if attributes["direction"] == "reverse" or len(set(operator.activations)) > 1:
        with pytest.raises(FormatError, match="for a layer"):
            operator.layer()
        return
    layer = operator.layer()
    first = [feeds[name] for name in ("initial_h", "initial_c") if name in feeds] or None
    options = {"lengths": given.get("sequence_lens")}
    output, _ = layer(arrays["X"], first[0] if first and kind != "LSTM" else first, **options)
    assert_close(output, as_output(wanted["Y"]), "layer", RTOL)
    feeds = {"x": arrays["X"]} | {f"{name[-1]}_0": feeds[name] for name in feeds if name.startswith("initial")}
    feeds |= {"lengths": given["sequence_lens"]} if lengths else {}
    exported = gl.io.onnx.export(layer, states=states, lengths=lengths)
    assert_close(run(exported, **feeds)[0], as_output(wanted["Y"]), "exported layer", RTOL)


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name not in ("Affine", "ScaledTanh")])
def test_activation_without_parameters(name):
    """As in onnxruntime, but for ThresholdedRelu: ONNX' text has 1, and onnxruntime takes 0."""
    arrays = {"X": np.linspace(-4, 4, 32, dtype=np.float32).reshape(32, 1, 1)}
    arrays |= {"W": np.ones((1, 1, 1), np.float32), "R": np.zeros((1, 1, 1), np.float32)}
    model = operator_model("RNN", arrays, activations=[name], hidden_size=1)
    operator = gl.io.onnx.load(model).operators["layer"]
    want, got = run(model, X=arrays["X"])[0], operator.run(arrays["X"])[0]
    assert_close(got, want * (want > 1) if name == "ThresholdedRelu" else want, name, RTOL)
    lower = operator_model("RNN", arrays, activations=[name.lower()], hidden_size=1)
    assert gl.io.onnx.load(lower).operators["layer"].activations == operator.activations


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", GATES)
def test_batches_first_and_states_in_the_file(kind, seed):
    arrays, attributes = random_operator(kind, 4 * seed)
    wanted = run(operator_model(kind, arrays, inputs=("X",), **attributes), X=arrays["X"])
    swapped = {"X", "initial_h", "initial_c"}
    turned = {name: array.swapaxes(0, 1).copy() if name in swapped else array for name, array in arrays.items()}
    model = operator_model(kind, turned, inputs=("X",), layout=1, **attributes)
    wanted = [wanted[0].transpose(2, 0, 1, 3), *(state.swapaxes(0, 1) for state in wanted[1:])]
    operator = gl.io.onnx.load(model).operators["layer"]
    check(operator.run(turned["X"]), dict(zip(OUTPUTS[kind], wanted, strict=True)), "run")
    again = gl.io.onnx.load(gl.io.onnx.export(operator)).operators[kind.lower()]
    check(again.run(turned["X"]), dict(zip(OUTPUTS[kind], wanted, strict=True)), "exported")
    if operator.direction != "reverse":
        output, _ = operator.layer()(turned["X"], operator.states, lengths=operator.sequence_lens)
        assert_close(output, as_output(wanted[0], 1), "layer", RTOL)


def test_an_operator_runs_where_x_is(device):
    arrays, attributes = random_operator("LSTM", 8)  # both directions, its own activations aside
    attributes.pop("clip", None)
    wanted = run(operator_model("LSTM", arrays, inputs=("X",), **attributes), X=arrays["X"])
    operator = gl.io.onnx.load(operator_model("LSTM", arrays, inputs=("X",), **attributes)).operators["layer"]
    got = operator.run(device.asarray(arrays["X"]))
    assert all(gl.backend.backend_of(value).name == device.name for value in got)
    check(got, dict(zip(OUTPUTS["LSTM"], wanted, strict=True)), device.name)
    layer = gl.LSTM(2, 3, device="cuda" if device.is_cuda else "cpu", generator=generator())
    x = generator().standard_normal((4, 2, 2), np.float32)
    assert_close(run(gl.io.onnx.export(layer), x=x)[0], layer(device.asarray(x))[0], "layer", RTOL)


def check(got, wanted: dict, what: str) -> None:
    for (name, want), value in zip(wanted.items(), got, strict=True):
        assert_close(value, want, f"{what}, {name}", RTOL)


# -- whole models --------------------------------------------------------------------------------------------


def generator() -> np.random.Generator:
    return np.random.default_rng(7)


def layers_in_a_row(name: str, **options) -> gl.Module:
    """A classifier of every token, or a forecast."""
    made = {"device": "cpu", "generator": generator()}
    recurrent = getattr(gl.nn, name)(5, 6, 2, dropout=0.3, **options, **made)
    head = gl.Linear(recurrent.output_size, 7, **made)
    return gl.Sequential(gl.Embedding(11, 5, **made), gl.Sequential(gl.Dropout(0.2), recurrent), gl.Dropout(), head)


def axes(value) -> list:
    """The sizes of an input or output of a model, or their names."""
    return [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]


MODELS = {
    "lstm": ("LSTM", {}),
    "lstm of batches first": ("LSTM", {"batch_first": True}),
    "lstm in both directions": ("LSTM", {"bidirectional": True}),
    "lstm in both directions of batches first": ("LSTM", {"bidirectional": True, "batch_first": True}),
    "lstm without biases": ("LSTM", {"bias": False}),
    "lstm with summed directions": ("LSTM", {"bidirectional": True, "merge": "sum"}),
    "lstm with the mean of directions": ("LSTM", {"bidirectional": True, "merge": "mean"}),
    "lstm with multiplied directions": ("LSTM", {"bidirectional": True, "merge": "mul"}),
    "gru": ("GRU", {}),
    "gru that resets before": ("GRU", {"reset": "before", "bidirectional": True}),
    "gru with Cho's sign": ("GRU", {"update": "cho"}),
    "gru with Cho's sign that resets before": ("GRU", {"update": "cho", "reset": "before", "bias": False}),
    "rnn": ("RNN", {"bidirectional": True}),
    "rnn of relu with a clip": ("RNN", {"nonlinearity": "relu", "clip": 0.2}),
    "peepholes": ("PeepholeLSTM", {"bidirectional": True}),
    "coupled": ("CoupledLSTM", {}),
    "coupled without biases": ("CoupledLSTM", {"bias": False, "bidirectional": True}),
    "general": (
        "GeneralLSTM",
        {"activations": ("hard_sigmoid", "leaky_relu", ("scaled_tanh", 0.8, 0.7)), "clip": 0.3, "peepholes": True},
    ),
    "general, coupled": ("GeneralLSTM", {"activations": ("sigmoid", ("elu", 0.5, None), "tanh"), "coupled": True}),
}


@pytest.mark.parametrize("name", MODELS)
def test_whole_model_runs_as_in_onnxruntime(name):
    kind, options = MODELS[name]
    model = layers_in_a_row(kind, **options).eval()
    exported = gl.io.onnx.export(model)
    first = ["batch", "time"] if options.get("batch_first") else ["time", "batch"]
    assert [axes(value) for value in (exported.graph.input[0], exported.graph.output[0])] == [first, [*first, 7]]
    for shape in ((4, 3), (1, 1), (2, 6)):  # the axes are dynamic
        ids = generator().integers(0, 11, shape)
        assert_close(run(exported, ids=ids)[0], model(ids), name, RTOL)


@pytest.mark.parametrize("softmax", ["softmax", "log_softmax"])
def test_softmax_over_the_last_axis(softmax):
    model = layers_in_a_row("LSTM").eval()
    ids = generator().integers(0, 11, (4, 3))
    logits = model(ids).numpy().astype(np.float64)
    want = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    (got,) = run(gl.io.onnx.export(model, softmax=softmax), ids=ids)
    assert_close(got, (want if softmax == "softmax" else np.log(want)).astype(np.float32), softmax, RTOL)


def test_states_and_lengths_go_in_and_out():
    rng = generator()
    lstm = gl.LSTM(5, 6, 3, bidirectional=True, device="cpu", generator=rng)
    x, h_0, c_0 = (rng.standard_normal(shape, np.float32) for shape in ((4, 3, 5), (6, 3, 6), (6, 3, 6)))
    lengths = np.array([2, 4, 1], np.int32)
    output, (h_n, c_n) = lstm(x, (h_0, c_0), lengths=lengths)
    model = gl.io.onnx.export(lstm, states=True, lengths=True)
    assert [value.name for value in model.graph.input] == ["x", "lengths", "h_0", "c_0"]
    assert [value.name for value in model.graph.output] == ["output", "h_n", "c_n"]
    got = run(model, x=x, h_0=h_0, c_0=c_0, lengths=lengths)
    for name, value, want in zip(("output", "h_n", "c_n"), got, (output, h_n, c_n), strict=True):
        assert_close(value, want, name, RTOL)


def test_axes_have_their_names_where_batches_come_first():
    gru = gl.GRU(3, 4, 2, batch_first=True, device="cpu")
    model = gl.io.onnx.export(gru, states=True, lengths=True)
    assert [axes(value) for value in model.graph.input] == [["batch", "time", 3], ["batch"], [2, "batch", 4]]
    assert [axes(value) for value in model.graph.output] == [["batch", "time", 4], [2, "batch", 4]]
    operator = gl.io.onnx.load(gl.io.onnx.export(gl.GRU(3, 4, device="cpu"))).operators["l0.gru"]
    model = gl.io.onnx.export(dataclasses.replace(operator, layout=1), states=True)
    assert [axes(value) for value in model.graph.input] == [["batch", "time", 3], ["batch", 1, 4]]
    assert [axes(value) for value in model.graph.output] == [["batch", "time", 1, 4], ["batch", 1, 4]]


def test_states_in_a_sequential_have_the_names_of_their_layers():
    model = gl.Sequential(gl.GRU(3, 4, 2, device="cpu"), gl.LSTM(4, 2, device="cpu"))
    exported = gl.io.onnx.export(model, states=True)
    assert [value.name for value in exported.graph.input] == ["x", "0.h_0", "1.h_0", "1.c_0"]
    assert [value.name for value in exported.graph.output] == ["output", "0.h_n", "1.h_n", "1.c_n"]
    assert [axes(value) for value in exported.graph.output] == [
        ["time", "batch", 2],
        [2, "batch", 4],
        [1, "batch", 2],
        [1, "batch", 2],
    ]


def test_a_model_given_as_a_function():
    made = {"device": "cpu", "generator": generator()}
    encoder, decoder, head = gl.GRU(3, 4, **made), gl.GRU(2, 4, **made), gl.Linear(4, 5, bias=False, **made)

    def describe(graph, source, target):
        _, state = graph.apply(encoder, source, name="encoder.")
        output, _ = graph.apply(decoder, target, state, name="decoder.")
        logits = graph.elementwise("Tanh", graph.apply(head, output, name="head."))
        return {"logits": logits, "best": graph.log_softmax(logits)}

    inputs = [gl.io.onnx.Input("source", ("steps", "batch", 3)), gl.io.onnx.Input("target", ("time", "batch", 2))]
    exported = gl.io.onnx.export(describe, inputs)
    assert {"encoder.l0.W", "decoder.l0.R", "head.weight_transposed"} <= {t.name for t in exported.graph.initializer}
    source, target = (generator().standard_normal(shape, np.float32) for shape in ((6, 2, 3), (4, 2, 2)))
    _, state = encoder(source)
    want = gl.tanh(head(decoder(target, state)[0]))
    assert_close(run(exported, source=source, target=target)[0], want, "logits", RTOL)


@pytest.mark.parametrize("padding", [None, "lengths", "mask"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", ["additive", "dot", "general", "concat", "scaled_dot"])
def test_attention_runs_as_in_onnxruntime(kind, batch_first, padding):
    """Many queries and one, with values and without, lengths with a zero, padding that is no number."""
    rng, size = generator(), 4 if kind in ("dot", "scaled_dot") else 3
    options = {} if kind in ("dot", "general", "scaled_dot") else {"attention_size": 6}
    layer = gl.Attention(4, size, kind, batch_first=batch_first, device="cpu", generator=rng, **options)
    queries, keys, values = (rng.standard_normal((n, 3, d), np.float32) for n, d in ((2, 4), (5, size), (5, 2)))
    lengths = np.array([3, 0, 5])
    mask = np.arange(5)[:, None] < lengths
    if padding:
        keys[~mask] = values[~mask] = np.nan
    if batch_first:
        queries, keys, values, mask = (a.swapaxes(0, 1).copy() for a in (queries, keys, values, mask))
    first = ("batch", "time") if batch_first else ("time", "batch")
    given = {} if padding is None else {padding: {"lengths": lengths, "mask": mask}[padding]}
    leading = {"lengths": ("batch",), "mask": first}
    inputs = [gl.io.onnx.Input(name, leading[name], array.dtype.name) for name, array in given.items()]

    def describe(graph, query, keys, values=None, *padded):
        context, weights = graph.apply(layer, query, keys, values, **dict(zip(given, padded, strict=True)))
        return {"context": context, "weights": weights}

    for query in (queries, queries[:, 0] if batch_first else queries[0]):
        steps = ("steps", "batch") if not batch_first else ("batch", "steps")
        asked = gl.io.onnx.Input("query", ((*steps, 4) if query.ndim == 3 else ("batch", 4)))
        looked = [gl.io.onnx.Input("keys", (*first, size)), gl.io.onnx.Input("values", (*first, 2))]
        exported = gl.io.onnx.export(describe, [asked, *looked, *inputs])
        shown = [axes(value) for value in exported.graph.output]
        assert shown == ([[*steps, 2], [*steps, "time"]] if query.ndim == 3 else [["batch", 2], ["batch", "time"]])
        got = run(exported, query=query, keys=keys, values=values, **given)
        want = layer(query, keys, values, **given)
        for name, value, wanted in zip(("context", "weights"), got, want, strict=True):
            assert_close(value, wanted, name, RTOL)
    without = gl.io.onnx.export(lambda graph, q, k: graph.apply(layer, q, k)[0], [asked, looked[0]])
    clean = np.nan_to_num(keys)
    assert_close(run(without, query=query, keys=clean)[0], layer(query, clean)[0], "context of the keys", RTOL)


def test_a_translator_with_attention():
    made = {"device": "cpu", "generator": generator()}
    embedding, encoder, decoder = gl.Embedding(9, 4, **made), gl.LSTM(4, 5, **made), gl.LSTM(4, 5, **made)
    attention, head = gl.Attention(5, 5, "general", **made), gl.Linear(10, 9, **made)

    def translate(source, target, lengths):
        seen, state = encoder(embedding(source), lengths=lengths)
        output, _ = decoder(embedding(target), state)
        context, _ = attention(output, seen, lengths=lengths)
        return head(gl.concatenate([context, output], axis=2))

    def describe(graph, source, target, lengths):
        seen, state = graph.apply(encoder, graph.apply(embedding, source), lengths=lengths)
        output, _ = graph.apply(decoder, graph.apply(embedding, target), state)
        context, _ = graph.apply(attention, output, seen, lengths=lengths)
        return graph.apply(head, graph.concatenate([context, output], axis=2))

    Input = gl.io.onnx.Input
    inputs = [Input("source", ("time", "batch"), "int64"), Input("target", ("steps", "batch"), "int64")]
    exported = gl.io.onnx.export(describe, [*inputs, Input("lengths", ("batch",), "int32")])
    source, target = (generator().integers(0, 9, (n, 3)) for n in (6, 4))
    lengths = np.array([6, 2, 4], np.int32)
    want = translate(source, target, lengths)
    assert_close(run(exported, source=source, target=target, lengths=lengths)[0], want, "logits", RTOL)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_weights_keep_their_type(dtype):
    lstm = gl.LSTM(3, 4, device="cpu", dtype=dtype)
    (operator,) = gl.io.onnx.load(gl.io.onnx.export(lstm).SerializeToString()).operators.values()
    for name, array in lstm.state_dict().items():
        kept = operator.weights[0][name.removesuffix("_l0")]
        assert kept.dtype == dtype and np.array_equal(kept, array), name


@pytest.mark.parametrize("name", [name for name, (_, options) in MODELS.items() if "merge" not in options])
def test_what_was_exported_comes_back_as_a_layer(name):
    kind, options = MODELS[name]
    layer = getattr(gl.nn, kind)(5, 6, 2, **options, device="cpu", generator=generator())
    file = gl.io.onnx.load(gl.io.onnx.export(layer).SerializeToString())
    again = file.layer(*file.operators, batch_first=layer.batch_first)
    assert type(again) is (gl.nn.GeneralLSTM if kind == "CoupledLSTM" else type(layer))
    x = generator().standard_normal((4, 3, 5), np.float32)
    assert_close(again(x)[0], layer(x)[0], name, RTOL)


def test_a_file_is_written_and_read(tmp_path):
    lstm = gl.LSTM(3, 4, 2, device="cpu", generator=generator())
    gl.io.onnx.save(tmp_path / "a.onnx", lstm, states=True)
    gl.io.onnx.save(tmp_path / "b.onnx", lstm, states=True)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b.onnx"]
    file = gl.io.onnx.load(tmp_path / "a.onnx")
    assert type(file.layer("l0.lstm", "l1.lstm")) is gl.LSTM
    for name, array in file.layer("l0.lstm", "l1.lstm").state_dict().items():
        assert np.array_equal(array, lstm.state_dict()[name]), name
    assert "l1.lstm: Operator(LSTM 'l1.lstm', 4, 4, forward, open initial_h, open initial_c)" in repr(file)


@pytest.mark.parametrize("kind", GATES)
def test_a_layer_that_pytorch_exported(kind):
    torch = require("torch")
    torch.manual_seed(0)
    theirs, x, file = getattr(torch.nn, kind)(5, 6, 2, bidirectional=True), torch.randn(4, 3, 5), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the way to export that needs no further package
        torch.onnx.export(theirs.eval(), (x,), file, dynamo=False)
    ours = gl.io.onnx.load(file.getvalue())
    layer = ours.layer(*ours.operators)
    assert type(layer) is getattr(gl.nn, kind)
    assert_close(layer(x.numpy())[0], theirs(x)[0].detach().numpy(), kind, RTOL)


def test_weights_may_pass_through_constants_and_identities():
    arrays, attributes = random_operator("GRU", 4)
    model = operator_model("GRU", arrays, **attributes)
    (tensor,) = (t for t in model.graph.initializer if t.name == "R")
    model.graph.initializer.remove(tensor)
    model.graph.node.insert(0, helper.make_node("Constant", [], ["there"], value=tensor))
    model.graph.node.insert(1, helper.make_node("Identity", ["there"], ["R"]))
    want = gl.io.onnx.load(operator_model("GRU", arrays, **attributes)).operators["layer"].weights
    file = gl.io.onnx.load(model)
    assert file.others == ["Constant", "Identity"]
    assert np.array_equal(file.operators["layer"].weights[0]["weight_hh"], want[0]["weight_hh"])


class Doubled(gl.Linear):
    """A layer that computes something else than the one it extends."""

    def forward(self, x):
        return super().forward(x) * 2


REFUSED = {
    "^0.: want one of the layers Sequential.* got Doubled": lambda: gl.Sequential(Doubled(3, 4)),
    "proj_size=2": lambda: gl.LSTM(3, 4, proj_size=2),
    "zoneout": lambda: gl.LSTM(3, 4, regularize=gl.Zoneout(0.1)),
    "PeepholeLSTM: want .* diagonal": lambda: gl.nn.PeepholeLSTM(3, 4, peepholes="full"),
    "update='torch'": lambda: gl.Recurrent(gru.cell(update="cho", activations=("relu", "tanh")), 3, 4),
    "LayerNormLSTM": lambda: gl.nn.LayerNormLSTM(3, 4),
    "SLSTM": lambda: gl.nn.SLSTM(3, 4),
    "bfloat16": lambda: gl.LSTM(3, 4, dtype="bfloat16"),
    "^0.: want one of the layers .* got LSTMCell": lambda: gl.Sequential(gl.LSTMCell(3, 4)),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_onnx_has_not_is_refused(words):
    with pytest.raises(FormatError, match=words):
        gl.io.onnx.export(REFUSED[words]())


def test_bad_arguments_are_named():
    lstm = gl.LSTM(3, 4, device="cpu")
    with pytest.raises(FormatError, match="softmax: want None"):
        gl.io.onnx.export(lstm, softmax="max")
    with pytest.raises(DTypeError, match="model: want a layer"):
        gl.io.onnx.export(lambda graph, x: x)
    with pytest.raises(ShapeError, match="three axes"):
        gl.io.onnx.export(lstm, gl.io.onnx.Input("x", ("batch", 3)))
    with pytest.raises(FormatError, match="a name for each recurrent layer"):
        twice = lambda graph, x: {"a": graph.apply(lstm, x)[0], "b": graph.apply(lstm, x)[0]}  # noqa: E731
        gl.io.onnx.export(twice, gl.io.onnx.Input("x", ("time", "batch", 3)), states=True)
    with pytest.raises(FormatError, match="output 'x'"):
        gl.io.onnx.export(lambda graph, x: {"x": x}, gl.io.onnx.Input("x", ("batch", 3)))
    (operator,) = gl.io.onnx.load(gl.io.onnx.export(lstm)).operators.values()
    with pytest.raises(ShapeError, match=r"initial_h: want \(1, 2, 4\)"):
        operator.run(np.zeros((5, 2, 3), np.float32), initial_h=np.zeros((1, 3, 4), np.float32))
    with pytest.raises(ShapeError, match=r"initial_h: .* = \(directions, batch, hidden\)"):
        operator.run(np.zeros((5, 2, 3), np.float32), initial_h=np.zeros((1, 2, 3), np.float32))
    with pytest.raises(ShapeError, match=r"X: want \(T, B, D\)"):
        operator.run(np.zeros((5, 3), np.float32))
    turned = dataclasses.replace(operator, layout=1)
    with pytest.raises(ShapeError, match=r"initial_h: want \(2, 1, 4\) = \(batch, directions, hidden\)"):
        turned.run(np.zeros((2, 5, 3), np.float32), initial_h=np.zeros((1, 2, 4), np.float32))
    with pytest.raises(ShapeError, match=r"X: want \(B, T, D\)"):
        turned.run(np.zeros((5, 3), np.float32))
    with pytest.raises(DTypeError, match=r"source: want a path, bytes or an onnx\.ModelProto, got int"):
        gl.io.onnx.load(5)
    gru_operator = gl.io.onnx.load(stranger("GRU")).operators["layer"]
    with pytest.raises(ShapeError, match="initial_c: a GRU has none"):
        gru_operator.run(np.zeros((4, 2, 3), np.float32), initial_c=np.zeros((1, 2, 2), np.float32))


def test_levels_of_a_layer_must_fit():
    made = {"device": "cpu", "generator": generator()}
    two = gl.Sequential(gl.LSTM(3, 3, **made), gl.LSTM(3, 3, bias=False, **made), gl.LSTM(3, 4, **made))
    file = gl.io.onnx.load(gl.io.onnx.export(two))
    first, second, third = file.operators
    with pytest.raises(FormatError, match=r"want weight_ih, weight_hh, bias_ih, bias_hh, as '0\.l0\.lstm' has"):
        file.layer(first, second)
    with pytest.raises(FormatError, match=r"want hidden_size 3, as '0\.l0\.lstm' has, got 4"):
        file.layer(first, third)
    with pytest.raises(FormatError, match=r"want one of the operators 0\.l0\.lstm, .*, got ''"):
        file.layer()
    wide = gl.io.onnx.load(gl.io.onnx.export(gl.Sequential(gl.LSTM(2, 3, **made), gl.LSTM(3, 3, **made))))
    assert wide.layer(*wide.operators).num_layers == 2
    with pytest.raises(FormatError, match="want an input of 3, the level below's, got 2"):
        wide.layer(*reversed(wide.operators))


def test_inputs_that_the_file_leaves_open_are_named():
    lstm = gl.LSTM(3, 4, device="cpu")
    operator = gl.io.onnx.load(gl.io.onnx.export(lstm, states=True, lengths=True)).operators["l0.lstm"]
    assert operator.open_inputs == ("sequence_lens", "initial_h", "initial_c")
    assert "open initial_c" in repr(operator)
    assert gl.io.onnx.load(gl.io.onnx.export(lstm)).operators["l0.lstm"].open_inputs == ()


def test_a_model_larger_than_protobuf_holds_is_refused(monkeypatch):
    monkeypatch.setattr("gpulstm.io.onnx.graph.LARGEST", 4 * (16 * 3 + 16 * 4 + 32) + 8)
    lstm = gl.LSTM(3, 4, device="cpu")
    gl.io.onnx.export(lstm)
    twice = lambda graph, x: {"a": graph.apply(lstm, x)[0], "b": graph.apply(lstm, x)[0]}  # noqa: E731
    shared = gl.io.onnx.export(twice, gl.io.onnx.Input("x", ("time", "batch", 3)))
    assert [tensor.name for tensor in shared.graph.initializer] == ["l0.W", "l0.R", "l0.B", "direction_0"]
    with pytest.raises(FormatError, match="B: want arrays of at most"):
        gl.io.onnx.export(gl.LSTM(4, 4, device="cpu"))


def test_without_the_package_the_error_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match="pip install onnx"):
        gl.io.onnx.load(b"")


# -- files from strangers ------------------------------------------------------------------------------------


def stranger(kind: str = "LSTM"):
    """A whole model, to be damaged: H = 2, D = 3, one direction."""
    rng, G = generator(), GATES[kind]
    shapes = {"X": (4, 2, 3), "W": (1, G * 2, 3), "R": (1, G * 2, 2), "B": (1, G * 4), "initial_h": (1, 2, 2)}
    shapes |= {"P": (1, 6)} if kind == "LSTM" else {}
    arrays = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    arrays["sequence_lens"] = np.array([4, 2], np.int32)
    return operator_model(kind, arrays, inputs=("X",), hidden_size=2)


def tensor_of(model, name: str):
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def put(model, name: str, array) -> None:
    tensor_of(model, name).CopyFrom(numpy_helper.from_array(np.asarray(array), name))


def attribute(name: str, value):
    return lambda model: model.graph.node[0].attribute.append(helper.make_attribute(name, value))


def changed(name: str, **fields):
    def change(model) -> None:
        for field, value in fields.items():
            setattr(tensor_of(model, name), field, value)

    return change


def external(model) -> None:
    tensor_of(model, "W").ClearField("raw_data")
    entry = tensor_of(model, "W").external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    tensor_of(model, "W").data_location = 1


def huge(model) -> None:
    tensor_of(model, "R").dims[:] = [2**31, 2**31, 2**31]


def half(model) -> None:
    """float16 whose bits are no bits."""
    tensor = tensor_of(model, "B")
    tensor.ClearField("raw_data")
    tensor.data_type = 10
    tensor.int32_data.extend([70000] * 16)


def cleared(model) -> None:
    model.graph.node[0].input[1] = ""


def twice(model) -> None:
    model.graph.initializer.append(tensor_of(model, "W"))


def in_a_circle(model) -> None:
    model.graph.node[0].input[1] = "a"
    for there, back in (("a", "b"), ("b", "a")):
        model.graph.node.append(helper.make_node("Identity", [there], [back]))


def computed(model) -> None:
    model.graph.node[0].input[2] = "squares"
    model.graph.node.append(helper.make_node("Mul", ["R", "R"], ["squares"]))


DAMAGED = {
    "node 0 .LSTM 'layer'.*attributes.*got 'speed'": attribute("speed", 3),
    "clip: want a number above 0, got -1.0": attribute("clip", -1.0),
    "clip: want a number above 0, got 0.0": attribute("clip", 0.0),
    "clip: want a value in the field f, got i": attribute("clip", 1),
    "direction: want forward": attribute("direction", "sideways"),
    "hidden_size once": attribute("hidden_size", 2),
    "layout: want 0 or 1": attribute("layout", 2),
    "initial_h: want .batch, directions, hidden.": attribute("layout", 1),
    "want 3 activations for each of 1": attribute("activations", ["Tanh"]),
    "activations out of .* got 'Tan'": attribute("activations", ["Sigmoid", "Tan", "Tanh"]),
    "attributes .* got 'linear_before_reset'": attribute("linear_before_reset", 1),
    "'W': want its values in the file": external,
    "'R': want 39614081257132168796771975168": huge,
    "'B': want 64 bytes": changed("B", raw_data=b"\0" * 63),
    "'B': want one of float32": changed("B", data_type=8),
    "'B': want 16 values in float_data": lambda model: tensor_of(model, "B").ClearField("raw_data"),
    "'B': want numbers of 16 bits": half,
    "'P': want at most 8 axes": lambda model: tensor_of(model, "P").dims.__setitem__(0, 0),
    "P: want .1, 6.": lambda model: put(model, "P", np.zeros((1, 4), np.float32)),
    "B: want float32, got float64": lambda model: put(model, "B", np.zeros((1, 16))),
    "W: want float16 or": lambda model: put(model, "W", np.zeros((1, 8, 3), np.int32)),
    "W: want .1, 8, 3. for": lambda model: put(model, "W", np.zeros((1, 9, 3), np.float32)),
    "R: want .directions": lambda model: put(model, "R", np.zeros(6, np.float32)),
    "initial_h: want .directions, batch": lambda model: put(model, "initial_h", np.zeros((2, 1, 2), np.float32)),
    "initial_h: want float32": lambda model: put(model, "initial_h", np.zeros((1, 2, 2))),
    "sequence_lens: want": lambda model: put(model, "sequence_lens", np.array([1, -1], np.int32)),
    "one batch, got 2, 3": lambda model: put(model, "sequence_lens", np.array([1, 2, 3], np.int32)),
    "want the weights W": cleared,
    "initializer 'W': want each name once": twice,
    "Identity nodes in a row": in_a_circle,
    "R: want an array in the file, got 'squares'": computed,
    "want the inputs X, W": lambda model: model.graph.node[0].input.append("X"),
    "want an LSTM, GRU or RNN, got nodes Elman": lambda model: setattr(model.graph.node[0], "op_type", "Elman"),
    "got nodes mine.LSTM": lambda model: setattr(model.graph.node[0], "domain", "mine"),
    "file with no node": lambda model: model.graph.ClearField("node"),
    "want version 7 of ONNX": lambda model: setattr(model.opset_import[0], "version", 6),
    "no version of ONNX": lambda model: model.ClearField("opset_import"),
}


@pytest.mark.parametrize("words", DAMAGED)
def test_damaged_model_is_refused(words):
    model = stranger()
    assert gl.io.onnx.load(model.SerializeToString()).layer()  # it was whole before
    DAMAGED[words](model)
    with pytest.raises(FormatError, match=words):
        gl.io.onnx.load(model.SerializeToString())


@pytest.mark.parametrize(
    ("kind", "name", "alpha", "words"),
    [
        ("RNN", "Affine", [], "activation_alpha: want a finite value for Affine, got none"),
        ("RNN", "Affine", [1.0], "activation_beta: want a finite value for Affine, got none"),
        ("RNN", "Elu", [float("nan")], "activation_alpha: want a finite value"),
        ("RNN", "Elu", [1.0, 2.0], "activation_alpha: want 1 values, for Elu, got 2"),
    ],
)
def test_activation_without_its_parameters_is_refused(kind, name, alpha, words):
    model = stranger(kind)
    attribute("activations", [name])(model)
    if alpha:
        attribute("activation_alpha", alpha)(model)
    with pytest.raises(FormatError, match=words):
        gl.io.onnx.load(model)


def test_peepholes_belong_to_an_lstm():
    model = stranger("GRU")
    model.graph.node[0].input.append("W")
    with pytest.raises(FormatError, match="want the inputs X, W, R, B, sequence_lens, initial_h, got 7"):
        gl.io.onnx.load(model)


def test_a_file_of_many_small_parts_is_refused_before_it_is_parsed():
    data = stranger().SerializeToString()
    besides = len(data) - sum(len(tensor.raw_data) for tensor in stranger().graph.initializer)
    check_size(data, "file", besides)
    with pytest.raises(FormatError, match=f"file: want at most {besides - 1} bytes besides tensors, got {besides}"):
        check_size(data, "file", besides - 1)
    with pytest.raises(FormatError, match="besides tensors, got more"):
        check_size(b"\x3a\x06" + b"\x0a\x00" * 3, "file", 5)  # a graph of three empty nodes
    whole = data + b"\x09" + bytes(8) + b"\x0d" + bytes(4) + b"\x08\xff\x01"  # fields of the other kinds
    check_size(whole, "file", len(whole) - (len(data) - besides))
    assert LARGEST == 2**31 - 1
    for damaged in (data[:-1], b"\x3b" + data, b"\xff" * 11 + data):
        with pytest.raises(FormatError, match="file: not a whole ONNX file"):
            check_size(damaged, "file", len(data) - 20)


def test_a_file_larger_than_protobuf_allows_is_not_read(tmp_path, monkeypatch):
    data = stranger().SerializeToString()
    (tmp_path / "model.onnx").write_bytes(data)
    monkeypatch.setattr("gpulstm.io.onnx.read.LARGEST", len(data))
    assert gl.io.onnx.load(tmp_path / "model.onnx").operators
    monkeypatch.setattr("gpulstm.io.onnx.read.LARGEST", len(data) - 1)
    with pytest.raises(FormatError, match=f"model.onnx: want at most {len(data) - 1} bytes, got {len(data)}"):
        gl.io.onnx.load(tmp_path / "model.onnx")


@pytest.mark.parametrize(("number", "dtype"), [(10, "float16"), (16, "bfloat16"), (1, "float32"), (11, "float64")])
def test_values_that_are_no_raw_bytes(number, dtype):
    want = np.array([0.0, -1.5, 3.0, 0.25] * 4).astype(gl.as_dtype(dtype)).reshape(1, 16)
    tensor = onnx.TensorProto(name="B", data_type=number, dims=want.shape)
    if want.dtype.itemsize == 2:
        tensor.int32_data.extend(want.view(np.uint16).ravel().tolist())
    else:
        getattr(tensor, "float_data" if dtype == "float32" else "double_data").extend(want.ravel().tolist())
    for _ in range(2):
        got = tensor_array(tensor, "tensor")
        assert got.dtype == want.dtype and np.array_equal(got, want)
        tensor.raw_data = want.tobytes()
        tensor.ClearField("float_data")
    tensor.dims[:] = [1] * 7 + [16]
    assert tensor_array(tensor, "tensor").ndim == 8
    tensor.dims[:] = [1] * 8 + [16]
    with pytest.raises(FormatError, match="at most 8 axes"):
        tensor_array(tensor, "tensor")


def test_texts_that_are_no_unicode_are_shown_all_the_same():
    data = stranger().SerializeToString().replace(b"LSTM", b"LST\xff")
    with pytest.raises(FormatError, match="got nodes LST�"):
        gl.io.onnx.load(data)


def test_no_other_error_than_format_error_whatever_the_bytes():
    data, rng = stranger().SerializeToString(), generator()
    refused = 0
    for _ in range(400):
        damaged = bytearray(data[: int(rng.integers(1, len(data) + 1))] if rng.random() < 0.3 else data)
        for place in rng.integers(0, len(damaged), int(rng.integers(1, 4))):
            damaged[place] = int(rng.integers(0, 256))
        try:
            gl.io.onnx.load(bytes(damaged))
        except FormatError:
            refused += 1
    assert 100 < refused < 400

"""ONNX from layers and whole models, against onnxruntime, and what comes back as a layer."""

import dataclasses
import io
import sys
import warnings

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.cells import gru
from gpulstm.errors import DTypeError, FormatError, ShapeError
from tests.conftest import require
from tests.onnx_models import GATES, RTOL, generator, run, stranger
from tests.tolerances import assert_close

pytestmark = pytest.mark.oracle


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


class Doubled(gl.Linear):
    """A layer that computes something else than the one it extends."""

    def forward(self, x):
        return super().forward(x) * 2


REFUSED = {
    "^0.: expected one of the layers and functions Sequential.* got Doubled": lambda: gl.Sequential(Doubled(3, 4)),
    "proj_size=2": lambda: gl.LSTM(3, 4, proj_size=2),
    "zoneout": lambda: gl.LSTM(3, 4, regularize=gl.Zoneout(0.1)),
    "PeepholeLSTM: expected .* diagonal": lambda: gl.nn.PeepholeLSTM(3, 4, peepholes="full"),
    "update='torch'": lambda: gl.Recurrent(gru.cell(update="cho", activations=("relu", "tanh")), 3, 4),
    "LayerNormLSTM": lambda: gl.nn.LayerNormLSTM(3, 4),
    "SLSTM": lambda: gl.nn.SLSTM(3, 4),
    "bfloat16": lambda: gl.LSTM(3, 4, dtype="bfloat16"),
    "^0.: expected one of the layers and functions .* got LSTMCell": lambda: gl.Sequential(gl.LSTMCell(3, 4)),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_onnx_has_not_is_refused(words):
    with pytest.raises(FormatError, match=words):
        gl.io.onnx.export(REFUSED[words]())


def test_bad_arguments_are_named():
    lstm = gl.LSTM(3, 4, device="cpu")
    with pytest.raises(FormatError, match="softmax: expected None"):
        gl.io.onnx.export(lstm, softmax="max")
    with pytest.raises(DTypeError, match="model: expected a layer"):
        gl.io.onnx.export(lambda graph, x: x)
    with pytest.raises(ShapeError, match="three axes"):
        gl.io.onnx.export(lstm, gl.io.onnx.Input("x", ("batch", 3)))
    with pytest.raises(FormatError, match="different names for recurrent layers"):
        twice = lambda graph, x: {"a": graph.apply(lstm, x)[0], "b": graph.apply(lstm, x)[0]}  # noqa: E731
        gl.io.onnx.export(twice, gl.io.onnx.Input("x", ("time", "batch", 3)), states=True)
    with pytest.raises(FormatError, match="output 'x'"):
        gl.io.onnx.export(lambda graph, x: {"x": x}, gl.io.onnx.Input("x", ("batch", 3)))
    (operator,) = gl.io.onnx.load(gl.io.onnx.export(lstm)).operators.values()
    with pytest.raises(ShapeError, match=r"initial_h: expected \(1, 2, 4\)"):
        operator.run(np.zeros((5, 2, 3), np.float32), initial_h=np.zeros((1, 3, 4), np.float32))
    with pytest.raises(ShapeError, match=r"initial_h: .* = \(directions, batch, hidden\)"):
        operator.run(np.zeros((5, 2, 3), np.float32), initial_h=np.zeros((1, 2, 3), np.float32))
    with pytest.raises(ShapeError, match=r"X: expected \(T, B, D\)"):
        operator.run(np.zeros((5, 3), np.float32))
    turned = dataclasses.replace(operator, layout=1)
    with pytest.raises(ShapeError, match=r"initial_h: expected \(2, 1, 4\) = \(batch, directions, hidden\)"):
        turned.run(np.zeros((2, 5, 3), np.float32), initial_h=np.zeros((1, 2, 4), np.float32))
    with pytest.raises(ShapeError, match=r"X: expected \(B, T, D\)"):
        turned.run(np.zeros((5, 3), np.float32))
    with pytest.raises(DTypeError, match=r"source: expected a path, bytes or an onnx\.ModelProto, got int"):
        gl.io.onnx.load(5)
    gru_operator = gl.io.onnx.load(stranger("GRU")).operators["layer"]
    with pytest.raises(ShapeError, match="initial_c: expected None, as a GRU has none"):
        gru_operator.run(np.zeros((4, 2, 3), np.float32), initial_c=np.zeros((1, 2, 2), np.float32))


def test_levels_of_a_layer_must_fit():
    made = {"device": "cpu", "generator": generator()}
    two = gl.Sequential(gl.LSTM(3, 3, **made), gl.LSTM(3, 3, bias=False, **made), gl.LSTM(3, 4, **made))
    file = gl.io.onnx.load(gl.io.onnx.export(two))
    first, second, third = file.operators
    with pytest.raises(FormatError, match=r"expected weight_ih, weight_hh, bias_ih, bias_hh, as '0\.l0\.lstm' has"):
        file.layer(first, second)
    with pytest.raises(FormatError, match=r"expected hidden_size 3, as '0\.l0\.lstm' has, got 4"):
        file.layer(first, third)
    with pytest.raises(FormatError, match=r"expected one of the operators 0\.l0\.lstm, .*, got ''"):
        file.layer()
    wide = gl.io.onnx.load(gl.io.onnx.export(gl.Sequential(gl.LSTM(2, 3, **made), gl.LSTM(3, 3, **made))))
    assert wide.layer(*wide.operators).num_layers == 2
    with pytest.raises(FormatError, match="expected input size 3, from the level below, got 2"):
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
    with pytest.raises(FormatError, match="B: expected arrays of at most"):
        gl.io.onnx.export(gl.LSTM(4, 4, device="cpu"))


def test_without_the_package_the_error_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match="pip install onnx"):
        gl.io.onnx.load(b"")

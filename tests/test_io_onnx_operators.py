"""ONNX' operators: the published cases, and random ones against onnxruntime."""

import importlib
import warnings

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import FormatError
from tests.onnx_models import GATES, OUTPUTS, RTOL, generator, helper, onnx, operator_model, run
from tests.tolerances import assert_close

pytestmark = pytest.mark.oracle

# ONNX' activations with parameters that keep a few steps in bounds.
ACTIVATIONS = {
    "Relu": (None, None), "Tanh": (None, None), "Sigmoid": (None, None), "Affine": (0.4, 0.1), "LeakyRelu": (0.2, None),
    "ThresholdedRelu": (0.3, None), "ScaledTanh": (0.8, 0.7), "HardSigmoid": (0.3, 0.4), "Elu": (0.6, None),
    "Softsign": (None, None), "Softplus": (None, None),
}  # fmt: skip


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
    output, states = operator.layer(ignore_states=True)(X, operator.states, lengths=operator.sequence_lens)
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
        output, _ = operator.layer(ignore_states=True)(turned["X"], operator.states, lengths=operator.sequence_lens)
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

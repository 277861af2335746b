"""What differs between files: versions of ONNX and its operators, inputs and outputs that are left out, types."""

import itertools

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import FormatError
from tests.onnx_models import GATES, OUTPUTS, RTOL, generator, helper, numpy_helper, onnx, operator_model, run, stranger
from tests.tolerances import assert_close

pytestmark = pytest.mark.oracle


def weights_of(model) -> dict[str, np.ndarray]:
    return gl.io.onnx.load(model.SerializeToString()).operators["layer"].weights[0]


def same_as(kind: str, model) -> None:
    want, got = weights_of(stranger(kind)), weights_of(model)
    assert want.keys() == got.keys() and all(np.array_equal(got[name], want[name]) for name in want)


@pytest.mark.parametrize("version", [1, 3, 6, 7, 14, 22])
@pytest.mark.parametrize("kind", GATES)
def test_every_version_of_the_operators(kind, version):
    model = stranger(kind)
    model.opset_import[0].version = version
    if version < 7:
        model.graph.node[0].attribute.append(helper.make_attribute("output_sequence", 1))
    same_as(kind, model)


def test_files_from_before_versions_were_told():
    model = stranger()
    model.ClearField("opset_import")
    model.ir_version = 2
    same_as("LSTM", model)
    model.ir_version = 3
    with pytest.raises(FormatError, match="got a file with no version of any operators"):
        gl.io.onnx.load(model)


def test_attributes_that_do_not_tell_their_type():
    model = stranger("GRU")
    model.graph.node[0].attribute.append(helper.make_attribute("direction", "forward"))
    model.graph.node[0].attribute.append(helper.make_attribute("activations", ["Sigmoid", "Tanh"]))
    for attribute in model.graph.node[0].attribute:
        attribute.type = 0
    same_as("GRU", model)
    model.graph.node[0].attribute.add().name = "clip"
    with pytest.raises(FormatError, match="clip: expected a value in the field f, got none"):
        gl.io.onnx.load(model)


def test_operators_of_other_domains_are_named_and_not_guessed():
    for domain in ("com.microsoft", "ai.onnx.contrib"):
        model = stranger()
        model.graph.node[0].domain = domain
        with pytest.raises(FormatError, match=rf"expected an LSTM, GRU or RNN, got nodes {domain}\.LSTM"):
            gl.io.onnx.load(model)
    model = stranger()
    model.graph.node[0].op_type = "DynamicQuantizeLSTM"
    model.graph.node[0].domain = "com.microsoft"
    with pytest.raises(FormatError, match=r"got nodes com\.microsoft\.DynamicQuantizeLSTM"):
        gl.io.onnx.load(model)
    model = stranger()
    model.graph.node[0].domain = "ai.onnx"  # the other name of ONNX' own
    same_as("LSTM", model)


def test_without_hidden_size():
    model = stranger()
    (attribute,) = model.graph.node[0].attribute
    assert attribute.name == "hidden_size"
    model.graph.node[0].ClearField("attribute")
    same_as("LSTM", model)


@pytest.mark.parametrize("used", [("Y",), ("Y_h",), ("Y_c",), ("Y", "Y_c"), ()])
def test_outputs_that_nobody_uses(used):
    model = stranger()
    node = model.graph.node[0]
    node.name = ""
    node.output[:] = [name if name in used else "" for name in OUTPUTS["LSTM"]]
    file = gl.io.onnx.load(model)
    assert list(file.operators) == [used[0] if used else "LSTM_0"]
    assert len(file.layer(ignore_states=True)(np.zeros((4, 2, 3), np.float32))) == 2


OPTIONAL = ("B", "sequence_lens", "initial_h", "initial_c", "P")


@pytest.mark.parametrize("trailing", [False, True])
def test_optional_inputs_in_all_combinations(trailing):
    """Left out as empty names, and where nothing follows also by their absence."""
    whole = {tensor.name: numpy_helper.to_array(tensor) for tensor in stranger().graph.initializer}
    whole |= {"initial_c": whole["initial_h"] / 2, "X": generator().standard_normal((4, 2, 3), np.float32)}
    for given in itertools.product([False, True], repeat=len(OPTIONAL)):
        absent = [name for name, there in zip(OPTIONAL, given, strict=True) if not there]
        arrays = {name: array for name, array in whole.items() if name not in absent}
        model = operator_model("LSTM", arrays, inputs=("X",), hidden_size=2)
        names = model.graph.node[0].input
        while trailing and not names[-1]:
            names.pop()
        operator = gl.io.onnx.load(model).operators["layer"]
        for got, want in zip(operator.run(arrays["X"]), run(model, X=arrays["X"]), strict=True):
            assert_close(got, want, f"without {absent}", RTOL)
        held = tuple(name for name in OPTIONAL[1:4] if name in arrays)
        assert operator.held == held and all(f"holds {name}" in repr(operator) for name in held)


@pytest.mark.parametrize("kind", GATES)
def test_float16_is_read_and_run(kind):
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in stranger(kind).graph.initializer}
    arrays = {name: array.astype(np.float16) if array.dtype == np.float32 else array for name, array in arrays.items()}
    arrays["X"] = generator().standard_normal((4, 2, 3)).astype(np.float16)
    model = operator_model(kind, arrays, inputs=("X",), hidden_size=2)
    operator = gl.io.onnx.load(model).operators["layer"]
    for got, want in zip(operator.run(arrays["X"]), run(model, X=arrays["X"]), strict=True):
        assert got.dtype == np.float16
        assert_close(got, want, kind, 4e-3)  # a unit in the last place of float16 is 1e-3
    again = gl.io.onnx.load(gl.io.onnx.export(operator)).operators[kind.lower()]
    for name, array in operator.weights[0].items():
        assert again.weights[0][name].dtype == np.float16 and np.array_equal(again.weights[0][name], array)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"clip": 0.5}, "clip 0.5"),
        ({"layout": 1}, "layout 1"),
        ({"input_forget": 1}, "input_forget"),
        ({"activations": ["Sigmoid", "Relu", "Tanh"]}, "activations sigmoid relu tanh"),
        ({"direction": "reverse"}, "reverse"),
        ({}, "peepholes"),
    ],
)
def test_what_is_not_usual_is_shown(given, words):
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in stranger().graph.initializer}
    arrays = {name: array for name, array in arrays.items() if name in "WRBP"} | {"X": np.zeros((4, 2, 3), np.float32)}
    model = operator_model("LSTM", arrays, inputs=("X",), hidden_size=2, **given)
    assert f", {words}" in repr(gl.io.onnx.load(model).operators["layer"])


def test_layers_have_only_first_states_that_are_zero():
    model = stranger()
    states = next(tensor for tensor in model.graph.initializer if tensor.name == "initial_h")
    model.graph.node[0].input[4] = ""  # the lengths
    with pytest.raises(FormatError, match="got initial_h in the file; use run, or ignore_states=True"):
        gl.io.onnx.load(model).layer()
    states.CopyFrom(numpy_helper.from_array(np.zeros((1, 2, 2), np.float32), "initial_h"))
    file = gl.io.onnx.load(model)
    x = generator().standard_normal((4, 2, 3), np.float32)
    assert_close(file.layer()(x)[0], run(model, X=x)[0][:, 0], "zeros", RTOL)
    assert file.layer()(x[:, :1])[0].shape == (4, 1, 2)  # of any batch
    model.graph.node[0].input[4] = "sequence_lens"
    file = gl.io.onnx.load(model)
    with pytest.raises(FormatError, match="got sequence_lens in the file"):
        file.layer("layer")
    layer, operator = file.layer("layer", ignore_states=True), file.operators["layer"]
    want = run(model, X=x)[0][:, 0]
    assert_close(layer(x, operator.states, lengths=operator.sequence_lens)[0], want, "lengths", RTOL)


def test_a_model_of_another_library_around_the_operator():
    """As tf2onnx has it: batches first outside, time first inside, an axis of directions that is squeezed."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in stranger().graph.initializer}
    tensors = [numpy_helper.from_array(arrays[name], name) for name in "WRB"]
    tensors.append(numpy_helper.from_array(np.array([1]), "one"))
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["t", "W", "R", "B"], ["Y", "", ""], name="model/lstm/PartitionedCall", hidden_size=2),
        helper.make_node("Squeeze", ["Y", "one"], ["s"]),
        helper.make_node("Transpose", ["s"], ["out"], perm=[1, 0, 2]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "keras", [info("x", 1, ["b", "t", 3])], [info("out", 1, ["b", "t", 2])], tensors)
    imports = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 2)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8, producer_name="tf2onnx")
    onnx.checker.check_model(model)
    layer = gl.io.onnx.load(model.SerializeToString()).layer(batch_first=True)
    x = generator().standard_normal((2, 4, 3), np.float32)
    assert_close(layer(x)[0], run(model, x=x)[0], "tf2onnx", RTOL)

"""ONNX files from strangers: what is damaged is refused, and by name."""

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import FormatError
from gpulstm.io.onnx.proto import tensor_array
from tests.onnx_models import helper, numpy_helper, onnx, stranger

pytestmark = pytest.mark.oracle


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
    tensor_of(model, "R").dims[:] = [2**30, 2**30, 2**30]


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
    model.graph.node.append(helper.make_node("Mul", ["X", "R"], ["squares"]))


DAMAGED = {
    "node 0 .LSTM 'layer'.*attributes.*got 'speed'": attribute("speed", 3),
    "clip: expected a number above 0, got -1.0": attribute("clip", -1.0),
    "clip: expected a number above 0, got 0.0": attribute("clip", 0.0),
    "clip: expected a value in the field f, got i": attribute("clip", 1),
    "direction: expected forward": attribute("direction", "sideways"),
    "hidden_size once": attribute("hidden_size", 2),
    "layout: expected 0 or 1": attribute("layout", 2),
    "initial_h: expected .batch, directions, hidden.": attribute("layout", 1),
    "expected 3 activations for each of 1": attribute("activations", ["Tanh"]),
    "activations from .* got 'Tan'": attribute("activations", ["Sigmoid", "Tan", "Tanh"]),
    "attributes .* got 'linear_before_reset'": attribute("linear_before_reset", 1),
    "'W': expected the path of the model": external,
    "'R': expected 4951760157141521099596496896": huge,
    "'B': expected 64 bytes": changed("B", raw_data=b"\0" * 63),
    "'B': expected one of float32": changed("B", data_type=8),
    "'B': expected 16 values in float_data": lambda model: tensor_of(model, "B").ClearField("raw_data"),
    "'B': expected numbers of 16 bits": half,
    "'P': expected 0 bytes": lambda model: tensor_of(model, "P").dims.__setitem__(0, 0),
    "'P': expected at most 8 axes of sizes from 0": lambda model: tensor_of(model, "P").dims.__setitem__(0, -1),
    "W: expected no axis of zero": lambda model: put(model, "W", np.zeros((1, 8, 0), np.float32)),
    "P: expected .1, 6.": lambda model: put(model, "P", np.zeros((1, 4), np.float32)),
    "B: expected float32, got float64": lambda model: put(model, "B", np.zeros((1, 16))),
    "W: expected float16 or": lambda model: put(model, "W", np.zeros((1, 8, 3), np.int32)),
    "W: expected .1, 8, 3. for": lambda model: put(model, "W", np.zeros((1, 9, 3), np.float32)),
    "R: expected .directions": lambda model: put(model, "R", np.zeros(6, np.float32)),
    "initial_h: expected .directions, batch": lambda model: put(model, "initial_h", np.zeros((2, 1, 2), np.float32)),
    "initial_h: expected float32": lambda model: put(model, "initial_h", np.zeros((1, 2, 2))),
    "sequence_lens: expected": lambda model: put(model, "sequence_lens", np.array([1, -1], np.int32)),
    "one batch, got 2, 3": lambda model: put(model, "sequence_lens", np.array([1, 2, 3], np.int32)),
    "expected the weights W": cleared,
    "initializer 'W': expected each name once": twice,
    "does not need its own output, got a cycle": in_a_circle,
    "R: expected an array in the file or in values, got 'squares', made from 'X', an input of the model": computed,
    "expected the inputs X, W": lambda model: model.graph.node[0].input.append("X"),
    "expected an LSTM, GRU or RNN, got nodes Elman": lambda model: setattr(model.graph.node[0], "op_type", "Elman"),
    "got nodes mine.LSTM": lambda model: setattr(model.graph.node[0], "domain", "mine"),
    "file with no node": lambda model: model.graph.ClearField("node"),
    "no version of any operators": lambda model: model.ClearField("opset_import"),
    "one version of the operators of ONNX, got 22 and 7": lambda model: model.opset_import.append(
        helper.make_opsetid("ai.onnx", 7)
    ),
}


@pytest.mark.parametrize("words", DAMAGED)
def test_damaged_model_is_refused(words):
    model = stranger()
    assert gl.io.onnx.load(model.SerializeToString()).layer(ignore_states=True)  # it was whole before
    DAMAGED[words](model)
    with pytest.raises(FormatError, match=words):
        gl.io.onnx.load(model.SerializeToString())


@pytest.mark.parametrize(
    ("kind", "name", "alpha", "words"),
    [
        ("RNN", "Affine", [], "activation_alpha: expected a finite value for Affine, got none"),
        ("RNN", "Affine", [1.0], "activation_beta: expected a finite value for Affine, got none"),
        ("RNN", "Elu", [float("nan")], "activation_alpha: expected a finite value"),
        ("RNN", "Elu", [1.0, 2.0], "activation_alpha: expected 1 values, for Elu, got 2"),
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
    with pytest.raises(FormatError, match="expected the inputs X, W, R, B, sequence_lens, initial_h, got 7"):
        gl.io.onnx.load(model)


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

"""Weights that nodes make of constants, against onnxruntime, in every version of the operators that it runs."""

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import FormatError, ShapeError
from gpulstm.io.onnx.constants import OPERATORS
from gpulstm.io.onnx.scopes import Graph
from gpulstm.io.onnx.source import Source
from gpulstm.io.onnx.values import Open, Values
from tests.onnx_models import generator, helper, numpy_helper, onnx, operator_model, run, stranger

pytestmark = pytest.mark.oracle

TYPES = onnx.TensorProto
X = generator().standard_normal((4, 1, 6), np.float32)
BYTES = generator().integers(0, 256, (4, 3)).astype(np.uint8)


def ints(*values) -> np.ndarray:
    return np.array(values, np.int64)


def graph_of(kind: str, inputs: dict, opset: int, outputs: int = 1, **attributes):
    """A model of one node on arrays in the file; inputs that are None are left out."""
    names = [f"y{n}" for n in range(outputs)]
    given = [name if array is not None else "" for name, array in inputs.items()]
    node = helper.make_node(kind, given, names, **attributes)
    infos = [onnx.ValueInfoProto(name=name) for name in names]
    tensors = [numpy_helper.from_array(array, name) for name, array in inputs.items() if array is not None]
    graph = helper.make_graph([node], "one", [], infos, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def values_of(model, given=None) -> tuple[Graph, Values]:
    source = Source(model)
    graph = Graph(source)
    return graph, Values(source, graph, given)


def ours(model) -> list:
    graph, values = values_of(model)
    return [values.array(graph.main, info.name) for info in model.graph.output]


def theirs(model) -> list[np.ndarray]:
    """By onnxruntime, which must know the outputs' types."""
    return run(onnx.shape_inference.infer_shapes(model))


CASES = {
    "Constant value_float": ("Constant", {}, 13, {"value_float": 1.5}),
    "Constant value_floats": ("Constant", {}, 13, {"value_floats": [1.5, 2.0]}),
    "Constant value_int": ("Constant", {}, 13, {"value_int": 3}),
    "Constant value_ints": ("Constant", {}, 13, {"value_ints": [3, -4]}),
    "Constant value": ("Constant", {}, 7, {"value": numpy_helper.from_array(X)}),
    "Identity": ("Identity", {"x": X}, 7, {}),
    "ConstantOfShape": ("ConstantOfShape", {"s": ints(2, 3)}, 9, {}),
    "ConstantOfShape with a value": ("ConstantOfShape", {"s": ints(2)}, 9, {"value": numpy_helper.from_array(ints(7))}),
    "ConstantOfShape of no axis": ("ConstantOfShape", {"s": ints()}, 9, {}),
    "Cast to float64": ("Cast", {"x": X}, 9, {"to": TYPES.DOUBLE}),
    "Cast to float16": ("Cast", {"x": 1000 * X}, 13, {"to": TYPES.FLOAT16}),
    "Cast from float16": ("Cast", {"x": X.astype(np.float16)}, 13, {"to": TYPES.FLOAT}),
    "Cast to bfloat16 and back": ("Cast", {"x": X.astype(gl.as_dtype("bfloat16"))}, 13, {"to": TYPES.FLOAT}),
    "Cast to integers": ("Cast", {"x": 10 * X}, 13, {"to": TYPES.INT64}),
    "Cast of integers": ("Cast", {"x": BYTES}, 13, {"to": TYPES.FLOAT}),
    "Cast to bool": ("Cast", {"x": ints(0, 2, -1)}, 13, {"to": TYPES.BOOL}),
    "CastLike": ("CastLike", {"x": X, "like": ints(1)}, 19, {}),
    "Unsqueeze 11": ("Unsqueeze", {"x": X}, 11, {"axes": [0, -1]}),
    "Unsqueeze 13": ("Unsqueeze", {"x": X, "axes": ints(3, 1)}, 13, {}),
    "Squeeze 11": ("Squeeze", {"x": X}, 11, {"axes": [-2]}),
    "Squeeze 13": ("Squeeze", {"x": X, "axes": ints(1)}, 13, {}),
    "Squeeze of all": ("Squeeze", {"x": X}, 13, {}),
    "Reshape": ("Reshape", {"x": X, "s": ints(0, -1, 2)}, 13, {}),
    "Reshape with zeros allowed": ("Reshape", {"x": X[:0], "s": ints(3, 0)}, 14, {"allowzero": 1}),
    "Flatten": ("Flatten", {"x": X}, 13, {"axis": -1}),
    "Flatten of all axes": ("Flatten", {"x": X}, 13, {"axis": 3}),
    "Transpose": ("Transpose", {"x": X}, 7, {"perm": [2, 0, 1]}),
    "Transpose of all axes": ("Transpose", {"x": X}, 13, {}),
    "Slice 9": ("Slice", {"x": X}, 9, {"starts": [1, -3], "ends": [100, -1], "axes": [0, 2]}),
    "Slice 9 without axes": ("Slice", {"x": X}, 9, {"starts": [1], "ends": [3]}),
    "Slice 13": ("Slice", {"x": X, "a": ints(-1), "b": ints(-100), "axes": ints(-1), "steps": ints(-2)}, 13, {}),
    "Slice 13 without axes": ("Slice", {"x": X, "a": ints(0), "b": ints(2**62), "axes": None, "s": ints(2)}, 13, {}),
    "Split 11": ("Split", {"x": X}, 11, {"axis": 2, "split": [1, 2, 3], "outputs": 3}),
    "Split 13": ("Split", {"x": X, "sizes": ints(1, 3)}, 13, {"outputs": 2}),
    "Split 13 in equal parts": ("Split", {"x": X}, 13, {"axis": -1, "outputs": 3}),
    "Split 18": ("Split", {"x": X}, 18, {"axis": 2, "num_outputs": 4, "outputs": 4}),
    "Concat": ("Concat", {"x": X, "y": X[:1]}, 13, {"axis": 0}),
    "Concat of the last axis": ("Concat", {"x": X, "y": X, "z": X}, 7, {"axis": 2}),
    "Gather": ("Gather", {"x": X, "n": np.array([[2, -1], [0, 0]])}, 13, {"axis": 2}),
    "Gather of one": ("Gather", {"x": X, "n": np.array(1)}, 7, {}),
    "Expand": ("Expand", {"x": X, "s": ints(2, 1, 3, 1)}, 13, {}),
    "Tile": ("Tile", {"x": X, "n": ints(1, 2, 3)}, 13, {}),
    "Shape": ("Shape", {"x": X}, 13, {}),
    "Shape in part": ("Shape", {"x": X}, 15, {"start": -2, "end": 10}),
    "Neg": ("Neg", {"x": X}, 13, {}),
    "Add": ("Add", {"x": X, "y": X[:1]}, 13, {}),
    "Sub": ("Sub", {"x": ints(3, 4), "y": ints(7)}, 13, {}),
    "Mul": ("Mul", {"x": X, "y": np.array(0.3, np.float32)}, 7, {}),
    "Div": ("Div", {"x": X, "y": X[..., :1]}, 13, {}),
    "Div of integers": ("Div", {"x": ints(7, -7, 7, -7), "y": ints(2, 2, -2, -2)}, 13, {}),
    "DequantizeLinear": (
        "DequantizeLinear", {"x": BYTES, "s": np.array(0.1, np.float32), "z": np.array(128, np.uint8)}, 10, {},
    ),
    "DequantizeLinear without zero": (
        "DequantizeLinear", {"x": BYTES.view(np.int8), "s": np.array(0.1, np.float32)}, 13, {},
    ),
    "DequantizeLinear of rows": (
        "DequantizeLinear",
        {"x": BYTES.view(np.int8), "s": np.linspace(0.1, 1, 4, dtype="f"), "z": np.array([1, -2, 3, 4], np.int8)},
        13, {"axis": 0},
    ),
}  # fmt: skip


def test_every_operator_has_a_case():
    assert {kind for kind, *_ in CASES.values()} == set(OPERATORS)


@pytest.mark.parametrize("name", CASES)
def test_computed_as_in_onnxruntime(name):
    kind, inputs, opset, attributes = CASES[name]
    model = graph_of(kind, inputs, opset, **attributes)
    for got, want in zip(ours(model), theirs(model), strict=True):
        assert got.shape == want.shape and got.dtype == want.dtype
        assert np.array_equal(got, want)


def test_slices_of_all_kinds():
    rng, x = generator(), np.arange(5.0, dtype=np.float32)
    bounds = [-(2**62), -7, -6, -5, -4, -1, 0, 1, 4, 5, 6, 2**62]
    for _ in range(60):
        start, end, step = (int(rng.choice(each)) for each in (bounds, bounds, [-6, -2, -1, 1, 3]))
        model = graph_of("Slice", {"x": x, "a": ints(start), "b": ints(end), "n": ints(0), "s": ints(step)}, 13)
        assert np.array_equal(ours(model)[0], theirs(model)[0]), (start, end, step)


def chain(opset: int, ways: bool):
    """An LSTM whose W comes from parts that are cut, turned and joined, as PyTorch's exporter joins gates."""
    model = stranger()
    model.opset_import[0].version, model.ir_version = opset, 6
    (W,) = (t for t in model.graph.initializer if t.name == "W")
    (array,) = numpy_helper.to_array(W)
    model.graph.initializer.remove(W)
    model.graph.initializer.extend([numpy_helper.from_array(array.T, "turned")])
    nodes = [helper.make_node("Transpose", ["turned"], ["straight"], perm=[1, 0])]
    for number, (a, b) in enumerate(((0, 2), (2, 8))):
        if ways:
            for name, value in (("a", a), ("b", b)):
                nodes.append(
                    helper.make_node("Constant", [], [f"{name}{number}"], value=numpy_helper.from_array(ints(value)))
                )
            nodes.append(helper.make_node("Slice", ["straight", f"a{number}", f"b{number}"], [f"part{number}"]))
        else:
            nodes.append(helper.make_node("Slice", ["straight"], [f"part{number}"], starts=[a], ends=[b], axes=[0]))
    nodes.append(helper.make_node("Concat", ["part0", "part1"], ["joined"], axis=0))
    if opset < 13:
        nodes.append(helper.make_node("Unsqueeze", ["joined"], ["W"], axes=[0]))
    else:
        nodes.append(helper.make_node("Constant", [], ["first"], value_ints=[0]))
        nodes.append(helper.make_node("Unsqueeze", ["joined", "first"], ["W"]))
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    return model


@pytest.mark.parametrize(("opset", "ways"), [(1, False), (7, False), (9, False), (10, True), (13, True), (22, True)])
def test_weights_behind_nodes(opset, ways):
    want = gl.io.onnx.load(stranger()).operators["layer"]
    file = gl.io.onnx.load(chain(opset, ways).SerializeToString())
    assert np.array_equal(file.operators["layer"].weights[0]["weight_ih"], want.weights[0]["weight_ih"])
    assert {"Transpose", "Slice", "Concat", "Unsqueeze"} <= set(file.others)


def test_cast_names_its_type_in_the_first_versions():
    model = graph_of("Cast", {"x": X}, 1, to="DOUBLE")
    assert ours(model)[0].dtype == np.float64
    with pytest.raises(FormatError, match="element type 0"):
        ours(graph_of("Cast", {"x": X}, 1, to="NUMBERS"))


def bomb(count: int):
    """A chain that doubles an array at each node."""
    nodes = [helper.make_node("Concat", [f"y{n}"] * 2, [f"y{n + 1}"], axis=0) for n in range(count)]
    return helper.make_model(
        helper.make_graph(nodes, "bomb", [], [onnx.ValueInfoProto(name=f"y{count}")],
                          [numpy_helper.from_array(X, "y0")]),
        opset_imports=[helper.make_opsetid("", 13)],
    )  # fmt: skip


def turned_often(count: int):
    """A chain in which each second node has to copy the array."""
    nodes = []
    for n in range(0, 2 * count, 2):
        nodes.append(helper.make_node("Transpose", [f"y{n}"], [f"y{n + 1}"]))
        nodes.append(helper.make_node("Reshape", [f"y{n + 1}", "s"], [f"y{n + 2}"]))
    arrays = {"y0": np.ones((100, 50), np.float32), "s": ints(100, 50)}
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "bomb", [], [onnx.ValueInfoProto(name=f"y{2 * count}")], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])


BOMBS = {
    "ConstantOfShape": lambda: graph_of("ConstantOfShape", {"s": ints(2**40)}, 13),
    "Expand": lambda: graph_of("Expand", {"x": X, "s": ints(2**30, 1, 1, 1)}, 13),
    "Tile": lambda: graph_of("Tile", {"x": X, "s": ints(2**30, 2**30, 6)}, 13),
    "Gather": lambda: graph_of("Gather", {"x": np.ones((1, 20000), "f"), "n": np.zeros(5000, np.int64)}, 13),
    "Add": lambda: graph_of("Add", {"x": np.ones((20000, 1), "f"), "y": np.ones(20000, "f")}, 13),
    "Concat": lambda: bomb(40),
    "Reshape": lambda: turned_often(600),
}


@pytest.mark.parametrize("name", BOMBS)
def test_arrays_out_of_proportion_are_refused(name):
    with pytest.raises(FormatError, match="computed arrays of at most"):
        ours(BOMBS[name]())


def test_a_long_chain_and_a_name_used_many_times_are_computed_once():
    assert isinstance(ours(bomb(12))[0], np.ndarray)
    nodes = [helper.make_node("Identity", [f"y{n}"], [f"y{n + 1}"]) for n in range(3000)]
    model = bomb(0)
    model.graph.node.extend(nodes)
    model.graph.output[0].name = "y3000"
    assert np.array_equal(ours(model)[0], X)


WRONG = {
    "expected one value, got none": lambda: graph_of("Constant", {}, 13),
    "expected an array of numbers, got value_string": lambda: graph_of("Constant", {}, 13, value_string="a"),
    "axes: expected a value in the field ints, got i": lambda: graph_of("Unsqueeze", {"x": X}, 11, axes=1),
    "expected the attributes .* got 'speed'": lambda: graph_of("Squeeze", {"x": X}, 11, speed=1),
    "expected axes, got none": lambda: graph_of("Unsqueeze", {"x": X}, 13),
    "expected an axis from -5 to 4, got 7": lambda: graph_of("Unsqueeze", {"x": X}, 11, axes=[0, 7]),
    "expected inputs that fit": lambda: graph_of("Reshape", {"x": X, "s": ints(5, 5)}, 13),
    "expected inputs that fit, got others: index": lambda: graph_of("Gather", {"x": X, "n": ints(9)}, 13),
    "steps that are not 0": lambda: graph_of(
        "Slice", {"x": X, "a": ints(0), "b": ints(1), "n": ints(0), "s": ints(0)}, 13
    ),
    "expected each axis once": lambda: graph_of("Slice", {"x": X}, 9, starts=[0, 0], ends=[1, 1], axes=[0, -3]),
    "expected arrays of the same type": lambda: graph_of("Add", {"x": X, "y": ints(1)}, 13),
    "of the same shape, as before version 7": lambda: graph_of("Add", {"x": X, "y": X[:1]}, 6),
    "expected one scale": lambda: graph_of("DequantizeLinear", {"x": BYTES, "s": X[0]}, 21, block_size=2),
    "expected integers, a scale": lambda: graph_of("DequantizeLinear", {"x": X, "s": X}, 21),
    "a divisor is 0": lambda: graph_of("Div", {"x": ints(1), "y": ints(0)}, 13),
    "expected 3 parts of an axis of size 4": lambda: graph_of("Split", {"x": X, "n": ints(1, 1, 1)}, 13, outputs=3),
    "expected an axis of 3 equal parts": lambda: graph_of("Split", {"x": X}, 13, outputs=3),
    "expected 1 outputs, got 2": lambda: graph_of("Identity", {"x": X}, 13, outputs=2),
    "element type 17 .FLOAT8E4M3FN.": lambda: graph_of("Cast", {"x": X}, 19, to=TYPES.FLOAT8E4M3FN),
    "expected at most 8 axes, got more": lambda: graph_of("Unsqueeze", {"x": X}, 11, axes=[0, 1, 2, 3, 4, 5]),
    "repeats for each axis": lambda: graph_of("Tile", {"x": X, "n": ints(2)}, 13),
    "expected at most 4096 integers": lambda: graph_of("Reshape", {"x": X, "s": X}, 13),
    "got 'n', made from 'm', which a NonZero computes": lambda: None,
}


@pytest.mark.parametrize("words", WRONG)
def test_nodes_that_are_not_as_onnx_has_them_are_named(words):
    model = WRONG[words]()
    if model is None:
        model = stranger()
        model.graph.node[0].input[1] = "n"
        model.graph.node.extend([helper.make_node("Neg", ["m"], ["n"]), helper.make_node("NonZero", ["R"], ["m"])])
        with pytest.raises(FormatError, match=words):
            gl.io.onnx.load(model)
        return
    with pytest.raises(FormatError, match=words):
        ours(model)


def test_zeros_of_any_batch_are_what_an_operator_starts_from():
    """PyTorch's exporter makes the first states of the shape of x."""
    model = operator_model("GRU", {name: array for name, array in arrays_of(stranger("GRU")).items() if name in "XWRB"})
    node = model.graph.node[0]
    assert len(node.input) == 6
    node.input[5] = "h"
    made = [
        helper.make_node("Shape", ["X"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "one"], ["batch"]),
        helper.make_node("Concat", ["first", "batch", "size"], ["state"], axis=0),
        helper.make_node("ConstantOfShape", ["state"], ["zeros"]),
        helper.make_node("Expand", ["zeros", "state"], ["h"]),
    ]
    model.graph.node.extend(made)
    for name, value in (("one", 1), ("first", 1), ("size", 2)):
        model.graph.initializer.append(numpy_helper.from_array(ints(value), name))
    assert gl.io.onnx.load(model).operators["layer"].open_inputs == ()
    graph, values = values_of(model)
    assert values.array(graph.main, "h") == Open("'X', an input of the model", zeros=True)
    made[3].attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.ones(1, np.float32))))
    model.graph.node[4].CopyFrom(made[3])
    operator = gl.io.onnx.load(model).operators["layer"]
    assert operator.open_inputs == operator.any_batch == operator.held == ("initial_h",)
    assert "holds initial_h for any batch" in repr(operator)
    with pytest.raises(FormatError, match=r"expected no initial states and lengths, .* got initial_h in the file"):
        operator.layer()
    assert operator.layer(ignore_states=True)
    with pytest.raises(ShapeError, match="initial_h: expected an array, as the file computes one for any batch size"):
        operator.run(np.zeros((4, 2, 3), np.float32))
    assert operator.run(np.zeros((4, 2, 3), np.float32), initial_h=np.ones((1, 2, 2), np.float32))


def test_rows_that_the_data_choose_are_not_the_files_own():
    model = operator_model("GRU", {name: array for name, array in arrays_of(stranger("GRU")).items() if name in "XWRB"})
    model.graph.node[0].input[5] = "h"
    model.graph.node.append(helper.make_node("Gather", ["W", "X"], ["h"]))
    operator = gl.io.onnx.load(model).operators["layer"]
    assert operator.open_inputs == ("initial_h",) and operator.held == ()
    assert "open initial_h" in repr(operator) and operator.layer()


def arrays_of(model) -> dict[str, np.ndarray]:
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return arrays | {"X": np.zeros((4, 2, 3), np.float32)}

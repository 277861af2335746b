"""Recurrent operators inside branches, loops and functions of ONNX files, against onnxruntime."""

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import FormatError
from gpulstm.io.onnx.scopes import Graph
from gpulstm.io.onnx.source import Source
from tests.onnx_models import RTOL, generator, helper, numpy_helper, onnx, run
from tests.tolerances import assert_close

pytestmark = pytest.mark.oracle

TYPES = onnx.TensorProto
FLOAT, H, D, T, B = TYPES.FLOAT, 4, 3, 5, 2
INPUT = generator().standard_normal((T, B, D), np.float32)


def draw(*shape) -> np.ndarray:
    return generator().uniform(-1, 1, shape).astype(np.float32)


def weights(name: str, scale: float = 1.0) -> list:
    return [numpy_helper.from_array(scale * draw(1, 4 * H, n), f"{name}{part}") for part, n in (("W", D), ("R", H))]


def lstm(name: str, x: str = "X", W: str = "W", R: str = "R", y: str = "Y", **options):
    return helper.make_node("LSTM", [x, W, R], [y], name=name, **{"hidden_size": H, **options})


def info(name: str, shape=(T, 1, B, H), kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(nodes, tensors=(), inputs=(), functions=(), outputs=("Y",), rank: int = 4):
    graph = helper.make_graph(
        nodes,
        "outer",
        [info("X", [T, B, D]), *inputs],
        [info(name, list("abcde"[:rank])) for name in outputs],
        list(tensors),
    )
    imports = [helper.make_opsetid("", 16), helper.make_opsetid("mine", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8, functions=list(functions))
    onnx.checker.check_model(model)
    return model


def graph_of(name: str, nodes, output: str, tensors=(), inputs=(), shape=(T, 1, B, H)):
    return helper.make_graph(nodes, name, list(inputs), [info(output, shape)], list(tensors))


def check(model, names: dict, **feeds) -> None:
    """The operators have these names, and give what the model gives, each as its feeds choose it."""
    file = gl.io.onnx.load(model.SerializeToString())
    assert set(file.operators) == set(names)
    for name, own in names.items():
        want = run(model, X=INPUT, **feeds, **own)[0]
        assert_close(file.operators[name].run(INPUT)[0], want.reshape(T, 1, B, H), name, RTOL)


def branch(name: str, place: str) -> tuple:
    """(a graph with an LSTM, the tensors that it takes from outside)"""
    tensors = weights(name)
    node = lstm("lstm" if place == "inner" else "", W=f"{name}W", R=f"{name}R", y=f"{name}Y")
    inner, outer = (tensors, []) if place == "inner" else ([], tensors)
    return graph_of(name, [node], f"{name}Y", inner), outer


def test_both_branches_of_an_if():
    (then, a), (other, b) = branch("then", "inner"), branch("other", "outer")
    node = helper.make_node("If", ["c"], ["Y"], then_branch=then, else_branch=other)
    model = model_of([node], a + b, [info("c", [], TYPES.BOOL)])
    names = {"Y.then_branch.lstm": True, "Y.else_branch.otherY": False}
    check(model, {name: {"c": np.array(flag)} for name, flag in names.items()})
    assert gl.io.onnx.load(model).others == ["If"]


def test_branches_inside_branches_and_constants_of_all_the_graphs_around():
    """As in silero's voice detector: weights behind Unsqueeze, Slice and Concat of constants, rates by If."""
    W, R = (tensor for tensor in weights("w"))
    flat = numpy_helper.from_array(numpy_helper.to_array(W)[0], "flat")
    cut = [
        helper.make_node("Slice", ["flat", "zero", "eight"], ["first"]),
        helper.make_node("Slice", ["flat", "eight", "end"], ["second"]),
        helper.make_node("Constant", [], ["end"], value=numpy_helper.from_array(np.array([16]))),
    ]
    innermost = [
        helper.make_node("Concat", ["first", "second"], ["joined"], axis=0),
        helper.make_node("Unsqueeze", ["joined", "zero"], ["W"]),
        lstm("deep", R="again", y="Z"),
    ]
    numbers = [numpy_helper.from_array(np.array([n]), name) for n, name in ((0, "zero"), (8, "eight"))]
    deepest = graph_of("deepest", innermost, "Z")
    plain = graph_of("plain", [lstm("flat", W="wW", R="again", y="P")], "P", [W])
    choice = helper.make_node("If", ["d"], ["V"], name="inner", then_branch=deepest, else_branch=plain)
    middle = graph_of("middle", [helper.make_node("Identity", ["wR"], ["again"]), cut[2], *cut[:2], choice], "V")
    zero = graph_of("nothing", [helper.make_node("Expand", ["half", "sizes"], ["E"])], "E")
    outer = helper.make_node("If", ["c"], ["Y"], name="outer", then_branch=middle, else_branch=zero)
    tensors = [R, flat, *numbers, numpy_helper.from_array(np.array(0.5, np.float32), "half")]
    tensors.append(numpy_helper.from_array(np.array([T, 1, B, H]), "sizes"))
    model = model_of([outer], tensors, [info("c", [], TYPES.BOOL), info("d", [], TYPES.BOOL)])
    inside = "outer.then_branch.inner"
    names = {f"{inside}.then_branch.deep": True, f"{inside}.else_branch.flat": False}
    check(model, {name: {"d": np.array(flag)} for name, flag in names.items()}, c=np.array(True))


def test_the_body_of_a_loop():
    inputs = [info("i", [], TYPES.INT64), info("go", [], TYPES.BOOL), info("before", [1, B, H])]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("LSTM", ["X", "W", "R", "", "", "before"], ["Z", "after"], name="step", hidden_size=H),
        ],
        "body", inputs, [info("on", [], TYPES.BOOL), info("after", [1, B, H]), info("Z")],
    )  # fmt: skip
    nodes = [
        helper.make_node("Loop", ["n", "yes", "h"], ["last", "Y"], name="loop", body=body),
    ]
    tensors = [*weights(""), numpy_helper.from_array(np.array(1), "n"), numpy_helper.from_array(np.array(True), "yes")]
    tensors.append(numpy_helper.from_array(np.zeros((1, B, H), np.float32), "h"))
    model = model_of(nodes, tensors, rank=5)
    check(model, {"loop.body.step": {}})
    operator = gl.io.onnx.load(model).operators["loop.body.step"]
    assert operator.open_inputs == ("initial_h",)  # another one in each round


def test_the_body_of_a_scan():
    body = graph_of("body", [lstm("step", x="one", y="Z")], "Z", inputs=[info("one", [T, B, D])])
    nodes = [
        helper.make_node("Unsqueeze", ["X", "first"], ["series"]),
        helper.make_node("Scan", ["series"], ["Y"], name="scan", body=body, num_scan_inputs=1),
    ]
    check(
        model_of(nodes, [*weights(""), numpy_helper.from_array(np.array([0]), "first")], rank=5), {"scan.body.step": {}}
    )


def test_a_name_in_a_body_hides_the_same_one_outside():
    inputs = [info("i", [], TYPES.INT64), info("go", [], TYPES.BOOL), info("W", [1, 4 * H, D])]
    body = helper.make_graph([lstm("step", y="Z")], "body", inputs, [info("go", [], TYPES.BOOL), info("W"), info("Z")])
    nodes = [helper.make_node("Loop", ["", "", "W"], ["w", "Y"], body=body)]
    graph = helper.make_graph(nodes, "outer", [info("X", [T, B, D])], [info("Y", None)], weights(""))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)])
    with pytest.raises(
        FormatError, match=r"in w\.body, node 0 .LSTM 'step'., W: .* got 'W', an input of a loop or branch"
    ):
        gl.io.onnx.load(model)
    inner = numpy_helper.from_array(3 * draw(1, 4 * H, D), "W")
    then = graph_of("then", [lstm("lstm", y="Z")], "Z", [inner])
    node = helper.make_node("If", ["X"], ["Y"], then_branch=then, else_branch=then)
    graph = helper.make_graph([node], "outer", [info("X", [T, B, D])], [info("Y", None)], weights(""))
    file = gl.io.onnx.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)]))
    weight = file.operators["Y.then_branch.lstm"].weights[0]["weight_ih"]
    assert np.array_equal(weight[:H], numpy_helper.to_array(inner)[0, :H])


def function(name: str, inputs, nodes, outputs=("y",), attributes=(), domain: str = "mine"):
    imports = [helper.make_opsetid("", 16), helper.make_opsetid("mine", 1)]
    return helper.make_function(domain, name, list(inputs), list(outputs), nodes, imports, list(attributes))


def recurrent_function():
    """y of x and weights that it turns, with the direction as an attribute and states that a call may leave out."""
    node = helper.make_node("LSTM", ["x", "W", "r", "", "", "h"], ["y"], name="lstm", hidden_size=H)
    reference = node.attribute.add()
    reference.name, reference.ref_attr_name, reference.type = "direction", "way", onnx.AttributeProto.STRING
    turn = helper.make_node("Transpose", ["w"], ["W"], perm=[0, 2, 1])
    return function("Turned", ["x", "w", "r", "h"], [turn, node], attributes=["way"])


def turned(name: str, scale: float) -> list:
    W, R = weights(name, scale)
    return [numpy_helper.from_array(np.ascontiguousarray(numpy_helper.to_array(W).swapaxes(1, 2)), W.name), R]


def test_functions_of_the_file():
    nodes = [
        helper.make_node("Turned", ["X", "aW", "aR"], ["P"], name="a", domain="mine", way="reverse"),
        helper.make_node("Turned", ["X", "bW", "bR", "h"], ["Q"], name="b", domain="mine", way="forward"),
    ]
    state = numpy_helper.from_array(draw(1, B, H), "h")
    model = model_of(
        nodes, [*turned("a", 1.0), *turned("b", 0.5), state], functions=[recurrent_function()], outputs=("P", "Q")
    )
    file = gl.io.onnx.load(model.SerializeToString())
    assert list(file.operators) == ["a.lstm", "b.lstm"] and file.others == ["mine.Turned", "Transpose"]
    assert [operator.held for operator in file.operators.values()] == [(), ("initial_h",)]
    for operator, want in zip(file.operators.values(), run(model, X=INPUT), strict=True):
        assert_close(operator.run(INPUT)[0], want, operator.name, RTOL)


def test_a_function_in_a_branch_calls_another():
    call = helper.make_node("Turned", ["x", "w", "r"], ["y"], name="call", domain="mine", way="forward")
    outer = function("Outer", ["x", "w", "r"], [call])
    nodes = [helper.make_node("Outer", ["X", "aW", "aR"], ["Z"], name="outer", domain="mine")]
    branch = graph_of("then", nodes, "Z", turned("a", 1.0))
    node = helper.make_node("If", ["c"], ["Y"], name="if", then_branch=branch, else_branch=branch)
    other = helper.make_node("Identity", ["Y"], ["same"])
    model = model_of(
        [node, other], [], [info("c", [], TYPES.BOOL)], functions=[outer, recurrent_function()], outputs=("same",)
    )
    names = [f"if.{way}_branch.outer.call.lstm" for way in ("then", "else")]
    check(model, {name: {"c": np.array(True)} for name in names})


def test_names_are_unique():
    tensors = weights("")
    nodes = [lstm("same", y="a"), lstm("same", y="b"), lstm("", y="c"), lstm("c", y="d"), lstm("same.b", y="e")]
    graph = helper.make_graph(nodes, "outer", [info("X", [T, B, D])], [info("Y", None)], tensors)
    file = gl.io.onnx.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)]))
    assert list(file.operators) == ["same", "same.b", "c", "c.d", "same.b.e"]
    nodes = [lstm("same", y=""), lstm("same", y=""), lstm("same", y="")]
    graph = helper.make_graph(nodes, "outer", [info("X", [T, B, D])], [info("Y", None)], tensors)
    file = gl.io.onnx.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)]))
    assert list(file.operators) == ["same", "same.LSTM", "same.LSTM.2"]


def test_operators_of_the_same_weights_share_them():
    nodes = [lstm(f"step{n}", y=f"y{n}") for n in range(3)]
    graph = helper.make_graph(nodes, "outer", [info("X", [T, B, D])], [info("y0", None)], weights(""))
    file = gl.io.onnx.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)]))
    first, *others = (operator.weights[0]["weight_ih"] for operator in file.operators.values())
    assert all(other is first for other in others)


def test_a_branch_in_a_function_has_one_index_for_all_calls():
    """The index of its names may be larger than the calls are."""
    inner = graph_of("inner", [lstm("deep")], "Y")
    chosen = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    calls = [helper.make_node("f", ["X", "c", "W", "R"], [f"y{n}"], domain="mine") for n in range(3)]
    model = model_of(
        calls, weights(""), [info("c", [], TYPES.BOOL)], [function("f", ["X", "c", "W", "R"], [chosen], ["y"])], ["y0"]
    )
    nodes = [node for node in Graph(Source(model)).nodes() if node.kind == "LSTM"]
    assert len(nodes) == 6
    assert len({id(node.scope.body) for node in nodes}) == 2


def test_functions_that_multiply_or_call_themselves_are_refused_soon(monkeypatch):
    monkeypatch.setattr("gpulstm.io.onnx.scopes.MOST_NODES", 20_000)
    calls = [helper.make_node("f0", ["x"], ["y"], domain="mine")]
    deep = function("f0", ["x"], calls)
    wide = [function(f"g{n}", ["x"], [helper.make_node(f"g{n + 1}", ["x"], [f"y{k}"], domain="mine") for k in range(9)],
                     ["y0"]) for n in range(20)]  # fmt: skip
    for name, functions in (("f0", [deep]), ("g0", wide)):
        node = helper.make_node(name, ["X"], ["Y"], domain="mine")
        graph = helper.make_graph([node], "outer", [info("X", [T, B, D])], [info("Y", None)])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], functions=functions)
        with pytest.raises(
            FormatError, match="expected at most 20000 nodes, those of functions at each call, and 30 nested"
        ):
            gl.io.onnx.load(model)


def test_weights_that_multiply_are_refused(monkeypatch):
    """Views of one array look like many."""
    monkeypatch.setattr("gpulstm.io.onnx.values.BASE", 2000)
    monkeypatch.setattr("gpulstm.io.onnx.values.FACTOR", 0)
    tensors = weights("")
    nodes = []
    for n in range(40):
        nodes.append(helper.make_node("Unsqueeze", ["W"], [f"V{n}"], axes=[0]))
        nodes.append(helper.make_node("Squeeze", [f"V{n}"], [f"U{n}"], axes=[0]))
        nodes.append(lstm(f"lstm{n}", W=f"U{n}", y=f"Y{n}"))
    graph = helper.make_graph(nodes, "outer", [info("X", [T, B, D])], [info("Y0")], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)])
    with pytest.raises(FormatError, match="expected computed arrays of at most"):
        gl.io.onnx.load(model)


def test_constants_of_a_function_count_at_each_call(monkeypatch):
    monkeypatch.setattr("gpulstm.io.onnx.values.BASE", 100_000)
    monkeypatch.setattr("gpulstm.io.onnx.values.FACTOR", 0)
    wide = numpy_helper.from_array(draw(1, 4 * H, 100 * D))
    cut = [
        helper.make_node("Constant", [], ["wide"], value=wide),
        helper.make_node("Constant", [], ["zero"], value_ints=[0]),
        helper.make_node("Constant", [], ["end"], value_ints=[D]),
        helper.make_node("Constant", [], ["axis"], value_ints=[2]),
        helper.make_node("Slice", ["wide", "zero", "end", "axis"], ["W"]),
    ]
    own = function("Own", ["x", "r"], [*cut, lstm("lstm", x="x", R="r", y="y")])
    imports = [helper.make_opsetid("", 16), helper.make_opsetid("mine", 1)]
    for count in (4, 40):
        calls = [helper.make_node("Own", ["X", "R"], [f"Y{n}"], domain="mine") for n in range(count)]
        graph = helper.make_graph(calls, "outer", [info("X", [T, B, D])], [info("Y0")], weights("")[1:])
        model = helper.make_model(graph, opset_imports=imports, functions=[own])
        if count == 4:
            assert len(gl.io.onnx.load(model).operators) == 4
            continue
        with pytest.raises(FormatError, match="expected computed arrays of at most"):
            gl.io.onnx.load(model)


def test_values_are_given_for_names_that_the_graph_leaves_open():
    tensors = weights("")
    graph = helper.make_graph([lstm("lstm")], "outer", [info("X"), info("W"), info("R")], [info("Y", None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)])
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in tensors}
    assert gl.io.onnx.load(model, arrays).operators["lstm"].hidden_size == H
    with pytest.raises(
        FormatError, match="W: expected an array in the file or in values, got 'W', an input of the model"
    ):
        gl.io.onnx.load(model)
    with pytest.raises(FormatError, match="values: expected names that the recurrent operators need, got V"):
        gl.io.onnx.load(model, arrays | {"V": arrays["W"]})

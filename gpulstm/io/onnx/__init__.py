"""Reads recurrent layers from ONNX models, and exports gpulstm's models to ONNX; needs the package onnx.

>>> gl.io.onnx.save("model.onnx", gl.LSTM(3, 4))  # onnxruntime computes the same results
>>> file = gl.io.onnx.load("model.onnx")  # print(file) lists the LSTM, GRU and RNN operators
>>> file.layer("l0.lstm")  # a gl.LSTM with these weights
LSTM(3, 4)
>>> Y, Y_h, Y_c = file.operators["l0.lstm"].run(np.zeros((5, 2, 3), np.float32))  # as ONNX defines it
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gpulstm import nn
from gpulstm.errors import DTypeError, FormatError
from gpulstm.io.files import as_path, atomic_write
from gpulstm.io.onnx.attributes import STATES
from gpulstm.io.onnx.cells import layer_of
from gpulstm.io.onnx.graph import Input
from gpulstm.io.onnx.layers import Exporter
from gpulstm.io.onnx.node import read_operator
from gpulstm.io.onnx.operator import Operator
from gpulstm.io.onnx.proto import text
from gpulstm.io.onnx.recurrent import operator_nodes
from gpulstm.io.onnx.scopes import Graph, Node
from gpulstm.io.onnx.source import Source
from gpulstm.io.onnx.values import Values

__all__ = ["Exporter", "Input", "OnnxFile", "Operator", "export", "load", "save"]


MOST_OPERATORS = 5000


def load(source: Any, values: Mapping[str, Any] | None = None) -> "OnnxFile":
    """Read the LSTM, GRU and RNN operators of an ONNX file: a path, its bytes, or an onnx.ModelProto.

    Operators in branches, loops and the file's own functions are included; their names begin with their place:
    "If_0.then_branch.lstm". Weights may be initializers, constants, or computed from these by nodes such as Slice,
    Concat, Transpose, Cast and DequantizeLinear. For weights that the file does not contain, pass the arrays (...) by
    name in ``values``. Arrays in other files are read if those files are in the model's folder. Other nodes are
    skipped; the result's ``others`` lists their operators.

    Raises FormatError, naming the node and the fault, for a file that is damaged or has another format, for one without
    such an operator or with an invalid one, and for ``values`` that no operator needs; ImportError without the package
    onnx; OSError if the file cannot be read.

    >>> gl.io.onnx.save("model.onnx", gl.LSTM(3, 4))
    >>> gl.io.onnx.load("model.onnx").layer("l0.lstm")
    LSTM(3, 4)
    """
    model = Source(source)
    graph = Graph(model)
    known = Values(model, graph, values)
    operators: dict[str, Operator] = {}
    others: dict[str, None] = {}
    for node in graph.nodes():
        if node.kind not in STATES or graph.is_call(node):
            others[node.kind] = None
            continue
        if len(operators) == MOST_OPERATORS:
            raise FormatError(f"{graph.where}: expected at most {MOST_OPERATORS} recurrent operators, got more")
        name = _free_name(node, operators)
        operators[name] = read_operator(known, node, name)
    if not operators:
        raise FormatError(f"{graph.where}: expected an LSTM, GRU or RNN, got nodes {', '.join([*others][:12])}")
    if unused := set(known.given) - known.used:
        raise FormatError(f"values: expected names that the recurrent operators need, got {', '.join(sorted(unused))}")
    return OnnxFile(graph.where, operators, [*others])


def _free_name(node: Node, taken: Mapping[str, Any]) -> str:
    """The node's name after its place in the graph; with its first output added if names are not unique."""
    free = name = node.scope.path + node.name
    if free in taken:
        free = name = f"{name}.{text(next(filter(None, node.proto.output), node.kind)):.100}"
    number = len(taken)
    while free in taken:
        free, number = f"{name}.{number}", number + 1
    return free


class OnnxFile:
    """The recurrent operators of an ONNX file by name, in the file's order, as ``gl.io.onnx.load`` returns them.

    An operator has the name of its node, or of the node's first output. ``layer(name)`` makes a layer, and raises
    FormatError for an operator that no layer computes.

    >>> gl.io.onnx.save("model.onnx", gl.LSTM(3, 4))
    >>> gl.io.onnx.load("model.onnx")
    OnnxFile model.onnx
      l0.lstm: Operator(LSTM 'l0.lstm', 3, 4, forward)
      and Gather, Identity
    """

    def __init__(self, path: str, operators: dict[str, Operator], others: list[str]) -> None:
        self.path, self.operators, self.others = path, operators, others

    def layer(self, *names: str, ignore_states: bool = False, **options: Any) -> Any:
        """Make a gpulstm layer that computes the same as the operator; several operators are stacked in one layer.

        See Operator.layer. Without a name the file must have exactly one operator.
        """
        if not names and len(self.operators) == 1:
            names = tuple(self.operators)
        for name in names or ("",):
            if name not in self.operators:
                raise FormatError(
                    f"{self.path}: expected one of the operators {', '.join(self.operators)}, got {name!r}"
                )
        return layer_of([self.operators[name] for name in names], ignore_states, **options)

    def __repr__(self) -> str:
        lines = [f"  {name}: {operator!r}" for name, operator in self.operators.items()]
        lines += [f"  and {', '.join(self.others)}"] if self.others else []
        return "\n".join([f"OnnxFile {self.path}", *lines])


def export(
    model: Any, inputs: Input | Iterable[Input] | None = None, *, states: bool = False, lengths: bool = False,
    softmax: str | None = None,
) -> Any:  # fmt: skip
    """Convert a model to an onnx.ModelProto (operator set 17) that computes as in evaluation mode, for onnxruntime.

    ``model`` is a layer (Sequential, recurrent, Linear, Embedding, Dropout, attention, LayerNorm, Flatten,
    activations), an Operator, or a function ``f(graph, *inputs)`` that applies layers to the inputs and returns a
    Value, or several in a dict by name; see Exporter. A layer has the input "x" or, for an Embedding, "ids" (int64),
    with axes named time and batch in the order of the first recurrent layer, and the output "output". A Sequential may
    contain the functions gl.tanh, sigmoid, relu, exp, log, softmax and log_softmax too.

    With ``states`` the initial states of recurrent layers are inputs ("h_0", "c_0", in a Sequential after the layer's
    name: "1.h_0") and the final states are outputs ("h_n", "c_n"). With ``lengths`` there is an input "lengths"
    (batch,) int32 for all recurrent layers. Each length must be at least 1, as onnxruntime clears the states of an
    empty sequence. ``softmax`` adds a "softmax" or "log_softmax" over the last axis of the output.

    float32 and float16 weights keep their type. Raises DTypeError for layers in float64, which onnxruntime does not
    compute: export ``copy.deepcopy(model).float()``. Raises FormatError for anything that ONNX lacks (projections,
    zoneout, layer norms inside a cell, other functions, hooks, bfloat16 and more), for models larger than protobuf's
    2 GiB, and for ``states`` or ``lengths`` that no layer takes. Raises ImportError without the package onnx.

    >>> gl.io.onnx.export(gl.LSTM(3, 4)).graph.output[0].name
    'output'
    """
    if softmax not in (None, "softmax", "log_softmax"):
        raise FormatError(f"softmax: expected None, softmax or log_softmax, got {softmax!r}")
    graph = Exporter(states, lengths)
    if isinstance(model, Operator):
        _operator(graph, model)
        return graph.model()
    wanted = [inputs] if isinstance(inputs, Input) else list(inputs or [])
    if isinstance(model, nn.Module):
        wanted = wanted or [_input_of(model)]
    elif not callable(model) or not wanted:
        raise DTypeError(
            f"model: expected a layer, an Operator, or a function and its inputs, got {type(model).__name__}"
        )
    values = [graph.input(each.name, each.axes, each.dtype) for each in wanted]
    result = graph.apply(model, *values) if isinstance(model, nn.Module) else model(graph, *values)
    result = result[0] if isinstance(result, tuple) else result
    for name, value in (result if isinstance(result, dict) else {"output": result}).items():
        graph.output(name, value if softmax is None else getattr(graph, softmax)(value))
    for name, value in graph.last_states.items():
        graph.output(name, value)
    if (states and not graph.last_states) or (lengths and "lengths" not in graph.inputs):
        asked = "states" if states and not graph.last_states else "lengths"
        raise FormatError(f"{asked}: expected a model with a recurrent layer that takes them, got one without")
    return graph.model()


def save(path: str | Path, model: Any, inputs: Input | Iterable[Input] | None = None, **options: Any) -> None:
    """Export a model to an ONNX file; the arguments are those of ``export``.

    The file is replaced as a whole or not at all. Raises the errors of ``export``, and OSError if the file cannot be
    written.

    >>> gl.io.onnx.save("model.onnx", gl.LSTM(3, 4))
    """
    path = as_path(path, model)
    data = export(model, inputs, **options).SerializeToString(deterministic=True)
    atomic_write(path, lambda file: file.write(data))


def _operator(graph: Exporter, operator: Operator) -> None:
    """Build a graph of one operator, with ONNX' names for its inputs and outputs."""
    leading = ("time", "batch") if operator.layout == 0 else ("batch", "time")
    dtype = operator.weights[0]["weight_ih"].dtype.name
    x = graph.input("X", (*leading, operator.input_size), dtype)
    lengths = graph.input("sequence_lens", ("batch",), "int32") if graph.lengths else None
    K, H = len(operator.weights), operator.hidden_size
    axes = (K, "batch", H) if operator.layout == 0 else ("batch", K, H)
    names = ("initial_h", "initial_c")[: STATES[operator.kind]]
    first = [graph.input(name, axes, dtype) for name in names] if graph.states else []
    outputs = operator_nodes(graph, operator, "", x, lengths, first)
    for name, value in zip(("Y", "Y_h", "Y_c"), outputs, strict=False):
        graph.output(name, value)


def _input_of(model: nn.Module) -> Input:
    """The input of a layer or of a Sequential."""
    layers = list(_flat(model))
    recurrent = next((layer for layer in layers if isinstance(layer, nn.Recurrent)), None)
    leading: tuple[str, ...] = ("batch",)
    if recurrent is not None:
        leading = ("batch", "time") if recurrent.batch_first else ("time", "batch")
    first = next((layer for layer in layers if list(layer.own_parameters())), None)
    if isinstance(first, nn.Embedding):
        return Input("ids", leading, "int64")
    size = getattr(first, "input_size", getattr(first, "in_features", None))
    if first is None or size is None:
        raise FormatError(f"inputs: expected those of a {type(model).__name__}, as gl.io.onnx.Input, got none")
    dtype = next(parameter for _, parameter in first.own_parameters()).dtype
    return Input("x", (*leading, size), dtype.name)


def _flat(model: nn.Module) -> Iterable[nn.Module]:
    """The layers in the order of their calls."""
    if isinstance(model, nn.Sequential):
        for layer in model:
            yield from _flat(layer)
    elif isinstance(model, nn.Module):
        yield model

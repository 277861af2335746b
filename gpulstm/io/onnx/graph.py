"""Builds an ONNX model node by node: values with their axes, arrays as initializers, nodes with names."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpulstm.backend import backend_of
from gpulstm.errors import DTypeError, FormatError
from gpulstm.io.onnx.source import library
from gpulstm.io.onnx.wire import LARGEST

# Version 17 of ONNX' operators, from 2022, is old enough for current runtimes and has all operators needed here.
OPSET, IR_VERSION = 17, 8

# Operators that onnxruntime 1.23 does not compute in float64 on the processor (tried); LeakyRelu's alpha is float32.
NO_DOUBLE = {"LSTM", "GRU", "RNN", "Elu", "Erf", "LeakyRelu", "Softplus", "Softsign"}

Axes = tuple[str | int, ...]  # sizes, or names of sizes that the data decide


@dataclass(frozen=True)
class Value:
    """An array in the graph, computed by a node or an input of the model: its name, its element type and its axes."""

    name: str
    dtype: str
    axes: Axes


@dataclass(frozen=True)
class Input:
    """Describes an input of an ONNX model: its name, its axes and its element type.

    An axis is a size, or a name for a size that the data determine. Making one raises no error.

    >>> gl.io.onnx.Input("ids", ("time", "batch"), "int64")
    Input(name='ids', axes=('time', 'batch'), dtype='int64')
    """

    name: str
    axes: Axes
    dtype: str = "float32"


class Builder:
    """Builds a model: ``node`` adds a node, ``model`` returns the result."""

    def __init__(self) -> None:
        self.onnx = library()
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}
        self.inputs: dict[str, Value] = {}
        self.outputs: dict[str, Value] = {}
        self._taken: set[str] = set()
        self._bytes = 0  # of the initializers

    def unique(self, name: str) -> str:
        """The name, with a number appended if it is taken."""
        free, number = name, 1
        while free in self._taken:
            number += 1
            free = f"{name}_{number}"
        self._taken.add(free)
        return free

    def input(self, name: str, axes: Axes, dtype: str) -> Value:
        """Add an input of the model; a name that exists already returns its input."""
        if name not in self.inputs:
            self.inputs[name] = Value(self.unique(name), dtype, tuple(axes))
        return self.inputs[name]

    def output(self, name: str, value: Value) -> None:
        """Make a value an output of the model, under a name that nothing else has."""
        if name in self._taken:
            raise FormatError(f"output {name!r}: expected an unused name, got that of an input or a node")
        self.outputs[self.unique(name)] = value

    def constant(self, array: Any, name: str) -> Value:
        """Add an array of any library as an initializer; equal arrays of the same name are stored once."""
        host = np.asarray(backend_of(array).to_numpy(array), order="C")
        data = host.astype(host.dtype.newbyteorder("<")).tobytes()
        tensor = self.onnx.helper.make_tensor(name, self._type(name, host.dtype.name), host.shape, data, raw=True)
        if self.initializers.get(name) != tensor:
            self._bytes += host.nbytes
            if self._bytes > LARGEST:
                raise FormatError(
                    f"{name}: expected arrays of at most {LARGEST} bytes in all, as protobuf holds, got more"
                )
            tensor.name = self.unique(name)
            self.initializers[tensor.name] = tensor
        return Value(tensor.name, host.dtype.name, host.shape)

    def node(
        self, kind: str, *inputs: Value | None, axes: Axes, dtype: str | None = None, name: str = "", **attributes: Any
    ) -> Value:
        """Add a node with one output, and return the output; ``dtype`` defaults to the first input's."""
        return self.nodes_outputs(kind, inputs, [axes], dtype, name, **attributes)[0]

    def nodes_outputs(
        self, kind: str, inputs: Sequence[Value | None], axes: Sequence[Axes], dtype: str | None = None, name: str = "",
        **attributes: Any,
    ) -> list[Value]:  # fmt: skip
        """Add a node, and return its outputs, one for each of ``axes``."""
        name = self.unique(name or kind.lower())
        names = [self.unique(f"{name}.{n}" if len(axes) > 1 else f"{name}.out") for n in range(len(axes))]
        given = [value.name if value is not None else "" for value in inputs]
        while given and not given[-1]:
            given.pop()
        self.nodes.append(self.onnx.helper.make_node(kind, given, names, name=name, **attributes))
        kind_of = dtype or next(value.dtype for value in inputs if value is not None)
        if kind_of == "float64" and kind in NO_DOUBLE:
            want = f"float32 or float16 for a {kind}, which onnxruntime does not compute in float64"
            raise DTypeError(f"{name}: expected {want}, got float64; export copy.deepcopy(model).float()")
        return [Value(each, kind_of, tuple(shape)) for each, shape in zip(names, axes, strict=True)]

    def model(self) -> Any:
        """Return the model as onnx.ModelProto, checked by onnx, with the nodes that the outputs need."""
        helper, needed, kept = self.onnx.helper, {value.name for value in self.outputs.values()}, []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        kept.reverse()
        for name, value in self.outputs.items():
            kept.append(helper.make_node("Identity", [value.name], [name], name=self.unique(f"give_{name}")))
        graph = helper.make_graph(
            kept, "gpulstm", [self._info(value) for value in self.inputs.values()],
            [self._info(Value(name, value.dtype, value.axes)) for name, value in self.outputs.items()],
            [tensor for name, tensor in self.initializers.items() if name in needed],
        )  # fmt: skip
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="gpulstm")
        try:
            self.onnx.checker.check_model(model, full_check=True)
        except Exception as error:  # onnx raises two classes, one of them created at run time
            raise FormatError(
                f"model: expected layers that fit each other, got a model that onnx rejects: {error}"
            ) from error
        return model

    def _info(self, value: Value) -> Any:
        number = self._type(value.name, value.dtype)
        return self.onnx.helper.make_tensor_value_info(value.name, number, list(value.axes))

    def _type(self, name: str, dtype: str) -> int:
        """ONNX' number of an element type."""
        numbers = self.onnx.TensorProto.DataType
        words = {"float32": "FLOAT", "float64": "DOUBLE", "float16": "FLOAT16", "int64": "INT64", "int32": "INT32"}
        words |= {"bool": "BOOL"}
        if dtype not in words:
            advice = "; export copy.deepcopy(model).float()" if dtype == "bfloat16" else ""
            raise FormatError(f"{name}: expected one of {', '.join(words)} for onnxruntime, got {dtype}{advice}")
        return int(numbers.Value(words[dtype]))

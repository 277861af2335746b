"""ONNX files from strangers: the nodes and the arrays of a graph, every size checked before memory is taken."""

import importlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.backend import as_dtype, backend_of
from gpulstm.errors import DTypeError, FormatError
from gpulstm.io.onnx.size import LARGEST, check_size

OLDEST = 7  # version of ONNX' operators from which on LSTM, GRU and RNN are what they are
MOST_AXES = 8
RENAMED = 100  # Identity nodes in a row that are followed

# Element types by ONNX' numbers, and the field that holds their values where raw_data does not.
_TYPES = {
    1: ("float32", "float_data"),
    6: ("int32", "int32_data"),
    7: ("int64", "int64_data"),
    10: ("float16", "int32_data"),
    11: ("float64", "double_data"),
    16: ("bfloat16", "int32_data"),
}
# Fields of an attribute by ONNX' numbers of its types.
_FIELDS = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints", 8: "strings"}


def library() -> Any:
    """The package onnx; raises ImportError that says how to get it."""
    try:
        return importlib.import_module("onnx")
    except ImportError as error:
        raise ImportError("ONNX files need the package onnx (pip install onnx)") from error


class Graph:
    """The nodes of a model and the arrays in it, read when they are asked for.

    ``source`` is a path, the bytes of a file, or onnx.ModelProto; ``values`` are arrays for names that the
    graph leaves open. Raises FormatError, saying what is wrong and where.
    """

    def __init__(self, source: Any, values: Mapping[str, Any] | None = None) -> None:
        self.where, self.graph = _parsed(source)
        self.values = dict(values or {})
        self._tensors: dict[str, Any] = {}
        self._renamed: dict[str, str] = {}
        for tensor in self.graph.initializer:
            self._add(tensor.name, tensor, "initializer")
        for place, node in self.nodes("Constant"):
            tensor = attributes(node, place, {"value": "t"}, others=True).get("value")
            if tensor is not None and len(node.output) == 1:
                self._add(node.output[0], tensor, "constant")
        for _, node in self.nodes("Identity"):
            if len(node.input) == len(node.output) == 1:
                self._renamed[node.output[0]] = node.input[0]

    def _add(self, name: str, tensor: Any, kind: str) -> None:
        if name in self._tensors:
            raise FormatError(f"{self.where}, {kind} {name!r}: want each name once, got it twice")
        self._tensors[name] = tensor

    def nodes(self, *kinds: str) -> Iterator[tuple[str, Any]]:
        """(where it is, for messages; the node) of ONNX' own operators of these kinds, in the file's order."""
        for number, node in enumerate(self.graph.node):
            if node.op_type in kinds and node.domain in ("", "ai.onnx"):
                yield f"{self.where}, node {number} ({node.op_type} {text(node.name)!r})", node

    def others(self, *kinds: str) -> list[str]:
        """The operators of the remaining nodes, each once, others' with their domain."""
        names = (".".join(map(text, filter(None, (node.domain, node.op_type)))) for node in self.graph.node)
        return [name for name in dict.fromkeys(names) if name not in kinds]

    def array(self, name: str) -> np.ndarray | None:
        """The array of this name: a value given, an initializer or a constant; None for what other nodes compute."""
        for _ in range(RENAMED):
            if name in self.values:
                return backend_of(self.values[name]).to_numpy(self.values[name])
            if name in self._tensors:
                return tensor_array(self._tensors[name], f"{self.where}, tensor {name!r}")
            if name not in self._renamed:
                return None
            name = self._renamed[name]
        raise FormatError(f"{self.where}, {name!r}: want at most {RENAMED} Identity nodes in a row, got more")


def text(value: str | bytes) -> str:
    """A text of a file; protobuf gives the bytes of what is not in UTF-8."""
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _parsed(source: Any) -> tuple[str, Any]:
    """(what messages call it, the graph) of a path, bytes or a model."""
    onnx = library()
    where, model = "model", source
    if not isinstance(source, onnx.ModelProto):
        if isinstance(source, str | Path):
            where = str(source)
            if Path(source).stat().st_size > LARGEST:
                raise FormatError(f"{where}: want at most {LARGEST} bytes, got {Path(source).stat().st_size}")
            source = Path(source).read_bytes()
        if not isinstance(source, bytes):
            want = "a path, bytes or an onnx.ModelProto"
            raise DTypeError(f"source: want {want}, got {type(source).__name__}")
        check_size(source, where)
        model = onnx.ModelProto()
        decode_error = importlib.import_module("google.protobuf.message").DecodeError
        try:
            model.ParseFromString(source)
        except (decode_error, UnicodeDecodeError) as error:
            raise FormatError(f"{where}: not a whole ONNX file: {error}") from error
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not versions or not model.graph.node:
        what = "no version of ONNX' operators" if not versions else "no node"
        raise FormatError(f"{where}: want an ONNX model, got a file with {what}")
    if min(versions) < OLDEST:
        raise FormatError(f"{where}: want version {OLDEST} of ONNX' operators or a later one, got {min(versions)}")
    return where, model.graph


def tensor_array(tensor: Any, where: str) -> np.ndarray:
    """The array of a TensorProto, sizes held against the data before memory is taken; raises FormatError."""
    if tensor.data_location or tensor.external_data:
        raise FormatError(f"{where}: want its values in the file, got a reference to another file")
    if tensor.HasField("segment"):
        raise FormatError(f"{where}: want it whole, got a segment")
    if tensor.data_type not in _TYPES:
        names = ", ".join(name for name, _ in _TYPES.values())
        raise FormatError(f"{where}: want one of {names}, got ONNX' element type {tensor.data_type}")
    name, field = _TYPES[tensor.data_type]
    dims, dtype = tuple(tensor.dims), as_dtype(name) if name == "bfloat16" else np.dtype(name)
    if len(dims) > MOST_AXES or any(size <= 0 for size in dims):
        raise FormatError(f"{where}: want at most {MOST_AXES} axes, none empty, got {dims[:MOST_AXES]}")
    count, values = math.prod(dims), getattr(tensor, field)
    if tensor.HasField("raw_data"):
        got, unit, want = len(tensor.raw_data), "bytes", count * dtype.itemsize
    else:
        got, unit, want = len(values), f"values in {field}", count
    if got != want:
        raise FormatError(f"{where}: want {want} {unit} for {dims}, got {got}")
    if tensor.HasField("raw_data"):
        flat = np.frombuffer(tensor.raw_data, dtype.newbyteorder("<") if dtype.kind in "fi" else dtype)
        return flat.astype(dtype).reshape(dims)
    if name in ("float16", "bfloat16"):  # the bits of each in a number of 32
        bits = np.fromiter(values, np.int64, count)
        if bits.min() < 0 or bits.max() > 0xFFFF:
            raise FormatError(f"{where}: want numbers of 16 bits, got up to {bits.max()}")
        return bits.astype(np.uint16).view(dtype).reshape(dims)
    return np.fromiter(values, dtype, count).reshape(dims)


def attributes(node: Any, where: str, known: Mapping[str, str], others: bool = False) -> dict[str, Any]:
    """A node's attributes by name; ``known`` names each with the field of its type (f, i, s, floats, ints, strings, t).

    Texts come as str, lists as list. Raises FormatError for an attribute that is not known, unless ``others``
    may be there, of another type, or there twice.
    """
    found: dict[str, Any] = {}
    for attribute in node.attribute:
        name = attribute.name
        if name not in known:
            if others:
                continue
            raise FormatError(f"{where}: want the attributes {', '.join(sorted(known))}, got {name!r}")
        if name in found:
            raise FormatError(f"{where}: want the attribute {name} once, got it twice")
        if _FIELDS.get(attribute.type) != known[name] or attribute.ref_attr_name:
            got = _FIELDS.get(attribute.type, f"type {attribute.type}")
            raise FormatError(f"{where}, {name}: want a value in the field {known[name]}, got {got}")
        value = getattr(attribute, known[name])
        if known[name] == "s":
            value = text(value)
        elif known[name] == "strings":
            value = [text(each) for each in value]
        elif known[name] in ("floats", "ints"):
            value = list(value)
        found[name] = value
    return found

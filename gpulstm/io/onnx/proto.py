"""Reads the parts of an ONNX file: strings, attributes, tensors; sizes are checked before memory is allocated."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpulstm.dtypes import as_dtype
from gpulstm.errors import FormatError
from gpulstm.io.onnx.source import Source, library
from gpulstm.io.onnx.wire import LARGEST

MOST_AXES = 8

# Element types by ONNX' numbers, and the field that holds their values if raw_data does not.
TYPES = {
    1: ("float32", "float_data"),
    2: ("uint8", "int32_data"),
    3: ("int8", "int32_data"),
    4: ("uint16", "int32_data"),
    5: ("int16", "int32_data"),
    6: ("int32", "int32_data"),
    7: ("int64", "int64_data"),
    9: ("bool", "int32_data"),
    10: ("float16", "int32_data"),
    11: ("float64", "double_data"),
    12: ("uint32", "uint64_data"),
    13: ("uint64", "uint64_data"),
    16: ("bfloat16", "int32_data"),
}
# The field of an attribute's value by ONNX' number of its type.
_FIELDS = {
    1: "f", 2: "i", 3: "s", 4: "t", 5: "g", 6: "floats", 7: "ints", 8: "strings", 9: "tensors", 10: "graphs",
    11: "sparse_tensor",
}  # fmt: skip


def text(value: str | bytes) -> str:
    """A string of a file; protobuf returns bytes if it is not UTF-8."""
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def field_of(attribute: Any) -> str:
    """The field that holds an attribute's value; files before ONNX' second version do not name it."""
    if attribute.type:
        return _FIELDS.get(attribute.type, f"type {attribute.type}")
    return next((field.name for field, _ in attribute.ListFields() if field.name in _FIELDS.values()), "none")


def attribute_value(attribute: Any, field: str) -> Any:
    """The value in a field: strings as str, repeated values as list."""
    value = getattr(attribute, field)
    if field == "s":
        return text(value)
    if field == "strings":
        return [text(each) for each in value]
    return list(value) if field in ("floats", "ints") else value


def element_type(number: int, where: str) -> np.dtype:
    """The NumPy type for ONNX' number of an element type; raises FormatError for unsupported types."""
    if number not in TYPES:
        names, got = ", ".join(name for name, _ in TYPES.values()), f"ONNX' element type {number}"
        if number in (words := library().TensorProto.DataType).values():
            got = f"{got} ({words.Name(number)})"
        raise FormatError(f"{where}: expected one of {names}, got {got}")
    name = TYPES[number][0]
    return as_dtype(name) if name == "bfloat16" else np.dtype(name)


def tensor_array(tensor: Any, where: str, source: Source | None = None) -> np.ndarray:
    """The array of a TensorProto; raises FormatError if its sizes do not match its data.

    Sizes are checked before memory is allocated. Arrays in other files are read from the folder of ``source``.
    """
    if tensor.HasField("segment"):
        raise FormatError(f"{where}: expected a whole tensor, got a segment")
    dims, dtype = tuple(tensor.dims), element_type(tensor.data_type, where)
    if len(dims) > MOST_AXES or any(not 0 <= size <= LARGEST for size in dims):
        raise FormatError(f"{where}: expected at most {MOST_AXES} axes of sizes from 0, got {dims[:MOST_AXES]}")
    count = math.prod(dims)
    if tensor.data_location or tensor.external_data:
        raw = _outside(tensor, count * dtype.itemsize, where, source)
    elif tensor.HasField("raw_data"):
        raw = tensor.raw_data
    else:
        return _listed(tensor, count, dtype, where).reshape(dims)
    if len(raw) != count * dtype.itemsize:
        raise FormatError(f"{where}: expected {count * dtype.itemsize} bytes for {dims}, got {len(raw)}")
    if dtype.kind == "b":
        return (np.frombuffer(raw, np.uint8) != 0).reshape(dims)
    flat = np.frombuffer(raw, dtype.newbyteorder("<") if dtype.kind in "fiu" else dtype)
    return flat.astype(dtype).reshape(dims)


def _outside(tensor: Any, size: int, where: str, source: Source | None) -> bytes:
    """The bytes of a tensor that is stored in another file."""
    entries = {text(entry.key): text(entry.value) for entry in tensor.external_data}
    location = entries.get("location", "")
    numbers = {key: entries.get(key, usual) for key, usual in (("offset", "0"), ("length", str(size)))}
    for key, value in numbers.items():
        if not (value.isascii() and value.isdecimal() and len(value) < 20):
            raise FormatError(f"{where}: expected {key} as a number, got {value!r:.60}")
    if int(numbers["length"]) != size:
        raise FormatError(f"{where}: expected {size} bytes for {tuple(tensor.dims)}, got {int(numbers['length'])}")
    if source is None:
        raise FormatError(f"{where}: expected its values in the file, got a reference to another file")
    return source.outside(location, int(numbers["offset"]), size, where)


def _listed(tensor: Any, count: int, dtype: np.dtype, where: str) -> np.ndarray:
    """The values of a tensor that are stored as a list of numbers."""
    field = TYPES[tensor.data_type][1]
    values = getattr(tensor, field)
    if len(values) != count:
        raise FormatError(f"{where}: expected {count} values in {field} for {tuple(tensor.dims)}, got {len(values)}")
    if dtype.kind == "f" and dtype.itemsize > 2:
        return np.fromiter(values, dtype, count)
    numbers = np.fromiter(values, np.uint64 if field == "uint64_data" else np.int64, count)
    held = np.dtype(np.uint16) if dtype.name in ("float16", "bfloat16") else dtype  # these are stored as their bits
    bounds = (0, 1) if dtype.kind == "b" else (np.iinfo(held).min, np.iinfo(held).max)
    if count and (numbers.min() < bounds[0] or numbers.max() > bounds[1]):
        got = f"{numbers.min()} to {numbers.max()}"
        raise FormatError(f"{where}: expected numbers of {8 * held.itemsize} bits for {dtype}, got {got}")
    return numbers.astype(held).view(dtype)


def attributes(
    node: Any, where: str, known: Mapping[str, str], others: bool = False, bound: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A node's attributes by name; ``known`` maps each name to the field of its type (f, i, s, t, floats, ints, ...).

    Strings are returned as str, repeated values as list. Inside a function ``bound`` holds the attributes of its call.
    Raises FormatError for an attribute of another type or a repeated one, and for an unknown one unless ``others``.
    """
    found: dict[str, Any] = {}
    for attribute in node.attribute:
        name = text(attribute.name)
        if name not in known:
            if others:
                continue
            raise FormatError(f"{where}: expected the attributes {', '.join(sorted(known))}, got {name!r}")
        if name in found:
            raise FormatError(f"{where}: expected the attribute {name} once, got it twice")
        if attribute.ref_attr_name:
            if bound is None:
                raise FormatError(f"{where}, {name}: expected a value, got a reference outside of a function")
            attribute = bound.get(text(attribute.ref_attr_name))
            if attribute is None:
                continue  # the call does not give it
        if (got := field_of(attribute)) != known[name]:
            raise FormatError(f"{where}, {name}: expected a value in the field {known[name]}, got {got}")
        found[name] = attribute_value(attribute, known[name])
    return found

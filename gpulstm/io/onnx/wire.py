"""Counts the parts of an ONNX file before protobuf reads them.

An empty part takes two bytes in the file, and about a hundred times as many in memory.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from gpulstm.errors import FormatError

LARGEST = (1 << 31) - 1  # bytes; protobuf's own limit
# The limit for the memory of a file's parts, in addition to their own bytes.
BASE, FACTOR = 1 << 24, 10  # bytes; times the file's size
MOST_FIELDS = 2_000_000  # they take a second or two
DEEPEST = 100  # nested messages; protobuf's own limit

# Bytes of memory, measured with protobuf 7 (upb), whose lists grow by doubling, plus what this reader adds.
_MESSAGE, _NODE, _TEXT, _OUTPUT = 200, 350, 32, 232


class _Field(NamedTuple):
    """The memory that one field of a message takes."""

    cost: int  # for each element
    message: str = ""  # the type of the message that it holds
    numbers: bool = False  # whether it may be a packed list of numbers with seven bits per byte


def check_parts(data: bytes, where: str, model: Any) -> None:
    """Raises FormatError if the parts of the file ``data`` would take memory out of proportion to its size.

    ``model`` is the class onnx.ModelProto, which knows what each field holds. Raises FormatError for data that is not
    protobuf, too.
    """
    tables = dict(_tables(model.DESCRIPTOR))
    most, cost, fields = BASE + FACTOR * len(data), 0, 0
    outer: list[tuple[int, dict[int, _Field]]] = []  # where each message around this one ends
    place, end, table = 0, len(data), tables[model.DESCRIPTOR.full_name]
    while True:
        while place == end:
            if not outer:
                return
            end, table = outer.pop()
        key = data[place]
        place += 1
        if key > 127:
            key, place = _number(data, place - 1, end, where)
        fields += 1
        field = table.get(key >> 3, _UNKNOWN)
        kind, length = key & 7, 0
        cost += field.cost
        if kind == 2:
            length, place = _number(data, place, end, where)
            if field.numbers:
                inside = np.frombuffer(data, np.uint8, max(min(length, end - place), 0), place)
                cost += field.cost * int(np.count_nonzero(inside < 128))
        elif kind == 0:
            _, place = _number(data, place, end, where)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise FormatError(f"{where}: not a whole ONNX file: expected a field of protobuf, got kind {kind}")
        if place + length > end:
            raise FormatError(f"{where}: not a whole ONNX file: expected {place + length - end} bytes more")
        if cost > most or fields > MOST_FIELDS:
            raise FormatError(f"{where}: expected parts in proportion to the file of {len(data)} bytes, got too many")
        if kind == 2 and field.message:
            if len(outer) == DEEPEST:
                raise FormatError(f"{where}: expected at most {DEEPEST} messages inside each other, got more")
            outer.append((end, table))
            end, table = place + length, tables[field.message]
        else:
            place += length


_UNKNOWN = _Field(_TEXT)  # an unknown field, which protobuf keeps as bytes


def _tables(message: Any) -> Iterator[tuple[str, dict[int, _Field]]]:
    """(full name, fields by number) of a message type and of all types that it may contain."""
    left, seen = [message], {message.full_name}
    while left:
        message = left.pop()
        yield message.full_name, {field.number: _field(field) for field in message.fields}
        for field in message.fields:
            inner = field.message_type
            if inner is not None and inner.full_name not in seen:
                seen.add(inner.full_name)
                left.append(inner)


def _field(field: Any) -> _Field:
    """The cost of a field, from its protobuf descriptor."""
    if field.message_type is not None:
        name = field.message_type.full_name
        return _Field(_NODE if name.endswith(".NodeProto") else _MESSAGE, name)
    if field.cpp_type == field.CPPTYPE_STRING:
        return _Field(_OUTPUT if field.full_name.endswith(".NodeProto.output") else _TEXT)
    wide = field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64, field.CPPTYPE_DOUBLE)
    floats = field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE)
    return _Field(16 if wide else 8, numbers=not floats)


def _number(data: bytes, place: int, end: int, where: str) -> tuple[int, int]:
    """(a number in protobuf's seven bits per byte, the place after it)."""
    value = shift = 0
    while place < end and shift < 70:
        byte = data[place]
        place += 1
        if byte < 128:
            return value | byte << shift, place
        value |= (byte & 127) << shift
        shift += 7
    raise FormatError(f"{where}: not a whole ONNX file: expected the end of a number")

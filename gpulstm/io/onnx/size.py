"""Holds the size of an ONNX file against what reading it may take, before any of it is parsed."""

from collections.abc import Iterator

from gpulstm.errors import FormatError

LARGEST = (1 << 31) - 1  # bytes; protobuf's own limit
# Bytes besides the values of tensors. An empty node takes two, and a hundred once it is an object.
MOST_BESIDES = 1 << 25

# Protobuf's numbers of the fields on the way to a tensor's values.
_GRAPH, _INITIALIZER = 7, 5
_VALUES = (4, 9, 10)  # float_data, raw_data, double_data


def check_size(data: bytes, where: str, most: int = MOST_BESIDES) -> None:
    """Raises FormatError for more than ``most`` bytes besides the values of initializers, or for no protobuf."""
    besides = len(data)
    if besides <= most:
        return
    view = memoryview(data)
    for graph in _inner(view, (_GRAPH,), where, most):
        for tensor in _inner(graph, (_INITIALIZER,), where, most):
            besides -= sum(len(values) for values in _inner(tensor, _VALUES, where, most))
    if besides > most:
        raise FormatError(f"{where}: want at most {most} bytes besides tensors, got {besides}")


def _inner(message: memoryview, wanted: tuple[int, ...], where: str, most: int) -> Iterator[memoryview]:
    """The contents of a message's fields of these numbers that have a length."""
    place, others = 0, 0
    while place < len(message):
        first = place
        key, place = _number(message, place, where)
        kind, length = key & 7, 0
        if kind == 0:
            _, place = _number(message, place, where)
        elif kind == 2:
            length, place = _number(message, place, where)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise FormatError(f"{where}: not a whole ONNX file: want a field of protobuf, got kind {kind}")
        place += length
        if place > len(message):
            raise FormatError(f"{where}: not a whole ONNX file: want {place - len(message)} bytes more")
        if kind == 2 and key >> 3 in wanted:
            yield message[place - length : place]
        else:
            others += place - first
            if others > most:  # no need to count on
                raise FormatError(f"{where}: want at most {most} bytes besides tensors, got more")


def _number(message: memoryview, place: int, where: str) -> tuple[int, int]:
    """(a number in protobuf's seven bits a byte, the place behind it)."""
    value = 0
    for shift in range(0, 70, 7):
        if place == len(message):
            break
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise FormatError(f"{where}: not a whole ONNX file: want the end of a number")

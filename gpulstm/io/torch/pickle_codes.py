"""The instructions of a pickle that hold data, read one after the other; the others are errors.

The opcodes are those of Python's module pickle, whose source describes each.
"""

import pickle
import struct
from collections.abc import Iterator
from typing import Any

from gpulstm.errors import FormatError

# Instructions with a number behind them, in the module struct's layout, or with none.
_NUMBERS = {
    pickle.BININT: "<i", pickle.BININT1: "<B", pickle.BININT2: "<H", pickle.BINFLOAT: ">d",
    pickle.BINPUT: "<B", pickle.LONG_BINPUT: "<I", pickle.BINGET: "<B", pickle.LONG_BINGET: "<I",
    pickle.PROTO: "<B", pickle.FRAME: "<Q",
}  # fmt: skip
# Instructions with bytes behind them, and the layout of their number.
_TEXTS = {pickle.BINUNICODE: "<I", pickle.SHORT_BINUNICODE: "<B", pickle.BINUNICODE8: "<Q"}
_PLAIN = {
    pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.EMPTY_TUPLE, pickle.EMPTY_LIST, pickle.EMPTY_DICT,
    pickle.MARK, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.APPEND, pickle.APPENDS,
    pickle.SETITEM, pickle.SETITEMS, pickle.MEMOIZE, pickle.STACK_GLOBAL, pickle.REDUCE, pickle.BUILD,
    pickle.BINPERSID, pickle.STOP,
}  # fmt: skip


def instructions(data: bytes) -> Iterator[tuple[bytes, Any, int]]:
    """(opcode, argument, where it stands) up to STOP, which is the last byte.

    Raises FormatError for other opcodes, arguments that are not whole, and for bytes behind the end.
    """
    place = 0
    while place < len(data):
        start, code = place, data[place : place + 1]
        place += 1
        argument: Any = None
        if code in _NUMBERS:
            argument, place = _number(data, place, _NUMBERS[code])
        elif code in _TEXTS or code == pickle.LONG1:
            length, place = _number(data, place, _TEXTS.get(code, "<B"))
            argument, place = data[place : place + length], place + length
            if place > len(data):
                raise FormatError(f"byte {start}: want {length} bytes more, got the end")
            argument = pickle.decode_long(argument) if code == pickle.LONG1 else _text(argument, start)
        elif code == pickle.GLOBAL:
            lines = data[place : place + 1000].split(b"\n", 2)
            if len(lines) < 3:
                raise FormatError(f"byte {start}: want a name in two lines, got something else")
            argument, place = _text(b".".join(lines[:2]), start), place + len(lines[0]) + len(lines[1]) + 2
        elif code not in _PLAIN:
            raise FormatError(f"byte {start}: want data alone, got the instruction {code!r}")
        yield code, argument, start
        if code == pickle.STOP:
            if place < len(data):
                raise FormatError(f"byte {place}: want the end, got {len(data) - place} bytes more")
            return
    raise FormatError(f"byte {place}: want an instruction, got the end")


def _number(data: bytes, place: int, layout: str) -> tuple[Any, int]:
    """The number at a place, and the place behind it."""
    size = struct.calcsize(layout)
    if place + size > len(data):
        raise FormatError(f"byte {place}: want {size} bytes more, got the end")
    return struct.unpack_from(layout, data, place)[0], place + size


def _text(data: bytes, start: int) -> str:
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise FormatError(f"byte {start}: want a text in UTF-8, got {error}") from error

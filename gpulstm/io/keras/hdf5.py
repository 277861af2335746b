"""Reads HDF5 files of strangers, as Keras writes them: groups, arrays in one piece and texts beside them.

This reads the part of the format that h5py writes by default (HDF5 File Format Specification, version 3.0:
superblock 0, version 1 object headers, B-trees and heaps). The HDF5 library itself is not used: a damaged file
can stop it for ever. Everything read is inside the file, and in all no more than a few times its size.
"""

import math
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from gpulstm.errors import FormatError
from gpulstm.io.keras.hdf5_types import array_type, shape_of, text_type

DEEPEST = 64  # groups inside groups
REREAD = 4  # times its size that may be read of a file: its structures may be named more than once
LONGEST = 1024  # bytes of a name
SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Kinds of messages in an object's header.
_SPACE, _TYPE, _EXTERNAL, _LAYOUT, _FILTERS, _ATTRIBUTE, _CONTINUED, _TABLE = 1, 3, 7, 8, 11, 12, 16, 17
_NEWER = (2, 6)  # how newer versions of the format keep groups
_SOFT_LINK = 2


class Group(NamedTuple):
    """A group of a file: its attribute "name" and the arrays in it."""

    name: str | None
    arrays: dict[str, np.ndarray]


class Header(NamedTuple):
    """What describes an object: its messages by kind, and its texts by name."""

    messages: dict[int, bytes]
    texts: dict[str, str]


def read_groups(file: BinaryIO, size: int, where: str, skipped: tuple[str, ...] = ()) -> dict[str, Group]:
    """The groups of an HDF5 file of ``size`` bytes by path ("layers/lstm/cell/vars"; "" for the file itself), without
    those under ``skipped``.

    Arrays stand in the file as plain numbers in one piece: no filters, no chunks, no other files, no links but
    hard ones. Raises FormatError for anything else, beginning with ``where``, and DTypeError for bfloat16
    without the package ml_dtypes.
    """
    reader = _Reader(file, size, where)
    found: dict[str, Group] = {}
    todo = [("", reader.root())]
    while todo:
        path, start = todo.pop()
        if path.count("/") >= DEEPEST:
            raise FormatError(f"{where}: want groups at most {DEEPEST} deep, got {path!r:.200}")
        header, arrays, names = reader.header(start), {}, set()
        for name, address in reader.members(header, path):
            place = f"{path}/{name}" if path else name
            if place in skipped:
                continue
            if name in names:
                raise FormatError(f"{where}: want each name once, got {place!r:.200} twice")
            names.add(name)
            inner = reader.header(address)
            if _TABLE in inner.messages:
                todo.append((place, address))
            else:
                arrays[name] = reader.array(inner, place)
        found[path] = Group(header.texts.get("name"), arrays)
    return found


class _Reader:
    """Structures of one file; ``left`` are the bytes that may still be read."""

    def __init__(self, file: BinaryIO, size: int, where: str) -> None:
        self.file, self.size, self.where, self.left = file, size, where, REREAD * size
        self.heaps: dict[int, dict[int, bytes]] = {}

    def take(self, start: int, count: int, what: str) -> bytes:
        """``count`` bytes from byte ``start``."""
        if start + count > self.size:
            raise FormatError(f"{self.where}: want {what} in bytes {start} to {start + count}, got {self.size} bytes")
        self.left -= count
        if self.left < 0:
            raise FormatError(
                f"{self.where}: want each part of the file once or twice, got parts that repeat themselves"
            )
        self.file.seek(start)
        data = self.file.read(count)
        if len(data) < count:
            raise FormatError(f"{self.where}: want {what} in bytes {start} to {start + count}, got fewer bytes")
        return data

    def unpack(self, start: int, layout: str, what: str) -> tuple[Any, ...]:
        """Numbers from byte ``start``, in the layout of the module struct."""
        return struct.unpack(f"<{layout}", self.take(start, struct.calcsize(f"<{layout}"), what))

    def root(self) -> int:
        """Where the header of the outermost group is."""
        signature, version, _, _, offsets, lengths, base, header = self.unpack(0, "8sB2s2sBB9xQ32xQ", "a superblock")
        if signature != SIGNATURE:
            raise FormatError(f"{self.where}: want an HDF5 file, got something else at byte 0")
        if (version, offsets, lengths, base) != (0, 8, 8, 0):
            raise FormatError(
                f"{self.where}: want HDF5's superblock 0 and numbers of 8 bytes, as Keras writes them, "
                f"got superblock {version}"
            )
        return header

    def header(self, start: int) -> Header:
        """The messages of the object whose header begins at byte ``start``."""
        version, left, length = self.unpack(start, "BxH4xI4x", "an object's header")
        if version != 1:
            raise FormatError(f"{self.where}, byte {start}: want an object's header of version 1, got {version}")
        found, blocks = Header({}, {}), [(start + 16, length)]
        while blocks and left:
            block, count = blocks.pop(0)
            data, place = self.take(block, count, "an object's header"), 0
            while left and place + 8 <= count:
                kind, size, flags = struct.unpack_from("<HHB", data, place)
                body = data[place + 8 : place + 8 + size]
                place, left = place + 8 + size, left - 1
                if len(body) < size or kind in _NEWER or (flags & 2 and kind in (_SPACE, _TYPE, _LAYOUT, _TABLE)):
                    raise FormatError(
                        f"{self.where}, byte {block}: want messages of HDF5's first version, got {kind} of {size} bytes"
                    )
                if kind == _CONTINUED and size >= 16:
                    blocks.append(struct.unpack_from("<QQ", body))
                elif kind == _ATTRIBUTE:
                    found.texts.update(self._text(body, block))
                else:
                    found.messages[kind] = body
        return found

    def _text(self, body: bytes, block: int) -> dict[str, str]:
        """The name and value of an attribute, if it is a single text."""
        if len(body) < 8 or body[0] not in (1, 2, 3) or (body[0] > 1 and body[1]):
            return {}
        sizes, place, parts = struct.unpack_from("<HHH", body, 2), 9 if body[0] == 3 else 8, []
        for size in sizes:
            parts.append(body[place : place + size])
            place += -(-size // 8) * 8 if body[0] == 1 else size  # the first version fills up to eights
        name, kind, space = parts
        width = text_type(kind)
        if width is None or shape_of(space) != ():
            return {}
        value = body[place : place + (width or 16)]
        if not width and len(value) == 16:
            _, heap, index = struct.unpack("<IQI", value)
            value = self._heap(heap).get(index, b"")
        try:
            return {name.split(b"\0")[0].decode(): value[:LONGEST].split(b"\0")[0].decode()}
        except UnicodeDecodeError as error:
            raise FormatError(f"{self.where}, byte {block}: want texts in UTF-8, got {error}") from error

    def _heap(self, start: int) -> dict[int, bytes]:
        """The texts that stand apart from what they belong to, by number."""
        if start not in self.heaps:
            signature, size = self.unpack(start, "4s4xQ", "texts")
            if signature != b"GCOL" or size < 16:
                raise FormatError(f"{self.where}: want texts at byte {start}, got something else")
            data, place, texts = self.take(start, size, "texts"), 16, {}
            while place + 16 <= size:
                index, length = struct.unpack_from("<H6xQ", data, place)
                if index == 0:  # the rest is free
                    break
                texts[index] = data[place + 16 : place + 16 + length]
                place += 16 + -(-length // 8) * 8
            self.heaps[start] = texts
        return self.heaps[start]

    def members(self, header: Header, path: str) -> Iterator[tuple[str, int]]:
        """(name, where its header is) of what is in a group, out of its tree of tables."""
        if len(header.messages.get(_TABLE, b"")) < 16:
            raise FormatError(f"{self.where}, {path!r:.200}: want a group, got something else")
        tree, heap = struct.unpack_from("<QQ", header.messages[_TABLE])
        signature, size, start = self.unpack(heap, "4s4xQ8xQ", "names")
        names = self.take(start, size, "names")
        todo = [tree]
        while todo:
            node = todo.pop()
            mark, level, used = self.unpack(node, "4sxBH16x", "a group's tree")
            if signature != b"HEAP" or mark != b"TREE":
                raise FormatError(f"{self.where}, {path!r:.200}: want a tree at byte {node}, got something else")
            children = self.unpack(node + 24, "QQ" * used, "a group's tree")[1::2]
            if level:
                todo.extend(reversed(children))
                continue
            for table in children:
                mark, count = self.unpack(table, "4s2xH", "a group's table")
                if mark != b"SNOD":
                    raise FormatError(f"{self.where}, {path!r:.200}: want a table at byte {table}, got something else")
                entries = self.take(table + 8, 40 * count, "a group's table")
                for name, address, cached in struct.iter_unpack("<QQI20x", entries):
                    text = names[name:].split(b"\0")[0].decode(errors="replace")
                    if cached == _SOFT_LINK:
                        raise FormatError(
                            f"{self.where}, {path!r:.200}: want groups and arrays, got a link {text!r:.200}"
                        )
                    yield text, address

    def array(self, header: Header, path: str) -> np.ndarray:
        """The array that a header describes; its place in the file is checked before memory is taken."""
        where, messages = f"{self.where}, {path!r:.200}", header.messages
        if _FILTERS in messages or _EXTERNAL in messages:
            raise FormatError(f"{where}: want an array stored as it is, got one with filters or in another file")
        shape, layout = shape_of(messages.get(_SPACE, b"")), messages.get(_LAYOUT, b"")
        dtype = array_type(messages.get(_TYPE, b""), header.texts.get("dtype") == "bfloat16")
        if shape is None or dtype is None:
            raise FormatError(f"{where}: want an array of numbers, got something else")
        if math.prod(n or 1 for n in shape) >= 2**60:  # NumPy has no larger ones, empty ones neither
            raise FormatError(f"{where}: want a shape that the file holds, got {shape}")
        count = math.prod(shape) * dtype.itemsize
        if len(layout) >= 18 and layout[0] in (3, 4) and layout[1] == 1:
            start, size = struct.unpack_from("<QQ", layout, 2)
            if size != count:
                raise FormatError(f"{where}: want {count} bytes for {shape}, got {size}")
            data = self.take(start, count, "an array") if count else b""
        elif len(layout) >= 4 and layout[0] in (3, 4) and layout[1] == 0:
            data = layout[4 : 4 + int.from_bytes(layout[2:4], "little")]
        else:
            raise FormatError(f"{where}: want an array in one piece, got chunks or parts of other files")
        if len(data) != count:
            raise FormatError(f"{where}: want {count} bytes for {shape}, got {len(data)}")
        value = np.frombuffer(data, dtype).reshape(shape)
        return value != 0 if dtype == np.bool_ else value.astype(dtype.newbyteorder("="))

"""The headers of HDF5's objects: their messages and string attributes (File Format Specification 3.0, IV.A)."""

import math
import struct
from collections.abc import Iterator
from typing import NamedTuple

from gpulstm.errors import FormatError
from gpulstm.io.keras.hdf5_bytes import UNDEFINED, Source
from gpulstm.io.keras.hdf5_dense import objects
from gpulstm.io.keras.hdf5_types import shape_of, text_type

# Kinds of messages in an object's header.
SPACE, LINKS, TYPE, LINK, EXTERNAL, LAYOUT, FILTERS, ATTRIBUTE, CONTINUED, TABLE, ATTRIBUTES = (
    1, 2, 3, 6, 7, 8, 11, 12, 16, 17, 21,
)  # fmt: skip
_READ = {SPACE, LINKS, TYPE, LINK, LAYOUT, ATTRIBUTE, TABLE, ATTRIBUTES}


class Header(NamedTuple):
    """The header of an object: its messages by kind, its links, and its string attributes, single or in lists."""

    messages: dict[int, bytes]
    links: list[bytes]
    texts: dict[str, str | list[str]]


class Headers:
    """Reads the headers of one file; ``heaps`` holds the strings that are stored outside of their attributes."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.heaps: dict[int, dict[int, bytes]] = {}

    def read(self, start: int) -> Header:
        """The messages of the object whose header begins at byte ``start``."""
        found = Header({}, [], {})
        for kind, flags, body in self._messages(start):
            if flags & 2 and kind in _READ:
                raise FormatError(f"{self.source.where}, byte {start}: expected unshared messages, got shared ones")
            if kind == ATTRIBUTE:
                found.texts.update(self._text(body, start))
            elif kind == LINK:
                found.links.append(body)
            else:
                found.messages[kind] = body
        for body in self._attributes_apart(found.messages.get(ATTRIBUTES, b"")):
            found.texts.update(self._text(body, start))
        return found

    def _messages(self, start: int) -> Iterator[tuple[int, int, bytes]]:
        """(kind, flags, body) of an object's messages, in either version of its header."""
        signature = self.source.take(start, 4, "an object's header")
        if signature == b"OHDR":
            _, version, flags = self.source.unpack(start, "4sBB", "an object's header")
            place = start + 6 + (16 if flags & 32 else 0) + (4 if flags & 16 else 0)
            width = 1 << (flags & 3)
            length = int.from_bytes(self.source.take(place, width, "an object's header"), "little")
            layout, left, blocks = "<BHBH" if flags & 4 else "<BHB", 2**16, [(place + width, length)]
        else:
            version, left, length = self.source.unpack(start, "BxH4xI4x", "an object's header")
            layout, blocks = "<HHB3x", [(start + 16, length)]
        if version != (2 if signature == b"OHDR" else 1):
            raise FormatError(f"{self.source.where}, byte {start}: expected an object's header of version 1 or 2")
        size_of = struct.calcsize(layout)
        while blocks and left:
            block, count = blocks.pop(0)
            data, place = self.source.take(block, count, "an object's header"), 0
            while left and place + size_of <= count:
                kind, size, flags = struct.unpack_from(layout, data, place)[:3]
                body = data[place + size_of : place + size_of + size]
                place, left = place + size_of + size, left - 1
                if len(body) < size:
                    raise FormatError(
                        f"{self.source.where}, byte {block}: expected a message of {size} bytes, got {len(body)}"
                    )
                if kind == CONTINUED and size >= 16:
                    first, more = struct.unpack_from("<QQ", body)
                    # The second version has a signature before the messages and a checksum after them.
                    blocks.append((first + 4, max(more - 8, 0)) if signature == b"OHDR" else (first, more))
                else:
                    yield kind, flags, body

    def _attributes_apart(self, info: bytes) -> Iterator[bytes]:
        """The attributes in a separate heap, used if there are many or large ones."""
        if len(info) < 2:
            return
        heap, index = struct.unpack_from("<QQ", info.ljust(20, b"\xff"), 4 if info[1] & 1 else 2)
        if heap != UNDEFINED:
            yield from objects(self.source, heap, index, id_place=0)

    def _text(self, body: bytes, block: int) -> dict[str, str | list[str]]:
        """The name and value of an attribute, if it is a string or a list of strings."""
        if len(body) < 8 or body[0] not in (1, 2, 3) or (body[0] > 1 and body[1]):
            return {}
        sizes, place, parts = struct.unpack_from("<HHH", body, 2), 9 if body[0] == 3 else 8, []
        for size in sizes:
            parts.append(body[place : place + size])
            place += -(-size // 8) * 8 if body[0] == 1 else size  # the first version pads to multiples of 8
        name, kind, space = parts
        shape, width = shape_of(space), text_type(kind)
        if shape is None or len(shape) > 1:
            return {}
        try:
            key = name.split(b"\0")[0].decode()
            if shape == (0,):
                return {key: []}
            if width is None:
                return {}
            count, step = math.prod(shape), width or 16
            if count * step > len(body) - place:
                raise FormatError(f"{self.source.where}, byte {block}: expected {count} strings, got fewer bytes")
            self.source.spend(count * 100)  # bytes that a string takes in Python
            pieces = [body[place + n * step : place + (n + 1) * step] for n in range(count)]
            texts = [(piece if width else self._elsewhere(piece)).split(b"\0")[0].decode() for piece in pieces]
        except UnicodeDecodeError as error:
            raise FormatError(f"{self.source.where}, byte {block}: expected strings in UTF-8, got {error}") from error
        return {key: texts if shape else texts[0]}

    def _elsewhere(self, piece: bytes) -> bytes:
        """A string of variable length, which is stored in a heap of the file."""
        length, heap, index = struct.unpack("<IQI", piece)
        if not length:
            return b""
        text = self._heap(heap).get(index, b"")[:length]
        self.source.spend(len(text))
        return text

    def _heap(self, start: int) -> dict[int, bytes]:
        """The strings of a heap by number."""
        if start not in self.heaps:
            signature, size = self.source.unpack(start, "4s4xQ", "strings")
            if signature != b"GCOL" or size < 16:
                raise FormatError(f"{self.source.where}: expected strings at byte {start}, got something else")
            data, place, texts = self.source.take(start, size, "strings"), 16, {}
            while place + 16 <= size:
                index, length = struct.unpack_from("<H6xQ", data, place)
                if index == 0:  # the rest is free
                    break
                texts[index] = data[place + 16 : place + 16 + length]
                place += 16 + -(-length // 8) * 8
            self.heaps[start] = texts
        return self.heaps[start]

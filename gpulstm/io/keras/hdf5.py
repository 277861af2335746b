"""Reads untrusted HDF5 files, as Keras writes them: groups, contiguous arrays, and strings as attributes.

It follows the HDF5 File Format Specification, version 3.0, for everything that h5py writes, with any ``libver``. It
does not use the HDF5 library, which a damaged file can block for ever. All reads are inside the file, and the bytes
read in all are no more than a few times its size.
"""

import math
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from gpulstm.errors import FormatError
from gpulstm.io.keras.hdf5_bytes import UNDEFINED, Source
from gpulstm.io.keras.hdf5_dense import objects
from gpulstm.io.keras.hdf5_headers import EXTERNAL, FILTERS, LAYOUT, LINKS, SPACE, TABLE, TYPE, Header, Headers
from gpulstm.io.keras.hdf5_types import array_type, shape_of

DEEPEST = 64  # groups inside groups
SIGNATURE = b"\x89HDF\r\n\x1a\n"
_LONGEST = 4096  # characters of a path
_SOFT_LINK = 2


class Group(NamedTuple):
    """A group of a file: its attributes that are strings, or lists of strings, and the arrays in it."""

    texts: dict[str, str | list[str]]
    arrays: dict[str, np.ndarray]

    @property
    def name(self) -> str | None:
        """Its attribute "name"."""
        name = self.texts.get("name")
        return name if isinstance(name, str) else None


def read_groups(file: BinaryIO, size: int, where: str, skipped: tuple[str, ...] = ()) -> dict[str, Group]:
    """The groups of an HDF5 file of ``size`` bytes by path, without those under ``skipped``.

    A path is "layers/lstm/cell/vars", or "" for the root group. Arrays must be contiguous and uncompressed: filters,
    chunks, other files and links other than hard ones are not supported. Raises FormatError for them, beginning with
    ``where``, and DTypeError for bfloat16 without the package ml_dtypes.
    """
    reader = _Reader(Source(file, size, where))
    found: dict[str, Group] = {}
    todo = [("", reader.headers.read(reader.root()))]
    while todo:
        path, header = todo.pop()
        if path.count("/") >= DEEPEST or len(path) > _LONGEST:
            raise FormatError(
                f"{where}: expected groups at most {DEEPEST} deep, with paths of {_LONGEST} characters, "
                f"got {path!r:.200}"
            )
        arrays: dict[str, np.ndarray] = {}
        names: set[str] = set()
        for name, address in reader.members(header, path):
            place = f"{path}/{name}" if path else name
            if place in skipped:
                continue
            reader.source.spend(len(place))
            if name in names:
                raise FormatError(f"{where}: expected each name once, got {place!r:.200} twice")
            names.add(name)
            inner = reader.headers.read(address)
            if reader.is_group(inner):
                todo.append((place, inner))
            else:
                arrays[name] = reader.array(inner, place)
        found[path] = Group(header.texts, arrays)
    return found


class _Reader:
    """Reads the structures of one file."""

    def __init__(self, source: Source) -> None:
        self.source, self.where, self.headers = source, source.where, Headers(source)

    def root(self) -> int:
        """The address of the root group's header."""
        signature, version = self.source.unpack(0, "8sB", "a superblock")
        if signature != SIGNATURE:
            raise FormatError(f"{self.where}: expected an HDF5 file, got something else at byte 0")
        layouts = {0: "9x4xBB9xQ32xQ", 1: "9x4xBB13xQ32xQ", 2: "9xBBxQ16xQ", 3: "9xBBxQ16xQ"}
        if version not in layouts:
            raise FormatError(f"{self.where}: expected a superblock of version 0 to 3, got {version}")
        offsets, lengths, base, header = self.source.unpack(0, layouts[version], "a superblock")
        if (offsets, lengths, base) != (8, 8, 0):
            raise FormatError(
                f"{self.where}: expected numbers of 8 bytes from byte 0, as Keras writes them, got others"
            )
        return int(header)

    def is_group(self, header: Header) -> bool:
        """Whether an object holds others."""
        return TABLE in header.messages or LINKS in header.messages or bool(header.links)

    def members(self, header: Header, path: str) -> Iterator[tuple[str, int]]:
        """(name, address of its header) of each member of a group."""
        if not self.is_group(header):
            raise FormatError(f"{self.where}, {path!r:.200}: expected a group, got something else")
        if TABLE in header.messages:
            yield from self._members_in_tables(header.messages[TABLE], path)
        for link in header.links:
            yield self._linked(link, path)
        info = header.messages.get(LINKS, b"")
        if len(info) >= 2:
            heap, index = struct.unpack_from("<QQ", info.ljust(26, b"\xff"), 10 if info[1] & 1 else 2)
            if heap != UNDEFINED:
                for link in objects(self.source, heap, index, id_place=4):  # after a hash of the name
                    yield self._linked(link, path)

    def _linked(self, link: bytes, path: str) -> tuple[str, int]:
        """(name, address of its header) from a link message of the newer format."""
        where = f"{self.where}, {path!r:.200}"
        if len(link) < 2 or link[0] != 1:
            raise FormatError(f"{where}: expected a link of version 1, got another")
        flags, place = link[1], 2
        kind = link[2:3] if flags & 8 else b"\0"
        place += (1 if flags & 8 else 0) + (8 if flags & 4 else 0) + (1 if flags & 16 else 0)
        width = 1 << (flags & 3)
        length = int.from_bytes(link[place : place + width], "little")
        name = link[place + width : place + width + length].decode(errors="replace")
        target = link[place + width + length :]
        if kind != b"\0":
            raise FormatError(f"{where}: expected groups and arrays, got a link {name!r:.200}")
        if len(target) < 8:
            raise FormatError(f"{where}: expected a link of {length + 8} bytes, got {len(link)}")
        return name, int.from_bytes(target[:8], "little")

    def _members_in_tables(self, message: bytes, path: str) -> Iterator[tuple[str, int]]:
        """As ``members``, from the first format's tree of tables."""
        if len(message) < 16:
            raise FormatError(f"{self.where}, {path!r:.200}: expected a group, got something else")
        tree, heap = struct.unpack_from("<QQ", message)
        size, start = self.source.expect(heap, b"HEAP", "4xQ8xQ", "names")
        names = self.source.take(start, size, "names")
        todo = [tree]
        while todo:
            node = todo.pop()
            level, used = self.source.expect(node, b"TREE", "xBH16x", "a group's tree")
            children = self.source.unpack(node + 24, "QQ" * used, "a group's tree")[1::2]
            if level:
                todo.extend(reversed(children))
                continue
            for table in children:
                (count,) = self.source.expect(table, b"SNOD", "2xH", "a group's table")
                entries = self.source.take(table + 8, 40 * count, "a group's table")
                for name, address, cached in struct.iter_unpack("<QQI20x", entries):
                    end = names.find(b"\0", name)
                    text = names[name : end if end >= 0 else None].decode(errors="replace")
                    if cached == _SOFT_LINK:
                        raise FormatError(
                            f"{self.where}, {path!r:.200}: expected groups and arrays, got a link {text!r:.200}"
                        )
                    self.source.spend(len(text))
                    yield text, address

    def array(self, header: Header, path: str) -> np.ndarray:
        """The array that a header describes; its place in the file is checked before memory is allocated."""
        where, messages = f"{self.where}, {path!r:.200}", header.messages
        if FILTERS in messages or EXTERNAL in messages:
            raise FormatError(f"{where}: expected an uncompressed array, got one with filters or in another file")
        shape, layout = shape_of(messages.get(SPACE, b"")), messages.get(LAYOUT, b"")
        dtype = array_type(messages.get(TYPE, b""), header.texts.get("dtype") == "bfloat16")
        if shape is None or dtype is None:
            raise FormatError(f"{where}: expected an array of numbers, got something else")
        if math.prod(n or 1 for n in shape) >= 2**60:  # NumPy's limit, also for empty arrays
            raise FormatError(f"{where}: expected a shape that the file holds, got {shape}")
        count = math.prod(shape) * dtype.itemsize
        if len(layout) >= 18 and layout[0] in (3, 4) and layout[1] == 1:
            start, size = struct.unpack_from("<QQ", layout, 2)
            if size != count:
                raise FormatError(f"{where}: expected {count} bytes for {shape}, got {size}")
            data = self.source.take(start, count, "an array") if count else b""
        elif len(layout) >= 4 and layout[0] in (3, 4) and layout[1] == 0:
            data = layout[4 : 4 + int.from_bytes(layout[2:4], "little")]
        else:
            raise FormatError(f"{where}: expected a contiguous array, got chunks or parts of other files")
        if len(data) != count:
            raise FormatError(f"{where}: expected {count} bytes for {shape}, got {len(data)}")
        value = np.frombuffer(data, dtype).reshape(shape)
        return value != 0 if dtype == np.bool_ else value.astype(dtype.newbyteorder("="))

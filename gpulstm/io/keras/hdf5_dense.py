"""Newer HDF5's storage for many links, and many or large attributes: a "fractal heap" with a "version 2 B-tree".

File Format Specification 3.0, III.A.2 and III.G. Objects may be inside the heap, or as a whole outside of it. Filters
are not supported.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from gpulstm.errors import FormatError
from gpulstm.io.keras.hdf5_bytes import UNDEFINED, Source

_DEEPEST = 16  # levels of a tree, and blocks inside blocks of a heap
_MANAGED, _HUGE = 0, 1  # kinds of objects in a heap
_HUGE_RECORDS = 1  # kind of the tree for objects outside of the heap


class Heap(NamedTuple):
    """The header of a heap: sizes in bytes, addresses in the file."""

    id_length: int
    huge: int  # the tree for objects outside of it
    width: int  # blocks in a row
    first: int  # size of a block in the first two rows; it doubles from row to row
    largest: int  # size of a block that holds objects; larger blocks hold blocks
    offset_bytes: int
    root: int
    rows: int  # of the root block; 0 if it holds objects


def objects(source: Source, heap: int, index: int, id_place: int) -> Iterator[bytes]:
    """The objects of the heap at byte ``heap``, in the order of the tree at byte ``index``.

    The tree's records hold the objects' ids from byte ``id_place`` on.
    """
    head = _heap(source, heap)
    huge: dict[int, tuple[int, int]] | None = None
    for record in records(source, index):
        identity = record[id_place : id_place + head.id_length]
        if len(identity) < head.id_length or head.id_length < head.offset_bytes + 2:
            raise FormatError(
                f"{source.where}: expected an id of {head.id_length} bytes in a tree, got {len(identity)}"
            )
        kind, rest = identity[0] >> 4 & 3, identity[1:]
        if kind == _MANAGED:
            offset = int.from_bytes(rest[: head.offset_bytes], "little")
            length = int.from_bytes(rest[head.offset_bytes :], "little")
            yield source.take(_address(source, head, offset), length, "an object of a heap")
        elif kind == _HUGE and head.id_length < 17:
            if huge is None:
                huge = {}
                for found in records(source, head.huge, _HUGE_RECORDS):
                    address, length, key = struct.unpack_from("<QQQ", found.ljust(24, b"\xff"))
                    huge[key] = address, length
            key = int.from_bytes(rest, "little")
            if key not in huge:
                raise FormatError(f"{source.where}: expected the object {key} of a heap, got none")
            yield source.take(*huge[key], "a large object of a heap")
        else:
            raise FormatError(f"{source.where}: expected objects in a heap, or whole ones outside, got kind {kind}")


def _heap(source: Source, start: int) -> Heap:
    layout = "xHHB4x8xQ8x8x8x8x8x8x8x8x8x8xHQQHHQH"
    numbers = source.expect(start, b"FRHP", layout, "a heap")
    id_length, filters, _, huge, width, first, largest, bits, _, root, rows = numbers
    if filters or bits > 64 or not (0 < width <= 2**15 and 0 < first <= largest <= 2**32 and rows <= 64):
        raise FormatError(f"{source.where}, byte {start}: expected a heap of usual sizes without filters, got another")
    return Heap(id_length, huge, width, first, largest, -(-bits // 8), root, rows)


def _address(source: Source, heap: Heap, offset: int) -> int:
    """The place in the file of a heap's byte ``offset``."""
    block, rows, begin = heap.root, heap.rows, 0  # the block, its rows, and the heap's byte where it begins
    for _ in range(_DEEPEST):
        if rows == 0:
            return block + offset - begin
        size, row = heap.first, 0
        while offset - begin >= size * heap.width and row + 1 < rows:
            begin, row = begin + size * heap.width, row + 1
            size = heap.first << max(row - 1, 0)
        column = (offset - begin) // size
        if column >= heap.width:
            break
        # The addresses follow the signature, the version, the heap's address and the block's own offset.
        place = block + 13 + heap.offset_bytes + 8 * (row * heap.width + column)
        (block,) = source.unpack(place, "Q", "a heap's blocks")
        begin += column * size
        rows = 0 if size <= heap.largest else (size // (heap.first * heap.width)).bit_length()
    raise FormatError(f"{source.where}: expected a place in a heap, got {offset}")


def records(source: Source, start: int, kind: int | None = None) -> Iterator[bytes]:
    """The records of a tree, from the first to the last."""
    if start == UNDEFINED:
        return
    found, node_size, size, depth, root, count = source.expect(start, b"BTHD", "xBIHHxxQH", "a tree")
    if kind not in (None, found) or not size or depth > _DEEPEST or node_size < 10 + size:
        raise FormatError(f"{source.where}, byte {start}: expected a tree of usual sizes, got another")
    # For each level, the widths in bytes of the record counts that are stored beside a node's address.
    most = [(node_size - 10) // size]
    total, widths = most[0], [(_width(most[0]), 0)]
    for _ in range(depth):
        pointer = 8 + widths[0][0] + widths[-1][1]
        most.append((node_size - 10 - pointer) // (size + pointer))
        total = (most[-1] + 1) * total + most[-1]
        widths.append((widths[0][0], _width(total)))
    yield from _node(source, root, count, depth, size, widths)


def _node(
    source: Source, start: int, count: int, level: int, size: int, widths: list[tuple[int, int]]
) -> Iterator[bytes]:
    """The records of a node and of those below it."""
    source.expect(start, b"BTIN" if level else b"BTLF", "xx", "a tree's node")
    data = source.take(start + 6, count * size, "a tree's node")
    own = [data[n * size : (n + 1) * size] for n in range(count)]
    if not level:
        yield from own
        return
    few, many = widths[0][0], widths[level - 1][1]
    pointers = source.take(start + 6 + count * size, (count + 1) * (8 + few + many), "a tree's node")
    for n in range(count + 1):
        place = n * (8 + few + many)
        below = int.from_bytes(pointers[place + 8 : place + 8 + few], "little")
        (address,) = struct.unpack_from("<Q", pointers, place)
        yield from _node(source, address, below, level - 1, size, widths)
        yield from own[n : n + 1]


def _width(number: int) -> int:
    """The number of bytes in which HDF5 writes a number up to this one."""
    return max(number.bit_length() - 1, 0) // 8 + 1

"""Checks a value that was read: that it does not nest without end, and which entries in it are not data."""

import argparse
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import PurePath
from typing import Any

import numpy as np

from gpulstm.errors import FormatError
from gpulstm.io.torch.unread import Refused, Unread

DEEPEST = 100  # nested levels; deeper values break programs that print or copy them
_LEAVES = (
    str, int, float, bool, type(None), complex, bytes, bytearray, np.ndarray, np.generic, np.dtype, PurePath, type,
)  # fmt: skip
_SHOWN = 8  # entries in a message


def check(value: Any, largest: int) -> list[str]:
    """Return the entries that are Unread, each with its place: "optimizer (torch.optim.adam.Adam)".

    Raises FormatError for a value without end (a list that contains itself, or parts repeated until they would fill the
    memory) and, with its place, for a tensor that no array can hold.
    """
    found: dict[int, str] = {}
    todo: list[Any] = []
    for count, (place, leaf) in enumerate(_walk(value), 1):
        if count > largest:
            raise FormatError(f"expected at most {largest} entries in all, got lists that repeat themselves")
        if isinstance(leaf, Refused):
            raise FormatError(f"{_name(place)}: expected a tensor that an array can hold, got {leaf.arguments[0]}")
        if isinstance(leaf, Unread) and id(leaf) not in found:
            found[id(leaf)] = f"{_name(place)} ({leaf.name:.100})"
            todo.append(leaf)
    _check_inside(todo, largest)
    return list(found.values())


def _check_inside(todo: list[Unread], largest: int) -> None:
    """Check the contents of Unreads too, each one once, as they may refer to each other."""
    seen, count = {id(unread) for unread in todo}, 0
    while todo:
        unread = todo.pop()
        for _, leaf in _walk([unread.arguments, unread.state, unread.items]):
            count += 1
            if count > largest:
                raise FormatError(f"expected at most {largest} entries in all, got objects that repeat themselves")
            if isinstance(leaf, Unread) and id(leaf) not in seen:
                seen.add(id(leaf))
                todo.append(leaf)


def _walk(value: Any) -> Iterator[tuple[list[Any], Any]]:
    """Every part at all depths, with the keys that lead to it (always the same list, changed in place)."""
    place: list[Any] = []
    todo = [iter([(None, value)])]
    while todo:
        step = next(todo[-1], None)
        if step is None:
            todo.pop()
            continue
        del place[len(todo) - 1 :]
        place.append(step[0])
        yield place, step[1]
        inner = _parts(step[1])
        if inner is not None:
            todo.append(inner)
            if len(todo) > DEEPEST + 1:
                raise FormatError(f"expected lists and dicts at most {DEEPEST} deep, got deeper ones")


def _parts(node: Any) -> Iterator[tuple[Any, Any]] | None:
    """The parts of a dict, list, tuple, set or Namespace with their keys; None for others."""
    if isinstance(node, dict):
        keys = [("a key", key) for key in node if isinstance(key, Unread)]
        return chain(node.items(), keys)
    if isinstance(node, argparse.Namespace):
        return iter(vars(node).items())
    if isinstance(node, list | tuple | set | frozenset):
        return iter(enumerate(node))
    if not isinstance(node, (*_LEAVES, Unread)):
        raise FormatError(
            f"expected only tensors, numbers, strings, lists and dicts, got {type(node).__name__} as a value"
        )
    return None


def _name(place: list[Any]) -> str:
    return ".".join(f"{key!s:.50}" for key in place[1:]) or "the value"


def listed(entries: list[str]) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else ""
    return ", ".join(islice(entries, _SHOWN)) + more

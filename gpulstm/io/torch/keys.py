"""Keys of dicts and items of sets from strangers: their hashes and comparisons must not take for ever."""

import sys
from pathlib import PurePath
from typing import Any

import numpy as np

from gpulstm.errors import FormatError
from gpulstm.io.torch import budget as cost
from gpulstm.io.torch.budget import Budget
from gpulstm.io.torch.unread import Unread

_LARGEST = 256  # parts of a key, at all depths
_CLASSES = 4096  # of hashes
_CROWD = 1000  # keys of one class before they are compared with the others
_PLAIN = (str, int, float, bool, type(None), bytes, complex, frozenset, np.dtype, PurePath, Unread)


class Keys:
    """Puts keys and items where they belong, after a look at each."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._count = 0
        self._crowds: list[int] = []

    def put(self, target: dict[Any, Any], items: list[Any]) -> None:
        """Keys and values, by turns, into a dict."""
        keys = [key if type(key) is str else self._checked(key, target) for key in items[::2]]
        self._grow(target, len(keys), zip(keys, items[1::2], strict=True))

    def add(self, target: set[Any], items: list[Any]) -> None:
        """Items into a set."""
        checked = [item if type(item) is str else self._checked(item, target) for item in items]
        self._grow(target, len(items), checked)

    def _grow(self, target: Any, count: int, items: Any) -> None:
        """Put them into the dict or set, and count the memory."""
        if cost.MOST_ITEM * count > self.budget.left:
            raise self.budget.error()
        before = sys.getsizeof(target)
        try:
            if isinstance(target, dict):
                dict.update(target, items)  # a Counter's own would count the pairs
            else:
                target.update(items)
        except (TypeError, ValueError) as error:
            raise FormatError("expected keys that can be compared, got others") from error
        self.budget.spend(sys.getsizeof(target) - before)

    def _checked(self, key: Any, target: Any) -> Any:
        """The key; a tensor, which may be one in PyTorch, inside an Unread.

        Raises FormatError for a key that is none or that makes too much work.
        """
        kind = type(key)
        if kind is int and -(2**63) <= key < 2**63:
            return key  # at most a few of them share a hash
        if kind is np.ndarray:
            self.budget.spend(cost.OBJECT)
            return Unread("torch.Tensor", (key,))
        if kind is tuple or kind is frozenset:
            self._check_parts(key)
        elif not isinstance(key, (*_PLAIN, np.generic)) or isinstance(key, np.void):
            raise FormatError(f"expected texts, numbers or tuples of them as keys, got {kind.__name__}")
        self._check_crowd(hash((hash(key), id(target))) % _CLASSES)
        return key

    def _check_parts(self, key: tuple[Any, ...] | frozenset[Any]) -> None:
        """A tuple's hash is made anew from all its parts whenever it is asked for; equal sets in sets are compared
        each with each, which takes twice as long for every level of two.
        """
        todo, count = [key], 0
        while todo:
            part = todo.pop()
            count += len(part)
            if count > _LARGEST:
                raise FormatError(f"expected keys of at most {_LARGEST} parts, got a larger {type(key).__name__}")
            for inner in part:
                if type(inner) is tuple or type(inner) is frozenset:
                    todo.append(inner)
                elif not isinstance(inner, (*_PLAIN, np.generic)) or isinstance(inner, np.void):
                    raise FormatError(f"expected texts, numbers or tuples of them as keys, got {type(inner).__name__}")
        self.budget.spend(count)

    def _check_crowd(self, place: int) -> None:
        """Keys made to share their hash would be compared each with each: honest ones spread evenly."""
        self._crowds = self._crowds or [0] * _CLASSES
        self._crowds[place] += 1
        self._count += 1
        if self._crowds[place] > _CROWD + 8 * self._count // _CLASSES:
            raise FormatError("expected keys whose hashes differ, got many with the same one")

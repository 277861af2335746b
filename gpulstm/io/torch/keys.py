"""Checks keys of dicts and items of sets from untrusted files: hashing and comparing them must not take for ever."""

import sys
from pathlib import PurePath
from typing import Any

import numpy as np

from gpulstm.errors import FormatError
from gpulstm.io.torch import budget as cost
from gpulstm.io.torch.budget import Budget
from gpulstm.io.torch.unread import Unread

_LARGEST = 256  # parts of a key, at all depths
_CLASSES = 4096  # classes of hashes
_CROWD = 1000  # keys that one class may always have
_PLAIN = (str, int, float, bool, type(None), bytes, complex, frozenset, np.dtype, PurePath, Unread)


class Keys:
    """Puts keys and items into dicts and sets, after checking each."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._count = 0
        self._crowds: list[int] = []

    def put(self, target: dict[Any, Any], items: list[Any]) -> None:
        """Put alternating keys and values into a dict."""
        keys = [key if type(key) is str else self._checked(key, target) for key in items[::2]]
        self._grow(target, len(keys), zip(keys, items[1::2], strict=True))

    def add(self, target: set[Any], items: list[Any]) -> None:
        """Put items into a set."""
        checked = [item if type(item) is str else self._checked(item, target) for item in items]
        self._grow(target, len(items), checked)

    def _grow(self, target: Any, count: int, items: Any) -> None:
        """Put the items into the dict or set, and count the memory."""
        if cost.MOST_ITEM * count > self.budget.left:
            raise self.budget.error()
        before = sys.getsizeof(target)
        try:
            if isinstance(target, dict):
                dict.update(target, items)  # a Counter's own update would count the pairs
            else:
                target.update(items)
        except (TypeError, ValueError) as error:
            raise FormatError("expected keys that can be compared, got others") from error
        self.budget.spend(sys.getsizeof(target) - before)

    def _checked(self, key: Any, target: Any) -> Any:
        """Return the key; a tensor, which PyTorch allows as a key, becomes an Unread.

        Raises FormatError for an object that cannot be a key or that takes too long to hash or compare.
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
            raise FormatError(f"expected strings, numbers or tuples of them as keys, got {kind.__name__}")
        self._check_crowd(hash((hash(key), id(target))) % _CLASSES)
        return key

    def _check_parts(self, key: tuple[Any, ...] | frozenset[Any]) -> None:
        """Raises FormatError for a tuple or frozenset with too many parts or with parts that cannot be keys.

        Each time a tuple is hashed, all its parts are hashed again. Comparing equal sets inside sets takes twice as
        long for every nested level.
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
                    got = type(inner).__name__
                    raise FormatError(f"expected strings, numbers or tuples of them as keys, got {got}")
        self.budget.spend(count)

    def _check_crowd(self, place: int) -> None:
        """Raises FormatError for too many keys of one class of hashes.

        Keys that were made to share a hash would all be compared with each other; those of honest files spread evenly.
        """
        self._crowds = self._crowds or [0] * _CLASSES
        self._crowds[place] += 1
        self._count += 1
        if self._crowds[place] > _CROWD + 8 * self._count // _CLASSES:
            raise FormatError("expected keys whose hashes differ, got many with the same one")

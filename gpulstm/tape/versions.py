"""Detects in-place writes to values that the tape still needs: it counts the writes to each piece of memory.

A function's pullback needs the values of some of its inputs and outputs as they were in the forward pass. Each node of
the tape stores their counts, and ``backward`` compares. Tensors that share memory (views, ``detach()``, two Tensors of
one array) share the count. Writes to raw arrays are not counted.
"""

import threading
import weakref
from typing import Any

from gpulstm.backend import Array

_lock = threading.Lock()


class Version:
    """The number of in-place writes to one piece of memory through Tensors."""

    __slots__ = ("__weakref__", "count", "owner")

    def __init__(self, owner: Array) -> None:
        self.count, self.owner = 0, weakref.ref(owner)


# By the id of the array that owns the memory. A version lives as long as a Tensor or a node refers to it.
_versions: "weakref.WeakValueDictionary[int, Version]" = weakref.WeakValueDictionary()


def version_of(array: Array) -> Version:
    """The version of the array's memory."""
    owner = owner_of(array)
    with _lock:
        version = _versions.get(id(owner))
        if version is None or version.owner() is not owner:  # ids of deleted objects are reused
            version = _versions[id(owner)] = Version(owner)
    return version


def owner_of(array: Any) -> Array:
    """The array that owns the memory of this array, which may be a view."""
    while isinstance(base := array.base, type(array)):
        array = base
    return array

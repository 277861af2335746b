"""Notices writes in place to what the tape still needs: a count for each piece of memory.

A function's pullback needs the values of some of its inputs and outputs as they were. Each node of the tape keeps the
counts of these, and ``backward`` compares. Tensors that share memory (views, ``detach()``, two Tensors of one array)
share the count. Arrays that are written to by hand are not counted.
"""

import threading
import weakref
from typing import Any

from gpulstm.backend import Array

_lock = threading.Lock()


class Version:
    """How often one piece of memory was written to in place, as far as Tensors know."""

    __slots__ = ("__weakref__", "count", "owner")

    def __init__(self, owner: Array) -> None:
        self.count, self.owner = 0, weakref.ref(owner)


# By the id of the array that owns the memory. A version lives as long as a Tensor or a node holds it.
_versions: "weakref.WeakValueDictionary[int, Version]" = weakref.WeakValueDictionary()


def version_of(array: Array) -> Version:
    """The version of the memory that the array stands in."""
    owner = owner_of(array)
    with _lock:
        version = _versions.get(id(owner))
        if version is None or version.owner() is not owner:  # an id is given anew when its object is gone
            version = _versions[id(owner)] = Version(owner)
    return version


def owner_of(array: Any) -> Array:
    """The array that owns the memory: views of NumPy and CuPy know theirs."""
    while isinstance(base := array.base, type(array)):
        array = base
    return array

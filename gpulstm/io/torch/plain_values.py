"""Python's and PyTorch's plain values that a pickle makes by a call: collections, bytes, sizes, devices, paths."""

import argparse
import collections
import pathlib
from collections.abc import Callable
from typing import Any

from gpulstm.io.torch import budget as cost
from gpulstm.io.torch.budget import Budget
from gpulstm.io.torch.keys import Keys
from gpulstm.io.torch.tensors import are_sizes
from gpulstm.io.torch.unread import Unread, modern

_FACTORIES: dict[str, Any] = {
    f"builtins.{kind.__name__}": kind
    for kind in (list, dict, set, frozenset, int, float, complex, str, tuple, bool, bytes, bytearray)
}
# PyTorch's usual protocol has Python 2's names for these.
_FACTORIES |= {"builtins.long": int, "builtins.unicode": str, "collections.OrderedDict": dict}
# Paths of both systems; Python 3.13 has them one module deeper.
_PATHS: dict[str, Any] = {
    f"{module}.{pure}{name}Path": kind
    for name, kind in (("Posix", pathlib.PurePosixPath), ("Windows", pathlib.PureWindowsPath))
    for pure in ("", "Pure")
    for module in ("pathlib", "pathlib._local")
}
_LISTS = ("int", "double", "bool", "tensor")  # written by PyTorch in C++


class PlainValues:
    """The calls by name; wrong arguments raise ValueError, TypeError or FormatError.

    The interpreter counts the memory of their results.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget, self.keys = budget, Keys(budget)
        self.calls: dict[str, Callable[..., Any]] = {
            "collections.OrderedDict": self.ordered_dict, "collections.Counter": self.counter,
            "collections.defaultdict": self.default_dict, "builtins.set": self.set_of,
            "builtins.frozenset": self.frozenset_of, "builtins.bytes": bytes_of,
            "builtins.bytearray": self.bytearray_of, "_codecs.encode": self.encode, "builtins.complex": complex_of,
            "argparse.Namespace": argparse.Namespace,
            "torch.Size": self.size, "torch.device": device, "torch.serialization._get_layout": layout,
            "torch.jit._pickle.restore_type_tag": first,
        }  # fmt: skip
        for kind in _LISTS:
            self.calls[f"torch.jit._pickle.build_{kind}list"] = first
        for name, kind in _PATHS.items():
            self.calls[name] = self.path_of(kind)

    def ordered_dict(self, pairs: Any = ()) -> dict[Any, Any]:
        """Python 2 writes the pairs as a list of lists."""
        made: dict[Any, Any] = {}
        if type(pairs) not in (list, tuple) or any(type(pair) not in (list, tuple) or len(pair) != 2 for pair in pairs):
            raise ValueError
        self.keys.put(made, [part for pair in pairs for part in pair])
        return made

    def counter(self, counts: Any = None) -> Any:
        if counts is not None and type(counts) is not dict:
            raise ValueError
        made: collections.Counter[Any] = collections.Counter()
        self.keys.put(made, [part for pair in (counts or {}).items() for part in pair])
        return made

    def default_dict(self, factory: Any = None) -> Any:
        if factory is None:
            return collections.defaultdict(None)
        if not isinstance(factory, Unread) or modern(factory.name) not in _FACTORIES:
            return Unread("collections.defaultdict", (factory,))
        return collections.defaultdict(_FACTORIES[modern(factory.name)])

    def set_of(self, items: Any = ()) -> set[Any]:
        made: set[Any] = set()
        if type(items) not in (list, tuple):
            raise ValueError
        self.keys.add(made, list(items))
        return made

    def frozenset_of(self, items: Any = ()) -> frozenset[Any]:
        return frozenset(self.set_of(items))

    def encode(self, text: Any, encoding: Any = None) -> bytes:
        """Bytes, as older protocols of Python 3 write them."""
        if type(text) is not str or encoding not in ("latin1", "latin-1"):
            raise ValueError
        return text.encode("latin-1")

    def bytearray_of(self, content: Any = b"", encoding: Any = None) -> bytearray:
        if type(content) is str:
            content = self.encode(content, encoding)
        if not isinstance(content, bytes | bytearray):
            raise ValueError
        return bytearray(content)

    def size(self, values: Any) -> tuple[int, ...]:
        if not are_sizes(values):
            raise ValueError
        return values

    def path_of(self, kind: Any) -> Callable[..., Any]:
        def made(*parts: Any) -> Any:
            if not all(type(part) is str for part in parts):
                raise ValueError
            self.budget.spend(8 * cost.OBJECT + sum(4 * len(part) + cost.OBJECT for part in parts))
            return kind(*parts)

        return made


def bytes_of() -> bytes:
    return b""


def first(value: Any, _: Any = None) -> Any:
    return value


def complex_of(real: Any, imaginary: Any) -> complex:
    if not isinstance(real, float | int) or not isinstance(imaginary, float | int):
        raise ValueError
    return complex(real, imaginary)


def device(kind: Any, index: Any = None) -> str:
    """PyTorch's own short form: "cpu", "cuda:0"."""
    if type(kind) is not str or len(kind) > 100 or type(index) not in (int, type(None)):
        raise ValueError
    return kind if index is None else f"{kind}:{index}"


def layout(name: Any) -> str:
    if type(name) is not str:
        raise ValueError
    return name

"""What an attribute of a module holds: parameters and layers that have a name, and those that cannot have one."""

import contextlib
import functools
import types
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, MappingView, Sequence
from typing import Any

import numpy as np

from gpulstm.backend import Device
from gpulstm.cells import Cell
from gpulstm.cells.activation import Activation
from gpulstm.errors import DTypeError
from gpulstm.nn.parameter import Member, Parameter
from gpulstm.tape import Tensor

# What holds neither layers nor parameters, and is behind most attributes. What a weak reference leads to is held
# elsewhere.
PLAIN = frozenset(
    {
        type(None), bool, int, float, complex, str, bytes, type, range, slice, np.dtype,
        np.random.Generator, Device, Cell, Activation, types.BuiltinFunctionType, types.ModuleType,
        weakref.ReferenceType, weakref.ProxyType, weakref.CallableProxyType,
    }
)  # fmt: skip
MANY = 64  # a container with more entries is read again only when it is another one or has another number of them
DEPTH = 4  # objects in objects, and functions in functions, that are looked into
_SIZED: tuple[Any, ...] = (dict, list, tuple, set, frozenset, deque)
_ITERABLE: tuple[Any, ...] = (*_SIZED, MappingView)
INTERNAL = frozenset(
    {"_persistent", "_hooks", "_remembered", "_elsewhere"}
)  # a module's attributes that are not the user's


class Contents:
    """What the attributes of one module hold.

    ``members`` are (name, parameter or layer); ``hidden`` are (name, value, parameters and layers in it) for values
    that give no names: sets, objects, functions, dicts with other keys than strings. Raises DTypeError for what holds
    itself. What earlier readings found to hold nothing is read again if ``anew``.
    """

    def __init__(self, module: Any, anew: bool = False) -> None:
        self.module = module
        if anew:
            vars(module).pop("_remembered", None)
        self.members: list[tuple[str, Any]] = []
        self.hidden: list[tuple[str, Any, list[Any]]] = []
        remembered = vars(module).get("_remembered", {})
        for name, value in list(module._attributes()):
            if type(value) in PLAIN or name in INTERNAL:
                continue
            if isinstance(value, Member):
                self.members.append((name, value))
            elif (known := remembered.get(name)) is None or known[0] is not value or known[1] != _length(value):
                self._add(name, value, ())

    def _add(self, name: str, value: Any, above: tuple[int, ...]) -> None:
        if isinstance(value, Member):
            self.members.append((name, value))
        elif isinstance(value, Tensor):
            check_learnt(name, value)
        elif isinstance(value, dict | list | tuple):
            self._add_container(name, value, above)
        elif not _is_array(value) and not self._is_remembered(name, value):
            self._hide(name, value, list(search(value)))

    def _add_container(self, name: str, value: Any, above: tuple[int, ...]) -> None:
        if (len(value) <= MANY and _is_plain(value)) or self._is_remembered(name, value):
            return
        if id(value) in above:
            raise DTypeError(
                f"{name}: expected a {type(value).__name__} that does not contain itself, got one that does"
            )
        before, unnamed = (len(self.members), len(self.hidden)), list[Any]()
        for key, item in _entries(value):
            if type(item) in PLAIN:
                continue
            if isinstance(key, str) and key and "." not in key:
                self._add(f"{name}.{key}", item, (*above, id(value)))
            else:
                unnamed += search(item)
        if isinstance(value, dict):
            unnamed += [thing for key in value for thing in search(key)]
        if unnamed:
            self._hide(name, value, unnamed)
        if len(value) > MANY and before == (len(self.members), len(self.hidden)):
            memory = vars(self.module).get("_remembered", {})
            for each in [each for each in memory if each.startswith(f"{name}.")]:
                del memory[each]  # the container stands for all that is in it
            self.remember(name, value)

    def _hide(self, name: str, value: Any, things: list[Any]) -> None:
        known = vars(self.module).get("_elsewhere", {}).get(name, ())
        if all(any(thing is other for other in known) for thing in things):
            self.remember(name, value)
        else:
            self.hidden.append((name, value, things))

    def allow(self, name: str, value: Any, things: list[Any]) -> None:
        """Take note that a walk from above has found these things elsewhere."""
        vars(self.module).setdefault("_elsewhere", {})[name] = things
        self.remember(name, value)

    def remember(self, name: str, value: Any) -> None:
        """Do not look into this value again as long as it stays where it is; small containers are always read."""
        if not isinstance(value, _SIZED) or len(value) > MANY:
            vars(self.module).setdefault("_remembered", {})[name] = (value, _length(value))

    def _is_remembered(self, name: str, value: Any) -> bool:
        known = vars(self.module).get("_remembered", {}).get(name)
        return known is not None and known[0] is value and known[1] == _length(value)


def check_learnt(name: str, value: Tensor) -> None:
    """Raises DTypeError for a tensor to be learnt that is no Parameter: no optimiser would be given it."""
    if value.requires_grad and value._source is None and not isinstance(value, Parameter):
        raise DTypeError(
            f"{name}: expected a Parameter for a trained array, got a Tensor that requires_grad; "
            "write gl.Parameter(x.data), or x.detach() for an array that is not trained"
        )


def search(value: Any) -> Iterator[Any]:
    """The parameters and layers in a value of any type: in containers, in objects and functions down to a depth."""
    return _search(value, DEPTH, set())


def _search(value: Any, depth: int, seen: set[int]) -> Iterator[Any]:
    if type(value) in PLAIN or id(value) in seen:
        return
    seen.add(id(value))
    parts: Sequence[Any] = ()
    if isinstance(value, Member):
        yield value
    elif isinstance(value, dict | types.MappingProxyType):
        parts = (*value.keys(), *value.values())
    elif isinstance(value, _ITERABLE):
        parts = list(value)
    elif isinstance(value, np.ndarray):
        parts = value.ravel().tolist() if value.dtype.hasobject else ()
    elif depth > 0 and not isinstance(value, Tensor):
        depth, parts = depth - 1, _parts(value)
    if not PLAIN.issuperset(map(type, parts)):
        for part in parts:
            yield from _search(part, depth, seen)


def _parts(value: Any) -> list[Any]:
    """What an object or function holds: attributes, and the variables that a function has from where it was made."""
    parts = list(getattr(value, "__dict__", {}).values())
    parts += [getattr(value, name, None) for kind in type(value).__mro__ for name in _slots(kind)]
    if isinstance(value, functools.partial):
        parts += [value.func, value.args, value.keywords]
    elif isinstance(value, types.MethodType):
        parts += [value.__self__, value.__func__]
    elif isinstance(value, types.FunctionType):
        parts += [value.__defaults__, value.__kwdefaults__]
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):  # a variable that has no value yet
                parts.append(cell.cell_contents)
    return parts


def _slots(kind: type) -> tuple[str, ...]:
    names = vars(kind).get("__slots__", ())
    return (names,) if isinstance(names, str) else tuple(names)


def _entries(value: Any) -> Iterable[tuple[Any, Any]]:
    """(key, item) of a dict, list or tuple; a named tuple has its fields as keys."""
    if isinstance(value, dict):
        return value.items()
    return zip(getattr(value, "_fields", None) or map(str, range(len(value))), value, strict=True)


def _is_array(value: Any) -> bool:
    """Whether this is an array of numbers, of any library."""
    return hasattr(value, "dtype") and hasattr(value, "shape") and not getattr(value.dtype, "hasobject", False)


def _is_plain(value: Any) -> bool:
    values = value.values() if isinstance(value, dict) else value
    return PLAIN.issuperset(map(type, values)) and (not isinstance(value, dict) or PLAIN.issuperset(map(type, value)))


def _length(value: Any) -> int:
    return len(value) if isinstance(value, _SIZED) else 0

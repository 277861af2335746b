"""Finds the parameters and layers in a module's attributes: those that have a name, and those that cannot have one."""

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

# Types that contain neither layers nor parameters; most attributes have one of them. A weak reference does not contain
# its object: that is found elsewhere.
PLAIN = frozenset(
    {
        type(None), bool, int, float, complex, str, bytes, type, range, slice, np.dtype,
        np.random.Generator, Device, Cell, Activation, types.BuiltinFunctionType, types.ModuleType,
        weakref.ReferenceType, weakref.ProxyType, weakref.CallableProxyType,
    }
)  # fmt: skip
MANY = 64  # a container with more entries is reread only if it is a new object or its length has changed
DEPTH = 4  # how many levels of nested objects and functions are searched
_SIZED: tuple[Any, ...] = (dict, list, tuple, set, frozenset, deque)
_ITERABLE: tuple[Any, ...] = (*_SIZED, MappingView)
INTERNAL = frozenset({"_persistent", "_hooks", "_remembered", "_elsewhere"})  # attributes that Module itself sets


class Contents:
    """The contents of one module's attributes.

    ``members`` are (name, parameter or layer). ``hidden`` are (name, value, the parameters and layers in it) for values
    that give no names: sets, objects, functions, dicts whose keys are not strings. Raises DTypeError for a container
    that contains itself. With ``anew``, values in which earlier searches found nothing are searched again.
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
                del memory[each]  # the entry of the container covers everything inside it
            self.remember(name, value)

    def _hide(self, name: str, value: Any, things: list[Any]) -> None:
        known = vars(self.module).get("_elsewhere", {}).get(name, ())
        if all(any(thing is other for other in known) for thing in things):
            self.remember(name, value)
        else:
            self.hidden.append((name, value, things))

    def allow(self, name: str, value: Any, things: list[Any]) -> None:
        """Record that the walk over the whole model has found these parameters and layers under other names."""
        vars(self.module).setdefault("_elsewhere", {})[name] = things
        self.remember(name, value)

    def remember(self, name: str, value: Any) -> None:
        """Skip this value in later searches until the attribute changes; small containers are always searched."""
        if not isinstance(value, _SIZED) or len(value) > MANY:
            vars(self.module).setdefault("_remembered", {})[name] = (value, _length(value))

    def _is_remembered(self, name: str, value: Any) -> bool:
        known = vars(self.module).get("_remembered", {}).get(name)
        return known is not None and known[0] is value and known[1] == _length(value)


def check_learnt(name: str, value: Tensor) -> None:
    """Raise DTypeError for a leaf that requires_grad but is not a Parameter: ``parameters()`` would not return it."""
    if value.requires_grad and value._source is None and not isinstance(value, Parameter):
        raise DTypeError(
            f"{name}: expected a Parameter for a trained array, got a Tensor that requires_grad; "
            "write gl.Parameter(x.data), or x.detach() for an array that is not trained"
        )


def search(value: Any) -> Iterator[Any]:
    """The parameters and layers in a value of any type: in containers, and in nested objects and functions."""
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
    """The values that an object or function holds: its attributes, defaults, and variables from its closure."""
    parts = list(getattr(value, "__dict__", {}).values())
    parts += [getattr(value, name, None) for kind in type(value).__mro__ for name in _slots(kind)]
    if isinstance(value, functools.partial):
        parts += [value.func, value.args, value.keywords]
    elif isinstance(value, types.MethodType):
        parts += [value.__self__, value.__func__]
    elif isinstance(value, types.FunctionType):
        parts += [value.__defaults__, value.__kwdefaults__]
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):  # the variable has no value yet
                parts.append(cell.cell_contents)
    return parts


def _slots(kind: type) -> tuple[str, ...]:
    names = vars(kind).get("__slots__", ())
    return (names,) if isinstance(names, str) else tuple(names)


def _entries(value: Any) -> Iterable[tuple[Any, Any]]:
    """The (key, item) pairs of a dict, list or tuple; the keys of a named tuple are its fields."""
    if isinstance(value, dict):
        return value.items()
    return zip(getattr(value, "_fields", None) or map(str, range(len(value))), value, strict=True)


def _is_array(value: Any) -> bool:
    """Whether this is an array of numbers from any library."""
    return hasattr(value, "dtype") and hasattr(value, "shape") and not getattr(value.dtype, "hasobject", False)


def _is_plain(value: Any) -> bool:
    values = value.values() if isinstance(value, dict) else value
    return PLAIN.issuperset(map(type, values)) and (not isinstance(value, dict) or PLAIN.issuperset(map(type, value)))


def _length(value: Any) -> int:
    return len(value) if isinstance(value, _SIZED) else 0

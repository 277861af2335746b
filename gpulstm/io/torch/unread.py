"""Placeholders for the objects of a file that are not data: the name of their class, and their saved contents."""

from collections.abc import Callable
from typing import Any

# Modules' names in Python 2 and NumPy 1, and now.
_RENAMED = {"__builtin__.": "builtins.", "copy_reg.": "copyreg.", "numpy.core.": "numpy._core."}


def modern(name: str) -> str:
    """The current name of something that was renamed since the file was written."""
    for old, new in _RENAMED.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


class Unread:
    """Stands for an object in a PyTorch file that was not created, because creating it would run code.

    ``name`` is the name of its class or function ("torch.optim.adam.Adam"). Its contents are available as plain data:
    ``arguments`` (of its constructor), ``state`` (its attributes as they were saved, or None) and ``items`` (of a kind
    of list or dict, or None). Raises AttributeError for other attributes.

    >>> gl.io.torch.Unread("torch.optim.adam.Adam")
    Unread('torch.optim.adam.Adam')
    """

    __slots__ = ("arguments", "items", "name", "state")

    def __init__(self, name: str, arguments: tuple[Any, ...] = (), state: Any = None, items: Any = None) -> None:
        self.name, self.arguments, self.state, self.items = name, arguments, state, items

    def __repr__(self) -> str:
        return f"Unread({self.name!r})"

    def __getattr__(self, attribute: str) -> Any:
        if attribute in Unread.__slots__ or attribute.startswith("__"):  # while it is copied
            raise AttributeError(attribute)
        raise AttributeError(
            f"{attribute!r}: this is not a {self.name} but an Unread; its data are in arguments, state and items"
        )


class Named(Unread):
    """A class or function that a file names; a call of it gives what the reader's table says, or an Unread."""

    __slots__ = ()


class Unfinished(Unread):
    """An object whose value follows from its state; ``finish(state)`` returns it, or None if it stays unread."""

    __slots__ = ("finish", "places")

    def __init__(self, name: str, arguments: tuple[Any, ...], finish: Callable[[Any], Any]) -> None:
        super().__init__(name, arguments)
        self.finish = finish
        self.places: list[int] = []  # where the memo holds it


class Refused(Unread):
    """A tensor that no array can hold; ``arguments`` are the reason in words."""

    __slots__ = ()

"""What stands for the objects of a file that are not data: their class's name, and what was saved of them."""

from collections.abc import Callable
from typing import Any

# Modules' names in Python 2 and NumPy 1, and now.
_RENAMED = {"__builtin__.": "builtins.", "copy_reg.": "copyreg.", "numpy.core.": "numpy._core."}


def modern(name: str) -> str:
    """The name that something in a file has today."""
    for old, new in _RENAMED.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


class Unread:
    """Stands for an object in a PyTorch file that was not made, because that would run the file's code.

    ``name`` is its name ("torch.optim.adam.Adam"). Its contents are available as plain data: ``arguments`` (of its
    class), ``state`` (its attributes, as its class saves them, or None) and ``items`` (of a class of lists or dicts, or
    None). Raises AttributeError for other attributes.

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
    """A class or function that a file names; called, it becomes what the reader's table says, or an Unread."""

    __slots__ = ()


class Unfinished(Unread):
    """An object whose value follows from its state alone; ``finish(state)`` gives it, or None if it stays unread."""

    __slots__ = ("finish", "places")

    def __init__(self, name: str, arguments: tuple[Any, ...], finish: Callable[[Any], Any]) -> None:
        super().__init__(name, arguments)
        self.finish = finish
        self.places: list[int] = []  # where the memo holds it


class Refused(Unread):
    """A tensor that no array can hold; ``arguments`` are the reason in words."""

    __slots__ = ()

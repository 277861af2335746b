"""Sequential: layers and functions, called one after the other."""

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from gpulstm.errors import DTypeError, ShapeError
from gpulstm.nn.arguments import as_tensor
from gpulstm.nn.module import Module
from gpulstm.tape import Tensor

Layer = Module | Callable[[Any], Any]
STEPS = ("lengths", "mask", "reset")  # arguments that tell a layer which steps are valid


class Sequential(Module):
    """Calls layers and plain functions one after the other, as ``torch.nn.Sequential``.

    If a layer returns a tuple, such as a recurrent layer's (output, states), the next layer gets only the first item.
    Write ``Sequential(a, b)`` or ``Sequential([a, b])``, whose layers are named "0", "1", ... as in PyTorch, or
    ``Sequential({"rnn": a, "head": b})``, whose layers are named by the keys. ``lengths=`` is passed to the layers that
    take it, see ``forward``. A function that uses layers or parameters of its own raises DTypeError: write a gl.Module
    instead.

    ``model[1]`` and ``model[-1]`` are layers, ``model[:2]`` is a Sequential of the same layers with the same names, and
    ``del model[-1]`` removes a layer. Raises DTypeError for anything but layers and functions.

    >>> classify = gl.Sequential(gl.Embedding(10, 3), gl.LSTM(3, 4, return_sequences=False), gl.Linear(4, 2))
    >>> classify(np.zeros((5, 2), int), lengths=[5, 3]).shape  # ids (T, B) -> logits (B, C)
    (2, 2)
    """

    _row: dict[str, Layer]

    def __init__(self, *layers: Any) -> None:
        given: Any = layers
        if len(layers) == 1 and isinstance(layers[0], list | tuple | Mapping):
            given = layers[0]
        self._row = {}
        for name, layer in given.items() if isinstance(given, Mapping) else enumerate(given):
            self.add_module(str(name), layer)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers and functions in order; change them with ``append`` and ``model[n] = layer``."""
        return tuple(self._row.values())

    def named_layers(self) -> Iterator[tuple[str, Layer]]:
        """Yield (name, layer or function) in order; ``named_children`` yields only the layers."""
        yield from self._row.items()

    def _attributes(self) -> Iterator[tuple[str, Any]]:
        yield from self._row.items()
        yield from ((name, value) for name, value in super()._attributes() if name != "_row")

    def add_module(self, name: str, module: Any) -> None:
        """Append a layer or function under a name, or replace the one with that name."""
        if isinstance(module, type) or not callable(module) or isinstance(module, Tensor):
            hint = f"; write {module.__name__}()" if isinstance(module, type) else ""
            got = f"the class {module.__name__}" if isinstance(module, type) else type(module).__name__
            raise DTypeError(f"Sequential: expected layers or functions, got {got}{hint}")
        if not name or "." in name:
            raise DTypeError(f"Sequential: expected names without a dot, got {name!r}")
        self._row[name] = module

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Module) or name in vars(self).get("_row", ()):
            self.add_module(name, value)
        else:
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        row = vars(self).get("_row", {})
        if name not in row:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return row[name]

    def append(self, layer: Any) -> "Sequential":
        """Append a layer or function; its name is its position, or the next free number."""
        self.add_module(next(name for n in itertools.count(len(self._row)) if (name := str(n)) not in self._row), layer)
        return self

    def extend(self, layers: Iterable[Any]) -> "Sequential":
        """Append several layers or functions."""
        for layer in layers:
            self.append(layer)
        return self

    def forward(self, x: Any, *, lengths: Any = None, mask: Any = None, reset: Any = None) -> Any:
        """Pass x through all the layers.

        ``lengths``, ``mask`` and ``reset`` are passed to every layer and function that has an argument of that name, up
        to and including the layer that removes the time axis (``return_sequences=False``). Raises ShapeError if you
        give one that no layer takes.
        """
        given = {name: value for name, value in zip(STEPS, (lengths, mask, reset), strict=True) if value is not None}
        if given:
            self._check_taken(given)
        x = self._moved(x)
        for layer in self.layers:
            x = layer(x, **{name: given[name] for name in _taken(layer) if name in given}) if given else layer(x)
            x = x[0] if isinstance(x, tuple) else x
            given = {} if given and _ends_steps(layer) else given
        return x

    def _moved(self, x: Any) -> Any:
        """Move an array on the host to the GPU if the parameters are there; anything else is returned unchanged."""
        first = next(iter(self.parameters()), None)
        return as_tensor(x, "x", first) if first is not None and first.device != "cpu" and hasattr(x, "dtype") else x

    def _check_taken(self, given: dict[str, Any]) -> None:
        taken = _taken(self)
        for name in given:
            if name not in taken:
                layers = ", ".join(called(layer) for layer in self.layers) or "none"
                raise ShapeError(f"{name}: expected None, because none of the layers ({layers}) takes it")

    def __len__(self) -> int:
        return len(self._row)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.layers)

    def __getitem__(self, place: int | slice) -> Any:
        if not isinstance(place, slice):
            return self.layers[place]
        part = Sequential(dict(list(self._row.items())[place]))
        part.training = self.training
        return part

    def __setitem__(self, place: int, layer: Any) -> None:
        self.add_module(list(self._row)[place], layer)

    def __delitem__(self, place: int | slice) -> None:
        names = list(self._row)
        self._take_out(names[place] if isinstance(place, slice) else [names[place]])

    def __delattr__(self, name: str) -> None:
        if name in self._row:
            self._take_out([name])
        else:
            super().__delattr__(name)

    def _take_out(self, names: list[str]) -> None:
        """Remove layers; as in PyTorch, the rest is renumbered if all names were 0, 1, ..., else it keeps its names."""
        numbered = list(self._row) == list(map(str, range(len(self._row))))
        left = [(name, layer) for name, layer in self._row.items() if name not in names]
        self._row = {str(n) if numbered else name: layer for n, (name, layer) in enumerate(left)}

    def _parts(self) -> Iterator[tuple[str, Any]]:
        return ((n, item if isinstance(item, Module) else _Word(called(item))) for n, item in self._row.items())


class _Word(str):
    """A name that is shown without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def called(layer: Layer) -> str:
    """The name of a layer or function in messages."""
    return type(layer).__name__ if isinstance(layer, Module) else getattr(layer, "__name__", repr(layer))


def _taken(layer: Layer) -> set[str]:
    """Which of lengths, mask and reset a layer or function takes."""
    if isinstance(layer, Sequential) and type(layer).forward is Sequential.forward:
        taken: set[str] = set()
        for each in layer.layers:
            taken |= _taken(each)
            if _ends_steps(each):
                break
        return taken
    try:
        signature = inspect.signature(layer.forward if isinstance(layer, Module) else layer)
    except (TypeError, ValueError):  # a function in C without a signature
        return set()
    behind_x = list(signature.parameters.values())[1:]
    return {each.name for each in behind_x if each.name in STEPS and each.kind != inspect.Parameter.POSITIONAL_ONLY}


def _ends_steps(layer: Layer) -> bool:
    """Whether the output of this layer has no time axis."""
    if isinstance(layer, Sequential):
        return any(map(_ends_steps, layer.layers))
    return getattr(layer, "return_sequences", True) is False

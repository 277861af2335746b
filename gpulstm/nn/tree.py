"""How a module finds its parameters, buffers and layers: it walks over its attributes at each request."""

import contextlib
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gpulstm.errors import DTypeError
from gpulstm.nn.contents import Contents
from gpulstm.nn.parameter import Member, Parameter
from gpulstm.tape import Tensor

if TYPE_CHECKING:
    from gpulstm.nn.module import Module


class Tree(Member):
    """The part of Module that finds parameters, buffers and layers.

    There is no registry of parameters and layers: every walk reads the attributes as they are now.
    """

    _persistent: Mapping[str, bool] = types.MappingProxyType({})  # the names of buffers, and whether they are saved

    def _attributes(self) -> Iterable[tuple[str, Any]]:
        """The (name, value) pairs that may hold parameters and layers."""
        return vars(self).items()

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """Yield (name, layer) for the direct sublayers; names in a list or dict are attribute.0, attribute.key."""
        return ((name, item) for name, item in Contents(self).members if isinstance(item, Tree))  # type: ignore[misc]

    def children(self) -> Iterator["Module"]:
        """Yield the direct sublayers."""
        return (child for _, child in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """Yield (name, layer) for this layer, named "", and all layers inside it.

        A shared layer appears under each of its names.
        """
        return ((joined(prefix, name), module) for name, module, _ in walk(self))

    def modules(self) -> Iterator["Module"]:
        """Yield this layer and all layers inside it, each once."""
        return iter({id(module): module for _, module, _ in walk(self)}.values())

    def get_submodule(self, name: str) -> "Module":
        """Return the layer with this name, such as "blocks.0"; raises AttributeError if there is none."""
        for found, module in self.named_modules():
            if found == name:
                return module
        raise AttributeError(f"{type(self).__name__} has no layer {name!r}; named_modules() lists them")

    def own_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield (name, parameter) of this layer only; those in a list or dict are named attribute.0, attribute.key."""
        return ((name, item) for name, item in Contents(self).members if isinstance(item, Parameter))

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Yield (name, parameter) of this layer and all layers inside it, each once, in the order of the attributes."""
        seen: set[int] = set()
        for name, parameter in all_parameters(self) if recurse else self.own_parameters():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield joined(prefix, name), parameter

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Yield the parameters of this layer and all layers inside it, each once."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def own_buffers(self) -> Iterator[tuple[str, Tensor, bool]]:
        """Yield (name, buffer, whether it is saved) of this layer only; skips buffers that are None."""
        values = ((name, vars(self).get(name), saved) for name, saved in self._persistent.items())
        return ((name, value, saved) for name, value, saved in values if value is not None)

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, buffer) of this layer and all layers inside it, each once; skips buffers that are None."""
        seen: set[int] = set()
        for above, module in self.named_modules() if recurse else [("", self)]:
            for name, buffer, _ in module.own_buffers():
                if id(buffer) not in seen:
                    seen.add(id(buffer))
                    yield joined(prefix, joined(above, name)), buffer

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Yield the buffers of this layer and all layers inside it, each once."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def __getstate__(self) -> dict[str, Any]:
        """The state for copies and pickles: all attributes except what the walks cache."""
        return {name: value for name, value in vars(self).items() if name not in ("_remembered", "_elsewhere")}


def walk(root: Tree, anew: bool = True) -> list[tuple[str, Any, list[tuple[str, Any]]]]:
    """Return (name, layer, its members) of the root, named "", and of all layers inside it, in PyTorch's order.

    Members are (name, parameter or layer). Raises DTypeError for a parameter or layer that has no name, because it is
    in a set, an object, a function, or under a key that is not a string; and for a layer that contains itself.

    ``anew`` also rereads the long lists and the objects in which earlier walks found no layers. Calls at every training
    step can skip that.
    """
    rows: list[tuple[str, Any, list[tuple[str, Any]]]] = []
    hidden: list[tuple[Contents, str, Any, list[Any]]] = []
    _descend("", root, (), rows, hidden, anew)
    if hidden:
        found = {id(module) for _, module, _ in rows} | {id(item) for _, _, items in rows for _, item in items}
        for contents, name, value, things in hidden:
            lost = next((thing for thing in things if id(thing) not in found and not _holds(thing, root)), None)
            if lost is not None:
                raise DTypeError(
                    f"{name} of {type(contents.module).__name__}: expected layers and parameters in attributes, lists, "
                    f"tuples and dicts whose keys are strings without a dot, got a {type(lost).__name__} in a "
                    f"{type(value).__name__}, which gives it no name"
                )
            contents.allow(name, value, things)
    return rows


def _holds(thing: Any, root: Tree) -> bool:
    """Whether ``thing`` contains root; then a walk from ``thing`` finds everything that root refers to through it."""
    rows: list[tuple[str, Any, Any]] = []
    with contextlib.suppress(DTypeError):
        if isinstance(thing, Tree):
            _descend("", thing, (), rows, [], False)
    return any(module is root for _, module, _ in rows)


def _descend(prefix: str, module: Tree, above: tuple[int, ...], rows: list, hidden: list, anew: bool) -> None:
    if id(module) in above:
        raise DTypeError(
            f"{prefix}: expected layers that do not contain themselves, got the {type(module).__name__} that it is in; "
            "keep a weakref.ref(layer) to refer back to it"
        )
    contents = Contents(module, anew)
    rows.append((prefix, module, contents.members))
    hidden += [(contents, *each) for each in contents.hidden]
    for name, item in contents.members:
        if isinstance(item, Tree):
            _descend(joined(prefix, name), item, (*above, id(module)), rows, hidden, anew)


def all_parameters(root: Tree) -> Iterator[tuple[str, Parameter]]:
    """Yield (name, parameter) of a layer and all layers inside it; a shared one appears under each of its names."""
    for prefix, _, members in walk(root, anew=False):
        for name, item in members:
            if isinstance(item, Parameter):
                yield joined(prefix, name), item


def joined(prefix: str, name: str) -> str:
    """Join two parts of a name with a dot."""
    return f"{prefix}.{name}" if prefix and name else prefix or name

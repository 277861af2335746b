"""What may be assigned to an attribute of a module: nothing that it would lose without a word."""

from typing import Any

from gpulstm.errors import DTypeError, TapeError, type_name
from gpulstm.nn.arguments import as_tensor
from gpulstm.nn.contents import check_learnt
from gpulstm.nn.parameter import Member, Parameter
from gpulstm.nn.tree import Tree
from gpulstm.tape import Tensor

_OURS = ("gpulstm.nn.module", "gpulstm.nn.moving", "gpulstm.nn.tree")  # where Module's methods are
_FREE = ("training", "forward", "extra_repr", "device")  # names of the class that an object may set for itself


def assigned(module: Any, name: str, value: Any) -> Any:
    """The value to set. Raises DTypeError, saying what to write, where a parameter or layer would get lost."""
    _check_name(module, name, value)
    before = vars(module).get(name)
    if name in module._persistent:
        if not isinstance(value, Member):
            return buffer(name, value)
        if isinstance(value, Tree):
            raise DTypeError(f"{name}: expected a Tensor or None, as it is a buffer, got a {type(value).__name__}")
        vars(module)["_persistent"] = {key: saved for key, saved in module._persistent.items() if key != name}
    elif value is None or isinstance(value, Member):
        pass
    elif isinstance(before, Parameter):
        raise DTypeError(
            f"{name}: expected a Parameter, as it is learnt, got {_kind(value)}; for new values write "
            f"layer.{name}.data[...] = values, or layer.{name} = gl.Parameter(values) for another parameter"
        )
    elif isinstance(before, Tree):
        raise DTypeError(
            f"{name}: expected a layer or None in place of a layer, got {_kind(value)}; "
            f"del the attribute {name} first if it is to be something else"
        )
    elif isinstance(value, Tensor):
        check_learnt(name, value)
    return value


def buffer(name: str, value: Any) -> Tensor | None:
    """The value as a Tensor; raises DTypeError for what is no array, TapeError for one that has a gradient to come."""
    if value is None:
        return None
    if not any(hasattr(value, word) for word in ("dtype", "__dlpack__", "__cuda_array_interface__")):
        raise DTypeError(f"{name}: expected a Tensor, an array or None for a buffer, got {_kind(value)}")
    if isinstance(value, Parameter):
        raise DTypeError(
            f"{name}: expected a Tensor or an array for a buffer, got a Parameter; write it without register_buffer"
        )
    value = as_tensor(value, name)
    if value.requires_grad:
        raise TapeError(
            f"{name}: expected a Tensor without a gradient for a buffer, got one that requires_grad; detach() it"
        )
    return value


def _check_name(module: Any, name: str, value: Any) -> None:
    own = getattr(type(module), name, None)
    if own is None or name in _FREE:
        if "." in name and isinstance(value, Member):
            raise DTypeError(f"{name}: expected a name without a dot for a {type(value).__name__}")
        return
    owner = next(kind for kind in type(module).__mro__ if name in vars(kind))
    if (isinstance(own, property) and own.fset is None) or owner.__module__ in _OURS:
        kind = "a property" if isinstance(own, property) else "a method"
        raise DTypeError(
            f"{name}: expected another name, as {name} is {kind} of gpulstm's {owner.__name__}; {name}_ is free"
        )


def _kind(value: Any) -> str:
    return f"a plain {type_name(value)}" if isinstance(value, Tensor) else f"a {type_name(value)}"

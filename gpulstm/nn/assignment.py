"""Checks what is assigned to an attribute of a module, so that no parameter or layer is lost silently."""

from typing import Any

from gpulstm.errors import DTypeError, TapeError, type_name
from gpulstm.nn.arguments import as_tensor
from gpulstm.nn.contents import check_learnt
from gpulstm.nn.parameter import Member, Parameter
from gpulstm.nn.tree import Tree
from gpulstm.tape import Tensor

_OURS = ("gpulstm.nn.module", "gpulstm.nn.moving", "gpulstm.nn.tree")  # the modules that define Module's methods
_FREE = ("training", "forward", "extra_repr", "device")  # names of the class that an object may override


def assigned(module: Any, name: str, value: Any) -> Any:
    """Return the value to set; raises DTypeError, with what to write instead, if a parameter or layer would be lost."""
    _check_name(module, name, value)
    before = vars(module).get(name)
    if name in module._persistent:
        if not isinstance(value, Member):
            return buffer(name, value)
        if isinstance(value, Tree):
            raise DTypeError(f"{name}: expected a Tensor or None for a buffer, got a {type(value).__name__}")
        vars(module)["_persistent"] = {key: saved for key, saved in module._persistent.items() if key != name}
    elif value is None or isinstance(value, Member):
        pass
    elif isinstance(before, Parameter):
        raise DTypeError(
            f"{name}: expected a Parameter, because this attribute is trained, got {_kind(value)}; for new values "
            f"write layer.{name}.data[...] = values, for a new parameter layer.{name} = gl.Parameter(values)"
        )
    elif isinstance(before, Tree):
        raise DTypeError(
            f"{name}: expected a layer or None in place of a layer, got {_kind(value)}; "
            f"to store something else, delete the attribute first: del layer.{name}"
        )
    elif isinstance(value, Tensor):
        check_learnt(name, value)
    return value


def buffer(name: str, value: Any) -> Tensor | None:
    """Return the value as a Tensor; raises DTypeError unless it is an array, TapeError if it requires a gradient."""
    if value is None:
        return None
    if not any(hasattr(value, word) for word in ("dtype", "__dlpack__", "__cuda_array_interface__")):
        raise DTypeError(f"{name}: expected a Tensor, an array or None for a buffer, got {_kind(value)}")
    if isinstance(value, Parameter):
        raise DTypeError(
            f"{name}: expected a Tensor or an array for a buffer, got a Parameter; assign it without register_buffer"
        )
    value = as_tensor(value, name)
    if value.requires_grad:
        raise TapeError(
            f"{name}: expected a Tensor that requires no gradient for a buffer, got one that does; call detach() first"
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
            f"{name}: expected another name, because {name} is {kind} of gpulstm's {owner.__name__}; {name}_ is free"
        )


def _kind(value: Any) -> str:
    return f"a plain {type_name(value)}" if isinstance(value, Tensor) else f"a {type_name(value)}"

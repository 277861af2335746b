"""Module, the base class of layers: attributes hold parameters and other layers, and a call runs ``forward``."""

import numbers
import reprlib
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gpulstm import checks
from gpulstm.backend import Array
from gpulstm.errors import DTypeError, ShapeError
from gpulstm.nn.assignment import assigned, buffer
from gpulstm.nn.contents import search
from gpulstm.nn.hooks import Handle, Hooks
from gpulstm.nn.moving import Moving
from gpulstm.nn.parameter import Parameter
from gpulstm.nn.state import Loaded, load
from gpulstm.nn.tree import joined, walk
from gpulstm.tape import Tensor

__all__ = ["Loaded", "Module", "Parameter", "check_flags", "check_rate", "check_sizes"]


class Module(Moving):
    """The base class of every layer and model, as ``torch.nn.Module``.

    Assign parameters and layers to attributes in ``__init__``, and define ``forward``. A call of ``super().__init__()``
    is not needed. A Module finds parameters and layers in its attributes, also in nested lists, tuples and dicts; their
    names are paths such as "blocks.0.1.weight" and "encoders.a.weight".

    A Module raises DTypeError rather than miss a parameter or layer. ``parameters()``, ``state_dict()``, ``eval()`` and
    similar methods raise it for layers in sets, other objects, functions, and dicts whose keys are not strings.
    Assigning an array to an attribute that holds a parameter raises it, and so does a name that Module itself uses,
    such as ``train``.

    Arrays that are saved and moved but not trained are buffers: see ``register_buffer``. A plain Tensor or array in an
    attribute is neither saved nor moved.

    >>> class Scale(gl.Module):
    ...     def __init__(self):
    ...         self.factor = gl.Parameter(np.array([2.0]))
    ...     def forward(self, x):
    ...         return x * self.factor
    >>> Scale()(gl.tensor(np.array([1.0, 3.0]))).shape
    (2,)
    """

    training = True
    _hooks: Hooks | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, value in vars(cls).items():
            if not isinstance(value, types.FunctionType) and (things := list(search(value))):
                want = f"expected a {type(things[0]).__name__} as self.{name} in __init__"
                raise DTypeError(f"{cls.__name__}.{name}: {want}, got one in the class body")
        if vars(cls).get("__slots__"):
            raise DTypeError(f"{cls.__name__}: expected no __slots__, as layers and parameters in slots are not found")

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, assigned(self, name, value))

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        if name in self._persistent:
            vars(self)["_persistent"] = {key: saved for key, saved in self._persistent.items() if key != name}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._hooks.call(self, args, kwargs) if self._hooks else self.forward(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output of the layer; every subclass defines it."""
        raise TypeError(f"{type(self).__name__} has no forward method")

    def add_module(self, name: str, module: "Module | None") -> None:
        """Assign a layer, or None, to the attribute with this name."""
        if not isinstance(module, Module | None):
            raise DTypeError(f"{name}: expected a layer or None, got {type(module).__name__}")
        setattr(self, name, module)

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Assign a parameter, or None, to the attribute with this name."""
        if not isinstance(parameter, Parameter | None):
            raise DTypeError(f"{name}: expected a gl.Parameter or None, got {type(parameter).__name__}")
        setattr(self, name, parameter)

    def register_buffer(self, name: str, tensor: Any, persistent: bool = True) -> None:
        """Add an array that belongs to the layer but is not trained, such as running statistics.

        ``tensor`` is a Tensor, an array of any library, or None to set it later. It becomes a Tensor, not a parameter.
        ``to`` moves it, and converts it if it is floating. ``state_dict`` includes it if ``persistent`` is True. A
        later assignment to the attribute replaces the buffer. Raises DTypeError for anything but an array.
        """
        if not isinstance(name, str) or not name or "." in name or name == "forward":
            raise DTypeError(f"name: expected a name without a dot for a buffer, got {name!r}")
        value = buffer(name, tensor)
        if vars(self).get(name) is not None and name not in self._persistent:
            raise DTypeError(
                f"{name}: expected a new name for a buffer, got that of a {type(vars(self)[name]).__name__}"
            )
        setattr(self, name, None)  # checks the name
        vars(self)["_persistent"] = {**self._persistent, name: bool(persistent)}
        setattr(self, name, value)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> Handle:
        """Call ``hook(module, args, output)`` after each call of the layer, as in PyTorch.

        If the hook returns something other than None, that replaces the output. Hooks run in the order of registration;
        ``prepend`` makes this one the first. With ``with_kwargs`` the call is ``hook(module, args, kwargs, output)``.
        ``handle.remove()`` removes the hook.
        """
        return self._own_hooks().add("after", hook, prepend, with_kwargs)

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> Handle:
        """Call ``hook(module, args)`` before each call of the layer, as in PyTorch.

        If the hook returns something other than None, that replaces the arguments: one argument or a tuple of them.
        With ``with_kwargs`` the call is ``hook(module, args, kwargs)``, which returns None or (args, kwargs).
        """
        return self._own_hooks().add("before", hook, prepend, with_kwargs)

    def _own_hooks(self) -> Hooks:
        return vars(self).setdefault("_hooks", Hooks())

    def _saved(self) -> dict[str, Tensor]:
        """Parameters and persistent buffers by name, layer by layer; a shared one appears under each of its names."""
        saved: dict[str, Tensor] = {}
        for prefix, module, members in walk(self):
            saved |= {joined(prefix, name): item for name, item in members if isinstance(item, Parameter)}
            saved |= {joined(prefix, name): item for name, item, persistent in module.own_buffers() if persistent}
        return saved

    def state_dict(self) -> dict[str, Array]:
        """Return a dict of the arrays of parameters and buffers by name.

        The arrays are not copies, so later training changes them. A shared parameter appears under each of its names,
        as in PyTorch.
        """
        return {name: saved.data for name, saved in self._saved().items()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> Loaded:
        """Copy the arrays of ``state`` into the parameters and buffers with the same names.

        The arrays may come from any library, PyTorch included. The module's dtypes and devices do not change. If
        anything does not fit, this raises ShapeError with the full list before it changes anything: missing and
        unexpected names, wrong shapes, values that the dtype cannot hold, different values for a shared parameter.
        ``strict=False`` accepts missing and unexpected names; the result lists them.
        """
        return load(self._saved(), state, strict, type(self).__name__)

    def train(self, mode: bool = True) -> "Module":
        """Set this layer and all layers inside it to training mode, which turns dropout on; returns the module."""
        check_flags(mode=mode)
        walk(self)  # raises if a layer would be missed
        self.training = mode
        for child in self.children():
            child.train(mode)
        return self

    def eval(self) -> "Module":
        """Set this layer and all layers inside it to evaluation mode, which turns dropout off; returns the module."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> "Module":
        """Set ``requires_grad`` of all parameters; False freezes them; returns the module."""
        check_flags(requires_grad=requires_grad)
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def apply(self, fn: Callable[["Module"], Any]) -> "Module":
        """Call ``fn(layer)`` for every layer inside this one and then for this one, e.g. to initialise parameters."""
        if not callable(fn):
            raise DTypeError(f"fn: expected a function of a layer, got {type(fn).__name__}")
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def zero_grad(self) -> None:
        """Set the gradient of every parameter to None."""
        for parameter in self.parameters():
            parameter.grad = None

    def extra_repr(self) -> str:
        """Return the text that ``repr`` shows in the brackets; a subclass may define it."""
        return ""

    @reprlib.recursive_repr("...")
    def __repr__(self) -> str:
        lines = [f"({name}): {part!r}".replace("\n", "\n  ") for name, part in self._parts()]
        if not lines:
            return f"{type(self).__name__}({self.extra_repr()})"
        return f"{type(self).__name__}(\n  " + "\n  ".join([*filter(None, [self.extra_repr()]), *lines]) + "\n)"

    def _parts(self) -> Iterable[tuple[str, Any]]:
        """The (name, layer) pairs that ``repr`` shows inside the brackets."""
        return self.named_children()

    def summary(self) -> None:
        """Print a table of the layers with their output shapes and numbers of parameters."""
        from gpulstm.nn.summary import table

        print(table(self))


def check_sizes(**sizes: Any) -> tuple[int, ...]:
    """Return the sizes as Python integers; raises ShapeError, naming the argument, unless each is at least 1."""
    return tuple(checks.integer(name, size, 1, 2**63, words="an integer above 0") for name, size in sizes.items())


def check_rate(name: str, rate: Any) -> None:
    """Raises ShapeError unless 0 <= rate <= 1."""
    if isinstance(rate, bool) or not isinstance(rate, numbers.Real) or not 0 <= float(rate) <= 1:
        raise ShapeError(f"{name}: expected a number from 0 to 1, a probability, got {rate!r}")


def check_flags(**flags: Any) -> None:
    """Raises DTypeError, naming the argument, unless each is True or False."""
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise DTypeError(f"{name}: expected True or False, got {flag!r}")

"""What a layer is: an object whose attributes hold parameters and other layers, and which can be called."""

import numbers
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from gpulstm.backend import FLOATS, Array, Device, as_dtype, backend_of
from gpulstm.backend import device as find_device
from gpulstm.errors import DTypeError, ShapeError
from gpulstm.tape import Tensor, tensor


class Parameter(Tensor):
    """A tensor that a layer learns."""

    __slots__ = ()

    def __init__(self, data: Array) -> None:
        super().__init__(data, requires_grad=True)


class Loaded(NamedTuple):
    """What ``load_state_dict`` passed over, under PyTorch's names."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """Base of every layer. A subclass sets its parameters and sub-layers as attributes, or lists of them, in
    ``__init__`` and computes in ``forward``."""

    training = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the layer computes."""
        raise TypeError(f"{type(self).__name__} has no forward method")

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """(attribute, layer) of the layers directly in this one; those of a list are attribute.0, ..."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, list | tuple):
                yield from ((f"{name}.{n}", item) for n, item in enumerate(value) if isinstance(item, Module))

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """This layer, under "", and all below it."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator["Module"]:
        """This layer and all below it."""
        return (module for _, module in self.named_modules())

    def children(self) -> Iterator["Module"]:
        """The layers directly in this one."""
        return (child for _, child in self.named_children())

    def own_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(attribute, parameter) of this layer alone; those of a list are attribute.0 and so on."""
        for name, value in vars(self).items():
            if isinstance(value, Parameter):
                yield name, value
            elif isinstance(value, list | tuple):
                yield from ((f"{name}.{n}", item) for n, item in enumerate(value) if isinstance(item, Parameter))

    def _all_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(name, parameter) of this layer and all below it, a shared one under each of its names."""
        for prefix, module in self.named_modules():
            for name, parameter in module.own_parameters():
                yield f"{prefix}.{name}" if prefix else name, parameter

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(name, parameter) of this layer and all below it, each once, in the order of the attributes."""
        seen: set[int] = set()
        for name, parameter in self._all_parameters():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter

    def parameters(self) -> Iterator[Parameter]:
        """The parameters of this layer and all below it."""
        return (parameter for _, parameter in self.named_parameters())

    @property
    def device(self) -> str:
        """Where the first parameter lives: "cpu" or "cuda:0"; "cpu" without parameters."""
        return backend_of(next((p.data for p in self.parameters()), None)).name

    def state_dict(self) -> dict[str, Array]:
        """The parameters' arrays by name, not copied: what is trained later shows in them.

        A shared parameter stands under each of its names, as in PyTorch.
        """
        return {name: parameter.data for name, parameter in self._all_parameters()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> Loaded:
        """Take the values of ``state``: arrays of any library, PyTorch's too, under this module's names.

        They are copied into the parameters' own arrays, whose type and device stay. Raises ShapeError that
        lists everything that does not fit, and then changes nothing. With ``strict=False`` names that one
        side lacks are passed over; the answer tells which.
        """
        own = dict(self._all_parameters())
        passed = Loaded([name for name in own if name not in state], [name for name in state if name not in own])
        wrong = []
        if strict:
            wrong += [f"missing {name}" for name in passed.missing_keys]
            wrong += [f"unexpected {name}" for name in passed.unexpected_keys]
        new = {}
        for name in (name for name in own if name in state):
            value, want = _array(state[name]), own[name].shape
            if value.shape != want:
                wrong.append(f"{name}: want {want}, got {value.shape}")
            elif value.dtype.name not in FLOATS and value.dtype.kind not in "iub":
                wrong.append(f"{name}: want real numbers, got {value.dtype}")
            new[name] = value
        if wrong:
            raise ShapeError(f"state of {type(self).__name__}: " + "; ".join(wrong))
        for name, value in new.items():
            with backend_of(own[name].data) as backend:
                own[name].data[...] = backend.asarray(value)
        return passed

    def to(self, device: "str | Device | None" = None, dtype: Any = None) -> "Module":
        """Move the parameters to a device and give them a type; either may be given alone, also by position.

        Returns the module itself; gradients are moved too.
        """
        if device is not None and not isinstance(device, Device) and _is_dtype(device):
            device, dtype = None, device
        backend = None if device is None else find_device(device).backend
        kind = None if dtype is None else as_dtype(dtype)
        for parameter in self.parameters():
            there = backend or backend_of(parameter.data)
            with there:
                parameter.data = there.asarray(parameter.data, kind)
                parameter.grad = None if parameter.grad is None else there.asarray(parameter.grad, kind)
        return self

    def train(self, mode: bool = True) -> "Module":
        """Behave as in training (dropout), here and below."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> "Module":
        """Behave as in use, here and below."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forget every parameter's gradient."""
        for parameter in self.parameters():
            parameter.grad = None

    def extra_repr(self) -> str:
        """The arguments shown in ``repr``."""
        return ""

    def __repr__(self) -> str:
        children = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children()]
        if not children:
            return f"{type(self).__name__}({self.extra_repr()})"
        return f"{type(self).__name__}(\n  " + "\n  ".join([*filter(None, [self.extra_repr()]), *children]) + "\n)"

    def summary(self) -> None:
        """Print the layers with their output shapes and numbers of parameters."""
        from gpulstm.nn.summary import table

        print(table(self))


class Sequential(Module):
    """Layers in a row: each gets what the one before gives, of a recurrent layer its output alone."""

    def __init__(self, *layers: Module) -> None:
        for layer in layers:
            if not isinstance(layer, Module):
                raise DTypeError(f"Sequential: want layers, got {type(layer).__name__}")
        self.layers = list(layers)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """("0", first layer), ... as PyTorch names them."""
        return ((str(n), layer) for n, layer in enumerate(self.layers))

    def forward(self, x: Any) -> Any:
        """x through all the layers."""
        for layer in self.layers:
            x = layer(x)
            x = x[0] if isinstance(x, tuple) else x
        return x

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, place: int) -> Module:
        return self.layers[place]

    def __iter__(self) -> Iterator[Module]:
        return iter(self.layers)


def _array(value: Any) -> Array:
    """An array of any library, where it is; of PyTorch's tensors also those that NumPy could not read."""
    if not isinstance(value, Tensor) and hasattr(value, "detach"):
        value = value.detach()  # what requires a gradient is not handed out
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value  # no loss: it is wider
    return tensor(value).data


def _is_dtype(value: Any) -> bool:
    return not isinstance(value, str) or value.startswith(("float", "bfloat"))


def check_sizes(**sizes: Any) -> None:
    """Raises ShapeError, naming the argument, unless each is a positive integer."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size <= 0:
            raise ShapeError(f"{name}: want an integer above 0, got {size!r}")


def check_rate(name: str, rate: Any) -> None:
    """Raises ShapeError unless 0 <= rate <= 1."""
    if isinstance(rate, bool) or not isinstance(rate, numbers.Real) or not 0 <= float(rate) <= 1:
        raise ShapeError(f"{name}: want a number from 0 to 1, the part that is dropped, got {rate!r}")


def check_flags(**flags: Any) -> None:
    """Raises DTypeError, naming the argument, unless each is True or False."""
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise DTypeError(f"{name}: want True or False, got {flag!r}")

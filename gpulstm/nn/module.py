"""What a layer is: an object whose attributes hold parameters and other layers, and which can be called."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpulstm.backend import Array, Device, as_dtype, backend_of
from gpulstm.backend import device as find_device
from gpulstm.errors import DTypeError, ShapeError
from gpulstm.tape import Tensor


class Parameter(Tensor):
    """A tensor that a layer learns."""

    __slots__ = ()

    def __init__(self, data: Array) -> None:
        super().__init__(data, requires_grad=True)


class Module:
    """Base of every layer. A subclass sets its parameters and sub-layers as attributes, or lists of layers, in
    ``__init__`` and computes in ``forward``."""

    training = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the layer computes."""
        raise TypeError(f"{type(self).__name__} has no forward method")

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """(attribute, layer) of the layers directly in this one; those of a list are attribute.0, attribute.1, ..."""
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

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(name, parameter) of this layer and all below it, each parameter once, in the order of the attributes."""
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter) and id(value) not in seen:
                    seen.add(id(value))
                    yield f"{prefix}.{name}" if prefix else name, value

    def parameters(self) -> Iterator[Parameter]:
        """The parameters of this layer and all below it."""
        return (parameter for _, parameter in self.named_parameters())

    @property
    def device(self) -> str:
        """Where the first parameter lives: "cpu" or "cuda:0"; "cpu" without parameters."""
        return backend_of(next((p.data for p in self.parameters()), None)).name

    def state_dict(self) -> dict[str, Array]:
        """The parameters' arrays by name, not copied: what is trained later shows in them."""
        return {name: parameter.data for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: dict[str, Any], strict: bool = True) -> None:
        """Take the values of ``state``: arrays of any library under this module's names.

        Raises ShapeError that lists everything that does not fit, and then changes nothing. With
        ``strict=False`` names that one side lacks are passed over.
        """
        own = dict(self.named_parameters())
        wrong = []
        if strict:
            wrong += [f"missing {name}" for name in own if name not in state]
            wrong += [f"unexpected {name}" for name in state if name not in own]
        new = {}
        for name in own.keys() & state.keys():
            target = own[name].data
            value = state[name].data if isinstance(state[name], Tensor) else state[name]
            value = backend_of(target).asarray(value)
            if value.shape != target.shape:
                wrong.append(f"{name}: want {target.shape}, got {value.shape}")
            elif value.dtype.kind in "cOSU":
                wrong.append(f"{name}: want real numbers, got {value.dtype}")
            new[name] = value
        if wrong:
            raise ShapeError(f"state of {type(self).__name__}: " + "; ".join(sorted(wrong)))
        for name, value in new.items():
            own[name].data[...] = value

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
    """Layers one after the other: each gets what the one before gives. A recurrent layer passes on its output alone."""

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


def _is_dtype(value: Any) -> bool:
    return not isinstance(value, str) or value.startswith(("float", "bfloat"))


def check_sizes(**sizes: Any) -> None:
    """Raises ShapeError, naming the argument, unless each is a positive integer."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size <= 0:
            raise ShapeError(f"{name}: want an integer above 0, got {size!r}")


def check_rate(name: str, rate: Any) -> None:
    """Raises ShapeError unless 0 <= rate <= 1."""
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
        raise ShapeError(f"{name}: want a number from 0 to 1, the part that is dropped, got {rate!r}")

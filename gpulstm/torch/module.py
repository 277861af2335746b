"""The base class of all modules here: the parameters are torch's, and gpulstm does the arithmetic."""

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch

from gpulstm.dtypes import as_dtype
from gpulstm.errors import DTypeError
from gpulstm.random import draw_seed
from gpulstm.torch.call import Call, run
from gpulstm.torch.memory import as_tensor


class Module(torch.nn.Module):
    """The base class of these layers: a ``torch.nn.Module`` that computes with a layer of gpulstm.

    It takes that layer's arguments. ``device`` and ``dtype`` are torch's, as for ``torch.nn.LSTM``.
    ``torch.manual_seed`` seeds the initial parameters and the noise, unless a NumPy ``generator`` is given. Memory is
    shared with torch, not copied; the processor's compiled code uses ``torch.get_num_threads()`` threads. A second
    derivative is refused. ``torch.compile`` runs the layer unchanged, in a graph break.

    Raises ShapeError, DTypeError or DeviceError as the layer of gpulstm does.

    >>> isinstance(gl.torch.LSTM(3, 4), torch.nn.Module)
    True
    """

    kind: ClassVar[Callable[..., Any]]  # the layer of gpulstm
    compute: ClassVar[Callable[..., tuple]]  # its forward with flat arguments and results
    _layer: Any  # an instance of kind, without its parameters
    _names: tuple[str, ...]  # the names of the parameters

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "kind" in vars(cls):
            cls.__signature__ = inspect.signature(cls.kind)  # type: ignore[attr-defined]

    def __init__(self, *arguments: Any, device: Any = None, dtype: torch.dtype | None = None, **options: Any) -> None:
        super().__init__()
        dtype = torch.get_default_dtype() if dtype is None else dtype
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise DTypeError(f"dtype: expected one of torch's floating types or None, got {dtype!r}")
        given = options.get("generator")
        options["generator"] = _Torchs(dtype) if given is None else given
        real = as_dtype(str(dtype).removeprefix("torch."))
        layer = type(self).kind(*arguments, device="cpu", dtype=real, **options)
        layer.generator = given
        self._names = tuple(name for name, _ in layer.named_parameters())
        for name, parameter in list(layer.named_parameters()):
            self.register_parameter(name, torch.nn.Parameter(as_tensor(parameter.data).to(device, dtype)))
            delattr(layer, name)
        for name in [name for name, value in vars(layer).items() if value is None and name.startswith("bias_")]:
            self.register_parameter(name, None)
            delattr(layer, name)
        self._layer = layer

    def __getattr__(self, name: str) -> Any:
        parameters = self.__dict__.get("_parameters", {})
        if name in parameters:
            return parameters[name]
        if self._is_the_layers(name):
            return getattr(self._layer, name)  # hidden_size, num_layers, ...
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if self._is_the_layers(name):
            setattr(self._layer, name, value)
        else:
            super().__setattr__(name, value)

    def _is_the_layers(self, name: str) -> bool:
        """Whether an attribute is that of the layer of gpulstm and not the module's own."""
        own = self.__dict__
        layer = own.get("_layer")
        if layer is None or name.startswith("_") or name in own:
            return False
        return name in vars(layer) or name == "output_size"

    def _call(self, *inputs: torch.Tensor | None, **options: Any) -> tuple[torch.Tensor, ...]:
        """Call ``compute``, in autocast's dtype if autocast is on."""
        names, own = self._names, self._parameters  # a parametrization removes its parameter from these
        given = [*inputs, *(own[name] if name in own else getattr(self, name) for name in names)]
        place = inputs[0].device.type  # type: ignore[union-attr]
        if torch.is_autocast_enabled(place):
            dtype = torch.get_autocast_dtype(place)
            given = [x.to(dtype) if x is not None and x.is_floating_point() else x for x in given]
        layer, seed = self._layer, None
        if self.training and self._draws:
            seed = drawn_seed() if layer.generator is None else draw_seed(layer.generator)
        return run(Call(layer, type(self).compute, names, self.training, seed, options), *given)

    @property
    def _draws(self) -> bool:
        """Whether a call in training draws noise."""
        return False

    def extra_repr(self) -> str:
        return self._layer.extra_repr()


class _Torchs(np.random.Generator):
    """Draws initial values from torch's default generator, for tensors of one dtype, exactly as ``torch.nn`` does."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(np.random.PCG64(0))
        self._dtype = dtype

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        return torch.empty(size, dtype=self._dtype).uniform_(low, high).double().numpy()

    def standard_normal(self, size: Any = None, dtype: Any = None, out: Any = None) -> Any:
        return torch.empty(size, dtype=self._dtype).normal_().double().numpy()


def drawn_seed() -> int:
    """A seed from torch's default generator."""
    return int(torch.randint(2**63 - 1, ()))


def tensor_of(name: str, x: Any) -> torch.Tensor:
    """The argument. Raises DTypeError, naming it, unless it is a torch.Tensor."""
    if not isinstance(x, torch.Tensor):
        raise DTypeError(f"{name}: expected a torch.Tensor, got {type(x).__name__}; convert it with torch.as_tensor")
    return x


def on_host(x: Any) -> Any:
    """Lengths or a mask as a NumPy array, since gpulstm reads them on the host."""
    return x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else x


def optional_tensors(names: tuple[str, ...], values: Any) -> list[torch.Tensor | None]:
    """The states as a list, from one tensor (a cell with one state), several, or None."""
    if values is None:
        return [None] * len(names)
    given = [values] if isinstance(values, torch.Tensor) else list(values)
    return [None if value is None else tensor_of(f"{names[k]}_0" if k < len(names) else "hx", value)
            for k, value in enumerate(given)]  # fmt: skip


def as_given(states: tuple) -> Any:
    """The states as a layer of gpulstm takes them: None if there are none, the state itself if the cell has one."""
    if all(state is None for state in states):
        return None
    return states[0] if len(states) == 1 else states


def flat(states: Any) -> tuple:
    """A cell's states as a tuple, even if it has only one."""
    return states if isinstance(states, tuple) else (states,)

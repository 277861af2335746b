"""What all optimisers share: parameter groups, the walk over the parameters, a state that can be saved."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from gpulstm.backend import Array, Backend, accumulator, backend_of
from gpulstm.errors import DTypeError, FormatError, ShapeError
from gpulstm.tape import Tensor, increment_version

# Elements that NumPy works on at a time: with float32 a chunk is 64 KB, and the six that Adam needs stay in a
# core's own cache, so that each value comes from memory once a step however many expressions read it.
CHUNK = 1 << 14


class Slot(NamedTuple):
    """One parameter with the options of its group and its state: ``step`` and arrays by name."""

    group: dict[str, Any]
    parameter: Tensor
    state: dict[str, Any]


class Optimizer(ABC):
    """Base of the optimisers: ``step()`` updates, in place, every parameter that has a gradient.

    ``parameters`` are Parameters, or groups ``{"params": [...], "lr": ...}`` with options of their own. The
    options in force stand in ``param_groups`` and may be changed there between steps; ``lr`` is the first
    group's. The state of a parameter (momenta, moments) is kept in float64 for float64 parameters and in
    float32 for all others, and the update is computed in that type.

    Raises ShapeError for an option out of range or unknown, for no parameters at all and for one listed
    twice, and DTypeError for what is no Parameter.
    """

    def __init__(self, parameters: Iterable[Any], **defaults: Any) -> None:
        if isinstance(parameters, Tensor | dict) or not isinstance(parameters, Iterable):
            raise DTypeError(f"parameters: want a list of Parameters or of groups, got {type(parameters).__name__}")
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: list[dict[str, Any]] = []  # of every parameter, in the order of the groups
        given = list(parameters)
        if not given:
            raise ShapeError("parameters: want at least one, got none")
        for group in given if isinstance(given[0], dict) else [{"params": given}]:
            self.add_param_group(group)

    @abstractmethod
    def _check_options(self, options: dict[str, Any]) -> None:
        """Raise ShapeError for an option out of range."""

    @abstractmethod
    def _array_names(self, options: dict[str, Any]) -> tuple[str, ...]:
        """The names of the arrays that the state of a parameter holds under these options."""

    @abstractmethod
    def _update(
        self, xp: Any, options: dict[str, Any], p: Array, g: Array, state: dict[str, Any], s: Array, t: Array
    ) -> None:
        """Update p and the arrays of ``state`` in place with the gradient g, which stays as it is.

        All arrays are (n), of the type that updates are made in; s and t are scratch. The step in ``state``
        counts from 1.
        """

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Add a group ``{"params": [...], option: value, ...}``; options not given have their defaults."""
        if not (isinstance(group, dict) and "params" in group):
            raise DTypeError(f"parameter group: want a dict with 'params', got {type(group).__name__}")
        options = {**self.defaults, **{name: value for name, value in group.items() if name != "params"}}
        self._check_known(options)
        params = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
        seen = {id(slot.parameter) for slot in self._slots()}
        for k, p in enumerate(params):
            if not isinstance(p, Tensor):
                raise DTypeError(f"parameter {k}: want a Parameter, got {type(p).__name__}")
            if id(p) in seen:
                raise ShapeError(f"parameter {k}: want every Parameter once, got one of shape {p.shape} again")
            seen.add(id(p))
        self.param_groups.append({"params": params, **options})
        self.state += [{} for _ in params]

    @property
    def lr(self) -> float:
        """The learning rate of the first group; setting it sets that of every group."""
        return self.param_groups[0]["lr"]

    @lr.setter
    def lr(self, value: float) -> None:
        for group in self.param_groups:
            group["lr"] = value

    def zero_grad(self) -> None:
        """Forget the gradients: ``grad`` becomes None."""
        for slot in self._slots():
            slot.parameter.grad = None

    def step(self) -> None:
        """Update every parameter whose gradient is not None.

        Raises ShapeError, DTypeError or DeviceError, before anything is changed, where a gradient or a state
        does not fit its parameter.
        """
        alike: dict[tuple[Backend, np.dtype], list[Slot]] = {}
        for k, slot in enumerate(self._slots()):
            if slot.parameter.grad is not None:
                alike.setdefault((self._checked(k, slot), slot.parameter.data.dtype), []).append(slot)
        for (backend, dtype), slots in alike.items():
            with backend:
                for slot in slots:
                    self._begin_step(backend, slot)
                self._update_alike(backend, dtype, slots)
                for slot in slots:
                    increment_version(slot.parameter)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on, in PyTorch's layout: ``state`` by parameter number, ``param_groups``.

        The arrays are the optimiser's own, not copies.
        """
        first, groups = 0, []
        for group in self.param_groups:
            numbers = list(range(first, first := first + len(group["params"])))
            groups.append({**group, "params": numbers})
        return {
            "state": {k: dict(state) for k, state in enumerate(self.state) if state},
            "param_groups": groups,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what ``state_dict`` gave; arrays of any library are copied to the parameters' devices.

        Raises FormatError for a state of other groups or options and ShapeError for arrays or options that do
        not fit, both before anything is changed.
        """
        groups, states = self._checked_state_dict(state_dict)
        for group, options in zip(self.param_groups, groups, strict=True):
            group.update(options)
        self.state = states

    def _slots(self) -> list[Slot]:
        params = ((group, p) for group in self.param_groups for p in group["params"])
        return [Slot(group, p, state) for (group, p), state in zip(params, self.state, strict=True)]

    def _checked(self, k: int, slot: Slot) -> Backend:
        """The backend of parameter number k, its gradient and its state, all of one shape."""
        data: Array = slot.parameter.data
        grad: Array = slot.parameter.grad
        if grad.shape != data.shape:
            raise ShapeError(f"gradient of parameter {k}: want {data.shape}, got {grad.shape}")
        if grad.dtype != data.dtype:
            raise DTypeError(f"gradient of parameter {k}: want {data.dtype}, got {grad.dtype}")
        arrays = {name: value for name, value in slot.state.items() if name != "step"}
        for name, array in arrays.items():
            if array.shape != data.shape:
                raise ShapeError(f"{name} of parameter {k}: want {data.shape}, got {array.shape}")
            if array.dtype != accumulator(data.dtype):
                raise DTypeError(
                    f"{name} of parameter {k}: want {accumulator(data.dtype)}, got {array.dtype}; "
                    "convert a module before its optimiser is made"
                )
        return backend_of(data, grad, *arrays.values())

    def _begin_step(self, backend: Backend, slot: Slot) -> None:
        data, state = slot.parameter.data, slot.state
        state["step"] = state.get("step", 0) + 1
        for name in self._array_names(slot.group):
            if name not in state:
                state[name] = backend.zeros(data.shape, accumulator(data.dtype))

    def _update_alike(self, backend: Backend, dtype: np.dtype, slots: list[Slot]) -> None:
        """Update parameters of one device and one dtype by array expressions, on NumPy a chunk at a time."""
        xp, acc = backend.xp, accumulator(dtype)
        for group, parameter, state in slots:
            p, g = contiguous(xp, parameter.data).reshape(-1), contiguous(xp, parameter.grad).reshape(-1)
            arrays = {name: state[name].reshape(-1) for name in self._array_names(group)}
            chunk = max(1, p.size if backend.is_cuda else min(p.size, CHUNK))
            scratch = xp.empty((2, chunk), acc)
            for first in range(0, p.size, chunk):
                part = slice(first, first + chunk)
                wide, wide_g = p[part].astype(acc, copy=False), g[part].astype(acc, copy=False)
                s, t = scratch[:, : wide.size]
                now = {"step": state["step"], **{name: array[part] for name, array in arrays.items()}}
                with np.errstate(all="ignore"):  # the loss tells of numbers that are not finite, as on a GPU
                    self._update(xp, group, wide, wide_g, now, s, t)
                if acc != dtype:
                    p[part] = wide
            if not parameter.data.flags.c_contiguous:
                parameter.data[...] = p.reshape(parameter.data.shape)

    def _check_known(self, options: dict[str, Any]) -> None:
        if unknown := options.keys() - self.defaults.keys():
            raise ShapeError(f"options: want some of {', '.join(self.defaults)}, got {', '.join(sorted(unknown))}")
        self._check_options(options)

    def _checked_state_dict(self, state_dict: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The options of every group and the state of every parameter, copied to its device."""
        try:
            saved = [dict(group) for group in state_dict["param_groups"]]
            sizes = [len(group.pop("params")) for group in saved]
            by_number = {int(k): dict(state) for k, state in state_dict["state"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError("optimiser state: want what state_dict() gave, got something else") from error
        want = [len(group["params"]) for group in self.param_groups]
        if sizes != want:
            raise FormatError(f"optimiser state: want groups of {want} parameters, got {sizes}")
        for options in saved:
            if options.keys() != self.defaults.keys():
                raise FormatError(f"optimiser state: want the options {sorted(self.defaults)}, got {sorted(options)}")
            self._check_options(options)
        options_of = [options for options, size in zip(saved, sizes, strict=True) for _ in range(size)]
        if by_number and not 0 <= min(by_number) <= max(by_number) < len(options_of):
            raise FormatError(f"optimiser state: want parameters 0 to {len(options_of) - 1}, got {sorted(by_number)}")
        slots = zip(self._slots(), options_of, strict=True)
        return saved, [
            self._checked_state(k, slot.parameter.data, by_number[k], options) if k in by_number else {}
            for k, (slot, options) in enumerate(slots)
        ]

    def _checked_state(self, k: int, data: Array, saved: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
        want = ["step", *self._array_names(options)]
        if not saved.keys() >= set(want):
            raise FormatError(f"state of parameter {k}: want {want}, got {sorted(saved)}")
        backend = backend_of(data)
        state: dict[str, Any] = {"step": int(saved.pop("step"))}
        for name, value in saved.items():
            with backend:
                state[name] = backend.xp.array(backend.asarray(value), accumulator(data.dtype), order="C")
            if state[name].shape != data.shape:
                raise ShapeError(f"{name} of parameter {k}: want {data.shape}, got {state[name].shape}")
        return state


def contiguous(xp: Any, x: Array) -> Array:
    """x, or a copy in C order."""
    return x if x.flags.c_contiguous else xp.ascontiguousarray(x)


def check_option(name: str, value: Any, below: float = math.inf) -> None:
    """Raise ShapeError unless 0 <= value < below."""
    if not (isinstance(value, int | float | np.number) and 0 <= value < below):
        upper = "up" if below == math.inf else f"to below {below:g}"
        raise ShapeError(f"{name}: want a number from 0 {upper}, got {value!r}")


def with_decay(xp: Any, g: Array, p: Array, weight_decay: float, out: Array) -> Array:
    """g + weight_decay * p, in ``out`` unless that is g itself."""
    if weight_decay == 0:
        return g
    return xp.add(g, xp.multiply(p, weight_decay, out=out), out=out)

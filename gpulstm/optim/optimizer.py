"""The base class of the optimisers: parameter groups, the loop over the parameters, and a state to save."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from gpulstm.arguments import check_writable
from gpulstm.backend import Array, Backend, backend_of
from gpulstm.dtypes import accumulator
from gpulstm.errors import DeviceError, DTypeError, ShapeError
from gpulstm.optim.arguments import check_option, check_parameter, parameters_of, parameters_or_groups
from gpulstm.optim.saved import read_groups, read_options, read_state
from gpulstm.tape import Tensor, increment_version

# Elements that NumPy processes at a time. With float32 a chunk is 64 KB, and the six chunks that Adam needs fit in a
# core's own cache, so each value is read from memory once per step although several expressions use it.
CHUNK = 1 << 14


class Slot(NamedTuple):
    """One parameter with the options of its group and its state: ``step`` and named arrays."""

    group: dict[str, Any]
    parameter: Tensor
    state: dict[str, Any]


class Optimizer(ABC):
    """The base class of the optimisers: ``step()`` updates every parameter that has a gradient, in place.

    ``parameters`` are Parameters (...), or groups ``{"params": [...], "lr": ...}`` with their own options. You may
    change options between steps in ``param_groups``; ``optimizer.lr`` reads the rate of the first group and sets that
    of every group. The update and the state of a parameter (such as its momentum) use float64 for float64 parameters
    and float32 for all others.

    Raises ShapeError for an unknown option, an option out of range, an empty list, and a parameter that is listed
    twice; DTypeError for anything but writable Parameters.

    >>> isinstance(gl.SGD([gl.Parameter(np.zeros(2))]), gl.optim.Optimizer)
    True
    """

    _arrays: ClassVar[tuple[str, ...]] = ()  # all arrays that the state of a parameter may hold
    _counts = True  # whether PyTorch's optimiser saves the number of steps
    _fixed: ClassVar[dict[str, bool]] = {"maximize": False}  # PyTorch's options with one supported value

    def __init__(self, parameters: Iterable[Any], **defaults: Any) -> None:
        given = parameters_or_groups(parameters)
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: list[dict[str, Any]] = []  # of every parameter, in the order of the groups
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
        """Update p and the arrays of ``state`` in place; do not modify the gradient g.

        All arrays are (n,), of the dtype of the update. s and t are scratch arrays. The step in ``state`` counts from
        1.
        """

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Add a group ``{"params": [...], option: value, ...}``; other options have their defaults."""
        if not (isinstance(group, dict) and "params" in group):
            raise DTypeError(f"parameter group: expected a dict with 'params', got {type(group).__name__}")
        options = {**self.defaults, **{name: value for name, value in group.items() if name != "params"}}
        self._check_known(options)
        params = parameters_of("params", group["params"])
        seen = {id(slot.parameter) for slot in self._slots()}
        for k, p in enumerate(params):
            check_parameter(f"parameter {k}", p)
            if id(p) in seen:
                raise ShapeError(f"parameter {k}: expected every Parameter once, got one of shape {p.shape} twice")
            seen.add(id(p))
        self.param_groups.append({"params": params, **options})
        self.state += [{} for _ in params]

    @property
    def lr(self) -> float:
        """The learning rate of the first group; setting it sets the rate of every group."""
        return self.param_groups[0]["lr"]

    @lr.setter
    def lr(self, value: float) -> None:
        check_option("lr", value)
        for group in self.param_groups:
            group["lr"] = value

    def zero_grad(self) -> None:
        """Set the gradient of every parameter to None."""
        for slot in self._slots():
            slot.parameter.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient.

        Raises ShapeError, DTypeError or DeviceError, before anything changes, if a gradient or a state array does not
        fit its parameter, if a parameter is read-only, or if an option is out of range.
        """
        for group in self.param_groups:
            self._check_options(group)
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
        """Return the complete state in PyTorch's layout: ``state`` by parameter number, and ``param_groups``.

        The arrays are not copies, so later steps change them.
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
        """Load a state from gpulstm or PyTorch; arrays of any library are copied to the parameters' devices.

        PyTorch's options that do not change results (foreach, fused, capturable, ...) are ignored. Raises FormatError
        if the groups or options differ or an option is not supported (maximize), and ShapeError if arrays or options do
        not fit. These errors come before anything changes.
        """
        kind, sizes = type(self).__name__, [len(group["params"]) for group in self.param_groups]
        saved, by_number = read_groups(state_dict, sizes)
        groups = [read_options(kind, options, self.defaults, self._fixed) for options in saved]
        for options in groups:
            self._check_options(options)
        options_of = [options for options, size in zip(groups, sizes, strict=True) for _ in range(size)]
        states = []
        for k, (slot, options) in enumerate(zip(self._slots(), options_of, strict=True)):
            arrays = self._array_names(options), self._arrays
            states.append(read_state(k, slot.parameter.data, by_number.get(k, {}), *arrays, self._counts))
        for group, options in zip(self.param_groups, groups, strict=True):
            group.update(options)
        self.state = states

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for k, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {k}")
            lines += [f"    {name}: {group[name]}" for name in sorted(self.defaults)]
        return "\n".join([*lines, ")"])

    def _slots(self) -> list[Slot]:
        params = ((group, p) for group in self.param_groups for p in group["params"])
        return [Slot(group, p, state) for (group, p), state in zip(params, self.state, strict=True)]

    def _checked(self, k: int, slot: Slot) -> Backend:
        """Check that parameter k, its gradient and its state fit each other; return their backend."""
        data: Array = slot.parameter.data
        grad: Array = slot.parameter.grad
        backend = backend_of(**{f"parameter {k}": data, f"gradient of parameter {k}": grad})
        for name, array in ((f"parameter {k}", data), (f"gradient of parameter {k}", grad)):
            if not hasattr(array, "dtype"):
                raise DTypeError(f"{name}: expected an array, got {type(array).__name__}")
        check_writable(f"parameter {k}", data)
        if grad.shape != data.shape:
            raise ShapeError(f"gradient of parameter {k}: expected {data.shape}, got {grad.shape}")
        if grad.dtype != data.dtype:
            raise DTypeError(f"gradient of parameter {k}: expected {data.dtype}, got {grad.dtype}")
        for name, array in slot.state.items():
            if name == "step":
                continue
            if array.shape != data.shape:
                raise ShapeError(f"{name} of parameter {k}: expected {data.shape}, got {array.shape}")
            if array.dtype != accumulator(data.dtype):
                raise DTypeError(
                    f"{name} of parameter {k}: expected {accumulator(data.dtype)}, got {array.dtype}; "
                    "convert the module before you make its optimiser"
                )
            if (there := backend_of(array)) is not backend:
                want = f"expected {backend.name}, the device of the parameter, got {there.name}"
                way = "optimizer.load_state_dict(optimizer.state_dict())"
                raise DeviceError(f"{name} of parameter {k}: {want}; move the states with {way}")
        return backend

    def _begin_step(self, backend: Backend, slot: Slot) -> None:
        data, state = slot.parameter.data, slot.state
        state["step"] = state.get("step", 0) + 1
        for name in self._array_names(slot.group):
            if name not in state:
                state[name] = backend.zeros(data.shape, accumulator(data.dtype))
                if (start := self._start(name, slot.group)) != 0:
                    state[name][...] = start

    def _start(self, name: str, options: dict[str, Any]) -> float:
        """The initial value of a state array."""
        return 0.0

    def _update_alike(self, backend: Backend, dtype: np.dtype, slots: list[Slot]) -> None:
        """Update parameters of one device and one dtype with array expressions; NumPy works in chunks."""
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
                with np.errstate(all="ignore"):  # no warnings, as on a GPU: NaN shows in the loss
                    self._update(xp, group, wide, wide_g, now, s, t)
                if acc != dtype:
                    p[part] = wide
            if not parameter.data.flags.c_contiguous:
                parameter.data[...] = p.reshape(parameter.data.shape)

    def _check_known(self, options: dict[str, Any]) -> None:
        if unknown := options.keys() - self.defaults.keys():
            raise ShapeError(f"options: expected some of {', '.join(self.defaults)}, got {', '.join(sorted(unknown))}")
        self._check_options(options)


def contiguous(xp: Any, x: Array) -> Array:
    """Return x if it is C-contiguous, else a copy in C order."""
    return x if x.flags.c_contiguous else xp.ascontiguousarray(x)


def with_decay(xp: Any, g: Array, p: Array, weight_decay: float, out: Array) -> Array:
    """Return g + weight_decay * p, computed in ``out``, or g itself if weight_decay is 0."""
    if weight_decay == 0:
        return g
    return xp.add(g, xp.multiply(p, weight_decay, out=out), out=out)

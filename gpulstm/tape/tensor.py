"""Tensor, an array that records how it was computed, and ``apply``, which calls a function of arrays on Tensors."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from gpulstm.arguments import array_of_list, input_names, one_backend, renamed
from gpulstm.backend import CPU, Array, backend_of
from gpulstm.backend import device as find_device
from gpulstm.dtypes import FLOATS, is_floating, to_dtype
from gpulstm.errors import DTypeError, ShapeError, TapeError
from gpulstm.plain import check_plain, native
from gpulstm.tape.exchange import Exchange
from gpulstm.tape.methods import Methods
from gpulstm.tape.node import Node, as_array, run_backwards
from gpulstm.tape.operators import Operators
from gpulstm.tape.recording import recording
from gpulstm.tape.versions import Version, version_of


def apply(fn: Callable, *inputs: Any, **static: Any) -> Any:
    """Call a differentiable function of raw arrays on Tensors and record it for ``backward``.

    Inputs are Tensors, arrays (...) of any library, numbers or None. ``fn(*arrays, **static)`` returns (value,
    pullback), where value is an array or a tuple of arrays. ``apply`` returns value as a Tensor or a tuple of Tensors.

    ``pullback(*cotangents)`` takes the gradient of the loss with respect to each value; if there are several values,
    some of these may be None. It returns the gradient with respect to each input, or None for an input without one.
    A gradient has the shape and dtype of its input, and is a new array or a view of a cotangent. A pullback must not
    modify the cotangents or its saved arrays, because with ``retain_graph`` it runs several times. Do not modify the
    inputs and values in place before ``backward``, unless ``fn.needs`` says that the pullback does not read them
    (functional/needs.py).

    Raises DeviceError for inputs on different devices, DTypeError if fn is not a function.

    >>> def square(x):
    ...     return x * x, lambda dy: (2 * x * dy,)
    >>> x = gl.tensor([3.0], requires_grad=True)
    >>> gl.apply(square, x).backward()
    >>> x.grad
    array([6.], dtype=float32)
    """
    arrays = _arrays(fn, inputs)
    backend = one_backend(fn, inputs, arrays)
    if not callable(fn):
        raise DTypeError(f"fn: expected a function of arrays that returns (value, pullback), got {fn!r:.60}")
    with backend:
        value, pullback = fn(*arrays, **static)
    tensors = tuple(map(Tensor, value if isinstance(value, tuple) else (value,)))
    if records(inputs):
        made = [(k, tensor) for k, tensor in enumerate(tensors) if is_floating(tensor.dtype)]
        if made:
            given = tuple(x if isinstance(x, Tensor) else None for x in inputs)
            node = Node(fn, backend, pullback, given, tensors)
            for k, tensor in made:
                tensor._requires_grad, tensor._source = True, (node, k)
    return tensors if isinstance(value, tuple) else tensors[0]


def records(inputs: Iterable) -> bool:
    """Whether a function of these inputs is recorded now: recording is on, and one of them requires a gradient."""
    return recording() and any(isinstance(x, Tensor) and x._requires_grad for x in inputs)


def _arrays(fn: Callable, inputs: tuple) -> list[Any]:
    """The raw arrays of the inputs of ``fn``; raises DTypeError, naming the input, for memory that cannot be shared."""
    arrays: list[Any] = []
    for x in inputs:
        try:
            arrays.append(raw(x))
        except DTypeError as error:
            raise renamed(error, input_names(fn, len(inputs))[len(arrays)]) from error
    return arrays


def raw(x: Any) -> Any:
    """Return the raw array of a Tensor or of another library's array, without a copy; others are unchanged."""
    if isinstance(x, Tensor):
        return x._data
    if x is None:
        return None
    if hasattr(x, "__dlpack_device__") and not isinstance(x, np.ndarray):
        kind, number = x.__dlpack_device__()
        return (find_device(f"cuda:{number}").backend if kind == 2 else CPU).asarray(x)  # 2: DLPack's kDLCUDA
    return find_device("cuda").backend.asarray(x) if hasattr(x, "__cuda_array_interface__") else native(x)


def backward(pairs: Iterable[tuple["Tensor", Array]]) -> None:
    """Run ``Tensor.backward`` for several tensors at once; ``pairs`` are (tensor, its gradient as a raw array).

    The shared parts of their graphs are processed only once. Raises TapeError as ``Tensor.backward`` does.
    """
    made: dict[tuple[Node, int], Array] = {}
    for tensor, gradient in pairs:
        source = tensor._source
        if source is not None:
            made[source] = as_array(made[source] + gradient) if source in made else gradient
        elif tensor._requires_grad:
            tensor._accumulate(gradient, shared=True)
    run_backwards(made, retain=False)


def increment_version(tensor: "Tensor") -> None:
    """Record a write to the tensor's array: ``backward`` then raises TapeError if it needs the old values."""
    tensor.version.count += 1


class Tensor(Operators, Methods, Exchange):
    """An array that records operations and has a gradient, as ``torch.Tensor``.

    ``data`` is the NumPy or CuPy array (...) itself, not a copy. ``grad`` is an array of the same shape, or None. Only
    leaves have a ``grad``: tensors that are not the result of a recorded operation. Each ``backward`` adds to it.

    Operations are recorded if an input has ``requires_grad``. Do not modify ``data`` in place between an operation and
    its ``backward``: gpulstm cannot detect that. It does detect in-place operations on Tensors, optimiser steps and
    ``load_state_dict``; ``backward`` then raises TapeError if it needs the old values.

    ``t += x`` and ``t[key] = x`` write into the array if no gradient is needed, or inside a ``no_grad`` block. If the
    operation must be recorded, ``t += x`` computes ``t = t + x``, and ``t[key] = x`` raises TapeError. ``==`` compares
    elements; the hash of a Tensor is its identity.

    Raises DTypeError for anything but an array of numbers, and for integers with ``requires_grad``.

    >>> x = gl.Tensor(np.array([1.0, 2.0]), requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    array([2., 4.])
    """

    __slots__ = ("__weakref__", "_data", "_grad", "_requires_grad", "_source", "_written")
    _apply, _raw = staticmethod(apply), staticmethod(raw)  # for the base classes

    def __init__(self, data: Array, requires_grad: bool = False) -> None:
        self._begin(data, requires_grad)

    def _begin(self, data: Array, requires_grad: bool) -> None:
        """Initialise a leaf, also of a subclass whose ``__init__`` has other arguments."""
        if type(data) is not np.ndarray or data.dtype.kind not in "biuf" or not data.dtype.isnative:
            backend_of(data=data)
            data = _numbers(as_array(data))
        self._data: Array = data
        self._grad: Array | None = None
        self._source: tuple[Node, int] | None = None  # the node that made it, and which output
        self._written: Version | None = None  # see ``version``
        self._requires_grad = False
        if requires_grad:
            self.requires_grad = True

    shape = property(lambda self: self._data.shape, doc="The length of each axis.")
    dtype = property(lambda self: self._data.dtype, doc="The NumPy dtype of the elements.")
    ndim = property(lambda self: self._data.ndim, doc="The number of axes.")
    size = property(lambda self: self._data.size, doc="The number of elements.")
    device = property(lambda self: backend_of(self._data).name, doc='The device, such as "cpu" or "cuda:0".')
    is_leaf = property(lambda self: self._source is None, doc="Whether it is not the result of a recorded operation.")

    @property
    def data(self) -> Array:
        """The raw array; you may assign another of the same shape, and to a leaf also of another dtype or device."""
        return self._data

    @data.setter
    def data(self, array: Array) -> None:
        if array is self._data:  # t.data -= ... does this
            increment_version(self)
            return
        backend = backend_of(data=_no_tensor("data", array))
        if array.shape != self.shape:
            raise ShapeError(f"data: expected {self.shape} as before, got {array.shape}; make a new tensor")
        moved = backend is not backend_of(self._data) or array.dtype != self.dtype
        if moved and self._source is not None:
            raise TapeError(
                f"data: expected {self.dtype} on {self.device} for the result of an operation, got {array.dtype} on "
                f"{backend.name}; call detach() first"
            )
        if self._requires_grad and not is_floating(array.dtype):
            raise DTypeError(
                f"data: expected {', '.join(FLOATS)}, because this tensor requires a gradient, got {array.dtype}"
            )
        if moved:
            increment_version(self)  # the recorded operations expect the old dtype and device
        self._data, self._written = _numbers(array), None

    @property
    def grad(self) -> Array | None:
        """The gradient: a raw array like ``data``, or None."""
        return self._grad

    @grad.setter
    def grad(self, gradient: Array | None) -> None:
        if gradient is not None and gradient is not self._grad:
            self._check_gradient("grad", gradient)
        self._grad = gradient

    @property
    def requires_grad(self) -> bool:
        """Whether ``backward`` computes a gradient; you may set it for leaves, and False freezes a parameter."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        if self._source is not None:
            raise TapeError("requires_grad: expected a leaf, got the result of an operation; call detach() first")
        if wanted and not is_floating(self.dtype):
            raise DTypeError(f"requires_grad: expected one of {', '.join(FLOATS)}, got {self.dtype.name}")
        self._requires_grad = bool(wanted)

    def requires_grad_(self, wanted: bool = True) -> "Tensor":
        """Set ``requires_grad``; returns the tensor itself."""
        self.requires_grad = wanted
        return self

    @property
    def version(self) -> Version:
        """The counter of in-place writes to this tensor's memory."""
        if self._written is None:
            self._written = version_of(self._data)
        return self._written

    _version = property(lambda self: self.version.count, doc="The number of in-place writes to this tensor's memory.")

    def detach(self) -> "Tensor":
        """Return a tensor that shares the array but has no recorded history."""
        return Tensor(self._data)

    def backward(self, gradient: Any = None, retain_graph: bool = False) -> None:
        """Add the derivative of this tensor to the ``grad`` of every leaf it was computed from, and free the graph.

        ``gradient`` is the gradient of the loss with respect to this tensor: a number, or a Tensor or raw array of its
        shape. A tensor with one element, such as a loss, needs none: the default is 1. ``retain_graph`` keeps the graph
        for another ``backward``.

        Raises TapeError if this tensor requires no gradient, if the graph was freed, or if a value that the backward
        pass needs was modified in place; ShapeError, DTypeError or DeviceError if ``gradient`` does not fit. These
        errors come before anything changes.
        """
        if not self._requires_grad:
            raise TapeError("backward: expected a tensor that requires_grad, got one that does not (no_grad?)")
        if gradient is None and self.size != 1:
            raise ShapeError(f"backward: expected one element or a gradient, got shape {self.shape} without one")
        with backend_of(self._data) as backend:
            if gradient is None or isinstance(gradient, int | float):
                gradient = backend.xp.full(self.shape, 1 if gradient is None else gradient, self.dtype)
            gradient = raw(gradient)
            self._check_gradient("gradient", gradient)
            if self._source is None:
                self._accumulate(gradient, shared=True)
            else:
                run_backwards({self._source: gradient}, retain_graph)

    def _check_gradient(self, name: str, gradient: Array) -> None:
        backend_of(data=self._data, **{name: _no_tensor(name, gradient)})
        if not hasattr(gradient, "shape"):
            raise DTypeError(f"{name}: expected an array, got {type(gradient).__name__}")
        if gradient.shape != self.shape:
            raise ShapeError(f"{name}: expected {self.shape}, the tensor's shape, got {gradient.shape}")
        if gradient.dtype != self.dtype:
            raise DTypeError(f"{name}: expected {self.dtype}, the tensor's type, got {gradient.dtype}")

    def _accumulate(self, gradient: Array, shared: bool) -> None:
        """Add the gradient to ``grad``, which owns its memory: a gradient whose memory is ``shared`` is copied."""
        if gradient.dtype != self.dtype:
            raise TapeError(f"backward: expected a leaf of {gradient.dtype}, as in the forward pass, got {self.dtype}")
        if self._grad is not None:
            self._grad += gradient
        else:
            self._grad = gradient.copy(order="C") if shared or not gradient.flags.c_contiguous else gradient

    def _become(self, other: "Tensor") -> None:
        """Turn into ``other``, a tensor that was computed from this one."""
        self._data, self._written, self._grad = other._data, other._written, None
        self._source, self._requires_grad = other._source, other._requires_grad


def _numbers(array: Array, name: str = "data") -> Array:
    """Return the array; raises DTypeError unless its elements are booleans, integers or floating numbers."""
    if not hasattr(array, "dtype"):
        raise DTypeError(f"data: expected an array, got {type(array).__name__}; make a tensor with gl.tensor")
    if array.dtype.kind not in "biuf" and not is_floating(array.dtype):
        check_plain(array, name)  # its message helps with structured arrays
        raise DTypeError(f"{name}: expected booleans, integers or floating numbers, got {array.dtype}")
    return array


def _no_tensor(name: str, array: Any) -> Any:
    if isinstance(array, Tensor):
        raise DTypeError(f"{name}: expected a raw array, got a Tensor; pass its .data")
    return array


def tensor(x: Any, requires_grad: bool = False, dtype: Any = None, device: Any = None) -> Tensor:
    """Make a Tensor from a number, a list, an array (NumPy, CuPy or any library with DLPack) or a Tensor.

    The result shares the memory of x where possible. ``device=None`` keeps x on its device; numbers and lists go to the
    processor. ``dtype=None`` keeps the dtype of x; Python floats become float32.

    Raises DTypeError for anything but numbers and for numbers that an integer ``dtype`` cannot hold, ShapeError for
    nested lists whose rows have different lengths, and TapeError for a Tensor that requires a gradient. Convert such a
    Tensor with ``x.to(...)``, which keeps the gradient.

    >>> gl.tensor([1.0, 2.0])
    Tensor([1., 2.], dtype=float32, device=cpu)
    """
    if isinstance(x, Tensor) and x.requires_grad:
        raise TapeError(
            "tensor: expected data without a gradient, got a Tensor that requires one, which would be lost; "
            f"convert it with x.to({'device or dtype' if dtype is None else repr(str(dtype))}), or use x.detach()"
        )
    if isinstance(x, list | tuple) and any(isinstance(item, Tensor) and item.requires_grad for item in x):
        raise TapeError(
            "tensor: expected data without a gradient, got Tensors that require one; join them with gl.stack"
        )
    (array,) = _arrays(tensor, (x,))
    if dtype is not None:
        dtype = to_dtype(dtype)
    if not hasattr(array, "dtype"):
        array = array_of_list("x", array, dtype)
        dtype = np.dtype(np.float32) if dtype is None and array.dtype == np.float64 else dtype
    backend = backend_of(x=_numbers(array, "x"))
    backend = backend if device is None else find_device(device).backend
    return Tensor(backend.asarray(array, dtype), requires_grad)

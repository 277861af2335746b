"""Tensor: an array that remembers the pullbacks it came by, and runs them backwards.

A node of the tape is one application of a function (a whole sequence, a whole product, a whole loss), so the
tape's cost is per layer, not per step. The functions know nothing of it: see ``apply``.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

import numpy as np

from gpulstm import functional
from gpulstm.backend import CPU, FLOATS, Array, Backend, as_dtype, backend_of
from gpulstm.backend import device as find_device
from gpulstm.errors import DTypeError, ShapeError, TapeError
from gpulstm.functional import arithmetic, rearrange

_recording: ContextVar[bool] = ContextVar("gpulstm_recording", default=True)
_numbers = itertools.count()


@contextmanager
def no_grad() -> Iterator[None]:
    """Nothing is remembered in this block, or in the function it decorates; other threads are left alone."""
    token = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(token)


# Where an input's gradient goes. Not the input: data that no pullback holds is free before backward.
_Target: TypeAlias = "tuple[_Node, int] | Tensor | None"


class _Node:
    """One application of a function. Numbers rise with time: what its inputs came from has smaller ones."""

    __slots__ = ("backend", "likes", "name", "number", "outputs", "pullback", "targets")

    def __init__(self, name: str, backend: Backend, pullback: Callable, inputs: tuple, outputs: int) -> None:
        self.name, self.backend, self.outputs, self.number = name, backend, outputs, next(_numbers)
        self.pullback: Callable | None = pullback
        wanted = [x if isinstance(x, Tensor) and x.requires_grad else None for x in inputs]
        self.targets: list[_Target] = [None if x is None else x._source or x for x in wanted]
        self.likes = [None if x is None else (x.shape, x.dtype) for x in wanted]  # of the gradients

    def gradients(self, cotangents: list[Array | None]) -> Iterator[tuple[_Target, Array, bool]]:
        """Run the pullback and free it: (target, gradient, whether others hold its memory) for each input."""
        pullback, targets = self.pullback, self.targets
        self.pullback, self.targets = None, []
        if pullback is None or all(c is None for c in cotangents):
            return  # every way to this node gave no gradient
        with self.backend as backend:
            gradients = [_as_array(g) for g in pullback(*cotangents)]
            if len(gradients) < len(targets):  # there may be more, for optional inputs that were not given
                raise ShapeError(f"pullback of {self.name}: want {len(targets)}, got {len(gradients)}")
            for k, (target, gradient) in enumerate(zip(targets, gradients, strict=False)):
                if target is None or gradient is None:
                    continue
                if (got := (gradient.shape, gradient.dtype)) != self.likes[k]:
                    raise ShapeError(f"pullback of {self.name}: want gradient {k} {self.likes[k]}, got {got}")
                others = (*cotangents, *gradients[:k], *gradients[k + 1 :])
                near = [g for g in others if g is not None and backend_of(g) is backend]
                yield target, gradient, any(bool(backend.xp.may_share_memory(gradient, g)) for g in near)


def _as_array(x: Any) -> Any:
    """NumPy's arithmetic gives scalars for arrays of no dimension; here they are arrays again."""
    return np.asarray(x) if isinstance(x, np.generic) else x


def apply(fn: Callable, *inputs: Any, **static: Any) -> Any:
    """Call a function of raw arrays on Tensors, arrays of any library, numbers or None; keep its pullback.

    ``fn(*arrays, **static)`` returns (value, pullback), the value an array or a tuple of them; the result is
    a Tensor or a tuple of them. ``pullback(*cotangents)`` takes the gradient of each value (None for one that
    has none, where there are several) and returns that of each input, or None: new arrays or views of the
    cotangents, like the inputs in shape and dtype. Raises DeviceError for inputs on different devices.
    """
    arrays = [_raw(x) for x in inputs]
    backend = backend_of(*arrays)
    with backend:
        value, pullback = fn(*arrays, **static)
    tensors = tuple(map(Tensor, value if isinstance(value, tuple) else (value,)))
    if _recording.get() and any(isinstance(x, Tensor) and x.requires_grad for x in inputs):
        node = _Node(getattr(fn, "__name__", repr(fn)), backend, pullback, inputs, len(tensors))
        for k, tensor in enumerate(tensors):
            if tensor.dtype.name in FLOATS:
                tensor.requires_grad, tensor._source = True, (node, k)
    return tensors if isinstance(value, tuple) else tensors[0]


def _newest_first(root: _Node) -> list[_Node]:
    """All nodes that ``root`` came from, itself first. Raises TapeError where one was run before."""
    found, stack = {root}, [root]
    while stack:
        node = stack.pop()
        if node.pullback is None:
            raise TapeError(
                f"backward: want what was not run backwards yet, got a {node.name} that was, and is freed; "
                "compute the loss again, or add losses up and call backward once"
            )
        for target in node.targets:
            if isinstance(target, tuple) and target[0] not in found:
                found.add(target[0])
                stack.append(target[0])
    return sorted(found, key=lambda node: node.number, reverse=True)


def _run_backwards(source: tuple[_Node, int], gradient: Array) -> None:
    nodes, pending = _newest_first(source[0]), {source: gradient}
    for node in nodes:
        cotangents = [pending.pop((node, k), None) for k in range(node.outputs)]
        for target, gradient, shared in node.gradients(cotangents):
            if isinstance(target, Tensor):
                target._accumulate(gradient, shared)
            elif target in pending:
                pending[target] = _as_array(pending[target] + gradient)
            elif target is not None:
                pending[target] = gradient


def increment_version(tensor: "Tensor") -> None:
    """Note that the tensor's array was written to in place, so that ``backward`` refuses what it was needed for."""
    tensor._version += 1


def _operators(fn: Callable) -> tuple[Callable[..., "Tensor"], Callable[..., "Tensor"]]:
    """The methods of a binary operator: with the tensor on its left, and on its right."""
    return lambda self, other: apply(fn, self, other), lambda self, other: apply(fn, other, self)


class Tensor:
    """An array with a gradient.

    ``data`` is the raw NumPy or CuPy array, no copy; ``grad`` a raw array like it, or None. Only leaves have
    a ``grad``: tensors that no function made. Each ``backward`` adds to it. What is made of a tensor that
    ``requires_grad`` is remembered until its ``backward``; till then nothing may write to the arrays, and
    nothing guards them. Raises DTypeError for what is no array, and for a gradient of integers.
    """

    __slots__ = ("__weakref__", "_requires_grad", "_source", "_version", "data", "grad")
    __array_ufunc__ = None  # array + tensor is left to the tensor, by NumPy and by CuPy

    def __init__(self, data: Array, requires_grad: bool = False) -> None:
        backend_of(data)
        self.data: Array = _as_array(data)
        self.grad: Array | None = None
        self._source: tuple[_Node, int] | None = None  # the node it came from, and as which of its outputs
        self._version = 0
        self.requires_grad = requires_grad

    shape = property(lambda self: self.data.shape)
    dtype = property(lambda self: self.data.dtype)
    ndim = property(lambda self: self.data.ndim)
    size = property(lambda self: self.data.size)
    device = property(lambda self: backend_of(self.data).name, doc='"cpu" or "cuda:0", as gl.device takes.')
    T = property(lambda self: self.transpose())

    @property
    def requires_grad(self) -> bool:
        """Whether gradients are wanted. May be set for leaves: False freezes a parameter."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        if self._source is not None:
            raise TapeError("requires_grad: want a leaf, got a tensor that a function made; use detach()")
        if wanted and self.dtype.name not in FLOATS:
            raise DTypeError(f"requires_grad: want one of {', '.join(FLOATS)}, got {self.dtype.name}")
        self._requires_grad = bool(wanted)

    def numpy(self) -> np.ndarray:
        """The values on the host, without their gradient: ``data`` itself on the processor, else a copy."""
        return backend_of(self.data).to_numpy(self.data)

    def item(self) -> Any:
        """The one element as a Python number; raises ShapeError for more or fewer."""
        if self.size != 1:
            raise ShapeError(f"item: want a tensor of one element, got shape {self.shape}")
        return self.numpy().item()

    def detach(self) -> "Tensor":
        """The same array, cut from the tape."""
        return Tensor(self.data)

    def backward(self, gradient: Any = None) -> None:
        """Add to the ``grad`` of every leaf the derivative of this by that leaf, and free the tape.

        ``gradient`` is that of this tensor: a number, or a Tensor or raw array like it; 1 if left out for one
        element. Raises TapeError for a second time, with nothing changed, and for a tensor that needs no
        gradient; ShapeError, DTypeError or DeviceError for a gradient that does not fit.
        """
        if not self.requires_grad:
            raise TapeError("backward: want a tensor that requires_grad, got one that does not (no_grad?)")
        if gradient is None and self.size != 1:
            raise ShapeError(f"backward: want one element or a gradient, got shape {self.shape} without one")
        with backend_of(self.data) as backend:
            if gradient is None or isinstance(gradient, int | float):
                gradient = backend.xp.full(self.shape, 1 if gradient is None else gradient, self.dtype)
            gradient = _raw(gradient)
            backend_of(self.data, gradient)
            if gradient.shape != self.shape:
                raise ShapeError(f"gradient: want {self.shape}, the tensor's shape, got {gradient.shape}")
            if gradient.dtype != self.dtype:
                raise DTypeError(f"gradient: want {self.dtype}, the tensor's type, got {gradient.dtype}")
            if self._source is None:
                self._accumulate(gradient, shared=True)
            else:
                _run_backwards(self._source, gradient)

    def _accumulate(self, gradient: Array, shared: bool) -> None:
        """Add to ``grad``, which is memory of its own: a gradient that others hold is copied."""
        if self.grad is not None:
            self.grad += gradient
        else:
            self.grad = gradient.copy(order="C") if shared or not gradient.flags.c_contiguous else gradient

    def __repr__(self) -> str:
        values = np.array2string(self.numpy(), separator=", ", prefix="Tensor(", threshold=100)
        wanted = ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({values}, dtype={self.dtype.name}, device={self.device}{wanted})"

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator["Tensor"]:
        return (self[k] for k in range(len(self)))

    def __float__(self) -> float:
        return float(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError("a Tensor becomes a NumPy array, and loses its gradient, by .numpy() only")

    __add__, __radd__ = _operators(arithmetic.add)
    __sub__, __rsub__ = _operators(arithmetic.subtract)
    __mul__, __rmul__ = _operators(arithmetic.multiply)
    __truediv__, __rtruediv__ = _operators(arithmetic.divide)
    __pow__, __rpow__ = _operators(arithmetic.power)
    __matmul__, __rmatmul__ = _operators(arithmetic.matmul)

    def __neg__(self) -> "Tensor":
        return apply(arithmetic.negative, self)

    def __getitem__(self, key: Any) -> "Tensor":
        parts = key if isinstance(key, tuple) else (key,)
        return apply(rearrange.index, self, key=tuple(p.data if isinstance(p, Tensor) else p for p in parts))

    def reshape(self, *shape: Any) -> "Tensor":
        """The same elements in another shape: ``t.reshape(2, -1)`` or ``t.reshape((2, -1))``."""
        return apply(rearrange.reshape, self, shape=_one_tuple(shape))

    def transpose(self, *axes: Any) -> "Tensor":
        """NumPy's: axis k of the result is axis axes[k] of this; without axes, all in reverse."""
        return apply(rearrange.transpose, self, axes=_one_tuple(axes) or None)

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> "Tensor":
        """The sum over an axis, several, or all of them."""
        return apply(arithmetic.sum, self, axis=axis, keepdims=keepdims)

    def softmax(self, axis: int = -1) -> "Tensor":
        """e ** t divided by its sum along the axis."""
        return apply(functional.softmax, self, axis=axis)

    def log_softmax(self, axis: int = -1) -> "Tensor":
        """The logarithm of ``softmax``, exact also where that is 0."""
        return apply(functional.log_softmax, self, axis=axis)

    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> "Tensor":
        """The mean over an axis, several, or all of them."""
        return apply(arithmetic.mean, self, axis=axis, keepdims=keepdims)


def _one_tuple(given: tuple) -> tuple:
    return tuple(given[0]) if len(given) == 1 and isinstance(given[0], tuple | list) else given


def tensor(x: Any, requires_grad: bool = False, dtype: Any = None, device: Any = None) -> Tensor:
    """A Tensor of a number, a list, an array of NumPy, CuPy or any library with DLPack, or a Tensor.

    Memory is shared where it can be. ``device`` None means where x is, the processor for numbers and lists;
    ``dtype`` None that of x, float32 for Python's floats.
    """
    array = _raw(x)
    if dtype is not None:
        dtype = as_dtype(dtype) if isinstance(dtype, str) and dtype == "bfloat16" else np.dtype(dtype)
    if not hasattr(array, "dtype"):
        array = np.asarray(array)
        dtype = np.dtype(np.float32) if dtype is None and array.dtype == np.float64 else dtype
    backend = backend_of(array) if device is None else find_device(device).backend
    return Tensor(backend.asarray(array, dtype), requires_grad)


def _raw(x: Any) -> Any:
    """The array of a Tensor or of another library, its memory shared; numbers, lists and None as they are."""
    if isinstance(x, Tensor):
        return x.data
    if hasattr(x, "__dlpack_device__") and not isinstance(x, np.ndarray):
        kind, number = x.__dlpack_device__()
        return (find_device(f"cuda:{number}").backend if kind == 2 else CPU).asarray(x)  # 2: DLPack's kDLCUDA
    return find_device("cuda").backend.asarray(x) if hasattr(x, "__cuda_array_interface__") else x

"""Reverse-mode differentiation over arrays: a Tensor remembers the pullback that made it, and runs them backwards.

A node of the tape is a whole sequence, product or loss, so its cost is per layer and not per time step. The
functions themselves (functional/) know no Tensor.
"""

import contextlib
import heapq
import itertools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

from gpulstm.backend import FLOATS, Array, as_dtype, backend_of
from gpulstm.backend import device as find_device
from gpulstm.errors import DTypeError, GpulstmError, ShapeError
from gpulstm.functional import arithmetic

_grad_enabled: ContextVar[bool] = ContextVar("gpulstm_grad_enabled", default=True)
_numbers = itertools.count()


@contextlib.contextmanager
def no_grad() -> Iterator[None]:
    """Inside this block, or a function decorated with it, nothing is remembered for backward."""
    token = _grad_enabled.set(False)
    try:
        yield
    finally:
        _grad_enabled.reset(token)


class _Node:
    """One application of a function: its inputs, its pullback and how many outputs it had."""

    __slots__ = ("inputs", "number", "outputs", "pullback")

    def __init__(self, inputs: tuple["Tensor | None", ...], pullback: Callable, outputs: int) -> None:
        self.inputs, self.pullback, self.outputs = inputs, pullback, outputs
        self.number = next(_numbers)  # a node is always younger than those its inputs come from


class Tensor:
    """An array that can be differentiated through.

    ``data`` is the raw NumPy or CuPy array, ``grad`` the raw array of its gradient after ``backward`` (leaves
    with ``requires_grad`` only), None before.
    """

    __slots__ = ("__weakref__", "_node", "_place", "data", "grad", "requires_grad")
    __array_ufunc__ = None  # numpy_array * tensor is the tensor's business

    def __init__(self, data: Array, requires_grad: bool = False) -> None:
        if isinstance(data, np.generic):  # NumPy's answer where CuPy gives an array without axes
            data = np.asarray(data)
        backend_of(data)  # raises DTypeError for what is no array
        if requires_grad and data.dtype.name not in FLOATS:
            raise DTypeError(f"requires_grad: want a tensor of {', '.join(FLOATS)}, got {data.dtype}")
        self.data, self.requires_grad = data, requires_grad
        self.grad: Array | None = None
        self._node: _Node | None = None
        self._place = 0  # which output of the node

    shape = property(lambda self: self.data.shape)
    dtype = property(lambda self: self.data.dtype)
    ndim = property(lambda self: self.data.ndim)
    size = property(lambda self: self.data.size)
    device = property(lambda self: backend_of(self.data).name, doc='"cpu" or "cuda:0"')
    T = property(lambda self: self.transpose())

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array, copied from the device if they are on one; no gradient flows through it."""
        return backend_of(self.data).to_numpy(self.data)

    def item(self) -> float:
        """The one value of a tensor of one element."""
        if self.size != 1:
            raise ShapeError(f"item: want one element, got shape {self.shape}")
        return self.data.item()

    def detach(self) -> "Tensor":
        """The same values, cut off from what made them."""
        return Tensor(self.data)

    def backward(self, gradient: Array | None = None) -> None:
        """Add the gradient of this tensor to ``grad`` of every leaf it was made from.

        ``gradient`` has this tensor's shape and may be left out for a single number. What was remembered is
        freed on the way, so a second backward through the same part raises GpulstmError.
        """
        if not self.requires_grad:
            raise GpulstmError("backward: this tensor was made from none that requires a gradient, or under no_grad")
        backend = backend_of(self.data)
        if gradient is None:
            if self.size != 1:
                raise ShapeError(f"backward: want a gradient of shape {self.shape}; only a single number needs none")
            gradient = backend.xp.ones(self.shape, self.dtype)
        gradient = gradient.data if isinstance(gradient, Tensor) else gradient
        backend_of(self.data, gradient)
        if gradient.shape != self.shape:
            raise ShapeError(f"backward: want a gradient of shape {self.shape}, got {gradient.shape}")
        _run_backward(self, gradient.astype(self.dtype))  # a copy: the caller's array is never kept

    def __repr__(self) -> str:
        values = np.array2string(self.numpy(), separator=", ", prefix="tensor(", threshold=100)
        extras = [f"dtype={self.dtype.name}"] if self.dtype != np.float32 else []
        extras += [f"device={self.device!r}"] if self.device != "cpu" else []
        extras += ["requires_grad=True"] if self.requires_grad else []
        return f"tensor({', '.join([values, *extras])})"

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len() of a tensor without axes")
        return self.shape[0]

    def __iter__(self) -> Iterator["Tensor"]:
        return (self[row] for row in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    __hash__ = object.__hash__

    def __add__(self, other: Any) -> "Tensor":
        return apply(arithmetic.add, self, self._operand(other))

    def __radd__(self, other: Any) -> "Tensor":
        return apply(arithmetic.add, self._operand(other), self)

    def __sub__(self, other: Any) -> "Tensor":
        return apply(arithmetic.subtract, self, self._operand(other))

    def __rsub__(self, other: Any) -> "Tensor":
        return apply(arithmetic.subtract, self._operand(other), self)

    def __mul__(self, other: Any) -> "Tensor":
        return apply(arithmetic.multiply, self, self._operand(other))

    def __rmul__(self, other: Any) -> "Tensor":
        return apply(arithmetic.multiply, self._operand(other), self)

    def __truediv__(self, other: Any) -> "Tensor":
        return apply(arithmetic.divide, self, self._operand(other))

    def __rtruediv__(self, other: Any) -> "Tensor":
        return apply(arithmetic.divide, self._operand(other), self)

    def __pow__(self, exponent: float) -> "Tensor":
        if not isinstance(exponent, int | float):
            raise DTypeError(f"power: want a number as exponent, got {type(exponent).__name__}")
        return apply(arithmetic.power, self, exponent)

    def __neg__(self) -> "Tensor":
        return self * -1

    def __matmul__(self, other: Any) -> "Tensor":
        return apply(arithmetic.matmul, self, self._operand(other))

    def __rmatmul__(self, other: Any) -> "Tensor":
        return apply(arithmetic.matmul, self._operand(other), self)

    def __getitem__(self, key: Any) -> "Tensor":
        parts = tuple(p.data if isinstance(p, Tensor) else p for p in key) if isinstance(key, tuple) else key
        return apply(arithmetic.index, self, key=parts.data if isinstance(parts, Tensor) else parts)

    def reshape(self, *shape: Any) -> "Tensor":
        """The same values in another shape: ``t.reshape(2, 3)`` or ``t.reshape((2, -1))``."""
        return apply(arithmetic.reshape, self, shape=shape[0] if isinstance(shape[0], tuple | list) else shape)

    def transpose(self, *axes: Any) -> "Tensor":
        """The axes in the order given, as NumPy does: ``t.transpose(1, 0, 2)``; reversed without any."""
        order = axes[0] if axes and isinstance(axes[0], tuple | list) else axes
        return apply(arithmetic.transpose, self, axes=tuple(order) or None)

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> "Tensor":
        """The sum over the axes given, over all without any."""
        return apply(arithmetic.sum, self, axis=axis, keepdims=keepdims)

    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> "Tensor":
        """The mean over the axes given, over all without any."""
        return apply(arithmetic.mean, self, axis=axis, keepdims=keepdims)

    def _operand(self, other: Any) -> Any:
        """The other side of an operator: a number keeps this tensor's type, an array must have it."""
        if isinstance(other, bool | int | float):
            return other
        if isinstance(other, np.generic):  # np.float64(2) is a number like 2.0
            return other.item()
        array = other.data if isinstance(other, Tensor) else other
        backend_of(self.data, array)
        if array.dtype.kind in "iub":
            return array.astype(self.dtype)
        if array.dtype != self.dtype:
            raise DTypeError(f"operands: want one type, got {self.dtype} and {array.dtype}; convert one with astype")
        return other


def apply(fn: Callable, *inputs: Any, **static: Any) -> Any:
    """Run a pure function of functional/ on Tensors, raw arrays, numbers or None, and remember its pullback.

    ``fn(*arrays, **static)`` returns (value, pullback); the answer is a Tensor, or a tuple of them where the
    value is a tuple.
    """
    arrays = [t.data if isinstance(t, Tensor) else t for t in inputs]
    with backend_of(*arrays):
        value, pullback = fn(*arrays, **static)
    values = value if isinstance(value, tuple) else (value,)
    remember = _grad_enabled.get() and any(isinstance(t, Tensor) and t.requires_grad for t in inputs)
    outputs = tuple(Tensor(v, remember and v.dtype.name in FLOATS) for v in values)
    if remember:
        wanted = tuple(t if isinstance(t, Tensor) and t.requires_grad else None for t in inputs)
        node = _Node(wanted, pullback, len(outputs))
        for place, output in enumerate(outputs):
            output._node, output._place = node, place
    return outputs if isinstance(value, tuple) else outputs[0]


def _run_backward(root: Tensor, gradient: Array) -> None:
    """From the youngest node to the oldest: a node's outputs have all been used by younger ones."""
    pending: dict[int, tuple[_Node, list[Array | None]]] = {}
    queue: list[int] = []

    def arrive(tensor: Tensor, d: Array, given: list[Array]) -> None:
        node = tensor._node
        if node is None:
            _accumulate(tensor, d, given)
            return
        if node.number not in pending:
            pending[node.number] = node, [None] * node.outputs
            heapq.heappush(queue, -node.number)
        cotangents = pending[node.number][1]
        before = cotangents[tensor._place]
        cotangents[tensor._place] = d if before is None else before + d

    arrive(root, gradient, [])
    while queue:
        node, cotangents = pending.pop(-heapq.heappop(queue))
        if node.pullback is None:
            raise GpulstmError("backward: this part of the graph was used by an earlier backward and freed; run forward again")
        inputs, pullback = node.inputs, node.pullback
        node.inputs, node.pullback = (), None  # type: ignore[assignment]
        with backend_of(*cotangents):
            gradients = pullback(*cotangents)
            given = [d for d in cotangents if d is not None]
            for tensor, d in zip(inputs, gradients, strict=False):
                if tensor is not None and d is not None:
                    arrive(tensor, d, given)
                    given.append(d)


def _accumulate(leaf: Tensor, d: Array, others: list[Array]) -> None:
    """Add to a leaf's grad, which is never memory that anything else holds."""
    if d.shape != leaf.shape:
        raise AssertionError(f"a pullback gave a gradient of shape {d.shape} for a tensor of shape {leaf.shape}")
    if leaf.grad is not None:
        leaf.grad = leaf.grad + d
        return
    xp = backend_of(d).xp
    shared = any(xp.may_share_memory(d, other) for other in others)
    leaf.grad = d.copy() if shared or not d.flags.c_contiguous else d


def tensor(data: Any, requires_grad: bool = False, dtype: Any = None, device: Any = None) -> Tensor:
    """A Tensor from a list, a number, an array of any library or a Tensor.

    ``device`` is a name, as for ``gl.device``; without it arrays stay where they are and everything else is on
    the processor. Python floats become float32 without a ``dtype``; arrays keep theirs, and are not copied
    where that can be helped.
    """
    if isinstance(data, Tensor):
        data = data.data
    if device is None:
        backend = backend_of(data) if type(data).__module__.partition(".")[0] in ("numpy", "cupy") else find_device("cpu").backend
    else:
        backend = find_device(device).backend
    is_array = hasattr(data, "dtype")
    if dtype is not None:
        dtype = as_dtype(dtype) if dtype == "bfloat16" else np.dtype(dtype)
    array = backend.asarray(data, dtype)
    if dtype is None and not is_array and array.dtype == np.float64:
        array = array.astype(np.float32)
    return Tensor(array, requires_grad)

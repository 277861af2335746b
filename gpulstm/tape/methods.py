"""Tensor's methods: the functions of functional/ under their names in NumPy and PyTorch."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gpulstm.backend import backend_of
from gpulstm.backend import device as find_device
from gpulstm.dtypes import to_dtype
from gpulstm.errors import DTypeError
from gpulstm.functional import elementwise, rearrange, reductions
from gpulstm.functional.softmax import log_softmax, softmax

if TYPE_CHECKING:
    from gpulstm.tape.tensor import Tensor

Axis = int | tuple[int, ...] | None


def _elementwise(fn: Callable, words: str) -> Callable[..., "Tensor"]:
    def method(self: Any) -> "Tensor":
        return self._apply(fn, self)

    return _named(method, fn.__name__, words)


def _reduction(fn: Callable, words: str) -> Callable[..., "Tensor"]:
    def method(self: Any, axis: Axis = None, keepdims: bool = False) -> "Tensor":
        return self._apply(fn, self, axis=axis, keepdims=keepdims)

    return _named(method, fn.__name__, words)


def _cast(dtype: str) -> Callable[..., "Tensor"]:
    def method(self: Any) -> "Tensor":
        return self.astype(dtype)

    return _named(method, dtype, f"Convert to {dtype}; recorded for ``backward``.")


def _named(method: Callable, name: str, words: str) -> Callable[..., "Tensor"]:
    """Set the name and docstring that ``help`` and errors show."""
    method.__name__, method.__qualname__, method.__doc__ = name, f"Tensor.{name}", words
    return method


class Methods:
    """The methods of a Tensor that return a new Tensor and record it for ``backward``."""

    __slots__ = ()

    _apply: Any
    dtype: Any
    data: Any
    device: Any

    exp = _elementwise(elementwise.exp, "Compute e ** t for each element.")
    log = _elementwise(elementwise.log, "Compute the natural logarithm of each element.")
    sqrt = _elementwise(elementwise.sqrt, "Compute the square root of each element.")
    abs = _elementwise(elementwise.absolute, "Compute the absolute value of each element; its gradient is 0 at 0.")
    tanh = _elementwise(elementwise.tanh, "Compute the hyperbolic tangent of each element.")
    sigmoid = _elementwise(elementwise.sigmoid, "Compute 1 / (1 + e ** -t) for each element.")
    relu = _elementwise(elementwise.relu, "Compute max(t, 0) for each element.")

    sum = _reduction(reductions.sum, "Sum over one axis, several axes, or all.")
    mean = _reduction(reductions.mean, "Average over one axis, several axes, or all.")
    max = _reduction(
        reductions.max,
        "Return the maximum over one axis, several axes, or all. If several values are equal, the first gets the"
        " gradient over one axis; over several axes or all they share it equally, as in PyTorch.",
    )
    min = _reduction(reductions.min, "Return the minimum over one axis, several axes, or all; gradients as ``max``.")
    argmax = _reduction(reductions.argmax, "Return the index of the maximum along an axis, or in the flattened tensor.")
    argmin = _reduction(reductions.argmin, "Return the index of the minimum along an axis, or in the flattened tensor.")
    any = _reduction(reductions.any, "Return whether any element is not 0, over one axis, several axes, or all.")
    all = _reduction(reductions.all, "Return whether all elements are not 0, over one axis, several axes, or all.")

    def cumsum(self, axis: int) -> "Tensor":
        """Return the cumulative sum along the axis."""
        return self._apply(reductions.cumsum, self, axis=axis)

    def softmax(self, axis: int = -1) -> "Tensor":
        """Compute e ** t divided by its sum along the axis."""
        return self._apply(softmax, self, axis=axis)

    def log_softmax(self, axis: int = -1) -> "Tensor":
        """Compute the logarithm of ``softmax`` without underflow."""
        return self._apply(log_softmax, self, axis=axis)

    def clip(self, min: Any = None, max: Any = None) -> "Tensor":
        """Limit the values to [min, max], where None means no bound; the gradient is 0 outside the bounds."""
        return self._apply(elementwise.clip, self, min=min, max=max)

    clamp = clip

    def reshape(self, *shape: Any) -> "Tensor":
        """Return the same elements in another shape: ``t.reshape(2, -1)`` or ``t.reshape((2, -1))``."""
        return self._apply(rearrange.reshape, self, shape=_one_tuple(shape))

    def transpose(self, *axes: Any) -> "Tensor":
        """Reorder the axes as NumPy: axis k of the result is axis axes[k]; without arguments, reverse the axes."""
        return self._apply(rearrange.transpose, self, axes=_one_tuple(axes) or None)

    T = property(transpose, doc="The tensor with its axes reversed.")

    def squeeze(self, axis: Axis = None) -> "Tensor":
        """Remove this axis of size 1, or all such axes."""
        return self._apply(rearrange.squeeze, self, axis=axis)

    def expand_dims(self, axis: int) -> "Tensor":
        """Insert an axis of size 1 at position ``axis`` of the result."""
        return self._apply(rearrange.expand_dims, self, axis=axis)

    unsqueeze = expand_dims

    def flatten(self) -> "Tensor":
        """Reshape to one axis."""
        return self.reshape(-1)

    def copy(self) -> "Tensor":
        """Copy the values to new memory; recorded for ``backward``."""
        return self._apply(elementwise.copy, self)

    clone = copy

    def astype(self: Any, dtype: Any) -> "Tensor":
        """Convert to another dtype, recorded for ``backward``; a tensor of that dtype is returned unchanged."""
        dtype = to_dtype(dtype)
        return self if dtype == self.dtype else self._apply(elementwise.astype, self, dtype=dtype)

    def to(self: Any, device: Any = None, dtype: Any = None) -> "Tensor":
        """Move to a device or convert to a dtype: ``t.to("cuda")``, ``t.to("float64")``; recorded for ``backward``."""
        if device is not None and dtype is None and _is_dtype(device):
            device, dtype = None, device
        if device is None and dtype is None:
            raise DTypeError("to: expected a device, a dtype or both, got none")
        there = backend_of(self.data) if device is None else find_device(device).backend
        moved = self
        if there is not backend_of(self.data):
            moved = self._apply(elementwise.move, self, device=there.name)
        return moved if dtype is None else moved.astype(dtype)

    def cpu(self) -> "Tensor":
        """Move to the processor."""
        return self.to("cpu")

    def cuda(self) -> "Tensor":
        """Move to the current GPU."""
        return self.to("cuda")

    half, bfloat16, long = _cast("float16"), _cast("bfloat16"), _cast("int64")
    float, double = _cast("float32"), _cast("float64")


def _is_dtype(name: Any) -> bool:
    """Whether this is a dtype and not a device."""
    if isinstance(name, str):
        return name.partition(":")[0] not in ("auto", "cpu", "cuda")
    return not hasattr(name, "backend")


def _one_tuple(given: tuple) -> tuple:
    return tuple(given[0]) if len(given) == 1 and isinstance(given[0], tuple | list) else given

"""Tensor's methods: functions of functional/ under the names that NumPy and PyTorch give them."""

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

    return _named(method, dtype, f"This tensor as {dtype}, on the tape.")


def _named(method: Callable, name: str, words: str) -> Callable[..., "Tensor"]:
    """The method under a name of its own, as ``help`` and errors show it."""
    method.__name__, method.__qualname__, method.__doc__ = name, f"Tensor.{name}", words
    return method


class Methods:
    """What a Tensor can do by name; each method gives a new Tensor, with a gradient where it has one."""

    __slots__ = ()

    _apply: Any
    dtype: Any
    data: Any
    device: Any

    exp = _elementwise(elementwise.exp, "e ** t, elementwise.")
    log = _elementwise(elementwise.log, "The natural logarithm, elementwise.")
    sqrt = _elementwise(elementwise.sqrt, "The square root, elementwise.")
    abs = _elementwise(elementwise.absolute, "The absolute value, elementwise; its gradient is 0 at 0.")
    tanh = _elementwise(elementwise.tanh, "The hyperbolic tangent, elementwise.")
    sigmoid = _elementwise(elementwise.sigmoid, "1 / (1 + e ** -t), elementwise.")
    relu = _elementwise(elementwise.relu, "The larger of t and 0, elementwise.")

    sum = _reduction(reductions.sum, "The sum over an axis, several, or all of them.")
    mean = _reduction(reductions.mean, "The mean over an axis, several, or all of them.")
    max = _reduction(
        reductions.max,
        "The largest value over an axis, several, or all. The gradient goes to the first of equal ones along one axis,"
        " else to all of them in equal parts, as in PyTorch.",
    )
    min = _reduction(reductions.min, "The smallest value over an axis, several, or all; gradients as of ``max``.")
    argmax = _reduction(reductions.argmax, "Where the largest value along an axis is, or in the flat tensor.")
    argmin = _reduction(reductions.argmin, "Where the smallest value along an axis is, or in the flat tensor.")
    any = _reduction(reductions.any, "Whether any element is not 0, over an axis, several, or all.")
    all = _reduction(reductions.all, "Whether no element is 0, over an axis, several, or all.")

    def cumsum(self, axis: int) -> "Tensor":
        """The sum of all elements up to each along the axis."""
        return self._apply(reductions.cumsum, self, axis=axis)

    def softmax(self, axis: int = -1) -> "Tensor":
        """e ** t divided by its sum along the axis."""
        return self._apply(softmax, self, axis=axis)

    def log_softmax(self, axis: int = -1) -> "Tensor":
        """The logarithm of ``softmax``, exact also where that is 0."""
        return self._apply(log_softmax, self, axis=axis)

    def clip(self, min: Any = None, max: Any = None) -> "Tensor":
        """The values within these bounds, numbers or None; the gradient is 0 outside."""
        return self._apply(elementwise.clip, self, min=min, max=max)

    clamp = clip

    def reshape(self, *shape: Any) -> "Tensor":
        """The same elements in another shape: ``t.reshape(2, -1)`` or ``t.reshape((2, -1))``."""
        return self._apply(rearrange.reshape, self, shape=_one_tuple(shape))

    def transpose(self, *axes: Any) -> "Tensor":
        """NumPy's: axis k of the result is axis axes[k] of this; without axes, all in reverse."""
        return self._apply(rearrange.transpose, self, axes=_one_tuple(axes) or None)

    T = property(transpose, doc="All axes in reverse.")

    def squeeze(self, axis: Axis = None) -> "Tensor":
        """Without that axis of size 1, or without all of them."""
        return self._apply(rearrange.squeeze, self, axis=axis)

    def expand_dims(self, axis: int) -> "Tensor":
        """With one more axis, of size 1, which is axis ``axis`` of the result."""
        return self._apply(rearrange.expand_dims, self, axis=axis)

    unsqueeze = expand_dims

    def flatten(self) -> "Tensor":
        """All elements along one axis."""
        return self.reshape(-1)

    def copy(self) -> "Tensor":
        """The same values in memory of their own, on the tape."""
        return self._apply(elementwise.copy, self)

    clone = copy

    def astype(self: Any, dtype: Any) -> "Tensor":
        """The values in another type, on the tape; this tensor itself where it has that type already."""
        dtype = to_dtype(dtype)
        return self if dtype == self.dtype else self._apply(elementwise.astype, self, dtype=dtype)

    def to(self: Any, device: Any = None, dtype: Any = None) -> "Tensor":
        """On another device, or in another type, or both, on the tape; either may be given alone, also by position."""
        if device is not None and dtype is None and _is_dtype(device):
            device, dtype = None, device
        if device is None and dtype is None:
            raise DTypeError("to: want a device, a dtype or both, got none")
        there = backend_of(self.data) if device is None else find_device(device).backend
        moved = self
        if there is not backend_of(self.data):
            moved = self._apply(elementwise.move, self, device=there.name)
        return moved if dtype is None else moved.astype(dtype)

    def cpu(self) -> "Tensor":
        """On the processor."""
        return self.to("cpu")

    def cuda(self) -> "Tensor":
        """On the current GPU."""
        return self.to("cuda")

    half, bfloat16, long = _cast("float16"), _cast("bfloat16"), _cast("int64")
    float, double = _cast("float32"), _cast("float64")


def _is_dtype(name: Any) -> bool:
    """Whether this names a type and not a device."""
    if isinstance(name, str):
        return name.partition(":")[0] not in ("auto", "cpu", "cuda")
    return not hasattr(name, "backend")


def _one_tuple(given: tuple) -> tuple:
    return tuple(given[0]) if len(given) == 1 and isinstance(given[0], tuple | list) else given

"""Tensor's operators: recorded arithmetic, comparisons without a gradient, and in-place writes."""

from collections.abc import Callable, Collection
from numbers import Number
from typing import TYPE_CHECKING, Any

import numpy as np

from gpulstm.arguments import check_writable, moved
from gpulstm.backend import backend_of
from gpulstm.dtypes import is_floating
from gpulstm.errors import DTypeError, ShapeError, TapeError
from gpulstm.functional import arithmetic, comparisons, elementwise, rearrange
from gpulstm.tape.recording import recording

if TYPE_CHECKING:
    from gpulstm.tape.tensor import Tensor


def _binary(fn: Callable) -> tuple[Callable[..., "Tensor"], Callable[..., "Tensor"]]:
    """The methods of a binary operator, for a tensor on its left and on its right."""
    return lambda self, other: self._apply(fn, self, other), lambda self, other: self._apply(fn, other, self)


def _comparison(fn: Callable) -> Callable[..., "Tensor"]:
    def compare(self: Any, other: Any) -> Any:
        if _may_compare_itself(other):
            return NotImplemented
        return self._apply(fn, self, other)

    return compare


def _may_compare_itself(other: Any) -> bool:
    """Whether this is an object of an unknown class with its own ``==``, such as pytest.approx."""
    known = other is None or isinstance(other, Number | Collection | Operators) or hasattr(other, "dtype")
    return not known and not hasattr(other, "__dlpack__") and type(other).__eq__ is not object.__eq__


def _in_place(fn: Callable, sign: str) -> Callable:
    return lambda self, other: self._update(fn, sign, other)


class Operators:
    """Python's operators on a Tensor; ``==`` compares elements, so the hash of a Tensor is its identity."""

    __slots__ = ()

    _apply: Any
    _source: Any
    requires_grad: Any
    shape: Any
    dtype: Any
    data: Any
    version: Any
    _become: Any
    _raw: Any

    __hash__ = object.__hash__

    __add__, __radd__ = _binary(arithmetic.add)
    __sub__, __rsub__ = _binary(arithmetic.subtract)
    __mul__, __rmul__ = _binary(arithmetic.multiply)
    __truediv__, __rtruediv__ = _binary(arithmetic.divide)
    __pow__, __rpow__ = _binary(arithmetic.power)
    __matmul__, __rmatmul__ = _binary(arithmetic.matmul)
    __and__, __rand__ = _binary(comparisons.bitwise_and)
    __or__, __ror__ = _binary(comparisons.bitwise_or)
    __xor__, __rxor__ = _binary(comparisons.bitwise_xor)

    __iadd__ = _in_place(arithmetic.add, "+")
    __isub__ = _in_place(arithmetic.subtract, "-")
    __imul__ = _in_place(arithmetic.multiply, "*")
    __itruediv__ = _in_place(arithmetic.divide, "/")
    __ipow__ = _in_place(arithmetic.power, "**")
    __imatmul__ = _in_place(arithmetic.matmul, "@")
    __iand__ = _in_place(comparisons.bitwise_and, "&")
    __ior__ = _in_place(comparisons.bitwise_or, "|")
    __ixor__ = _in_place(comparisons.bitwise_xor, "^")

    __eq__ = _comparison(comparisons.equal)  # type: ignore[assignment]
    __ne__ = _comparison(comparisons.not_equal)  # type: ignore[assignment]
    __lt__ = _comparison(comparisons.less)
    __le__ = _comparison(comparisons.less_equal)
    __gt__ = _comparison(comparisons.greater)
    __ge__ = _comparison(comparisons.greater_equal)

    def __neg__(self) -> "Tensor":
        return self._apply(arithmetic.negative, self)

    def __pos__(self: Any) -> "Tensor":
        return self

    def __abs__(self) -> "Tensor":
        return self._apply(elementwise.absolute, self)

    def __invert__(self) -> "Tensor":
        return self._apply(comparisons.invert, self)

    def __getitem__(self, key: Any) -> "Tensor":
        return self._apply(rearrange.index, self, key=self._key(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        if recording() and (self.requires_grad or getattr(value, "requires_grad", False) is True):
            raise TapeError(
                "t[...] = value: expected tensors that require no gradient, because such writes are not recorded; join "
                "parts with gl.stack, gl.concatenate or gl.where, or write in a gl.no_grad() block"
            )
        written = self._raw(value)
        if not isinstance(value, Operators):  # a Tensor stays on its device
            written = moved("value", written, backend_of(self.data))
        self._write("t[...] = value", self._key(key), written)

    def _update(self, fn: Callable, sign: str, other: Any) -> Any:
        """The in-place operators, such as ``t += other``.

        A result that requires no gradient is written into the array. Otherwise the operation is recorded, and this
        tensor becomes its result, as after ``t = t + other``.
        """
        if recording() and self.requires_grad and self._source is None:
            raise TapeError(
                f"t {sign}= x: expected a tensor that requires no gradient, got a leaf that does; write "
                f"in a gl.no_grad() block, or make a new tensor: y = t {sign} x"
            )
        value = self._apply(fn, self, other)
        if value.shape != self.shape:
            raise ShapeError(f"t {sign}= x: expected a result of shape {self.shape}, the shape of t, got {value.shape}")
        if value.dtype != self.dtype:
            raise DTypeError(
                f"t {sign}= x: expected a result of {self.dtype}, the dtype of t, got {value.dtype}; use t.astype"
            )
        if not value.requires_grad:
            self._write(f"t {sign}= x", (...,), value.data)
        elif self._source is not None and self._source[0].view:
            raise TapeError(
                f"t {sign}= x: expected a tensor that owns its memory, got a view of another; write t = t {sign} x"
            )
        else:
            self._become(value)
        return self

    def _key(self, key: Any) -> tuple:
        """The parts of an index with arrays in place of Tensors; for a tensor on a GPU, host arrays are moved there."""
        backend = backend_of(self.data)
        parts = key if isinstance(key, tuple) else (key,)
        return tuple(part.data if isinstance(part, Operators) else moved("key", part, backend) for part in parts)

    def _write(self, what: str, key: tuple, value: Any) -> None:
        """Write into the array and count the write."""
        check_writable(what, self.data)
        with backend_of(tensor=self.data, value=value if hasattr(value, "dtype") else None):
            key = tuple(rearrange.index_part(self.data, part) for part in key)
            check_cast(what, value, self.dtype)
            try:
                self.data[key] = value
            except ValueError as error:
                raise ShapeError(f"{what}: {error}") from error
        self.version.count += 1


def check_cast(what: str, value: Any, dtype: np.dtype) -> None:
    """Raise DTypeError unless an array or a number may be written into an array of ``dtype``.

    A floating array accepts integers and Python numbers, which are rounded to its dtype. It does not accept an array of
    another floating dtype.
    """
    value = value.item() if isinstance(value, np.generic) else value
    if hasattr(value, "dtype"):
        given = value.dtype
        fits = given == dtype or (not is_floating(given) and (is_floating(dtype) or np.can_cast(given, dtype)))
    elif isinstance(value, bool | int | float):
        given = type(value).__name__ + f" {value}"
        fits = is_floating(dtype) or isinstance(value, bool)
        if not fits and isinstance(value, int) and dtype.kind in "iu":
            fits = np.iinfo(dtype).min <= value <= np.iinfo(dtype).max
    else:
        raise DTypeError(f"{what}: expected an array or a number, got {type(value).__name__}")
    if not fits:
        raise DTypeError(f"{what}: expected a value that {dtype} can hold, got {given}; convert it first with astype")

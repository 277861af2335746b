"""Conversions of a Tensor: to a Python number, to text, to an array of NumPy or another library, and to a copy.

A conversion to an array raises TapeError if a gradient would be lost silently. Call ``detach()`` first if you do not
need the gradient.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gpulstm.backend import backend_of
from gpulstm.errors import DeviceError, DTypeError, ShapeError, TapeError

# NumPy's functions that call Tensor's operators, so that array + tensor is recorded.
_OPERATORS = {
    np.add: "add", np.subtract: "sub", np.multiply: "mul", np.true_divide: "truediv", np.power: "pow",
    np.matmul: "matmul", np.equal: "eq", np.not_equal: "ne", np.less: "lt", np.less_equal: "le", np.greater: "gt",
    np.greater_equal: "ge", np.bitwise_and: "and", np.bitwise_or: "or", np.bitwise_xor: "xor",
}  # fmt: skip
_MIRRORED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le", "eq": "eq", "ne": "ne"}


class _OfTheClass:
    """A method that only the class has; on an instance the attribute is None.

    NumPy looks up ``__array_ufunc__`` on the class. CuPy looks it up on the instance, and if it is None, CuPy's
    operators call those of the instance.
    """

    def __init__(self, function: Callable) -> None:
        self.function = function

    def __get__(self, instance: Any, owner: Any) -> Callable | None:
        return self.function if instance is None else None


class Exchange:
    """Tensor's conversions to other types."""

    __slots__ = ()

    _data: Any
    _source: Any
    grad: Any
    requires_grad: Any
    shape: Any
    dtype: Any
    device: Any
    size: Any
    ndim: Any

    # -- numbers -----
    def item(self) -> Any:
        """Return the only element as a Python number; raises ShapeError for more or fewer elements."""
        if self.size != 1:
            raise ShapeError(f"item: expected a tensor of one element, got shape {self.shape}")
        return self.numpy().item()

    def tolist(self) -> Any:
        """Return the values as nested lists of Python numbers, or as a number for shape ()."""
        return self.numpy().tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __complex__(self) -> complex:
        return complex(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iu" or self.size != 1:
            raise DTypeError(f"index: expected an integer tensor of one element, got {self.dtype} {self.shape}")
        return int(self.item())

    def __round__(self, digits: int | None = None) -> Any:
        return round(self.item(), digits)

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ShapeError(f"bool: expected a tensor of one element, got shape {self.shape}; use any() or all()")
        return bool(self.item())

    # -- a sequence -----
    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len: expected a tensor with an axis, got one of shape ()")
        return len(self._data)

    def __iter__(self) -> Iterator[Any]:
        if self.ndim == 0:
            raise TypeError("iteration: expected a tensor with an axis, got one of shape ()")
        return (self[k] for k in range(len(self)))  # type: ignore[index]

    def __contains__(self, value: Any) -> bool:
        return bool((self == value).any())

    # -- text -----
    def __repr__(self) -> str:
        values = np.array2string(self.numpy(), separator=", ", prefix="Tensor(", threshold=100)
        wanted = ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({values}, dtype={self.dtype.name}, device={self.device}{wanted})"

    def __format__(self, spec: str) -> str:
        if not spec:
            return str(self)
        if self.size != 1:
            raise ShapeError(f"format {spec!r}: expected a tensor of one element, got shape {self.shape}")
        return format(self.item(), spec)

    # -- arrays -----
    def numpy(self) -> np.ndarray:
        """Return a NumPy array without a gradient: ``data`` itself on the processor, a copy of it from a GPU."""
        return backend_of(self._data).to_numpy(self._data)

    def _without_gradient(self, wanted_by: str, instead: str = "") -> Any:
        """Return the raw array; raises TapeError if a gradient would be lost."""
        if self.requires_grad:
            raise TapeError(
                f"{wanted_by}: expected a tensor without a gradient, got one that requires one; call detach() "
                f"first{instead}"
            )
        return self._data

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self._without_gradient("NumPy array")
        if backend_of(array).is_cuda:
            raise DeviceError(f"NumPy array: expected a tensor on cpu, got one on {self.device}; copy it with .numpy()")
        return np.array(array, dtype=dtype, copy=copy)

    def __dlpack__(self, **options: Any) -> Any:
        return self._without_gradient("DLPack").__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._data.__dlpack_device__()

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if not backend_of(self._data).is_cuda:
            raise AttributeError("__cuda_array_interface__: this tensor is on cpu")
        return self._without_gradient("__cuda_array_interface__").__cuda_array_interface__

    @_OfTheClass
    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """NumPy's and CuPy's elementwise functions: operators are recorded, the others get plain arrays."""
        name = _OPERATORS.get(ufunc) if method == "__call__" and not options else None
        if name is None:
            return getattr(ufunc, method)(*_plain(inputs, ufunc), **_plain(options, ufunc))
        first, second = inputs
        if name in _MIRRORED and type(first) is np.ndarray and first.ndim == 0:
            first = first[()]  # NumPy passes its scalars as arrays
        if isinstance(first, Exchange):
            return getattr(first, f"__{name}__")(second)
        return getattr(second, f"__{_MIRRORED[name]}__" if name in _MIRRORED else f"__r{name}__")(first)

    def __array_function__(self, function: Callable, types: Any, args: tuple, options: dict) -> Any:
        """NumPy's other functions, which get plain arrays."""
        plain, keywords = _plain(args, function), _plain(options, function)
        try:
            return function(*plain, **keywords)
        except TypeError as error:
            if not backend_of(self._data).is_cuda or "no implementation found" not in str(error):
                raise
            raise DeviceError(
                f"np.{function.__name__}: expected a tensor on cpu, got one on {self.device}; copy it with .numpy()"
            ) from error

    # -- copies of leaves -----
    def __copy__(self) -> Any:
        return self._twin("copy", copy.copy(self._data))

    def __deepcopy__(self, memo: dict) -> Any:
        twin = memo[id(self)] = self._twin("copy", copy.deepcopy(self._data, memo))
        twin.grad = copy.deepcopy(self.grad, memo)
        return twin

    def __reduce__(self) -> tuple:
        self._check_leaf("pickle")
        return _leaf, (type(self), self._data, self.requires_grad), getattr(self, "__dict__", None)

    def _twin(self, what: str, data: Any) -> Any:
        """Make another leaf of this class with the same attributes, but without ``grad``."""
        self._check_leaf(what)
        twin = _leaf(type(self), data, self.requires_grad)
        if attributes := getattr(self, "__dict__", None):
            vars(twin).update(attributes)
        return twin

    def _check_leaf(self, what: str) -> None:
        if self._source is not None:
            raise TapeError(f"{what}: expected a leaf, got a result of {self._source[0].name}; call detach() first")


def _leaf(kind: Any, data: Any, requires_grad: bool) -> Any:
    """Make a leaf of a class of Tensors without calling its ``__init__``."""
    made = kind.__new__(kind)
    made._begin(data, requires_grad)
    return made


def _plain(x: Any, function: Any) -> Any:
    """Replace every Tensor in x, also in lists, tuples and dicts, by its array."""
    if isinstance(x, Exchange):
        name = getattr(function, "__name__", str(function))
        return x._without_gradient(f"np.{name}", ", or use a function of gpulstm")
    if type(x) in (list, tuple):
        return type(x)(_plain(item, function) for item in x)
    return {key: _plain(item, function) for key, item in x.items()} if type(x) is dict else x

"""The operators of the stand-in's arrays, by CuPy's rules for what the other operand may be."""

from typing import Any

import numpy as np

from .arrays import FUNCTIONS, ndarray, new

_BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "truediv": np.true_divide,
    "floordiv": np.floor_divide,
    "mod": np.remainder,
    "pow": np.power,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "lshift": np.left_shift,
    "rshift": np.right_shift,
}
_NEVER_IN_PLACE = {"matmul": np.matmul, "divmod": np.divmod}
_COMPARISONS = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}
_UNARY = {"neg": np.negative, "pos": np.positive, "abs": np.absolute, "invert": np.invert}


def _other_decides(x: Any, y: Any) -> bool:
    """CuPy's rule for leaving an operator to the other operand."""
    if hasattr(y, "__array_ufunc__"):
        return y.__array_ufunc__ is None
    return getattr(y, "__array_priority__", 0) > x.__array_priority__


def _operator(ufunc: Any, reflected: bool = False) -> Any:
    def operator(self: ndarray, other: Any) -> Any:
        if other is None and ufunc in (np.equal, np.not_equal):
            return new(np.full(self.shape, ufunc is np.not_equal))
        if not isinstance(other, ndarray) and _other_decides(self, other):
            return NotImplemented
        return ufunc(other, self) if reflected else ufunc(self, other)

    return operator


def _in_place(ufunc: Any) -> Any:
    return lambda self, other: FUNCTIONS[ufunc.__name__](self, other, out=self)


def add_operators() -> None:
    """Give ndarray its operators."""
    for name, ufunc in {**_BINARY, **_NEVER_IN_PLACE, **_COMPARISONS}.items():
        setattr(ndarray, f"__{name}__", _operator(ufunc))
    for name, ufunc in {**_BINARY, **_NEVER_IN_PLACE}.items():
        setattr(ndarray, f"__r{name}__", _operator(ufunc, reflected=True))
    for name, ufunc in _BINARY.items():
        setattr(ndarray, f"__i{name}__", _in_place(ufunc))
    for name, ufunc in _UNARY.items():
        setattr(ndarray, f"__{name}__", lambda self, ufunc=ufunc: ufunc(self))

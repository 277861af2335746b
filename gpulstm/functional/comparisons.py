"""Elementwise comparisons and logical operations; they have no gradient, so None stands for the pullback."""

from collections.abc import Callable
from typing import Any

from gpulstm.backend import Array, backend_of
from gpulstm.errors import DTypeError
from gpulstm.functional.arithmetic import Operand, checked_operands


def _comparison(name: str) -> Callable:
    def compare(a: Operand, b: Operand) -> tuple[Array, None]:
        a, b = checked_operands(name, a, b)
        xp = backend_of(a, b).xp
        return xp.asarray(getattr(xp, name)(a, b)), None

    compare.__name__, compare.__doc__ = name, f"NumPy's ``{name}``: an array of bool; two dtypes compare as the wider."
    return compare


equal, not_equal = _comparison("equal"), _comparison("not_equal")
less, less_equal = _comparison("less"), _comparison("less_equal")
greater, greater_equal = _comparison("greater"), _comparison("greater_equal")


def _bitwise(name: str) -> Callable:
    def combine(*operands: Operand) -> tuple[Array, None]:
        operands = checked_operands(name, *operands)
        for x in operands:
            if isinstance(x, float) or (hasattr(x, "dtype") and x.dtype.kind not in "biu"):
                raise DTypeError(f"{name}: expected booleans or integers, got {getattr(x, 'dtype', 'a float')}")
        xp: Any = backend_of(*operands).xp
        return xp.asarray(getattr(xp, name)(*operands)), None

    combine.__name__, combine.__doc__ = name, f"NumPy's ``{name}`` of booleans or integers."
    return combine


bitwise_and, bitwise_or, bitwise_xor = _bitwise("bitwise_and"), _bitwise("bitwise_or"), _bitwise("bitwise_xor")
invert = _bitwise("invert")

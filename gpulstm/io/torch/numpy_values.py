"""NumPy's types, numbers and arrays in a pickle of NumPy 1 or 2, made from their bytes alone."""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from gpulstm.errors import FormatError
from gpulstm.io.torch import budget as cost
from gpulstm.io.torch.budget import Budget
from gpulstm.io.torch.tensors import are_sizes
from gpulstm.io.torch.unread import Unfinished, Unread

_SIMPLE = re.compile(r"(b1|[iu][1248]|f[248]|c8|c16|[SU][1-9]\d{0,7})")
TYPES = {
    f"numpy.{name}": getattr(np, name)
    for name in (
        "bool", "bool_", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32",
        "float64", "complex64", "complex128",
    )
    if hasattr(np, name)
}  # fmt: skip


class NumPyValues:
    """The calls by which NumPy's objects are saved; types without plain bytes (objects, records) stay unread."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.calls: dict[str, Callable[..., Any]] = {
            "numpy.dtype": self.dtype, "numpy._core.multiarray.scalar": self.scalar,
            "numpy._core.multiarray._reconstruct": self.array, "numpy._core.numeric._frombuffer": self.of_buffer,
        }  # fmt: skip

    def dtype(self, code: Any, *flags: Any) -> Any:
        def finish(state: Any) -> np.dtype | None:
            plain = type(code) is str and _SIMPLE.fullmatch(code)
            if not plain or type(state) is not tuple or len(state) < 5 or state[2:5] != (None, None, None):
                return None
            if state[1] not in ("<", ">", "|", "="):
                raise FormatError("expected the byte order of a dtype, got something else")
            return np.dtype(code).newbyteorder(state[1])

        self.budget.spend(3 * cost.ARRAY)
        return Unfinished("numpy.dtype", (code, *flags), finish)

    def scalar(self, dtype: Any, content: Any = None) -> Any:
        if not isinstance(dtype, np.dtype):
            return Unread("numpy.generic", (dtype, content))
        return self._array(dtype, (), content)[()]

    def array(self, kind: Any, *_: Any) -> Any:
        if not isinstance(kind, Unread):
            raise FormatError("expected the class of an array, got something else")

        def finish(state: Any) -> np.ndarray | None:
            if type(state) is not tuple or len(state) != 5:
                raise FormatError(
                    "expected the version, shape, dtype, order and content of an array, got something else"
                )
            _, shape, dtype, fortran, content = state
            if kind.name != "numpy.ndarray" or not isinstance(dtype, np.dtype):
                return None
            return self._array(dtype, shape, content, "F" if fortran else "C")

        self.budget.spend(3 * cost.ARRAY)
        return Unfinished(kind.name, (), finish)

    def of_buffer(self, content: Any, dtype: Any, shape: Any, order: Any) -> Any:
        if not isinstance(dtype, np.dtype):
            return Unread("numpy.ndarray", (content, dtype, shape, order))
        return self._array(dtype, shape, content, "F" if order == "F" else "C")

    def _array(self, dtype: np.dtype, shape: Any, content: Any, order: Any = "C") -> np.ndarray:
        """A new array in the machine's byte order. Its content may be a string of Python 2."""
        content = content.encode() if type(content) is str else content
        if not are_sizes(shape) or len(shape) > 64 or not isinstance(content, bytes | bytearray):
            raise FormatError("expected an array's shape and content, got something else")
        if math.prod(shape) * dtype.itemsize != len(content) or math.prod(n or 1 for n in shape) > 2**40:
            raise FormatError(
                f"array {shape} of {dtype}: expected {dtype.itemsize} bytes per element, got {len(content)} in all"
            )
        self.budget.spend(len(content) + cost.ARRAY)
        if 0 in shape:
            return np.empty(shape, dtype.newbyteorder("="), order)
        if dtype == np.bool_:
            content = np.not_equal(np.frombuffer(content, np.uint8), 0).tobytes()
        if (
            dtype.kind == "U"
            and np.frombuffer(content, np.dtype(np.uint32).newbyteorder(dtype.byteorder)).max() >= 2**20 + 2**16
        ):
            raise FormatError(f"array {shape} of {dtype}: expected Unicode characters, got others")
        read = np.frombuffer(content, dtype).reshape(shape, order=order)
        return np.array(read, dtype.newbyteorder("="), order=order)

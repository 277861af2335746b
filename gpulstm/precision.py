"""``gl.precision``: to how many bits a GPU rounds the factors in matrix products of float32 arrays.

Arrays and sums stay float32. Only the factors are rounded, as inputs of the tensor cores.
"""

import functools
import inspect
from collections.abc import Callable
from contextlib import ContextDecorator
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np

from gpulstm.errors import DTypeError, ShapeError

IEEE = "ieee"
PRECISIONS = (IEEE, "tf32", "bf16", "fp16")
Function = TypeVar("Function", bound=Callable)

# The precisions of the blocks that this thread or task is in, the innermost last. This is a tuple and not one token per
# block, because a block may be left in another context than it was entered in, for example by a generator that is
# closed late.
_blocks: ContextVar[tuple[str, ...]] = ContextVar("gpulstm_precision", default=(IEEE,))


def current() -> str:
    """The current precision, one of PRECISIONS."""
    return _blocks.get()[-1]


def checked(name: Any, argument: str = "precision") -> str:
    """Check the name of a precision; raises DTypeError or ShapeError for anything else."""
    if not isinstance(name, str):
        raise DTypeError(f"{argument}: expected one of {', '.join(PRECISIONS)}, got {name!r:.80}")
    if name not in PRECISIONS:
        raise ShapeError(f"{argument}: expected one of {', '.join(PRECISIONS)}, got {name!r}")
    return name


class precision(ContextDecorator):
    """Sets the precision of float32 matrix products on a GPU, in a ``with`` block or a decorated function.

    ======== ================= ================================================================================
    name     bits of a factor  what it is
    ======== ================= ================================================================================
    "ieee"   23                IEEE float32; the default
    "tf32"   10                TensorFloat-32: float32's range
    "bf16"   7                 bfloat16: float32's range
    "fp16"   10                float16: from 6e-8 to 65504 only, so training needs ``gl.GradScaler``
    ======== ================= ================================================================================

    Weights, states, gradients and sums stay float32. Products of float64, float16 and bfloat16 arrays do not change.
    cuBLAS may keep more bits than required, for instance on a device without such tensor cores. On the processor every
    product stays IEEE float32, and ``gl.explain()`` says so.

    ``backward`` uses the precision of the forward call. Blocks may be nested; they do not affect other threads and
    tasks. The environment variable CUPY_TF32 has no effect on gpulstm, only on your own CuPy products. The paths
    "fused" and "persistent" of ``functional.recurrent`` raise NoKernel for float32 arrays in bf16 and fp16.

    Raises ShapeError for an unknown name, DTypeError for anything but a string.

    >>> model = gl.Linear(3, 1)
    >>> with gl.precision("bf16"):
    ...     loss = gl.mse(model(np.ones((4, 3), np.float32)), np.ones((4, 1), np.float32))
    >>> loss.backward()  # in bf16 too
    """

    def __init__(self, name: str) -> None:
        self.name = checked(name, "name")

    def __enter__(self) -> "precision":
        _blocks.set((*_blocks.get(), self.name))
        return self

    def __exit__(self, *exception: object) -> None:
        _blocks.set(_blocks.get()[:-1] or (IEEE,))

    def __call__(self, function: Function) -> Function:
        later = (inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction)
        if not callable(function) or isinstance(function, type) or any(is_one(function) for is_one in later):
            want = "expected a plain function to decorate; use a block inside a generator or coroutine"
            raise DTypeError(f"precision: {want}, got {function!r:.80}")
        return super().__call__(function)

    def __repr__(self) -> str:
        return f"precision({self.name!r})"


def run_in(name: str, function: Callable, *args: Any, **kwargs: Any) -> Any:
    """Call the function with a precision."""
    if current() == name:  # the usual case: nothing to set and restore
        return function(*args, **kwargs)
    with precision(name):
        return function(*args, **kwargs)


def keeps_precision(function: Function) -> Function:
    """Decorate a function that returns (value, pullback), so that its pullback uses the precision of the call.

    If the first argument is float16 or bfloat16, the precision is "ieee": functions convert such arrays to float32
    inside, and these float32 products must not be rounded.
    """

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        first = next(iter((*args, *kwargs.values())), None)
        half = getattr(getattr(first, "dtype", None), "itemsize", 0) == 2
        name = IEEE if half else current()
        value, pullback = run_in(name, function, *args, **kwargs)
        return value, lambda *cotangents: run_in(name, pullback, *cotangents)

    return called  # type: ignore[return-value]


def stays_ieee(is_cuda: bool, dtype: Any) -> bool:
    """Whether products of this type are IEEE float32 although another precision is set."""
    return not is_cuda and current() != IEEE and dtype == np.float32

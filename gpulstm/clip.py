"""Gradient clipping, by the norm over all parameters and by value."""

import functools
import math
from collections.abc import Callable, Iterable

import numpy as np

from gpulstm import checks, engine
from gpulstm.arguments import check_writable
from gpulstm.backend import Array, Backend, backend_of
from gpulstm.dtypes import FLOATS, accumulator
from gpulstm.errors import DTypeError, NotFinite
from gpulstm.optim.arguments import parameters_of
from gpulstm.optim.optimizer import contiguous
from gpulstm.optim.table import CHUNK, address, first_chunks, to_device
from gpulstm.tape import Tensor

SMALL = 1e-6  # added to the norm in the denominator, as in PyTorch
# Elements in one NumPy dot product. This is below OpenBLAS's limit for using threads, so that the sum does not depend
# on the number of threads, and small enough for accurate float32 sums.
DOT = 1 << 13
THREADS = 256  # threads per block of the sums; the same number as in kernels/norm.cu


def clip_grad_norm(parameters: Tensor | Iterable[Tensor], max_norm: float, error_if_nonfinite: bool = False) -> Array:
    """Scale all gradients in place so that their joint 2-norm is at most max_norm, as PyTorch's ``clip_grad_norm_``.

    g becomes g * min(1, max_norm / (norm + 1e-6)). ``parameters`` are Tensors (...) or one Tensor.

    Returns the norm before scaling, float64 of shape () on the parameters' device; ``float(norm)`` copies it to the
    host. The host does not wait for a GPU unless ``error_if_nonfinite`` is True. Two runs give the same bits, because
    sums have a fixed order. As in PyTorch, an infinite norm sets finite gradients to 0, and a NaN norm makes all
    gradients NaN. With ``error_if_nonfinite``, both raise NotFinite and leave the gradients unchanged.

    Raises ShapeError for a max_norm below 0, DTypeError for a gradient that is not a writable floating array, and
    DeviceError for gradients on several devices.

    >>> p = gl.Parameter(np.zeros(2))
    >>> p.grad = np.array([3.0, 4.0])
    >>> float(gl.clip_grad_norm([p], max_norm=1.0))
    5.0
    >>> p.grad.round(3)
    array([0.6, 0.8])
    """
    max_norm = _limit("max_norm", max_norm)
    checks.flag("error_if_nonfinite", error_if_nonfinite)
    named = _gradients(parameters)
    backend, grads = backend_of(**named), list(named.values())
    with backend:
        clip = _clip_norm_kernel if backend.is_cuda else _clip_norm_host
        return clip(backend, grads, max_norm, error_if_nonfinite)


def clip_grad_value(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Limit every element of the gradients to [-clip_value, clip_value] in place, as ``clip_grad_value_`` in PyTorch.

    ``parameters`` are Tensors (...) or one Tensor. Raises ShapeError for a clip_value below 0, and DTypeError, before
    it changes anything, for a gradient that is not a writable floating array.

    >>> p = gl.Parameter(np.zeros(2))
    >>> p.grad = np.array([3.0, -4.0])
    >>> gl.clip_grad_value([p], 1.0)
    >>> p.grad
    array([ 1., -1.])
    """
    clip_value = _limit("clip_value", clip_value)
    for grad in _gradients(parameters).values():
        backend = backend_of(grad)
        xp = backend.xp
        with backend, np.errstate(over="ignore"):  # a clip_value that float16 cannot hold is infinite there
            # Not clip, which has no bfloat16 in CuPy.
            xp.maximum(xp.minimum(grad, clip_value, out=grad), -clip_value, out=grad)


def _limit(name: str, value: float) -> float:
    """Check a limit, which is at least 0; an infinite one leaves the gradients unchanged."""
    return checks.number(name, value, finite=False)


def _gradients(parameters: Tensor | Iterable[Tensor]) -> dict[str, Array]:
    """The gradients that are not None, by their names in errors."""
    grads = {}
    for k, p in enumerate(parameters_of("parameters", parameters)):
        if not isinstance(p, Tensor):
            raise DTypeError(f"parameters: expected Parameters, got {type(p).__name__}")
        if p.grad is None:
            continue
        name = f"gradient of parameter {k}"
        backend_of(**{name: p.grad})
        if getattr(getattr(p.grad, "dtype", None), "name", None) not in FLOATS:
            got = getattr(p.grad, "dtype", type(p.grad).__name__)
            raise DTypeError(f"{name}: expected an array of {', '.join(FLOATS)}, got {got}")
        check_writable(name, p.grad)
        grads[name] = p.grad
    return grads


def _check_norm(norm: Array) -> None:
    if not math.isfinite(value := float(norm)):
        raise NotFinite(f"norm of the gradients: expected a finite number, got {value}")


def _clip_norm_host(backend: Backend, grads: list[Array], max_norm: float, error_if_nonfinite: bool) -> np.ndarray:
    """With the engine (kernels/host/norm.cpp) if it supports the dtypes of all gradients, else with NumPy."""
    compiled = all(engine.function("norm_partial", grad.dtype) for grad in grads)
    copies = [contiguous(np, grad) for grad in grads]
    tables = _tables(backend, copies) if compiled else {}
    with np.errstate(all="ignore"):  # infinities and NaN show in the norm
        norm = np.sqrt(np.float64(_squares(tables) if compiled else _squares_numpy(grads)))
        coefficient = max_norm / (norm + SMALL)
        if error_if_nonfinite:
            _check_norm(norm)
        if coefficient >= 1:
            return np.asarray(norm)
        for dtype, (starts, arrays, count, _) in tables.items():
            _function("norm_scale", dtype)(starts, arrays, float(coefficient), count, CHUNK)
        for grad, copy in zip(grads, copies, strict=True):
            if not compiled:
                # float16 or bfloat16 times a float32 scalar: the product is rounded only once.
                np.multiply(grad, accumulator(grad.dtype).type(coefficient), out=grad, casting="unsafe")
            elif copy is not grad:
                grad[...] = copy
    return np.asarray(norm)


def _function(name: str, dtype: np.dtype) -> Callable[..., None]:
    """A compiled function that is known to exist."""
    function = engine.function(name, dtype)
    assert function is not None
    return function


def _squares(tables: dict[np.dtype, tuple]) -> float:
    total = 0.0
    for dtype, (starts, arrays, count, chunks) in tables.items():
        partial = np.empty(chunks)
        _function("norm_partial", dtype)(starts, arrays, partial, count, CHUNK)
        total += float(partial.sum())
    return total


def _squares_numpy(grads: list[Array]) -> float:
    total = 0.0
    for grad in grads:
        flat = grad.reshape(-1)
        for first in range(0, flat.size, DOT):
            part = flat[first : first + DOT].astype(accumulator(flat.dtype), copy=False)
            total += float(np.dot(part, part))
    return total


def _tables(backend: Backend, grads: list[Array]) -> dict[np.dtype, tuple[Array, Array, int, int]]:
    """For each dtype: the tables first_chunk and arrays of kernels/norm.cu, their length, and the number of chunks."""
    by_dtype: dict[np.dtype, list[Array]] = {}
    for grad in grads:
        by_dtype.setdefault(grad.dtype, []).append(grad)
    tables = {}
    for dtype, alike in by_dtype.items():
        starts = first_chunks([grad.size for grad in alike])
        arrays = np.array([(address(backend, grad), grad.size) for grad in alike], np.int64)
        tables[dtype] = (*to_device(backend, starts, arrays), len(alike), int(starts[-1]))
    return tables


def _clip_norm_kernel(backend: Backend, grads: list[Array], max_norm: float, error_if_nonfinite: bool) -> Array:
    """Two launches for the norm (one more for each further dtype), and one launch for each dtype to scale."""
    assert backend.kernels is not None
    launch = functools.partial(backend.kernels, "norm", threads=THREADS)
    copies = [contiguous(backend.xp, grad) for grad in grads]
    tables = _tables(backend, copies)
    chunks = sum(blocks for *_, blocks in tables.values())
    partial, result, done = backend.empty((chunks,), np.float64), backend.empty((2,), np.float64), 0
    for dtype, (starts, arrays, count, blocks) in tables.items():
        part = partial[done : done + blocks]
        launch("norm_partial", 0, starts, arrays, part, count, CHUNK, real=dtype, blocks=blocks)
        done += blocks
    launch("norm_total", 0, partial, result, chunks, max_norm, real=np.float64, blocks=1)
    if error_if_nonfinite:
        _check_norm(result[0])
    for dtype, (starts, arrays, count, blocks) in tables.items():
        launch("norm_scale", 0, starts, arrays, result, count, CHUNK, real=dtype, blocks=blocks)
    for grad, copy in zip(grads, copies, strict=True):
        if copy is not grad:
            grad[...] = copy
    return result[0]

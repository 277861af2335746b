"""Looks up rows of a table by integer ids; the gradient adds up the tokens of each id in a fixed order."""

import math
from collections.abc import Callable

import numpy as np

from gpulstm import checks, engine
from gpulstm.backend import Array, Backend
from gpulstm.dtypes import accumulator
from gpulstm.errors import ShapeError
from gpulstm.functional.checks import check_arrays, check_floats, check_indices
from gpulstm.functional.needs import needs


def _take(backend: Backend, table: Array, ids: Array) -> Array:
    if backend.is_cuda:
        return backend.xp.take(table, ids, axis=0)
    out = backend.empty((*ids.shape, table.shape[1]), table.dtype)
    return np.take(table, ids, axis=0, out=out, mode="clip")  # clip: without it NumPy buffers ``out``


def _gradient_host(backend: Backend, ids: Array, dy: Array, V: int, padding: int) -> Array:
    compiled = engine.function("embedding_backward", dy.dtype)
    if compiled is None:
        return _gradient_numpy(backend, ids, dy, V, padding)
    dtable = backend.empty((V, dy.shape[1]), dy.dtype)
    compiled(dy, np.ascontiguousarray(ids, np.int64), dtable, *dtable.shape, ids.size, padding)
    return dtable


def _gradient_numpy(backend: Backend, ids: Array, dy: Array, V: int, padding: int) -> Array:
    dtable = backend.zeros((V, dy.shape[1]), dy.dtype)
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    first = np.flatnonzero(np.diff(ids, prepend=-1))  # where each id's tokens begin in that order
    rows, count = ids[first], np.diff(first, append=ids.size)
    once = count == 1  # in a large vocabulary most ids occur once and need no sum
    dtable[rows[once]] = dy[order[first[once]]]
    for v, start, n in zip(rows[~once].tolist(), first[~once].tolist(), count[~once].tolist(), strict=True):
        dtable[v] = dy.take(order[start : start + n], axis=0).sum(axis=0, dtype=accumulator(dy.dtype))
    if padding >= 0:
        dtable[padding] = 0
    return dtable


def _gradient_cuda(backend: Backend, ids: Array, dy: Array, V: int, padding: int) -> Array:
    xp, (N, D) = backend.xp, dy.shape
    order = xp.argsort(ids)  # CuPy's is stable
    ids = ids[order]
    starts = xp.searchsorted(ids, xp.arange(V + 1))  # the tokens of row v are order[starts[v]:starts[v + 1]]
    # One thread would be slow on a frequent id, so whole pieces of the sorted tokens are summed first. With pieces of
    # about sqrt(N) tokens no thread adds more than about 3 sqrt(N) numbers.
    piece = math.isqrt(N) + 1
    piece_sum = backend.empty((N // piece, D), accumulator(dy.dtype))
    dtable = backend.empty((V, D), dy.dtype)
    assert backend.kernels is not None
    backend.kernels(
        "embedding", "embedding_pieces", piece_sum.size, dy, order, ids, piece_sum, N, D, piece, real=dy.dtype
    )  # fmt: skip
    backend.kernels(
        "embedding", "embedding_backward", V * D,
        dy, order, starts, piece_sum, dtable, V, D, piece, padding, real=dy.dtype,
    )  # fmt: skip
    return dtable


@needs({0: (1,)})
def embedding(ids: Array, table: Array, *, padding_idx: int | None = None) -> tuple[Array, Callable]:
    """Look up a row of the table for each id, as PyTorch's ``embedding``: ``y, pullback = embedding(ids, table)``.

    ids (...) integers, table (V, D) -> y (..., D). ``pullback(dy)`` returns (None, dtable), dtable (V, D) dense. The
    row ``padding_idx`` (-V <= padding_idx < V) gets no gradient. The gradient is summed without atomics in an order
    that depends only on the ids, so two runs agree bit for bit.

    Raises ShapeError for an id outside 0 <= id < V. On CUDA that check costs one reduction over the ids and one wait
    for the device.

    >>> y, pullback = gl.functional.embedding(np.array([2, 0]), np.array([[0.0], [1.0], [2.0]]))
    >>> y
    array([[2.],
           [0.]])
    """
    backend = check_arrays(ids=ids, table=table)
    check_floats(table=table)
    if table.ndim != 2:
        raise ShapeError(f"table: expected (V, D) = (ids, features), got {table.shape}")
    V, D = table.shape
    padding = -1
    if padding_idx is not None:
        words = f"-{V} <= padding_idx < {V}, rows of the table"
        padding = checks.integer("padding_idx", padding_idx, -V, V, words) % V
    ids = check_indices("ids", ids, V, "rows of the table")

    def pullback(dy: Array) -> tuple[None, Array]:
        if dy.size == 0:
            return None, backend.zeros((V, D), table.dtype)
        gradient = _gradient_cuda if backend.is_cuda else _gradient_host
        rows = backend.xp.ascontiguousarray(dy.reshape(ids.size, D))
        return None, gradient(backend, ids.reshape(-1), rows, V, padding)

    return _take(backend, table, ids), pullback

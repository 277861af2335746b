"""Steps written into given buffers, for NumPy: what a cell may offer besides its equations, and their shared pieces.

NumPy takes two to three times as long where a row has gaps to the next, as the block of one gate has, or is to be
repeated, but for a copy. So blocks are copied, and what is computed is whole arrays.

A sign is changed by ``x *= -1``: NumPy 2.4's np.negative(x, out=x) is wrong for a column of float32 in rows of four.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Inplace:
    """A step that allocates nothing: the contract of the cell's CUDA kernels, for whole rows.

    What the functions read and write are the arrays of ``Buffers``: of one step, or, in those marked *, of several
    at once, as many as stay in cache.

    ``forward(s, zr)``: gates come in as zx with its biases and leave activated; zr (B, G*H) is used up; after and
    kept are written. ``inner(s, zr, v)``, of a cell with an inner product, goes before it and writes v (B, H), what
    is multiplied.

    ``coefficients(s)`` *: everything of backward that does not wait for the step after; writes dzx, factors and, if
    the cell is split, dzr.
    ``backward(s, dh, direct, ds)``: one step from its coefficients. dzx and dzr become the gradients of the
    pre-activations; ds, those of the states but h, come in as of the states after the step and leave as of those
    before; direct (B, H) is written if the cell is ``direct``. dh and factors are used up.
    ``inner_backward(s, dv, direct, ds)``, of a cell with an inner product, completes it with what comes by way of
    v; dv is used up. Between the two the columns of dzr that the inner product has written must be ready.

    ``begin(s)`` *: what is done with zx before these steps. ``finish(s, dvectors)`` *: what is left once backward
    has gone through these steps; adds to dvectors, (1, size) for each of the cell's vectors. None for nothing.
    """

    forward: Callable[..., None]
    coefficients: Callable[..., None]
    backward: Callable[..., None]
    inner: Callable[..., None] | None = None
    inner_backward: Callable[..., None] | None = None
    begin: Callable[..., None] | None = None
    finish: Callable[..., None] | None = None
    kept: tuple[int, ...] = ()  # the arrays that a step keeps besides the gates, in blocks of H ...
    columns: int = 0  # ... and the numbers of each row besides
    factors: tuple[int, ...] = (1,)  # the arrays from coefficients to finish, in blocks of H


@dataclass(slots=True)
class Buffers:
    """The arrays of one step, or, with one more axis in front, of several. G gates of H units, B rows."""

    gates: Any  # (B, G*H)
    before: Any  # the states (B, H) in their order; None for an h that is projected after the step
    after: Any  # the same
    kept: Any  # arrays (B, k*H), from forward to finish
    columns: Any  # (columns, B), the same
    vectors: Any  # the cell's extras that are no matrices, each (B, size), all rows the same
    wide: Any  # (B, G*H), working space
    scratch: Any = None  # (B, H), the same for one step, from inner to forward
    dzx: Any = None  # (B, G*H)
    dzr: Any = None  # the same array as dzx where the cell is not split
    factors: Any = None  # arrays (B, k*H), from coefficients to finish


def split(gates: np.ndarray, n: int) -> list[np.ndarray]:
    """n views (..., H) of (..., n*H), side by side; np.split takes ten times as long."""
    H = gates.shape[-1] // n
    return [gates[..., k * H : (k + 1) * H] for k in range(n)]


def sigmoid(z: np.ndarray) -> None:
    """z becomes 1 / (1 + exp(-z)) = tanh(z / 2) / 2 + 1 / 2."""
    z *= 0.5
    np.tanh(z, out=z)
    z *= 0.5
    z += 0.5


def activate(gates: np.ndarray, kinds: str) -> None:
    """Each block of gates (B, n*H) becomes its sigmoid or tanh: n letters, s and t."""
    scale, shift = _of_tanh(kinds, gates.shape, gates.dtype)
    gates *= scale
    np.tanh(gates, out=gates)
    gates *= scale
    gates += shift


CACHED = 1 << 18  # bytes


@functools.lru_cache(maxsize=16)
def _of_tanh(kinds: str, shape: tuple[int, int], dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Arrays for that shape that make one tanh serve all blocks: scale * tanh(scale * z) + shift is sigmoid or tanh."""
    if shape[0] * shape[1] * dtype.itemsize > CACHED:
        shape = (1, shape[1])  # repeated at a small loss, rather than held for ever
    scale, shift = np.full(shape, 0.5, dtype), np.full(shape, 0.5, dtype)
    for kind, scales, shifts in zip(kinds, split(scale, len(kinds)), split(shift, len(kinds)), strict=True):
        if kind == "t":
            scales[...], shifts[...] = 1, 0
    return scale, shift


def slopes(s: Buffers, kinds: str) -> None:
    """The slopes s (1 - s) and 1 - t^2 of the activated gates into dzx: a letter, s or t, for each gate."""
    s.wide[...] = s.gates
    for kind, block in zip(kinds, split(s.wide, len(kinds)), strict=True):
        if kind == "t":
            block[...] = 1
    np.multiply(s.gates, s.gates, out=s.dzx)
    np.subtract(s.wide, s.dzx, out=s.dzx)


def new_cell_state(
    i: np.ndarray, f: np.ndarray, g: np.ndarray, c_prev: np.ndarray, c: np.ndarray, scratch: np.ndarray
) -> None:
    """c = f * c_prev + i * g."""
    np.multiply(f, c_prev, out=c)
    np.multiply(i, g, out=scratch)
    c += scratch


def output_slope(o: np.ndarray, tanh_c: np.ndarray) -> None:
    """Of h = o * tanh(c): tanh_c becomes dc/dh, o * (1 - tanh_c^2)."""
    tanh_c *= tanh_c
    np.subtract(1, tanh_c, out=tanh_c)
    tanh_c *= o


def cell_state_backward(s: Buffers, dh: np.ndarray, dc: np.ndarray, dh_to_dc: np.ndarray, carried: np.ndarray) -> None:
    """``backward`` of a cell whose last gate is that of h = o * tanh(c), the others being of c.

    s.dzx comes in as the coefficients of dc and, in the last block, of dh, carried (B, H) is d(c)/d(c_prev).
    """
    dh_to_dc *= dh
    dc += dh_to_dc
    of_gates(s, dc, dh)
    dc *= carried


def of_gates(s: Buffers, dc: np.ndarray, dh: Any) -> None:
    """s.dzx times dc (B, H), its last block times dh, an array or a number."""
    B, H = dc.shape
    factors = s.wide.reshape(B, s.wide.shape[1] // H, H)
    factors[:, :-1] = dc[:, None]
    factors[:, -1] = dh
    s.dzx *= s.wide

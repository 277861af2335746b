"""Dropout whose mask depends on a 64-bit seed alone: it has the same bits in NumPy and on a GPU, and is never stored.

Element k of the array (in C order) uses draw number k. The draws come from a SplitMix64 sequence (Steele, Lea & Flood
2014, "Fast splittable pseudorandom number generators"): word k // 4 holds draw k, as one of four draws of 16 bits each,
lowest bits first. If several processes share a batch, each element uses its draw number in the whole batch. The
backward pass computes the mask again from the seed.
"""

from collections.abc import Callable
from typing import Any, SupportsIndex

import numpy as np

from gpulstm import checks, engine
from gpulstm.backend import Array, Backend
from gpulstm.dtypes import accumulator
from gpulstm.errors import ShapeError
from gpulstm.functional.checks import check_arrays, check_floats
from gpulstm.functional.needs import needs
from gpulstm.shares import Draws, plain_draws

GAMMA = 0x9E3779B97F4A7C15  # the sequence's step: 2^64 divided by the golden ratio, made odd
MASK = 2**64 - 1
DRAWS = 4  # 16-bit draws in a word
_CHUNK = 1 << 14  # words processed at a time, so that they and their temporaries stay in a core's cache


def words(seed: int, first: int, steps: np.ndarray) -> np.ndarray:
    """Words first, first + 1, ... of the sequence of ``seed``; steps: 0, GAMMA, 2 GAMMA, ... modulo 2^64."""
    z = steps + np.uint64((seed + (first + 1) * GAMMA) & MASK)
    shifted = z >> 30
    z ^= shifted
    z *= np.uint64(0xBF58476D1CE4E5B9)
    np.right_shift(z, 27, out=shifted)
    z ^= shifted
    z *= np.uint64(0x94D049BB133111EB)
    np.right_shift(z, 31, out=shifted)
    z ^= shifted
    return z


def _apply_host(backend: Backend, x: np.ndarray, threshold: int, scale: float, seed: int, draws: Draws) -> np.ndarray:
    """Uses the engine (kernels/host/dropout.cpp) if there is one, else NumPy, with the same bits."""
    compiled, y = engine.function("dropout", x.dtype), backend.empty(x.shape, x.dtype)
    if compiled is None:
        _apply_numpy(x, y, threshold, scale, seed, draws)
    else:
        compiled(np.ascontiguousarray(x), y, x.size, _signed(seed), threshold, scale, *draws)
    return y


def _apply_numpy(x: np.ndarray, y: np.ndarray, threshold: int, scale: float, seed: int, draws: Draws) -> None:
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    steps = np.arange(min(_CHUNK, -(-x.size // DRAWS)) + 1, dtype=np.uint64) * np.uint64(GAMMA)
    factor = accumulator(x.dtype).type(scale)
    for start, number, size in draws.runs(x.size, _CHUNK * DRAWS):
        first, skipped = divmod(number, DRAWS)
        z = words(seed, first, steps[: -(-(skipped + size) // DRAWS)])
        drawn = z.astype("<u8", copy=False).view("<u2")[skipped : skipped + size]
        flat_y[start : start + size] = flat_x[start : start + size] * ((drawn >= threshold) * factor)


def _signed(seed: int) -> int:
    """The seed's 64 bits read as C's long long."""
    return seed - 2**64 if seed >= 2**63 else seed


def _apply_cuda(backend: Backend, x: Array, threshold: int, scale: float, seed: int, draws: Draws) -> Array:
    y = backend.empty(x.shape, x.dtype)
    x = backend.xp.ascontiguousarray(x)  # CuPy adds a dimension to a 0-d array
    assert backend.kernels is not None
    args = x, y, x.size, _signed(seed), threshold, scale, *draws
    backend.kernels("dropout", "dropout", -(-x.size // DRAWS), *args, real=x.dtype)
    return y


def mask(backend: Backend, shape: tuple[int, ...], rate: float, seed: int, dtype: Any, draws: Draws) -> Array:
    """The mask of ``dropout`` before scaling: 0 with probability ``rate``, else 1; ``draws`` numbers the draws."""
    ones = backend.empty(shape, dtype)
    ones[...] = 1
    apply = _apply_cuda if backend.is_cuda else _apply_host
    return apply(backend, ones, round(rate * 65536), 1.0, seed, draws)


@needs({}, view=True)
def dropout(x: Array, rate: float, seed: SupportsIndex, draws: Draws | None = None) -> tuple[Array, Callable]:
    """Set each element to 0 with probability ``rate``, and scale the others by 1 / (1 - rate).

    ``y, pullback = dropout(x, rate, seed)``: x (...) -> y (...); the same integer seed, 0 <= seed < 2^64, gives the
    same mask on every device and for every element type. An element is dropped when its 16-bit draw is below
    round(65536 * rate). Rate 0 returns x itself, rate 1 zeros. ``draws`` are the numbers of the draws, by default 0, 1,
    ... in C order (gpulstm/shares.py). ``pullback(dy)`` returns (dx,). Srivastava et al. 2014. Raises ShapeError for a
    rate outside [0, 1] or a seed outside its range.

    >>> y, pullback = gl.functional.dropout(np.ones(4), 0.5, seed=3)
    >>> y, pullback(np.ones(4))[0]
    (array([2., 2., 0., 0.]), array([2., 2., 0., 0.]))
    """
    backend = check_arrays(x=x)
    check_floats(x=x)
    # Python numbers: a NumPy scalar could change the size of a kernel's argument.
    rate = checks.number("rate", rate, most=1, words="0 <= rate <= 1")
    bits = checks.integer("seed", seed, 0, MASK + 1, words="0 <= seed < 2**64")
    if rate == 0:
        return x, lambda dy: (dy,)
    threshold, scale = round(rate * 65536), 0.0 if rate == 1 else 1 / (1 - rate)
    apply = _apply_cuda if backend.is_cuda else _apply_host

    numbers = draws or plain_draws(x.size)

    def masked(a: Array) -> Array:
        return apply(backend, a, threshold, scale, bits, numbers)

    return masked(x), lambda dy: (masked(dy),)


@needs({})
def variational_dropout(
    x: Array, rate: float, seed: SupportsIndex, draws: Draws | None = None
) -> tuple[Array, Callable]:
    """Apply dropout with one mask for all steps of a sequence: ``y, pullback = variational_dropout(x, rate, seed)``.

    x (T, B, D) -> y (T, B, D); the mask (B, D) is that of ``dropout`` with the same seed and draws (Gal & Ghahramani
    2016). ``pullback(dy)`` returns (dx,). Raises ShapeError for an x of another shape, and what ``dropout`` raises.

    >>> y, pullback = gl.functional.variational_dropout(np.ones((2, 1, 4)), 0.5, seed=3)
    >>> y[0], y[1]
    (array([[2., 2., 0., 0.]]), array([[2., 2., 0., 0.]]))
    """
    backend = check_arrays(x=x)
    check_floats(x=x)
    if x.ndim != 3:
        raise ShapeError(f"x: expected (T, B, D), got {x.shape}")
    ones = backend.empty(x.shape[1:], x.dtype)
    ones[...] = 1
    factors, _ = dropout(ones, rate, seed, draws)
    return x * factors, lambda dy: (dy * factors,)

"""Gradient checkpointing for long sequences: the states of every sqrt(T)-th step are kept, the rest is computed again.

Chen, Xu, Zhang & Guestrin 2016, "Training deep nets with sublinear memory cost".
"""

import math
from collections.abc import Callable
from typing import Any

from gpulstm.backend import Array, backend_of
from gpulstm.dtypes import accumulator, cast
from gpulstm.functional.loop import Loop, Weights


def chunk_size(T: int) -> int:
    """The number of steps in a chunk: sqrt(T), rounded down."""
    return math.isqrt(T)


def in_chunks(
    loop: Callable[[slice], Loop], x: Array, states: list, weights: Weights, reverse: bool
) -> tuple[tuple, Callable]:
    """Run one loop for each chunk of sqrt(T) steps -> (outputs, pullback), as one loop over all steps returns."""
    T, xp = x.shape[0], backend_of(x).xp
    size = chunk_size(T)
    chunks = [slice(start, min(start + size, T)) for start in range(0, T, size)]
    if reverse:
        chunks.reverse()
    firsts, parts, last = [], [], list(states)
    for chunk in chunks:
        firsts.append(last)
        y, *last = loop(chunk).run(x[chunk], last, weights)
        parts.append(y)

    def pullback(dy: Array | None, *dstates: Array | None) -> tuple:
        dxs: list[Any] = []
        total: Any = ()
        d: Any = dstates
        for chunk, first in zip(reversed(chunks), reversed(firsts), strict=True):
            again = loop(chunk)
            again.run(x[chunk], first, weights)
            dx, *rest = again.pullback(None if dy is None else dy[chunk], *d)
            d, gradients = rest[: len(first)], rest[len(first) :]
            # Sums of sqrt(T) gradients in a half type would lose small terms.
            wide = cast(gradients, accumulator(x.dtype))
            total = [None if a is None else a + b for a, b in zip(total, wide, strict=True)] if total else wide
            dxs.append(dx)
        dx = None if dxs[0] is None else xp.concatenate(dxs if reverse else dxs[::-1])
        given = (g if state is not None else None for g, state in zip(d, states, strict=True))
        return dx, *given, *cast(total, x.dtype)

    return (xp.concatenate(parts[::-1] if reverse else parts), *last), pullback

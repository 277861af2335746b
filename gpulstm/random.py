"""Where randomness comes from: NumPy generators on the host, a default among them, and states to be saved.

Everything random takes a ``generator``; without one it uses the default. Devices never draw: they are given
numbers, or a 64-bit seed (see functional/dropout.py), so the same seed gives the same bits on each of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpulstm import checks
from gpulstm.errors import DTypeError, FormatError

_default: np.random.Generator | None = None


def manual_seed(seed: int) -> np.random.Generator:
    """Replace the default generator by one with this seed, and return it, as ``torch.manual_seed``.

    Raises ShapeError unless the seed is an integer from 0 up.

    >>> float(gl.manual_seed(0).random())
    0.6369616873214543
    """
    global _default
    _default = np.random.Generator(np.random.PCG64(checks.count("seed", seed)))
    return _default


def default_generator() -> np.random.Generator:
    """The generator of all that is given none; seeded by the system until ``manual_seed`` is called."""
    global _default
    if _default is None:
        _default = np.random.Generator(np.random.PCG64())
    return _default


@contextmanager
def using(generator: np.random.Generator) -> Iterator[np.random.Generator]:
    """A block in which this is the default generator; afterwards it is the one from before."""
    global _default
    before, _default = _default, as_generator(generator)
    try:
        yield generator
    finally:
        _default = before


def as_generator(generator: Any) -> np.random.Generator:
    """The generator, the default one for None; raises DTypeError for what is none."""
    if generator is None:
        return default_generator()
    if not isinstance(generator, np.random.Generator):
        raise DTypeError(
            f"generator: expected a numpy.random.Generator or None, e.g. gl.manual_seed(0), got {generator!r}"
        )
    return generator


def draw_seed(generator: np.random.Generator | None = None) -> int:
    """A seed, 0 <= seed < 2^64, drawn from the generator (None: the default one)."""
    return int(as_generator(generator).integers(2**64, dtype=np.uint64))


def generator_state(generator: np.random.Generator) -> dict[str, Any]:
    """Where the generator stands, in values that JSON can hold (integers of up to 128 bits among them)."""
    return _plain(generator.bit_generator.state)


def set_generator_state(generator: np.random.Generator, state: dict[str, Any]) -> None:
    """Put the generator where ``generator_state`` found it or another of its kind.

    Raises FormatError, with the generator as it was, for a state of another kind and for what is no state.
    """
    bits = generator.bit_generator
    kind = state.get("bit_generator") if isinstance(state, dict) else None
    if kind != type(bits).__name__:
        got = kind or type(state).__name__
        raise FormatError(f"generator state: expected that of a {type(bits).__name__}, got {got}")
    before = bits.state
    try:
        bits.state = _arrays(state)
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        bits.state = before
        raise FormatError(f"generator state: expected what generator_state gave, got others: {error}") from error


def _plain(state: Any) -> Any:
    if isinstance(state, dict):
        return {name: _plain(value) for name, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray | np.generic) else state


def _arrays(state: Any) -> Any:
    """``_plain`` undone: some kinds of generators (Philox, MT19937) keep arrays of unsigned integers."""
    if isinstance(state, dict):
        return {name: _arrays(value) for name, value in state.items()}
    return np.array(state, np.uint64) if isinstance(state, list) else state

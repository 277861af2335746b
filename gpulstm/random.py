"""Random numbers: NumPy generators on the host, the default generator, and generator states to save.

Everything random takes a ``generator``; without one it uses the default generator. Devices draw no random numbers of
their own. They get numbers, or a 64-bit seed (see functional/dropout.py), so the same seed gives the same bits on every
device.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpulstm import checks
from gpulstm.errors import DTypeError, FormatError

_default: np.random.Generator | None = None


def manual_seed(seed: int) -> np.random.Generator:
    """Seed the default generator, as ``torch.manual_seed``, and return the new generator.

    It draws initial parameters, dropout, and everything else random that is given no generator of its own. Raises
    ShapeError unless the seed is an integer of at least 0.

    >>> float(gl.manual_seed(0).random())
    0.6369616873214543
    """
    global _default
    _default = np.random.Generator(np.random.PCG64(checks.count("seed", seed)))
    return _default


def default_generator() -> np.random.Generator:
    """The generator for everything without a ``generator``; the system seeds it until ``manual_seed`` is called."""
    global _default
    if _default is None:
        _default = np.random.Generator(np.random.PCG64())
    return _default


@contextmanager
def using(generator: np.random.Generator) -> Iterator[np.random.Generator]:
    """Make this the default generator inside the block, and restore the previous one at its end."""
    global _default
    before, _default = _default, as_generator(generator)
    try:
        yield generator
    finally:
        _default = before


def as_generator(generator: Any) -> np.random.Generator:
    """Return the generator, or the default one for None; raises DTypeError for anything else."""
    if generator is None:
        return default_generator()
    if not isinstance(generator, np.random.Generator):
        raise DTypeError(
            f"generator: expected a numpy.random.Generator or None, e.g. gl.manual_seed(0), got {generator!r}"
        )
    return generator


def draw_seed(generator: np.random.Generator | None = None) -> int:
    """Draw a seed, 0 <= seed < 2^64, from the generator, or from the default one for None."""
    return int(as_generator(generator).integers(2**64, dtype=np.uint64))


def generator_state(generator: np.random.Generator) -> dict[str, Any]:
    """The state of the generator, in values that JSON can hold (with integers of up to 128 bits)."""
    return _plain(generator.bit_generator.state)


def set_generator_state(generator: np.random.Generator, state: dict[str, Any]) -> None:
    """Set the state of the generator to the result of ``generator_state``.

    Raises FormatError for the state of another kind of generator and for anything else; the generator then stays
    unchanged.
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
        raise FormatError(f"generator state: expected a result of generator_state, got others: {error}") from error


def _plain(state: Any) -> Any:
    if isinstance(state, dict):
        return {name: _plain(value) for name, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray | np.generic) else state


def _arrays(state: Any) -> Any:
    """The inverse of ``_plain``: some generators (Philox, MT19937) have arrays of unsigned integers in their state."""
    if isinstance(state, dict):
        return {name: _arrays(value) for name, value in state.items()}
    return np.array(state, np.uint64) if isinstance(state, list) else state

"""The seed of everything random: one generator on the host, which layers draw their first values and seeds from."""

from typing import Any

import numpy as np

_default = np.random.Generator(np.random.PCG64())


def manual_seed(seed: int) -> np.random.Generator:
    """Start the default generator anew from ``seed``; same seed, same numbers on every device. Returns it."""
    _default.bit_generator.state = np.random.PCG64(seed).state
    return _default


def default_generator() -> np.random.Generator:
    """The generator used where none is given. Seeded by the system until ``manual_seed`` is called."""
    return _default


def draw_seed(generator: np.random.Generator | None = None) -> int:
    """A fresh 64-bit seed, 0 <= seed < 2^64, for something that is random on the device."""
    return int((generator or _default).integers(0, 2**64, dtype=np.uint64))


def generator_state(generator: np.random.Generator) -> dict[str, Any]:
    """The generator's state as numbers and strings that JSON can hold."""
    return dict(generator.bit_generator.state)


def set_generator_state(generator: np.random.Generator, state: dict[str, Any]) -> None:
    """Put the generator where ``generator_state`` found it. Raises ValueError for the state of another kind."""
    generator.bit_generator.state = state

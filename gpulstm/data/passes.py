"""The base class of the data sets: passes whose position can be saved and restored."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np

from gpulstm import checks
from gpulstm.errors import DTypeError, FormatError, ShapeError
from gpulstm.random import draw_seed, generator_state, set_generator_state


class Passes(ABC):
    """The base class of the data sets: passes of ``len(self)`` batches whose position can be saved and restored.

    With a ``generator`` every pass has a new random order, which depends on one number drawn at its start; without, the
    order is that of the data. ``state_dict`` holds the position, that number and the generator's state. Several passes
    may run at once, each with its own order; the position is that of the latest one. A copy or an unpickled object
    begins with a new pass. Raises DTypeError for anything but a numpy.random.Generator or None.

    >>> batches = gl.data.Batches(np.arange(6), batch_size=2)
    >>> state = None
    >>> for batch in batches:
    ...     if state is None:
    ...         state = batches.state_dict()
    >>> batches.load_state_dict(state)
    >>> list(batches)
    [array([2, 3]), array([4, 5])]
    """

    batch_first = False  # whether the batches are (B, T, ...); False for (T, B, ...)

    @property
    def batch_axes(self) -> Any:
        """The axis of the examples in a batch's arrays: one for all, or one per array, structured like a batch."""
        return 0 if self.batch_first else 1

    def __init__(self, batches: int, generator: np.random.Generator | None = None) -> None:
        if not isinstance(generator, np.random.Generator | None):
            want = "expected a numpy.random.Generator, e.g. np.random.default_rng(0), or None"
            raise DTypeError(f"generator: {want}, got {generator!r}")
        self.generator = generator
        self._batches = batches
        self._begin(None, None)

    def _begin(self, position: int | None, seed: int | None) -> None:
        """Set where the next pass begins: at its start, or at a restored position."""
        self._position = position  # batches given in this pass; None between passes
        self._seed = seed  # the seed of this pass's order
        self._restored = position is not None
        self._newest: object = None  # the pass that the position belongs to

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_position": None, "_seed": None, "_restored": False, "_newest": None}

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[Any]:
        if not self._restored:
            self._position = 0
            self._seed = None if self.generator is None else draw_seed(self.generator)
        self._restored, this = False, object()
        self._newest = this
        order = self._order(None if self._seed is None else np.random.default_rng(self._seed))
        for k in range(self._position or 0, self._batches):
            if self._newest is this:
                self._position = k + 1  # before the yield: a state saved by the caller counts this batch
            yield self._batch(order, k)
        if self._newest is this:
            self._begin(None, None)

    @abstractmethod
    def _order(self, generator: np.random.Generator | None) -> Any:
        """The order of one pass."""

    @abstractmethod
    def _batch(self, order: Any, k: int) -> Any:
        """Batch number k of a pass."""

    def extra_repr(self) -> str:
        """The arguments shown in ``repr``."""
        return ""

    def __repr__(self) -> str:
        shuffled = ", shuffled" if self.generator is not None else ""
        batches = f"{self._batches} batch" + ("" if self._batches == 1 else "es")
        options = f": {self.extra_repr()}" if self.extra_repr() else ""
        return f"{type(self).__name__}({batches}{shuffled}{options})"

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the current pass, its order and the generator's state, as JSON values."""
        state = None if self.generator is None else generator_state(self.generator)
        return {"batches": self._batches, "position": self._position, "seed": self._seed, "generator": state}

    def next_pass(self) -> dict[str, Any]:
        """Return the state in which the next pass begins, as ``state_dict``, without an unfinished pass."""
        state = self.state_dict()
        return state if self._restored else {**state, "position": None, "seed": None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the result of ``state_dict``; the next pass continues from there.

        Raises FormatError, before anything changes, for the state of other data or of other batches.
        """
        mine = self.state_dict()
        if not isinstance(state_dict, dict) or state_dict.keys() != mine.keys():
            raise FormatError(f"state of batches: expected {sorted(mine)}, got {state_dict!r:.80}")
        if state_dict["batches"] != self._batches:
            got = state_dict["batches"]
            raise FormatError(f"state of batches: expected a state of {self._batches} batches, got one of {got}")
        position = _whole("position", state_dict["position"], self._batches)
        seed = _whole("seed", state_dict["seed"], 2**64 - 1)
        shuffled = self.generator is not None
        if shuffled != (state_dict["generator"] is not None) or (shuffled and position is not None) != (
            seed is not None
        ):
            raise FormatError("state of batches: expected data and state both shuffled or neither, got one of each")
        if self.generator is not None:
            try:
                set_generator_state(self.generator, state_dict["generator"])
            except (ValueError, TypeError, KeyError) as error:
                want = f"a state of {self.generator}"
                raise FormatError(f"state of batches: expected {want}, got another kind of state") from error
        self._begin(position, seed)


def _whole(name: str, value: Any, most: int) -> int | None:
    """A number of a state, or None; raises FormatError unless 0 <= value <= most."""
    try:
        if value is None or checks.count(name, value) <= most:
            return value
    except ShapeError:
        pass
    raise FormatError(f"state of batches: expected a {name} from 0 to {most}, got {value}")

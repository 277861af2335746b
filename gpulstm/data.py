"""Batches for training: padded sequences, windows, streams that carry a state; positions can be saved.

Going over any of them with ``for`` is one pass. After ``load_state_dict`` the next pass begins where the
saved one stood, and gives the batches that the saved one would have given, in the same order.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gpulstm.backend import CPU, Array, backend_of
from gpulstm.errors import DTypeError, FormatError, ShapeError
from gpulstm.random import draw_seed, generator_state, set_generator_state


def pad_sequences(sequences: Sequence[Any], value: float = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sequences (T_b, ...) side by side, padded: (T, B, ...) with T the longest, and lengths (B,) int64.

    Places past the end of a sequence hold ``value``. What the layers take as x and ``lengths``. Raises
    ShapeError for no sequences, and where they differ in more than their length.
    """
    arrays = [np.asarray(sequence) for sequence in sequences]
    if not arrays:
        raise ShapeError("sequences: want at least one, got none")
    for b, array in enumerate(arrays):
        if array.ndim == 0 or array.shape[1:] != arrays[0].shape[1:]:
            want = ", ".join(["steps", *map(str, arrays[0].shape[1:])])
            raise ShapeError(f"sequence {b}: want ({want}), got {array.shape}")
    lengths = np.array([len(array) for array in arrays], np.int64)
    padded = np.full((lengths.max(), len(arrays), *arrays[0].shape[1:]), value, np.result_type(*arrays))
    for b, array in enumerate(arrays):
        padded[: len(array), b] = array
    return padded, lengths


class Passes(ABC):
    """Base of the classes here: passes of ``len(self)`` batches whose position can be saved and restored.

    With a ``generator`` every pass has a new order, made from one number drawn from it; without, the order is
    that of the data. The state holds that number, so that restoring disturbs no other user of the generator.
    """

    def __init__(self, batches: int, generator: np.random.Generator | None = None) -> None:
        self.generator = generator
        self._batches = batches
        self._position: int | None = None  # batches given in this pass; None between passes
        self._seed: int | None = None  # of this pass's order
        self._restored = False

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[Any]:
        if not self._restored:
            self._position = 0
            self._seed = None if self.generator is None else draw_seed(self.generator)
        self._restored = False
        order = self._order(None if self._seed is None else np.random.default_rng(self._seed))
        for k in range(self._position or 0, self._batches):
            self._position = k + 1  # before the batch is out: who saves now has had it
            yield self._batch(order, k)
        self._position = self._seed = None

    @abstractmethod
    def _order(self, generator: np.random.Generator | None) -> Any:
        """What decides the order of one pass."""

    @abstractmethod
    def _batch(self, order: Any, k: int) -> Any:
        """Batch number k of a pass."""

    def state_dict(self) -> dict[str, Any]:
        """The position in the pass at work, its order and the generator's state, as JSON values."""
        state = None if self.generator is None else generator_state(self.generator)
        return {"batches": self._batches, "position": self._position, "seed": self._seed, "generator": state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what ``state_dict`` gave; the next pass goes on from there.

        Raises FormatError for the state of other data or of another way to make batches of it.
        """
        mine = self.state_dict()
        if not isinstance(state_dict, dict) or state_dict.keys() != mine.keys():
            raise FormatError(f"state of batches: want {sorted(mine)}, got {state_dict!r:.80}")
        if state_dict["batches"] != self._batches:
            raise FormatError(f"state of batches: want one of {self._batches} batches, got {state_dict['batches']}")
        position, seed = state_dict["position"], state_dict["seed"]
        if position is not None and not (isinstance(position, int) and 0 <= position <= self._batches):
            raise FormatError(f"state of batches: want a position from 0 to {self._batches}, got {position}")
        shuffled = self.generator is not None
        if shuffled != (state_dict["generator"] is not None) or (shuffled and position is not None) != (
            seed is not None
        ):
            raise FormatError("state of batches: want both in one order or both shuffled, got one of each")
        if self.generator is not None:
            try:
                set_generator_state(self.generator, state_dict["generator"])
            except (ValueError, TypeError, KeyError) as error:
                raise FormatError(f"state of batches: want a state of {self.generator}, got another") from error
        self._position, self._seed, self._restored = position, seed, position is not None


class Batches(Passes):
    """Examples in batches: every example once in a pass.

    Each column is an array (N, ...), of which a batch has the rows (B, ...), or a list of N sequences (T_n,
    ...), of which a batch has ``pad_sequences``' pair (padded (T, B, ...), lengths (B,)). A batch is a tuple
    with one entry a column, or that entry alone when there is one column. The last batch may be smaller;
    ``drop_last`` leaves it out.

    >>> for (tokens, lengths), labels in Batches(sentences, classes, batch_size=32, generator=generator):
    ...     ...

    Raises ShapeError for columns of different length and for a batch_size below 1.
    """

    def __init__(
        self,
        *columns: Any,
        batch_size: int,
        generator: np.random.Generator | None = None,
        drop_last: bool = False,
    ) -> None:
        sizes = [len(column) for column in columns]
        if not columns or len(set(sizes)) != 1:
            raise ShapeError(f"columns: want at least one, and all of one length, got lengths {sizes}")
        _check_positive(batch_size=batch_size)
        self._columns = [_column(column) for column in columns]
        self.batch_size, self._examples = batch_size, sizes[0]
        super().__init__((sizes[0] + (0 if drop_last else batch_size - 1)) // batch_size, generator)

    def _order(self, generator: np.random.Generator | None) -> np.ndarray:
        return np.arange(self._examples) if generator is None else generator.permutation(self._examples)

    def _batch(self, order: np.ndarray, k: int) -> Any:
        rows = order[k * self.batch_size : (k + 1) * self.batch_size]
        batch = tuple(_rows(column, rows) for column in self._columns)
        return batch[0] if len(batch) == 1 else batch


class Windows(Passes):
    """Pairs x, y of windows that do not overlap, y ahead of x; every step is a target once in a pass.

    ``series`` (N, ...) is cut into windows of ``window`` steps; x and y are (window, B, ...) with B at most
    ``batch_size``. y has the steps of ``targets`` (N, ...) if given, else those of the series, that follow
    x's by ``ahead``. The steps that are left over make a shorter window in a batch of its own, the last of a
    pass.

    With a ``generator`` the windows come in a new order in every pass. Raises ShapeError for a series too
    short for one target, targets of another length, and sizes below 1.
    """

    def __init__(
        self,
        series: Any,
        window: int,
        batch_size: int,
        *,
        targets: Any = None,
        ahead: int = 1,
        generator: np.random.Generator | None = None,
    ) -> None:
        _check_positive(window=window, batch_size=batch_size)
        self._x, self._y = _aligned(series, targets, ahead)
        self.window, self.batch_size = window, batch_size
        self._whole, self._left = divmod(len(self._x), window)
        super().__init__(-(-self._whole // batch_size) + (self._left > 0), generator)

    def _order(self, generator: np.random.Generator | None) -> np.ndarray:
        return np.arange(self._whole) if generator is None else generator.permutation(self._whole)

    def _batch(self, order: np.ndarray, k: int) -> tuple[Array, Array]:
        numbers = order[k * self.batch_size : (k + 1) * self.batch_size]
        if numbers.size == 0:  # the steps left over
            first = self._whole * self.window
            return self._x[first:, None], self._y[first:, None]
        steps = numbers * self.window + np.arange(self.window)[:, None]  # (window, B)
        return _rows(self._x, steps), _rows(self._y, steps)


class Streams(Passes):
    """A long series as B streams side by side, in windows that follow each other.

    This is for truncated back-propagation with a carried state (Williams & Peng 1990).

    ``series`` (N, ...) is cut into ``streams`` pieces of equal length, each read from its start: x and y are
    (T, B, ...) with T = ``window``, less in the last window, and row b of one window goes on where row b of
    the window before ended. y has the steps of ``targets`` (N, ...) if given, else those of the series, that
    follow x's by ``ahead``.

    The N - ahead pairs may not divide by B. With ``fill=None`` up to B - 1 pairs at the end are left out. A
    number keeps every pair: the last streams are filled up with zeros in x and ``fill`` in y, at their end;
    cross_entropy leaves out targets of -100.

    Raises ShapeError for a series with fewer pairs than streams, targets of another length, and sizes
    below 1.
    """

    def __init__(
        self,
        series: Any,
        streams: int,
        window: int,
        *,
        targets: Any = None,
        ahead: int = 1,
        fill: float | None = None,
    ) -> None:
        _check_positive(streams=streams, window=window)
        x, y = _aligned(series, targets, ahead)
        if len(x) < streams:
            raise ShapeError(
                f"series: want at least {streams + ahead} steps for {streams} streams, got {len(x) + ahead}"
            )
        self.window = window
        self._x = _side_by_side(x, streams, None if fill is None else 0)
        self._y = _side_by_side(y, streams, fill)
        super().__init__(-(-len(self._x) // window))

    def _order(self, generator: np.random.Generator | None) -> None:
        return None

    def _batch(self, order: None, k: int) -> tuple[Array, Array]:
        part = slice(k * self.window, (k + 1) * self.window)
        return self._x[part], self._y[part]


def _check_positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise ShapeError(f"{name}: want a whole number from 1 up, got {size!r}")


def _column(column: Any) -> Array | list[np.ndarray]:
    """A list of sequences as a list of arrays; anything else, a list of numbers too, as an array."""
    if isinstance(column, list | tuple):
        items = [np.asarray(item) for item in column]
        if any(item.ndim > 0 for item in items):
            return items
    return _array(column)


def _rows(column: Array | list[np.ndarray], numbers: np.ndarray) -> Any:
    """The rows of an array, or of a list of sequences, padded."""
    if isinstance(column, list):
        return pad_sequences([column[n] for n in numbers.tolist()])
    backend = backend_of(column)
    with backend:
        return column[backend.asarray(numbers)]


def _array(x: Any) -> Array:
    """x itself if it is a NumPy or CuPy array, else a NumPy array of it."""
    try:
        backend_of(x)
        return x
    except DTypeError:
        return CPU.asarray(x)


def _aligned(series: Any, targets: Any, ahead: int) -> tuple[Array, Array]:
    """x and y of equal length: y[n] stands ``ahead`` steps after x[n]."""
    series = _array(series)
    targets = series if targets is None else _array(targets)
    backend_of(series, targets)
    if not isinstance(ahead, int) or ahead < 0:
        raise ShapeError(f"ahead: want a whole number from 0 up, got {ahead!r}")
    if len(targets) != len(series):
        raise ShapeError(f"targets: want {len(series)} steps, those of the series, got {len(targets)}")
    if len(series) <= ahead:
        raise ShapeError(f"series: want at least {ahead + 1} steps, got {len(series)}")
    return series[: len(series) - ahead], targets[ahead:]


def _check_holds(dtype: np.dtype, fill: float) -> None:
    try:
        np.full((), fill, dtype)
    except OverflowError as error:
        raise DTypeError(f"fill: want a number that the targets' type {dtype} can hold, got {fill}") from error


def _side_by_side(x: Array, streams: int, fill: float | None) -> Array:
    """x (n, ...) as (n / streams, streams, ...), contiguous: column b is piece b."""
    backend = backend_of(x)
    xp = backend.xp
    with backend:
        if fill is None:
            x = x[: len(x) // streams * streams]
        elif missing := -len(x) % streams:
            _check_holds(x.dtype, fill)
            x = xp.concatenate([x, xp.full((missing, *x.shape[1:]), fill, x.dtype)])
        return xp.ascontiguousarray(xp.swapaxes(x.reshape(streams, -1, *x.shape[1:]), 0, 1))

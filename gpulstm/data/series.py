"""Windows of a series, in batches, and streams: consecutive windows between which a state is carried."""

import copy
from typing import Any, Self

import numpy as np

from gpulstm import checks
from gpulstm.backend import Array, backend_of
from gpulstm.data.arguments import as_array, held
from gpulstm.data.batches import rows
from gpulstm.data.passes import Passes
from gpulstm.errors import DeviceError, ShapeError


class Windows(Passes):
    """Cuts a series into windows x with their targets y, ``ahead`` steps later, and puts several windows in a batch.

    ``series`` (N, ...) is cut into windows of ``window`` steps; x and y are (window, B, ...) with B at most
    ``batch_size``, or (B, window, ...) with ``batch_first``. y holds the steps of ``targets`` (N, ...) that are
    ``ahead`` steps later than those of x. By default ``targets`` is the series itself.

    A window begins every ``stride`` steps, by default every ``window`` steps, so that every step is a target once per
    pass; a smaller stride makes overlapping windows. The remaining steps at the end form a shorter window, one stride
    after the last whole one. It is a batch of its own at the end of a pass.

    With ``horizon`` y is the target of a forecast: that many steps, the first of them ``ahead`` steps after the last
    step of x. Windows without all their targets are left out, and there is no shorter window.

    ``drop_last`` skips the shorter window, and a last batch with fewer than ``batch_size`` windows, so that all batches
    have the same shape. With a ``generator`` the windows have a new random order in every pass.

    Raises ShapeError for a series that is too short for one target, or for one batch with ``drop_last``; for targets of
    another length than the series; and for sizes below 1.

    >>> for x, y in gl.data.Windows(np.arange(60.0), window=48, batch_size=32, horizon=12):
    ...     print(x.shape, y.shape)
    (48, 1) (12, 1)
    """

    def __init__(
        self,
        series: Any,
        window: int,
        batch_size: int,
        *,
        targets: Any = None,
        ahead: int = 1,
        stride: int | None = None,
        horizon: int | None = None,
        generator: np.random.Generator | None = None,
        drop_last: bool = False,
        batch_first: bool = False,
    ) -> None:
        self.window, self.batch_size = checks.count("window", window, 1), checks.count("batch_size", batch_size, 1)
        self.stride = self.window if stride is None else checks.count("stride", stride, 1)
        self.horizon = None if horizon is None else checks.count("horizon", horizon, 1)
        self.ahead, self.drop_last = checks.count("ahead", ahead), checks.flag("drop_last", drop_last)
        self.batch_first = checks.flag("batch_first", batch_first)
        self._x, self._y = _series(series, targets)
        N = len(self._x)
        # y begins first_target steps after the window's first step.
        self._first_target = self.ahead if self.horizon is None else self.window - 1 + self.ahead
        self._targets = self.window if self.horizon is None else self.horizon
        least = self._first_target + (1 if self.horizon is None else self.horizon)
        if least > N:
            raise ShapeError(f"series: expected at least {least} steps, got {N}")
        self._whole = max(0, (N - self._first_target - self._targets) // self.stride + 1)
        covered = (self._whole - 1) * self.stride + self.window if self._whole else 0
        self._left = self.horizon is None and covered < N - self.ahead and self._whole * self.stride < N - self.ahead
        if self.drop_last:
            self._left = False
        batches = self._whole // self.batch_size if self.drop_last else -(-self._whole // self.batch_size)
        if batches + self._left == 0:
            want = self._first_target + self._targets + (self.batch_size - 1) * self.stride
            raise ShapeError(f"series: expected at least {want} steps for one batch with drop_last, got {N}")
        super().__init__(batches + self._left, generator)

    def _order(self, generator: np.random.Generator | None) -> np.ndarray:
        return np.arange(self._whole) if generator is None else generator.permutation(self._whole)

    def _batch(self, order: np.ndarray, k: int) -> tuple[Array, Array]:
        starts = order[k * self.batch_size : (k + 1) * self.batch_size] * self.stride
        length, targets = self.window, self._targets
        if starts.size == 0:  # the shorter window at the end
            starts = np.array([self._whole * self.stride])
            length = targets = len(self._x) - self.ahead - self._whole * self.stride
        return self._steps(self._x, starts, length), self._steps(self._y, starts + self._first_target, targets)

    def _steps(self, array: Array, starts: np.ndarray, length: int) -> Array:
        numbers = starts + np.arange(length)[:, None]  # (length, B)
        return rows(array, numbers.T if self.batch_first else numbers)

    def extra_repr(self) -> str:
        options = [f"{len(self._x)} steps, window={self.window}, batch_size={self.batch_size}"]
        usual: dict[str, Any] = {"ahead": 1, "stride": self.window, "horizon": None}
        usual |= {"drop_last": False, "batch_first": False}
        options += [f"{name}={getattr(self, name)}" for name, value in usual.items() if getattr(self, name) != value]
        return ", ".join(options)


class Streams(Passes):
    """Cuts a long series into B parallel streams and reads them in successive windows, for truncated backpropagation.

    The hidden state carries over from one window to the next (Williams & Peng 1990). ``series`` (N, ...) is cut into
    ``streams`` pieces of equal length, B = ``streams``. x and y are (T, B, ...), or (B, T, ...) with ``batch_first``. T
    is ``window``; the last window may be shorter (``drop_last`` skips it if so). Stream b of a window continues stream
    b of the window before. y holds the steps of ``targets`` (N, ...) that are ``ahead`` steps later than those of x. By
    default ``targets`` is the series itself.

    The series has N - ahead pairs of a step and its target, which B may not divide. With ``fill=None`` up to B - 1
    pairs at the end are left out. With a number as ``fill`` every pair is kept: the last streams are padded at their
    end, with zeros in x and ``fill`` in y. (cross_entropy ignores targets of -100.)

    Raises ShapeError for a series with fewer pairs than streams, or too short for one window with ``drop_last``; for
    targets of another length than the series; and for sizes below 1. Raises DTypeError for a ``fill`` that the element
    type of y cannot hold.

    >>> for x, y in gl.data.Streams(np.arange(9), streams=2, window=4):
    ...     print(x.T, y.T)
    [[0 1 2 3]
     [4 5 6 7]] [[1 2 3 4]
     [5 6 7 8]]
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
        drop_last: bool = False,
        batch_first: bool = False,
    ) -> None:
        self.streams, self.window = checks.count("streams", streams, 1), checks.count("window", window, 1)
        self.ahead, self.drop_last = checks.count("ahead", ahead), checks.flag("drop_last", drop_last)
        self.batch_first = checks.flag("batch_first", batch_first)
        x, y = _series(series, targets)
        self._steps = len(x)
        _, batches = stream_sizes(self._steps, self.streams, self.window, self.ahead, fill is not None, self.drop_last)
        x, y = x[: len(x) - self.ahead], y[self.ahead :]
        if fill is not None:
            fill = held("fill", fill, y.dtype, of="series" if targets is None else "targets")
        self._x = _side_by_side(x, self.streams, None if fill is None else 0)
        self._y = _side_by_side(y, self.streams, fill)
        super().__init__(batches)

    def share(self, rank: int, size: int) -> Self:
        """Return a data set with the part of every batch that process ``rank`` of ``size`` takes.

        These are the columns from ``streams * rank // size`` up to ``streams * (rank + 1) // size``. There are as many
        batches as in the whole, and the states of the whole and of its shares are interchangeable. Raises ShapeError
        for more processes than streams, and for a rank that is not below size.
        """
        columns = columns_of(self.streams, rank, size)
        part = copy.copy(self)  # a copy begins with a new pass
        part._x, part._y, part.streams = self._x[:, columns], self._y[:, columns], columns.stop - columns.start
        return part

    def _order(self, generator: np.random.Generator | None) -> None:
        return None

    def _batch(self, order: None, k: int) -> tuple[Array, Array]:
        return self._part(self._x, k), self._part(self._y, k)

    def _part(self, array: Array, k: int) -> Array:
        """A copy of window number k: writing to a batch does not change the series."""
        part = array[k * self.window : (k + 1) * self.window]
        with backend_of(array):
            return (part.swapaxes(0, 1) if self.batch_first else part).copy(order="C")

    def extra_repr(self) -> str:
        options = [f"{self._steps} steps, streams={self.streams}, window={self.window}"]
        usual: dict[str, Any] = {"ahead": 1, "drop_last": False, "batch_first": False}
        options += [f"{name}={getattr(self, name)}" for name, value in usual.items() if getattr(self, name) != value]
        return ", ".join(options)


def stream_sizes(steps: int, streams: int, window: int, ahead: int, filled: bool, drop_last: bool) -> tuple[int, int]:
    """(pairs per stream, batches per pass) of a series cut into streams.

    ``filled`` says whether the end is padded or cut off. Raises ShapeError for a series that is too short.
    """
    pairs = steps - ahead
    if pairs < 1:
        raise ShapeError(f"series: expected at least {ahead + 1} steps, got {steps}")
    if pairs < streams:
        raise ShapeError(f"series: expected at least {streams + ahead} steps for {streams} streams, got {steps}")
    length = -(-pairs // streams) if filled else pairs // streams
    batches = length // window if drop_last else -(-length // window)
    if batches == 0:
        least = window * streams + ahead
        raise ShapeError(f"series: expected at least {least} steps for one window with drop_last, got {steps}")
    return length, batches


def columns_of(streams: int, rank: int, size: int) -> slice:
    """The columns of a batch that process ``rank`` of ``size`` takes; raises ShapeError for none."""
    size = checks.integer("size", size, 1, streams + 1, f"from 1 to {streams} processes, the number of streams")
    rank = checks.integer("rank", rank, 0, size)
    return slice(streams * rank // size, streams * (rank + 1) // size)


def _series(series: Any, targets: Any) -> tuple[Array, Array]:
    """The series and its targets, by default the series itself; they must have one length and one device."""
    x = as_array("series", series)
    y = x if targets is None else as_array("targets", targets)
    for name, array in (("series", x), ("targets", y)):
        if array.ndim == 0:
            raise ShapeError(f"{name}: expected (N, ...) with N steps, got ()")
    if (got := backend_of(y).name) != (want := backend_of(x).name):
        raise DeviceError(
            f"targets: expected {want}, the device of series, got {got}; use gl.tensor(targets, device={want!r})"
        )
    if len(y) != len(x):
        raise ShapeError(f"targets: expected {len(x)} steps, as many as the series, got {len(y)}")
    return x, y


def _side_by_side(x: Array, streams: int, fill: Any) -> Array:
    """x (n, ...) as a contiguous array (n / streams, streams, ...): column b is piece b."""
    backend = backend_of(x)
    xp = backend.xp
    with backend:
        if fill is None:
            x = x[: len(x) // streams * streams]
        elif missing := -len(x) % streams:
            x = xp.concatenate([x, xp.full((missing, *x.shape[1:]), fill, x.dtype)])
        return xp.ascontiguousarray(xp.swapaxes(x.reshape(streams, -1, *x.shape[1:]), 0, 1))

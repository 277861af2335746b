"""Streams of a series that is too large for memory: each batch reads only its own steps."""

import copy
from typing import Any, Self

from gpulstm import checks
from gpulstm.backend import Array, backend_of
from gpulstm.data.arguments import as_array, held
from gpulstm.data.passes import Passes
from gpulstm.data.series import columns_of, stream_sizes
from gpulstm.errors import DTypeError, ShapeError


class LazyStreams(Passes):
    """Gives the batches of ``Streams`` from a series that is read as needed, for instance from disk.

    ``series`` (N, ...) has a length, and slices ``series[start:stop]`` that are arrays (stop - start, ...): a
    numpy.memmap, a data set of h5py or zarr, an array in memory. A batch reads one slice of window + ahead steps per
    stream and keeps nothing. The other arguments are those of ``Streams``; y always comes from the series itself.

    Raises DTypeError for a series without a length and slices, and the errors of ``Streams``; while reading, ShapeError
    for a slice that is shorter than the series' length promised.

    >>> for x, y in gl.data.LazyStreams(np.arange(9), streams=2, window=4):
    ...     print(x.shape, y.shape)
    (4, 2) (4, 2)
    """

    def __init__(
        self,
        series: Any,
        streams: int,
        window: int,
        *,
        ahead: int = 1,
        fill: float | None = None,
        drop_last: bool = False,
        batch_first: bool = False,
    ) -> None:
        self.streams, self.window = checks.count("streams", streams, 1), checks.count("window", window, 1)
        self.ahead, self.drop_last = checks.count("ahead", ahead), checks.flag("drop_last", drop_last)
        self.batch_first = checks.flag("batch_first", batch_first)
        self._series = _sliceable(series)
        self._steps, first = len(self._series), as_array("series", self._series[:1])
        filled = fill is not None
        sizes = (self._steps, self.streams, self.window, self.ahead, filled, self.drop_last)
        self._length, batches = stream_sizes(*sizes)
        self._fill = held("fill", fill, first.dtype, of="series") if filled else None
        self._columns = range(self.streams)
        super().__init__(batches)

    def share(self, rank: int, size: int) -> Self:
        """Return a data set that reads only the part of process ``rank`` of ``size``; see ``Streams.share``."""
        part = copy.copy(self)  # a copy begins with a new pass
        part._columns = self._columns[columns_of(self.streams, rank, size)]
        part.streams = len(part._columns)
        return part

    def _order(self, generator: Any) -> None:
        return None

    def _batch(self, order: None, k: int) -> tuple[Array, Array]:
        start = k * self.window
        length = min(self.window, self._length - start)
        pairs = [self._pairs(column * self._length + start, length) for column in self._columns]
        return self._side_by_side([x for x, _ in pairs]), self._side_by_side([y for _, y in pairs])

    def _pairs(self, start: int, length: int) -> tuple[Array, Array]:
        """x and y (length, ...) from step ``start``, padded beyond the end of the series."""
        real = max(0, min(length, self._steps - self.ahead - start))
        stop = start + real + self.ahead if real else start
        steps = as_array("series", self._series[start:stop])
        if len(steps) != stop - start:
            raise ShapeError(f"series: expected {stop - start} steps in series[{start}:{stop}], got {len(steps)}")
        x, y = steps[:real], steps[len(steps) - real :]
        if real == length:
            return x, y
        backend = backend_of(steps)
        shape = (length - real, *steps.shape[1:])
        with backend:
            rest = [backend.xp.full(shape, value, steps.dtype) for value in (0, self._fill)]
            return backend.xp.concatenate([x, rest[0]]), backend.xp.concatenate([y, rest[1]])

    def _side_by_side(self, columns: list[Array]) -> Array:
        """Stack the columns (T, ...) to (T, B, ...), or to (B, T, ...), as a copy."""
        backend = backend_of(columns[0])
        with backend:
            return backend.xp.ascontiguousarray(backend.xp.stack(columns, axis=0 if self.batch_first else 1))

    def extra_repr(self) -> str:
        options = [f"{self._steps} steps, streams={self.streams}, window={self.window}"]
        usual: dict[str, Any] = {"ahead": 1, "drop_last": False, "batch_first": False}
        options += [f"{name}={getattr(self, name)}" for name, value in usual.items() if getattr(self, name) != value]
        return ", ".join(options)


def _sliceable(series: Any) -> Any:
    """The series, a list as an array; raises DTypeError for an object without length and slices."""
    if isinstance(series, list | tuple):
        series = as_array("series", series)
    if isinstance(series, str | bytes | dict) or not hasattr(series, "__len__") or not hasattr(series, "__getitem__"):
        raise DTypeError(
            f"series: expected an object with len() and slices, e.g. np.memmap, got {type(series).__name__}"
        )
    if getattr(series, "shape", (1,)) == ():
        raise ShapeError("series: expected (N, ...) with N steps, got ()")
    return series

"""Batches of examples: rows of arrays, and padded sequences of different lengths."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpulstm import checks
from gpulstm.backend import Array, backend_of
from gpulstm.data.arguments import as_array
from gpulstm.data.padding import Ragged
from gpulstm.data.passes import Passes
from gpulstm.errors import DTypeError, ShapeError


class Batches(Passes):
    """Splits examples into batches, each example once per pass, padding sequences to one length.

    A column holds N examples: it is an array (N, ...) or a list of N sequences (T_n, ...). A batch holds rows (B, ...)
    of an array. Of a list it holds the pair (padded, lengths) of ``pad_sequences``: padded is (T, B, ...), or
    (B, T, ...) with ``batch_first``, and lengths is (B,). The batch is a tuple with one entry per column; with a single
    column it is that entry itself. The last batch may be smaller; ``drop_last`` skips it. With a ``generator`` every
    pass has a new random order.

    If no column is a list of sequences, ``batch_first`` is True: the rows (B, T, D) of an array (N, T, D) fit
    ``gl.LSTM(D, H, batch_first=True)``.

    ``value`` is the number that pads the sequences: one for all columns, or a list with one per column (None for an
    array), e.g. ``value=[0, -100]`` for ids and the targets of ``cross_entropy``. Every batch of a column has the same
    element type.

    Raises ShapeError for columns with different numbers of examples, for sequences that differ in more than their
    length, for ``batch_first=False`` without sequences and for a batch_size below 1; DTypeError for anything but
    numbers and for a ``value`` that a column's element type cannot hold.

    >>> sentences, classes = [[5, 3, 8], [2]], np.array([0, 1])
    >>> for (ids, lengths), labels in gl.data.Batches(sentences, classes, batch_size=2):
    ...     print(ids.shape, lengths, labels)  # ids (T, B)
    (3, 2) [3 1] [0 1]
    """

    def __init__(
        self,
        *columns: Any,
        batch_size: int,
        generator: np.random.Generator | None = None,
        drop_last: bool = False,
        value: float | Sequence[float | None] = 0,
        batch_first: bool | None = None,
    ) -> None:
        self.batch_size = checks.count("batch_size", batch_size, 1)
        self.drop_last = checks.flag("drop_last", drop_last)
        values = list(value) if isinstance(value, list | tuple) else None
        if values is not None and len(values) != len(columns):
            raise ShapeError(f"value: expected one number, or {len(columns)}, one per column, got {len(values)}")
        self._columns = [
            _column(f"columns[{k}]", column, value if values is None else values[k]) for k, column in enumerate(columns)
        ]
        _check_used(self._columns, value, values)
        sequences = any(isinstance(column, Ragged) for column in self._columns)
        self.batch_first = not sequences if batch_first is None else checks.flag("batch_first", batch_first)
        if not sequences and not self.batch_first:
            want = "expected True or None, as a batch holds rows (B, ...) of arrays"
            raise ShapeError(f"batch_first: {want}, got False; give sequences as a list, e.g. list(x)")
        sizes = [len(column) for column in self._columns]
        if not columns or len(set(sizes)) != 1:
            raise ShapeError(f"columns: expected at least one, and all of the same length, got lengths {sizes}")
        self._examples = sizes[0]
        super().__init__((sizes[0] + (0 if drop_last else self.batch_size - 1)) // self.batch_size, generator)

    @property
    def batch_axes(self) -> Any:
        """See Passes; rows of an array have the examples first."""
        axes = [int(isinstance(column, Ragged) and not self.batch_first) for column in self._columns]
        return axes[0] if len(axes) == 1 else axes

    def _order(self, generator: np.random.Generator | None) -> np.ndarray:
        return np.arange(self._examples) if generator is None else generator.permutation(self._examples)

    def _batch(self, order: np.ndarray, k: int) -> Any:
        numbers = order[k * self.batch_size : (k + 1) * self.batch_size]
        batch = tuple(
            column.padded(numbers.tolist(), self.batch_first) if isinstance(column, Ragged) else rows(column, numbers)
            for column in self._columns
        )
        return batch[0] if len(batch) == 1 else batch

    def extra_repr(self) -> str:
        columns = f"{len(self._columns)} column" + ("" if len(self._columns) == 1 else "s")
        last = ", drop_last=True" if self.drop_last else ""
        first = f", batch_first={self.batch_first}" if self.batch_first else ""
        return f"{self._examples} examples, {columns}, batch_size={self.batch_size}{last}{first}"


def rows(array: Array, numbers: np.ndarray) -> Array:
    """A copy of the rows of an array with these indices; ``numbers`` may have any shape."""
    backend = backend_of(array)
    with backend:
        return array[backend.asarray(numbers)]


def _column(name: str, column: Any, value: Any) -> Array | Ragged:
    """A list (or object array) of sequences as Ragged; anything else, also a list of numbers, as an array."""
    objects = isinstance(column, np.ndarray) and column.dtype == object and column.ndim == 1
    if objects or isinstance(column, list | tuple):
        if any(map(_is_sequence, column)):
            return Ragged(name, column, value)
        column = list(column)
    elif not hasattr(column, "__len__"):
        raise DTypeError(f"{name}: expected an array or a list of sequences, got {type(column).__name__}")
    array = as_array(name, column)
    if array.ndim == 0:
        raise ShapeError(f"{name}: expected (N, ...) with N examples, got ()")
    return array


def _is_sequence(item: Any) -> bool:
    has_steps = hasattr(item, "__len__") and not isinstance(item, str | bytes)
    return getattr(item, "ndim", 1 if has_steps else 0) > 0


def _check_used(columns: list, value: Any, values: list | None) -> None:
    """Raises ShapeError for a value that pads nothing."""
    if values is None and value != 0 and not any(isinstance(column, Ragged) for column in columns):
        raise ShapeError(f"value: expected 0, as there is no column of sequences to pad, got {value!r}")
    for k, (column, of_column) in enumerate(zip(columns, values or [], strict=False)):
        if of_column is not None and not isinstance(column, Ragged):
            raise ShapeError(
                f"value[{k}]: expected None, as columns[{k}] is an array and is not padded, got {of_column!r}"
            )

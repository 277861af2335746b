"""Rows of numbers, one per batch (item count, loss, metrics), and their weighted means."""

import math
from typing import Any

import numpy as np

from gpulstm.backend import backend_of

Row = list[Any]  # [count, loss, *metrics]: numbers, or arrays of one number that may lie on a device


def to_host(rows: list[Row]) -> list[list[float]]:
    """The rows as Python numbers; values on a device are copied all at once, one copy per element type."""
    arrays: dict[Any, list[Any]] = {}
    for value in (value for row in rows for value in row if _on_device(value)):
        arrays.setdefault(value.dtype, []).append(value.reshape(()))
    copies = {dtype: iter(_copied(alike)) for dtype, alike in arrays.items()}
    return [[next(copies[value.dtype]) if _on_device(value) else _number(value) for value in row] for row in rows]


def _copied(arrays: list[Any]) -> list[float]:
    with (backend := backend_of(*arrays)):
        return backend.to_numpy(backend.xp.stack(arrays)).astype(np.float64).tolist()


def means(rows: list[list[float]]) -> list[float]:
    """The mean of each column after the first, weighted by the counts in the first; NaN if all counts are 0."""
    table = np.array(rows, np.float64)
    counts = table[:, 0]
    if not counts.any():
        return [math.nan] * (table.shape[1] - 1)
    counted = counts > 0  # the loss of a batch without items is NaN and must not enter the mean
    return (counts[counted] / counts.sum() @ table[counted, 1:]).tolist()


def _on_device(value: Any) -> bool:
    return hasattr(value, "reshape") and not isinstance(value, np.ndarray | np.generic)


def _number(value: Any) -> float:
    return float(value.item() if hasattr(value, "item") else value)

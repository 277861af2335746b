"""The columns of a forecaster's data: the series to forecast, and the covariates, known in advance or not."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from gpulstm import checks
from gpulstm.errors import DTypeError, ShapeError
from gpulstm.labs.inputs import numbers_2d


def spread_of(table: np.ndarray) -> np.ndarray:
    """Return the standard deviation of each column, or 1 for a column that is constant up to rounding."""
    spread, size = table.std(axis=0), np.abs(table).max(axis=0)
    return np.where(spread > 1e-12 * size, spread, 1.0)


def split(X: Any, y: Any) -> tuple[np.ndarray | None, np.ndarray]:
    """Return (covariates (N, D) or None, series (N, K)).

    The arguments are those of ``fit``: ``(y, None)`` for a series alone, else ``(X, y)``. Raises ShapeError and
    DTypeError.
    """
    if y is None:
        return None, numbers_2d("y", X, one_axis=True)
    series = numbers_2d("y", y, one_axis=True)
    if X is None:
        return None, series
    covariates = numbers_2d("X", X)
    if len(covariates) != len(series):
        raise ShapeError(f"X: expected {len(series)} rows, as y has, got {len(covariates)}")
    return covariates, series


@dataclass(frozen=True)
class Layout:
    """A row of the table (N, K + D) holds K ``targets``, then D ``covariates``; ``known`` are known in advance."""

    targets: int
    covariates: int  # D; 0 without any
    known: list[int]
    flat: bool  # whether the series has the shape (N,); forecasts then have it too
    names: list[str] | None  # of the covariates, if they have names

    @classmethod
    def of(cls, X: Any, y: Any, known: Any) -> tuple[Self, np.ndarray]:
        """Return the layout and the table of the training data. Raises ShapeError and DTypeError."""
        covariates, series = split(X, y)
        D = 0 if covariates is None else covariates.shape[1]
        columns = _known(known, D, getattr(X, "columns", None))
        flat = np.asarray(X if y is None else y).ndim == 1
        layout = cls(series.shape[1], D, columns, flat, None if y is None else _names_of(X))
        return layout, layout.table(X, y)

    @property
    def columns(self) -> int:
        """The number of columns, K + D."""
        return self.targets + self.covariates

    def table(self, X: Any, y: Any) -> np.ndarray:
        """Return the table (N, K + D) of new data. Raises ShapeError for other columns than in fit."""
        covariates, series = split(X, y)
        if series.shape[1] != self.targets:
            raise ShapeError(f"y: expected {self.targets} series, as in fit, got {series.shape[1]}")
        if covariates is None and self.covariates:
            raise ShapeError(f"X: expected {self.covariates} covariates, as in fit, got None")
        if covariates is None:
            return series
        self._check_covariates(covariates, X)
        return np.concatenate([series, covariates], axis=1)

    def future(self, X: Any, steps: int | None, usual: int) -> np.ndarray:
        """Return the rows (n, K + D) to forecast; everything but the covariates is 0.

        n is the number of rows of X if given, else ``steps``, else ``usual``. Raises ShapeError.
        """
        if X is None:
            if self.known:
                raise ShapeError(
                    f"X: expected the covariates of the rows to forecast, (steps, {self.covariates}), because "
                    f"{len(self.known)} of them are known in advance, got None"
                )
            return np.zeros((steps or usual, self.columns))
        rows = numbers_2d("X", X)
        if not self.covariates:
            raise ShapeError(
                f"X: expected None, as in fit, which had no covariates, got {rows.shape}; give steps={len(rows)}"
            )
        self._check_covariates(rows, X)
        if steps is not None and steps != len(rows):
            raise ShapeError(f"steps: expected {len(rows)}, the number of rows of X, or None, got {steps}")
        return np.concatenate([np.zeros((len(rows), self.targets)), rows], axis=1)

    def shaped(self, values: np.ndarray) -> np.ndarray:
        """Return forecasts (n, K) in the shape of the series: (n,) if it was (N,)."""
        return values[:, 0] if self.flat else values

    def to_json(self) -> dict[str, Any]:
        """Return the layout as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """Restore a layout from the value of ``to_json``. Raises ShapeError, KeyError or TypeError for other values."""
        K, D = checks.count("targets", values["targets"], 1), checks.count("covariates", values["covariates"])
        known = [checks.integer("known", column, 0, D) for column in values["known"]]
        names = values["names"]
        if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise ShapeError(f"names: expected a list of strings or null, got {names!r:.60}")
        return cls(K, D, known, checks.flag("flat", values["flat"]), names)

    def _check_covariates(self, covariates: np.ndarray, X: Any) -> None:
        names = _names_of(X)
        if self.names is not None and names is not None and names != self.names:
            raise ShapeError(
                f"X: The feature names should match those that were passed during fit: expected {self.names}, "
                f"got {names}"
            )
        if covariates.shape[1] != self.covariates:
            raise ShapeError(
                f"X has {covariates.shape[1]} features, but Forecaster is expecting {self.covariates} features as input"
            )


def _names_of(X: Any) -> list[str] | None:
    """Return the column names of a data frame, None for other data."""
    columns = getattr(X, "columns", None)
    return None if columns is None else [str(name) for name in columns]


def _known(known: Any, D: int, names: Any) -> list[int]:
    """Return the numbers of the columns known in advance; None means all columns."""
    if known is None:
        return list(range(D))
    if isinstance(known, str) or not isinstance(known, Sequence | np.ndarray):
        raise DTypeError(f"known: expected a list of columns of X, or None, got {known!r}")
    numbers = []
    for column in known:
        if isinstance(column, str):
            given = [] if names is None else [str(name) for name in names]
            if column not in given:
                raise ShapeError(f"known: expected one of the columns of X, {given}, got {column!r}")
            column = given.index(column)
        numbers.append(checks.integer("known", column, 0, D, f"a column of X, 0 <= column < {D}"))
    return numbers

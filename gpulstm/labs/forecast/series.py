"""Choose the columns of a table to forecast, the covariates, and the rows of the test part."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpulstm import checks
from gpulstm.errors import FormatError, ShapeError
from gpulstm.labs.forecast.table import Table, number_of


@dataclass(frozen=True)
class Series:
    """The columns to forecast, and the covariates; those known in advance come first."""

    table: Table
    names: list[str]  # of the columns to forecast
    known: list[str]  # names of the covariates known in advance
    past: list[str]  # names of the other covariates
    values: np.ndarray  # (N, K)
    covariates: np.ndarray | None  # (N, D)

    @classmethod
    def of(
        cls, table: Table, target: Sequence[str], known: Sequence[str], past: Sequence[str], returns: bool = False
    ) -> "Series":
        """Choose columns by name or position; without ``target``, forecast every column that is not a covariate.

        With ``returns`` a target is its relative change from the row before, so there is one row less. Raises
        FormatError for unknown columns, for columns named twice, and for returns of values that are not above 0.
        """
        covariates = [number_of(table.names, c, "known") for c in known]
        covariates += [number_of(table.names, c, "past") for c in past]
        targets = [number_of(table.names, column, "target") for column in target]
        targets = targets or [k for k in range(len(table.names)) if k not in covariates]
        chosen = [table.names[k] for k in (*targets, *covariates)]
        if doubled := sorted({name for name in chosen if chosen.count(name) > 1}):
            raise FormatError(
                f"target, known, past: expected different columns, got {', '.join(doubled)} more than once"
            )
        if not targets:
            raise FormatError("target: expected a column to forecast, got only covariates")
        values, rows = table.values[:, targets], table
        if returns:
            if len(table) < 2 or not (values > 0).all():
                row = int(np.argmin((values > 0).all(axis=1)))
                raise FormatError(
                    f"returns: expected at least 2 values, all above 0, got {values[row].tolist()} in row {row + 1}"
                )
            values, rows = values[1:] / values[:-1] - 1, table.rows(1, len(table))
        X = rows.values[:, covariates] if covariates else None
        return cls(rows, [table.names[k] for k in targets], list(known), list(past), values, X)

    def __len__(self) -> int:
        return len(self.values)

    def part(self, start: int, stop: int) -> tuple[np.ndarray | None, np.ndarray]:
        """Return (covariates, values) of these rows."""
        return None if self.covariates is None else self.covariates[start:stop], self.values[start:stop]


def test_rows(test: float, rows: int, horizon: int) -> int:
    """Return the number of rows in the test part.

    ``test`` is a share of all rows (below 1) or a number of rows. Raises ShapeError for fewer rows than a horizon.
    """
    count = round(test * rows) if test < 1 else test
    whole = checks.number("test", test) and float(count).is_integer()
    if not whole or not horizon <= count < rows:
        raise ShapeError(
            f"test: expected a share, or a number of rows from {horizon} (the horizon) to {rows - 1}, got {test:g}"
        )
    return int(count)

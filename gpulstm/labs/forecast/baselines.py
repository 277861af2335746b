"""What a forecast must beat: the last value, the value a season ago, and a ridge regression; and the measures."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gpulstm.labs.forecast.estimator import Forecasts
from gpulstm.labs.forecast.layout import spread_of

PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0)  # of the ridge regression, chosen by validation


@dataclass(frozen=True)
class Measures:
    """How far forecasts are from what came: means over origins, steps and series."""

    mae: float  # mean absolute error, in the units of the data
    mse: float  # mean squared error
    scaled_mse: float  # the same, of series standardised by the training part
    mase: (
        float  # mean absolute error beside that of the naive forecast within the training part (Hyndman & Koehler 2006)
    )
    smape: float  # per cent, from 0 to 200

    @classmethod
    def of(cls, predicted: np.ndarray, truth: np.ndarray, training: np.ndarray, season: int) -> "Measures":
        """predicted and truth (n, steps, K), training (N, K); MASE is beside the value ``season`` rows ago."""
        error = predicted - truth
        naive = np.abs(training[season:] - training[:-season]).mean(axis=0) if len(training) > season else np.nan
        spread = spread_of(training)
        size = np.abs(predicted) + np.abs(truth)
        with np.errstate(divide="ignore", invalid="ignore"):
            return cls(
                float(np.abs(error).mean()),
                float((error**2).mean()),
                float(((error / spread) ** 2).mean()),
                _mean(np.abs(error) / np.where(naive > 0, naive, np.nan)),
                float(np.where(size > 0, 200 * np.abs(error) / size, 0).mean()),
            )


def _mean(values: np.ndarray) -> float:
    """The mean of what there is: a series that never changes in training has no naive error to stand beside."""
    found = values[~np.isnan(values)]
    return float(found.mean()) if found.size else float("nan")


def coverages(forecasts: Forecasts) -> dict[float, float]:
    """The share of the values that came which lie in each interval."""
    return {
        coverage: float(((low <= forecasts.truth) & (forecasts.truth <= high)).mean())
        for coverage, (low, high) in forecasts.intervals.items()
    }


def last_value(series: np.ndarray, origins: np.ndarray, steps: int) -> np.ndarray:
    """The naive forecast (n, steps, K): the last value again and again; series (N, K)."""
    return np.repeat(series[origins - 1][:, None], steps, axis=1)


def seasonal(series: np.ndarray, origins: np.ndarray, steps: int, season: int) -> np.ndarray:
    """The seasonal naive forecast (n, steps, K): the value of the last season at the same place."""
    back = season - np.arange(steps) % season  # rows before the origin
    return series[origins[:, None] - back]


class Ridge:
    """A linear forecast of each series from its own window, of differences from the last value.

    Fitted on the rows before ``cut`` by least squares with a penalty on the weights (Hoerl & Kennard 1970), the penalty
    chosen by the rows from ``cut`` to ``end``.
    """

    def __init__(self, series: np.ndarray, window: int, steps: int, cut: int, end: int) -> None:
        self.window, self.steps = window, steps
        self._weights = [self._fit(column, cut, end) for column in (series / spread_of(series[:cut])).T]

    def __call__(self, series: np.ndarray, origins: np.ndarray) -> np.ndarray:
        """The forecast (n, steps, K) from these origins; series (N, K)."""
        parts = []
        for column, weights in zip(series.T, self._weights, strict=True):
            x, last = self._past(column, origins)
            parts.append(x @ weights + last)
        return np.stack(parts, axis=2)

    def _past(self, column: np.ndarray, origins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        past = column[origins[:, None] + np.arange(-self.window, 0)]
        last = past[:, -1:]
        return np.concatenate([past[:, :-1] - last, np.ones_like(last)], axis=1), last

    def _fit(self, column: np.ndarray, cut: int, end: int) -> np.ndarray:
        """The weights (window, steps), the last row the constant."""
        (x, y), (vx, vy) = (self._pairs(column, *part) for part in ((self.window, cut), (max(cut, self.window), end)))
        gram, right = x.T @ x, x.T @ y
        scale = np.diag(gram)[:-1].mean() / max(1, len(x)) or 1.0
        penalty = np.diag([1.0] * (self.window - 1) + [0.0]) * scale + 1e-12 * np.eye(self.window)
        choices = [np.linalg.lstsq(gram + a * penalty, right, rcond=None)[0] for a in PENALTIES]
        if len(vx) == 0:
            return choices[len(choices) // 2]
        return min(choices, key=lambda weights: float(((vx @ weights - vy) ** 2).mean()))

    def _pairs(self, column: np.ndarray, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        origins = np.arange(start, end - self.steps + 1)
        x, last = self._past(column, origins)
        return x, column[origins[:, None] + np.arange(self.steps)] - last


def table_lines(rows: Mapping[str, Measures], unit: str = "") -> list[str]:
    """The measures of several forecasts as lines of text."""
    width = max(map(len, rows))
    lines = [f"{'':{width}}  {'MAE':>9}  {'MSE':>9}  {'MSE/var':>8}  {'MASE':>6}  {'sMAPE':>6}"]
    for name, m in rows.items():
        lines.append(
            f"{name:{width}}  {m.mae:9.4g}  {m.mse:9.4g}  {m.scaled_mse:8.4f}  {_shown(m.mase)}  {m.smape:5.1f}%"
        )
    return lines


def _shown(mase: float) -> str:
    """MASE, or a dash where the training part never changes or is shorter than a season."""
    return f"{mase:6.3f}" if mase == mase else f"{'-':>6}"

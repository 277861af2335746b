"""Baseline forecasts (last value, value a season ago, ridge regression) and error measures."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gpulstm.labs.forecast.estimator import Forecasts
from gpulstm.labs.forecast.layout import spread_of

PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0)  # of the ridge regression; validation chooses one


@dataclass(frozen=True)
class Measures:
    """Forecast errors: means over origins, steps and series."""

    mae: float  # mean absolute error, in the units of the data
    mse: float  # mean squared error
    scaled_mse: float  # mean squared error of the series standardised by the training part
    mase: (
        float  # mean absolute error divided by that of the naive forecast in the training part (Hyndman & Koehler 2006)
    )
    smape: float  # per cent, from 0 to 200

    @classmethod
    def of(cls, predicted: np.ndarray, truth: np.ndarray, training: np.ndarray, season: int) -> "Measures":
        """Measure predicted against truth, both (n, steps, K), with training (N, K).

        The naive forecast of MASE is the value ``season`` rows ago.
        """
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
    """Return the mean of the values that are not NaN; NaN marks a series that is constant in training."""
    found = values[~np.isnan(values)]
    return float(found.mean()) if found.size else float("nan")


def coverages(forecasts: Forecasts) -> dict[float, float]:
    """Return the share of the true values that lie in each interval."""
    return {
        coverage: float(((low <= forecasts.truth) & (forecasts.truth <= high)).mean())
        for coverage, (low, high) in forecasts.intervals.items()
    }


def last_value(series: np.ndarray, origins: np.ndarray, steps: int) -> np.ndarray:
    """Return the naive forecast (n, steps, K), which repeats the last value; series (N, K)."""
    return np.repeat(series[origins - 1][:, None], steps, axis=1)


def seasonal(series: np.ndarray, origins: np.ndarray, steps: int, season: int) -> np.ndarray:
    """Return the seasonal naive forecast (n, steps, K), which repeats the last season; series (N, K)."""
    back = season - np.arange(steps) % season  # rows before the origin
    return series[origins[:, None] - back]


class Ridge:
    """A linear forecast of each series from its own window; it predicts differences from the last value.

    It is fitted to the rows before ``cut`` by least squares with a penalty on the weights (Hoerl & Kennard 1970). The
    rows from ``cut`` to ``end`` choose the penalty.
    """

    def __init__(self, series: np.ndarray, window: int, steps: int, cut: int, end: int) -> None:
        self.window, self.steps = window, steps
        self._weights = [self._fit(column, cut, end) for column in (series / spread_of(series[:cut])).T]

    def __call__(self, series: np.ndarray, origins: np.ndarray) -> np.ndarray:
        """Return the forecast (n, steps, K) from these origins; series (N, K)."""
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
        """Return the weights (window, steps); the last row is the bias."""
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
    """Return a table of the measures of several forecasts, as lines of text."""
    width = max(map(len, rows))
    lines = [f"{'':{width}}  {'MAE':>9}  {'MSE':>9}  {'MSE/var':>8}  {'MASE':>6}  {'sMAPE':>6}"]
    for name, m in rows.items():
        lines.append(
            f"{name:{width}}  {m.mae:9.4g}  {m.mse:9.4g}  {m.scaled_mse:8.4f}  {_shown(m.mase)}  {m.smape:5.1f}%"
        )
    return lines


def _shown(mase: float) -> str:
    """Return MASE as text, or a dash if the training part is constant or shorter than a season."""
    return f"{mase:6.3f}" if mase == mase else f"{'-':>6}"

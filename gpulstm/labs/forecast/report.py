"""Test a forecaster: rolling forecasts of the test part, compared with baselines, as text and as a picture."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm import plot
from gpulstm.labs.forecast.baselines import Measures, Ridge, coverages, last_value, seasonal, table_lines
from gpulstm.labs.forecast.estimator import Forecaster, Forecasts
from gpulstm.labs.forecast.series import Series
from gpulstm.labs.forecast.times import Time, shown

MINE = "LSTM"
LINEAR_ROWS = 336  # the maximum number of past rows that the linear forecast reads


@dataclass(frozen=True)
class Report:
    """The forecasts of the test part, and their errors beside those of the baselines."""

    forecasts: Forecasts
    rows: dict[str, Measures]  # by the name of the forecast; the first is the forecaster
    returns: bool

    @classmethod
    def of(
        cls, forecaster: Forecaster, series: Series, start: int, steps: int, season: int | None, returns: bool
    ) -> "Report":
        """Forecast ``steps`` rows from every row of the test part, which starts at row ``start``."""
        X, y = series.part(0, len(series))
        forecasts = forecaster.backtest(X, y, start=start, steps=steps)
        origins, truth = forecasts.origins, forecasts.truth
        cut = start - round(forecaster.validation_fraction * start)
        predictions = {MINE: forecasts.predicted}
        if returns:
            predictions["random walk (no change)"] = np.zeros_like(truth)
        else:
            predictions["last value"] = last_value(y, origins, steps)
        if season is not None and season <= start:
            predictions[f"value {season} rows ago"] = seasonal(y, origins, steps, season)
        window = min(LINEAR_ROWS, forecaster.window_, (cut - steps) // 2)
        if window > 1:
            predictions[f"linear on {window} rows"] = Ridge(y, window, steps, cut, start)(y, origins)
        rows = {name: Measures.of(p, truth, y[:cut], season or 1) for name, p in predictions.items()}
        return cls(forecasts, rows, returns)

    def lines(self) -> list[str]:
        """Return the lines of the report."""
        n, steps, _ = self.forecasts.truth.shape
        lines = [f"test: {n:,} forecasts of {steps} step{'s'[: steps > 1]}, from every possible row of the test part"]
        lines += table_lines(self.rows)
        for coverage, share in coverages(self.forecasts).items():
            lines.append(f"{coverage:.0%} interval: contains {share:.1%} of the true values")
        mine, *others = self.rows.items()
        better = [name for name, measures in others if measures.mae <= mine[1].mae]
        if self.returns and others[0][0] in better:
            lines.append(
                "the LSTM does not beat the random walk: predicting no change is at least as good; do not trade on "
                "this forecast"
            )
        elif better:
            lines.append(f"in MAE the LSTM does not beat: {', '.join(better)}")
        else:
            lines.append("in MAE the LSTM beats every other forecast")
        return lines

    def picture(self, path: Path, series: Series) -> None:
        """Draw the first target over the test part, with successive forecasts; raises as plot.save does."""
        steps = self.forecasts.truth.shape[1]
        first = int(self.forecasts.origins[0])
        shown_rows = min(len(self.forecasts.origins) // steps + 1, max(1, 240 // steps))  # forecasts drawn
        chosen = np.arange(shown_rows) * steps
        chosen = chosen[chosen < len(self.forecasts.origins)]
        times = axis_of(series.table.row_times)
        before = max(0, first - max(steps, len(chosen) * steps // 2))
        end = first + len(chosen) * steps

        def joined(values: np.ndarray) -> np.ndarray:
            return values[chosen, :, 0].reshape(-1)

        bounds = {c: (joined(low), joined(high)) for c, (low, high) in self.forecasts.intervals.items()}

        def draw(axes: Any) -> None:
            observed = series.values[before:end, 0]
            plot.forecast(axes, times[before:end], observed, times[first:end], joined(self.forecasts.predicted), bounds)
            axes.set(ylabel=series.names[0], title=f"{steps} step{'s'[: steps > 1]} ahead, from every {steps}th row")

        plot.save(path, draw, size=(9, 4))


def axis_of(times: list[Time]) -> np.ndarray:
    """Return times as an axis of a picture: dates, integers if all times are whole, else floats."""
    if isinstance(times[-1], datetime):
        # matplotlib draws no dates after the year 9999: near it, use row numbers instead.
        return np.array(times, "datetime64[s]") if times[-1].year < 9900 else np.arange(len(times))
    numbers = np.array(times)
    return numbers.astype(np.int64) if (numbers == np.round(numbers)).all() else numbers


def csv_rows(forecaster: Forecaster, series_names: list[str], times: list[Time], X: Any) -> list[list[str]]:
    """Return the forecast of the next rows as CSV rows with a header: time, then each series with its intervals."""
    steps = len(times)
    mean = forecaster.predict(X, steps=steps).reshape(steps, -1)
    bounds = {c: forecaster.predict_interval(X, steps=steps, coverage=c) for c in sorted(forecaster.coverages)}
    header = ["time"]
    columns = []
    for k, name in enumerate(series_names):
        header.append(name)
        columns.append(mean[:, k])
        for coverage, pair in bounds.items():
            for side, values in zip(("low", "high"), pair, strict=True):
                header.append(f"{name} {side} {coverage:.0%}")
                columns.append(values.reshape(steps, -1)[:, k])
    return [header, *([shown(t), *(f"{column[n]:.8g}" for column in columns)] for n, t in enumerate(times))]

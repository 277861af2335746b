"""The forecasting lab on the hourly oil temperature of ETTh1, compared with simple forecasts and published results.

    python -m benchmarks.forecast --data ETTh1.csv      # half a minute on two cores
    python -m benchmarks.forecast --quick               # checks that it works, on sunspots; seconds

The protocol is that of Zhou et al. 2021 (Informer), univariate: 12 months to train, 4 to validate, 4 to test. The
series is standardized with the training data. The result is the mean squared error over all windows of the test data,
at horizons of 24 and 48 hours, as the mean of three seeds. There is one configuration, chosen on the validation data:
three weeks of hours in patches of a day, one LSTM with 32 units.

Writes forecast-etth1.json (a row for each seed and horizon) and .md to benchmarks/results/ or --out.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import facts, harness
from gpulstm import FormatError
from gpulstm.labs.forecast import Forecaster
from gpulstm.labs.forecast.baselines import Measures, Ridge, coverages, last_value, seasonal
from gpulstm.labs.forecast.command import SUNSPOTS
from gpulstm.labs.forecast.table import read_table

MONTH = 30 * 24  # hours
SEEDS = (0, 1, 2)
RECIPE = {
    "window": 21 * 24, "patch": 24, "hidden_size": 32, "dropout": 0.5, "noise": 0.1, "epochs": 8, "batch_size": 64,
    "learning_rate": 2e-3, "weight_decay": 1e-4, "validation_fraction": 0.25, "device": "cpu",
}  # fmt: skip
QUICK = {"window": 24, "hidden_size": 8, "epochs": 1, "validation_fraction": 0.25, "device": "cpu"}
PUBLISHED = {24: 0.114, 48: 0.193}  # an LSTM with attention, Zhou et al. 2021, table 1


def run(y: np.ndarray, cut: int, start: int, horizon: int, season: int, options: dict[str, Any], seed: int) -> dict:
    """Train with one seed and forecast the test part; a row of the results."""
    forecaster = Forecaster(**options, horizon=horizon, random_state=seed)
    began = time.perf_counter()
    forecaster.fit(y[:start])
    seconds = time.perf_counter() - began
    forecasts = forecaster.backtest(y, start=start, steps=horizon)
    measures = Measures.of(forecasts.predicted, forecasts.truth, y[:cut], season)
    losses = [record["val_loss"] for record in forecaster.history_ if record["val_loss"] is not None]
    within = {f"within_{coverage:g}": share for coverage, share in coverages(forecasts).items()}
    return {
        "who": "gpulstm", "horizon": horizon, "seed": seed, "mse": measures.scaled_mse,
        "windows": len(forecasts.origins), "val_loss": min(losses), "seconds": seconds, **within,
    }  # fmt: skip


def others(y: np.ndarray, cut: int, start: int, horizon: int, season: int, window: int) -> list[dict[str, Any]]:
    """The simple forecasts of the same windows."""
    origins = np.arange(start, len(y) - horizon + 1)
    truth = y[origins[:, None] + np.arange(horizon)]
    predictions = {
        "last value": last_value(y, origins, horizon),
        f"value {season} rows ago": seasonal(y, origins, horizon, season),
        f"ridge, {window} rows": Ridge(y, window, horizon, cut, start)(y, origins),
    }
    return [
        {"who": name, "horizon": horizon, "seed": None, "mse": Measures.of(p, truth, y[:cut], season).scaled_mse}
        for name, p in predictions.items()
    ]


def report(head: dict[str, Any], rows: list[dict[str, Any]], data: str) -> str:
    """The results as Markdown: the mean over the seeds, beside the others."""
    horizons = sorted({row["horizon"] for row in rows})
    lines = [f"# The forecasting lab on {data}\n", "Mean squared error of the standardised series, all test windows.\n"]
    shown = []
    for who in dict.fromkeys(row["who"] for row in rows):
        line = {"who": who}
        for horizon in horizons:
            values = [row["mse"] for row in rows if row["who"] == who and row["horizon"] == horizon]
            spread = f" ± {np.std(values):.4f}" if len(values) > 1 else ""
            line[f"h{horizon}"] = f"{np.mean(values):.4f}{spread}" if values else ""
        shown.append(line)
    columns = {"who": "forecast", **{f"h{h}": f"{h} steps" for h in horizons}}
    mine = [row for row in rows if row["who"] == "gpulstm"]
    pace = f"A run takes {np.mean([row['seconds'] for row in mine]):.1f} s. "
    pace += f"Within the 80 % interval: {np.mean([row['within_0.8'] for row in mine]):.1%} of the values.\n"
    return "\n".join([*lines, harness.table(shown, columns), pace, harness.origin(head)])


def main(given: Sequence[str]) -> int:
    head = facts.facts("benchmarks.forecast", given)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forecast", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the file ETTh1.csv; its column OT is forecast")
    parser.add_argument("--quick", action="store_true", help="sunspots, one epoch; writes nothing without --out")
    parser.add_argument("--out", type=Path, help="the folder for the results")
    options = parser.parse_args(given)
    if options.data is None and not options.quick:
        parser.error("--data: expected ETTh1.csv, or --quick")
    try:
        table = read_table(SUNSPOTS) if options.quick else read_table(options.data, columns=["OT"])
    except (FormatError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    if options.quick:
        y, cut, start, season, horizons, recipe, seeds = table.values, 150, 200, 11, (6,), QUICK, SEEDS[:2]
    else:
        y, cut, start, season = table.values[: 20 * MONTH], 12 * MONTH, 16 * MONTH, 24
        horizons, recipe, seeds = (24, 48), RECIPE, SEEDS
    rows: list[dict[str, Any]] = []
    for horizon in horizons:
        rows += [run(y, cut, start, horizon, season, recipe, seed) for seed in seeds]
        rows += others(y, cut, start, horizon, season, min(336, recipe["window"]))
        if not options.quick:
            rows.append({"who": "LSTM, Zhou et al. 2021", "horizon": horizon, "seed": None, "mse": PUBLISHED[horizon]})
    markdown = report(head, rows, "sunspots" if options.quick else "ETTh1, oil temperature alone")
    print("\n" + markdown)
    out = options.out or (None if options.quick else harness.RESULTS)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        harness.write_json(out / "forecast-etth1.json", {**head, "recipe": recipe, "rows": rows})
        harness.write(out / "forecast-etth1.md", markdown)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

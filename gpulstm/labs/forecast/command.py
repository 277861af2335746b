"""The commands of the forecasting lab: train, predict, info."""

import csv
import io
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from gpulstm import checks
from gpulstm.errors import FormatError, ShapeError
from gpulstm.labs import model_file
from gpulstm.labs.command import (
    DEVICE,
    ENCODING,
    FILE,
    describe,
    parameter_options,
    parameters,
    picture_option,
    run_of,
    run_options,
    training,
)  # fmt: skip
from gpulstm.labs.forecast.estimator import Forecaster
from gpulstm.labs.forecast.report import Report, csv_rows
from gpulstm.labs.forecast.series import Series, test_rows
from gpulstm.labs.forecast.table import Options, read_table
from gpulstm.labs.forecast.times import Clock, same, shown

SUNSPOTS = Path(__file__).with_name("sunspots.csv")  # yearly, 1700 to 2008; National Geophysical Data Center
STEPS = 1000  # without --epochs, a run has as many epochs as these steps need, and at least EPOCHS
EPOCHS = 8
USUAL = Forecaster(hidden_size=32, dropout=0.3, noise=0.05, random_state=0)
FILE_OPTIONS = {
    "date": "Column of the times, by name or position (from 1), or none.  [default: detected]",
    "date_format": "Format of the dates for strptime, e.g. %d.%m.%Y.  [default: ISO 8601, or numbers]",
    "delimiter": "Character between columns.  [default: detected in the first line]",
}


def _file_options(command: Callable) -> Callable:
    command = click.option("--gaps", is_flag=True, help="Allow missing times: use the rows one after the other.")(
        command
    )
    command = click.option("--fill", is_flag=True, help="Fill missing values and rows with previous values.")(command)
    command = ENCODING(command)
    for name, words in reversed(FILE_OPTIONS.items()):
        command = click.option(f"--{name.replace('_', '-')}", help=words)(command)
    return command


def _columns(name: str, words: str) -> Callable[[Callable], Callable]:
    return click.option(f"--{name}", multiple=True, metavar="COLUMN", help=words)


@click.group(name="forecast")
def forecast_lab() -> None:
    """Forecast time series, with prediction intervals."""


@forecast_lab.command()
@click.argument("file", required=False, metavar="[CSV]", type=click.Path(allow_dash=True))
@_columns(
    "target",
    "Column to forecast, by name or position (from 1); may be repeated.  [default: all columns but the "
    "date, --known and --past]",
)
@_columns("known", "Covariate whose future values are known; may be repeated.")
@_columns("past", "Covariate whose future values are unknown; may be repeated.")
@_file_options
@click.option("--rows", type=int, help="Read the first rows only.  [default: all]")
@click.option("--returns", is_flag=True, help="Forecast returns, i.e. relative changes from row to row (for prices).")
@click.option("--levels", is_flag=True, help="Predict the values instead of the changes from the last value.")
@click.option("--horizon", default=12, help="Steps to forecast.")
@click.option("--window", type=int, help="Rows that the model reads for a forecast.  [default: 24 + twice the horizon]")
@click.option("--recursive", is_flag=True, help="Forecast one step at a time and feed the forecasts back.")
@click.option("--patch", default=USUAL.patch, help="Rows that the LSTM reads as one step.")
@click.option("--noise", default=USUAL.noise, help="Noise on the window in training, in standard deviations.")
@click.option(
    "--coverage",
    multiple=True,
    type=float,
    default=USUAL.coverages,
    help="Coverage of a prediction interval; may be repeated.",
)
@click.option("--season", type=int, help="Length of a season in rows, for the seasonal forecast and MASE.")
@click.option("--validation", default=0.2, help="Fraction of the rows before the test rows, to choose the best epoch.")
@click.option("--test", default=0.2, help="Last rows, used for the test: a fraction or a number of rows.")
@parameter_options(replace(USUAL, epochs=None), epochs="  [default: enough for 1,000 steps]")  # type: ignore[arg-type]
@picture_option("the forecasts of the test rows")
@run_options(out="forecast.safetensors")
def train(
    file: str | None,
    target: tuple[str, ...],
    known: tuple[str, ...],
    past: tuple[str, ...],
    rows: int | None,
    returns: bool,
    levels: bool,
    horizon: int,
    recursive: bool,
    coverage: tuple[float, ...],
    season: int | None,
    validation: float,
    test: float,
    picture: str | None,
    out: str,
    **others: Any,
) -> None:
    """Train a forecaster on the series of a CSV file, by default the yearly sunspot numbers, and test it.

    The last rows are the test data. The command forecasts from each of them that leaves enough rows, and compares these
    forecasts with the true values. It also shows the errors of simpler forecasts: the last value, the value one season
    ago, and a linear regression.
    """
    options = _file_part(others)
    if file is None:  # the sunspot cycle is about 11 years long
        season, levels = season or 11, True
    if season is not None:
        checks.count("season", season, 1)
    series = _series(file or SUNSPOTS, options, target, known, past, returns, rows)
    about = {
        "target": series.names, "known": series.known, "past": series.past, "returns": returns, "season": season,
        "horizon": horizon, "file": asdict(options), "clock": Clock.of(series.table.row_times).to_json(),
    }  # fmt: skip
    run, others = run_of(out, picture, others, {"forecast": about}, files=() if file is None else (file,))
    start = len(series) - test_rows(test, len(series), checks.count("horizon", horizon, 1))
    epochs = others.pop("epochs")
    if recursive and past and horizon > 1:
        raise ShapeError("recursive: expected no --past, whose future values are unknown, got " + ", ".join(past))
    forecaster = Forecaster(
        **parameters(others),
        horizon=1 if recursive else horizon,
        epochs=epochs or 1,
        coverages=coverage,
        known=tuple(range(len(known))) if known or past else None,
        relative=not (returns or levels),
        validation_fraction=validation,
    )
    if epochs is None:
        windows = start - round(validation * start)
        forecaster.epochs = max(EPOCHS, -(-STEPS // max(1, windows // forecaster.batch_size)))
    run.say(
        f"series: {', '.join(series.names)}, {len(series):,} rows; {start:,} to train and validate on, the rest to test"
    )
    with training():
        forecaster.fit(*series.part(0, start), run=run)
    report = Report.of(forecaster, series, start, horizon, season, returns)
    for line in report.lines():
        run.say(line)
    forecaster.update(*series.part(0, len(series))).save(out)
    if run.files.picture is not None:
        report.picture(run.files.picture, series)
        run.say(f"picture: {run.files.picture}")
    run.say(f"model: {out}\nforecast with it: {shlex.join(['gpulstm', 'forecast', 'predict', out])}")


@forecast_lab.command()
@click.argument("model", type=FILE)
@click.argument("file", required=False, metavar="[CSV]", type=click.Path(allow_dash=True))
@click.option("--future", type=FILE, help="CSV file with the --known covariates for the rows to forecast.")
@click.option("--steps", type=int, help="Steps to forecast.  [default: the horizon of training]")
@DEVICE
def predict(model: str, file: str | None, future: str | None, steps: int | None, device: str) -> None:
    """Forecast with a MODEL and print the result as CSV.

    The forecast starts after the last row of the data of `forecast train`. If you pass a CSV file, it starts after the
    last row of that file.
    """
    forecaster, made = Forecaster.load(model, device), _made(model)
    given_steps = steps is not None
    steps = made["horizon"] if steps is None else checks.count("steps", steps, 1)
    options = Options(**made["file"])
    clock = Clock.from_json(made["clock"])
    if file is not None:
        series = _series(file, options, made["target"], made["known"], made["past"], made["returns"])
        forecaster.update(*series.part(0, len(series)))
        clock = Clock.of(series.table.row_times)
    X = None
    if future is not None:
        X, steps = _future(forecaster, future, options, made["known"], clock, steps if given_steps else None)
    names = [f"{name} return" for name in made["target"]] if made["returns"] else made["target"]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(csv_rows(forecaster, names, clock.next(steps), X))
    click.echo(text.getvalue(), nl=False)


@forecast_lab.command()
@click.argument("model", type=FILE)
def info(model: str) -> None:
    """Print the layers of a MODEL or a checkpoint, and how it was trained."""
    describe(Forecaster.load(model, "cpu"), model)


def _file_part(options: dict[str, Any]) -> Options:
    """Remove the options for the file from ``options`` and return them."""
    return Options(**{name: options.pop(name) for name in (*FILE_OPTIONS, "encoding", "fill", "gaps")})


def _series(
    file: str | Path,
    options: Options,
    target: Sequence[str],
    known: Sequence[str],
    past: Sequence[str],
    returns: bool,
    rows: int | None = None,
) -> Series:
    asked = (*target, *known, *past)
    table = read_table(file, options, asked, others=not target)
    # Positions refer to the file; from here on, columns are identified by their names.
    names = iter(table.names[: len(asked)])
    target, known, past = ([next(names) for _ in part] for part in (target, known, past))
    if rows is not None:
        table = table.rows(0, checks.integer("rows", rows, 1, len(table) + 1))
    return Series.of(table, target, known, past, returns)


def _future(
    forecaster: Forecaster, file: str, options: Options, known: Sequence[str], clock: Clock, steps: int | None
) -> tuple[np.ndarray, int]:
    """Read the covariates of the rows to forecast, and return (covariates, number of rows).

    Raises FormatError if the times in the file do not follow the data.
    """
    if not known:
        raise FormatError(
            f"future: expected no file, because the model has no --known covariates, got {file}; leave it out"
        )
    table = read_table(file, options, known)
    if steps is not None and steps != len(table):
        raise ShapeError(f"steps: expected {len(table)}, the number of rows in {file}, got {steps}; leave --steps out")
    first = clock.next(1)[0]
    if table.times is not None and not same(table.times[0], first):
        raise FormatError(
            f"{file}: expected the first row at {shown(first)}, the step after the data, got {shown(table.times[0])}"
        )
    return forecaster.future_rows(table.values), len(table)


def _made(model: str) -> dict[str, Any]:
    """Read what ``gpulstm forecast train`` has stored in the model file; raises FormatError if it is missing."""
    made: Any = model_file.facts(model, Forecaster.kind).get("forecast")
    try:
        for name in ("target", "known", "past"):
            if not all(isinstance(column, str) for column in made[name]) or isinstance(made[name], str):
                raise TypeError(name)
        kinds = {"date": str, "date_format": str, "delimiter": str, "encoding": str, "fill": bool, "gaps": bool}
        options = made["file"]
        if options.keys() != kinds.keys() or not all(isinstance(options[n], kinds[n] | None) for n in kinds):
            raise TypeError("file")
        Clock.from_json(made["clock"])
        checks.flag("returns", made["returns"])
        checks.count("horizon", made["horizon"], 1)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        want = "expected a model of `gpulstm forecast train`, got a Forecaster from another program or a damaged file"
        raise FormatError(f"{model}: {want}") from error
    return made

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
STEPS = 1000  # that a run has, in whole epochs and at least EPOCHS of them, where --epochs says nothing
EPOCHS = 8
USUAL = Forecaster(hidden_size=32, dropout=0.3, noise=0.05, random_state=0)
FILE_OPTIONS = {
    "date": "Column of the times, by name or position from 1, or none.  [default: found]",
    "date_format": "Format of the dates, as in strptime: %d.%m.%Y.  [default: ISO's, or numbers]",
    "delimiter": "Character between cells.  [default: found in the first line]",
}


def _file_options(command: Callable) -> Callable:
    command = click.option("--gaps", is_flag=True, help="Take rows one after the other, whatever times are missing.")(
        command
    )
    command = click.option("--fill", is_flag=True, help="Fill missing values and rows with the values before.")(command)
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
@_columns("target", "Column to forecast, by name or position from 1; may be repeated.  [default: all others]")
@_columns("known", "Covariate that is known in advance; may be repeated.")
@_columns("past", "Covariate that is not known in advance; may be repeated.")
@_file_options
@click.option("--rows", type=int, help="Read the first rows only.  [default: all]")
@click.option("--returns", is_flag=True, help="Forecast returns: changes as shares of the value before (prices).")
@click.option("--levels", is_flag=True, help="Predict levels, not changes from the last value (series about a mean).")
@click.option("--horizon", default=12, help="Steps to forecast.")
@click.option("--window", type=int, help="Rows that a forecast is made of.  [default: 24 and twice the horizon]")
@click.option("--recursive", is_flag=True, help="Forecast step by step from forecasts, instead of all steps at once.")
@click.option("--patch", default=USUAL.patch, help="Rows that the LSTM reads as one step.")
@click.option("--noise", default=USUAL.noise, help="Noise on the window in training, in standard deviations.")
@click.option(
    "--coverage", multiple=True, type=float, default=USUAL.coverages, help="Prediction interval; may be repeated."
)
@click.option("--season", type=int, help="Rows of a season, for the seasonal forecast and MASE.")
@click.option("--validation", default=0.2, help="Share of the rows before the test part that choose the best epoch.")
@click.option("--test", default=0.2, help="Last rows, to test on: a share, or a number of rows.")
@parameter_options(replace(USUAL, epochs=None), epochs="  [default: enough for 1,000 steps]")  # type: ignore[arg-type]
@picture_option("the forecasts of the test part")
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

    The last rows are the test part. From each of its rows a forecast is made from the rows before it, and held against
    what came, beside simpler forecasts: the last value, the value a season ago, a linear regression.
    """
    options = _file_part(others)
    if file is None:  # sunspots come and go about every 11 years
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
        raise ShapeError(
            "recursive: expected no --past, which cannot be read beyond the next step, got " + ", ".join(past)
        )
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
@click.option(
    "--future", type=FILE, help="CSV file with the covariates that are known in advance, of the rows to forecast."
)
@click.option("--steps", type=int, help="Steps to forecast.  [default: the horizon of training]")
@DEVICE
def predict(model: str, file: str | None, future: str | None, steps: int | None, device: str) -> None:
    """Print as CSV what follows the data that a MODEL was trained and tested on, or what follows another CSV file."""
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
    """Take the options of the file out of all."""
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
    # Positions are those of the file; from here on columns go by their names.
    names = iter(table.names[: len(asked)])
    target, known, past = ([next(names) for _ in part] for part in (target, known, past))
    if rows is not None:
        table = table.rows(0, checks.integer("rows", rows, 1, len(table) + 1))
    return Series.of(table, target, known, past, returns)


def _future(
    forecaster: Forecaster, file: str, options: Options, known: Sequence[str], clock: Clock, steps: int | None
) -> tuple[np.ndarray, int]:
    """(the covariates of the rows to forecast, how many rows there are), of a file whose times are those rows'."""
    if not known:
        raise FormatError(
            f"future: expected None, as the model has no covariates that are known in advance, got {file}"
        )
    table = read_table(file, options, known)
    if steps is not None and steps != len(table):
        raise ShapeError(f"steps: expected {len(table)}, the rows of {file}, or none, got {steps}")
    first = clock.next(1)[0]
    if table.times is not None and not same(table.times[0], first):
        raise FormatError(
            f"{file}: expected rows from {shown(first)} on, which follow the data, got {shown(table.times[0])}"
        )
    return forecaster.future_rows(table.values), len(table)


def _made(model: str) -> dict[str, Any]:
    """What the command that trained the model keeps in its file; raises FormatError for a file without."""
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
        want = "expected a model of `gpulstm forecast train`, got a Forecaster of a program's own or a broken file"
        raise FormatError(f"{model}: {want}") from error
    return made

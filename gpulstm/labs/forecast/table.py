"""Read series from CSV files: columns by name or position, the times of the rows, and errors that name the line."""

import csv
import itertools
import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpulstm.errors import FormatError
from gpulstm.labs import reading
from gpulstm.labs.forecast.times import Step, Time, parse, same, shown

TIME_NAMES = ("date", "datetime", "day", "month", "time", "timestamp", "year")
MISSING = ("", "-", "#n/a", "na", "n/a", "nan", "null", "none", "?")
MOST_FILLED = 100  # filled rows per row in the file: more mean a wrong time
SHOWN = 3  # faults of one kind that a message lists
Row = tuple[int, list[str]]  # (line, cells)


@dataclass(frozen=True)
class Options:
    """How to read a file; see ``read_table``."""

    date: str | None = None
    date_format: str | None = None
    delimiter: str | None = None
    encoding: str = "utf-8"
    fill: bool = False
    gaps: bool = False


@dataclass(frozen=True)
class Table:
    """Columns of numbers, with the time of each row if the file has a column of times."""

    names: list[str]
    values: np.ndarray  # (N, D) float64
    times: list[Time] | None  # (N,): dates, or numbers such as years

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, start: int, stop: int) -> "Table":
        """Return the table of these rows."""
        return Table(self.names, self.values[start:stop], None if self.times is None else self.times[start:stop])

    @property
    def row_times(self) -> list[Time]:
        """The time of each row; without a column of times, the row number from 1."""
        return [float(n) for n in range(1, len(self) + 1)] if self.times is None else self.times


def number_of(names: Sequence[str], column: str, option: str) -> int:
    """Return the number, from 0, of a column given by name or position from 1. Raises FormatError for other columns."""
    if column in names:
        return list(names).index(column)
    if column.isdecimal() and 1 <= int(column) <= len(names):
        return int(column) - 1
    raise FormatError(f"{option}: expected one of the columns {', '.join(names)}, or 1 to {len(names)}, got {column!r}")


def read_table(
    file: str | Path, options: Options | None = None, columns: Sequence[str] = (), *, others: bool = False
) -> Table:
    """Read a CSV file, with or without a header, plain or compressed; a row is a time step.

    ``columns`` lists the columns to read, by name or position from 1, in this order. With ``others``, or without
    ``columns``, all other columns except the times follow.

    The fields of ``options`` are these. ``date`` is the column of times, by name or position, or "none". By default it
    is the first column, if it holds dates or has a name such as date, time or year. Times are ISO 8601 dates, numbers
    such as years, or dates in ``date_format`` (as in strptime). By default the ``delimiter`` is found in the first
    line.

    Times must increase from row to row, by an even step. Gaps, duplicates, rows out of order and missing values are
    errors that name the line. ``fill`` fills missing values and missing rows with the previous values; ``gaps`` accepts
    an uneven step and takes the rows one after the other, for example trading days. Raises FormatError, and OSError if
    the file cannot be read.
    """
    options = options or Options()
    name = reading.name_of(file)
    rows = _rows(name, reading.lines(file, options.encoding), options.delimiter)
    line, cells = next(rows, (0, []))
    if not cells:
        raise FormatError(f"{name}: expected a table, got an empty file")
    has_header = not any(map(_is_number, cells))
    names = [cell or f"column {k}" for k, cell in enumerate(cells, 1)] if has_header else list(map(str, _count(cells)))
    if doubled := sorted({column for column in names if names.count(column) > 1}):
        raise FormatError(f"{name}: expected different column names, got {', '.join(doubled)} more than once")
    if has_header:
        line, cells = next(rows, (0, []))
        if not cells:
            raise FormatError(f"{name}: expected rows of numbers after the header, got none")
    time_column = _time_column(names, cells, options)
    wanted = [number_of(names, column, "columns") for column in columns]
    if len(set(wanted)) < len(wanted):
        raise FormatError(f"columns: expected different columns, got {', '.join(names[k] for k in wanted)}")
    if others or not wanted:
        wanted += [k for k in range(len(names)) if k != time_column and k not in wanted]
    return _read(name, names, itertools.chain([(line, cells)], rows), wanted, time_column, options)


def _count(cells: list[str]) -> range:
    return range(1, len(cells) + 1)


def _rows(name: str, lines: Iterator[str], delimiter: str | None) -> Iterator[Row]:
    """Yield (line number, cells) for each row that is not empty."""
    if delimiter is not None and len(delimiter) != 1:
        raise FormatError(f"delimiter: expected one character, got {delimiter!r}")
    first = next(lines, None)
    if first is None:
        return
    reader = csv.reader(itertools.chain([first], lines), delimiter=delimiter or max(",;\t|", key=first.count))
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise FormatError(f"{name}, line {reader.line_num}: expected a row of a table, got {error}") from error


def _time_column(names: list[str], cells: list[str], options: Options) -> int | None:
    if options.date is not None:
        return None if options.date == "none" else number_of(names, options.date, "date")
    if names[0].lower() in TIME_NAMES:
        return 0
    return 0 if not _is_number(cells[0]) and _is_time(cells[0], options.date_format) else None


def _read(
    name: str, names: list[str], rows: Iterator[Row], columns: list[int], time_column: int | None, options: Options
) -> Table:
    if not columns:
        raise FormatError(f"{name}: expected a column of numbers besides {names[0]}, got none")
    values = array("d")  # 8 bytes per number, because files may be large
    last: list[float] = []
    times: list[Time] = []
    lines: list[int] = []
    missing: list[str] = []
    for line, cells in rows:
        if len(cells) != len(names):
            raise FormatError(f"{name}, line {line}: expected {len(names)} cells, got {len(cells)}")
        row = [_number(f"{name}, line {line}: {names[k]}", cells[k]) for k in columns]
        missing += [f"line {line} ({names[k]})" for k, value in zip(columns, row, strict=True) if math.isnan(value)]
        if options.fill and missing:
            row = _filled(name, line, row, last)
        if time_column is not None:
            times.append(_time(f"{name}, line {line}: {names[time_column]}", cells[time_column], options.date_format))
            _check_order(name, times, lines, line)
        values.extend(row)
        last = row
        lines.append(line)
    if missing and not options.fill:
        raise FormatError(
            f"{name}: expected a number in every row, got missing values in {_some(missing)}; --fill fills them"
        )
    numbers, kept = np.array(values).reshape(-1, len(columns)), [names[k] for k in columns]
    if time_column is None:
        return Table(kept, numbers, None)
    if not options.gaps:
        times, sources = _whole(name, times, lines, options.fill)
        numbers = numbers[sources]
    return Table(kept, numbers, times)


def _number(where: str, cell: str) -> float:
    """Return the number in a cell, or NaN if it is missing. Raises FormatError for anything else."""
    if cell.lower() in MISSING:
        return math.nan
    try:
        number = float(cell) if cell.isascii() and "_" not in cell else float("none")
    except ValueError as error:
        raise FormatError(f"{where}: expected a number, got {cell!r:.40}") from error
    if not math.isfinite(number):
        raise FormatError(f"{where}: expected a finite number, got {cell}")
    return number


def _time(where: str, cell: str, date_format: str | None) -> Time:
    try:
        return parse(cell, date_format)
    except ValueError as error:
        want = f"a date like {date_format}" if date_format else "a date like 2024-01-31 or a number (see --date-format)"
        raise FormatError(f"{where}: expected {want}, got {cell!r:.40}") from error


def _filled(name: str, line: int, row: list[float], before: list[float]) -> list[float]:
    if any(map(math.isnan, row)) and not before:
        raise FormatError(
            f"{name}, line {line}: expected no missing value in the first row, which has no row before it to fill from"
        )
    return [before[k] if math.isnan(value) else value for k, value in enumerate(row)]


def _check_order(name: str, times: list[Time], lines: list[int], line: int) -> None:
    """Raise FormatError unless the last time is later than the one before."""
    if len(times) < 2:
        return
    before, now = times[-2:]
    if type(before) is not type(now):
        raise FormatError(f"{name}, line {line}: expected a time like {shown(before)}, got {shown(now)}")
    if same(before, now):
        raise FormatError(
            f"{name}, line {line}: expected a later time than in line {lines[-1]}, got {shown(now)} again"
        )
    if now < before:  # type: ignore[operator]
        order = f"{shown(now)} after {shown(before)}"
        raise FormatError(f"{name}, line {line}: expected rows in order of time, got {order}; sort the file by time")


def _whole(name: str, times: list[Time], lines: list[int], fill: bool) -> tuple[list[Time], list[int]]:
    """Return evenly spaced times, and the row that each takes its values from; FormatError for gaps without fill."""
    step, gaps = Step.of(times), []
    whole, sources = times[:1], [0]
    most = len(times) * MOST_FILLED
    for n in range(1, len(times)):
        expected = step.after(times[n - 1])
        if not same(expected, times[n]):
            gaps.append(f"lines {lines[n - 1]} and {lines[n]} ({shown(times[n - 1])} to {shown(times[n])})")
            while fill and expected < times[n] and not same(expected, times[n]):  # type: ignore[operator]
                if len(whole) > most:
                    raise FormatError(
                        f"{name}: expected gaps small enough to fill, got one of too many rows at {gaps[-1]}"
                    )
                whole.append(expected)
                sources.append(n - 1)
                expected = step.after(expected)
        whole.append(times[n])
        sources.append(n)
    if gaps and not fill:
        raise FormatError(
            f"{name}: expected rows at an even step, here {step}, got other steps between {_some(gaps)}; --fill fills "
            "gaps with the previous values, --gaps takes the rows as they are"
        )
    return whole, sources


def _some(faults: list[str]) -> str:
    more = f" and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    return ", ".join(faults[:SHOWN]) + more


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _is_time(cell: str, date_format: str | None) -> bool:
    try:
        parse(cell, date_format)
    except ValueError:
        return False
    return True

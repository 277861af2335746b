"""The times of a series' rows: dates or numbers, the step between them, and the times of future rows."""

import calendar
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from gpulstm.errors import FormatError

Time = datetime | float


@dataclass(frozen=True)
class Step:
    """The step from one row to the next: a number, a time span, one weekday, or months with a fixed day."""

    kind: Literal["number", "span", "weekday", "months"]
    size: float = 1  # the number, the seconds of a span, or the months
    day: int = 31  # of the month; the last day in a shorter month

    @classmethod
    def of(cls, times: Sequence[Time]) -> "Step":
        """Return the most common step between increasing times."""
        pairs = list(itertools.pairwise(times))
        if not pairs or isinstance(times[0], float):
            steps = [round(b - a, 9) for a, b in pairs if isinstance(a, float) and isinstance(b, float)]
            return cls("number", _commonest(steps) if steps else 1)
        dates = [(a, b) for a, b in pairs if isinstance(a, datetime) and isinstance(b, datetime)]
        months = [(b.year - a.year) * 12 + b.month - a.month for a, b in dates]
        if min(months) > 0:
            day = max(time.day for time in times if isinstance(time, datetime))
            if all(cls("months", m, day).after(a) == b for (a, b), m in zip(dates, months, strict=True)):
                return cls("months", _commonest(months), day)
        span = _commonest([(b - a).total_seconds() for a, b in dates])
        days = {a.weekday() for a, _ in dates}
        if span == timedelta(days=1).total_seconds() and len(dates) > 4 and not days & {5, 6}:
            return cls("weekday")
        return cls("span", span)

    def after(self, time: Time) -> Time:
        """Return the time of the next row. Raises FormatError after the year 9999."""
        if isinstance(time, float):
            return time + self.size
        try:
            if self.kind == "span":
                return time + timedelta(seconds=self.size)
            if self.kind == "weekday":
                return time + timedelta(days={4: 3, 5: 2}.get(time.weekday(), 1))
            month = time.year * 12 + time.month - 1 + int(self.size)
            year, month = month // 12, month % 12 + 1
            last = calendar.monthrange(year, month)[1]
            return time.replace(year=year, month=month, day=min(self.day, last))
        except (OverflowError, ValueError) as error:
            raise FormatError(f"times: expected dates up to the year 9999, got one after {shown(time)}") from error

    def __str__(self) -> str:
        if self.kind == "number":
            return f"{self.size:g}"
        if self.kind == "span":
            return f"{timedelta(seconds=self.size)}"
        if self.kind == "weekday":
            return "a weekday"
        return f"{self.size:g} month{'s' if self.size > 1 else ''}"


def _commonest(values: list[Any]) -> Any:
    return Counter(values).most_common(1)[0][0]


@dataclass(frozen=True)
class Clock:
    """The time of the last row of a series and the step to the next."""

    last: Time
    step: Step

    @classmethod
    def of(cls, times: Sequence[Time]) -> "Clock":
        """Return the clock of increasing times."""
        return cls(times[-1], Step.of(times))

    def next(self, steps: int) -> list[Time]:
        """Return the times of the next rows. Raises FormatError after the year 9999."""
        times = [self.last]
        for _ in range(steps):
            times.append(self.step.after(times[-1]))
        return times[1:]

    def to_json(self) -> list[Any]:
        """Return the clock as JSON values."""
        last = self.last if isinstance(self.last, float) else self.last.isoformat()
        return [last, self.step.kind, self.step.size, self.step.day]

    @classmethod
    def from_json(cls, values: Any) -> "Clock":
        """Restore a clock from the value of ``to_json``. Raises TypeError or ValueError for other values."""
        last, kind, size, day = values
        if kind not in ("number", "span", "weekday", "months") or not isinstance(day, int) or not 1 <= day <= 31:
            raise ValueError(f"clock: expected [last, kind, size, day], got {values!r:.60}")
        size = float(size)
        if not (0 < size < 1e12 and math.isfinite(size)) or (isinstance(last, str) == (kind == "number")):
            raise ValueError(f"clock: expected [last, kind, size, day], got {values!r:.60}")
        last = datetime.fromisoformat(last) if isinstance(last, str) else float(last)
        if isinstance(last, float) and not math.isfinite(last):
            raise ValueError(f"clock: expected [last, kind, size, day], got {values!r:.60}")
        return cls(last, Step(kind, size, day))


def parse(text: str, date_format: str | None) -> Time:
    """Parse a date (ISO 8601, or ``date_format`` as in strptime) or a number. Raises ValueError for other text.

    Dates with a UTC offset are converted to UTC, because local times repeat when clocks are set back.
    """
    if date_format is not None:
        return _in_utc(datetime.strptime(text, date_format))
    try:
        number = float(text)
    except ValueError:
        return _in_utc(datetime.fromisoformat(text))
    # Eight digits are an ISO date without hyphens, 20240131; a year is a number.
    if len(text) == 8 and text.isdecimal():
        return datetime.fromisoformat(text)
    if not math.isfinite(number):
        raise ValueError(f"expected a date or a finite number, got {text}")
    return number


def _in_utc(time: datetime) -> datetime:
    return time if time.tzinfo is None else time.astimezone(UTC).replace(tzinfo=None)


def same(a: Time, b: Time) -> bool:
    """Return whether two times are equal up to rounding."""
    return math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-9) if isinstance(a, float) and isinstance(b, float) else a == b


def shown(time: Time) -> str:
    """Return the time as text."""
    if isinstance(time, float):
        return f"{time:.10g}"
    return f"{time:%Y-%m-%d}" if (time.hour, time.minute, time.second) == (0, 0, 0) else f"{time}"

"""Generate written dates and their ISO forms, the lab's default data, which needs no download."""

from datetime import date, timedelta

import numpy as np

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
FIRST, LAST = date(1900, 1, 1), date(2099, 12, 31)
FORMS = (
    "{ordinal} of {month}, {year}", "the {ordinal} of {month} {year}", "{month} {ordinal}, {year}",
    "{month} {day}, {year}", "{day} {month} {year}", "{day} {short} {year}", "{day}. {month} {year}",
    "{short} {day} {year}", "{short}. {day}, {year}", "{weekday} {day} {month} {year}",
    "{weekday}, {month} {day}, {year}", "{weekday}, the {ordinal} of {month} {year}",
    "{abbreviated} {day} {short} {year}", "{day}-{short}-{year}", "{month} {year}, the {ordinal}",
    "{day:02}.{number:02}.{year}", "{day}.{number}.{year}", "{year}/{number:02}/{day:02}", "{year} {month} {day}",
)  # fmt: skip


def ordinal(day: int) -> str:
    """Return 1st, 2nd, 3rd, 4th, ..."""
    ending = "th" if 10 < day < 20 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return f"{day}{ending}"


def written(day: date, form: str) -> str:
    """Write a date in one of FORMS."""
    month, weekday = MONTHS[day.month - 1], DAYS[day.weekday()]
    return form.format(
        ordinal=ordinal(day.day), day=day.day, month=month, short=month[:3], number=day.month, year=day.year,
        weekday=weekday, abbreviated=weekday[:3],
    )  # fmt: skip


def dates(count: int, seed: int) -> tuple[list[str], list[str]]:
    """Return ``count`` different written dates of 1900 to 2099, about half in lower case, and each as YYYY-MM-DD."""
    rng = np.random.default_rng(seed)
    found: dict[str, str] = {}
    while len(found) < count:
        day = FIRST + timedelta(days=int(rng.integers((LAST - FIRST).days + 1)))
        text = written(day, FORMS[rng.integers(len(FORMS))])
        found[text if rng.random() < 0.5 else text.lower()] = day.isoformat()
    return list(found), list(found.values())

"""Read sentences and their translations from two parallel text files, or from one table of two columns."""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from gpulstm.errors import FormatError
from gpulstm.labs import reading

SHOWN = 5  # the maximum number of lines listed in a message
Pairs = tuple[list[str], list[str]]


def read_pairs(
    source: str | Path, target: str | Path | None = None, encoding: str = "utf-8", *, skip_empty: bool = False
) -> Pairs:
    """Read sentences and translations, line by line, from two files, or from one file with a tab between them.

    Files may be compressed. ``skip_empty`` leaves out pairs with an empty side. Raises FormatError for files with
    different numbers of lines, for empty lines (the message lists them), for lines without exactly one tab, and if
    there are no pairs; OSError if a file cannot be read.
    """
    rows = _table(source, encoding) if target is None else _parallel(source, target, encoding)
    sources: list[str] = []
    targets: list[str] = []
    empty: list[str] = []
    for line, (first, second) in enumerate(rows, 1):
        if first and second:
            sources.append(first)
            targets.append(second)
        else:
            empty.append(_place(source, target, line, bool(first)))
    if empty and not skip_empty:
        more = f" and {len(empty) - SHOWN} more" if len(empty) > SHOWN else ""
        raise FormatError(
            f"expected a sentence in every line, got empty lines: {', '.join(empty[:SHOWN])}{more}; --skip-empty "
            "leaves out such pairs"
        )
    if not sources:
        raise FormatError(f"{reading.name_of(source)}: expected pairs of sentences, got none")
    return sources, targets


def _place(source: str | Path, target: str | Path | None, line: int, has_first: bool) -> str:
    file = source if target is None or not has_first else target
    return f"{reading.name_of(file)}, line {line}"


def _parallel(source: str | Path, target: str | Path, encoding: str) -> Iterator[tuple[str, str]]:
    if Path(source).resolve() == Path(target).resolve():
        raise FormatError(f"target: expected another file than source, got {target} twice")
    first, second = reading.lines(source, encoding), reading.lines(target, encoding)
    for line, (x, y) in enumerate(zip_longest(first, second)):
        if x is None or y is None:
            shorter, longer = (source, target) if x is None else (target, source)
            rest = 1 + sum(1 for _ in (second if x is None else first))
            raise FormatError(f"{shorter}: expected {line + rest} lines, as many as {longer} has, got {line}")
        yield x.strip(), y.strip()


def _table(file: str | Path, encoding: str) -> Iterator[tuple[str, str]]:
    name = reading.name_of(file)
    for line, text in enumerate(reading.lines(file, encoding), 1):
        cells = text.split("\t")
        if len(cells) != 2 and text.strip():
            raise FormatError(
                f"{name}, line {line}: expected a sentence, a tab and its translation, got {len(cells)} "
                f"cell{'s' if len(cells) > 1 else ''}; for parallel files give both"
            )
        yield (cells[0].strip(), cells[1].strip()) if len(cells) == 2 else ("", "")

"""Labelled texts: from tables, from one file or folder per class, or generated from templates."""

import csv
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpulstm.errors import FormatError
from gpulstm.labs import reading

MISSING = ("", "na", "n/a", "nan", "null", "none")
LARGEST_CELL = 1_000_000  # characters


@dataclass(frozen=True)
class Labelled:
    """N texts and their labels."""

    texts: list[str]
    labels: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def chosen(self, numbers: np.ndarray) -> "Labelled":
        """Return the examples with these indices."""
        return Labelled([self.texts[n] for n in numbers], [self.labels[n] for n in numbers])

    def checked(self, name: str) -> "Labelled":
        """Return self. Raises FormatError for fewer than two classes, or fewer than two texts of a class."""
        counts = Counter(self.labels)
        if len(counts) < 2:
            raise FormatError(f"{name}: expected texts of at least two classes, got {', '.join(counts) or 'none'}")
        for label, count in counts.items():
            if count < 2:
                raise FormatError(f"{name}: expected at least 2 texts of each class, got {count} of {label!r:.40}")
        return self

    def split(self, share: float, seed: int) -> tuple["Labelled", "Labelled"]:
        """Return (the rest, a share of each class), drawn at random by the seed.

        Each part has at least one text of each class.
        """
        order = np.random.default_rng(seed).permutation(len(self))
        held = []
        for label in sorted(set(self.labels)):
            of_class = [n for n in order if self.labels[n] == label]
            held += of_class[: min(max(1, round(share * len(of_class))), len(of_class) - 1)]
        is_held = np.isin(np.arange(len(self)), held)
        return self.chosen(np.flatnonzero(~is_held)), self.chosen(np.flatnonzero(is_held))


def read_table(
    file: str | Path, text: str | None = None, label: str | None = None, *, delimiter: str | None = None,
    encoding: str = "utf-8",
) -> Labelled:  # fmt: skip
    """Read texts and labels from a CSV or TSV file with a header; name columns by name or by position from 1.

    By default the columns are those named text and label; a table of two columns may have other names, with the text
    first. Raises FormatError, naming the line, for missing texts or labels and for a table of two columns without a
    header; OSError if the file cannot be read.
    """
    name = reading.name_of(file)
    lines = reading.lines(file, encoding)
    first = next(lines, None)
    if first is None:
        raise FormatError(f"{name}: expected a table, got an empty file")
    if delimiter is not None and len(delimiter) != 1:
        raise FormatError(f"delimiter: expected one character, got {delimiter!r}")
    # A quoted cell may span several lines.
    rows = csv.reader(
        (f"{line}\n" for line in itertools.chain([first], lines)), delimiter=delimiter or max("\t,;|", key=first.count)
    )
    texts: list[str] = []
    labels: list[str] = []
    limit = csv.field_size_limit(LARGEST_CELL)  # a global limit: restored below
    try:
        names = [cell.strip() for cell in next(rows)]
        columns = _columns(name, names, text, label)
        for cells in rows:
            if len(cells) < 2 and not "".join(cells).strip():
                continue  # an empty line
            where = f"{name}, line {rows.line_num}"
            if len(cells) != len(names):
                raise FormatError(f"{where}: expected {len(names)} cells, got {len(cells)}")
            for column, kept in zip(columns, (texts, labels), strict=True):
                kept.append(_cell(f"{where}: {names[column]}", cells[column]))
    except csv.Error as error:
        raise FormatError(f"{name}, line {rows.line_num}: expected a row of a table, got {error}") from error
    finally:
        csv.field_size_limit(limit)
    if label is None and names[columns[1]].lower() != "label" and names[columns[1]] in labels:
        raise FormatError(
            f"{name}, line 1: expected a header with the names of the columns, got {names[columns[1]]!r:.40}, which is "
            "also a label in other lines; if it is a header, give the column with --label"
        )
    return Labelled(texts, labels).checked(name)


def read_classes(classes: Sequence[str], encoding: str = "utf-8") -> Labelled:
    """Read texts from "NAME=PATH", one for each class: a file with one text per line, or a folder of text files.

    Raises FormatError for any other argument and for empty files; OSError if a file cannot be read.
    """
    texts: list[str] = []
    labels: list[str] = []
    for given in classes:
        label, sign, path = given.partition("=")
        if not (sign and label and path):
            raise FormatError(f"class: expected NAME=PATH, got {given!r:.60}")
        found = list(_in_folder(Path(path), encoding) if Path(path).is_dir() else _in_file(path, encoding))
        if not found:
            raise FormatError(f"{path}: expected texts, got none")
        texts += found
        labels += [label] * len(found)
    return Labelled(texts, labels).checked("class")


def _in_file(path: str, encoding: str) -> Iterator[str]:
    yield from (line.strip() for line in reading.lines(path, encoding) if line.strip())


def _in_folder(folder: Path, encoding: str) -> Iterator[str]:
    for file in sorted(folder.iterdir()):
        if file.is_file() and not file.name.startswith("."):
            text = " ".join(reading.read(file, encoding).split())
            if not text:
                raise FormatError(f"{file}: expected a text, got an empty file")
            yield text


def _columns(name: str, names: list[str], text: str | None, label: str | None) -> tuple[int, int]:
    of_text, of_label = (_column(name, names, *pair) for pair in (("text", text), ("label", label)))
    if len(names) == 2 and of_text is None:
        of_text = 0 if of_label is None else 1 - of_label
    if len(names) == 2 and of_label is None and of_text is not None:
        of_label = 1 - of_text
    if of_text is None or of_label is None:
        raise _no_column(name, names, *(("text", text) if of_text is None else ("label", label)))
    if of_text == of_label:
        raise FormatError(f"label: expected another column than that of the text, got {names[of_text]}")
    return of_text, of_label


def _column(name: str, names: list[str], option: str, given: str | None) -> int | None:
    """Return a column's number from 0; None if none is given and no column has the name of the option."""
    for k, column in enumerate(names):
        if column == given or (given is None and column.lower() == option):
            return k
    if given is not None and given.isdecimal() and 1 <= int(given) <= len(names):
        return int(given) - 1
    if given is not None:
        raise _no_column(name, names, option, given)
    return None


def _no_column(name: str, names: list[str], option: str, given: str | None) -> FormatError:
    want = f"--{option}, one of the columns {', '.join(names)}, or 1 to {len(names)}"
    return FormatError(f"{name}: expected {want}, got {'none' if given is None else repr(given)}")


def _cell(where: str, cell: str) -> str:
    cell = cell.strip()
    if cell.lower() in MISSING:
        raise FormatError(f"{where}: expected a value, got a missing one")
    return cell


# -- generated texts ---------------------------------------------------------------------------------------------

GOOD = ("good", "great", "fine", "lovely", "brilliant", "moving", "clever", "fresh", "warm", "sharp")
BAD = ("bad", "awful", "dull", "tired", "clumsy", "boring", "weak", "stale", "cold", "flat")
THINGS = ("film", "story", "cast", "script", "ending", "music", "acting", "camera work")
PLAIN = ("the {thing} is {word}", "i found the {thing} {word}", "{word} {thing}", "what a {word} {thing}")
TURNED = ("the {thing} is not {word}", "i did not find the {thing} {word}", "hardly a {word} {thing}")
LINKS = (", and ", " , while ", "; ")


def generated(count: int, seed: int = 0) -> Labelled:
    """Generate sentences about films from templates, half "positive" and half "negative".

    A sentence has one or two clauses of the same opinion. "not" and "hardly" reverse the meaning of a word, so single
    words do not reveal the class.
    """
    generator = np.random.default_rng(seed)
    texts, labels = [], []
    for n in range(count):
        label = ("positive", "negative")[n % 2]
        clauses = [_clause(generator, label == "positive") for _ in range(1 + int(generator.random() < 0.5))]
        texts.append(str(generator.choice(LINKS)).join(clauses))
        labels.append(label)
    return Labelled(texts, labels)


def _clause(generator: np.random.Generator, positive: bool) -> str:
    turned = generator.random() < 0.4
    words = GOOD if positive != turned else BAD
    template = generator.choice(TURNED if turned else PLAIN)
    return str(template).format(thing=generator.choice(THINGS), word=generator.choice(words))

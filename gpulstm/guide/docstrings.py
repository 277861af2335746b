"""Converts docstrings to Markdown for pdoc: tables, lists of arguments, and asterisks in products."""

import re
from collections.abc import Iterator

# An argument on a line of its own, or several with commas, and its description below, indented.
_ARGUMENT = re.compile(r"^(?P<names>\w+(?:, \w+)*)\n(?P<words>(?: {4}\S.*(?:\n|\Z))+)", re.M)


def markdown(docstring: str) -> str:
    """Return the docstring as Markdown for pdoc."""
    parts = re.split(r"(``.*?``|`[^`]*`|^ {4,}[^\n]*$|^>>>[^\n]*$)", _tables(_arguments(docstring)), flags=re.M | re.S)
    parts[::2] = [re.sub(r"(?<=\w)\*(?=\w)", r"\\*", text) for text in parts[::2]]  # the text between code
    return "".join(parts)


def _arguments(text: str) -> str:
    """Turn arguments with their descriptions into list items."""

    def item(found: re.Match[str]) -> str:
        names = ", ".join(f"`{name}`" for name in found["names"].split(", "))
        return f"- {names}: {' '.join(found['words'].split())}\n"

    return _ARGUMENT.sub(item, text)


_RULE = re.compile(r"^=+( +=+)+$")


def _tables(docstring: str) -> str:
    """Turn tables, whose columns are marked by lines of ``===``, into Markdown tables."""
    lines, made = iter(docstring.split("\n")), []
    for line in lines:
        if not _RULE.match(line.strip()):
            made.append(line)
            continue
        starts = [found.start() for found in re.finditer("=+", line)]
        groups: list[list[list[str]]] = [[]]
        for row in lines:
            if not row.strip():
                break
            if _RULE.match(row.strip()):
                groups.append([])
                continue
            groups[-1].append(list(_cells(row, starts)))
        made += _markdown_table([group for group in groups if group])
    return "\n".join(made)


def _cells(row: str, starts: list[int]) -> Iterator[str]:
    for start, end in zip(starts, [*starts[1:], None], strict=True):
        yield row[start:end].strip().replace("|", r"\|")


def _markdown_table(groups: list[list[list[str]]]) -> list[str]:
    """Format a Markdown table.

    Of two groups of rows, the first is the header. A row with an empty first cell continues the row above.
    """
    head, body = (groups[0][0], groups[1]) if len(groups) == 2 else ([""] * len(groups[0][0]), groups[0])
    rows: list[list[str]] = []
    for row in body:
        if rows and not row[0]:
            rows[-1] = [" ".join(filter(None, pair)) for pair in zip(rows[-1], row, strict=True)]
        else:
            rows.append(row)
    rows = [[f"`{row[0]}`", *row[1:]] for row in rows]
    return ["", *(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)), ""]

"""Runs the code of a page, and compares what it prints, or the error it raises, with what the page shows.

- The blocks of ``python`` run in order, and share their names.
- A block of ``text`` directly after one is its output. If the code raises an error, the last line is the error's type
  and message.
- A block of ``cpp`` that begins with ``// name.cuh`` becomes the file of that name.
- After the line ``<!-- source: module:name -->`` a block is the source text of that object. It does not run.
"""

import contextlib
import importlib
import inspect
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpulstm.errors import FormatError
from gpulstm.guide import page_file

_BLOCK = re.compile(r"(?:^<!-- source: (?P<source>\S+) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass
class Block:
    """A block of code: its kind ("python", "text", "sh", ...), its text, where it stands, and whose source it is."""

    kind: str
    text: str
    span: tuple[int, int]
    line: int
    source: str | None


def blocks(markdown: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    for found in _BLOCK.finditer(markdown):
        line = markdown.count("\n", 0, found.start("text")) + 1
        yield Block(found["kind"], found["text"], found.span("text"), line, found["source"])


def run(page: str, folder: Path, names: dict[str, Any] | None = None) -> str:
    """Run the code of a page in a folder, and return the page with the actual outputs and sources.

    Each output is what the code printed in this run. Each source is the current text in the library. The code can use
    the variables in ``names``, and adds its own. Raises FormatError, which names page and line, if code raises an error
    and the page shows no output for it.
    """
    file = page_file(page)
    markdown = file.read_text(encoding="utf-8")
    names = {} if names is None else names
    found = list(blocks(markdown))
    changed: list[tuple[tuple[int, int], str]] = []
    with contextlib.chdir(folder):
        for block, after in zip(found, [*found[1:], None], strict=True):
            if block.source:
                changed.append((block.span, _source(block.source)))
            elif block.kind == "cpp" and (file_name := re.match(r"// (\S+\.cuh)\n", block.text)):
                Path(file_name[1]).write_text(block.text, encoding="utf-8")
            elif block.kind == "python":
                shown = after if after and _is_output(markdown, block, after) else None
                printed = _printed(block, file, names, may_fail=shown is not None)
                if shown is not None:
                    changed.append((shown.span, printed))
    for (start, end), text in reversed(changed):
        markdown = markdown[:start] + text + markdown[end:]
    return markdown


def _is_output(markdown: str, block: Block, after: Block) -> bool:
    between = markdown[block.span[1] : after.span[0]]
    return after.kind == "text" and not between.replace("`", "").replace("text", "").strip()


def _printed(block: Block, file: Path, names: dict[str, Any], may_fail: bool) -> str:
    """Return what the code prints, and the error that it raises."""
    code = compile("\n" * (block.line - 1) + block.text, str(file), "exec")
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        try:
            exec(code, names)  # code of this package's pages only
        except Exception as error:
            if not may_fail:
                raise FormatError(f"{file.name}, line {block.line}: {type(error).__name__}: {error}") from error
            print(f"{type(error).__name__}: {error}")
    return output.getvalue()


def _source(place: str) -> str:
    """Return the source text of ``module:name``, or of several names separated by commas."""
    module, _, names = place.partition(":")
    loaded = importlib.import_module(module)
    return "\n\n".join(inspect.getsource(getattr(loaded, name)) for name in names.split(","))

"""Text files as people have them: plain or gzip'd, in any encoding, read line by line; faults are named by line."""

import codecs
import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from gpulstm.errors import FormatError

GZIP = b"\x1f\x8b"  # how gzip'd files begin
DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error)
ADVICE = "give --encoding, e.g. latin-1 or utf-16, if it is another"


def name_of(file: str | Path) -> str:
    """The file's name in messages; "-" is standard input."""
    return "standard input" if str(file) == "-" else str(file)


def check_encoding(encoding: str) -> str:
    """Raise FormatError for an encoding that Python does not know, or that is none of text."""
    try:
        if not codecs.lookup(encoding)._is_text_encoding:
            raise LookupError
    except (LookupError, TypeError, ValueError) as error:
        raise FormatError(f"encoding: want e.g. utf-8, latin-1 or cp1252, got {encoding!r}") from error
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding


def lines(file: str | Path, encoding: str = "utf-8") -> Iterator[str]:
    """The lines of a text file, or of a gzip'd one, without their ends; "-" is standard input.

    Only a line at a time is in memory. A byte order mark is left out. Raises FormatError, naming the line, for what is
    no text in that encoding and for a damaged gzip file; OSError for a file that cannot be read.
    """
    name, reader, number = name_of(file), check_encoding(encoding), 0
    words = _words(reader)
    with _opened(file) as raw:
        text = io.TextIOWrapper(raw, encoding=reader, newline=None)
        try:
            for line in text:
                number += 1
                if "\0" in line:
                    raise FormatError(f"{name}: want {words} text, got binary data (a zero byte in line {number})")
                yield line.removesuffix("\n")
        except UnicodeError as error:
            raise FormatError(
                f"{name}: want {words} text, got {_found(error)}, after line {number}; {ADVICE}"
            ) from error
        except DAMAGED as error:
            raise FormatError(f"{name}: want a whole gzip file, got a damaged one after line {number}") from error
        finally:
            text.detach()


def read(file: str | Path, encoding: str = "utf-8") -> str:
    """All the text of a file, with "\\n" at the end of each line; raises as ``lines`` does."""
    name, reader = name_of(file), check_encoding(encoding)
    words = _words(reader)
    with _opened(file) as raw:
        try:
            data = raw.read()
        except DAMAGED as error:
            raise FormatError(f"{name}: want a whole gzip file, got a damaged one") from error
    if b"\0" in data and not reader.lower().startswith(("utf-16", "utf-32", "utf16", "utf32")):
        raise FormatError(f"{name}: want {words} text, got binary data (a zero byte at {data.index(0)})")
    try:
        text = data.decode(reader)
    except UnicodeError as error:
        at = f" at {error.start}" if isinstance(error, UnicodeDecodeError) else ""
        raise FormatError(f"{name}: want {words} text, got {_found(error)}{at}; {ADVICE}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _words(reader: str) -> str:
    return "UTF-8" if reader == "utf-8-sig" else reader


def _found(error: UnicodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte 0x{error.object[error.start]:02x}"
    return f"something else ({error})"


@contextmanager
def _opened(file: str | Path) -> Iterator[IO[bytes]]:
    """The file's bytes, uncompressed if they are gzip'd, whatever the name."""
    with ExitStack() as opened:
        raw: Any = sys.stdin.buffer if str(file) == "-" else opened.enter_context(Path(file).open("rb"))
        buffered = raw
        if not hasattr(raw, "peek"):
            buffered = io.BufferedReader(raw)
            opened.callback(buffered.detach)  # it would close what it wraps
        yield gzip.GzipFile(fileobj=buffered) if buffered.peek(2)[:2] == GZIP else buffered  # type: ignore[misc]

"""Text files as people have them: plain or compressed, in any encoding, read in lines or pieces; faults are named."""

import codecs
import gzip
import importlib
import io
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from gpulstm import parallel
from gpulstm.errors import FormatError

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"  # how compressed files begin
PIECE = 1 << 20  # bytes of text in a piece
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
        raise FormatError(f"encoding: expected e.g. utf-8, latin-1 or cp1252, got {encoding!r}") from error
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding


def lines(file: str | Path, encoding: str = "utf-8") -> Iterator[str]:
    """The lines of a text file, plain or compressed by gzip or zstd, without their ends; "-" is standard input.

    Only a line at a time is in memory. A byte order mark is left out. Raises FormatError, naming the line, for what is
    no text in that encoding and for a damaged compressed file; OSError for a file that cannot be read.
    """
    name, reader, number = name_of(file), check_encoding(encoding), 0
    words = _words(reader)
    with _opened(file, lambda: f"after line {number}") as raw:
        text = io.TextIOWrapper(raw, encoding=reader, newline=None)
        try:
            for line in text:
                number += 1
                if "\0" in line:
                    raise FormatError(f"{name}: expected {words} text, got binary data (a zero byte in line {number})")
                yield line.removesuffix("\n")
        except UnicodeError as error:
            raise FormatError(
                f"{name}: expected {words} text, got {_found(error)}, after line {number}; {ADVICE}"
            ) from error
        finally:
            text.detach()


def read(file: str | Path, encoding: str = "utf-8") -> str:
    """All the text of a file, with "\\n" at the end of each line; raises as ``pieces`` does."""
    return "".join(pieces(file, encoding))


def pieces(file: str | Path, encoding: str = "utf-8", size: int = PIECE) -> Iterator[str]:
    """The text of a file as ``lines`` reads it, "\\n" at the end of each line, in pieces of at most ``size`` bytes.

    Only a piece at a time is in memory. Raises FormatError, naming the byte, for what is no text in that encoding and
    for a damaged compressed file; OSError for a file that cannot be read.
    """
    name, reader, done = name_of(file), check_encoding(encoding), 0
    words, may_have_zeros = _words(reader), reader.lower().startswith(("utf-16", "utf-32", "utf16", "utf32"))
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(reader)(), translate=True)
    with _opened(file, lambda: f"after byte {done}") as raw:
        while True:
            data = raw.read(size)
            if b"\0" in data and not may_have_zeros:
                zero = done + data.index(0)
                raise FormatError(f"{name}: expected {words} text, got binary data (a zero byte at {zero})")
            done += len(data)
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeError as error:
                # The decoder may have kept some bytes of the piece before.
                place = done - len(error.object) + error.start if isinstance(error, UnicodeDecodeError) else None
                at = "" if place is None else f" at {place}"
                raise FormatError(f"{name}: expected {words} text, got {_found(error)}{at}; {ADVICE}") from error
            if text:
                yield text
            if not data:
                return


def _standard_input() -> Any:
    """Standard input; of several processes only the first has it, and gives it to the others."""
    group = parallel.group()
    return sys.stdin.buffer if group.size == 1 else io.BytesIO(group.on_root(sys.stdin.buffer.read))


def _words(reader: str) -> str:
    return "UTF-8" if reader == "utf-8-sig" else reader


def _found(error: UnicodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte 0x{error.object[error.start]:02x}"
    return f"something else ({error})"


@contextmanager
def _opened(file: str | Path, where: Callable[[], str]) -> Iterator[IO[bytes]]:
    """The file's bytes, taken out of gzip or zstd, whatever the name.

    Raises FormatError, with ``where`` the reader is, for a damaged compressed file, and without the library it needs.
    """
    name, kind = name_of(file), ""
    damaged: tuple[type[Exception], ...] = ()
    with ExitStack() as opened:
        raw: Any = _standard_input() if str(file) == "-" else opened.enter_context(Path(file).open("rb"))
        stream = raw
        if not hasattr(raw, "peek"):
            stream = io.BufferedReader(raw)
            opened.callback(stream.detach)  # it would close what it wraps
        begin = stream.peek(len(ZSTD))
        if begin.startswith(GZIP):
            kind, damaged, stream = "gzip", (EOFError, gzip.BadGzipFile, zlib.error), gzip.GzipFile(fileobj=stream)
        elif begin.startswith(ZSTD):
            zstd = _zstd(name)
            kind, damaged, stream = "zstd", (EOFError, zstd.ZstdError), zstd.ZstdFile(stream)
        try:
            yield stream
        except damaged as error:
            raise FormatError(f"{name}: expected a whole {kind} file, got a damaged one {where()}: {error}") from error


def _zstd(name: str) -> Any:
    """The module of zstd: Python's own from 3.14 on, before that its backport."""
    for module in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(module)
        except ImportError:
            pass
    raise FormatError(
        f"{name}: is compressed by zstd, which needs a library that is not installed: pip install backports.zstd"
    )

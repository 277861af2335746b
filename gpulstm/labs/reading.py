"""Read text files, plain or compressed and in any encoding, by line or in pieces; errors name the place."""

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

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"  # the first bytes of compressed files
PIECE = 1 << 20  # bytes of text in a piece
ADVICE = "for another encoding give --encoding, e.g. latin-1 or utf-16"


def name_of(file: str | Path) -> str:
    """Return the file's name for messages; "-" is standard input."""
    return "standard input" if str(file) == "-" else str(file)


def check_encoding(encoding: str) -> str:
    """Return the encoding to read with. Raises FormatError for an unknown encoding and for one that is not for text."""
    try:
        if not codecs.lookup(encoding)._is_text_encoding:
            raise LookupError
    except (LookupError, TypeError, ValueError) as error:
        raise FormatError(f"encoding: expected e.g. utf-8, latin-1 or cp1252, got {encoding!r}") from error
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding


def lines(file: str | Path, encoding: str = "utf-8") -> Iterator[str]:
    """Yield the lines of a text file, plain or compressed by gzip or zstd, without line ends; "-" is standard input.

    Only one line at a time is in memory. A byte order mark is left out. Raises FormatError, naming the line, for bytes
    that are not text in that encoding and for a damaged compressed file; OSError for a file that cannot be read.
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
    """Return the whole text of a file, with "\\n" as the line end; raises as ``pieces`` does."""
    return "".join(pieces(file, encoding))


def pieces(file: str | Path, encoding: str = "utf-8", size: int = PIECE) -> Iterator[str]:
    """Yield the text of a file in pieces of at most ``size`` bytes, with "\\n" as the line end.

    Reads the same files as ``lines``, with only one piece at a time in memory. Raises FormatError, naming the byte, for
    bytes that are not text in that encoding and for a damaged compressed file; OSError for a file that cannot be read.
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
                # The decoder may still hold some bytes of the previous piece.
                place = done - len(error.object) + error.start if isinstance(error, UnicodeDecodeError) else None
                at = "" if place is None else f" at {place}"
                raise FormatError(f"{name}: expected {words} text, got {_found(error)}{at}; {ADVICE}") from error
            if text:
                yield text
            if not data:
                return


def _standard_input() -> Any:
    """Return standard input. With several processes the first one reads it and sends it to the others."""
    group = parallel.group()
    return sys.stdin.buffer if group.size == 1 else io.BytesIO(group.on_root(sys.stdin.buffer.read))


def _words(reader: str) -> str:
    return "UTF-8" if reader == "utf-8-sig" else reader


def _found(error: UnicodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte 0x{error.object[error.start]:02x}"
    return f"other data ({error})"


@contextmanager
def _opened(file: str | Path, where: Callable[[], str]) -> Iterator[IO[bytes]]:
    """Open the file's bytes, decompressed if they are gzip or zstd, whatever the file's name is.

    ``where()`` returns the reader's position for messages. Raises FormatError for a damaged compressed file and if the
    library for zstd is not installed.
    """
    name, kind = name_of(file), ""
    damaged: tuple[type[Exception], ...] = ()
    with ExitStack() as opened:
        raw: Any = _standard_input() if str(file) == "-" else opened.enter_context(Path(file).open("rb"))
        stream = raw
        if not hasattr(raw, "peek"):
            stream = io.BufferedReader(raw)
            opened.callback(stream.detach)  # otherwise it would close the stream that it wraps
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
    """Return the zstd module: Python's own from 3.14 on, else its backport."""
    for module in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(module)
        except ImportError:
            pass
    raise FormatError(
        f"{name}: is compressed by zstd, and the library to read it is not installed: pip install backports.zstd"
    )

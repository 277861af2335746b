"""Where an ONNX model comes from: a path, bytes or a message, read without trust."""

import importlib
import os
import stat
from pathlib import Path
from typing import Any

from gpulstm.errors import DTypeError, FormatError
from gpulstm.io.files import as_path
from gpulstm.io.onnx.wire import LARGEST, check_parts
from gpulstm.io.sniff import ONNX, kind_of

HEAD = 512  # bytes
# Other forms of ONNX models: how they begin, a word that follows, what onnx calls the form.
_TEXTS = ((b"{", b'ersion"', "json"), (b"<", b"ir_version", "onnxtxt"), (b"ir_version:", b"", "textproto"))


def library() -> Any:
    """The package onnx; raises ImportError that says how to get it."""
    try:
        return importlib.import_module("onnx")
    except ImportError as error:
        raise ImportError("ONNX files need the package onnx (pip install onnx)") from error


class Source:
    """A model, what messages call it, its size in bytes, and the folder in which its arrays may stand.

    ``source`` is a path, the bytes of a file, or onnx.ModelProto. Raises FormatError for what is no ONNX model,
    DTypeError for another type, and OSError where the file cannot be read.
    """

    def __init__(self, source: Any) -> None:
        onnx = library()
        self.where, self.path = "model", None
        self._others: dict[Path, int] = {}  # bytes that may still be read of each other file
        if isinstance(source, onnx.ModelProto):
            self.model, self.size = source, source.ByteSize()
            return
        if isinstance(source, str | os.PathLike):
            self.where, self.path = str(source), as_path(source, name="source")
            source = _content(self.path)
        if not isinstance(source, bytes | bytearray | memoryview):
            want = "a path, bytes or an onnx.ModelProto"
            advice = "; give what its read() gives" if hasattr(source, "read") else ""
            raise DTypeError(f"source: expected {want}, got {type(source).__name__}{advice}")
        data = bytes(source)
        self.model, self.size = onnx.ModelProto(), len(data)
        try:
            self._parse(data, onnx.ModelProto)
        except FormatError as error:
            if kind := self._other_kind(data[:HEAD]):
                raise FormatError(f"{self.where}: expected an ONNX model, got {kind}") from error
            raise

    def _parse(self, data: bytes, message: Any) -> None:
        check_parts(data, self.where, message)
        decode_error = importlib.import_module("google.protobuf.message").DecodeError
        try:
            self.model.ParseFromString(data)
        except (decode_error, UnicodeDecodeError) as error:
            raise FormatError(f"{self.where}: not a whole ONNX file: {error}") from error
        if not self.model.graph.node:
            raise FormatError(f"{self.where}: expected an ONNX model, got a file with no node")

    def _other_kind(self, head: bytes) -> str:
        """What the file is instead of an ONNX model; empty where that cannot be said."""
        for begin, word, form in _TEXTS:
            if head.lstrip().startswith(begin) and b"ir" in head and word in head:
                return f"one as text; write onnx.save(onnx.load(path, format={form!r}), new_path)"
        if head[4:8] == b"ORTM":
            return "one in onnxruntime's own form; take the .onnx file that it was made of"
        if self.path is None:
            return ""
        kind = kind_of(self.path)
        return "" if kind == ONNX or kind.what.startswith("bytes of no known kind") else str(kind)

    def outside(self, location: str, offset: int, length: int, where: str) -> bytes:
        """``length`` bytes of another file, which must lie in the model's folder; raises FormatError.

        The location is a relative path without "..". A symbolic link may lead to another file of the model's
        own folder alone, or of the folder in which the model itself lies where it is a link too.
        """
        if self.path is None:
            want = "the path of the model, beside which its arrays stand"
            raise FormatError(f"{where}: expected {want}, got a model without one and a reference to {location!r:.100}")
        relative = Path(location.replace("\\", "/"))
        if not location or "\0" in location or relative.is_absolute() or ".." in relative.parts or ":" in location:
            raise FormatError(f"{where}: expected a file in the model's folder, got a reference to {location!r:.100}")
        folders = {self.path.parent.resolve(), self.path.resolve().parent}
        try:
            real = (self.path.parent / relative).resolve(strict=True)
            if not any(real.is_relative_to(folder) for folder in folders):
                raise FormatError(
                    f"{where}: expected a file in the model's folder, got a link out of it: {location!r:.100}"
                )
            there = real.stat()
            if not stat.S_ISREG(there.st_mode):
                raise OSError("a folder or a device")
            if offset + length > there.st_size:
                want, got = f"bytes {offset} to {offset + length}", f"{there.st_size} bytes"
                raise FormatError(f"{where}: expected {want} of {location!r:.100}, got a file of {got}")
            if real not in self._others:
                self._others[real] = 2 * there.st_size  # arrays may share some bytes, and not all of them
                self.size += there.st_size
            self._others[real] -= length
            if self._others[real] < 0:
                raise FormatError(f"{where}: expected each part of {location!r:.100} for one array, got it for many")
            with real.open("rb") as file:
                file.seek(offset)
                return file.read(length)
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
            if isinstance(error, FormatError):
                raise
            raise FormatError(f"{where}: expected the file {location!r:.100} beside the model, got {error}") from error


def _content(path: Path) -> bytes:
    """The bytes of a file; nothing endless is read."""
    there = path.stat()
    if not stat.S_ISREG(there.st_mode) and not stat.S_ISDIR(there.st_mode):  # opening a pipe would wait for a writer
        raise FormatError(f"{path}: expected a file, got a device or a pipe; give its bytes")
    if there.st_size > LARGEST:
        raise FormatError(f"{path}: expected at most {LARGEST} bytes, got {there.st_size}")
    with path.open("rb") as file:
        return file.read(LARGEST)

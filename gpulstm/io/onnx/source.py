"""Reads an ONNX model from a path, bytes or an onnx.ModelProto, none of which is trusted."""

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
# Text forms of ONNX models: their first bytes, a word that follows, onnx's name for the form.
_TEXTS = ((b"{", b'ersion"', "json"), (b"<", b"ir_version", "onnxtxt"), (b"ir_version:", b"", "textproto"))


def library() -> Any:
    """The package onnx; raises an ImportError that says how to install it."""
    try:
        return importlib.import_module("onnx")
    except ImportError as error:
        raise ImportError("ONNX files need the package onnx (pip install onnx)") from error


class Source:
    """A model, its name in messages, its size in bytes, and its path, in whose folder its arrays may be.

    ``source`` is a path, the bytes of a file, or an onnx.ModelProto. Raises FormatError for anything but an ONNX model,
    DTypeError for another type, and OSError if the file cannot be read.
    """

    def __init__(self, source: Any) -> None:
        onnx = library()
        self.where, self.path = "model", None
        self._others: dict[Path, int] = {}  # bytes that may still be read from each other file
        if isinstance(source, onnx.ModelProto):
            self.model, self.size = source, source.ByteSize()
            return
        if isinstance(source, str | os.PathLike):
            self.where, self.path = str(source), as_path(source, name="source")
            source = _content(self.path)
        if not isinstance(source, bytes | bytearray | memoryview):
            want = "a path, bytes or an onnx.ModelProto"
            advice = "; give the result of its read()" if hasattr(source, "read") else ""
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
        """The format of a file that is not an ONNX model; empty if unknown."""
        for begin, word, form in _TEXTS:
            if head.lstrip().startswith(begin) and b"ir" in head and word in head:
                return f"one as text; write onnx.save(onnx.load(path, format={form!r}), new_path)"
        if head[4:8] == b"ORTM":
            return "one in onnxruntime's own form; take the .onnx file that it was made from"
        if self.path is None:
            return ""
        kind = kind_of(self.path)
        return "" if kind == ONNX or kind.what.startswith("bytes of an unknown format") else str(kind)

    def outside(self, location: str, offset: int, length: int, where: str) -> bytes:
        """Read ``length`` bytes of another file, which must be in the model's folder; raises FormatError.

        The location is a relative path without "..". A symbolic link may lead only to a file in the model's folder; if
        the model's path is a link itself, also to one in the folder of the file it points to.
        """
        if self.path is None:
            want = "the path of the model, as its arrays are in other files beside it"
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
                self._others[real] = 2 * there.st_size  # some arrays may share bytes, but not many
                self.size += there.st_size
            self._others[real] -= length
            if self._others[real] < 0:
                raise FormatError(f"{where}: expected each part of {location!r:.100} in one array, got it in many")
            with real.open("rb") as file:
                file.seek(offset)
                return file.read(length)
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a cycle of links, before Python 3.13
            if isinstance(error, FormatError):
                raise
            raise FormatError(f"{where}: expected the file {location!r:.100} beside the model, got {error}") from error


def _content(path: Path) -> bytes:
    """The bytes of a file; devices and pipes are refused, as they may be endless."""
    there = path.stat()
    if not stat.S_ISREG(there.st_mode) and not stat.S_ISDIR(there.st_mode):  # opening a pipe would wait for a writer
        raise FormatError(f"{path}: expected a file, got a device or a pipe; give its bytes")
    if there.st_size > LARGEST:
        raise FormatError(f"{path}: expected at most {LARGEST} bytes, got {there.st_size}")
    with path.open("rb") as file:
        return file.read(LARGEST)

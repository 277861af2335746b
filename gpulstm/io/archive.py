"""Reads zip archives from untrusted sources: every size is checked against the file's before memory is allocated."""

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from gpulstm.errors import FormatError

CHUNK = 1 << 20  # bytes read at once
INFLATED = 8  # times the file's size: the limit for all members together, if any is compressed
# What the standard library raises for a damaged archive.
_DAMAGE = (
    zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, KeyError, struct.error, zlib.error,
    OverflowError,
)  # fmt: skip


class Archive:
    """The members of an open zip archive by name; ``path`` and ``size`` (bytes) are the file's."""

    def __init__(self, path: str | Path, size: int, archive: zipfile.ZipFile) -> None:
        self.path, self.size, self._archive = path, size, archive
        self.members: dict[str, zipfile.ZipInfo] = {}
        for member in archive.infolist():
            self._check(member)
            self.members[member.filename] = member
        packed = any(member.compress_type != zipfile.ZIP_STORED for member in self.members.values())
        most, total = size * (INFLATED if packed else 1), sum(member.file_size for member in self.members.values())
        if total > most:
            times = f"{INFLATED} times " if packed else ""
            raise FormatError(f"{path}: expected members of at most {most} bytes, {times}the file's size, got {total}")

    def _check(self, member: zipfile.ZipInfo) -> None:
        """Raises FormatError for an unusual or unsafe member, judging by its entry in the archive's table."""
        name = member.filename
        if name in self.members:
            raise FormatError(f"{self.path}: expected each name once, got {name!r} twice")
        # orig_filename: the library cuts names at a null byte.
        if name != member.orig_filename or name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise FormatError(f"{self.path}: expected names inside the archive, got {member.orig_filename!r}")
        stored = member.compress_type == zipfile.ZIP_STORED
        if not stored and member.compress_type != zipfile.ZIP_DEFLATED:
            raise FormatError(
                f"{self.path}, {name}: expected stored or deflated bytes, got another kind of compression"
            )
        if stored and member.compress_size != member.file_size:
            raise FormatError(
                f"{self.path}, {name}: expected {member.file_size} stored bytes, got {member.compress_size}"
            )
        if member.flag_bits & 1:
            raise FormatError(f"{self.path}, {name}: expected bytes without encryption, got encrypted ones")
        if member.header_offset < 0 or member.header_offset + member.compress_size > self.size:
            raise FormatError(
                f"{self.path}, {name}: expected {member.compress_size} bytes from byte {member.header_offset}, "
                f"got a file of {self.size} bytes"
            )

    def read(self, name: str) -> np.ndarray:
        """Read a member, (size,) uint8; the standard library checks its checksum. Raises FormatError."""
        member = self.members[name]
        content = np.empty(member.file_size, np.uint8)
        start = 0
        try:
            with self._archive.open(member) as file:
                while chunk := file.read(CHUNK):
                    if start + len(chunk) > len(content):
                        raise FormatError(f"{self.path}, {name}: expected {len(content)} bytes, got more")
                    content[start : start + len(chunk)] = np.frombuffer(chunk, np.uint8)
                    start += len(chunk)
        except _DAMAGE as error:
            raise FormatError(f"{self.path}, {name}: damaged: {error}") from error
        if start < len(content):
            raise FormatError(f"{self.path}, {name}: expected {len(content)} bytes, got {start}")
        return content


@contextmanager
def open_archive(path: str | Path) -> Iterator[Archive]:
    """Open an archive and check its table: members lie inside the file and are not too large.

    Together they may be as large as the file, or eight times as large if any is compressed. Raises FormatError for
    anything else, and OSError if the file cannot be read.
    """
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            archive = zipfile.ZipFile(file)
        except _DAMAGE as error:
            raise FormatError(f"{path}: not a whole zip archive: {error}") from error
        with archive:
            yield Archive(path, size, archive)

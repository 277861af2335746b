"""The bytes of an untrusted HDF5 file, with a limit on how much may be read and made from them."""

import struct
from typing import Any, BinaryIO

from gpulstm.errors import FormatError

REREAD = 4  # times its size that may be read from a file, as it may refer to a structure more than once
UNDEFINED = 2**64 - 1  # the address of a missing structure


class Source:
    """One file; ``left`` is the number of bytes that may still be read, or used by objects made from it."""

    def __init__(self, file: BinaryIO, size: int, where: str) -> None:
        self.file, self.size, self.where, self.left = file, size, where, REREAD * size

    def spend(self, count: int) -> None:
        """Count bytes that are read, or that names and strings take; raises FormatError for too many."""
        self.left -= count
        if self.left < 0:
            raise FormatError(
                f"{self.where}: expected each part of the file once or twice, got parts that repeat themselves"
            )

    def take(self, start: int, count: int, what: str) -> bytes:
        """Read ``count`` bytes from byte ``start``."""
        if start + count > self.size:
            raise FormatError(
                f"{self.where}: expected {what} in bytes {start} to {start + count}, got {self.size} bytes"
            )
        self.spend(count)
        self.file.seek(start)
        data = self.file.read(count)
        if len(data) < count:
            raise FormatError(f"{self.where}: expected {what} in bytes {start} to {start + count}, got fewer bytes")
        return data

    def unpack(self, start: int, layout: str, what: str) -> tuple[Any, ...]:
        """Read numbers from byte ``start``, in the layout of the module struct."""
        return struct.unpack(f"<{layout}", self.take(start, struct.calcsize(f"<{layout}"), what))

    def expect(self, start: int, signature: bytes, layout: str, what: str) -> tuple[Any, ...]:
        """As ``unpack``, after a signature of four bytes that must match."""
        found, *numbers = self.unpack(start, f"4s{layout}", what)
        if found != signature:
            raise FormatError(f"{self.where}: expected {what} at byte {start}, got something else")
        return tuple(numbers)

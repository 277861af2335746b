"""Reads files of torch.save, zip archives and those before version 1.6, without PyTorch and without running code."""

import io
import os
import struct
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpulstm.errors import FormatError
from gpulstm.io.archive import Archive, open_archive
from gpulstm.io.sniff import TORCH, TORCH_LEGACY, kind_of
from gpulstm.io.torch import budget as cost
from gpulstm.io.torch import tree
from gpulstm.io.torch.budget import Budget
from gpulstm.io.torch.names import TorchNames
from gpulstm.io.torch.tensors import Tensors
from gpulstm.io.torch.unpickle import LARGEST, unpickle
from gpulstm.io.torch.unread import Refused, Unread

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001  # the numbers that begin a file from before version 1.6
_REPEATED = 16  # entries of the value allowed per byte of its pickle, which may refer to the same part many times


def read(path: str | Path) -> Any:
    """See ``gpulstm.io.torch.load``."""
    kind = kind_of(path)
    if kind not in (TORCH, TORCH_LEGACY):
        raise FormatError(f"{path}: expected a file of torch.save, got {kind}")
    reader = _Archived if kind == TORCH else _Legacy
    return reader(path).load()


class _Reader(ABC):
    """What both formats share."""

    def __init__(self, path: str | Path) -> None:
        self.path, self.notes = path, ""

    def load(self) -> Any:
        """Read the value and check it; warn of parts that were not read."""
        try:
            value = self._load()
            if isinstance(value, Unread):
                raise FormatError(_of_no_data(value))
            unread = tree.check(value, _REPEATED * self.length)
        except FormatError as error:
            text = str(error)
            raise FormatError(text if text.startswith(f"{self.path}") else f"{self.path}: {text}") from error
        self._warn(unread)
        return value

    @abstractmethod
    def _load(self) -> Any:
        """The value of the file's pickle."""

    def _unpickle(self, file: BinaryIO, size: int, where: str) -> Any:
        start = file.tell()
        value = unpickle(file, size, where, self.names, self.tensors.budget)
        self.length = file.tell() - start
        return value

    def _warn(self, unread: list[str]) -> None:
        parts = [f"these entries are gl.io.torch.Unread: {tree.listed(unread)}"] if unread else []
        if self.names.rebuild.notes:
            parts.append(f"attributes of tensors were left out: {tree.listed(sorted(self.names.rebuild.notes))}")
        if self.notes:
            parts.append(self.notes)
        if parts:
            warnings.warn(f"{self.path}: not everything was read; {'; '.join(parts)}", stacklevel=5)

    def _begin(self, budget: Budget, order: str) -> None:
        self.tensors = Tensors(self._find, budget, order)
        self.names = TorchNames(self.tensors)

    @abstractmethod
    def _find(self, key: str, size: int) -> np.ndarray:
        """The bytes of a storage."""


class _Archived(_Reader):
    """A zip archive: the pickle and each storage are members."""

    def _load(self) -> Any:
        with open_archive(self.path) as self.archive:
            roots = [name.removesuffix("data.pkl") for name in self.archive.members if _is_pickle(name)]
            if len(roots) != 1:
                raise FormatError(f"expected one member NAME/data.pkl, as torch.save writes it, got {len(roots)}")
            self.root = roots[0]
            member = f"{self.root}data.pkl"
            if self.archive.members[member].file_size > LARGEST:
                raise FormatError(f"{member}: expected at most {LARGEST} bytes")
            self._begin(Budget(self.archive.size), self._byte_order(self.archive))
            file, size = io.BytesIO(self.archive.read(member).data), self.archive.members[member].file_size
            members = self.archive.members.values()
            inflated = max(0, sum(one.file_size for one in members) - self.archive.size)
            self.tensors.budget.spend(cost.MEMBER * len(members) + inflated)
            value = self._unpickle(file, size, f"{self.path}, {member}")
            if (rest := size - file.tell()) > 0:
                raise FormatError(f"{member}, byte {file.tell()}: expected the end, got {rest} more bytes")
            self.tensors.finish()
        return value

    def _byte_order(self, archive: Archive) -> str:
        member = f"{self.root}byteorder"
        if member not in archive.members:
            return "little"  # older files do not say it
        if archive.members[member].file_size <= len("little"):
            order = archive.read(member).tobytes()
            if order in (b"little", b"big"):
                return order.decode()
        raise FormatError(f"{member}: expected 'little' or 'big', got something else")

    def _find(self, key: str, size: int) -> np.ndarray:
        name = f"{self.root}data/{key}"
        if name not in self.archive.members:
            raise FormatError(f"expected a storage of the archive, got {key!r:.200}")
        if (held := self.archive.members[name].file_size) != size:
            raise FormatError(f"storage {key}: expected {held} bytes, as the archive holds, got {size}")
        return self.archive.read(name)


def _is_pickle(name: str) -> bool:
    return name == "data.pkl" or name.endswith("/data.pkl")


class _Legacy(_Reader):
    """The format before PyTorch 1.6: pickles one after the other, then the storages.

    The pickles are two numbers, the writer's machine, the value, and the storages' keys. Each storage is its length in
    elements and its bytes, always in little-endian order.
    """

    def _load(self) -> Any:
        with Path(self.path).open("rb") as self.file:
            self.size = os.fstat(self.file.fileno()).st_size
            self.free = self.size
            self._begin(Budget(self.size), "little")
            for want in (_MAGIC, _VERSION):
                got = self._next()
                if type(got) is not int or got != want:
                    raise FormatError(f"expected the number {want} at the beginning, got another or none")
            self._next()
            value = self._next()
            length, keys = self.length, self._next()
            if type(keys) is not list or not all(type(key) is str for key in keys):
                raise FormatError("expected the list of the storages' keys, got something else")
            if set(keys) != set(self.tensors.whole) or len(keys) != len(self.tensors.whole):
                raise FormatError(f"expected the keys of {len(self.tensors.whole)} storages, got {len(keys)} others")
            for key in keys:
                self._fill(key)
            if (rest := self.size - self.file.tell()) > 0:
                self.notes = f"{rest} bytes follow the value, perhaps another value"
            self.tensors.finish()
        self.length = length
        return value

    def _next(self) -> Any:
        return self._unpickle(self.file, self.size, str(self.path))

    def _find(self, key: str, size: int) -> np.ndarray:
        """Allocate memory for a storage, which ``_fill`` fills; all storages are no larger than the file."""
        self.free -= size
        if size < 0 or self.free < 0:
            raise FormatError(f"storage {key}: expected bytes of the file, which has {self.size}, got {size}")
        return np.empty(size, np.uint8)

    def _fill(self, key: str) -> None:
        storage, place = self.tensors.whole[key], self.file.tell()
        data = storage.data
        head = self.file.read(8)
        (count,) = struct.unpack("<q", head) if len(head) == 8 else (-1,)
        if count not in (len(data), len(storage.array)):
            raise FormatError(f"byte {place}: expected {len(data)} bytes for storage {key}, got {count} elements")
        if (got := self.file.readinto(data.data)) != len(data):
            raise FormatError(f"byte {place}: expected {len(data)} bytes for storage {key}, got {got}")


def _of_no_data(value: Unread) -> str:
    """The message for a file whose whole content is one object that is not data."""
    if isinstance(value, Refused):
        return f"expected a tensor that an array can hold, got {value.arguments[0]}"
    is_module = type(value.state) is dict and {"_modules", "_parameters"} <= set(value.state)
    what = "a whole module" if is_module else "an object"
    advice = (
        "where its class is defined, load it with PyTorch and save its weights: torch.save(model.state_dict(), path)"
    )
    return f"expected a state dict, got {what} of the class {value.name:.200}; {advice}"

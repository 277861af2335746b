"""Reads the tensors of a file that torch.save wrote, without PyTorch and without running code."""

import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpulstm.backend import as_dtype
from gpulstm.errors import FormatError
from gpulstm.io.archive import Archive, open_archive
from gpulstm.io.torch.unpickle import LARGEST, Name, unpickle

STORAGES = {
    "torch.DoubleStorage": "float64", "torch.FloatStorage": "float32", "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16", "torch.LongStorage": "int64", "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16", "torch.CharStorage": "int8", "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}  # fmt: skip
# Element types without a storage class of their own; their tensors say the type and keep bytes.
UNTYPED = "torch.storage.UntypedStorage"
DTYPES = {"torch.uint16": "uint16", "torch.uint32": "uint32", "torch.uint64": "uint64"}
TENSOR, TENSOR_OF_TYPE = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3"
PARAMETER, SIZE, ORDERED_DICT = "torch._utils._rebuild_parameter", "torch.Size", "collections.OrderedDict"
NAMES = {*STORAGES, UNTYPED, *DTYPES, TENSOR, TENSOR_OF_TYPE, PARAMETER, SIZE, ORDERED_DICT}

# The first bytes of what torch.save wrote before version 1.6, a pickled number.
_BEFORE_ZIP = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_MOST_AXES = 64  # NumPy's limit


class Storage(NamedTuple):
    """Bytes in the archive that tensors are views of."""

    key: str
    dtype: str | None  # None where each tensor says it
    length: int  # in elements; in bytes where dtype is None


def read(path: str | Path) -> Any:
    """See ``gpulstm.io.torch.load``."""
    with Path(path).open("rb") as file:
        if file.read(len(_BEFORE_ZIP)) == _BEFORE_ZIP:
            raise FormatError(
                f"{path}: want a zip archive, which torch.save writes since version 1.6, got the format before it; "
                "load and save it again with PyTorch"
            )
    with open_archive(path) as archive:
        return _Tensors(archive).load()


class _Tensors:
    """The storages of one archive, each read once, and the tensors on them."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        roots = [name.removesuffix("data.pkl") for name in archive.members if name.endswith("/data.pkl")]
        if len(roots) != 1 or roots[0].count("/") != 1:
            raise FormatError(
                f"{archive.path}: want one member NAME/data.pkl, as torch.save writes it, got {len(roots)}"
            )
        self.root = roots[0]
        if f"{self.root}constants.pkl" in archive.members:
            raise FormatError(f"{archive.path}: want tensors, got a TorchScript program; save its state_dict()")
        self.storages: dict[str, tuple[np.dtype, np.ndarray]] = {}

    def load(self) -> Any:
        """The value that was saved."""
        archive, member = self.archive, f"{self.root}data.pkl"
        self.swapped = self._byte_order() != sys.byteorder
        if archive.members[member].file_size > LARGEST:
            raise FormatError(f"{archive.path}, {member}: want at most {LARGEST} bytes")
        data = archive.read(member).tobytes()
        return unpickle(data, f"{archive.path}, {member}", NAMES, self._call, self._storage)

    def _byte_order(self) -> str:
        member = f"{self.root}byteorder"
        if member not in self.archive.members:
            return "little"  # files older than the note about it
        if self.archive.members[member].file_size <= len("little"):
            order = self.archive.read(member).tobytes()
            if order in (b"little", b"big"):
                return order.decode()
        raise FormatError(f"{self.archive.path}, {member}: want 'little' or 'big', got something else")

    def _call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """What stands for a name applied to arguments; the names are those of NAMES."""
        if name == ORDERED_DICT and not arguments:
            return {}
        if name == SIZE and len(arguments) == 1 and _are_sizes(arguments[0]):
            return arguments[0]
        if name == PARAMETER and len(arguments) == 3 and isinstance(arguments[0], np.ndarray):
            return arguments[0]
        if name == TENSOR and len(arguments) in (6, 7):  # the last: notes of tensors
            storage, offset, shape, strides = arguments[:4]
            return self._tensor(storage, offset, shape, strides, None)
        if name == TENSOR_OF_TYPE and len(arguments) in (7, 8):
            storage, offset, shape, strides, _, _, kind = arguments[:7]
            return self._tensor(storage, offset, shape, strides, kind)
        raise FormatError(f"want the arguments that torch.save writes for {name}, got others")

    def _storage(self, identity: Any) -> Storage:
        """The storage a pickle names: ("storage", its type, key, device, number of elements)."""
        if type(identity) is not tuple or len(identity) != 5 or identity[0] != "storage":
            raise FormatError("want the name of a storage, got something else")
        _, kind, key, _, length = identity
        if not isinstance(kind, Name) or kind.text not in (*STORAGES, UNTYPED):
            raise FormatError("want a type of storage, got something else")
        member = self.archive.members.get(f"{self.root}data/{key}") if type(key) is str else None
        if member is None:
            raise FormatError(f"want a storage of the archive, got {key!r:.200}")
        storage = Storage(key, STORAGES.get(kind.text), length)
        size = _dtype(storage.dtype).itemsize if storage.dtype else 1
        if type(length) is not int or length * size != member.file_size:
            raise FormatError(
                f"storage {key}: want {member.file_size} bytes, as the archive holds, got {length!r:.50} times {size}"
            )
        return storage

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, kind: Any) -> np.ndarray:
        """A view of a storage; offset and strides in elements."""
        if not isinstance(storage, Storage) or not _are_sizes((offset,)):
            raise FormatError("want a tensor of a storage and an offset, got something else")
        if not _are_sizes(shape) or not _are_sizes(strides) or len(shape) != len(strides) or len(shape) > _MOST_AXES:
            raise FormatError("want a tensor of sizes and strides from 0 up, as many of each, got others")
        if kind is not None if storage.dtype else not (isinstance(kind, Name) and kind.text in DTYPES):
            raise FormatError("want one element type for a tensor, got none or two")
        dtype = _dtype(storage.dtype or DTYPES[kind.text])
        held = storage.length if storage.dtype else storage.length // dtype.itemsize
        if not storage.dtype and storage.length % dtype.itemsize:
            raise FormatError(f"storage {storage.key}: want whole elements of {dtype}, got {storage.length} bytes")
        if math.prod(shape) == 0:
            last = offset - 1
        else:
            last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        if last >= held:
            raise FormatError(f"tensor {shape}: want its elements in a storage of {held}, got one at place {last}")
        # An expanded tensor repeats elements; a copy of it must not fill memory either.
        if math.prod(n or 1 for n in shape) * dtype.itemsize > (self.archive.size if 0 not in shape else 2**62):
            raise FormatError(f"tensor {shape}: want at most {self.archive.size} bytes, the file's size, got more")
        data = self._read(storage.key, dtype)
        steps = [stride * dtype.itemsize if n > 1 else dtype.itemsize for n, stride in zip(shape, strides, strict=True)]
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.ndarray(shape, dtype, data.data, offset * dtype.itemsize, steps)

    def _read(self, key: str, dtype: np.dtype) -> np.ndarray:
        """The bytes of a storage, (size,) uint8, in the machine's order."""
        if key not in self.storages:
            data = self.archive.read(f"{self.root}data/{key}")
            if dtype == np.bool_:
                np.not_equal(data, 0, out=data.view(np.bool_))  # NumPy knows no third value
            if self.swapped:
                data[...] = data.reshape(-1, dtype.itemsize)[:, ::-1].reshape(-1).copy()
            self.storages[key] = dtype, data
        known, data = self.storages[key]
        if known != dtype:
            raise FormatError(f"storage {key}: want one element type, got {known} and {dtype}")
        return data


def _are_sizes(values: Any) -> bool:
    """Whether this is a tuple of integers from 0 to 2^63 - 1."""
    return type(values) is tuple and all(type(n) is int and 0 <= n < 2**63 for n in values)


def _dtype(name: str) -> np.dtype:
    return as_dtype(name) if name == "bfloat16" else np.dtype(name)

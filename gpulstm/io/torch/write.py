"""Writes tensors in the format of torch.save: a zip archive of a pickle and of the bytes of each array."""

import pickle
import struct
import sys
import zipfile
from collections import Counter
from typing import Any, BinaryIO

import numpy as np

from gpulstm.backend import backend_of
from gpulstm.errors import DTypeError, FormatError
from gpulstm.io.torch.dtypes import NEW, STORAGES, UNTYPED
from gpulstm.io.torch.tree import DEEPEST
from gpulstm.io.torch.unread import Unread
from gpulstm.plain import native
from gpulstm.tape import Tensor

ROOT = "archive"
ALIGNMENT = 64  # bytes; arrays begin at multiples of it, so that PyTorch can map the file into memory
_HEADER = 30  # bytes of a zip member's header before its name
_TENSOR, _TENSOR_OF_TYPE = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3"
_STORAGE_OF = {dtype: name for name, dtype in STORAGES.items()}
_DTYPES = {*_STORAGE_OF, *NEW}


class Pickle:
    """The pickle, protocol 2, of a value; the arrays in it are collected in ``arrays``, each once."""

    def __init__(self, value: Any) -> None:
        self.arrays: list[Any] = []
        self._places: dict[int, int] = {}
        self._parts = [pickle.PROTO + b"\2"]
        self._write(value, "", 0)
        self.data = b"".join([*self._parts, pickle.STOP])

    def _write(self, value: Any, where: str, depth: int) -> None:
        if depth > DEEPEST:
            raise FormatError(f"{where}: expected lists and dicts at most {DEEPEST} deep, got deeper ones")
        value = value.data if isinstance(value, Tensor) else value
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, dict):
            self._dict(value, where, depth)
        elif isinstance(value, set):
            self._call("builtins.set", [list(value)], where, depth)
        elif isinstance(value, list | tuple):
            self._put(*([pickle.EMPTY_LIST] if isinstance(value, list) else []), pickle.MARK)
            for n, inner in enumerate(value):
                self._write(inner, f"{where}.{n}" if where else str(n), depth + 1)
            self._put(pickle.APPENDS if isinstance(value, list) else pickle.TUPLE)
        elif isinstance(value, np.dtype):
            if value.name not in _DTYPES:
                raise DTypeError(f"{where}: expected one of {', '.join(sorted(_DTYPES))}, got {value.name}")
            self._name(f"torch.{value.name}")
        elif hasattr(value, "dtype"):
            self._array(value, where)
        else:
            self._scalar(value, where)

    def _dict(self, value: dict[Any, Any], where: str, depth: int) -> None:
        """A dict; a Counter stays a Counter, other subclasses become dicts."""
        if isinstance(value, Counter):
            return self._call("collections.Counter", [dict(value)], where, depth)
        self._put(pickle.EMPTY_DICT, pickle.MARK)
        for key, inner in value.items():
            self._key(key, where)
            self._write(inner, f"{where}.{key}" if where else str(key), depth + 1)
        self._put(pickle.SETITEMS)

    def _key(self, key: Any, where: str) -> None:
        """A string, a number, or a tuple of them, of any depth."""
        if isinstance(key, tuple):
            self._put(pickle.MARK)
            for part in key:
                self._key(part, where)
            self._put(pickle.TUPLE)
        elif isinstance(key, str | int | float | bytes | None | np.generic):
            self._scalar(key.item() if isinstance(key, np.generic) else key, where)
        else:
            raise FormatError(f"{where}: expected strings, numbers or tuples of them as keys, got {key!r:.100}")

    def _call(self, name: str, arguments: list[Any], where: str, depth: int) -> None:
        """One of the names that ``torch.load(weights_only=True)`` calls."""
        self._name(name)
        self._put(pickle.MARK)
        for argument in arguments:
            self._write(argument, where, depth + 1)
        self._put(pickle.TUPLE, pickle.REDUCE)

    def _put(self, *parts: bytes) -> None:
        self._parts.extend(parts)

    def _scalar(self, value: Any, where: str) -> None:
        if value is None:
            self._put(pickle.NONE)
        elif isinstance(value, bool):
            self._put(pickle.NEWTRUE if value else pickle.NEWFALSE)
        elif isinstance(value, int):
            if -(2**31) <= value < 2**31:
                self._put(pickle.BININT, struct.pack("<i", value))
            elif len(number := pickle.encode_long(value)) < 256:
                self._put(pickle.LONG1, bytes([len(number)]), number)
            else:
                raise DTypeError(f"{where}: expected integers of at most 255 bytes, got one of {len(number)}")
        elif isinstance(value, float):
            self._put(pickle.BINFLOAT, struct.pack(">d", value))
        elif isinstance(value, str):
            text = value.encode("utf-8", "surrogatepass")
            if len(text) >= 2**32:
                raise DTypeError(f"{where}: expected strings and bytes of less than 4 GiB, got {len(text)} bytes")
            self._put(pickle.BINUNICODE, struct.pack("<I", len(text)), text)
        elif isinstance(value, complex):
            self._call("builtins.complex", [value.real, value.imag], where, 0)
        elif isinstance(value, bytearray):
            self._call("builtins.bytearray", [bytes(value)], where, 0)
        elif isinstance(value, bytes):
            self._call("_codecs.encode", [value.decode("latin-1"), "latin1"], where, 0)
        elif isinstance(value, Unread):
            raise DTypeError(f"{where}: expected data, got {value}, which stands for an object; leave it out")
        else:
            way = "; give its state_dict()" if hasattr(value, "state_dict") else ""
            raise DTypeError(
                f"{where or 'state_dict'}: expected arrays, numbers, strings, bytes, lists, dicts and sets, "
                f"got {type(value).__name__}{way}"
            )

    def _name(self, text: str) -> None:
        self._put(pickle.GLOBAL, text.rpartition(".")[0].encode(), b"\n", text.rpartition(".")[2].encode(), b"\n")

    def _array(self, array: Any, where: str) -> None:
        """A call of PyTorch's function that makes a tensor: storage, offset, shape, strides, no gradient, no hooks."""
        given, array = array, native(array)
        dtype = backend_of(**{where or "state_dict": array}) and array.dtype.name  # backend_of refuses other objects
        if dtype not in _DTYPES:
            raise DTypeError(f"{where}: expected one of {', '.join(sorted(_DTYPES))}, got {dtype}")
        if id(given) not in self._places:  # weights that two names share are written once, as PyTorch does
            self._places[id(given)] = len(self.arrays)
            self.arrays.append(array)
        typed = dtype in _STORAGE_OF
        self._name(_TENSOR if typed else _TENSOR_OF_TYPE)
        self._put(pickle.MARK, pickle.MARK)
        self._scalar("storage", where)
        self._name(_STORAGE_OF.get(dtype, UNTYPED))
        self._scalar(str(self._places[id(given)]), where)
        self._scalar("cpu", where)
        self._scalar(array.size if typed else array.nbytes, where)
        self._put(pickle.TUPLE, pickle.BINPERSID)
        self._scalar(0, where)
        strides = [1] * array.ndim  # in elements, of the array in C order
        for axis in range(array.ndim - 1, 0, -1):
            strides[axis - 1] = strides[axis] * array.shape[axis]
        for sizes in (array.shape, strides):
            self._put(pickle.MARK)
            for n in sizes:
                self._scalar(int(n), where)
            self._put(pickle.TUPLE)
        self._scalar(False, where)
        self._name("collections.OrderedDict")
        self._put(pickle.EMPTY_TUPLE, pickle.REDUCE)
        if not typed:
            self._name(f"torch.{dtype}")
        self._put(pickle.TUPLE, pickle.REDUCE)


def write(file: BinaryIO, pickled: Pickle) -> None:
    """Write the archive of a pickled value to an open file."""
    with zipfile.ZipFile(file, "w") as archive:
        _member(archive, "data.pkl", pickled.data)
        _member(archive, "byteorder", sys.byteorder.encode())
        for n, array in enumerate(pickled.arrays):
            host = np.asarray(backend_of(array).to_numpy(array))
            host = np.asarray(host, order="C")
            _member(archive, f"data/{n}", host.reshape(-1).view(np.uint8).data)
        _member(archive, "version", b"3\n")


def _member(archive: zipfile.ZipFile, name: str, data: bytes | memoryview) -> None:
    """Write one member, uncompressed and aligned; without a date, so that equal values make equal files."""
    member = zipfile.ZipInfo(f"{ROOT}/{name}", (1980, 1, 1, 0, 0, 0))
    member.file_size = len(data)
    assert archive.fp is not None
    start = archive.fp.tell() + _HEADER + len(member.filename) + 4
    # An extra field, which readers skip, pads to the alignment. PyTorch uses the same name for it.
    padding = -start % ALIGNMENT
    member.extra = b"FB" + struct.pack("<H", padding) + bytes(padding)
    with archive.open(member, "w") as stream:
        stream.write(data)

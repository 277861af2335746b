"""Recognises file formats by the first bytes and by the names in an archive, so that messages can name the reader."""

import pickle
import zipfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

from gpulstm.io.files import as_path

_HEAD = 512  # bytes
# The number that begins a file of torch.save before version 1.6.
TORCH_MAGIC = pickle.LONG1 + b"\nl\xfc\x9cF\xf9 j\xa8P\x19."
_UNPACK = "unpack it first"


class Kind(NamedTuple):
    """A file format in words, and how to read such a file."""

    what: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.what}; {self.advice}" if self.advice else self.what


TORCH = Kind("a file of torch.save", "read it with gl.io.torch.load(path)")
TORCH_LEGACY = Kind("a file of torch.save before PyTorch 1.6", "read it with gl.io.torch.load(path)")
TORCHSCRIPT = Kind(
    "a TorchScript program",
    "in PyTorch: torch.save(torch.jit.load(path).state_dict(), new_path)",
)
EXPORTED = Kind("a program of torch.export", "in PyTorch: torch.save(torch.export.load(path).state_dict, new_path)")
TORCH_PACKAGE = Kind("an archive of torch.package", "in PyTorch: load the model and save its state_dict()")
TORCH_TAR = Kind(
    "a tar archive of PyTorch 0.1",
    "in PyTorch: load it with torch.load(path, weights_only=False), if you trust it, and save its state_dict()",
)
KERAS = Kind("a Keras file", "read it with gl.io.keras.load(path)")
HDF5 = Kind("an HDF5 file, as Keras writes them", "read it with gl.io.keras.load(path)")
NPZ = Kind("arrays of numpy.savez", "read it with numpy.load(path)")
ZIP = Kind("a zip archive of something else")
PICKLE = Kind(
    "a pickle of Python, as pickle.dump and joblib.dump write them",
    "in the program that wrote it, save the weights with gl.save, numpy.savez or torch.save(model.state_dict(), path)",
)
ONNX = Kind("an ONNX model", "read it with gl.io.onnx.load(path)")
SAFETENSORS = Kind("a safetensors file", "read it with gl.io.load_arrays(path)")
# Fields that may follow a model's version: its producer's name and version, domain, number, graph, opsets.
_ONNX_FIELDS = (b"\x12", b"\x1a", b"\x22", b"\x28", b"\x3a", b"\x42")
_BEGINNINGS = (
    (b"\x89HDF\r\n\x1a\n", HDF5),
    (b"\x93NUMPY", Kind("an array of numpy.save", "read it with numpy.load(path)")),
    (b"version https://git-lfs", Kind("a pointer of Git LFS, not the file itself", "fetch it with git lfs pull")),
    (b"\x1f\x8b", Kind("a file compressed with gzip", _UNPACK)),
    (b"BZh", Kind("a file compressed with bzip2", _UNPACK)),
    (b"\xfd7zXZ\0", Kind("a file compressed with xz", _UNPACK)),
    (b"\x28\xb5\x2f\xfd", Kind("a file compressed with zstd", _UNPACK)),
    (b"x\x9c", Kind("a file compressed with zlib, as joblib.dump does", PICKLE.advice)),
    (b"7z\xbc\xaf\x27\x1c", Kind("a 7z archive", _UNPACK)),
    (b"Rar!", Kind("a RAR archive", _UNPACK)),
    (b"\x08\x01\x12", Kind("a SavedModel of TensorFlow", "in Keras: model.save('model.keras')")),
)


def kind_of(path: str | Path) -> Kind:
    """Recognise the format of a file by its first bytes and the names in its archive. Raises OSError."""
    with as_path(path).open("rb") as file:
        head = file.read(_HEAD)
        known = _of_head(head)
        return known or _of_archive(file) or Kind(f"bytes of an unknown format, which begin with {head[:16]!r}")


def _of_head(head: bytes) -> Kind | None:
    """Recognise a format by the first bytes alone."""
    text = head.lstrip().lower()
    if not head:
        return Kind("an empty file")
    if TORCH_MAGIC in head[:40]:
        return TORCH_LEGACY
    if head[:1] == b"\x80" and head[1:2] and head[1] <= pickle.HIGHEST_PROTOCOL:
        return PICKLE
    if head[257:262] == b"ustar":
        return (
            TORCH_TAR
            if head[:100].rstrip(b"\0") in (b"sys_info", b"pickle", b"tensors", b"storages")
            else (Kind("a tar archive", _UNPACK))
        )
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return Kind("a web page, not the file itself", "download the file again")
    if head[4:8] == b"TFL3":
        return Kind("a TensorFlow Lite model")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return SAFETENSORS
    if head[:1] == b"\x08" and b"\2" < head[1:2] < b"\x20" and head[2:3] in _ONNX_FIELDS:
        return ONNX
    if text.startswith((b"{", b"[")):
        return Kind("a text file, perhaps JSON")
    return next((kind for start, kind in _BEGINNINGS if head.startswith(start)), None)


def _of_archive(file: BinaryIO) -> Kind | None:
    """Recognise a format by the names in a zip archive, which other bytes may precede."""
    try:
        file.seek(0)
        starts = file.read(4) == b"PK\3\4"
        if not starts and not zipfile.is_zipfile(file):
            return None
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, OverflowError, KeyError):
        return Kind("a damaged zip archive", "copy or download it again")
    last = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in last and "data.pkl" in last:
        return TORCHSCRIPT
    if "extern_modules" in last:
        return TORCH_PACKAGE
    if "serialized_exported_program.json" in last or "archive_format" in last:
        return EXPORTED
    if "data.pkl" in last:
        return TORCH
    if "config.json" in last and "model.weights.h5" in last:
        return KERAS
    return NPZ if names and all(name.endswith(".npy") for name in names) else ZIP

"""Arrays in safetensors files: written atomically, and checked when they are read."""

import errno
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpulstm.backend import backend_of
from gpulstm.dtypes import as_dtype
from gpulstm.errors import DTypeError, FileExists, FormatError
from gpulstm.plain import native

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

HEADER_LENGTH = 8  # bytes; a little-endian number, the size of the JSON header that follows it
LARGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors library
_DTYPES = {
    "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64",
    "float16", "bfloat16", "float32", "float64",
}  # fmt: skip


def save_arrays(path: str | Path, arrays: dict[str, Any], metadata: dict[str, str] | None = None) -> None:
    """Write named NumPy and CuPy arrays, of any shape, and metadata (strings) to one safetensors file.

    The file is replaced as a whole or not at all, see ``atomic_write``. Arrays are copied to the host, in C order. The
    order of several metadata keys is not fixed. Raises DTypeError for names that are not strings, for anything but
    arrays and for element types that the format lacks, FormatError for the name ``__metadata__``, and OSError if the
    file cannot be written.

    >>> gl.io.save_arrays("a.safetensors", {"x": np.ones(2)}, {"unit": "m"})
    """
    from safetensors.numpy import save

    path = as_path(path, arrays)
    _check_texts("arrays", arrays)
    if metadata is not None:
        _check_texts("metadata", metadata, values=True)
    if "__metadata__" in arrays:
        raise FormatError("arrays: expected names other than '__metadata__', which the format keeps for itself")
    host = {name: _host(name, array) for name, array in arrays.items()}
    data = save(host, metadata or None)  # for an empty dict without arrays the library writes a broken header
    atomic_write(path, lambda file: file.write(data))


def load_arrays(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read the arrays, of any shape, and the metadata of a safetensors file, without running code from it.

    Sizes are checked against the size of the file before memory is allocated. bfloat16 arrays have the dtype of
    ml_dtypes. Raises FormatError, saying what is wrong and where, for a file that is damaged or has another format,
    DTypeError for bfloat16 without the package ml_dtypes, and OSError if the file cannot be read.

    >>> gl.io.save_arrays("a.safetensors", {"x": np.ones(2)}, {"unit": "m"})
    >>> gl.io.load_arrays("a.safetensors")
    ({'x': array([1., 1.])}, {'unit': 'm'})
    """
    from safetensors import SafetensorError, safe_open

    path = as_path(path)
    with path.open("rb"):
        pass  # for a folder or a missing permission this raises the system's error instead of the library's
    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            names = list(file.keys())
            if any(file.get_slice(name).get_dtype() == "BF16" for name in names):
                as_dtype("bfloat16")  # imports ml_dtypes, which gives NumPy this type
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except SafetensorError as error:
        raise FormatError(f"{path}: not a whole safetensors file: {_fault(path) or error}") from error
    except (AttributeError, KeyError) as error:  # what the library raises for an element type that NumPy lacks
        raise FormatError(f"{path}: expected element types that NumPy knows, got others: {error}") from error
    except (OverflowError, ValueError) as error:  # too many axes, or too large an array, for NumPy
        raise FormatError(f"{path}: expected arrays that NumPy can hold, got others: {error}") from error


def as_path(path: Any, second: Any = None, *, name: str = "path") -> Path:
    """Return the argument as a Path; ``second`` is the next argument, in case the two were swapped.

    Raises DTypeError for anything but a string or a path, and FormatError for a string that cannot be a path.
    """
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else path
    if not isinstance(text, str):
        advice = ""
        if hasattr(path, "read") or hasattr(path, "write"):
            advice = "; give the name of a file on disk, not an open file or one in memory"
        elif isinstance(second, str | os.PathLike):
            advice = "; the path comes first"
        raise DTypeError(f"{name}: expected a string or a pathlib.Path, got {type(path).__name__}{advice}")
    if "\0" in text:
        raise FormatError(f"{name}: expected a string without null characters, got {text!r:.100}")
    return Path(text)


def _check_texts(name: str, given: Any, values: bool = False) -> None:
    """Raises DTypeError unless it is a dict whose keys (and with ``values`` also its values) are strings."""
    if not isinstance(given, Mapping):
        raise DTypeError(f"{name}: expected a dict, got {type(given).__name__}")
    for text in (*given, *(given.values() if values else ())):
        if not isinstance(text, str):
            raise DTypeError(f"{name}: expected strings{'' if values else ' as names'}, got {text!r:.60}")


def atomic_write(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Replace a file atomically: at every moment either the old or the new file is there, complete.

    ``write(file)`` writes the bytes to a temporary file in the same folder, which then takes the name ``path``. Raises
    what ``write`` raises, and OSError if the file cannot be written; then the old file is unchanged and the temporary
    one is gone. A symbolic link is kept, and the file it points to is replaced.

    >>> gl.io.atomic_write("note.txt", lambda file: file.write(b"done"))
    >>> with open("note.txt") as file:
    ...     file.read()
    'done'
    """
    target = Path(os.path.realpath(as_path(path)))
    if not callable(write):
        raise DTypeError(f"write: expected a function of the open file, got {type(write).__name__}")
    with _temporary(path, target) as (temporary, file):
        with file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        if os.name == "posix":
            _sync_folder(target.parent)


def check_writable(path: str | Path) -> None:
    """Raise OSError, saying why, if ``atomic_write(path, ...)`` would fail now; leave no file behind.

    Call it before a long job that will write its result there.

    >>> gl.io.check_writable("result.safetensors")
    """
    with _temporary(path, Path(os.path.realpath(as_path(path)))) as (_, file):
        file.write(b"\0")
        file.flush()


@contextmanager
def hold(path: str | Path) -> Iterator[None]:
    """Lock the path until the block ends, against every other run of this process or another.

    The system locks a file beside it, ``.NAME.lock``, and unlocks it however the process ends. If the system or the
    folder has no such locks, and for devices, nothing is locked. Raises FileExists if another run holds the lock.
    """
    target = Path(os.path.realpath(as_path(path)))
    lock = target.parent / f".{target.name}.lock"
    file = _locked(lock, path) if fcntl is not None and (target.is_file() or not target.exists()) else None
    try:
        yield
    finally:
        if file is not None:
            lock.unlink(missing_ok=True)  # before unlocking: afterwards it may be another run's
            file.close()


def _locked(lock: Path, path: str | Path) -> BinaryIO | None:
    """The lock file, open and locked; None if there can be no lock."""
    while True:
        try:
            file = lock.open("ab")
        except OSError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(lock.stat(), os.fstat(file.fileno())):
                return file
        except FileNotFoundError:
            pass  # the run before has just ended and deleted it
        except BlockingIOError as error:
            file.close()
            raise FileExists(
                f"{path}: another run is writing it now; wait until it ends, or give another name"
            ) from error
        except OSError:
            file.close()
            lock.unlink(missing_ok=True)
            return None
        file.close()


@contextmanager
def _temporary(path: str | Path, target: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file in the target's folder, open for writing; deleted at the end unless it was renamed.

    An OSError, also one from the body of the ``with`` block, is raised again with ``path`` and the reason.
    """
    temporary = target.parent / f".gpulstm-{secrets.token_hex(8)}.tmp"
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        if target.exists() and not target.is_file():
            raise OSError(errno.EINVAL, "it is a device or a pipe, which a file would replace")
        file = temporary.open("xb")
        try:
            yield temporary, file
        finally:
            try:
                file.close()
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, f"{path} cannot be written: {error.strerror or error}") from error


def _sync_folder(folder: Path) -> None:
    """Flush the folder's entry for a new file to disk, so that it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _host(name: str, array: Any) -> np.ndarray:
    """The array on the host, in C order and in the machine's byte order; NumPy's numbers as arrays without axes."""
    array = native(np.asarray(array) if isinstance(array, np.generic) else array)
    if not hasattr(array, "dtype"):
        raise DTypeError(f"{name}: expected a NumPy or CuPy array, got {type(array).__name__}")
    host = backend_of(**{name: array}).to_numpy(array)
    if host.dtype.name not in _DTYPES:
        raise DTypeError(f"{name}: expected one of {', '.join(sorted(_DTYPES))}, got {host.dtype.name}")
    return host.astype(host.dtype.newbyteorder("="), order="C", copy=False)


_OTHERS = {  # the first bytes of other formats
    b"PK\x03\x04": "a zip archive; gl.io.torch.load reads .pt, gl.io.keras.load .keras",
    b"\x89HDF": "HDF5; gl.io.keras.load reads it",
    b"\x80\x02": "a pickle; gl.io.torch.load reads .pt",
}


def _fault(path: str | Path) -> str:
    """Say what is wrong with a file that the library refused, and where; empty if the library's message says it."""
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < HEADER_LENGTH:
            return f"expected at least {HEADER_LENGTH} bytes, got {size}"
        first = file.read(HEADER_LENGTH)
        length = int.from_bytes(first, "little")
        for begin, what in _OTHERS.items():
            if first.startswith(begin) and length > LARGEST_HEADER:
                return f"expected safetensors, got {what}"
        if length > LARGEST_HEADER:
            return f"expected a header of at most {LARGEST_HEADER} bytes, got {length} as its length at byte 0"
        if HEADER_LENGTH + length > size:
            return f"expected a header up to byte {HEADER_LENGTH + length}, got a file cut off at byte {size}"
        header = file.read(length)
    try:
        entries = json.loads(header).items()
        end = max((entry["data_offsets"][1] for name, entry in entries if name != "__metadata__"), default=0)
        end += HEADER_LENGTH + length
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        return f"expected a table of arrays at byte {HEADER_LENGTH}, got something else ({error})"
    if end > size:
        return f"expected arrays up to byte {end}, as the header says, got a file cut off at byte {size}"
    if end < size:
        return f"expected arrays up to byte {end}, as the header says, got a file of {size} bytes"
    return ""

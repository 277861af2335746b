"""A cache of the libraries that were compiled at first use, in a folder of the user.

gpulstm loads and runs these libraries, so no other user may be able to write to the folder or to a folder above it. A
file's name ends in the hash of its bytes. A truncated or changed file is compiled again, and processes that compile the
same library at the same time do not disturb each other.
"""

import contextlib
import ctypes
import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from gpulstm import building
from gpulstm.building import CannotCompile

_KEPT = 40  # libraries; the least recently used ones are deleted
_ENDING = ".dll" if building.WINDOWS else ".so"


def cache_folder() -> Path:
    """The folder for compiled libraries: GPULSTM_CACHE, else the usual cache folder of the system."""
    if own := os.environ.get("GPULSTM_CACHE"):
        return Path(own).expanduser()
    if building.WINDOWS:
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "gpulstm" / "cache"
    if building.MACOS:
        return Path.home() / "Library" / "Caches" / "gpulstm"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpulstm"


def check() -> None:
    """Raise CannotCompile, with the reason, if there is no compiler or no safe folder."""
    building.compiler()
    _safe_folder()


def load(
    objects: Sequence[building.Object],
    cells: Sequence[tuple[Path, str]],
    text: str,
    beforehand: Callable[[Path], None] = lambda folder: None,
) -> tuple[ctypes.CDLL, Path]:
    """Load the library of these objects and return it with its path; compile it if it is not in the cache.

    Before a compilation, ``beforehand(folder)`` is called. Raises CannotCompile, with the reason, if there is no
    compiler, if it fails, if the folder is not safe, or if the system cannot load the library.
    """
    folder, name = _safe_folder(), _name(objects, cells, text)
    path = _kept(folder, name)
    if path is None:
        beforehand(folder)
        path = _compile(folder, name, objects, cells, text)
    try:
        return ctypes.CDLL(str(path)), path
    except OSError as error:  # e.g. a folder mounted noexec
        raise CannotCompile(f"the compiled library does not load: {error}") from None


def _name(objects: Sequence[building.Object], cells: Sequence[tuple[Path, str]], text: str) -> str:
    """A hash of all that determines a library: sources, files, compiler, and flags, which name the instruction set."""
    command = building.compiler()
    parts = [text, *command, building.compiler_version(command[:1])]
    parts += [repr((source.name, flags)) for source, flags in objects] + [struct for _, struct in cells]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _kept(folder: Path, name: str) -> Path | None:
    """The path of the cached library, if its bytes still match its hash."""
    for path in sorted(folder.glob(f"{name}-*{_ENDING}")):
        if path.stem == f"{name}-{_hash(path)}":
            path.touch()
            return path
        path.unlink(missing_ok=True)
    return None


def _compile(
    folder: Path, name: str, objects: Sequence[building.Object], cells: Sequence[tuple[Path, str]], text: str
) -> Path:
    with tempfile.TemporaryDirectory(dir=folder) as own:
        made = Path(own) / f"made{_ENDING}"
        building.build(made, objects, cells, text)
        path = folder / f"{name}-{_hash(made)}{_ENDING}"
        made.replace(path)  # atomic
    _forget(folder)
    return path


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


def _forget(folder: Path) -> None:
    """Delete the least recently used libraries."""
    with contextlib.suppress(OSError):  # another process may delete it first; Windows cannot delete a loaded one
        newest_first = sorted(folder.glob(f"*{_ENDING}"), key=lambda path: -path.stat().st_mtime)
        for path in newest_first[_KEPT:]:
            path.unlink()


# -- is the folder safe? ------------------------------------------------------------------------------------
def _safe_folder() -> Path:
    """The cache folder, created if missing; raises CannotCompile unless only this user can write to it."""
    folder = cache_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = folder.resolve()
        fault = _fault(folder)
        if not fault and not os.access(folder, os.W_OK):
            fault = f"{folder} cannot be written to"
    except OSError as error:
        fault = f"{folder}: {error.strerror or error}"
    if fault:
        raise CannotCompile(f"there is no safe folder for compiled libraries: {fault}; set GPULSTM_CACHE to another")
    return folder


def _fault(folder: Path) -> str:
    """Why other users could put a file into the folder, or "". On Windows each user has private folders."""
    if sys.platform == "win32":
        return ""
    for place in (folder, *folder.parents):
        facts = place.stat()
        if facts.st_uid != os.geteuid() and (place == folder or facts.st_uid != 0):
            return f"{place} belongs to another user"
        # A sticky folder (/tmp) above it is safe: only the owner of an entry can rename it.
        sticky = place != folder and facts.st_mode & stat.S_ISVTX
        if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
            return f"others can write to {place} ({stat.filemode(facts.st_mode)})"
    return ""

"""Keeps the libraries that were compiled at first use in a folder of the user's own.

What lies there is loaded and run, so nobody else may be able to write to it, or to a folder above it. A file's name
ends in the hash of its bytes: one that is cut short or changed is compiled anew, and processes that compile the same
at once do not disturb each other.
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

_KEPT = 40  # libraries; those used longest ago go
_ENDING = ".dll" if building.WINDOWS else ".so"


def cache_folder() -> Path:
    """Where compiled libraries are kept: what GPULSTM_CACHE names, else the system's place for such files."""
    if own := os.environ.get("GPULSTM_CACHE"):
        return Path(own).expanduser()
    if building.WINDOWS:
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "gpulstm" / "cache"
    if building.MACOS:
        return Path.home() / "Library" / "Caches" / "gpulstm"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpulstm"


def check() -> None:
    """Raises CannotCompile, with the reason, where there is no compiler or no safe folder."""
    building.compiler()
    _safe_folder()


def load(
    objects: Sequence[building.Object],
    cells: Sequence[tuple[Path, str]],
    text: str,
    beforehand: Callable[[Path], None] = lambda folder: None,
) -> tuple[ctypes.CDLL, Path]:
    """The library of these objects, compiled where it never was before, and its path.

    ``beforehand`` is called with the folder before a compilation. Raises CannotCompile with the reason where there is
    no compiler or it fails, where the folder is not safe, or where the system does not load the library.
    """
    folder, name = _safe_folder(), _name(objects, cells, text)
    path = _kept(folder, name)
    if path is None:
        beforehand(folder)
        path = _compile(folder, name, objects, cells, text)
    try:
        return ctypes.CDLL(str(path)), path
    except OSError as error:  # a folder that nothing may be run from, for one
        raise CannotCompile(f"the compiled library does not load: {error}") from None


def _name(objects: Sequence[building.Object], cells: Sequence[tuple[Path, str]], text: str) -> str:
    """Names all that goes into a library: text, files, flags, compiler. The flags name the instruction set."""
    command = building.compiler()
    parts = [text, *command, building.compiler_version(command[:1])]
    parts += [repr((source.name, flags)) for source, flags in objects] + [struct for _, struct in cells]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _kept(folder: Path, name: str) -> Path | None:
    """The library that was compiled before, if its bytes are those that were written."""
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
        made.replace(path)  # whole, or not at all
    _forget(folder)
    return path


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


def _forget(folder: Path) -> None:
    """Delete the libraries that were used longest ago."""
    with contextlib.suppress(OSError):  # another process deletes too; Windows keeps what is loaded
        newest_first = sorted(folder.glob(f"*{_ENDING}"), key=lambda path: -path.stat().st_mtime)
        for path in newest_first[_KEPT:]:
            path.unlink()


# -- is the folder safe? ------------------------------------------------------------------------------------
def _safe_folder() -> Path:
    """The cache's folder, made where it is missing; raises CannotCompile unless only this user can write there."""
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
        raise CannotCompile(f"there is no safe folder for compiled libraries: {fault}; GPULSTM_CACHE names another")
    return folder


def _fault(folder: Path) -> str:
    """Why others could put a file there, or "". Windows gives each user folders of their own."""
    if sys.platform == "win32":
        return ""
    for place in (folder, *folder.parents):
        facts = place.stat()
        if facts.st_uid != os.geteuid() and (place == folder or facts.st_uid != 0):
            return f"{place} belongs to another user"
        # Above the folder, a sticky one (/tmp) is safe: what lies in it can be renamed by its owner alone.
        sticky = place != folder and facts.st_mode & stat.S_ISVTX
        if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
            return f"others can write to {place} ({stat.filemode(facts.st_mode)})"
    return ""

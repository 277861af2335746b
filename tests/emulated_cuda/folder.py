"""The compiler, and where what it makes is kept from run to run."""

import contextlib
import fcntl
import functools
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


def compiler() -> str | None:
    """The path of g++, or None."""
    return shutil.which("g++")


@functools.cache
def fused() -> list[str]:
    """g++'s option for fused multiply-add, where this processor has the instruction but a compiler must be told."""
    cpu = Path("/proc/cpuinfo")
    return ["-mfma"] if cpu.exists() and re.search(r"^flags.*\bfma\b", cpu.read_text(), re.MULTILINE) else []


@functools.cache
def folder() -> Path:
    """A folder of this user's alone, since what lies there is loaded and run."""
    path = Path(tempfile.gettempdir()) / f"gpulstm-emulated-cuda-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.stat().st_uid != os.getuid() or path.stat().st_mode & 0o022:
        raise PermissionError(f"{path}: expected a folder only this user can write to")
    return path


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """One process at a time."""
    with (folder() / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

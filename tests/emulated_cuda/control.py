"""What tests set on the emulated CUDA and read from it."""

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

from .build import libraries


class Counts(ctypes.Structure):
    """What the host has asked of CUDA since ``counted`` began; struct Counts of libraries/gpu.h."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in (
        "launches", "graph_launches", "graph_nodes", "products", "copies", "fills", "waits", "allocations", "bytes",
        "most_bytes"))  # fmt: skip


class Settings(ctypes.Structure):
    """struct Settings of libraries/gpu.h; devices 0: no driver is there."""

    _fields_ = (
        *((name, ctypes.c_int) for name in
          ("devices", "idle", "harsh", "peers", "multiprocessors", "compute_capability", "late")),
        ("memory", ctypes.c_uint64),
    )  # fmt: skip


def _library() -> Any:
    return ctypes.CDLL(str(libraries() / "libcuda.so.1"))


def settings() -> Settings:
    """The settings as they are; what is assigned holds at once."""
    library = _library()
    library.emulated_settings.restype = ctypes.POINTER(Settings)
    return library.emulated_settings().contents


@contextlib.contextmanager
def gpu(**values: int) -> Iterator[Settings]:
    """Settings of the emulated CUDA while the context lasts."""
    now = settings()
    before = {name: getattr(now, name) for name in values}
    for name, value in values.items():
        setattr(now, name, value)
    try:
        yield now
    finally:
        for name, value in before.items():
            setattr(now, name, value)


@contextlib.contextmanager
def counted() -> Iterator[Counts]:
    """Counts that are whole when the context has ended."""
    library = _library()
    library.emulated_counts.restype = ctypes.POINTER(Counts)
    now = library.emulated_counts().contents
    now.most_bytes = now.bytes
    before, counts = Counts.from_buffer_copy(now), Counts()
    yield counts
    for name, _ in Counts._fields_:
        setattr(counts, name, getattr(now, name) - (before.bytes if name == "most_bytes" else getattr(before, name)))


def pending_fault() -> str:
    """What went wrong where no call could say it: a write beside a block that was found when it was freed."""
    library = _library()
    library.emulated_fault.restype = ctypes.c_char_p
    return library.emulated_fault().decode() if library.emulated_pending() else ""

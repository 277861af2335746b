"""Measures the memory that this process uses, and the largest amount that it has used."""

import ctypes
import sys
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def in_use() -> int:
    """Bytes of memory resident now; where the system does not say, the most there has been."""
    return _of_status("VmRSS") or most()


def most() -> int:
    """The most bytes that were ever resident (since the last ``forget``, where there is one).

    Linux's own count for this process is preferred to ru_maxrss, which a process inherits from the one that
    started it.
    """
    if kept := _of_status("VmHWM"):
        return kept
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def forget() -> None:
    """Count the most from now on, where the system can (Linux); else what was used before still counts.

    What was freed and is still held by the C library goes back to the system first: taken again, it would not
    show.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
    try:
        _RESET.write_text("5")
    except OSError:
        return


def _of_status(name: str) -> int:
    """Bytes, from Linux's account of this process; 0 where there is none."""
    lines = _STATUS.read_text().splitlines() if _STATUS.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)

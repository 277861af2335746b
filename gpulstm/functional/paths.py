"""The paths a sequence can take, and which one serves a case."""

from typing import Any

from gpulstm.backend import Backend
from gpulstm.cells import Cell
from gpulstm.errors import NoKernel
from gpulstm.functional import engine_loop, fused_steps, kernel_steps

FUSED = ("fused", "persistent")  # taken only by their names
# A GPU's, the processor's, and what serves every case.
PATHS = ("graph", "kernel", *FUSED, "engine", "reference")


def choose(path: str, cell: Cell, backend: Backend, dtype: Any, projected: bool = False) -> tuple[str, str]:
    """(the path to take, why no faster one serves).

    "auto" takes the fastest that can serve the case. Raises NoKernel, with the reason, when the path named
    cannot, and for a path that does not exist. ``projected`` says that h is projected in each step.
    """
    if path not in ("auto", *PATHS):
        raise NoKernel(f"path: want one of auto, {', '.join(PATHS)}, got {path!r}")
    fastest = "kernel" if backend.is_cuda else "engine"
    if path == "reference":
        return path, f"path={path!r} was asked for"
    meant = fastest if path == "auto" else path
    why = _why_not(meant, cell, backend, dtype, projected)
    if not why:
        return meant, ""
    if path != "auto":
        raise NoKernel(f"path {path!r} cannot serve this {cell.name}: {why}; use path='auto'")
    return "reference", why


def _why_not(path: str, cell: Cell, backend: Backend, dtype: Any, projected: bool) -> str:
    """Why the path cannot serve the case, or ""; the scan of a cell that is not recurrent (scan.py) has every path."""
    if path == "engine":
        return "it takes NumPy arrays and these are CuPy's" if backend.is_cuda else engine_loop.why_not(cell)
    if backend.kernels is None:
        return backend.why_no_kernels
    if path == "graph" and not cell.recurrent:
        return f"the {cell.name} has no steps, it is a scan"
    if path in FUSED:
        return fused_steps.why_not(cell, backend.kernels, dtype, projected)
    return kernel_steps.why_not(cell, backend.kernels, dtype)

"""The paths a sequence can take, and which one serves a case."""

from typing import Any

from gpulstm.backend import Backend
from gpulstm.cells import Cell
from gpulstm.errors import NoKernel
from gpulstm.functional.host_steps import InplaceSteps, ReferenceSteps
from gpulstm.functional.kernel_steps import KernelSteps
from gpulstm.functional.steps import Steps
from gpulstm.launch import REALS

# From the fastest to the slowest.
PATHS: dict[str, type[Steps]] = {"kernel": KernelSteps, "inplace": InplaceSteps, "reference": ReferenceSteps}


def choose(path: str, cell: Cell, backend: Backend, dtype: Any) -> tuple[str, str]:
    """(the path to take, why no faster one serves).

    "auto" takes the fastest that can serve the case. Raises NoKernel, with the reason, when the path named
    cannot, and for a path that does not exist.
    """
    if path not in ("auto", *PATHS):
        raise NoKernel(f"path: want one of auto, {', '.join(PATHS)}, got {path!r}")
    reasons = {name: _why_not(name, cell, backend, dtype) for name in PATHS}
    fastest = next(name for name, reason in reasons.items() if not reason)  # the reference serves every case
    if path in ("auto", fastest):
        ideal = "kernel" if backend.is_cuda else "inplace"
        return fastest, reasons[ideal]
    if reasons[path]:
        raise NoKernel(f"path {path!r} cannot serve this {cell.name}: {reasons[path]}; use path='auto'")
    return path, f"path={path!r} was asked for"


def _why_not(path: str, cell: Cell, backend: Backend, dtype: Any) -> str:
    """Why the path cannot serve the case, or ""; the scan of a cell that is not recurrent (scan.py) has every path."""
    if path == "kernel" and backend.kernels is None:
        return backend.why_no_kernels
    if path == "kernel" and cell.kernel is None and cell.recurrent:
        return f"the {cell.name} has no kernel"
    if path == "kernel" and dtype.name not in REALS:
        return f"no kernel stores {dtype.name}"
    if path == "inplace" and backend.is_cuda:
        return "it writes NumPy arrays and these are CuPy's"
    if path == "inplace" and cell.inplace is None and cell.recurrent:
        return f"the {cell.name} has no in-place step"
    return ""

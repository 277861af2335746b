"""The paths, which are the ways to compute a sequence, and the choice between them."""

from typing import Any, NamedTuple

from gpulstm.backend import Backend
from gpulstm.cells import Cell
from gpulstm.errors import NoKernel
from gpulstm.functional import engine_loop, fused_steps, kernel_steps
from gpulstm.functional.path_table import table_of

FUSED = ("fused", "persistent")  # used when asked for by name, and by "auto" where they were measured to be faster
# Those of a GPU, that of the processor, and the one that can compute every case.
PATHS = ("graph", "kernel", *FUSED, "engine", "reference")


class Choice(NamedTuple):
    """The path, why it is not a faster one, and what was measured on this GPU; the last two may be empty."""

    path: str
    why_not_faster: str = ""
    measured: str = ""


def choose(
    path: str, cell: Cell, backend: Backend, dtype: Any, projected: bool = False,
    sizes: tuple[int, int, int] | None = None,
) -> Choice:  # fmt: skip
    """Choose the path.

    "auto" takes the fastest path that can compute the case. Raises NoKernel, with the reason, if the named path cannot
    or does not exist. ``projected`` tells whether each step projects h. ``sizes`` are (T, B, H) of what is computed at
    once, None for a scan.
    """
    if path not in ("auto", *PATHS):
        raise NoKernel(f"path: expected one of auto, {', '.join(PATHS)}, got {path!r}")
    fastest = "kernel" if backend.is_cuda else "engine"
    if path == "reference":
        return Choice(path, f"path={path!r} was asked for")
    meant = fastest if path == "auto" else path
    why = _why_not(meant, cell, backend, dtype, projected, sizes)
    if why and path != "auto":
        raise NoKernel(f"path {path!r} cannot serve this {cell.name}: {why}; use path='auto'")
    if why:
        return Choice("reference", why)
    if path == "auto" and backend.is_cuda and sizes is not None:
        return _measured(cell, backend, dtype, projected, sizes)
    return Choice(meant)


def _measured(cell: Cell, backend: Any, dtype: Any, projected: bool, sizes: tuple[int, int, int]) -> Choice:
    """What "auto" takes on a GPU: "kernel", or a path that was faster near this case and can compute it."""
    paths, words = table_of(backend).answer(cell, dtype, *sizes)
    reasons: list[str] = []
    for path in paths:
        why = _why_not(path, cell, backend, dtype, projected, sizes)
        if not why:
            return Choice(path, "; ".join(reasons), words)
        reasons.append(f"path {path!r}: {why}")
    return Choice("kernel", "; ".join(reasons), words)


def _why_not(
    path: str, cell: Cell, backend: Backend, dtype: Any, projected: bool, sizes: tuple[int, int, int] | None
) -> str:
    """Why the path cannot compute the case, or ""."""
    if path == "engine":
        return "it takes NumPy arrays, and these are CuPy's" if backend.is_cuda else engine_loop.why_not(cell)
    if backend.kernels is None:
        return backend.why_no_kernels
    if path == "graph" and not cell.recurrent:
        return f"a {cell.name} is computed by a scan, not in steps"
    if path in FUSED:
        why = fused_steps.why_not(cell, backend.kernels, dtype, projected)
        if not why and path == "persistent" and sizes is not None:
            why = fused_steps.why_not_at_once(cell, *sizes[1:], backend.kernels, dtype)
        return why
    return kernel_steps.why_not(cell, backend.kernels, dtype)

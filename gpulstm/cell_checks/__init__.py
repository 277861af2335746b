"""``gl.check_cell``: compares a cell's equations, their derivative and its kernel with one another."""

from pathlib import Path

import numpy as np

from gpulstm import backend, cells, checks, engine
from gpulstm.cell_checks.equations import check_equations, remarks
from gpulstm.cell_checks.kernels import check_one_step, check_random_sequences
from gpulstm.cell_checks.sequences import COUNT, check_derivatives
from gpulstm.cells import Cell
from gpulstm.errors import CellError, ShapeError
from gpulstm.functional import engine_loop, kernel_steps


class Report(list[str]):
    """The comparisons that passed, and what could not be checked; ``print`` shows one line for each."""

    def __str__(self) -> str:
        return "\n".join(self)


def check_cell(cell: str | Cell, seed: int = 0) -> Report:
    """Compare a cell's equations, their derivative and its kernel with one another, on every path that works here.

    The derivative is compared with central differences of the equations in float64, for one step and for random
    sequences with all options (lengths, masks, resets, zoneout, ...). The kernel is compared with the equations in
    float64 and float32, on the processor's engine and on a GPU. ``seed`` chooses the random numbers.

    >>> print(gl.check_cell("coupled"))
    coupled: backward is the derivative of forward (one step, and ...

    Raises CellError with what does not agree, what was expected and what was found; ShapeError for a minimal cell,
    which has a scan instead of steps; NoKernel for an unknown name.
    """
    row = cells.find(cell)
    checks.count("seed", seed)
    if not row.recurrent:
        raise ShapeError(f"cell: expected one with a recurrent product, got {row.name}, which a scan computes")
    rng = np.random.default_rng(seed)
    check_equations(row, rng)
    check_derivatives(row, rng)
    report = Report(
        [f"backward is the derivative of forward (one step, and {COUNT} sequences with every mode, float64)"]
    )
    report += remarks(row, rng)
    if row.kernel is None:
        report.append("no kernel to check: the Cell has none")
    else:
        _check_text(row)
        report += [_on_processor(row, rng), _on_gpu(row, rng)]
    return Report(f"{row.name}: {line}" for line in report)


def _check_text(cell: Cell) -> None:
    """Raise CellError if the user's file changed after the cell was made."""
    assert cell.kernel is not None
    if cell.kernel.own and cell.kernel.stamp != cell.kernel.state():
        name = Path(cell.kernel.file).name
        raise CellError(f"{cell.name}: {name} was changed or deleted after the cell was made; make a new Cell")


def _on_processor(cell: Cell, rng: np.random.Generator) -> str:
    assert cell.kernel is not None
    why = engine.why_none() or (engine.why_cannot_compile() if cell.kernel.own else "")
    if not why and (fault := engine_loop.why_no_text(cell)):
        raise CellError(f"{cell.name}: {fault}")
    if why := why or engine_loop.too_much(cell):
        return f"not checked on the processor's engine: {why}"
    return _held(cell, "engine", "the processor's engine", rng)


def _on_gpu(cell: Cell, rng: np.random.Generator) -> str:
    if why := backend.why_no_cuda():
        return f"not checked on a GPU: {why}"
    gpu = backend.device("cuda").backend
    assert isinstance(gpu, backend.CupyBackend) and gpu.kernels is not None
    if fault := kernel_steps.why_not(cell, gpu.kernels, np.dtype(np.float64)):
        raise CellError(f"{cell.name}: {fault}")
    return _held(cell, "kernel", "a GPU", rng)


def _held(cell: Cell, path: str, words: str, rng: np.random.Generator) -> str:
    """Compare the kernel with the equations on a path; return the line of the report."""
    assert cell.kernel is not None
    there = backend.device("cuda" if path == "kernel" else "cpu").backend
    where = f"{cell.name}: {Path(cell.kernel.file).name} on {words}"
    check_one_step(cell, there, path, where, rng)
    check_random_sequences(cell, there, path, where, rng)
    return f"{Path(cell.kernel.file).name} agrees with the equations on {words} (float64, float32)"

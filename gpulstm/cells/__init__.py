"""The cells: the equations of one time step, one file per variant, and the table of all cells."""

from gpulstm.cells import coupled, general, gru, layer_norm, lstm, mingru, minlstm, peephole, rnn, slstm
from gpulstm.cells.cell import Cell, Extra, Inner, Kernels, Product
from gpulstm.errors import NoKernel

_FILES = (lstm, gru, rnn, peephole, coupled, layer_norm, slstm, minlstm, mingru, general)
CELLS: dict[str, Cell] = {file.CELL.name: file.CELL for file in _FILES}
# Struct name in kernels/cells/ -> a cell that uses it.
STEPS: dict[str, Cell] = {
    cell.kernel.struct: cell
    for cell in (*CELLS.values(), gru.cell("before"), peephole.cell("full"), general.cell(peepholes=True))
    if cell.kernel is not None
}


def find(cell: str | Cell) -> Cell:
    """Return the cell with this name; a Cell is returned unchanged.

    Raises NoKernel, listing the known names, for an unknown name.

    >>> gl.cells.find("lstm").gates
    ('i', 'f', 'g', 'o')
    """
    if isinstance(cell, Cell):
        return cell
    if not isinstance(cell, str) or cell not in CELLS:
        raise NoKernel(f"cell: expected one of {', '.join(CELLS)}, or a Cell, got {cell!r}")
    return CELLS[cell]


__all__ = ["CELLS", "STEPS", "Cell", "Extra", "Inner", "Kernels", "Product", "find"]

"""The cells: the arithmetic of one time step, one file a variant, and the list of them all."""

from gpulstm.cells import lstm
from gpulstm.cells.cell import Cell

CELLS: dict[str, Cell] = {cell.name: cell for cell in (lstm.CELL,)}

__all__ = ["CELLS", "Cell"]

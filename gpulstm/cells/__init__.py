"""The cells: the arithmetic of one time step, one file a variant, and the list of them all."""

from gpulstm.cells import lstm, mingru, minlstm
from gpulstm.cells.cell import Cell, Extra, Inner, Inplace, Kernels, Product

CELLS: dict[str, Cell] = {cell.name: cell for cell in (lstm.CELL, minlstm.CELL, mingru.CELL)}

__all__ = ["CELLS", "Cell", "Extra", "Inner", "Inplace", "Kernels", "Product"]

"""The cells: the arithmetic of one time step, one file a variant, and the list of them all."""

from gpulstm.cells import coupled, general, gru, layer_norm, lstm, mingru, minlstm, peephole, rnn, slstm
from gpulstm.cells.cell import Cell, Extra, Inner, Inplace, Kernels, Product

_FILES = (lstm, gru, rnn, peephole, coupled, layer_norm, slstm, minlstm, mingru, general)
CELLS: dict[str, Cell] = {file.CELL.name: file.CELL for file in _FILES}

__all__ = ["CELLS", "Cell", "Extra", "Inner", "Inplace", "Kernels", "Product"]

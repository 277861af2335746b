"""What a cell is: its gates, its states, and the pure functions of one time step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpulstm.cells.inplace import Inplace


@dataclass(frozen=True)
class Cell:
    """One row of the table of cells; G gates of H units.

    ``forward(xp, zx, zr, states, extra) -> (states, saved)`` is one time step. zx and zr are the (B, G*H)
    pre-activations from the input and from the previous h, each with its bias, gates side by side in the
    order of ``gates``; states are (B, H) arrays in the order of ``states``, h first; extra are the further
    parameters that are no matrices. saved begins with the activated gates in their order.

    ``backward(xp, dstates, saved, extra) -> (dzx, dzr, dstates_prev, dextra)`` is its derivative; the part of
    h_prev that goes through a product is the time loop's, and dstates_prev[0] is what reaches h_prev besides
    (None for nothing).
    """

    name: str  # also that of kernels/<name>.cu
    gates: tuple[str, ...]
    states: tuple[str, ...]
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    extra: tuple["Extra", ...] = ()
    products: tuple["Product", ...] = ()  # of each step; without any, h_prev with all of w_hh
    inner: "Inner | None" = None  # for a product in the middle of the step
    biases: bool = True  # b_ih and b_hh are added to the products
    recurrent: bool = True  # has w_hh; without it there is a scan in place of the loop (functional/minimal.py)
    split: bool = False  # the gradients of zx and of zr differ
    direct: bool = False  # h_prev enters the equations besides the products
    inplace: Inplace | None = None
    kernel: "Kernels | None" = None

    @property
    def projects(self) -> bool:
        """Whether h may be projected: the equations read h_prev in its product alone."""
        return self.recurrent and not self.direct and self.inner is None

    def __post_init__(self) -> None:
        if not self.products and self.recurrent:
            object.__setattr__(self, "products", (Product("h", "w_hh", slice(0, len(self.gates))),))


@dataclass(frozen=True)
class Extra:
    """A further parameter of a cell: a vector (blocks*H,), or a matrix (blocks*H, H) that ``products`` use."""

    name: str
    blocks: int
    matrix: bool = False
    initial: float | None = None  # its first value; None draws as the other weights


@dataclass(frozen=True)
class Product:
    """One product of a step: the columns ``gates`` of zr get source times the transposed ``rows`` of the weight.

    source is the name of a state, for its value before the step, or "inner"; weight is "w_hh" or the name of
    an extra. gates and rows count in blocks of H.
    """

    source: str
    weight: str
    gates: slice
    rows: slice | None = None  # None where they are the gates

    def columns(self, H: int) -> slice:
        """The columns of zr."""
        return slice(self.gates.start * H, self.gates.stop * H)

    def weight_rows(self, H: int) -> slice:
        """The rows of the weight."""
        rows = self.rows or self.gates
        return slice(rows.start * H, rows.stop * H)


@dataclass(frozen=True)
class Inner:
    """The half of a step before its inner product (reset-before GRU, full peepholes).

    ``forward(xp, zx, zr, states, extra) -> v (B, H)``, what is multiplied; the columns of zr that wait for it
    are not yet filled. ``Cell.forward`` then sees zr whole. ``backward(xp, dv, dzx, dzr, dstates, saved, extra)
    -> (dzx, dzr, dstates_prev)`` completes what ``Cell.backward`` returned.
    """

    forward: Callable[..., Any]
    backward: Callable[..., Any]


@dataclass(frozen=True)
class Kernels:
    """The cell's CUDA kernels: kernels/<file>.cu, or a .cu file of the user's own, named by its path.

    With states h, c, ... and extras e, ..., the entries of <file>.cu take, in this order:

    <name>_forward(zx, zr, b_ih, b_hh, h_prev, c_prev, ..., e, ..., alive, keep_h, keep_c, B, H, gates, kept,
    h, c, ...); <name>_backward(gates, kept, h_prev, c_prev, ..., e, ..., alive, keep_h, keep_c, dy, dh, direct,
    B, H, dzx, dzr, dc, ..., de, ...). Cells without c have no keep_c, cells that keep nothing no kept, cells
    that are not split no dzr. de (B, blocks*H) sums over the steps, a row for each sequence. All is described
    in the head of kernels/lstm.cu and kernels/gru.cu.

    <name>_inner(zx, zr, b_ih, b_hh, h_prev, c_prev, ..., e, ..., B, H, v) and <name>_inner_backward(gates, kept,
    h_prev, c_prev, ..., e, ..., dv, B, H, dzx, dzr, direct, dc, ..., de, ...) stand around an inner product.
    """

    file: str
    name: str = ""  # of the entries; that of the file by default
    defines: tuple[str, ...] = ()
    kept: int = 0  # blocks of H a step keeps besides the gates
    rows: bool = False  # one block for each sequence, of a power of two of threads, with a value of scratch for each

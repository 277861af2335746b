"""What a cell is: its gates, its states, and the pure functions of one time step."""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpulstm.cells.row import check_row


@dataclass(frozen=True)
class Cell:
    """Describes a recurrent cell: its equations, their derivative, and its entry in the table of cells.

    ``forward(xp, zx, zr, states, extra) -> (states, saved)`` is one time step of G gates with H units each. zx and zr
    (B, G*H) are the pre-activations from the input and from the previous h, each with its bias, gates side by side in
    the order of ``gates``; states are (B, H) arrays in the order of ``states``, h first; extra are the further
    parameters that are not matrices. saved begins with the activated gates in order.

    ``backward(xp, dstates, saved, extra) -> (dzx, dzr, dstates_prev, dextra)`` is its derivative. The time loop adds
    the part of dh_prev that goes through a product; dstates_prev[0] is the rest, or None.

    Neither may modify its arguments. ``gl.check_cell`` compares both, and the kernel, with one another. Raises
    ShapeError for fields that contradict each other.

    >>> def forward(xp, zx, zr, states, extra):
    ...     n = xp.tanh(zx + zr)
    ...     return (0.9 * states[0] + 0.1 * n,), (n,)
    >>> def backward(xp, dstates, saved, extra):
    ...     dz = 0.1 * dstates[0] * (1 - saved[0] ** 2)
    ...     return dz, dz, (0.9 * dstates[0],), ()
    >>> leaky = gl.cells.Cell("leaky", ("n",), ("h",), forward, backward, direct=True)
    >>> gl.Recurrent(leaky, 3, 4)(np.zeros((5, 2, 3), np.float32))[0].shape
    (5, 2, 4)
    """

    name: str
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
    kernel: "Kernels | None" = None

    @property
    def projects(self) -> bool:
        """Whether h may be projected: the equations read h_prev in its product alone."""
        return self.recurrent and not self.direct and self.inner is None

    @functools.cached_property
    def row(self) -> dict[str, int]:
        """What the struct of the kernel must say too, by its names there; kernels/step.cuh and host/engine.cpp have
        the same order."""
        assert self.kernel is not None
        return {
            "gates": len(self.gates),
            "states": len(self.states),
            "vectors": sum(extra.blocks for extra in self.extra if not extra.matrix),
            "kept besides the gates": self.kernel.kept,
            "split": int(self.split),
            "direct": int(self.direct),
            "inner": int(self.inner is not None),
            "normed": int(self.kernel.rows),
            "options": len(self.kernel.options),
        }

    @property
    def defines(self) -> tuple[str, ...]:
        """The macros that make kernels/step.cu (step_rows.cu) this cell's step: the struct, its options, this row."""
        assert self.kernel is not None
        macros = {"CELL": (self.kernel.struct,), "OPTIONS": self.kernel.options, "ROW": self.row.values()}
        return tuple(f"{name}={','.join(map(str, values))}" for name, values in macros.items() if values)

    @functools.cached_property
    def arguments(self) -> tuple[str, ...]:
        """The arguments of functional.recurrent after x, in their order."""
        states = (f"{state}0" for state in self.states)
        return (*states, "w_ih", "w_hh", "b_ih", "b_hh", "w_hr", *(extra.name for extra in self.extra))

    @functools.cached_property
    def outputs(self) -> tuple[str, ...]:
        """What functional.recurrent gives."""
        return ("y", *(f"{state}_n" for state in self.states))

    def __hash__(self) -> int:
        return hash(self.name)  # of all fields takes long, and calls look things up by the cell

    def __post_init__(self) -> None:
        for name in ("gates", "states", "extra", "products"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.products and self.recurrent:
            object.__setattr__(self, "products", (Product("h", "w_hh", slice(0, len(self.gates))),))
        check_row(self)


@dataclass(frozen=True)
class Extra:
    """A further parameter of a cell: a vector (blocks*H,), or a matrix (blocks*H, H) that ``products`` use.

    Cell raises ShapeError for one that does not fit.

    >>> gl.cells.CELLS["peephole"].extra
    (Extra(name='weight_ch', blocks=3, matrix=False, initial=None),)
    """

    name: str
    blocks: int
    matrix: bool = False
    initial: float | None = None  # its first value; None draws as the other weights


@dataclass(frozen=True)
class Product:
    """One product of a step: the columns ``gates`` of zr are source times the transposed ``rows`` of the weight.

    source is the name of a state, meaning its value before the step, or "inner"; weight is "w_hh" or the name of an
    extra. gates and rows count in blocks of H. Cell raises ShapeError for one that does not fit.

    >>> gl.cells.CELLS["lstm"].products
    (Product(source='h', weight='w_hh', gates=slice(0, 4, None), rows=None),)
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

    ``forward(xp, zx, zr, states, extra) -> v (B, H)`` returns the factor of the product; the columns of zr that wait
    for it are not yet filled. ``Cell.forward`` then gets the complete zr. ``backward(xp, dv, dzx, dzr, dstates, saved,
    extra) -> (dzx, dzr, dstates_prev)`` completes the result of ``Cell.backward``. Making one raises no error.

    >>> from gpulstm.cells import gru
    >>> isinstance(gru.cell("before").inner, gl.cells.Inner)
    True
    """

    forward: Callable[..., Any]
    backward: Callable[..., Any]


@dataclass(frozen=True)
class Kernels:
    """The cell's step in C++: ``struct`` in kernels/cells/<file>.cuh, or in your own .cuh file, given by its path.

    kernels/cell.cuh describes such a struct, and kernels/step.cu makes the GPU's kernels from it; its gates, states and
    vectors are those of the cell, in their order. Your own file is read when a sequence first uses it; later changes
    apply to cells made after them. Making one raises no error.

    >>> gl.cells.CELLS["lstm"].kernel.struct
    'Lstm'
    """

    file: str
    struct: str
    options: tuple[float, ...] = ()  # the numbers that the struct is made from
    kept: int = 0  # numbers that a unit keeps for the backward pass, besides one for each gate
    rows: bool = False  # the struct is ``normed``: kernels/step_rows.cu has its step
    stamp: Any = field(default=None, init=False, repr=False)  # which state of an own file the row was made for

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(self.options))
        object.__setattr__(self, "file", os.fspath(self.file))
        if self.own:
            object.__setattr__(self, "file", str(Path(self.file).absolute()))
            object.__setattr__(self, "stamp", self.state())

    def state(self) -> Any:
        """What tells one state of an own file from another; None where there is no file."""
        try:
            facts = Path(self.file).stat()
        except OSError:
            return None
        return facts.st_mtime_ns, facts.st_size, facts.st_ino

    @property
    def own(self) -> bool:
        """Whether the file is one of the user's own."""
        return self.file.endswith(".cuh")

    @property
    def program(self) -> str:
        """The kernel file that the struct is compiled with."""
        return "step_rows" if self.rows else "step"

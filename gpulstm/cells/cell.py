"""Cell: the gates and states of a recurrent cell, and the pure functions of one time step."""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpulstm.cells.row import check_row


@dataclass(frozen=True)
class Cell:
    """Describes a recurrent cell: its equations, their derivative, and its properties.

    ``forward(xp, zx, zr, states, extra) -> (states, saved)`` is one time step, with G gates of H units each. ``xp`` is
    NumPy or CuPy. zx = x W_ih' + b_ih and zr = h_prev W_hh' + b_hh are (B, G*H), with the gates side by side in the
    order of ``gates``. states are (B, H) arrays in the order of ``states``, h first. extra are the cell's further
    parameters that are not matrices. saved is a tuple for ``backward`` that begins with the activated gates in order.

    ``backward(xp, dstates, saved, extra) -> (dzx, dzr, dstates_prev, dextra)`` is the derivative. dstates_prev[0] is
    the gradient of h_prev outside the recurrent product, or None if there is none; the time loop adds the gradient
    through the product.

    Neither function may modify its arguments. ``gl.check_cell`` compares both functions and the kernel with one
    another. Raises ShapeError for fields that contradict each other.

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
    products: tuple["Product", ...] = ()  # the recurrent products of a step; by default h_prev times all of w_hh
    inner: "Inner | None" = None  # for a product in the middle of the step
    biases: bool = True  # b_ih and b_hh are added to the products
    recurrent: bool = True  # has w_hh; a cell without it is computed by a scan, not a loop (functional/minimal.py)
    split: bool = False  # the gradients of zx and zr differ
    direct: bool = False  # the equations use h_prev outside the products
    kernel: "Kernels | None" = None

    @property
    def projects(self) -> bool:
        """Whether h may be projected (proj_size): the equations use h_prev only in its product."""
        return self.recurrent and not self.direct and self.inner is None

    @functools.cached_property
    def row(self) -> dict[str, int]:
        """The properties that the kernel's struct must have too, by their names there.

        kernels/step.cuh and host/engine.cpp have the same order.
        """
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
        """The macros for kernels/step.cu (or step_rows.cu) that select this cell: its struct, options and ``row``."""
        assert self.kernel is not None
        macros = {"CELL": (self.kernel.struct,), "OPTIONS": self.kernel.options, "ROW": self.row.values()}
        return tuple(f"{name}={','.join(map(str, values))}" for name, values in macros.items() if values)

    @functools.cached_property
    def arguments(self) -> tuple[str, ...]:
        """The names of functional.recurrent's arguments after x, in order."""
        states = (f"{state}0" for state in self.states)
        return (*states, "w_ih", "w_hh", "b_ih", "b_hh", "w_hr", *(extra.name for extra in self.extra))

    @functools.cached_property
    def outputs(self) -> tuple[str, ...]:
        """The names of functional.recurrent's outputs, in order."""
        return ("y", *(f"{state}_n" for state in self.states))

    def __hash__(self) -> int:
        return hash(self.name)  # hashing all fields is slow, and cells are dict keys

    def __post_init__(self) -> None:
        for name in ("gates", "states", "extra", "products"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.products and self.recurrent:
            object.__setattr__(self, "products", (Product("h", "w_hh", slice(0, len(self.gates))),))
        check_row(self)


@dataclass(frozen=True)
class Extra:
    """A further parameter of a cell: a vector (blocks*H,), or a matrix (blocks*H, H) that ``products`` use.

    Cell raises ShapeError if it does not fit.

    >>> gl.cells.CELLS["peephole"].extra
    (Extra(name='weight_ch', blocks=3, matrix=False, initial=None),)
    """

    name: str
    blocks: int
    matrix: bool = False
    initial: float | None = None  # its initial value; None draws it like the other weights


@dataclass(frozen=True)
class Product:
    """One recurrent product of a step: zr[:, gates] = source @ weight[rows]'.

    source is the name of a state, whose value before the step is used, or "inner". weight is "w_hh" or the name of an
    Extra. gates and rows count in blocks of H. Cell raises ShapeError if it does not fit.

    >>> gl.cells.CELLS["lstm"].products
    (Product(source='h', weight='w_hh', gates=slice(0, 4, None), rows=None),)
    """

    source: str
    weight: str
    gates: slice
    rows: slice | None = None  # None means the same as gates

    def columns(self, H: int) -> slice:
        """The columns of zr that the product fills."""
        return slice(self.gates.start * H, self.gates.stop * H)

    def weight_rows(self, H: int) -> slice:
        """The rows of the weight that the product uses."""
        rows = self.rows or self.gates
        return slice(rows.start * H, rows.stop * H)


@dataclass(frozen=True)
class Inner:
    """The part of a step before its inner product, for cells that need one (reset-before GRU, full peepholes).

    ``forward(xp, zx, zr, states, extra) -> v (B, H)`` returns the array to multiply. The columns of zr that will hold
    the inner product are not filled yet; ``Cell.forward`` then gets the complete zr. ``backward(xp, dv, dzx, dzr,
    dstates, saved, extra) -> (dzx, dzr, dstates_prev)`` completes the result of ``Cell.backward``. Making one raises
    no error.

    >>> from gpulstm.cells import gru
    >>> isinstance(gru.cell("before").inner, gl.cells.Inner)
    True
    """

    forward: Callable[..., Any]
    backward: Callable[..., Any]


@dataclass(frozen=True)
class Kernels:
    """The cell's step in C++: ``struct`` in kernels/cells/<file>.cuh, or in your own .cuh file, given by its path.

    kernels/cell.cuh describes how to write the struct, and kernels/step.cu makes the GPU kernels from it. Its gates,
    states and vectors must be those of the cell, in the same order. Your own file is read when a sequence first uses
    it; if you change the file, make a new Cell. Making one raises no error.

    >>> gl.cells.CELLS["lstm"].kernel.struct
    'Lstm'
    """

    file: str
    struct: str
    options: tuple[float, ...] = ()  # numbers for the constructor of the struct
    kept: int = 0  # numbers that a unit stores for the backward pass, besides one per gate
    rows: bool = False  # the struct is ``normed`` and uses kernels/step_rows.cu
    stamp: Any = field(default=None, init=False, repr=False)  # the state of your own file when this was made

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(self.options))
        object.__setattr__(self, "file", os.fspath(self.file))
        if self.own:
            object.__setattr__(self, "file", str(Path(self.file).absolute()))
            object.__setattr__(self, "stamp", self.state())

    def state(self) -> Any:
        """The modification time, size and inode of your own file, which show a change; None if there is no file."""
        try:
            facts = Path(self.file).stat()
        except OSError:
            return None
        return facts.st_mtime_ns, facts.st_size, facts.st_ino

    @property
    def own(self) -> bool:
        """Whether the file is the user's own."""
        return self.file.endswith(".cuh")

    @property
    def program(self) -> str:
        """The kernel file that the struct is compiled with."""
        return "step_rows" if self.rows else "step"

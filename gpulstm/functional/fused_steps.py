"""The paths of a GPU that have the recurrent products and the gates in one kernel (kernels/sequence_*.cu).

"fused" launches it once for each product of a time step: once a step, or twice for a cell with an inner product.
"persistent" launches it once a direction, with the time loop inside: the weights stay in registers where there is room,
and the blocks wait for one another.
"""

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpulstm.backend import Array
from gpulstm.cells import Cell
from gpulstm.dtypes import accumulator
from gpulstm.errors import NoKernel
from gpulstm.functional.products import Weights
from gpulstm.functional.sequence import Sequence
from gpulstm.launch import REALS, Kernel, Launcher
from gpulstm.precision import current

FILES = ("sequence_forward", "sequence_backward")  # of kernels/


@dataclass(frozen=True)
class Tile:
    """What a block serves: ``units`` of ``8 * tiles`` sequences, by ``threads`` in warps that share the sums."""

    units: int
    tiles: int
    threads: int = 256

    def blocks(self, B: int, H: int) -> int:
        """How many blocks B sequences of H units take."""
        return math.ceil(H / self.units) * self.slices(B)

    def slices(self, B: int) -> int:
        """How many parts the batch is cut into."""
        return math.ceil(B / (8 * self.tiles))

    def shared(self, outputs: int, dtype: Any) -> int:
        """The bytes of shared memory of a block that has ``outputs`` sums for each unit."""
        lines = 16 * math.ceil(outputs * self.units / 16) + 4  # Product::STRIDE
        return self.threads // 32 * 8 * self.tiles * lines * accumulator(dtype).itemsize

    def macros(self, outputs: int, k_steps: int, dtype: Any, tensor: bool) -> tuple[str, ...]:
        """The macros that the kernel is compiled with.

        Weights of ``k_steps`` stay in registers if there is room for them; 0 for none. ``tensor`` says whether tensor
        cores multiply.
        """
        lines, steps = math.ceil(outputs * self.units / 16), math.ceil(k_steps / (self.threads // 32))
        sums = lines * self.tiles * (4 if tensor else 16) * accumulator(dtype).itemsize // 4
        multiplied = 4 * (min(8, steps * self.tiles) if tensor else 8 * self.tiles)
        words = steps * 8 * lines + multiplied + 2 * sums
        resident = steps if words <= _MOST_WORDS.get("tensor" if tensor else dtype.name, 0) else 0
        sizes = {"UNITS": self.units, "TILES": self.tiles, "THREADS": self.threads, "RESIDENT": resident}
        flags = {"TF32": tf32(dtype), "PLAIN_PRODUCTS": not tensor}
        return (*(f"{name}={value}" for name, value in sizes.items()), *(name for name, on in flags.items() if on))


# The tiles to choose from, small ones first: where tensor cores multiply, and where they do not. More sequences a block
# save traffic of weights, fewer units spread it over more multiprocessors. Forward a block has all gates of its units,
# backward their h alone: a quarter of the sums.
_TILES = {
    ("tensor", "forward"): (Tile(8, 1), Tile(8, 2), Tile(8, 4), Tile(16, 4, 128)),
    ("tensor", "backward"): (Tile(16, 1), Tile(16, 2), Tile(32, 2), Tile(32, 4, 128)),
    ("float32", "forward"): (Tile(8, 1),),
    ("float32", "backward"): (Tile(16, 1), Tile(32, 1)),
    ("float64", "forward"): (Tile(8, 1),),
    ("float64", "backward"): (Tile(16, 1),),
}
# The 32-bit registers of a thread for weights that stay, what they multiply, and twice the sums: more than that spills.
_MOST_WORDS = {"tensor": 172, "float32": 150}


def tiles_of(cell: Cell, direction: str, dtype: Any, tensor: bool) -> tuple[Tile, ...]:
    """The tiles to choose from for a cell."""
    kind = "tensor" if tensor else accumulator(dtype).name
    tiles = _TILES[kind, direction]
    if kind == "float64" and cell.inner is not None:  # the sums of two products and the step fill the registers
        return tuple(replace(tile, units=tile.units // 2) for tile in tiles)
    return tiles


@functools.lru_cache(4096)
def tile_of(cell: Cell, B: int, H: int, direction: str, dtype: Any, tensor: bool, blocks: int) -> Tile:
    """The first tile of which no more than ``blocks`` are needed, else the largest."""
    tiles = tiles_of(cell, direction, dtype, tensor)
    return next((tile for tile in tiles if tile.blocks(B, H) <= blocks), tiles[-1])


def why_not_at_once(cell: Cell, B: int, H: int, kernels: Launcher, dtype: Any) -> str:
    """Why the blocks of a persistent kernel, of which each waits for the others, do not all run at once, or ""."""
    most, tensor = kernels.multiprocessors, tensor_cores(dtype, kernels.capability)
    blocks = max(tile_of(cell, B, H, way, dtype, tensor, most).blocks(B, H) for way in ("forward", "backward"))
    if blocks > most:
        return f"it takes at most {most} blocks, which run at once on this device, got {blocks} for B={B} H={H}"
    return ""


def tf32(dtype: Any) -> bool:
    """Whether products of float32 take ten bits of it."""
    return dtype == np.float32 and current() == "tf32"


def tensor_cores(dtype: Any, capability: int) -> bool:
    """Whether a device has tensor cores for the products."""
    return capability >= (75 if dtype == np.float16 else 80) and (dtype.itemsize == 2 or tf32(dtype))


def why_no_turns(cell: Cell) -> str:
    """Why the steps of the cell are not products in turn with arithmetic of single units, or ""."""
    if not cell.recurrent:
        return f"the {cell.name} has no product in its step"
    if cell.kernel is None:
        return f"the {cell.name} has no kernel"
    if cell.kernel.rows:
        return f"the {cell.name} has norms over whole rows in the middle of its step"
    return ""


def why_not(cell: Cell, kernels: Launcher, dtype: Any, projected: bool) -> str:
    """Why the kernel does not serve the case, or ""; that of a user's own file is compiled if that was not done."""
    if reason := why_no_turns(cell):
        return reason
    if projected:
        return "h is projected, which is a second product in each step"
    if dtype.name not in REALS:
        return f"no kernel stores {dtype.name}"
    if dtype == np.float32 and current() in ("bf16", "fp16"):
        kind = {"bf16": "bfloat16", "fp16": "float16"}[current()]
        return f"its kernel multiplies float32 arrays in ieee or tf32, not in {current()}; convert the arrays to {kind}"
    form = cell.kernel
    assert form is not None
    if form.own:
        try:
            kernels.kernel(
                FILES[0], "sequence_forward", dtype, (*cell.defines, *Turns(cell).macros), form.file, form.stamp
            )
        except NoKernel as failure:
            return str(failure)
    return ""


def k_steps_of(K: int, dtype: Any) -> int:
    """How many steps of 64 bytes the kernel takes through the K numbers of a sum."""
    return math.ceil(K * dtype.itemsize / 64)


class Turns:
    """How the kernel sees the products of a cell's step.

    The outer product gives the first ``outer`` gates, from the states ``sources`` side by side. The inner product gives
    the ``inner`` gates; none if the cell has no such product.
    """

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        by_kind = {inner: [p for p in cell.products if (p.source == "inner") is inner] for inner in (False, True)}
        self._outer, self._inner = by_kind[False], by_kind[True]
        self.sources = tuple(state for state in cell.states if any(p.source == state for p in self._outer))
        self.outer = max((p.gates.stop for p in self._outer), default=0)
        starts, stops = [p.gates.start for p in self._inner], [p.gates.stop for p in self._inner]
        self.inner = slice(min(starts, default=0), max(stops, default=0))

    @functools.cached_property
    def inner_gates(self) -> int:
        """How many gates the inner product gives."""
        return self.inner.stop - self.inner.start

    @property
    def macros(self) -> tuple[str, ...]:
        """What kernels/sequence.cuh must know; nothing for a cell whose step is one product with h."""
        if not self._inner and self.sources == ("h",) and self.outer == len(self.cell.gates):
            return ()
        dropped = any(p.weight == "w_hh" for p in self._inner)
        numbers = ",".join(str(self.cell.states.index(state)) for state in self.sources)
        macros: tuple[str, ...] = (f"SOURCES={numbers}", f"OUTER={self.outer}")
        if self._inner:
            macros += f"INNER_FIRST={self.inner.start}", f"INNER={self.inner_gates}", f"INNER_DROPPED={int(dropped)}"
        return macros

    def products(self, direction: str, H: int) -> list[tuple[int, int]]:
        """(outputs of a unit, numbers that each is the sum of) for each product of a step, "forward" or "backward"."""
        sources, inner = len(self.sources), self.inner_gates
        forward, backward = [(self.outer, sources * H), (inner, H)], [(sources, self.outer * H), (1, inner * H)]
        return (forward if direction == "forward" else backward)[: 2 if inner else 1]

    def compiled_with(
        self, direction: str, tile: Tile, H: int, persistent: bool, dtype: Any, tensor: bool
    ) -> tuple[str, ...]:
        """The macros that make a direction's file this cell's kernel for a tile."""
        products = self.products(direction, H)
        # Two products leave no room in registers for the weights of both.
        held = k_steps_of(products[0][1], dtype) if persistent and len(products) == 1 else 0
        outputs = max(outputs for outputs, _ in products)
        return (*self.cell.defines, *tile.macros(outputs, held, dtype, tensor), *self.macros)

    def weights(self, weights: Weights, H: int, xp: Any) -> tuple[Array, Array | None]:
        """The matrices of both products: (outer*H, sources*H), and (inner gates*H, H) or None."""
        if not self.macros:
            return xp.ascontiguousarray(weights.w_hh), None
        outer = self._joined(self._outer, self.sources, slice(0, self.outer), weights, H, xp)
        return outer, self._joined(self._inner, ("inner",), self.inner, weights, H, xp) if self._inner else None

    def _joined(self, products: list, sources: tuple, gates: slice, weights: Weights, H: int, xp: Any) -> Array:
        matrix = xp.zeros(((gates.stop - gates.start) * H, len(sources) * H), weights.w_hh.dtype)
        for p in products:
            rows = slice((p.gates.start - gates.start) * H, (p.gates.stop - gates.start) * H)
            column = sources.index(p.source) * H
            matrix[rows, column : column + H] += weights.of(self.cell, p.weight)[p.weight_rows(H)]
        return matrix


class FusedSteps:
    """All time steps of one sequence, both directions; ``persistent`` is the form with the loop inside."""

    def __init__(self, seq: Sequence, persistent: bool, weights: Weights) -> None:
        self.seq, self.persistent, self.turns = seq, persistent, Turns(seq.cell)
        self.matrices = self.turns.weights(weights, seq.H, seq.backend.xp)
        self.biases, self.vectors = (weights.b_ih, weights.b_hh), weights.vectors(seq.cell, seq.backend.xp, seq.dtype)
        self.stays = seq.stays
        self._modes = (self.vectors, seq.alive, self.stays, seq.shares_h, seq.shares_c, seq.dropped)
        steady = (int(shares is not None and len(shares) == 1) for shares in (seq.shares_h, seq.shares_c))
        self._sizes = (seq.T, seq.B, seq.H, int(seq.reverse), *steady)

    def forward(self, gates: Array, h: Array, others: Array) -> None:
        """gates (T, B, G*H) from the input's part to what is kept; h (T + 1, B, H) and others (T + 1, S, B, H) from
        the first states, which are there, to the last."""
        seq, turns, form = self.seq, self.turns, self.seq.cell.kernel
        assert form is not None
        way = _Direction(seq, "forward", self.persistent, turns, self.matrices)
        before, first = (seq.T, seq.T - 1) if seq.reverse else (0, 0)
        stays = None if self.stays is None else self.stays[first]
        others0 = others[before] if others.size else None
        way.kernel("sequence_begin")(seq.B * seq.H, h[before], others0, stays, seq.dropped, seq.B, seq.H, way.exchange)
        self.gates, self.states = gates, (h, others)
        self.kept = seq.backend.empty((seq.T, seq.B, form.kept * seq.H), seq.dtype)
        # What the inner product multiplied at each step.
        self.inner = seq.backend.empty((seq.T, seq.B, seq.H), seq.dtype) if turns.inner_gates else None
        way.run(seq.T, gates, self.kept, self.inner, h, others, *self.biases, *self._modes, *self._sizes)

    def backward(self, dy: Array | None, direct: Array, ds: Array, dzx: Array, dzr: Array) -> None:
        """direct (B, H) and ds (S, B, H), of type ACC, from the gradients of the last states to those of the first."""
        seq = self.seq
        way = _Direction(seq, "backward", self.persistent, self.turns, self.matrices)
        # The gradient of the vectors, a row for each sequence: summed over steps here, over rows at the end.
        self.dvectors = seq.backend.zeros((seq.B, self.vectors.size), accumulator(seq.dtype))
        gradients = (dy, direct, ds, self.dvectors, dzx, dzr if seq.cell.split else None)
        way.run(seq.T, self.gates, self.kept, *self.states, *self._modes, *gradients, *self._sizes)


class _Direction:
    """One direction of one sequence: its tile, its weights in the kernel's order, and what goes between blocks."""

    def __init__(self, seq: Sequence, name: str, persistent: bool, turns: Turns, matrices: tuple) -> None:
        be, B, H, kernels = seq.backend, seq.B, seq.H, seq.backend.kernels
        assert kernels is not None  # choose() looked
        tensor = tensor_cores(seq.dtype, kernels.capability)
        self.seq, self.name, self.persistent, self.turns = seq, name, persistent, turns
        self.tile = tile = tile_of(seq.cell, B, H, name, seq.dtype, tensor, kernels.multiprocessors)
        self.defines = turns.compiled_with(name, tile, H, persistent, seq.dtype, tensor)
        products, numbers = turns.products(name, H), 16 // seq.dtype.itemsize
        k_steps = [k_steps_of(K, seq.dtype) for _, K in products]
        self.blocks = tile.blocks(B, H)
        self.shared = max(tile.shared(outputs, seq.dtype) for outputs, _ in products)
        self.weights: list[Array | None] = [None, None]
        for n, ((lines, K), steps) in enumerate(zip(products, k_steps, strict=True)):
            packed = (math.ceil(H / tile.units), steps, math.ceil(lines * tile.units / 16), 64, numbers)
            self.weights[n] = into = be.empty(packed, seq.dtype)
            self.kernel("sequence_pack")(into.size, matrices[n], H, K, lines, into)
        # Two places: of one product for the even turns and the odd ones, of two each its own.
        rows = tile.slices(B) * 8 * tile.tiles
        self.exchange = be.zeros((rows * (k_steps[0] + k_steps[-1]) * 4 * numbers,), seq.dtype)

    def kernel(self, entry: str) -> Kernel:
        """An entry of this direction's file, compiled for its tile."""
        seq, form, kernels = self.seq, self.seq.cell.kernel, self.seq.backend.kernels
        assert kernels is not None and form is not None
        file = f"sequence_{self.name}"
        cooperative = self.persistent and entry == file
        return kernels.kernel(file, entry, seq.dtype, self.defines, form.file, form.stamp, cooperative)

    def run(self, steps: int, *args: Any) -> None:
        """All turns, a launch each or one for all of them; raises RuntimeError where blocks waited in vain."""
        turns = steps * (2 if self.turns.inner_gates else 1) + (self.name == "backward")
        kernel = self.kernel(f"sequence_{self.name}")
        limits = {"threads": self.tile.threads, "blocks": self.blocks, "shared": self.shared}
        args = (*self.weights, self.exchange, *args)
        if not self.persistent:
            launch = kernel.bound(*args, None, None, **limits)
            for turn in range(turns):
                launch(turn, turn + 1)
            return
        zeros = self.seq.backend.zeros
        arrived, failed = zeros((self.tile.slices(self.seq.B),), np.uint32), zeros((1,), np.uint32)
        kernel.bound(*args, arrived, failed, **limits)(0, turns)
        if failed.item():
            raise RuntimeError(f"sequence_{self.name}: blocks waited in vain for one another; use path='fused'")

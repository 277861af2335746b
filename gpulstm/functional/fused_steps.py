"""The paths of a GPU that have the recurrent product and the gates in one kernel (kernels/sequence_*.cu).

"fused" launches it once a time step. "persistent" launches it once a direction, with the time loop inside: the weights
stay in registers, and blocks wait for one another.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpulstm.backend import Array
from gpulstm.cells import Cell
from gpulstm.dtypes import accumulator
from gpulstm.errors import NoKernel
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
        """What the kernel is compiled with; weights of ``k_steps`` stay in registers if there is room for them.

        ``tensor`` says whether tensor cores multiply.
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


@functools.lru_cache(4096)
def tile_of(B: int, H: int, direction: str, dtype: Any, tensor: bool, blocks: int) -> Tile:
    """The first tile of which no more than ``blocks`` are needed, else the largest."""
    tiles = _TILES["tensor" if tensor else accumulator(dtype).name, direction]
    return next((tile for tile in tiles if tile.blocks(B, H) <= blocks), tiles[-1])


def why_not_at_once(B: int, H: int, kernels: Launcher, dtype: Any) -> str:
    """Why the blocks of a persistent kernel, of which each waits for the others, do not all run at once, or ""."""
    most, tensor = kernels.multiprocessors, tensor_cores(dtype, kernels.capability)
    blocks = max(tile_of(B, H, way, dtype, tensor, most).blocks(B, H) for way in ("forward", "backward"))
    if blocks > most:
        return f"it takes at most {most} blocks, which run at once on this device, got {blocks} for B={B} H={H}"
    return ""


def tf32(dtype: Any) -> bool:
    """Whether products of float32 take ten bits of it."""
    return dtype == np.float32 and current() == "tf32"


def tensor_cores(dtype: Any, capability: int) -> bool:
    """Whether a device has tensor cores for the products."""
    return capability >= (75 if dtype == np.float16 else 80) and (dtype.itemsize == 2 or tf32(dtype))


def not_one_product(cell: Cell) -> str:
    """Why no step of the cell is one product with h and arithmetic of single units, or ""."""
    if not cell.recurrent:
        return f"the {cell.name} has no product in its step"
    if cell.kernel is None:
        return f"the {cell.name} has no kernel"
    if cell.kernel.rows:
        return f"the {cell.name} has norms over whole rows in the middle of its step"
    if len(cell.products) > 1 or cell.products[0].source != "h":
        return f"the step of this {cell.name} has more than one product"
    return ""


def why_not(cell: Cell, kernels: Launcher, dtype: Any, projected: bool) -> str:
    """Why the kernel does not serve the case, or ""; that of a user's own file is compiled if that was not done."""
    if reason := not_one_product(cell):
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
            kernels.kernel(FILES[0], "sequence_forward", dtype, cell.defines, form.file, form.stamp)
        except NoKernel as failure:
            return str(failure)
    return ""


class FusedSteps:
    """All time steps of one sequence, both directions; ``persistent`` is the form with the loop inside."""

    def __init__(self, seq: Sequence, persistent: bool, w_hh: Array, biases: tuple, vectors: Array) -> None:
        be = seq.backend
        self.seq, self.persistent = seq, persistent
        self.w_hh, self.biases, self.vectors = be.xp.ascontiguousarray(w_hh), biases, vectors
        self.stays = seq.stays
        self._modes = (vectors, seq.alive, self.stays, seq.shares_h, seq.shares_c, seq.dropped)
        steady = (int(shares is not None and len(shares) == 1) for shares in (seq.shares_h, seq.shares_c))
        self._sizes = (seq.T, seq.B, seq.H, int(seq.reverse), *steady)

    def forward(self, gates: Array, h: Array, others: Array) -> None:
        """gates (T, B, G*H) from the input's part to what is kept; h (T + 1, B, H) and others (T + 1, S, B, H) from
        the first states, which are there, to the last."""
        seq, form = self.seq, self.seq.cell.kernel
        assert form is not None
        way = _Direction(seq, "forward", self.persistent, seq.H, self.w_hh)
        h0, first = h[seq.T if seq.reverse else 0], seq.T - 1 if seq.reverse else 0
        stays = None if self.stays is None else self.stays[first]
        way.kernel("sequence_begin")(seq.B * seq.H, h0, stays, seq.dropped, seq.B, seq.H, way.exchange)
        self.gates, self.states = gates, (h, others)
        self.kept = seq.backend.empty((seq.T, seq.B, form.kept * seq.H), seq.dtype)
        way.run(seq.T, gates, self.kept, h, others, *self.biases, *self._modes, *self._sizes)

    def backward(self, dy: Array | None, direct: Array, ds: Array, dzx: Array, dzr: Array) -> None:
        """direct (B, H) and ds (S, B, H), of type ACC, from the gradients of the last states to those of the first."""
        seq = self.seq
        way = _Direction(seq, "backward", self.persistent, dzx.shape[2], self.w_hh)
        # The gradient of the vectors, a row for each sequence: summed over steps here, over rows at the end.
        self.dvectors = seq.backend.zeros((seq.B, self.vectors.size), accumulator(seq.dtype))
        gradients = (dy, direct, ds, self.dvectors, dzx, dzr if seq.cell.split else None)
        way.run(seq.T + 1, self.gates, self.kept, *self.states, *self._modes, *gradients, *self._sizes)


class _Direction:
    """One direction of one sequence: its tile, its weights in the kernel's order, and what goes between blocks.

    K is the length of the sums of its product.
    """

    def __init__(self, seq: Sequence, name: str, persistent: bool, K: int, w_hh: Array) -> None:
        be, B, H, outputs = seq.backend, seq.B, seq.H, len(seq.cell.gates) if name == "forward" else 1
        assert be.kernels is not None  # choose() looked
        most, tensor = be.kernels.multiprocessors, tensor_cores(seq.dtype, be.kernels.capability)
        self.seq, self.name, self.persistent = seq, name, persistent
        self.tile = tile = tile_of(B, H, name, seq.dtype, tensor, most)
        self.blocks, self.shared = tile.blocks(B, H), tile.shared(outputs, seq.dtype)
        k_steps = math.ceil(K * seq.dtype.itemsize / 64)
        self.macros = tile.macros(outputs, k_steps if persistent else 0, seq.dtype, tensor)
        numbers = 16 // seq.dtype.itemsize
        packed = (math.ceil(H / tile.units), k_steps, math.ceil(outputs * tile.units / 16), 64, numbers)
        self.weights = be.empty(packed, seq.dtype)
        self.kernel("sequence_pack")(self.weights.size, w_hh, H, self.weights)
        self.exchange = be.zeros((2, tile.slices(B) * 8 * tile.tiles, k_steps * 4 * numbers), seq.dtype)

    def kernel(self, entry: str) -> Kernel:
        """An entry of this direction's file, compiled for its tile."""
        seq, form, kernels = self.seq, self.seq.cell.kernel, self.seq.backend.kernels
        assert kernels is not None and form is not None
        file, defines = f"sequence_{self.name}", (*seq.cell.defines, *self.macros)
        cooperative = self.persistent and entry == file
        return kernels.kernel(file, entry, seq.dtype, defines, form.file, form.stamp, cooperative)

    def run(self, turns: int, *args: Any) -> None:
        """All turns, a launch each or one for all of them; raises RuntimeError where blocks waited in vain."""
        kernel = self.kernel(f"sequence_{self.name}")
        limits = {"threads": self.tile.threads, "blocks": self.blocks, "shared": self.shared}
        if not self.persistent:
            launch = kernel.bound(self.weights, self.exchange, *args, None, None, **limits)
            for turn in range(turns):
                launch(turn, turn + 1)
            return
        zeros = self.seq.backend.zeros
        arrived, failed = zeros((self.tile.slices(self.seq.B),), np.uint32), zeros((1,), np.uint32)
        kernel.bound(self.weights, self.exchange, *args, arrived, failed, **limits)(0, turns)
        if failed.item():
            raise RuntimeError(f"sequence_{self.name}: blocks waited in vain for one another; use path='fused'")

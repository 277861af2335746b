"""The recurrent product of a step, cut into tiles: what a thread block loads, computes and keeps on the chip.

A thread block computes U units of R rows of the batch: every gate in the forward pass, the gradient of h in the
backward pass. Its eight warps split the sum over K, or the tile, or both. If they split all of K, each warp reads its
numbers directly from L2, and the partial sums are added once in shared memory. Otherwise the factors are staged in
shared memory.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from benchmarks.cost_facts import COMMON, Gpu

WARPS = 8
ROWS = (1, 8, 16, 32, 64, 128)  # of the batch, in a tile; tensor cores take 8 at least
UNITS = (8, 16, 32, 64)
MOST_SUMS = 128  # of a thread, in registers


@dataclass(frozen=True)
class Tile:
    """U units by R rows a block; of its warps ``copies`` split K, ``down`` the units and ``across`` the rows."""

    units: int
    rows: int
    copies: int
    down: int
    across: int

    def __str__(self) -> str:
        return f"{self.units}x{self.rows}" + (f", K in {self.copies}" if self.copies > 1 else "")


@dataclass(frozen=True)
class Product:
    """The recurrent product of a step, cut into tiles: each unit has ``sums`` rows of K numbers."""

    units: int
    rows: int
    sums: int
    K: int
    size: int  # bytes of a number
    plain: bool  # no tensor cores

    def tiles(self) -> Iterator[Tile]:
        """Every tile whose sums fit into the registers."""
        splits = [(c, d, WARPS // c // d) for c in (1, 2, 4, 8) for d in (1, 2, 4, 8) if c * d <= WARPS]
        for units in UNITS:
            for rows in ROWS if self.plain else ROWS[1:]:
                if not self.plain and units * self.sums % 16:  # rows of a tile of mma.sync
                    continue
                for copies, down, across in splits:
                    if units * self.sums * rows * copies <= MOST_SUMS * COMMON.threads.value:
                        yield Tile(units, rows, copies, down, across)


@dataclass(frozen=True)
class Work:
    """What the product of a step takes with one tile: microseconds by term."""

    tile: Tile
    blocks: int
    resident: float  # share of the weights that stays in registers and shared memory
    terms: dict[str, float]

    def longest_with(self, others: float) -> float:
        """Microseconds of the work that overlaps, ``others`` the step's other numbers."""
        terms = self.terms
        loads = max(terms["weights (L2)"] + terms["exchange"], terms["weights (DRAM)"])
        return overlapped((loads, terms["arithmetic"], terms["shared memory"], others))


def overlapped(parts: Iterable[float]) -> float:
    """The longest, and of the others the share that it does not hide."""
    parts = list(parts)
    return max(parts) + COMMON.exposed.value * (sum(parts) - max(parts))


def rate(gpu: Gpu, precision: str) -> float:
    """Operations a microsecond of all multiprocessors, at the peak."""
    return getattr(gpu, precision).value * 1e6


def stream(gpu: Gpu, nbytes: float) -> float:
    """Microseconds to move bytes to or from the GPU's memory."""
    return nbytes / (gpu.dram.value * 1e6 * COMMON.dram_share.value)


def through_l2(gpu: Gpu, nbytes: float) -> float:
    """Microseconds to move bytes between L2 and all multiprocessors."""
    return nbytes / (gpu.l2.value * 1e6)


def kept_on_chip(gpu: Gpu, product: Product, tile: Tile) -> float:
    """Bytes of weights that a block can keep; below 0 where even its own buffers do not fit."""
    sums = tile.units * product.sums * tile.rows * tile.copies
    threads = COMMON.threads.value
    registers = gpu.registers.value * 1024 - 4 * (threads * COMMON.own_registers.value + sums)
    buffers = 4 * sums if tile.copies > 1 else 0
    if tile.copies < WARPS:
        buffers += 3 * tile.rows * 128  # three stages of what is multiplied, 128 bytes a row
    shared = gpu.shared.value * 1024 - buffers
    return shared if shared < 0 else shared + max(0.0, registers) / tile.across


def work(gpu: Gpu, product: Product, tile: Tile, peak: float, resident: bool) -> Work | None:
    """The product with this tile; None where it does not fit, or has more blocks than can wait for each other."""
    groups, slices = math.ceil(product.units / tile.units), math.ceil(product.rows / tile.rows)
    blocks, many = groups * slices, gpu.multiprocessors.value
    room = kept_on_chip(gpu, product, tile)
    if room < 0 or (resident and blocks > many):
        return None
    waves, active = math.ceil(blocks / many), min(blocks, many)
    outputs = tile.units * product.sums
    weights = outputs * product.K * product.size
    kept = min(weights, room) if resident else 0.0
    left, exchanged = weights - kept, tile.rows * product.K * product.size
    clock = gpu.clock.value * 1e3  # a microsecond
    port = min(COMMON.l2_port.value * clock, gpu.l2.value * 1e6 / active)
    shared = 8 * outputs * tile.rows * tile.copies if tile.copies > 1 else 0  # written and read
    if tile.copies < WARPS:  # staged, then read by each warp that needs it
        shared += exchanged * (1 + tile.down) + left * (1 + tile.across)
    all_left = left * groups  # one slice's: the others find it in L2
    far = all_left if all_left > gpu.l2_size.value * 2**20 else 0
    terms = {
        "weights (L2)": waves * left / port,
        "weights (DRAM)": stream(gpu, far),
        "exchange": waves * exchanged / port,
        "arithmetic": waves * 2 * outputs * tile.rows * product.K / (peak / many),
        "shared memory": waves * shared / (COMMON.shared_port.value * clock),
    }
    return Work(tile, blocks, kept / weights, terms)


def fastest(
    gpu: Gpu, product: Product, peak: float, resident: bool, others: float
) -> Work | None:  # fmt: skip
    """The fastest tile; None where none fits."""
    found = [work(gpu, product, tile, peak, resident) for tile in product.tiles()]
    fitting = [each for each in found if each is not None]
    return min(fitting, key=lambda each: each.longest_with(others), default=None)

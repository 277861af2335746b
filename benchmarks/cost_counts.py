"""Counts what each path of a sequence moves, computes and launches per time step, from the entries of the cells.

Bytes are counted once for each kernel that reads or writes them. A path that keeps a number on the chip does not move
it. Operations are the multiplications and additions of the matrix products, without the elementwise work. Biases and
vectors are shared by all rows of the batch and come from the cache, so they are not counted either.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.cost_facts import PRECISIONS
from benchmarks.problem import Shape
from gpulstm.cells import Cell

PATHS = {
    "step": "one product and one gate kernel a step, launched by the host",
    "graph": "the same kernels as nodes of one CUDA graph a sequence",
    "fused": "product and gates in one kernel, one node of a graph a step",
    "barrier": "persistent: the loop inside one cooperative kernel, a barrier a step",
    "polling": "persistent: the same, blocks wait for the numbers themselves",
}
PERSISTENT = ("barrier", "polling")
SEPARATE = ("step", "graph")  # product and gates are two kernels
PASSES = ("forward", "backward")
ACC = 4  # bytes of a state beside h, and of its gradient, whatever the precision


@dataclass(frozen=True)
class Numbers:
    """A cell's row as the model uses it: numbers of a unit, by the names of kernels/step.cu."""

    G: int  # gates
    S: int  # states, h among them
    K: int  # kept for the backward pass
    V: int  # vectors
    W: int  # blocks of H rows that a step multiplies
    split: int  # the gradients of zx and zr are two
    direct: int  # h_prev enters besides its product

    @classmethod
    def of(cls, cell: Cell) -> "Numbers":
        """Raises ValueError, with the reason, for a cell whose step is more than one product and one kernel."""
        if not cell.recurrent:
            raise ValueError(f"{cell.name} has no recurrent product: a scan takes the place of the time loop")
        if cell.inner is not None:
            raise ValueError(f"{cell.name} has a product in the middle of its step")
        if cell.kernel is None or cell.kernel.rows:
            raise ValueError(f"{cell.name} has norms over a row, which another kernel computes (step_rows.cu)")
        row = cell.row
        blocks = sum((p.rows or p.gates).stop - (p.rows or p.gates).start for p in cell.products)
        return cls(
            row["gates"], row["states"], row["gates"] + row["kept besides the gates"], row["vectors"], blocks,
            row["split"], row["direct"],
        )  # fmt: skip


def why_not(cell: Cell) -> str:
    """Why the model has no numbers for the cell, or ""."""
    try:
        Numbers.of(cell)
    except ValueError as error:
        return str(error)
    return ""


def weights(n: Numbers, H: int, size: int) -> int:
    """Bytes of the recurrent weights."""
    return n.W * H * H * size


def streamed(n: Numbers, way: str, size: int) -> dict[str, int]:
    """Bytes a unit between the chip and its memory: what belongs to one time step alone."""
    states = ACC * (n.S - 1)
    if way == "forward":
        return {"zx": n.G * size, "kept": n.K * size, "h": size, "states": states}
    moved = {"kept": n.K * size, "dy": size, "states before": states, "dz": n.G * size * (1 + n.split)}
    return moved | {"h_prev": n.direct * size}


def multiplied(n: Numbers, way: str, size: int) -> dict[str, int]:
    """Bytes a unit that the product reads through L2, once; that every block reads them is cost_tiles.py's exchange."""
    return {"h": size} if way == "forward" else {"dz": n.G * size}


def carried(n: Numbers, path: str, way: str, size: int) -> dict[str, int]:
    """Bytes a unit through L2 besides: what one kernel leaves to the next.

    The persistent paths keep the states, their gradients and the sums of vectors in registers.
    """
    states, moved = ACC * (n.S - 1), {}
    if way == "forward":
        if path not in PERSISTENT:
            moved = {"states before": states, "h_prev": n.direct * size}
        return moved | ({"zr": 2 * n.G * size} if path in SEPARATE else {})
    if path not in PERSISTENT:
        moved = {"ds": 2 * states, "direct": 2 * n.direct * size, "sums of vectors": 2 * n.V * ACC}
    return moved | ({"dh": 2 * size} if path in SEPARATE else {})


def total(moved: Mapping[str, int], B: int, H: int) -> int:
    """Bytes of a step from bytes a unit."""
    return B * H * sum(moved.values())


def step_bytes(n: Numbers, shape: Shape, path: str, way: str, precision: str, resident: float = 0.0) -> int:
    """Bytes that a step of one loop moves; ``resident`` is the share of the weights that stays on the chip."""
    size = PRECISIONS[precision]
    kinds = (streamed(n, way, size), multiplied(n, way, size), carried(n, path, way, size))
    once = sum(total(kind, shape.B, shape.H) for kind in kinds)
    return once + round((1 - resident) * weights(n, shape.H, size))


def step_operations(n: Numbers, shape: Shape) -> int:
    """Operations of a step of one loop, forward or backward: its recurrent product."""
    return 2 * shape.B * n.W * shape.H**2


def launches(path: str) -> float:
    """Kernels that a step of one loop starts; a persistent path starts one for the whole sequence."""
    return 0 if path in PERSISTENT else 2 if path in SEPARATE else 1


def outside(n: Numbers, shape: Shape, way: str, input_gradient: bool = False) -> list[tuple[int, int, int]]:
    """(M, N, K) of the large products of the whole sequence: of the inputs before the loops, of the gradients of the
    weights and of the inputs after them. The first layer's input has a gradient where it is asked for."""
    products, rows = [], shape.B * shape.T
    for index, D in enumerate(shape.inputs()):
        if way == "forward":
            products.append((rows, n.G * shape.H, D))
            continue
        products += [(n.G * shape.H, D, rows), (n.W * shape.H, shape.H, rows)]
        if input_gradient or index >= shape.directions:
            products.append((rows, D, n.G * shape.H))
    return products


def operations(n: Numbers, shape: Shape, way: str, input_gradient: bool = False) -> int:
    """Operations of the whole sequence, in the loops and outside."""
    large = sum(2 * M * N * K for M, N, K in outside(n, shape, way, input_gradient))
    return large + shape.loops * shape.T * step_operations(n, shape)

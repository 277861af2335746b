"""Predicts the time of a time step from what it moves and computes and from a GPU's constants, and what limits it.

The time of a step is the sum of

    start            the work of the host, the launches, or the barrier (or polling)
    latency          a load from L2 and the arithmetic of the cell, one after the other, for each kernel in turn
    work             the longest of loads, arithmetic, shared memory and the sequence's own data, and a fraction of the
                     shorter ones (COMMON.exposed)

Of all tiles that fit (cost_tiles.py), the fastest one counts. The host works ahead of the GPU, so the longer of their
two times counts. The largest term is the limit of a step. The times of layers and directions are added up. This is an
upper bound, because the library can run the two directions of a layer at the same time.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from benchmarks import cost_counts as counts
from benchmarks.cost_counts import PERSISTENT, SEPARATE, Numbers
from benchmarks.cost_facts import COMMON, HOST, PRECISIONS, Gpu
from benchmarks.cost_tiles import Product, Work, fastest, rate, stream, through_l2
from benchmarks.problem import Shape
from gpulstm.cells import Cell


def recurrent_product(n: Numbers, shape: Shape, way: str, precision: str) -> Product:
    """h times W_hh transposed, or backward dz times W_hh."""
    B, H, size = shape.B, shape.H, PRECISIONS[precision]
    plain = precision == "float32"
    return Product(H, B, n.W, H, size, plain) if way == "forward" else Product(H, B, 1, n.W * H, size, plain)


@dataclass(frozen=True)
class Prediction:
    """One pass of one sequence on one path. Times in microseconds a time step, of all layers and directions."""

    path: str
    way: str
    bytes: int
    operations: int
    launches: float
    loop: float
    outside: float
    bound: str
    terms: Mapping[str, float] = field(default_factory=dict)
    resident: float = 0.0
    tile: str = ""
    blocks: int = 0
    reason: str = ""  # why there is no time

    @property
    def whole(self) -> float:
        """The loops and the large products outside, a step."""
        return self.loop + self.outside


def start(gpu: Gpu, path: str) -> tuple[str, float]:
    """(the term, microseconds): what one step waits for before its work."""
    if path in PERSISTENT:
        return path, getattr(gpu, path).value
    return "launch", counts.launches(path) * (gpu.stream if path == "step" else gpu.node).value


def host(cell: Cell, shape: Shape, path: str, way: str) -> float:
    """The host's microseconds for a step of one loop; a graph or a persistent kernel costs it one call a sequence."""
    call = COMMON.host_call.value / shape.T
    if path != "step":
        return call
    own = HOST.get(cell.name, HOST["lstm"])[counts.PASSES.index(way)].value
    return call + own + COMMON.host_launch.value + COMMON.host_product.value


def loop_terms(
    gpu: Gpu, cell: Cell, n: Numbers, shape: Shape, path: str, way: str, precision: str
) -> tuple[dict[str, float], float, Work] | None:
    """(microseconds by term, the GPU's time, the product) of a step of one loop; None where no tile fits."""
    size = PRECISIONS[precision]
    streamed = counts.total(counts.streamed(n, way, size), shape.B, shape.H)
    carried = counts.total(counts.carried(n, path, way, size), shape.B, shape.H)
    numbers = max(stream(gpu, streamed), through_l2(gpu, streamed + carried))
    share = COMMON.cublas if path in SEPARATE else COMMON.fma if precision == "float32" else gpu.mma
    product = recurrent_product(n, shape, way, precision)
    beside = 0.0 if path in SEPARATE else numbers
    best = fastest(gpu, product, rate(gpu, precision) * share.value, path in PERSISTENT, beside)
    if best is None:
        return None
    kernels = 2 if path in SEPARATE else 1
    name, waits = start(gpu, path)
    latency = kernels * gpu.l2_latency.value + COMMON.gates.value
    time = waits + latency + best.longest_with(beside) + (numbers - beside)
    terms = {
        "host": host(cell, shape, path, way),
        name: waits,
        "latency": latency,
        **best.terms,
        "sequence data": numbers,
    }
    return terms, time, best


def outside_time(gpu: Gpu, products: Iterable[tuple[int, int, int]], precision: str) -> float:
    """Microseconds of the large products of a sequence."""
    size, peak = PRECISIONS[precision], rate(gpu, precision) * COMMON.cublas.value
    moved = [(2 * M * N * K, size * (M * K + K * N + M * N)) for M, N, K in products]
    return sum(gpu.stream.value + max(work / peak, stream(gpu, nbytes)) for work, nbytes in moved)


def predict(
    gpu: Gpu, cell: Cell, shape: Shape, path: str, way: str, precision: str, input_gradient: bool = False
) -> Prediction:
    """One pass on one path; the precision is one that the GPU has, and the cell one that the model has numbers for."""
    n = Numbers.of(cell)
    operations = shape.loops * counts.step_operations(n, shape)
    launched = shape.loops * counts.launches(path)
    outside = outside_time(gpu, counts.outside(n, shape, way, input_gradient), precision) / shape.T
    found = loop_terms(gpu, cell, n, shape, path, way, precision)
    if found is None:
        moved = shape.loops * counts.step_bytes(n, shape, path, way, precision)
        why = "its blocks cannot all be on the GPU at once"
        return Prediction(path, way, moved, operations, launched, math.nan, outside, "", reason=why)
    terms, time, best = found
    moved = shape.loops * counts.step_bytes(n, shape, path, way, precision, best.resident)
    bound = "host" if terms["host"] > time else max((t for t in terms if t != "host"), key=terms.__getitem__)
    return Prediction(
        path, way, moved, operations, launched, shape.loops * max(time, terms["host"]), outside, bound,
        {name: shape.loops * value for name, value in terms.items()}, best.resident, str(best.tile), best.blocks,
    )  # fmt: skip

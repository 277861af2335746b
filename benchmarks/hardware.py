"""Small measurements of the GPU on which faster kernels are planned, as a part of benchmarks.gpu.

    python -m benchmarks.hardware --out FILE

    copy            bandwidth of a copy on the device, bytes read plus bytes written
    launch          empty kernels one after the other: from a stream, and as nodes of a CUDA graph
    host            how long the CPU is busy with one launch or one product
    product         one recurrent product, (B, H) by (H, 4H), through CuPy, queued ahead of the GPU
    product graph   the same product as gpulstm calls it, as nodes of a CUDA graph

Every row has: measurement, what, dtype, B, H, value, unit, and how it was measured. Values are medians of 7 runs.
"""

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.clock import capture, gpu_ms, host_seconds, median_of, queue_behind, repeat, row
from benchmarks.part import Part, main
from benchmarks.products import Factors, product, product_graph
from gpulstm.cells import CELLS

GRAPH_NODES = 1000
LAUNCHES = 200  # queued at once: fewer than a stream holds before the host has to wait
DTYPES = ("float32", "float16", "bfloat16")
HIDDEN, BATCH = (128, 256, 512, 1024, 2048), (1, 16, 64, 128, 256)

EMPTY = 'extern "C" __global__ void empty() {}'


def copy(backend: Any, nbytes: int) -> Iterator[dict]:
    """A copy of many times the size of the caches."""
    source = backend.xp.arange(nbytes // 4, dtype=np.float32)
    target = backend.empty(source.shape, np.float32)
    ms = median_of(lambda: gpu_ms(backend, lambda: backend.xp.copyto(target, source)))
    if not bool((target == source).all()):
        raise ValueError("the copy is not the source")
    how = f"{nbytes / 2**20:.0f} MiB, read and written, GPU events"
    yield row("copy", "device to device", 2 * nbytes / ms / 1e6, "GB/s", how)


def empty_kernel(backend: Any) -> Callable[[], None]:
    """A launch of nothing: one block of 32 threads."""
    function = backend.xp.RawModule(code=EMPTY).get_function("empty")
    return lambda: function((1,), (32,), ())


def launches(backend: Any, count: int, nodes: int) -> Iterator[dict]:
    """Empty kernels one after the other."""
    launch = empty_kernel(backend)
    launch()
    us = queue_behind(backend, launch, count)
    yield row("launch", "empty kernel from a stream, queued ahead", us, "µs", f"{count} in a row, GPU events")
    us = 1e3 * median_of(lambda: gpu_ms(backend, lambda: repeat(launch, nodes))) / nodes
    yield row("launch", "empty kernel from a stream, as launched", us, "µs", f"{nodes} in a row, GPU events")
    stream = backend.xp.cuda.Stream(non_blocking=True)
    graph = capture(stream, lambda: repeat(launch, nodes))
    us = 1e3 * median_of(lambda: gpu_ms(backend, lambda: graph.launch(stream), stream)) / nodes
    yield row("launch", "empty kernel in a graph", us, "µs", f"a chain of {nodes} nodes, GPU events")


def host(backend: Any, count: int) -> Iterator[dict]:
    """Time on the processor alone, of what an eager sequence does at every step."""
    B, H, real = 16, 128, np.dtype(np.float32)
    xp, gates = backend.xp, backend.zeros((B, 4 * H), real)
    h, c, c_new, kept = (backend.zeros((B, H), real) for _ in range(4))
    w, zr = backend.zeros((4 * H, H), real), backend.zeros((B, 4 * H), real)
    cell = CELLS["lstm"]
    kernel = backend.kernels.kernel("step", "step_forward", real, cell.defines, cell.kernel.file)
    empty = empty_kernel(backend)
    null = np.uintp(0)
    sizes = np.int64(B), np.int64(H)
    packed = (gates, zr, null, null, h, c, null, null, null, null, *sizes, gates, kept, h, c_new)

    def through_gpulstm() -> None:
        kernel(B * H, gates, zr, None, None, h, c, None, None, None, None, B, H, gates, kept, h, c_new)

    calls = {
        "RawKernel without arguments": empty,
        "RawKernel with the LSTM's 16 arguments": lambda: kernel.function((8,), (256,), packed),
        "the same through gpulstm's launcher": through_gpulstm,
        "matmul into an array given": lambda: xp.matmul(h, w.T, out=zr),
        "an empty array": lambda: backend.empty((B, 4 * H), real),
    }
    how = f"{count} calls, the wall's clock, not waiting for the GPU"
    for what, call in calls.items():
        seconds = median_of(lambda call=call: host_seconds(backend, lambda: repeat(call, count)))
        yield row("host", what, 1e6 * seconds / count, "µs", how)


def work(part: Part, backend: Any) -> None:
    small = part.quick
    count, nodes = (4, 5) if small else (LAUNCHES, GRAPH_NODES)

    def attempt(what: str, measure: Callable[..., Iterator[dict]], *arguments: Any) -> None:
        if time.monotonic() > part.end:
            part.fail(f"{what}: not begun, no time was left")
        else:
            part.attempt(what, lambda: list(measure(backend, *arguments)))

    attempt("copy", copy, 1 << (16 if small else 30))
    attempt("launch", launches, count, nodes)
    attempt("host", host, count)
    for H, B in itertools.product((16,) if small else HIDDEN, (2,) if small else BATCH):
        factors = Factors(B, H)
        for dtype in DTYPES:
            attempt(f"product {B} {H} {dtype}", product, factors, dtype, count // 2)
        for kind in (*DTYPES, "tf32"):
            attempt(f"product graph {B} {H} {kind}", product_graph, factors, kind, count // 2)
    part.note(f"{len(part.rows)} small measurements")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], "hardware", work))

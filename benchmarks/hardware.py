"""The small measurements that faster engines are planned on, as a part of benchmarks.gpu.

    python -m benchmarks.hardware --out FILE

    copy            bandwidth of a copy on the device, bytes read and bytes written counted
    launch          an empty kernel after the other: from a stream, and as nodes of a graph
    host            how long the processor is busy with one launch or one product
    product         one recurrent product, (B, H) by (H, 4H), as gpulstm asks for it, queued ahead of the GPU
    product graph   the same product through cuBLAS as nodes of a graph

Every row: measurement, what, dtype, B, H, value, unit, and how it was taken. Values are medians of several
takes.
"""

import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.cublas import Cublas
from benchmarks.harness import rounded
from benchmarks.part import Part, main
from gpulstm import as_dtype

TAKES = 7
GRAPH_NODES = 1000
LAUNCHES = 200  # queued at once: fewer than a stream holds before the host has to wait
DTYPES = ("float32", "float16", "bfloat16")
HIDDEN, BATCH = (128, 256, 512, 1024, 2048), (1, 16, 64, 128, 256)
AGREE = {"float32": 1e-5, "tf32": 1e-2, "float16": 1e-2, "bfloat16": 5e-2}

EMPTY = 'extern "C" __global__ void empty() {}'
# Keeps the GPU busy, a multiplication waiting for the one before it, so that the host can queue work behind
# it.
OCCUPY = """
extern "C" __global__ void occupy(double* x, long long steps) {
    double value = x[0];
    for (long long k = 0; k < steps; ++k) value = value * 0.999 + 0.001;
    x[0] = value;
}"""


def row(
    measurement: str, what: str, value: float, unit: str, how: str, dtype: str = "", B: int = 0, H: int = 0
) -> dict:
    return {
        "measurement": measurement, "what": what, "dtype": dtype or None, "B": B or None, "H": H or None,
        "value": rounded(value), "unit": unit, "how": how,
    }  # fmt: skip


def gpu_ms(backend: Any, call: Callable[[], None], stream: Any = None) -> float:
    """Milliseconds of the GPU from before the call's work to its end."""
    cuda = backend.xp.cuda
    start, stop = cuda.Event(), cuda.Event()
    start.record(stream)
    call()
    stop.record(stream)
    stop.synchronize()
    return cuda.get_elapsed_time(start, stop)


def median_of(take: Callable[[], float], takes: int = TAKES) -> float:
    """The median, after one take that does not count."""
    take()
    return statistics.median(take() for _ in range(takes))


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


def capture(stream: Any, work: Callable[[], None]) -> Any:
    """A graph of what ``work`` launches; the stream may not be the default one."""
    with stream:
        stream.begin_capture()
        try:
            work()
        finally:
            graph = stream.end_capture()
    return graph


def launches(backend: Any, count: int, nodes: int) -> Iterator[dict]:
    """Empty kernels one after the other."""
    launch = empty_kernel(backend)
    launch()
    queued = queue_behind(backend, launch, count)
    yield row(
        "launch", "empty kernel from a stream, queued", queued, "µs", f"{count} queued ahead, GPU events"
    )
    eager = median_of(lambda: gpu_ms(backend, lambda: repeat(launch, nodes)))
    yield row(
        "launch",
        "empty kernel from a stream, as launched",
        1e3 * eager / nodes,
        "µs",
        f"{nodes} in a row, GPU events",
    )
    stream = backend.xp.cuda.Stream(non_blocking=True)
    graph = capture(stream, lambda: repeat(launch, nodes))
    in_graph = median_of(lambda: gpu_ms(backend, lambda: graph.launch(stream), stream))
    yield row(
        "launch",
        "empty kernel in a graph",
        1e3 * in_graph / nodes,
        "µs",
        f"a chain of {nodes} nodes, GPU events",
    )


def repeat(call: Callable[[], None], count: int) -> None:
    for _ in range(count):
        call()


def host(backend: Any, count: int) -> Iterator[dict]:
    """Time on the processor alone, of what an eager sequence does at every step."""
    B, H, real = 16, 128, np.dtype(np.float32)
    xp, gates = backend.xp, backend.zeros((B, 4 * H), real)
    h, c, c_new = (backend.zeros((B, H), real) for _ in range(3))
    w, zr = backend.zeros((4 * H, H), real), backend.zeros((B, 4 * H), real)
    kernel = backend.kernels.kernel("lstm", "lstm_forward", real)
    empty = empty_kernel(backend)
    sizes = (np.uintp(0), np.int64(0), np.int64(B), np.int64(H))
    packed = (gates, zr, np.uintp(0), np.uintp(0), h, c, *sizes, gates, h, c_new)

    def through_gpulstm() -> None:
        kernel(B * H, gates, zr, None, None, h, c, None, 0, B, H, gates, h, c_new)

    calls = {
        "RawKernel without arguments": empty,
        "RawKernel with the LSTM's 13 arguments": lambda: kernel.function((8,), (256,), packed),
        "the same through gpulstm's launcher": through_gpulstm,
        "matmul into an array given": lambda: xp.matmul(h, w.T, out=zr),
        "an empty array": lambda: backend.empty((B, 4 * H), real),
    }
    for what, call in calls.items():
        seconds = median_of(lambda call=call: host_seconds(backend, lambda: repeat(call, count)))
        yield row(
            "host",
            what,
            1e6 * seconds / count,
            "µs",
            f"{count} calls, the wall's clock, not waiting for the GPU",
        )


def host_seconds(backend: Any, call: Callable[[], None]) -> float:
    """Seconds until the call returns, begun with nothing queued and left with nothing queued."""
    backend.synchronize()
    start = time.perf_counter()
    call()
    seconds = time.perf_counter() - start
    backend.synchronize()
    return seconds


def queue_behind(backend: Any, call: Callable[[], None], count: int) -> float:
    """Microseconds of the GPU for one of ``count`` calls that all wait in its queue, so that no host holds
    them up.

    They are queued behind a kernel that keeps the GPU busy; when it was done before the last was queued, it
    is given twice as long. Raises RuntimeError when that never suffices.
    """
    cuda = backend.xp.cuda
    busy, cell = backend.xp.RawModule(code=OCCUPY).get_function("occupy"), backend.zeros((1,), np.float64)
    steps = 1 << 16
    taken = []
    while len(taken) <= TAKES:
        busy((1,), (1,), (cell, np.int64(steps)))
        start, stop = cuda.Event(), cuda.Event()
        start.record()
        repeat(call, count)
        stop.record()
        in_time = not start.done  # the GPU had not come to the first call when the last was queued
        stop.synchronize()
        if in_time:
            taken.append(1e3 * cuda.get_elapsed_time(start, stop) / count)
        elif steps > 1 << 34:
            raise RuntimeError("the queue was never filled before the GPU got to it")
        else:
            steps *= 2
    return statistics.median(taken[1:])


class Factors:
    """h (B, H) and w (4H, H) in numbers that every dtype holds exactly, and h @ w' in float64."""

    def __init__(self, B: int, H: int) -> None:
        generator = np.random.default_rng(B * H)
        self.B, self.H = B, H
        self.h, self.w = (
            generator.integers(-127, 128, shape, dtype=np.int8).astype(np.float32) / 128
            for shape in ((B, H), (4 * H, H))
        )
        self.product = self.h.astype(np.float64) @ self.w.T.astype(np.float64)

    def on(self, backend: Any, dtype: str) -> tuple[Any, Any, Any]:
        """(h, w, z): z (B, 4H), to be written, is NaN, so that what is not written shows."""
        arrays = self.h, self.w, np.full((self.B, 4 * self.H), np.nan, np.float32)
        on_device = tuple(backend.asarray(array.astype(as_dtype(dtype))) for array in arrays)
        backend.synchronize()
        return on_device


def check(backend: Any, z: Any, want: np.ndarray, precision: str) -> None:
    """Raises ValueError for a product that is not what was asked for: it would not be worth timing."""
    error = np.abs(backend.to_numpy(z).astype(np.float64) - want).max() / np.abs(want).max()
    if not error <= AGREE[precision]:
        raise ValueError(f"the product is off by {error:.1e}, want at most {AGREE[precision]:g}")


def product(backend: Any, factors: Factors, dtype: str, count: int) -> Iterator[dict]:
    """As gpulstm's time loop asks for it: cupy.matmul into an array."""
    h, w, z = factors.on(backend, dtype)
    w_t = w.T
    backend.xp.matmul(h, w_t, out=z)
    check(backend, z, factors.product, dtype)
    value = queue_behind(backend, lambda: backend.xp.matmul(h, w_t, out=z), count)
    how = f"{count} queued ahead, GPU events"
    yield row("product", "cupy.matmul from a stream", value, "µs", how, dtype, factors.B, factors.H)


def product_graph(
    backend: Any, factors: Factors, precision: str, count: int, cublas: Cublas
) -> Iterator[dict]:
    """Through cuBLAS itself, as a chain of nodes."""
    tf32 = precision == "tf32"
    h, w, z = factors.on(backend, "float32" if tf32 else precision)
    cublas.step(h, w, z, tf32)  # what a first call sets up may not be captured
    backend.synchronize()
    check(backend, z, factors.product, precision)
    graph = capture(cublas.stream, lambda: repeat(lambda: cublas.step(h, w, z, tf32), count))
    z.fill(np.nan)
    backend.synchronize()
    ms = median_of(lambda: gpu_ms(backend, lambda: graph.launch(cublas.stream), cublas.stream))
    check(backend, z, factors.product, precision)
    how = f"a chain of {count} nodes, GPU events"
    yield row(
        "product graph",
        "cublasGemmEx in a graph",
        1e3 * ms / count,
        "µs",
        how,
        precision,
        factors.B,
        factors.H,
    )


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
    cublas = None
    try:
        cublas = Cublas(backend, backend.xp.cuda.Stream(non_blocking=True))
    except (OSError, RuntimeError) as error:
        part.fail(f"cuBLAS: {error}")
    for H, B in itertools.product((16,) if small else HIDDEN, (2,) if small else BATCH):
        factors = Factors(B, H)
        for dtype in DTYPES:
            attempt(f"product {B} {H} {dtype}", product, factors, dtype, count // 2)
        for precision in (*DTYPES, "tf32") if cublas is not None else ():
            attempt(
                f"product graph {B} {H} {precision}", product_graph, factors, precision, count // 2, cublas
            )
    part.note(f"{len(part.rows)} small measurements")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], "hardware", work))

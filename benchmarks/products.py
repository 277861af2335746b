"""One recurrent product on the GPU: through CuPy from a stream, and as gpulstm calls it, as nodes of a CUDA graph."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.clock import capture, gpu_ms, median_of, queue_behind, repeat, row
from gpulstm import as_dtype, precision

AGREE = {"float32": 1e-5, "tf32": 1e-2, "float16": 1e-2, "bfloat16": 5e-2}


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
        raise ValueError(f"the product is off by {error:.1e}, expected at most {AGREE[precision]:g}")


def product(backend: Any, factors: Factors, dtype: str, count: int) -> Iterator[dict]:
    """cupy.matmul into an array."""
    h, w, z = factors.on(backend, dtype)
    w_t = w.T
    backend.xp.matmul(h, w_t, out=z)
    check(backend, z, factors.product, dtype)
    value = queue_behind(backend, lambda: backend.xp.matmul(h, w_t, out=z), count)
    how = f"{count} queued ahead, GPU events"
    yield row("product", "cupy.matmul from a stream", value, "µs", how, dtype, factors.B, factors.H)


def product_graph(backend: Any, factors: Factors, kind: str, count: int) -> Iterator[dict]:
    """As gpulstm asks for it, in a chain of nodes; ``kind`` is a dtype, or tf32 for float32 in that precision."""
    tf32 = kind == "tf32"
    h, w, z = factors.on(backend, "float32" if tf32 else kind)
    w_t, stream = w.T, backend.xp.cuda.Stream(non_blocking=True)
    with precision("tf32" if tf32 else "ieee"):
        with stream:
            backend.multiply(h, w_t, z)  # what a first call sets up may not be captured
        backend.synchronize()
        check(backend, z, factors.product, kind)
        graph = capture(stream, lambda: repeat(lambda: backend.multiply(h, w_t, z), count))
    z.fill(np.nan)
    backend.synchronize()
    us = 1e3 * median_of(lambda: gpu_ms(backend, lambda: graph.launch(stream), stream)) / count
    check(backend, z, factors.product, kind)
    how = f"a chain of {count} nodes, GPU events"
    yield row("product graph", "cublasGemmEx in a graph", us, "µs", how, kind, factors.B, factors.H)

"""Linear recurrences as scans: whole sequences of the minimal LSTM and GRU from their pre-activations.

Their gates depend on the input alone (Feng et al. 2024, "Were RNNs all we needed?"), so that both recurrences

    h_t = keep_t * h_{t-1} + take_t * n_t              dh_t = dy_t + keep_{t+1} * dh_{t+1}

are linear, in h and in dh. On a GPU the sequence is cut into chunks. A chunk turns the state h before it into
product * h + end. One launch computes product and end for all chunks in parallel, a second one passes the state from
chunk to chunk, and a third one computes all steps of all chunks in parallel (Blelloch 1990, "Prefix sums and their
applications").
"""

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from gpulstm import engine
from gpulstm.backend import Array, Backend
from gpulstm.cells import mingru, minlstm
from gpulstm.dtypes import accumulator

MINIMAL: dict[str, Any] = {"minlstm": minlstm, "mingru": mingru}


class _Scan(ABC):
    """A scan over zx (T, B, G*H), the pre-activations without the biases b_ih.

    hs (T + 1, B, H) holds the initial state in row 0 (row T in reverse) and receives the others. masks are alive and
    clear, (T, B) bool or None.
    """

    def __init__(self, backend: Backend, cell: str, zx: Array, b_ih: Array | None, hs: Array, masks: tuple,
                 reverse: bool) -> None:  # fmt: skip
        self.backend, self.cell, self.reverse = backend, cell, reverse
        self.zx, self.b_ih, self.hs, (self.alive, self.clear) = zx, b_ih, hs, masks

    @abstractmethod
    def forward(self) -> Array:
        """Fills hs -> y (T, B, H), zero at invalid steps."""

    @abstractmethod
    def backward(self, dy: Array | None, dh_n: Array | None) -> tuple[Array, Array]:
        """The gradients (dzx, dh0), given those of y and of the last state."""


class KernelScan(_Scan):
    """The fused scan of kernels/scan.cu: gates are computed where they are used and never stored."""

    SHORTEST = 32  # steps of a chunk at least, so that the work between chunks costs little
    THREADS = 1024  # per multiprocessor: enough to keep its memory busy

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        (T, B, _), H = self.zx.shape, self.hs.shape[2]
        kernels = self.backend.kernels
        assert kernels is not None  # choose() checked
        chunk = chunk_steps(T, B * H, self.THREADS * kernels.multiprocessors, self.SHORTEST)
        self.chunks, self.sizes = -(-T // chunk), (T, B, H, chunk, self.reverse)
        bias = None if self.b_ih is None else self.backend.xp.ascontiguousarray(self.b_ih)
        self.inputs = self.zx, bias, self.alive, self.clear

    def forward(self) -> Array:
        T, B, H, *_ = self.sizes
        carries = self._carries("ends", self.inputs, first=self.hs[T if self.reverse else 0])
        y = None if self.alive is None else self.backend.empty((T, B, H), self.hs.dtype)
        self._launch("forward", *self.inputs, carries, *self.sizes, self.hs, y)
        return y if y is not None else self.hs[:-1] if self.reverse else self.hs[1:]

    def backward(self, dy: Array | None, dh_n: Array | None) -> tuple[Array, Array]:
        dzx = self.backend.empty(self.zx.shape, self.zx.dtype)
        dh0 = self.backend.empty(self.hs.shape[1:], self.hs.dtype)
        carries = self._carries("backward_ends", (*self.inputs, dy), first=dh_n)
        self._launch("backward", *self.inputs, self.hs, dy, dh_n, carries, *self.sizes, dzx, dh0)
        return dzx, dh0

    def _carries(self, entry: str, inputs: tuple, first: Array | None) -> Array | None:
        """The states (or gradients) between the C chunks, (C-1, B, H); None for a single chunk."""
        if self.chunks == 1:
            return None
        shape, dtype = (self.chunks - 1, *self.hs.shape[1:]), accumulator(self.hs.dtype)
        products, ends = self.backend.empty(shape, dtype), self.backend.empty(shape, dtype)
        self._launch(entry, *inputs, *self.sizes, products, ends)
        units, kernels = ends[0].size, self.backend.kernels
        assert kernels is not None  # choose() checked
        kernels("scan", "scan_carries", units, products, first, len(ends), units, ends, real=self.hs.dtype)
        return ends

    def _launch(self, entry: str, *args: Any) -> None:
        kernels = self.backend.kernels
        assert kernels is not None
        kernels("scan", f"{self.cell}_{entry}", self.chunks * self.hs[0].size, *args, real=self.hs.dtype)


def chunk_steps(T: int, units: int, threads: int, shortest: int) -> int:
    """The number of steps in a chunk, chosen so that there is work for about ``threads`` threads.

    It is T, a single chunk, if that gives work to half of them, since several chunks read the pre-activations twice.
    Otherwise it is at least sqrt(T), so that the loop over the chunks is no longer than the loop over a chunk's steps.
    """
    if 2 * units >= threads:
        return T
    return min(T, max(shortest, math.isqrt(T), -(-T * units // threads)))


class EngineScan(_Scan):
    """The processor's fused scan of kernels/host/scan.cpp: one step after another; gates are never stored."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        bias = None if self.b_ih is None else np.ascontiguousarray(self.b_ih)
        self.inputs, self.sizes = (self.zx, bias, self.alive, self.clear), (*self.zx.shape[:2], self.hs.shape[2])

    def forward(self) -> Array:
        y = None if self.alive is None else self.backend.empty(self.sizes, self.hs.dtype)
        self._call("forward", *self.inputs, *self.sizes, self.reverse, self.hs, y)
        return y if y is not None else self.hs[:-1] if self.reverse else self.hs[1:]

    def backward(self, dy: Array | None, dh_n: Array | None) -> tuple[Array, Array]:
        dzx = self.backend.empty(self.zx.shape, self.zx.dtype)
        dh0 = self.backend.empty(self.hs.shape[1:], self.hs.dtype)
        self._call("backward", *self.inputs, self.hs, dy, dh_n, *self.sizes, self.reverse, dzx, dh0)
        return dzx, dh0

    def _call(self, entry: str, *args: Any) -> None:
        function = engine.function(f"{self.cell}_{entry}", self.hs.dtype)
        assert function is not None  # choose() checked
        function(*args)


class ReferenceScan(_Scan):
    """The cell's equations (cells/*.py) in NumPy or CuPy, one step after another; biases are added beforehand."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.equations = MINIMAL[self.cell]
        if self.b_ih is not None:
            self.zx += self.b_ih
        self.z, self.states = self._ordered(self.zx), self._ordered(self.hs)  # step s reads row s, writes row s + 1
        self.ended = None if self.alive is None else self._ordered(~self.alive)[:, :, None]  # (T, B, 1)
        self.clear = None if self.clear is None else self._ordered(self.clear)[:, :, None]

    def forward(self) -> Array:
        self.saved: list[Any] = []
        for s, z in enumerate(self.z):
            h_prev = self.states[s]
            if self.clear is not None:
                h_prev = self.backend.where(~self.clear[s], h_prev, 0)
            (h,), saved = self.equations.forward(self.backend.xp, z, None, (h_prev,), ())
            self.states[s + 1] = h if self.ended is None else self.backend.where(self.ended[s], h_prev, h)
            self.saved.append(saved)
        return self._y()

    def backward(self, dy: Array | None, dh_n: Array | None) -> tuple[Array, Array]:
        where, dy = self.backend.where, self._dy(dy)
        dzx = self.backend.empty(self.zx.shape, self.zx.dtype)
        dh = self.backend.zeros(self.hs.shape[1:], self.hs.dtype) if dh_n is None else dh_n
        for s in reversed(range(len(self.z))):
            dh = dh if dy is None else dh + dy[s]
            dz, _, (dh_prev,), _ = self.equations.backward(self.backend.xp, (dh,), self.saved[s], ())
            if self.ended is not None:
                dz, dh_prev = where(~self.ended[s], dz, 0), where(self.ended[s], dh, dh_prev)
            dh = dh_prev if self.clear is None else where(~self.clear[s], dh_prev, 0)
            self._ordered(dzx)[s] = dz
        return dzx, dh

    def _ordered(self, array: Array) -> Array:
        return array[::-1] if self.reverse else array

    def _y(self) -> Array:
        y = self._ordered(self.states[1:])
        return y if self.alive is None else self.backend.where(self.alive[:, :, None], y, 0)

    def _dy(self, dy: Array | None) -> Array | None:
        """The gradient of y in the order of the scan, zero at invalid steps."""
        if dy is None or self.alive is None:
            return None if dy is None else self._ordered(dy)
        return self._ordered(self.backend.where(self.alive[:, :, None], dy, 0))


# The names are those of paths.py, which chooses one.
PATHS: dict[str, type[_Scan]] = {"kernel": KernelScan, "engine": EngineScan, "reference": ReferenceScan}

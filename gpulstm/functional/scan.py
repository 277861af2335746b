"""Linear recurrences as scans: whole sequences of the minimal LSTM and GRU from their pre-activations.

Their gates see the input alone (Feng et al. 2024, "Were RNNs all we needed?"), so that

    h_t = keep_t * h_{t-1} + take_t * n_t              dh_t = dy_t + keep_{t+1} * dh_{t+1}

are linear in h and in dh. Such a recurrence is cut into chunks: what a chunk makes of any state is one product and
one sum; these are found for all chunks at once, followed from chunk to chunk, and applied to all at once (Blelloch
1990, "Prefix sums and their applications").
"""

import functools
import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from gpulstm.backend import Array, Backend
from gpulstm.cells import mingru, minlstm
from gpulstm.dtypes import accumulator

MINIMAL: dict[str, Any] = {"minlstm": minlstm, "mingru": mingru}


class _Scan(ABC):
    """A scan over zx (T, B, G*H), pre-activations without biases b_ih; hs (T + 1, B, H) holds the first state in
    row 0 (T in reverse) and receives the others; masks are alive and clear (T, B), bool or None."""

    def __init__(self, backend: Backend, cell: str, zx: Array, b_ih: Array | None, hs: Array, masks: tuple,
                 reverse: bool) -> None:  # fmt: skip
        self.backend, self.cell, self.reverse = backend, cell, reverse
        self.zx, self.b_ih, self.hs, (self.alive, self.clear) = zx, b_ih, hs, masks

    @abstractmethod
    def forward(self) -> Array:
        """Writes hs -> y (T, B, H), zero at steps that do not count."""

    @abstractmethod
    def backward(self, dy: Array | None, dh_n: Array | None) -> tuple[Array, Array]:
        """The gradients (dzx, dh0) from those of y and of the last state."""


class KernelScan(_Scan):
    """The fused scan of kernels/scan.cu: gates are made where they are used and never stored."""

    SHORTEST = 32  # steps of a chunk: what stands between chunks must cost little beside them
    THREADS = 1024  # of a multiprocessor: enough to keep its memory busy

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        (T, B, _), H = self.zx.shape, self.hs.shape[2]
        chunk = chunk_steps(T, B * H, self.THREADS * multiprocessors(self.backend), self.SHORTEST)
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
        """The states (gradients) between the chunks (C-1, B, H); None where there is one chunk."""
        if self.chunks == 1:
            return None
        shape, dtype = (self.chunks - 1, *self.hs.shape[1:]), accumulator(self.hs.dtype)
        products, ends = self.backend.empty(shape, dtype), self.backend.empty(shape, dtype)
        self._launch(entry, *inputs, *self.sizes, products, ends)
        units, kernels = ends[0].size, self.backend.kernels
        assert kernels is not None  # choose() looked
        kernels("scan", "scan_carries", units, products, first, len(ends), units, ends, real=self.hs.dtype)
        return ends

    def _launch(self, entry: str, *args: Any) -> None:
        kernels = self.backend.kernels
        assert kernels is not None
        kernels("scan", f"{self.cell}_{entry}", self.chunks * self.hs[0].size, *args, real=self.hs.dtype)


def chunk_steps(T: int, units: int, threads: int, shortest: int) -> int:
    """Steps in a chunk, so that there are about as many ``threads`` as wanted.

    T, a single chunk, where half of them are met: several chunks read the pre-activations twice. Else at least
    sqrt(T), so that the way from chunk to chunk is no longer than that through one.
    """
    if 2 * units >= threads:
        return T
    return min(T, max(shortest, math.isqrt(T), -(-T * units // threads)))


@functools.cache
def multiprocessors(backend: Any) -> int:
    """How many the GPU has; CuPy asks the driver for every attribute each time."""
    return int(backend.device.attributes["MultiProcessorCount"])


class _HostScan(_Scan):
    """What the paths without a kernel share: everything in the order of the scan, biases added at once."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.equations = MINIMAL[self.cell]
        if self.b_ih is not None:
            self.zx += self.b_ih
        self.z, self.states = self._ordered(self.zx), self._ordered(self.hs)  # step s: row s to row s + 1
        self.ended = None if self.alive is None else self._ordered(~self.alive)[:, :, None]  # (T, B, 1)
        self.clear = None if self.clear is None else self._ordered(self.clear)[:, :, None]

    def _ordered(self, array: Array) -> Array:
        return array[::-1] if self.reverse else array

    def _y(self) -> Array:
        y = self._ordered(self.states[1:])
        return y if self.alive is None else self.backend.where(self.alive[:, :, None], y, 0)

    def _dy(self, dy: Array | None) -> Array | None:
        """The gradient of y in the order of the scan, zero where a step does not count."""
        if dy is None or self.alive is None:
            return None if dy is None else self._ordered(dy)
        return self._ordered(self.backend.where(self.alive[:, :, None], dy, 0))


class ReferenceScan(_HostScan):
    """The cell's own equations (cells/*.py), one step after another, on either library."""

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


class InplaceScan(_HostScan):
    """Gates for as many steps at once as stay in cache, then the scan, on NumPy."""

    CACHED = 1 << 18  # bytes of pre-activations; what is made of them should stay in a core's second-level cache

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        size, T = max(1, self.CACHED // max(1, self.z[0].nbytes)), len(self.z)
        self.blocks = [slice(start, min(start + size, T)) for start in range(0, T, size)]

    def forward(self) -> Array:
        for steps in self.blocks:
            keep, take, n, _ = self.equations.coefficients(np, self.z[steps])
            h = self.states[steps.start + 1 : steps.stop + 1]
            np.multiply(take, n, out=h)
            if self.ended is not None:
                np.copyto(h, 0, where=self.ended[steps])
            clear = self._mask(keep, steps)
            scan(keep, h, self.states[steps.start], clear)
        return self._y()

    def backward(self, dy: Array | None, dh_n: Array | None) -> tuple[Array, Array]:
        dy = self._dy(dy)
        dzx = self.backend.empty(self.zx.shape, self.zx.dtype)
        dz = self._ordered(dzx)
        dh_before = self.backend.zeros(self.hs.shape[1:], self.hs.dtype) if dh_n is None else dh_n
        for steps in reversed(self.blocks):
            coefficients = self.equations.coefficients(np, self.z[steps])
            keep = coefficients[0].copy()
            clear = self._mask(keep, steps)
            dh = np.zeros_like(keep) if dy is None else dy[steps].copy()
            dh[-1] += dh_before
            # From the last step but one to the first.
            scan(keep[:0:-1], dh[-2::-1], dh[-1], None if clear is None else clear[:0:-1])
            dh_before = keep[0] * dh[0]
            h_prev = self.states[steps]
            if clear is not None:
                h_prev, dh_before = np.where(clear, 0, h_prev), np.where(clear[0], 0, dh_before)
            if self.ended is not None:
                np.copyto(dh, 0, where=self.ended[steps])
            dz[steps] = self.equations.gradients(np, coefficients, h_prev, dh)
        return dzx, dh_before

    def _mask(self, keep: np.ndarray, steps: slice) -> np.ndarray | None:
        """A step that does not count keeps all, one that is cleared nothing; returns where they are cleared, if any."""
        if self.ended is not None:
            np.copyto(keep, 1, where=self.ended[steps])
        if self.clear is None or not self.clear[steps].any():
            return None
        np.copyto(keep, 0, where=self.clear[steps])
        return self.clear[steps]


# Named as those of paths.py, which chooses.
PATHS: dict[str, type[_Scan]] = {"kernel": KernelScan, "inplace": InplaceScan, "reference": ReferenceScan}

_FEW, _MANY = 512, 32  # units for which a call costs more than its arithmetic; steps worth cutting into chunks


def scan(keep: np.ndarray, h: np.ndarray, before: np.ndarray, clear: np.ndarray | None = None) -> None:
    """h_s = keep_s * h_{s-1} + h_s in place: h (S, B, H) comes in as what each step adds and leaves as the states
    after it; before (B, H) is the state before the first. keep (S, B, H) is used up. Where clear (S, B, 1) is True,
    h_{s-1} counts as 0, whatever it is."""
    size = math.isqrt(len(h))
    whole = len(h) - len(h) % size if clear is None and len(h) >= _MANY and before.size <= _FEW else 0
    if whole:
        chunked = whole // size, size, *before.shape
        _scan_chunks(keep[:whole].reshape(chunked), h[:whole].reshape(chunked), before)
        before = h[whole - 1]
    for s in range(whole, len(h)):
        k, h_s = keep[s], h[s]
        np.multiply(k, before if clear is None else np.where(clear[s], 0, before), out=k)
        h_s += k
        before = h_s


def _scan_chunks(keep: np.ndarray, h: np.ndarray, before: np.ndarray) -> None:
    """``scan`` over (chunks, steps, B, H): all chunks from a state of zero, then what reaches each from before it."""
    for s in range(1, keep.shape[1]):
        h[:, s] += keep[:, s] * h[:, s - 1]
        keep[:, s] *= keep[:, s - 1]
    carries = np.empty_like(h[:, 0])
    for c, carry in enumerate(carries):
        carry[...] = before
        before = keep[c, -1] * before + h[c, -1]
    keep *= carries[:, None]
    h += keep

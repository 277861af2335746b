"""The paths a time step can take: the cell's readable equations, in place on NumPy, or one fused CUDA kernel.

All three have one interface, so that the time loop (recurrent.py) does not know which it drives. A step has
everything but the matrix products. Sequences that have ended keep their state; the gradient of a state they
kept is collected in ``held`` until the sequence is under way.
"""

from dataclasses import dataclass
from typing import Any

from gpulstm.backend import Array, Backend
from gpulstm.cells import Cell
from gpulstm.errors import NoKernel
from gpulstm.launch import REALS


@dataclass(frozen=True)
class Sequence:
    """What is fixed for one sequence: sizes, types, where it runs and how long each of its rows is."""

    backend: Backend
    cell: Cell
    dtype: Any  # of x, h and the weights
    T: int
    B: int
    H: int
    reverse: bool
    lengths: Array | None  # (B,) int64 on the device
    shortest: int  # the smallest length; T without lengths

    @property
    def before(self) -> int:
        """States stand in arrays of T + 1 rows: step t reads row t + before and writes row t + after."""
        return 1 if self.reverse else 0

    @property
    def after(self) -> int:
        return 0 if self.reverse else 1

    def ended(self, t: int) -> Array | None:
        """(B,) bool: the sequences that ended before step t, or None when none did."""
        return None if self.lengths is None or t < self.shortest else self.lengths <= t


class _Steps:
    """The buffers of one sequence, which a step reads and writes.

    gates (T, B, G*H) comes in as the input's pre-activations and, step by step, becomes the activated gates;
    h_prev and h are rows of (B, H), h_prev None where h is projected after the step; cs is (T + 1, B, H).
    """

    def __init__(self, seq: Sequence, gates: Array, h_prev: Array | None, h: Array, cs: Array,
                 biases: list[Array], extra: tuple) -> None:  # fmt: skip
        self.seq, self.gates, self.cs, self.extra = seq, gates, cs, extra
        # Rows once, as lists: indexing an array costs as much as a small step's arithmetic.
        self.z_rows, self.h_rows = list(gates), list(h)
        self.h_prev_rows = [None] * seq.T if h_prev is None else list(h_prev)
        rows = list(cs)
        self.c_prev_rows, self.c_rows = rows[seq.before :], rows[seq.after :]
        self.biases = (*biases, None, None)[:2]


class _HostSteps(_Steps):
    """What the paths without a kernel share: biases added at once, rows of ended sequences put back after the step."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        given = [bias for bias in self.biases if bias is not None]
        if given:
            self.gates += sum(given[1:], given[0])

    def forward(self, t: int, zr: Array) -> None:
        """Step t: h and c from zr (B, G*H), the product of h_prev, used up."""
        self._step(t, zr)
        ended = self.seq.ended(t)
        if ended is not None:
            h_prev = self.h_prev_rows[t]
            self.h_rows[t][ended] = 0 if h_prev is None else h_prev[ended]
            self.c_rows[t][ended] = self.c_prev_rows[t][ended]

    def backward(self, t: int, dy: Array | None, dh: Array, held: Array | None, dc: Array, dz: Array) -> None:
        """The derivative of step t: dh (B, H), used up, and dc come in from the step after; row t of dz
        (T, B, G*H), dc and held are written."""
        if dy is not None:
            dh += dy
        if held is not None:
            dh += held
            held[...] = 0
        ended = self.seq.ended(t)
        if ended is None:
            self._step_backward(t, dh, dc, dz)
            return
        if held is not None:
            held[ended] = dh[ended]
        kept = dc[ended]
        self._step_backward(t, dh, dc, dz)
        dc[ended] = kept
        dz[t][ended] = 0

    def _step(self, t: int, zr: Array) -> None:
        raise NotImplementedError

    def _step_backward(self, t: int, dh: Array, dc: Array, dz: Array) -> None:
        raise NotImplementedError


class ReferenceSteps(_HostSteps):
    """The cell's own equations (cells/*.py) on either library: for reading, for tests, for cells without a kernel."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.saved: list[Any] = [None] * self.seq.T

    def _step(self, t: int, zr: Array) -> None:
        states = self.h_prev_rows[t], self.c_prev_rows[t]
        (h, c), self.saved[t] = self.seq.cell.forward(self.seq.backend.xp, self.z_rows[t], zr, states, self.extra)
        self.h_rows[t][...], self.c_rows[t][...] = h, c

    def _step_backward(self, t: int, dh: Array, dc: Array, dz: Array) -> None:
        xp = self.seq.backend.xp
        dz[t], _, (_, dc[...]), _ = self.seq.cell.backward(xp, (dh, dc), self.saved[t], self.extra)


class InplaceSteps(_HostSteps):
    """The cell's step written into the sequence's buffers: NumPy without an allocation a step.

    The part of backward that does not wait for the step after is done for several steps at once, as many as
    stay in cache: few sequences of few units would otherwise spend their time in calls.
    """

    CACHED = 1 << 18  # bytes of gates; what is done with them should stay in a core's second-level cache

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        assert self.seq.cell.inplace is not None  # choose() looked
        self.step = self.seq.cell.inplace
        self.scratch = self.seq.backend.empty((self.seq.B, self.seq.H), self.seq.dtype)
        self.block = max(1, self.CACHED // max(1, self.z_rows[0].nbytes))  # steps

    def _step(self, t: int, zr: Array) -> None:
        self.step.forward(self.z_rows[t], zr, self.c_prev_rows[t], self.h_rows[t], self.c_rows[t], self.scratch)

    def _step_backward(self, t: int, dh: Array, dc: Array, dz: Array) -> None:
        start = t - t % self.block
        if t == (start if self.seq.reverse else min(start + self.block, self.seq.T) - 1):  # the block's first visit
            self._prepare(start, dz)
        self.step.backward(self.z_rows[t], dz[t], self.dh_to_dc[t - start], dh, dc)

    def _prepare(self, start: int, dz: Array) -> None:
        seq, steps = self.seq, slice(start, min(start + self.block, self.seq.T))
        c_prev, c = (self.cs[steps.start + row : steps.stop + row] for row in (seq.before, seq.after))
        self.dh_to_dc = seq.backend.empty(c.shape, seq.dtype)
        self.step.coefficients(self.gates[steps], c_prev, c, dz[steps], self.dh_to_dc)


class KernelSteps(_Steps):
    """One fused CUDA kernel a step (kernels/<cell>.cu); it adds the biases and serves ended rows itself."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        kernels, name = self.seq.backend.kernels, self.seq.cell.name
        assert kernels is not None  # choose() looked
        self._forward = kernels.kernel(name, f"{name}_forward", self.seq.dtype)
        self._backward = kernels.kernel(name, f"{name}_backward", self.seq.dtype)

    def forward(self, t: int, zr: Array) -> None:
        """As _HostSteps.forward."""
        seq, z = self.seq, self.z_rows[t]
        states = self.h_prev_rows[t], self.c_prev_rows[t]
        sizes = seq.lengths, t, seq.B, seq.H
        self._forward(seq.B * seq.H, z, zr, *self.biases, *states, *sizes, z, self.h_rows[t], self.c_rows[t])

    def backward(self, t: int, dy: Array | None, dh: Array, held: Array | None, dc: Array, dz: Array) -> None:
        """As _HostSteps.backward."""
        seq = self.seq
        states, sizes = (self.c_prev_rows[t], self.c_rows[t]), (seq.lengths, t, seq.B, seq.H)
        self._backward(seq.B * seq.H, self.z_rows[t], *states, dy, dh, held, *sizes, dz[t], dc)


Steps = ReferenceSteps | InplaceSteps | KernelSteps

# From the fastest to the slowest.
PATHS: dict[str, type[Steps]] = {"kernel": KernelSteps, "inplace": InplaceSteps, "reference": ReferenceSteps}


def choose(path: str, cell: Cell, backend: Backend, dtype: Any) -> tuple[str, str]:
    """(the path to take, why no faster one serves).

    "auto" takes the fastest that can serve the case. Raises NoKernel, with the reason, when the path named
    cannot, and for a path that does not exist.
    """
    if path not in ("auto", *PATHS):
        raise NoKernel(f"path: want one of auto, {', '.join(PATHS)}, got {path!r}")
    reasons = {name: _why_not(name, cell, backend, dtype) for name in PATHS}
    fastest = next(name for name, reason in reasons.items() if not reason)  # the reference serves every case
    if path in ("auto", fastest):
        ideal = "kernel" if backend.is_cuda else "inplace"
        return fastest, reasons[ideal]
    if reasons[path]:
        raise NoKernel(f"path {path!r} cannot serve this {cell.name}: {reasons[path]}; use path='auto'")
    return path, f"path={path!r} was asked for"


def _why_not(path: str, cell: Cell, backend: Backend, dtype: Any) -> str:
    if path == "kernel" and backend.kernels is None:
        return backend.why_no_kernels
    if path == "kernel" and dtype.name not in REALS:
        return f"no kernel stores {dtype.name}"
    if path == "inplace" and backend.is_cuda:
        return "it writes NumPy arrays and these are CuPy's"
    if path == "inplace" and cell.inplace is None:
        return f"the {cell.name} has no in-place step"
    return ""

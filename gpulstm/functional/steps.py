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
    lengths: Array | None  # (B,) int64 on the device
    shortest: int  # the smallest length; T without lengths

    def ended(self, t: int) -> Array | None:
        """(B,) bool: the sequences that ended before step t, or None when none did."""
        return None if t < self.shortest else self.lengths <= t


class _HostSteps:
    """What the paths without a kernel share: biases added to zx at once, ended rows put back after the step."""

    def __init__(self, seq: Sequence, zx: Array, biases: list[Array], extra: tuple) -> None:
        self.seq, self.zx, self.extra = seq, zx, extra
        if biases:
            zx += sum(biases[1:], biases[0])

    def _keep_ended(self, t: int, prev: tuple, states: tuple) -> None:
        ended = self.seq.ended(t)
        if ended is None:
            return
        for old, new in zip(prev, states, strict=True):
            new[ended] = 0 if old is None else old[ended]

    def backward(self, t: int, prev: tuple, states: tuple, dy: Array | None, dh: Array, held: Array | None,
                 dc: tuple, dz: Array) -> None:  # fmt: skip
        """dh (B, H), used up, and dc come in from the step after t; dz (B, G*H), dc and held are written."""
        ended = self.seq.ended(t)
        if dy is not None:
            dh += dy
        if held is not None:
            dh += held
            held[...] = 0
        if ended is not None:
            if held is not None:
                held[ended] = dh[ended]
            kept = [d[ended] for d in dc]
        self._step_backward(t, prev, states, dh, dc, dz)
        if ended is not None:
            dz[ended] = 0
            for d, old in zip(dc, kept, strict=True):
                d[ended] = old

    def _step_backward(self, t: int, prev: tuple, states: tuple, dh: Array, dc: tuple, dz: Array) -> None:
        raise NotImplementedError


class ReferenceSteps(_HostSteps):
    """The cell's own equations (cells/*.py) on either library: for reading, for tests, for cells without a kernel."""

    def __init__(self, seq: Sequence, zx: Array, biases: list[Array], extra: tuple) -> None:
        super().__init__(seq, zx, biases, extra)
        self.saved: list[Any] = [None] * seq.T

    def forward(self, t: int, zr: Array, prev: tuple, states: tuple) -> None:
        """States of step t from those before it; prev[0] is None where h is projected after the step."""
        new, self.saved[t] = self.seq.cell.forward(self.seq.backend.xp, self.zx[t], zr, prev, self.extra)
        for state, value in zip(states, new, strict=True):
            state[...] = value
        self._keep_ended(t, prev, states)

    def _step_backward(self, t: int, prev: tuple, states: tuple, dh: Array, dc: tuple, dz: Array) -> None:
        xp = self.seq.backend.xp
        dz[...], _, (_, *dprev), _ = self.seq.cell.backward(xp, (dh, *dc), self.saved[t], self.extra)
        for d, value in zip(dc, dprev, strict=True):
            d[...] = value


class InplaceSteps(_HostSteps):
    """The cell's step written into the sequence's buffers: NumPy without an allocation a step."""

    def __init__(self, seq: Sequence, zx: Array, biases: list[Array], extra: tuple) -> None:
        super().__init__(seq, zx, biases, extra)
        assert seq.cell.inplace is not None  # choose() looked
        self.step = seq.cell.inplace
        self.scratch = seq.backend.empty((seq.B, seq.H), seq.dtype)

    def forward(self, t: int, zr: Array, prev: tuple, states: tuple) -> None:
        """As ReferenceSteps.forward; the gates stay in zx."""
        self.step.forward(self.zx[t], zr, *prev[1:], *states, self.scratch)
        self._keep_ended(t, prev, states)

    def _step_backward(self, t: int, prev: tuple, states: tuple, dh: Array, dc: tuple, dz: Array) -> None:
        self.step.backward(self.zx[t], *prev[1:], *states[1:], dh, *dc, dz, self.scratch)


class KernelSteps:
    """One fused CUDA kernel a step (kernels/<cell>.cu); it adds the biases and serves ended rows itself."""

    def __init__(self, seq: Sequence, zx: Array, biases: list[Array], extra: tuple) -> None:
        self.seq, self.zx, self.biases = seq, zx, (*biases, None, None)[:2]
        kernels, name = seq.backend.kernels, seq.cell.name
        assert kernels is not None  # choose() looked
        self._forward = kernels.kernel(name, f"{name}_forward", seq.dtype)
        self._backward = kernels.kernel(name, f"{name}_backward", seq.dtype)

    def forward(self, t: int, zr: Array, prev: tuple, states: tuple) -> None:
        """As ReferenceSteps.forward; the gates stay in zx."""
        seq, zx = self.seq, self.zx[t]
        self._forward(
            seq.B * seq.H, zx, zr, *self.biases, *prev, seq.lengths, t, seq.B, seq.H, zx, *states
        )  # fmt: skip

    def backward(self, t: int, prev: tuple, states: tuple, dy: Array | None, dh: Array, held: Array | None,
                 dc: tuple, dz: Array) -> None:  # fmt: skip
        """As _HostSteps.backward."""
        seq = self.seq
        self._backward(
            seq.B * seq.H, self.zx[t], *prev[1:], *states[1:], dy, dh, held, seq.lengths, t, seq.B, seq.H, dz, *dc
        )  # fmt: skip


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
    why = ""
    for name in PATHS:
        reason = _why_not(name, cell, backend, dtype)
        if path == name and reason:
            raise NoKernel(f"path {path!r} cannot serve this {cell.name}: {reason}; use path='auto'")
        if path == name or (path == "auto" and not reason):
            return name, "" if path == "auto" and backend.is_cuda == (name == "kernel") else why
        why = reason or f"path={path!r} was asked for"
    raise AssertionError("the reference serves every case")


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

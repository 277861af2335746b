"""The paths a time step can take: the cell's readable equations, in place on NumPy, or one fused CUDA kernel.

All three have one interface, so that the time loop (loop.py) does not know which it drives. A step has
everything but the matrix products. Rows that are not alive keep their state, and zoneout a share of it.
"""

from typing import Any

from gpulstm.backend import Array, Backend, accumulator
from gpulstm.cells import Cell
from gpulstm.errors import NoKernel
from gpulstm.functional.sequence import Sequence
from gpulstm.launch import REALS


class _Steps:
    """The buffers of one sequence, which a step reads and writes.

    gates (T, B, G*H) comes in as the input's pre-activations and, step by step, becomes the activated gates.
    before and after hold an array (T, B, H) for each state; ``before[0]`` is None where h is projected after
    the step. vectors are the extras that are no matrices.
    """

    def __init__(self, seq: Sequence, gates: Array, before: list, after: list, biases: tuple, vectors: list) -> None:
        self.seq, self.gates, self.before, self.after = seq, gates, before, after
        self.b_ih, self.b_hh, self.vectors = *biases, vectors
        # Rows once, as lists: indexing an array costs as much as a small step's arithmetic.
        self.z_rows = list(gates)
        self.before_rows, self.after_rows = _by_step(before, seq.T), _by_step(after, seq.T)
        self.keep_rows: list[list[Any]] = [seq.keep_h if before[0] is not None else [None] * seq.T]
        self.keep_rows += [seq.keep_c] * (len(after) - 1)
        # The gradients of the vectors, a row for each sequence: summed over steps here, over rows at the end.
        self.dvectors: list[Array] = []

    def start_backward(self, dzx: Array, dzr: Array) -> None:
        """Before the first ``backward``: where the gradients (T, B, G*H) of the pre-activations go."""
        backend, acc = self.seq.backend, accumulator(self.seq.dtype)
        self.dzx, self.dzr = dzx, dzr
        self.dzx_rows, self.dzr_rows = list(dzx), list(dzr)
        self.dvectors = [backend.zeros((self.seq.B, vector.size), acc) for vector in self.vectors]


def _by_step(arrays: list, T: int) -> list[tuple]:
    return list(zip(*([None] * T if array is None else list(array) for array in arrays), strict=True))


class _HostSteps(_Steps):
    """What the paths without a kernel share: biases, states that are kept, rows that are not alive."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        seq = self.seq
        # The bias of the recurrent part stands apart only where its gradient does.
        given = [b for b in (self.b_ih, None if seq.cell.split else self.b_hh) if b is not None]
        if given:
            self.gates += sum(given[1:], given[0])
        self.b_hh = self.b_hh if seq.cell.split else None
        # States as the cell computes them, before a share of the old ones is kept.
        self.fresh = [
            array if keep[0] is None else seq.backend.empty(array.shape, array.dtype)
            for array, keep in zip(self.after, self.keep_rows, strict=True)
        ]
        self.fresh_rows = _by_step(self.fresh, seq.T)

    def forward(self, t: int, zr: Array) -> None:
        """Step t: the states after it from zr (B, G*H), the products of the states before it, used up."""
        if self.b_hh is not None:
            zr += self.b_hh
        self._step(t, zr)
        ended = self._ended(t)
        for before, fresh, after, keep in zip(
            self.before_rows[t], self.fresh_rows[t], self.after_rows[t], self.keep_rows, strict=True
        ):
            if keep[t] is not None:
                after[...] = keep[t] * before + (1 - keep[t]) * fresh
            if ended is not None:
                after[ended] = 0 if before is None else before[ended]

    def backward(self, t: int, dy: Array | None, dh: Any, direct: Any, ds: list) -> None:
        """The derivative of step t.

        dh (B, H), used up, is the gradient of h through the product of the step after it, direct (B, H) or
        None the rest but dy; ds are the gradients of the other states. direct and ds leave as those of the
        states before, row t of dzx and dzr is written.
        """
        if dy is not None:
            dh += dy
        if direct is not None:
            dh += direct
        ended, kept = self._ended(t), []
        for d, keep in zip((dh, *ds), self.keep_rows, strict=True):
            share = None if keep[t] is None else keep[t] * d
            rows = None if ended is None else d[ended]
            if share is not None:
                d -= share
            if ended is not None:
                d[ended] = 0  # with which everything the cell computes for them is zero
            kept.append((share, rows))
        if direct is not None and not self.seq.cell.direct:
            direct[...] = 0
        self._step_backward(t, dh, direct, ds)
        self._kept = kept
        if self.seq.cell.inner is None:
            self._give_back(t, direct, ds)

    def _give_back(self, t: int, direct: Any, ds: list) -> None:
        """Add what was kept of the states to the gradients of those before."""
        ended = self._ended(t)
        for d, (share, rows) in zip((direct, *ds), self._kept, strict=True):
            if share is not None and d is not None:
                d += share
            if ended is not None and d is not None:
                d[ended] = rows

    def inner(self, t: int, zr: Array, v: Array) -> None:
        """The first half of a step with an inner product: v (B, H), what is multiplied."""
        raise NotImplementedError

    def inner_backward(self, t: int, dv: Array, direct: Any, ds: list) -> None:
        """The derivative of ``inner``, after ``backward``: completes what that has written."""
        raise NotImplementedError

    def _ended(self, t: int) -> Array | None:
        alive = self.seq.alive_rows[t]
        return None if alive is None else ~alive

    def _step(self, t: int, zr: Array) -> None:
        raise NotImplementedError

    def _step_backward(self, t: int, dh: Any, direct: Any, ds: list) -> None:
        raise NotImplementedError


class ReferenceSteps(_HostSteps):
    """The cell's own equations (cells/*.py) on either library: for reading, for tests, for cells without a kernel."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.saved: list[Any] = [None] * self.seq.T

    def inner(self, t: int, zr: Array, v: Array) -> None:
        """See _HostSteps."""
        xp, cell = self.seq.backend.xp, self.seq.cell
        assert cell.inner is not None
        zr = zr if self.b_hh is None else zr + self.b_hh
        v[...] = cell.inner.forward(xp, self.z_rows[t], zr, self.before_rows[t], self.vectors)

    def inner_backward(self, t: int, dv: Array, direct: Any, ds: list) -> None:
        """See _HostSteps."""
        xp, cell = self.seq.backend.xp, self.seq.cell
        assert cell.inner is not None
        dzx, dzr, dstates = cell.inner.backward(
            xp, dv, self.dzx_rows[t], self.dzr_rows[t], (direct, *ds), self.saved[t], self.vectors
        )
        self._write(t, dzx, dzr, dstates, direct, ds)
        self._give_back(t, direct, ds)

    def _step(self, t: int, zr: Array) -> None:
        xp = self.seq.backend.xp
        states, self.saved[t] = self.seq.cell.forward(xp, self.z_rows[t], zr, self.before_rows[t], self.vectors)
        for row, state in zip(self.fresh_rows[t], states, strict=True):
            row[...] = state

    def _step_backward(self, t: int, dh: Any, direct: Any, ds: list) -> None:
        xp = self.seq.backend.xp
        dzx, dzr, dstates, dvectors = self.seq.cell.backward(xp, (dh, *ds), self.saved[t], self.vectors)
        self._write(t, dzx, dzr, dstates, direct, ds)
        for total, dvector in zip(self.dvectors, dvectors, strict=True):
            total += dvector

    def _write(self, t: int, dzx: Array, dzr: Array, dstates: tuple, direct: Any, ds: list) -> None:
        self.dzx[t] = dzx
        if self.seq.cell.split:
            self.dzr[t] = dzr
        if dstates[0] is not None:
            direct[...] = dstates[0]
        for d, dstate in zip(ds, dstates[1:], strict=True):
            d[...] = dstate


class InplaceSteps(_HostSteps):
    """The cell's step written into the sequence's buffers: NumPy without an allocation a step.

    The part of backward that does not wait for the step after is done for several steps at once, as many as
    stay in cache: few sequences of few units would otherwise spend their time in calls.
    """

    CACHED = 1 << 18  # bytes of gates; what is done with them should stay in a core's second-level cache

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        seq = self.seq
        assert seq.cell.inplace is not None  # choose() looked
        self.step = seq.cell.inplace
        self.scratch = seq.backend.empty((seq.B, seq.H), seq.dtype)
        self.kept = seq.backend.empty((seq.T, seq.B, self.step.kept * seq.H), seq.dtype)
        self.kept_rows = list(self.kept)
        self.block = max(1, self.CACHED // max(1, self.z_rows[0].nbytes))  # steps

    def _step(self, t: int, zr: Array) -> None:
        self.step.forward(
            self.z_rows[t], zr, self.before_rows[t], self.fresh_rows[t], self.kept_rows[t], self.scratch
        )  # fmt: skip

    def _step_backward(self, t: int, dh: Any, direct: Any, ds: list) -> None:
        start = t - t % self.block
        if t == (start if self.seq.reverse else min(start + self.block, self.seq.T) - 1):  # the block's first visit
            self._prepare(start)
        dzx, dzr = self.dzx_rows[t], self.dzr_rows[t]
        self.step.backward(self.z_rows[t], self.factor[t - start], dzx, dzr, dh, direct, ds)

    def _prepare(self, start: int) -> None:
        steps = slice(start, min(start + self.block, self.seq.T))
        before, fresh = ([None if a is None else a[steps] for a in arrays] for arrays in (self.before, self.fresh))
        self.factor = self.seq.backend.empty((*self.gates[steps].shape[:2], self.seq.H), self.seq.dtype)
        self.step.coefficients(
            self.gates[steps], before, fresh, self.kept[steps], self.dzx[steps], self.dzr[steps], self.factor
        )  # fmt: skip


class KernelSteps(_Steps):
    """One fused CUDA kernel a step (see cells.Kernels); it adds the biases and keeps states itself."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        seq, kernels = self.seq, self.seq.backend.kernels
        assert kernels is not None and seq.cell.kernel is not None  # choose() looked
        form, kept = seq.cell.kernel, seq.cell.kernel.kept
        self.kept_rows = list(seq.backend.empty((seq.T if kept else 0, seq.B, kept * seq.H), seq.dtype))

        def entry(name: str) -> Any:
            return kernels.kernel(form.file, f"{form.name or seq.cell.name}_{name}", seq.dtype, form.defines)

        self._forward, self._backward = entry("forward"), entry("backward")
        if seq.cell.inner is not None:
            self._inner, self._inner_backward = entry("inner"), entry("inner_backward")
        self.size, self.grid = seq.B * seq.H, {}
        if form.rows:
            threads = min(1024, max(32, 1 << (seq.H - 1).bit_length()))
            acc = accumulator(seq.dtype)
            self.grid = {"blocks": seq.B, "threads": threads, "shared": threads * acc.itemsize}

    def forward(self, t: int, zr: Array) -> None:
        """As _HostSteps.forward."""
        z = self.z_rows[t]
        self._launch(self._forward, z, zr, self.b_ih, self.b_hh, *self.before_rows[t], *self.vectors,
                     *self._kept(t), *self._sizes, z, *self.kept_rows[t : t + 1], *self.after_rows[t])  # fmt: skip

    def backward(self, t: int, dy: Array | None, dh: Any, direct: Any, ds: list) -> None:
        """As _HostSteps.backward."""
        self._launch(self._backward, self.z_rows[t], *self.kept_rows[t : t + 1], *self.before_rows[t], *self.vectors,
                     *self._kept(t), dy, dh, direct, *self._sizes, *self._dz(t), *ds, *self.dvectors)  # fmt: skip

    def inner(self, t: int, zr: Array, v: Array) -> None:
        """As _HostSteps.inner."""
        self._launch(self._inner, self.z_rows[t], zr, self.b_ih, self.b_hh, *self.before_rows[t], *self.vectors,
                     *self._sizes, v)  # fmt: skip

    def inner_backward(self, t: int, dv: Array, direct: Any, ds: list) -> None:
        """As _HostSteps.inner_backward."""
        self._launch(self._inner_backward, self.z_rows[t], *self.kept_rows[t : t + 1], *self.before_rows[t],
                     *self.vectors, dv, *self._sizes, *self._dz(t), direct, *ds, *self.dvectors)  # fmt: skip

    def _launch(self, kernel: Any, *args: Any) -> None:
        kernel(self.size, *args, **self.grid)

    @property
    def _sizes(self) -> tuple[int, int]:
        return self.seq.B, self.seq.H

    def _kept(self, t: int) -> list:
        """alive and the shares of the old states: keep_h, and keep_c where there are other states."""
        return [self.seq.alive_rows[t], *(keep[t] for keep in self.keep_rows[:2])]

    def _dz(self, t: int) -> tuple:
        return (self.dzx_rows[t], self.dzr_rows[t]) if self.seq.cell.split else (self.dzx_rows[t],)


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
    if path == "kernel" and cell.kernel is None:
        return f"the {cell.name} has no kernel"
    if path == "kernel" and dtype.name not in REALS:
        return f"no kernel stores {dtype.name}"
    if path == "inplace" and backend.is_cuda:
        return "it writes NumPy arrays and these are CuPy's"
    if path == "inplace" and cell.inplace is None:
        return f"the {cell.name} has no in-place step"
    return ""

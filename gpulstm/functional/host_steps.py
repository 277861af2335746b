"""The paths without a kernel: the cell's readable equations on either library, and in place on NumPy."""

from typing import Any

from gpulstm.backend import Array
from gpulstm.functional.steps import Steps, by_step


class _HostSteps(Steps):
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
        self.fresh_rows = by_step(self.fresh, seq.T)
        # At which steps something is kept.
        zoned = any(keep[0] is not None for keep in self.keep_rows)
        self.keeps = [zoned or alive is not None for alive in seq.alive_rows]

    def forward(self, t: int, zr: Array) -> None:
        """See Steps."""
        if self.b_hh is not None:
            zr += self.b_hh
        self._step(t, zr)
        if self.keeps[t]:
            self._keep(t)

    def _keep(self, t: int) -> None:
        ended = self._ended(t)
        rows = zip(self.before_rows[t], self.fresh_rows[t], self.after_rows[t], self.keep_rows, strict=True)
        for before, fresh, after, keep in rows:
            if keep[t] is not None:
                after[...] = keep[t] * before + (1 - keep[t]) * fresh
            if ended is not None:
                after[ended] = 0 if before is None else before[ended]

    def backward(self, t: int, dy: Array | None, dh: Any, direct: Any, ds: list) -> None:
        """See Steps."""
        if dy is not None:
            dh += dy
        if direct is not None:
            dh += direct
        if self.keeps[t]:
            self._set_aside(t, dh, ds)
        if direct is not None and not self.seq.cell.direct:
            direct[...] = 0
        self._step_backward(t, dh, direct, ds)
        if self.seq.cell.inner is None and self.keeps[t]:
            self._give_back(t, direct, ds)

    def _set_aside(self, t: int, dh: Any, ds: list) -> None:
        """Take from the gradients what belongs to the states that were kept."""
        ended = self._ended(t)
        self._kept = []
        for d, keep in zip((dh, *ds), self.keep_rows, strict=True):
            share = None if keep[t] is None else keep[t] * d
            rows = None if ended is None else d[ended]
            if share is not None:
                d -= share
            if ended is not None:
                d[ended] = 0  # with which everything the cell computes for them is zero
            self._kept.append((share, rows))

    def _give_back(self, t: int, direct: Any, ds: list) -> None:
        """Add what was set aside to the gradients of the states before."""
        ended = self._ended(t)
        for d, (share, rows) in zip((direct, *ds), self._kept, strict=True):
            if share is not None and d is not None:
                d += share
            if ended is not None and d is not None:
                d[ended] = rows

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
        """See Steps."""
        xp, cell = self.seq.backend.xp, self.seq.cell
        assert cell.inner is not None
        zr = zr if self.b_hh is None else zr + self.b_hh
        v[...] = cell.inner.forward(xp, self.z_rows[t], zr, self.before_rows[t], self.vectors)

    def inner_backward(self, t: int, dv: Array, direct: Any, ds: list) -> None:
        """See Steps."""
        xp, cell = self.seq.backend.xp, self.seq.cell
        assert cell.inner is not None
        dzx, dzr, dstates = cell.inner.backward(
            xp, dv, self.dzx_rows[t], self.dzr_rows[t], (direct, *ds), self.saved[t], self.vectors
        )
        self._write(t, dzx, dzr, dstates, direct, ds)
        if self.keeps[t]:
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

"""The paths without a kernel: the cell's readable equations on either library, and in place on NumPy."""

from abc import abstractmethod
from typing import Any

import numpy as np

from gpulstm.backend import Array
from gpulstm.cells import Buffers
from gpulstm.dtypes import accumulator
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

    def inner(self, t: int, zr: Array, v: Array) -> None:
        """See Steps."""
        self._inner(t, zr if self.b_hh is None else zr + self.b_hh, v)

    def inner_backward(self, t: int, dv: Array, direct: Any, ds: list) -> None:
        """See Steps."""
        self._inner_backward(t, dv, direct, ds)
        if self.keeps[t]:
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

    @abstractmethod
    def _step(self, t: int, zr: Array) -> None: ...

    @abstractmethod
    def _step_backward(self, t: int, dh: Any, direct: Any, ds: list) -> None: ...

    @abstractmethod
    def _inner(self, t: int, zr: Array, v: Array) -> None: ...

    @abstractmethod
    def _inner_backward(self, t: int, dv: Array, direct: Any, ds: list) -> None: ...


class ReferenceSteps(_HostSteps):
    """The cell's own equations (cells/*.py) on either library: for reading, for tests, for cells without a kernel."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.saved: list[Any] = [None] * self.seq.T

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

    def _inner(self, t: int, zr: Array, v: Array) -> None:
        xp, cell = self.seq.backend.xp, self.seq.cell
        assert cell.inner is not None
        v[...] = cell.inner.forward(xp, self.z_rows[t], zr, self.before_rows[t], self.vectors)

    def _inner_backward(self, t: int, dv: Array, direct: Any, ds: list) -> None:
        xp, cell = self.seq.backend.xp, self.seq.cell
        assert cell.inner is not None
        dzx, dzr, dstates = cell.inner.backward(
            xp, dv, self.dzx_rows[t], self.dzr_rows[t], (direct, *ds), self.saved[t], self.vectors
        )
        self._write(t, dzx, dzr, dstates, direct, ds)

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

    What does not wait for another step is done for several steps at once, as many as stay in cache: few sequences
    of few units would otherwise spend their time in calls.
    """

    CACHED = 1 << 18  # bytes of gates; what is done with them should stay in a core's second-level cache

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        seq, acc = self.seq, accumulator(self.seq.dtype)
        assert seq.cell.inplace is not None  # choose() looked
        self.cell = seq.cell.inplace
        self.kept = [seq.backend.empty((seq.T, seq.B, k * seq.H), acc) for k in self.cell.kept]
        self.columns = seq.backend.empty((seq.T, self.cell.columns, seq.B), acc)
        self.repeated = [np.tile(vector.astype(acc), (seq.B, 1)) for vector in self.vectors]
        scratch = seq.backend.empty((seq.B, seq.H), acc)
        # Blocks of steps, by the step at which forward comes to each first and last.
        self.length = min(seq.T, max(1, self.CACHED // max(1, self.z_rows[0].nbytes)))
        self.wide = seq.backend.empty((self.length, *self.gates.shape[1:]), acc)
        kept_rows = by_step(self.kept, seq.T)
        of_each = zip(self.z_rows, self.before_rows, self.fresh_rows, kept_rows, self.columns, strict=True)
        self.steps = [Buffers(*arrays, self.repeated, self.wide[0], scratch) for arrays in of_each]
        blocks = [range(start, min(start + self.length, seq.T)) for start in range(0, seq.T, self.length)]
        self.opens = {block[-1 if seq.reverse else 0]: block for block in blocks}
        self.closes = {block[0 if seq.reverse else -1]: block for block in blocks}
        self.begins = {} if self.cell.begin is None else dict(self.opens)  # what is still to come

    def start_backward(self, dzx: Array, dzr: Array) -> None:
        """See Steps."""
        super().start_backward(dzx, dzr)
        acc = accumulator(self.seq.dtype)
        self.dvectors = [self.seq.backend.zeros((1, vector.size), acc) for vector in self.vectors]  # all rows in one
        for step, dzx_row, dzr_row in zip(self.steps, self.dzx_rows, self.dzr_rows, strict=True):
            step.dzx, step.dzr = dzx_row, dzr_row
        # Those of one block; the next block uses them again.
        sizes = [(self.length, self.seq.B, k * self.seq.H) for k in self.cell.factors]
        self.factors = [self.seq.backend.empty(size, acc) for size in sizes]
        self.factor_rows = by_step(self.factors, self.length)

    def _begin(self, t: int) -> None:
        """What comes before a block, if it begins with step t and has not begun."""
        if t in self.begins:
            assert self.cell.begin is not None
            self.cell.begin(self._block(self.begins.pop(t)))

    def _step(self, t: int, zr: Array) -> None:
        self._begin(t)
        self.cell.forward(self.steps[t], zr)

    def _inner(self, t: int, zr: Array, v: Array) -> None:
        assert self.cell.inner is not None
        self._begin(t)
        self.cell.inner(self.steps[t], zr, v)

    def _step_backward(self, t: int, dh: Any, direct: Any, ds: list) -> None:
        if t in self.closes:
            self._coefficients(self.closes[t])
        self.cell.backward(self.steps[t], dh, direct, ds)
        if self.cell.inner_backward is None:
            self._finish(t)

    def _inner_backward(self, t: int, dv: Array, direct: Any, ds: list) -> None:
        assert self.cell.inner_backward is not None
        self.cell.inner_backward(self.steps[t], dv, direct, ds)
        self._finish(t)

    def _coefficients(self, steps: range) -> None:
        self.block = block = self._block(steps)
        block.dzx, block.dzr = (dz[steps.start : steps.stop] for dz in (self.dzx, self.dzr))
        block.factors = [array[: len(steps)] for array in self.factors]
        self.cell.coefficients(block)
        for step, factors in zip(self.steps[steps.start : steps.stop], self.factor_rows, strict=False):
            step.factors = factors

    def _finish(self, t: int) -> None:
        """What is left of the block, if backward ends it with step t."""
        if self.cell.finish is not None and t in self.opens:
            self.cell.finish(self.block, self.dvectors)

    def _block(self, steps: range) -> Buffers:
        at = slice(steps.start, steps.stop)
        before, after = ([None if a is None else a[at] for a in arrays] for arrays in (self.before, self.fresh))
        kept = [array[at] for array in self.kept]
        return Buffers(self.gates[at], before, after, kept, self.columns[at], self.repeated, self.wide[: len(steps)])

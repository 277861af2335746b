"""The path without a kernel: the cell's readable equations, in NumPy or CuPy."""

from typing import Any

from gpulstm.backend import Array
from gpulstm.functional.products import vectors_by_name
from gpulstm.functional.steps import Steps, by_step


class ReferenceSteps(Steps):
    """The cell's own equations (cells/*.py): for reading, for tests, for cells without a kernel."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        seq = self.seq
        # Lists of rows, made once: indexing an array costs as much as the arithmetic of a small step.
        self.z_rows, self.keep_h = list(self.gates), seq.keep_h if self.keeps_h else [None] * seq.T
        self.before_rows, self.after_rows = by_step(self.before, seq.T), by_step(self.after, seq.T)
        # The recurrent bias is kept apart only if its gradient is (cell.split).
        given = [b for b in (self.b_ih, None if seq.cell.split else self.b_hh) if b is not None]
        if given:
            self.gates += sum(given[1:], given[0])
        self.b_hh = self.b_hh if seq.cell.split else None
        self.extras = self._extras(self.vectors)
        self.saved: list[Any] = [None] * seq.T

    def start(self, zr: Array, v: Array | None) -> None:
        """See Steps."""
        self.zr, self.v = zr, v if v is None else list(v)

    def start_backward(self, *gradients: Any) -> None:
        """See Steps."""
        super().start_backward(*gradients)
        self.dzx_rows, self.dzr_rows = list(self.dzx), list(self.dzr)
        self.dy_rows = [None] * self.seq.T if self.dy is None else list(self.dy)

    def forward(self, t: int) -> None:
        """See Steps."""
        zr = self.zr
        if self.b_hh is not None:
            zr += self.b_hh
        before, (h_after, others_after) = self._before(t), self.after_rows[t]
        states, self.saved[t] = self.seq.cell.forward(self.seq.backend.xp, self.z_rows[t], zr, before, self.extras)
        for old, new, after, share in zip(before, states, (h_after, *others_after), self._shares(t), strict=True):
            after[...] = new if share is None else (1 - share) * new + (0 if old is None else share * old)

    def backward(self, t: int) -> None:
        """See Steps."""
        dh, direct, ds = self.dh, self.direct, self.ds
        for other in (self.dy_rows[t], direct):
            if other is not None:
                dh += other
        gradients, shares = (dh, *ds), self._shares(t)
        # Each gradient has a part that goes to the state that was kept, and a part that passes through the cell.
        kept = [0 if share is None else share * d for d, share in zip(gradients, shares, strict=True)]
        through = [d if share is None else (1 - share) * d for d, share in zip(gradients, shares, strict=True)]
        dzx, dzr, dstates, dextras = self.seq.cell.backward(self.seq.backend.xp, through, self.saved[t], self.extras)
        if direct is not None:
            direct[...] = 0
        self._write(t, dzx, dzr, dstates)
        for total, stays in zip((direct, *ds), kept, strict=True):
            if total is not None:
                total += stays
        for total, dextra in zip(self._extras(self.dvectors), dextras, strict=True):
            total += dextra

    def inner(self, t: int) -> None:
        """See Steps."""
        xp, cell = self.seq.backend.xp, self.seq.cell
        assert cell.inner is not None and self.v is not None
        zr = self.zr if self.b_hh is None else self.zr + self.b_hh
        v: Any = self.v[t]
        v[...] = cell.inner.forward(xp, self.z_rows[t], zr, self._before(t), self.extras)

    def inner_backward(self, t: int) -> None:
        """See Steps."""
        xp, cell, dz = self.seq.backend.xp, self.seq.cell, (self.dzx_rows[t], self.dzr_rows[t])
        assert cell.inner is not None
        dzx, dzr, dstates = cell.inner.backward(xp, self.dv, *dz, (self.direct, *self.ds), self.saved[t], self.extras)
        self._write(t, dzx, dzr, dstates)

    def _write(self, t: int, dzx: Array, dzr: Array, dstates: tuple) -> None:
        self.dzx_rows[t][...] = dzx
        if self.seq.cell.split:
            self.dzr_rows[t][...] = dzr
        if dstates[0] is not None:
            self.direct[...] = dstates[0]
        for d, dstate in zip(self.ds, dstates[1:], strict=True):
            d[...] = dstate

    def _before(self, t: int) -> tuple:
        """The states before step t, each an array (B, H), in the cell's order."""
        h, others = self.before_rows[t]
        return (h, *others)

    def _shares(self, t: int) -> list:
        """For each state the share of the old one (B, 1 or H) that step t keeps, or None; all of it after the end."""
        seq, alive = self.seq, self.seq.alive_rows[t]
        shares = [self.keep_h[t], *[seq.keep_c[t]] * (len(seq.cell.states) - 1)]
        if alive is None:
            return shares
        ended = seq.backend.xp.asarray(~alive[:, None], dtype=seq.dtype)
        return [ended if share is None else seq.backend.where(alive[:, None], share, 1) for share in shares]

    def _extras(self, vectors: Array) -> tuple:
        """The extra parameters that are vectors, one by one, as the equations take them."""
        return tuple(vectors_by_name(self.seq.cell, vectors, self.seq.H).values())

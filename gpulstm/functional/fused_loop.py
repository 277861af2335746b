"""The time loop of the paths that have a step's product and its gates in one kernel."""

from typing import Any

from gpulstm.backend import Array
from gpulstm.dtypes import accumulator
from gpulstm.functional.fused_steps import FusedSteps
from gpulstm.functional.loop import Loop
from gpulstm.functional.products import Multiplied
from gpulstm.functional.sequence import Sequence


class FusedLoop(Loop):
    """A Loop whose steps make their products, clear what a reset clears, and drop what dropout drops, themselves."""

    def __init__(self, seq: Sequence, persistent: bool, input_gradient: bool) -> None:
        self.seq, self.persistent, self.input_gradient = seq, persistent, input_gradient

    def _run_steps(self, gates: Array) -> None:
        self.fused = FusedSteps(self.seq, self.persistent, self.weights)
        self.fused.forward(gates, *self.all)

    def _run_back(self, dy: Array | None, dstates: tuple) -> tuple:
        seq, be, T, B, H, GH = self.seq, self.seq.backend, self.seq.T, self.seq.B, self.seq.H, len(self.weights.w_hh)
        direct = be.zeros((B, H), accumulator(seq.dtype))
        ds = be.zeros((len(seq.cell.states) - 1, B, H), accumulator(seq.dtype))
        for d, given in zip((direct, *ds), dstates, strict=True):
            if given is not None:
                d[...] = given
        dzx = be.empty((T, B, GH), seq.dtype)
        dzr = be.empty((T, B, GH), seq.dtype) if seq.cell.split else dzx
        self.fused.backward(dy, direct, ds, dzx, dzr)
        multiplied = [Multiplied(seq, form, self.weights, self._source(form.source)) for form in seq.cell.products]
        self.outer, self.inner = multiplied, []
        return [d.astype(seq.dtype, copy=False) for d in (direct, *ds)], dzx, dzr, None, self.fused.dvectors

    def _source(self, name: str) -> Any:
        """What entered the products of that source at every step, (T, B, H)."""
        seq, fused = self.seq, self.fused
        if name == "inner":
            return fused.inner
        entered = slice(seq.before, seq.T + seq.before)
        state = seq.cell.states.index(name)
        rows = self.all[0][entered] if state == 0 else self.all[1][entered, state - 1].astype(seq.dtype, copy=False)
        if fused.stays is not None:
            rows = seq.backend.where(fused.stays[:, :, None], rows, 0)
        return rows if seq.dropped is None or state > 0 else rows * seq.dropped

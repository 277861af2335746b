"""The only time loop of the library: products and steps in turn, forward and backward.

Everything that can be one product for the whole sequence is: the inputs before the loop, the gradients of the
weights and of the inputs after it. Inside the loop stand the products of the states and one fused step (steps.py).
"""

from typing import Any

from gpulstm.backend import Array
from gpulstm.dtypes import accumulator
from gpulstm.functional.linear import product
from gpulstm.functional.products import Multiplied, Weights, lay_out, vectors_by_name
from gpulstm.functional.sequence import Sequence
from gpulstm.functional.steps import Steps


class Loop:
    """The forward loop, and what it leaves for the backward loop.

    States stand in arrays of T + 1 rows, so that each step finds the one before it, and y is a view of all rows
    but the first state's. What enters a step is an array of its own where it is not the state that the step
    before it left: with ``reset``, and with dropout on the recurrent path.
    """

    def __init__(self, seq: Sequence, make_steps: type[Steps], input_gradient: bool) -> None:
        self.seq, self.make_steps, self.input_gradient = seq, make_steps, input_gradient
        self.times = list(range(seq.T))[:: -1 if seq.reverse else 1]

    def run(self, x: Array, states: list, weights: Weights) -> tuple:
        """(y, *states_n) of x (T, B, D) from the first states, None for zeros."""
        seq, be, cell = self.seq, self.seq.backend, self.seq.cell
        T, B, H, GH = seq.T, seq.B, seq.H, weights.w_ih.shape[0]
        alive = None if seq.alive is None else seq.alive[:, :, None]
        if alive is not None:
            x = be.where(alive, x, 0)  # padding may hold anything, NaN too
        self.x, self.weights, self.given = x.reshape(T * B, x.shape[2]), weights, [s is not None for s in states]

        gates = be.empty((T, B, GH), seq.dtype)
        be.multiply(self.x, weights.w_ih.T, gates.reshape(T * B, GH))
        first, last = (T, 0) if seq.reverse else (0, T)
        # h, and the other states.
        others = (T + 1, len(cell.states) - 1, B, H)
        self.all = be.empty((T + 1, B, seq.P), seq.dtype), be.empty(others, accumulator(seq.dtype))
        for row, state in zip((self.all[0][first], *self.all[1][first]), states, strict=True):
            row[...] = 0 if state is None else state
        self._run_steps(gates)

        y = self.all[0][seq.after : T + seq.after]
        if alive is not None:
            y = be.where(alive, y, 0)
        h, states_n = (rows[last] for rows in self.all)
        return y, h.copy(), *(state.astype(seq.dtype) for state in states_n)

    def _run_steps(self, gates: Array) -> None:
        """All steps from the first states on; gates (T, B, G*H), the input's part, becomes what is kept."""
        seq, be, xp, cell, weights = self.seq, self.seq.backend, self.seq.backend.xp, self.seq.cell, self.weights
        T, B, H, GH = seq.T, seq.B, seq.H, gates.shape[2]
        self.left = tuple(rows[seq.before : T + seq.before] for rows in self.all)  # by the step before
        after = tuple(rows[seq.after : T + seq.after] for rows in self.all)
        self.entering = self.left
        if any(row is not None for row in seq.clear_rows):
            self.entering = tuple(be.empty(rows.shape, rows.dtype) for rows in self.left)
        multiplied = self.entering[0]
        if seq.dropped is not None:
            multiplied = be.empty(multiplied.shape, seq.dtype)

        self.changed = multiplied is not self.left[0]  # what enters is not what was left

        # With a projection: o * tanh(c) of every step.
        self.cell_out: Any = None if weights.w_hr is None else be.empty((T, B, H), seq.dtype)
        before = self.entering if weights.w_hr is None else (None, self.entering[1])
        cell_after = after if weights.w_hr is None else (self.cell_out, after[1])
        biases, vectors = (weights.b_ih, weights.b_hh), weights.vectors(cell, xp, seq.dtype)
        self.steps = self.make_steps(seq, gates, before, cell_after, biases, vectors)

        sources: dict[str, Any] = {state: self.entering[1][:, s] for s, state in enumerate(cell.states[1:])}
        sources[cell.states[0]] = multiplied
        if cell.inner is not None:
            sources["inner"] = be.empty((T, B, H), seq.dtype)
        products = [Multiplied(seq, form, weights, sources[form.source]) for form in cell.products]
        self.outer = outer = [p for p in products if p.form.source != "inner"]
        self.inner = inner = [p for p in products if p.form.source == "inner"]
        zr = be.empty((B, GH), seq.dtype)
        cleared = lay_out([*outer, *inner], zr, len(cell.gates))
        self.steps.start(zr, sources["inner"] if inner else None)
        projected = None
        if weights.w_hr is not None:
            assert self.cell_out is not None
            projected = be.multiply_rows(self.cell_out, weights.w_hr.T, after[0])
        for t in self.times:
            if self.changed:
                self._enter(t, multiplied)
            if cleared:
                zr[...] = 0
            for each in outer:
                each.forward(t)
            if inner:
                self.steps.inner(t)
            for each in inner:
                each.forward(t)
            self.steps.forward(t)
            if projected is not None:
                projected(t)
                self._keep_projected(t, after[0][t])

    def pullback(self, dy: Array | None, *dstates: Array | None) -> tuple:
        """The gradients of x, the first states and the weights, from those of y and the last states."""
        seq, be, weights = self.seq, self.seq.backend, self.weights
        T, B, GH = seq.T, seq.B, weights.w_ih.shape[0]
        if dy is not None:
            dy = be.xp.ascontiguousarray(dy, dtype=seq.dtype)
            if seq.alive is not None:
                dy = be.where(seq.alive[:, :, None], dy, 0)
        gradients, dzx, dzr, dhs, dvectors = self._run_back(dy, dstates)
        flat_x, flat_r = dzx.reshape(T * B, GH), dzr.reshape(T * B, GH)
        return (
            product(be, flat_x, weights.w_ih).reshape(T, B, weights.w_ih.shape[1]) if self.input_gradient else None,
            *(d if given else None for d, given in zip(gradients, self.given, strict=True)),
            product(be, flat_x.T, self.x),
            *self._weight_gradients(flat_x, flat_r, dhs, dvectors),
        )

    def _run_back(self, dy: Array | None, dstates: tuple) -> tuple:
        """(gradients of the first states, dzx, dzr, dhs, dvectors), from those of y and of the last states."""
        seq, be, cell, weights = self.seq, self.seq.backend, self.seq.cell, self.weights
        T, B, H, P, GH = seq.T, seq.B, seq.H, seq.P, weights.w_ih.shape[0]
        # The gradient of h by way of the next step's product, and besides it.
        dh = be.zeros((B, P), seq.dtype)
        direct = be.zeros((B, P), seq.dtype) if cell.direct or seq.keeps else None
        ds = be.zeros((len(cell.states) - 1, B, H), accumulator(seq.dtype))
        for d, given in zip((dh if direct is None else direct, *ds), dstates, strict=True):
            if given is not None:
                d[...] = given
        dzx = be.empty((T, B, GH), seq.dtype)
        dzr = be.empty((T, B, GH), seq.dtype) if cell.split else dzx
        dv = self._start_products_backward(dzr, dh)
        # With a projection: the gradient of h at every step, and of what it was projected from.
        dhs = be.empty((0 if weights.w_hr is None else T, B, P), seq.dtype)
        if weights.w_hr is None:
            self.steps.start_backward(dzx, dzr, dy, dh, direct, ds, dv)
        else:
            dcell = be.empty((B, H), seq.dtype)
            unprojected = be.multiply_rows(dhs, weights.w_hr, dcell)
            dhs_rows, dy_rows = list(dhs), [None] * T if dy is None else list(dy)
            self.steps.start_backward(dzx, dzr, None, dcell, None, ds, dv)

        for t in reversed(self.times):
            if weights.w_hr is not None:
                self._project_backward(t, dy_rows[t], dh, direct, dhs_rows[t])
                unprojected(t)
            self.steps.backward(t)
            self._products_backward(t, dh, ds)
            if self.changed:
                self._leave(t, dh, direct, ds)

        if direct is not None:
            dh += direct
        return [dh, *(d.astype(seq.dtype, copy=False) for d in ds)], dzx, dzr, dhs, self.steps.dvectors

    def _start_products_backward(self, dzr: Array, dh: Array) -> Array | None:
        """Where the gradients of the products go: those of h to dh; the answer is that of an inner product."""
        for each in self.inner:
            each.start_backward(dzr)
        self.writes_dh = False
        for each in self.outer:
            if each.form.source == "h":
                each.start_backward(dzr, dh, add=self.writes_dh)
                self.writes_dh = True
            else:
                each.start_backward(dzr)
        return self.inner[0].gradient if self.inner else None

    def _products_backward(self, t: int, dh: Array, ds: Array) -> None:
        """The gradients of the states before step t by way of its products; dh, used up, is written."""
        for each in self.inner:
            each.backward(t)
        for each in self.inner[1:]:
            self.inner[0].gradient += each.gradient
        if self.inner:
            self.steps.inner_backward(t)
        for each in self.outer:
            each.backward(t)
            if each.form.source != "h":
                ds[self.seq.cell.states.index(each.form.source) - 1] += each.gradient
        if not self.writes_dh:
            dh[...] = 0

    def _weight_gradients(self, dzx: Array, dzr: Array, dhs: Any, dvectors: Array) -> tuple:
        """Those of w_hh, b_ih, b_hh, w_hr and the extras."""
        seq, be, cell, weights = self.seq, self.seq.backend, self.seq.cell, self.weights
        # A sum over rows is a product too: it accumulates in float32 and runs on all cores.
        ones = be.xp.ones((1, dzx.shape[0]), seq.dtype)
        db_ih = db_hh = dw_hr = None
        if weights.b_ih is not None:
            db_ih = product(be, ones, dzx)[0]
        if weights.b_hh is not None:
            db_hh = product(be, ones, dzr)[0] if cell.split or db_ih is None else db_ih.copy()
        if weights.w_hr is not None:
            dw_hr = product(be, dhs.reshape(-1, seq.P).T, self.cell_out.reshape(-1, seq.H))
        by_name: dict[str, Array] = {}
        for each in (*self.outer, *self.inner):
            name, gradient = each.form.weight, each.weight_gradient(dzr)
            shape = weights.of(cell, name).shape
            if gradient.shape == shape and name not in by_name:
                by_name[name] = gradient
                continue
            if name not in by_name:
                by_name[name] = be.zeros(shape, seq.dtype)
            by_name[name][each.form.weight_rows(seq.H)] += gradient
        by_name |= vectors_by_name(cell, dvectors.sum(0).astype(seq.dtype, copy=False), seq.H)
        return by_name["w_hh"], db_ih, db_hh, dw_hr, *(by_name[form.name] for form in cell.extra)

    def _enter(self, t: int, multiplied: Any) -> None:
        """What step t takes of the states: cleared where a new sequence begins, h_prev with its dropout."""
        if self.entering is not self.left:
            for entering, left in zip(self.entering, self.left, strict=True):
                entering[t] = self._cleared(t, left[t])
        if self.seq.dropped is not None:
            multiplied[t] = self.entering[0][t] * self.seq.dropped

    def _leave(self, t: int, dh: Array, direct: Array | None, ds: Array) -> None:
        """The derivative of ``_enter``."""
        if self.seq.dropped is not None:
            dh *= self.seq.dropped
        if self.seq.clear_rows[t] is not None:
            for d in (dh, direct, ds):
                if d is not None:
                    d[...] = self._cleared(t, d)

    def _cleared(self, t: int, rows: Any) -> Any:
        """rows (..., B, width), zeros where a new sequence begins with step t, whatever stood there."""
        stays = self.seq.clear_rows[t]
        return rows if stays is None else self.seq.backend.where(stays, rows, 0)

    def _keep_projected(self, t: int, h: Any) -> None:
        """h, which the projection has written, with what is kept of the old h."""
        seq, before = self.seq, self.entering[0][t]
        if seq.keep_h[t] is not None:
            h[...] = seq.keep_h[t] * before + (1 - seq.keep_h[t]) * h
        if seq.alive_rows[t] is not None:
            h[...] = seq.backend.where(seq.alive_rows[t][:, None], h, before)

    def _project_backward(self, t: int, dy: Array | None, dh: Array, direct: Any, dh_t: Any) -> None:
        """The gradient of what was projected at step t into dh_t; direct becomes what reaches h_prev unprojected."""
        seq = self.seq
        if dy is None:
            dh_t[...] = dh
        else:
            seq.backend.xp.add(dh, dy, out=dh_t)
        if direct is None:
            return
        dh_t += direct
        direct[...] = 0
        if seq.keep_h[t] is not None:
            direct[...] = seq.keep_h[t] * dh_t
        if seq.alive_rows[t] is not None:
            direct[...] = seq.backend.where(seq.alive_rows[t][:, None], direct, dh_t)
        dh_t -= direct

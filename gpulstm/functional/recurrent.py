"""One layer of a recurrent network over a whole sequence, in one direction: the only time loop of the library.

Everything that can be one product for the whole sequence is: the inputs before the loop, the gradients of the
weights and of the inputs after it. Inside the loop stand one product and one fused step (steps.py).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from gpulstm.backend import FLOATS, Array, Backend, accumulator, backend_of
from gpulstm.cells import CELLS
from gpulstm.errors import DTypeError, NoKernel, ShapeError
from gpulstm.functional.explain import Run, record
from gpulstm.functional.linear import product
from gpulstm.functional.steps import PATHS, Sequence, Steps, choose

Pullback = Callable[..., tuple]


def recurrent(
    x: Array,
    h0: Array | None,
    c0: Array | None,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    w_hr: Array | None = None,
    extra: tuple = (),
    *,
    cell: str = "lstm",
    lengths: Any = None,
    reverse: bool = False,
    path: str = "auto",
    input_gradient: bool = True,
) -> tuple[tuple[Array, Array, Array], Pullback]:
    """Run a cell over a sequence: ``(y, h_n, c_n), pullback = recurrent(x, h0, c0, w_ih, w_hh, ...)``.

    Shapes, with T steps, B sequences, D inputs, H units, G gates, and P = H or the size of the projection:

    ======== =========== ==========================================================================
    x        (T, B, D)
    h0, c0   (B, P|H)    first states; None for zeros
    w_ih     (G*H, D)    PyTorch's weight_ih; gates in the cell's order (LSTM: i, f, g, o)
    w_hh     (G*H, P)    PyTorch's weight_hh
    b_ih     (G*H,)      biases, both optional; PyTorch keeps two
    w_hr     (P, H)      projection h = w_hr (o * tanh c), Sak, Senior & Beaufays 2014; or None
    lengths  (B,)        integers 0..T in any order, on any device; None for T everywhere
    y        (T, B, P)   h of every step, zero after a sequence's end
    h_n, c_n (B, P|H)    states at each sequence's own end (at step 0 with ``reverse``)
    ======== =========== ==========================================================================

    ``reverse`` runs from the last step of each sequence to its first. ``path`` is "auto" or one of
    "kernel", "inplace", "reference" (see ``gl.explain``). ``pullback(dy, dh_n, dc_n)``, any of them None,
    returns the gradients of (x, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr), None for what was not given;
    ``input_gradient=False`` saves the product for dx, which is None then. Values of x after a sequence's end
    are never read. float16 and bfloat16 are stored as such and computed in float32.

    Raises ShapeError, DTypeError or DeviceError for arguments that do not fit, NoKernel for a path that cannot
    serve them.
    """
    arrays = (x, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr)
    backend = backend_of(*arrays)
    if cell not in CELLS:
        raise NoKernel(f"cell: want one of {', '.join(CELLS)}, got {cell!r}")
    _check_arrays(*arrays, gates=len(CELLS[cell].gates))
    if x.dtype.itemsize == 2 and not backend.is_cuda:
        options: dict[str, Any] = {"cell": cell, "lengths": lengths, "reverse": reverse, "path": path}
        wide = (*_widened(arrays), extra)
        outputs, pullback = recurrent(*wide, input_gradient=input_gradient, **options)
        return _narrowed(outputs, x.dtype), lambda *d: _narrowed(pullback(*_widened(d)), x.dtype)

    T, B, D = x.shape
    device_lengths, shortest = _check_lengths(lengths, backend, T, B)
    H = w_hh.shape[0] // len(CELLS[cell].gates)
    seq = Sequence(backend, CELLS[cell], x.dtype, T, B, H, reverse, device_lengths, shortest)
    path, why = choose(path, seq.cell, backend, x.dtype)
    record(Run(cell, path, backend.name, x.dtype.name, (T, B, D, H), reverse, why))
    return _Loop(seq, PATHS[path], input_gradient).run(*arrays, extra)


class _Loop:
    """The forward loop, and what it leaves for the backward loop.

    States stand in arrays of T + 1 rows, so that each step finds the one before it (Sequence.before), and y is
    a view of all rows but the first state's.
    """

    def __init__(self, seq: Sequence, steps: type[Steps], input_gradient: bool) -> None:
        self.seq, self.make_steps, self.input_gradient = seq, steps, input_gradient
        self.times = list(range(seq.T))[:: -1 if seq.reverse else 1]

    def run(self, x, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr, extra) -> tuple[tuple, Pullback]:
        seq, be, xp = self.seq, self.seq.backend, self.seq.backend.xp
        T, B, H, P = seq.T, seq.B, seq.H, w_hh.shape[1]
        self.alive = None
        if seq.lengths is not None:
            self.alive = (xp.arange(T)[:, None] < seq.lengths)[:, :, None]  # (T, B, 1)
            x = xp.where(self.alive, x, xp.zeros((), x.dtype))  # padding may hold anything, NaN too
        self.x = x.reshape(T * B, x.shape[2])
        self.weights = w_ih, w_hh, w_hr
        self.given = h0 is not None, c0 is not None, b_ih is not None, b_hh is not None

        gates = be.empty((T, B, w_ih.shape[0]), seq.dtype)
        xp.matmul(self.x, w_ih.T, out=gates.reshape(T * B, w_ih.shape[0]))
        self.hs, self.cs = be.empty((T + 1, B, P), seq.dtype), be.empty((T + 1, B, H), accumulator(seq.dtype))
        first, last = (T, 0) if seq.reverse else (0, T)
        self.hs[first] = 0 if h0 is None else h0
        self.cs[first] = 0 if c0 is None else c0
        self.h_before, self.h_after = self.hs[seq.before : T + seq.before], self.hs[seq.after : T + seq.after]
        self.cell_out: Any = None if w_hr is None else be.empty((T, B, H), seq.dtype)  # o * tanh(c), to be projected
        h_prev, h = (self.h_before, self.h_after) if w_hr is None else (None, self.cell_out)
        self.steps = self.make_steps(seq, gates, h_prev, h, self.cs, [b for b in (b_ih, b_hh) if b is not None], extra)

        zr, w_hh_t = be.empty((B, w_hh.shape[0]), seq.dtype), w_hh.T
        h_prev_rows = list(self.h_before)
        for t in self.times:
            xp.matmul(h_prev_rows[t], w_hh_t, out=zr)
            self.steps.forward(t, zr)
            if w_hr is not None:
                self._project(t, w_hr)

        y = self.h_after
        if self.alive is not None:
            y = xp.where(self.alive, y, xp.zeros((), seq.dtype))
        return (y, self.hs[last].copy(), self.cs[last].astype(seq.dtype)), self.pullback

    def pullback(self, dy, dh_n, dc_n):
        """Gradients of (x, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr) from those of (y, h_n, c_n)."""
        seq, be, xp = self.seq, self.seq.backend, self.seq.backend.xp
        w_ih, w_hh, w_hr = self.weights
        T, B, H, P = seq.T, seq.B, seq.H, w_hh.shape[1]
        if dy is not None:
            dy = xp.ascontiguousarray(dy, dtype=seq.dtype)
            if self.alive is not None:
                dy = xp.where(self.alive, dy, xp.zeros((), seq.dtype))
        dy_rows = [None] * T if dy is None else list(dy)
        dh, dc = be.zeros((B, P), seq.dtype), be.zeros((B, H), accumulator(seq.dtype))
        held = None if seq.lengths is None else be.zeros((B, P), seq.dtype)
        if dh_n is not None:
            (dh if held is None else held)[...] = dh_n
        if dc_n is not None:
            dc[...] = dc_n
        dz = be.empty((T, B, w_hh.shape[0]), seq.dtype)
        dz_rows = list(dz)
        # With a projection: the gradient of h at every step, and of what it was projected from.
        dhs, dcell = be.empty((T if w_hr is not None else 0, B, P), seq.dtype), be.empty((B, H), seq.dtype)

        for t in reversed(self.times):
            if w_hr is None:
                self.steps.backward(t, dy_rows[t], dh, held, dc, dz)
            else:
                self._project_backward(t, dy_rows[t], dh, held, dhs[t])
                xp.matmul(dhs[t], w_hr, out=dcell)
                self.steps.backward(t, None, dcell, None, dc, dz)
            xp.matmul(dz_rows[t], w_hh, out=dh)

        if held is not None:
            dh += held
        has_h0, has_c0, has_b_ih, has_b_hh = self.given
        dz = dz.reshape(T * B, w_hh.shape[0])
        # A sum over rows is a product too: it accumulates in float32 and runs on all cores.
        db = product(be, xp.ones((1, T * B), seq.dtype), dz)[0]
        return (
            product(be, dz, w_ih).reshape(T, B, w_ih.shape[1]) if self.input_gradient else None,
            dh if has_h0 else None,
            dc.astype(seq.dtype, copy=False) if has_c0 else None,
            product(be, dz.T, self.x),
            product(be, dz.T, self.h_before.reshape(T * B, P)),
            db if has_b_ih else None,
            db.copy() if has_b_hh else None,
            None if w_hr is None else product(be, dhs.reshape(T * B, P).T, self.cell_out.reshape(T * B, H)),
        )

    def _project(self, t: int, w_hr: Array) -> None:
        """h = w_hr (o * tanh c); sequences that have ended keep theirs."""
        h = self.h_after[t]
        self.seq.backend.xp.matmul(self.cell_out[t], w_hr.T, out=h)
        ended = self.seq.ended(t)
        if ended is not None:
            h[ended] = self.h_before[t][ended]

    def _project_backward(self, t: int, dy: Array | None, dh: Array, held: Array | None, dh_t: Array) -> None:
        """The whole gradient of h at step t into dh_t, zero where a sequence has ended, which holds its own."""
        dh_t[...] = dh
        if dy is not None:
            dh_t += dy
        if held is not None:
            dh_t += held
            held[...] = 0
            ended = self.seq.ended(t)
            if ended is not None:
                held[ended] = dh_t[ended]
                dh_t[ended] = 0


def _widened(arrays: tuple) -> list:
    return [None if a is None else a.astype(np.float32) for a in arrays]


def _narrowed(arrays: tuple, dtype: Any) -> tuple:
    return tuple(None if a is None else a.astype(dtype) for a in arrays)


def _check_arrays(x, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr, *, gates: int) -> None:
    if x.dtype.name not in FLOATS:
        raise DTypeError(f"x: want {', '.join(FLOATS)}, got {x.dtype}")
    if x.ndim != 3 or x.shape[0] == 0:
        raise ShapeError(f"x: want (T, B, D) with T > 0, got {x.shape}")
    if w_hh.ndim != 2 or w_hh.shape[0] % gates:
        raise ShapeError(f"w_hh: want ({gates} * hidden, hidden), got {w_hh.shape}")
    B, D, H = x.shape[1], x.shape[2], w_hh.shape[0] // gates
    P = H if w_hr is None else w_hr.shape[0]
    for name, array, want, words in (
        ("w_ih", w_ih, (gates * H, D), "(gates*hidden, input)"),
        ("w_hh", w_hh, (gates * H, P), "(gates*hidden, output)"),
        ("b_ih", b_ih, (gates * H,), "(gates*hidden,)"),
        ("b_hh", b_hh, (gates * H,), "(gates*hidden,)"),
        ("w_hr", w_hr, (P, H), "(projection, hidden)"),
        ("h0", h0, (B, P), "(batch, output)"),
        ("c0", c0, (B, H), "(batch, hidden)"),
    ):
        if array is None:
            continue
        if array.shape != want:
            raise ShapeError(f"{name}: want {want} = {words}, got {array.shape}")
        if array.dtype != x.dtype:
            raise DTypeError(f"{name}: want {x.dtype}, the type of x, got {array.dtype}; convert one with astype")


def _check_lengths(lengths: Any, backend: Backend, T: int, B: int) -> tuple[Array | None, int]:
    """(lengths on the device as int64, the shortest), checked on the host; (None, T) without lengths."""
    if lengths is None:
        return None, T
    host = np.asarray(backend_of(lengths).to_numpy(lengths) if hasattr(lengths, "dtype") else lengths)
    if host.shape != (B,):
        raise ShapeError(f"lengths: want ({B},) = (batch,), got {host.shape}")
    if host.dtype.kind not in "iu" and B > 0:
        raise DTypeError(f"lengths: want integers, got {host.dtype}")
    if B > 0 and (host.min() < 0 or host.max() > T):
        raise ShapeError(f"lengths: want 0 <= length <= {T}, the steps of x, got {host.min()}..{host.max()}")
    return backend.asarray(host.astype(np.int64)), int(host.min(initial=T))

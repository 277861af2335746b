"""One layer of a recurrent network over a whole sequence, in one direction."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gpulstm import cells
from gpulstm.backend import Array, Backend
from gpulstm.cells import Cell
from gpulstm.dtypes import FLOATS, cast, is_floating
from gpulstm.errors import DTypeError, NoKernel, ShapeError
from gpulstm.explain import record
from gpulstm.functional.checks import check_arrays, checked
from gpulstm.functional.engine_loop import EngineLoop
from gpulstm.functional.fused_loop import FusedLoop
from gpulstm.functional.graphs import graphed
from gpulstm.functional.host_steps import ReferenceSteps
from gpulstm.functional.kernel_steps import KernelSteps
from gpulstm.functional.loop import Loop, Weights
from gpulstm.functional.minimal import minimal, scanned, trace_minimal
from gpulstm.functional.needs import needs
from gpulstm.functional.paths import FUSED, choose
from gpulstm.functional.recompute import chunk_size, in_chunks
from gpulstm.functional.sequence import Modes, Noise, Sequence, alive_by, cleared_by
from gpulstm.precision import keeps_precision

Pullback = Callable[..., tuple]


@needs(None, None)
@keeps_precision
def recurrent(
    x: Array,
    *arguments: Array | None,
    cell: str | Cell = "lstm",
    lengths: Any = None,
    mask: Any = None,
    reset: Any = None,
    zoneout: tuple[Noise | None, Noise | None] = (None, None),
    recurrent_dropout: Noise | None = None,
    reverse: bool = False,
    path: str = "auto",
    input_gradient: bool = True,
    recompute: bool = False,
    inference: bool = False,
) -> tuple[tuple[Array, ...], Pullback]:
    """Run a cell over a sequence: ``(y, h_n, c_n), pullback = recurrent(x, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr)``.

    After x come the cell's initial states (a GRU has h0 alone), the weights, and the cell's extra parameters.
    Arguments that you leave out at the end are None. Shapes, with T steps, B sequences, D inputs, H units, G gates,
    and P the size of the projection, or H without one:

    ======== =========== ==========================================================================
    x        (T, B, D)
    h0, c0   (B, P|H)    initial states; None for zeros
    w_ih     (G*H, D)    PyTorch's weight_ih; gates in the cell's order (LSTM: i, f, g, o)
    w_hh     (G*H, P)    PyTorch's weight_hh
    b_ih     (G*H,)      biases, both optional; PyTorch keeps two
    b_hh
    w_hr     (P, H)      projection h = w_hr (o * tanh c), Sak, Senior & Beaufays 2014; or None
    lengths  (B,)        integers 0..T in any order, on any device; None means T for all
    mask     (T, B)      bool, instead of lengths: True for valid steps (left padding, gaps)
    reset    (T, B)      bool: True where a new sequence begins, with states of zero
    y        (T, B, P)   h of every step, zero at invalid steps
    h_n, c_n (B, P|H)    states after each sequence's last step (its first with ``reverse``)
    ======== =========== ==========================================================================

    ``reverse`` runs from the last step of each sequence to its first. ``zoneout`` is a pair: the noise on h and the
    noise on the other states (Krueger 2017). ``recurrent_dropout`` is the noise on h_prev in its product, with one
    mask for all steps (Gal & Ghahramani 2016).

    ``path`` chooses what runs; ``gl.explain`` shows it. "auto" is the default. "reference" runs the cell's equations
    step by step. "engine" runs NumPy arrays in compiled code. On a GPU, "kernel" launches one kernel per step, "graph"
    replays all launches as one CUDA graph, "fused" has the product and the gates of a step in one kernel, and
    "persistent" has the whole time loop in one kernel. There "auto" takes "kernel" for the first sequence of a shape
    and "graph" for the following ones, and it prefers "fused" or "persistent" where ``python -m benchmarks.tune`` has
    measured them to be faster on this GPU.

    ``recompute=True`` keeps the states of every sqrt(T)-th step only, and the pullback computes the rest again (Chen
    et al. 2016). This costs one more forward pass. ``inference=True`` says that you do not need the pullback. Then less
    is kept. If you call the pullback all the same, it may have to compute the sequence again.

    ``pullback(dy, dh_n, dc_n)``, any of them None, returns the gradients of x and of the arguments, None for what was
    not given; ``input_gradient=False`` skips the product for dx, which is None then. Values of x at invalid steps are
    never read. float16 and bfloat16 are stored as such and computed in float32.

    Raises ShapeError, DTypeError or DeviceError for arguments that do not fit, NoKernel for a path that cannot compute
    them.

    >>> weights = np.zeros((16, 3)), np.zeros((16, 4))
    >>> (y, h_n, c_n), pullback = gl.functional.recurrent(np.zeros((5, 2, 3)), None, None, *weights)
    >>> y.shape
    (5, 2, 4)
    """
    modes: dict[str, Any] = {"lengths": lengths, "mask": mask, "reset": reset, "zoneout": zoneout}
    modes |= {"recurrent_dropout": recurrent_dropout, "reverse": reverse}
    row = cells.find(cell)
    named = _named(row, arguments)
    backend = check_arrays(row.arguments, x=x, **named)
    if not row.recurrent:
        modes["recompute"] = recompute
        return scanned(minimal, x, arguments, row, modes, path=path, input_gradient=input_gradient)
    if x.dtype.itemsize == 2 and not backend.is_cuda:
        _check_type(x, **named)
        modes |= {"path": path, "input_gradient": input_gradient, "recompute": recompute, "inference": inference}
        outputs, pullback = recurrent(*cast((x, *arguments), np.float32), cell=cell, **modes)
        return cast(outputs, x.dtype), lambda *d: cast(pullback(*cast(d, np.float32)), x.dtype)

    with backend:
        asked, options = path, (path, input_gradient, inference, recompute)
        loop, states, weights, path, tell = _prepared(backend, x, arguments, row, *options, **modes)
        if recompute:
            if path == "graph":
                raise NoKernel("path 'graph' keeps the whole sequence, which recompute=True avoids; use path='auto'")
            tell(path)
            outputs, pullback = in_chunks(loop, x, states, weights, reverse)
        else:
            outputs, pullback = _whole(loop(None), x, states, weights, path, asked, tell, inference)

    def on_device(*cotangents: Array | None) -> tuple:
        with backend:
            return pullback(*cotangents)

    return outputs, checked(on_device, row.outputs, outputs)


def _whole(
    loop: Any, x: Array, states: list, weights: Weights, path: str, asked: str, tell: Callable, inference: bool
) -> tuple[tuple, Callable]:
    """Run all steps at once -> (outputs, pullback).

    Paths "graph" and "fused", and "kernel" unless it was ``asked`` for by name, use a CUDA graph if possible.
    """
    if path in ("graph", "fused") or (path == "kernel" and asked == "auto"):
        done, why = graphed(loop, x, states, weights, inference, at_once=path == "graph")
        if path == "graph" and done is None:
            raise NoKernel(f"path 'graph' cannot serve this {loop.seq.cell.name}: {why}; use path='auto'")
        tell("graph" if done and path == "kernel" else path, why)
        if done:
            return done
    else:
        tell(path)
    return loop.run(x, states, weights), loop.pullback


def trace(x: Array, *arguments: Array | None, cell: str | Cell = "lstm", **modes: Any) -> dict[str, Array]:
    """Compute every gate and every state at every step: name -> (T, B, H), for the arguments of ``recurrent``.

    Gates have the cell's names (LSTM: i, f, g, o) and are traced after their activation, states (h, c) after each step.
    Gates at invalid steps are zero. The cell's equations compute them, path "reference". Raises ShapeError, DTypeError
    or DeviceError for arguments that do not fit.

    >>> weights = np.zeros((16, 3)), np.zeros((16, 4))
    >>> gl.functional.trace(np.zeros((5, 2, 3)), None, None, *weights)["i"][0, 0]
    array([0.5, 0.5, 0.5, 0.5])
    """
    row = cells.find(cell)
    named = _named(row, arguments)
    backend = check_arrays(row.arguments, x=x, **named)
    if not row.recurrent:
        return scanned(trace_minimal, x, arguments, row, modes)
    dtype = x.dtype
    if dtype.itemsize == 2 and not backend.is_cuda:
        _check_type(x, **named)
        x, *wide = cast((x, *arguments), np.float32)
        arguments = tuple(wide)
    loop, states, weights, path, tell = _prepared(backend, x, arguments, row, "reference", False, **modes)
    tell(path)
    whole = loop(None)
    whole.run(x, states, weights)
    seq, steps = whole.seq, whole.steps
    assert isinstance(steps, ReferenceSteps)
    traced = {}
    for k, name in enumerate(row.gates):
        gate = backend.xp.stack([saved[k] for saved in steps.saved])
        traced[name] = gate if seq.alive is None else backend.where(seq.alive[:, :, None], gate, 0)
    h, others = (rows[seq.after : seq.T + seq.after] for rows in whole.all)
    traced |= zip(row.states, (h, *(others[:, s] for s in range(len(row.states) - 1))), strict=True)
    return {name: values.astype(dtype) for name, values in traced.items()}


def _prepared(
    backend: Backend, x: Array, arguments: tuple, cell: Cell, path: str, input_gradient: bool,
    inference: bool = False, recompute: bool = False, *, lengths: Any = None, mask: Any = None, reset: Any = None,
    zoneout: tuple = (None, None), recurrent_dropout: Noise | None = None, reverse: bool = False,
) -> tuple[Callable[[slice | None], Any], list, Weights, str, Callable[..., None]]:  # fmt: skip
    """Check the arguments -> (loop, states, weights, path, tell).

    ``loop(part)`` makes the time loop over those steps, over all for None. ``tell(path, reason)`` records for
    ``gl.explain`` which path ran.
    """
    states, weights = _sorted(cell, arguments)
    _check_arrays(cell, x, states, weights)
    T, B, D = x.shape
    P, H = weights.w_hh.shape[1], weights.w_ih.shape[0] // len(cell.gates)
    if not isinstance(zoneout, tuple | list) or len(zoneout) != 2:
        raise DTypeError(f"zoneout: expected a pair (noise on h, noise on the other states), got {zoneout!r}")
    h, c = zoneout
    for name, noise in (("zoneout", h), ("zoneout", c), ("recurrent_dropout", recurrent_dropout)):
        if noise is not None and not isinstance(noise, Noise):
            raise DTypeError(f"{name}: expected Noise or None, got {noise!r}")
    if c is not None and len(cell.states) == 1:
        raise ShapeError(f"zoneout: expected None for the other states, as a {cell.name} has h alone, got {c}")
    modes = Modes(alive_by(lengths, mask, T, B), cleared_by(reset, T, B, reverse), h, c, recurrent_dropout)
    sizes = (chunk_size(T) if recompute else T, B, H)
    path, why, measured = choose(path, cell, backend, x.dtype, weights.w_hr is not None, sizes)

    def tell(path: str, other: str = "") -> None:
        reasons = "; ".join(filter(None, (why, other)))
        record(cell.name, path, backend.name, x.dtype, (T, B, D, H), reverse, reasons, measured)

    def loop(part: slice | None) -> Loop | EngineLoop:
        steps, its_modes = (T, modes) if part is None else (part.stop - part.start, modes.part(part))
        seq = Sequence(backend, cell, x.dtype, steps, B, H, P, reverse, its_modes)
        if path == "engine":
            return EngineLoop(seq, input_gradient, keep=not inference)
        if path in FUSED:
            return FusedLoop(seq, path == "persistent", input_gradient)
        return Loop(seq, KernelSteps if path in ("kernel", "graph") else ReferenceSteps, input_gradient)

    return loop, states, weights, path, tell


def _named(cell: Cell, arguments: tuple) -> dict[str, Array | None]:
    """The arguments after x by name. Raises ShapeError if there are too many."""
    if len(arguments) > len(cell.arguments):
        raise ShapeError(
            f"arguments of a {cell.name}: expected x, {', '.join(cell.arguments)}, got {len(arguments) + 1} arguments"
        )
    return dict(zip(cell.arguments, arguments, strict=False))


def _sorted(cell: Cell, arguments: tuple) -> tuple[list, Weights]:
    """Split the arguments into states and weights. Raises ShapeError, naming it, for a missing weight."""
    given = [*arguments, *[None] * (len(cell.arguments) - len(arguments))]
    n = len(cell.states)
    w_ih, w_hh, b_ih, b_hh, w_hr, *extra = given[n:]
    if w_ih is None or w_hh is None or any(value is None for value in extra):
        needed = ("w_ih", "w_hh", *(form.name for form in cell.extra))
        name = next(name for name, value in zip(cell.arguments, given, strict=True) if name in needed and value is None)
        raise ShapeError(f"{name}: expected an array, got None; a {cell.name} takes x, {', '.join(cell.arguments)}")
    return given[:n], Weights(w_ih, w_hh, b_ih, b_hh, w_hr, tuple(extra))


def _check_type(x: Array, **arrays: Array | None) -> None:
    """Raises DTypeError, naming the array, unless all arrays have the dtype of x."""
    for name, array in arrays.items():
        if array is not None and array.dtype != x.dtype:
            raise DTypeError(f"{name}: expected {x.dtype}, the type of x, got {array.dtype}; convert one with astype")


def _check_arrays(cell: Cell, x: Array, states: list, weights: Weights) -> None:
    gates, w_hh, w_hr = len(cell.gates), weights.w_hh, weights.w_hr
    if not is_floating(x.dtype):
        raise DTypeError(f"x: expected {', '.join(FLOATS)}, got {x.dtype}")
    if x.ndim != 3 or x.shape[0] == 0:
        raise ShapeError(f"x: expected (T, B, D) with T > 0, got {x.shape}")
    if w_hh.ndim != 2 or w_hh.shape[0] % gates or not w_hh.shape[0]:
        raise ShapeError(f"w_hh: expected ({gates} * hidden, hidden), got {w_hh.shape}")
    if w_hr is not None and not cell.projects:
        raise ShapeError(f"w_hr: expected None, as a {cell.name} has no projection, got {w_hr.shape}")
    for name in ("b_ih", "b_hh"):
        if not cell.biases and getattr(weights, name) is not None:
            raise ShapeError(f"{name}: expected None, as a {cell.name} has none, got {getattr(weights, name).shape}")
    B, D, H = x.shape[1], x.shape[2], w_hh.shape[0] // gates
    P = H if w_hr is None else w_hr.shape[0]
    wanted = [
        ("w_ih", weights.w_ih, (gates * H, D), "(gates*hidden, input)"),
        ("w_hh", w_hh, (gates * H, P), "(gates*hidden, output)"),
        ("b_ih", weights.b_ih, (gates * H,), "(gates*hidden,)"),
        ("b_hh", weights.b_hh, (gates * H,), "(gates*hidden,)"),
        ("w_hr", w_hr, (P, H), "(projection, hidden)"),
    ]
    for form, value in zip(cell.extra, weights.extra, strict=True):
        want, words = ((form.blocks * H, H), ", hidden") if form.matrix else ((form.blocks * H,), ",")
        wanted.append((form.name, value, want, f"({form.blocks}*hidden{words})"))
    for k, (name, state) in enumerate(zip(cell.states, states, strict=True)):
        width, words = (H, "(batch, hidden)") if k else (P, "(batch, output)")
        wanted.append((f"{name}0", state, (B, width), words))
    for name, array, want, words in wanted:
        if array is None:
            continue
        if array.shape != want:
            raise ShapeError(f"{name}: expected {want} = {words}, got {array.shape}")
        if array.dtype is not x.dtype:
            _check_type(x, **{name: array})

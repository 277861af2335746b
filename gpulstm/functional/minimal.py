"""One layer of a minimal LSTM or GRU over a whole sequence, in one direction: a product, then a scan (scan.py)."""

from collections.abc import Callable
from typing import Any

from gpulstm.backend import Array, Backend
from gpulstm.cells import Cell
from gpulstm.dtypes import FLOATS, accumulator, cast
from gpulstm.errors import DTypeError, NoKernel, ShapeError
from gpulstm.explain import record
from gpulstm.functional.checks import check_arrays, checked
from gpulstm.functional.linear import multiplied
from gpulstm.functional.paths import choose
from gpulstm.functional.scan import MINIMAL, PATHS
from gpulstm.functional.sequence import alive_by, cleared_by
from gpulstm.precision import keeps_precision


@keeps_precision
def minimal(
    x: Array,
    h0: Array | None,
    w_ih: Array,
    b_ih: Array | None = None,
    *,
    cell: str = "minlstm",
    lengths: Any = None,
    mask: Any = None,
    reset: Any = None,
    reverse: bool = False,
    path: str = "auto",
    input_gradient: bool = True,
) -> tuple[tuple[Array, Array], Callable]:
    """Run a "minlstm" or "mingru" over a sequence: ``(y, h_n), pullback = minimal(x, h0, w_ih, b_ih)``.

    Shapes, with T steps, B sequences, D inputs, H units, G gates (minLSTM f, i, n; minGRU z, n; Feng et al. 2024):

    ======== =========== ==========================================================================
    x        (T, B, D)
    h0       (B, H)      initial state; None for zeros
    w_ih     (G*H, D)    gates in the cell's order; the candidate n last
    b_ih     (G*H,)      optional
    lengths  (B,)        integers 0..T in any order, on any device; None means T for all
    mask     (T, B)      bool, instead of lengths: True for valid steps (left padding, gaps)
    reset    (T, B)      bool: True where a new sequence begins, with a state of zero
    y        (T, B, H)   h of every step, zero at invalid steps
    h_n      (B, H)      state after each sequence's last step (its first with ``reverse``)
    ======== =========== ==========================================================================

    ``path`` is "auto" or one of "kernel" (the scan of kernels/scan.cu), "engine" (that of kernels/host/scan.cpp),
    "reference" (the cell's equations step by step). ``pullback(dy, dh_n)``, either of them None, returns the gradients
    of (x, h0, w_ih, b_ih), None for what was not given; ``input_gradient=False`` skips the product for dx, which is
    None then. Values of x at invalid steps are never read. float16 and bfloat16 are stored as such and computed in
    float32. Raises ShapeError, DTypeError or DeviceError for arguments that do not fit, NoKernel for a path that cannot
    compute them.

    >>> (y, h_n), pullback = gl.functional.minimal(np.zeros((5, 2, 3)), None, np.zeros((8, 3)), cell="mingru")
    >>> y.shape, h_n.shape
    ((5, 2, 4), (2, 4))
    """
    arrays = x, h0, w_ih, b_ih
    backend = check_arrays(("h0", "b_ih"), x=x, h0=h0, w_ih=w_ih, b_ih=b_ih)
    G = _check_arrays(*arrays, cell)
    (T, B, D), H = x.shape, w_ih.shape[0] // G
    masks = _masks(backend, T, B, lengths, mask, reset, reverse)
    path, why, _ = choose(path, MINIMAL[cell].CELL, backend, x.dtype)
    record(cell, path, backend.name, x.dtype, (T, B, D, H), reverse, why)
    computed = x.dtype if path == "kernel" else accumulator(x.dtype)
    layer = _Layer(backend, cell, path, masks, reverse, *cast(arrays, computed))

    def pullback(dy: Array | None, dh_n: Array | None) -> tuple:
        """Gradients of (x, h0, w_ih, b_ih) from those of (y, h_n)."""
        return cast(layer.backward(dy, dh_n, input_gradient), x.dtype)

    outputs = cast(layer.forward(), x.dtype)
    return outputs, checked(pullback, ("y", "h_n"), outputs)


def trace_minimal(
    x: Array,
    h0: Array | None,
    w_ih: Array,
    b_ih: Array | None = None,
    *,
    cell: str = "minlstm",
    lengths: Any = None,
    mask: Any = None,
    reset: Any = None,
    reverse: bool = False,
) -> dict[str, Array]:
    """Every gate and state at every step by name, each (T, B, H): f, i, n and h, or z, n and h.

    Arguments are those of ``minimal``. For a minLSTM f and i are the normalised gates f / (f + i) and i / (f + i). At
    invalid steps gates are zero and h keeps its value.
    """
    arrays = x, h0, w_ih, b_ih
    backend = check_arrays(("h0", "b_ih"), x=x, h0=h0, w_ih=w_ih, b_ih=b_ih)
    _check_arrays(*arrays, cell)
    masks = _masks(backend, x.shape[0], x.shape[1], lengths, mask, reset, reverse)
    layer = _Layer(backend, cell, "reference", masks, reverse, *cast(arrays, accumulator(x.dtype)))
    layer.forward()
    keep, take, n, _ = MINIMAL[cell].coefficients(backend.xp, layer.scan.zx)
    gates = {"minlstm": (keep, take, n), "mingru": (take, n)}[cell]
    traced = dict(zip(MINIMAL[cell].GATES, gates, strict=True))
    if masks[0] is not None:
        traced = {name: backend.where(masks[0][:, :, None], gate, 0) for name, gate in traced.items()}
    traced["h"] = layer.hs[:-1] if reverse else layer.hs[1:]
    return {name: values.astype(x.dtype) for name, values in traced.items()}


def scanned(run: Callable, x: Array, arguments: tuple, cell: Cell, modes: dict[str, Any], **options: Any) -> Any:
    """Call ``run``, minimal or trace_minimal, with the arguments and the modes of functional.recurrent."""
    names = ("h0", "w_ih", "w_hh", "b_ih", "b_hh", "w_hr")
    given = dict(zip(names, arguments, strict=False))
    for name in ("w_hh", "b_hh", "w_hr"):
        if given.get(name) is not None:
            raise ShapeError(f"{name}: expected None, as a {cell.name} has none, got {given[name].shape}")
    if given.get("w_ih") is None:
        raise ShapeError(f"w_ih: expected an array, got None; a {cell.name} takes x, h0, w_ih, w_hh (None), b_ih")
    for name in ("recurrent_dropout", "recompute", "zoneout"):
        if modes.pop(name, None) not in (None, False, (None, None)):
            raise ShapeError(f"{name}: a {cell.name} does not support it, as all its steps are one scan")
    result = run(x, given.get("h0"), given.get("w_ih"), given.get("b_ih"), cell=cell.name, **modes, **options)
    if run is trace_minimal:
        return result
    outputs, pullback = result

    def padded(*cotangents: Array | None) -> tuple:
        dx, dh0, dw_ih, db_ih = pullback(*cotangents)
        return dx, dh0, dw_ih, None, db_ih, None, None

    return outputs, padded


class _Layer:
    """The products around a scan."""

    def __init__(self, backend: Backend, cell: str, path: str, masks: tuple, reverse: bool, x: Array,
                 h0: Array | None, w_ih: Array, b_ih: Array | None) -> None:  # fmt: skip
        T, B, D = x.shape
        if masks[0] is not None:
            x = backend.where(masks[0][:, :, None], x, 0)  # padding may hold anything, NaN too
        self.backend, self.shape, self.rows, self.w_ih = backend, x.shape, x.reshape(T * B, D), w_ih
        self.given = h0 is not None, b_ih is not None
        self.hs = backend.empty((T + 1, B, w_ih.shape[0] // len(MINIMAL[cell].GATES)), x.dtype)
        self.last = 0 if reverse else T
        self.hs[T - self.last] = 0 if h0 is None else h0
        zx = multiplied(backend, self.rows, w_ih.T)[0].reshape(T, B, w_ih.shape[0])
        self.scan = PATHS[path](backend, cell, zx, b_ih, self.hs, masks, reverse)

    def forward(self) -> tuple[Array, Array]:
        """(y, h_n)"""
        return self.scan.forward(), self.hs[self.last].copy()

    def backward(self, dy: Array | None, dh_n: Array | None, input_gradient: bool) -> tuple:
        """The gradients of (x, h0, w_ih, b_ih)."""
        backend, xp, dtype = self.backend, self.backend.xp, self.hs.dtype
        dy, dh_n = (None if d is None else xp.ascontiguousarray(d, dtype=dtype) for d in (dy, dh_n))
        dzx, dh0 = self.scan.backward(dy, dh_n)
        dz = dzx.reshape(len(self.rows), self.w_ih.shape[0])
        has_h0, has_b_ih = self.given
        dw_ih, db_ih = multiplied(backend, dz.T, self.rows, sums=has_b_ih)
        dx = multiplied(backend, dz, self.w_ih)[0].reshape(self.shape) if input_gradient else None
        return dx, dh0 if has_h0 else None, dw_ih, db_ih


def _masks(backend: Backend, T: int, B: int, lengths: Any, mask: Any, reset: Any, reverse: bool) -> tuple:
    """(alive, clear), (T, B) bool on the device or None: which steps are valid, and before which h is cleared."""
    alive, clear = alive_by(lengths, mask, T, B), cleared_by(reset, T, B, reverse)
    alive = None if alive is None or alive.all() else alive
    return tuple(None if m is None else backend.asarray(m) for m in (alive, clear))


def _check_arrays(x: Array, h0: Array | None, w_ih: Array, b_ih: Array | None, cell: str) -> int:
    """Check the arguments -> the cell's number of gates."""
    if not isinstance(cell, str) or cell not in MINIMAL:
        raise NoKernel(f"cell: expected one of {', '.join(MINIMAL)}, got {cell!r}")
    gates = len(MINIMAL[cell].GATES)
    if x.dtype.name not in FLOATS:
        raise DTypeError(f"x: expected {', '.join(FLOATS)}, got {x.dtype}")
    if x.ndim != 3 or x.shape[0] == 0:
        raise ShapeError(f"x: expected (T, B, D) with T > 0, got {x.shape}")
    if w_ih.ndim != 2 or w_ih.shape[0] % gates or w_ih.shape[1] != x.shape[2]:
        raise ShapeError(f"w_ih: expected ({gates} * hidden, {x.shape[2]}) = (gates*hidden, input), got {w_ih.shape}")
    for name, array, want, words in (
        ("w_ih", w_ih, w_ih.shape, "(gates*hidden, input)"),
        ("h0", h0, (x.shape[1], w_ih.shape[0] // gates), "(batch, hidden)"),
        ("b_ih", b_ih, (w_ih.shape[0],), "(gates*hidden,)"),
    ):
        if array is None:
            continue
        if array.shape != want:
            raise ShapeError(f"{name}: expected {want} = {words}, got {array.shape}")
        if array.dtype != x.dtype:
            raise DTypeError(f"{name}: expected {x.dtype}, the type of x, got {array.dtype}; convert one with astype")
    return gates

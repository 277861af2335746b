"""Softmax cross-entropy: on a GPU one fused kernel computes each row's loss and the gradient of its logits.

For a row x of C logits with p = softmax(x), its class y, class weights w and label smoothing s (Szegedy et
al. 2016):

    loss = -(1 - s) w_y log p_y - s / C * sum_c w_c log p_c
    dx_c = (1 - s) w_y (p_c - [c = y]) + s / C * (p_c * sum_k w_k - w_c)

Rows whose target is ignored have neither loss nor gradient. The mean divides by the sum of w_y over the other rows.
"""

from collections.abc import Callable

import numpy as np

from gpulstm import checks, engine
from gpulstm.backend import Array, Backend
from gpulstm.dtypes import accumulator
from gpulstm.errors import ShapeError
from gpulstm.functional.checks import check_arrays, check_floats, check_indices, check_reduction, check_shape
from gpulstm.functional.needs import needs

_CHUNK = 1 << 16  # logits processed at a time, so that they and their exponentials stay in a core's cache
_IN_PLACE = 1 << 20  # gradients scaled at a time on a GPU, which avoids a second array of all of them


@needs({2: (0,)})
def cross_entropy(
    input: Array,
    target: Array,
    weight: Array | None = None,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> tuple[Array, Callable]:
    """Compute softmax cross-entropy for integer targets, as PyTorch: ``loss, pullback = cross_entropy(input, target)``.

    input: logits (N, C), (C,) or (N, C, d1, ...), the classes on axis 1. target: integers of the input's shape without
    that axis, each 0 <= target < C or ``ignore_index``. weight: class weights (C,) or None. loss: () or, with
    reduction="none", target's shape. ``pullback(dloss)`` returns (dinput, None, None). If every target is ignored, the
    mean is nan, as in PyTorch, and its gradient is zero.

    Raises ShapeError for shapes that do not fit and for a target that is not a class; DTypeError for targets that are
    not integers. On CUDA, the check of the targets waits once for the device.

    >>> loss, pullback = gl.functional.cross_entropy(np.zeros((2, 4)), np.array([0, 3]))
    >>> pullback(np.array(1.0))[0]
    array([[-0.375,  0.125,  0.125,  0.125],
           [ 0.125,  0.125,  0.125, -0.375]])
    """
    backend = check_arrays(("weight",), input=input, target=target, weight=weight)
    dtype, logits = check_floats(input=input, weight=weight), input
    ignore, smoothing = check_options(reduction, ignore_index, label_smoothing)
    if logits.ndim == 0:
        raise ShapeError("input: expected (N, C), (C,) or (N, C, d1, ...), got ()")
    axis = min(1, logits.ndim - 1)
    C = logits.shape[axis]
    want = logits.shape[:axis] + logits.shape[axis + 1 :]
    check_shape("target", target, want, "input's shape without its classes")
    if C == 0 and target.size:
        raise ShapeError(f"input: expected at least one class, got {logits.shape}")
    if weight is not None:
        check_shape("weight", weight, (C,), "(classes,)")
    flat = check_indices("target", target, C, "classes of input", ignore=ignore).reshape(-1)

    by_row = backend.xp.moveaxis(logits, axis, -1)
    rows = by_row.reshape(flat.size, C)
    row_loss, row_weight, gradient = on_rows(backend, rows, flat, weight, ignore, smoothing)
    loss, scale = reduced(backend.xp, row_loss, row_weight, reduction)

    def pullback(dloss: Array) -> tuple[Array, None, None]:
        drow = scale * dloss.reshape(-1).astype(row_loss.dtype, copy=False)  # (rows,), or (1,) for all
        dlogits = gradient(drow).reshape(by_row.shape)
        return backend.xp.moveaxis(dlogits, -1, axis), None, None

    shape = target.shape if reduction == "none" else ()
    return loss.reshape(shape).astype(dtype, copy=False), pullback


def check_options(reduction: str, ignore_index: int, label_smoothing: float) -> tuple[int, float]:
    """Check the options -> (ignore_index, label_smoothing) as Python numbers.

    A NumPy scalar could change the dtype of the arithmetic or the size of a kernel's argument.
    """
    check_reduction(reduction)
    words = "0 <= label_smoothing <= 1"
    smoothing = checks.number("label_smoothing", label_smoothing, most=1, words=words)
    ignore = checks.integer("ignore_index", ignore_index, -(2**63), 2**63, words="a 64-bit integer")
    return ignore, smoothing


def on_rows(
    backend: Backend, x: Array, target: Array, weight: Array | None, ignore_index: int, smoothing: float,
    in_place: bool = False,
) -> tuple[Array, Array, Callable]:  # fmt: skip
    """The losses of logits x (rows, C) -> (loss (rows,), weight of each row (rows,), gradient).

    ``gradient(drow)`` returns the gradient of x, given the gradient of each row's loss; None stands for ones. With
    ``in_place`` both the loss and the gradient overwrite x, and ``gradient`` may be called only once. Then x must be
    contiguous, and on the processor not of a half type.
    """
    which = _rows_cuda if backend.is_cuda else _rows_host
    return which(backend, x, target, weight, ignore_index, smoothing, in_place)


def reduced(xp, row_loss: Array, row_weight: Array, reduction: str) -> tuple[Array, Array | float]:
    """Reduce the rows' losses -> (loss, scale); scale times dloss is the gradient of each row's loss."""
    if reduction == "none":
        return row_loss, 1.0
    total = xp.asarray(row_loss.sum())
    if reduction == "sum":
        return total, 1.0
    count = xp.asarray(row_weight.sum())
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 if every row is ignored
        mean = xp.asarray(total / count)
    return mean, 1 / xp.where(count == 0, xp.ones_like(count), count)


@np.errstate(invalid="ignore")  # a row of infinities gives nan, as in PyTorch, without a warning
def _rows_host(
    backend: Backend, x: Array, target: Array, weight: Array | None, ignore_index: int, smoothing: float,
    in_place: bool,
) -> tuple[Array, Array, Callable]:  # fmt: skip
    rows, C = x.shape
    wide = accumulator(x.dtype)
    w = np.ones(C, wide) if weight is None else np.ascontiguousarray(weight, wide)
    kept = target != ignore_index
    y = np.where(kept, target, 0)  # ignore_index need not be a class
    row_weight = np.where(kept, w[y], wide.type(0))
    spread = smoothing / max(C, 1)
    exps = x if in_place else backend.empty((rows, C), wide)
    total, nll = backend.empty((rows,), wide), backend.empty((rows,), wide)
    smooth = np.zeros(rows, wide)
    forward = engine.function("cross_entropy", x.dtype) or _forward_numpy
    forward(np.ascontiguousarray(x), y, w, exps, total, nll, smooth if smoothing else None, rows, C)
    if smoothing:
        smooth += np.log(total) * w.sum()
    loss = np.where(kept, (1 - smoothing) * row_weight * nll + spread * smooth, wide.type(0))

    dtype = x.dtype

    def gradient(drow: np.ndarray | None) -> np.ndarray:
        given = 1 if drow is None else drow
        own, others = ((factor * given).astype(wide) for factor in ((1 - smoothing) * row_weight, spread * kept))
        dx = exps if in_place else backend.empty((rows, C), wide)
        backward = engine.function("cross_entropy_backward", dtype) or _backward_numpy
        part = (own + others * w.sum()) / total
        backward(exps, y, w, own, part, others if smoothing else None, kept, dx, rows, C)
        return dx.astype(dtype, copy=False)

    return loss, row_weight, gradient


# The next two functions are kernels/host/cross_entropy.cpp in NumPy.
def _forward_numpy(
    x: Array, y: Array, w: Array, exps: Array, total: Array, nll: Array, smooth: Array | None, rows: int, C: int
) -> None:
    step = max(1, _CHUNK // max(C, 1))
    for start in range(0, rows, step):
        at = slice(start, start + step)
        part, y_part = x[at].astype(exps.dtype, copy=False), y[at]
        z = np.subtract(part, part.max(axis=1, keepdims=True), out=exps[at])
        z_y = z[np.arange(len(y_part)), y_part]
        if smooth is not None:
            smooth[at] = -(z @ w)
        np.exp(z, out=z)
        total[at] = z @ np.ones(C, exps.dtype)  # a product: ten times as fast as a sum over short rows
        nll[at] = np.log(total[at]) - z_y


def _backward_numpy(
    exps: Array, y: Array, w: Array, own: Array, part: Array, others: Array | None, kept: Array, dx: Array,
    rows: int, C: int,
) -> None:  # fmt: skip
    np.multiply(exps, part[:, None], out=dx)
    dx[np.arange(rows), y] -= own
    if others is not None:
        dx -= others[:, None] * w
    dx[~kept] = 0  # even where an ignored row's logits are nan


def _rows_cuda(
    backend: Backend, x: Array, target: Array, weight: Array | None, ignore_index: int, smoothing: float,
    in_place: bool,
) -> tuple[Array, Array, Callable]:  # fmt: skip
    """One launch computes the losses and their gradients, so that ``gradient`` only has to scale them."""
    xp, dtype, (rows, C) = backend.xp, x.dtype, x.shape
    wide = accumulator(dtype)
    x, target = xp.ascontiguousarray(x), xp.ascontiguousarray(target)
    weight = None if weight is None else xp.ascontiguousarray(weight)
    loss, row_weight = backend.empty((rows,), wide), backend.empty((rows,), wide)
    dx = x if in_place else backend.empty((rows, C), dtype)
    lanes = 4 if C <= 16 else 32 if C <= 1024 else 512  # threads on a row
    threads = max(lanes, 128)
    defines = (f"THREADS={threads}", f"LANES={lanes}", *(("IN_PLACE",) if in_place else ()))
    assert backend.kernels is not None
    backend.kernels(
        "cross_entropy", "cross_entropy", rows * lanes,
        x, target, weight, loss, row_weight, dx, rows, C, ignore_index, smoothing,
        real=dtype, threads=threads, defines=defines,
    )  # fmt: skip

    def gradient(drow: Array | None) -> Array:
        if drow is None:
            return dx
        if not in_place:
            return (dx.astype(wide, copy=False) * drow[:, None]).astype(dtype, copy=False)
        step = max(1, _IN_PLACE // max(rows, 1))
        for at in (slice(start, start + step) for start in range(0, C, step)):
            dx[:, at] = (dx[:, at].astype(wide, copy=False) * drow[:, None]).astype(dtype, copy=False)
        return dx

    return loss, row_weight, gradient

"""Connectionist temporal classification (Graves et al. 2006): a loss for sequences whose targets have no time stamps.

A path assigns a class or the blank to every step. It stands for the targets that remain after repeated classes are
merged and then blanks removed. The loss is -log of the probability of all paths that stand for the targets. A forward
recursion over the beginnings of paths (alpha) computes it, and a backward recursion over their ends (beta) computes the
gradient. kernels/ctc.cu has the equations.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from gpulstm import checks, engine
from gpulstm.backend import Array, Backend, backend_of
from gpulstm.dtypes import accumulator
from gpulstm.errors import DTypeError, ShapeError
from gpulstm.functional.checks import check_arrays, check_floats, check_reduction, check_shape
from gpulstm.functional.needs import needs


@needs({0: (0,)})
def ctc_loss(
    log_probs: Array,
    *,
    targets: Any,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> tuple[Array, Callable]:
    """Compute the connectionist temporal classification loss (Graves et al. 2006), as PyTorch's ``ctc_loss``.

    ``loss, pullback = ctc_loss(log_probs, targets=, input_lengths=, target_lengths=)``. log_probs: log probabilities
    (T, B, C), or (T, C) for one sequence. targets: integers without blanks, padded (B, S), of which the first
    ``target_lengths`` count, or concatenated (sum of target_lengths,). input_lengths, target_lengths: (B,) integers,
    0 <= input_lengths <= T. loss: () or, with reduction="none", (B,), () for one sequence. "mean" divides each loss by
    its number of targets, at least 1, and averages over the batch. ``pullback(dloss)`` returns (dlog_probs,).

    As in PyTorch, the pullback assumes that log_probs are the ``log_softmax`` of logits and returns the gradient of the
    logits. The gradient through ``log_softmax`` is right; dlog_probs itself lacks a term that is equal for all classes.
    Targets that are too long for their input have an infinite loss, or 0 with ``zero_infinity``; their gradient is 0.

    Raises ShapeError for shapes, lengths and targets that do not fit, DTypeError for lengths and targets that are not
    integers. Targets and lengths are read on the host.

    >>> log_probs, _ = gl.functional.log_softmax(np.zeros((4, 1, 3)))
    >>> options = {"targets": np.array([[1, 2]]), "input_lengths": [4], "target_lengths": [2]}
    >>> loss, pullback = gl.functional.ctc_loss(log_probs, **options)
    >>> round(float(loss), 4)
    0.8432
    """
    backend = check_arrays(log_probs=log_probs)
    dtype = check_floats(log_probs=log_probs)
    check_reduction(reduction)
    checks.flag("zero_infinity", zero_infinity)
    if log_probs.ndim not in (2, 3):
        raise ShapeError(f"log_probs: expected (T, B, C) or (T, C), got {log_probs.shape}")
    single = log_probs.ndim == 2
    rows = log_probs[:, None] if single else log_probs
    T, B, C = rows.shape
    blank = checks.integer("blank", blank, 0, C, words=f"a class, 0 <= blank < {C}")
    steps = _lengths("input_lengths", input_lengths, B, T, "T")
    padded, counts = _padded(targets, target_lengths, B, C, blank, single)

    wide = accumulator(dtype)
    # The kernels need a contiguous array, and half types widened.
    rows = backend.xp.ascontiguousarray(rows.astype(wide, copy=False))
    loss, gradient = _paths(backend, rows, padded, np.stack([steps, counts]), blank)
    infinite = backend.xp.isinf(loss)
    kept = backend.where(~infinite, loss, 0) if zero_infinity else loss
    scale = backend.asarray(_scale(reduction, counts).astype(wide))

    def pullback(dloss: Array) -> tuple[Array]:
        each = scale * dloss.astype(wide, copy=False)  # of every sequence
        dlogits = gradient(backend.xp.ascontiguousarray(backend.where(~infinite, each, 0)))
        return (dlogits.reshape(log_probs.shape).astype(dtype, copy=False),)

    out = kept if reduction == "none" else (kept * scale).sum()
    return backend.xp.asarray(out.reshape(() if single else out.shape)).astype(dtype, copy=False), pullback


def _scale(reduction: str, counts: np.ndarray) -> np.ndarray:
    """The factor of each sequence's loss in the result."""
    if reduction == "mean" and len(counts):
        return 1 / (np.maximum(counts, 1) * len(counts))
    return np.ones(len(counts))


def _integers(name: str, x: Any) -> np.ndarray:
    """The integers on the host. Raises DTypeError for other types, ShapeError for a ragged list."""
    try:
        array = backend_of(**{name: x}).to_numpy(x) if hasattr(x, "dtype") else np.asarray(x)
    except ValueError as error:
        raise ShapeError(f"{name}: expected an array, or a list with rows of one length, got {x!r:.60}") from error
    if array.size == 0 and array.dtype.kind == "f":  # from an empty list
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise DTypeError(f"{name}: expected integers, got {array.dtype.name}")
    return array.astype(np.int64, copy=False)


def _lengths(name: str, given: Any, B: int, most: int, of: str) -> np.ndarray:
    """The lengths (B,). Raises ShapeError, with the first bad one, unless each is from 0 to ``most``."""
    lengths = _integers(name, given)
    lengths = lengths.reshape(1) if B == 1 and lengths.ndim == 0 else lengths
    check_shape(name, lengths, (B,), "(sequences,)")
    for k, length in enumerate(lengths.tolist()):
        if not 0 <= length <= most:
            raise ShapeError(f"{name}: expected 0 <= length <= {most} = {of}, got {length} at {k}")
    return lengths


def _padded(targets: Any, lengths: Any, B: int, C: int, blank: int, single: bool) -> tuple[np.ndarray, np.ndarray]:
    """Pad the targets with blanks -> (targets (B, S), the number of targets of each sequence (B,))."""
    given = _integers("targets", targets)
    if given.ndim == 1 and single:
        given = given[None]
    if given.ndim == 2:
        check_shape("targets", given, (B, given.shape[1]), "(sequences, longest)")
        counts = _lengths("target_lengths", lengths, B, given.shape[1], "targets' second axis")
        own = np.arange(given.shape[1]) < counts[:, None]
        values = given[own]
    elif given.ndim == 1:
        counts = _lengths("target_lengths", lengths, B, given.size, "the number of targets")
        if given.size != counts.sum():
            raise ShapeError(f"targets: expected {counts.sum()} = the sum of target_lengths, got {given.size}")
        own = np.arange(counts.max(initial=0)) < counts[:, None]
        values = given
    else:
        raise ShapeError(f"targets: expected (B, S) or (sum of target_lengths,), got {given.shape}")
    for value in values[(values < 0) | (values >= C) | (values == blank)][:1].tolist():
        raise ShapeError(f"targets: expected classes 0 <= target < {C} other than the blank, {blank}, got {value}")
    padded = np.full(own.shape, blank, np.int64)
    padded[own] = values
    return padded, counts


def _paths(
    backend: Backend, log_probs: Array, targets: np.ndarray, lengths: np.ndarray, blank: int
) -> tuple[Array, Callable]:
    """Each sequence's loss and its gradient -> (loss (B,), gradient); gradient(scale (B,)) -> dlogits (T, B, C)."""
    (T, B, C), S = log_probs.shape, targets.shape[1]
    sizes, threads = (T, B, C, S, blank), 64 if S < 32 else 256

    def entry(name: str) -> Callable[..., None] | None:
        if not (kernels := backend.kernels):
            return engine.function(name, log_probs.dtype)
        launch = {"real": log_probs.dtype, "threads": threads, "defines": (f"THREADS={threads}",)}
        return lambda *arguments: kernels("ctc", name, B * threads, *arguments, **launch)

    forward, backward = entry("ctc_alpha"), entry("ctc_gradient")
    if forward is None or backward is None:
        return _paths_numpy(log_probs, targets, lengths, blank)
    L, loss = 2 * S + 1, backend.empty((B,), log_probs.dtype)
    alpha, rows = (backend.empty(shape, log_probs.dtype) for shape in ((B, T, L), (B, 4, L + 4)))
    batch = log_probs, backend.asarray(targets), backend.asarray(lengths), alpha, rows, backend.empty((B, L), np.int64)
    forward(*batch, loss, *sizes)

    def gradient(scale: Array) -> Array:
        dlogits = backend.empty(log_probs.shape, log_probs.dtype)
        backward(*batch, scale, dlogits, *sizes)
        return dlogits

    return loss, gradient


@np.errstate(divide="ignore", over="ignore")  # log 0
def _paths_numpy(
    log_probs: np.ndarray, targets: np.ndarray, lengths: np.ndarray, blank: int
) -> tuple[np.ndarray, Callable]:
    """``_paths`` in NumPy: step by step, all sequences at once."""
    (T, B, _), (steps, counts), dtype = log_probs.shape, lengths, log_probs.dtype
    nothing, batch, L = dtype.type(-np.inf), np.arange(B), 2 * targets.shape[1] + 1
    classes = np.full((B, L), blank)
    classes[:, 1::2] = targets
    skips = np.zeros((B, L), bool)  # whether a path may come from two positions before
    skips[:, 3::2] = targets[:, 1:] != targets[:, :-1]
    leads = np.zeros((B, L), bool)  # whether a path may move on by two positions
    leads[:, :-2] = skips[:, 2:]
    inside = np.arange(L) <= 2 * counts[:, None]
    at = np.where(inside, np.take_along_axis(log_probs, np.broadcast_to(classes, (T, B, L)), axis=2), nothing)

    def moved(row: np.ndarray, by: int) -> np.ndarray:
        """The row shifted right by ``by`` positions, or left if negative; -inf fills the gap."""
        out = np.full_like(row, nothing)
        if by > 0:
            out[:, by:] = row[:, :-by]
        else:
            out[:, :by] = row[:, -by:]
        return out

    def log_sum(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
        most = np.maximum(np.maximum(a, b), c)
        most = np.where(np.isinf(most), dtype.type(0), most)
        return most + np.log(np.exp(a - most) + np.exp(b - most) + np.exp(c - most))

    alpha = np.full((T, B, L), nothing)
    for t in range(T):
        if t == 0:
            alpha[0, :, :2] = at[0, :, :2]
        else:
            a = alpha[t - 1]
            alpha[t] = log_sum(a, moved(a, 1), np.where(skips, moved(a, 2), nothing)) + at[t]
    begun = alpha[np.maximum(steps - 1, 0), batch] if T else np.full((B, L), nothing)
    last = begun[batch, 2 * counts], np.where(counts > 0, begun[batch, 2 * counts - 1], nothing)
    loss = np.where(steps > 0, -log_sum(*last, np.full(B, nothing)), np.where(counts > 0, -nothing, dtype.type(0)))

    @np.errstate(divide="ignore", invalid="ignore")
    def gradient(scale: np.ndarray) -> np.ndarray:
        dlogits = np.zeros_like(log_probs)
        ends = inside & (np.arange(L) >= 2 * counts[:, None] - 1)  # the last two positions
        first = np.where(ends, dtype.type(0), nothing)
        behind = np.full((B, L), nothing)
        for t in reversed(range(T)):
            over = np.where(leads, moved(behind, -2), nothing)
            beta = np.where((steps == t + 1)[:, None], first, log_sum(behind, moved(behind, -1), over))
            behind = beta + at[t]
            alive = ((steps > t) & (scale != 0))[:, None]
            share = np.where(alive & inside, np.exp(alpha[t] + beta + loss[:, None]), 0)
            dlogits[t] = np.where(alive, np.exp(log_probs[t]), 0)
            np.subtract.at(dlogits[t], (batch[:, None], classes), share)
        return dlogits * scale[:, None]

    return loss, gradient

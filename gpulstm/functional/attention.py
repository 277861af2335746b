"""Attention: score how well each key fits a query, take the softmax over the keys, and sum the values by these weights.

The scores of a query q and a key k, each kind with its parameters:

    additive    weight_score' tanh(weight_query q + weight_key k)     Bahdanau, Cho & Bengio 2015, appendix A.1.2
    dot         q' k                                                  Luong, Pham & Manning 2015, section 3.1
    general     q' weight k                                           likewise
    concat      weight_score' tanh(weight [q; k])                     likewise
    scaled_dot  q' k / sqrt(K)                                        Vaswani et al. 2017, eq. 1

In this file S is the number of queries, T the number of keys, B the batch size and A the attention size. Internally
scores and weights are (B, S, T), one matrix for each sequence.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gpulstm.backend import Array, Backend, backend_of
from gpulstm.dtypes import accumulator, cast
from gpulstm.errors import ShapeError
from gpulstm.functional.checks import check_arrays, check_floats, check_shape
from gpulstm.functional.linear import linear, product
from gpulstm.functional.sequence import alive_by
from gpulstm.precision import keeps_precision


@keeps_precision
def attention(
    query: Array,
    keys: Array,
    values: Array | None = None,
    *parameters: Array,
    kind: str = "additive",
    lengths: Any = None,
    mask: Any = None,
) -> tuple[tuple[Array, Array], Callable]:
    """Attend from queries to keys: ``(context, weights), pullback = attention(query, keys, values, *parameters)``.

    ========== ======================= ==============================================================
    query      (B, Q) or (S, B, Q)     one query for each sequence, or S; Q = K for dot and scaled_dot
    keys       (T, B, K)
    values     (T, B, V)               None uses the keys
    lengths    (B,)                    integers 0..T: numbers of keys, on any device; None means T for all
    mask       (T, B)                  bool, instead of lengths: True for valid keys
    context    (B, V) or (S, B, V)     sum over t of weights[t] values[t]
    weights    (B, T) or (S, B, T)     softmax of the scores; each row sums to 1, zero for invalid keys
    ========== ======================= ==============================================================

    ``kind`` decides the parameters: weight_query (A, Q), weight_key (A, K), weight_score (A,) for additive; weight
    (A, Q + K), weight_score (A,) for concat; weight (Q, K) for general; none for dot and scaled_dot.

    Invalid keys and values are never read; without valid keys, weights and context are zero. ``pullback(dcontext,
    dweights)``, either of them None, returns the gradients of query, keys, values (None if not given) and the
    parameters. float16 and bfloat16 are stored as such and computed in float32.

    Every kind keeps the weights, S*T*B numbers, for the pullback. additive and concat also keep a tanh (S, T, B, A),
    and their pullback needs as much again. With many queries at once, dot, general and scaled_dot need far less memory.

    Raises ShapeError, DTypeError or DeviceError for arguments that do not fit.

    >>> (context, weights), pullback = gl.functional.attention(np.zeros((2, 3)), np.ones((4, 2, 3)), kind="dot")
    >>> context.shape, weights[0]
    ((2, 3), array([0.25, 0.25, 0.25, 0.25]))
    """
    named = _named(query, keys, values, parameters, kind)
    backend = check_arrays(("values",), **named)
    dtype = _check(query, keys, values, parameters, kind)
    wide, single = accumulator(dtype), query.ndim == 2
    seen = _seen(backend, keys.shape[0], keys.shape[1], lengths, mask)

    def cleared(padded: Array) -> Array:
        """The keys or values with zeros for the invalid ones: these may hold nan, and 0 * nan is nan."""
        padded = padded.astype(wide, copy=False)
        return padded if seen is None else backend.xp.where(seen.T[:, :, None], padded, backend.xp.zeros((), wide))

    q, k = query.astype(wide, copy=False), cleared(keys)
    q = q[None] if single else q
    scores, of_scores = SCORES[kind](q, k, *(p.astype(wide, copy=False) for p in parameters))
    weights, of_softmax = masked_softmax(scores, None if seen is None else seen[:, None, :])
    v = k if values is None else cleared(values)
    context, of_sum = weighted_sum(weights, v)

    def outwards(a: Array) -> Array:
        """(B, S, n) -> (S, B, n), or (B, n) for a single query."""
        a = a.astype(dtype, copy=False).transpose(1, 0, 2)
        return a[0] if single else a

    def inwards(d: Array) -> Array:
        return (d[None] if single else d).astype(wide, copy=False).transpose(1, 0, 2)

    def pullback(dcontext: Array | None, dweights: Array | None) -> tuple[Array | None, ...]:
        total = backend.zeros(weights.shape, wide) if dweights is None else inwards(dweights)
        dv = backend.zeros(v.shape, wide)
        if dcontext is not None:
            of_context, dv = of_sum(inwards(dcontext))
            total = total + of_context
        dq, dk, *dparameters = of_scores(*of_softmax(total))
        dkeys, dvalues = (dk + dv, None) if values is None else (dk, dv)
        return cast((dq.reshape(query.shape), dkeys, dvalues, *dparameters), dtype)

    return (outwards(context), outwards(weights)), pullback


def _named(query: Array, keys: Array, values: Array | None, parameters: tuple, kind: str) -> dict[str, Array | None]:
    """The arrays by name. Raises ShapeError unless there are as many parameters as the kind has."""
    names = list(parameter_shapes(kind, 0, 0, 0))
    if len(parameters) != len(names):
        want = ", ".join(names) or "none"
        raise ShapeError(f"parameters of kind {kind!r}: expected {want}, got {len(parameters)} arrays")
    return {"query": query, "keys": keys, "values": values, **dict(zip(names, parameters, strict=True))}


def parameter_shapes(kind: str, query_size: int, key_size: int, attention_size: int) -> dict[str, tuple[int, ...]]:
    """The shapes of the parameters of a kind of score, by name; products sum over the last axis of each.

    Raises ShapeError for an unknown kind.
    """
    if not isinstance(kind, str) or kind not in SCORES:
        raise ShapeError(f"kind: expected {', '.join(SCORES)}, got {kind!r}")
    if kind == "additive":
        matrices = {"weight_query": (attention_size, query_size), "weight_key": (attention_size, key_size)}
        return {**matrices, "weight_score": (attention_size,)}
    if kind == "concat":
        return {"weight": (attention_size, query_size + key_size), "weight_score": (attention_size,)}
    return {"weight": (query_size, key_size)} if kind == "general" else {}


def masked_softmax(scores: Array, seen: Array | None) -> tuple[Array, Callable]:
    """``weights, pullback = masked_softmax(scores, seen)``: softmax over the last axis, where ``seen`` is True.

    scores (B, S, T); seen bool that broadcasts to them, or None for all. weights (B, S, T) are zero where ``seen`` is
    False, even in a row without any True. ``pullback(dweights)`` returns (dscores,), zero in the same places.
    """
    xp = backend_of(scores).xp
    if seen is not None:
        scores = xp.where(seen, scores, -np.inf)
    largest = scores.max(axis=-1, keepdims=True)
    if seen is not None:
        nothing = ~seen.any(axis=-1, keepdims=True)
        largest = xp.where(nothing, xp.zeros((), scores.dtype), largest)
    weights = xp.exp(scores - largest)  # at most 1: nothing overflows
    total = weights.sum(axis=-1, keepdims=True)
    weights /= total if seen is None else xp.where(nothing, xp.ones((), scores.dtype), total)

    def pullback(dweights: Array) -> tuple[Array]:
        if seen is not None:  # those weights are zero whatever the scores are
            dweights = xp.where(seen, dweights, xp.zeros((), dweights.dtype))
        return (weights * (dweights - (weights * dweights).sum(axis=-1, keepdims=True)),)

    return weights, pullback


def weighted_sum(weights: Array, values: Array) -> tuple[Array, Callable]:
    """``context, pullback = weighted_sum(weights, values)``: context[b, s] = sum_t weights[b, s, t] values[t, b].

    weights (B, S, T), values (T, B, V) -> context (B, S, V). ``pullback(dcontext)`` returns (dweights, dvalues).
    """
    backend = backend_of(weights, values)

    def pullback(dcontext: Array) -> tuple[Array, Array]:
        dvalues = backend.matmul(weights.transpose(0, 2, 1), dcontext)  # (B, T, V)
        return backend.matmul(dcontext, values.transpose(1, 2, 0)), dvalues.transpose(1, 0, 2)

    return backend.matmul(weights, values.transpose(1, 0, 2)), pullback


# -- scores: query (S, B, Q), keys (T, B, K) -> (B, S, T); pullback(dscores) -> (dquery, dkeys, *dparameters)
def dot(query: Array, keys: Array) -> tuple[Array, Callable]:
    """query' key."""
    backend = backend_of(query, keys)

    def pullback(dscores: Array) -> tuple[Array, Array]:
        dquery = backend.matmul(dscores, keys.transpose(1, 0, 2))  # (B, S, K)
        dkeys = backend.matmul(dscores.transpose(0, 2, 1), query.transpose(1, 0, 2))  # (B, T, K)
        return dquery.transpose(1, 0, 2), dkeys.transpose(1, 0, 2)

    return backend.matmul(query.transpose(1, 0, 2), keys.transpose(1, 2, 0)), pullback


def scaled_dot(query: Array, keys: Array) -> tuple[Array, Callable]:
    """query' key / sqrt(K), so that scores of random vectors do not grow with their size."""
    scale = 1 / math.sqrt(keys.shape[2])
    scores, of_scores = dot(query * scale, keys)

    def pullback(dscores: Array) -> tuple[Array, Array]:
        dquery, dkeys = of_scores(dscores)
        return dquery * scale, dkeys

    return scores, pullback


def general(query: Array, keys: Array, weight: Array) -> tuple[Array, Callable]:
    """query' weight key, weight (Q, K). It multiplies the queries, as there are usually fewer of them than keys."""
    projected, of_projected = linear(query, weight.T)
    scores, of_scores = dot(projected, keys)

    def pullback(dscores: Array) -> tuple[Array, Array, Array]:
        dprojected, dkeys = of_scores(dscores)
        dquery, dweight, _ = of_projected(dprojected)
        return dquery, dkeys, dweight.T

    return scores, pullback


def additive(
    query: Array, keys: Array, weight_query: Array, weight_key: Array, weight_score: Array
) -> tuple[Array, Callable]:
    """weight_score' tanh(weight_query query + weight_key key), weights (A, Q), (A, K), (A,)."""
    backend = backend_of(query, keys)
    (S, B, _), T, A = query.shape, keys.shape[0], weight_score.shape[0]
    from_query, of_query = linear(query, weight_query)  # (S, B, A)
    from_key, of_key = linear(keys, weight_key)  # (T, B, A)
    hidden = backend.empty((S, T, B, A), query.dtype)
    backend.xp.add(from_query[:, None], from_key, out=hidden)
    backend.xp.tanh(hidden, out=hidden)
    rows = hidden.reshape(S * T * B, A)
    scores = product(backend, rows, weight_score[:, None]).reshape(S, T, B)

    def pullback(dscores: Array) -> tuple[Array, ...]:
        dscores = dscores.transpose(1, 2, 0).reshape(S * T * B, 1)
        dweight_score = product(backend, rows.T, dscores)[:, 0]
        dz = backend.empty(hidden.shape, hidden.dtype)  # of the sum inside tanh
        backend.xp.multiply(hidden, hidden, out=dz)
        backend.xp.subtract(1, dz, out=dz)
        dz *= weight_score
        dz *= dscores.reshape(S, T, B, 1)
        dquery, dweight_query, _ = of_query(dz.sum(axis=1))
        dkeys, dweight_key, _ = of_key(dz.sum(axis=0))
        return dquery, dkeys, dweight_query, dweight_key, dweight_score

    # Contiguous, since products are slow on rows with gaps.
    return backend.xp.ascontiguousarray(scores.transpose(2, 0, 1)), pullback


def concat(query: Array, keys: Array, weight: Array, weight_score: Array) -> tuple[Array, Callable]:
    """weight_score' tanh(weight [query; key]), weight (A, Q + K): additive with both matrices joined into one."""
    Q = query.shape[2]
    scores, of_scores = additive(query, keys, weight[:, :Q], weight[:, Q:], weight_score)

    def pullback(dscores: Array) -> tuple[Array, ...]:
        dquery, dkeys, dweight_query, dweight_key, dweight_score = of_scores(dscores)
        dweight = backend_of(weight).xp.concatenate((dweight_query, dweight_key), axis=1)
        return dquery, dkeys, dweight, dweight_score

    return scores, pullback


SCORES: dict[str, Callable] = {
    "additive": additive,
    "dot": dot,
    "general": general,
    "concat": concat,
    "scaled_dot": scaled_dot,
}


# -- the arguments
def _check(query: Array, keys: Array, values: Array | None, parameters: tuple, kind: str) -> np.dtype:
    """The common dtype. Raises ShapeError or DTypeError, naming the argument that does not fit."""
    if query.ndim not in (2, 3):
        raise ShapeError(f"query: expected (B, Q) or (S, B, Q), got {query.shape}")
    if keys.ndim != 3 or 0 in (keys.shape[0], keys.shape[2]):
        raise ShapeError(f"keys: expected (T, B, K) with T > 0 and K > 0, got {keys.shape}")
    (T, B, K), Q = keys.shape, query.shape[-1]
    if query.shape[-2] != B:
        raise ShapeError(f"keys: expected {query.shape[-2]} sequences, as query has, got {B} in {keys.shape}")
    if values is not None and (values.ndim != 3 or values.shape[:2] != (T, B)):
        raise ShapeError(f"values: expected ({T}, {B}, V), one for each key, got {values.shape}")
    A = parameters[-1].size if parameters else 0  # weight_score comes last
    shapes = parameter_shapes(kind, Q, K, A)
    named = dict(zip(shapes, parameters, strict=True))
    for name, shape in shapes.items():
        check_shape(name, named[name], shape, f"its shape for kind {kind!r}")
    if kind in ("dot", "scaled_dot") and Q != K:
        raise ShapeError(f"keys: expected {Q} features, as query has, for kind {kind!r}, got {K}")
    return check_floats(query=query, keys=keys, values=values, **named)


def _seen(backend: Backend, T: int, B: int, lengths: Any, mask: Any) -> Array | None:
    """(B, T) bool, True for valid keys; None if all are valid."""
    host = alive_by(lengths, mask, T, B, of="keys")
    return None if host is None or host.all() else backend.asarray(np.ascontiguousarray(host.T))

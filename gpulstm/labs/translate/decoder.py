"""The decoder's loop, forward and backward, as one node of the tape: an LSTM with attention and input feeding.

Each step reads the attentional vector of the previous step besides its token (Luong, Pham & Manning 2015, section 3.3).
With S steps, B sentences, T source tokens, H units and attentional vectors of size D:

    z_t = zx_t + weight_hh h_{t-1} + weight_fed a_{t-1}         zx_t = weight_ih x_t + biases, for all steps at once
    h_t, c_t = lstm(z_t, c_{t-1})
    w_t = softmax over the source of h_t' keys                  keys = W e, score "general" of the paper
    a_t = tanh(sum_s w_ts values_s + weight_out h_t) drop_t     values = W_c e, computed once for the source and not in
                                                                every step, because the sum is linear
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from gpulstm import cells
from gpulstm.backend import Array, Backend, backend_of
from gpulstm.functional.attention import masked_softmax
from gpulstm.precision import keeps_precision

LSTM = cells.find("lstm")


class Weights(NamedTuple):
    """The weights of a step, concatenated and transposed for its matrix products."""

    recurrent: Array  # (H + D, 4H): [weight_hh, weight_fed]'
    out: Array  # (H, D): weight_out'

    @classmethod
    def of(cls, xp: Any, weight_hh: Array, weight_fed: Array, weight_out: Array) -> "Weights":
        """Make them from weight_hh (4H, H), weight_fed (4H, D), weight_out (D, H)."""
        recurrent = xp.concatenate([weight_hh, weight_fed], axis=1)
        return cls(xp.ascontiguousarray(recurrent.T), xp.ascontiguousarray(weight_out.T))


class Memory(NamedTuple):
    """The encoded source that every step reads, with the batch axis first."""

    keys: Array  # (B, T, H)
    values: Array  # (B, T, D)
    seen: Array | None  # (B, T) bool, False for padding; None without padding

    @classmethod
    def of(cls, xp: Any, keys: Array, values: Array, seen: Array | None) -> "Memory":
        """Make it from keys (T, B, H) and values (T, B, D)."""
        keys, values = (xp.ascontiguousarray(x.transpose(1, 0, 2)) for x in (keys, values))
        return cls(keys, values, seen)


def step(
    backend: Backend, weights: Weights, memory: Memory, zx: Array, joined: Array, c: Array, drop: Array | None
) -> tuple[Array, Array, Array, Array, tuple]:
    """Compute one step; returns (h, c, a, w (B, T), the values saved for backward).

    zx is (B, 4H), joined = [h, a] (B, H + D), c (B, H).
    """
    xp, matmul = backend.xp, backend.matmul
    (h, c), saved = LSTM.forward(xp, zx, matmul(joined, weights.recurrent), (None, c), ())
    scores = matmul(memory.keys, h[:, :, None])[:, :, 0]
    w, of_softmax = masked_softmax(scores, memory.seen)
    tanh = xp.tanh(matmul(w[:, None, :], memory.values)[:, 0] + matmul(h, weights.out))
    a = tanh if drop is None else tanh * drop
    return h, c, a, w, (saved, of_softmax, tanh)


@keeps_precision
def decode(
    zx: Array,
    h: Array,
    c: Array,
    keys: Array,
    values: Array,
    weight_hh: Array,
    weight_fed: Array,
    weight_out: Array,
    drop: Array | None = None,
    seen: Array | None = None,
) -> tuple[tuple[Array, Array], Callable]:
    """Run all steps of the decoder: ``(a, w), pullback = decode(zx, h, c, keys, values, ...)``.

    zx (S, B, 4H), h and c (B, H), keys (T, B, H), values (T, B, D), weight_hh (4H, H), weight_fed (4H, D), weight_out
    (D, H), drop (S, B, D) or None, seen (B, T) bool or None. a (S, B, D) holds the attentional vectors after dropout,
    w (S, B, T) the attention weights, which take no gradient. The attentional vector before the first step is zero.
    ``pullback(da, None)`` returns the gradients of every argument except drop and seen, for which it returns None.
    """
    backend = backend_of(zx, keys)
    xp = backend.xp
    (S, B, _), (T, _, H), D = zx.shape, keys.shape, values.shape[2]
    weights = Weights.of(xp, weight_hh, weight_fed, weight_out)
    memory = Memory.of(xp, keys, values, seen)
    joined = xp.zeros((S + 1, B, H + D), zx.dtype)  # [h, a] before each step, and after the last
    joined[0, :, :H] = h
    attention, kept = xp.empty((S, B, T), zx.dtype), []
    for t in range(S):
        dropped = None if drop is None else drop[t]
        h, c, a, attention[t], saved = step(backend, weights, memory, zx[t], joined[t], c, dropped)
        joined[t + 1, :, :H], joined[t + 1, :, H:] = h, a
        kept.append(saved)

    def pullback(da: Array, _: Array | None) -> tuple[Array | None, ...]:
        return (*_backward(backend, da, joined, attention, kept, weights, memory, drop), None, None)

    return (joined[1:, :, H:], attention), pullback


def _backward(
    backend: Backend,
    da: Array,
    joined: Array,
    attention: Array,
    kept: list[tuple],
    weights: Weights,
    memory: Memory,
    drop: Array | None,
) -> tuple[Array, ...]:
    """Return the gradients of zx, h, c, keys, values, weight_hh, weight_fed and weight_out; names as in ``decode``."""
    (S, B, D), H = da.shape, weights.out.shape[0]
    xp, matmul = backend.xp, backend.matmul
    dzx, dscores = xp.empty((S, B, 4 * H), da.dtype), xp.empty_like(attention)
    dsum = xp.empty((S, B, D), da.dtype)  # gradient of the argument of tanh
    djoined, dc = xp.zeros((B, H + D), da.dtype), xp.zeros((B, H), da.dtype)
    for t in reversed(range(S)):
        saved, of_softmax, tanh = kept[t]
        dtanh = da[t] + djoined[:, H:]
        if drop is not None:
            dtanh *= drop[t]
        dsum[t] = dtanh * (1 - tanh**2)
        dw = matmul(memory.values, dsum[t][:, :, None])[:, :, 0]
        dscores[t] = of_softmax(dw)[0]
        dh = djoined[:, :H] + matmul(dsum[t], weights.out.T) + matmul(dscores[t][:, None, :], memory.keys)[:, 0]
        dzx[t], dzr, (_, dc), _ = LSTM.backward(xp, (dh, dc), saved, ())
        djoined = matmul(dzr, weights.recurrent.T)
    # One matrix product computes each gradient that sums over the steps.
    h_all = joined[1:, :, :H]
    by_sentence = (1, 2, 0), (1, 0, 2)
    dkeys = matmul(dscores.transpose(by_sentence[0]), h_all.transpose(by_sentence[1]))  # (B, T, H)
    dvalues = matmul(attention.transpose(by_sentence[0]), dsum.transpose(by_sentence[1]))
    drecurrent = matmul(dzx.reshape(S * B, -1).T, joined[:-1].reshape(S * B, H + D))  # (4H, H + D)
    dout = matmul(dsum.reshape(S * B, D).T, h_all.reshape(S * B, H))
    back = (x.transpose(1, 0, 2) for x in (dkeys, dvalues))
    return dzx, djoined[:, :H], dc, *back, drecurrent[:, :H], drecurrent[:, H:], dout

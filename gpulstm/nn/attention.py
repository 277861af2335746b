"""The attention layer: a weighted sum of values, with weights that score a query against keys."""

import math
from typing import Any

import numpy as np

from gpulstm.backend import Device
from gpulstm.errors import ShapeError
from gpulstm.functional.attention import attention, parameter_shapes
from gpulstm.functional.checks import check_floats
from gpulstm.nn.arguments import as_tensor, check_fits, on_host, time_first
from gpulstm.nn.initial import Initial
from gpulstm.nn.module import Module, Parameter, check_flags, check_sizes
from gpulstm.tape import Tensor, apply


class Attention(Module):
    """Attends from queries to a sequence of keys: ``context, weights = attention(query, keys, lengths=lengths)``.

    Each key gets a score for the query; the weights are the softmax of the scores over the keys. ``kind`` chooses the
    score, with Q = query_size, K = key_size and A = attention_size (by default Q):

    - "additive": weight_score' tanh(weight_query q + weight_key k), Bahdanau, Cho & Bengio 2015; weight_query
      (A, Q), weight_key (A, K), weight_score (A,)
    - "dot": q' k, Luong, Pham & Manning 2015; Q = K, no parameters
    - "general": q' weight k, Luong et al. 2015; weight (Q, K)
    - "concat": weight_score' tanh(weight [q; k]), Luong et al. 2015; weight (A, Q + K), weight_score (A,)
    - "scaled_dot": q' k / sqrt(K), Vaswani et al. 2017; Q = K, no parameters

    Initial parameters are U(-1/sqrt(n), 1/sqrt(n)), where n is the size of their last axis, as in ``torch.nn.Linear``.
    With T keys, B sequences and S queries (a decoder's steps):

    ======== ============================================================================================
    query    (B, Q) for one step, (S, B, Q) for many; (B, S, Q) with ``batch_first``
    keys     (T, B, K); (B, T, K) with ``batch_first``
    values   (T, B, V); (B, T, V) with ``batch_first``; None uses the keys
    lengths  (B,) integers from 0 to T in any order: how many keys are valid; None means T for all
    mask     bool (T, B) or (B, T), like keys: True for valid keys; it replaces lengths
    context  (B, V) or (S, B, V): the weighted sum of the values; (B, S, V) with ``batch_first``
    weights  (B, T) or (S, B, T): each row sums to 1, zero for invalid keys; (B, S, T) with ``batch_first``
    ======== ============================================================================================

    Invalid keys and values are never read. A sequence without valid keys has zero weights and context. With S queries,
    additive and concat need memory for S * T * B * A numbers, and twice that in training.

    Raises ShapeError, DTypeError or DeviceError, naming the argument that does not fit.

    >>> attention = gl.Attention(query_size=4, key_size=3)
    >>> query, keys = np.zeros((2, 4), np.float32), np.zeros((5, 2, 3), np.float32)
    >>> context, weights = attention(query, keys, lengths=[5, 4])
    >>> context.shape, weights.numpy()[1]
    ((2, 3), array([0.25, 0.25, 0.25, 0.25, 0.  ], dtype=float32))
    """

    # A layer has the parameters of its kind only.
    weight: Parameter
    weight_query: Parameter
    weight_key: Parameter
    weight_score: Parameter

    def __init__(
        self,
        query_size: int,
        key_size: int,
        kind: str = "additive",
        attention_size: int | None = None,
        batch_first: bool = False,
        device: "str | Device | None" = None,
        dtype: Any = None,
        generator: np.random.Generator | None = None,
    ) -> None:
        query_size, key_size = check_sizes(query_size=query_size, key_size=key_size)
        check_flags(batch_first=batch_first)
        size = query_size if attention_size is None else attention_size
        (size,) = check_sizes(attention_size=size)
        shapes = parameter_shapes(kind, query_size, key_size, size)
        if "weight_score" not in shapes and attention_size is not None:
            raise ShapeError(f"attention_size: expected None, because kind {kind!r} has none, got {attention_size}")
        if not shapes and query_size != key_size:
            raise ShapeError(f"key_size: expected query_size = {query_size} for kind {kind!r}, got {key_size}")
        self.query_size, self.key_size, self.kind, self.batch_first = query_size, key_size, kind, batch_first
        self.attention_size = size if "weight_score" in shapes else None
        self._names = tuple(shapes)
        initial = Initial(device, dtype, generator)
        for name, shape in shapes.items():
            setattr(self, name, initial.uniform(1 / math.sqrt(shape[-1]), *shape))

    def forward(
        self, query: Any, keys: Any, values: Any = None, lengths: Any = None, mask: Any = None
    ) -> tuple[Tensor, Tensor]:
        """Return (context, weights); the docstring of the class describes arguments and shapes."""
        query, keys, values = self._tensors(query, keys, values)
        self._check(query, keys, values)
        check_floats(query=query.data)
        name = self._names[0] if self._names else "query"
        first = getattr(self, name) if self._names else query
        for argument, x in (("query", query), ("keys", keys), ("values", values)):
            if x is not None and x is not first:
                check_fits(argument, x, **{name: first})
        mask = time_first("mask", mask, keys.shape[:2], self.batch_first, of="keys")
        if self.batch_first:
            query, keys, values = (
                x.transpose(1, 0, 2) if x is not None and x.ndim == 3 else x for x in (query, keys, values)
            )
        parameters = [getattr(self, name) for name in self._names]
        options = {"kind": self.kind, "lengths": on_host(lengths), "mask": mask}
        context, weights = apply(attention, query, keys, values, *parameters, **options)
        if self.batch_first and query.ndim == 3:
            context, weights = context.transpose(1, 0, 2), weights.transpose(1, 0, 2)
        return context, weights

    def _tensors(self, query: Any, keys: Any, values: Any) -> list:
        """The arguments as Tensors; arrays on the host move to the weights, or to the first argument on a GPU."""
        given = {"query": query, "keys": keys} | ({} if values is None else {"values": values})
        tensors = {name: as_tensor(x, name) for name, x in given.items()}
        on_gpu = [x for x in tensors.values() if x.device != "cpu"]
        beside = getattr(self, self._names[0]) if self._names else on_gpu[0] if on_gpu else None
        placed = [as_tensor(given[name], name, beside) for name in tensors]
        return [*placed, None][:3]

    def _check(self, query: Tensor, keys: Tensor, values: Tensor | None) -> None:
        """Raise ShapeError for wrong axes or sizes; the message follows ``batch_first``."""
        queries, steps = ("(B, S", "(B, T") if self.batch_first else ("(S, B", "(T, B")
        if query.ndim not in (2, 3) or query.shape[-1] != self.query_size:
            Q = self.query_size
            raise ShapeError(f"query: expected (B, {Q}) or {queries}, {Q}) with {Q} = query_size, got {query.shape}")
        if keys.ndim != 3 or keys.shape[-1] != self.key_size:
            raise ShapeError(
                f"keys: expected {steps}, {self.key_size}) with {self.key_size} = key_size, got {keys.shape}"
            )
        if values is not None and (values.ndim != 3 or values.shape[:2] != keys.shape[:2]):
            raise ShapeError(f"values: expected {steps}, V), as many as the keys {keys.shape}, got {values.shape}")

    def extra_repr(self) -> str:
        size = "" if self.attention_size is None else f", attention_size={self.attention_size}"
        first = ", batch_first=True" if self.batch_first else ""
        return f"{self.query_size}, {self.key_size}, kind={self.kind!r}{size}{first}"

"""attention: sums written out, central differences of every input and parameter, torch's scaled dot product."""

import functools
import math
import sys
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from gpulstm import tensor
from gpulstm.backend import CPU
from gpulstm.backend import device as find_device
from gpulstm.errors import DeviceError, DTypeError, ShapeError
from gpulstm.functional.attention import (
    SCORES,
    additive,
    attention,
    concat,
    dot,
    general,
    masked_softmax,
    parameter_shapes,
    weighted_sum,
)
from gpulstm.nn.attention import Attention
from tests.tolerances import assert_close, assert_gradient, assert_ratio, central_differences

MODULE = sys.modules["gpulstm.functional.attention"]
KINDS = ("additive", "dot", "general", "concat", "scaled_dot")
SQUARE = ("dot", "scaled_dot")  # queries and keys of one size


@dataclass(frozen=True)
class Case:
    """A call with everything sequence-first; what may not be seen is NaN. ``seen`` is (T, B)."""

    kind: str
    arrays: dict[str, np.ndarray]  # query, keys, values if given, then the parameters
    seen: np.ndarray
    lengths: np.ndarray | None
    mask: np.ndarray | None
    dcontext: np.ndarray | None
    dweights: np.ndarray | None
    batch_first: bool

    @property
    def values(self) -> np.ndarray:
        return self.arrays.get("values", self.arrays["keys"])

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        return {name: a for name, a in self.arrays.items() if name.startswith("weight")}


def make(kind, rng, S, T, B, Q, K, A, V, seeing="all", cotangents="both", batch_first=False):
    """A random case; S None for one query (B, Q), V None for values left out."""
    queries = (B,) if S is None else (S, B)
    arrays = {"query": rng.standard_normal((*queries, Q)), "keys": rng.standard_normal((T, B, K))}
    if V is not None:
        arrays["values"] = rng.standard_normal((T, B, V))
    for name, shape in parameter_shapes(kind, Q, K, A).items():
        arrays[name] = rng.standard_normal(shape)
    lengths = rng.integers(0, T + 1, B) if seeing == "lengths" else None
    mask = rng.random((T, B)) < 0.6 if seeing == "mask" else None
    seen = np.arange(T)[:, None] < lengths if lengths is not None else np.ones((T, B), bool) if mask is None else mask
    for name in ("keys", "values"):
        if name in arrays:
            arrays[name][~seen] = np.nan
    dcontext = None if cotangents == "weights" else rng.standard_normal((*queries, K if V is None else V))
    dweights = None if cotangents == "context" else rng.standard_normal((*queries, T))
    return Case(kind, arrays, seen, lengths, mask, dcontext, dweights, batch_first)


def random_case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    kind = KINDS[seed % 5]
    T, B, Q, K, A, V = (int(n) for n in rng.integers(1, 5, 6))
    return make(
        kind, rng, rng.choice([None, 1, 2, 3]), T, B, Q, Q if kind in SQUARE else K, A, rng.choice([None, V]),
        rng.choice(["all", "lengths", "mask"]), rng.choice(["both", "context", "weights"]), bool(rng.integers(2)),
    )  # fmt: skip


def score(kind: str, q: np.ndarray, k: np.ndarray, p: dict[str, np.ndarray]) -> float:
    """The score of one query and one key, as the papers write it."""
    if kind == "additive":
        return sum(v * math.tanh(w @ q + u @ k) for v, w, u in zip(p["weight_score"], *_matrices(p), strict=True))
    if kind == "concat":
        joined = np.concatenate([q, k])
        return sum(v * math.tanh(row @ joined) for v, row in zip(p["weight_score"], p["weight"], strict=True))
    if kind == "general":
        return sum(q[i] * p["weight"][i, j] * k[j] for i in range(q.size) for j in range(k.size))
    return sum(a * b for a, b in zip(q, k, strict=True)) / (math.sqrt(k.size) if kind == "scaled_dot" else 1)


def _matrices(p):
    return p["weight_query"], p["weight_key"]


def by_definition(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """context and weights in float64, one sequence and one query at a time, reading what may be seen alone."""
    wide = {name: a.astype(np.float64) for name, a in case.arrays.items()}
    query, keys, values = wide["query"], wide["keys"], case.values.astype(np.float64)
    rows = query if query.ndim == 3 else query[None]
    context, weights = np.zeros((*rows.shape[:2], values.shape[2])), np.zeros((*rows.shape[:2], keys.shape[0]))
    for s, b in np.ndindex(*rows.shape[:2]):
        scores = {t: score(case.kind, rows[s, b], keys[t, b], wide) for t in np.flatnonzero(case.seen[:, b])}
        total = sum(math.exp(e - max(scores.values())) for e in scores.values())
        for t, e in scores.items():
            weights[s, b, t] = math.exp(e - max(scores.values())) / total
            context[s, b] += weights[s, b, t] * values[t, b]
    return context.reshape(*query.shape[:-1], -1), weights.reshape(*query.shape[:-1], -1)


def called(backend: Any, case: Case) -> tuple:
    """functional.attention of the case's arrays."""
    arrays = [
        backend.asarray(case.arrays[name]) if name in case.arrays else None for name in ("query", "keys", "values")
    ]
    parameters = [backend.asarray(a) for a in case.parameters.values()]
    return attention(*arrays, *parameters, kind=case.kind, lengths=case.lengths, mask=case.mask)


def differences(case: Case) -> dict[str, np.ndarray]:
    """Central differences of the loss, by the name of what is varied."""

    def loss() -> float:
        outputs, _ = called(CPU, case)
        pairs = zip(outputs, (case.dcontext, case.dweights), strict=True)
        return sum(float((y * dy).sum()) for y, dy in pairs if dy is not None)

    return {name: central_differences(lambda a: loss(), a) for name, a in case.arrays.items()}


@functools.cache
def wanted(seed: int) -> tuple:
    case = random_case(seed)
    return case, by_definition(case), differences(case)


def layer_of(case: Case, device: Any, dtype: Any = np.float64) -> Attention:
    Q, K, p = case.arrays["query"].shape[-1], case.arrays["keys"].shape[-1], case.parameters
    A = p["weight_score"].size if "weight_score" in p else None
    layer = Attention(Q, K, case.kind, A, case.batch_first, device=find_device(device.name), dtype=dtype)
    layer.load_state_dict(p)
    return layer


def check(device: Any, case: Case, outputs: tuple, gradients: dict[str, np.ndarray]) -> None:
    """The layer's outputs and its gradients of everything."""
    layer = layer_of(case, device)

    def turned(a: np.ndarray) -> np.ndarray:  # its own inverse
        return a.swapaxes(0, 1) if case.batch_first and a.ndim == 3 else a

    names = [name for name in ("query", "keys", "values") if name in case.arrays]
    inputs = {name: tensor(device.asarray(turned(case.arrays[name])), requires_grad=True) for name in names}
    mask = case.mask if case.mask is None or not case.batch_first else case.mask.T
    results = layer(**inputs, lengths=case.lengths, mask=mask)
    loss = tensor(np.zeros(()), device=device.name)
    for result, want, dy in zip(results, outputs, (case.dcontext, case.dweights), strict=True):
        assert_close(turned(result.numpy()), want)
        if dy is not None:
            loss = loss + (result * device.asarray(turned(dy))).sum()
    weights = np.atleast_3d(turned(results[1].numpy()).T)  # (T, B, S)
    assert not weights[~case.seen].any(), "weights that are not exactly zero where nothing may be seen"
    np.testing.assert_allclose(weights.sum(axis=0), np.broadcast_to(case.seen.any(axis=0)[:, None], weights.shape[1:]))
    loss.backward()
    for name, tensor_ in {**inputs, **dict(layer.named_parameters())}.items():
        assert_gradient(
            turned(device.to_numpy(tensor_.grad)) if name in inputs else tensor_.grad, gradients[name], name
        )


@pytest.mark.parametrize("seed", range(100))
def test_random_configurations(device, seed):
    check(device, *wanted(seed))


def test_the_random_configurations_are_of_every_sort():
    cases = [random_case(seed) for seed in range(100)]
    for kind in KINDS:
        mine = [case for case in cases if case.kind == kind]
        assert {case.arrays["query"].ndim for case in mine} == {2, 3} == {2 + case.batch_first for case in mine}
        assert {"values" in case.arrays for case in mine} == {True, False}
        assert {(case.lengths is None, case.mask is None) for case in mine} == {(0, 1), (1, 0), (1, 1)}
        assert {(case.dcontext is None, case.dweights is None) for case in mine} == {(0, 1), (1, 0), (0, 0)}
        assert any(case.lengths is not None and 0 in case.lengths for case in mine)


def without(k: int, function: Any) -> Any:
    """``function`` with gradient k of its pullback zero."""

    def sabotaged(*args: Any) -> tuple:
        value, pullback = function(*args)

        def wrong(*d: Any) -> tuple:
            return tuple(g * 0 if n == k else g for n, g in enumerate(pullback(*d)))

        return value, wrong

    return sabotaged


FAULTS = {
    "scale missing": ("scaled_dot", "scaled_dot", dot),
    "q and k swapped in general": ("general", "general", lambda q, k, w: general(q, k, w.T)),
    "q and k swapped in additive": ("additive", "additive", lambda q, k, w, u, v: additive(q, k, u, w, v)),
    "[k; q] in concat": (
        "concat", "concat", lambda q, k, w, v: concat(q, k, np.roll(w, q.shape[2], axis=1), v),
    ),
    "softmax of everything": ("dot", masked_softmax, lambda scores, seen: masked_softmax(scores, None)),
    **{
        f"gradient {k} of {kind} zero": (kind, kind, without(k, SCORES[kind]))
        for kind in KINDS for k in range(2 + len(parameter_shapes(kind, 1, 1, 1)))
    },
    "gradient of values zero": ("dot", weighted_sum, without(1, weighted_sum)),
    "gradient of the softmax zero": ("dot", masked_softmax, without(0, masked_softmax)),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_sabotage_is_seen(monkeypatch, fault):
    kind, target, wrong = FAULTS[fault]
    case = make(kind, np.random.default_rng(1), 2, 4, 3, 3, 3, 3, 2, "mask")
    want = by_definition(case), differences(case)
    check(CPU, case, *want)
    if isinstance(target, str):
        monkeypatch.setitem(SCORES, target, wrong)
    else:
        monkeypatch.setattr(MODULE, target.__name__, wrong)
    with pytest.raises(AssertionError):
        check(CPU, case, *want)


@pytest.mark.oracle
@pytest.mark.parametrize("masked", [False, True])
def test_matches_torchs_scaled_dot_product(device, masked):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    case = make("scaled_dot", rng, 5, 7, 4, 6, 6, 0, 3, cotangents="context")
    if masked:
        lengths = np.array([3, 7, 1, 5])
        case = replace(case, lengths=lengths, seen=np.arange(7)[:, None] < lengths)
    q, k, v = (torch.tensor(case.arrays[name], requires_grad=True) for name in ("query", "keys", "values"))
    seen = torch.tensor(case.seen.T[:, None, :])
    by_sequence = (x.transpose(0, 1) for x in (q, k, v))
    out = torch.nn.functional.scaled_dot_product_attention(*by_sequence, attn_mask=seen).transpose(0, 1)
    out.backward(torch.tensor(case.dcontext))
    (context, _), pullback = called(device, case)
    assert_close(context, out.detach().numpy())
    for got, x in zip(pullback(device.asarray(case.dcontext), None), (q, k, v), strict=True):
        assert_close(got, x.grad.numpy())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_smaller_types(device, kind, dtype):
    case = make(kind, np.random.default_rng(2), 3, 20, 3, 8, 8, 8, 5, "lengths")
    scaled = {name: (a / 2).astype(dtype) for name, a in case.arrays.items()}
    case = replace(case, arrays=scaled, dcontext=case.dcontext.astype(dtype), dweights=case.dweights.astype(dtype))
    wide = {name: a.astype(np.float32) for name, a in scaled.items()}
    plain = replace(
        case, arrays=wide, dcontext=case.dcontext.astype(np.float32), dweights=case.dweights.astype(np.float32)
    )
    exact = replace(case, arrays={name: a.astype(np.float64) for name, a in scaled.items()})
    results = []
    for backend, one in ((device, case), (CPU, plain), (CPU, exact)):
        outputs, pullback = called(backend, one)
        cotangents = (backend.asarray(d.astype(outputs[0].dtype)) for d in (case.dcontext, case.dweights))
        results.append((*outputs, *pullback(*cotangents)))
    names = ("context", "weights", *case.arrays)
    for name, got, other, reference in zip(names, *results, strict=True):
        assert got.dtype == dtype
        assert_ratio(got, other, reference, name)
    for got, want in zip(results[2], by_definition(exact), strict=False):
        assert_close(got, want)


def test_half_types_are_computed_in_float32(device):
    T = 4096
    query, keys = np.full((1, 4), 200, np.float16), np.full((T, 1, 4), 200, np.float16)  # scores of 160,000
    (context, weights), _ = attention(device.asarray(query), device.asarray(keys), kind="dot")
    np.testing.assert_array_equal(device.to_numpy(weights), np.float16(1 / T))
    np.testing.assert_array_equal(device.to_numpy(context), np.float16(200))  # a sum in float16 stops growing


@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_softmax_of_large_scores_and_of_none(device, shift):
    rng = np.random.default_rng(3)
    scores, seen = rng.standard_normal((2, 3, 5)), rng.random((2, 3, 5)) < 0.5
    seen[0, 1], seen[1] = False, [[True] * 5, [False] * 5, [False] * 4 + [True]]  # some queries see nothing
    weights, pullback = masked_softmax(device.asarray(scores + shift), device.asarray(seen))
    e = np.exp(scores) * seen
    want = e / np.maximum(e.sum(axis=-1, keepdims=True), 1e-300)
    assert_close(weights, want)
    # What is zero whatever the scores are has no slope, even where the loss is steep (the logarithm of 0).
    dweights = rng.standard_normal(scores.shape)
    (dscores,) = pullback(device.asarray(np.where(seen, dweights, np.inf)))
    assert_close(dscores, want * (dweights - (want * dweights).sum(axis=-1, keepdims=True)))


@pytest.mark.parametrize("kind", KINDS)
def test_pullback_twice_views_and_arguments_left_alone(device, kind):
    case = make(kind, np.random.default_rng(4), 2, 5, 3, 4, 4, 3, 2, "lengths")
    (context, weights), pullback = called(device, case)
    dcontext, dweights = device.asarray(case.dcontext), device.asarray(case.dweights)
    first = [device.to_numpy(g).copy() for g in pullback(dcontext, dweights)]

    def strided(a: np.ndarray) -> Any:
        """The same numbers with another memory order and gaps."""
        wide = np.zeros((*a.shape[::-1], 2))
        wide[..., 0] = a.T
        return device.asarray(wide)[..., 0].T

    arrays = [strided(a) for a in case.arrays.values()]
    before = [device.to_numpy(a).copy() for a in arrays]
    (context_, weights_), pullback_ = attention(*arrays, kind=kind, lengths=case.lengths)
    assert_close(context_, context)
    assert_close(weights_, weights)
    again = pullback(dcontext, dweights), pullback_(strided(case.dcontext), strided(case.dweights))
    for gradients in again:
        for got, want in zip(gradients, first, strict=True):
            assert_close(got, want)
    for a, want in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(device.to_numpy(a), want)


def test_values_that_are_the_keys_add_their_gradients(device):
    case = make("general", np.random.default_rng(5), 2, 4, 3, 2, 3, 0, None)
    given = replace(case, arrays={**case.arrays, "values": case.arrays["keys"]})
    (context, _), pullback = called(device, case)
    (context_, _), pullback_ = called(device, given)
    assert_close(context, context_)
    dquery, dkeys, none, _ = pullback(device.asarray(case.dcontext), None)
    dquery_, dkeys_, dvalues, _ = pullback_(device.asarray(case.dcontext), None)
    assert none is None
    assert_close(dquery, dquery_)
    assert_close(dkeys, dkeys_ + dvalues)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("S", "B"), [(0, 2), (2, 0)])
def test_nothing_to_do(device, kind, S, B):
    case = make(kind, np.random.default_rng(0), S, 3, B, 2, 2, 2, 4, "lengths")
    (context, weights), pullback = called(device, case)
    assert context.shape == (S, B, 4) and weights.shape == (S, B, 3)
    for got, a in zip(pullback(context, weights), case.arrays.values(), strict=True):
        assert got.shape == a.shape and not device.to_numpy(got).any()


def test_lengths_and_masks_may_lie_anywhere(device):
    case = make("dot", np.random.default_rng(6), None, 4, 3, 2, 2, 0, None, "lengths")
    query, keys = device.asarray(case.arrays["query"]), device.asarray(case.arrays["keys"])
    want = by_definition(case)
    layer = layer_of(case, device)
    for lengths in (case.lengths.tolist(), device.asarray(case.lengths), tensor(device.asarray(case.lengths))):
        assert_close(layer(query, keys, lengths=lengths)[0], want[0])
    for mask in (case.seen, device.asarray(case.seen)):
        assert_close(layer(query, keys, mask=mask)[1], want[1])


@pytest.mark.parametrize("kind", KINDS)
def test_state_dict_round_trip(device, kind):
    Q, K = (5, 5) if kind in SQUARE else (5, 4)
    A = 6 if kind in ("additive", "concat") else None
    build = functools.partial(Attention, Q, K, kind, A, device=find_device(device.name))
    one, other = (build(generator=np.random.default_rng(seed)) for seed in (0, 1))
    state = {name: device.to_numpy(a).copy() for name, a in one.state_dict().items()}
    assert {name: a.shape for name, a in state.items()} == parameter_shapes(kind, Q, K, A or 0)
    rng = np.random.default_rng(7)
    query, keys = (device.asarray(rng.standard_normal(n).astype(np.float32)) for n in ((2, Q), (3, 2, K)))
    assert not state or (one(query, keys)[1].numpy() != other(query, keys)[1].numpy()).any()
    other.load_state_dict(state)
    np.testing.assert_array_equal(one(query, keys)[1].numpy(), other(query, keys)[1].numpy())


@pytest.mark.parametrize("kind", ["additive", "general", "concat"])
def test_first_values_are_uniform_by_fan_in(kind):
    fan_in = {
        "additive": {"weight_query": 40, "weight_key": 90, "weight_score": 300},
        "general": {"weight": 90},
        "concat": {"weight": 130, "weight_score": 300},
    }[kind]
    layer = Attention(40, 90, kind, 300 if "weight_score" in fan_in else None, generator=np.random.default_rng(0))
    assert {name: p.shape[-1] for name, p in layer.named_parameters()} == fan_in
    for name, p in layer.named_parameters():
        largest = np.abs(p.numpy()).max() * math.sqrt(fan_in[name])
        assert 0.97 < largest <= 1.000001, name
        assert abs(p.numpy().std() * math.sqrt(3 * fan_in[name]) - 1) < 0.1, name


def test_attention_size_is_the_querys_unless_given():
    assert Attention(3, 4).weight_score.shape == (3,)
    assert Attention(3, 4, attention_size=5).weight_key.shape == (5, 4)
    assert repr(Attention(3, 4)) == "Attention(3, 4, kind='additive', attention_size=3)"
    assert repr(Attention(3, 3, "dot", batch_first=True)) == "Attention(3, 3, kind='dot', batch_first=True)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 3), "query_size: expected an integer above 0, got 0"),
        ((3, 3, "mean"), "kind: expected additive, dot, general, concat, scaled_dot, got 'mean'"),
        ((3, 4, "dot"), "key_size: expected query_size = 3 for kind 'dot', got 4"),
        ((3, 4, "scaled_dot"), "key_size: expected query_size = 3 for kind 'scaled_dot', got 4"),
        ((3, 3, "dot", 3), "attention_size: expected None, because kind 'dot' has none, got 3"),
        ((3, 4, "general", 3), "attention_size: expected None, because kind 'general' has none, got 3"),
        ((3, 4, "additive", 0), "attention_size: expected an integer above 0, got 0"),
    ],
)
def test_layers_that_there_are_not(arguments, message):
    with pytest.raises(ShapeError, match=message):
        Attention(*arguments)


LAYER_ERRORS = [
    (False, {"query": (2, 5)}, r"query: expected \(B, 3\) or \(S, B, 3\) with 3 = query_size, got \(2, 5\)"),
    (True, {"query": (2, 1, 1, 3)}, r"query: expected \(B, 3\) or \(B, S, 3\) with 3 = query_size, got \(2, 1, 1, 3\)"),
    (False, {"keys": (5, 2, 3)}, r"keys: expected \(T, B, 4\) with 4 = key_size, got \(5, 2, 3\)"),
    (True, {"keys": (5, 4)}, r"keys: expected \(B, T, 4\) with 4 = key_size, got \(5, 4\)"),
    (False, {"keys": (5, 3, 4)}, r"keys: expected 2 sequences, as query has, got 3 in \(5, 3, 4\)"),
    (False, {"keys": (0, 2, 4), "values": None}, r"keys: expected \(T, B, K\) with T > 0 and K > 0, got \(0, 2, 4\)"),
    (False, {"values": (4, 2, 6)}, r"values: expected \(T, B, V\), as many as the keys \(5, 2, 4\), got \(4, 2, 6\)"),
    (True, {"mask": (5, 2)}, r"mask: expected \(2, 5\), the leading axes of keys, got \(5, 2\)"),
]


@pytest.mark.parametrize(("batch_first", "wrong", "message"), LAYER_ERRORS)
def test_arguments_that_do_not_fit_the_layer(device, batch_first, wrong, message):
    shapes: dict[str, Any] = {"query": (2, 3), "keys": (2, 5, 4) if batch_first else (5, 2, 4), "values": None} | wrong
    layer = Attention(3, 4, batch_first=batch_first, device=find_device(device.name))
    arrays = {name: device.xp.ones(shape, np.float32) for name, shape in shapes.items() if shape is not None}
    if "mask" in arrays:
        arrays["mask"] = arrays["mask"] > 0
    with pytest.raises(ShapeError, match=message):
        layer(**arrays)


FUNCTION_ERRORS = [
    ({"query": (3,)}, {}, r"query: expected \(B, Q\) or \(S, B, Q\), got \(3,\)"),
    ({"keys": (5, 3)}, {}, r"keys: expected \(T, B, K\) with T > 0 and K > 0, got \(5, 3\)"),
    ({"keys": (5, 2, 0)}, {}, r"keys: expected \(T, B, K\) with T > 0 and K > 0, got \(5, 2, 0\)"),
    ({"query": (4, 3)}, {}, r"keys: expected 4 sequences, as query has, got 2 in \(5, 2, 3\)"),
    ({"values": (5, 3, 3)}, {}, r"values: expected \(5, 2, V\), one for each key, got \(5, 3, 3\)"),
    ({"keys": (5, 2, 4)}, {}, "keys: expected 3 features, as query has, for kind 'dot', got 4"),
    ({}, {"kind": "sum"}, "kind: expected additive, dot, general, concat, scaled_dot, got 'sum'"),
    ({}, {"kind": "general"}, "parameters of kind 'general': expected weight, got 0 arrays"),
    ({"p": (3, 3)}, {}, "parameters of kind 'dot': expected none, got 1 arrays"),
    ({"p": (4, 3)}, {"kind": "general"}, r"weight: expected \(3, 3\) = its shape for kind 'general', got \(4, 3\)"),
    ({"p": (4, 5), "v": (4,)}, {"kind": "concat"}, r"weight: expected \(4, 6\) = its shape for kind 'concat'"),
    ({"p": (4, 6), "v": (4, 1)}, {"kind": "concat"}, r"weight_score: expected \(4,\) = its shape for kind 'concat'"),
    ({}, {"lengths": [1, 6]}, r"lengths: expected 0 <= length <= 5, the steps of keys, got 1..6"),
    ({}, {"lengths": [1]}, r"lengths: expected \(2,\)"),
    ({}, {"mask": np.ones((2, 5), bool)}, r"mask: expected \(5, 2\)"),
    ({}, {"lengths": [1, 2], "mask": np.ones((5, 2), bool)}, "mask: expected lengths or mask, got both"),
]


@pytest.mark.parametrize(("shapes", "options", "message"), FUNCTION_ERRORS)
def test_arguments_that_do_not_fit_the_function(device, shapes, options, message):
    shapes = {"query": (2, 3), "keys": (5, 2, 3), "values": (5, 2, 3)} | shapes
    arrays = [device.xp.ones(shape, np.float32) for shape in shapes.values()]
    with pytest.raises(ShapeError, match=message):
        attention(*arrays, **{"kind": "dot", **options})


def test_types_that_do_not_fit(device):
    query, keys = device.xp.ones((2, 3), np.float32), device.xp.ones((5, 2, 3), np.float64)
    with pytest.raises(DTypeError, match="keys: expected float32 as query has, got float64"):
        attention(query, keys, kind="dot")
    with pytest.raises(DTypeError, match="query: expected float32, float64, float16, bfloat16, got int64"):
        attention(query.astype(np.int64), keys, kind="dot")
    with pytest.raises(DTypeError, match="weight: expected float64 as query has, got float32"):
        attention(query.astype(np.float64), keys, None, device.xp.ones((3, 3), np.float32), kind="general")
    with pytest.raises(DTypeError, match="keys: expected an array or a Tensor, got list"):
        Attention(3, 3, device=find_device(device.name))(query, [[[1.0]]])


def test_arrays_on_two_devices(emulated):
    query, keys = np.ones((2, 3)), find_device("cuda").backend.asarray(np.ones((5, 2, 3)))
    with pytest.raises(DeviceError, match="keys: expected cpu, the device of query, got cuda:0"):
        attention(query, keys, kind="dot")

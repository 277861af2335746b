"""What kernels/host computes besides sequences, for every instruction set this machine runs, against NumPy: Adam, the
gradient norm, dropout, cross-entropy, CTC, the embedding's gradient, the products of linear layers."""

import ctypes
import functools
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpulstm as gl
from gpulstm import building, engine
from gpulstm import functional as F
from gpulstm.functional.dropout import mask
from gpulstm.functional.linear import multiplied
from gpulstm.shares import plain_draws
from tests.conftest import ROOT, skip
from tests.tolerances import assert_close, assert_ratio

pytestmark = pytest.mark.slow  # compiled functions, which no version of Python changes
FILES = ("adam", "norm", "dropout", "embedding", "cross_entropy", "ctc", "matmul")
HOST = ROOT / "kernels" / "host"
CPUINFO = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
NEEDS = {"baseline": "", "avx2": "avx2", "avx512": "avx512vl"}
ISAS = [isa for isa in building.instruction_sets() if not NEEDS[isa] or NEEDS[isa] in CPUINFO]
THREADS = (1, 2, 3)
TYPES = (np.float32, np.float64)


def compile_for(isa: str, path: Path) -> Path:
    kinds = [building._specific(isa, real) for real in building.TYPES]
    objects = [building.Object(HOST / f"{name}.cpp", flags) for name in FILES for flags in kinds]
    building.build(path, [*objects, building.Object(HOST / "pool.cpp")], [], "")
    return path


@functools.cache
def library(isa: str) -> ctypes.CDLL:
    if watched := os.environ.get("GPULSTM_TEST_WATCHED"):
        return ctypes.CDLL(watched)
    if not shutil.which("g++"):
        skip("there is no g++")
    with tempfile.TemporaryDirectory() as folder:
        return ctypes.CDLL(str(compile_for(isa, Path(folder) / "host.so")))


def by(isa: str, compute: Callable[[], Any], threads: int = 2) -> Any:
    """What ``compute`` returns with the code for ``isa``, or with NumPy's."""
    with pytest.MonkeyPatch.context() as patch:
        found = library(isa) if isa != "numpy" else None
        if found:
            found.gpulstm_set_num_threads(threads)
        patch.setattr(engine, "_engine", lambda: engine._Engine(found, isa, "", ""))
        engine._function.cache_clear()
        try:
            return compute()
        finally:
            engine._function.cache_clear()


@pytest.fixture(params=ISAS)
def isa(request) -> str:
    return request.param


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def check(isa: str, compute: Callable[[type], list[np.ndarray]]) -> None:
    """``compute(dtype)`` by the compiled code is as near to float64 as NumPy's, the same for any number of threads."""
    reference, plain = (by("numpy", functools.partial(compute, dtype)) for dtype in (np.float64, np.float32))
    for dtype in TYPES:
        runs = [by(isa, functools.partial(compute, dtype), threads) for threads in THREADS]
        for k, (got, near, exact) in enumerate(zip(runs[0], plain, reference, strict=True)):
            if dtype is np.float32:
                assert_ratio(got, near, exact, f"array {k}")
            else:
                assert_close(got, exact, f"array {k}", rtol=1e-12)
            assert all(same_bits(got, run[k]) for run in runs), f"array {k}: other bits with other numbers of threads"


# -- dropout ----------------------------------------
@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 1023, 1024, 1025, 4100, 200_003])
@pytest.mark.parametrize("dtype", TYPES)
def test_dropout_has_numpys_bits(isa, n, dtype, rng):
    x = rng.standard_normal(n).astype(dtype)
    x[::7] = (np.inf, np.nan, -0.0)[n % 3]
    for rate, seed in itertools.product((0.1, 0.5, 1 - 2**-16, 1), (0, 2**63 + 12345)):
        with np.errstate(invalid="ignore"):
            want = by("numpy", lambda r=rate, s=seed: F.dropout(x, r, s)[0])
        assert all(same_bits(by(isa, lambda r=rate, s=seed: F.dropout(x, r, s)[0], t), want) for t in THREADS)


@pytest.mark.parametrize("first", [0, 1, 6, 4099])
def test_masks_have_numpys_bits(isa, first):
    def draw():
        return mask(gl.backend.CPU, (7, 9), 0.3, 2**64 - 5, np.float32, plain_draws(63, first))

    assert same_bits(by(isa, draw), by("numpy", draw))


def test_dropout_of_a_view(isa, rng):
    x = rng.standard_normal((30, 40)).astype(np.float32).T
    assert same_bits(by(isa, lambda: F.dropout(x, 0.5, 3)[0]), by("numpy", lambda: F.dropout(x, 0.5, 3)[0]))


# -- cross-entropy ----------------------------------------
# One class, smoothed, has no gradient but what rounding leaves.
@pytest.mark.parametrize(
    ("C", "smoothing"), [(1, 0.0), *itertools.product([2, 3, 7, 8, 15, 16, 17, 33, 1000], [0.0, 0.3])]
)
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy(isa, C, smoothing, weighted):
    def compute(dtype):
        rng = np.random.default_rng(C)
        x, target = 5 * rng.standard_normal((101, C)), rng.integers(0, C, 101)
        target[::9] = -100
        weight, dloss = rng.random(C) if weighted else None, rng.standard_normal(101).astype(dtype)
        loss, pullback = F.cross_entropy(
            x.astype(np.float32).astype(dtype), target, None if weight is None else weight.astype(dtype),
            label_smoothing=smoothing, reduction="none",
        )  # fmt: skip
        return [loss, pullback(dloss)[0]]

    check(isa, compute)


@pytest.mark.parametrize("C", [3, 16, 37])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite(isa, C, value):
    def compute(place, smoothing):
        x = np.linspace(-3, 3, 4 * C, dtype=np.float32).reshape(4, C)
        x[0, place], x[2], x[3] = value, value, value  # the last row is ignored
        loss, pullback = F.cross_entropy(x, np.array([0, 1, 0, -100]), reduction="none", label_smoothing=smoothing)
        with np.errstate(invalid="ignore"):
            dx = pullback(np.array([1, 1, 1, np.inf], np.float32))[0]
        assert not dx[3].any()
        return loss, dx

    for at in itertools.product((0, 1, C - 1), (0.0, 0.1)):
        results = (by(way, functools.partial(compute, *at)) for way in (isa, "numpy"))
        for got, want in zip(*results, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("magnitude", [1e4, 1e30])
def test_large_logits(isa, magnitude):
    x = np.array([[magnitude, 0, -magnitude] * 6, [-magnitude] * 18], np.float32)
    got, want = (by(way, lambda: F.cross_entropy(x, np.array([1, 5]), reduction="none")[0]) for way in (isa, "numpy"))
    np.testing.assert_allclose(got, want, rtol=1e-6)


# -- embedding ----------------------------------------
@pytest.mark.parametrize("padding", [None, 2])
@pytest.mark.parametrize(("V", "D", "N"), [(5, 3, 40), (1, 1, 9), (4000, 17, 500), (30, 64, 2000), (3, 4, 0)])
def test_embedding(isa, V, D, N, padding):
    def compute(dtype):
        rng = np.random.default_rng(V)
        ids, dy = rng.integers(0, V, N), rng.standard_normal((N, D)).astype(np.float32).astype(dtype)
        table = np.zeros((V, D), dtype)
        return [F.embedding(ids, table, padding_idx=padding if V > 2 else None)[1](dy)[1]]

    check(isa, compute)


@pytest.mark.parametrize("kind", [np.int16, np.uint8, np.int64])
def test_ids_of_other_types(isa, kind, rng):
    ids, dy = rng.integers(0, 9, (2, 21)).astype(kind)[:, ::-1], rng.standard_normal((2, 21, 3)).astype(np.float32)
    compute = F.embedding(ids, np.zeros((9, 3), np.float32))[1]
    np.testing.assert_allclose(by(isa, lambda: compute(dy)[1]), by("numpy", lambda: compute(dy)[1]), rtol=1e-5)


# -- CTC ----------------------------------------
@pytest.mark.parametrize(
    ("T", "B", "C", "S"), [(1, 1, 2, 0), (5, 3, 2, 2), (30, 4, 5, 7), (40, 2, 9, 17), (200, 9, 40, 30), (3, 2, 4, 3)]
)
def test_ctc(isa, T, B, C, S):
    def compute(dtype):
        rng = np.random.default_rng(T)
        z = rng.standard_normal((T, B, C)).astype(np.float32)
        log_probs = F.log_softmax(z.astype(dtype), axis=2)[0]
        lengths = {"input_lengths": rng.integers(0, T + 1, B), "target_lengths": rng.integers(0, S + 1, B)}
        lengths["input_lengths"][0] = T
        targets = rng.integers(1, C, (B, S))
        loss, pullback = F.ctc_loss(log_probs, targets=targets, **lengths, reduction="none", zero_infinity=True)
        return [loss, *pullback(np.arange(1.0, B + 1).astype(dtype))]

    check(isa, compute)


# -- Adam and the gradient norm ----------------------------------------
SIZES = ((3,), (0,), (1,), (17, 5), (2048,), (2049,), (300, 301), (7, 1, 2))


def parameters(dtype: type, scale: float = 1.0) -> list[gl.Parameter]:
    rng, made = np.random.default_rng(0), []
    for k, shape in enumerate(SIZES):
        data, grad = (rng.standard_normal(shape).astype(np.float32).astype(dtype) for _ in range(2))
        if k == 3:  # in another order in memory
            data, grad = np.asfortranarray(data), np.asfortranarray(grad)
        made.append(gl.Parameter(data))
        made[-1].grad = grad * dtype(scale)
    return made


@pytest.mark.parametrize("kind", [gl.Adam, gl.AdamW])
@pytest.mark.parametrize(
    "options",
    [{}, {"amsgrad": True, "betas": (0.9, 0.5)}, {"weight_decay": 0.1, "betas": (0.5, 0.8), "eps": 1e-3}],  # v falls
)
def test_adam(isa, kind, options):
    def compute(dtype):
        params = parameters(dtype)
        optimizer = kind([{"params": params[:4]}, {"params": params[4:], "lr": 0.1}], lr=0.01, **options)
        for step in range(3):
            optimizer.step()
            for p in params:
                p.grad *= dtype(-0.5 if step else 0.125)
        states = [slot[name] for slot in optimizer.state for name in sorted(slot) if name != "step"]
        return [*(p.data for p in params), *states]

    check(isa, compute)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_gradient_norm(isa, scale):
    def compute(dtype):
        params = parameters(dtype, scale)
        norm = gl.clip_grad_norm(params, 2.5)
        return [norm.astype(dtype), *(p.grad for p in params)]

    check(isa, compute)


def test_a_norm_of_both_types(isa):
    def compute():
        params = [*parameters(np.float32), *parameters(np.float64)]
        return gl.clip_grad_norm(params, 1.0), [p.grad for p in params]

    (norm, grads), (want_norm, want) = by(isa, compute), by("numpy", compute)
    np.testing.assert_allclose(norm, want_norm, rtol=1e-6)
    for got, wanted in zip(grads, want, strict=True):
        assert got.dtype == wanted.dtype
        np.testing.assert_allclose(got, wanted, rtol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_norm_that_is_not_finite(isa, value):
    def compute():
        params = parameters(np.float32)
        params[-1].grad[3, 0, 1] = value
        return [gl.clip_grad_norm(params, 1.0), *(p.grad for p in params)]

    for got, want in zip(by(isa, compute), by("numpy", compute), strict=True):
        np.testing.assert_array_equal(got, want)


def test_half_types_and_no_engine_take_numpy():
    assert by(ISAS[0], lambda: engine.function("adam", np.float16)) is None
    assert by("numpy", lambda: engine.function("adam", np.float32)) is None
    assert by(ISAS[0], lambda: engine.function("adam", np.float32)) is not None


# -- products of linear layers ----------------------------------------
SIDES = [1, 2, 3, 7, 8, 15, 16, 17, 33, 63, 64, 65, 130]


@pytest.mark.parametrize("N", SIDES)
@pytest.mark.parametrize("M", [1, 2, 5, 16, 17, 65, 1100])
def test_products(isa, M, N):
    """With sides as long as the vectors, the panels, the tiles and the blocks are, a little less and more.

    Products of few numbers are drawn several times: the errors of two or three are a matter of luck, NumPy's too.
    """

    def one(dtype, seed):
        results = []
        for K in (1, 6, 511, 513) if M < 100 else (3, 40):
            rng = np.random.default_rng((M, N, K, seed))
            a, b, bias = (rng.standard_normal(s).astype(np.float32).astype(dtype) for s in ((M, K), (K, N), N))
            for left, right in itertools.product((a, np.asfortranarray(a)), (b, np.asfortranarray(b))):
                results.append(multiplied(gl.backend.CPU, left, right, bias)[0])
                results.append(multiplied(gl.backend.CPU, left, right)[0])
            results += multiplied(gl.backend.CPU, np.asfortranarray(a), b, sums=True)
        return results

    def compute(dtype):
        return [np.stack(of) for of in zip(*(one(dtype, seed) for seed in range(-(-64 // (M * N)))), strict=True)]

    check(isa, compute)


def test_a_product_is_compiled_where_it_can_be(isa, monkeypatch):
    found, function = [], engine.function
    monkeypatch.setattr(engine, "function", lambda name, dtype: found.append(name) or function(name, dtype))
    a = np.ones((6, 8), np.float32)
    for left, right, compiled in (
        (a, a.T, True), (a[:, :4], a.T[:4], True), (a[::2], a.T, True), (a[:, ::2], a.T[::2], False),
        (a[::-1], a.T, False), (a.astype(np.float16), a.T.astype(np.float16), True), (a[:, :0], a.T[:0], False),
    ):  # fmt: skip
        found.clear()
        want = left.astype(np.float64) @ right.astype(np.float64)
        got = by(isa, lambda left=left, right=right: multiplied(gl.backend.CPU, left, right)[0])
        assert (got == want).all() and got.dtype == left.dtype and bool(found) == compiled


def test_a_linear_layer(isa):
    def compute(dtype):
        rng = np.random.default_rng(3)
        shapes = ((40, 6, 33), (130, 33), 130, (40, 6, 130))
        x, weight, bias, dy = (rng.standard_normal(s).astype(np.float32).astype(dtype) for s in shapes)
        y, pullback = F.linear(x, weight, bias)
        return [y, *pullback(dy)]

    check(isa, compute)


# -- beyond the arrays ----------------------------------------
def test_nothing_is_read_or_written_beyond_the_arrays(isa, tmp_path):
    """All of this again by a library that AddressSanitizer and UndefinedBehaviorSanitizer watch."""
    if "GPULSTM_TEST_WATCHED" in os.environ:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPULSTM_CXX", "g++ -O1 -fsanitize=address,undefined -fno-sanitize-recover=all")
        path = compile_for(isa, tmp_path / "host.so")
    files = [["g++", f"-print-file-name=lib{name}.so"] for name in ("asan", "ubsan")]
    preload = [subprocess.run(file, capture_output=True, text=True).stdout.strip() for file in files]
    environment = {"LD_PRELOAD": " ".join(preload), "ASAN_OPTIONS": "detect_leaks=0", "GPULSTM_TEST_WATCHED": str(path)}
    environment["GPULSTM_ISA"] = "none"  # the whole engine is not needed
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__, "-k", isa]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

"""ctc_loss: every path counted, differences, torch, the compiled code against NumPy's, and what is refused."""

import itertools
import math

import ml_dtypes
import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import DTypeError, GpulstmError, ShapeError
from gpulstm.functional import ctc_loss
from gpulstm.functional.ctc import _paths, _paths_numpy
from tests.conftest import require
from tests.tolerances import assert_close, assert_gradient, assert_ratio, central_differences


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def stands_for(path, blank):
    """The targets of a path: repeated classes taken out, then blanks."""
    return [c for k, c in enumerate(path) if c != blank and (k == 0 or c != path[k - 1])]


def by_definition(log_probs, targets, blank):
    """The loss of one sequence (T, C): the sum over all C**T paths."""
    T, C = log_probs.shape
    paths = (path for path in itertools.product(range(C), repeat=T) if stands_for(path, blank) == list(targets))
    total = math.fsum(math.exp(sum(log_probs[t, c] for t, c in enumerate(path))) for path in paths)
    return -math.log(total) if total else math.inf


def case(seed, T=None, B=None, C=None, S=None, dtype=np.float64):
    """(log_probs, the further arguments) drawn at random."""
    rng = np.random.default_rng(seed)
    T, B, C, S = (
        int(rng.integers(low, high)) if given is None else given
        for given, low, high in ((T, 0, 12), (B, 1, 5), (C, 2, 6), (S, 0, 7))
    )
    blank = int(rng.integers(C))
    counts = rng.integers(0, S + 1, B)
    targets = rng.choice([c for c in range(C) if c != blank], (B, S))
    if rng.random() < 0.3:
        targets = np.concatenate([row[:count] for row, count in zip(targets, counts, strict=True)])
    options = {
        "targets": targets, "input_lengths": rng.integers(0, T + 1, B), "target_lengths": counts, "blank": blank,
        "reduction": ("mean", "sum", "none")[seed % 3], "zero_infinity": bool(rng.random() < 0.5),
    }  # fmt: skip
    return log_softmax(3 * rng.standard_normal((T, B, C))).astype(dtype), options


def run(device, log_probs, options, dloss=None):
    """[loss, gradient] on the host."""
    loss, pullback = ctc_loss(device.asarray(log_probs), **options)
    dloss = np.ones(loss.shape, log_probs.dtype) if dloss is None else dloss
    (gradient,) = pullback(device.asarray(dloss))
    return [np.asarray(device.to_numpy(x)) for x in (loss, gradient)]


@pytest.mark.parametrize("seed", range(40))
def test_the_loss_is_that_of_all_paths(device, seed):
    log_probs, options = case(seed, T=int(seed % 6), C=2 + seed % 2)
    counts, steps, blank = options["target_lengths"], options["input_lengths"], options["blank"]
    targets = options["targets"]
    rows = np.split(targets, counts.cumsum()[:-1]) if targets.ndim == 1 else targets
    want = np.array([
        by_definition(log_probs[:T, b], rows[b][: counts[b]], blank) for b, T in enumerate(steps)
    ])  # fmt: skip
    want[np.isinf(want) & options["zero_infinity"]] = 0
    reduced = {"none": want, "sum": want.sum(), "mean": (want / np.maximum(counts, 1)).mean()}[options["reduction"]]
    loss, gradient = run(device, log_probs, options)
    assert_close(loss, reduced, "loss", rtol=1e-12) if np.isfinite(reduced).all() else np.testing.assert_allclose(
        loss, reduced, rtol=1e-12
    )
    assert np.isfinite(gradient).all()
    for b, T in enumerate(steps):
        assert (gradient[T:, b] == 0).all()


@pytest.mark.parametrize("seed", range(12))
def test_gradients_are_differences_through_the_softmax(device, seed):
    log_probs, options = case(seed, T=6 + seed % 3, S=3)
    options["zero_infinity"] = True  # a difference of infinities is none

    def loss(z):
        return float(np.sum(ctc_loss(log_softmax(z), **options)[0]))

    z = gl.Tensor(device.asarray(log_probs), requires_grad=True)
    gl.ctc_loss(gl.log_softmax(z), **options).sum().backward()
    assert_gradient(z.grad, central_differences(loss, log_probs), "logits")


@pytest.mark.parametrize(("T", "S", "C"), [(9, 3, 5), (130, 40, 7), (300, 150, 3), (40, 1, 600), (50, 33, 2)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_every_device_and_type(device, T, S, C, dtype):
    """Also more positions than a block has threads, two classes, and targets that repeat all the time."""
    log_probs, options = case(3, T=T, B=3, C=C, S=S)
    options |= {"input_lengths": [T, T - 3, T], "target_lengths": [S, S // 2, 0], "reduction": "mean"}
    options["targets"] = np.random.default_rng(4).choice([c for c in range(C) if c != options["blank"]], (3, S))
    rounded = log_probs.astype(dtype)
    exact, plain = (run(gl.device("cpu").backend, rounded.astype(t), options) for t in (np.float64, np.float32))
    for name, got, near, want in zip(("loss", "gradient"), run(device, rounded, options), plain, exact, strict=True):
        if dtype == np.float64:
            assert_close(got, want, name, rtol=1e-12)
        else:
            assert got.dtype == dtype
            assert_ratio(got, near.astype(dtype), want, name)


def test_a_single_sequence_and_lengths_of_any_kind(device):
    log_probs = device.asarray(log_softmax(np.random.default_rng(0).standard_normal((7, 1, 4))))
    want = device.to_numpy(ctc_loss(log_probs, targets=[[1, 2]], input_lengths=[7], target_lengths=[2])[0])
    for lengths in ((7, 2), (np.array(7), np.array([2])), (np.int32(7), [2]), (gl.tensor([7]), gl.tensor([2]))):
        loss = gl.ctc_loss(log_probs[:, 0], gl.tensor([1, 2]), *lengths)
        assert loss.shape == () and loss.item() == pytest.approx(float(want), rel=1e-14)
    targets = gl.tensor(device.asarray(np.array([[1, 2, 0]])))
    assert gl.ctc_loss(log_probs, targets, [7], [2], reduction="none").shape == (1,)
    assert gl.ctc_loss(log_probs[:, :0], np.zeros((0, 3), int), [], [], reduction="sum").item() == 0


def test_probabilities_of_zero_and_long_sequences(device):
    log_probs = np.full((50, 2, 3), -np.inf, np.float32)
    log_probs[:, :, 1] = 0  # class 1 at every step, and nothing else
    options = {"targets": [[1], [2]], "input_lengths": [50, 50], "target_lengths": [1, 1], "reduction": "none"}
    loss, gradient = run(device, log_probs, options)
    assert loss.tolist() == [0, np.inf] and np.allclose(gradient[:, 0], 0) and (gradient[:, 1] == 0).all()
    log_probs, options = case(5, T=3000, B=2, C=30, S=100, dtype=np.float32)
    options |= {"input_lengths": [3000, 2999], "target_lengths": [100, 50], "reduction": "sum"}
    options["targets"] = np.random.default_rng(1).choice([c for c in range(30) if c != options["blank"]], (2, 100))
    (loss, gradient), (want, exact) = run(device, log_probs, options), run(device, log_probs.astype("d"), options)
    assert abs(loss / want - 1) < 1e-5 and abs(gradient - exact).max() < 3e-4


def test_the_compiled_code_is_numpys(rng):
    for seed in range(60):
        log_probs, options = case(seed, S=int(rng.integers(0, 20)), T=int(rng.integers(1, 60)))
        B, S = log_probs.shape[1], int(rng.integers(0, 20))
        targets = rng.choice([c for c in range(log_probs.shape[2]) if c != options["blank"]], (B, S))
        lengths = np.stack([options["input_lengths"], rng.integers(0, S + 1, B)])
        arguments = np.ascontiguousarray(log_probs), targets, lengths, options["blank"]
        (loss, gradient), (want, wanted) = _paths(gl.device("cpu").backend, *arguments), _paths_numpy(*arguments)
        np.testing.assert_allclose(loss, want, rtol=1e-12)
        scale = np.where(np.isinf(want), 0, rng.standard_normal(B))
        np.testing.assert_allclose(gradient(scale), wanted(scale), rtol=1e-9, atol=1e-12)


def test_a_pullback_runs_again(device):
    log_probs, options = case(7, T=8, B=2, C=4, S=3)
    loss, pullback = ctc_loss(device.asarray(log_probs), **options)
    once, twice = (device.to_numpy(pullback(device.asarray(np.ones(loss.shape)))[0]) for _ in range(2))
    assert (once == twice).all()


@pytest.mark.oracle
def test_five_hundred_cases_are_torchs():
    torch = require("torch")
    for seed in range(500):
        log_probs, options = case(seed)
        if log_probs.shape[0] == 0:
            continue  # torch takes no sequence without a step
        dloss = np.random.default_rng(seed).standard_normal(log_probs.shape[1:2] if seed % 3 == 2 else ())
        z = torch.tensor(log_probs, requires_grad=True)
        theirs = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
        want = torch.nn.functional.ctc_loss(z, **theirs)
        want.backward(torch.tensor(dloss))
        loss, gradient = run(gl.device("cpu").backend, log_probs, options, np.asarray(dloss))
        np.testing.assert_allclose(loss, want.detach().numpy(), rtol=1e-9, err_msg=f"{seed}")
        known = z.grad.numpy()
        impossible = np.isnan(known)  # torch has NaN where a loss is infinite
        assert not impossible.any() or (np.isinf(loss).any() and (gradient[impossible] == 0).all()), seed
        np.testing.assert_allclose(gradient[~impossible], known[~impossible], atol=1e-9, err_msg=f"{seed}")


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"log_probs": np.zeros(3)}, ShapeError, r"log_probs: expected \(T, B, C\) or \(T, C\), got \(3,\)"),
        ({"log_probs": np.zeros((4, 2, 3), int)}, DTypeError, "log_probs: expected float32"),
        ({"targets": [[1.5, 2], [1, 2]]}, DTypeError, "targets: expected integers, got float64"),
        ({"targets": [[1, 3], [1, 2]]}, ShapeError, "targets: expected classes 0 <= target < 3 other than .* got 3"),
        ({"targets": [[1, 0], [1, 2]]}, ShapeError, "other than the blank, 0, got 0"),
        ({"targets": [[1, -1], [1, 2]]}, ShapeError, "got -1"),
        ({"targets": [[1, 2]]}, ShapeError, r"targets: expected \(2, 2\) = \(sequences, longest\), got \(1, 2\)"),
        ({"targets": [1, 2, 1]}, ShapeError, "targets: expected 4 = the sum of target_lengths, got 3"),
        ({"targets": np.zeros((2, 2, 1), int)}, ShapeError, r"targets: expected \(B, S\) or"),
        ({"input_lengths": [4, 5]}, ShapeError, "input_lengths: expected 0 <= length <= 4 = T, got 5 at 1"),
        ({"input_lengths": [4, -1]}, ShapeError, "input_lengths: .* got -1 at 1"),
        ({"input_lengths": [4]}, ShapeError, r"input_lengths: expected \(2,\) = \(sequences,\), got \(1,\)"),
        ({"input_lengths": [4.0, 3.0]}, DTypeError, "input_lengths: expected integers, got float64"),
        ({"target_lengths": [2, 3]}, ShapeError, "target_lengths: expected 0 <= length <= 2 = .*, got 3 at 1"),
        ({"blank": 3}, ShapeError, "blank: expected a class, 0 <= blank < 3, got 3"),
        ({"reduction": "max"}, ShapeError, "reduction: expected mean, sum, none, got 'max'"),
        ({"zero_infinity": "no"}, GpulstmError, "zero_infinity: expected True or False, got 'no'"),
    ],
)
def test_what_does_not_fit_is_named(changed, error, words):
    given = {
        "log_probs": np.zeros((4, 2, 3)), "targets": [[1, 2], [1, 2]], "input_lengths": [4, 4],
        "target_lengths": [2, 2], **changed,
    }  # fmt: skip
    with pytest.raises(error, match=words):
        gl.ctc_loss(**given)

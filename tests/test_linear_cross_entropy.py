"""linear_cross_entropy: cross_entropy of a linear layer's outputs, in chunks of rows, with a tenth of their memory.

Below, ``chunk(rows)`` makes the chunks that small. Each comparison is with the two functions one after the other, or
with central differences; the last tests show that a fault is seen.
"""

import importlib
import itertools
import tracemalloc

import ml_dtypes
import numpy as np
import pytest

import gpulstm as gl
from gpulstm import engine, pool
from gpulstm.errors import DeviceError, DTypeError, ShapeError
from gpulstm.functional import cross_entropy, linear, linear_cross_entropy
from tests import emulated_cuda
from tests.conftest import GPUS
from tests.tolerances import assert_close, assert_gradient, assert_ratio, central_differences

module = importlib.import_module("gpulstm.functional.linear_cross_entropy")
MANY = {"ignore_index": 3, "label_smoothing": 0.1}
OPTIONS = [
    {"reduction": "mean"},
    {"reduction": "sum", "label_smoothing": 0.3},
    {"reduction": "none", **MANY},
    {"reduction": "mean", **MANY},
]
TYPES = ("float64", "float32", "float16", "bfloat16")


def case(seed, leading, D=5, V=7, dtype="float64"):
    """input, linear_weight, target, linear_bias, weight."""
    rng = np.random.default_rng(seed)
    dtype = getattr(ml_dtypes, dtype, dtype)
    arrays = [rng.standard_normal(shape) for shape in ((*leading, D), (V, D), (V,))]
    x, w, b, of_class = (a.astype(dtype) for a in (*arrays, rng.random(V) + 0.5))
    return [x, w, rng.integers(0, V, leading), b, of_class]


@pytest.fixture
def chunk(monkeypatch):
    def small(rows, V=7, block=2, D=5):
        """Chunks of so many rows of V classes, and the weight in blocks of so many classes."""
        monkeypatch.setattr(module, "_LEAST", rows * V)
        monkeypatch.setattr(module, "_BLOCK", block * D)
        monkeypatch.setattr(module, "_BLOCK_CUDA", block * D)

    return small


def composed(input, linear_weight, target, linear_bias=None, weight=None, **options):
    """The two functions, one after the other."""
    V = len(linear_weight)
    logits, linear_pullback = linear(input, linear_weight, linear_bias)
    loss, pullback = cross_entropy(logits.reshape(-1, V), target.reshape(-1), weight, **options)
    shape = target.shape if options.get("reduction") == "none" else ()

    def both(dloss):
        dx, dweight, dbias = linear_pullback(pullback(dloss.reshape(-1) if shape else dloss)[0])
        return dx, dweight, None, dbias, None

    return loss.reshape(shape), both


def run(device, function, arrays, options, dloss=None, calls=1):
    """[loss, dinput, dweight, dbias] on the host, of the last of some calls of the pullback."""
    given = [None if a is None else device.asarray(a) for a in arrays]
    loss, pullback = function(*given, **options)
    if dloss is None:
        dloss = np.linspace(0.5, 1.5, loss.size).reshape(loss.shape)
    dloss = device.asarray(np.asarray(dloss).astype(loss.dtype))
    for _ in range(calls):
        gradients = pullback(dloss)
    assert gradients[2] is None and gradients[4] is None
    return [None if a is None else device.to_numpy(a) for a in (loss, *gradients[:2], gradients[3])]


def assert_same_bits(got, want):
    for one, other in zip(got, want, strict=True):
        assert (one is None) == (other is None)
        assert one is None or (one.dtype == other.dtype and one.tobytes() == other.tobytes())


def assert_composed(device, arrays, options, name=""):
    got, want = (run(device, function, arrays, options) for function in (linear_cross_entropy, composed))
    for one, other, what in zip(got, want, ("loss", "dinput", "dweight", "dbias"), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert_close(one, other, f"{name}{what}")


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("optional", ["neither", "bias", "weight", "both"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_is_the_two_functions(device, chunk, options, optional, dtype):
    chunk(2)
    x, w, target, b, of_class = case(1, (3, 5), dtype=dtype)
    b, of_class = b if optional in ("bias", "both") else None, of_class if optional in ("weight", "both") else None
    assert_composed(device, [x, w, target, b, of_class], options)


# Rows that are a multiple of the chunk and not, one, none; chunks of one row, and of all.
@pytest.mark.parametrize("leading", [(12,), (13,), (2, 3, 4), (1,), (), (0,), (3, 0)])
@pytest.mark.parametrize("rows", [1, 4, 100])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_any_number_of_rows(device, chunk, leading, rows, reduction):
    chunk(rows)
    arrays = case(2, leading)
    if 0 in leading and reduction == "mean":
        loss, *gradients = run(device, linear_cross_entropy, arrays, {})
        assert np.isnan(loss) and not any(g.any() for g in gradients)
    else:
        assert_composed(device, arrays, {"reduction": reduction})


@pytest.mark.parametrize(("V", "D"), [(1, 5), (2, 1), (3, 0), (40, 33), (1030, 3)])
def test_any_size(device, chunk, V, D):
    chunk(4, V, block=7, D=max(D, 1))
    for dtype in ("float64", "bfloat16"):
        arrays = case(3, (9,), D, V, dtype)
        got = run(device, linear_cross_entropy, arrays, MANY)
        want = run(device, composed, [a if a.dtype.kind == "i" else a.astype(np.float64) for a in arrays], MANY)
        for one, other in zip(got, want, strict=True):
            assert_close(one.astype(np.float64), other, rtol=1e-11 if dtype == "float64" else 3e-2)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("options", OPTIONS)
def test_every_type_is_as_exact_as_the_two_functions(device, chunk, dtype, options):
    """Each error beside the float64 result is at most twice that of the two functions in float32."""
    chunk(16, 40, block=16, D=12)
    arrays = case(4, (100,), 12, 40, dtype)
    others = [[a if a.dtype.kind == "i" else a.astype(wide) for a in arrays] for wide in ("float32", "float64")]
    got = run(device, linear_cross_entropy, arrays, options)
    plain, reference = (run(device, composed, other, options) for other in others)
    for one, *beside, what in zip(got, plain, reference, ("loss", "dinput", "dweight", "dbias"), strict=True):
        assert one.dtype == arrays[0].dtype
        assert_ratio(one, *beside, what)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_are_summed_over_chunks_in_float32(device, chunk, dtype):
    """4,096 chunks of one row, each adding the same: in the type itself the sums would stop at 2,048 or 256 of them."""
    chunk(1, 3, D=3)
    x, w = np.ones((4096, 3)), np.zeros((3, 3))
    arrays = [x, w, np.zeros(4096, int), np.zeros(3), None]
    arrays = [a if a is None or a.dtype.kind == "i" else a.astype(getattr(ml_dtypes, dtype, dtype)) for a in arrays]
    _, _, dweight, dbias = run(device, linear_cross_entropy, arrays, {"reduction": "sum"}, 1)
    want = 4096 * np.array([-2, 1, 1]) / 3
    np.testing.assert_allclose(dbias.astype(float), want, rtol=4e-3)
    np.testing.assert_allclose(dweight.astype(float), want[:, None] * np.ones(3), rtol=4e-3)


@pytest.mark.parametrize("options", OPTIONS)
def test_gradients_are_the_losss_slopes(device, chunk, options):
    chunk(2)
    arrays = case(5, (5,))
    dloss = np.linspace(-1, 2, 5) if options["reduction"] == "none" else np.asarray(-1.5)
    _, *gradients = run(device, linear_cross_entropy, arrays, options, dloss)

    def loss_of(_):
        given = [device.asarray(a) for a in arrays]
        return (device.to_numpy(linear_cross_entropy(*given, **options)[0]) * dloss).sum()

    for k, gradient in zip((0, 1, 3), gradients, strict=True):
        assert_gradient(gradient, central_differences(loss_of, arrays[k]), f"gradient {k}")


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_pullback_may_be_called_again(device, chunk, reduction, dtype):
    chunk(3)
    arrays, options = case(6, (8,), dtype=dtype), {"reduction": reduction}
    once, twice = (run(device, linear_cross_entropy, arrays, options, calls=calls) for calls in (1, 3))
    assert_same_bits(twice, once)


def test_gradients_are_the_callers_own(chunk):
    """What the caller writes into one call's gradients does not reach the next."""
    chunk(3)
    _, pullback = linear_cross_entropy(*case(6, (8,)))
    first = pullback(np.ones(()))
    kept = [None if g is None else g.copy() for g in first]
    for g in first:
        if g is not None:
            g[...] = 7
    assert_same_bits(pullback(np.ones(())), kept)


def test_same_bits_for_any_number_of_threads():
    arrays = case(7, (700,), 40, 900, "float32")
    before, found = gl.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 2):
            gl.set_num_threads(threads)
            loss, pullback = linear_cross_entropy(*arrays)
            found.append([loss, *pullback(np.ones((), np.float32))])
    finally:
        gl.set_num_threads(before)
    for other in found[1:]:
        assert_same_bits(other, found[0])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_without_the_compiled_engine(chunk, monkeypatch, dtype):
    chunk(3)
    arrays = case(8, (8,), dtype=dtype)
    want = [run(gl.device("cpu").backend, linear_cross_entropy, arrays, options) for options in OPTIONS]
    monkeypatch.setattr(engine, "function", lambda name, dtype: None)
    got = [run(gl.device("cpu").backend, linear_cross_entropy, arrays, options) for options in OPTIONS]
    for one, other in zip(itertools.chain(*got), itertools.chain(*want), strict=True):
        assert_close(one, other)


def test_ignored_rows(device, chunk):
    chunk(2)
    x, w, target, b, of_class = case(9, (6,))
    target[1:3] = target[5] = -1
    for reduction in ("mean", "sum", "none"):
        arrays, options = [x, w, target, b, of_class], {"ignore_index": -1, "reduction": reduction}
        assert_composed(device, arrays, options)
        assert not run(device, linear_cross_entropy, arrays, options)[1][target == -1].any()
    loss, *gradients = run(device, linear_cross_entropy, [x, w, np.full(6, -1), b, None], {"ignore_index": -1})
    assert np.isnan(loss) and not any(g.any() for g in gradients)  # the mean over no row


def test_logits_that_are_not_finite(device, chunk):
    chunk(2, 3, D=1)
    x = np.array([[0.0], [1.0], [np.inf], [1.0]])
    w, target = np.array([[1.0], [-1.0], [2.0]]), np.array([0, 1, 2, 0])
    loss, dx, *_ = run(device, linear_cross_entropy, [x, w, target], {"reduction": "none"})
    np.testing.assert_array_equal(np.isnan(loss), [False, False, True, False])
    np.testing.assert_array_equal(np.isnan(dx[:, 0]), [False, False, True, False])


def test_arrays_need_not_be_contiguous(device, chunk):
    chunk(2)

    def strided(a):
        """The same numbers with another memory order and gaps."""
        wide = np.zeros((*a.shape[::-1], 2), a.dtype)
        wide[..., 0] = a.T
        return device.asarray(wide)[..., 0].T

    arrays = case(10, (3, 4))
    want = run(device, linear_cross_entropy, arrays, {"reduction": "none"})
    loss, pullback = linear_cross_entropy(*map(strided, arrays), reduction="none")
    dx, dweight, _, dbias, _ = pullback(strided(np.linspace(0.5, 1.5, 12).reshape(3, 4)))
    for one, other in zip((loss, dx, dweight, dbias), want, strict=True):
        assert_close(one, other, rtol=1e-13)


@pytest.mark.oracle
@pytest.mark.parametrize("options", OPTIONS)
def test_matches_torch(device, chunk, options):
    torch = pytest.importorskip("torch")
    chunk(4)
    arrays = case(11, (9,))
    x, w, b = (torch.tensor(arrays[k], requires_grad=True) for k in (0, 1, 3))
    theirs = torch.nn.functional.linear_cross_entropy(
        x, w, torch.tensor(arrays[2]), linear_bias=b, weight=torch.tensor(arrays[4]), **options
    )
    theirs.sum().backward()
    got = run(device, linear_cross_entropy, arrays, options, np.ones(theirs.shape))
    for one, other in zip(got, (theirs.detach(), x.grad, w.grad, b.grad), strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-11, atol=1e-13)


# -- gradients for what needs them -----------------------------------------------------------------------------
@pytest.mark.parametrize("wanted", [(1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1), (0, 0, 0)])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gradients_that_nobody_wants_are_not_made(device, chunk, wanted, reduction):
    chunk(3)
    arrays = case(12, (8,), dtype="float32")
    flags = dict(zip(("input_gradient", "weight_gradient", "bias_gradient"), map(bool, wanted), strict=True))
    loss, *whole = run(device, linear_cross_entropy, arrays, {"reduction": reduction})
    got = run(device, linear_cross_entropy, arrays, {"reduction": reduction, **flags})
    assert got[0].tobytes() == loss.tobytes()
    for one, other, flag in zip(got[1:], whole, wanted, strict=True):
        assert (one is not None) == bool(flag)
        if flag:
            assert_close(one, other)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_on_the_tape(device, chunk, reduction):
    chunk(3)
    x, w, target, b, of_class = (device.asarray(a) for a in case(13, (2, 4)))

    def gradients(loss_of, **leaves):
        made = {name: gl.Tensor(array, requires_grad=True) for name, array in leaves.items()}
        loss = loss_of(**{"x": x, "w": w, "b": b} | made)
        (loss * loss).sum().backward()
        return [loss.data, *(leaf.grad for leaf in made.values())]

    def one(x, w, b):
        return gl.linear_cross_entropy(x, w, target, linear_bias=b, weight=of_class, reduction=reduction, **MANY)

    def two(x, w, b):
        logits = gl.apply(linear, x, w, b).reshape(-1, 7)
        return gl.cross_entropy(logits, target.reshape(-1), of_class, reduction=reduction, **MANY).reshape(
            target.shape if reduction == "none" else ()
        )

    for leaves in ({"x": x, "w": w, "b": b}, {"x": x}, {"w": w}, {"b": b}, {"w": w, "b": b}):
        for got, want in zip(gradients(one, **leaves), gradients(two, **leaves), strict=True):
            assert_close(got, want)


def test_the_tape_asks_for_what_it_needs_alone(monkeypatch):
    asked = []
    made = module._Gradients.__init__

    def init(self, head, *wanted):
        asked.append(wanted)
        made(self, head, *wanted)

    monkeypatch.setattr(module._Gradients, "__init__", init)
    x, w, target, b, _ = case(14, (4,))
    leaves = [gl.Tensor(a, requires_grad=True) for a in (x, w, b)]
    for wanted in ((True, False, False), (False, True, True), (True, True, True)):
        x_, w_, b_ = (leaf if flag else leaf.detach() for leaf, flag in zip(leaves, wanted, strict=True))
        gl.linear_cross_entropy(x_, w_, target, linear_bias=b_).backward()
        assert asked.pop() == wanted and not asked  # in the call; backward makes no second time
    with gl.no_grad():
        gl.linear_cross_entropy(*leaves[:2], target, linear_bias=leaves[2])
    gl.linear_cross_entropy(x, w, target)
    assert not asked


def test_backward_twice_and_writes_in_between(device, chunk):
    chunk(3)
    x, w, target, *_ = (device.asarray(a) for a in case(15, (8,)))
    x, w = gl.Tensor(x, requires_grad=True), gl.Tensor(w, requires_grad=True)
    loss = gl.linear_cross_entropy(x, w, target)
    loss.backward(retain_graph=True)
    first = device.to_numpy(w.grad).copy()
    loss.backward(retain_graph=True)
    np.testing.assert_array_equal(device.to_numpy(w.grad), 2 * first)
    with gl.no_grad():
        w += 1
    with pytest.raises(gl.TapeError, match="linear_cross_entropy needs its input linear_weight"):
        loss.backward()


# -- memory ----------------------------------------------------------------------------------------------------
def beyond_results(call):
    """Peak bytes that the call takes on the processor, less those of the arrays it returns."""
    pool.POOL.clear()
    tracemalloc.start()
    try:
        results = call()
        return tracemalloc.get_traced_memory()[1] - sum(a.nbytes for a in results if a is not None)
    finally:
        tracemalloc.stop()
        pool.POOL.clear()


def called(function, arrays, **options):
    loss, pullback = function(*arrays, **options)
    return [loss, *pullback(np.ones(loss.shape, loss.dtype))]


def test_a_tenth_of_the_memory_of_fifty_thousand_words():
    """All that is allocated beyond the arguments and the gradients, beside the logits of 8,192 rows."""
    N, V, D = 8192, 50_000, 4
    x, w, target, b, _ = case(16, (N,), D, V, "float32")
    logits = 4 * N * V
    assert beyond_results(lambda: called(linear_cross_entropy, [x, w, target, b])) < logits / 10
    with gl.no_grad():
        assert beyond_results(lambda: [gl.linear_cross_entropy(x, w, target, linear_bias=b).data]) < logits / 10


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_memory_in_small(monkeypatch, dtype, reduction):
    """The same with everything an eighth as large: the weight's gradient is 512 / 8,192 of the logits."""
    monkeypatch.setattr(module, "_LEAST", 1 << 12)
    monkeypatch.setattr(module, "_BLOCK", 1 << 12)
    N, V, D = 1024, 6000, 64
    x, w, target, b, _ = case(17, (N,), D, V, dtype)
    logits = x.itemsize * N * V
    assert beyond_results(lambda: called(linear_cross_entropy, [x, w, target, b], reduction=reduction)) < logits / 10
    assert beyond_results(lambda: called(composed, [x, w, target, b], reduction=reduction)) > logits


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_memory_of_a_gpu(emulated, monkeypatch, dtype, reduction):
    """The most that is in use during the call, every block of the emulated GPU counted."""
    monkeypatch.setattr(module, "_LEAST", 1 << 10)
    monkeypatch.setattr(module, "_BLOCK_CUDA", 1 << 10)
    monkeypatch.setattr(importlib.import_module("gpulstm.functional.cross_entropy"), "_IN_PLACE", 1 << 10)
    device = gl.device("cuda").backend
    N, V, D = 512, 1000, 32
    x, w, target, b, _ = (device.asarray(a) for a in case(18, (N,), D, V, dtype))
    linear(x[:1], w)  # cuBLAS has its workspace

    def beyond(function):
        with emulated_cuda.counted() as counts:
            loss, pullback = function(x, w, target, b, reduction=reduction)
            results = [loss, *pullback(device.xp.ones(loss.shape, loss.dtype))]
        return counts.most_bytes - sum(a.nbytes for a in results if a is not None)

    logits = x.itemsize * N * V
    assert beyond(linear_cross_entropy) < logits / 10
    assert beyond(composed) > logits / 2  # this count sees the logits


# -- errors ----------------------------------------------------------------------------------------------------
def test_bad_arguments(device):
    xp = device.xp
    x, w, target = xp.zeros((4, 3), np.float32), xp.zeros((5, 3), np.float32), xp.zeros(4, np.int64)
    b = xp.zeros(5, np.float32)
    for error, message, arguments, options in [
        (ShapeError, r"input: expected \(..., 3\) = \(..., in\), got \(4, 2\)", (x[:, :2], w, target), {}),
        (ShapeError, r"input: expected \(..., 3\) = \(..., in\), got \(\)", (x[0, 0], w, target), {}),
        (ShapeError, r"linear_weight: expected \(classes, in\), got \(3,\)", (x, w[0], target), {}),
        (ShapeError, r"linear_weight: expected at least one class, got \(0, 3\)", (x, w[:0], target), {}),
        (ShapeError, r"linear_bias: expected \(5,\) = \(classes,\), got \(4,\)", (x, w, target, b[:4]), {}),
        (ShapeError, r"weight: expected \(5,\) = \(classes,\), got \(4,\)", (x, w, target, b, b[:4]), {}),
        (ShapeError, r"target: expected \(4,\) = input's shape without .*, got \(3,\)", (x, w, target[:3]), {}),
        (ShapeError, r"target: expected 0 <= index < 5, the classes, .*, got 5 at 0", (x, w, target + 5), {}),
        (ShapeError, r"reduction: expected mean, sum, none, got 'all'", (x, w, target), {"reduction": "all"}),
        (
            ShapeError,
            r"label_smoothing: expected 0 <= label_smoothing <= 1, got 2",
            (x, w, target),
            {"label_smoothing": 2},
        ),
        (DTypeError, r"target: expected integers, got float32", (x, w, target.astype(np.float32)), {}),
        (DTypeError, r"linear_weight: expected float32 as input has, got float64", (x, w.astype(float), target), {}),
        (DTypeError, r"linear_bias: expected float32 as input has, got float64", (x, w, target, b.astype(float)), {}),
        (DTypeError, r"weight: expected float32 as input has, got float64", (x, w, target, b, b.astype(float)), {}),
        (DTypeError, r"input: expected float32, .*, got int64", (x.astype(np.int64), w, target), {}),
        (DTypeError, r"linear_weight: expected a NumPy or CuPy array, got NoneType", (x, None, target), {}),
    ]:
        with pytest.raises(error, match=f"^{message}"):
            linear_cross_entropy(*arguments, **options)


@pytest.mark.parametrize("device", GPUS, indirect=True)
def test_arrays_on_two_devices(device):
    x, w, target, *_ = case(19, (4,))
    with pytest.raises(DeviceError, match="linear_weight: expected cuda:0, the device of input, got cpu"):
        linear_cross_entropy(device.asarray(x), w, device.asarray(target))


# -- a fault is seen -------------------------------------------------------------------------------------------
def caught(test, *arguments):
    with pytest.raises((AssertionError, RuntimeWarning)):  # the second of sums that overflow
        test(*arguments)


def test_a_chunk_that_is_left_out_is_seen(chunk, monkeypatch):
    chunks = module._Head.chunks
    monkeypatch.setattr(module._Head, "chunks", lambda head: list(chunks(head))[:-1])
    device = gl.device("cpu").backend
    for reduction in ("mean", "sum", "none"):
        caught(test_any_number_of_rows, device, chunk, (13,), 4, reduction)


@pytest.mark.parametrize("fault", ["the bias", "a block of words", "the chunk's place", "the factor"])
def test_a_fault_in_the_gradients_is_seen(chunk, monkeypatch, fault):
    add, scaled, blocks = module._Gradients.add, module._Gradients.scaled, module._Head.blocks
    device = gl.device("cpu").backend

    def without_bias(self, at, dlogits):
        kept, self.dbias = self.dbias, None
        add(self, at, dlogits)
        self.dbias = kept

    if fault == "the bias":
        monkeypatch.setattr(module._Gradients, "add", without_bias)
    elif fault == "a block of words":
        monkeypatch.setattr(module._Head, "blocks", lambda *given: list(blocks(*given))[1:])
    elif fault == "the chunk's place":
        monkeypatch.setattr(module._Gradients, "add", lambda self, at, d: add(self, slice(0, len(d)), d))
    else:
        monkeypatch.setattr(module._Gradients, "scaled", lambda self, factor: scaled(self, 1.0))
    caught(test_is_the_two_functions, device, chunk, OPTIONS[3], "both", "float64")
    caught(test_gradients_are_the_losss_slopes, device, chunk, OPTIONS[3])


def test_sums_in_the_half_type_are_seen(chunk, monkeypatch):
    monkeypatch.setattr(module, "accumulator", lambda dtype: np.dtype(dtype))
    caught(test_half_types_are_summed_over_chunks_in_float32, gl.device("cpu").backend, chunk, "float16")


def test_all_logits_at_once_are_seen(monkeypatch):
    chunks = module._Head.chunks

    def whole(head):
        monkeypatch.setattr(module, "_LEAST", head.x.shape[0] * head.weight.shape[0])
        return chunks(head)

    monkeypatch.setattr(module._Head, "chunks", whole)
    caught(test_memory_in_small, monkeypatch, "float32", "mean")


def test_gradients_kept_for_the_next_call_are_seen(chunk, monkeypatch):
    scaled = module._Gradients.scaled
    made = []

    def again(self, factor):
        made.append(self)
        return scaled(made[0], factor)

    monkeypatch.setattr(module._Gradients, "scaled", again)
    caught(test_gradients_are_the_callers_own, chunk)

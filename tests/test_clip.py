"""Clipping: PyTorch's numbers, two launches for the norm, no wait for the device, equal bits every time."""

import ml_dtypes
import numpy as np
import pytest

from gpulstm import clip
from gpulstm.backend import CPU, CupyBackend
from gpulstm.clip import clip_grad_norm, clip_grad_value
from gpulstm.errors import DeviceError, DTypeError, NotFinite, ShapeError
from gpulstm.launch import Launcher
from gpulstm.optim import table
from gpulstm.tape import Tensor
from tests import emulated_cuda
from tests.tolerances import assert_close, assert_ratio

CHUNK = table.CHUNK
SHAPES = [(), (0,), (1,), (3, 5), (CHUNK - 1,), (2, CHUNK // 2), (3 * CHUNK + 1,), (4, 0, 2)]
HALVES = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]


def parameters(device, grads, dtype=np.float64):
    """Parameters with these gradients, in memory of their own; None stays None."""
    result = []
    for grad in grads:
        p = Tensor(device.xp.zeros(np.shape(grad) if grad is not None else (2,), dtype), requires_grad=True)
        p.grad = None if grad is None else device.xp.asarray(np.array(grad).astype(dtype))
        result.append(p)
    return result


def random_grads(shapes=SHAPES, seed=0):
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(shape)) for shape in shapes]


def true_norm(grads):
    return np.sqrt(sum(float((np.asarray(g, np.float64) ** 2).sum()) for g in grads if g is not None))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.999, 1.5, np.inf])
def test_norm_and_scale(device, share):
    grads = [*random_grads(), None]
    params, want = parameters(device, grads), true_norm(grads)
    norm = clip_grad_norm(params, share * want)
    assert norm.shape == () and norm.dtype == np.float64
    assert_close(norm, np.asarray(want), "norm", rtol=1e-13)
    coefficient = min(1.0, share * want / (want + 1e-6))
    for p, grad in zip(params, grads, strict=True):
        if grad is None:
            assert p.grad is None
        elif coefficient == 1:
            np.testing.assert_array_equal(device.to_numpy(p.grad), grad)
        else:
            np.testing.assert_allclose(device.to_numpy(p.grad), grad * coefficient, rtol=1e-13)


@pytest.mark.oracle
@pytest.mark.parametrize("max_norm", [0.5, 80.0, 1e9])
def test_pytorch_gives_the_same_numbers(device, max_norm):
    torch = pytest.importorskip("torch")
    grads = random_grads()
    theirs = [torch.zeros(grad.shape, dtype=torch.float64, requires_grad=True) for grad in grads]
    for tensor, grad in zip(theirs, grads, strict=True):
        tensor.grad = torch.tensor(grad)
    want = torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    params = parameters(device, grads)
    assert_close(clip_grad_norm(iter(params), max_norm), want.numpy(), "norm", rtol=1e-12)
    for p, tensor in zip(params, theirs, strict=True):
        np.testing.assert_allclose(device.to_numpy(p.grad), tensor.grad.numpy(), rtol=1e-12)
    for tensor, p, grad in zip(theirs, params, grads, strict=True):  # the scaled ones may differ in the last place
        tensor.grad, p.grad = torch.tensor(grad), device.xp.asarray(grad)
    torch.nn.utils.clip_grad_value_(theirs, 1e-3)
    clip_grad_value(iter(params), 1e-3)
    for p, tensor in zip(params, theirs, strict=True):
        np.testing.assert_array_equal(device.to_numpy(p.grad), tensor.grad.numpy())


def test_float32_by_the_ratio_rule(device):
    grads = [grad.astype(np.float32) for grad in random_grads([(40_000,), (7,), (300, 100)])]
    params, want = parameters(device, grads, np.float32), true_norm(grads)
    norm = clip_grad_norm(params, 1.0)
    plain = np.sqrt(np.float32(sum(np.square(grad).sum(dtype=np.float32) for grad in grads)))
    assert_ratio(norm, plain, np.asarray(want), "norm")
    for p, grad in zip(params, grads, strict=True):
        assert p.grad.dtype == np.float32
        scale = np.float32(1 / (plain + np.float32(1e-6)))
        assert_ratio(p.grad, grad * scale, grad.astype(np.float64) / (want + 1e-6), "gradient")


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_half_types_are_summed_wide_and_rounded_once(device, dtype):
    grads = [grad.astype(dtype).astype(np.float64) * 8 for grad in random_grads([(5000,), (3, 5)])]
    params, want = parameters(device, grads, dtype), true_norm(grads)
    # The sum itself is over 65504, float16's largest.
    assert_close(clip_grad_norm(params, 1.0), np.asarray(want), "norm", rtol=1e-6)
    for p, grad in zip(params, grads, strict=True):
        wanted = grad / (want + 1e-6)
        half_ulp = np.abs(np.spacing(wanted.astype(dtype)).astype(np.float64)) / 2
        assert (np.abs(device.to_numpy(p.grad).astype(np.float64) - wanted) <= half_ulp * 1.01).all()


def test_types_can_be_mixed(device):
    grads = random_grads([(5000,), (7,), (3, 5)])
    params = parameters(device, grads[:1], np.float32) + parameters(device, grads[1:])
    want = true_norm([grads[0].astype(np.float32), *grads[1:]])
    assert_close(clip_grad_norm(params, 0.1), np.asarray(want), "norm", rtol=1e-6)
    for p, grad in zip(params, grads, strict=True):
        assert_close(p.grad, (grad * 0.1 / (want + 1e-6)).astype(p.data.dtype), "gradient", rtol=1e-6)


def test_more_than_a_thousand_gradients(device):
    sizes = np.random.default_rng(1).integers(0, 9, 1500)
    grads = [np.full((int(n),), 1.0 + k) for k, n in enumerate(sizes)]
    params = parameters(device, grads)
    assert_close(clip_grad_norm(params, 1.0), np.asarray(true_norm(grads)), "norm", rtol=1e-13)
    assert_close(clip_grad_norm(params, 9.0), np.asarray(1.0), "norm of the clipped", rtol=1e-6)


@pytest.mark.parametrize("chunks", [1, 2, 255, 256, 257, 700])
def test_every_number_of_chunks_is_summed(device, monkeypatch, chunks):
    """The last sum, by one block, must reach every chunk; small chunks make many."""
    monkeypatch.setattr(table, "CHUNK", 3)
    monkeypatch.setattr(clip, "CHUNK", 3)
    grads = [np.sqrt(np.arange(1.0, 3 * chunks))]
    assert len(table.first_chunks([grads[0].size])) == 2 and table.first_chunks([grads[0].size])[1] == chunks
    norm = clip_grad_norm(parameters(device, grads), 1.0)
    assert_close(norm, np.asarray(true_norm(grads)), "norm", rtol=1e-13)


def test_the_same_bits_every_time(device):
    grads = random_grads([(9000,), (70, 301), (5,)])

    def run(turned=1):
        params = parameters(device, [grad[::turned] for grad in grads], np.float32)
        norm = device.to_numpy(clip_grad_norm(params, 1.0)).tobytes()
        return norm, *(device.to_numpy(p.grad).tobytes() for p in params)

    assert len({run() for _ in range(4)}) == 1
    assert run(turned=-1)[0] != run()[0]  # the comparison can fail: another order gives other bits


def test_three_launches_and_one_copy_to_the_device(device, monkeypatch):
    names, copies = [], []
    call, asarray = Launcher.__call__, CupyBackend.asarray

    def counted(self, file, entry, *args, **kwargs):
        names.append(entry)
        return call(self, file, entry, *args, **kwargs)

    params = parameters(device, random_grads(), np.float32)
    monkeypatch.setattr(Launcher, "__call__", counted)
    monkeypatch.setattr(CupyBackend, "asarray", lambda *args: copies.append(args) or asarray(*args))
    clip_grad_norm(params, 1.0)
    assert names == (["norm_partial", "norm_total", "norm_scale"] if device.is_cuda else [])
    assert len(copies) == (1 if device.is_cuda else 0)


def test_the_norm_is_not_waited_for(emulated):
    from gpulstm import backend

    params = parameters(backend.device("cuda").backend, random_grads())
    with emulated_cuda.counted() as counts:
        clip_grad_norm(params, 1.0)
    assert counts.waits == 0 and counts.launches > 0
    with emulated_cuda.counted() as counts:
        clip_grad_norm(params, 1.0, error_if_nonfinite=True)
    assert counts.waits > 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_norms_that_are_not_finite(device, bad):
    grads = [np.array([1.0, -2.0]), np.array([bad, 0.0, 3.0])]
    params = parameters(device, grads)
    with pytest.raises(NotFinite, match=f"norm of the gradients: expected a finite number, got {bad}"):
        clip_grad_norm(params, 1.0, error_if_nonfinite=True)
    np.testing.assert_array_equal(device.to_numpy(params[0].grad), grads[0])
    norm = float(clip_grad_norm(params, 1.0))
    assert norm == bad or (np.isnan(bad) and np.isnan(norm))
    # As in PyTorch: finite values become 0 * g, or not a number with a norm that is none.
    want = grads[0] * 0 if bad == np.inf else np.full(2, np.nan)
    np.testing.assert_array_equal(device.to_numpy(params[0].grad), want)
    assert np.isnan(device.to_numpy(params[1].grad)[0])


def test_nothing_to_clip(device):
    params = parameters(device, [None, None])
    assert float(clip_grad_norm(params, 1.0)) == 0.0
    clip_grad_value(params, 1.0)
    params = parameters(device, [np.zeros(0), np.zeros(0)])
    assert float(clip_grad_norm(params, 1.0)) == 0.0
    params = parameters(device, [np.zeros(3)])
    assert float(clip_grad_norm(params[0], 0.0)) == 0.0
    np.testing.assert_array_equal(device.to_numpy(params[0].grad), np.zeros(3))


def test_nothing_beside_the_gradient_is_written(device):
    n = table.CHUNK + 7
    around = device.xp.full((n + 600,), 7.0)
    p = Tensor(device.xp.zeros(n), requires_grad=True)
    p.grad = around[300:-300]
    clip_grad_norm([p], 1.0)
    whole = device.to_numpy(around)
    assert (whole[:300] == 7).all() and (whole[-300:] == 7).all()
    np.testing.assert_allclose(whole[300:-300], 1 / np.sqrt(n), rtol=1e-6)


def test_gradients_need_not_be_contiguous(device):
    grads = random_grads([(6, 8), (5, 4)])
    params = parameters(device, grads)
    wide = [device.asarray(grad.repeat(2, axis=1)) for grad in grads]
    beside = [grad[:, 1::2] for grad in wide]
    for p, grad in zip(params, wide, strict=True):
        p.grad = grad[:, ::2]
    norm = clip_grad_norm(params, 1.0)
    for p, grad, other in zip(params, grads, beside, strict=True):
        np.testing.assert_allclose(device.to_numpy(p.grad), grad / (float(norm) + 1e-6), rtol=1e-12)
        np.testing.assert_array_equal(device.to_numpy(other), grad)


@pytest.mark.parametrize("dtype", [np.dtype(np.float64), np.dtype(np.float32), *HALVES], ids=str)
def test_values(device, dtype):
    grad = np.array([-3.0, -0.5, 0.0, 0.25, 0.5, np.inf, -np.inf, np.nan])
    params = parameters(device, [grad, None, np.array(2.0)], dtype)
    clip_grad_value(params, 0.5)
    want = np.array([-0.5, -0.5, 0.0, 0.25, 0.5, 0.5, -0.5, np.nan])
    np.testing.assert_array_equal(device.to_numpy(params[0].grad).astype(np.float64), want)
    assert float(params[2].grad) == 0.5 and params[0].grad.dtype == dtype
    clip_grad_value(params[0], 1e30)
    np.testing.assert_array_equal(device.to_numpy(params[0].grad).astype(np.float64), want)
    clip_grad_value(params[2], 0)
    assert float(params[2].grad) == 0


def test_bad_arguments(emulated):
    from gpulstm import backend

    (p,) = parameters(CPU, [np.ones(2)])
    for bad in (-1.0, float("nan")):
        with pytest.raises(ShapeError, match=f"max_norm: expected a number from 0 up, got {bad}"):
            clip_grad_norm([p], bad)
        with pytest.raises(ShapeError, match=f"clip_value: expected a number from 0 up, got {bad}"):
            clip_grad_value([p], bad)
    with pytest.raises(DTypeError, match="parameters: expected Parameters, got ndarray"):
        clip_grad_norm([p.grad], 1.0)
    (other,) = parameters(backend.device("cuda").backend, [np.ones(2)])
    want = "gradient of parameter 1: expected cpu, the device of gradient of parameter 0, got cuda:0"
    with pytest.raises(DeviceError, match=want):
        clip_grad_norm([p, other], 1.0)
    np.testing.assert_array_equal(p.grad, np.ones(2))

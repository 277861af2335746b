"""functional/directions.py: both directions of a layer on two streams give the bits of one after the other."""

import gc
import threading

import numpy as np
import pytest

import gpulstm as gl
from gpulstm import functional
from gpulstm.functional import directions
from tests import emulated_cuda
from tests.conftest import GPUS

T, B, D, H = 4, 3, 2, 5
on_gpus = pytest.mark.parametrize("device", GPUS, indirect=True)


@pytest.fixture
def late(emulated):
    """The emulated GPU, whose streams work as late as their waits allow; the current one is such a stream."""
    stream = emulated.cuda.Stream(non_blocking=True)
    with emulated_cuda.gpu(late=1):
        with stream, emulated.cuda.using_allocator(emulated.get_default_memory_pool().malloc):
            yield gl.device("cuda").backend
        stream.synchronize()


@pytest.fixture
def pooled(device):
    """The device, with CuPy's own pool, which the emulated one does without elsewhere."""
    with device.xp.cuda.using_allocator(device.xp.get_default_memory_pool().malloc):
        yield device


def one_by_one(patch):
    patch.setattr(directions, "serves", lambda backend: False)


def trained(layer, device, x, times=4, **modes):
    """(the bytes of outputs, states and gradients of each of several training steps, the last step's Runs)."""
    results = []
    for k in range(times):
        layer.zero_grad()
        given = gl.tensor((x + k).astype(layer.weight_ih_l0.dtype), device=device.name, requires_grad=True)
        with gl.explain() as runs:
            y, states = layer(given, **modes)
        outputs = [y, *(states if isinstance(states, tuple) else [states])]
        # The last is a gradient that comes to the input before those of the layer.
        sum((part.sum() for part in (y * y, *outputs, given * 0.5)), start=0.0).backward()
        arrays = [*(part.data for part in outputs), given.grad, *(p.grad for p in layer.parameters())]
        results.append([device.to_numpy(a).tobytes() for a in arrays])
    return results, list(runs)


def same_as_one_by_one(device, make, **modes):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((T, B, D))
    layer, called = make(), []
    both = directions.both
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(directions, "both", lambda *a, **k: called.append(1) or both(*a, **k))
        got, runs = trained(layer, device, x, **modes)
        assert len(called) == 4 * layer.num_layers
        one_by_one(patch)
        want, alone = trained(layer, device, x, **modes)
    assert [str(each) for each in runs] == [str(each) for each in alone]
    assert got == want
    return [each.path for each in runs]


MODES = {
    "plain": {},
    "lengths": {"lengths": [0, 4, 2]},
    "holes": {"mask": np.arange(12).reshape(4, 3) % 3 > 0},
    "resets": {"reset": np.arange(12).reshape(4, 3) % 4 == 1},
}


@pytest.mark.parametrize("modes", MODES)
@pytest.mark.parametrize("kind", [gl.LSTM, gl.GRU, gl.LayerNormLSTM, gl.MinGRU])
def test_two_streams_give_the_bits_of_one(late, kind, modes):
    def make():
        return kind(D, H, num_layers=2, bidirectional=True, device=late.name)

    paths = same_as_one_by_one(late, make, **MODES[modes])
    assert paths == ["kernel" if kind is gl.MinGRU else "graph"] * 4


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_types_and_a_projection(late, dtype):
    same_as_one_by_one(late, lambda: gl.LSTM(D, H, bidirectional=True, proj_size=3, device=late.name, dtype=dtype))


@on_gpus
def test_on_the_usual_stream(pooled):
    same_as_one_by_one(pooled, lambda: gl.LSTM(D, H, num_layers=2, bidirectional=True, device=pooled.name))


def test_a_direction_without_a_gradient_has_none(late):
    layer = gl.LSTM(D, H, bidirectional=True, device=late.name)
    for _ in range(3):
        layer.zero_grad()
        _, (h_n, _) = layer(gl.tensor(np.ones((T, B, D), np.float32), device=late.name))
        h_n[1].sum().backward()
        moved = {name for name, p in layer.named_parameters() if late.to_numpy(p.grad).any()}
        assert moved == {name for name, _ in layer.named_parameters() if name.endswith("_reverse")}


def test_the_work_of_one_may_run_before_that_of_the_other(late):
    """That is the point of it: one stream alone would never show another order."""
    seen, count = late.zeros((2,), np.int32), late.zeros((1,), np.int32)

    def mark(place):
        count[...] += 1
        seen[place] = count[0]

    order = set()
    for _ in range(1000):
        count.fill(0)
        directions._sides_of(late).run(lambda: mark(0), lambda: mark(1))
        order.add(tuple(late.to_numpy(seen).tolist()))
        if {(1, 2), (2, 1)} <= order:
            return
    pytest.fail(f"of two orders there are only these: {order}")


def test_on_another_device(emulated):
    """Also without a layer, where nobody has made that device the current one."""
    other = gl.device("cuda:1").backend
    layer = gl.LSTM(D, H, bidirectional=True, device=other.name)
    weights = [p.data for p in layer.parameters()]
    x = other.asarray(np.random.default_rng(0).standard_normal((T, B, D)).astype(np.float32))
    given = [[x, None, None, *part, None] for part in (weights[4:], weights[:4])]
    modes = ({"cell": "lstm", "reverse": True}, {"cell": "lstm"})
    outputs, pullback = directions.both(*given[0], *given[1], modes=modes)
    gradients = pullback(*outputs)
    with other:
        alone = [functional.recurrent(*part, **mode) for part, mode in zip(given, modes, strict=True)]
        want = [array for outputs, _ in alone for array in outputs]
        want += [array for outputs, way_back in alone for array in way_back(*outputs)]
    for mine, wanted in zip((*outputs, *gradients), want, strict=True):
        assert mine is wanted is None or (mine.device.id == 1 and mine.get().tobytes() == wanted.get().tobytes())


@on_gpus
def test_each_thread_and_stream_has_a_second_stream_of_its_own(device):
    sides, found = directions._sides_of(device), []
    cuda = device.xp.cuda

    def find():
        found.append(sides._beside(cuda.get_current_stream()).ptr)

    thread = threading.Thread(target=find)
    find()
    find()
    thread.start()
    thread.join()
    with cuda.Stream(non_blocking=True):
        find()
    assert found[0] == found[1] and len(set(found)) == 3
    for _ in range(20):
        with cuda.Stream(non_blocking=True):
            find()
    assert len(sides._mine.streams) <= directions._MOST_STREAMS


@on_gpus
def test_what_fails_on_one_stream_leaves_the_other_in_order(device):
    sides, cuda = directions._sides_of(device), device.xp.cuda
    before = cuda.get_current_stream().ptr
    works, breaks = lambda: 1, lambda: 1 / 0
    for pair in ((works, breaks), (breaks, works)):
        with pytest.raises(ZeroDivisionError):
            sides.run(*pair)
        assert cuda.get_current_stream().ptr == before


@on_gpus
def test_one_after_the_other_where_two_streams_are_no_gain_or_not_safe(device, monkeypatch):
    called = []
    both = directions.both
    monkeypatch.setattr(directions, "both", lambda *a, **k: called.append(1) or both(*a, **k))
    x = np.ones((T, B, D), np.float32)

    def asked(allocator=None, **options):
        called.clear()
        layer = gl.LSTM(D, H, device=device.name, **options)
        with device.xp.cuda.using_allocator(allocator or device.xp.get_default_memory_pool().malloc):
            layer(x)
        return len(called)

    assert asked(bidirectional=True) == asked(bidirectional=True, path="graph") == 1
    assert asked(bidirectional=True, num_layers=3) == 3
    assert asked() == asked(bidirectional=True, recompute=True) == asked(bidirectional=True, path="reference") == 0
    assert asked(device.xp.cuda.MemoryPool().malloc, bidirectional=True) == 0
    assert not directions.serves(gl.device("cpu").backend)
    gc.collect()


def test_noise_is_that_of_each_direction(late):
    def make():
        noise = [gl.Zoneout(0.3, 0.2), gl.VariationalDropout(0.2, 0.2), gl.WeightDrop(0.3)]
        options = {"device": late.name, "generator": np.random.default_rng(1), "regularize": noise}
        return gl.LSTM(D, H, bidirectional=True, **options).train()

    x, results = np.random.default_rng(2).standard_normal((T, B, D)), []
    for serves in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            if not serves:
                one_by_one(patch)
            results.append(trained(make(), late, x)[0])
    assert results[0] == results[1]

"""functional/graphs.py: a sequence replayed as one CUDA graph gives the bits of the launches it was captured from."""

import gc
import itertools

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.dtypes import as_dtype
from gpulstm.errors import NoKernel
from gpulstm.functional import graphs, recurrent
from gpulstm.functional.loop import Loop
from gpulstm.functional.sequence import Noise
from tests import emulated_cuda
from tests.cases import CELL_CASES
from tests.conftest import GPUS

MODES = {
    "plain": {},
    "reversed": {"reverse": True},
    "lengths": {"lengths": [0, 4, 2]},
    "holes": {"mask": np.arange(12).reshape(4, 3) % 3 > 0},
    "resets": {"reset": np.arange(12).reshape(4, 3) % 4 == 1, "recurrent_dropout": Noise(0.3, 7)},
    "zoneout": {"zoneout": (Noise(0.3, 1), Noise(0.2, 2)), "lengths": [4, 1, 3]},
    "mean zoneout": {"zoneout": (Noise(0.3, None), Noise(0.2, None)), "reverse": True},
}
T, B, D, H = 4, 3, 2, 5
RECURRENT = [case for case in CELL_CASES if case.cell.recurrent]


def arguments(device, rng, cell, dtype=np.float32, P=H):
    """The arguments of ``recurrent`` after x for a cell, random."""
    G = len(cell.gates)
    shapes = {"w_ih": (G * H, D), "w_hh": (G * H, P), "b_ih": (G * H,), "b_hh": (G * H,)}
    shapes |= {f"{name}0": (B, H if k else P) for k, name in enumerate(cell.states)}
    shapes |= {form.name: (form.blocks * H, H) if form.matrix else (form.blocks * H,) for form in cell.extra}
    if P != H:
        shapes["w_hr"] = (P, H)
    if not cell.biases:
        shapes = {name: shape for name, shape in shapes.items() if name[:2] != "b_"}
    drawn = {name: rng.standard_normal(shape) / 2 for name, shape in shapes.items()}
    return [device.asarray(drawn[name].astype(dtype)) if name in drawn else None for name in cell.arguments]


def step(device, rng, given, cell, modes, path="auto", dtype=np.float32):
    """(the path taken, outputs and gradients as bytes) of a sequence of new inputs."""
    x = device.asarray(rng.standard_normal((T, B, D)).astype(dtype))
    with gl.explain() as runs:
        outputs, pullback = recurrent(x, *given, cell=cell, path=path, **modes)
    cotangents = [device.asarray(rng.standard_normal(y.shape).astype(dtype)) for y in outputs]
    arrays = [*outputs, *pullback(*cotangents)]
    return runs[0].path, [None if a is None else device.to_numpy(a).tobytes() for a in arrays]


def same_as_launches(device, cell, modes, dtype=np.float32, P=H):
    """Three sequences by "auto", of which the last two are replayed, beside the same ones launch by launch."""
    for inference_first in (False, True):
        rng = np.random.default_rng(3)
        given = arguments(device, rng, cell, dtype, P)
        if inference_first:
            recurrent(device.asarray(np.zeros((T, B, D), dtype)), *given, cell=cell, inference=True, **modes)
        state = rng.bit_generator.state
        got = [step(device, rng, given, cell, modes, dtype=dtype) for _ in range(3)]
        rng.bit_generator.state = state
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(graphs.Graphs, "run", lambda *arguments: (None, "switched off"))
            want = [step(device, rng, given, cell, modes, dtype=dtype) for _ in range(3)]
        assert [path for path, _ in got] == ["kernel", "graph", "graph"], got[1][0]
        for (_, replayed), (path, launched) in zip(got, want, strict=True):
            assert path == "kernel" and replayed == launched


@pytest.mark.parametrize("device", GPUS, indirect=True)
@pytest.mark.parametrize("modes", MODES)
@pytest.mark.parametrize("case", RECURRENT, ids=lambda case: case.name)
def test_every_cell_and_mode_gives_the_bits_of_its_launches(device, case, modes):
    modes = dict(MODES[modes])
    if len(case.cell.states) == 1 and "zoneout" in modes:
        modes["zoneout"] = (modes["zoneout"][0], None)
    same_as_launches(device, case.cell, modes)


@pytest.mark.parametrize("device", GPUS, indirect=True)
@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize("modes", ["plain", "lengths", "resets"])
def test_every_type(device, dtype, modes):
    same_as_launches(device, RECURRENT[0].cell, MODES[modes], as_dtype(dtype))


@pytest.mark.parametrize("device", GPUS, indirect=True)
@pytest.mark.parametrize("modes", ["plain", "lengths", "resets"])
def test_a_projection(device, modes):
    same_as_launches(device, RECURRENT[0].cell, MODES[modes], P=3)


@pytest.mark.parametrize("device", GPUS, indirect=True)
@pytest.mark.parametrize("masks", ["lengths", "reset"])
def test_modes_are_those_of_each_call(device, masks):
    """Other lengths and other noise replay the same graph, or another where other steps have all sequences alive."""
    cell, rng = RECURRENT[0].cell, np.random.default_rng(5)
    given = arguments(device, rng, cell)
    x = device.asarray(rng.standard_normal((T, B, D)).astype(np.float32))
    taken = []
    for turn, lengths in enumerate([[4, 2, 4], [2, 4, 4], [4, 3, 0], [0, 4, 2], [3, 0, 4], [4, 4, 2], [1, 0, 4]]):
        reset = np.arange(T * B).reshape(T, B) % 3 == turn % 3
        reset[:2] &= turn > 1
        modes = {masks: {"lengths": lengths, "reset": reset}[masks], "recurrent_dropout": Noise(0.3, turn)}
        modes["zoneout"] = (Noise(0.4, turn), Noise(0.4, turn + 50))
        for path in ("auto", "reference"):
            with gl.explain() as runs:
                outputs, pullback = recurrent(x, *given, cell=cell, path=path, **modes)
            gradients = pullback(*(device.xp.ones(y.shape, y.dtype) for y in outputs))
            arrays = [None if a is None else device.to_numpy(a) for a in (*outputs, *gradients)]
            if path == "auto":
                got = arrays
                taken.append(runs[0].path)
        for mine, want in zip(got, arrays, strict=True):
            if want is not None:
                np.testing.assert_allclose(mine, want, rtol=1e-4, atol=1e-5)
    assert taken.count("graph") >= 3


# -- what the host does ----------------------------------------
def trained(layer, x, dy):
    y = layer(x)[0]
    y.backward(dy)
    for p in layer.parameters():
        p.grad = None


@pytest.mark.parametrize("make", [gl.LSTM, gl.GRU, gl.LayerNormLSTM, lambda *sizes: gl.LSTM(*sizes, proj_size=4)])
def test_a_training_step_is_a_few_launches_and_waits_for_nothing(emulated, make):
    layer = make(8, 16)
    x = gl.tensor(np.ones((512, 2, 8), np.float32), device="cuda", requires_grad=True)
    dy = gl.tensor(np.ones((512, 2, layer.output_size), np.float32), device="cuda")
    pool = emulated.cuda.MemoryPool()
    with emulated_cuda.gpu(idle=1), emulated.cuda.using_allocator(pool.malloc):
        for _ in range(4):
            trained(layer, x, dy)
            x.grad = None
        with emulated_cuda.counted() as counts:
            trained(layer, x, dy)
    launched = counts.launches + counts.graph_launches + counts.products + counts.copies + counts.fills
    assert counts.graph_launches == 2 and launched <= 12
    assert counts.waits == 0 and counts.allocations == 0


# -- several sequences at once ----------------------------------------
@pytest.mark.parametrize("device", GPUS, indirect=True)
def test_sequences_whose_way_back_is_still_to_come_keep_what_they_need(device):
    """A layer that is used twice before backward, and one backward that runs twice."""
    layer = gl.LSTM(D, H, device=device.name)
    rng = np.random.default_rng(0)
    xs = [gl.tensor(rng.standard_normal((T, B, D)).astype(np.float32), device=device.name) for _ in range(3)]

    def gradients(path):
        layer.path = path
        for p in layer.parameters():
            p.grad = None
        losses = [(layer(x)[0] ** 2).sum() for x in xs]
        for loss in losses:
            loss.backward(retain_graph=True)
        losses[1].backward()
        return [device.to_numpy(p.grad) for p in layer.parameters()]

    want = gradients("reference")
    for _ in range(3):
        for got, wanted in zip(gradients("auto"), want, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
    gc.collect()
    plans = [plan for each in graphs.graphs_of(device)._plans.values() for plan in each]
    assert len(plans) == 3 and not any(plan.busy for plan in plans)


@pytest.mark.parametrize("device", GPUS, indirect=True)
def test_weights_may_change_in_place_or_be_others(device):
    x = gl.tensor(np.ones((T, B, D), np.float32), device=device.name)
    layers = [gl.LSTM(D, H, device=device.name) for _ in range(2)]
    for _, layer in itertools.product(range(3), layers):
        with gl.no_grad():
            for p in layer.parameters():
                p *= 0.5
        want = gl.LSTM(D, H, device=device.name, path="reference")
        want.load_state_dict(layer.state_dict())
        np.testing.assert_allclose(layer(x)[0].numpy(), want(x)[0].numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("device", GPUS, indirect=True)
def test_outputs_stay_what_they_are(device):
    layer = gl.GRU(D, H, device=device.name)
    with gl.no_grad():
        ys = [layer(gl.tensor(np.full((T, B, D), k, np.float32), device=device.name))[0] for k in range(5)]
    for k, y in enumerate(ys):
        again = gl.GRU(D, H, device=device.name, path="reference")
        again.load_state_dict(layer.state_dict())
        x = gl.tensor(np.full((T, B, D), k, np.float32), device=device.name)
        np.testing.assert_allclose(y.numpy(), again(x)[0].numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("device", GPUS, indirect=True)
def test_the_path_may_be_named(device):
    x = np.ones((T, B, D), np.float32)
    for path, taken in (("graph", ["graph"] * 3), ("kernel", ["kernel"] * 3), ("auto", ["kernel", "graph", "graph"])):
        assert [run.path for run in paths(gl.LSTM(D, H, path=path, device=device.name), x, 3)] == taken
    with pytest.raises(NoKernel, match="path 'graph' keeps the whole sequence, which recompute=True avoids"):
        gl.LSTM(D, H, path="graph", recompute=True, device=device.name)(x)
    with pytest.raises(
        NoKernel, match="path 'graph' cannot serve this mingru: a mingru is computed by a scan, not in steps"
    ):
        gl.MinGRU(D, H, path="graph", device=device.name)(x)


@pytest.mark.parametrize("device", GPUS, indirect=True)
def test_the_fused_kernels_are_replayed_too(device):
    rng = np.random.default_rng(8)
    given, counts = arguments(device, rng, RECURRENT[0].cell), []
    state = rng.bit_generator.state
    got = []
    for _ in range(3):
        rng.bit_generator.state = state
        got.append(step(device, rng, given, RECURRENT[0].cell, MODES["lengths"], path="fused"))
        counts.append(sum(len(plans) for plans in graphs.graphs_of(device)._plans.values()))
    assert [path for path, _ in got] == ["fused"] * 3 and counts == [0, 1, 1]
    assert got[0][1] == got[1][1] == got[2][1]


def test_products_of_two_streams_have_workspaces_of_their_own_and_captured_ones_that_of_their_stream(emulated):
    backend = gl.device("cuda").backend
    a = backend.zeros((2, 2), np.float32)
    other = emulated.cuda.Stream(non_blocking=True)
    backend.multiply(a, a, backend.empty((2, 2), np.float32))
    with other:
        backend.multiply(a, a, backend.empty((2, 2), np.float32))
    mine = backend._products._mine
    assert set(mine.workspaces) == {emulated.cuda.get_current_stream().ptr, other.ptr}
    assert len({w.data.ptr for w in mine.workspaces.values()}) == 2
    paths(gl.LSTM(D, H), np.ones((T, B, D), np.float32), 3)
    assert len(mine.workspaces) == 2
    for _ in range(20):
        with emulated.cuda.Stream(non_blocking=True):
            backend.multiply(a, a, backend.empty((2, 2), np.float32))
    assert len(mine.workspaces) <= 8


# -- what cannot be captured, and what is too much ----------------------------------------
def paths(layer, x, times):
    with gl.explain() as runs, gl.no_grad():
        for _ in range(times):
            layer(x)
    return runs


def test_what_cannot_be_captured_runs_as_it_is(emulated, monkeypatch):
    def broken(self, *arguments):
        raise ValueError("no capture today")

    monkeypatch.setattr(graphs._Plan, "_captured", broken)
    x = np.ones((T, B, D), np.float32)
    runs = paths(gl.LSTM(D, H), x, 3)
    assert [run.path for run in runs] == ["kernel"] * 3
    assert "the first sequence of its shape" in runs[0].why_not_faster
    assert all("failed: ValueError: no capture today" in run.why_not_faster for run in runs[1:])


def test_a_loop_that_waits_is_not_captured_and_leaves_no_capture_behind(emulated, monkeypatch):
    def waiting(self, *arguments):
        outputs = run(self, *arguments)
        emulated.cuda.runtime.streamSynchronize(emulated.cuda.get_current_stream().ptr)
        return outputs

    run = Loop.run
    monkeypatch.setattr(Loop, "run", waiting)
    layer, x = gl.LSTM(D, H), np.ones((T, B, D), np.float32)
    runs = paths(layer, x, 3)
    assert [run.path for run in runs] == ["kernel"] * 3
    assert "failed: CUDARuntimeError: cudaErrorStreamCapture" in runs[2].why_not_faster
    monkeypatch.undo()
    assert [run.path for run in paths(gl.LSTM(D, H), x, 2)] == ["kernel", "graph"]


def test_a_way_back_that_cannot_be_captured_runs_as_it_is(emulated, monkeypatch):
    def waiting(self, *cotangents):
        gradients = pullback(self, *cotangents)
        emulated.cuda.runtime.streamSynchronize(emulated.cuda.get_current_stream().ptr)
        return gradients

    pullback = Loop.pullback
    monkeypatch.setattr(Loop, "pullback", waiting)
    device, cell = gl.device("cuda").backend, RECURRENT[0].cell
    rng = np.random.default_rng(3)
    given = arguments(device, rng, cell)
    state, got = rng.bit_generator.state, []
    for _ in range(3):
        rng.bit_generator.state = state
        got.append(step(device, rng, given, cell, {}))
    assert [path for path, _ in got] == ["kernel", "graph", "graph"] and got[0][1] == got[1][1] == got[2][1]


def test_plans_are_bounded_in_number_and_memory(emulated, monkeypatch):
    monkeypatch.setattr(graphs, "_MOST_PLANS", 2)
    layer = gl.LSTM(D, H)
    for steps in (2, 3, 4, 5):
        paths(layer, np.ones((steps, B, D), np.float32), 2)
    held = graphs.graphs_of(gl.device("cuda").backend)._plans
    assert len(held) == 2 and [key[5][0] for key in held] == [4, 5]
    gl.device("cuda").backend.graphs = None
    monkeypatch.setattr(graphs, "_SHARE", 1e-9)
    runs = paths(layer, np.ones((T, B, D), np.float32), 3)
    assert [run.path for run in runs] == ["kernel"] * 3
    assert "more than a quarter of the device's memory" in runs[2].why_not_faster

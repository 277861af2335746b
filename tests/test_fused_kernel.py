"""kernels/sequence_*.cu, the recurrent product and the gates in one kernel: both forms, every tile, type and mode."""

import dataclasses
import itertools

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.backend import CPU
from gpulstm.building import kernel_folder
from gpulstm.cells import Kernels, gru, layer_norm, lstm, mingru, peephole, rnn
from gpulstm.dtypes import as_dtype
from gpulstm.errors import NoKernel
from gpulstm.functional import fused_steps, recurrent
from gpulstm.functional.fused_steps import Tile
from gpulstm.functional.sequence import Noise
from tests import own_cells
from tests.cases import CELL_CASES
from tests.conftest import GPUS
from tests.tolerances import assert_close, assert_ratio

pytestmark = pytest.mark.parametrize("device", GPUS, indirect=True)
BEFORE, FULL = gru.cell("before"), peephole.cell("full")  # their steps have a second product
SERVED = [case for case in CELL_CASES if not fused_steps.why_no_turns(case.cell)]
TYPES = ("float32", "float64", "float16", "bfloat16", "tf32")
MODES = {
    "lengths": {"lengths": [0, 5, 3, 1, 4]},
    "holes": {"mask": np.arange(25).reshape(5, 5) % 3 > 0, "reverse": True},
    "resets": {"reset": np.arange(25).reshape(5, 5) % 4 == 1, "recurrent_dropout": Noise(0.3, 7)},
    "resets reversed": {"reset": np.arange(25).reshape(5, 5) % 4 == 1, "reverse": True},
    "zoneout": {"zoneout": (Noise(0.3, 1), Noise(0.2, 2)), "lengths": [5, 2, 0, 5, 3]},
    "mean zoneout": {"zoneout": (Noise(0.3, None), Noise(0.2, None)), "reset": np.arange(25).reshape(5, 5) % 7 == 3},
}


def sequence(cell, T, B, H, D=3, seed=0, biases=2):
    """(arguments of functional.recurrent, gradients of its outputs), float64 on the host."""
    rng, G = np.random.default_rng(seed), len(cell.gates)
    make = rng.standard_normal
    states = [make((B, H)) for _ in cell.states]
    if "n" in cell.states:  # sLSTM divides by it: near zero no two ways to compute it are close
        states[cell.states.index("n")] = 1 + rng.random((B, H))
    weights = [make((G * H, D)), make((G * H, H)) / np.sqrt(H), *(make(G * H) for _ in range(biases))]
    weights += [None] * (2 - biases)
    shapes = [(form.blocks * H, H) if form.matrix else (form.blocks * H,) for form in cell.extra]
    extra = [make(shape) / np.sqrt(H) ** (len(shape) - 1) for shape in shapes]
    cotangents = [make((T, B, H)), *(make((B, H)) for _ in cell.states)]
    return [make((T, B, D)), *states, *weights, None, *extra], cotangents


def run(backend, dtype, path, cell, given, cotangents, **modes):
    """All outputs and gradients, None where there is none."""
    arguments, d = (
        [None if a is None else backend.asarray(a.astype(dtype)) for a in part] for part in (given, cotangents)
    )
    outputs, pullback = recurrent(*arguments, cell=cell, path=path, **modes)
    return [*outputs, *pullback(*d)]


def rounded(arrays, dtype):
    """What an array of the type can hold, as float64."""
    return [None if a is None else a.astype(dtype).astype(np.float64) for a in arrays]


def check(device, kind, cell, T, B, H, path="fused", through=None, **modes):
    """The path against the equations in float64, by the ratio rule; what it gives."""
    dtype = as_dtype("float32" if kind == "tf32" else kind)
    given, cotangents = (rounded(part, dtype) for part in sequence(cell, T, B, H))
    if through is not None:
        cotangents = [d if wanted else None for d, wanted in zip(cotangents, through, strict=True)]
    with gl.precision("tf32" if kind == "tf32" else "ieee"):
        got = run(device, dtype, path, cell, given, cotangents, **modes)
    plain, want = (run(CPU, np.dtype(t), "reference", cell, given, cotangents, **modes) for t in ("f4", "f8"))
    for number, (mine, other, reference) in enumerate(zip(got, plain, want, strict=True)):
        name = f"output {number}"
        if reference is None:
            assert mine is None
        elif kind == "float64":
            assert_close(mine, reference, name)
        else:
            assert_ratio(mine, other, reference, name, row=kind)
    return got


def as_bytes(device, arrays):
    return [None if a is None else device.to_numpy(a).tobytes() for a in arrays]


# -- against the equations ----------------------------------------
@pytest.mark.parametrize("case", SERVED, ids=lambda case: case.name)
def test_every_cell_equals_its_equations(device, case):
    check(device, "float32", case.cell, 4, 5, 19)
    check(device, "float32", case.cell, 5, 5, 6, **MODES["zoneout" if len(case.cell.states) > 1 else "holes"])


@pytest.mark.parametrize("make", [own_cells.rich, own_cells.middle, own_cells.wide], ids=lambda make: make.__name__)
def test_cells_of_the_users_own_with_several_products(device, make, tmp_path):
    """Two states multiplied, gates without a product, an inner product of two gates; with dropout and resets."""
    cell = make(tmp_path)
    check(device, "float32", cell, 4, 5, 19)
    check(device, "float32", cell, 5, 5, 10, **MODES["resets"])


@pytest.mark.parametrize(
    ("kind", "cell"),
    [
        *((kind, lstm.CELL) for kind in TYPES),
        ("float16", gru.CELL),
        ("bfloat16", peephole.CELL),
        ("tf32", rnn.CELL),
        ("float16", BEFORE),
        ("bfloat16", FULL),
        ("tf32", FULL),
        ("float64", FULL),
    ],
)
def test_every_type_equals_the_equations(device, kind, cell):
    for T, B, H in ((1, 1, 1), (3, 1, 33), (3, 9, 20)):
        check(device, kind, cell, T, B, H)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cell", [lstm.CELL, gru.CELL, BEFORE, FULL], ids=lambda cell: cell.kernel.struct)
def test_every_mode_equals_the_equations(device, cell, mode):
    modes = dict(MODES[mode])
    if len(cell.states) == 1 and "zoneout" in modes:
        modes["zoneout"] = (modes["zoneout"][0], None)
    check(device, "float32", cell, 5, 5, 10, **modes)


@pytest.mark.parametrize("through", list(itertools.product((False, True), repeat=3)), ids=str)
def test_gradients_arrive_from_any_output(device, through):
    check(device, "float32", lstm.CELL, 5, 5, 10, through=through, **MODES["lengths"])


@pytest.mark.slow
@pytest.mark.parametrize("cell", [lstm.CELL, FULL], ids=lambda cell: cell.kernel.struct)
@pytest.mark.parametrize("kind", ["float32", "float64", "tensor"])
def test_every_tile_equals_the_equations(device, monkeypatch, kind, cell):
    ways = [fused_steps.tiles_of(cell, way, np.dtype("f8" if kind == "float64" else "f4"), kind == "tensor")
            for way in ("forward", "backward")]  # fmt: skip
    for forward, backward in itertools.zip_longest(*ways, fillvalue=ways[1][0]):
        tiles = {"forward": forward, "backward": backward}
        monkeypatch.setattr(fused_steps, "tile_of", lambda cell, B, H, way, *rest, tiles=tiles: tiles[way])
        for dtype in ("float16", "tf32") if kind == "tensor" else (kind,):
            for T, B, H in ((2, 35, 67), (2, 32, 9)):  # parts of a tile, and whole ones
                check(device, dtype, cell, T, B, H)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_a_device_without_tensor_cores_computes_the_same(device, monkeypatch, kind):
    monkeypatch.setattr(fused_steps, "tensor_cores", lambda dtype, capability: False)
    check(device, kind, lstm.CELL, 3, 9, 35)


def test_the_small_fragments_of_the_first_tensor_cores_compute_the_same(device, monkeypatch):
    macros = Tile.macros
    bits = [as_bytes(device, check(device, "float16", lstm.CELL, 3, 9, 35))]
    monkeypatch.setattr(Tile, "macros", lambda *args: (*macros(*args), "SMALL_FRAGMENTS"))
    bits.append(as_bytes(device, check(device, "float16", lstm.CELL, 3, 9, 35)))
    assert bits[0] == bits[1]  # the same order of sums, as far as the processor's body goes


def test_without_biases_states_or_a_batch(device):
    given, cotangents = sequence(lstm.CELL, 3, 2, 5, biases=0)
    given[1:3] = None, None
    got = run(device, np.dtype(float), "fused", lstm.CELL, given, cotangents)
    want = run(CPU, np.dtype(float), "reference", lstm.CELL, given, cotangents)
    for mine, reference in zip(got, want, strict=True):
        assert (mine is None) == (reference is None)
        if mine is not None:
            assert_close(mine, reference)
    check(device, "float32", lstm.CELL, 3, 0, 5)


def test_a_pullback_may_be_called_twice(device):
    given, cotangents = sequence(gru.CELL, 4, 3, 5)
    arguments, d = ([None if a is None else device.asarray(a) for a in part] for part in (given, cotangents))
    for modes in ({}, {"recompute": True}):
        _, pullback = recurrent(*arguments, cell="gru", path="fused", **modes)
        assert as_bytes(device, pullback(*d)) == as_bytes(device, pullback(*d))


def own_cell(folder, text):
    """The LSTM, as if its kernel were a file of the user's own."""
    file = folder / "own.cuh"
    file.write_text(text, encoding="utf-8")
    return dataclasses.replace(lstm.CELL, kernel=Kernels(str(file), "Lstm"))


def test_a_cell_of_the_users_own_is_served_like_the_librarys(device, tmp_path):
    text = (kernel_folder() / "cells" / "lstm.cuh").read_text(encoding="utf-8")
    check(device, "float32", own_cell(tmp_path, text), 3, 3, 9)
    with pytest.raises(NoKernel, match=r"path 'fused' cannot serve this lstm: own.cuh: the compiler failed"):
        check(device, "float32", own_cell(tmp_path, text.replace("V c = f", "V c = nothing")), 3, 3, 9)


# -- the same bits ----------------------------------------
@pytest.fixture
def many(device):
    """The device, as if it had so many multiprocessors that all blocks run at once."""
    device.kernels.__dict__["multiprocessors"] = 40
    yield device
    del device.kernels.__dict__["multiprocessors"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("cell", [lstm.CELL, gru.CELL, BEFORE, FULL], ids=lambda cell: cell.kernel.struct)
def test_both_forms_and_any_order_of_threads_give_the_same_bits(many, kind, cell):
    """Also where the form with the loop inside has its weights in registers."""
    for T, B, H, modes in ((4, 8, 20, {}), (5, 5, 33, MODES["resets"])):
        runs = [
            as_bytes(many, check(many, kind, cell, T, B, H, path, **modes))
            for path in ("fused", "persistent", "persistent", "fused")
        ]
        assert runs[0] == runs[1] == runs[2] == runs[3]


# -- what it refuses ----------------------------------------
@pytest.mark.parametrize(("cell", "message"), [
    (layer_norm.CELL, "the layer_norm has norms over whole rows"),
    (dataclasses.replace(lstm.CELL, kernel=None), "the lstm has no kernel"),
])  # fmt: skip
def test_a_cell_that_it_does_not_serve_is_refused(device, cell, message):
    assert message in fused_steps.why_no_turns(cell)
    H, G = 4, len(cell.gates)
    arrays = {"w_ih": np.ones((G * H, 2)), "w_hh": np.ones((G * H, H))}
    arrays |= {form.name: np.ones((form.blocks * H, H) if form.matrix else form.blocks * H) for form in cell.extra}
    given = [device.asarray(arrays[name]) if name in arrays else None for name in cell.arguments]
    for path in ("fused", "persistent"):
        with pytest.raises(NoKernel, match=f"path '{path}' cannot serve this {cell.name}: {message}"):
            recurrent(device.asarray(np.ones((2, 1, 2))), *given, cell=cell, path=path)


def test_a_scan_and_a_projection_are_refused(device):
    assert "no product in its step" in fused_steps.why_no_turns(mingru.CELL)
    x, w_ih, w_hh, w_hr = (device.asarray(np.ones(s)) for s in ((2, 1, 2), (16, 2), (16, 3), (3, 4)))
    with pytest.raises(NoKernel, match="h is projected"):
        recurrent(x, None, None, w_ih, w_hh, None, None, w_hr, path="fused")


def test_more_blocks_than_run_at_once_are_refused(device):
    device.kernels.__dict__["multiprocessors"] = 2
    given, cotangents = sequence(lstm.CELL, 2, 3, 80)
    with pytest.raises(NoKernel, match="takes at most 2 blocks, which run at once on this device, got"):
        run(device, np.dtype(float), "persistent", lstm.CELL, given, cotangents)
    del device.kernels.__dict__["multiprocessors"]


def test_a_block_that_waits_in_vain_leaves_and_says_so(many, monkeypatch):
    macros, blocks = Tile.macros, Tile.blocks
    monkeypatch.setattr(Tile, "macros", lambda *args: (*macros(*args), "LOOKS=1000"))
    monkeypatch.setattr(Tile, "blocks", lambda *args: blocks(*args) - 1)
    given, cotangents = sequence(lstm.CELL, 3, 3, 20)
    with pytest.raises(RuntimeError, match="sequence_forward: blocks waited in vain for one another"):
        run(many, np.dtype(float), "persistent", lstm.CELL, given, cotangents)


def test_the_path_is_named(device):
    given, cotangents = sequence(lstm.CELL, 2, 3, 5)
    with gl.explain() as runs:
        run(device, np.dtype(float), "fused", lstm.CELL, given, cotangents)
    assert str(runs).startswith(f"lstm T=2 B=3 D=3 H=5 float64 on {device.name}: fused (the first sequence")
    with gl.explain() as runs:
        layer = gl.LSTM(3, 5, num_layers=2, bidirectional=True, dtype="float64", device=device.name, path="fused")
        layer(gl.Tensor(device.asarray(given[0])))[0].sum().backward()
    assert [each.path for each in runs] == ["fused"] * 4


def test_the_processor_has_no_such_kernel(device):
    given, cotangents = sequence(lstm.CELL, 2, 3, 5)
    with pytest.raises(NoKernel, match="path 'fused' cannot serve this lstm"):
        run(CPU, np.dtype(float), "fused", lstm.CELL, given, cotangents)


def test_a_small_grid_gets_small_tiles_and_a_large_one_large(device):
    half = as_dtype("float16")
    assert fused_steps.tile_of(lstm.CELL, 1, 128, "forward", half, True, 132) == Tile(8, 1)
    assert fused_steps.tile_of(lstm.CELL, 64, 512, "forward", half, True, 132) == Tile(8, 4)
    assert fused_steps.tile_of(lstm.CELL, 4096, 4096, "backward", half, True, 132) == Tile(32, 4, 128)
    assert fused_steps.tile_of(lstm.CELL, 4096, 4096, "backward", half, False, 132) == Tile(32, 1)


def test_tensor_cores_are_used_where_there_are_some(device, monkeypatch):
    half, brain, single = map(as_dtype, ("float16", "bfloat16", "float32"))
    monkeypatch.setenv("CUPY_TF32", "1")  # it is CuPy's own
    for name in ("ieee", "tf32"):
        with gl.precision(name):
            for capability in (70, 75, 80, 120):
                got = [fused_steps.tensor_cores(dtype, capability) for dtype in (half, brain, single)]
                assert got == [capability >= 75, capability >= 80, capability >= 80 and name == "tf32"]

"""The processor's engine: every cell in every mode and in sizes that fill vectors, panels and blocks of steps, the same
bits for any number of threads, and the code for every instruction set that this processor runs."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import gpulstm as gl
from gpulstm import engine, functional
from gpulstm.backend import CPU
from gpulstm.errors import NoKernel
from gpulstm.functional.engine_loop import EngineLoop
from tests.cases import CELL_CASES
from tests.conftest import NoDevice
from tests.test_cells import Configuration, assert_mostly
from tests.tolerances import FACTOR, RELATIVE, ULPS

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(engine.library() is None, reason=f"no engine: {engine.why_none()}")
CASES = [pytest.param(case, id=case.name) for case in CELL_CASES]
# (T, B, D, H): one, a few and many vectors; fewer rows than a tile has and more; more rows than one product of the
# input takes; more than one block of the weight gradients' rows; rows too few to pack weights for; work
# enough for several threads.
SIZES = ((1, 1, 3, 5), (2, 3, 17, 8), (5, 2, 1, 33), (3, 13, 40, 20), (30, 7, 9, 16), (19, 30, 3, 7), (4, 1, 70, 130),
         (9, 16, 40, 130))  # fmt: skip


def allowed_error(case, want: np.ndarray) -> float:
    """1e-12 of the largest element; norms of a few numbers make more of the last digit."""
    return RELATIVE["float64"] / (10 if case.name == "layer_norm" else 100) * np.abs(want).max(initial=1e-2)


class Sized(Configuration):
    """A configuration of given sizes; the modes are random.

    The weights are so small that a recurrence does not make much of the last digit."""

    def __init__(self, case, number: int) -> None:
        super().__init__(case, number)
        self.weights["w_ih"] /= np.sqrt(self.x.shape[2])
        self.weights["w_hh"] /= max(4, np.sqrt(self.weights["w_hh"].shape[1]))

    def drawn_sizes(self, number: int) -> tuple[int, int, int, int]:
        T, B, D, H = SIZES[number % len(SIZES)]
        return T, B, max(D, self.case.smallest), H


def outputs_and_gradients(case, number, path, dtype=np.float64):
    return Sized(case, number).run(CPU, path, dtype)


def assert_same_bits(got: dict, want: dict) -> None:
    for name, value in want.items():
        assert (value is None) == (got[name] is None), name
        assert value is None or value.tobytes() == got[name].tobytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_all_sizes_and_modes_are_the_reference(case):
    for number in range(100):
        want, got = (outputs_and_gradients(case, number, path) for path in ("reference", "engine"))
        for name, value in want.items():
            if value is None:
                assert got[name] is None
                continue
            error = np.abs(got[name] - value).max(initial=0)
            assert error <= allowed_error(case, value), f"{number}: {name}: {error}"


@pytest.mark.parametrize("case", CASES)
def test_float32_is_within_the_ratio(case):
    errors = []
    for number in range(0, 100, 3):
        exact = outputs_and_gradients(case, number, "reference")
        plain, got = (outputs_and_gradients(case, number, path, np.float32) for path in ("reference", "engine"))
        for name, value in exact.items():
            if value is None or not value.size:
                continue
            error, readable = (np.abs(a[name] - value).max() for a in (got, plain))
            allowed = FACTOR * readable + ULPS["float32"] * 2.0**-23 * np.abs(value).max() + 1e-30
            errors.append((f"{number}: {name}", error, allowed))
    # Rounding may take a pre-activation over a corner; what a recurrence makes of that has no bound.
    assert_mostly(errors, np.inf if case.corners else 4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES)
def test_the_bits_do_not_depend_on_the_number_of_threads(case, dtype, monkeypatch):
    before = gl.get_num_threads()
    try:
        for number in (3, 7, 15, 23, 31, 39, 47):
            results = []
            for threads in (1, 2, 3, 5):
                gl.set_num_threads(threads)
                results.append(outputs_and_gradients(case, number, "engine", dtype))
            for other in results[1:]:
                assert_same_bits(other, results[0])
    finally:
        gl.set_num_threads(before)


def lstm_arrays(rng, T=6, B=3, D=5, H=9, dtype=np.float64):
    shapes = ((T, B, D), (B, H), (B, H), (4 * H, D), (4 * H, H), (4 * H,), (4 * H,))
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def test_a_pullback_runs_again_with_the_same_bits_and_leaves_the_outputs_alone(rng):
    arrays = lstm_arrays(rng)
    for inference in (False, True):
        (y, h, c), pullback = functional.recurrent(*arrays, path="engine", inference=inference)
        dy, outputs = rng.standard_normal(y.shape), [y.copy(), h.copy(), c.copy()]
        first, second = ([g.copy() for g in pullback(dy, None, None) if g is not None] for _ in range(2))
        for a, b in zip(first, second, strict=True):
            assert a.tobytes() == b.tobytes()
        for a, b in zip((y, h, c), outputs, strict=True):
            assert a.tobytes() == b.tobytes()


def test_inference_has_the_bits_of_training_and_keeps_nothing(rng):
    arrays = lstm_arrays(rng, T=40, H=200)
    kept, pullback = functional.recurrent(*arrays, path="engine")
    plain, other = functional.recurrent(*arrays, path="engine", inference=True)
    for a, b in zip(kept, plain, strict=True):
        assert a.tobytes() == b.tobytes()

    def held(function) -> int:
        """The bytes that the loop keeps, which one of the functions around its own pullback holds."""
        inside = [cell.cell_contents for cell in function.__closure__ or ()]
        own = [each.__self__.saved.nbytes for each in inside if hasattr(getattr(each, "__self__", None), "saved")]
        return own[0] if own else next(filter(None, (held(each) for each in inside if hasattr(each, "__closure__"))), 0)

    assert 0 < held(other) * 10 < held(pullback)


def test_layers_keep_nothing_where_nothing_is_recorded(rng, monkeypatch):
    kept, begin = [], EngineLoop.begin

    def recorded(self, *args):
        kept.append(self.keep)
        return begin(self, *args)

    monkeypatch.setattr(EngineLoop, "begin", recorded)
    layer, cell = gl.LSTM(3, 4, device="cpu"), gl.LSTMCell(3, 4, device="cpu")
    x = gl.tensor(rng.standard_normal((2, 1, 3)).astype(np.float32), device="cpu")
    layer(x), cell(x[0])
    with gl.no_grad():
        layer(x), cell(x[0])
    layer.requires_grad_(False)
    layer(x)
    assert kept == [True, True, False, False, False]


def test_several_python_threads_at_once_give_the_same_bits(rng):
    arrays = lstm_arrays(rng, T=30, B=16, D=40, H=64, dtype=np.float32)
    dy = rng.standard_normal((30, 16, 64)).astype(np.float32)

    def once():
        outputs, pullback = functional.recurrent(*arrays, path="engine")
        return [*outputs, *(g for g in pullback(dy, None, None) if g is not None)]

    want, wrong = [a.tobytes() for a in once()], []

    def work():
        for _ in range(20):
            if [a.tobytes() for a in once()] != want:
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_values_of_x_that_do_not_count_are_never_used(rng):
    x, *rest = lstm_arrays(rng)
    lengths = np.array([6, 0, 3])
    poisoned = np.where((np.arange(6)[:, None] < lengths)[:, :, None], x, np.nan)
    results = []
    for given in (x, poisoned):
        (y, *_), pullback = functional.recurrent(given, *rest, lengths=lengths, path="engine")
        dy = np.where(y == 0, np.nan, 1.0)  # nor are gradients where y does not count
        results.append([y, *(g for g in pullback(dy, None, None) if g is not None)])
    for a, b in zip(*results, strict=True):
        assert np.isfinite(a).all() and a.tobytes() == b.tobytes()


def test_what_it_cannot_do_it_says(rng, monkeypatch):
    arrays = lstm_arrays(rng)
    monkeypatch.setattr(engine, "why_none", lambda: "no compiler was found")
    with gl.explain() as runs:
        functional.recurrent(*arrays)
    assert runs[0].path == "reference" and "no compiler was found" in str(runs)
    with pytest.raises(NoKernel, match="path 'engine' cannot serve this lstm: no compiler was found"):
        functional.recurrent(*arrays, path="engine")


OF_ANOTHER = """
import json, sys
sys.path.insert(0, {root!r})
import warnings
warnings.simplefilter("error")
import numpy as np
from gpulstm import engine
from tests.test_engine import CELL_CASES, allowed_error, outputs_and_gradients
assert engine.isa() == {isa!r}, engine.isa()
worst = 0.0
for case in CELL_CASES:
    for number in range(28):
        expected, got = (outputs_and_gradients(case, number, path) for path in ("reference", "engine"))
        for name, value in expected.items():
            if value is not None and value.size:
                worst = max(worst, float(np.abs(got[name] - value).max() / allowed_error(case, value)))
print(json.dumps(worst))
"""


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_the_code_for_each_instruction_set_is_the_reference(isa):
    if not engine.library().gpulstm_supports(isa.encode()):
        raise NoDevice(f"this processor does not run {isa}")
    code = OF_ANOTHER.format(root=str(ROOT), isa=isa)
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "GPULSTM_ISA": isa}, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) <= 1

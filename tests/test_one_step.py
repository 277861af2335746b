"""Single steps without gradients go a shorter way through the engine, and are the same steps."""

import copy
import threading

import numpy as np
import pytest

import gpulstm as gl
from gpulstm import engine
from gpulstm.functional.engine_loop import EngineStep
from gpulstm.functional.one_step import Steps

CELLS = [
    gl.LSTMCell, gl.GRUCell, gl.RNNCell, gl.CoupledLSTMCell, gl.SLSTMCell, gl.PeepholeLSTMCell, gl.LayerNormLSTMCell,
    gl.GeneralLSTMCell, gl.MinLSTMCell, gl.MinGRUCell,
]  # fmt: skip
SHORT = CELLS[:5]  # those whose parameters are the two weights and the two biases
D, H = 5, 7


@pytest.fixture
def made(monkeypatch):
    """How many steps the engine was told of."""
    count = []
    prepare = EngineStep.__init__
    monkeypatch.setattr(EngineStep, "__init__", lambda self, *given: (count.append(given), prepare(self, *given))[1])
    return count


def states_of(cell, rng, B, dtype=np.float32) -> tuple:
    return tuple(rng.standard_normal((B, H)).astype(dtype) for _ in cell.cell.states)


def step(cell, x, states, grad=False) -> list:
    """The states after a step, on the shorter way or, as if for gradients, on the longer one."""
    hx = None if states is None else states if len(cell.cell.states) > 1 else states[0]
    if grad:
        after = cell(x, hx)
    else:
        with gl.no_grad():
            after = cell(x, hx)
    assert all(isinstance(state, gl.Tensor) for state in (after if isinstance(after, tuple) else [after]))
    return [state.numpy() for state in (after if isinstance(after, tuple) else [after])]


def assert_same(got: list, want: list) -> None:
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", CELLS)
def test_the_steps_are_the_same(kind, dtype, rng, made):
    cell = kind(D, H, device="cpu", dtype=dtype)
    for B in (1, 3, 3, 20, 0, 1):
        x, states = rng.standard_normal((B, D)).astype(dtype), states_of(cell, rng, B, dtype)
        for given in (states, None, (*states[:-1], None)):
            assert_same(step(cell, x, given), step(cell, x, given, grad=True))
    if kind in SHORT and engine.library() is not None:
        assert len(made) == 4, "one for each number of sequences"
    for x in (rng.standard_normal((6, D)).astype(dtype)[::2], rng.standard_normal(D).astype(dtype)):  # another way
        states = states_of(cell, rng, 3, dtype) if x.ndim == 2 else tuple(s[0] for s in states_of(cell, rng, 1, dtype))
        assert_same(step(cell, x, states), step(cell, x, states, grad=True))


@pytest.mark.parametrize("kind", SHORT)
def test_weights_may_change_in_place_and_be_replaced(kind, rng):
    cell = kind(D, H, device="cpu")
    x, states = rng.standard_normal((2, D)).astype(np.float32), states_of(cell, rng, 2)
    first = step(cell, x, states)
    cell.load_state_dict({name: array + 0.1 for name, array in cell.state_dict().items()})
    second = step(cell, x, states)
    assert not np.array_equal(first[0], second[0])
    assert_same(second, step(cell, x, states, grad=True))
    for parameter in cell.parameters():
        parameter.data = parameter.data * np.float32(2)
    assert_same(step(cell, x, states), step(cell, x, states, grad=True))
    cell.bias_ih = None
    assert_same(step(cell, x, states), step(cell, x, states, grad=True))
    cell.double()
    x, states = x.astype(np.float64), tuple(state.astype(np.float64) for state in states)
    assert_same(step(cell, x, states), step(cell, x, states, grad=True))


def test_what_is_given_is_checked_as_ever():
    cell = gl.LSTMCell(D, H, device="cpu")
    x, h = np.zeros((2, D), np.float32), np.zeros((2, H), np.float32)
    for _ in range(2):
        for given, error, words in (
            ((x[:, :4], (h, h)), gl.ShapeError, "x: expected"),
            ((x, (h, h[:1])), gl.ShapeError, "c: expected"),
            ((x, h), gl.ShapeError, "hx: expected a pair"),
            ((x, (h, h, h)), gl.ShapeError, "hx: expected a pair"),
            ((x.astype(np.float64), (h, h)), gl.DTypeError, "x: expected float32"),
            ((x, (h, h.astype(np.float64))), gl.DTypeError, "c: expected float32"),
            (([1.0], (h, h)), gl.DTypeError, "x: expected an array"),
        ):
            with gl.no_grad(), pytest.raises(error, match=words):
                cell(*given)
        with gl.no_grad():
            cell(x, (h, h))


@pytest.mark.parametrize(
    ("name", "shape"), [("weight_ih", (4 * H, D + 1)), ("weight_hh", (4 * H, H + 1)), ("bias_hh", (4 * H - 1,))]
)
def test_weights_that_do_not_fit_are_named(name, shape):
    cell = gl.LSTMCell(D, H, device="cpu")
    step(cell, np.zeros((2, D), np.float32), None)
    setattr(cell, name, gl.Parameter(np.zeros(shape, np.float32)))
    with pytest.raises(gl.ShapeError, match=name.replace("weight", "w").replace("bias", "b")):
        step(cell, np.zeros((2, D), np.float32), None)


def test_results_are_memory_of_their_own(rng):
    cell = gl.LSTMCell(D, H, device="cpu")
    x, states = rng.standard_normal((2, D)).astype(np.float32), states_of(cell, rng, 2)
    first = step(cell, x, states)
    kept = [state.copy() for state in first]
    step(cell, 2 * x, first)
    assert_same(first, kept)


def test_copies_and_files_know_nothing_of_it(rng, tmp_path):
    cell = gl.LSTMCell(D, H, device="cpu")
    x, states = rng.standard_normal((2, D)).astype(np.float32), states_of(cell, rng, 2)
    want, names = step(cell, x, states), set(vars(cell))
    assert set(vars(cell)) == names
    other = copy.deepcopy(cell)
    other.load_state_dict({name: 0 * array for name, array in other.state_dict().items()})
    assert not np.array_equal(step(other, x, states)[0], want[0])
    assert_same(step(cell, x, states), want)
    gl.save(tmp_path / "cell.safetensors", cell)


def test_it_is_explained_and_only_the_engines():
    cell, x = gl.LSTMCell(D, H, device="cpu"), np.zeros((2, D), np.float32)
    with gl.explain() as slow:
        cell(x)
    with gl.explain() as runs:
        step(cell, x, None)
        step(cell, x, None)
    assert list(runs) == [slow[0]] * 2
    with gl.explain() as runs:
        step(gl.LSTMCell(D, H, device="cpu", path="reference"), x, None)
    assert runs[0].path == "reference"


def test_few_sizes_are_kept():
    cell, steps = gl.LSTMCell(D, H, device="cpu"), Steps()
    weights = [parameter.data for parameter in cell.parameters()]
    if engine.library() is None:
        pytest.skip(engine.why_none())
    for B in range(1, 3 * Steps.MOST):
        steps.after(cell.cell, np.zeros((B, D), np.float32), [None, None], weights)
        assert len(steps._free) <= Steps.MOST


def test_threads_do_not_meet(rng):
    cell = gl.LSTMCell(D, 64, device="cpu")
    x = rng.standard_normal((8, 3, D)).astype(np.float32)
    want, wrong = [], []

    def chain(k) -> np.ndarray:
        hx = None
        with gl.no_grad():
            for _ in range(50):
                hx = cell(x[k], hx)
        return hx[0].numpy()

    want = [chain(k) for k in range(8)]
    workers = [
        threading.Thread(target=lambda k=k: wrong.append(not np.array_equal(chain(k), want[k]))) for k in range(8)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == [False] * 8

"""The recurrent function: every path on every device against the equations written out, and the gradients
against central differences."""

import numpy as np
import pytest

import gpulstm as gl
from gpulstm import functional
from gpulstm.backend import CPU
from gpulstm.errors import DTypeError, NoKernel, ShapeError
from gpulstm.functional.sequence import Noise
from tests.cases import SEQUENCES, SequenceCase, arguments, fast_path, paths
from tests.first_principles import by_number
from tests.tolerances import assert_close, assert_ratio

NAMES = ("y", "h_n", "c_n", "dx", "dh0", "dc0", "dw_ih", "dw_hh", "db_ih", "db_hh", "dw_hr")


def run(backend, case, given, cotangents, path="auto", dtype=np.float64):
    """[y, h_n, c_n, dx, ...] on the host, computed on ``backend``."""

    def there(array):
        if array is None:
            return None
        return backend.asarray(array)[...].astype(dtype, order="K") if case.strided else backend.asarray(array, dtype)

    lengths = None if case.lengths is None else np.array(case.lengths)
    with backend:
        outputs, pullback = functional.recurrent(*map(there, given), lengths=lengths, reverse=case.reverse, path=path)
        gradients = pullback(*map(there, cotangents))
    return [None if a is None else backend.to_numpy(a) for a in (*outputs, *gradients)]


@pytest.mark.parametrize("case", [c for c in SEQUENCES if c.H < 100 and c.T < 100], ids=str)
def test_reference_equals_first_principles(case, rng):
    given, cotangents = arguments(case, rng)
    got = run(CPU, case, given, cotangents, "reference")
    want = by_number.lstm(*given, lengths=case.lengths, reverse=case.reverse)
    for name, a, b in zip(NAMES, got[:3], want, strict=False):
        assert_close(a, b, name=name)


def test_reference_gradients_are_central_differences(rng):
    eps = 1e-6
    for case in (
        SequenceCase("plain", T=3, B=2, D=2, H=3),
        SequenceCase("all", T=4, B=3, D=2, H=3, P=2, lengths=(4, 0, 2), reverse=True),
    ):
        given, cotangents = arguments(case, rng)
        gradients = run(CPU, case, given, cotangents, "reference")[3:]

        def loss(case=case, given=given, cotangents=cotangents):
            outputs = by_number.lstm(*given, lengths=case.lengths, reverse=case.reverse)
            return sum((o * d).sum() for o, d in zip(outputs, cotangents, strict=True))

        for array, gradient in zip(given, gradients, strict=True):
            if array is None:
                assert gradient is None
                continue
            numeric = np.empty_like(array)
            for at in np.ndindex(array.shape):
                kept = array[at]
                array[at] = kept + eps
                up = loss()
                array[at] = kept - eps
                numeric[at] = (up - loss()) / (2 * eps)
                array[at] = kept
            np.testing.assert_allclose(gradient, numeric, rtol=1e-3, atol=1e-5)
            assert np.abs(gradient).max() > 1e-3  # a gradient of zeros would be no test


@pytest.mark.parametrize("case", SEQUENCES, ids=str)
def test_every_path_equals_the_reference_in_float64(device, case, rng):
    given, cotangents = arguments(case, rng)
    want = run(CPU, case, given, cotangents, "reference")
    for path in paths(device):
        got = run(device, case, given, cotangents, path)
        for name, a, b in zip(NAMES, got, want, strict=True):
            if b is None:
                assert a is None, f"{path}: {name}"
            else:
                assert_close(a, b, name=f"{path}: {name}")


@pytest.mark.parametrize("case", SEQUENCES[:-2:3], ids=str)
def test_float32_error_is_within_the_ratio(device, case, rng):
    given, cotangents = arguments(case, rng)
    exact = run(CPU, case, given, cotangents, "reference")
    plain = run(CPU, case, given, cotangents, "reference", np.float32)
    for path in paths(device):
        got = run(device, case, given, cotangents, path, np.float32)
        for name, a, b, c in zip(NAMES, got, plain, exact, strict=True):
            if c is not None:
                assert a.dtype == np.float32
                assert_ratio(a, b, c, name=f"{path}: {name}")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_are_stored_as_such_and_computed_wider(device, dtype, rng):
    dtype = gl.as_dtype(dtype)
    case = SequenceCase("half", T=6, B=4, D=8, H=8, lengths=(6, 2, 0, 5))
    given, cotangents = arguments(case, rng)
    # The exact result for the numbers as they are stored.
    rounded = [None if a is None else a.astype(dtype).astype(np.float64) for a in (*given, *cotangents)]
    exact = run(CPU, case, rounded[:8], rounded[8:], "reference")
    got = run(device, case, given, cotangents, dtype=dtype)
    unit = 2.0**-10 if dtype.name == "float16" else 2.0**-7  # one unit in the last place of 1
    for name, a, b in zip(NAMES, got, exact, strict=True):
        if b is not None:
            assert a.dtype == dtype, name
            scale = np.abs(b).max()
            # A step rounds h, its gates and its gradients once each; six steps add up to a few units.
            assert np.abs(a.astype(np.float64) - b).max() <= 6 * unit * scale, name
            assert scale > 0, name


def test_padding_is_never_read(device, rng):
    case = SequenceCase("padding", lengths=(2, 0, 4), P=2)
    given, cotangents = arguments(case, rng)
    want = run(device, case, given, cotangents)
    ended = np.arange(case.T)[:, None] >= np.array(case.lengths)
    given[0][ended] = np.nan
    cotangents[0][ended] = np.nan
    for name, a, b in zip(NAMES, run(device, case, given, cotangents), want, strict=True):
        assert_close(a, b, name=name)


def test_chunks_with_carried_state_equal_the_whole(device, rng):
    case = SequenceCase("whole", T=6)
    given, _ = arguments(case, rng)
    whole = run(device, case, given, (None, None, None))
    x, h, c = given[:3]
    parts = []
    for chunk in (x[:2], x[2:]):
        y, h, c = run(device, case, [chunk, h, c, *given[3:]], (None, None, None))[:3]
        parts.append(y)
    assert_close(np.concatenate(parts), whole[0])
    assert_close(c, whole[2])


def test_pullback_can_be_called_again(device, rng):
    case = SequenceCase("twice", lengths=(5, 0, 2))
    given, cotangents = arguments(case, rng)
    arrays = [None if a is None else device.asarray(a) for a in given]
    cotangents = [device.asarray(d) for d in cotangents]
    _, pullback = functional.recurrent(*arrays, lengths=case.lengths)
    first, second = pullback(*cotangents), pullback(*cotangents)
    for a, b in zip(first, second, strict=True):
        assert a is b is None or (device.to_numpy(a) == device.to_numpy(b)).all()


@pytest.mark.parametrize("cell", ["lstm", "mingru"])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda dy, dh: (dy[:, :1], dh), ShapeError, r"dy: expected \(5, 3, 5\) = the shape of y, got \(5, 1, 5\)"),
        (lambda dy, dh: (dy[:4], dh), ShapeError, r"dy: expected \(5, 3, 5\)"),
        (lambda dy, dh: (dy[0], dh), ShapeError, r"dy: expected \(5, 3, 5\)"),
        (lambda dy, dh: (dy, dh[:1]), ShapeError, r"dh_n: expected \(3, 5\) = the shape of h_n, got \(1, 5\)"),
        (lambda dy, dh: (dy, 1.0), DTypeError, "dh_n: expected an array of .*, got float"),
        (lambda dy, dh: (dy.astype(np.complex64), dh), DTypeError, "dy: expected an array of float.*, got complex64"),
        (lambda dy, dh: (dy,), ShapeError, "pullback: expected dy, dh_n.* each an array or None, got"),
    ],
)
def test_gradients_that_do_not_fit_the_outputs_are_named(device, rng, cell, change, error, message):
    G, states = (4, 2) if cell == "lstm" else (2, 1)
    x, w_ih, w_hh = (rng.standard_normal(shape) for shape in ((5, 3, 4), (G * 5, 4), (G * 5, 5)))
    weights = [device.asarray(w_ih), device.asarray(w_hh) if cell == "lstm" else None]
    outputs, pullback = functional.recurrent(device.asarray(x), *[None] * states, *weights, cell=cell)
    dy, dh = (device.asarray(rng.standard_normal(output.shape)) for output in outputs[:2])
    cotangents = change(dy, dh)
    with pytest.raises(error, match=message):
        pullback(*cotangents, *[None] * (states - 1 if len(cotangents) == 2 else 0))
    assert pullback(dy, dh, *[None] * (states - 1))[0].shape == x.shape


@pytest.mark.parametrize(
    ("modes", "error", "message"),
    [
        (
            {"zoneout": (None, Noise(0.1, 1)), "cell": "gru"},
            ShapeError,
            "zoneout: expected None for the other states, as a gru has h alone",
        ),
        ({"zoneout": Noise(0.1, 1)}, DTypeError, "zoneout: expected a pair"),
        ({"zoneout": (0.1, None)}, DTypeError, "zoneout: expected Noise or None, got 0.1"),
        ({"recurrent_dropout": 0.1}, DTypeError, "recurrent_dropout: expected Noise or None, got 0.1"),
    ],
)
def test_noise_that_does_not_fit_is_named(device, rng, modes, error, message):
    G, states = (3, 1) if modes.get("cell") == "gru" else (4, 2)
    x, w_ih, w_hh = (device.asarray(rng.standard_normal(s)) for s in ((5, 3, 4), (G * 5, 4), (G * 5, 5)))
    with pytest.raises(error, match=message):
        functional.recurrent(x, *[None] * states, w_ih, w_hh, **modes)
    with pytest.raises(ShapeError, match=r"rate: expected a number from 0 to 1, got 2.0"):
        Noise(2.0, None)


def test_arguments_are_left_as_they_were(device, rng):
    case = SequenceCase("kept", lengths=(5, 0, 2), P=2)
    given, cotangents = arguments(case, rng)
    arrays = [device.asarray(a.copy()) for a in (*given, *cotangents)]
    _, pullback = functional.recurrent(*arrays[:8], lengths=case.lengths)
    pullback(*arrays[8:])
    for array, before in zip(arrays, (*given, *cotangents), strict=True):
        assert (device.to_numpy(array) == before).all()


def test_input_gradient_can_be_left_out(device, rng):
    given, cotangents = arguments(SEQUENCES[0], rng)
    _, pullback = functional.recurrent(*(None if a is None else device.asarray(a) for a in given), input_gradient=False)
    gradients = pullback(*map(device.asarray, cotangents))
    assert gradients[0] is None and gradients[3] is not None


def test_lengths_may_be_on_the_device(device, rng):
    case = SequenceCase("lengths", lengths=(5, 0, 2))
    given, cotangents = arguments(case, rng)
    want = run(device, case, given, cotangents)
    arrays = [None if a is None else device.asarray(a) for a in given]
    for lengths in (list(case.lengths), device.asarray(np.array(case.lengths, np.int32))):
        (y, _, _), _ = functional.recurrent(*arrays, lengths=lengths)
        assert_close(device.to_numpy(y), want[0])


def test_explain_names_the_path_and_the_reason(device, rng):
    given, _ = arguments(SEQUENCES[0], rng)
    arrays = [None if a is None else device.asarray(a) for a in given]
    with gl.explain() as runs:
        functional.recurrent(*arrays)
        functional.recurrent(*arrays, path="reference", reverse=True)
    fast = fast_path(device)
    assert [r.path for r in runs] == [fast, "reference"]
    assert bool(runs[0].why_not_faster) == (fast != "engine")  # on a GPU the next one is captured as a graph
    assert fast == "reference" or "asked for" in runs[1].why_not_faster
    assert runs[0].shape == (5, 3, 4, 5) and runs[1].reverse
    assert str(runs).startswith(f"lstm T=5 B=3 D=4 H=5 float64 on {device.name}: {fast}")
    with gl.explain() as runs:
        pass
    functional.recurrent(*arrays)
    assert list(runs) == [] and "no sequence" in str(runs)


def test_a_path_that_cannot_serve_says_why(device, rng):
    given, _ = arguments(SEQUENCES[0], rng)
    arrays = [None if a is None else device.asarray(a) for a in given]
    if not device.is_cuda:
        with pytest.raises(NoKernel, match="CuPy arrays"):
            functional.recurrent(*arrays, path="kernel")
    with pytest.raises(NoKernel, match=r"expected one of auto, graph, kernel, .*reference, got 'fast'"):
        functional.recurrent(*arrays, path="fast")


@pytest.mark.parametrize(
    ("index", "replacement", "error", "message"),
    [
        (0, np.zeros((5, 3)), ShapeError, r"x: expected \(T, B, D\) with T > 0, got \(5, 3\)"),
        (0, np.zeros((0, 3, 4)), ShapeError, r"x: expected \(T, B, D\) with T > 0, got \(0, 3, 4\)"),
        (0, np.zeros((5, 3, 4), int), DTypeError, "x: expected float32, float64, float16, bfloat16, got int64"),
        (1, np.zeros((3, 4)), ShapeError, r"h0: expected \(3, 5\) = \(batch, output\), got \(3, 4\)"),
        (2, np.zeros((2, 5)), ShapeError, r"c0: expected \(3, 5\) = \(batch, hidden\), got \(2, 5\)"),
        (3, np.zeros((20, 3)), ShapeError, r"w_ih: expected \(20, 4\) = \(gates\*hidden, input\), got \(20, 3\)"),
        (4, np.zeros((19, 5)), ShapeError, r"w_hh: expected \(4 \* hidden, hidden\), got \(19, 5\)"),
        (
            4,
            np.zeros((20, 6)),
            ShapeError,
            r"w_hh: expected \(20, 5\) = \(gates\*hidden, output\), got \(20, 6\)",
        ),
        (5, np.zeros(5), ShapeError, r"b_ih: expected \(20,\) = \(gates\*hidden,\), got \(5,\)"),
        (
            6,
            np.zeros(20, np.float32),
            DTypeError,
            "b_hh: expected float64, the type of x, got float32; convert one",
        ),
        (7, np.zeros((2, 4)), ShapeError, r"w_hh: expected \(20, 2\)"),
    ],
)
def test_bad_arguments_are_named(device, rng, index, replacement, error, message):
    given, _ = arguments(SEQUENCES[0], rng)
    given[index] = replacement
    with pytest.raises(error, match=message):
        functional.recurrent(*(None if a is None else device.asarray(a) for a in given))


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        ([1, 2], ShapeError, r"lengths: expected \(3,\) = \(batch,\), got \(2,\)"),
        ([1, 2, 6], ShapeError, "lengths: expected 0 <= length <= 5, the steps of x, got 1..6"),
        ([1, -2, 5], ShapeError, "got -2..5"),
        ([1.0, 2.0, 3.0], DTypeError, "lengths: expected integers, got float64"),
    ],
)
def test_bad_lengths_are_named(device, rng, lengths, error, message):
    given, _ = arguments(SEQUENCES[0], rng)
    with pytest.raises(error, match=message):
        functional.recurrent(*(None if a is None else device.asarray(a) for a in given), lengths=lengths)


def test_an_unknown_cell_is_named(rng):
    given, _ = arguments(SEQUENCES[0], rng)
    with pytest.raises(NoKernel, match=r"cell: expected one of .*lstm.*, or a Cell, got 'lstn'"):
        functional.recurrent(*given, cell="lstn")


def test_a_sequence_runs_on_the_gpu_of_its_arrays_whichever_is_current(emulated, rng):
    second = gl.device("cuda:1").backend
    given, _ = arguments(SEQUENCES[0], rng)
    arrays = [None if a is None else second.asarray(a) for a in given]
    want, want_back = functional.recurrent(*given, path="reference")
    for path in ("kernel", "graph", "fused", "reference"):
        outputs, pullback = functional.recurrent(*arrays, path=path)
        assert emulated.cuda.Device().id == 0 and all(y.device.id == 1 for y in outputs)
        gradients = pullback(*(second.asarray(np.ones(y.shape, y.dtype)) for y in outputs))
        for got, wanted in zip((*outputs, *gradients), (*want, *want_back(*map(np.ones_like, want))), strict=True):
            assert (got is None) == (wanted is None)
            if got is not None:
                np.testing.assert_allclose(got.get(), wanted, rtol=1e-10, atol=1e-10)

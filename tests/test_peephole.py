"""Peepholes and coupled gates beside the plain LSTM: what they are where they are nothing, diagonal, or opposite."""

import numpy as np
import pytest

from gpulstm import functional
from gpulstm.cells import coupled, peephole
from gpulstm.errors import ShapeError
from tests.tolerances import assert_close

T, B, D, H = 5, 3, 2, 4
MODES = {"lengths": [5, 0, 3], "zoneout": (functional.Noise(0.3, 5), functional.Noise(0.4, 6))}


@pytest.fixture
def arrays(rng):
    """x, h0, c0, w_ih, w_hh, b_ih, b_hh, and weight_ch (3H,)."""
    shapes = ((T, B, D), (B, H), (B, H), (4 * H, D), (4 * H, H), (4 * H,), (4 * H,), (3 * H,))
    return [rng.standard_normal(shape) for shape in shapes]


@pytest.fixture
def cotangents(rng):
    return [rng.standard_normal(shape) for shape in ((T, B, H), (B, H), (B, H))]


def run(device, cell, arrays, cotangents, extra=(), w_hr=None, modes=MODES):
    """(outputs, gradients but that of w_hr), on the host, through the fastest path."""
    given = [None if a is None else device.asarray(a) for a in (*arrays, w_hr, *extra)]
    with device:
        outputs, pullback = functional.recurrent(*given, cell=cell, **modes)
        gradients = pullback(*map(device.asarray, cotangents))
    return [[device.to_numpy(a) for a in group if a is not None] for group in (outputs, gradients)]


def diagonal_matrices(weight_ch):
    """(3H, H) from (3H,)."""
    return np.concatenate([np.diag(p) for p in weight_ch.reshape(3, H)])


@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_no_peepholes_give_the_lstm(device, arrays, cotangents, kind):
    *arrays, weight_ch = arrays
    none = np.zeros_like(weight_ch)
    nothing = none if kind == "diagonal" else diagonal_matrices(none)
    outputs, gradients = run(device, peephole.cell(kind), arrays, cotangents, [nothing])
    wanted, wanted_gradients = run(device, "lstm", arrays, cotangents)
    assert_all_close(outputs, wanted)
    assert_all_close(gradients[:-1], wanted_gradients)
    assert np.abs(gradients[-1]).min() > 0, "weights of zero have gradients too"


def test_full_peepholes_of_diagonal_matrices_are_the_diagonal_ones(device, arrays, cotangents):
    *arrays, weight_ch = arrays
    full, full_gradients = run(device, peephole.cell("full"), arrays, cotangents, [diagonal_matrices(weight_ch)])
    diagonal, gradients = run(device, peephole.cell(), arrays, cotangents, [weight_ch])
    assert_all_close(full, diagonal)
    assert_all_close(full_gradients[:-1], gradients[:-1])
    on_the_diagonal = np.concatenate([np.diag(d) for d in full_gradients[-1].reshape(3, H, H)])
    assert_close(on_the_diagonal, gradients[-1])


def test_coupled_gates_are_an_lstm_whose_input_gate_opposes_the_forget_gate(device, arrays, cotangents):
    *arrays, _ = arrays
    states, weights = arrays[:3], [weight[H:] for weight in arrays[3:]]  # of f, g, o
    outputs, gradients = run(device, coupled.CELL, [*states, *weights], cotangents)
    opposed = [np.concatenate([-weight[:H], weight]) for weight in weights]
    wanted, wanted_gradients = run(device, "lstm", [*states, *opposed], cotangents)
    assert_all_close(outputs, wanted)
    assert_all_close(gradients[:3], wanted_gradients[:3])
    for gradient, d in zip(gradients[3:], wanted_gradients[3:], strict=True):
        assert_close(gradient, np.concatenate([d[H : 2 * H] - d[:H], d[2 * H :]]))


@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_the_output_gate_sees_c_before_zoneout(device, arrays, cotangents, kind):
    *arrays, weight_ch = arrays
    extra = [weight_ch if kind == "diagonal" else diagonal_matrices(weight_ch)]
    arrays[0], cotangents[0] = arrays[0][:1], cotangents[0][:1]  # one step
    zoneout = {"zoneout": (None, functional.Noise(0.9, None))}
    (_, h, c), _ = run(device, peephole.cell(kind), arrays, cotangents, extra, modes={})
    (_, zoned_h, zoned_c), _ = run(device, peephole.cell(kind), arrays, cotangents, extra, modes=zoneout)
    assert_close(zoned_h, h)
    assert_close(zoned_c, 0.9 * arrays[2] + 0.1 * c)


def test_only_what_stands_outside_the_step_is_projected(device, arrays, cotangents, rng):
    *arrays, weight_ch = arrays
    arrays[1], arrays[4] = arrays[1][:, :2], arrays[4][:, :2]
    w_hr = rng.standard_normal((2, H))
    with pytest.raises(ShapeError, match="w_hr: expected None, as a peephole has no projection"):
        run(device, peephole.cell("full"), arrays, cotangents, [diagonal_matrices(weight_ch)], w_hr)
    narrow = [cotangents[0][..., :2], cotangents[1][:, :2], cotangents[2]]
    (y, _, _), _ = run(device, peephole.cell(), arrays, narrow, [weight_ch], w_hr)
    assert y.shape == (T, B, 2)


def test_another_kind_is_refused():
    with pytest.raises(ShapeError, match="peepholes: expected diagonal or full, got 'none'"):
        peephole.cell("none")


def assert_all_close(got, want):
    for number, (a, b) in enumerate(zip(got, want, strict=True)):
        assert_close(a, b, name=f"number {number}")

"""The GRU: PyTorch's numbers, what its variants have in common, and options that are none.

Every variant against first principles, on every device and path, is in tests/test_cells.py.
"""

import numpy as np
import pytest

from gpulstm import functional
from gpulstm.backend import CPU
from gpulstm.cells import activation, gru
from gpulstm.errors import ShapeError
from tests.cases import fast_path, launched
from tests.conftest import require
from tests.test_rnn import D, H, cotangents, run, torchs
from tests.test_rnn import arguments as rnn_arguments
from tests.tolerances import assert_close

VARIANTS = [(reset, update) for reset in gru.RESETS for update in gru.UPDATES]


def arguments(rng):
    """[x, h0, w_ih, w_hh, b_ih, b_hh]."""
    return rnn_arguments(rng, gates=3)


@pytest.mark.oracle
def test_pytorchs_outputs_and_gradients(device, rng):
    given, d = arguments(rng), cotangents(rng)
    want = torchs(require("torch").nn.GRU(D, H).double(), given, d)
    got, path = run(device, given, d, gru.CELL)
    assert launched(path) == fast_path(device)
    for a, b in zip(got, want, strict=True):
        assert_close(a, b)


def test_the_reset_before_the_product_is_as_after_where_the_matrix_is_diagonal(device, rng):
    """U (r * h) is r * (U h) then, so that both resets are the same GRU but for the bias inside the reset."""
    given, d = arguments(rng), cotangents(rng)
    given[3][2 * H :] = np.diag(rng.standard_normal(H))
    given[5][2 * H :] = 0
    after, _ = run(device, given, d, gru.cell("after"))
    before, _ = run(device, given, d, gru.cell("before"))
    for k, (a, b) in enumerate(zip(after, before, strict=True)):
        a, b = a.copy(), b.copy()
        if k == 5:  # dw_hh: those of the elements that are not zero
            a[2 * H :], b[2 * H :] = np.diag(np.diag(a[2 * H :])), np.diag(np.diag(b[2 * H :]))
        if k == 7:  # db_hh: the one bias stands outside the reset
            a[2 * H :] = b[2 * H :] = 0
        assert_close(b, a, name=str(k))


@pytest.mark.parametrize("reset", gru.RESETS)
def test_the_updates_differ_in_the_sign_of_z(device, rng, reset):
    given, d = arguments(rng), cotangents(rng)
    torch_form, _ = run(device, given, d, gru.cell(reset))
    swapped = [array.copy() for array in given]
    for array in swapped[2:]:
        array[H : 2 * H] *= -1
    cho_form, _ = run(device, swapped, d, gru.cell(reset, "cho"))
    for array in cho_form[4:]:
        array[H : 2 * H] *= -1
    for a, b in zip(cho_form, torch_form, strict=True):
        assert_close(a, b)


@pytest.mark.parametrize(("reset", "update"), VARIANTS)
def test_the_trace_shows_the_equations(rng, reset, update):
    x, h0, w_ih, w_hh, b_ih, b_hh = arguments(rng)
    traced = functional.trace(x, h0, w_ih, w_hh, b_ih, b_hh, cell=gru.cell(reset, update))
    r, z, n, h = (traced[name] for name in "rznh")
    before = np.concatenate([h0[None], h[:-1]])
    rows = slice(2 * H, None)
    seen = (r * before) @ w_hh[rows].T + b_hh[rows] if reset == "before" else r * (before @ w_hh[rows].T + b_hh[rows])
    assert_close(n, np.tanh(x @ w_ih[rows].T + b_ih[rows] + seen))
    old = z if update == "torch" else 1 - z
    assert_close(h, old * before + (1 - old) * n)


def test_the_usual_activations_may_be_told(device, rng):
    given, d = arguments(rng), cotangents(rng)
    told = gru.cell(activations=(("sigmoid", None, None), ["tanh"]))
    assert told.kernel == gru.CELL.kernel
    for a, b in zip(run(device, given, d, told)[0], run(device, given, d, gru.CELL)[0], strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_kernel_is_told_each_gates_activation():
    form = gru.cell(update="cho", activations=("hard_sigmoid", "softsign"), clip=2).kernel
    hard_sigmoid, softsign = map(activation.NAMES.index, ("hard_sigmoid", "softsign"))
    assert form.options == (hard_sigmoid, 0.2, 0.5, 2, softsign, 0, 0, 2, 1)
    assert gru.CELL.kernel.options[-1] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reset": "between"}, "reset: expected after or before, got 'between'"),
        ({"update": "keras"}, "update: expected torch or cho, got 'keras'"),
        ({"activations": ("tanh",)}, "activations: expected two, one for r and z and one for n, got .'tanh',."),
        ({"activations": "tanh"}, "activations: expected two, .* got 'tanh'"),
        ({"activations": ("sigmoid", "sinus")}, "activation: expected one of .* got 'sinus'"),
        ({"clip": 0}, "clip: expected a number above 0, or None, got 0"),
    ],
)
def test_what_is_no_option_is_named(options, message):
    with pytest.raises(ShapeError, match=message):
        gru.cell(**options)


def test_a_gru_has_no_projection(rng):
    with pytest.raises(ShapeError, match=r"w_hr: expected None, as a gru has no projection, got \(2, 5\)"):
        run(CPU, [*arguments(rng), np.ones((2, H))], cotangents(rng), gru.CELL)

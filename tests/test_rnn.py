"""The RNN: PyTorch's numbers for both of its nonlinearities, and options that are none.

Every variant against first principles, on every device and path, is in tests/test_cells.py.
"""

import pytest

import gpulstm as gl
from gpulstm import functional
from gpulstm.cells import rnn
from gpulstm.errors import ShapeError
from tests.cases import fast_path, launched
from tests.conftest import require
from tests.tolerances import assert_close

T, B, D, H = 11, 3, 4, 5


def arguments(rng, gates=1):
    """[x, h0, w_ih, w_hh, b_ih, b_hh]."""
    shapes = (T, B, D), (B, H), (gates * H, D), (gates * H, H), (gates * H,), (gates * H,)
    return [rng.standard_normal(shape) for shape in shapes]


def run(device, given, cotangents, cell, **modes):
    """(outputs and gradients on the host, path taken)."""
    with device, gl.explain() as runs:
        outputs, pullback = functional.recurrent(*map(device.asarray, given), cell=cell, **modes)
        gradients = pullback(*map(device.asarray, cotangents))
    return [device.to_numpy(a) for a in (*outputs, *gradients) if a is not None], runs[0].path


def torchs(layer, given, cotangents):
    """The same from a layer of PyTorch."""
    torch = require("torch")
    x, h0, *weights = (torch.tensor(a, requires_grad=True) for a in given)
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    parameters = dict(zip(names, weights, strict=True))
    y, h_n = torch.func.functional_call(layer, parameters, (x, h0[None]))
    dy, dh_n = map(torch.tensor, cotangents)
    (y * dy).sum().add((h_n[0] * dh_n).sum()).backward()
    return [a.detach().numpy() for a in (y, h_n[0], x.grad, h0.grad, *(w.grad for w in weights))]


def cotangents(rng):
    return rng.standard_normal((T, B, H)), rng.standard_normal((B, H))


@pytest.mark.oracle
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_pytorchs_outputs_and_gradients(device, rng, nonlinearity):
    given, d = arguments(rng), cotangents(rng)
    given[3] /= 3  # with relu the state would grow
    want = torchs(require("torch").nn.RNN(D, H, nonlinearity=nonlinearity).double(), given, d)
    got, path = run(device, given, d, rnn.cell(nonlinearity))
    assert launched(path) == fast_path(device)
    for a, b in zip(got, want, strict=True):
        assert_close(a, b)


def test_a_projection(device, rng):
    given, d = arguments(rng), cotangents(rng)
    given[1], given[3] = given[1][:, :2], given[3][:, :2]
    d = d[0][..., :2], d[1][:, :2]
    given.append(rng.standard_normal((2, H)))
    want, _ = run(device, given, d, rnn.CELL, path="reference")
    got, _ = run(device, given, d, rnn.CELL)
    for a, b in zip(got, want, strict=True):
        assert_close(a, b)


def test_what_is_no_option_is_named():
    with pytest.raises(ShapeError, match=r"activation: expected one of relu, tanh, .* got 'sinus'"):
        rnn.cell("sinus")
    with pytest.raises(ShapeError, match="clip: expected a number above 0, or None, got -1"):
        rnn.cell("tanh", -1)

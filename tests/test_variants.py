"""The layers of the cells beside the LSTM: what torch has equals torch's, all of them take every mode and train."""

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import DTypeError, ShapeError
from tests.conftest import require
from tests.tolerances import assert_close

LAYERS = (
    gl.LSTM, gl.GRU, gl.RNN, gl.PeepholeLSTM, gl.CoupledLSTM, gl.LayerNormLSTM, gl.SLSTM, gl.GeneralLSTM,
    gl.MinLSTM, gl.MinGRU,
)  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["GRU", "RNN"])
def test_torchs_layers(device, kind):
    torch = require("torch")
    for seed in range(30):
        rng = np.random.default_rng(seed)
        T, B, D, H, layers = (int(n) for n in rng.integers(1, 5, 5))
        flags = {name: bool(rng.integers(2)) for name in ("bias", "batch_first", "bidirectional")}
        options = {"nonlinearity": ["tanh", "relu"][seed % 2]} if kind == "RNN" else {}
        theirs = getattr(torch.nn, kind)(D, H, layers, **flags, **options, dtype=torch.float64)
        ours = getattr(gl, kind)(D, H, layers, **flags, **options, dtype="float64", device=device.name)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        ours.load_state_dict(theirs.state_dict())
        x = rng.standard_normal((B, T, D) if flags["batch_first"] else (T, B, D))
        rows = layers * (1 + flags["bidirectional"])
        h0 = rng.standard_normal((rows, B, H)) if rng.integers(2) else None
        their_x, their_h0 = (None if a is None else torch.tensor(a, requires_grad=True) for a in (x, h0))
        our_x, our_h0 = (None if a is None else gl.tensor(a, device=device.name, requires_grad=True) for a in (x, h0))
        (want, want_h), (got, got_h) = theirs(their_x, their_h0), ours(our_x, our_h0)
        dy, dh = rng.standard_normal(want.shape), rng.standard_normal(want_h.shape)
        ((want * torch.tensor(dy)).sum() + (want_h * torch.tensor(dh)).sum()).backward()
        ((got * device.asarray(dy)).sum() + (got_h * device.asarray(dh)).sum()).backward()
        assert_close(got, want.detach(), name=f"{seed}: output")
        assert_close(got_h, want_h.detach(), name=f"{seed}: h_n")
        assert_close(our_x.grad, their_x.grad, name=f"{seed}: dx")
        if h0 is not None:
            assert_close(our_h0.grad, their_h0.grad, name=f"{seed}: dh_0")
        for (name, ours_p), theirs_p in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            assert_close(ours_p.grad, theirs_p.grad, name=f"{seed}: {name}")


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["GRUCell", "RNNCell", "LSTMCell"])
def test_torchs_cells(device, kind, rng):
    torch = require("torch")
    theirs = getattr(torch.nn, kind)(3, 4, dtype=torch.float64)
    ours = getattr(gl, kind)(3, 4, dtype="float64", device=device.name)
    ours.load_state_dict(theirs.state_dict())
    x = rng.standard_normal((5, 3))
    got, want = ours(device.asarray(x)), theirs(torch.tensor(x))
    for a, b in zip(*(s if isinstance(s, tuple) else (s,) for s in (got, want)), strict=True):
        assert_close(a, b.detach())


@pytest.mark.parametrize("layer", LAYERS, ids=lambda c: c.__name__)
def test_a_layer_is_its_cell_step_by_step(device, layer, rng):
    options = {"dtype": "float64", "device": device.name}
    whole, cell = layer(3, 4, **options), getattr(gl, layer.__name__ + "Cell")(3, 4, **options)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in whole.state_dict().items()})
    x, states = rng.standard_normal((6, 2, 3)), None
    output, last = whole(gl.Tensor(device.asarray(x)))
    for step, want in zip(x, output.numpy(), strict=True):
        states = cell(gl.Tensor(device.asarray(step)), states)
        assert_close((states[0] if isinstance(states, tuple) else states).numpy(), want)
    last, states = (s if isinstance(s, tuple) else (s,) for s in (last, states))
    for a, b in zip(last, states, strict=True):
        assert_close(b.numpy(), a.numpy()[0])


@pytest.mark.parametrize("layer", LAYERS, ids=lambda c: c.__name__)
def test_every_layer_learns_with_modes_on(device, layer):
    generator = np.random.default_rng(0)
    x = generator.standard_normal((12, 6, 3)).astype(np.float32)
    target = 0.3 * x.cumsum(0)[..., :1]
    scans = layer in (gl.MinLSTM, gl.MinGRU)
    regularize = [gl.VariationalDropout(0.05)] if scans else [gl.VariationalDropout(0.05, 0.05), gl.Zoneout(0.05)]
    options = {"device": device.name, "generator": generator}
    net = layer(3, 12, num_layers=2, bidirectional=True, merge="sum", regularize=regularize, init="keras", **options)
    head = gl.Linear(12, 1, **options)
    optimizer, losses = gl.Adam([*net.parameters(), *head.parameters()], lr=2e-2), []
    for _ in range(25):
        output, _ = net(gl.tensor(x, device=device.name), lengths=[12, 0, 5, 12, 7, 1])
        loss = gl.mse(head(output), gl.tensor(target, device=device.name))
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in net.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_what_changes_the_equation_is_shown():
    assert repr(gl.GRU(3, 4, reset="before", device="cpu")) == "GRU(3, 4, reset=before)"
    assert repr(gl.RNN(3, 4, nonlinearity="relu", device="cpu")) == "RNN(3, 4, nonlinearity=relu)"
    assert repr(gl.PeepholeLSTM(3, 4, peepholes="full", device="cpu")) == "PeepholeLSTM(3, 4, peepholes=full)"
    assert repr(gl.GeneralLSTM(3, 4, clip=1.5, device="cpu")) == "GeneralLSTM(3, 4, clip=1.5)"
    assert repr(gl.Recurrent("slstm", 3, 4, device="cpu")) == "Recurrent(slstm, 3, 4)"


def test_a_bias_that_cannot_be_left_out_is_named():
    with pytest.raises(
        ShapeError, match="bias: expected True, because the bias of a layer_norm is part of its equations"
    ):
        gl.LayerNormLSTM(3, 4, bias=False)
    with pytest.raises(ShapeError, match="proj_size: expected 0, because a gru has no projection, got 2"):
        gl.Recurrent("gru", 3, 4, proj_size=2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: gl.LayerNormLSTMCell(4, 6, bias=False),
            "bias: expected True, because the bias of a layer_norm is part",
        ),
        (lambda: gl.GeneralLSTM(4, 6, activations="tanh"), "activations: expected three, .* got 'tanh'"),
        (lambda: gl.PeepholeLSTM(4, 6, peepholes=[1]), r"peepholes: expected diagonal or full, got \[1\]"),
        (lambda: gl.LSTM(4, 6, regularize="zoneout"), "regularize: expected Zoneout, .* got 'zoneout'"),
        (lambda: gl.LSTM(4, 6, forget_bias="one"), "forget_bias: expected a number or None, got 'one'"),
        (lambda: gl.LSTM(4, 6, forget_bias=True), "forget_bias: expected a number or None, got True"),
        (lambda: gl.LSTM(4, 6, proj_size=6.0), "proj_size: expected an integer, .* got 6.0"),
        (
            lambda: gl.LSTMCell(4, 6, device="cpu")(np.ones((2, 4))),
            "x: expected float32, the type of the weights, got float64",
        ),
        (lambda: gl.LSTM(4, 6, device="cpu")(np.ones((5, 2, 4), int)), r"x.astype\('float32'\)$"),
    ],
)
def test_what_does_not_fit_is_named(make, message):
    with pytest.raises((ShapeError, DTypeError), match=message):
        make()


def test_numpys_numbers_are_numbers():
    layer = gl.LSTM(4, np.int64(6), 2, proj_size=np.int64(2), dropout=np.float32(0.5), device="cpu")
    assert layer.output_size == 2 and gl.Zoneout(np.float32(0.5)).h == 0.5

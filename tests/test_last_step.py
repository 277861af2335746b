"""``return_sequences=False``: the last step of every recurrent layer, whatever its mode."""

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import DTypeError
from tests.tolerances import assert_close

T, B, D, H = 6, 4, 3, 5
LAYERS = [
    gl.RNN, gl.LSTM, gl.GRU, gl.PeepholeLSTM, gl.CoupledLSTM, gl.LayerNormLSTM, gl.SLSTM, gl.GeneralLSTM, gl.MinLSTM,
    gl.MinGRU,
]  # fmt: skip
MERGES = {
    "concat": lambda f, b: np.concatenate([f, b], -1),
    "sum": lambda f, b: f + b,
    "mean": lambda f, b: (f + b) / 2,
    "mul": lambda f, b: f * b,
}


def pair(kind, device="cpu", **options):
    """The same layer twice, giving all steps and the last one."""
    options = {"device": device, "dtype": "float64", **options}
    whole, last = kind(D, H, **options), kind(D, H, return_sequences=False, **options)
    last.load_state_dict(whole.state_dict())
    return whole, last


@pytest.mark.parametrize("kind", LAYERS)
def test_the_last_step_is_each_directions_own(device, rng, kind):
    whole, last = pair(kind, device.name, num_layers=2, bidirectional=True)
    x, lengths = device.asarray(rng.standard_normal((T, B, D))), np.array([T, 2, 1, 4])
    output, states = whole(x, lengths=lengths)
    got, same = last(x, lengths=lengths)
    output = output.numpy()
    want = np.concatenate([output[lengths - 1, np.arange(B), :H], output[0, :, H:]], axis=1)
    assert got.shape == (B, 2 * H)
    assert_close(got.numpy(), want)
    for a, b in zip(states if isinstance(states, tuple) else [states], same if isinstance(same, tuple) else [same]):  # noqa: B905
        assert_close(b.numpy(), a.numpy())


@pytest.mark.parametrize("merge", MERGES)
def test_directions_are_merged_at_their_last_steps(rng, merge):
    _, last = pair(gl.LSTM, bidirectional=True, merge=merge)
    got, (h_n, _) = last(rng.standard_normal((T, B, D)), lengths=[3, T, 1, 2])
    assert_close(got.numpy(), MERGES[merge](*h_n.numpy()))
    assert got.shape == (B, last.output_size)


def test_a_sequence_without_steps_gives_its_first_state(rng):
    _, last = pair(gl.LSTM)
    x, h_0 = rng.standard_normal((T, B, D)), rng.standard_normal((1, B, H))
    got, _ = last(x, (h_0, np.zeros_like(h_0)), lengths=[0, T, 0, 1])
    assert_close(got.numpy()[[0, 2]], h_0[0, [0, 2]])
    assert (last(x, lengths=[0, T, 0, 1])[0].numpy()[[0, 2]] == 0).all()


def test_masks_and_resets_are_respected(rng):
    whole, last = pair(gl.GRU)
    x = rng.standard_normal((T, B, D))
    mask = np.ones((T, B), bool)
    mask[:3, 0] = mask[4:, 1] = mask[2, 2] = False  # padding on the left, on the right, a hole
    assert_close(last(x, mask=mask)[0].numpy(), whole(x, mask=mask)[1].numpy()[0])
    reset = np.zeros((T, B), bool)
    reset[4] = True
    assert_close(last(x, reset=reset)[0].numpy(), whole(x[4:])[0].numpy()[-1])


def test_the_axes_are_those_of_the_batch(rng):
    whole, last = pair(gl.LSTM, batch_first=True, proj_size=2, bidirectional=True)
    x = rng.standard_normal((B, T, D))
    assert_close(last(x)[0].numpy()[:, :2], whole(x)[0].numpy()[:, -1, :2])
    single, _ = last(x[0])
    assert single.shape == (4,)
    assert_close(single.numpy(), last(x)[0].numpy()[0])


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_are_those_of_the_last_step(rng, recompute):
    whole, last = pair(gl.LSTM, bidirectional=True, num_layers=2, recompute=recompute)
    x = gl.Tensor(rng.standard_normal((T, B, D)), requires_grad=True)
    w = rng.standard_normal((B, 2 * H))
    (last(x)[0] * w).sum().backward()
    got, x.grad = x.grad, None
    output, _ = whole(x)
    (output[-1][:, :H] * w[:, :H]).sum().backward()
    first, x.grad = x.grad, None
    output, _ = whole(x)
    (output[0][:, H:] * w[:, H:]).sum().backward()
    assert_close(got, first + x.grad)
    for p, q in zip(last.parameters(), whole.parameters(), strict=True):
        assert_close(p.grad, q.grad)


def test_trace_explain_and_repr_know_the_option(rng):
    whole, last = pair(gl.LSTM)
    x = rng.standard_normal((T, B, D))
    assert_close(last.trace(x)["h_l0"], whole.trace(x)["h_l0"])
    with gl.explain() as told:
        last(x)
    assert len(list(told)) == 1
    assert repr(last) == "LSTM(3, 5, return_sequences=False)" and "return_sequences" not in repr(whole)
    with pytest.raises(DTypeError, match="return_sequences: expected True or False, got 1"):
        gl.LSTM(D, H, return_sequences=1)


@pytest.mark.oracle
def test_torchs_last_states_are_the_last_step(rng):
    import torch

    theirs = torch.nn.LSTM(D, H, bidirectional=True, dtype=torch.float64)
    _, ours = pair(gl.LSTM, bidirectional=True)
    ours.load_state_dict(theirs.state_dict())
    x, lengths = rng.standard_normal((T, B, D)), [2, T, 1, 5]
    packed = torch.nn.utils.rnn.pack_padded_sequence(torch.from_numpy(x), lengths, enforce_sorted=False)
    _, (h_n, _) = theirs(packed)
    assert_close(ours(x, lengths=lengths)[0].numpy(), torch.cat(tuple(h_n), -1).detach().numpy())

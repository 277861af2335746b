"""Sequential: layers and functions in a row, and what tells them which steps count."""

import functools

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import DTypeError, ShapeError
from tests.tolerances import assert_close

MADE = {"device": "cpu", "dtype": "float64"}
T, B, D, H, C = 6, 3, 4, 5, 2


class Recorder(gl.Module):
    """Passes x on, and keeps what it was given besides."""

    def __init__(self):
        self.got = []

    def forward(self, x, lengths=None, mask=None):
        self.got.append((lengths, mask))
        return x


def test_a_classifier_is_told_lengths(device, rng):
    made = {"device": device.name, "dtype": "float64"}
    embedding, head = gl.Embedding(9, D, **made), gl.Linear(H, C, **made)
    lstm = gl.LSTM(D, H, return_sequences=False, **made)
    ids, lengths = device.asarray(rng.integers(0, 9, (T, B))), np.array([2, T, 1])
    model = gl.Sequential(embedding, lstm, head)
    got = model(ids, lengths=lengths)
    assert got.shape == (B, C)
    assert_close(got, head(lstm(embedding(ids), lengths=lengths)[1][0][0]))
    assert np.abs(got.numpy() - model(ids).numpy()).max() > 1e-3  # without lengths it reads the padding
    got.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_functions_stand_among_layers(rng):
    lstm, head = gl.LSTM(D, H, **MADE), gl.Linear(H, C, **MADE)
    model = gl.Sequential(lstm, gl.relu, lambda h: h[-1], head)
    x = rng.standard_normal((T, B, D))
    assert_close(model(x), head(gl.relu(lstm(x)[0])[-1]))
    assert list(model.state_dict())[-2:] == ["3.weight", "3.bias"]
    assert repr(gl.Sequential(gl.Linear(1, 2, **MADE), gl.relu)) == (
        "Sequential(\n  (0): Linear(1, 2, bias=True)\n  (1): relu\n)"
    )


def test_a_function_with_a_layer_of_its_own_is_refused():
    drop = gl.Dropout(0.5)
    model = gl.Sequential(gl.Linear(2, 2, **MADE), lambda h: drop(h))
    with pytest.raises(DTypeError, match=r"1 of Sequential: .* got a Dropout in a function, which gives it no name"):
        model.eval()  # it would go on dropping


def test_masks_and_resets_go_to_all_that_know_them(rng):
    layers = [gl.LSTM(D, H, **MADE), gl.Dropout(0.0), gl.GRU(H, H, **MADE)]
    model, x = gl.Sequential(*layers), rng.standard_normal((T, B, D))
    mask, reset = np.ones((T, B), bool), np.zeros((T, B), bool)
    mask[4:, 0], reset[3, 1] = False, True
    got = model(x, mask=mask, reset=reset)
    assert_close(got, layers[2](layers[0](x, mask=mask, reset=reset)[0], mask=mask, reset=reset)[0])


def test_lengths_end_where_the_steps_end():
    before, inside, behind = Recorder(), Recorder(), Recorder()
    inner = gl.Sequential(gl.LSTM(D, H, return_sequences=False, **MADE), inside)
    model = gl.Sequential(before, inner, behind)
    assert model(np.ones((T, B, D)), lengths=[1, 2, 3]).shape == (B, H)
    assert before.got == [([1, 2, 3], None)] and inside.got == behind.got == [(None, None)]
    alone = gl.Sequential(gl.LSTM(D, H, return_sequences=False, **MADE), gl.Sequential(Recorder()))
    assert alone(np.ones((T, B, D)), lengths=[1, 2, 3]).shape == (B, H)


class Last(gl.Module):
    """A layer of one's own that leaves out the axis of steps."""

    return_sequences = False

    def forward(self, x):
        return x[-1]


def test_what_no_layer_takes_is_refused():
    x, mask = np.ones((T, B, D)), np.ones((T, B), bool)
    with pytest.raises(
        ShapeError, match=r"lengths: expected None, because none of the layers \(Linear, relu\) takes it"
    ):
        gl.Sequential(gl.Linear(D, H, **MADE), gl.relu)(x, lengths=[1, 2, 3])
    with pytest.raises(ShapeError, match="reset: expected None"):
        gl.Sequential(Recorder())(x, mask=mask, reset=mask)
    with pytest.raises(ShapeError, match="lengths: expected None"):  # what takes it is behind the end of the steps
        gl.Sequential(gl.Sequential(Last(), Recorder()))(x, lengths=[1, 2, 3])
    with pytest.raises(ShapeError, match="mask: expected None"):
        gl.Sequential(lambda x: x[-1], gl.Sequential(gl.relu), gl.Linear(D, C, **MADE))(x, mask=mask)
    with pytest.raises(ShapeError, match="lengths: expected None with a single sequence"):
        gl.Sequential(lambda x: x[-1], gl.LSTM(D, H, **MADE))(x, lengths=[1, 2, 3])
    nested = gl.Sequential(gl.Sequential(Recorder()), functools.partial(lambda x, scale: x, scale=2))
    assert nested(x, lengths=[1, 2, 3]) is x


def test_functions_that_take_lengths_are_given_them():
    def mean(h, *, lengths):
        return h.sum(axis=0) / gl.tensor(np.array(lengths, np.float64)[:, None])

    x = np.ones((T, B, D))
    assert_close(
        gl.Sequential(Recorder(), mean)(gl.tensor(x, dtype="float64"), lengths=[1, 2, 3]).numpy()[:, 0],
        T / np.arange(1, 4),
    )


def test_layers_are_reached_by_place_and_name():
    made = [gl.Linear(2, 2, **MADE) for _ in range(3)]
    model = gl.Sequential(*made)
    assert model[-1] is made[2] and list(model) == list(model.layers) == made and len(model) == 3
    part = model.eval()[1:]
    assert type(part) is gl.Sequential and list(part) == made[1:] and not part.training
    assert list(part.state_dict()) == ["1.weight", "1.bias", "2.weight", "2.bias"]
    model[0] = gl.Tanh() if hasattr(gl, "Tanh") else gl.Dropout(0.5)
    assert model.append(gl.Linear(2, 1, **MADE)) is model
    assert list(model.state_dict()) == ["1.weight", "1.bias", "2.weight", "2.bias", "3.weight", "3.bias"]
    assert list(gl.Sequential(made)) == made
    with pytest.raises(IndexError):
        model[4]


def test_layers_are_put_in_and_taken_out():
    a, b, c, d = (gl.Linear(2, 2, **MADE) for _ in range(4))
    part = gl.Sequential(a, b, c)[1:].append(d)
    assert list(part) == [b, c, d] and [name for name, _ in part.named_layers()] == ["1", "2", "3"]
    model = gl.Sequential(a).extend([b, gl.relu, c])
    del model[1:3]
    assert list(model) == [a, c] and [name for name, _ in model.named_layers()] == ["0", "1"]
    del model[-1]
    assert list(model.append(d)) == [a, d]
    named = gl.Sequential({"x": a, "y": b})
    del named.x
    assert list(named.append(c).named_layers()) == [("y", b), ("1", c)]
    with pytest.raises(IndexError):
        del named[5]
    with pytest.raises(AttributeError, match="has no attribute 'x'"):
        del named.x


@pytest.mark.oracle
def test_names_are_torchs():
    import torch

    theirs = torch.nn.Sequential()
    theirs.add_module("rnn", torch.nn.GRU(2, 3))
    theirs.add_module("head", torch.nn.Linear(3, 1))
    ours = gl.Sequential({"rnn": gl.GRU(2, 3), "head": gl.Linear(3, 1)})
    assert list(ours.state_dict()) == list(theirs.state_dict()) and ours.rnn is ours[0]
    assert list(ours[1:].state_dict()) == list(theirs[1:].state_dict())
    theirs.tail, ours.tail = torch.nn.Linear(1, 1), gl.Linear(1, 1)
    ours.rnn, theirs.rnn = gl.GRU(2, 3, bias=False), torch.nn.GRU(2, 3, bias=False)
    assert list(ours.state_dict()) == list(theirs.state_dict()) and len(ours) == 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (3, "got int"),
        (gl.Dropout, r"got the class Dropout; write Dropout\(\)"),
        (gl.tensor(1.0), "got Tensor"),
        (None, "got NoneType"),
    ],
)
def test_what_is_neither_a_layer_nor_a_function_is_refused(given, words):
    with pytest.raises(DTypeError, match=f"Sequential: expected layers or functions, {words}"):
        gl.Sequential(gl.Dropout(0.5), given)
    with pytest.raises(DTypeError, match=r"expected names without a dot, got 'a\.b'"):
        gl.Sequential({"a.b": gl.Dropout(0.5)})

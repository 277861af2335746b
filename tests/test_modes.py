"""The modes of the recurrent layer: merge, regularize, init, masks, resets, trace and recompute."""

import gc
import itertools
import types

import numpy as np
import pytest

import gpulstm as gl
from gpulstm import functional
from gpulstm.backend import CPU
from gpulstm.errors import DTypeError, NoKernel, ShapeError
from gpulstm.functional.sequence import Noise
from tests.tolerances import assert_close

T, B, D, H = 6, 3, 4, 5
EVERYTHING = (gl.Zoneout(0.3, 0.2), gl.VariationalDropout(0.25, 0.4), gl.WeightDrop(0.5))


def layer(device, seed=1, **options):
    options = {"num_layers": 2, "dtype": "float64", **options}
    return gl.LSTM(D, H, device=device.name, generator=np.random.default_rng(seed), **options)


def inputs(device, rng, *shape):
    return gl.Tensor(device.asarray(rng.standard_normal(shape or (T, B, D))))


def everything(output, states):
    return [output.numpy(), *(state.numpy() for state in states)]


@pytest.mark.parametrize(
    ("merge", "join"),
    [("sum", lambda a, b: a + b), ("mean", lambda a, b: (a + b) / 2), ("mul", lambda a, b: a * b)],
)
def test_directions_are_merged(device, rng, merge, join):
    x = inputs(device, rng)
    whole = layer(device, num_layers=1, bidirectional=True)
    merged = layer(device, num_layers=1, bidirectional=True, merge=merge)
    output, _ = whole(x)
    got, (h_n, _) = merged(x)
    assert_close(got.numpy(), join(*np.split(output.numpy(), 2, axis=2)))
    assert h_n.shape == (2, B, H)
    deep = layer(device, bidirectional=True, merge=merge)
    assert deep.weight_ih_l1.shape == (4 * H, H) and deep(x)[0].shape == (T, B, H) and deep.output_size == H
    deep(x)[0].sum().backward()
    assert all(np.abs(device.to_numpy(p.grad)).max() > 0 for p in deep.parameters())


def test_a_merge_that_does_not_exist_is_named():
    with pytest.raises(ShapeError, match="merge: expected concat, sum, mean, mul, got 'add'"):
        gl.LSTM(D, H, bidirectional=True, merge="add")
    with pytest.raises(ShapeError, match="merge: expected concat, because the layer has one direction, got 'sum'"):
        gl.LSTM(D, H, merge="sum")


# -- regularize --------------------------------------------------------
def test_regularisers_combine_and_follow_the_seed(device, rng):
    x = inputs(device, rng)
    first, again, other = (
        everything(*layer(device, seed, regularize=EVERYTHING, dropout=0.3, bidirectional=True)(x))
        for seed in (1, 1, 2)
    )
    for a, b, c in zip(first, again, other, strict=True):
        assert (a == b).all() and not (a == c).all()


@pytest.mark.parametrize("regularize", [*EVERYTHING, EVERYTHING], ids=lambda r: type(r).__name__)
def test_every_device_draws_the_same(device, rng, regularize):
    x = rng.standard_normal((T, B, D))
    results = []
    for backend in (CPU, device):
        net = layer(backend, regularize=regularize, bidirectional=True)
        h0, c0 = (gl.tensor(np.ones((4, B, H)), device=backend.name) for _ in "hc")
        tensor = gl.tensor(x, device=backend.name, requires_grad=True)
        output, (h_n, c_n) = net(tensor, (h0, c0))
        (output.sum() + (h_n * h_n).sum() + c_n.sum()).backward()
        gradients = [tensor.grad, *(p.grad for p in net.parameters())]
        results.append([*everything(output, (h_n, c_n)), *map(backend.to_numpy, gradients)])
    for a, b in zip(*results, strict=True):
        assert_close(b, a)


@pytest.mark.parametrize("regularize", EVERYTHING, ids=lambda r: type(r).__name__)
def test_a_regulariser_changes_training_and_evaluation_draws_nothing(device, rng, regularize):
    x = inputs(device, rng)
    net, plain = layer(device, regularize=regularize), layer(device)
    assert not (net(x)[0].numpy() == plain(x)[0].numpy()).all()
    net.eval()
    before = net.generator.bit_generator.state
    output = net(x)[0].numpy()
    assert net.generator.bit_generator.state == before
    # Zoneout takes its expectation; the rest is off.
    assert (output == plain(x)[0].numpy()).all() == (not isinstance(regularize, gl.Zoneout))
    assert (output == net(x)[0].numpy()).all()


def test_zoneout_keeps_the_part_asked_for(device, rng):
    x, big = inputs(device, rng, 50, 20, D), 40
    net = gl.LSTM(D, big, device=device.name, dtype="float64", regularize=gl.Zoneout(0.3, 0.1))
    arguments = [device.asarray(p.data) for p in net.parameters()]
    zoneout = (Noise(0.3, 1), Noise(0.1, 2))
    with device:
        traced = functional.trace(x.data, None, None, *arguments, zoneout=zoneout)
    for name, rate in (("h", 0.3), ("c", 0.1)):
        values = device.to_numpy(traced[name])
        assert abs((values[1:] == values[:-1]).mean() - rate) < 0.01
    net.eval()
    h = np.concatenate([np.zeros((1, 20, big)), net.trace(x)["h_l0"]])
    o, c = (net.trace(x)[name] for name in ("o_l0", "c_l0"))
    i, f, g = (net.trace(x)[name] for name in ("i_l0", "f_l0", "g_l0"))
    c_before = np.concatenate([np.zeros((1, 20, big)), c[:-1]])
    assert_close(c, 0.1 * c_before + 0.9 * (f * c_before + i * g))
    assert_close(h[1:], 0.3 * h[:-1] + 0.7 * o * np.tanh(f * c_before + i * g))


def test_weight_drop_zeroes_elements_of_the_recurrent_matrix_alone(device, rng):
    x = inputs(device, rng)
    net = layer(device, num_layers=1, regularize=gl.WeightDrop(1.0))
    still = layer(device, num_layers=1)
    still.load_state_dict({**net.state_dict(), "weight_hh_l0": np.zeros((4 * H, H))})
    assert_close(net(x)[0].numpy(), still(x)[0].numpy())
    half = layer(device, num_layers=1, regularize=gl.WeightDrop(0.5))
    half(x)[0].sum().backward()
    dropped = (device.to_numpy(half.weight_hh_l0.grad) == 0).mean()
    assert 0.3 < dropped < 0.7  # the elements that were away have no gradient


def test_variational_dropout_is_one_mask_for_all_steps(device, rng):
    x = inputs(device, rng, 9, 8, 7)
    y, pullback = functional.variational_dropout(x.data, 0.5, 3)
    factors = device.to_numpy(y) / x.numpy()
    assert_close(factors, np.broadcast_to(factors[0], factors.shape))
    assert set(np.unique(factors.round(9))) == {0.0, 2.0}
    (dx,) = pullback(device.asarray(np.ones(x.shape)))
    assert_close(device.to_numpy(dx), factors)
    with pytest.raises(ShapeError, match=r"x: expected \(T, B, D\), got \(9, 8\)"):
        functional.variational_dropout(x.data[:, :, 0], 0.5, 3)


@pytest.mark.parametrize(
    ("regularize", "error", "message"),
    [
        (0.5, DTypeError, "regularize: expected Zoneout, VariationalDropout or WeightDrop, or several, got 0.5"),
        ([gl.Zoneout(0.1), 3], DTypeError, "regularize: expected Zoneout, .*, got 3"),
        ([gl.Zoneout(0.1), gl.Zoneout(0.2)], ShapeError, "regularize: expected one Zoneout, got two"),
    ],
)
def test_what_is_no_regulariser_is_named(regularize, error, message):
    with pytest.raises(error, match=message):
        gl.LSTM(D, H, regularize=regularize)


def test_a_rate_out_of_range_is_named():
    with pytest.raises(ShapeError, match=r"Zoneout.c: expected a number from 0 to 1, .*, got 1.5"):
        gl.Zoneout(0.1, 1.5)


# -- masks and resets --------------------------------------------------
def test_a_mask_is_lengths_and_may_pad_on_the_left(device, rng):
    x, lengths = inputs(device, rng), np.array([4, 0, 6])
    net = layer(device, bidirectional=True)
    want = everything(*net(x, lengths=lengths))
    mask = np.arange(T)[:, None] < lengths
    for a, b in zip(everything(*net(x, mask=mask)), want, strict=True):
        assert_close(a, b)
    # The same sequences, padded before instead of after, with what must not be read there.
    padded = np.full((T, B, D), np.nan)
    for b, length in enumerate(lengths):
        padded[T - length :, b] = x.numpy()[:length, b]
    output, *states = everything(*net(gl.Tensor(device.asarray(padded)), mask=mask[::-1]))
    for b, length in enumerate(lengths):
        assert_close(output[T - length :, b], want[0][:length, b])
        assert (output[: T - length, b] == 0).all()
    for a, b in zip(states, want[1:], strict=True):
        assert_close(a, b)


def test_masks_follow_batch_first(device, rng):
    x = inputs(device, rng)
    first, last = layer(device, batch_first=True), layer(device)
    mask, reset = rng.random((B, T)) < 0.6, rng.random((B, T)) < 0.4
    swapped = gl.Tensor(device.asarray(np.ascontiguousarray(x.numpy().transpose(1, 0, 2))))
    got = first(swapped, mask=device.asarray(mask), reset=reset)[0].numpy()
    assert_close(got.transpose(1, 0, 2), last(x, mask=mask.T, reset=reset.T)[0].numpy())
    alone = last(x[:, 1], mask=mask[1], reset=reset[1])[0].numpy()  # a single sequence (T, D)
    assert_close(alone, got[1])


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_reset_makes_separate_sequences_of_one(device, rng, bidirectional):
    x = inputs(device, rng)
    net = layer(device, bidirectional=bidirectional)
    reset = np.zeros((T, B), bool)
    reset[2, 0] = reset[4, 0] = reset[5, 2] = True
    output = net(x, reset=reset)[0].numpy()
    for b, borders in ((0, (0, 2, 4, T)), (1, (0, T)), (2, (0, 5, T))):
        for start, stop in itertools.pairwise(borders):
            assert_close(output[start:stop, b], net(x[start:stop, b : b + 1])[0].numpy()[:, 0])


@pytest.mark.parametrize("path", ["auto", "reference"])
@pytest.mark.parametrize(
    "kind",
    [gl.LSTM, gl.GRU, gl.RNN, gl.PeepholeLSTM, gl.CoupledLSTM, gl.LayerNormLSTM, gl.SLSTM, gl.MinLSTM, gl.MinGRU],
    ids=lambda kind: kind.__name__,
)
def test_nothing_passes_a_reset_not_even_nan(device, rng, kind, path):
    # Many steps, so that a scan has several chunks; NaN before the border, and, in the last sequence, after it.
    steps, border = 200, 120
    net = kind(D, 4, device=device.name, path=path)
    values = rng.standard_normal((steps, 3, D)).astype(np.float32)
    values[7, 0], values[border, 2] = np.nan, np.nan
    reset = np.zeros((steps, 3), bool)
    reset[border] = True
    x = gl.tensor(device.asarray(values), requires_grad=True)
    output, _ = net(x, reset=reset)
    output.sum().backward()
    alone = gl.tensor(device.asarray(values[border:]), requires_grad=True)
    net(alone)[0].sum().backward()
    got, want = (device.to_numpy(tensor.grad)[-(steps - border) :] for tensor in (x, alone))
    assert_close(got[:, :2], want[:, :2], rtol=1e-4)
    assert_close(output.numpy()[border:, :2], net(alone)[0].numpy()[:, :2], rtol=1e-4)
    whole = device.to_numpy(x.grad)
    assert np.isfinite(output.numpy()[:border, 1:]).all() and np.isfinite(whole[:border, 1:]).all()
    assert np.isnan(output.numpy()[border - 1, 0]).all() and np.isnan(output.numpy()[-1, 2]).all()


@pytest.mark.parametrize(
    ("masks", "error", "message"),
    [
        ({"mask": np.ones((B, T), bool)}, ShapeError, r"mask: expected \(6, 3\), the leading axes of x, got \(3, 6\)"),
        ({"reset": np.ones((T, B))}, DTypeError, "reset: expected bool, got float64"),
        ({"mask": np.ones((T, B), bool), "lengths": [1, 2, 3]}, ShapeError, "mask: expected lengths or mask, got both"),
    ],
)
def test_bad_masks_are_named(device, rng, masks, error, message):
    with pytest.raises(error, match=message):
        layer(device)(inputs(device, rng), **masks)


def test_chunks_with_carried_states_are_the_whole_sequence(device, rng):
    x, net = inputs(device, rng), layer(device)
    whole, last = net(x)
    first, states = net(x[:2])
    second, end = net(x[2:], states)
    assert_close(np.concatenate([first.numpy(), second.numpy()]), whole.numpy())
    for a, b in zip(end, last, strict=True):
        assert_close(a.numpy(), b.numpy())


# -- trace and recompute -----------------------------------------------
def test_a_layers_trace_shows_gates_and_states(device, rng):
    x = inputs(device, rng)
    net = layer(device, bidirectional=True, batch_first=True)
    traced = net.trace(x.transpose(1, 0, 2))
    names = [f"{name}_l{k}{suffix}" for k in (0, 1) for suffix in ("", "_reverse") for name in "ifgohc"]
    assert list(traced) == names and all(values.shape == (T, B, H) for values in traced.values())
    output = net(x.transpose(1, 0, 2))[0].numpy().transpose(1, 0, 2)
    assert_close(np.concatenate([traced["h_l1"], traced["h_l1_reverse"]], axis=2), output)
    assert_close(traced["h_l0"], traced["o_l0"] * np.tanh(traced["c_l0"]))
    assert_close(traced["c_l1"][1:], traced["f_l1"][1:] * traced["c_l1"][:-1] + traced["i_l1"][1:] * traced["g_l1"][1:])


def test_recompute_gives_the_same_with_every_mode(device, rng):
    x, results = rng.standard_normal((17, B, D)), []
    for recompute in (False, True):
        net = layer(device, regularize=EVERYTHING, bidirectional=True, recompute=recompute, proj_size=2)
        tensor = gl.tensor(x, device=device.name, requires_grad=True)
        output, states = net(tensor, lengths=[17, 0, 9])
        (output * output).sum().backward()
        gradients = [tensor.grad, *(p.grad for p in net.parameters())]
        results.append([*everything(output, states), *map(device.to_numpy, gradients)])
    for a, b in zip(*results, strict=True):
        assert_close(b, a)


def held_bytes(root) -> int:
    """The bytes of all NumPy arrays that can be reached from ``root``, each block of memory once."""
    seen, todo, blocks = set(), [root], {}
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, type) or hasattr(thing, "__spec__"):
            continue
        seen.add(id(thing))
        if isinstance(thing, np.ndarray):
            while isinstance(thing.base, np.ndarray):
                thing = thing.base
            blocks[id(thing)] = thing.nbytes
        elif isinstance(thing, types.FunctionType):  # not its module's globals
            todo += [cell.cell_contents for cell in thing.__closure__ or ()]
        else:
            todo += gc.get_referents(thing)
    return sum(blocks.values())


def test_recompute_holds_few_states_and_nothing_else(rng):
    steps = 2500
    x, w_ih, w_hh = (rng.standard_normal(s) for s in ((steps, 2, 3), (4 * 8, 3), (4 * 8, 8)))
    given = x.nbytes + w_ih.nbytes + w_hh.nbytes
    _, plain = functional.recurrent(x, None, None, w_ih, w_hh)
    _, frugal = functional.recurrent(x, None, None, w_ih, w_hh, recompute=True)
    step = 2 * 8 * 8  # bytes of one state
    assert held_bytes(plain) - given > 6 * steps * step  # four gates, h and c
    assert held_bytes(frugal) - given < 3 * np.sqrt(steps) * step


# -- first values ------------------------------------------------------
def test_orthogonal_matrices_for_every_gate():
    for init in ("keras", "orthogonal"):
        net = gl.LSTM(D, H, init=init, dtype="float64", device="cpu", proj_size=3)
        for gate in np.split(net.weight_hh_l0.numpy(), 4):
            assert_close(gate.T @ gate, np.eye(3))
        assert (net.bias_hh_l0.numpy() == 0).all()
        forget = 1.0 if init == "keras" else 0.0
        assert (net.bias_ih_l0.numpy() == np.repeat([0, forget, 0, 0], H)).all()
    wide = gl.LSTM(3 * H, H, init="orthogonal", dtype="float64", device="cpu").weight_ih_l0.numpy()
    assert_close(wide[:H] @ wide[:H].T, np.eye(H))
    assert not np.allclose(wide[:H], wide[H : 2 * H])


def test_glorots_bounds():
    weight = gl.LSTM(30, 50, init="keras", device="cpu").weight_ih_l0.numpy()
    bound = np.sqrt(6 / (30 + 200))
    assert 0.95 * bound < np.abs(weight).max() <= bound


def test_the_forget_bias_is_set_once(rng):
    net = gl.LSTM(D, H, forget_bias=2.0, device="cpu")
    assert (net.bias_ih_l0.numpy()[H : 2 * H] == 2).all() and (net.bias_hh_l0.numpy()[H : 2 * H] == 0).all()
    assert (np.abs(net.bias_ih_l0.numpy()[:H]) <= 1 / np.sqrt(H)).all()


def test_bad_first_values_and_cells_are_named():
    with pytest.raises(ShapeError, match="init: expected torch, keras, orthogonal, got 'xavier'"):
        gl.LSTM(D, H, init="xavier")
    with pytest.raises(NoKernel, match=r"cell: expected one of .*lstm.*, or a Cell, got 'lstn'"):
        gl.Recurrent("lstn", D, H)

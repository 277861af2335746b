"""The two small programs' interfaces: their numbers, their gradients, and that they learn what theirs learn."""

import runpy

import numpy as np
import pytest

from gpulstm import classic
from gpulstm.errors import DTypeError, ShapeError, TapeError
from tests.tolerances import assert_close


def network(device, x_dim=4, cells=5, seed=0):
    param = classic.LstmParam(cells, x_dim, device=device.name, generator=np.random.default_rng(seed))
    return classic.LstmNetwork(param)


class AllUnits:
    """The squared distance of all units from the label's: a loss layer made by hand."""

    def loss(self, pred, label):
        return float(((pred - label) ** 2).sum())

    def bottom_diff(self, pred, label):
        return 2 * (pred - label)


def test_a_step_is_the_small_programs(device, rng):
    net = network(device)
    host = {
        name: device.to_numpy(getattr(net.lstm_param, name))
        for name in ("wg", "wi", "wf", "wo", "bg", "bi", "bf", "bo")
    }
    s, h = np.zeros(5), np.zeros(5)
    for x in rng.standard_normal((3, 4)):
        net.x_list_add(device.asarray(x))
        xc = np.concatenate([x, h])
        g = np.tanh(host["wg"] @ xc + host["bg"])
        i, f, o = (1 / (1 + np.exp(-(host[f"w{k}"] @ xc + host[f"b{k}"]))) for k in "ifo")
        s = g * i + s * f
        h = s * o  # no tanh
        state = net.lstm_node_list[-1].state
        for name, want in {"g": g, "i": i, "f": f, "o": o, "s": s, "h": h}.items():
            assert_close(device.to_numpy(getattr(state, name)), want, name=name)


def test_the_gradients_are_central_differences(device, rng):
    net, xs, labels = network(device), rng.standard_normal((3, 4)), rng.standard_normal((3, 5))
    param = net.lstm_param

    def loss():
        net.x_list_clear()
        for x in xs:
            net.x_list_add(device.asarray(x))
        return sum(
            AllUnits().loss(n.state.h, device.asarray(y)) for n, y in zip(net.lstm_node_list, labels, strict=True)
        )

    want = loss()
    assert_close(np.array(net.y_list_is([device.asarray(y) for y in labels], AllUnits())), np.array(want))
    for value, diff in ((param.weight, param.weight_diff), (param.bias, param.bias_diff)):
        direction = rng.standard_normal(value.shape)
        exact = (device.to_numpy(diff) * direction).sum()
        step = 1e-6 * device.asarray(direction)
        value += step
        up = loss()
        value -= 2 * step
        down = loss()
        value += step
        assert abs(exact - (up - down) / 2e-6) < 1e-7 * np.abs(device.to_numpy(diff)).sum()
    assert_close(device.to_numpy(param.wf_diff), device.to_numpy(param.weight_diff)[5:10])


def test_a_step_down_the_gradient_lowers_the_loss_and_clears_it(device, rng):
    net, x = network(device), rng.standard_normal(4)
    losses = []
    for _ in range(2):
        net.x_list_add(x)
        losses.append(float(net.y_list_is([0.7], classic.ToyLossLayer)))
        net.lstm_param.apply_diff(lr=0.1)
        net.x_list_clear()
        assert (device.to_numpy(net.lstm_param.weight_diff) == 0).all()
    assert losses[1] < losses[0] and net.x_list == [] and net.lstm_node_list == []


def test_parameters_are_views_that_may_be_written(device):
    param = classic.LstmParam(5, 4, device=device.name)
    param.bf[...] = 1.0
    assert (device.to_numpy(param.bias)[5:10] == 1).all()
    assert param.wo.shape == (5, 9) and np.abs(device.to_numpy(param.weight)).max() <= 0.1
    with pytest.raises(AttributeError, match="'LstmParam' object has no attribute 'wz'"):
        param.wz  # noqa: B018


def test_bad_arguments_are_named(device):
    net = network(device)
    with pytest.raises(ShapeError, match=r"x: expected \(4,\) = \(x_dim,\), got \(3,\)"):
        net.x_list_add(np.zeros(3))
    net.x_list_clear()
    net.x_list_add(np.zeros(4))
    with pytest.raises(ShapeError, match="y_list: expected 1 labels, one for each input, got 2"):
        net.y_list_is([1, 2], classic.ToyLossLayer)
    with pytest.raises(DTypeError, match="y_list: expected a list of labels, one for each input, got 1"):
        net.y_list_is(1, classic.ToyLossLayer)
    with pytest.raises(DTypeError, match="loss_layer: expected loss"):
        net.y_list_is([1], lambda pred, label: 0)
    for wrong in ("a", ["1", "2", "3", "4"], 1j * np.zeros(4), None):
        with pytest.raises(DTypeError, match="x: expected real numbers"):
            net.x_list_add(wrong)
    assert len(net.x_list) == len(net.lstm_node_list) == 1
    net.x_list_clear()
    with pytest.raises(ShapeError, match="x_list: expected at least one input"):
        net.y_list_is([], classic.ToyLossLayer)


def test_a_gradient_of_another_shape_is_named(device):
    class OneNumber(classic.ToyLossLayer):
        @classmethod
        def bottom_diff(cls, pred, label):
            return 2 * (pred[0] - label)

    net = network(device)
    net.x_list_add(np.zeros(4))
    with pytest.raises(ShapeError, match=r"loss_layer.bottom_diff: expected \(5,\) = \(mem_cell_ct,\), got \(\)"):
        net.y_list_is([1], OneNumber)


@pytest.mark.parametrize("kind", [list, tuple, np.array, np.float32])
def test_inputs_and_labels_of_every_kind(device, kind):
    """An input may be a list, a tuple, an array of any real type."""
    net = network(device)
    for x in np.eye(4)[:2]:
        net.x_list_add(kind(x))
    assert float(net.y_list_is(np.array([0.5, 0.5]), classic.ToyLossLayer)) > 0


@pytest.mark.parametrize("whole", ["weight", "bias", "weight_diff", "bias_diff"])
def test_what_is_assigned_is_what_is_used(device, rng, whole):
    param = classic.LstmParam(2, 3, device=device.name)
    before = device.to_numpy(getattr(param, whole)).copy()
    for number, gate in enumerate("ifgo"):
        name = whole[0] + gate + whole.removeprefix("weight").removeprefix("bias")
        value = rng.standard_normal(getattr(param, name).shape)
        setattr(param, name, value if gate == "i" else device.asarray(value))
        exec(f"param.{name} *= 2")
        before[2 * number : 2 * number + 2] = 2 * value
        assert name in dir(param)
    assert (device.to_numpy(getattr(param, whole)) == before).all()
    with pytest.raises(ShapeError, match=r"wg: expected \(2, 5\), got \(2, 4\)"):
        param.wg = np.zeros((2, 4))


def test_a_node_alone_keeps_what_it_was_given(device, rng):
    param = classic.LstmParam(5, 4, device=device.name)
    node, x, s, h = classic.LstmNode(param, classic.LstmState(5, 4, device)), *map(rng.standard_normal, (4, 5, 5))
    assert node.xc is None and all(
        (device.to_numpy(v) == 0).all() and v.shape == (5,) for v in vars(node.state).values()
    )
    with pytest.raises(TapeError, match="top_diff_is: expected a computed step, got one without x; call"):
        node.top_diff_is(np.zeros(5), np.zeros(5))
    node.bottom_data_is(list(x), s_prev=list(s), h_prev=list(h))
    assert (device.to_numpy(node.xc) == np.concatenate([x, h])).all()
    assert (device.to_numpy(node.s_prev) == s).all() and (device.to_numpy(node.h_prev) == h).all()
    top_h, top_s = rng.standard_normal((2, 5))
    node.top_diff_is(list(top_h), top_s)
    state = {name: device.to_numpy(value) for name, value in vars(node.state).items()}
    ds = top_h * state["o"] + top_s  # the small program's equations
    do = top_h * state["s"] * classic.sigmoid_derivative(state["o"])
    dg = ds * state["i"] * classic.tanh_derivative(state["g"])
    assert_close(state["bottom_diff_s"], ds * state["f"], name="bottom_diff_s")
    assert_close(device.to_numpy(param.wo_diff), np.outer(do, np.concatenate([x, h])), name="wo_diff")
    assert_close(device.to_numpy(param.bg_diff), dg, name="bg_diff")


def test_the_small_functions(device):
    x = np.linspace(-800, 800, 9)
    for values in (classic.sigmoid(device.asarray(x)), classic.sigmoid(device.asarray(x.astype(np.float32)))):
        with np.errstate(over="ignore"):
            assert_close(device.to_numpy(values), (1 / (1 + np.exp(-x))).astype(values.dtype))
    assert classic.sigmoid(0) == 0.5 and classic.sigmoid([0, 0]).tolist() == [0.5, 0.5]
    x, step = np.linspace(-3, 3, 7), 1e-6
    for function, derivative in (
        (classic.sigmoid, classic.sigmoid_derivative),
        (np.tanh, classic.tanh_derivative),
    ):
        want = (function(x + step) - function(x - step)) / (2 * step)
        got = derivative(device.asarray(function(x)))
        assert np.abs(device.to_numpy(got) - want).max() < 1e-9
        assert derivative(list(function(x))).shape == (7,)
    assert classic.sigmoid_derivative(0.25) == 0.1875 and classic.tanh_derivative(0.5) == 0.75


def test_random_arrays():
    drawn = classic.rand_arr(-0.1, 0.3, 40, np.int64(50))
    assert drawn.shape == (40, 50) and drawn.dtype == np.float64
    assert -0.1 <= drawn.min() < -0.09 and 0.29 < drawn.max() < 0.3 and abs(drawn.mean() - 0.1) < 0.02
    assert classic.rand_arr(2, 3, 4).shape == (4,) and 2 <= classic.rand_arr(2, 3) < 3
    assert 2 < classic.rand_arr(3, 2) <= 3
    with pytest.raises(ShapeError, match="a: expected a number"):
        classic.rand_arr("0", 1)
    first = [classic.rand_arr(0, 1, 3, generator=np.random.default_rng(1)).tolist() for _ in range(2)]
    assert first[0] == first[1]
    for shape in ((2, -1), ((2, 3),), (True,), (2.0,)):
        with pytest.raises(ShapeError, match="shape: expected integers from 0 up"):
            classic.rand_arr(0, 1, *shape)


def test_the_toy_loss(device):
    pred = device.asarray(np.array([0.5, np.inf, 3.0]))
    for layer in (classic.ToyLossLayer, classic.ToyLossLayer()):
        assert float(layer.loss(pred, 0.2)) == pytest.approx(0.09)
        assert device.to_numpy(layer.bottom_diff(pred, 0.2)).tolist() == [pytest.approx(0.6), 0, 0]
    assert classic.ToyLossLayer.bottom_diff([1, 2], 0.25).tolist() == [1.5, 0]


def test_every_public_name_says_what_it_is():
    for name in classic.__all__:
        thing = getattr(classic, name)
        assert thing.__doc__, name
        functions = [value for key, value in vars(thing).items() if callable(value) and key[0] != "_"]
        assert all(function.__doc__ for function in functions) if isinstance(thing, type) else callable(thing), name


@pytest.mark.parametrize("seed", [0, 1])
def test_the_demonstration_with_four_targets(device, seed, capsys):
    losses = classic.example_0(device=device.name, seed=seed)
    assert len(losses) == 100 and losses[-1] < 1e-5
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 100 and lines[99].startswith("iteration  99: y_pred = [")


def test_the_demonstration_is_a_program(capsys):
    runpy.run_module("gpulstm.classic", run_name="__main__")
    assert "iteration  99" in capsys.readouterr().out


def text_of(length: int) -> str:
    """Words in an order that a seed decides."""
    words = ["the", "quick", "fox", "jumps", "over", "a", "lazy", "dog", "while", "seven", "wise", "owls", "watch"]
    generator = np.random.default_rng(5)
    return " ".join(generator.choice(words) for _ in range(length))[:length]


@pytest.mark.slow
def test_a_text_of_2000_characters_is_repeated():
    text = text_of(2000)
    letters = sorted(set(text))
    numbers = [letters.index(c) for c in text]
    net = classic.LSTM_RNN(0.05, len(letters), 100, len(letters), device="cpu", generator=np.random.default_rng(0))
    said, first = "", 0.0
    for _ in range(6):  # a hundred passes as a rule; rounding decides how many
        losses = net.train(50, numbers[:-1], numbers[1:])
        first = first or losses[0]
        said = "".join(letters[k] for k in net.sample(numbers[0], 1999, temperature=0))
        if said == text[1:]:
            break
    assert said == text[1:] and losses[-1] < 0.1 < first


def test_the_small_rnn_on_every_device(device):
    net = classic.LSTM_RNN(0.1, 6, 12, 6, device=device.name, generator=np.random.default_rng(0))
    numbers = [0, 1, 2, 3, 4, 5] * 40
    losses = net.train(3, numbers[:-1], numbers[1:])
    assert losses[2] < losses[0]
    drawn = net.sample([0, 1], 7)
    assert len(drawn) == 7 and all(isinstance(k, int) and 0 <= k < 6 for k in drawn)
    assert all(p.data.shape[0] != 48 or "bias" not in name for name, p in net.lstm.named_parameters())  # no biases


@pytest.mark.parametrize(
    ("inputs", "targets", "error", "message"),
    [
        ([0, 1], [1], ShapeError, "targets: expected 2, as many as inputs, and at least one, got 1"),
        ([], [], ShapeError, "targets: expected 0, as many"),
        ([0, 6], [1, 2], ShapeError, "inputs: expected integers from 0 to 5, got 0..6"),
        ([0.5], [1], DTypeError, "inputs: expected a list of integers, got float64"),
    ],
)
def test_bad_lists_are_named(inputs, targets, error, message):
    net = classic.LSTM_RNN(0.1, 6, 4, 6, device="cpu")
    with pytest.raises(error, match=message):
        net.train(1, inputs, targets)
    with pytest.raises(ShapeError, match="sample: expected in_dim = out_dim, got 6 and 5"):
        classic.LSTM_RNN(0.1, 6, 4, 5, device="cpu").sample(0, 3)

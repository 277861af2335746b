"""The LSTM layer: torch's shapes, names, numbers and gradients, in 200 random configurations and by hand."""

import numpy as np
import pytest

import gpulstm as gl
from gpulstm import functional
from gpulstm.errors import DeviceError, DTypeError, ShapeError
from gpulstm.functional import directions
from tests.cases import fast_path, launched
from tests.first_principles import by_number
from tests.make_golden import one_thread
from tests.tolerances import assert_close, assert_gradient, assert_ratio, central_differences

CONFIGURATIONS = 200


@pytest.fixture(autouse=True)
def torch_on_one_thread(request):
    if request.node.get_closest_marker("oracle"):
        with one_thread():
            yield
    else:
        yield


def make(device, *args, **kwargs):
    """A float64 layer on the device of the test."""
    return gl.LSTM(*args, device=device.name, dtype=kwargs.pop("dtype", "float64"), **kwargs)


def loss_of(outputs, cotangents):
    """The sum of outputs times cotangents over those that have one."""
    terms = [(o * d).sum() for o, d in zip(outputs, cotangents, strict=True) if d is not None]
    return sum(terms[1:], terms[0])


def random_configuration(number):
    """(constructor arguments, call arguments) of one case; every option is drawn by itself."""
    rng = np.random.default_rng(number)
    H = int(rng.integers(1, 8))
    options = {
        "input_size": int(rng.integers(1, 6)),
        "hidden_size": H,
        "num_layers": int(rng.integers(1, 4)),
        "bias": bool(rng.integers(2)),
        "batch_first": bool(rng.integers(2)),
        "bidirectional": bool(rng.integers(2)),
        "proj_size": int(rng.integers(1, H)) if H > 1 and rng.integers(2) else 0,
    }
    T, B = int(rng.integers(1, 7)), int(rng.integers(1, 5))
    call = {
        "T": T,
        "B": B,
        "batched": bool(rng.integers(5)),
        "states": bool(rng.integers(2)),
        "lengths": None,
        "through": rng.integers(2, size=3).astype(bool),
    }
    if call["batched"] and rng.integers(2):
        call["lengths"] = rng.integers(0 if rng.integers(2) else 1, T + 1, size=B)
    if not call["through"].any():
        call["through"][rng.integers(3)] = True
    return options, call, rng


def draw(options, call, rng):
    """x, states and cotangents of a configuration as float64 arrays."""
    rows = options["num_layers"] * (2 if options["bidirectional"] else 1)
    H, P = options["hidden_size"], options["proj_size"] or options["hidden_size"]
    T, B = call["T"], call["B"]
    leading = ((B, T) if options["batch_first"] else (T, B)) if call["batched"] else (T,)
    batch = (B,) if call["batched"] else ()
    x = rng.standard_normal((*leading, options["input_size"]))
    states = (
        (rng.standard_normal((rows, *batch, P)), rng.standard_normal((rows, *batch, H))) if call["states"] else None
    )
    shapes = ((*leading, P * (2 if options["bidirectional"] else 1)), (rows, *batch, P), (rows, *batch, H))
    return (
        x,
        states,
        [rng.standard_normal(s) if used else None for s, used in zip(shapes, call["through"], strict=True)],
    )


def torch_run(torch, layer, options, call, x, states, cotangents):
    """torch's outputs and gradients; rows of length zero, which it refuses, are put in by hand."""
    lengths = call["lengths"]
    x = torch.tensor(x, requires_grad=True)
    states = None if states is None else tuple(torch.tensor(s, requires_grad=True) for s in states)
    if lengths is None:
        output, (h_n, c_n) = layer(x, states)
    else:
        batch_axis = 0 if options["batch_first"] else 1
        kept = torch.tensor(np.flatnonzero(lengths))
        shapes = [d.shape for d in draw(options, {**call, "through": [True] * 3}, np.random.default_rng(0))[2]]
        output, h_n, c_n = (torch.zeros(s, dtype=x.dtype) for s in shapes)
        if states is not None:  # an empty sequence hands its states back
            h_n, c_n = states
        if len(kept):
            packed = torch.nn.utils.rnn.pack_padded_sequence(
                x.index_select(batch_axis, kept),
                torch.tensor(lengths[lengths > 0]),
                options["batch_first"],
                enforce_sorted=False,
            )
            part, (h, c) = layer(packed, states and tuple(s.index_select(1, kept) for s in states))
            part, _ = torch.nn.utils.rnn.pad_packed_sequence(part, options["batch_first"], total_length=call["T"])
            output = output.index_copy(batch_axis, kept, part)
            h_n, c_n = h_n.index_copy(1, kept, h), c_n.index_copy(1, kept, c)
    outputs = (output, h_n, c_n)
    total = loss_of(outputs, [None if d is None else torch.tensor(d) for d in cotangents])
    if total.requires_grad:
        total.backward()
    gradients = {name: p.grad for name, p in layer.named_parameters()}
    gradients |= {"x": x.grad} | ({} if states is None else {"h_0": states[0].grad, "c_0": states[1].grad})
    return [o.detach().numpy() for o in outputs], {n: None if g is None else g.numpy() for n, g in gradients.items()}


def gpulstm_run(device, layer, call, x, states, cotangents):
    x = gl.Tensor(device.asarray(x), requires_grad=True)
    states = None if states is None else tuple(gl.Tensor(device.asarray(s), requires_grad=True) for s in states)
    output, (h_n, c_n) = layer(x, states, lengths=call["lengths"])
    outputs = (output, h_n, c_n)
    loss_of(outputs, [None if d is None else device.asarray(d) for d in cotangents]).backward()
    gradients = {name: p.grad for name, p in layer.named_parameters()}
    gradients |= {"x": x.grad} | ({} if states is None else {"h_0": states[0].grad, "c_0": states[1].grad})
    host = {name: None if g is None else device.to_numpy(g) for name, g in gradients.items()}
    return [o.numpy() for o in outputs], host


@pytest.mark.oracle
@pytest.mark.parametrize("number", range(CONFIGURATIONS))
def test_outputs_and_gradients_are_torchs(device, number):
    import torch

    options, call, rng = random_configuration(number)
    arrays = draw(options, call, rng)
    torch.manual_seed(number)
    theirs = torch.nn.LSTM(**options).double()
    ours = make(device, **options)
    ours.load_state_dict(theirs.state_dict())
    want, want_gradients = torch_run(torch, theirs, options, call, *arrays)
    got, got_gradients = gpulstm_run(device, ours, call, *arrays)
    for name, a, b in zip(("output", "h_n", "c_n"), got, want, strict=True):
        assert_close(a, b, name=name)
    assert got_gradients.keys() == want_gradients.keys()
    for name, b in want_gradients.items():
        a = got_gradients[name]
        if b is None or not np.abs(b).max(initial=0):  # torch leaves out what it did not reach
            assert a is None or not np.abs(a).max(initial=0), name
        else:
            assert_close(a, b, name=f"gradient of {name}")


@pytest.mark.oracle
@pytest.mark.parametrize("fault", ["swap two gates", "drop c_n", "zero one gradient", "other direction", "drop a bias"])
def test_the_comparison_sees_a_fault(fault):
    import torch

    options = {"input_size": 3, "hidden_size": 4, "bidirectional": True}
    call = {"T": 4, "B": 2, "batched": True, "states": True, "lengths": None, "through": [True] * 3}
    x, states, cotangents = draw(
        {**options, "num_layers": 1, "batch_first": False, "proj_size": 0}, call, np.random.default_rng(0)
    )
    theirs = torch.nn.LSTM(**options).double()
    ours = gl.LSTM(**options, device="cpu", dtype="float64")
    state = {name: value.numpy().copy() for name, value in theirs.state_dict().items()}
    if fault == "swap two gates":
        state["weight_ih_l0"] = state["weight_ih_l0"][[*range(4), *range(8, 12), *range(4, 8), *range(12, 16)]]
    elif fault == "drop a bias":
        state["bias_hh_l0_reverse"][:] = 0
    elif fault == "other direction":
        state = {n: state[n.removesuffix("_reverse") if n.endswith("_reverse") else n + "_reverse"] for n in state}
    ours.load_state_dict(state)
    options |= {"batch_first": False}
    want, want_gradients = torch_run(torch, theirs, options, call, x, states, cotangents)
    mine = [*cotangents[:2], None] if fault == "drop c_n" else cotangents
    got, got_gradients = gpulstm_run(gl.device("cpu").backend, ours, call, x, states, mine)
    if fault == "zero one gradient":
        got_gradients["weight_hh_l0"][:] = 0
    with pytest.raises(AssertionError):
        for a, b in zip(got, want, strict=True):
            assert_close(a, b)
        for name in want_gradients:
            assert_close(got_gradients[name], want_gradients[name])


def test_layers_and_directions_are_first_principles_stacked(device, rng):
    layer = make(device, 3, 4, num_layers=2, bidirectional=True)
    lengths, x = [4, 0, 2], rng.standard_normal((4, 3, 3))
    output, (h_n, c_n) = layer(device.asarray(x), lengths=lengths)
    state, y, last_h, last_c = {n: device.to_numpy(a) for n, a in layer.state_dict().items()}, x, [], []
    for level in range(2):
        parts = []
        for suffix in ("", "_reverse"):
            weights = [state[f"{n}_l{level}{suffix}"] for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            part, h, c = by_number.lstm(y, None, None, *weights, None, lengths=lengths, reverse=bool(suffix))
            parts.append(part)
            last_h.append(h)
            last_c.append(c)
        y = np.concatenate(parts, axis=2)
    assert_close(output, y)
    assert_close(h_n, np.stack(last_h))
    assert_close(c_n, np.stack(last_c))
    # The worked example of the docstring: where the two directions' last states stand in output.
    assert_close(output.numpy()[3, 0, :4], h_n.numpy()[2, 0])
    assert_close(output.numpy()[0, 0, 4:], h_n.numpy()[3, 0])


def test_parameters_have_torchs_names_shapes_and_order():
    layer = gl.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2, device="cpu")
    names = [f"{n}_l{k}{s}" for k in (0, 1) for s in ("", "_reverse")
             for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")]  # fmt: skip
    assert [name for name, _ in layer.named_parameters()] == names
    state = layer.state_dict()
    assert state["weight_ih_l0"].shape == (16, 3) and state["weight_ih_l1_reverse"].shape == (16, 4)
    assert state["weight_hh_l1"].shape == (16, 2) and state["weight_hr_l0_reverse"].shape == (2, 4)
    for array in state.values():
        assert array.dtype == np.float32 and np.abs(array).max() <= 0.5 and np.abs(array).max() > 0.2


def test_weights_go_to_torch_and_back():
    torch = pytest.importorskip("torch")
    ours, theirs = gl.LSTM(3, 4, device="cpu"), torch.nn.LSTM(3, 4)
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in ours.state_dict().items()})
    again = gl.LSTM(3, 4, device="cpu")
    again.load_state_dict(theirs.state_dict())
    for name, array in ours.state_dict().items():
        assert (again.state_dict()[name] == array).all()


@pytest.mark.parametrize("shape", [(5, 0, 3), (1, 1, 3), (1, 4, 3), (7, 1, 3)])
def test_edges_of_the_batch(device, shape, rng):
    layer = make(device, 3, 4, num_layers=2, bidirectional=True)
    x = gl.Tensor(device.asarray(rng.standard_normal(shape)), requires_grad=True)
    output, (h_n, c_n) = layer(x)
    assert output.shape == (*shape[:2], 8) and h_n.shape == c_n.shape == (4, shape[1], 4)
    (output.sum() + h_n.sum()).backward()
    assert x.grad.shape == shape


def test_dropout_acts_between_layers_in_training_only(device, rng):
    layer = make(device, 3, 4, num_layers=2, dropout=0.5)
    x = device.asarray(rng.standard_normal((5, 2, 3)))
    gl.manual_seed(1)
    first, second = layer(x)[0].numpy(), layer(x)[0].numpy()
    assert np.abs(first - second).max() > 1e-3  # fresh each time
    gl.manual_seed(1)
    assert (layer(x)[0].numpy() == first).all()  # and reproducible
    layer.eval()
    assert (layer(x)[0].numpy() == layer(x)[0].numpy()).all()
    one = make(device, 3, 4)
    one.load_state_dict({n: a for n, a in layer.state_dict().items() if n.endswith("l0")})
    layer.train()
    gl.manual_seed(1)
    assert_close(layer(x)[1][0].numpy()[0], one(x)[1][0].numpy()[0])  # the first layer's own output is whole


def test_dropout_with_one_layer_warns():
    with pytest.warns(UserWarning, match="dropout acts between layers") as caught:
        gl.LSTM(3, 4, dropout=0.5, device="cpu")
    assert caught[0].filename == __file__  # it names the line that made the layer


def test_the_same_seed_gives_the_same_layer():
    gl.manual_seed(3)
    first = gl.LSTM(3, 4, device="cpu").state_dict()
    gl.manual_seed(3)
    second = gl.LSTM(3, 4, device="cpu").state_dict()
    given = gl.LSTM(3, 4, device="cpu", generator=np.random.default_rng(3)).state_dict()
    other = gl.LSTM(3, 4, device="cpu").state_dict()
    for name in first:
        assert (first[name] == second[name]).all() and (first[name] == given[name]).all()
        assert (first[name] != other[name]).any()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_other_types_train(device, dtype, rng):
    layer = make(device, 3, 4, num_layers=2, dtype=dtype)
    x = rng.standard_normal((5, 2, 3))
    output, _ = layer(device.asarray(x.astype(gl.as_dtype(dtype))))
    assert output.dtype == gl.as_dtype(dtype)
    output.backward(device.asarray(np.ones(output.shape, output.dtype)))
    exact = gl.LSTM(3, 4, num_layers=2, dtype="float64", device="cpu")
    exact.load_state_dict({n: device.to_numpy(a).astype(np.float64) for n, a in layer.state_dict().items()})
    y, _ = exact(x.astype(gl.as_dtype(dtype)).astype(np.float64))
    y.sum().backward()
    tolerance = {"float32": 1e-5, "float16": 1e-2, "bfloat16": 6e-2}[dtype]
    for (name, p), q in zip(layer.named_parameters(), exact.parameters(), strict=True):
        assert p.grad.dtype == p.dtype
        assert_close(device.to_numpy(p.grad).astype(np.float64), q.grad, name=name, rtol=tolerance)


def test_what_a_layer_says_of_bad_arguments():
    for arguments, message in (
        ((0, 4), "input_size: expected an integer above 0, got 0"),
        ((3, 4.0), "hidden_size: expected an integer above 0, got 4.0"),
        ((3, -1), "hidden_size: expected an integer above 0, got -1"),
        ((3, 4, True), "num_layers: expected an integer above 0, got True"),
    ):
        with pytest.raises(ShapeError, match=message):
            gl.LSTM(*arguments, device="cpu")
    for proj_size in (4, -1, True, 2.0):
        with pytest.raises(ShapeError, match=f"proj_size: expected an integer, .* hidden_size = 4, got {proj_size}"):
            gl.LSTM(3, 4, proj_size=proj_size, device="cpu")
    with pytest.raises(ShapeError, match="dropout: expected a number from 0 to 1"):
        gl.LSTM(3, 4, num_layers=2, dropout=1.5, device="cpu")


def test_what_a_layer_says_of_bad_input(device, rng):
    layer, x = make(device, 3, 4), device.asarray(rng.standard_normal((5, 2, 3)))
    zeros = device.xp.zeros

    def refused(error, message, *args, **kwargs):
        with pytest.raises(error, match=message):
            layer(*args, **kwargs)

    refused(ShapeError, r"x: expected \(T, B, D\), or \(T, D\) for a single sequence, got \(3,\)", zeros(3))
    refused(ShapeError, r"x: expected 3 = input_size in the last axis, got \(5, 2, 4\)", zeros((5, 2, 4)))
    refused(ShapeError, r"x: expected at least one step, got \(0, 2, 3\)", zeros((0, 2, 3)))
    refused(DTypeError, r"x.astype\(.float64.\), or the layer with layer.to\('float32'\)", x.astype(np.float32))
    refused(DTypeError, "x: expected an array or a Tensor, got list; make one with gl.tensor", [[1.0, 2.0, 3.0]])
    refused(
        ShapeError,
        r"h_0: expected \(1, 2, 4\) = \(layers\*directions, batch, units\), got \(1, 4\)",
        x,
        (zeros((1, 4)),) * 2,
    )
    refused(ShapeError, r"h_0: expected \(1, 4\).*a single sequence, got \(1, 1, 4\)", x[:, 0], (zeros((1, 1, 4)),) * 2)
    refused(ShapeError, "hx: expected a pair of states h and c, got", x, zeros((1, 2, 4)))
    refused(ShapeError, "lengths: expected 0 <= length <= 5, the steps of x, got 1..6", x, lengths=[1, 6])
    refused(ShapeError, "lengths: expected None with a single sequence", x[:, 0], lengths=[5])
    refused(ShapeError, "lengths: expected an array, or a list with rows of one length, got ", x, lengths=[[1], [2, 3]])
    if device.is_cuda:
        refused(DeviceError, "x: expected cuda:0, the device of weight_ih_l0, got cpu", gl.tensor(np.zeros((5, 2, 3))))


@pytest.mark.oracle
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("states", [True, False])
def test_the_cell_is_torchs(device, rng, batched, bias, states):
    import torch

    theirs = torch.nn.LSTMCell(3, 5, bias=bias).double()
    ours = gl.LSTMCell(3, 5, bias=bias, device=device.name, dtype="float64")
    ours.load_state_dict(theirs.state_dict())
    leading = (2,) if batched else ()
    x, h, c = (rng.standard_normal((*leading, n)) for n in (3, 5, 5))
    tx, th, tc = (torch.tensor(a, requires_grad=True) for a in (x, h, c))
    gx, gh, gc = (gl.Tensor(device.asarray(a), requires_grad=True) for a in (x, h, c))
    want, got = theirs(tx, (th, tc) if states else None), ours(gx, (gh, gc) if states else None)
    for a, b in zip(got, want, strict=True):
        assert_close(a, b.detach())
    (want[0].sum() + 2 * want[1].sum()).backward()
    (got[0].sum() + 2 * got[1].sum()).backward()
    pairs = [
        (gx.grad, tx.grad),
        *((p.grad, q.grad) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True)),
    ]
    for a, b in [*pairs, (gh.grad, th.grad), (gc.grad, tc.grad)] if states else pairs:
        assert_close(device.to_numpy(a), b.numpy())


def test_the_cell_in_a_loop_is_the_layer(device, rng):
    layer, cell = make(device, 3, 4), gl.LSTMCell(3, 4, device=device.name, dtype="float64")
    cell.load_state_dict({n.removesuffix("_l0"): a for n, a in layer.state_dict().items()})
    x, states, outputs = device.asarray(rng.standard_normal((5, 2, 3))), None, []
    for step in x:
        states = cell(step, states)
        outputs.append(states[0].numpy())
    assert_close(layer(x)[0], np.stack(outputs))
    with pytest.raises(ShapeError, match=r"x: expected \(B, 3\) or \(3,\), got \(2, 4\)"):
        cell(device.xp.zeros((2, 4)))
    with pytest.raises(ShapeError, match=r"h: expected \(2, 4\), got \(1, 4\)"):
        cell(x[0], (device.xp.zeros((1, 4)), device.xp.zeros((2, 4))))


def both_ways(device, layer, x, **call):
    """The layer's numbers for x: outputs, gradient of x and gradients of the parameters, all on the host."""
    layer.zero_grad()
    x = x if isinstance(x, gl.Tensor) else gl.Tensor(x, requires_grad=True)
    x.grad = None
    output, (h_n, c_n) = layer(x, **call)
    ((output**2).sum() + (h_n * c_n).sum()).backward()
    arrays = [output.data, h_n.data, c_n.data, x.grad, *(p.grad for p in layer.parameters())]
    return [device.to_numpy(a) for a in arrays]


def assert_same(got, want):
    for k, (a, b) in enumerate(zip(got, want, strict=True)):
        assert_close(a, b, name=f"array {k}")


@pytest.mark.parametrize("batch_first", [False, True])
def test_input_need_not_be_contiguous(device, rng, batch_first):
    layer = make(device, 3, 5, num_layers=2, bidirectional=True, batch_first=batch_first)
    x = rng.standard_normal((4, 6, 6))
    plain = device.asarray(np.ascontiguousarray(x[:, ::2, 1::2]))
    strided = device.asarray(x)[:, ::2, 1::2]
    turned = device.asarray(np.ascontiguousarray(x[:, ::2, 1::2].transpose(2, 1, 0))).transpose(2, 1, 0)
    want = both_ways(device, layer, plain)
    for other in (strided, turned):
        assert not other.flags.c_contiguous
        assert_same(both_ways(device, layer, other), want)


def test_lengths_come_in_many_forms(device, rng):
    layer = make(device, 3, 4, num_layers=2, bidirectional=True)
    x, lengths = device.asarray(rng.standard_normal((5, 3, 3))), [3, 0, 5]
    want = both_ways(device, layer, x, lengths=lengths)
    there = device.asarray(np.array(lengths, np.int32))
    for form in (tuple(lengths), np.array(lengths), np.array(lengths, np.uint8), there, gl.Tensor(there)):
        assert_same(both_ways(device, layer, x, lengths=form), want)


def test_padding_is_never_read_and_never_learnt_from(device, rng):
    layer = make(device, 3, 4, num_layers=2, bidirectional=True)
    x, lengths = rng.standard_normal((5, 3, 3)), np.array([3, 0, 5])
    want = both_ways(device, layer, device.asarray(x), lengths=lengths)
    x[np.arange(5)[:, None] >= lengths] = np.nan
    assert_same(both_ways(device, layer, device.asarray(x), lengths=lengths), want)


@pytest.mark.parametrize("through", ["output", "h_n", "c_n"])
@pytest.mark.parametrize("lengths", [None, [2, 0, 4]], ids=str)
def test_gradients_through_one_output_are_central_differences(device, rng, through, lengths):
    layer = make(device, 2, 3, num_layers=2, bidirectional=True, proj_size=2)
    exact = gl.LSTM(2, 3, 2, bidirectional=True, proj_size=2, device="cpu", dtype="float64", path="reference")
    state = {name: device.to_numpy(array).copy() for name, array in layer.state_dict().items()}
    exact.load_state_dict(state)
    values = rng.standard_normal((4, 3, 2))
    weights = {name: rng.standard_normal(12) for name in ("output", "h_n", "c_n")}

    def loss(layer, x, asarray):
        output, (h_n, c_n) = layer(x, lengths=lengths)
        chosen = {"output": output, "h_n": h_n, "c_n": c_n}[through]
        cycle = np.resize(weights[through], chosen.shape)
        return (chosen * asarray(cycle)).sum()

    x = gl.Tensor(device.asarray(values.copy()), requires_grad=True)
    loss(layer, x, device.asarray).backward()
    parameters = dict(exact.named_parameters())
    with gl.no_grad():
        differences = central_differences(lambda v: loss(exact, v, np.asarray).item(), values)
        assert_gradient(x.grad, differences, "x")
        for name in ("weight_ih_l0", "weight_hh_l0_reverse", "bias_hh_l1", "weight_hr_l1_reverse"):
            differences = central_differences(lambda _: loss(exact, values, np.asarray).item(), parameters[name].data)
            assert_gradient(dict(layer.named_parameters())[name].grad, differences, name)
            assert np.abs(differences).max() > 1e-4, name  # a gradient of zeros would be no test


def test_a_path_can_be_chosen(device, rng):
    x = device.asarray(rng.standard_normal((4, 2, 3)))
    chosen = make(device, 3, 4, num_layers=2, bidirectional=True, path="reference")
    layer = make(device, 3, 4, num_layers=2, bidirectional=True)
    layer.load_state_dict(chosen.state_dict())
    with gl.explain() as runs:
        want = both_ways(device, layer, x)
        assert_same(both_ways(device, chosen, x), want)
    assert [launched(run.path) for run in runs] == [fast_path(device)] * 4 + ["reference"] * 4
    assert [run.reverse for run in runs] == [False, True] * 4
    if not device.is_cuda:
        with pytest.raises(gl.NoKernel, match="use path='auto'"):
            make(device, 3, 4, path="kernel")(x)
    cell = gl.LSTMCell(3, 4, device=device.name, dtype="float64", path="reference")
    with gl.explain() as runs:
        cell(x[0])
    assert [(run.path, run.shape) for run in runs] == [("reference", (1, 2, 3, 4))]


def test_the_gradient_of_the_input_is_computed_when_wanted_only(device, rng, monkeypatch):
    asked = []

    def watched(*args, **kwargs):
        asked.append(kwargs["input_gradient"])
        return recurrent(*args, **kwargs)

    recurrent = functional.recurrent
    for module in (functional, directions):
        monkeypatch.setattr(module, "recurrent", watched)
    layer = make(device, 3, 4, num_layers=2, bidirectional=True)
    x = device.asarray(rng.standard_normal((4, 2, 3)))
    layer(x)
    layer(gl.Tensor(x, requires_grad=True))
    assert asked == [False, False, True, True, True, True, True, True]


def test_frozen_layers_pass_gradients_on(device, rng):
    layer = make(device, 3, 4)
    for p in layer.parameters():
        p.requires_grad = False
    x = gl.Tensor(device.asarray(rng.standard_normal((4, 2, 3))), requires_grad=True)
    layer(x)[0].sum().backward()
    assert all(p.grad is None for p in layer.parameters()) and np.abs(device.to_numpy(x.grad)).max() > 0
    assert not layer(x.detach())[0].requires_grad


def test_without_gradients_nothing_is_remembered(device, rng):
    layer, x = make(device, 3, 4, num_layers=2), device.asarray(rng.standard_normal((4, 2, 3)))
    want = layer(x)[0]
    with gl.no_grad():
        output, (h_n, c_n) = layer(x)
    assert not (output.requires_grad or h_n.requires_grad or c_n.requires_grad)
    assert want.requires_grad and (output.numpy() == want.numpy()).all()


def test_chunks_with_carried_states_equal_the_whole(device, rng):
    layer = make(device, 3, 4, num_layers=2, proj_size=2)
    x = device.asarray(rng.standard_normal((7, 2, 3)))
    whole, last = layer(x)
    first, states = layer(x[:3])
    second, states = layer(x[3:], states)
    assert_close(np.concatenate([first.numpy(), second.numpy()]), whole)
    for a, b in zip(states, last, strict=True):
        assert_close(a, b)


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_float32_errors_are_as_small_as_torchs(device, dtype, rng):
    """Against torch in float64: the ratio rule, torch's own float32 run standing for the plain one."""
    import torch

    torch.manual_seed(0)
    theirs = torch.nn.LSTM(16, 32, num_layers=2, bidirectional=True)
    ours = make(device, 16, 32, num_layers=2, bidirectional=True, dtype=dtype)
    ours.load_state_dict(theirs.state_dict())
    x = rng.standard_normal((20, 3, 16)).astype(np.float32)
    plain = theirs(torch.tensor(x))
    exact = theirs.double()(torch.tensor(x).double())
    output, (h_n, c_n) = ours(device.asarray(x.astype(dtype)))
    for name, a, b, c in zip(
        ("output", "h_n", "c_n"),
        (output, h_n, c_n),
        (plain[0], *plain[1]),
        (exact[0], *exact[1]),
        strict=True,
    ):
        assert a.dtype == dtype
        assert_ratio(a, b.detach(), c.detach(), name=name)


@pytest.mark.oracle
def test_torchs_tensors_are_taken_as_they_are():
    import torch

    layer = gl.LSTM(3, 4, device="cpu")
    x, states = torch.randn(5, 2, 3), (torch.randn(1, 2, 4), torch.randn(1, 2, 4))
    want = layer(x.numpy(), tuple(s.numpy() for s in states), lengths=[5, 2])
    got = layer(x, states, lengths=torch.tensor([5, 2]))
    assert (got[0].numpy() == want[0].numpy()).all() and (got[1][1].numpy() == want[1][1].numpy()).all()
    cell = gl.LSTMCell(3, 4, device="cpu")
    assert cell(x[0], (states[0][0], states[1][0]))[0].shape == (2, 4)
    assert gl.Linear(3, 2, device="cpu")(x).shape == (5, 2, 2)
    assert gl.Embedding(3, 2, device="cpu")(torch.tensor([0, 2])).shape == (2, 2)


def test_an_argument_in_a_wrong_place_is_noticed():
    for arguments, name in (((3, 4, 2, 0.5), "bias"), ((3, 4, 2, True, 1), "batch_first")):
        with pytest.raises(DTypeError, match=f"{name}: expected True or False, got"):
            gl.LSTM(*arguments, device="cpu")
    with pytest.raises(DTypeError, match="bidirectional: expected True or False, got 'no'"):
        gl.LSTM(3, 4, bidirectional="no", device="cpu")
    with pytest.raises(ShapeError, match="hidden_size: expected an integer above 0, got 0"):
        gl.LSTMCell(3, 0, device="cpu")


def test_states_of_another_type_and_steps_there_are_none_of(device, rng):
    layer, x = make(device, 3, 4), device.asarray(rng.standard_normal((5, 2, 3)))
    states = tuple(device.xp.zeros((1, 2, 4), np.float32) for _ in "hc")
    with pytest.raises(DTypeError, match="h_0: expected float64, the type of the weights, got float32"):
        layer(x, states)
    with pytest.raises(ShapeError, match=r"x: expected at least one step, got \(0, 3\)"):
        layer(x[:0, 0])
    turned = make(device, 3, 4, batch_first=True)
    for none in (x[:0, 0], x[:, :0]):
        with pytest.raises(ShapeError, match="x: expected at least one step"):
            turned(none)
    assert turned(x[:0])[0].shape == (0, 2, 4)  # no sequences
    with pytest.raises(ShapeError, match="hx: expected a pair of states h and c, got 3 of them"):
        layer(x, (*states, states[0]))
    with pytest.raises(DTypeError, match="lengths: expected integers, got float64"):
        layer(x, lengths=[1.0, 2.0])
    with pytest.raises(ShapeError, match=r"lengths: expected \(2,\) = \(batch,\), got \(3,\)"):
        layer(x, lengths=[1, 2, 3])
    with pytest.raises(ShapeError, match=r"expected 0 <= length <= 5, the steps of x, got -1\.\.2"):
        layer(x, lengths=[-1, 2])


def test_a_layer_on_a_second_gpu(emulated, rng):
    """Everything runs on the layer's own device, also while another one is current."""
    layer = gl.LSTM(3, 4, num_layers=2, bidirectional=True, dropout=0.5, batch_first=True, device="cuda:1")
    x = gl.tensor(rng.standard_normal((2, 5, 3)).astype(np.float32), device="cuda:1", requires_grad=True)
    states = tuple(gl.tensor(np.ones((4, 2, 4), np.float32), device="cuda:1", requires_grad=True) for _ in "hc")
    optimizer = gl.SGD(layer.parameters(), lr=0.1)
    for _ in range(2):
        output, (h_n, c_n) = layer(x, states, lengths=[5, 2])
        ((output[:, 0] ** 2).sum() + (h_n * c_n).mean()).backward()
        optimizer.step()
    for leaf in (x, *states, *layer.parameters()):
        assert leaf.grad.device.id == 1 and leaf.device == "cuda:1"


def test_the_cells_parameters_start_as_torchs(rng):
    cell = gl.LSTMCell(30, 25, device="cpu", generator=rng)
    shapes = {"weight_ih": (100, 30), "weight_hh": (100, 25), "bias_ih": (100,), "bias_hh": (100,)}
    assert {name: p.shape for name, p in cell.named_parameters()} == shapes
    for p in cell.parameters():
        assert np.abs(p.numpy()).max() <= 0.2 and np.abs(p.numpy()).max() > 0.18
    states = np.zeros((2, 25), np.float32)
    with pytest.raises(ShapeError, match="hx: expected a pair of states h and c, got 3 of them"):
        cell(np.zeros((2, 30), np.float32), (states, states, states))

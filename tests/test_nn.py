"""Layers and what they share: names of parameters, states, devices, types, and the layers without a loop."""

import copy

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import DeviceError, DTypeError, ShapeError
from gpulstm.nn.summary import table
from tests.tolerances import assert_close


class Net(gl.Module):
    """Layers in attributes and lists, parameters of its own, a shared weight and things that are neither."""

    def __init__(self, device="cpu", dtype="float32"):
        made = {"device": device, "dtype": dtype}
        self.embedding = gl.Embedding(7, 4, **made)
        self.blocks = [gl.Linear(4, 4, **made), gl.Sequential(gl.Dropout(0.5), gl.Linear(4, 4, **made))]
        self.scale = gl.Parameter(gl.tensor(np.ones(4), dtype=dtype, device=device).data)
        self.shifts = [gl.Parameter(gl.tensor(np.zeros(4), dtype=dtype, device=device).data) for _ in "ab"]
        self.out = gl.Linear(4, 7, bias=False, **made)
        self.out.weight = self.embedding.weight
        self.size, self.names, self.nothing = 4, ["a", "b"], None

    def forward(self, ids):
        x = self.embedding(ids) * self.scale + self.shifts[0] + self.shifts[1]
        for block in self.blocks:
            x = block(x)
        return self.out(x)


NAMES = [
    "scale",
    "shifts.0",
    "shifts.1",
    "embedding.weight",
    "blocks.0.weight",
    "blocks.0.bias",
    "blocks.1.1.weight",
    "blocks.1.1.bias",
    "out.weight",
]


# -- parameters and layers by name ---------------------------------------------------------------------------
def test_parameters_have_names_and_an_order():
    net = Net()
    assert list(net.state_dict()) == NAMES
    named = dict(net.named_parameters())
    assert list(named) == NAMES[:-1]  # the shared weight comes once
    assert [id(p) for p in net.parameters()] == [id(p) for p in named.values()]
    assert net.state_dict()["out.weight"] is net.state_dict()["embedding.weight"]
    assert [type(m).__name__ for m in net.modules()] == [
        "Net", "Embedding", "Linear", "Sequential", "Dropout", "Linear", "Linear"
    ]  # fmt: skip
    assert [name for name, _ in net.named_children()] == ["embedding", "blocks.0", "blocks.1", "out"]
    assert [type(m).__name__ for m in net.children()] == ["Embedding", "Linear", "Sequential", "Linear"]
    assert [name for name, _ in net.named_modules()][:3] == ["", "embedding", "blocks.0"]


@pytest.mark.oracle
def test_names_are_torchs():
    import torch

    class Theirs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(7, 4)
            linear = torch.nn.Linear
            self.blocks = torch.nn.ModuleList([linear(4, 4), torch.nn.Sequential(torch.nn.Dropout(0.5), linear(4, 4))])
            self.scale = torch.nn.Parameter(torch.ones(4))
            self.shifts = torch.nn.ParameterList([torch.zeros(4), torch.zeros(4)])
            self.out = linear(4, 7, bias=False)
            self.out.weight = self.embedding.weight

    theirs, ours = Theirs(), Net()
    assert set(theirs.state_dict()) == set(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict({name: torch.tensor(array) for name, array in ours.state_dict().items()})
    assert (ours.blocks[1][1].weight.numpy() == theirs.blocks[1][1].weight.detach().numpy()).all()
    sequential = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LSTM(3, 4))
    mine = gl.Sequential(gl.Linear(2, 3, device="cpu"), gl.LSTM(3, 4, device="cpu"))
    assert list(sequential.state_dict()) == list(mine.state_dict())


# -- states --------------------------------------------------------------------------------------------------
def test_a_state_is_loaded_into_the_parameters_own_arrays(device):
    net, other = Net(device.name), Net()
    arrays = [p.data for p in net.parameters()]
    answer = net.load_state_dict(other.state_dict())
    assert answer.missing_keys == answer.unexpected_keys == []
    for before, p, q in zip(arrays, net.parameters(), other.parameters(), strict=True):
        assert p.data is before and (p.numpy() == q.numpy()).all()
    net.scale.data[...] = 5
    assert (device.to_numpy(net.state_dict()["scale"]) == 5).all()  # not copies


def test_states_of_other_types_and_devices(device):
    layer = gl.Linear(2, 2, device=device.name)
    want = np.array([[1.0, 2.0], [3.0, 4.0]])
    bias = np.zeros(2, np.int64)
    for weight in (want, want.astype(np.float16), device.asarray(want), gl.Tensor(device.asarray(want))):
        layer.weight.data[...] = 0
        layer.load_state_dict({"weight": weight, "bias": bias})
        assert layer.weight.dtype == np.float32 and (layer.weight.numpy() == want).all()
        assert layer.weight.device == device.name
    wide = gl.Linear(2, 2, device=device.name, dtype="bfloat16")
    wide.load_state_dict({"weight": want, "bias": bias})
    assert wide.weight.dtype.name == "bfloat16" and (wide.weight.numpy().astype(float) == want).all()


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_torchs_tensors_are_loaded(device, dtype):
    import torch

    theirs = torch.nn.Linear(3, 2).to(getattr(torch, dtype))
    ours = gl.Linear(3, 2, device=device.name)
    for state in (theirs.state_dict(), dict(theirs.named_parameters())):  # the latter require gradients
        ours.weight.data[...] = 0
        ours.load_state_dict(state)
        assert (ours.weight.numpy() == theirs.weight.detach().float().numpy()).all()


def test_all_that_is_wrong_with_a_state_is_said_and_nothing_changes(device):
    net = Net(device.name)
    before = {name: device.to_numpy(array).copy() for name, array in net.state_dict().items()}
    state = {name: np.ones(array.shape) for name, array in net.state_dict().items()}
    del state["scale"], state["blocks.0.bias"]
    state |= {"extra": np.ones(1), "shifts.1": np.ones((4, 1)), "shifts.0": np.array(["a"] * 4)}
    with pytest.raises(ShapeError) as caught:
        net.load_state_dict(state)
    for part in (
        "state of Net: ",
        "missing scale",
        "missing blocks.0.bias",
        "unexpected extra",
        "shifts.1: expected (4,), got (4, 1)",
        "shifts.0: expected real numbers, got <U1",
    ):
        assert part in str(caught.value)
    for name, array in net.state_dict().items():
        assert (device.to_numpy(array) == before[name]).all()


def test_a_state_that_is_not_strict(device):
    net = Net(device.name)
    bias = net.state_dict()["blocks.0.bias"].copy()
    answer = net.load_state_dict({"scale": np.full(4, 3.0), "extra": np.ones(1)}, strict=False)
    assert answer.unexpected_keys == ["extra"] and answer.missing_keys == [n for n in NAMES if n != "scale"]
    assert (net.scale.numpy() == 3).all() and (net.state_dict()["blocks.0.bias"] == bias).all()
    with pytest.raises(ShapeError, match=r"scale: expected \(4,\), got \(3,\)"):
        net.load_state_dict({"scale": np.ones(3)}, strict=False)


# -- devices, types, modes -----------------------------------------------------------------------------------
def test_to_another_type_and_device(device):
    net = Net()
    values = net.scale.numpy().copy()
    net(np.array([[0, 1]])).sum().backward()
    parameters = list(net.parameters())
    assert net.to(device.name) is net and net.device == device.name
    assert net.to("float64") is net
    for p in net.parameters():
        assert p.device == device.name and p.dtype == np.float64
        if p.grad is not None:
            assert p.grad.dtype == np.float64 and isinstance(p.grad, device.xp.ndarray)
    assert list(net.parameters()) == parameters  # the same objects, as an optimiser holds them
    assert net.out.weight is net.embedding.weight and (net.scale.numpy() == values).all()
    net.to("cpu", np.float16)
    assert net.scale.dtype == np.float16 and net.device == "cpu"
    net.to("bfloat16")
    assert net(np.array([0, 1])).dtype.name == "bfloat16"
    with pytest.raises(DeviceError, match="device: expected 'auto', 'cpu', 'cuda'"):
        net.to("gpu")
    with pytest.raises(DTypeError, match=r"dtype: expected float32, .* got int64"):
        net.to(np.int64)


def test_a_layer_keeps_its_arrays_when_it_is_there_already(device):
    layer = gl.Linear(2, 3, device=device.name)
    weight = layer.weight.data
    layer.to(device.name).to("float32")
    assert layer.weight.data is weight


def test_new_layers_go_to_the_best_device_in_float32(emulated):
    for layer in (gl.Linear(2, 3), gl.Embedding(2, 3), gl.LSTM(2, 3), gl.LSTMCell(2, 3)):
        for p in layer.parameters():
            assert p.device == "cuda:0" and p.dtype == np.float32
    assert gl.Linear(2, 3, device=gl.device("cuda:1")).device == "cuda:1"
    with pytest.raises(DeviceError, match=r"^x: expected cuda:0, the device of weight, got cpu; .*device='cuda:0'"):
        gl.Linear(2, 3)(gl.tensor(np.ones((4, 2), np.float32)))


def test_arrays_of_the_host_are_moved_to_a_layers_gpu(emulated):
    """What a layer, a loss and an operator are given; a Tensor is where its user has put it."""
    x, ids = np.ones((5, 2, 3), np.float32), np.zeros((5, 2), np.int64)
    with gl.explain() as runs:
        y, (h, _) = gl.LSTM(3, 4)(x, (np.zeros((1, 2, 4), np.float32), None))
        gl.mse(y + np.ones(4, np.float32), np.zeros((5, 2, 4), np.float32)).backward()
        gl.LSTMCell(3, 4)(x[0])
        gl.LayerNorm(3)(x)
        gl.Embedding(4, 2)(ids)
        gl.Sequential(gl.Dropout(), gl.Linear(3, 2))(x)
        gl.Attention(4, 3)(y, x)
    assert y.device == h.device == "cuda:0"
    wanted = ["x", "h_0", "b", "target", "x", "x", "ids", "x", "keys"]
    assert [line.split(" ")[0] for line in runs.moved] == wanted
    assert str(runs).splitlines()[-1] == "keys (5, 2, 3) float32 was copied from the host to cuda:0"


def test_modes_reach_every_layer():
    net = Net()
    assert all(m.training for m in net.modules())
    assert net.eval() is net and not any(m.training for m in net.modules())
    assert net.train() is net and all(m.training for m in net.modules())
    net.blocks[1].eval()
    assert net.training and not net.blocks[1][0].training


def test_gradients_are_forgotten():
    net = Net()
    net(np.array([0, 1])).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_a_copy_shares_nothing(device):
    net = Net(device.name)
    twin = copy.deepcopy(net)
    twin.scale.data[...] = 9
    assert (net.scale.numpy() == 1).all() and twin.out.weight is twin.embedding.weight
    assert list(twin.state_dict()) == NAMES


def test_a_layer_without_forward_says_so():
    with pytest.raises(TypeError, match="Module has no forward method"):
        gl.Module()(1)


# -- how they show -------------------------------------------------------------------------------------------
def test_repr_nests_like_torchs():
    want = """Net(
  (embedding): Embedding(7, 4)
  (blocks.0): Linear(4, 4, bias=True)
  (blocks.1): Sequential(
    (0): Dropout(p=0.5)
    (1): Linear(4, 4, bias=True)
  )
  (out): Linear(4, 7, bias=False)
)"""
    assert repr(Net()) == want
    lstm = gl.LSTM(3, 4, 2, batch_first=True, bidirectional=True, proj_size=2, device="cpu")
    assert repr(lstm) == "LSTM(3, 4, num_layers=2, batch_first=True, bidirectional=True, proj_size=2)"
    assert repr(gl.LSTMCell(3, 4, bias=False, device="cpu")) == "LSTMCell(3, 4, bias=False)"
    assert repr(gl.LayerNormLSTMCell(3, 4, device="cpu")) == "LayerNormLSTMCell(3, 4)"
    assert repr(gl.Embedding(3, 4, padding_idx=0, device="cpu")) == "Embedding(3, 4, padding_idx=0)"


def test_the_summary_counts_every_parameter_once(capsys):
    net = Net()
    net.scale.requires_grad = False
    assert net.summary() is None
    text = capsys.readouterr().out
    assert text == table(net) + "\n"
    lines = text.splitlines()
    assert lines[0] == 'Model: "Net"' and lines[2].split() == [
        "Layer",
        "(type)",
        "Output",
        "shape",
        "Param",
        "#",
    ]
    rows = {line.split()[0]: line.split()[-1] for line in lines[4:11]}
    assert rows == {
        "net": "12", "embedding": "28", "blocks.0": "20", "blocks.1.0": "0", "blocks.1.1": "20", "out": "28"
    } | {lines[10].split()[0]: lines[10].split()[-1]}  # fmt: skip
    assert lines[-3:] == [
        "Total params: 80 (320.00 B)",
        "Trainable params: 76 (304.00 B)",
        "Non-trainable params: 4 (16.00 B)",
    ]
    assert "embedding (Embedding)  (..., 4)" in text and "same as input" in text


def test_the_summary_of_one_layer_and_of_much():
    text = table(gl.LSTM(1000, 512, bidirectional=True, device="cpu"))
    assert {len(line) for line in text.splitlines()[1:6]} == {len("lstm (LSTM)   (..., 1024)   6,201,344")}
    assert "Total params: 256 (1.00 KB)" in table(gl.Embedding(64, 4, device="cpu"))
    assert text.splitlines()[4] == "lstm (LSTM)   (..., 1024)   6,201,344"
    assert text.splitlines()[-3] == "Total params: 6,201,344 (23.66 MB)"


# -- Linear --------------------------------------------------------------------------------------------------
@pytest.mark.oracle
@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 4, 3), (0, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_torchs(device, rng, shape, bias):
    import torch

    theirs = torch.nn.Linear(3, 5, bias=bias).double()
    ours = gl.Linear(3, 5, bias=bias, device=device.name, dtype="float64")
    ours.load_state_dict(theirs.state_dict())
    x = rng.standard_normal(shape)
    a, b = torch.tensor(x, requires_grad=True), gl.Tensor(device.asarray(x), requires_grad=True)
    want, got = theirs(a), ours(b)
    assert_close(got, want.detach())
    (want**2).sum().backward()
    (got**2).sum().backward()
    assert_close(device.to_numpy(b.grad), a.grad)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert_close(device.to_numpy(p.grad), q.grad)


def test_linear_starts_as_torch_does(rng):
    layer = gl.Linear(400, 300, device="cpu", generator=rng)
    bound = 1 / 20
    for values in (layer.weight.numpy(), layer.bias.numpy()):
        assert np.abs(values).max() <= bound and np.abs(values).max() > 0.95 * bound
        assert abs(values.mean()) < 0.1 * bound and abs(values.std() / (bound / 3**0.5) - 1) < 0.1


def test_linear_says_what_does_not_fit(device):
    layer = gl.Linear(3, 2, device=device.name)
    with pytest.raises(ShapeError, match=r"x: expected \(..., 3\) = \(..., in\), got \(2, 4\)"):
        layer(device.xp.zeros((2, 4), np.float32))
    with pytest.raises(DTypeError, match="x: expected float32, the type of the weights, got float64"):
        layer(device.xp.zeros((2, 3)))
    with pytest.raises(ShapeError, match="in_features: expected an integer above 0, got 0"):
        gl.Linear(0, 2, device="cpu")
    with pytest.raises(ShapeError, match=r"out_features: expected an integer above 0, got 2\.5"):
        gl.Linear(3, 2.5, device="cpu")


# -- Embedding -----------------------------------------------------------------------------------------------
@pytest.mark.oracle
@pytest.mark.parametrize("padding_idx", [None, 0, -2, -6])
def test_embedding_is_torchs(device, rng, padding_idx):
    import torch

    theirs = torch.nn.Embedding(6, 3, padding_idx=padding_idx).double()
    ours = gl.Embedding(6, 3, padding_idx=padding_idx, device=device.name, dtype="float64")
    if padding_idx is not None:
        assert (ours.weight.numpy()[padding_idx] == 0).all() and np.count_nonzero(ours.weight.numpy()) == 15
    ours.load_state_dict(theirs.state_dict())
    ids = rng.integers(0, 6, (4, 5))
    want, got = theirs(torch.tensor(ids)), ours(device.asarray(ids))
    assert_close(got, want.detach())
    (want**3).sum().backward()
    (got**3).sum().backward()
    assert_close(device.to_numpy(ours.weight.grad), theirs.weight.grad)


def test_embedding_takes_ids_of_many_kinds(device):
    layer = gl.Embedding(6, 3, device=device.name)
    ids = np.array([[1, 5], [0, 1]])
    want = layer.weight.numpy()[ids]
    there = device.asarray(ids)
    for given in (there, there.astype(np.uint8), gl.Tensor(there), ids.tolist()):
        assert (layer(given).numpy() == want).all()
    assert layer(3).shape == (3,) and layer(device.xp.zeros((0, 2), np.int64)).shape == (0, 2, 3)


def test_embedding_starts_as_torch_does(rng):
    values = gl.Embedding(300, 200, device="cpu", generator=rng).weight.numpy()
    assert abs(values.mean()) < 0.02 and abs(values.std() - 1) < 0.02 and np.abs(values).max() > 3.5


def test_embedding_says_what_does_not_fit(device):
    layer = gl.Embedding(6, 3, device=device.name)
    with pytest.raises(ShapeError, match=r"ids: expected 0 <= index < 6, the rows of the table, got 6 at \(0, 1\)"):
        layer(device.asarray(np.array([[0, 6]])))
    with pytest.raises(DTypeError, match="ids: expected integers, got float32"):
        layer(device.xp.zeros(3, np.float32))
    for padding_idx in (6, -7):
        with pytest.raises(ShapeError, match="padding_idx: expected -6 <= padding_idx < 6, got"):
            gl.Embedding(6, 3, padding_idx=padding_idx, device="cpu")


# -- Dropout -------------------------------------------------------------------------------------------------
def test_dropout_drops_in_training_only(device):
    layer, x = gl.Dropout(0.25), device.asarray(np.ones((100, 100)))
    gl.manual_seed(5)
    first, second = layer(x).numpy(), layer(x).numpy()
    gl.manual_seed(5)
    assert (layer(x).numpy() == first).all() and (first != second).any()
    assert set(np.unique(first)) == {0, 1 / 0.75} and abs((first == 0).mean() - 0.25) < 0.03
    layer.eval()
    assert layer(x).data is x
    assert gl.Dropout(0.0)(x).data is x
    assert (gl.Dropout(1.0)(x).numpy() == 0).all()


def test_dropout_takes_its_seeds_from_a_generator():
    x = np.ones(1000)
    layers = [gl.Dropout(0.5, generator=np.random.default_rng(2)) for _ in range(2)]
    gl.manual_seed(5)
    untouched = gl.manual_seed(5).bit_generator.state
    first, second = (layer(x).numpy() for layer in layers)
    assert (first == second).all() and (layers[0](x).numpy() != first).any()
    assert gl.random.default_generator().bit_generator.state == untouched


def test_dropout_passes_gradients_where_it_passes_values(device):
    x = gl.Tensor(device.asarray(np.full(1000, 2.0)), requires_grad=True)
    y = gl.Dropout(0.5)(x)
    y.sum().backward()
    assert (device.to_numpy(x.grad) == y.numpy() / 2).all()


@pytest.mark.parametrize("p", [-0.1, 1.1, "half", True, None])
def test_dropout_says_what_does_not_fit(p):
    with pytest.raises(ShapeError, match="p: expected a number from 0 to 1"):
        gl.Dropout(p)


# -- Sequential ----------------------------------------------------------------------------------------------
def test_sequential_runs_through_its_layers(device, rng):
    made = {"device": device.name, "dtype": "float64"}
    layers = gl.Linear(3, 4, **made), gl.LSTM(4, 5, **made), gl.Linear(5, 2, **made)
    model = gl.Sequential(*layers)
    x = device.asarray(rng.standard_normal((6, 2, 3)))
    assert_close(model(x), layers[2](layers[1](layers[0](x))[0]))
    assert len(model) == 3 and model[1] is layers[1] and list(model) == list(layers)
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    with pytest.raises(DTypeError, match="Sequential: expected layers or functions, got int"):
        gl.Sequential(3)


# -- first values --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("make", [gl.Linear, gl.Embedding, gl.LSTM, gl.LSTMCell])
def test_a_seed_gives_the_same_layer_on_every_device_and_type(device, make):
    made = []
    for where, dtype in (("cpu", "float64"), (device.name, "float64"), (device.name, "float32")):
        gl.manual_seed(11)
        made.append(make(5, 4, device=where, dtype=dtype).state_dict())
    for name, array in made[0].items():
        assert (device.to_numpy(made[1][name]) == array).all()
        assert (device.to_numpy(made[2][name]) == array.astype(np.float32)).all()
    given = make(5, 4, device="cpu", generator=np.random.Generator(np.random.PCG64(11))).state_dict()
    assert all((given[name] == array.astype(np.float32)).all() for name, array in made[0].items())


# -- functions on Tensors ------------------------------------------------------------------------------------
LOSSES = {
    "mse": ("mse_loss", {}),
    "huber": ("huber_loss", {"delta": 0.5}),
    "binary_cross_entropy_with_logits": ("binary_cross_entropy_with_logits", {}),
    "cross_entropy": ("cross_entropy", {"label_smoothing": 0.1, "ignore_index": 2}),
}


@pytest.mark.oracle
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_torchs(device, rng, name, reduction):
    import torch

    theirs, options = LOSSES[name]
    x = rng.standard_normal((4, 3))
    target = rng.integers(0, 3, 4) if name == "cross_entropy" else rng.uniform(size=(4, 3))
    a, b = torch.tensor(x, requires_grad=True), gl.Tensor(device.asarray(x), requires_grad=True)
    want = getattr(torch.nn.functional, theirs)(a, torch.tensor(target), reduction=reduction, **options)
    got = getattr(gl, name)(b, device.asarray(target), reduction=reduction, **options)
    assert_close(got, want.detach())
    want.sum().backward()
    got.sum().backward()
    assert_close(device.to_numpy(b.grad), a.grad)


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["tanh", "sigmoid", "relu", "exp", "log"])
def test_activations_are_torchs(device, rng, name):
    import torch

    x = rng.uniform(0.5, 2, (3, 2)) - (0 if name == "log" else 1)
    a, b = torch.tensor(x, requires_grad=True), gl.Tensor(device.asarray(x), requires_grad=True)
    want, got = getattr(torch, name)(a), getattr(gl, name)(b)
    assert_close(got, want.detach())
    (want * want).sum().backward()
    (got * got).sum().backward()
    assert_close(device.to_numpy(b.grad), a.grad)


def test_concatenate_and_stack(device, rng):
    x, y = (gl.Tensor(device.asarray(rng.standard_normal((2, 3))), requires_grad=True) for _ in "xy")
    joined, stacked = gl.concatenate([x, y], axis=1), gl.stack((x, y), axis=1)
    assert joined.shape == (2, 6) and stacked.shape == (2, 2, 3)
    (joined[:, 3:].sum() + 2 * stacked[:, 0].sum()).backward()
    assert (device.to_numpy(x.grad) == 2).all() and (device.to_numpy(y.grad) == 1).all()


# -- all together --------------------------------------------------------------------------------------------
def test_a_model_learns(device):
    """The whole stack learns to add two numbers, which it cannot do by chance."""
    gl.manual_seed(0)
    generator = np.random.default_rng(0)
    model = gl.Sequential(gl.LSTM(1, 8, device=device.name), gl.Linear(8, 1, device=device.name))
    optimizer = gl.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        x = generator.uniform(-1, 1, (2, 16, 1)).astype(np.float32)
        loss = gl.mse(model(device.asarray(x))[1], device.asarray(x.sum(axis=0)))
        model.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < 0.2 * np.mean(losses[:10])

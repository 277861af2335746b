"""Module: where parameters, buffers and layers are found, what may be assigned, hooks, conversions and copies."""

import collections
import copy
import dataclasses
import functools
import pickle
import time
import types
import weakref

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import DTypeError, FormatError, ShapeError, TapeError
from gpulstm.nn.summary import table
from tests.conftest import require

MADE = {"device": "cpu"}


def linear(inputs=2, outputs=3, **options):
    return gl.Linear(inputs, outputs, **MADE, **options)


class Holder(gl.Module):
    """A module with one attribute, ``it``."""

    def __init__(self, it):
        self.it = it


class Pair(collections.namedtuple("Pair", "left right")):
    __slots__ = ()


class Both(gl.Module):
    """Picklable: layers in containers, a shared one, a buffer."""

    def __init__(self):
        self.blocks = [{"a": linear(), "drop": gl.Dropout(0.5)}, (linear(3, 3),)]
        self.shared = self.blocks[0]["a"]
        self.facts = types.SimpleNamespace(size=3)
        self.register_buffer("scale", np.ones(3, np.float32))

    def forward(self, x):
        return self.blocks[1][0](self.blocks[0]["drop"](self.shared(x))) * self.scale


# -- what is found -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: {"a": linear(), "b": [linear()]}, ["a.weight", "a.bias", "b.0.weight", "b.0.bias"]),
        (
            lambda: [[linear(bias=False)], (gl.GRU(1, 1, bias=False, **MADE),)],
            ["0.0.weight", "1.0.weight_ih_l0", "1.0.weight_hh_l0"],
        ),
        (lambda: {"w": gl.Parameter(np.ones(2)), "n": 3, 4: "x"}, ["w"]),
        (lambda: Pair(linear(bias=False), [gl.Parameter(np.ones(1))]), ["left.weight", "right.0"]),
        (lambda: collections.OrderedDict(x=collections.defaultdict(list, y=[linear(bias=False)])), ["x.y.0.weight"]),
        (lambda: [None, "a", np.ones(2), {1: 2}, {"x"}, linear(bias=False)], ["5.weight"]),
    ],
)  # fmt: skip
def test_containers_give_names(make, names):
    model = gl.Sequential(Holder(make()))
    got = [name.removeprefix("0.it.") for name in model.state_dict()]
    assert sorted(got) == sorted(names) and sorted(n for n, _ in model.named_parameters()) == sorted(model.state_dict())
    other = gl.Sequential(Holder(make()))
    for p in other.parameters():
        p.data[...] = 7
    model.load_state_dict(other.state_dict())
    assert all((p.data == 7).all() for p in model.parameters())
    model.to("float64").eval()
    assert all(p.dtype == np.float64 for p in model.parameters())
    assert not any(m.training for m in model.modules())
    model.zero_grad()


@pytest.mark.oracle
def test_names_are_those_of_torchs_containers():
    import torch

    class Theirs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            rnns = [torch.nn.LSTM(2, 2), torch.nn.GRU(2, 2)]
            self.blocks = torch.nn.ModuleList(
                [torch.nn.ModuleList(rnns), torch.nn.ModuleDict({"a": torch.nn.Linear(1, 1)})]
            )
            self.scales = torch.nn.ParameterDict({"x": torch.nn.Parameter(torch.ones(1))})
            self.register_buffer("mean", torch.zeros(2))
            self.register_buffer("other", torch.zeros(2), persistent=False)

    class Ours(gl.Module):
        def __init__(self):
            self.blocks = [[gl.LSTM(2, 2), gl.GRU(2, 2)], {"a": gl.Linear(1, 1)}]
            self.scales = {"x": gl.Parameter(np.ones(1, np.float32))}
            self.register_buffer("mean", np.zeros(2, np.float32))
            self.register_buffer("other", np.zeros(2, np.float32), persistent=False)

    theirs, ours = Theirs(), Ours()
    assert sorted(ours.state_dict()) == sorted(theirs.state_dict())
    assert [n for n, _ in ours.named_buffers()] == [n for n, _ in theirs.named_buffers()]
    assert [n for n, _ in ours.named_modules() if not n.startswith("blocks")] == [""]
    ours.load_state_dict(theirs.state_dict())
    assert (ours.blocks[0][0].weight_ih_l0.numpy() == theirs.blocks[0][0].weight_ih_l0.detach().numpy()).all()
    assert type(ours.get_submodule("blocks.1.a")) is gl.Linear
    with pytest.raises(AttributeError, match=r"Ours has no layer 'blocks\.2'"):
        ours.get_submodule("blocks.2")


@dataclasses.dataclass
class Record:
    layer: gl.Module
    size: int = 3


class Slotted:
    __slots__ = ("layer",)

    def __init__(self, layer):
        self.layer = layer


class Stack:
    """A container of one's own."""

    def __init__(self, layers):
        self._layers = list(layers)

    def __iter__(self):
        return iter(self._layers)


def object_array(x):
    array = np.empty((2, 1), object)
    array[1, 0] = x
    return array


@pytest.mark.parametrize(
    ("wrap", "words"),
    [
        (lambda x: {x}, "in a set"),
        (lambda x: frozenset([x]), "in a frozenset"),
        (lambda x: [1, {x}], "it.1 of Holder: .* in a set"),
        (lambda x: {"a": {(x, 1)}}, "it.a of Holder: .* in a set"),
        (lambda x: collections.deque([x]), "in a deque"),
        (lambda x: {3: x}, "it of Holder: .* dicts whose keys are strings without a dot, got a .* in a dict"),
        (lambda x: {"a.b": x}, "in a dict"),
        (lambda x: {"": [x]}, "in a dict"),
        (lambda x: {x: 3}, "in a dict"),
        (lambda x: {"a": {("a", "b"): [x]}}, r"it\.a of Holder: .* in a dict"),
        (lambda x: Record(x), "in a Record"),
        (lambda x: [Record(3), Record(x)], "it.1 of Holder: .* in a Record"),
        (lambda x: Slotted(x), "in a Slotted"),
        (lambda x: Stack([x]), "in a Stack"),
        (lambda x: types.SimpleNamespace(a={"b": x}), "in a SimpleNamespace"),
        (lambda x: {"a": x}.values(), "in a dict_values"),
        (object_array, "in a ndarray"),
        (lambda x: Record(Stack([Record(Slotted(x))])), "in a Record"),
        (lambda x: types.MappingProxyType({"a": x}), "in a mappingproxy"),
        (lambda x: collections.UserDict(a=x), "in a UserDict"),
        (lambda x: functools.partial(max, x), "in a partial"),
        (lambda x: lambda y: x(y), "in a function"),
        (lambda x: [lambda y, layers=(x,): layers[0](y)], "it.0 of Holder: .* in a function"),
        (lambda x: functools.wraps(max)(lambda y: (lambda z: x)(y)), "in a function"),
        (lambda x: Stack([x]).__iter__, "in a method"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "what", [linear, lambda: gl.Parameter(np.ones(2)), lambda: gl.Dropout(0.5)], ids=["layer", "parameter", "empty"]
)
def test_what_no_name_leads_to_is_refused_by_every_walk(wrap, what, words):
    model = Holder(wrap(what()))
    for walk in (
        model.state_dict,
        model.eval,
        lambda: list(model.parameters()),
        lambda: model.to("cpu"),
        model.zero_grad,
    ):
        with pytest.raises(DTypeError, match=words):
            walk()


def test_iterators_are_not_used_up():
    model = Holder(iter([1, 2]))
    assert not model.state_dict() and list(model.it) == [1, 2]


def test_what_is_found_elsewhere_may_be_anywhere():
    class Net(gl.Module):
        def __init__(self):
            self.layer = linear()
            self.rates, self.numbered = {self.layer: 0.1}, [{3: self.layer}]
            self.other = gl.Sequential(linear(), functools.partial(lambda x, layer: layer(x), layer=self.layer))
            self.record, self.all = Record(self.layer), {self.layer}
            self.optimizer = gl.SGD(self.parameters(), lr=0.1)
            self.trainer = types.SimpleNamespace(model=self)
            self.parent = weakref.ref(self)
            self.proxy = weakref.proxy(self)

            self.row = gl.Sequential(lambda x: self.layer(x), self.forward)
            self.again = self.layer.forward

    net = Net()
    assert not list(net.row.parameters()) and not net.row.eval().training  # the functions use what the model holds
    assert net.eval() is net and not net.other[0].training and net.other.train()[0].training is not False
    assert list(net.state_dict()) == ["layer.weight", "layer.bias", "other.0.weight", "other.0.bias"]
    net.all.add(gl.Dropout(0.5))  # a set is read again when it has grown
    with pytest.raises(DTypeError, match=r"all of Net: .* got a Dropout in a set"):
        net.train()


def test_containers_may_change_between_walks():
    model = Holder([])
    assert not list(model.parameters())
    model.it.append({"a": linear()})
    assert list(model.state_dict()) == ["it.0.a.weight", "it.0.a.bias"]
    model.it[0]["b"] = gl.Dropout(0.1)
    assert not any(m.training for m in model.eval().modules()) and not model.it[0]["b"].training
    model.it = list(range(1000))
    assert not model.state_dict()
    model.it.append(linear(bias=False))
    assert list(model.state_dict()) == ["it.1000.weight"]
    model.it = {1}
    model.eval()
    model.it.remove(1), model.it.add(linear())  # as many as before
    with pytest.raises(DTypeError, match="it of Holder"):
        list(model.parameters())
    model.it, words = Stack([]), ["a"] * 100
    model.words = words
    assert not list(model.parameters())
    model.it._layers.append(linear())
    with pytest.raises(DTypeError, match="it of Holder"):
        model.eval()
    model.it, words[3] = None, linear(bias=False)
    assert list(model.state_dict()) == ["words.3.weight"]


def test_what_holds_itself_is_refused():
    parent = gl.Sequential(Holder(None))
    parent[0].it = parent
    for walk in (parent.state_dict, lambda: list(parent.parameters()), parent.eval, parent.summary):
        with pytest.raises(
            DTypeError, match="expected layers that do not contain themselves, got the Sequential that it is in"
        ):
            walk()
    assert "..." in repr(parent)
    ring = Holder([linear()])
    ring.it.append({"again": ring.it})
    with pytest.raises(DTypeError, match=r"it\.1\.again: expected a list that does not contain itself"):
        ring.parameters().__next__()


def test_parameters_of_the_class_and_slots_are_refused():
    with pytest.raises(
        DTypeError, match=r"Net\.layer: expected a Linear as self\.layer in __init__, got one in the class body"
    ):
        type("Net", (gl.Module,), {"layer": linear()})
    with pytest.raises(DTypeError, match=r"Net\.layers: expected a Dropout as self\.layers in __init__"):
        type("Net", (gl.Module,), {"layers": [{"a": gl.Dropout(0.5)}]})
    with pytest.raises(DTypeError, match="Net: expected no __slots__"):
        type("Net", (gl.Module,), {"__slots__": ("layer",)})


def test_a_walk_stays_cheap():
    """The files of a vocabulary and a corpus beside the layers are read once."""
    model = Holder([linear() for _ in range(3)])
    plain = min(_seconds(model) for _ in range(5))
    model.words, model.numbers = [str(n) for n in range(200_000)], {str(n): n for n in range(200_000)}
    model.corpus = types.SimpleNamespace(words=model.words)
    model.arrays, model.records = [np.ones(1) for _ in range(1000)], [Record(None) for _ in range(1000)]
    model.eval()
    assert len(vars(model)["_remembered"]) == 5
    assert min(_seconds(model) for _ in range(5)) < 10 * plain + 1e-4


def _seconds(model):
    start = time.perf_counter()
    list(model.parameters())
    return time.perf_counter() - start


def test_pytorchs_containers_are_said_to_be_plain():
    with pytest.raises(AttributeError, match="no attribute 'ModuleList'; use a plain list or dict"):
        gl.ModuleList([])


# -- what may be assigned ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "value",
    [np.ones((3, 2), np.float32), gl.tensor(np.ones((3, 2))), [1.0], 0.5, np.float32(1), "x", lambda: 0],
    ids=lambda v: type(v).__name__,
)
def test_a_parameter_is_not_replaced_by_what_is_none(value):
    layer = linear()
    weight, state = layer.weight, list(layer.state_dict())
    with pytest.raises(
        DTypeError, match=r"weight: expected a Parameter, .* write layer\.weight\.data\[\.\.\.\] = values"
    ):
        layer.weight = value
    with pytest.raises(DTypeError, match="weight: expected a Parameter"):
        setattr(layer, "weight", value)  # noqa: B010
    assert layer.weight is weight and list(layer.state_dict()) == state


def test_a_parameter_may_be_exchanged_left_out_and_deleted():
    layer = linear()
    same = layer.weight
    layer.weight = same  # what an operator in place gives back
    layer.weight = gl.Parameter(np.ones((5, 2), np.float32))
    with pytest.raises(ShapeError, match=r"bias: expected \(5,\)"):
        layer(np.ones((1, 2), np.float32))
    layer.bias = None
    assert layer(np.ones((1, 2), np.float32)).shape == (1, 5) and list(layer.state_dict()) == ["weight"]
    del layer.weight
    assert not layer.state_dict()
    layer.weight = np.ones(1)  # no parameter any more
    assert not layer.state_dict()


def test_a_layer_is_replaced_by_layers_alone():
    model = Holder(linear())
    for value in (gl.relu, np.ones(2), 3):
        with pytest.raises(DTypeError, match="it: expected a layer or None in place of a layer, got"):
            model.it = value
    model.it = gl.LSTM(2, 2, **MADE)
    model.it = None
    model.it = 3
    model.add_module("head", linear())
    model.register_parameter("w", gl.Parameter(np.ones(1)))
    assert list(model.state_dict()) == ["w", "head.weight", "head.bias"]
    for add, value in ((model.add_module, 3), (model.register_parameter, np.ones(1))):
        with pytest.raises(DTypeError, match="x: expected a"):
            add("x", value)
    with pytest.raises(DTypeError, match=r"a\.b: expected a name without a dot"):
        setattr(model, "a.b", linear())


def test_a_tensor_to_be_learnt_is_no_plain_attribute():
    model, leaf = Holder(None), gl.tensor(np.ones(2), requires_grad=True)
    with pytest.raises(DTypeError, match=r"it: expected a Parameter .* write gl\.Parameter"):
        model.it = leaf
    with pytest.raises(DTypeError, match=r"it\.a\.0: expected a Parameter"):
        Holder({"a": [leaf]}).state_dict()
    model.it = leaf * 2  # a result, and a fixed tensor, are the user's own
    model.fixed = gl.tensor(np.ones(2))
    assert not model.state_dict() and not list(model.parameters())


@pytest.mark.parametrize(
    "name", ["children", "parameters", "train", "float", "apply", "buffers", "to", "state_dict", "summary"]
)
def test_names_of_methods_are_refused(name):
    with pytest.raises(DTypeError, match=f"{name}: expected another name, because {name} is a method of gpulstm's"):
        setattr(Holder(None), name, [])
    assert callable(getattr(Holder(None), name))


def test_names_that_models_use():
    class Net(gl.Module):
        def __init__(self, device):
            self.device, self.training, self.T, self.name = device, False, 3, "net"
            self.lstm = gl.LSTM(3, 4, device=device)

    net = Net("cpu")
    assert net.device == "cpu" and net.T == 3 and not net.training and net.lstm.training
    assert Net(gl.device("cpu")).device.name == "cpu" and copy.deepcopy(Net(gl.device("cpu"))).device.name == "cpu"
    net.forward = lambda x: x + 1
    assert net(1) == 2
    with pytest.raises(
        DTypeError, match="output_size: expected another name, because output_size is a property of gpulstm's Linear"
    ):
        linear().output_size = 3


def test_a_device_of_ones_own_follows_the_module(device):
    model = Holder(linear())
    model.device = "cpu"
    model.to(device.name)
    assert model.device == model.it.device == device.name
    model.device = gl.device("cpu")
    assert str(model.to(device.name).device) == device.name and isinstance(model.device, gl.Device)


# -- buffers -------------------------------------------------------------------------------------------------
def test_buffers_are_saved_moved_and_not_learnt(device):
    model = Holder(linear())
    model.register_buffer("mean", np.ones(2, np.float32))
    model.it.register_buffer("count", gl.tensor(np.array(3)))
    model.register_buffer("cache", np.zeros(1, np.float32), persistent=False)
    model.register_buffer("later", None)
    assert list(model.state_dict()) == ["mean", "it.weight", "it.bias", "it.count"]
    assert [name for name, _ in model.named_buffers()] == ["mean", "cache", "it.count"]
    assert [name for name, _ in model.named_buffers(recurse=False)] == ["mean", "cache"]
    assert len(list(model.parameters())) == 2 and model.later is None
    mean = model.mean
    model.to(device.name, "float16")
    assert model.mean is mean and mean.device == device.name and mean.dtype == model.cache.dtype == np.float16
    assert model.it.count.dtype == np.int64 and model.it.count.device == device.name
    model.load_state_dict({**model.state_dict(), "mean": np.full(2, 5), "it.count": np.array(9)})
    assert model.mean is mean and (mean.numpy() == 5).all() and model.it.count.item() == 9
    for wrong in (np.array(2.5), np.array(2**70, np.float64)):
        with pytest.raises(ShapeError, match=r"it\.count: expected numbers that int64 can hold"):
            model.load_state_dict({**model.state_dict(), "it.count": wrong})


def test_the_summary_tells_of_buffers_and_functions():
    model = gl.Sequential({"net": Both(), "last": gl.relu, "cut": lambda h: h[-1], "norm": gl.LayerNorm(3, **MADE)})
    lines = table(model).splitlines()
    rows = [line.split("  ")[0] for line in lines[4:-5]]
    assert rows[-3:] == ["last (relu)", "cut (<lambda>)", "norm (LayerNorm)"] and "same as input" in lines[-6]
    assert lines[-1] == "Not trained, in buffers: 3 (12.00 B)"


def test_what_is_assigned_to_a_buffer_is_the_buffer():
    model = Holder(None)
    model.register_buffer("mean", np.ones(2, np.float32))
    model.mean = model.mean * 0.5
    model.mean = np.zeros(3, np.float32)
    assert isinstance(model.mean, gl.Tensor) and model.state_dict()["mean"].shape == (3,)
    with pytest.raises(TapeError, match=r"mean: expected a Tensor that requires no gradient .*; call detach\(\) first"):
        model.mean = gl.Parameter(np.ones(2, np.float32)) * 2
    for value in (3, [1.0], linear()):
        with pytest.raises(DTypeError, match="mean: expected a Tensor"):
            model.mean = value
    model.mean = None
    assert not model.state_dict()
    model.mean = np.ones(1)
    model.mean = gl.Parameter(np.ones(1))
    assert not list(model.buffers()) and len(list(model.parameters())) == 1
    model.register_buffer("gone", np.ones(1))
    del model.gone
    model.gone = np.ones(1)
    assert list(model.state_dict()) == ["mean"]
    for name, value, words in (
        ("x", 3, "expected a Tensor, an array or None"), ("x", gl.Parameter(np.ones(1)), "got a Parameter"),
        ("mean", np.ones(1), "expected a new name for a buffer, got that of a"), ("train", None, "is a method"),
        ("a.b", None, "name: expected a name without a dot .*, got 'a.b'"), ("", None, "got ''"), (3, None, "got 3"),
        ("forward", np.ones(1), "got 'forward'"), ("x", np.array(["a"]), "x: expected booleans, integers or floating"),
        ("q", np.ma.masked_array([1.0]), "^q: expected a plain array, got a MaskedArray"),
    ):  # fmt: skip
        with pytest.raises(DTypeError, match=words):
            model.register_buffer(name, value)


# -- states --------------------------------------------------------------------------------------------------
def test_numbers_that_a_type_cannot_hold_are_refused():
    layer = gl.Linear(1, 1, device="cpu", dtype="float16")
    bias = np.zeros(1)
    for weight in (np.array([[1e5]]), np.array([[70_000]]), np.array([[1j]])):
        with pytest.raises(ShapeError, match=r"weight: expected (numbers that float16 can hold|real numbers)"):
            layer.load_state_dict({"weight": weight, "bias": bias})
    for weight in (np.inf, np.nan, 1e-9, True, 3):
        layer.load_state_dict({"weight": np.array([[weight]]), "bias": bias})
    wide = gl.Linear(1, 1, device="cpu")
    with pytest.raises(ShapeError, match="weight: expected numbers that float32 can hold, got float64 numbers that"):
        wide.load_state_dict({"weight": np.array([[1e300]]), "bias": bias})


def test_a_shared_parameter_takes_one_value():
    model = Holder([linear(2, 2, bias=False)])
    model.again = model.it[0]
    state = {"it.0.weight": np.ones((2, 2)), "again.weight": np.zeros((2, 2))}
    with pytest.raises(
        ShapeError, match=r"again\.weight: expected the values of it\.0\.weight, because both share one tensor"
    ):
        model.load_state_dict(state)
    state["again.weight"] = state["it.0.weight"] = np.full((2, 2), np.nan)
    model.load_state_dict(state)


def test_states_of_other_things_and_read_only_arrays_are_named():
    for wrong in ("m.safetensors", [1], linear()):
        with pytest.raises(DTypeError, match=r"state of Linear: expected a dict of arrays .*; gl\.load\(path, model\)"):
            linear().load_state_dict(wrong)
    fixed = np.ones(3, np.float32)
    fixed.flags.writeable = False
    model = Holder(linear())
    model.register_buffer("w", fixed)
    before = model.it.weight.numpy().copy()
    with pytest.raises(ShapeError, match="w: expected a writable array in the module"):
        model.load_state_dict({"w": np.zeros(3), "it.weight": np.zeros((3, 2)), "it.bias": np.zeros(3)})
    assert (model.it.weight.numpy() == before).all()


def test_loading_between_a_loss_and_its_backward_is_noticed():
    layer = linear()
    version = layer.weight._version
    layer.load_state_dict(layer.state_dict())
    assert layer.weight._version == version + 1


# -- conversions, freezing, apply ----------------------------------------------------------------------------
def test_conversions_by_name(device):
    model = Both().to(device.name)
    for convert, name in (("double", "float64"), ("half", "float16"), ("bfloat16", "bfloat16"), ("float", "float32")):
        assert getattr(model, convert)() is model
        assert {p.dtype.name for p in (*model.parameters(), *model.buffers())} == {name}
    assert model.cpu().device == "cpu"
    if device.is_cuda:
        assert model.cuda().device == "cuda:0" and model.cpu().cuda(0).scale.device == "cuda:0"


def test_an_optimiser_made_before_a_move_goes_on_or_says_so(device):
    x = device.asarray(np.ones((1, 2), np.float32))
    layer = linear()
    optimizer = gl.SGD(layer.parameters(), lr=1.0)
    layer.to(device.name)
    before = layer.weight.numpy().copy()
    layer(x).sum().backward()
    optimizer.step()
    assert (layer.weight.numpy() == before - 1).all()
    adam = gl.Adam(layer.parameters())
    adam.step()
    layer.double().zero_grad()
    layer(x.astype("float64")).sum().backward()
    with pytest.raises(DTypeError, match="convert the module before you make its optimiser"):
        adam.step()


def test_parameters_are_frozen_and_learnt_again():
    model = Both()
    assert model.requires_grad_(False) is model and not any(p.requires_grad for p in model.parameters())
    assert not model(np.ones((1, 2), np.float32)).requires_grad
    model.requires_grad_().eval()(np.ones((1, 2), np.float32)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    for call in (model.requires_grad_, model.train):
        with pytest.raises(DTypeError, match="expected True or False, got 1"):
            call(1)


def test_apply_goes_from_the_inside_out():
    model, seen = gl.Sequential(linear(), gl.Sequential(gl.Dropout(0.1))), []
    assert model.apply(lambda m: seen.append(type(m).__name__)) is model
    assert seen == ["Linear", "Dropout", "Sequential", "Sequential"]


def test_apply_wants_a_function():
    with pytest.raises(DTypeError, match="fn: expected a function of a layer, got int"):
        linear().apply(3)


def test_a_layer_may_refuse_to_train():
    class Frozen(gl.Module):
        def train(self, mode=True):
            return super().train(False)

    model = gl.Sequential(Frozen(), gl.Dropout(0.5)).train()
    assert not model[0].training and model[1].training


# -- hooks ---------------------------------------------------------------------------------------------------
def test_hooks_see_and_change_what_goes_in_and_out():
    layer, seen = linear(2, 2), []
    x = np.ones((1, 2), np.float32)
    plain = layer(x).numpy()
    last = layer.register_forward_hook(lambda m, args, out: seen.append((m is layer, args[0] is x, out.shape)))
    doubled = layer.register_forward_hook(lambda m, args, out: out * 2, prepend=True)
    assert (layer(x).numpy() == 2 * plain).all() and seen == [(True, True, (1, 2))]
    before = layer.register_forward_pre_hook(lambda m, args: args[0] * 0)
    assert np.allclose(layer(x).numpy(), 2 * layer.bias.numpy())
    before.remove(), doubled.remove(), doubled.remove()
    assert (layer(x).numpy() == plain).all()
    last.remove()
    with layer.register_forward_hook(lambda m, args, out: 3):
        assert layer(x) == 3
    assert (layer(x).numpy() == plain).all() and len(seen) == 3
    for register in (layer.register_forward_hook, layer.register_forward_pre_hook):
        with pytest.raises(DTypeError, match="hook: expected a function, got int"):
            register(3)


def test_hooks_are_given_keywords_when_asked():
    class Add(gl.Module):
        def forward(self, x, *, y=0):
            return x + y

    layer, seen = Add(), []
    layer.register_forward_pre_hook(lambda m, args, kwargs: (args, {"y": kwargs["y"] * 10}), with_kwargs=True)
    layer.register_forward_hook(lambda m, args, kwargs, out: seen.append((args, kwargs, out)), with_kwargs=True)
    assert layer(1, y=2) == 21 and seen == [((1,), {"y": 20}, 21)]
    layer.register_forward_pre_hook(lambda m, args, kwargs: 3, with_kwargs=True)
    with pytest.raises(DTypeError, match=r"expected None or \(args, kwargs\), got 3"):
        layer(1, y=2)


@pytest.mark.oracle
def test_hooks_are_called_in_torchs_order():
    import torch

    def trace(module, call):
        seen = []
        for name in "ab":
            module.register_forward_pre_hook(lambda m, args, name=name: seen.append(f"before {name}"))
            module.register_forward_hook(lambda m, args, out, name=name: seen.append(f"after {name}"))
        module.register_forward_hook(lambda m, args, out: seen.append("first"), prepend=True)
        module.register_forward_pre_hook(lambda m, args: seen.append("very first"), prepend=True)
        call(module)
        return seen

    theirs = trace(torch.nn.Linear(1, 1), lambda m: m(torch.ones(1, 1)))
    assert trace(linear(1, 1), lambda m: m(np.ones((1, 1), np.float32))) == theirs and len(theirs) == 6


def test_a_hooked_layer_inside_a_model_is_seen():
    model, seen = gl.Sequential(gl.LSTM(3, 4, **MADE), linear(4, 1)), []
    model[0].register_forward_hook(lambda m, args, out: seen.append((out[0].shape, out[1][0].shape)))
    model(np.ones((5, 2, 3), np.float32), lengths=[5, 1])
    assert seen == [((5, 2, 4), (1, 2, 4))]


def test_layers_that_compute_otherwise_are_not_exported():
    require("onnx")
    with pytest.raises(FormatError, match=r"expected one of the layers .*, got function"):
        gl.io.onnx.export(gl.Sequential(gl.LSTM(2, 3, device="cpu"), lambda h: h[-1]))
    layer = gl.Linear(2, 3, device="cpu")
    handle = layer.register_forward_hook(lambda module, args, output: output * 2)
    with pytest.raises(FormatError, match="expected a layer without changes of its own, got one with hooks"):
        gl.io.onnx.export(layer)
    handle.remove()
    gl.io.onnx.export(layer)
    layer.forward = lambda x: x
    with pytest.raises(FormatError, match="got one with a forward of its own"):
        gl.io.onnx.export(layer)


# -- copies --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("how", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_are_independent_and_share_what_was_shared(how):
    model = Both().eval()
    model.state_dict()
    twin = how(model)
    assert "_remembered" in vars(model) and "_remembered" not in vars(twin)
    assert list(twin.state_dict()) == list(model.state_dict()) and not twin.blocks[0]["drop"].training
    assert twin.shared is twin.blocks[0]["a"] and twin.shared.weight is not model.shared.weight
    x = np.ones((1, 2), np.float32)
    assert (twin(x).numpy() == model(x).numpy()).all()
    for tensor in (*twin.parameters(), *twin.buffers()):
        tensor.data[...] = 9
    assert (model.scale.numpy() == 1).all() and (model(x).numpy() != twin(x).numpy()).any()
    twin.scale = np.zeros(3, np.float32)
    assert isinstance(twin.scale, gl.Tensor) and list(dict(twin.named_buffers())) == ["scale"]


def test_hooks_of_a_copy_are_its_own():
    layer, seen = linear(), []
    handle = layer.register_forward_hook(lambda m, args, out: seen.append(m))
    twin = copy.deepcopy(layer)
    handle.remove()
    layer(np.ones((1, 2), np.float32)), twin(np.ones((1, 2), np.float32))
    assert seen == [twin]


@pytest.mark.parametrize("kind", [gl.LSTM, gl.GRU, gl.GeneralLSTM, gl.LayerNormLSTM, gl.MinGRU, gl.SLSTM])
def test_recurrent_layers_are_pickled(kind):
    layer = kind(3, 4, **MADE)
    twin, x = pickle.loads(pickle.dumps(layer)), np.ones((5, 2, 3), np.float32)
    assert (twin(x)[0].numpy() == layer(x)[0].numpy()).all()

"""What PyTorch writes is read as PyTorch itself reads it, in both of its formats; what it does not read is named."""

import argparse
import collections
import datetime
import enum
import functools
import pathlib
import warnings

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import DTypeError, FormatError
from gpulstm.io.torch import Unread
from tests.conftest import require
from tests.tolerances import assert_close

pytestmark = pytest.mark.oracle
FORMATS = [True, False]


@pytest.fixture(params=FORMATS, ids=["archive", "before 1.6"])
def there(request, tmp_path):
    """Saves a value in one of the formats; gives the file's path."""
    torch = require("torch")

    def saved(value, **options):
        torch.save(value, tmp_path / "file.pt", _use_new_zipfile_serialization=request.param, **options)
        return tmp_path / "file.pt"

    return saved


class Settings:
    """A class of the program that saved."""

    def __init__(self):
        self.rate, self.sizes = 0.1, [1, 2]


class Colour(enum.Enum):
    RED = 1


class Attributes(dict):
    pass


class Marked(list):
    pass


def schedule(step):
    return step


def plain(value):
    """The same value without PyTorch's types: tensors as their bits."""
    torch = require("torch")
    if isinstance(value, torch.Tensor):
        value = value.detach().resolve_conj().resolve_neg().contiguous()
        return value.reshape(-1).view(torch.uint8).numpy().tobytes(), tuple(value.shape)
    if isinstance(value, np.ndarray):
        return value.tobytes(), value.shape
    if isinstance(value, torch.device | torch.layout | torch.qscheme):
        return str(value)
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, np.dtype):
        return value.name
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value) if isinstance(value, list) else tuple, [plain(inner) for inner in value]
    return value


def values_of_torch():
    torch = require("torch")
    x = torch.arange(12.0).reshape(3, 4)
    kinds = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"]
    kinds += ["complex64", "complex128"]
    new = ["uint16", "uint32", "uint64", "float8_e5m2", "float8_e4m3fn", "float8_e5m2fnuz", "float8_e4m3fnuz"]
    turned = torch.tensor([1 + 2j, -3j])
    return {
        "devices": [torch.device("cpu"), torch.device("cuda:1"), torch.device("cuda")],
        "types": [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.int64, torch.bool],
        "keys": {(1, 2): 3, 1.5: 2, None: 1, True: 4, b"k": 5, (1, ("a", None)): 6, 2**70: 7},
        "bytes": [b"a\xff", bytearray(b"xy"), bytearray()],
        "collections": [{1, 2}, set(), collections.Counter("aab"), collections.OrderedDict(a=1)],
        "numbers": [1 + 2j, 2**100, -1, float("inf"), True, None],
        "others": [torch.strided, torch.per_tensor_affine, x.shape],
        "parameters": [torch.nn.Parameter(x), torch.nn.Buffer(x)],
        "views": [x, x.t(), x[1:, ::2], x[2, 3], x[:0], torch.ones(1).expand(5000)],
        "kinds": [torch.ones(3).to(getattr(torch, kind)) for kind in kinds],
        "new kinds": [torch.ones(3).to(getattr(torch, kind)) for kind in new],
        "turned": [turned, turned.conj()],
        "negative": [turned.conj().imag],
        "optimizer": torch.optim.Adam([torch.nn.Parameter(x)]).state_dict(),
    }


@pytest.mark.parametrize("name", [
    "devices", "types", "keys", "bytes", "collections", "numbers", "others", "parameters", "views", "kinds", "turned",
    "negative", "optimizer",
])  # fmt: skip
def test_values_are_those_of_torch(there, name):
    torch = require("torch")
    path = there(values_of_torch()[name])
    want, got = torch.load(path, weights_only=True), gl.io.torch.load(path)
    assert plain(got) == plain(want)
    if name == "kinds":
        assert [a.dtype.name for a in got] == [str(t.dtype).removeprefix("torch.") for t in want]
    if name == "collections":
        assert [type(value) for value in got] == [set, set, collections.Counter, dict]


def test_element_types_without_a_storage_of_their_own(tmp_path):
    """PyTorch reads them from archives alone."""
    torch = require("torch")
    torch.save(values_of_torch()["new kinds"], tmp_path / "file.pt")
    want, got = torch.load(tmp_path / "file.pt", weights_only=True), gl.io.torch.load(tmp_path / "file.pt")
    assert plain(got) == plain(want)
    assert [a.dtype.name for a in got] == [str(t.dtype).removeprefix("torch.") for t in want]


@pytest.mark.parametrize("value", [
    np.float32(2.5), np.int64(3), np.bool_(True), np.str_("text"), np.arange(6.0).reshape(2, 3).T, np.array([1j]),
    np.asfortranarray(np.arange(6).reshape(2, 3)), np.array(["ab", "c"]), np.array([b"ab"]), np.zeros((0, 3)),
    np.arange(3, dtype=">f4"), np.dtype("float32"), np.float32, {np.int64(1): 2}, np.array(True),
], ids=repr)  # fmt: skip
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_numpys_values_stay_what_they_are(there, value, protocol):
    got = gl.io.torch.load(there({"x": value}, pickle_protocol=protocol))["x"]
    assert type(got) is type(value)
    np.testing.assert_array_equal(got, value)
    if isinstance(value, np.ndarray):
        assert got.dtype == value.dtype.newbyteorder("=") and got.flags.writeable


def test_numpys_types_are_noted_once_and_used_again(there):
    value = {"a": np.float32(1), "b": np.float32(2), "c": np.ones(2, ">f4"), "d": np.zeros(3, ">f4")}
    got = gl.io.torch.load(there(value))
    assert got["b"] == 2 and type(got["b"]) is np.float32 and got["d"].tolist() == [0, 0, 0]


def test_plain_values_of_python_stay_what_they_are(there):
    value = {
        "args": argparse.Namespace(lr=0.1, nested={"a": [1]}),
        "missing": collections.defaultdict(list, {1: [2]}),
        "frozen": frozenset([1, (2, 3)]),
        "empty": b"",
    }
    got = gl.io.torch.load(there({**value, "path": pathlib.Path("/a/b")}))
    assert got.pop("path") == pathlib.PurePath("/a/b") and got == value
    assert got["missing"]["new"] == []


def harmless():
    torch = require("torch")
    lstm = torch.nn.LSTM(3, 4)
    optimizer = torch.optim.Adam(lstm.parameters())
    lstm(torch.zeros(2, 1, 3))[0].sum().backward()
    optimizer.step()
    return {
        "settings": Settings(), "colour": Colour.RED, "attributes": Attributes(a=1, b=torch.ones(2)),
        "marked": Marked([1]), "function": schedule, "partial": functools.partial(schedule, 1),
        "when": datetime.datetime(2020, 1, 2), "loss": torch.nn.MSELoss(), "optimizer": optimizer,
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 3), "module": lstm, "class": Settings,
        "objects": np.array([1, "a"], object), "records": np.zeros(2, [("a", "f4")]), "range": range(3),
        "missing": collections.defaultdict(schedule, {1: 2}), "date": np.datetime64("2020"),
    }  # fmt: skip


def test_harmless_things_beside_the_weights_are_named_and_do_no_harm(there):
    torch = require("torch")
    state = torch.nn.LSTM(3, 4).state_dict()
    for name, value in harmless().items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's about the source of modules
            path = there({"state_dict": state, "hyper_parameters": {name: value}})
        with pytest.warns(UserWarning, match=rf"Unread: hyper_parameters.{name} \(\S+\)$"):
            got = gl.io.torch.load(path)
        assert isinstance(got["hyper_parameters"][name], Unread), name
        assert plain(got["state_dict"]) == plain(dict(state)), name
        assert isinstance(gl.io.torch.from_state_dict(got["state_dict"]), gl.LSTM)


def test_what_is_not_made_keeps_its_data(there):
    torch = require("torch")
    layer = torch.nn.Linear(2, 3)
    with pytest.warns(UserWarning, match="not everything was read") as caught:
        got = gl.io.torch.load(
            there([Settings(), Attributes(a=1), Marked([1]), Colour.RED, layer, functools.partial(schedule, 1)])
        )
    settings, attributes, marked, colour, module, partial = got
    assert caught[0].filename == __file__
    assert settings.state == {"rate": 0.1, "sizes": [1, 2]} and settings.name.endswith("test_io_torch_values.Settings")
    assert attributes.items == {"a": 1} and marked.items == [1] and colour.arguments == (1,)
    assert module.state["_parameters"]["weight"].tolist() == layer.weight.tolist()
    assert partial.arguments[0].name.endswith("schedule")
    with pytest.raises(AttributeError, match=r"'rate': this is not a .*Settings but an Unread; its data are in"):
        settings.rate  # noqa: B018


def test_many_unread_entries_are_listed_in_part(there):
    with pytest.warns(UserWarning, match=r"s0 \(.*Settings\), .*s7 \(.*\) and 12 more$"):
        gl.io.torch.load(there({f"s{n}": Settings() for n in range(20)}))


def test_attributes_of_a_parameter_are_said_to_be_left_out(there):
    torch = require("torch")
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.tag = "shared"
    with pytest.warns(UserWarning, match="attributes of tensors were left out: tag$"):
        assert gl.io.torch.load(there({"w": parameter}))["w"].tolist() == [1, 1]


def test_tensors_that_no_array_can_hold_are_refused_by_the_name_of_their_entry(there):
    torch = require("torch")

    class Own(torch.Tensor):
        pass

    globals()["Own"], Own.__qualname__, Own.__module__ = Own, "Own", __name__
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both kinds are about to leave PyTorch
        quantized = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
        nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
        for value, message in (
            (quantized, r"a quantized tensor \(in PyTorch: save x.dequantize\(\)\)"),
            (torch.ones(2).to_sparse(), r"a sparse tensor \(in PyTorch: save x.to_dense\(\)\)"),
            (torch.ones(2, 2).to_sparse_csr(), "a sparse tensor"),
            (nested, "a nested tensor"),
            (torch.ones(2, device="meta"), "a tensor of the device 'meta', which has no values"),
            (torch.ones(2).as_subclass(Own), "a tensor of the class .*Own .in PyTorch: save x.as_subclass"),
            (torch.zeros(2, dtype=torch.complex32), "a tensor of the type torch.complex32, which NumPy lacks"),
        ):
            path = there({"model": {"w": value}, "b": torch.ones(2)})
            with pytest.raises(FormatError, match=f"model.w: expected a tensor that an array can hold, got {message}"):
                gl.io.torch.load(path)
            with pytest.raises(FormatError, match=f"expected a tensor that an array can hold, got {message}"):
                gl.io.torch.load(there(value))


def test_a_whole_module_is_refused_with_advice(there):
    torch = require("torch")
    advice = r"a whole module of the class torch.nn.modules.linear.Linear; .*torch.save\(model.state_dict\(\), path\)"
    with pytest.raises(FormatError, match=f"expected a state dict, got {advice}"):
        gl.io.torch.load(there(torch.nn.Linear(2, 3)))
    with pytest.raises(FormatError, match=r"expected a state dict, got an object of the class .*Settings;"):
        gl.io.torch.load(there(Settings()))


def test_without_ml_dtypes_small_floats_are_refused_and_their_names_stay(there, monkeypatch):
    torch = require("torch")
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    assert gl.io.torch.load(there({"dtype": torch.bfloat16})) == {"dtype": "torch.bfloat16"}
    for dtype in (torch.bfloat16, torch.float8_e4m3fn):
        with pytest.raises(DTypeError, match=r"needs the package ml_dtypes \(pip install -U ml_dtypes\)"):
            gl.io.torch.load(there({"x": torch.ones(2, dtype=dtype)}))


def test_a_torchscript_program_is_named(tmp_path):
    torch = require("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is about to leave PyTorch
        torch.jit.trace(torch.nn.LSTM(3, 4), torch.zeros(2, 1, 3)).save(str(tmp_path / "model.pt"))
    with pytest.raises(FormatError, match=r"got a TorchScript program; in PyTorch: torch.save\(torch.jit.load\(path\)"):
        gl.io.torch.load(tmp_path / "model.pt")


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "SGD", "RMSprop"])
def test_an_optimizers_state_moves_over_with_the_weights(there, kind):
    torch = require("torch")
    theirs = torch.nn.LSTM(3, 4).double()
    options = {"momentum": 0.9} if kind == "SGD" else {}
    optimizer = getattr(torch.optim, kind)(theirs.parameters(), lr=1e-2, **options)
    x = torch.randn(5, 2, 3, dtype=torch.float64)

    def step(model, optimizer, x):
        optimizer.zero_grad()
        (model(x)[0] ** 2).sum().backward()
        optimizer.step()

    step(theirs, optimizer, x)
    checkpoint = gl.io.torch.load(there({"model": theirs.state_dict(), "optimizer": optimizer.state_dict()}))
    ours = gl.io.torch.from_state_dict(checkpoint["model"])
    mine = getattr(gl, kind)(ours.parameters(), lr=1e-2, **options)
    mine.load_state_dict(checkpoint["optimizer"])
    for _ in range(2):
        step(theirs, optimizer, x)
        step(ours, mine, x.numpy())
    for name, value in theirs.state_dict().items():
        assert_close(ours.state_dict()[name], value.numpy())


def test_a_checkpoint_of_old_or_new_gives_equal_outputs(there):
    torch = require("torch")
    theirs = torch.nn.LSTM(3, 5, 2, bidirectional=True).double()
    checkpoint = {"epoch": 3, "state_dict": {f"module.rnn.{k}": v for k, v in theirs.state_dict().items()}}
    got = gl.io.torch.load(there(checkpoint))
    ours = gl.io.torch.from_state_dict(got["state_dict"], prefix="module.rnn")
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    assert_close(ours(x.numpy())[0], theirs(x)[0].detach().numpy())


@pytest.mark.parametrize("protocol", [2, 4])
def test_default_dicts_of_all_plain_types(tmp_path, protocol):
    """The usual protocol writes Python 2's names for int and str."""
    torch = require("torch")
    plain = (None, list, dict, set, frozenset, int, float, complex, str, tuple, bool, bytes, bytearray)
    torch.save(
        {str(kind): collections.defaultdict(kind, {1: 2}) for kind in plain}, tmp_path / "a", pickle_protocol=protocol
    )
    read = gl.io.torch.load(tmp_path / "a")
    for kind in plain:
        assert type(read[str(kind)]) is collections.defaultdict
        assert (read[str(kind)].default_factory, dict(read[str(kind)])) == (kind, {1: 2})

"""PyTorch's files: what torch writes is read without it, what is written torch reads, and layers are made of it."""

import argparse
import subprocess
import sys
from collections import Counter

import ml_dtypes
import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import DTypeError, FormatError, ShapeError
from gpulstm.io.torch import Unread
from tests.conftest import require
from tests.tolerances import assert_close

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [
    "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", BFLOAT16, "float32",
    "float64",
]  # fmt: skip
ON_THE_HOST = ["complex64", "complex128", ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fn]
load, save, from_state_dict = gl.io.torch.load, gl.io.torch.save, gl.io.torch.from_state_dict


def some_values(asarray=np.asarray):
    """A nest of everything that a file may hold."""
    rng = np.random.default_rng(0)
    arrays = {np.dtype(kind).name: asarray((rng.random((3, 5)) * 9).astype(kind)) for kind in DTYPES}
    arrays |= {np.dtype(kind).name: np.ones(3).astype(kind) for kind in ON_THE_HOST}
    arrays |= {"number": asarray(np.float32(2.5)), "nothing": asarray(np.zeros((0, 3), np.float32))}
    numbers = [0, -1, 255, 2**31, -(2**31), 2**40, -(2**63), 2**64, 2.5, -0.0, float("inf"), True, False, None]
    others = [b"", b"a\xff", bytearray(b"xy"), 1 - 2j, {1, 2}, {("a", 1)}, Counter("aab")]
    keys = {(1, (2.5, None)): 1, None: 2, 2.5: 3, True: 4, b"k": 5, 2**70: 6}
    return {
        "arrays": arrays, "numbers": numbers, "texts": ("", "a", "ü\n"), 7: {"empty": [(), [], {}]}, "others": others,
        "keys": keys,
    }  # fmt: skip


def assert_same(got, want, name="value"):
    """The same types, bits and nesting."""
    if isinstance(want, np.ndarray):
        assert isinstance(got, np.ndarray) and got.dtype == want.dtype and got.shape == want.shape, name
        assert got.tobytes() == want.tobytes(), name
        return
    assert type(got) is type(want), name
    if isinstance(want, dict):
        assert list(got) == list(want), name
        for key in want:
            assert_same(got[key], want[key], f"{name}.{key}")
    elif isinstance(want, list | tuple):
        assert len(got) == len(want), name
        for n, (a, b) in enumerate(zip(got, want, strict=True)):
            assert_same(a, b, f"{name}.{n}")
    else:
        assert repr(got) == repr(want), name


# -- there and back ------------------------------------------------------------------------------------------


def test_there_and_back(device, tmp_path):
    save(tmp_path / "file.pt", some_values(device.xp.asarray))
    got = load(tmp_path / "file.pt")
    assert_same(got, some_values())
    assert all(array.flags.writeable for array in got["arrays"].values())


def test_arrays_need_not_be_contiguous_nor_of_the_machines_byte_order(device, tmp_path):
    x = np.arange(24.0).reshape(4, 6)
    given = device.asarray(x)
    save(tmp_path / "file", {"turned": given.T, "some": given[::2, 1::2]})
    assert_same(load(tmp_path / "file"), {"turned": x.T.copy(), "some": x[::2, 1::2].copy()})
    save(tmp_path / "file", [x.astype(">f4")])
    assert_same(load(tmp_path / "file"), [x.astype("<f4")])


def test_shared_weights_are_written_once_and_stay_shared(tmp_path):
    weight = np.ones(1000, np.float32)
    save(tmp_path / "file", {"embedding": weight, "head": weight})
    got = load(tmp_path / "file")
    got["embedding"][3] = 5
    assert got["head"][3] == 5 and (tmp_path / "file").stat().st_size < 6000


def test_tensors_and_numpys_numbers_and_equal_files(tmp_path):
    layer = gl.Linear(2, 3)
    state = {"w": layer.weight, "n": np.int64(3), "x": np.float32(0.5), "yes": np.bool_(True)}
    save(tmp_path / "a", state)
    save(tmp_path / "b", state)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert_same(load(tmp_path / "a"), {"w": layer.weight.data, "n": 3, "x": 0.5, "yes": True})


def test_a_layers_state_goes_there_and_back(device, tmp_path):
    lstm = gl.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2, device=device.name)
    save(tmp_path / "lstm.pt", {"model": {f"encoder.rnn.{k}": v for k, v in lstm.state_dict().items()}})
    again = from_state_dict(load(tmp_path / "lstm.pt")["model"], prefix="encoder.rnn.", device=device.name)
    assert repr(again) == repr(lstm) and again.device == lstm.device
    for name, value in lstm.state_dict().items():
        assert_same(device.to_numpy(again.state_dict()[name]), device.to_numpy(value), name)


def test_what_cannot_be_saved(tmp_path):
    circle = []
    circle.append(circle)
    for value, kind, message in (
        ({"a": np.array(["x"])}, DTypeError, "a: expected one of .*, got str"),
        ({"a": {"b": np.ones(1, np.longdouble)}}, DTypeError, "a.b: expected one of .*, got (longdouble|float128)"),
        ({"a": [1, frozenset([2])]}, DTypeError, "a.1: expected arrays, numbers, strings, .*, got frozenset"),
        ({"a": argparse.Namespace(lr=1)}, DTypeError, "a: expected arrays, numbers, .*, got Namespace"),
        ({"a": Unread("some.Class")}, DTypeError, r"a: expected data, got Unread\('some.Class'\), .*leave it out"),
        ({"a": np.dtype("U3")}, DTypeError, "a: expected one of .*, got str96"),
        ({"a": {"b": np.ma.masked_array([1.0], [True])}}, DTypeError, "a.b: expected a plain array, got a MaskedArray"),
        ({"a": 2**5000}, DTypeError, "a: expected integers of at most 255 bytes"),
        (gl.Linear(2, 2), DTypeError, r"^state_dict: expected arrays, .* got Linear; give its state_dict\(\)"),
        ({frozenset([1]): 3}, FormatError, r"expected strings, numbers or tuples of them as keys, got frozenset"),
        ({(1, (2, 1j)): 3}, FormatError, r"expected strings, numbers or tuples of them as keys, got 1j"),
        (circle, FormatError, "at most 100 deep"),
    ):
        with pytest.raises(kind, match=message):
            save(tmp_path / "file", value)
    assert not list(tmp_path.iterdir())


def test_types_of_elements_are_written_as_torchs(tmp_path):
    save(tmp_path / "file", {"dtype": np.dtype("float32"), "small": np.dtype(ml_dtypes.bfloat16)})
    assert load(tmp_path / "file") == {"dtype": np.dtype("float32"), "small": BFLOAT16}


def test_torch_is_neither_imported_nor_hidden(tmp_path):
    save(tmp_path / "file.pt", {"x": np.ones(2)})
    code = (
        "import sys, gpulstm as gl; x = gl.io.torch.load(sys.argv[1]); gl.io.torch.save(sys.argv[1], x);"
        "assert 'torch' not in sys.modules and gl.io.torch.__name__ == 'gpulstm.io.torch'; print(x)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "file.pt"], capture_output=True, text=True)
    assert done.stdout == "{'x': array([1., 1.])}\n", done.stderr


# -- PyTorch as the oracle -----------------------------------------------------------------------------------


@pytest.mark.oracle
def test_torch_reads_what_is_written(tmp_path):
    torch = require("torch")
    assert not torch.__name__.startswith("gpulstm") and hasattr(torch, "nn")
    save(tmp_path / "file.pt", some_values())
    for options in ({}, {"mmap": True}):
        got = torch.load(tmp_path / "file.pt", weights_only=True, **options)
        for name, want in some_values()["arrays"].items():
            tensor = got["arrays"][name]
            assert str(tensor.dtype) == f"torch.{want.dtype.name}" and tuple(tensor.shape) == want.shape
            tensor = tensor.resolve_conj()
            assert tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() == want.tobytes(), name
            assert tensor.data_ptr() % 64 == 0 or not tensor.numel() or not options
        del got["arrays"]
        assert_same(got, {key: value for key, value in some_values().items() if key != "arrays"})


@pytest.mark.oracle
def test_what_torch_writes_is_read(tmp_path):
    torch = require("torch")
    x = torch.arange(12.0).reshape(3, 4)
    kinds = [getattr(torch, np.dtype(kind).name) for kind in DTYPES]
    value = {
        "kinds": [(torch.rand(2, 3) * 9).to(kind) for kind in kinds],
        "views": [x, x.t(), x[1:, ::2], x[2, 3], x[:0], torch.ones(1, 3).expand(4, 3), torch.ones(2, 1)[:, :, None]],
        "parameter": torch.nn.Parameter(x[0]),
        "shape": x.shape,
        "rest": [1, -(2**40), 2.5, None, True, (), ("a", "ü"), {"b": {3: []}}],
        "module": torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.GRU(3, 2)).state_dict(),
        "optimizer": torch.optim.Adam([torch.nn.Parameter(x)]).state_dict(),
    }

    def plain(value):
        if isinstance(value, torch.Tensor):
            raw = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
            kind = DTYPES[kinds.index(value.dtype)]
            return np.frombuffer(raw.tobytes(), kind).reshape(tuple(value.shape))
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return (list if isinstance(value, list) else tuple)(plain(inner) for inner in value)
        return value

    torch.save(value, tmp_path / "a name with dots.and spaces.pt")
    got = load(tmp_path / "a name with dots.and spaces.pt")
    assert_same(got, plain(value))
    got["views"][0][2, 3] = 99
    assert got["views"][1][3, 2] == 99 and got["views"][3] == 99, "views share their memory"
    torch.save(x, tmp_path / "tensor")
    assert_same(load(tmp_path / "tensor"), plain(x))
    for protocol in (3, 4, 5):
        torch.save(value["module"], tmp_path / "newer", pickle_protocol=protocol)
        assert_same(load(tmp_path / "newer"), plain(value["module"]))


def oracle_cases():
    layers = [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False, "batch_first": True}]
    cases = [(kind, options) for kind in ("LSTM", "GRU", "RNN") for options in layers]
    cases += [("LSTM", {"proj_size": 2, "num_layers": 2}), ("RNN", {"nonlinearity": "relu"})]
    return cases + [(f"{kind}Cell", options) for kind in ("LSTM", "GRU", "RNN") for options in ({}, {"bias": False})]


@pytest.mark.oracle
@pytest.mark.parametrize(("kind", "options"), oracle_cases(), ids=str)
def test_torchs_layers_become_layers_with_equal_outputs(kind, options, tmp_path):
    torch = require("torch")
    torch.manual_seed(3)
    theirs = getattr(torch.nn, kind)(3, 5, **options).double()
    torch.save({"state_dict": {"a.b." + k: v for k, v in theirs.state_dict().items()}}, tmp_path / "file.pt")
    # What no weight tells is given.
    given = {key: value for key, value in options.items() if key in ("batch_first", "nonlinearity")}
    ours = from_state_dict(load(tmp_path / "file.pt")["state_dict"], prefix="a.b", **given)
    assert type(ours) is getattr(gl, kind) and ours.state_dict().keys() == theirs.state_dict().keys()
    x = torch.randn((2, 3) if kind.endswith("Cell") else (4, 2, 3), dtype=torch.float64)
    got, want = ours(x.numpy()), theirs(x)
    first = (got[0], want[0]) if isinstance(want, tuple) else (got, want)
    assert_close(first[0], first[1].detach().numpy())
    # And back: the weights under the same names, read by torch alone.
    save(tmp_path / "back.pt", ours.state_dict())
    theirs.load_state_dict(torch.load(tmp_path / "back.pt", weights_only=True))
    assert_close(theirs(x)[0].detach().numpy(), want[0].detach().numpy(), rtol=0)


# -- sizes from names and shapes -----------------------------------------------------------------------------


def test_the_layer_has_the_type_of_its_weights_unless_told_otherwise():
    state = gl.LSTM(2, 3, dtype="float64").state_dict()
    assert from_state_dict(state).weight_hh_l0.dtype == "float64"
    assert from_state_dict(state, "LSTM", dtype="float32").weight_hh_l0.dtype == "float32"
    assert from_state_dict(state, batch_first=True).batch_first
    assert isinstance(from_state_dict(gl.LSTMCell(2, 3, bias=False).state_dict()), gl.LSTMCell)


def test_state_dicts_of_something_else_are_refused():
    state = gl.LSTM(2, 3, num_layers=2).state_dict()
    inside = {f"encoder.{name}": value for name, value in state.items()}

    def kept(*names):
        return {"weight_ih_l0": state["weight_ih_l0"], **dict.fromkeys(names, state["weight_hh_l0"])}

    cases = (
        (inside, {}, "expected weight_ih_l0, got recurrent layers under the prefixes 'encoder.'"),
        ({"weight": np.ones(2)}, {}, "expected weight_ih_l0, got the names weight"),
        (state, {"kind": "GRU"}, r"weight_ih_l0: expected 3\*H \(GRU\) rows for H = 3, got 12"),
        (state, {"kind": "lstm"}, "kind: expected one of LSTM, GRU, RNN, or None, got 'lstm'"),
        (
            {**state, "weight_ih_l0": np.ones((13, 2))},
            {},
            r"4\*H \(LSTM\), 3\*H \(GRU\), 1\*H \(RNN\) rows for H = 3, got 13",
        ),
        ({**state, "weight_hh_l0": np.ones(12)}, {}, r"weight_hh_l0: expected \(gates\*hidden, size\), got \(12,\)"),
        ({**state, "weight_hh_l0": np.ones((12, 0))}, {}, r"weight_hh_l0: expected \(gates\*hidden, size\)"),
        ({**state, "extra": np.ones(1)}, {}, "unexpected extra"),
        (
            {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in inside.items()}},
            {},
            r"got a checkpoint; pass its entry \['state_dict'\], which has .* under the prefixes 'module.encoder.'",
        ),
        (
            {f"_orig_mod.{name}": value for name, value in state.items()},
            {"prefix": "rnn"},
            "expected rnn.weight_ih_l0, got recurrent layers under the prefixes '_orig_mod.'",
        ),
        ({"cell.weight_ih": 1, "my_weight_ih": 2}, {}, "got recurrent layers under the prefixes 'cell.'$"),
        (kept("weight_hh_l0_g", "weight_hh_l0_v"), {}, "weight_hh_l0_g: PyTorch stored it with weight normalization"),
        (kept("parametrizations.weight_hh_l0.original0"), {}, "stored it by a parametrization; .*remove_parametri"),
        (kept("weight_hh_l0_orig"), {}, "stored it with spectral normalization or pruning"),
        (kept("weight_hh_l0_raw"), {}, "stored it with a weight drop"),
        ({"_all_weight_values.0.param": 1}, {}, "stored it quantized; save the model before"),
        ({k: v for k, v in state.items() if k != "bias_hh_l1"}, {}, "missing bias_hh_l1"),
        ({**state, "weight_ih_l1": np.ones((12, 4))}, {}, r"weight_ih_l1: expected \(12, 3\), got \(12, 4\)"),
    )
    for given, options, message in cases:
        with pytest.raises(ShapeError, match=message):
            from_state_dict(given, **options)
    for given, options, message in (
        ([1], {}, "state_dict: expected a dict of arrays by name, got list"),
        (state, {"prefix": 3}, "prefix: expected a string, got int"),
        (
            {**state, "bias_ih_l0": Unread("some.Class")},
            {},
            r"bias_ih_l0: expected an array, got Unread\('some.Class'\)",
        ),
    ):
        with pytest.raises(DTypeError, match=message):
            from_state_dict(given, **options)

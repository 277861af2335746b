"""PyTorch's files: what torch writes is read without it, what is written torch reads, and no file is trusted."""

import io
import os
import pickle
import random
import struct
import subprocess
import sys
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import DTypeError, FormatError, ShapeError
from tests.conftest import require
from tests.tolerances import assert_close

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [
    "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", BFLOAT16, "float32",
    "float64",
]  # fmt: skip
load, save, from_state_dict = gl.io.torch.load, gl.io.torch.save, gl.io.torch.from_state_dict


def some_values(asarray=np.asarray):
    """A nest of everything that a file may hold."""
    rng = np.random.default_rng(0)
    arrays = {np.dtype(kind).name: asarray((rng.random((3, 5)) * 9).astype(kind)) for kind in DTYPES}
    arrays |= {"number": asarray(np.float32(2.5)), "nothing": asarray(np.zeros((0, 3), np.float32))}
    numbers = [0, -1, 255, 2**31, -(2**31), 2**40, -(2**63), 2**64, 2.5, -0.0, float("inf"), True, False, None]
    return {"arrays": arrays, "numbers": numbers, "texts": ("", "a", "ü\n"), 7: {"empty": [(), [], {}]}}


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
        ({"a": np.array(["x"])}, DTypeError, "a: want one of .*, got str"),
        ({"a": {"b": np.ones(1, complex)}}, DTypeError, "a.b: want one of .*, got complex128"),
        ({"a": [1, {2}]}, DTypeError, "a.1: want arrays, numbers, texts, lists and dicts, got set"),
        ({"a": 2**5000}, DTypeError, "a: want integers of at most 255 bytes"),
        ({(1, 2): 3}, FormatError, r"want texts or integers as keys, got \(1, 2\)"),
        (circle, FormatError, "at most 100 deep"),
    ):
        with pytest.raises(kind, match=message):
            save(tmp_path / "file", value)
    assert not list(tmp_path.iterdir())


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


@pytest.mark.oracle
def test_other_files_of_torch_are_refused_with_advice(tmp_path):
    torch = require("torch")
    path = tmp_path / "file.pt"
    layer = torch.nn.Linear(2, 3)
    torch.save(layer.state_dict(), path, _use_new_zipfile_serialization=False)
    with pytest.raises(FormatError, match=r"file.pt: want a zip archive.*since version 1.6.*load and save it again"):
        load(path)
    torch.save(layer, path)
    with pytest.raises(FormatError, match=r"data.pkl, byte \d+: want tensors, .*got 'torch.nn.modules.linear.Linear'"):
        load(path)
    for value in (
        torch.ones(2, dtype=torch.complex64),
        torch.ones(2).to_sparse(),
        torch.float16,
        torch.ones(2).numpy(),
    ):
        torch.save({"a": value}, path)
        with pytest.raises(FormatError, match=r"data.pkl, byte \d+: want tensors, numbers, texts, lists and dicts"):
            load(path)


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
    cases = (
        (inside, {}, "want weight_ih_l0, got recurrent layers under the prefixes 'encoder.'"),
        ({"weight": np.ones(2)}, {}, "want weight_ih_l0, got the names weight"),
        (state, {"kind": "GRU"}, r"weight_ih_l0: want 3\*H \(GRU\) rows for H = 3, got 12"),
        (state, {"kind": "lstm"}, "kind: want one of LSTM, GRU, RNN, or None, got 'lstm'"),
        (
            {**state, "weight_ih_l0": np.ones((13, 2))},
            {},
            r"4\*H \(LSTM\), 3\*H \(GRU\), 1\*H \(RNN\) rows for H = 3, got 13",
        ),
        ({**state, "weight_hh_l0": np.ones(12)}, {}, r"weight_hh_l0: want \(gates\*hidden, size\), got \(12,\)"),
        ({**state, "weight_hh_l0": np.ones((12, 0))}, {}, r"weight_hh_l0: want \(gates\*hidden, size\)"),
        ({**state, "extra": np.ones(1)}, {}, "unexpected extra"),
        ({k: v for k, v in state.items() if k != "bias_hh_l1"}, {}, "missing bias_hh_l1"),
        ({**state, "weight_ih_l1": np.ones((12, 4))}, {}, r"weight_ih_l1: want \(12, 3\), got \(12, 4\)"),
    )
    for given, options, message in cases:
        with pytest.raises(ShapeError, match=message):
            from_state_dict(given, **options)


# -- files that are not to be trusted ------------------------------------------------------------------------


def text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value):
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def named(name):
    return b"c" + name.rpartition(".")[0].encode() + b"\n" + name.rpartition(".")[2].encode() + b"\n"


def tup(*items):
    return b"(" + b"".join(items) + b"t"


def storage(kind="torch.FloatStorage", key="0", count=4):
    return tup(text("storage"), named(kind), text(key), text("cpu"), number(count)) + b"Q"


def tensor(shape=(4,), strides=(1,), offset=0, held=None, more=b""):
    sizes = tup(*map(number, shape)), tup(*map(number, strides))
    call = tup(held or storage(), number(offset), *sizes, b"\x89", named("collections.OrderedDict") + b")R", more)
    return named("torch._utils._rebuild_tensor_v2") + call + b"R"


def program(*parts):
    return b"\x80\x02" + b"".join(parts) + b"."


def archive(path, members, compress=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compress) as file:
        for name, data in members.items() if isinstance(members, dict) else members:
            file.writestr(name, data)


def members(pickled, data=bytes(16), **more):
    return {"a/data.pkl": pickled, "a/data/0": data, "a/version": b"3\n", **more}


def refused(path, message):
    """The file is a FormatError that names it, and takes no memory that it does not fill."""
    size = path.stat().st_size
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=message) as raised:
            load(path)
        assert str(path) in str(raised.value)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000 + 200 * size
    finally:
        tracemalloc.stop()


def test_the_hand_made_file_is_read(tmp_path):
    """What the tests below spoil is right to begin with."""
    data = np.arange(4, dtype=np.float32)
    archive(tmp_path / "a", members(program(tensor((2, 2), (1, 2))), data.tobytes()))
    assert_same(load(tmp_path / "a"), data.reshape(2, 2).T.copy())
    swapped = {"a/byteorder": b"big"}
    archive(tmp_path / "a", {**members(program(tensor()), data.astype(">f4").tobytes()), **swapped})
    assert_same(load(tmp_path / "a"), data)
    twos = program(tensor((16,), held=storage("torch.BoolStorage", count=16)))
    archive(tmp_path / "a", members(twos, b"\2" * 16))
    assert load(tmp_path / "a").view(np.uint8).tolist() == [1] * 16


class Evil:
    """A pickle that would run a command, import a module or call a function."""

    def __init__(self, call, *arguments, state=None):
        self.made = (call, arguments) if state is None else (call, arguments, state)

    def __reduce__(self):
        return self.made


def test_nothing_in_a_file_is_run(tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    monkeypatch.setattr(os, "putenv", lambda *a: ran.write_text("called"))
    evil = [
        Evil(os.system, f"touch {ran}"),
        Evil(eval, f"open({str(ran)!r}, 'w')"),
        Evil(exec, f"open({str(ran)!r}, 'w')"),
        Evil(getattr, "", "upper"),
        Evil(io.open, str(ran), "w"),
    ]
    for value in evil:
        for protocol in (0, 1, 2, 4):
            archive(tmp_path / "a.pt", members(pickle.dumps({"x": value}, protocol)))
            refused(tmp_path / "a.pt", "want data alone, got the instruction|want tensors, numbers, .*, got '")
    for name in (
        "this.s",
        "antigravity.geohash",
        "torch.hub.load",
        "gpulstm.io.torch.load",
        "builtins.print",
        "torch.load",
    ):
        stacked = b"\x80\x04" + text(name.rpartition(".")[0]) + text(name.rpartition(".")[2]) + b"\x93)R."
        for pickled in (program(named(name), b")R"), program(named(name)), stacked):
            archive(tmp_path / "a.pt", members(pickled))
            refused(tmp_path / "a.pt", f"byte .*: want tensors, numbers, texts, lists and dicts alone, got '{name}'")
    assert not ran.exists() and "this" not in sys.modules and "antigravity" not in sys.modules


ODICT, LIST = named("collections.OrderedDict"), named("torch._utils._rebuild_parameter")
NESTED = b"]" * 60_000 + b"a" * 59_999
TWICE = b"".join(b"](h" + bytes([n]) + b"h" + bytes([n]) + b"eq" + bytes([n + 1]) for n in range(60))
PROGRAMS = {
    "empty": (b"", "want an instruction, got the end"),
    "no end": (b"\x80\x02]", "want an instruction, got the end"),
    "more behind the end": (program(b"]") + b"x", "byte 4: want the end, got 1 bytes more"),
    "unknown instruction": (b"\x80\x02\xff.", r"byte 2: want data alone, got the instruction b'\\xff'"),
    "text beyond the end": (b"\x80\x02X\xff\xff\xff\x7fabc.", "byte 2: want 2147483647 bytes more, got the end"),
    "no text": (program(b"X\2\0\0\0\xff\xff"), "byte 2: want a text in UTF-8"),
    "huge number": (program(b"\x8b" + struct.pack("<I", 2**31 - 1)), "want data alone, got the instruction"),
    "empty stack": (program(b""), "want 1 entries on the stack, got 0"),
    "two values": (program(b"]]"), "want one value, got more on the stack"),
    "open mark": (program(b"(]"), "want one value, got more on the stack"),
    "no mark": (program(b"]e"), "want a mark"),
    "append to a text": (program(text("a") + b"Na"), "want a list on the stack, got str"),
    "items of a list": (program(b"]" + text("a") + b"Ns"), "want a dict on the stack, got list"),
    "a key alone": (program(b"}(Nu"), "want keys and values in pairs"),
    "a key of tuples": (program(b"}()Nu"), "as keys, got tuple"),
    "a number as key": (program(b"}" + number(2**64) + b"Ns"), "texts or numbers of 64 bits as keys"),
    "nothing noted": (program(b"h\7"), "want a place noted before, got place 7"),
    "note of nothing": (program(b"q\0"), "want an entry on the stack to note"),
    "a call of a text": (program(text("os.system") + b")R"), "want a name and its arguments on the stack"),
    "a call with a list": (program(ODICT + b"]R"), "want a name and its arguments on the stack"),
    "a dict of pairs": (program(ODICT + tup(b"]") + b"R"), "want the arguments that torch.save writes for coll"),
    "a parameter of a text": (program(LIST + tup(text("a"), b"\x88", b"N") + b"R"), "want the arguments that"),
    "a shape of texts": (program(named("torch.Size"), tup(tup(text("a"))), b"R"), "want the arguments that"),
    "attributes of a list": (program(b"]}b"), "want a dict on the stack, got list"),
    "attributes that are none": (program(ODICT + b")R" + text("a") + b"b"), "want a dict of attributes, got str"),
    "an object": (program(ODICT + b")\x81"), "want data alone, got the instruction b'.x81'"),
    "an extension": (program(b"\x82\1"), "want data alone, got the instruction b'.x82'"),
    "an instance": (program(b"(ios\nsystem\n"), "want data alone, got the instruction b'i'"),
    "a name as value": (program(named("torch.FloatStorage")), "got 'torch.FloatStorage' as a value"),
    "a storage as value": (program(storage()), "got 'Storage' as a value"),
    "a circle": (program(b"]q\0h\0a"), "want lists and dicts at most 100 deep"),
    "a circle of dicts": (program(b"}q\0" + text("a") + b"h\0s"), "want lists and dicts at most 100 deep"),
    "nested": (program(NESTED), "want lists and dicts at most 100 deep"),
    "a bomb of repeats": (program(b"(]q\0" + TWICE + b"t"), "got lists that repeat themselves"),
    "a wide bomb": (
        program(b"(](" + b"N" * 4000 + b"eq\0](" + b"h\0" * 4000 + b"eq\1](" + b"h\1" * 4000 + b"et"),
        "got lists that repeat themselves",
    ),
    # Tensors and storages.
    "no storage": (program(tensor(held=text("0"))), "want a tensor of a storage"),
    "a storage by another name": (program(tup(text("module"), b"N", b"N", b"N", b"N") + b"Q"), "want the name of a st"),
    "a storage of no type": (
        program(tup(text("storage"), b"N", text("0"), text("cpu"), number(4)) + b"Q"),
        "want a type of storage",
    ),
    "a storage not there": (program(tensor(held=storage(key="1"))), "want a storage of the archive, got '1'"),
    "a storage outside": (program(tensor(held=storage(key="../version"))), "want a storage of the archive"),
    "fewer bytes": (program(tensor(held=storage(count=3))), "storage 0: want 16 bytes, as the archive holds, got 3"),
    "more bytes": (program(tensor(held=storage(count=2**40))), "storage 0: want 16 bytes"),
    "negative bytes": (program(tensor(held=storage(count=-4))), "storage 0: want 16 bytes"),
    "beyond the storage": (program(tensor((5,))), r"\(5,\): want its elements in a storage of 4, got one at place 4"),
    "strides beyond": (program(tensor((2,), (4,))), "in a storage of 4, got one at place 4"),
    "offset beyond": (program(tensor((1,), (1,), 4)), "in a storage of 4, got one at place 4"),
    "negative offset": (program(tensor((1,), (1,), -1)), "want a tensor of a storage and an offset"),
    "negative size": (program(tensor((-1,))), "want a tensor of sizes and strides from 0 up"),
    "negative stride": (program(tensor((2,), (-1,), 3)), "want a tensor of sizes and strides from 0 up"),
    "sizes without strides": (program(tensor((2, 2))), "want a tensor of sizes and strides"),
    "too many axes": (program(tensor((1,) * 65, (1,) * 65)), "want a tensor of sizes and strides"),
    "sizes past 64 bits": (program(tensor((2**62, 2**62), (0, 0))), "bytes, the file's size, got more"),
    "expanded without end": (program(tensor((2**40,), (0,))), "bytes, the file's size, got more"),
    "empty and endless": (program(tensor((0, 2**40, 2**40), (1, 1, 1))), "the file's size, got more"),
    "two element types": (
        program(b"(" + tensor() + tensor(held=storage("torch.IntStorage")) + b"t"),
        "storage 0: want one element type, got float32 and int32",
    ),
    "bytes as floats": (
        program(tensor(held=storage("torch.storage.UntypedStorage", count=16))),
        "want one element type",
    ),
    "a type of strings": (
        program(tensor().replace(b"_v2\n", b"_v3\n")[:-2] + text("uint16") + b"tR"),
        "want one element type",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_bad_pickles(tmp_path, name):
    pickled, message = PROGRAMS[name]
    archive(tmp_path / "a.pt", members(pickled))
    refused(tmp_path / "a.pt", f"a/data.pkl.*{message}")


def test_bad_archives(tmp_path):
    path, good = tmp_path / "a.pt", members(program(tensor()))
    for spoiled, message in (
        ({**good, "b/data.pkl": b""}, "want one member NAME/data.pkl, as torch.save writes it, got 2"),
        ({"data.pkl": b""}, "want one member NAME/data.pkl, as torch.save writes it, got 0"),
        ({"a/b/data.pkl": b""}, "want one member NAME/data.pkl"),
        ({**good, "a/constants.pkl": b""}, "got a TorchScript program"),
        ({**good, "a/byteorder": b"middle"}, "want 'little' or 'big'"),
        ({**good, "a/byteorder": bytes(9999)}, "want 'little' or 'big'"),
        ({**good, "a/../../etc/passwd": b""}, "want names inside the archive, got 'a/../../etc/passwd'"),
        ({**good, "/etc/passwd": b""}, "want names inside the archive"),
        ({**good, "a\\b": b""}, "want names inside the archive"),
    ):
        archive(path, spoiled)
        refused(path, message)
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive(path, [*good.items(), ("a/data/0", bytes(16))])
    refused(path, "want each name once, got 'a/data/0' twice")
    archive(path, members(program(tensor(held=storage(count=2**24))), bytes(2**26)), zipfile.ZIP_DEFLATED)
    refused(path, "a/data.pkl: want bytes stored as they are, got them compressed")


def patched(path, signature, place, value):
    """Another number in each of the archive's table entries that begin with ``signature``."""
    data = bytearray(path.read_bytes())
    start = data.find(signature)
    while start >= 0:
        data[start + place : start + place + len(value)] = value
        start = data.find(signature, start + 1)
    path.write_bytes(data)


def test_sizes_that_the_file_has_not(tmp_path):
    path, central = tmp_path / "a.pt", b"PK\1\2"
    large = struct.pack("<II", 2**31, 2**31)
    for place, value, message in (
        (20, large, "want 2147483648 bytes from byte 0, got a file of"),
        (24, struct.pack("<I", 2**31), "want bytes stored as they are"),
        (8, struct.pack("<H", 1), "got them encrypted"),
        (10, struct.pack("<H", zipfile.ZIP_DEFLATED), "want bytes stored as they are, got them compressed"),
        (42, struct.pack("<I", 2**31), "from byte 2147483648, got a file of"),
    ):
        archive(path, members(program(tensor())))
        patched(path, central, place, value)
        refused(path, message)
    # Members on top of each other.
    archive(path, {**members(program(tensor())), **{f"a/data/{n}": bytes(500) for n in range(1, 9)}})
    patched(path, central, 20, struct.pack("<II", 900, 900))
    refused(path, "want members of at most .* bytes, the file's size, got 9900")


def test_a_changed_byte_of_a_weight_is_found(tmp_path):
    path = tmp_path / "a.pt"
    save(path, {"weight": np.full(100, 1.5)})
    data = bytearray(path.read_bytes())
    data[data.index(struct.pack("<d", 1.5)) + 40] ^= 1
    path.write_bytes(data)
    refused(path, "archive/data/0: damaged: Bad CRC-32")


def test_foreign_and_missing_files(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "b").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "c").write_bytes(b"The quick brown fox")
    for name in "abc":
        refused(tmp_path / name, "not a whole zip archive")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        load(tmp_path)


def test_a_pickle_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("gpulstm.io.torch.read.LARGEST", 50)
    archive(tmp_path / "a", members(program(tensor())))
    refused(tmp_path / "a", "a/data.pkl: want at most 50 bytes")


def spoil(data, rng):
    """The bytes cut off, or a few of them changed."""
    data = bytearray(data)
    if rng.random() < 0.1:
        return bytes(data[: rng.randrange(len(data))])
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = rng.randrange(len(data))
        data[place] = rng.choice((rng.randrange(256), 0, 255, data[place] ^ 1 << rng.randrange(8)))
    return bytes(data)


def test_spoiled_files_give_a_format_error_or_the_right_answer(tmp_path):
    rng, path, want = random.Random(1), tmp_path / "a.pt", {"lstm": gl.LSTM(2, 2).state_dict(), "n": [1, (2.5, "x")]}
    save(path, want)
    data, read = path.read_bytes(), 0
    for _ in range(1200):
        path.write_bytes(spoil(data, rng))
        try:
            got = load(path)
        except FormatError:
            continue
        assert_same(got, want)
        read += 1
    assert 50 < read < 1150  # padding and dates may change, the rest is compared


def test_spoiled_pickles_give_a_format_error_or_data(tmp_path):
    """Behind the checksum: the pickle itself is changed."""
    rng, path = random.Random(2), tmp_path / "a.pt"
    value = b"}(" + text("w") + tensor((2, 2), (2, 1)) + text("n") + tup(b"N\x88", number(3)) + b"q\0" + text("m")
    pickled, read = program(value + ODICT + b")R(" + text("k") + b"h\0u}b" + b"u"), 0
    archive(path, members(pickled))
    assert load(path)["w"].shape == (2, 2)
    for _ in range(1000):
        archive(path, members(spoil(pickled, rng)))
        try:
            load(path)
            read += 1
        except FormatError:
            pass
    assert 20 < read < 900

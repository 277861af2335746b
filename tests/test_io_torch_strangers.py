"""Files of PyTorch from strangers: built by hand; none runs code, hangs or takes memory it does not fill."""

import contextlib
import io
import os
import pickle
import random
import struct
import sys
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import FormatError
from gpulstm.io.torch import Unread
from tests.test_io_torch import assert_same

load, save = gl.io.torch.load, gl.io.torch.save
MAGIC = b"\x80\2\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


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


def legacy(pickled, storages=(("0", 4, bytes(16)),)):
    """The format before version 1.6."""
    keys = b"](" + b"".join(text(key) for key, *_ in storages) + b"e"
    held = b"".join(struct.pack("<q", count) + data for _, count, data in storages)
    return (
        MAGIC + program(b"M\xe9\3") + program(b"}" + text("little_endian") + b"\x88s") + pickled + program(keys) + held
    )


def old_storage(kind="torch.FloatStorage", key="0", count=4, view=b"N"):
    return tup(text("storage"), named(kind), text(key), text("cpu"), number(count), view) + b"Q"


def refused(path, message):
    """The file is a FormatError that names it, and takes no memory that it does not fill."""
    size = path.stat().st_size
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=message) as raised:
            load(path)
        assert str(path) in str(raised.value)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000 + 20 * size
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
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    assert isinstance(load(tmp_path / "a.pt")["x"], Unread)
                except FormatError as error:
                    assert "got the instruction" in str(error) or "the file was made to run a command" in str(error)
    for name in ("os.system", "posix.system", "nt.system", "subprocess.Popen", "builtins.eval", "__builtin__.exec"):
        archive(tmp_path / "a.pt", members(program(b"}" + text("x") + named(name) + b"s")))
        refused(
            tmp_path / "a.pt", f"expected only data, got '{name}': the file was made to run a command; it was not run"
        )
    for name in (
        "this.s",
        "antigravity.geohash",
        "torch.hub.load",
        "gpulstm.io.torch.load",
        "builtins.print",
        "builtins.getattr",
        "torch.load",
    ):
        stacked = text(name.rpartition(".")[0]) + text(name.rpartition(".")[2]) + b"\x93)R"
        built = named(name) + b")\x81}" + text("y") + b"Nsb"
        for value in (named(name) + b")R", named(name), stacked, built, named(name) + b")R)R"):
            archive(tmp_path / "a.pt", members(program(value)))
            if value == named(name) + b")R)R":
                refused(tmp_path / "a.pt", f"expected a state dict, got an object of the class {name}")
            archive(tmp_path / "a.pt", members(program(b"}" + text("x") + value + b"s")))
            with pytest.warns(UserWarning, match=rf"these entries are gl.io.torch.Unread: x \({name}\)"):
                got = load(tmp_path / "a.pt")["x"]
            assert isinstance(got, Unread)
            assert got.name == name and repr(got) == f"Unread('{name}')"
            assert value != built or got.state == {"y": None}
    assert not ran.exists() and "this" not in sys.modules and "antigravity" not in sys.modules


def dtype(code="f4", order="<"):
    state = tup(number(3), text(order), b"N", b"N", b"N", number(-1), number(-1), number(0))
    return named("numpy.dtype") + tup(text(code), b"\x89", b"\x88") + b"R" + state + b"b"


def ndarray(kind, shape=(2,), content=bytes(8)):
    made = named("numpy.core.multiarray._reconstruct") + tup(named("numpy.ndarray"), tup(number(0)), b"C\1b") + b"R"
    return made + tup(number(1), tup(*map(number, shape)), kind, b"\x89", b"C" + bytes([len(content)]) + content) + b"b"


def sparse():
    made = named("torch._utils._rebuild_sparse_tensor") + b")R"
    return program(b"}" + text("x") + b"}" + text("y") + made + b"ss")


DOUBLED = b"".join(b"h" + bytes([n]) + b"h" + bytes([n]) + b"\x86\x940" for n in range(40))
# hash(-1) is hash(-2), so that 2^12 tuples of them share their hash.
COLLIDING = b"".join(tup(*(number(-1 - (n >> bit & 1)) for bit in range(12))) + b"N" for n in range(4096))
ODICT, LIST = named("collections.OrderedDict"), named("torch._utils._rebuild_parameter")
NESTED = b"]" * 60_000 + b"a" * 59_999
TWICE = b"".join(b"](h" + bytes([n]) + b"h" + bytes([n]) + b"eq" + bytes([n + 1]) for n in range(60))
PROGRAMS = {
    "empty": (b"", "byte 0: expected only data, got the end"),
    "no end": (b"\x80\x02]", "byte 3: expected only data, got the end"),
    "more behind the end": (program(b"]") + b"x", "byte 4: expected the end, got 1 more bytes"),
    "unknown instruction": (b"\x80\x02\xff.", r"byte 3: expected only data, got the instruction b'\\xff'"),
    "text beyond the end": (b"\x80\x02X\xff\xff\xff\x7fabc.", "byte 7: expected 2147483647 more bytes, got the end"),
    "no text": (program(b"X\2\0\0\0\xff\xff"), "byte 9: expected a string in UTF-8"),
    "huge number": (program(b"\x8b" + struct.pack("<I", 2**31 - 1)), "expected only data, got the instruction"),
    "empty stack": (program(b""), "expected 1 entries on the stack, got 0"),
    "two values": (program(b"]]"), "expected one value, got more on the stack"),
    "open mark": (program(b"(]"), "expected one value, got more on the stack"),
    "no mark": (program(b"]e"), "expected a mark"),
    "append to a text": (program(text("a") + b"Na"), "expected a list on the stack, got str"),
    "items of a list": (program(b"]" + text("a") + b"Ns"), "expected a dict on the stack, got list"),
    "a key alone": (program(b"}(Nu"), "expected keys and values in pairs"),
    "a list as key": (program(b"}]Ns"), "expected strings, numbers or tuples of them as keys, got list"),
    "a list in a key": (program(b"}]\x85Ns"), "expected strings, numbers or tuples of them as keys, got list"),
    "a large key": (program(b"}(" + b"N" * 300 + b"tNs"), "expected keys of at most 256 parts"),
    "an endless key": (program(b"}N\x85\x940" + DOUBLED + b"h\x28Ns"), "expected keys of at most 256 parts"),
    "keys that collide": (program(b"}(" + COLLIDING + b"u"), "expected keys whose hashes differ, got many with"),
    "a set of lists": (program(named("builtins.set") + b"](]e\x85R"), "expected strings, numbers or tuples of them as"),
    "bytes in no known encoding": (program(named("_codecs.encode") + tup(text("a"), text("rot13")) + b"R"), "argument"),
    "a complex of texts": (program(named("builtins.complex") + tup(text("1"), text("2")) + b"R"), "arguments"),
    "a dtype of an unknown order": (program(dtype("f4", "?")), "expected the byte order of a dtype"),
    "an array larger than its bytes": (program(ndarray(dtype(), (2**40,))), "expected 4 bytes per element, got 8"),
    "an array of no end": (program(ndarray(dtype(), (0, 2**62, 2**62), b"")), "expected 4 bytes per element, got 0"),
    "characters that are none": (program(ndarray(dtype("U2"), (1,), b"\xff" * 8)), "expected Unicode characters"),
    "places of the memo skipped": (program(b"Nr\xff\xff\xff\xff"), "expected places of the memo in order, got place"),
    "nothing noted": (program(b"h\7"), "expected a filled place of the memo, got place 7"),
    "note of nothing": (program(b"q\0"), "expected an entry on the stack for the memo"),
    "a call of a text": (program(text("os.system") + b")R"), "expected a name and its arguments on the stack"),
    "a call with a list": (program(ODICT + b"]R"), "expected a name and its arguments on the stack"),
    "a dict of pairs": (program(ODICT + tup(b"](Ne") + b"R"), "expected the arguments that torch.save writes for coll"),
    "a parameter of a text": (program(LIST + tup(text("a"), b"\x88", b"N") + b"R"), "expected the arguments that"),
    "a shape of texts": (program(named("torch.Size"), tup(tup(text("a"))), b"R"), "expected the arguments that"),
    "attributes of a list": (program(b"]}b"), "expected a value with attributes on the stack, got list"),
    "attributes of a class": (program(named("a.b") + b"}b"), r"expected an object on the stack, got Unread\('a.b'\)"),
    "items of a class": (program(named("a.b") + b"NNs"), r"expected a list or dict on the stack, got Unread\('a.b'\)"),
    "items of both kinds": (program(named("a.b") + b")\x81NNsNa"), r"expected a list or dict on the stack, got Unread"),
    "attributes without names": (program(named("argparse.Namespace") + b")R}NNsb"), "expected attributes by name"),
    "an object alone": (program(named("a.b") + b")\x81"), "expected a state dict, got an object of the class a.b"),
    "a module alone": (
        program(named("a.b") + b")\x81}" + text("_modules") + b"}s" + text("_parameters") + b"}sb"),
        r"expected a state dict, got a whole module of the class a.b; .*torch.save\(model.state_dict",
    ),
    "an extension": (program(b"\x82\1"), "expected only data, got the instruction b'.x82'"),
    "an instance": (program(b"(ios\nsystem\n"), "expected only data, got the instruction b'i'"),
    "a name as value": (program(named("torch.FloatStorage")), "got an object of the class torch.FloatStorage"),
    "a sparse tensor": (sparse(), "x.y: expected a tensor that an array can hold, got a sparse tensor .in PyTorch:"),
    "a circle": (program(b"]q\0h\0a"), "expected lists and dicts at most 100 deep"),
    "a circle of dicts": (program(b"}q\0" + text("a") + b"h\0s"), "expected lists and dicts at most 100 deep"),
    "nested": (program(NESTED), "expected lists and dicts at most 100 deep"),
    "a bomb of repeats": (program(b"(]q\0" + TWICE + b"t"), "got lists that repeat themselves"),
    "a wide bomb": (
        program(b"(](" + b"N" * 800 + b"eq\0](" + b"h\0" * 800 + b"eq\1](" + b"h\1" * 800 + b"et"),
        "got lists that repeat themselves",
    ),
    # Tensors and storages.
    "no storage": (program(tensor(held=text("0"))), "expected a tensor of a storage"),
    "a storage by another name": (program(tup(text("module"), b"N", b"N", b"N", b"N") + b"Q"), "the name of a storage"),
    "a storage of no type": (
        program(tup(text("storage"), b"N", text("0"), text("cpu"), number(4)) + b"Q"),
        "expected a type of storage",
    ),
    "a storage not there": (program(tensor(held=storage(key="1"))), "expected a storage of the archive, got '1'"),
    "a storage outside": (program(tensor(held=storage(key="../version"))), "expected a storage of the archive"),
    "fewer bytes": (program(tensor(held=storage(count=3))), "storage 0: expected 16 bytes, as the archive holds, got"),
    "more bytes": (program(tensor(held=storage(count=2**40))), "storage 0: expected 16 bytes"),
    "negative bytes": (program(tensor(held=storage(count=-4))), "storage 0: expected 16 bytes"),
    "beyond the storage": (program(tensor((5,))), r"\(5,\): expected its elements in a storage of 4, got one at place"),
    "strides beyond": (program(tensor((2,), (4,))), "in a storage of 4, got one at place"),
    "offset beyond": (program(tensor((1,), (1,), 4)), "in a storage of 4, got one at place"),
    "negative offset": (program(tensor((1,), (1,), -1)), "expected a tensor of a storage and an offset"),
    "negative size": (program(tensor((-1,))), "expected a tensor of sizes and strides from 0 up"),
    "negative stride": (program(tensor((2,), (-1,), 3)), "expected a tensor of sizes and strides from 0 up"),
    "sizes without strides": (program(tensor((2, 2))), "expected a tensor of sizes and strides"),
    "too many axes": (program(tensor((1,) * 65, (1,) * 65)), "expected a tensor of sizes and strides"),
    "sizes past 64 bits": (program(tensor((2**62, 2**62), (0, 0))), "expected at most 67108864 bytes, got more"),
    "expanded without end": (program(tensor((2**40,), (0,))), "expected at most 67108864 bytes, got more"),
    "empty and endless": (program(tensor((0, 2**40, 2**40), (1, 1, 1))), "bytes, got more"),
    "two element types": (
        program(b"(" + tensor() + tensor(held=storage("torch.IntStorage")) + b"t"),
        "storage 0: expected one element type, got float32 and int32",
    ),
    "bytes as floats": (
        program(tensor(held=storage("torch.storage.UntypedStorage", count=16))),
        "expected one element type",
    ),
    "a type of strings": (
        program(tensor().replace(b"_v2\n", b"_v3\n")[:-2] + text("uint16") + b"tR"),
        "expected one element type",
    ),
    "an array as the kind of a storage": (
        program(tup(ndarray(dtype()), named("torch.FloatStorage"), text("0"), text("cpu"), number(4)) + b"Q"),
        "expected the name of a storage",
    ),
    "arrays in a dtype": (
        program(named("numpy.dtype") + tup(text("f4")) + b"R" + tup(*[ndarray(dtype())] * 5) + b"b"),
        "expected the arguments that torch.save writes for numpy.dtype",
    ),
    "endless notes": (program(tensor(more=b"}" + NESTED + b"Ns")), "expected strings, numbers"),
    "deep notes": (program(tensor(more=NESTED)), "expected the notes conj and neg of a"),
    "notes of no tensor": (program(tensor(more=b"}" + text("x") + b"\x88s")), "expected the notes conj and neg of a"),
    "a class in a class": (
        program(named("copyreg.__newobj__") + b"\x94(" + b"h\0" * 5000 + b"tR"),
        "expected the arguments that torch.save writes for copyreg.__newobj__",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_bad_pickles(tmp_path, name):
    pickled, message = PROGRAMS[name]
    archive(tmp_path / "a.pt", members(pickled))
    refused(tmp_path / "a.pt", message)


def test_bad_archives(tmp_path):
    path, good = tmp_path / "a.pt", members(program(tensor()))
    for spoiled, message in (
        ({**good, "b/data.pkl": b""}, "expected one member NAME/data.pkl, as torch.save writes it, got 2"),
        ({"data": b""}, "expected a file of torch.save, got a zip archive of something else"),
        ({"a/b/data.pkl": b""}, "a/b/data.pkl, byte 0: expected only data, got the end"),
        ({**good, "a/constants.pkl": b"", "a/code/x.py": b""}, "got a TorchScript program; in PyTorch: torch.save"),
        ({**good, "a/.data/extern_modules": b""}, "got an archive of torch.package"),
        ({**good, "a/byteorder": b"middle"}, "expected 'little' or 'big'"),
        ({**good, "a/byteorder": bytes(9999)}, "expected 'little' or 'big'"),
        ({**good, "a/../../etc/passwd": b""}, "expected names inside the archive, got 'a/../../etc/passwd'"),
        ({**good, "/etc/passwd": b""}, "expected names inside the archive"),
        ({**good, "a\\b": b""}, "expected names inside the archive"),
    ):
        archive(path, spoiled)
        refused(path, message)
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive(path, [*good.items(), ("a/data/0", bytes(16))])
    refused(path, "expected each name once, got 'a/data/0' twice")
    archive(path, members(program(tensor(held=storage(count=2**22))), bytes(2**24)), zipfile.ZIP_DEFLATED)
    refused(path, "expected members of at most .* bytes, 8 times the file's size, got 16777")
    archive(path, good, zipfile.ZIP_BZIP2)
    refused(path, "a/data.pkl: expected stored or deflated bytes, got another kind of compression")


def test_archives_packed_anew_are_read(tmp_path):
    path, data = tmp_path / "a.pt", np.arange(4, dtype=np.float32)
    good = members(program(tensor()), data.tobytes())
    for packed in (
        {"a/": b"", **good},
        {name.removeprefix("a/"): content for name, content in good.items()},
        {f"model/{name}": content for name, content in good.items()},
    ):
        archive(path, packed)
        assert_same(load(path), data)
    archive(path, good, zipfile.ZIP_DEFLATED)
    assert_same(load(path), data)
    archive(path, good)
    path.write_bytes(b"something before it" + path.read_bytes())
    assert_same(load(path), data)
    with zipfile.ZipFile(path, "a") as file:
        file.comment = b"a comment"
    assert_same(load(path), data)

    class Pipe(io.BytesIO):
        """What cannot seek gets the sizes behind each member."""

        def seek(self, *_):
            raise OSError

    pipe = Pipe()
    archive(pipe, good)
    path.write_bytes(pipe.getvalue())
    assert_same(load(path), data)


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
        (20, large, "expected 2147483648 bytes from byte 0, got a file of"),
        (24, struct.pack("<I", 2**31), "expected 2147483648 stored bytes, got"),
        (8, struct.pack("<H", 1), "got encrypted ones"),
        (10, struct.pack("<H", zipfile.ZIP_DEFLATED), "data.pkl: damaged: "),
        (42, struct.pack("<I", 2**31), "from byte 2147483648, got a file of"),
    ):
        archive(path, members(program(tensor())))
        patched(path, central, place, value)
        refused(path, message)
    # Members on top of each other.
    archive(path, {**members(program(tensor())), **{f"a/data/{n}": bytes(500) for n in range(1, 9)}})
    patched(path, central, 20, struct.pack("<II", 900, 900))
    refused(path, "expected members of at most .* bytes, the file's size, got 9900")


def test_a_changed_byte_of_a_weight_is_found(tmp_path):
    path = tmp_path / "a.pt"
    save(path, {"weight": np.full(100, 1.5)})
    data = bytearray(path.read_bytes())
    data[data.index(struct.pack("<d", 1.5)) + 40] ^= 1
    path.write_bytes(data)
    refused(path, "archive/data/0: damaged: Bad CRC-32")


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        load(tmp_path)


def test_a_pickle_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("gpulstm.io.torch.read.LARGEST", 50)
    archive(tmp_path / "a", members(program(tensor())))
    refused(tmp_path / "a", "a/data.pkl: expected at most 50 bytes")


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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a name that was changed is no name of data
            try:
                load(path)
                read += 1
            except FormatError:
                pass
    assert 20 < read < 900


# -- the format before version 1.6 ---------------------------------------------------------------------------


def old_tensor(held, shape=(4,), strides=(1,), offset=0):
    return tensor(shape, strides, offset, held)


def test_files_of_before_1_6(tmp_path):
    path, data = tmp_path / "old.pt", np.arange(4, dtype=np.float32)
    view = tup(text("v"), number(1), number(2))
    value = b"}(" + text("w") + old_tensor(old_storage()) + text("t") + old_tensor(old_storage(), (2, 2), (1, 2))
    value += text("part") + old_tensor(old_storage(view=view), (2,)) + b"u"
    path.write_bytes(legacy(program(value), [("0", 4, data.tobytes())]))
    got = load(path)
    assert_same(got, {"w": data, "t": data.reshape(2, 2).T.copy(), "part": data[1:3]})
    got["w"][1] = 7
    assert got["t"][1, 0] == 7 and got["part"][0] == 7
    assert all(array.flags.writeable for array in got.values())


def test_files_of_python_2(tmp_path):
    """Texts are bytes there, numbers of the memo begin at 1, an OrderedDict is made of a list of lists."""

    def old(value):
        return b"U" + bytes([len(value)]) + value

    made = named("collections.OrderedDict") + b"q\1](](" + old(b"w") + b"q\2" + old_tensor(old_storage()) + b"ee\x85R"
    complex_ = named("__builtin__.set") + b"](K\1e\x85R"
    number_ = named("numpy.core.multiarray.scalar") + dtype() + old(struct.pack("<f", 2.5)) + b"\x86R"
    other = named("numpy.core.multiarray.scalar") + dtype() + old(b"\x80\xff\0\x40") + b"\x86R"
    (tmp_path / "old").write_bytes(legacy(program(b"(" + made + complex_ + number_ + other + b"t")))
    state, numbers, number_of_texts, number_of_bytes = load(tmp_path / "old")
    assert_same(state, {"w": np.zeros(4, np.float32)})
    assert numbers == {1} and number_of_texts == np.float32(2.5)
    assert number_of_bytes.tobytes() == b"\x80\xff\0\x40"


def test_tensors_and_parameters_of_the_first_versions(tmp_path):
    sizes = tup(number(2), number(2)), tup(number(2), number(1))
    made = named("torch._utils._rebuild_tensor") + tup(old_storage(), number(0), *sizes) + b"R"
    # Until 0.3 a parameter carried what it requires, in this order: gradient, volatile, hooks.
    parameter = named("torch.nn.parameter.Parameter") + made + b"\x85R" + tup(b"\x88", b"\x89", ODICT + b")R") + b"b"
    variable = named("torch.autograd.variable.Variable") + made + b"\x85R"
    data = np.arange(4, dtype=np.float32)
    (tmp_path / "old").write_bytes(legacy(program(tup(made, parameter, variable)), [("0", 4, data.tobytes())]))
    assert_same(load(tmp_path / "old"), (data.reshape(2, 2),) * 3)


def test_bad_files_of_before_1_6(tmp_path):
    path, value = tmp_path / "old.pt", program(old_tensor(old_storage()))
    good = legacy(value)
    path.write_bytes(good)
    assert load(path).shape == (4,)
    for spoiled, message in (
        (good[:-1], "byte .*: expected 16 bytes for storage 0, got 15"),
        (good[:-17], "expected 16 bytes for storage 0, got -1 elements"),
        (legacy(value, [("0", 5, bytes(20))]), "expected 16 bytes for storage 0, got 5 elements"),
        (legacy(value, [("0", -4, bytes(16))]), "expected 16 bytes for storage 0, got -4 elements"),
        (legacy(value, []), "expected the keys of 1 storages, got 0 others"),
        (legacy(value, [("1", 4, bytes(16))]), "expected the keys of 1 storages, got 1 others"),
        (legacy(value, [("0", 4, bytes(16))] * 2), "expected the keys of 1 storages, got 2 others"),
        (legacy(program(old_tensor(old_storage(count=2**40)))), "storage 0: expected bytes of the file, which has"),
        (legacy(program(old_tensor(old_storage(count=-4)))), "storage 0: expected bytes of the file, which has"),
        (
            legacy(program(b"(" + b"".join(old_storage(key=str(n), count=60) for n in range(20)) + b"t")),
            "expected bytes of the file, which has",
        ),
        (
            legacy(program(old_storage(view=tup(text("v"), number(3), number(2))))),
            "storage 0: expected a part of 16 bytes, got one up to 20",
        ),
        (legacy(program(old_storage(view=tup(text("v"), number(-1), number(2))))), "expected a part of a storage"),
        (good.replace(b"M\xe9\3", b"M\xe9\4"), "expected the number 1001 at the beginning, got another or none"),
        (MAGIC, "byte 15: expected only data, got the end"),
        (
            legacy(program(tup(text("module"), named("my.Net"), text("net.py"), text("class Net")) + b"Q)\x81}b"), []),
            "expected a state dict, got an object of the class my.Net",
        ),
    ):
        path.write_bytes(spoiled)
        refused(path, message)
    path.write_bytes(good + b"abc")
    with pytest.warns(UserWarning, match="not everything was read; 3 bytes follow the value, perhaps another value"):
        load(path)


def test_spoiled_files_of_before_1_6_give_a_format_error_or_data(tmp_path):
    rng, path, read = random.Random(3), tmp_path / "old.pt", 0
    value = b"}(" + text("w") + old_tensor(old_storage(), (2, 2), (2, 1)) + text("n") + tup(b"N\x88", number(3))
    data = legacy(program(value + text("args") + named("argparse.Namespace") + b")R}" + text("lr") + b"Nsbu"))
    for _ in range(600):
        path.write_bytes(spoil(data, rng))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                load(path)
                read += 1
            except FormatError:
                pass
    assert 20 < read < 500


# -- memory --------------------------------------------------------------------------------------------------

N = 60_000
BOMBS = {
    "empty dicts": b"}" * N, "empty lists": b"]" * N, "empty sets": b"\x8f" * N, "marks": b"(" * N,
    "tuples": b"N" + b"\x85" * N, "None": b"N" * N, "pairs": b"NN\x86" * (N // 3), "places": b"N" + b"\x94" * N,
    "texts": b"\x8c\2ab" * (N // 4), "numbers": b"M\xff\1" * (N // 3), "small dicts": b"}NNs" * (N // 4),
    "objects": named("a.b") + b"\x94" + b"h\0)R" * (N // 4), "names": b"".join(named(f"a.{n}") for n in range(N // 9)),
    "bytes made again": named("_codecs.encode") + b"\x94" + tup(text("a" * N), text("latin1")) + b"\x94"
    + b"h\0h\1R" * N,
    "dtypes": named("numpy.dtype") + b"\x94" + tup(text("f4")) + b"\x94" + b"h\0h\1R" * (N // 5),
    "tensors": tensor().replace(b"(", b"\x94(", 1)[:-1] + b"\x94R" + b"h\0h\1R" * (N // 5),
    "negative tensors": tensor(more=b"}" + text("neg") + b"\x88s").replace(b"(", b"\x94(", 1)[:-1] + b"\x94R"
    + b"h\0h\1R" * (N // 5),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("old", [False, True], ids=["archive", "before 1.6"])
def test_many_small_things_take_no_more_than_the_file_allows(tmp_path, name, old, monkeypatch):
    """Whether they are refused for their size or for another reason, or are read."""
    monkeypatch.setattr("gpulstm.io.torch.budget.LEAST", 0)
    path, pickled = tmp_path / "a.pt", program(BOMBS[name])
    if old:
        path.write_bytes(legacy(pickled, []))
    else:
        archive(path, members(pickled))
    size = path.stat().st_size
    tracemalloc.start()
    try:
        with contextlib.suppress(FormatError):
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 300_000 + 19 * size
    finally:
        tracemalloc.stop()


# -- values that compare, format and hash otherwise than texts and numbers do


def dtype_of(code, order=b"X\1\0\0\0<", fields=b"N"):
    return (
        named("numpy.dtype") + tup(text(code), b"\x89", b"\x88") + b"R" + tup(b"K\3", order, b"N", b"N", fields) + b"b"
    )


def numpy_array(shape, dtype, content=b"", fortran=b"\x89"):
    kind = named("numpy._core.multiarray._reconstruct") + tup(named("numpy.ndarray"), tup(b"K\0"), b"C\1b") + b"R"
    content = b"C" + bytes([len(content)]) + content
    return kind + tup(b"K\1", tup(*map(number, shape)), dtype, fortran, content) + b"b"


def namespace(**attributes):
    parts = b"".join(text(key) + value for key, value in attributes.items())
    return named("argparse.Namespace") + b")R}(" + parts + b"ub"


def same_hash():
    """A tuple as a key, and a number of NumPy that is no tuple but hashes like it."""
    other = next(k for k in range(1000) if abs(hash((1, k))) < 2**61 - 1)
    scalar = named("numpy._core.multiarray.scalar")
    scalar += tup(dtype_of("i8"), b"C\x08" + struct.pack("<q", hash((1, other)))) + b"R"
    return b"}(" + tup(number(1), number(other)) + b"K\1" + scalar + b"K\2u"


def twins(levels):
    """Two equal sets in sets that share nothing: each level doubles the comparisons."""

    def of(*items):
        return b"(" + b"".join(items) + b"\x91"

    def get(place):
        return b"j" + struct.pack("<I", place)

    made, place, tops = b"", 0, []
    for _ in range(2):
        pair = of(b"K\1"), of(b"K\2")
        for level in range(levels):
            made += b"".join(one + b"r" + struct.pack("<I", place + n) + b"0" for n, one in enumerate(pair))
            x, y = get(place), get(place + 1)
            pair, place = (of(x, y), of(x, y, b"K" + bytes([level + 3]))), place + 2
        tops.append(pair[0])
    return made + b"}(" + tops[0] + b"K\1" + tops[1] + b"K\2u"


DEEP = b"]" * 5000 + b"a" * 4999
WRONG = "the arguments that torch.save writes"
ODD = {
    "an array for 'storage'": (tup(tensor(), named("torch.FloatStorage"), text("0"), text("cpu"), number(4)) + b"Q",
                               "the name of a storage"),
    "arrays for 'module'": (tup(*[tensor()] * 4) + b"Q", "the name of a storage"),
    "an array for a byte order": (dtype_of("f4", tensor()), WRONG),
    "a deep list for a byte order": (dtype_of("f4", DEEP), "the byte order of a dtype"),
    "an array for a dtype's fields": (dtype_of("f4", fields=tensor()), WRONG),
    "an array for 'fortran'": (numpy_array((2,), dtype_of("f4"), bytes(8), tensor()), WRONG),
    "an empty array too large": (numpy_array((0, 2**40), dtype_of("U9999999")), WRONG),
    "a list for a class's name": (named("copyreg._reconstructor") + tup(namespace(name=b"]"), b"N", b"N") + b"R",
                                  WRONG),
    "deep notes": (named("torch._utils._rebuild_tensor_v2")
                   + tup(storage(), number(0), tup(number(4)), tup(number(1)), b"\x89", b"}", DEEP) + b"R",
                   "the notes conj and neg"),
    "a number that hashes like a tuple": (same_hash(), "keys that can be compared"),
    "deep sets": (b"}(" + b"(" * 5000 + b"K\1" + b"\x91" * 5000 + named("torch.nothing") + b")Ru", "at most 256 parts"),
    "twins": (twins(60), "at most 256 parts, got a larger frozenset"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_values(tmp_path, name):
    pickled, message = ODD[name]
    archive(tmp_path / "a", members(program(pickled)))
    refused(tmp_path / "a", f"expected .*{message}")


def test_an_array_for_the_version_of_an_old_file(tmp_path):
    (tmp_path / "a").write_bytes(MAGIC + program(old_storage()) + program(b"N"))
    refused(tmp_path / "a", "expected the number 1001 at the beginning, got another")
    (tmp_path / "a").write_bytes(MAGIC + program(DEEP) + program(b"N"))
    refused(tmp_path / "a", "expected the number 1001 at the beginning, got another")


def test_small_sets_as_keys_are_kept(tmp_path):
    inner = b"(K\1K\2\x91"
    archive(tmp_path / "a", members(program(b"}((" + inner + b"K\3\x91" + text("x") + b"u")))
    assert load(tmp_path / "a") == {frozenset({frozenset({1, 2}), 3}): "x"}

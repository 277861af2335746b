"""gl.save and gl.load: what goes into the file comes back, what does not fit is refused and changes nothing."""

import json
import pickle
import random
import signal
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections import OrderedDict, namedtuple

import ml_dtypes
import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import DTypeError, FormatError, GpulstmError, ShapeError
from gpulstm.io import load_arrays, save_arrays, tree
from gpulstm.train import checkpoint

MADE = {"device": "cpu"}


class Net(gl.Module):
    """A model with layers in a dict, a shared weight and buffers."""

    def __init__(self, seed=0, device="cpu", dtype="float32", hidden=4):
        made = {"device": device, "dtype": dtype, "generator": np.random.default_rng(seed)}
        self.layers = {"rnn": gl.LSTM(3, hidden, **made), "out": gl.Linear(hidden, 3, **made)}
        self.again = self.layers["out"]
        self.register_buffer("mean", gl.tensor(np.full(3, seed, np.float32), device=device))
        self.register_buffer("seen", gl.tensor(np.array(seed), device=device))

    def forward(self, x):
        return self.again(self.layers["rnn"](gl.tensor(x) - self.mean)[0])


def parts(seed=0):
    """A model, an optimiser that has made two steps, a schedule, a data set and a generator."""
    model = Net(seed)
    optimizer = gl.Adam(model.parameters(), lr=0.1)
    schedule = gl.StepLR(optimizer, 2)
    for _ in range(2 + seed):
        model.zero_grad()
        model(np.ones((2, 1, 3), np.float32)).sum().backward()
        optimizer.step()
        schedule.step()
    batches = gl.data.Batches(np.arange(6), batch_size=2, generator=np.random.default_rng(seed))
    next(iter(batches))
    return {
        "model": model, "optimizer": optimizer, "schedule": schedule, "batches": batches,
        "generator": np.random.default_rng(seed + 5),
    }  # fmt: skip


def states(given):
    return {name: tree.to_host(part.state_dict()) for name, part in given.items() if hasattr(part, "state_dict")}


def same(a, b):
    """Whether two nests have the same types, keys and bits."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, gl.Tensor):
        return same(a.data, b.data)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return a == b or (a != a and b != b)


def test_a_difference_is_seen():
    x = {"a": [1, (np.ones(2), None)]}
    assert same(x, {"a": [1, (np.ones(2), None)]})
    for other in (
        {"a": [1, (np.zeros(2), None)]},
        {"a": [1, [np.ones(2), None]]},
        {"b": x["a"]},
        {"a": [True, x["a"][1]]},
    ):
        assert not same(x, other)


# -- a model alone -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_comes_back(device, tmp_path, dtype):
    one, two = Net(1, device.name, dtype), Net(2, device.name, dtype)
    gl.save(tmp_path / "m.safetensors", one)
    before = [p.data for p in two.parameters()]
    assert gl.load(tmp_path / "m.safetensors", two) is two
    assert same(tree.to_host(one.state_dict()), tree.to_host(two.state_dict()))
    assert all(p.data is b for p, b in zip(two.parameters(), before, strict=True))
    assert list(gl.load(tmp_path / "m.safetensors")) == sorted(one.state_dict())


def test_values_that_are_not_finite_are_the_users(tmp_path):
    one, two = gl.Linear(2, 2, **MADE), gl.Linear(2, 2, **MADE)
    one.weight.data[0] = [np.nan, np.inf]
    gl.save(tmp_path / "m", one)
    gl.load(tmp_path / "m", two)
    assert same(one.weight.data, two.weight.data)


@pytest.mark.oracle
def test_torchs_safetensors_are_read_and_written(tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    theirs, ours = torch.nn.LSTM(3, 4, bidirectional=True), gl.LSTM(3, 4, bidirectional=True, **MADE)
    save_file(theirs.state_dict(), tmp_path / "theirs", {"format": "pt"})
    gl.load(tmp_path / "theirs", ours)
    assert (ours.weight_hh_l0_reverse.numpy() == theirs.weight_hh_l0_reverse.detach().numpy()).all()
    ours.weight_ih_l0.data[...] = 3
    gl.save(tmp_path / "ours", ours)
    theirs.load_state_dict(load_file(tmp_path / "ours"))
    assert (theirs.weight_ih_l0 == 3).all()
    gl.save(tmp_path / "dict", ours.state_dict())
    assert set(load_file(tmp_path / "dict")) == set(theirs.state_dict())
    assert gl.load(tmp_path / "dict", gl.LSTM(3, 4, bidirectional=True, **MADE)).weight_ih_l0.data.min() == 3


def test_a_model_that_does_not_fit_is_left_as_it_is(tmp_path):
    gl.save(tmp_path / "m", Net(1))
    other = Net(2, hidden=5)
    before = tree.to_host(other.state_dict())
    with pytest.raises(
        ShapeError, match=r"m: .*state of Net: layers.rnn.weight_ih_l0: expected \(20, 3\), got \(16, 3\)"
    ):
        gl.load(tmp_path / "m", other)
    assert same(before, tree.to_host(other.state_dict()))
    with pytest.raises(ShapeError, match=r"missing 0\.weight"):
        gl.load(tmp_path / "m", gl.Sequential(gl.Linear(2, 2, **MADE)))


# -- a whole run ---------------------------------------------------------------------------------------------
def test_a_run_comes_back_with_its_plain_values(tmp_path):
    one, two = parts(0), parts(1)
    plain = {"epoch": 3, "losses": [1.5, float("nan")], "name": "ü", "best": None, "pair": (1, True), "w": np.arange(3)}
    gl.save(tmp_path / "run", {**one, **plain})
    got = gl.load(tmp_path / "run", {**two, "epoch": 0})
    assert list(got) == [*one, *plain] and same({key: got[key] for key in plain}, plain)
    assert all(got[name] is two[name] for name in two)
    assert same(states(one), states(two))
    assert one["generator"].random() == two["generator"].random()
    assert len(list(two["batches"])) == len(list(one["batches"])) - 1  # it goes on behind the first
    x = np.ones((2, 1, 3), np.float32)
    for given in (one, two):  # both go on to the same bits
        given["model"].zero_grad()
        given["model"](x).sum().backward()
        given["optimizer"].step()
    assert same(tree.to_host(one["optimizer"].state_dict()), tree.to_host(two["optimizer"].state_dict()))
    assert same(tree.to_host(one["model"].state_dict()), tree.to_host(two["model"].state_dict()))


def test_the_nest_alone_is_plain(tmp_path):
    one = parts(0)
    gl.save(tmp_path / "run", {**one, "epoch": 3})
    got = gl.load(tmp_path / "run")
    assert got["epoch"] == 3 and got["optimizer"]["param_groups"][0]["lr"] == one["optimizer"].lr
    assert list(got["optimizer"]["state"]) == list(one["optimizer"].state_dict()["state"])  # numbers, not strings
    assert same(got["model"]["mean"], np.zeros(3, np.float32))
    assert gl.load(tmp_path / "run", Net(1)).seen.item() == 0


def test_objects_may_be_anywhere_in_a_nest(tmp_path):
    def nest(seed):
        return {"nets": [Net(seed), {"b": Net(seed + 1)}], 4: (gl.tensor([1.0]), "x")}

    one, two = nest(1), nest(5)
    gl.save(tmp_path / "nest", one)
    got = gl.load(tmp_path / "nest", two)
    assert got["nets"][1]["b"] is two["nets"][1]["b"] and same(got[4], one[4])
    for a, b in ((one["nets"][0], two["nets"][0]), (one["nets"][1]["b"], two["nets"][1]["b"])):
        assert same(a.state_dict(), b.state_dict())
    optimizer = gl.SGD(two["nets"][0].parameters(), lr=0.5)
    gl.save(tmp_path / "alone", optimizer)
    assert gl.load(tmp_path / "alone", gl.SGD(one["nets"][0].parameters(), lr=1.0)).lr == 0.5


def test_keys_and_values_come_back_as_they_were(tmp_path):
    Thing = namedtuple("Thing", "a b")
    x = {
        1: "a", "1": "b", 1.5: None, None: -2, (1, ("x",)): [2**100, -0.0], "a/b": np.zeros(1),
        "a": {"b": np.ones(1)}, "/a/b#1": np.full(1, 2.0), "half": np.ones(2, ml_dtypes.bfloat16),
        "0-d": np.array(3, np.int8), "turned": np.arange(6.0).reshape(2, 3).T, "ordered": OrderedDict(z=1, a=2),
    }  # fmt: skip
    gl.save(tmp_path / "x", x)
    got = gl.load(tmp_path / "x")
    x["turned"], x["ordered"] = np.ascontiguousarray(x["turned"]), dict(x["ordered"])
    assert same(got, x)
    for wrong, words in (
        ({"a": [{1, 2}]}, "a/0: expected a dict, list, .* or an object with state_dict, got set"),
        ({"a": 1j}, "a: expected a dict, .*, got complex"),
        ({"a": Thing(1, 2)}, "a: expected a dict, .*, got Thing"),
        ({"a": {frozenset(): 1}}, "a: expected keys that are strings, numbers, None or tuples"),
        ({"a": np.array(["x"]), "b": 1}, "/a: expected one of bfloat16, .*, got str"),
    ):
        with pytest.raises(DTypeError, match=words):
            gl.save(tmp_path / "x", wrong)
    assert same(gl.load(tmp_path / "x"), x)  # the old file is whole


def test_a_nest_that_holds_itself_is_refused(tmp_path):
    ring: list = []
    ring.append({"a": ring})
    with pytest.raises(FormatError, match="do not contain themselves"):
        gl.save(tmp_path / "x", ring)
    deep: list = []
    for _ in range(2000):
        deep = [deep]
    with pytest.raises(FormatError, match="at most 100 nested levels"):
        gl.save(tmp_path / "x", deep)
    with pytest.raises(FormatError, match="at most 100 nested levels"):
        checkpoint.save(tmp_path / "x", {"state": deep})
    assert not list(tmp_path.iterdir())


# -- what one side lacks -------------------------------------------------------------------------------------
def test_what_one_side_lacks_is_named(tmp_path):
    one = parts(0)
    gl.save(tmp_path / "run", {"model": one["model"], "optimizer": one["optimizer"], "epoch": 1})
    two = parts(1)
    before = states(two)
    model, optimizer = two["model"], two["optimizer"]
    for x, words in (
        (
            {"model": model},
            r"for each state in the file, got none for optimizer; gl.load\(path, model\) loads",
        ),
        (
            {"model": model, "optimizer": optimizer, "schedule": two["schedule"]},
            "expected schedule, got a file that has",
        ),
        (
            {"model": model, "optimizer": optimizer, "step": 0},
            "expected step, got a file that has model, optimizer, epoch",
        ),
        ({"model": model, "optimizer": None}, "optimizer: expected an object for each state in a state, got None"),
        (
            {"model": model, "optimizer": optimizer, "epoch": two["schedule"]},
            "epoch: expected the state of a StepLR, got a",
        ),
        ([model, optimizer], "expected a list of 2, got a dict with model, optimizer, epoch"),
        ({"model": model, "optimizer": two["generator"]}, "generator state: expected that of a PCG64"),
    ):
        with pytest.raises(FormatError, match=f"run: .*{words}"):
            gl.load(tmp_path / "run", x)
        assert same(states(two), before)


def test_when_one_object_refuses_the_others_are_put_back(tmp_path):
    one, two = parts(0), parts(1)
    gl.save(tmp_path / "run", {"a": one["model"], "g": one["generator"], "b": one["optimizer"]})
    two["optimizer"] = gl.SGD(two["model"].parameters(), lr=1.0)
    before, where = states(two), two["generator"].bit_generator.state
    with pytest.raises(FormatError, match="run: b: optimiser state: expected the options"):
        gl.load(tmp_path / "run", {"a": two["model"], "g": two["generator"], "b": two["optimizer"]})
    assert same(states(two), before) and two["generator"].bit_generator.state == where


class Stubborn:
    """Refuses every state, its own too."""

    def state_dict(self):
        return {"a": 1}

    def load_state_dict(self, state):
        raise ValueError("never")


def test_an_object_that_refuses_its_own_state_does_not_keep_the_others_from_theirs(tmp_path):
    one, two, before = (parts(0), parts(1)["model"], Stubborn())
    gl.save(tmp_path / "run", {"a": Stubborn(), "b": one["model"]})
    kept = states({"model": two})
    with pytest.raises(FormatError, match=r"run: a: expected the state of a Stubborn, got .*ValueError never"):
        gl.load(tmp_path / "run", {"a": before, "b": two})
    gl.save(tmp_path / "run", {"b": one["model"], "a": Stubborn()})
    with pytest.raises(FormatError, match=r"run: a: expected the state of a Stubborn, got .*ValueError never"):
        gl.load(tmp_path / "run", {"a": before, "b": two})
    assert same(states({"model": two}), kept)


class Shared:
    """An array of another library, which NumPy shares."""

    def __init__(self, array):
        self.array, self.dtype = array, array.dtype

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


@pytest.mark.parametrize("others", [{}, {"n": 1}], ids=["alone", "with a number"])
def test_arrays_of_other_libraries_and_byte_orders_are_written(tmp_path, others):
    gl.save(tmp_path / "x", {"a": Shared(np.arange(3.0)), "b": np.arange(3, dtype=">i4"), **others})
    read = gl.load(tmp_path / "x")
    assert read["a"].tolist() == [0, 1, 2] and read["b"].tolist() == [0, 1, 2] and read["b"].dtype == "int32"


def test_arrays_that_mean_more_are_named(tmp_path):
    for nest, place in (({"a": np.ma.masked_array([1.0])}, "a"), ({"n": 1, "l": [np.ma.masked_array([1.0])]}, "l/0")):
        with pytest.raises(DTypeError, match=f"^{place}: expected a plain array, got a MaskedArray, .* x.filled"):
            gl.save(tmp_path / "x", nest)


# -- other writers' files ------------------------------------------------------------------------------------
def loss(model, batch, state):
    return gl.mse(model(batch[0]), batch[1]), None


def test_a_trainers_checkpoint_gives_the_weights(tmp_path):
    model, x = Net(1), np.ones((2, 2, 3), np.float32)
    trainer = gl.Trainer(model, gl.SGD(model.parameters(), lr=0.5), loss)
    trainer.fit([(x, x)], 3, checkpoint=tmp_path / "run", progress=False)
    assert same(gl.load(tmp_path / "run", Net(2)).state_dict(), model.state_dict())
    saved = checkpoint.load(tmp_path / "run")
    saved["run"]["best_model"] = Net(7).state_dict()
    checkpoint.save(tmp_path / "run", saved)
    assert same(gl.load(tmp_path / "run", Net(2)).state_dict(), Net(7).state_dict())  # as fit leaves it
    assert same(gl.load(tmp_path / "run")["model"], tree.to_host(model.state_dict()))
    again = Net(3)
    got = gl.load(tmp_path / "run", {"model": again, "optimizer": gl.SGD(again.parameters(), lr=0.1)})
    assert got["run"]["step"] == 3 and got["optimizer"].lr == 0.5
    assert same(again.state_dict(), model.state_dict())


def test_a_model_of_the_text_lab_gives_the_weights(tmp_path):
    from gpulstm.labs.text_corpus import Vocabulary
    from gpulstm.labs.text_file import save_model
    from gpulstm.labs.text_model import TextModel

    def made(seed):
        generator = np.random.default_rng(seed)
        return TextModel(Vocabulary("char", ["a", "b"]), embedding=2, hidden=3, device="cpu", generator=generator)

    save_model(tmp_path / "m", made(1))
    assert same(gl.load(tmp_path / "m", made(2)).state_dict(), made(1).state_dict())
    assert gl.load(tmp_path / "m").keys() == made(1).state_dict().keys()


def test_files_of_other_kinds_name_their_reader(tmp_path):
    model = gl.Linear(2, 2, **MADE)
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("data.pkl", b"x" * 1000)
    (tmp_path / "hdf").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 100)
    (tmp_path / "pickle").write_bytes(pickle.dumps(["a"] * 100, protocol=2))
    for name, words in (("zip", "gl.io.torch.load reads .pt"), ("hdf", "gl.io.keras.load"), ("pickle", "a pickle")):
        with pytest.raises(
            FormatError, match=f"{name}: not a whole safetensors file: expected safetensors, got .*{words}"
        ):
            gl.load(tmp_path / name, model)
    gl.save(tmp_path / "dict", {"net": model, "n": 1})
    with pytest.raises(FormatError, match="expected a model or a dict with 'model', got one with 'net', 'n'"):
        gl.load(tmp_path / "dict", model)
    with pytest.raises(FileNotFoundError):
        gl.load(tmp_path / "none", model)


def test_arguments_the_other_way_round_are_named(tmp_path):
    with pytest.raises(DTypeError, match=r"path: expected a string or a pathlib.Path, got Linear; the path comes"):
        gl.save(gl.Linear(1, 1), "m.safetensors")
    with pytest.raises(DTypeError, match=r"path: expected a string or a pathlib.Path, got Linear; the path comes"):
        gl.load(gl.Linear(1, 1), "m.safetensors")


def test_what_takes_no_state_is_named(tmp_path):
    gl.save(tmp_path / "m", gl.Linear(1, 1, **MADE))
    for x, words in ((gl.Linear, "the class Linear"), ("m", "a str"), (3, "a int")):
        with pytest.raises(DTypeError, match=f"x: expected a model, .* or a dict of them, got {words}"):
            gl.load(tmp_path / "m", x)


# -- files that lie ------------------------------------------------------------------------------------------
def rewritten(path, change):
    """The file with its header tree changed."""
    arrays, metadata = load_arrays(path)
    told = json.loads(metadata["gpulstm"])
    told = change(told) or told
    save_arrays(path, arrays, {"gpulstm": told if isinstance(told, str) else json.dumps(told)})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h: h["tree"]["dict"].pop(0) and None, "expected arrays that the header names, got others too: /w"),
        (lambda h: h["tree"]["dict"].append([0, {"array": "/w"}]), "expected each array once, got none left for '/w'"),
        (lambda h: h["tree"]["dict"].append(["n", 1]), "expected each key once, got 'n' again"),
        (lambda h: h.update(tree={"list": "abc"}), "expected a dict, list, tuple, array or tensor, got 'list'"),
        (lambda h: h.update(tree={"dict": [[{"list": []}, 1]]}), "damaged: TypeError unhashable"),
        (lambda h: h.update(tree=[1]), "damaged: AttributeError"),
        (lambda h: h.update(tree={"array": ["/w"]}), "damaged: TypeError unhashable"),
        (lambda h: h.update(version=2), "of version 1, got a 'checkpoint' of version 2"),
        (lambda h: h.pop("tree") and None, "damaged: KeyError 'tree'"),
        (lambda h: "[" * 100_000, "whose header is damaged"),
        (lambda h: json.dumps(h)[:-5], "whose header is damaged"),
        (lambda h: json.dumps({**h, "tree": 0}).replace("0", '{"list": [' * 120 + "]}" * 120), "100 nested levels"),
        (lambda h: json.dumps(h).replace('["n", 1]', f'["n", {"9" * 5000}]'), "whose header is damaged"),
        (lambda h: "3", "names no kind"),
    ],
)  # fmt: skip
def test_headers_that_lie_are_refused(tmp_path, change, words):
    checkpoint.save(tmp_path / "x", {"w": np.ones(3), "n": 1})
    rewritten(tmp_path / "x", change)
    for read in (gl.load, lambda path: gl.load(path, gl.Linear(1, 1, **MADE))):
        with pytest.raises(FormatError, match=f"x: .*{words}"):
            read(tmp_path / "x")


@pytest.mark.parametrize("shape", [[1] * 70, [2**62, 0, 2**62], [2**64], [-1], [1.5], "1"])
def test_shapes_that_lie_are_refused(tmp_path, shape):
    told = json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(told)) + told + bytes(4))
    with pytest.raises(FormatError, match="x: "):
        gl.load(tmp_path / "x")


def damaged(data, rng):
    """The bytes with one of many kinds of damage."""
    kind, at = rng.randrange(6), rng.randrange(len(data))
    length = min(max(struct.unpack("<Q", data[:8])[0], 1), len(data) - 8)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data + bytes(rng.randrange(256) for _ in range(rng.randrange(1, 50)))
    if kind in (2, 3):
        at = at if kind == 2 else 8 + at % length
        return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
    if kind == 4:
        return struct.pack("<Q", rng.choice([0, 1, length - 1, length + 1, 2**62, 2**64 - 1])) + data[8:]
    other = 8 + rng.randrange(length)
    size = rng.randrange(1, 30)
    return data[:other] + data[8 + at % length :][:size] + data[other + size :]


def test_random_damage_is_refused_or_harmless(tmp_path):
    model = gl.Sequential(gl.Linear(2, 3, **MADE), gl.Linear(3, 1, **MADE))
    parts = {"model": model, "optimizer": gl.Adam(model.parameters()), "g": np.random.default_rng(0)}
    model(np.ones((1, 2), np.float32)).sum().backward()
    parts["optimizer"].step()
    gl.save(tmp_path / "x", {**parts, "n": [1, (2.5, "x")]})
    gl.save(tmp_path / "y", model)
    good = {name: (tmp_path / name).read_bytes() for name in "xy"}
    rng, refused = random.Random(7), 0
    tracemalloc.start()
    for k in range(300):
        name = "xy"[k % 2]
        (tmp_path / "bad").write_bytes(damaged(good[name], rng))
        try:
            gl.load(tmp_path / "bad", parts if name == "x" else model)
        except GpulstmError as error:
            refused += 1
            assert "bad: " in str(error)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused > 100 and peak < 20e6
    assert all(p.shape for p in model.parameters())


@pytest.mark.parametrize("unit", ["[],", '{"list":[]},', "{},", '{"":0},', '"ab",', "1e1,"])
def test_small_files_take_little_memory(tmp_path, unit):
    text = '{"kind":"checkpoint","version":1,"tree":{"list":[' + unit * (300_000 // len(unit)) + "0]}}"
    save_arrays(tmp_path / "x", {}, {"gpulstm": text})
    size = (tmp_path / "x").stat().st_size
    tracemalloc.start()
    with pytest.raises(FormatError) if unit in ("[],", "{},", '{"":0},') else pytest.MonkeyPatch.context():
        gl.load(tmp_path / "x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * size


def test_a_killed_write_leaves_the_old_file(tmp_path):
    code = (
        "import os, sys, signal, numpy as np, gpulstm as gl; "
        "os.fsync = lambda f: os.kill(os.getpid(), signal.SIGKILL); gl.save(sys.argv[1], {'n': 2, 'w': np.ones(9)})"
    )
    gl.save(tmp_path / "x", {"n": 1})
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "x"])
    assert done.returncode == -signal.SIGKILL and gl.load(tmp_path / "x") == {"n": 1}

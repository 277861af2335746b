"""Keras' files: layers with their weights give Keras' outputs, and no file is trusted."""

import io
import json
import random
import re
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import FormatError, ShapeError
from tests.conftest import require
from tests.tolerances import assert_close

FOLDER = Path(__file__).parent / "golden" / "keras"
FILES = ("layers.keras", "layers.weights.h5", "nested.keras")
keras = gl.io.keras


def outputs():
    """Inputs and outputs of Keras' layers by the name of the model and the layer."""
    with np.load(FOLDER / "outputs.npz", allow_pickle=False) as file:
        assert set(json.loads(str(file["made_by"]))) == {"keras", "torch", "h5py", "numpy"}
        return {name: file[name] for name in file.files if name != "made_by"}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru(x, state, suffix="", before=False):
    """A GRU over (B, T, D) from first principles, with gpulstm's names: conventions of PyTorch and Cho 2014."""
    weight, recurrent = state[f"weight_ih_l0{suffix}"], state[f"weight_hh_l0{suffix}"]
    zero = np.zeros(len(weight), weight.dtype)
    b_x, b_h = state.get(f"bias_ih_l0{suffix}", zero), state.get(f"bias_hh_l0{suffix}", zero)
    H = recurrent.shape[1]
    h, y = np.zeros((len(x), H), x.dtype), []
    for t in range(x.shape[1])[:: -1 if suffix else 1]:
        zx, zr = x[:, t] @ weight.T + b_x, h @ recurrent[: 2 * H].T + b_h[: 2 * H]
        r, z = sigmoid(zx[:, :H] + zr[:, :H]), sigmoid(zx[:, H : 2 * H] + zr[:, H:])
        U, b = recurrent[2 * H :], b_h[2 * H :]
        n = np.tanh(zx[:, 2 * H :] + ((r * h) @ U.T + b if before else r * (h @ U.T + b)))
        h = (1 - z) * n + z * h
        y.append(h)
    return np.stack(y[:: -1 if suffix else 1], axis=1)


def rnn(x, state):
    """A ReLU RNN over (B, T, D) from first principles."""
    h, y = np.zeros((len(x), state["weight_hh_l0"].shape[1]), x.dtype), []
    for t in range(x.shape[1]):
        z = x[:, t] @ state["weight_ih_l0"].T + state["bias_ih_l0"] + h @ state["weight_hh_l0"].T + state["bias_hh_l0"]
        h = np.maximum(z, 0)
        y.append(h)
    return np.stack(y, axis=1)


def run(layer, x, device):
    """A layer's output sequence in host memory."""
    y = layer(device.asarray(x))
    return device.to_numpy((y[0] if isinstance(y, tuple) else y).data)


# -- Keras' numbers ------------------------------------------------------------------------------------------

IN_A_ROW = (
    "symbols",
    "both",
    "narrow",
    "first",
    "second",
    "no_bias",
    "after",
    "before",
    "before_no_bias",
    "plain",
    "head",
)


@pytest.mark.parametrize("name", IN_A_ROW)
def test_layers_give_keras_outputs(device, name):
    want = outputs()
    place = IN_A_ROW.index(name)
    x = want["layers.x"] if place == 0 else want[f"layers.{IN_A_ROW[place - 1]}"]
    layer = keras.load(FOLDER / "layers.keras").layer(name, device=device.name)
    assert_close(run(layer, x, device), want[f"layers.{name}"], name)


def test_states_of_grus_and_rnns_give_keras_outputs():
    """The conversion alone, whatever layers there are."""
    file, want = keras.load(FOLDER / "layers.keras"), outputs()
    after = gru(want["layers.no_bias"], file.state_dict("after"))
    assert_close(after, want["layers.after"])
    assert_close(gru(want["layers.after"], file.state_dict("before"), before=True), want["layers.before"])
    got = gru(want["layers.before"], file.state_dict("before_no_bias"), before=True)
    assert_close(got, want["layers.before_no_bias"])
    assert_close(rnn(want["layers.before_no_bias"], file.state_dict("plain")), want["layers.plain"])
    state = keras.load(FOLDER / "nested.keras").state_dict("encoder/lstm_1")
    both = gru(want["nested.x"], state) + gru(want["nested.x"], state, "_reverse")
    assert_close(both, want["nested.encoder"])
    # What the comparisons would not forgive: r and z as Keras has them, biases swapped, reset in the other place.
    state = file.state_dict("after")
    r, z, n = np.split(state["weight_hh_l0"], 3)
    spoiled = {**state, "weight_hh_l0": np.concatenate([z, r, n])}
    swapped = {**state, "bias_ih_l0": state["bias_hh_l0"], "bias_hh_l0": state["bias_ih_l0"]}
    for wrong in (gru(want["layers.no_bias"], spoiled), gru(want["layers.no_bias"], swapped)):
        with pytest.raises(AssertionError):
            assert_close(wrong, want["layers.after"])
    with pytest.raises(AssertionError):
        assert_close(gru(want["layers.after"], file.state_dict("before")), want["layers.before"])


def test_two_layers_become_the_levels_of_one(device):
    want = outputs()
    stack = keras.load(FOLDER / "layers.keras").layer("first", "second", device=device.name)
    assert stack.num_layers == 2 and stack.batch_first
    assert_close(run(stack, want["layers.narrow"], device), want["layers.second"])


def test_both_kinds_of_files_hold_the_same_weights():
    whole, weights = keras.load(FOLDER / "layers.keras"), keras.load(FOLDER / "layers.weights.h5")
    assert list(whole.layers) == list(IN_A_ROW) and set(weights.layers) == set(IN_A_ROW)
    for name in IN_A_ROW:
        a, b = whole.state_dict(name), weights.state_dict(name)
        assert a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a), name
        assert whole.layers[name].kind == weights.layers[name].kind and not weights.layers[name].options
    assert whole.layers["first"].options["units"] == 4 and whole.layers["before"].options["reset_after"] is False
    both = weights.layer("both")
    assert both.bidirectional and both.weight_hh_l0.dtype == "float32"
    assert not both.bias_hh_l0.data.any() and both.bias_ih_l0_reverse.data.all()


def test_what_a_file_shows_of_itself():
    text = repr(keras.load(str(FOLDER / "nested.keras")))
    assert re.search(r"encoder/lstm_1: GRU forward/kernel \(3, 6\), .*backward/bias \(2, 6\)", text)
    assert "norm: LayerNormalization 0 (3,), 1 (3,)" in text and "input" not in text


def test_layers_that_gpulstm_has_not_are_refused():
    file = keras.load(FOLDER / "nested.keras")
    for names, message in (
        (("lstm",), "nested.keras, lstm: go_backwards: want False, got True"),
        (("hard",), "nested.keras, hard: recurrent_activation: want 'sigmoid', got 'hard_sigmoid'"),
        (("norm",), "layers/layer_normalization: want one of LSTM, GRU, .*, got LayerNormalization"),
        (("none",), "want one of the layers encoder/lstm_1, lstm, .*, got 'none'"),
        (("lstm", "cells/stacked_rnn_cells/gru_cell"), "go_backwards|want layers alike"),
    ):
        with pytest.raises(FormatError, match=message):
            file.layer(*names)
    assert file.state_dict("lstm").keys() == gl.LSTM(2, 2).state_dict().keys()
    assert file.layers["cells/stacked_rnn_cells/lstm_cell"].options["recurrent_activation"] == "sigmoid"
    layers = keras.load(FOLDER / "layers.keras")
    with pytest.raises(FormatError, match="want layers alike as levels of one, got after, before"):
        layers.layer("after", "before")
    with pytest.raises(FormatError, match="want recurrent layers as levels of one, got Dense"):
        layers.state_dict("first", "narrow")
    with pytest.raises(ShapeError, match=r"weight_ih_l1: want \(16, 4\), got \(12, 4\)|bias"):
        layers.layer("first", "no_bias")


def test_weights_of_a_living_keras_layer():
    rng = np.random.default_rng(0)
    kernel, recurrent, bias = rng.normal(size=(3, 8)), rng.normal(size=(2, 8)), rng.normal(size=8)
    state = keras.lstm(kernel, recurrent, bias)
    assert np.array_equal(state["weight_ih_l0"], kernel.T) and np.array_equal(state["weight_hh_l0"], recurrent.T)
    both = keras.bidirectional(state, keras.lstm(kernel, recurrent, bias + 1))
    gl.LSTM(3, 2, bidirectional=True, dtype="float64").load_state_dict(both)
    assert np.array_equal(both["bias_ih_l0_reverse"], bias + 1)
    assert keras.dense(kernel).keys() == {"weight"} and keras.simple_rnn(kernel[:, :2], recurrent[:, :2]).keys()
    for call, message in (
        (lambda: keras.lstm(kernel, recurrent[:, :6]), r"recurrent_kernel: want \(H, 4\*H\), got \(2, 6\)"),
        (lambda: keras.gru(kernel, recurrent[:, :6]), r"kernel: want \(inputs, 6\) = .*, got \(3, 8\)"),
        (lambda: keras.lstm(kernel, recurrent, bias[:6]), r"bias: want \(8,\)"),
        (lambda: keras.lstm(kernel, recurrent, np.ones((2, 8))), r"bias: want \(8,\)"),
        (lambda: keras.dense(kernel, bias[:3]), r"bias: want \(8,\) = \(units,\), got \(3,\)"),
        (lambda: keras.dense(bias), r"kernel: want \(inputs, units\)"),
        (lambda: keras.embedding(bias), r"embeddings: want \(ids, size\)"),
    ):
        with pytest.raises(ShapeError, match=message):
            call()


def test_keras_and_h5py_are_not_needed():
    code = (
        "import sys; sys.modules['h5py'] = sys.modules['keras'] = None; import gpulstm as gl;"
        "print(gl.io.keras.load(sys.argv[1]).layer('first'))"
    )
    done = subprocess.run([sys.executable, "-c", code, FOLDER / "layers.keras"], capture_output=True, text=True)
    assert done.stdout == "LSTM(3, 4, batch_first=True)\n", done.stderr


# -- the reader against h5py ---------------------------------------------------------------------------------


def written(path, build):
    """A file that h5py writes."""
    with require("h5py").File(path, "w") as file:
        build(file)
    return path


@pytest.mark.parametrize("name", FILES)
def test_h5py_reads_the_same(name):
    h5py = require("h5py")
    data = (FOLDER / name).read_bytes()
    data = zipfile.ZipFile(FOLDER / name).read("model.weights.h5") if name.endswith(".keras") else data
    groups, seen = gl.io.keras.hdf5.read_groups(io.BytesIO(data), len(data), name), []

    def compare(path, item):
        if isinstance(item, h5py.Dataset):
            group, _, own = path.rpartition("/")
            assert np.array_equal(groups[group].arrays[own], item[()]), path
            seen.append(path)
        else:
            assert groups[path].name == item.attrs.get("name"), path

    with h5py.File(io.BytesIO(data)) as file:
        file.visititems(compare)
    assert len(seen) == sum(len(group.arrays) for group in groups.values()) > 10


def test_every_element_type(tmp_path):
    kinds = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64"]
    rng = np.random.default_rng(0)
    arrays = {f"{kind}{order}": (rng.random((2, 3)) * 99).astype(f"{order}{np.dtype(kind).str[1:]}")
              for kind in kinds for order in "<>"}  # fmt: skip
    arrays |= {"bool": rng.random(5) > 0.5, "number": np.array(2.5), "nothing": np.zeros((0, 3), np.float32)}
    # More of them than one table of a group holds.
    arrays |= {f"many {n}": np.full(3, n) for n in range(500)}
    half = rng.random((2, 3)).astype(ml_dtypes.bfloat16)

    def build(file):
        for name, array in arrays.items():
            file[f"vars/{name}"] = array
        file["vars/half"] = half.view("V2")
        file["vars/half"].attrs["dtype"] = "bfloat16"
        file["vars"].attrs["name"] = "Wörter"
        file["vars"].attrs["fixed"] = np.bytes_(b"x")
        file["vars"].attrs["other"] = [1, 2, 3]

    path = written(tmp_path / "file.h5", build)
    with path.open("rb") as file:
        group = gl.io.keras.hdf5.read_groups(file, path.stat().st_size, "file")["vars"]
    assert group.name == "Wörter" and group.arrays.keys() == {*arrays, "half"}
    for name, want in {**arrays, "half": half}.items():
        got = group.arrays[name]
        assert got.dtype == want.dtype.newbyteorder("=") and np.array_equal(got, want), name
        assert got.flags.writeable, name


def test_files_of_keras_without_names(tmp_path):
    """Before version 3.7 layers go by their paths, and a configuration's names belong to no path."""

    def build(file):
        for place in (
            "lstm",
            "functional/layers/lstm_1",
            "bidirectional/forward_layer",
            "bidirectional/backward_layer",
        ):
            for n, shape in enumerate(((3, 8), (2, 8), (8,))):
                file[f"layers/{place}/cell/vars/{n}"] = np.full(shape, n, "f4")
        file["layers/embedding/vars/0"] = np.ones((5, 3))
        file["layers/dense/vars/0"] = np.ones((5, 3))
        file["layers/lstm/cell/seed_generator/vars/0"] = np.ones(2, "u4")
        file["optimizer/vars/1"] = np.ones((5, 3))
        file.create_group("vars")

    path = written(tmp_path / "old.weights.h5", build)
    layers = keras.load(path).layers
    kinds = {name: layer.kind for name, layer in layers.items()}
    assert kinds == {
        "bidirectional": "LSTM",
        "dense": "Dense",
        "embedding": "Embedding",
        "lstm_1": "LSTM",
        "lstm": "LSTM",
    }
    assert layers["bidirectional"].bidirectional and not layers["lstm"].bidirectional
    config = {"config": {"layers": [layer_config("lstm", activation="relu")]}}
    with_config(tmp_path / "old.keras", config, path.read_bytes())
    assert keras.load(tmp_path / "old.keras").layers["lstm"].options == {}


# -- files that are not to be trusted ------------------------------------------------------------------------


def layer_config(name, kind="LSTM", module="keras.layers", registered=None, **config):
    return {"class_name": kind, "module": module, "registered_name": registered, "config": {"name": name, **config}}


def with_config(path, config, weights, **more):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", config if isinstance(config, bytes) else json.dumps(config))
        file.writestr("model.weights.h5", weights)
        for name, data in more.items():
            file.writestr(name, data)


def refused(path, message):
    """The file is a FormatError that names it, and takes no memory that it does not fill."""
    size = path.stat().st_size
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=message) as raised:
            keras.load(path)
        assert str(path) in str(raised.value)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000 + 200 * size
    finally:
        tracemalloc.stop()


def hostile_groups(h5py, tmp_path):
    """What an HDF5 file may hold beside arrays in one piece, with the words it is refused with."""
    other = written(tmp_path / "other.h5", lambda file: file.__setitem__("0", np.ones(3)))
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(other, "0", (3,))
    endless = {"shape": (2**40,), "dtype": "f4"}

    def many_times(file):
        file["layers/vars/0"] = np.ones(10**4)
        for n in range(1, 9):
            file[f"layers/vars/{n}"] = file["layers/vars/0"]

    def circle(file):
        file.create_group("layers/vars")
        file["layers/vars/again"] = file["layers"]

    def links(kind):
        return lambda file: file.__setitem__("layers/vars/0", kind)

    return {
        "soft link": (links(h5py.SoftLink("/layers")), "want groups and arrays, got a link '0'"),
        "external link": (links(h5py.ExternalLink(str(other), "0")), "want messages of HDF5.s first version"),
        "virtual": (lambda f: f.create_virtual_dataset("layers/vars/0", layout), "got chunks or parts of other files"),
        "external": (
            lambda f: f.create_dataset("layers/vars/0", (9,), "u1", external=[(__file__, 0, 9)]),
            "with filters or in another file",
        ),
        "compressed": (
            lambda f: f.create_dataset("layers/vars/0", data=np.zeros(10**6), compression="gzip"),
            "with filters or in another file",
        ),
        "chunks": (lambda f: f.create_dataset("layers/vars/0", data=np.ones(9), chunks=(3,)), "got chunks or parts"),
        "never written": (lambda f: f.create_dataset("layers/vars/0", **endless), "want an array in bytes"),
        "objects": (
            lambda f: f.create_dataset("layers/vars/0", (1,), h5py.string_dtype()),
            "want an array of numbers",
        ),
        "references": (lambda f: f.create_dataset("layers/vars/0", (1,), h5py.ref_dtype), "want an array of numbers"),
        "records": (lambda f: f.create_dataset("layers/vars/0", (1,), "f4,i4"), "want an array of numbers"),
        "complex": (lambda f: f.create_dataset("layers/vars/0", (1,), "c8"), "want an array of numbers"),
        "opaque": (lambda f: f.create_dataset("layers/vars/0", data=np.zeros(2, "V2")), "want an array of numbers"),
        "null": (lambda f: f.create_dataset("layers/vars/0", data=h5py.Empty("f4")), "want an array of numbers"),
        "a type": (links(np.dtype("f4")), "want an array of numbers"),
        "empty and endless": (
            lambda f: f.create_dataset("layers/vars/0", (0, 2**40, 2**40), "f4"),
            "want a shape that the file holds",
        ),
        "many times": (many_times, "got parts that repeat themselves"),
        "circle": (circle, "at most 64 deep|got parts that repeat themselves"),
        "deep": (lambda f: f.create_group("/".join("g" * 70)), "want groups at most 64 deep"),
        "nothing": (lambda f: f.create_group("layers"), "want the weights of Keras 3, .*got none; save as .keras"),
    }


def test_hostile_hdf5_files(tmp_path):
    h5py = require("h5py")
    for name, (build, message) in hostile_groups(h5py, tmp_path).items():
        path = written(tmp_path / f"{name}.h5", build)
        refused(path, message)
        with_config(tmp_path / "whole.keras", {}, path.read_bytes())
        refused(tmp_path / "whole.keras", message)


def test_hdf5_files_that_contradict_themselves(tmp_path):
    path = tmp_path / "a.h5"

    def build(file):
        file["layers/dense/vars/0"] = np.ones((5, 2))
        file["layers/dense/vars/1"] = np.ones(7, bool)

    data = written(path, build).read_bytes()
    for old, new, message in (
        (struct.pack("<Q", 80), struct.pack("<Q", 72), r"'layers/dense/vars/0': want 80 bytes for \(5, 2\), got 72"),
        (
            b"0".ljust(8, b"\0") + b"1",
            b"0".ljust(8, b"\0") + b"0",
            "want each name once, got 'layers/dense/vars/0' twice",
        ),
    ):
        assert data.count(old) == 1
        path.write_bytes(data.replace(old, new))
        refused(path, message)
    path.write_bytes(data.replace(b"\1" * 7, b"\2" * 7))
    with path.open("rb") as file:
        groups = gl.io.keras.hdf5.read_groups(file, len(data), "file")
    assert groups["layers/dense/vars"].arrays["1"].view(np.uint8).tolist() == [1] * 7  # NumPy knows no third value


def test_newer_hdf5_formats_are_named(tmp_path):
    h5py = require("h5py")
    with h5py.File(tmp_path / "new.h5", "w", libver="latest") as file:
        file["layers/lstm/vars/0"] = np.ones(3)
    refused(
        tmp_path / "new.h5", "want HDF5's superblock 0 and numbers of 8 bytes, as Keras writes them, got superblock"
    )


def test_hostile_archives(tmp_path):
    weights, path = (FOLDER / "layers.weights.h5").read_bytes(), tmp_path / "a.keras"
    for config, message in (
        (b"{", "config.json: want JSON"),
        (b"\xff\xfe\xff", "config.json: want JSON"),
        (b"[" * 10**6, "config.json: want JSON"),
    ):
        with_config(path, config, weights)
        refused(path, message)
    with_config(path, {}, weights, **{"../../evil": b"x"})
    refused(path, "want names inside the archive, got '../../evil'")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", "{}")
    refused(path, "want a member model.weights.h5, as Keras 3 writes it")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.json", "{}")
        file.writestr("model.weights.h5", bytes(10**7))
    refused(path, "config.json: want bytes stored as they are, got them compressed")
    with_config(path, {}, b"not HDF5" * 100)
    refused(path, "a.keras, model.weights.h5: want an HDF5 file, got something else at byte 0")
    (tmp_path / "text").write_text("The quick brown fox" * 9)
    refused(tmp_path / "text", "want an HDF5 file, got something else at byte 0")
    (tmp_path / "text").write_bytes(b"")
    refused(tmp_path / "text", "want a superblock in bytes 0 to .*, got 0 bytes")
    with pytest.raises(FileNotFoundError):
        keras.load(tmp_path / "none")


def test_a_configuration_is_data_whatever_it_says(tmp_path):
    weights, path = (FOLDER / "layers.weights.h5").read_bytes(), tmp_path / "a.keras"
    deep = {"config": {"name": "x"}}
    for _ in range(400):
        deep = {"class_name": "RNN", "config": {"name": "x", "cell": deep, "layers": [deep]}}
        if len(json.dumps(deep)) > 10**5:
            break
    odd = [
        None,
        3,
        [],
        {},
        {"config": None},
        {"config": []},
        {"config": {"layers": 3}},
        {"config": {"layers": [0, None]}},
    ]
    odd += [
        {"config": {"layers": [{"config": {"name": 5}}, layer_config(None), layer_config("first", units=[1])]}},
        deep,
    ]
    for config in odd:
        with_config(path, config, weights)
        assert set(keras.load(path).layers) == set(IN_A_ROW)
    for spoiled, message in (
        (layer_config("first", "Lambda"), "got Lambda"),
        (layer_config("first", "LSTM", "mine.layers"), "got mine.layers.LSTM"),
        (layer_config("first", "LSTM", registered="my_package>LSTM"), "got keras.layers.LSTM"),
        (layer_config("first", "os.system", "os"), "got os.os.system"),
        (layer_config("first", activation={"class_name": "LeakyReLU"}), "activation: want 'tanh', got 'LeakyReLU'"),
        (layer_config("first", activation=["tanh"]), "activation: want 'tanh', got"),
    ):
        with_config(path, {"config": {"layers": [spoiled]}}, weights)
        with pytest.raises(FormatError, match=message):
            keras.load(path).layer("first")
    both = layer_config(
        "both",
        "Bidirectional",
        layer=layer_config("forward_both", activation="tanh"),
        backward_layer=layer_config("backward_both", activation="relu"),
        merge_mode="concat",
    )
    with_config(path, {"config": {"layers": [both]}}, weights)
    with pytest.raises(FormatError, match="want both directions alike, got another backward_activation"):
        keras.load(path).layer("both")


def test_arrays_that_fit_no_layer(tmp_path):
    shapes = {
        "three": [(3, 8), (2, 8), (8,), (8,)], "odd": [(3, 8), (3, 8)], "five": [(3, 10), (2, 10)], "deep": [(3, 4, 5)],
        "bias": [(3, 8), (2, 8), (7,)],
    }  # fmt: skip

    def build(file):
        for name, arrays in shapes.items():
            for n, shape in enumerate(arrays):
                file[f"layers/{name}/cell/vars/{n}"] = np.ones(shape)
        file["layers/whole/vars/0"] = np.ones((3, 4), int)
        file["layers/whole/vars/1"] = np.ones(4, int)
        for name, shape in (("0", (3, 8)), ("1", (2, 8)), ("2", (8,)), ("scale", (8,))):
            file[f"layers/more/cell/vars/{name}"] = np.ones(shape)
        file["layers/unknown/vars/0"] = np.ones((3, 4))

    file = keras.load(written(tmp_path / "file.h5", build))
    for name in (*shapes, "whole", "more", "unknown"):
        with pytest.raises(
            FormatError, match=f"layers/{name}: (want one of LSTM, .*, got a layer of another kind|bias: want)"
        ):
            file.state_dict(name)


def spoil(data, rng):
    """The bytes cut off, or a few of them changed, often near the beginning of a structure."""
    data = bytearray(data)
    if rng.random() < 0.1:
        return bytes(data[: rng.randrange(len(data))])
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = rng.randrange(len(data))
        if rng.random() < 0.5:
            place = max(0, data.find(rng.choice((b"TREE", b"SNOD", b"HEAP", b"GCOL", b"\1\0")), place)) + rng.randrange(
                32
            )
        data[place % len(data)] = rng.choice((rng.randrange(256), 0, 255, 1 << rng.randrange(8)))
    return bytes(data)


def test_spoiled_weights_give_a_format_error_or_arrays():
    data, rng, read = (FOLDER / "layers.weights.h5").read_bytes(), random.Random(4), 0
    for _ in range(600):
        spoiled = spoil(data, rng)
        try:
            gl.io.keras.hdf5.read_groups(io.BytesIO(spoiled), len(spoiled), "file")
            read += 1
        except FormatError:
            pass
    assert 50 < read < 550


def test_spoiled_archives_give_a_format_error_or_the_right_answer(tmp_path):
    data, rng, read = (FOLDER / "nested.keras").read_bytes(), random.Random(5), 0
    want = keras.load(FOLDER / "nested.keras").layers
    for _ in range(300):
        (tmp_path / "a.keras").write_bytes(spoil(data, rng))
        try:
            got = keras.load(tmp_path / "a.keras").layers
        except FormatError:
            continue
        read += 1
        assert got.keys() == want.keys() and all(
            np.array_equal(got[name].weights[key], array) for name in want for key, array in want[name].weights.items()
        )
    assert read < 290


def test_spoiled_configurations_give_a_format_error_or_layers(tmp_path):
    with zipfile.ZipFile(FOLDER / "nested.keras") as file:
        config, weights = file.read("config.json"), file.read("model.weights.h5")
    rng, read = random.Random(6), 0
    for _ in range(200):
        with_config(tmp_path / "a.keras", spoil(config, rng), weights)
        try:
            keras.load(tmp_path / "a.keras")
            read += 1
        except FormatError:
            pass
    assert 5 < read < 195


def test_sizes_that_the_file_has_not(tmp_path):
    """Every number of eight bytes in the file's structures, made too large, is met by a check or is no size."""

    def build(file):
        file["layers/dense/vars/0"] = np.ones((3, 2))

    data, found = written(tmp_path / "a.h5", build).read_bytes(), 0
    tracemalloc.start()
    for place in range(0, len(data) - 8, 8):
        for value in (2**40, 2**64 - 1):
            spoiled = data[:place] + struct.pack("<Q", value) + data[place + 8 :]
            try:
                gl.io.keras.hdf5.read_groups(io.BytesIO(spoiled), len(spoiled), "file")
            except FormatError:
                found += 1
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    assert found > 30

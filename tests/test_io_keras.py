"""Keras' files: layers with their weights give Keras' outputs, and no file is trusted."""

import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import FormatError, ShapeError
from tests.conftest import require
from tests.keras_files import layer_config, with_config, written
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
    assert all(layer.told for layer in whole.layers.values())
    with pytest.warns(UserWarning, match="both: the file holds no options .*assumed activation='tanh', go_backwards="):
        both = weights.layer("both")
    assert both.bidirectional and both.weight_hh_l0.dtype == "float32"
    assert not both.bias_hh_l0.data.any() and both.bias_ih_l0_reverse.data.all()


def test_what_a_file_shows_of_itself():
    text = repr(keras.load(str(FOLDER / "nested.keras")))
    assert re.search(r"encoder/lstm_1: GRU forward/kernel \(3, 6\), .*backward/bias \(2, 6\)", text)
    assert "norm: LayerNormalization gamma (3,), beta (3,)" in text and "input" not in text
    assert text.splitlines()[0].endswith("nested.keras of Keras 3.15.1")
    text = repr(keras.load(FOLDER / "layers.weights.h5"))
    assert "only weights; layer() takes the options, or assumes Keras' defaults" in text


def test_layers_that_gpulstm_has_not_are_refused():
    file = keras.load(FOLDER / "nested.keras")
    for names, message in (
        (("norm",), "layers/layer_normalization: expected one of LSTM, GRU, .*, got LayerNormalization"),
        (("none",), "expected one of the layers encoder/lstm_1, lstm, .*, got 'none'"),
        (("lstm", "cells/stacked_rnn_cells/gru_cell"), "bias_ih_l1|expected layers with the same options"),
    ):
        with pytest.raises(FormatError, match=message):
            file.layer(*names)
    assert file.state_dict("lstm").keys() == gl.LSTM(2, 2).state_dict().keys()
    assert file.layers["cells/stacked_rnn_cells/lstm_cell"].options["recurrent_activation"] == "sigmoid"
    layers = keras.load(FOLDER / "layers.keras")
    with pytest.raises(FormatError, match="expected layers with the same options to stack, got after, before"):
        layers.layer("after", "before")
    with pytest.raises(FormatError, match="expected recurrent layers to stack, got Dense"):
        layers.state_dict("first", "narrow")
    with pytest.raises(ShapeError, match=r"weight_ih_l1: expected \(16, 4\), got \(12, 4\)|bias"):
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
        (lambda: keras.lstm(kernel, recurrent[:, :6]), r"recurrent_kernel: expected \(H, 4\*H\), got \(2, 6\)"),
        (lambda: keras.gru(kernel, recurrent[:, :6]), r"kernel: expected \(inputs, 6\) = .*, got \(3, 8\)"),
        (lambda: keras.lstm(kernel, recurrent, bias[:6]), r"bias: expected \(8,\)"),
        (lambda: keras.lstm(kernel, recurrent, np.ones((2, 8))), r"bias: expected \(8,\)"),
        (lambda: keras.dense(kernel, bias[:3]), r"bias: expected \(8,\) = \(units,\), got \(3,\)"),
        (lambda: keras.dense(bias), r"kernel: expected \(inputs, units\)"),
        (lambda: keras.embedding(bias), r"embeddings: expected \(ids, size\)"),
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


@pytest.mark.parametrize("name", ["lstm", "hard"])
def test_layers_backwards_and_with_other_activations(device, name):
    want = outputs()
    x = want["nested.encoder" if name == "lstm" else "nested.lstm"]
    layer = keras.load(FOLDER / "nested.keras").layer(name, device=device.name)
    assert_close(run(layer, x, device), want[f"nested.{name}"], name)


@pytest.mark.parametrize("libver", ["earliest", "v108", "v110", "latest"])
@pytest.mark.parametrize("ordered", [False, True])
def test_every_version_of_the_format_reads_the_same(libver, ordered):
    """Newer ones keep links and attributes elsewhere: in the header, in heaps under trees, large ones apart."""
    h5py = require("h5py")
    data, counts = io.BytesIO(), (1, 3, 9, 40, 1500 if (libver, ordered) == ("latest", False) else 200)
    with h5py.File(data, "w", libver=libver, track_order=ordered) as file:
        for count in counts:
            group = file.create_group(f"group_{count}", track_order=ordered)
            for n in range(count):
                group[f"array_number_{n:05d}"] = np.full((3, n % 3), n, "f4")
        group = file.create_group("texts")
        group.attrs["one"] = "y" * 100_000
        group.attrs["list"] = [b"layer %d" % n for n in range(300)]
        group.attrs["loose"] = [f"layer {n}" for n in range(300)]
        for n in range(40):
            group.attrs[f"text {n}"] = np.bytes_("x" * (n * 700 if n < 30 else n))
        if libver != "earliest":
            group.attrs["large"] = np.bytes_("z" * 100_000)
    groups = gl.io.keras.hdf5.read_groups(data, len(data.getvalue()), "file")
    with h5py.File(data) as file:
        for count in counts:
            arrays = groups[f"group_{count}"].arrays
            assert len(arrays) == count
            assert all(np.array_equal(array, file[f"group_{count}/{key}"]) for key, array in arrays.items())
        attributes = file["texts"].attrs
        want = {key: value if isinstance(value, str) else value.tolist() for key, value in attributes.items()}
    assert groups["texts"].texts == json.loads(json.dumps(want, default=lambda text: text.decode()))
    assert len(groups["texts"].texts) == 43 + (libver != "earliest")


def test_files_of_keras_without_names(tmp_path):
    """Weights alone go by their paths; a whole model's names and options are those of the configuration, by class."""

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
    inside = layer_config("encoder", "Functional", layers=[layer_config("lstm", activation="relu")])
    config = {"config": {"layers": [inside, layer_config("mine", use_bias=False), layer_config("words", "Embedding")]}}
    with_config(tmp_path / "old.keras", config, path.read_bytes())
    layers = keras.load(tmp_path / "old.keras").layers
    assert list(layers)[:3] == ["encoder/lstm", "mine", "words"]
    assert layers["encoder/lstm"].path == "layers/functional/layers/lstm_1"
    assert layers["encoder/lstm"].options == {"activation": "relu"} and layers["mine"].told
    assert not layers["dense"].told and not layers["bidirectional"].told


def test_options_of_layers_that_have_none(tmp_path):
    """Keras' words for a recurrent layer, given for a Dense."""

    def build(f):
        f.create_group("layers/dense/vars").create_dataset("0", data=np.ones((3, 2), np.float32))
        f["layers/dense/vars"].create_dataset("1", data=np.ones(2, np.float32))

    file = gl.io.keras.load(written(tmp_path / "a.weights.h5", build))
    with pytest.raises(FormatError, match=r"dense: activation: expected none for Dense, got 'relu'"):
        file.layer("dense", activation="relu")

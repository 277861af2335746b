"""Files that every version of Keras wrote, and whole models out of them with Keras' outputs."""

import io
import json
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import FormatError
from tests.keras_files import hdf5, layer_config, legacy, with_config
from tests.tolerances import assert_close

ARCHIVE = Path(__file__).parent / "golden" / "keras" / "versions.zip"
keras = gl.io.keras


def written_files():
    """The names of the files in the archive."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        return sorted(name for name in archive.namelist() if not name.endswith(".npz"))


def unpacked(folder, name):
    """(path of a file of the archive, its input, Keras' output, Keras' version)."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        path = folder / Path(name).name
        path.write_bytes(archive.read(name))
        with np.load(io.BytesIO(archive.read(f"{name.rpartition('.')[0]}.npz")), allow_pickle=False) as arrays:
            return path, arrays["x"], arrays["y"], str(arrays["version"])


def test_the_archive_holds_every_generation():
    labels = {name.split("/")[0] for name in written_files()}
    want = {"keras-1.1.0", "keras-1.2.2", "keras-2.2.4", "keras-2.3.1", "tensorflow-1.15", "tensorflow-2.12"}
    assert labels == want | {"tensorflow-2.15", "keras-3.0", "keras-3.5", "keras-3.15"}


@pytest.mark.parametrize("name", written_files())
def test_models_give_keras_outputs(name, tmp_path):
    path, x, y, version = unpacked(tmp_path, name)
    file = keras.load(path)
    assert file.version == version
    model = file.model()
    assert_close(model(x).numpy(), y, name)
    # The comparison is not blind: a recurrent weight of the other sign is seen.
    recurrent = next(layer for layer in model.modules() if isinstance(layer, gl.Recurrent))
    recurrent.weight_hh_l0.data[...] *= -1
    with pytest.raises(AssertionError):
        assert_close(model(x).numpy(), y, name)


@pytest.mark.parametrize("name", ["keras-1.2.2/kinds.h5", "tensorflow-2.12/kinds.keras", "keras-3.15/masked.keras"])
def test_models_learn(name, tmp_path):
    path, x, y, _ = unpacked(tmp_path, name)
    model = keras.load(path).model()
    optimizer = gl.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = gl.mse(model(x), np.zeros_like(y))
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_models_show_their_layers_and_run_on_a_device(device, tmp_path):
    path, x, y, _ = unpacked(tmp_path, "keras-3.15/masked.keras")
    model = keras.load(path).model(device=device.name)
    assert_close(device.to_numpy(model(device.asarray(x)).data), y)
    assert "Dropout" not in repr(model) and "GRU(4" not in repr(model) and "GRU(2, 2, batch_first=True)" in repr(model)


def test_masks_given_are_those_that_padding_makes(tmp_path):
    path, x, y, _ = unpacked(tmp_path, "keras-3.15/masked.keras")
    model = keras.load(path).model()
    other = np.where(x == 0, 5, x)  # no padding to be seen
    assert_close(model(other, mask=x != 0).numpy(), y)
    assert_close(model(other, lengths=np.array([4, 2])).numpy(), y)
    with pytest.raises(AssertionError):
        assert_close(model(other).numpy(), y)


# -- the layouts ---------------------------------------------------------------------------------------------

RNG = np.random.default_rng(7)
KERNEL, RECURRENT, BIAS = (RNG.uniform(-0.7, 0.7, shape).astype("f4") for shape in ((3, 16), (4, 16), (16,)))
X = RNG.normal(size=(2, 6, 3)).astype("f4")
STEEP, FLAT = ("hard_sigmoid", 0.2, 0.5), ("hard_sigmoid", 1 / 6, 0.5)


def three(prefix, arrays=(KERNEL, RECURRENT, BIAS)):
    return {
        f"{prefix}/{name}:0": array for name, array in zip(("kernel", "recurrent_kernel", "bias"), arrays, strict=True)
    }


def lstm(gates="sigmoid", activation="tanh", arrays=(KERNEL, RECURRENT, BIAS)):
    """What a layer of gpulstm with these options gives."""
    layer = gl.GeneralLSTM(len(arrays[0]), 4, batch_first=True, activations=(gates, activation, activation))
    layer.load_state_dict(keras.lstm(*arrays))
    return layer(X)[0].numpy()


def quietly(file, *names, **options):
    """A layer of a file; a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return file.layer(*names, **options)


@pytest.mark.parametrize(
    ("version", "gates"), [("2.4.0", "sigmoid"), ("3.8.0", "sigmoid"), ("2.3.0-tf", "sigmoid"), ("2.1.6", STEEP)]
)
def test_weights_alone_say_what_is_assumed(tmp_path, version, gates):
    file = keras.load(legacy(tmp_path / "w.h5", version, {"lstm": three("lstm/lstm_cell")}, chunked=True))
    said = "sigmoid" if gates == "sigmoid" else "hard_sigmoid"
    want = (
        f"assumed activation='tanh', go_backwards=False, recurrent_activation='{said}', the defaults of Keras {version}"
    )
    with pytest.warns(UserWarning, match=re.escape(want)) as noted:
        layer = file.layer("lstm")
    assert Path(noted[0].filename).name == Path(__file__).name  # the line that asks for the layer
    assert_close(layer(X)[0].numpy(), lstm(gates))
    told = {"activation": "relu", "recurrent_activation": "hard_sigmoid", "go_backwards": True}
    layer = quietly(file, "lstm", **told)
    slope = FLAT if version == "3.8.0" else STEEP
    backwards = gl.GeneralLSTM(3, 4, batch_first=True, activations=(slope, "relu", "relu"))
    backwards.load_state_dict(keras.lstm(KERNEL, RECURRENT, BIAS))
    assert_close(layer(X)[0].numpy(), backwards(X[:, ::-1].copy())[0].numpy())


@pytest.mark.parametrize("version", ["2.2.4-tf", "", "unknown"])
def test_weights_of_a_version_with_two_defaults_are_refused(tmp_path, version):
    file = keras.load(legacy(tmp_path / "w.h5", version, {"lstm": three("lstm/lstm_cell")}))
    with pytest.raises(FormatError, match=r"has no single default; give layer\('lstm', recurrent_activation=\.\.\.\)"):
        file.layer("lstm", activation="tanh")
    options = {"activation": "tanh", "recurrent_activation": "sigmoid", "go_backwards": False}
    assert_close(quietly(file, "lstm", **options)(X)[0].numpy(), lstm())
    if version != "2.2.4-tf":
        with pytest.raises(FormatError, match="expected a known version of Keras, as hard_sigmoid depends on it"):
            file.layer("lstm", **{**options, "recurrent_activation": "hard_sigmoid"})
        layer = quietly(file, "lstm", **{**options, "recurrent_activation": FLAT})
        assert_close(layer(X)[0].numpy(), lstm(FLAT))


def test_weights_of_keras_1_tell_their_version_by_their_names(tmp_path):
    parts = {gate: (k, r, b) for gate, k, r, b in zip("ifco", *(np.split(a, 4, -1) for a in (KERNEL, RECURRENT, BIAS)),
                                                      strict=True)}  # fmt: skip
    arrays = {f"l_{name}_{gate}": array for gate in "icfo" for name, array in zip("WUb", parts[gate], strict=True)}
    file = keras.load(legacy(tmp_path / "w.h5", "", {"l": arrays}))
    with pytest.warns(UserWarning, match="recurrent_activation='hard_sigmoid', the defaults of Keras 1"):
        assert_close(file.layer("l")(X)[0].numpy(), lstm(STEEP))


def test_weights_alone_of_a_model_in_a_model(tmp_path):
    arrays = three("deep/lstm_cell") | three("both/forward_lstm/lstm_cell_1") | three("both/backward_lstm/lstm_cell_2")
    file = keras.load(legacy(tmp_path / "w.h5", "2.9.0", {"encoder": arrays, "drop": {}, "lstm": three("lstm")}))
    assert {name: layer.bidirectional for name, layer in file.layers.items()} == {
        "encoder/deep": False, "encoder/both/forward_lstm": True, "lstm": False,
    }  # fmt: skip


def test_weights_of_cudnn_layers(tmp_path):
    """Each gate's matrix is turned, an LSTM's bias stands there in two parts, a GRU's in one row."""

    def turned(kernel, recurrent, gates):
        parts = [part.reshape(part.shape[::-1], order="F").T for part in np.split(kernel, gates, 1)]
        return np.concatenate(
            [p.reshape(k.shape) for p, k in zip(parts, np.split(kernel, gates, 1), strict=True)], 1
        ), (np.concatenate([part.T for part in np.split(recurrent, gates, 1)], 1))

    kernel, recurrent = turned(KERNEL, RECURRENT, 4)
    assert not np.array_equal(kernel, KERNEL)
    arrays = three("lstm", (kernel, recurrent, np.concatenate([BIAS - 1, np.ones(16, "f4")])))
    two = RNG.uniform(-0.7, 0.7, (2, 12)).astype("f4")
    gates = turned(KERNEL[:, :12], RECURRENT[:, :12], 3)
    config = [{"class_name": f"CuDNN{kind.upper()}", "config": {"name": kind, "units": 4}} for kind in ("lstm", "gru")]
    layers = {"lstm": arrays, "gru": three("gru", (*gates, two.reshape(-1)))}
    file = keras.load(legacy(tmp_path / "w.h5", "2.2.4", layers, config))
    assert_close(quietly(file, "lstm")(X)[0].numpy(), lstm())
    gru = gl.GRU(3, 4, batch_first=True)
    gru.load_state_dict(keras.gru(KERNEL[:, :12], RECURRENT[:, :12], two))
    assert_close(quietly(file, "gru")(X)[0].numpy(), gru(X)[0].numpy())


def test_layers_of_a_model_in_a_model_are_found_by_name_or_place(tmp_path):
    one, two = three("one/lstm_cell"), three("two/lstm_cell_1", (-KERNEL[:1].repeat(4, 0), RECURRENT, BIAS))
    inside = [layer_config("one", units=4, trainable=False), layer_config("two", units=4, activation="relu")]
    encoder = {"class_name": "Sequential", "config": {"name": "encoder", "layers": inside}}
    for arrays in (
        {**two, **one},  # what is trained comes first
        {**{key.replace("two", "two_1"): array for key, array in two.items()},  # made for the second time
         **{key.replace("one", "one_1"): array for key, array in one.items()}},
    ):  # fmt: skip
        file = keras.load(legacy(tmp_path / "m.h5", "2.9.0", {"encoder": arrays}, [encoder]))
        assert list(file.layers) == ["encoder/one", "encoder/two"]
        assert file.layers["encoder/two"].options["activation"] == "relu"
        assert np.array_equal(file.layers["encoder/one"].weights["kernel"], KERNEL)
    mine = {"class_name": "Mine", "config": {"name": "mine"}}
    inside.append(mine)
    file = keras.load(legacy(tmp_path / "m.h5", "2.9.0", {"encoder": arrays}, [encoder]))
    with pytest.raises(FormatError, match=r"expected one of LSTM, GRU, .*got a layer of another kind"):
        file.layer("encoder")


def test_groups_written_on_windows(tmp_path):
    def build(file):
        for step in ("lstm", "lstm_1"):
            group = file.create_group(f"layers\\{step}\\cell/vars")
            for n, array in enumerate((KERNEL, RECURRENT, BIAS)):
                group[str(n)] = array
        file["metrics\\mean/vars/0"] = np.float32(1)

    layers = [layer_config("lstm_7", activation="relu"), layer_config("lstm", activation="softsign")]
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": layers}}
    with_config(tmp_path / "m.keras", config, hdf5(build))
    file = keras.load(tmp_path / "m.keras")
    assert list(file.layers) == ["lstm_7", "lstm"]
    assert file.version == "2.12 to 3.5"
    assert_close(quietly(file, "lstm_7")(X)[0].numpy(), lstm(activation="relu"))
    assert_close(quietly(file, "lstm")(X)[0].numpy(), lstm(activation="softsign"))
    assert_close(quietly(file, "layers/lstm_1")(X)[0].numpy(), lstm(activation="softsign"))
    with pytest.raises(FormatError, match=r"as hard_sigmoid depends on it, got 2\.12 to 3\.5; give"):
        file.layer("lstm", recurrent_activation="hard_sigmoid")


def test_layers_that_are_not_surely_their_own_are_refused(tmp_path):
    def build(file):
        for n, array in enumerate((KERNEL, RECURRENT, BIAS)):
            file[f"layers/lstm/cell/vars/{n}"] = array

    config = {"class_name": "Sequential", "config": {"name": "s", "layers": [layer_config("a"), layer_config("b")]}}
    with_config(tmp_path / "m.keras", config, hdf5(build))
    file = keras.load(tmp_path / "m.keras")
    with pytest.raises(
        FormatError, match=r"lstm: expected the layer in the file's configuration, got none .*activation="
    ):
        file.layer("lstm")
    with pytest.raises(FormatError, match="a: expected the layer's weights, got none that match for certain"):
        file.model()
    options = {"activation": "tanh", "recurrent_activation": "sigmoid", "go_backwards": False}
    assert_close(quietly(file, "lstm", **options)(X)[0].numpy(), lstm())


def test_directions_that_are_unlike(tmp_path):
    pair = three("b/forward_l/lstm_cell") | three("b/backward_l/lstm_cell", (KERNEL * 2, RECURRENT, BIAS))
    forward, backward = (
        layer_config("l", activation="relu"),
        layer_config("l", go_backwards=True, activation="softsign"),
    )
    both = layer_config("b", "Bidirectional", layer=forward, backward_layer=backward, merge_mode="sum")
    file = keras.load(legacy(tmp_path / "m.h5", "2.9.0", {"b": pair}, [both]))
    layer = quietly(file, "b")
    two = gl.GeneralLSTM(3, 4, batch_first=True, activations=("sigmoid", "softsign", "softsign"))
    two.load_state_dict(keras.lstm(KERNEL * 2, RECURRENT, BIAS))
    y, (h, c) = layer(X)
    later, (h_2, c_2) = two(X[:, ::-1].copy())
    assert_close(y.numpy(), lstm(activation="relu") + later.numpy()[:, ::-1])
    assert_close(h.numpy()[1:], h_2.numpy())
    assert_close(c.numpy()[1:], c_2.numpy())
    # From states that are given, with lengths: as one layer with both directions, where they are alike.
    alike = gl.LSTM(3, 4, batch_first=True, bidirectional=True)
    state = keras.bidirectional(keras.lstm(KERNEL, RECURRENT, BIAS), keras.lstm(KERNEL * 2, RECURRENT, BIAS))
    alike.load_state_dict(state)
    steps = gl.io.keras.build
    parts = [gl.LSTM(3, 4, batch_first=True) for _ in range(2)]
    for part, arrays in zip(parts, ((KERNEL, RECURRENT, BIAS), (KERNEL * 2, RECURRENT, BIAS)), strict=True):
        part.load_state_dict(keras.lstm(*arrays))
    made = steps.Directions(parts[0], steps.Backwards(parts[1]), "concat")
    states = tuple(RNG.normal(size=(2, 2, 4)).astype("f4") for _ in range(2))
    (want, last), (got, after) = alike(X, states, lengths=[6, 3]), made(X, states, lengths=[6, 3])
    for a, b in ((want, got), *zip(last, after, strict=True)):
        assert_close(b.numpy(), a.numpy())
    with pytest.raises(FormatError, match="same options in both directions for layers to stack, got b, b"):
        file.layer("b", "b")


@pytest.mark.parametrize(
    ("version", "reset"), [("2.1.0", "before"), ("2.3.1", "before"), ("2.3.0-tf", "after"), ("2.4.0", "after")]
)
def test_where_the_reset_comes_if_nothing_says_it(tmp_path, version, reset):
    arrays = dict(list(three("g", (KERNEL[:, :12], RECURRENT[:, :12], BIAS)).items())[:2])  # no bias to tell it
    config = {"class_name": "GRU", "config": {"name": "g", "recurrent_activation": "sigmoid"}}
    layer = keras.load(legacy(tmp_path / "m.h5", version, {"g": arrays}, [config])).layer("g")
    assert layer.reset == reset
    given = {"recurrent_activation": "sigmoid"}
    with pytest.warns(UserWarning, match=f"reset_after={reset == 'after'}"):
        assert keras.load(legacy(tmp_path / "w.h5", version, {"g": arrays})).layer("g", **given).reset == reset


# -- whole models --------------------------------------------------------------------------------------------


def functional(*layers, inputs=("in",), outputs=("out",)):
    """A configuration as Keras 2 has it: layers are (class, name, names of what they take, options)."""
    listed = [
        {"class_name": "InputLayer", "name": name, "config": {"name": name}, "inbound_nodes": []} for name in inputs
    ]
    for kind, name, takes, options in layers:
        nodes = [[[source, 0, 0, {}] for source in call] for call in takes]
        listed.append({"class_name": kind, "name": name, "config": {"name": name, **options}, "inbound_nodes": nodes})
    config = {"name": "m", "layers": listed, "output_layers": [[name, 0, 0] for name in outputs]}
    return {"class_name": "Functional", "config": config}


DENSE = {"out": {"out/kernel:0": np.ones((4, 2), "f4"), "out/bias:0": np.zeros(2, "f4")}}


def test_functional_models_in_a_row_and_others(tmp_path):
    lstm_layer, dense = ("LSTM", "l", [["in"]], {"units": 4}), ("Dense", "out", [["l"]], {"units": 2})
    weights = {"l": three("l"), **DENSE}
    model = keras.load(legacy(tmp_path / "m.h5", "2.9.0", weights, functional(dense, lstm_layer))).model()
    assert_close(model(X).numpy(), lstm()[:, -1] @ np.ones((4, 2), "f4"))
    two = ("Add", "add", [["l", "in"]], {})
    for config, message in (
        (
            functional(lstm_layer, two, ("Dense", "out", [["add"]], {})),
            "add: expected a layer used once, with one input",
        ),
        (functional(("LSTM", "l", [["in"], ["l"]], {}), dense), "l: expected a layer used once, with one input"),
        (functional(lstm_layer, dense, inputs=("in", "more")), "expected one input and a chain of layers"),
        (
            functional(lstm_layer, dense, ("Dense", "b", [["l"]], {})),
            "expected one input and a chain of layers, got branches",
        ),
        (functional(lstm_layer, dense, outputs=("l", "out")), "expected only the last layer's output, got l, out"),
        (functional(("LSTM", "l", [["x"]], {}), ("Dense", "x", [["l"]], {})), "expected only the last layer's output"),
        ({"class_name": "Mine", "module": "mine", "config": {"layers": []}}, "expected a Sequential .*got mine.Mine"),
    ):
        file = keras.load(legacy(tmp_path / "m.h5", "2.9.0", weights, config))
        with pytest.raises(FormatError, match=message):
            file.model()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (("Lambda", {}), r"extra: expected one of the layers Activation, .*TimeDistributed; got Lambda"),
        (("Conv1D", {}), r"extra: expected one of the layers .*; got Conv1D"),
        (("LSTM", {"units": 4}), "extra: expected the layer's weights, got none"),
        (("Dense", {}), "extra: expected the weights of a Dense, got none"),
        (("Activation", {"activation": "mish"}), "extra: activation: expected one of linear, .*softmax.*got 'mish'"),
        (("ReLU", {"max_value": 3.0}), "extra: max_value: expected None, got '3.0'"),
        (("Softmax", {"axis": 1}), "extra: axis: expected -1, got '1'"),
        (("Flatten", {"data_format": "channels_first"}), "extra: data_format: expected 'channels_last' or None"),
        (("RepeatVector", {"n": 2.5}), "extra: n: expected an integer above 0, got '2.5'"),
        (("RepeatVector", {"n": 10**12}), "extra: n: expected an integer above 0, got"),
        (("Reshape", {"target_shape": [None, 3]}), "extra: target_shape: expected integers"),
        (("Masking", {"mask_value": "zero"}), "extra: mask_value: expected a number, got 'zero'"),
        (("TimeDistributed", {}), "extra: expected TimeDistributed of a layer, got none"),
        (
            ("TimeDistributed", {"layer": {"class_name": "Lambda", "config": {"name": "f"}}}),
            "extra/f: expected .*got Lambda",
        ),
    ],
)
def test_layers_that_models_have_not_are_refused_by_name(tmp_path, layer, message):
    kind, options = layer
    listed = [layer_config("l", units=4), {"class_name": kind, "config": {"name": "extra", **options}}]
    file = keras.load(legacy(tmp_path / "m.h5", "2.9.0", {"l": three("l")}, listed))
    with pytest.raises(FormatError, match=f"m.h5, {message}"):
        file.model()


def test_what_both_directions_give_for_steps_that_do_not_count(tmp_path):
    """TensorFlow's Bidirectional gives 0, Keras before it repeats what each direction gave last, 0 at first."""
    pair = three("b/forward_l") | three("b/backward_l")
    both = layer_config("b", "Bidirectional", layer=layer_config("l", return_sequences=True), merge_mode="concat")
    mask = np.array([[0, 1, 1, 0, 1, 0]] * 2, bool)
    for version, repeats in (("2.9.0", False), ("2.3.1", True)):
        model = keras.load(legacy(tmp_path / "m.h5", version, {"b": pair}, [both])).model()
        y = model(X, mask=mask).numpy()
        forward, backward = y[..., :4], y[..., 4:]
        assert not forward[:, 0].any() and not backward[:, 5].any()
        for ended, last in (
            (forward[:, 3], forward[:, 2]),
            (forward[:, 5], forward[:, 4]),
            (backward[:, 3], backward[:, 4]),
        ):
            assert np.array_equal(ended, last if repeats else np.zeros_like(last)) and last.any()


def test_models_of_keras_1_in_lists(tmp_path):
    """A Sequential's configuration was the list of its layers; its name stood beside it."""
    inside = {"class_name": "Sequential", "name": "encoder", "config": [layer_config("l", return_sequences=True)]}
    config = functional(("Dense", "out", [["encoder"]], {}))
    config["config"]["layers"].append({**inside, "inbound_nodes": [[["in", 0, 0]]]})
    file = keras.load(legacy(tmp_path / "m.h5", "2.1.0", {"encoder": three("l"), **DENSE}, config))
    gates = ("hard_sigmoid", 0.2, 0.5)
    assert_close(file.model()(X).numpy(), lstm(gates) @ np.ones((4, 2), "f4"))
    whole = {"class_name": "Sequential", "config": [inside]}
    assert list(keras.load(legacy(tmp_path / "m.h5", "1.2.2", {"encoder": three("l")}, whole)).layers) == ["encoder/l"]


def test_weights_with_their_configuration_in_a_file_beside(tmp_path):
    path = legacy(tmp_path / "w.h5", "", {"l": three("l"), **DENSE})
    config = functional(("LSTM", "l", [["in"]], {"activation": "relu", "recurrent_activation": "hard_sigmoid"}),
                        ("Dense", "out", [["l"]], {}))  # fmt: skip
    for version, slope in (("2.2.4", STEEP), ("3.1.0", FLAT)):
        (tmp_path / "m.json").write_text(json.dumps({**config, "keras_version": version}))
        file = keras.load(path, config=tmp_path / "m.json")
        assert file.version == version
        assert_close(file.model()(X).numpy(), lstm(slope, "relu")[:, -1] @ np.ones((4, 2), "f4"))
    whole = legacy(tmp_path / "m.h5", "2.9.0", {"l": three("l")}, [layer_config("l")])
    (tmp_path / "m.keras").write_bytes(b"PK")
    for other in (whole, tmp_path / "m.keras"):
        with pytest.raises(FormatError, match=r"config: expected None, as .* has its own, got .*m\.json"):
            keras.load(other, config=tmp_path / "m.json")
    (tmp_path / "m.json").write_text("{")
    with pytest.raises(FormatError, match=r"m\.json: expected JSON"):
        keras.load(path, config=tmp_path / "m.json")


def test_models_that_a_row_of_layers_is_not(tmp_path):
    file = keras.load(legacy(tmp_path / "w.h5", "2.9.0", {"l": three("l")}))
    with pytest.raises(FormatError, match="expected a whole model, got only weights"):
        file.model()
    for option in ({"return_state": True}, {"time_major": True}):
        file = keras.load(legacy(tmp_path / "m.h5", "2.9.0", {"l": three("l")}, [layer_config("l", **option)]))
        with pytest.raises(FormatError, match=f"l: {next(iter(option))}: expected False or None, got 'True'"):
            file.model()
    file = keras.load(legacy(tmp_path / "m.h5", "2.9.0", {"l": three("l")}, [layer_config("l", stateful=True)]))
    with pytest.warns(UserWarning, match="l: stateful: this model starts every call from zero states"):
        assert_close(file.model()(X).numpy(), lstm()[:, -1])


def check_gradient(function, x, **static):
    """The pullback of a function of one array against central differences in float64."""
    y, pullback = function(x, **static)
    dy = RNG.normal(size=y.shape)
    (dx,) = pullback(dy)
    want = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[place] = 1e-6
        want[place] = ((function(x + step, **static)[0] - function(x - step, **static)[0]) * dy).sum() / 2e-6
    assert np.allclose(dx, want, atol=1e-7)
    assert not np.allclose(2 * dx, want, atol=1e-7)


def test_gradients_of_the_steps():
    steps, x = gl.io.keras.steps, RNG.normal(size=(2, 5, 3))
    mask = np.array([[0, 1, 0, 0, 1], [1, 1, 1, 0, 0]], bool)
    check_gradient(steps.held, x, mask=mask)
    assert np.array_equal(steps.held(x, mask=mask)[0][0, [0, 2, 3]], [np.zeros(3), x[0, 1], x[0, 1]])
    check_gradient(steps.maximum, x)

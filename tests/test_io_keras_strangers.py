"""Keras' files from strangers: whatever is in them, they give an error that names them or layers; no code runs."""

import io
import json
import random
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import FormatError, GpulstmError
from tests.conftest import require
from tests.keras_files import hdf5, layer_config, legacy, with_config, written
from tests.test_io_keras import FOLDER, IN_A_ROW

keras = gl.io.keras


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
        "soft link": (links(h5py.SoftLink("/layers")), "expected groups and arrays, got a link '0'"),
        "external link": (links(h5py.ExternalLink(str(other), "0")), "expected groups and arrays, got a link '0'"),
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
        "never written": (lambda f: f.create_dataset("layers/vars/0", **endless), "expected an array in bytes"),
        "objects": (
            lambda f: f.create_dataset("layers/vars/0", (1,), h5py.string_dtype()),
            "expected an array of numbers",
        ),
        "references": (
            lambda f: f.create_dataset("layers/vars/0", (1,), h5py.ref_dtype),
            "expected an array of numbers",
        ),
        "records": (lambda f: f.create_dataset("layers/vars/0", (1,), "f4,i4"), "expected an array of numbers"),
        "complex": (lambda f: f.create_dataset("layers/vars/0", (1,), "c8"), "expected an array of numbers"),
        "opaque": (lambda f: f.create_dataset("layers/vars/0", data=np.zeros(2, "V2")), "expected an array of numbers"),
        "null": (lambda f: f.create_dataset("layers/vars/0", data=h5py.Empty("f4")), "expected an array of numbers"),
        "a type": (links(np.dtype("f4")), "expected an array of numbers"),
        "empty and endless": (
            lambda f: f.create_dataset("layers/vars/0", (0, 2**40, 2**40), "f4"),
            "expected a shape that the file holds",
        ),
        "many times": (many_times, "got parts that repeat themselves"),
        "circle": (circle, "at most 64 deep|got parts that repeat themselves"),
        "deep": (lambda f: f.create_group("/".join("g" * 70)), "expected groups at most 64 deep"),
        "nothing": (lambda f: f.create_group("layers"), "expected the weights of Keras, .*got none"),
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
        (
            struct.pack("<Q", 80),
            struct.pack("<Q", 72),
            r"'layers/dense/vars/0': expected 80 bytes for \(5, 2\), got 72",
        ),
        (
            b"0".ljust(8, b"\0") + b"1",
            b"0".ljust(8, b"\0") + b"0",
            "expected each name once, got 'layers/dense/vars/0' twice",
        ),
    ):
        assert data.count(old) == 1
        path.write_bytes(data.replace(old, new))
        refused(path, message)
    path.write_bytes(data.replace(b"\1" * 7, b"\2" * 7))
    with path.open("rb") as file:
        groups = gl.io.keras.hdf5.read_groups(file, len(data), "file")
    assert groups["layers/dense/vars"].arrays["1"].view(np.uint8).tolist() == [1] * 7  # NumPy knows no third value


def test_hdf5_formats_to_come_are_named(tmp_path):
    data = written(tmp_path / "new.h5", lambda file: file.create_group("layers")).read_bytes()
    (tmp_path / "new.h5").write_bytes(data[:8] + b"\4" + data[9:])
    refused(tmp_path / "new.h5", "expected a superblock of version 0 to 3, got 4")


def test_hostile_archives(tmp_path):
    weights, path = (FOLDER / "layers.weights.h5").read_bytes(), tmp_path / "a.keras"
    for config, message in (
        (b"{", "config.json: expected JSON"),
        (b"\xff\xfe\xff", "config.json: expected JSON"),
        (b"[" * 10**4, "config.json: expected JSON"),
        (b"[" * 10**6, "config.json: expected at most .* bytes, and one bracket in ten bytes, got 1000000 with"),
    ):
        with_config(path, config, weights)
        refused(path, message)
    with_config(path, {}, weights, **{"../../evil": b"x"})
    refused(path, "expected names inside the archive, got '../../evil'")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", "{}")
    refused(path, "expected a member model.weights.h5, as Keras writes it")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.json", "{}")
        file.writestr("model.weights.h5", bytes(10**7))
    refused(path, "expected members of at most .* bytes, 8 times the file.s size, got 10000002")
    with_config(path, {}, b"not HDF5" * 100)
    refused(path, "a.keras, model.weights.h5: expected an HDF5 file, got something else at byte 0")
    (tmp_path / "text").write_text("The quick brown fox" * 9)
    refused(tmp_path / "text", "expected an HDF5 file, got something else at byte 0")
    (tmp_path / "text").write_bytes(b"")
    refused(tmp_path / "text", "expected a superblock in bytes 0 to .*, got 0 bytes")
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
        (
            layer_config("first", activation={"class_name": "Mine"}),
            "activation: expected one of tanh, .*an object Mine",
        ),
        (layer_config("first", activation=["tanh"]), "activation: expected one of tanh, sigmoid, .*got"),
        (layer_config("first", activation="selu"), "activation: expected one of tanh, sigmoid, .*got 'selu'"),
        (layer_config("first", go_backwards=1), "go_backwards: expected True or False, got 1"),
    ):
        with_config(path, {"config": {"layers": [spoiled]}}, weights)
        with pytest.raises(FormatError, match=message):
            keras.load(path).layer("first")
    both = layer_config(
        "both",
        "Bidirectional",
        layer=layer_config("forward_both", activation="tanh"),
        backward_layer=layer_config("backward_both", activation="relu", go_backwards=False),
        merge_mode="concat",
    )
    with_config(path, {"config": {"layers": [both]}}, weights)
    with pytest.raises(FormatError, match="expected both directions alike, got different go_backwards"):
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
            FormatError, match=f"layers/{name}: (expected one of LSTM, .*, got a layer of another kind|bias: expected)"
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


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_spoiled_files_of_the_first_layout(libver, tmp_path):
    """Whatever is changed: layers, or an error of gpulstm; the model and the layers after it too."""
    arrays = {f"encoder/{n}/{name}:0": np.ones(shape, "f4") for n in range(12)
              for name, shape in (("kernel", (3, 8)), ("recurrent_kernel", (2, 8)), ("bias", (8,)))}  # fmt: skip
    inside = [layer_config(str(n), units=2, recurrent_activation="hard_sigmoid") for n in range(12)]
    config = [layer_config("encoder", "Sequential", layers=inside)]
    path = legacy(tmp_path / "a.h5", "2.2.4", {"encoder": arrays}, config, libver=libver)
    data, rng, read = path.read_bytes(), random.Random(8), 0
    for _ in range(150):
        path.write_bytes(spoil(data, rng))
        try:
            file = keras.load(path)
            read += 1
            for name in file.layers:
                file.layer(name)
        except GpulstmError:
            pass
    assert 15 < read < 140


def test_memory_of_small_things(tmp_path):
    """What is short in a file and long in memory is refused, or takes at most 40 times the file."""
    weights, path = (FOLDER / "layers.weights.h5").read_bytes(), tmp_path / "a.keras"
    layers = ",".join(f'{{"config":{{"name":"{n}"}}}}' for n in range(12_000))
    texts = ["[" + ",".join([part] * 20_000) + "]" for part in ("{}", "[]", '{"":0}', "0.1", '"ab"')]
    for text in [*texts, '{"class_name":"Sequential","config":{"layers":[' + layers + "]}}"]:
        with_config(path, text.encode(), weights)
        size = path.stat().st_size
        tracemalloc.start()
        try:
            keras.load(path)
        except FormatError as error:
            assert "one bracket in ten bytes" in str(error)
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert taken < 40 * size, text[:20]

    def long_paths(file):
        group, other = file.create_group("/".join("n" * 1000 for _ in range(3))), file.create_group("other")
        for n in range(500):
            group[str(n)] = other

    def texts_again(file):
        text = np.array(["x" * 10_000] * 500, require("h5py").string_dtype())
        file.create_group("a").attrs["list"] = text
        many = file["a"].id
        for n in range(20):
            file[f"b{n}"] = require("h5py").Group(many)

    for build in (long_paths, texts_again):
        refused(written(tmp_path / "a.h5", build), "parts that repeat themselves|expected the weights of Keras")


def test_layers_of_the_first_layout_that_contradict_themselves(tmp_path):
    kernel = np.ones((3, 2), "f4")

    def build(change):
        def write(file):
            file.attrs["layer_names"] = [b"a"]
            group = file.create_group("a")
            group.attrs["weight_names"] = [b"a/kernel:0"]
            group["a/kernel:0"] = kernel
            change(file)

        return written(tmp_path / "a.h5", write)

    for change, message in (
        (lambda f: f.attrs.create("layer_names", [b"b"]), "expected a group 'b', as layer_names says, got none"),
        (lambda f: f.attrs.create("layer_names", [b"a", b"a"]), "expected each layer once, got 'a' twice"),
        (
            lambda f: f["a"].attrs.create("weight_names", [b"b"]),
            "expected an array 'a/b', as weight_names says, got none",
        ),
        (lambda f: f["a"].attrs.create("weight_names", [b"a/kernel:0"] * 2), "expected each array once"),
        (lambda f: f["a"].attrs.pop("weight_names"), "'a': expected an attribute weight_names, got none"),
        (lambda f: f["a"].attrs.create("weight_names", []), "expected layers with weights, got none"),
        (lambda f: f.attrs.create("model_config", b"{"), "model_config: expected JSON"),
    ):
        refused(build(change), message)
    norm = {"class_name": "BatchNormalization", "config": {"name": "n", "scale": False}}
    arrays = {f"n/{name}:0": np.ones(2, "f4") for name in ("gamma", "beta", "moving_mean", "moving_variance")}
    file = keras.load(legacy(tmp_path / "a.h5", "2.9.0", {"n": arrays}, [norm]))
    with pytest.raises(FormatError, match="n: expected the weights of a BatchNormalization, got none"):
        file.model()


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


def nested(kind, key, levels, inside):
    """A layer inside ``levels`` others, as text: the library's own writer would not go as deep."""
    start = json.dumps({"class_name": kind, "module": "keras.layers", "config": {"name": "n", key: "HERE"}})
    before, after = start.split('"HERE"')
    before, after = (before + "[", "]" + after) if key == "layers" else (before, after)
    whole = json.dumps({"class_name": "Sequential", "module": "keras", "config": {"name": "s", "layers": ["HERE"]}})
    return whole.replace('"HERE"', before * levels + json.dumps(inside) + after * levels).encode()


DEEP = {
    "models": ("Sequential", "layers", "expected models at most 64 deep"),
    "wrappers": ("TimeDistributed", "layer", "expected layers at most 64 deep"),
}


@pytest.mark.parametrize("name", DEEP)
def test_layers_too_deep(tmp_path, name):
    """None is left out in silence."""
    kind, key, message = DEEP[name]
    weights = hdf5(lambda f: f.create_dataset("layers/lstm/cell/vars/0", data=np.zeros((3, 4), np.float32)))
    inside = layer_config("inside", "Flatten")
    with_config(tmp_path / "a", nested(kind, key, 20, inside), weights)
    assert gl.io.keras.load(tmp_path / "a").model().layers
    with_config(tmp_path / "a", nested(kind, key, 300, inside), weights)
    with pytest.raises(FormatError, match=f"{tmp_path / 'a'}.*: {message}"):
        gl.io.keras.load(tmp_path / "a").model()


def test_numbers_that_no_float_holds(tmp_path):
    weights = hdf5(lambda f: f.create_dataset("layers/lstm/cell/vars/0", data=np.zeros((3, 4), np.float32)))
    for value in (10**400, -(10**400)):
        config = nested("Sequential", "layers", 1, layer_config("mask", "Masking", mask_value=value))
        with_config(tmp_path / "a", config, weights)
        with pytest.raises(FormatError, match=r"mask_value: expected a number, got '-?1000"):
            gl.io.keras.load(tmp_path / "a").model()

"""Where ONNX models come from: sizes held against memory, arrays in other files, files that are something else."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import DTypeError, FormatError
from gpulstm.io.onnx.wire import BASE, DEEPEST, FACTOR, LARGEST, check_parts
from tests.onnx_models import generator, helper, numpy_helper, onnx, stranger

pytestmark = pytest.mark.oracle


def number(value: int) -> bytes:
    """Seven bits a byte."""
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(place: int, content: bytes) -> bytes:
    """A field with a length."""
    return number(place << 3 | 2) + number(len(content)) + content


def graph(content: bytes) -> bytes:
    return field(7, content)


def node(content: bytes) -> bytes:
    return graph(field(1, content))


def attribute(content: bytes) -> bytes:
    return node(field(5, content))


def tensor(content: bytes) -> bytes:
    return graph(field(5, content))


MANY = 3000  # parts of two bytes
PARTS = {
    "nodes": graph(field(1, b"") * MANY),
    "initializers": graph(field(5, b"") * MANY),
    "sparse initializers": graph(field(15, b"") * MANY),
    "inputs": graph(field(11, b"") * MANY),
    "value infos": graph(field(13, b"") * MANY),
    "attributes": node(field(5, b"") * MANY),
    "names of inputs": node(field(1, b"") * MANY),
    "names of outputs": node(field(2, b"") * MANY),
    "texts": attribute(field(9, b"") * MANY),
    "tensors": attribute(field(10, b"") * MANY),
    "graphs": attribute(field(11, b"") * MANY),
    "inputs of graphs": attribute(field(6, field(11, b"") * MANY)),
    "types": graph(field(11, field(2, field(1, field(2, field(1, b"") * MANY))))),
    "packed sizes": tensor(field(1, b"\x01" * 2 * MANY)),
    "packed numbers": tensor(field(7, b"\x01" * 2 * MANY)),
    "versions": field(8, b"") * MANY,
    "functions": field(25, b"") * MANY,
    "metadata": field(14, b"") * MANY,
    "trainings": field(20, b"") * MANY,
}


@pytest.mark.parametrize("name", PARTS)
def test_a_file_of_many_empty_parts_is_refused_before_it_is_parsed(name, monkeypatch):
    check_parts(PARTS[name], "file", onnx.ModelProto)  # so few take no memory
    monkeypatch.setattr("gpulstm.io.onnx.wire.BASE", 1000)
    with pytest.raises(
        FormatError, match=f"file: expected parts in proportion to the file of {len(PARTS[name])} bytes"
    ):
        check_parts(PARTS[name], "file", onnx.ModelProto)


def test_fields_without_number_and_messages_without_end_are_refused(monkeypatch):
    monkeypatch.setattr("gpulstm.io.onnx.wire.MOST_FIELDS", 1000)
    check_parts(b"\x08\x01" * 1000, "file", onnx.ModelProto)
    with pytest.raises(FormatError, match="got too many"):
        check_parts(b"\x08\x01" * 1001, "file", onnx.ModelProto)
    deep = b""
    for _ in range(DEEPEST // 3):
        deep = field(1, field(5, field(6, deep)))
    check_parts(graph(deep), "file", onnx.ModelProto)
    with pytest.raises(FormatError, match="expected at most 100 messages inside each other"):
        check_parts(graph(field(1, field(5, field(6, deep)))), "file", onnx.ModelProto)


def test_large_arrays_and_ordinary_graphs_are_in_proportion(monkeypatch):
    monkeypatch.setattr("gpulstm.io.onnx.wire.BASE", 0)
    array = numpy_helper.from_array(np.zeros(1 << 20, np.float32), "zeros")
    listed = onnx.TensorProto(name="listed", data_type=10, dims=[1 << 18])
    listed.int32_data.extend([0x3C00] * (1 << 18))
    nodes = [
        helper.make_node("Unsqueeze", [f"/lstm/Slice_{n}_output_0"], [f"/lstm/Unsqueeze_{n}_output_0"],
                         f"/lstm/Unsqueeze_{n}", axes=[0])
        for n in range(3000)
    ]  # fmt: skip
    for made in (helper.make_graph([], "g", [], [], [array, listed]), helper.make_graph(nodes, "g", [], [])):
        data = helper.make_model(made).SerializeToString()
        check_parts(data, "file", onnx.ModelProto)
    assert BASE + FACTOR * 4_000_000 < 20 * 4_000_000 and LARGEST == 2**31 - 1


def test_bytes_that_are_no_protobuf_are_named():
    data = stranger().SerializeToString()
    check_parts(data + b"\x09" + bytes(8) + b"\x0d" + bytes(4) + b"\x08\xff\x01", "file", onnx.ModelProto)
    for damaged in (data[:-1], b"\x3b" + data, b"\xff" * 11 + data, b"\x08", b"\x3a\xff\xff", b"\x09\x00"):
        with pytest.raises(FormatError, match="file: not a whole ONNX file"):
            check_parts(damaged, "file", onnx.ModelProto)


def test_a_file_larger_than_protobuf_allows_is_not_read(tmp_path, monkeypatch):
    data = stranger().SerializeToString()
    (tmp_path / "model.onnx").write_bytes(data)
    monkeypatch.setattr("gpulstm.io.onnx.source.LARGEST", len(data))
    assert gl.io.onnx.load(tmp_path / "model.onnx").operators
    monkeypatch.setattr("gpulstm.io.onnx.source.LARGEST", len(data) - 1)
    with pytest.raises(FormatError, match=rf"model\.onnx: expected at most {len(data) - 1} bytes, got {len(data)}"):
        gl.io.onnx.load(tmp_path / "model.onnx")


def test_what_a_model_may_be_given_as(tmp_path):
    data = stranger().SerializeToString()
    for source in (data, bytearray(data), memoryview(data), stranger()):
        assert list(gl.io.onnx.load(source).operators) == ["layer"]
    (tmp_path / "model.onnx").write_bytes(data)
    assert gl.io.onnx.load(os.fspath(tmp_path / "model.onnx")).path == os.fspath(tmp_path / "model.onnx")
    with pytest.raises(DTypeError, match=r"source: expected a path, bytes or an onnx\.ModelProto, got dict"):
        gl.io.onnx.load({})
    with pytest.raises(FileNotFoundError):
        gl.io.onnx.load(tmp_path / "other.onnx")
    with pytest.raises(FormatError, match="expected a file, got a device or a pipe"):
        gl.io.onnx.load("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="expected a file, got a device or a pipe"):
        gl.io.onnx.load(tmp_path / "pipe")


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"3")
    return file.getvalue()


OTHERS = {
    "a file of torch.save; read it with gl.io.torch.load": zipped("a/data.pkl", "a/version"),
    "an HDF5 file, as Keras writes them; read it with gl.io.keras": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "a Keras file": zipped("config.json", "model.weights.h5"),
    "a web page, not the file itself; download the file again": b"<!DOCTYPE html>\n<html></html>",
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n",
    "a pickle of Python": pickle.dumps({"a": 1}),
    "an empty file": b"",
    "one in onnxruntime's own form": b"\x1c\0\0\0ORTM" + bytes(100),
}


@pytest.mark.parametrize("words", OTHERS)
def test_files_of_another_kind_are_named(tmp_path, words):
    (tmp_path / "model.onnx").write_bytes(OTHERS[words])
    with pytest.raises(FormatError, match=f"model.onnx: expected an ONNX model, got {words}"):
        gl.io.onnx.load(tmp_path / "model.onnx")


@pytest.mark.parametrize("form", ["json", "onnxtxt", "textproto"])
def test_models_as_text_are_named(tmp_path, form):
    onnx.save_model(stranger(), tmp_path / "model", format=form)
    for source in (tmp_path / "model", (tmp_path / "model").read_bytes()):
        with pytest.raises(FormatError, match=f"expected an ONNX model, got one as text; .*format='{form}'"):
            gl.io.onnx.load(source)


def test_a_damaged_model_is_not_taken_for_another_kind(tmp_path):
    data = stranger().SerializeToString()
    for damaged in (data[:-3], data + b"\x0b", b"\x08\x0a"):
        (tmp_path / "model.onnx").write_bytes(damaged)
        with pytest.raises(FormatError, match=r"not a whole ONNX file|got a file with no node"):
            gl.io.onnx.load(tmp_path / "model.onnx")


def external(folder, location: str = "model.onnx.data", name: str = "model.onnx"):
    """The path of a model whose arrays stand in another file."""
    model = stranger()
    onnx.save_model(model, folder / name, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    model = onnx.load(folder / name, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    (folder / name).write_bytes(model.SerializeToString())
    return folder / name


def test_arrays_in_other_files(tmp_path):
    want = gl.io.onnx.load(stranger()).operators["layer"]
    path = external(tmp_path)
    got = gl.io.onnx.load(path).operators["layer"]
    for name, array in want.weights[0].items():
        assert np.array_equal(got.weights[0][name], array), name
    assert np.array_equal(got.sequence_lens, want.sequence_lens)
    with pytest.raises(FormatError, match="expected the path of the model, as its arrays are in other files"):
        gl.io.onnx.load(path.read_bytes())
    (tmp_path / "inner").mkdir()
    (tmp_path / "model.onnx.data").rename(tmp_path / "inner" / "arrays")
    assert gl.io.onnx.load(external(tmp_path, "inner/arrays")).operators
    (tmp_path / "inner" / "arrays").write_bytes(b"short")
    with pytest.raises(FormatError, match="expected bytes 0 to 96 of 'inner/arrays', got a file of 5 bytes"):
        gl.io.onnx.load(tmp_path / "model.onnx")


def test_many_arrays_out_of_the_same_bytes_are_refused(tmp_path):
    path = external(tmp_path)
    model = onnx.load(path, load_external_data=False)
    (weights,) = (tensor for tensor in model.graph.initializer if tensor.name == "W")
    (tmp_path / "model.onnx.data").write_bytes(bytes(240))
    for number in range(6):
        model.graph.initializer.add().CopyFrom(weights)
        model.graph.initializer[-1].name = f"W{number}"
        model.graph.node.add().CopyFrom(model.graph.node[0])
        model.graph.node[-1].input[1:] = [f"W{number}", "small"]
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 8, 2), np.float32), "small"))
    del model.graph.node[0]
    for count, refused in ((5, False), (6, True)):
        part = onnx.ModelProto()
        part.CopyFrom(model)
        del part.graph.node[count:]
        path.write_bytes(part.SerializeToString())
        if refused:
            with pytest.raises(
                FormatError, match=r"expected each part of 'model\.onnx\.data' in one array, got it in many"
            ):
                gl.io.onnx.load(path)
        else:
            assert len(gl.io.onnx.load(path).operators) == 5


def test_links_inside_of_a_folder_of_downloads(tmp_path):
    """Hubs keep the files in one folder, and links to them in another."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir(), snapshot.mkdir()
    external(blobs)
    for name in ("model.onnx", "model.onnx.data"):
        (snapshot / name).symlink_to(blobs / name)
    assert gl.io.onnx.load(snapshot / "model.onnx").operators


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../secret", "inner/../../secret", "C:\\secret", "..\\secret", "", "a\0b"]
)
def test_no_file_outside_of_the_folder_is_read(tmp_path, location):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(10_000))
    with pytest.raises(FormatError, match="'W': expected a file in the model's folder, got a reference to"):
        gl.io.onnx.load(external(folder, location))


def test_no_link_out_of_the_folder_is_followed(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    path = external(folder, "link")
    (tmp_path / "secret").write_bytes((folder / "model.onnx.data").read_bytes())
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(FormatError, match="got a link out of it: 'link'"):
        gl.io.onnx.load(path)
    (folder / "link").unlink()
    with pytest.raises(FormatError, match=r"'W': expected the file 'link' beside the model, got .*No such file"):
        gl.io.onnx.load(path)
    (folder / "link").symlink_to("link")
    with pytest.raises(FormatError, match="'W': expected the file 'link' beside the model"):
        gl.io.onnx.load(path)
    (folder / "link").unlink()
    (folder / "link").mkdir()
    with pytest.raises(FormatError, match="'W': expected the file 'link' beside the model"):
        gl.io.onnx.load(path)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("offset", "-1", "expected offset as a number, got '-1'"),
        ("offset", "x", "expected offset as a number, got 'x'"),
        ("offset", "9" * 19, "expected bytes 9"),
        ("length", "95", "expected 96 bytes for .1, 8, 3., got 95"),
    ],
)
def test_places_in_other_files_are_held_against_them(tmp_path, key, value, words):
    path = external(tmp_path)
    model = onnx.load(path, load_external_data=False)
    (weights,) = (tensor for tensor in model.graph.initializer if tensor.name == "W")
    entries = [entry for entry in weights.external_data if entry.key == key] or [weights.external_data.add(key=key)]
    entries[0].value = value
    path.write_bytes(model.SerializeToString())
    with pytest.raises(FormatError, match=words):
        gl.io.onnx.load(path)


def test_no_other_error_than_format_error_whatever_the_bytes():
    """A graph with a branch, a function and weights behind nodes; single bytes, cuts and swapped parts."""
    data, rng = everything().SerializeToString(), generator()
    assert len(gl.io.onnx.load(data).operators) == 3
    refused = 0
    for _ in range(600):
        damaged = bytearray(data[: int(rng.integers(1, len(data) + 1))] if rng.random() < 0.2 else data)
        for place in rng.integers(0, len(damaged), int(rng.integers(1, 4))):
            damaged[place] = int(rng.integers(0, 256))
        if rng.random() < 0.2:
            first, second = sorted(int(place) for place in rng.integers(0, len(damaged), 2))
            damaged[first:first] = damaged[first:second]
        try:
            gl.io.onnx.load(bytes(damaged))
        except FormatError:
            refused += 1
    assert 200 < refused < 600


def everything():
    """A model with an operator in the graph, one in a branch, and one in a function."""
    model = stranger()
    W = numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == "W"))
    inner = [
        helper.make_node("Constant", [], ["flat"], value=numpy_helper.from_array(W[0].T)),
        helper.make_node("Transpose", ["flat"], ["straight"], perm=[1, 0]),
        helper.make_node("Slice", ["straight", "zero", "eight"], ["cut"]),
        helper.make_node("Unsqueeze", ["cut", "zero"], ["weights"]),
        helper.make_node("LSTM", ["X", "weights", "R"], ["Z"], name="inner", hidden_size=2),
    ]
    for name, value in (("zero", 0), ("eight", 8)):
        model.graph.initializer.append(numpy_helper.from_array(np.array([value]), name))
    body = helper.make_graph(inner, "body", [], [helper.make_tensor_value_info("Z", 1, ["t", 1, "b", 2])])
    model.graph.node.append(helper.make_node("If", ["c"], ["V"], name="if", then_branch=body))
    own = [helper.make_node("LSTM", ["x", "w", "r"], ["y"], name="lstm")]
    imports = [helper.make_opsetid("", 22)]
    model.functions.append(helper.make_function("mine", "Own", ["x", "w", "r"], ["y"], own, imports))
    model.graph.node.append(helper.make_node("Own", ["X", "W", "R"], ["U"], name="call", domain="mine"))
    return model

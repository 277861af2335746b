"""What a file is, told by its beginning."""

import pickle
import zipfile

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import FormatError
from gpulstm.io.sniff import kind_of

HEADS = {
    b"": "an empty file",
    pickle.dumps({"a": 1}): "a pickle of Python, as pickle.dump and joblib.dump write them; in the program that wrote",
    b"\x89HDF\r\n\x1a\n\0\0": "an HDF5 file, as Keras writes them; read it with gl.io.keras.load",
    b"\x93NUMPY\1\0": "an array of numpy.save; read it with numpy.load",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:": "a pointer of Git LFS, not the file itself; fetch it",
    b"\n<!DOCTYPE html>\n<html>": "a web page, not the file itself; download the file again",
    b"\x1f\x8b\x08\0": "a file compressed with gzip; unpack it first",
    b"\x08\x08\x12\x07pytorch": "an ONNX model; read it with gl.io.onnx.load",
    b"\x08\x08:\x80\x89": "an ONNX model; read it with gl.io.onnx.load",
    b"\x08\x01\x12\x99": "a SavedModel of TensorFlow; in Keras: model.save",
    b"\x1c\0\0\0TFL3": "a TensorFlow Lite model",
    b'{"class_name": "Sequential"}': "a text file, perhaps JSON",
    b"sys_info".ljust(257, b"\0") + b"ustar\0": "a tar archive of PyTorch 0.1; in PyTorch: load it with torch.load",
    b"model.pt".ljust(257, b"\0") + b"ustar\0": "a tar archive; unpack it first",
    b"PK\3\4 and no end": "a damaged zip archive; copy or download it again",
    b"\x08": "bytes of an unknown format, which begin with b'\\x08'",
    b"\x80": "bytes of an unknown format, which begin with b'\\x80'",
    b"The quick brown fox": "bytes of an unknown format, which begin with b'The quick brown '",
}
MEMBERS = {
    ("a/data.pkl", "a/constants.pkl", "a/code/x.py"): "a TorchScript program; in PyTorch: torch.save",
    ("a/data.pkl", "a/data/0"): "a file of torch.save; read it with gl.io.torch.load",
    ("a/.data/extern_modules", "a/models/m.pkl"): "an archive of torch.package",
    ("m/archive_format", "m/models/model.json"): "a program of torch.export",
    ("config.json", "model.weights.h5", "metadata.json"): "a Keras file; read it with gl.io.keras.load",
    ("a.txt",): "a zip archive of something else",
}


@pytest.mark.parametrize("head", HEADS, ids=lambda head: HEADS[head][:30])
def test_beginnings(tmp_path, head):
    (tmp_path / "file").write_bytes(head)
    assert str(kind_of(tmp_path / "file")).startswith(HEADS[head])
    with pytest.raises(FormatError) as raised:
        gl.io.torch.load(tmp_path / "file")
    assert str(raised.value).startswith(f"{tmp_path / 'file'}: expected a file of torch.save, got {HEADS[head]}")


@pytest.mark.parametrize("names", MEMBERS, ids=lambda names: MEMBERS[names][:30])
def test_archives(tmp_path, names):
    with zipfile.ZipFile(tmp_path / "file", "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    assert str(kind_of(tmp_path / "file")).startswith(MEMBERS[names])


def test_files_of_this_library_and_of_numpy(tmp_path):
    gl.io.save_arrays(tmp_path / "a", {"x": np.ones(2)})
    assert str(kind_of(tmp_path / "a")) == "a safetensors file; read it with gl.io.load_arrays(path)"
    gl.io.torch.save(tmp_path / "b", {"x": np.ones(2)})
    assert str(kind_of(tmp_path / "b")) == "a file of torch.save; read it with gl.io.torch.load(path)"
    with (tmp_path / "c").open("wb") as file:
        np.savez(file, x=np.ones(2))
    assert str(kind_of(tmp_path / "c")) == "arrays of numpy.savez; read it with numpy.load(path)"

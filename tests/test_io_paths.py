"""Where a path is wanted: other things are refused by name, and no file is made of them."""

import io
import os
from pathlib import Path

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import DTypeError, FormatError
from gpulstm.io.sniff import kind_of

LAYER = gl.Linear(2, 3)
ARRAYS = {"a": np.ones(2)}
CALLS = {
    "gl.save": lambda path: gl.save(path, LAYER),
    "gl.load": gl.load,
    "save_arrays": lambda path: gl.io.save_arrays(path, ARRAYS),
    "load_arrays": gl.io.load_arrays,
    "torch.save": lambda path: gl.io.torch.save(path, ARRAYS),
    "torch.load": gl.io.torch.load,
    "keras.load": gl.io.keras.load,
    "atomic_write": lambda path: gl.io.atomic_write(path, lambda file: file.write(b"x")),
    "check_writable": gl.io.check_writable,
    "kind_of": kind_of,
}


class OfBytes(os.PathLike):
    def __fspath__(self):
        return b"file"


OTHERS = [None, 3, 1.5, True, b"file", ["file"], np.ones(2), LAYER, Path, OfBytes()]


@pytest.mark.parametrize("name", CALLS)
def test_what_is_no_path(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for other in OTHERS:
        with pytest.raises(DTypeError, match=f"path: expected a string or a pathlib.Path, got {type(other).__name__}$"):
            CALLS[name](other)
    for file in (io.BytesIO(b"abc"), io.StringIO("abc")):
        with pytest.raises(
            DTypeError, match=r"got (Bytes|String)IO; give the name of a file on disk, not an open file"
        ):
            CALLS[name](file)
    with pytest.raises(FormatError, match=r"path: expected a string without null characters, got 'a\\x00b'"):
        CALLS[name]("a\0b")
    assert not list(tmp_path.iterdir())


def test_paths_of_onnx(tmp_path):
    pytest.importorskip("onnx", reason="onnx is not installed")
    with pytest.raises(DTypeError, match=r"path: expected a string or a pathlib.Path, got Linear; the path comes"):
        gl.io.onnx.save(LAYER, tmp_path / "a")
    with pytest.raises(DTypeError, match=r"path: .* got BytesIO; give the name"):
        gl.io.onnx.save(io.BytesIO(), LAYER)
    with pytest.raises(DTypeError, match=r"source: .* got BytesIO; give the result of its read"):
        gl.io.onnx.load(io.BytesIO())
    with pytest.raises(FormatError, match=r"source: expected a string without null"):
        gl.io.onnx.load("a\0b")


def test_arguments_in_the_wrong_order(tmp_path):
    for call in (gl.io.torch.save, gl.io.save_arrays):
        with pytest.raises(
            DTypeError, match=r"path: expected a string or a pathlib.Path, got dict; the path comes first"
        ):
            call(ARRAYS, tmp_path / "a")


def test_the_configuration_beside_weights(tmp_path):
    gl.io.torch.save(tmp_path / "a", ARRAYS)
    with pytest.raises(DTypeError, match=r"config: expected a string or a pathlib.Path, got dict"):
        gl.io.keras.load(tmp_path / "a", config={"layers": []})

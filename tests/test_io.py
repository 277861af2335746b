"""Files: what is written comes back with the same bits, a failed write harms nothing, no file is trusted."""

import errno
import json
import os
import pickle
import stat
import struct
import subprocess
import sys
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import DTypeError, FileExists, FormatError
from gpulstm.io import atomic_write, check_writable, files, load_arrays, save_arrays

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
INTEGERS = ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]
DTYPES = [*INTEGERS, "float16", BFLOAT16, "float32", "float64"]


def some_arrays():
    rng = np.random.default_rng(0)
    arrays = {f"x/{np.dtype(kind).name}": (rng.random((3, 5)) * 99).astype(kind) for kind in DTYPES}
    arrays |= {"number": np.array(2.5), "nothing": np.zeros((0, 3), np.float32), "ein Name mit ü": np.ones(1)}
    return arrays


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def assert_same(got, want):
    assert got.keys() == want.keys()
    for name, array in want.items():
        assert got[name].dtype == array.dtype and got[name].shape == array.shape, name
        assert got[name].tobytes() == array.tobytes(), name


# -- there and back ------------------------------------------------------------------------------------------


def test_there_and_back(device, tmp_path):
    arrays = some_arrays()
    metadata = {"vocabulary": json.dumps(["a", "ü", '"', "\n"]), "": "", "empty": ""}
    save_arrays(tmp_path / "file", {name: device.xp.asarray(array) for name, array in arrays.items()}, metadata)
    got, texts = load_arrays(tmp_path / "file")
    assert_same(got, arrays)
    assert texts == metadata
    assert all(array.flags.writeable for array in got.values())
    assert names(tmp_path) == ["file"]


def test_arrays_need_not_be_contiguous_nor_of_the_machines_byte_order(device, tmp_path):
    x = np.arange(24.0).reshape(4, 6)
    given = device.asarray(x)
    save_arrays(tmp_path / "file", {"turned": given.T, "some": given[::2, 1::2]})
    assert_same(load_arrays(tmp_path / "file")[0], {"turned": x.T, "some": x[::2, 1::2]})
    save_arrays(tmp_path / "file", {"x": x.astype(">f4")})
    assert_same(load_arrays(tmp_path / "file")[0], {"x": x.astype("<f4")})


def test_no_arrays_and_no_texts(tmp_path):
    save_arrays(str(tmp_path / "file"), {})
    assert load_arrays(str(tmp_path / "file")) == ({}, {})


def test_the_safetensors_library_reads_what_is_written(tmp_path):
    from safetensors.numpy import load_file

    arrays = some_arrays()
    save_arrays(tmp_path / "file", arrays)
    assert_same(load_file(tmp_path / "file"), arrays)


def test_bfloat16_is_read_by_a_fresh_process(tmp_path):
    """NumPy knows the type only once ml_dtypes is imported; without the package the message says so."""
    save_arrays(tmp_path / "file", {"w": np.ones(1), "x": np.ones(2, BFLOAT16)})
    code = "import sys; {} from gpulstm.io import load_arrays; print(load_arrays(sys.argv[1])[0]['x'].dtype)"
    run = [sys.executable, "-c", code.format(""), tmp_path / "file"]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "bfloat16\n"
    run[2] = code.format("sys.modules['ml_dtypes'] = None;")
    printed = subprocess.run(run, capture_output=True, text=True).stderr
    assert "DTypeError: dtype 'bfloat16' needs the package ml_dtypes" in printed


def test_what_cannot_be_saved(tmp_path):
    for array, kind in (
        (np.array([None]), "object"),
        (np.array(["a"]), "str"),
        (np.ones(1, complex), "complex128"),
    ):
        with pytest.raises(DTypeError, match=f"x: expected one of .*, got {kind}"):
            save_arrays(tmp_path / "file", {"x": array})
    with pytest.raises(DTypeError, match="x: expected a NumPy or CuPy array, got list"):
        save_arrays(tmp_path / "file", {"x": [1.0]})
    with pytest.raises(FormatError, match="__metadata__"):
        save_arrays(tmp_path / "file", {"__metadata__": np.ones(1)})
    assert names(tmp_path) == []


# -- writing whole or not at all -----------------------------------------------------------------------------


class Breaks(Exception):
    pass


def failing(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def break_at(monkeypatch, where):
    """Make one step of an atomic write fail; return the function that writes."""
    if where == "write":
        return lambda file: (file.write(b"half"), failing())
    if where == "close":
        # What a full disk does to bytes still in the buffer: the error comes with the flush.
        monkeypatch.setattr("gpulstm.io.files.os.fsync", failing)
    elif where == "replace":
        monkeypatch.setattr(os, "replace", failing)
        monkeypatch.setattr(os, "rename", failing)
    return lambda file: file.write(b"new")


@pytest.mark.parametrize("where", ["write", "close", "replace"])
@pytest.mark.parametrize("old", [b"old", None])
def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch, where, old):
    target = tmp_path / "file"
    if old is not None:
        target.write_bytes(old)
    before = names(tmp_path)
    write = break_at(monkeypatch, where)
    with pytest.raises(OSError, match=f"{target} cannot be written: No space left on device") as raised:
        atomic_write(target, write)
    assert raised.value.errno == errno.ENOSPC
    assert names(tmp_path) == before
    assert old is None or target.read_bytes() == old


@pytest.mark.parametrize("error", [Breaks, KeyboardInterrupt])
def test_any_error_passes_and_leaves_nothing(tmp_path, error):
    def write(file):
        file.write(b"half")
        raise error

    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(error):
        atomic_write(tmp_path / "file", write)
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_bytes() == b"old"


def test_bytes_reach_the_disk_before_the_name(tmp_path, monkeypatch):
    order, replace, fsync = [], os.replace, os.fsync

    def watched_fsync(descriptor):
        order.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        if order[-1] == "file":
            assert os.fstat(descriptor).st_size == 3
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", lambda *names: (order.append("replace"), replace(*names)))
    atomic_write(tmp_path / "file", lambda file: file.write(b"new"))
    assert order == ["file", "replace", "folder"]
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_killed_write_leaves_the_old_file(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    code = (
        "import os, sys; from gpulstm.io import atomic_write\n"
        "write = lambda file: (file.write(b'x' * 9**6), file.flush(), os.kill(os.getpid(), 9))\n"
        "atomic_write(sys.argv[1], write)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "file"])
    assert done.returncode == -9
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "file")
    atomic_write(tmp_path / "link", lambda file: file.write(b"new"))
    assert (tmp_path / "link").is_symlink() and (tmp_path / "folder" / "file").read_bytes() == b"new"
    assert names(tmp_path) == ["folder", "link"] and names(tmp_path / "folder") == ["file"]


def test_the_file_has_the_usual_permissions(tmp_path):
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "file", lambda file: file.write(b""))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_longest_names(tmp_path):
    name = "x" * 255
    atomic_write(tmp_path / name, lambda file: file.write(b"new"))
    assert names(tmp_path) == [name]


# -- found before a long job ---------------------------------------------------------------------------------


def test_a_writable_target_is_left_as_it_is(tmp_path):
    check_writable(tmp_path / "file")
    assert names(tmp_path) == []
    (tmp_path / "file").write_bytes(b"old")
    check_writable(str(tmp_path / "file"))
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_bytes() == b"old"


@pytest.mark.parametrize("job", [check_writable, lambda path: save_arrays(path, {})])
def test_targets_that_cannot_be_written(tmp_path, monkeypatch, job):
    (tmp_path / "file").write_bytes(b"old")
    for target, kind, reason in (
        (tmp_path, IsADirectoryError, "it is a folder"),
        (tmp_path / "none" / "file", FileNotFoundError, "No such file or directory"),
        (tmp_path / "file" / "file", NotADirectoryError, "Not a directory"),
        (tmp_path / ("x" * 256), OSError, "File name too long"),
    ):
        with pytest.raises(kind, match=f"{target} cannot be written: {reason}"):
            job(target)
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("job", [check_writable, lambda path: save_arrays(path, {})])
def test_a_folder_that_is_read_only(tmp_path, monkeypatch, job):
    if os.geteuid() == 0:  # root may write anywhere: the system's answer to others is put in its place

        def refuse(*args):
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr("pathlib.Path.open", refuse)
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(PermissionError, match="file cannot be written: Permission denied"):
            job(tmp_path / "file")
    finally:
        tmp_path.chmod(0o755)
    assert names(tmp_path) == []


def test_a_full_disk_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("gpulstm.io.files._temporary", spoiled(monkeypatch))
    with pytest.raises(OSError, match="No space left on device"):
        check_writable(tmp_path / "file")
    assert names(tmp_path) == []


def spoiled(monkeypatch):
    """The temporary file of an atomic write, with a device that takes no byte in its place."""
    from contextlib import contextmanager
    from pathlib import Path

    @contextmanager
    def temporary(path, target):
        with Path("/dev/full").open("wb") as file:
            yield target, file

    return temporary


# -- files that are not to be trusted ------------------------------------------------------------------------


def with_header(header, data=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def eight_bytes(**change):
    """A file of one array of eight bytes, with a change in what its header says."""
    return with_header({"a": entry(**change)}, bytes(8))


DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
TABLE = "expected a table of arrays at byte 8, got something else"
DAMAGED = "not a whole safetensors file"  # and then the library's words
BAD = {
    "empty": (b"", "expected at least 8 bytes, got 0"),
    "short": (b"abc", "expected at least 8 bytes, got 3"),
    "text": (b"The quick brown fox jumps", "expected a header of at most 100000000 bytes, got .* at byte 0"),
    "no header": (struct.pack("<Q", 50), "expected a header up to byte 58, got a file cut off at byte 8"),
    "huge header": (struct.pack("<Q", 1 << 60) + b"{}", "expected a header of at most 100000000 bytes"),
    "long header": (
        struct.pack("<Q", 90_000_000) + b"{}",
        "header up to byte 90000008, .* cut off at byte 10",
    ),
    "no json": (with_header(b"{'a': 1}"), TABLE),
    "no text": (with_header(b"\xff\xfe\xfd"), TABLE),
    "a list": (with_header([1, 2]), TABLE),
    "a number in place of an array": (with_header({"a": 1}), TABLE),
    "no offsets": (with_header({"a": {"dtype": "F32", "shape": [1]}}), TABLE),
    "nested": (with_header(DEEP), TABLE),
    "offsets beyond": (
        eight_bytes(shape=[100], offsets=(0, 400)),
        "arrays up to byte .*, .* cut off at byte",
    ),
    "more behind": (with_header({"a": entry()}, bytes(9)), "expected arrays up to byte .*, got a file of"),
    "gap": (with_header({"a": entry(offsets=(8, 16))}, bytes(16)), DAMAGED),
    "overlap": (with_header({"a": entry(), "b": entry()}, bytes(8)), DAMAGED),
    "backwards": (with_header({"a": entry(offsets=(8, 0))}), DAMAGED),
    "negative": (eight_bytes(shape=[-2]), DAMAGED),
    "shape beyond": (eight_bytes(shape=[1 << 40]), DAMAGED),
    "shape overflow": (eight_bytes(shape=[1 << 62, 1 << 62]), DAMAGED),
    "unknown type": (eight_bytes(dtype="F33"), DAMAGED),
    "a type NumPy lacks": (eight_bytes(dtype="F8_E4M3", shape=[8]), "expected element types that NumPy knows"),
    "metadata not text": (with_header({"__metadata__": {"a": 1}}), DAMAGED),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(tmp_path, name):
    data, message = BAD[name]
    (tmp_path / "file").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(FormatError, match=f"{tmp_path / 'file'}: .*{message}"):
        load_arrays(tmp_path / "file")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000 + 200 * len(data)  # no size was believed


def test_a_file_cut_anywhere_is_refused(tmp_path):
    save_arrays(tmp_path / "whole", {"a": np.arange(6.0), "b": np.ones((2, 2), np.float32)}, {"key": "text"})
    data = (tmp_path / "whole").read_bytes()
    for size in range(len(data)):
        (tmp_path / "cut").write_bytes(data[:size])
        with pytest.raises(FormatError, match="cut: not a whole safetensors file: expected "):
            load_arrays(tmp_path / "cut")


def test_foreign_files(tmp_path):
    with (tmp_path / "pickle").open("wb") as file:
        pickle.dump({"a": [1.0] * 100}, file)
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("data.pkl", b"x" * 1000)
    np.save(tmp_path / "npy", np.ones(100))
    for name in ("pickle", "zip", "npy.npy"):
        with pytest.raises(FormatError, match=f"{name}: not a whole safetensors file: expected"):
            load_arrays(tmp_path / name)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        load_arrays(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        load_arrays(tmp_path)


def test_a_pipe_is_never_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for attempt in (lambda: check_writable(pipe), lambda: atomic_write(pipe, lambda file: file.write(b"x"))):
        with pytest.raises(OSError, match="pipe cannot be written: it is a device or a pipe"):
            attempt()
    assert pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]


@pytest.mark.parametrize("load", [gl.io.load_arrays, gl.io.torch.load, gl.io.keras.load], ids=["own", "torch", "keras"])
@pytest.mark.parametrize("path", [3, b"x", None], ids=str)
def test_what_is_no_path_is_named(load, path):
    with pytest.raises(DTypeError, match=r"^path: expected a string or a pathlib\.Path, got"):
        load(path)


def test_a_configuration_that_is_no_path_is_named(tmp_path):
    (tmp_path / "x.h5").write_bytes(b"")
    with pytest.raises(DTypeError, match=r"^config: expected a string or a pathlib\.Path, got dict"):
        gl.io.keras.load(tmp_path / "x.h5", {})


# -- one run at a time ---------------------------------------------------------------------------------------


def test_a_path_is_held_until_its_process_ends_in_any_way(tmp_path):
    path = tmp_path / "run.safetensors"
    program = (
        "import sys, time\nfrom gpulstm.io.files import hold\n"
        "with hold(sys.argv[1]):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(FileExists, match=r"run.safetensors: another run is writing it now"), files.hold(path):
            pass
        with files.hold(tmp_path / "another"):
            pass
        other.kill()
    for _ in range(2):
        with files.hold(path), pytest.raises(FileExists), files.hold(path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_where_no_lock_is_possible_nobody_is_kept_out(tmp_path, monkeypatch):
    with files.hold("/dev/null"), files.hold("/dev/null"), files.hold(tmp_path / "no/folder"):
        pass

    def flock(file, flags):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(files.fcntl, "flock", flock)
    with files.hold(tmp_path / "run"), files.hold(tmp_path / "run"):
        assert list(tmp_path.iterdir()) == []

"""Text files as people have them: gzip'd or not, in any encoding, whole or line by line, with faults named."""

import gzip
import io
import sys

import pytest

from gpulstm.errors import FormatError
from gpulstm.labs import reading
from gpulstm.labs.text_corpus import read_texts

TEXT = "one\ntwö\n\nthree ”four”"


def written(tmp_path, data, name="t.txt"):
    (tmp_path / name).write_bytes(data)
    return tmp_path / name


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252", "UTF8"])
@pytest.mark.parametrize("packed", [False, True])
def test_text_in_any_encoding_gzipped_or_not(tmp_path, encoding, packed):
    data = TEXT.encode(encoding)
    file = written(tmp_path, gzip.compress(data, mtime=0) if packed else data)
    assert reading.read(file, encoding) == TEXT
    assert list(reading.lines(file, encoding)) == TEXT.split("\n")
    assert read_texts([file, file], encoding) == TEXT + "\n\n" + TEXT


def test_line_ends_of_all_systems_and_the_byte_order_mark(tmp_path):
    file = written(tmp_path, b"\xef\xbb\xbfa\r\nb\rc\n")
    assert reading.read(file) == "a\nb\nc\n" and list(reading.lines(file)) == ["a", "b", "c"]


def test_standard_input(monkeypatch):
    for data in (b"a\nb\n", gzip.compress(b"a\nb\n", mtime=0)):
        stdin = io.TextIOWrapper(io.BytesIO(data))
        monkeypatch.setattr(sys, "stdin", stdin)
        assert list(reading.lines("-")) == ["a", "b"]
        assert not stdin.buffer.closed


def test_only_what_is_read_is_in_memory(tmp_path):
    """The first lines come before the fault far behind them is met."""
    file = written(tmp_path, b"line\n" * 100_000 + b"\xff\n")
    found = reading.lines(file)
    assert [next(found) for _ in range(5)] == ["line"] * 5
    with pytest.raises(
        FormatError,
        match=r"t\.txt: expected UTF-8 text, got byte 0xff, after line \d+; for another encoding give --encoding",
    ):
        list(found)


@pytest.mark.parametrize(
    ("data", "encoding", "words"),
    [
        (b"a\0b", "utf-8", "binary data"),
        (b"a\xe9b", "utf-8", "expected UTF-8 text, got byte 0xe9"),
        (b"abc", "utf-16", "expected utf-16 text"),
        (gzip.compress(b"abc" * 999, mtime=0)[:-9], "utf-8", "expected a whole gzip file, got a damaged one"),
        (b"\x1f\x8bnothing", "utf-8", "expected a whole gzip file, got a damaged one"),
        (b"a", "klingon", "encoding: expected e.g. utf-8, latin-1 or cp1252, got 'klingon'"),
        (b"a", "base64", "encoding: expected e.g. utf-8"),
        (b"a", "", "encoding: expected e.g. utf-8"),
    ],
)
def test_what_is_no_text_is_named(tmp_path, data, encoding, words):
    file = written(tmp_path, data)
    with pytest.raises(FormatError, match=words):
        reading.read(file, encoding)
    with pytest.raises(FormatError, match=words):
        list(reading.lines(file, encoding))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError):
        reading.read(tmp_path / "none.txt")
    with pytest.raises(IsADirectoryError):
        list(reading.lines(tmp_path))

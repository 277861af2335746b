"""Prepared corpora: the same tokens as in memory, from any files, killed at any moment, and from strangers."""

import gzip
import importlib.util
import io
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpulstm.cli import _run
from gpulstm.data import Streams
from gpulstm.errors import DTypeError, FileExists, FormatError, GpulstmError, ShapeError
from gpulstm.labs import reading, text_byte_pairs, text_prepare, text_stream, text_words, text_work
from gpulstm.labs import text as lab
from gpulstm.labs import text_training as training
from gpulstm.labs.text_byte_pairs import ALPHABET, BytePairs
from gpulstm.labs.text_corpus import Corpus, Vocabulary, read_texts, sample_of
from gpulstm.labs.text_file import load_model, model_facts
from gpulstm.labs.text_prepared import FILE, open_corpus
from gpulstm.labs.text_sample import sample
from gpulstm.labs.text_stream import parts_of
from gpulstm.labs.text_vocabulary import last_cut, split
from tests.conftest import require

PROSE = "It isn't far:  2 miles, he said...\n\n   Let's go (now) -- why not?\n" * 40
STRANGE = (
    "naïve — “quoted” 漢字。漢字 e\u0301 😀😀 ___ a''b\tc\r\nDer Weg ist weit, l'été n'est pas loin!\rüber 10 000 €\n"
    * 30
)
LEVELS = ("char", "word", "bpe")
LIMITS = {"char": 10_000, "word": 20, "bpe": 300}
TINY = lab.Settings(embedding=4, hidden=8, dropout=0.1, batch=4, window=8, steps=8, lr=0.02, warmup=2, validate_every=4)


def need(level):
    if level == "bpe":
        require("tokenizers")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in, with a text as a file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prose.txt").write_text(PROSE)
    return tmp_path


@pytest.fixture
def small(monkeypatch):
    """Bounds so low that a short text passes each of them many times."""
    monkeypatch.setattr(text_stream, "STRETCH", 100)
    monkeypatch.setattr(text_words, "MOST_WORDS", 12)
    monkeypatch.setattr("gpulstm.io.files.os.fsync", lambda descriptor: None)  # the tests outlive no power cut
    monkeypatch.setattr(text_byte_pairs, "BATCH", 40)
    monkeypatch.setattr(reading.pieces, "__defaults__", ("utf-8", 50))


def prepare(files=("prose.txt",), out="corpus", level="char", **options):
    return lab.prepare(list(files), out, level=level, **{"vocabulary": LIMITS[level], **options})


def tokens_of(corpus):
    return np.concatenate([corpus.train[:], corpus.held_out[:]])


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def same_as_in_memory(corpus, text, level):
    want = Corpus.of(text, level, LIMITS[level])
    assert corpus.vocabulary.to_json() == want.vocabulary.to_json()
    np.testing.assert_array_equal(corpus.train[:], want.train)
    np.testing.assert_array_equal(corpus.held_out[:], want.held_out)
    assert (corpus.characters, corpus.limit, str(corpus)) == (want.characters, want.limit, str(want))
    assert corpus.vocabulary.decode(tokens_of(corpus)) == text or level == "word"
    assert level == "bpe" or corpus.digest == want.digest


# -- the same tokens as in memory ----------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "text", [PROSE, STRANGE, "word " * 50 + "\n" * 120, ("\n" * 30 + "a" + " " * 40 + "b b\t" + " \n" * 20 + "b") * 3]
)
def test_the_tokens_are_those_of_the_text_in_memory(here, small, level, text):
    need(level)
    (here / "t.txt").write_bytes(text.encode())
    corpus = prepare(["t.txt"], level=level)
    same_as_in_memory(corpus, read_texts(["t.txt"]), level)
    names = {path.name.partition("-")[0] for path in (here / "corpus").iterdir()}
    assert names == {FILE, "tokens"}  # no copy, no words, no lock


@pytest.mark.parametrize("level", LEVELS)
def test_the_borders_of_pieces_change_nothing(here, level, monkeypatch):
    """A character of several bytes, a line's end, a word and a cut lie on a border of every width."""
    need(level)
    (here / "t.txt").write_bytes(STRANGE[:600].encode())
    for size in (1, 2, 3, 5, 17, 10_000):
        monkeypatch.setattr(reading.pieces, "__defaults__", ("utf-8", size))
        same_as_in_memory(prepare(["t.txt"], f"corpus{size}", level), read_texts(["t.txt"]), level)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig", "cp1252", "shift_jis"])
def test_other_encodings(here, encoding, monkeypatch):
    text = "Straße, „Über“ – naïve\r\n" * 20 if encoding == "cp1252" else "漢字かな word\r\n" * 20
    (here / "t.txt").write_bytes(text.encode(encoding))
    for size in (1, 3, 7, 10_000):
        monkeypatch.setattr(reading.pieces, "__defaults__", ("utf-8", size))
        assert reading.read("t.txt", encoding) == text.replace("\r\n", "\n")
    same_as_in_memory(prepare(["t.txt"], encoding=encoding), text.replace("\r\n", "\n"), "char")


def zstd_of(data):
    return next(m for m in map(module_or_none, ("compression.zstd", "backports.zstd")) if m).compress(data)


def module_or_none(name):
    try:
        return __import__(name, fromlist=["x"])
    except ImportError:
        return None


def packed(kind, data):
    if kind == "zstd":
        if not module_or_none("compression.zstd"):
            require("backports.zstd")
        return zstd_of(data[:100]) + zstd_of(data[100:])  # two frames, as some writers make them
    return gzip.compress(data[:100], mtime=0) + gzip.compress(data[100:], mtime=0) if kind == "gzip" else data


@pytest.mark.parametrize("kind", ["plain", "gzip", "zstd"])
def test_compressed_files_and_several_ones(here, small, kind):
    (here / "a").write_bytes(packed(kind, STRANGE.encode()))
    (here / "b").write_bytes(b"b" * 20)
    (here / "c").write_bytes(b"c")  # of one character
    corpus = prepare(["a", "b", "c"], level="word")
    same_as_in_memory(corpus, read_texts(["a", "b", "c"]), "word")
    assert corpus.digest != prepare(["b", "a", "c"], "other", level="word").digest
    (here / "plain").write_text(reading.read("a") + "\n\n" + "b" * 20 + "\n\nc")
    assert prepare(["plain"], "third", level="word").digest == corpus.digest
    assert list(reading.lines("a")) == reading.read("a").removesuffix("\n").split("\n")


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_damaged_compressed_files(here, kind):
    data = packed(kind, STRANGE.encode())
    for damaged in (data[:-9], data[: len(data) // 2], data[:4] + b"\xff" * 200):
        (here / "a").write_bytes(damaged)
        for read in (lambda: prepare(["a"]), lambda: reading.read("a"), lambda: list(reading.lines("a"))):
            with pytest.raises(FormatError, match=f"a: expected a whole {kind} file, got a damaged one after "):
                read()


def test_zstd_without_its_library(here, monkeypatch):
    (here / "a").write_bytes(b"\x28\xb5\x2f\xfd" + b"0" * 50)
    for name in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(FormatError, match=r"a: is compressed by zstd, .*pip install backports\.zstd"):
        prepare(["a"])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "a: expected text, got an empty file"),
        (b" \n\t\n" * 40, "a: expected text, got only white space"),
        (b"x" * 10, "corpus: expected at least 11 tokens of level 'char', got 10"),
        (b"some text\0" * 40, "a: expected UTF-8 text, got binary data .a zero byte at 9"),
        (
            b"0123456789" * 20 + b"\xfc",
            "a: expected UTF-8 text, got byte 0xfc at 200; for another encoding give --encoding",
        ),
        (b"0123456789" * 20 + "ü".encode()[:1], "a: expected UTF-8 text, got byte 0xc3 at 200"),
    ],
)
def test_what_is_no_text_is_refused_and_leaves_nothing(here, small, data, words):
    (here / "a").write_bytes(data)
    with pytest.raises(FormatError, match=words):
        prepare(["a"])
    assert not list((here / "corpus").iterdir())
    prepare()  # the next try needs no --force


def test_standard_input_is_copied_until_the_corpus_is_finished(here, small, monkeypatch):
    for data in (PROSE.encode(), gzip.compress(PROSE.encode(), mtime=0)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        corpus = prepare(["-", "prose.txt"], level="word", force=True)
        same_as_in_memory(corpus, PROSE + "\n\n" + PROSE, "word")
        assert not (here / "corpus" / text_prepare.COPY).exists()


# -- cutting and counting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [PROSE[:300], STRANGE[:300], "a  \t b\n\n c\x1c d  ", "'' 'a isn't' ( ''b"])
def test_no_token_is_cut(text):
    """Wherever a text may be cut, the tokens of both parts are those of the whole, for words and byte pairs."""
    pairs = BytePairs.learn([text], 300) if module_or_none("tokenizers") else None
    cuts = {last_cut(text[:end]) for end in range(len(text) + 1)}
    assert len(cuts) > 3
    for cut in cuts:
        assert split(text[:cut], "word") + split(text[cut:], "word") == split(text, "word")
        if pairs is not None:
            parts = np.concatenate([pairs.numbers(text[:cut]), pairs.numbers(text[cut:])])
            np.testing.assert_array_equal(parts, pairs.numbers(text))


def test_a_cut_in_another_place_would_be_seen():
    assert split("isn't", "word") != split("isn", "word") + split("'t", "word")
    assert last_cut("word") == last_cut(" \n ") == 0 and last_cut("a" * 10_000 + " b") == 10_000


def test_a_text_without_white_space(here, monkeypatch):
    monkeypatch.setattr(text_stream, "LONGEST", 1000)
    monkeypatch.setattr(reading.pieces, "__defaults__", ("utf-8", 100))
    (here / "a").write_text("acgt" * 1000)
    with pytest.raises(FormatError, match=r"expected white space at least every 1,000 characters .*; use level char"):
        prepare(["a"], level="word")
    assert prepare(["a"]).vocabulary.tokens == list("acgt")


@pytest.mark.parametrize("most", [1, 3, 10, 10_000])
def test_words_are_counted_in_files_as_in_memory(here, monkeypatch, most):
    generator = random.Random(3)
    monkeypatch.setattr(text_words, "AT_ONCE", 30)
    text = " ".join(generator.choice("abcdefgh") * generator.randint(1, 3) for _ in range(2000))
    (here / "t.txt").write_text(text)
    monkeypatch.setattr(text_words, "MOST_WORDS", most)
    monkeypatch.setattr(reading.pieces, "__defaults__", ("utf-8", 300))
    same_as_in_memory(prepare(["t.txt"], level="word"), text, "word")
    monkeypatch.setattr(text_words, "MOST_WORDS", 10_000)
    monkeypatch.setattr(text_words, "MOST_TOKENS", 100)
    same_as_in_memory(prepare(["t.txt"], "other", level="word"), text, "word")


def test_stretches_of_a_text():
    text = "".join(map(chr, range(32, 1032)))
    for pieces in ([text], list(text), [text[:7], text[7:300], text[300:]]):
        for wanted in ([range(1000)], [range(0, 5), range(5, 9), range(9, 400)], [range(3, 6), range(310, 999)]):
            assert list(parts_of(pieces, wanted)) == [text[part.start : part.stop] for part in wanted]


def test_the_sample_of_byte_pairs_is_from_the_training_part():
    assert sample_of(1000) == [range(900)]
    long = sample_of(10**10)
    assert long[0].start == 0 and long[-1].stop == 9 * 10**9 and sum(map(len, long)) == 1 << 24
    assert all(one.stop <= other.start for one, other in itertools.pairwise(long))


# -- byte pairs ----------------------------------------------------------------------------------------------


def test_byte_pairs_write_every_text():
    need("bpe")
    pairs = BytePairs.learn([PROSE], 300)
    assert (
        256 < len(pairs) <= 300
        and pairs.tokens[:256] == sorted(ALPHABET)
        and sorted(ALPHABET.values()) == [*range(256)]
    )
    for text in (PROSE, STRANGE, "", "\0\x7f 😀"):
        numbers = pairs.numbers(text)
        assert pairs.decode(numbers) == text == "".join(pairs.split(text)) and len(pairs.split(text)) == len(numbers)
        assert pairs.unseen(pairs.split(text)) == ""
    assert len(pairs.numbers(PROSE)) < len(PROSE) / 2
    again = BytePairs(json.loads(json.dumps(pairs.to_json())))
    assert again.tokens == pairs.tokens and again.numbers(PROSE).tolist() == pairs.numbers(PROSE).tolist()
    with pytest.raises(ShapeError, match="vocabulary: expected at least 256 tokens at level 'bpe'"):
        BytePairs.learn([PROSE], 255)
    with pytest.raises(FormatError, match="text: expected characters that UTF-8 can encode"):
        pairs.numbers("\ud800")


def test_two_pairs_may_make_one_token():
    need("bpe")
    pairs = BytePairs([["a", "b"], ["ab", "c"], ["b", "c"], ["a", "bc"]])
    assert pairs.tokens[256:] == ["ab", "abc", "bc"] and pairs.numbers("abc").tolist() == [257]
    assert pairs.decode(pairs.numbers("xabcbcab")) == "xabcbcab"


def test_what_is_no_text_is_shown_as_such():
    pairs = BytePairs([])
    numbers = [pairs.tokens.index(next(c for c, b in ALPHABET.items() if b == byte)) for byte in "😀é".encode()]
    assert list(pairs.stream(numbers)) == ["", "", "", "😀", "", "é"]
    assert pairs.decode(numbers[1:]) == "\ufffd\ufffd\ufffdé" and pairs.decode(numbers[:2]) == "\ufffd"


@pytest.mark.parametrize(
    ("merges", "words"),
    [
        (None, "expected pairs of tokens"),
        ({"a": "b"}, "expected pairs of tokens"),
        ([["a"]], "expected pairs of tokens"),
        ([["a", 3]], "expected pairs of tokens"),
        (["ab"], "expected pairs of tokens"),
        ([["a", "bc"]], "expected pairs of earlier tokens"),
        ([["a", " "]], "expected pairs of earlier tokens"),
        ([["a" * 2**k, "a" * 2**k] for k in range(12)], "of at most 256 bytes together"),
    ],
)
def test_merges_that_are_none(merges, words):
    with pytest.raises(FormatError, match=f"vocabulary: .*{words}"):
        BytePairs(merges)


def test_byte_pairs_without_their_library(here, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for act in (lambda: prepare(level="bpe"), lambda: lab.train(PROSE, replace(TINY, level="bpe", vocabulary=300))):
        with pytest.raises(
            FormatError, match=r"level: expected the library tokenizers for 'bpe', .* pip install tokenizers"
        ):
            act()
    assert not (here / "corpus").exists()


def test_a_model_of_byte_pairs_is_sampled_described_inspected_and_trained_further(here, capsys):
    need("bpe")
    options = ["--embedding", "4", "--hidden", "8", "--batch", "4", "--window", "8", "--steps", "4", "--device", "cpu"]
    assert _run(["text", "prepare", "prose.txt", "--level", "bpe", "--vocabulary", "300", "--out", "c"]) == 0
    assert "train on it: gpulstm text train c" in capsys.readouterr().out
    assert _run(["text", "train", "c", *options, "--out", "m.safetensors"]) == 0
    assert "nats per token (perplexity" in capsys.readouterr().out
    assert _run(["text", "sample", "m.safetensors", "--prompt", "It ", "--length", "9", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith("It ")
    assert _run(["text", "info", "m.safetensors"]) == 0
    assert "297 tokens of level bpe" in capsys.readouterr().out
    assert _run(["text", "info", "c"]) == 0
    assert "2,640 characters" in capsys.readouterr().out
    assert _run(["text", "inspect", "m.safetensors", "--text", "It isn't 😀"]) == 0
    model = load_model("m.safetensors", "cpu")
    assert "".join(sample(model, "", 20, seed=1)) == "".join(sample(model, "", 20, seed=1))
    more = [*options[:-4], "--steps", "2", "--device", "cpu", "--from", "m.safetensors", "--out", "n.safetensors"]
    assert _run(["text", "train", "prose.txt", *more]) == 0
    assert load_model("n.safetensors", "cpu").vocabulary.to_json() == model.vocabulary.to_json()


# -- training on a corpus ------------------------------------------------------------------------------------


def train(*args, **options):
    return lab.train(*args, **{"device": "cpu", "progress": False, "checkpoint_every": 3, **options})


def bits(model):
    return {name: array.tobytes() for name, array in model.state_dict().items()}


def losses(log):
    return [(r["step"], r["loss"], r["val_loss"]) for r in map(json.loads, log.read_text().splitlines())]


@pytest.mark.parametrize("level", LEVELS)
def test_training_gives_the_bits_of_training_on_the_text(here, small, level):
    need(level)
    settings = replace(TINY, level=level, vocabulary=LIMITS[level], batch=2 if level == "bpe" else 4)
    prepare(level=level)
    of_text = train(PROSE, settings, log="text.jsonl")
    of_corpus = train(None, settings, corpus="corpus", log="corpus.jsonl")
    assert losses(here / "text.jsonl") == losses(here / "corpus.jsonl") and bits(of_text) == bits(of_corpus)


def test_the_batches_are_those_of_streams_in_memory(here, small):
    """Over several passes, with windows on the borders of files."""
    corpus = prepare()
    batches, validation = training.streams(corpus, TINY)
    for lazy, numbers, streams, window, fill in (
        (batches, corpus.train[:], 4, 8, None),
        (validation, corpus.held_out[:], 32, 128, -100),
    ):
        for got, want in zip(lazy, Streams(numbers, streams, window, fill=fill), strict=True):
            for a, b in zip(got, want, strict=True):
                assert a.dtype == b.dtype == np.int64
                np.testing.assert_array_equal(a, b)


def test_the_settings_are_the_corpus_own(here, capsys):
    prepare(level="word")
    options = ["--embedding", "4", "--hidden", "8", "--batch", "2", "--window", "8", "--steps", "2", "--device", "cpu"]
    assert _run(["text", "train", "corpus", *options, "--out", "m.safetensors"]) == 0
    facts = model_facts("m.safetensors")
    assert facts["level"] == "word" and facts["vocabulary"] == 20 and facts["corpus"] == open_corpus("corpus").digest
    capsys.readouterr()
    for extra, words in (
        (["--level", "char"], "level: expected word, as the corpus has, got char"),
        (["--vocabulary", "30"], "vocabulary: expected 20, as the corpus has, got 30"),
        (["--encoding", "latin-1"], "corpus: expected a prepared corpus alone, got it together with --encoding"),
        (["prose.txt"], "corpus: expected a prepared corpus alone, got it together with the other FILEs"),
    ):
        assert _run(["text", "train", "corpus", *options, "--out", "n.safetensors", *extra]) == 2
        assert words in capsys.readouterr().err
    with pytest.raises(DTypeError, match="text: expected None with corpus=, got a text"):
        train(PROSE, corpus="corpus")


def test_a_run_goes_on_in_the_middle_of_a_pass_to_the_same_bits(here, small):
    """The last of 8 steps is within the second pass; the run stops in the first."""
    prepare()
    whole = train(None, TINY, corpus="corpus", out="whole.safetensors")
    train(None, replace(TINY, steps=4), corpus="corpus", out="m.safetensors")
    for steps in (5, 8):
        model = train(None, replace(TINY, steps=steps), corpus="corpus", out="m.safetensors", resume=True)
    with_text = train(PROSE, TINY, out="m.safetensors", resume=True)  # the same tokens, so the same run
    assert bits(with_text) == bits(model) and set(bits(model)) == set(bits(whole))


def killed(monkeypatch, step):
    """The lab's loss dies in that step."""
    whole, count = training.language_loss, itertools.count(1)

    def loss(model, batch, state):
        if model.training and next(count) == step:
            raise ZeroDivisionError
        return whole(model, batch, state)

    monkeypatch.setattr(training, "language_loss", loss)


@pytest.mark.parametrize("step", [2, 5, 7])
def test_a_killed_run_goes_on_to_the_same_bits(here, small, monkeypatch, step):
    prepare()
    whole = train(None, TINY, corpus="corpus")
    killed(monkeypatch, step)
    with pytest.raises(ZeroDivisionError):
        train(None, TINY, corpus="corpus", out="m.safetensors")
    assert bits(train(None, TINY, corpus="corpus", out="m.safetensors", resume=True)) == bits(whole)


def test_another_corpus_is_refused_when_a_run_goes_on(here):
    prepare()
    train(None, TINY, corpus="corpus", out="m.safetensors")
    (here / "prose.txt").write_text(PROSE + "more")
    prepare(force=True)
    with pytest.raises(FormatError, match=r"corpus: expected [0-9a-f]{64}, as at the start, got [0-9a-f]{64}"):
        train(None, TINY, corpus="corpus", out="m.safetensors", resume=True)


def test_a_vocabulary_that_is_given(here, capsys):
    few = "why not? " * 80
    (here / "few.txt").write_text(few)
    train(PROSE, TINY, out="m.safetensors")
    model = load_model("m.safetensors", "cpu")
    assert _run(["text", "prepare", "few.txt", "--from", "m.safetensors"]) == 0
    corpus = open_corpus("corpus")
    assert corpus.vocabulary.tokens == model.vocabulary.tokens and corpus.limit is None
    assert corpus.digest != Corpus.of(few).digest  # other numbers
    settings = replace(TINY, vocabulary=10_000)
    of_text = train(few, settings, model="m.safetensors")
    assert bits(train(None, settings, corpus="corpus", model="m.safetensors")) == bits(of_text)
    assert _run(["text", "prepare", "few.txt", "--from", "corpus", "--out", "again"]) == 0
    assert open_corpus("again").digest == corpus.digest
    capsys.readouterr()
    for extra in (["--level", "char"], ["--vocabulary", "9"]):
        assert _run(["text", "prepare", "few.txt", "--from", "m.safetensors", "--out", "x", *extra]) == 2
        assert f"expected --from alone, which has its own vocabulary, got {extra[0]} too" in capsys.readouterr().err
    prepare(["few.txt"], "natural")
    with pytest.raises(
        FormatError, match="corpus: expected the vocabulary of the model, got another; prepare the text"
    ):
        train(None, None, corpus="natural", model="m.safetensors")
    (here / "few.txt").write_text(few + "Xß")
    with pytest.raises(FormatError, match="text: expected characters in the model's vocabulary, got also 'X', 'ß'"):
        prepare(["few.txt"], "y", vocabulary=model.vocabulary)
    assert not list((here / "y").iterdir())


def test_validation_reads_a_bounded_part_of_the_held_out_text(here, monkeypatch):
    monkeypatch.setattr(training, "MOST_HELD_OUT", 100)
    monkeypatch.setattr(lab, "MOST_HELD_OUT", 100)
    prepare()
    logs = {}
    for name, given in {"text": {"text": PROSE}, "corpus": {"corpus": "corpus"}}.items():
        said = []
        train(**given, settings=TINY, log=f"{name}.jsonl", say=said.append)
        assert "validation uses the first 101 held-out tokens" in said
        logs[name] = losses(here / f"{name}.jsonl")
    assert logs["text"] == logs["corpus"]
    _, validation = training.streams(open_corpus("corpus"), TINY)
    assert sum((y != -100).sum() for _, y in validation) == 100


# -- nothing is lost -----------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a process that is killed."""


@pytest.mark.parametrize("level", LEVELS)
def test_killed_between_any_two_writes_it_goes_on_to_the_same_bits(here, small, level, monkeypatch):
    need(level)
    monkeypatch.setattr(text_stream, "STRETCH", 200)
    (here / "prose.txt").write_text("Met once: xyz. " + PROSE[: 2640 if level == "bpe" else 400])
    prepare(out="whole", level=level)
    whole, write = contents(here / "whole"), text_prepare.atomic_write
    for moment in itertools.count(1):
        count = itertools.count(1)

        def dies(path, content, moment=moment, count=count):
            """Before, or after, the write of that number; what is left of a temporary file stays."""
            number = next(count)
            if number * 2 - 1 == moment:
                (here / "corpus" / ".gpulstm-0123.tmp").write_bytes(b"half")
                raise Killed
            write(path, content)
            if number * 2 == moment:
                raise Killed

        shutil.rmtree(here / "corpus", ignore_errors=True)
        with monkeypatch.context() as patch:
            for module in ("text_prepare", "text_prepared", "text_tokens", "text_words"):
                patch.setattr(f"gpulstm.labs.{module}.atomic_write", dies)
            try:
                prepare(level=level)
                break
            except Killed:
                pass
        if moment > 2 and json.loads((here / "corpus" / FILE).read_text())["state"] != "complete":
            with pytest.raises(FormatError, match="expected a finished corpus, got an unfinished one"):
                open_corpus("corpus")
            with pytest.raises(FileExists, match="corpus: contains a corpus already; continue with --resume"):
                prepare(level=level)
        prepare(level=level, resume=True)
        assert contents(here / "corpus") == whole
    assert moment > 10


def test_resuming_writes_no_finished_file_again(here, small, monkeypatch):
    prepare(level="word")
    before = {path.name: path.stat().st_mtime_ns for path in (here / "corpus").glob("*.bin")}
    told = json.loads((here / "corpus" / FILE).read_text())
    assert len(before) == len(told["shards"]) > 5
    said = []
    prepare(level="word", resume=True, say=said.append)
    assert {path.name: path.stat().st_mtime_ns for path in (here / "corpus").glob("*.bin")} == before


def test_what_is_there_is_not_overwritten_unasked(here, small):
    prepare()
    before = contents(here / "corpus")
    with pytest.raises(FileExists, match=r"corpus: contains a corpus already; .*--force .*--out"):
        prepare()
    (here / "other.txt").write_text("something else " * 20)
    for options, words in (
        ({"level": "word"}, "level: expected char, as at the start, got word"),
        ({"files": ["other.txt"]}, "text: expected the text that was read before"),
        ({"files": ["other.txt", "prose.txt"]}, "text: expected the text that was read before"),
        ({"files": ["prose.txt", "other.txt"]}, "text: expected the text that was read before, .* got another"),
        ({"vocabulary": Vocabulary("char", sorted(set(PROSE)))}, "from: expected None, as at the start, got"),
    ):
        with pytest.raises(FormatError, match=words):
            prepare(**options, resume=True)
    assert contents(here / "corpus") == before
    prepare(["other.txt"], force=True)
    assert open_corpus("corpus").characters == 300
    (here / "full").mkdir()
    (here / "full" / "thesis.tex").write_text("years of work")
    for options in ({}, {"force": True}, {"resume": True}):
        with pytest.raises(FileExists, match=r"full: contains other files, such as thesis\.tex; give an empty"):
            prepare(out="full", **options)
    with pytest.raises(FileExists, match=r"prose\.txt: is a file; give another folder"):
        prepare(out="prose.txt")
    assert [path.name for path in (here / "full").iterdir()] == ["thesis.tex"]


def test_files_in_another_order_are_another_text(here, small, monkeypatch):
    """Also where the work was stopped before it came to what differs."""
    (here / "a").write_text(PROSE)
    (here / "b").write_text(PROSE[::-1])
    (here / "c").write_text(PROSE.upper())
    with monkeypatch.context() as patch:
        patch.setattr(text_work, "write_numbers", stopped_after(2))
        with pytest.raises(Killed):
            prepare(["a", "b", "c"])
    with pytest.raises(FormatError, match="text: expected the text that was read before"):
        prepare(["a", "c", "b"], resume=True)
    same_as_in_memory(prepare(["a", "b", "c"], resume=True), read_texts(["a", "b", "c"]), "char")


def stopped_after(shards):
    whole, count = text_work.write_numbers, itertools.count(1)

    def write(*args):
        if next(count) > shards:
            raise Killed
        return whole(*args)

    return write


def test_a_file_of_tokens_that_is_gone_is_named_when_the_work_goes_on(here, small):
    prepare()
    (here / "corpus" / "tokens-00001.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokens-00001\.bin"):
        prepare(resume=True)
    (here / "corpus" / "tokens-00001.bin").write_bytes(b"cut")
    with pytest.raises(FormatError, match=r"tokens-00001\.bin: expected \d+ bytes, 2 per token, got 3"):
        prepare(resume=True)


def test_of_two_works_at_once_the_second_is_refused(here, monkeypatch):
    refused = []

    def say(line):
        if not refused:
            refused.append(True)
            with pytest.raises(FileExists, match=r"corpus\.json: another run is writing it now; wait"):
                prepare(force=True)

    prepare(say=say)
    assert refused and open_corpus("corpus")


@pytest.mark.slow
@pytest.mark.parametrize("level", ["char", "word"])
def test_processes_that_are_killed_at_random_moments(here, level):
    """kill -9, again and again, until one comes through; the corpus is that of a work that nothing disturbed."""
    generator = random.Random(7)
    words = ["".join(generator.choices("abcdefghij", k=generator.randint(1, 8))) for _ in range(3000)]
    text = " ".join(generator.choices(words, k=1_500_000))
    (here / "t.txt").write_text(text)
    code = (
        "import sys; from gpulstm.labs import text_stream, text_words, text\n"
        "text_stream.STRETCH = 1 << 19; text_words.MOST_TOKENS = 1 << 17\n"
        f"text.prepare(['t.txt'], sys.argv[1], level={level!r}, vocabulary=500, resume=True)"
    )
    begin = time.monotonic()
    subprocess.run([sys.executable, "-c", code, "whole"], check=True)
    seconds, kills = time.monotonic() - begin, 0
    while True:
        process = subprocess.Popen([sys.executable, "-c", code, "corpus"])
        try:
            assert process.wait(seconds * generator.uniform(0.3, 0.8) if kills < 6 else None) == 0
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    assert kills >= 1
    assert contents(here / "corpus") == contents(here / "whole")
    assert open_corpus("corpus").characters == len(text)


# -- corpora from strangers ----------------------------------------------------------------------------------


def change(**values):
    def of(folder):
        told = json.loads((folder / FILE).read_text())
        (folder / FILE).write_text(json.dumps({**told, **values}))

    return of


def without(name):
    def of(folder):
        told = json.loads((folder / FILE).read_text())
        del told[name]
        (folder / FILE).write_text(json.dumps(told))

    return of


def written(data):
    return lambda folder: (folder / FILE).write_bytes(data)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda folder: (folder / FILE).unlink(), "expected a folder that `gpulstm text prepare` wrote"),
        (written(b""), "expected the description"),
        (written(b"[]"), "expected the description"),
        (written(b"[" * 100_000), "expected the description"),
        (written(b"\xff\xfe"), "expected the description"),
        (written(b'{"kind": "gpulstm text corpus", "version": 1}'), "'level' is missing"),
        (change(kind="text"), "kind: expected 'gpulstm text corpus', got 'text'"),
        (change(version=2), "version: expected 1, got 2"),
        (change(level="line"), "level: expected one of char, word, bpe, got 'line'"),
        (change(level=["char"]), "level: expected one of char"),
        (change(state="done"), "state: expected one of learning, writing, complete, got 'done'"),
        (change(state="writing"), "expected a finished corpus, got an unfinished one"),
        (change(vocabulary=["b", "a"]), "in the order of their code points"),
        (change(vocabulary={"a": 1}), "vocabulary: expected a list of tokens"),
        (change(vocabulary=[["a", "b"]]), "expected at least one token, and no empty tokens"),
        (change(level="bpe"), "vocabulary: expected pairs of tokens"),
        (change(dtype="uint32"), "dtype: expected uint16 for a vocabulary of 29, got 'uint32'"),
        (change(dtype="O"), "dtype: expected uint16"),
        (change(tokens=7), "tokens: expected 2640, the sum over all files, got 7"),
        (change(shards=[{"tokens": 2640, "sha256": "0" * 63}]), "sha256: expected 64 hexadecimal digits"),
        (change(shards=[{"tokens": -1, "sha256": "0" * 64}]), "tokens: expected a whole number from 0 up, got -1"),
        (change(shards=[{"tokens": True, "sha256": "0" * 64}]), "tokens: expected a whole number from 0 up, got True"),
        (
            change(shards=[{"tokens": 10**30, "sha256": "0" * 64}] * 27, tokens=27 * 10**30),
            "expected .* bytes, 2 per to",
        ),
        (change(shards=3), "expected the description"),
        (change(shards=[], tokens=0), "state: expected a vocabulary and a file for every stretch"),
        (change(shards=[], stretches=[], tokens=0), "expected at least 11 tokens"),
        (change(stretches=[{"characters": 3, "sha256": 7}]), "sha256: expected 64 hexadecimal digits"),
        (change(stretches=None), "expected the description"),
        (change(limit="many"), "limit: expected a whole number"),
        (without("vocabulary"), "state: expected a vocabulary"),
        (without("shards"), "'shards' is missing"),
        (
            lambda folder: (folder / "tokens-00000.bin").write_bytes(b"\0" * 201),
            r"tokens-00000\.bin: expected \d+ bytes, 2 per",
        ),
        (lambda folder: (folder / "tokens-00003.bin").unlink(), "tokens-00003.bin"),
    ],
)
def test_folders_from_strangers(here, small, fault, words):
    prepare()
    fault(here / "corpus")
    with pytest.raises((GpulstmError, OSError), match=words):
        open_corpus("corpus")


def test_numbers_out_of_the_vocabulary_are_found_as_they_are_read(here, small):
    prepare()
    file = here / "corpus" / "tokens-00004.bin"
    data = np.fromfile(file, "<u2")
    data[3] = 29
    data.tofile(file)
    corpus = open_corpus("corpus")
    corpus.train[:300]
    with pytest.raises(
        FormatError, match=r"tokens-00004\.bin: expected numbers below 29, the size of the vocabulary, got 29"
    ):
        corpus.train[:]
    with pytest.raises(FormatError, match=r"tokens-00004\.bin: expected numbers below 29"):
        train(None, replace(TINY, steps=80), corpus="corpus")


def test_a_file_that_is_cut_off_while_it_is_read_from(here, small):
    corpus = prepare()
    with (here / "corpus" / "tokens-00002.bin").open("r+b") as file:
        file.truncate(20)
    with pytest.raises(
        FormatError, match=r"tokens-00002\.bin: expected \d+ tokens from token 0 on, got 10; the file was cut off"
    ):
        corpus.train[:]


def test_slices_of_tokens(here, small):
    corpus = prepare()
    whole = Corpus.of(PROSE).train
    for part in (
        slice(None),
        slice(3, 7),
        slice(90, 320),
        slice(-5, None),
        slice(7, 3),
        slice(9999, 99999),
        slice(0, 0),
    ):
        np.testing.assert_array_equal(corpus.train[part], whole[part])
    np.testing.assert_array_equal(corpus.train.part(100, 300)[50:170], whole[150:270])
    for bad in (3, slice(0, 9, 2), [1, 2]):
        with pytest.raises(DTypeError, match="tokens: expected a slice without a step"):
            corpus.train[bad]


@pytest.mark.parametrize(("size", "dtype"), [(1 << 16, "uint16"), ((1 << 16) + 1, "uint32")])
def test_the_type_of_the_numbers(here, size, dtype):
    characters = "".join(chr(k) for k in range(0x10000, 0x10000 + size))
    (here / "a").write_text(characters, encoding="utf-8")
    corpus = prepare(["a"])
    assert json.loads((here / "corpus" / FILE).read_text())["dtype"] == dtype
    np.testing.assert_array_equal(tokens_of(corpus), np.arange(size))
    assert (here / "corpus" / "tokens-00000.bin").stat().st_size == size * np.dtype(dtype).itemsize


def test_arguments_of_another_kind_are_named(here):
    for options, error, words in (
        ({"files": "prose.txt"}, DTypeError, "files: expected a list of files, got str"),
        ({"files": []}, ShapeError, "files: expected at least one"),
        ({"files": ["-", "-"]}, ShapeError, r"files: expected .* standard input \(-\) at most once"),
        ({"files": [3]}, DTypeError, "files: expected a string or a pathlib.Path"),
        ({"level": "line"}, ShapeError, "level: expected 'char' or 'word' or 'bpe', got 'line'"),
        ({"level": "word", "vocabulary": 1}, ShapeError, "vocabulary: expected a whole number from 2 up, got 1"),
        ({"level": "bpe", "vocabulary": 255}, ShapeError, "vocabulary: expected a whole number from 256 up, got 255"),
        ({"encoding": "klingon"}, FormatError, "encoding: expected e.g. utf-8"),
        ({"files": ["none.txt"]}, OSError, "none.txt"),
        ({"out": "no/such/folder"}, OSError, "no/such"),
    ):
        given = {"files": ["prose.txt"], "out": "corpus", **options}
        with pytest.raises(error, match=words):
            lab.prepare(given.pop("files"), given.pop("out"), **given)
    assert not (here / "corpus").exists()


# -- memory --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("level", "megabytes", "most"), [("char", 300, 200), ("word", 20, 200), ("bpe", 4, 250)])
def test_memory_is_bounded(here, level, megabytes, most):
    """Of preparing and of training, in MiB; the text in memory alone would need more at level "char"."""
    need(level)
    code = (
        "import random; from benchmarks import memory; from gpulstm.labs import text\n"
        "generator = random.Random(1)\n"
        "words = [''.join(generator.choices('abcdefghijklm', k=generator.randint(2, 9))) for _ in range(9000)]\n"
        "line = ' '.join(generator.choices(words, k=20_000)) + '\\n'\n"
        f"with open('t.txt', 'w') as file:\n    for k in range({megabytes} * 10**6 // len(line)):\n"
        "        file.write(f'{k} ' + line)\n"
        f"corpus = text.prepare(['t.txt'], 'corpus', level={level!r}, vocabulary=500)\n"
        "settings = text.settings_for(corpus, embedding=8, hidden=8, steps=20, validate_every=20)\n"
        "text.train(None, settings, corpus='corpus', device='cpu', progress=False)\n"
        "print(memory.most() >> 20)"
    )
    path = {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | path)
    assert int(done.stdout) < most, done.stdout

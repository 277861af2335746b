"""The text lab as a library: corpora, vocabularies, the model file, sampling, and a training run."""

import json
import math
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest

from gpulstm.backend import CPU, Device
from gpulstm.errors import DTypeError, FormatError, GpulstmError, ShapeError
from gpulstm.io.files import load_arrays, save_arrays
from gpulstm.labs import text as lab
from gpulstm.labs import text_training as training
from gpulstm.labs.model_file import HEADER
from gpulstm.labs.text_corpus import Corpus, Vocabulary, default_corpus, read_texts, split
from gpulstm.labs.text_file import load_model, save_model
from gpulstm.labs.text_model import TextModel
from gpulstm.labs.text_sample import Choice, sample

PROSE = "It isn't far:  2 miles, he said...\n\n   Let's go (now) -- why not?\n" * 40


# -- corpora and vocabularies --------------------------------------------------------------------------------


def test_the_default_corpus_is_the_topics_in_name_order():
    from pydoc_data.topics import topics

    text = default_corpus()
    names = sorted(topics)
    assert text.startswith(topics[names[0]] + "\n\n" + topics[names[1]])
    assert len(text) == sum(map(len, topics.values())) + 2 * (len(topics) - 1)


@pytest.mark.parametrize("level", ["char", "word"])
@pytest.mark.parametrize(
    "text", [PROSE, "", " ", "\n \n  a  b\tc\n", "naïve — “quoted” 漢字 e\u0301 😀 ___ a''b", "  lead  "]
)
def test_tokens_join_to_the_text(level, text):
    assert "".join(split(text, level)) == text


def test_words_keep_their_space_and_signs_stand_apart():
    assert split("It isn't far:  2 miles... (ok)\n\n  end", "word") == [
        "It", " isn't", " far", ":", " ", " 2", " miles", "...", " (", "ok", ")", "\n\n ", " end",
    ]  # fmt: skip


def test_characters_are_numbered_by_code_point():
    vocabulary = Vocabulary.of("hello 漢\U0001f600", "char", 1)
    assert vocabulary.tokens == [" ", "e", "h", "l", "o", "漢", "\U0001f600"]
    assert vocabulary.encode("oh \U0001f600").tolist() == [4, 2, 0, 6]
    assert vocabulary.encode("").tolist() == []
    assert vocabulary.decode([2, 1, 3, 3, 4]) == "hello"
    with pytest.raises(FormatError, match=r"expected characters in the vocabulary, got '\\x00', 'X'"):
        vocabulary.encode("eX\0X")


def test_words_are_numbered_by_frequency_and_rare_ones_are_unknown():
    pieces = split("b a a once b a c c twice twice twice twice", "word")
    vocabulary = Vocabulary.of(pieces, "word", 100)
    assert vocabulary.tokens == ["<unk>", " twice", " a", " c"]
    assert Vocabulary.of(pieces, "word", 3).tokens == ["<unk>", " twice", " a"]
    assert vocabulary.encode([" a", " once", "b", " c"]).tolist() == [2, 0, 0, 3]


def test_the_last_tenth_is_held_out():
    corpus = Corpus.of("0123456789" * 5)
    assert (corpus.train.size, corpus.held_out.size, len(corpus.vocabulary)) == (45, 5, 10)
    assert corpus.vocabulary.decode(corpus.held_out) == "56789"
    corpus = Corpus.of("the cat " * 90 + "the dog " * 9 + "the dog", "word")
    assert " dog" not in corpus.vocabulary.tokens and (corpus.held_out == 0).sum() == 10


@pytest.mark.parametrize("text", ["a", "short", "0123456789"])
def test_a_text_too_short_to_hold_out_is_refused(text):
    with pytest.raises(FormatError, match="corpus: expected at least 11 tokens"):
        Corpus.of(text)


def test_files_are_read_as_utf8_and_joined_by_a_blank_line(tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfbom\r\nand lines\rends")
    (tmp_path / "b").write_text("zwei: ü", encoding="utf-8")
    assert read_texts([tmp_path / "a", tmp_path / "b"]) == "bom\nand lines\nends\n\nzwei: ü"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "an empty file"),
        (b"\xef\xbb\xbf", "an empty file"),
        (b" \n\t\n", "only white space"),
        (b"text\0text", "a zero byte at 4"),
        ("süß".encode("latin-1"), "byte 0xfc at 1"),
        (b"\xff\xfea\0", "a zero byte at 3"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, data, what):
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(FormatError, match=f"file: expected .*{what}"):
        read_texts([tmp_path / "file"])


# -- choosing a token ----------------------------------------------------------------------------------------


def frequencies(choice, logits, draws=4000):
    generator = np.random.default_rng(5)
    return np.bincount([choice(logits, generator) for _ in range(draws)], minlength=len(logits)) / draws


P = np.array([0.1, 0.4, 0.05, 0.25, 0.2])


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({}, P),
        ({"temperature": 0.5}, P**2 / (P**2).sum()),
        ({"temperature": 2.0}, P**0.5 / (P**0.5).sum()),
        ({"top_k": 2}, [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),
        ({"top_k": 1}, [0, 1, 0, 0, 0]),
        ({"top_k": 99}, P),
        ({"top_p": 0.39}, [0, 1, 0, 0, 0]),
        ({"top_p": 0.66}, [0, 0.4 / 0.85, 0, 0.25 / 0.85, 0.2 / 0.85]),
        ({"top_k": 3, "top_p": 0.7}, [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),  # 0.4 + 0.25 is 0.76 of the three
        ({"temperature": 1e-300}, [0, 1, 0, 0, 0]),
        ({"temperature": 0.0}, [0, 1, 0, 0, 0]),
    ],
)
def test_tokens_come_as_often_as_the_options_say(options, want):
    got = frequencies(Choice(**options), np.log(P) + 7)
    assert np.abs(got - want).max() < 0.03
    assert (got[np.array(want) == 0] == 0).all()


def test_what_cannot_be_sampled_from_is_named(model):
    for args, options, message in (
        (
            ("m.safetensors",),
            {},
            r"model: expected a TextModel, got 'm.safetensors'; read a file with load_model\(path\)",
        ),
        ((model, 3), {}, "prompt: expected a string, got int"),
        ((model, "It", 2.5), {}, "length: expected a whole number, got 2.5"),
        ((model, "It", True), {}, "length: expected a whole number, got True"),
        ((model, "It"), {"top_k": 1.5}, "top_k: expected a whole number, got 1.5"),
        ((model, "It"), {"seed": "a"}, "seed: expected a whole number, got 'a'"),
    ):
        with pytest.raises(DTypeError, match=message):
            sample(*args, **options)
    assert len(list(sample(model, "It", np.int64(3), seed=np.uint8(1), top_k=np.int32(2)))) == 3


def test_an_impossible_token_is_never_chosen():
    logits = np.array([-np.inf, 0.0, 0.0])
    assert frequencies(Choice(), logits)[0] == 0 and Choice(temperature=0)(logits, np.random.default_rng()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature: expected a number from 0 up, got -1.0"),
        ({"temperature": math.nan}, "temperature: expected a number from 0 up, got nan"),
        ({"top_k": 0}, "top_k: expected 1 or more, got 0"),
        ({"top_p": 0.0}, "top_p: expected a share above 0 and at most 1, got 0.0"),
        ({"top_p": 1.5}, "top_p: expected a share above 0 and at most 1, got 1.5"),
        ({"length": -1}, "length: expected 0 or more tokens, got -1"),
        ({"seed": -1}, "seed: expected 0 or more, got -1"),
    ],
)
def test_sampling_options_out_of_range_are_refused_at_once(model, options, message):
    with pytest.raises(ShapeError, match=message):
        sample(model, **options)


# -- the model and its file ----------------------------------------------------------------------------------


def new_model(level="char", device="cpu", **sizes):
    sizes = {"embedding": 3, "hidden": 5, "layers": 2, "dropout": 0.5} | sizes
    vocabulary = Corpus.of(PROSE, level).vocabulary
    model = TextModel(vocabulary, **sizes, device=device, generator=np.random.default_rng(1))
    model.eval()
    return model


@pytest.fixture
def model():
    return new_model()


@pytest.fixture
def file(tmp_path, model):
    save_model(tmp_path / "model.safetensors", model, {"steps": 3})
    return tmp_path / "model.safetensors"


def write(*args, **options):
    return "".join(sample(*args, **options))


def test_sampling_carries_the_state_and_is_the_models_own_prediction(model):
    """Token by token, the text is what one run over all of it predicts at every place."""
    text = "It " + write(model, "It ", 30, temperature=0)
    numbers = model.vocabulary.encode(text)
    logits, _ = model(numbers[:, None])
    predicted = logits.numpy()[:, 0].argmax(-1)
    assert predicted[2:-1].tolist() == numbers[3:].tolist()


def test_a_seed_gives_one_text(model):
    assert write(model, "It", 60, seed=4) == write(model, "It", 60, seed=4)
    assert write(model, "It", 60, seed=4) != write(model, "It", 60, seed=5)
    assert write(model, "It", 60) != write(model, "It", 60)
    assert write(model, length=0) == "" and len(write(model, length=7)) == 7


def test_sampling_on_a_device(device, model):
    on_device = new_model(device=Device(device.name, device))
    assert write(on_device, "It", 12, temperature=0) == write(model, "It", 12, temperature=0)


def test_a_prompt_of_unseen_characters_names_them(model):
    with pytest.raises(FormatError, match="prompt: expected characters in the model's vocabulary, got 'X', 'ß', '漢'"):
        sample(model, "It ßX漢X")


def test_words_are_sampled_without_the_unknown_one():
    model = new_model("word")
    model.linear.bias.data[0] = 50.0  # <unk> is what the model would always write
    assert "<unk>" not in write(model, "It nevermet", 50, seed=1)
    assert "<unk>" not in write(model, "", 5, temperature=0)


def test_a_model_file_gives_the_model_back(file, model, device):
    loaded = load_model(file, Device(device.name, device))
    assert not loaded.training and loaded.config == model.config and loaded.vocabulary.tokens == model.vocabulary.tokens
    for name, array in model.state_dict().items():
        assert np.array_equal(device.to_numpy(loaded.state_dict()[name]), array)


def test_model_files_have_the_same_bytes_every_time(tmp_path, file, model):
    save_model(tmp_path / "again", model, {"steps": 3})
    assert (tmp_path / "again").read_bytes() == file.read_bytes()
    assert json.loads(load_arrays(file)[1][HEADER])["facts"] == {"steps": 3}


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_model_files_keep_the_precision(tmp_path, dtype):
    model = TextModel(Vocabulary("char", "ab"), embedding=2, hidden=2, device="cpu", dtype=dtype)
    save_model(tmp_path / "m", model)
    assert load_model(tmp_path / "m", "cpu").linear.weight.dtype.name == dtype


def changed(file, change):
    """The file with its header, and its arrays, changed in place."""
    arrays, metadata = load_arrays(file)
    header = json.loads(metadata[HEADER])
    change(header, arrays)
    save_arrays(file, arrays, {HEADER: json.dumps(header)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, a: h.update(kind="checkpoint"), "expected a gpulstm text model, got checkpoint"),
        (lambda h, a: h.update(version=2), "expected version 1 of a gpulstm text model, got 2"),
        (lambda h, a: h.pop("config"), "'config' is missing"),
        (lambda h, a: h["config"].pop("hidden"), "'hidden' is missing"),
        (lambda h, a: h.update(config=[]), "expected a gpulstm text model"),
        (lambda h, a: h["config"].update(hidden=10**12), "expected .* got"),
        (
            lambda h, a: h["config"].update(layers=10**12),
            "arrays: expected 4000000000003 for 1000000000000 layers, got 11",
        ),
        (lambda h, a: h["config"].update(embedding="3"), "embedding: expected an integer from 1 up, got '3'"),
        (lambda h, a: h["config"].update(hidden=True), "hidden: expected an integer from 1 up, got True"),
        (lambda h, a: h["config"].update(hidden=-5), "hidden: expected an integer from 1 up, got -5"),
        (lambda h, a: h["config"].update(dropout=7), "dropout: expected a number from 0 to 1, got 7"),
        (lambda h, a: h.update(level="sentence"), "level: expected one of char, word"),
        (lambda h, a: h.update(vocabulary=None), "expected a gpulstm text model"),
        (lambda h, a: h.update(vocabulary=h["vocabulary"][:-1]), "embedding.weight: expected"),
        (lambda h, a: h.update(vocabulary=["a"] * len(h["vocabulary"])), "expected different tokens"),
        (lambda h, a: h["vocabulary"].reverse(), "in the order of their code points"),
        (lambda h, a: a.pop("linear.bias"), "arrays: expected 11 for 2 layers, got 10"),
        (
            lambda h, a: a.update({"lstm.weight_hh_l1": a["lstm.weight_hh_l1"].T.copy()}),
            "lstm.weight_hh_l1: expected",
        ),
        (
            lambda h, a: a.update({"linear.bias": a["linear.bias"].astype(np.float64)}),
            "arrays: expected one dtype",
        ),
        (lambda h, a: a["linear.bias"].fill(np.nan), "linear.bias: expected finite numbers"),
        (lambda h, a: a.update({n: v.astype(np.int32) for n, v in a.items()}), "dtype: expected float32"),
    ],
)
def test_headers_that_do_not_fit_are_refused(file, change, message):
    changed(file, change)
    with pytest.raises(GpulstmError, match=message):
        load_model(file)


def test_damaged_and_foreign_files_are_refused(file, tmp_path):
    data = file.read_bytes()
    for size in (0, 7, 8, 100, len(data) // 2, len(data) - 1):
        file.write_bytes(data[:size])
        with pytest.raises(FormatError):
            load_model(file)
    foreign = {
        "text": b"The quick brown fox jumps over the lazy dog",
        "pickle": pickle.dumps({"a": 1}),
        "huge header": struct.pack("<Q", 2**62) + b"{}",
    }
    for content in foreign.values():
        file.write_bytes(content)
        with pytest.raises(FormatError):
            load_model(file)
    save_arrays(file, {"a": np.zeros(3)})
    with pytest.raises(FormatError, match="expected a gpulstm text model, got another safetensors file"):
        load_model(file)


# -- training ------------------------------------------------------------------------------------------------

TINY = lab.Settings(
    embedding=8, hidden=24, dropout=0.1, batch=4, window=16, steps=60, lr=0.02, warmup=5, validate_every=20
)


def test_training_learns_and_leaves_the_best_model(tmp_path):
    said = []
    out, log = tmp_path / "m.safetensors", tmp_path / "log.jsonl"
    model = lab.train(PROSE, TINY, device="cpu", out=out, log=log, progress=False, say=said.append)
    records = [json.loads(line) for line in log.read_text().splitlines()]
    best = min(r["val_loss"] for r in records if r["val_loss"] is not None)
    assert best < 0.6 * math.log(len(model.vocabulary)) and best < records[0]["loss"]
    header = json.loads(load_arrays(out)[1][HEADER])
    assert header["facts"]["validation_loss"] == best and header["facts"]["steps"] == 60
    assert not model.training and lab.checkpoint_path(out).exists()
    assert write(load_model(out, "cpu"), "It", 20, seed=1) == write(model, "It", 20, seed=1)
    facts = "\n".join(said)
    assert "2,640 characters, vocabulary of 29" in facts and "nats per character" in facts and "device: cpu" in facts


def test_the_validation_loss_counts_every_held_out_token_but_the_first():
    """Against the sum over the text cut by hand into the same streams."""
    corpus = Corpus.of(PROSE)
    model = training.new_model(corpus, TINY, Device("cpu", CPU))
    trainer = training.new_trainer(model, TINY)
    _, validation = training.streams(corpus, TINY)
    got = trainer.evaluate(validation)
    count = corpus.held_out.size - 1
    length = -(-count // training.HELD_OUT_STREAMS)
    model.eval()
    total = 0.0
    for first in range(0, count, length):
        piece = corpus.held_out[first : first + length + 1]
        logits, _ = model(piece[:-1, None])
        scores = logits.numpy()[:, 0].astype(np.float64)
        scores -= np.log(np.exp(scores).sum(-1, keepdims=True))
        total -= scores[np.arange(len(piece) - 1), piece[1:]].sum()
    assert got == pytest.approx(total / count, rel=1e-5)
    assert sum(trainer.count(batch) for batch in validation) == count


def test_a_seed_gives_one_model():
    def bits(settings):
        return {
            n: a.tobytes() for n, a in lab.train(PROSE, settings, device="cpu", progress=False).state_dict().items()
        }

    from dataclasses import replace

    short = replace(TINY, steps=6)
    assert bits(short) == bits(short)
    assert bits(short) != bits(replace(short, seed=1))


def test_training_by_words(tmp_path):
    from dataclasses import replace

    said = []
    model = lab.train(PROSE, replace(TINY, level="word", steps=20), device="cpu", progress=False, say=said.append)
    assert any("perplexity" in line for line in said) and any("words and punctuation marks" in line for line in said)
    assert write(model, "It isn't", 5, seed=1)


def test_settings_of_another_kind_are_refused_and_numpys_numbers_are_numbers():
    for options, message in (
        ({"hidden": 2.5}, "hidden: expected a whole number, got 2.5"),
        ({"steps": True}, "steps: expected a whole number, got True"),
        ({"patience": "3"}, "patience: expected a whole number, got '3'"),
        ({"lr": "high"}, "lr: expected a number, got 'high'"),
        ({"level": 3}, "level: expected a string, got 3"),
    ):
        with pytest.raises(DTypeError, match=message):
            lab.Settings(**options)
    settings = lab.Settings(hidden=np.int64(8), lr=np.float32(0.5), clip=2, patience=np.int8(3))
    assert type(settings.hidden) is int and type(settings.lr) is float and type(settings.patience) is int


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": "line"}, "level: expected one of char, word, bpe, got 'line'"),
        ({"vocabulary": 1}, "vocabulary: expected at least 2"),
        ({"hidden": 0}, "hidden: expected at least 1, got 0"),
        ({"patience": 0}, "patience: expected at least 1"),
        ({"warmup": -1}, "warmup: expected 0 or more"),
        ({"seed": -1}, "seed: expected 0 or more"),
        ({"lr": 0.0}, "lr: expected a number above 0"),
        ({"clip": math.inf}, "clip: expected a number above 0"),
        ({"lr": math.nan}, "lr: expected a number above 0"),
        ({"dropout": 1.0}, "dropout: expected 0 <= dropout < 1"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ShapeError, match=message):
        lab.Settings(**options)


def test_a_text_shorter_than_its_windows_is_refused():
    with pytest.raises(
        FormatError, match="expected at least 2,049 tokens to train on, for 32 streams of 64, got 90; give more"
    ):
        lab.train("0123456789" * 10, device="cpu", progress=False)


def test_the_lab_is_reached_from_the_package_and_imports_little():
    heavy = "{'cupy', 'tqdm', 'click', 'safetensors', 'matplotlib', 'ml_dtypes'}"
    code = f"import sys, gpulstm as gl; gl.labs.text.train, gl.Trainer; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr

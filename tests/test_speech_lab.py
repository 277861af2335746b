"""The speech lab: the Transcriber, its files and runs, scikit-learn's checks, and the commands."""

import json
import os
import struct
import subprocess
import sys
import time

import numpy as np
import pytest

from gpulstm import random
from gpulstm.cli import _run
from gpulstm.errors import DTypeError, FileExists, FormatError, NotFitted, ShapeError
from gpulstm.io.files import load_arrays, save_arrays
from gpulstm.labs.estimator import Run
from gpulstm.labs.files import RunFiles
from gpulstm.labs.model_file import HEADER
from gpulstm.labs.speech import Transcriber, command, estimator
from gpulstm.labs.speech.tones import digit_wave, tone_strings
from gpulstm.labs.speech.utterances import Utterances
from gpulstm.train.interrupt import Interrupted
from tests.test_speech_features import riff, zipped

RATE = 8000
SMALL = {"hidden_size": 6, "num_layers": 1, "epochs": 2, "batch_size": 8, "random_state": 0, "device": "cpu"}
WAVES, TEXTS = tone_strings(24, RATE)


def fitted(X=WAVES, y=TEXTS, **options):
    return Transcriber(**{**SMALL, **options}).fit(X, y)


def same(a, b, waves=WAVES):
    """Whether two transcribers answer with the same bits."""
    return all((p == q).all() for p, q in zip(a.predict_log_proba(waves), b.predict_log_proba(waves), strict=True))


@pytest.fixture(scope="module")
def plain():
    return fitted()


@pytest.fixture(scope="module")
def learnt():
    """One that hears two tones well: a low one for a, a high one for b."""
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(["a", "b"], rng.integers(1, 5))) for _ in range(60)]
    options = {"hidden_size": 16, "epochs": 30, "learning_rate": 1e-2, "warp": 0.05}
    return fitted([two_tones(text) for text in texts], texts, **options)


def two_tones(text):
    tones = [np.sin(np.arange(1200) * {"a": 0.3, "b": 0.9}[c]) for c in text]
    return np.concatenate([np.concatenate([tone, np.zeros(600)]) for tone in tones])


# -- the estimator -------------------------------------------------------------------------------------------


def test_tones_are_transcribed(learnt):
    texts = ["ab", "bbbb", "a", "abba", "bab"]
    waves = [two_tones(text) for text in texts]
    assert learnt.predict(waves) == texts and learnt.score(waves, texts) == 1
    assert learnt.score(waves, ["ab", "bbbb", "b", "abba", "aaa"]) == pytest.approx(1 - 2 / 5)
    assert learnt.tokens_ == ["a", "b"]
    wide = Transcriber(**learnt.get_params()).set_params(beam_width=6)
    wide.model_, wide.tokens_ = learnt.model_, learnt.tokens_
    assert wide.predict(waves) == texts
    assert learnt.predict([(wave * 1000).astype(np.int16) for wave in waves]) == texts  # loudness and type are free


def test_log_probabilities_have_a_row_a_step(learnt):
    log_probs = learnt.predict_log_proba([two_tones("ab"), two_tones("abbab")])
    assert [p.shape for p in log_probs] == [(15, 3), (37, 3)]
    np.testing.assert_allclose(np.exp(log_probs[0]).sum(axis=1), 1, rtol=1e-5)
    assert learnt.seconds_a_step == pytest.approx(0.03)
    heard = log_probs[0].argmax(axis=1)
    assert heard[0] in (0, 1) and (heard[:7] != 2).all() and (heard[8:] != 1).all()


def test_a_wave_is_heard_the_same_alone_and_among_others(learnt):
    waves = [two_tones(text) for text in ("abbab", "a", "ba")]
    for together, wave in zip(learnt.predict_log_proba(waves), waves, strict=True):
        np.testing.assert_allclose(together, learnt.predict_log_proba([wave])[0], atol=1e-5)


def test_words_are_tokens_too():
    texts = [" ".join({"a": "low", "b": "high"}[c] for c in text) for text in ("ab", "b", "ba", "aab") * 4]
    waves = [two_tones(text) for text in ("ab", "b", "ba", "aab") * 4]
    transcriber = fitted(waves, texts, level="word", hidden_size=16, epochs=60, learning_rate=1e-2, warp=0.0)
    assert transcriber.tokens_ == ["high", "low"]
    assert transcriber.predict([two_tones("ab"), two_tones("aab")]) == ["low high", "low low high"]
    assert fitted(waves, texts, epochs=1).tokens_ == list(" ghilow")
    assert fitted(waves, ["a  b\n"] * 16, epochs=1).tokens_ == [" ", "a", "b"]  # white space is one space


def test_the_same_seed_gives_the_same_bits_and_leaves_the_default_generator_alone():
    random.manual_seed(7)
    want = random.default_generator().random()
    random.manual_seed(7)
    first, second = fitted(), fitted()
    assert random.default_generator().random() == want
    assert same(first, second)
    assert not same(first, fitted(random_state=1))
    for option in ("noise", "speed", "warp"):  # each of the changes in training counts
        assert not same(first, fitted(**{option: None if option == "noise" else 0.0}))


def test_passes_change_waves_anew_and_go_on_from_any_batch():
    hearing = Transcriber(**SMALL)._hearing()
    targets = [np.array([1, 2])] * len(WAVES)

    def made():
        return Utterances(hearing, WAVES, targets, 5, np.random.default_rng(3))

    whole = made()
    passes = [list(whole) for _ in range(3)]
    lengths = [max(lengths) for (_, lengths), _ in passes[0]]
    assert lengths == sorted(lengths) and len(lengths) == 5  # the first pass goes from short to long
    assert [max(lengths) for (_, lengths), _ in passes[1]] != lengths
    assert all(sum(len(counts) for _, (_, counts) in batches) == len(WAVES) for batches in passes)
    stopped = made()
    list(stopped)
    going = iter(stopped)
    next(going), next(going)
    again = Utterances(hearing, WAVES, targets, 5, np.random.default_rng(99))
    again.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
    for batches in (passes[1][2:], passes[2]):
        for ((x, _), _), ((want, _), _) in zip(again, batches, strict=True):
            assert x.shape == want.shape and (x == want).all()
    twice = list(Utterances(hearing, WAVES[:1] * 2, targets[:2], 1, np.random.default_rng(3)))
    (first, _), (second, _) = (steps for steps, _ in twice)
    assert first.shape != second.shape or (first != second).any()  # each batch has changes of its own
    unchanged = Utterances(hearing, WAVES, targets, 5)
    first, second = list(unchanged), list(unchanged)
    assert all((a[0][0] == b[0][0]).all() for a, b in zip(first, second, strict=True))
    with pytest.raises(FormatError, match="state of batches"):
        again.load_state_dict({**again.state_dict(), "passes": None})


def test_a_wave_in_which_nothing_is_said():
    transcriber = fitted([*WAVES, *[0.01 * WAVES[0]] * 8], [*TEXTS, *[""] * 8], batch_size=4)
    assert len(transcriber.predict([np.zeros(5), np.zeros(9000)])) == 2
    assert all(np.isfinite(record["loss"]) for record in transcriber.history_)


def test_on_every_device(device):
    options = {**SMALL, "epochs": 1, "device": device.name, "hidden_size": 4}
    waves, texts = [WAVES[k][:4000] for k in range(4)], ["1", "23", "3", "12"]
    transcriber = Transcriber(**options).fit(waves, texts)
    beside = Transcriber(**{**options, "device": "cpu"}).fit(waves, texts)
    for a, b in zip(transcriber.predict_log_proba(waves), beside.predict_log_proba(waves), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_a_wave_too_short_for_its_text_is_named():
    with pytest.raises(ShapeError, match=r"X\[1\]: expected at least 4 steps of 0.03 s for a text of 3 chars, got 1"):
        fitted([WAVES[0], np.ones(100)], ["ab", "abb"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sample_rate": 100}, "sample_rate: expected from 1,000"),
        ({"level": "syllable"}, "level: expected 'char' or 'word'"),
        ({"beam_width": 0}, "beam_width: expected a whole number from 1"),
        ({"bands": 0}, "bands"),
        ({"bands": 500}, "bands: expected few enough that each contains a frequency"),
        ({"low": 4000.0}, "low, high: expected 0 <= low < high"),
        ({"high": 4001.0}, "low, high"),
        ({"stack": 0}, "stack"),
        ({"noise": 3}, "noise: expected None or two levels"),
        ({"noise": (0, -60)}, "noise: expected the lower level first"),
        ({"noise": (0, 1000)}, "noise"),
        ({"speed": 0.9}, "speed: expected a number from 0 to 0.5"),
        ({"warp": -0.1}, "warp"),
        ({"dropout": 1.0}, "dropout"),
        ({"hidden_size": 1.5}, "hidden_size"),
        ({"random_state": -1}, "random_state"),
        ({"dtype": "float16"}, "dtype"),
    ],
)
def test_wrong_parameters_are_named(options, words):
    with pytest.raises((ShapeError, DTypeError), match=words):
        fitted(**options)


@pytest.mark.parametrize(
    ("X", "y", "words"),
    [
        ([], [], "X: expected at least one wave"),
        (3, ["a"], "X: expected a list of waves"),
        ("wave", ["a"], "X: expected a list of waves"),
        ([np.zeros(0)], ["a"], r"X\[0\]: expected \(N,\) with N > 0 samples"),
        (np.ones(500), ["a"] * 500, r"X\[0\]: expected .* for one wave pass \[wave\]"),
        ([np.ones(900), np.ones((2, 900))], ["a", "b"], r"X\[1\]: expected \(N,\) with N > 0 samples, one channel"),
        ([np.array([1, np.nan] * 500)], ["a"], r"X\[0\]: expected finite samples, got NaN or infinity at 1"),
        ([np.ones(900) * 1e300], ["a"], r"X\[0\]: expected finite samples"),
        ([["a", "b"]], ["a"], r"X\[0\]: expected real numbers"),
        ([np.ones(900) * 1j], ["a"], "Complex"),
        ([np.ones(900)], ["a", "b"], "y: expected 1 texts, one for each wave"),
        ([np.ones(900)], None, "y: expected a list of texts"),
        ([np.ones(900)], "a", "y: expected a list of texts"),
        ([np.ones(900)], [3], r"y\[0\]: expected a string, got 3"),
        ([np.ones(900)], [" "], "y: expected texts with at least one char"),
    ],
)
def test_wrong_data_are_named(X, y, words):
    with pytest.raises((ShapeError, DTypeError), match=words):
        Transcriber(**SMALL).fit(X, y)


def test_parameters_as_scikit_learn_has_them(plain):
    assert plain.get_params()["hidden_size"] == 6
    assert repr(Transcriber(level="word", speed=0.1)) == "Transcriber(level='word')"
    with pytest.raises(NotFitted, match="Transcriber: expected a fitted one"):
        Transcriber().predict(WAVES)
    with pytest.raises(ShapeError, match="hidden: expected a parameter of Transcriber"):
        plain.set_params(hidden=3)


# -- scikit-learn --------------------------------------------------------------------------------------------

# Waves have different lengths, so there is no number of features, and no wave without features in a table.
NO_FEATURES = {
    "check_n_features_in_after_fitting",
    "check_n_features_in",
    "check_estimators_empty_data_messages",
}


class Rows(Transcriber):
    """For checks that give tables of numbers and numbers as labels: rows stand for waves, labels are made texts."""

    def fit(self, X, y=None):
        return super().fit(X, None if y is None else [str(label) for label in np.ravel(y)])

    def predict(self, X):
        return np.array([len(text) for text in super().predict(X)])

    def score(self, X, y):
        return float(self.predict(X).mean())

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")  # of scikit-learn, on what is not installed
def test_scikit_learns_own_checks():
    checks = pytest.importorskip("sklearn.utils.estimator_checks")

    options = {"hidden_size": 4, "num_layers": 1, "epochs": 1, "level": "word", "random_state": 0, "device": "cpu"}
    results = checks.check_estimator(Rows(**options), on_fail=None)
    failed = {result["check_name"] for result in results if result["status"] == "failed"}
    assert failed == NO_FEATURES
    assert sum(result["status"] == "passed" for result in results) > 35
    own = checks.check_estimator(Transcriber(**options), on_fail=None)
    assert {result["status"] for result in own} == {"passed"}


@pytest.mark.oracle
def test_in_pipelines_and_searches():
    pytest.importorskip("sklearn")
    from sklearn.base import clone
    from sklearn.model_selection import GridSearchCV, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    scores = cross_val_score(Transcriber(**SMALL), WAVES, TEXTS, cv=2)
    assert scores.shape == (2,) and np.isfinite(scores).all()
    search = GridSearchCV(Transcriber(**SMALL), {"stack": [2, 3]}, cv=2).fit(WAVES, TEXTS)
    assert len(search.predict(WAVES[:3])) == 3
    louder = FunctionTransformer(lambda waves: [2 * wave for wave in waves])
    pipeline = make_pipeline(louder, Transcriber(**SMALL)).fit(WAVES, TEXTS)
    assert len(pipeline.predict(WAVES[:3])) == 3
    assert clone(pipeline[-1]).get_params() == pipeline[-1].get_params()


# -- files ---------------------------------------------------------------------------------------------------


def test_a_saved_transcriber_is_the_same(tmp_path):
    transcriber = fitted(num_layers=2, noise=(-50, -20), high=3000.0, beam_width=3)
    transcriber.save(tmp_path / "t.safetensors")
    again = Transcriber.load(tmp_path / "t.safetensors", "cpu")
    assert same(again, transcriber) and again.predict(WAVES) == transcriber.predict(WAVES)
    assert again.get_params() == transcriber.get_params() and again.tokens_ == transcriber.tokens_
    again.save(tmp_path / "u.safetensors")
    assert (tmp_path / "u.safetensors").read_bytes() == (tmp_path / "t.safetensors").read_bytes()
    with pytest.raises(NotFitted):
        Transcriber().save(tmp_path / "v.safetensors")


def broken(header, arrays):
    """(what is wrong, a header and arrays in which it is)."""

    def changed(part, **values):
        return {**header, part: {**header[part], **values}}

    yield "kind", {**header, "kind": "forecaster"}, arrays
    yield "version", {**header, "version": 2}, arrays
    yield "no params", {k: v for k, v in header.items() if k != "params"}, arrays
    yield "an unknown parameter", changed("params", colour=1), arrays
    for name in ("hidden_size", "num_layers", "bands", "stack", "sample_rate", "batch_size"):
        if name != "batch_size":
            yield f"a {name} of a giant", changed("params", **{name: 10**9}), arrays
        yield f"a text for {name}", changed("params", **{name: "8"}), arrays
    yield "noise that is none", changed("params", noise=[1, 2, 3]), arrays
    yield "a level that is none", changed("params", level="sound"), arrays
    for tokens in (None, [], ["a"], [1, 2], ["a"] * 10, [str(n) for n in range(5000)], {"a": 1}):
        yield f"tokens {tokens}", changed("fitted", tokens=tokens), arrays
    yield "no tokens", {**header, "fitted": {}}, arrays
    yield "a missing array", header, {k: v for k, v in arrays.items() if k != "linear.bias"}
    yield "an array too many", header, {**arrays, "more": np.zeros(3, np.float32)}
    yield "an array of another shape", header, {**arrays, "lstm.bias_hh_l0": np.zeros(3, np.float32)}
    yield "an array that is not finite", header, {**arrays, "linear.bias": arrays["linear.bias"] * np.nan}


def test_files_of_strangers_are_refused_by_name(tmp_path, plain):
    file = tmp_path / "t.safetensors"
    plain.save(file)
    arrays, metadata = load_arrays(file)
    for what, header, others in broken(json.loads(metadata[HEADER]), arrays):
        save_arrays(file, others, {HEADER: json.dumps(header)})
        with pytest.raises(FormatError, match=r"t\.safetensors: expected"):
            Transcriber.load(file, "cpu")
            pytest.fail(what)
    file.write_bytes(b"no model")
    with pytest.raises(FormatError):
        Transcriber.load(file)


@pytest.mark.parametrize("step", [2, 4, 7])
def test_a_run_stopped_in_any_step_goes_on_to_the_same_bits(tmp_path, monkeypatch, step):
    options = {**SMALL, "epochs": 3}
    whole = Transcriber(**options).fit(
        WAVES, TEXTS, run=Run(RunFiles.of(tmp_path / "a.safetensors"), checkpoint_every=2)
    )
    run = {"files": RunFiles.of(tmp_path / "b.safetensors"), "checkpoint_every": 2}
    calls, loss = iter(range(1, 1000)), estimator._loss

    def dying(model, batch, state):
        if model.training and next(calls) == step:
            raise Interrupted
        return loss(model, batch, state)

    monkeypatch.setattr(estimator, "_loss", dying)
    with pytest.raises(Interrupted):
        Transcriber(**options).fit(WAVES, TEXTS, run=Run(**run))
    monkeypatch.undo()
    if step > 3:
        assert len(Transcriber.load(tmp_path / "b.checkpoint.safetensors", "cpu").predict(WAVES)) == len(WAVES)
    resumed = Transcriber(**options).fit(WAVES, TEXTS, run=Run(**run, resume=True))
    assert same(resumed, whole)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_run_of_other_data_or_parameters_is_not_gone_on_with(tmp_path):
    run = {"files": RunFiles.of(tmp_path / "a.safetensors")}
    fit = Transcriber(**SMALL).fit(WAVES, TEXTS, run=Run(**run))
    assert fit.n_iter_ == 2
    with pytest.raises(FileExists, match=r"a\.safetensors"):
        Transcriber(**SMALL).fit(WAVES, TEXTS, run=Run(**run))
    with pytest.raises(FormatError, match="the training data differ"):
        Transcriber(**SMALL).fit(WAVES, TEXTS[::-1][:24], run=Run(**run, resume=True))
    with pytest.raises(FormatError, match=r"warp: expected 0\.1, as at the start, got 0\.2"):
        Transcriber(**SMALL, warp=0.2).fit(WAVES, TEXTS, run=Run(**run, resume=True))
    more = Transcriber(**{**SMALL, "epochs": 3}).fit(WAVES, TEXTS, run=Run(**run, resume=True))
    assert more.n_iter_ == 3


# -- the commands --------------------------------------------------------------------------------------------

QUICK = ["--hidden", "6", "--layers", "1", "--epochs", "2", "--batch", "8", "--device", "cpu"]


def speech(*args):
    return _run(["speech", *args])


def wav(wave, rate=RATE):
    return riff((wave / np.abs(wave).max() * 2**14).astype("<i2").tobytes(), rate=rate)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in, with a folder of recordings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "GENERATED", 24)
    (tmp_path / "d").mkdir()
    lines = []
    for k in range(12):
        (tmp_path / "d" / f"{k}.wav").write_bytes(wav(WAVES[k]))
        lines.append(f"{k}.wav\t{TEXTS[k]}\n")
    (tmp_path / "d" / "transcripts.tsv").write_text("".join(lines))
    return tmp_path


def test_the_default_command_and_what_it_leaves(here, capsys):
    assert speech("train", *QUICK) == 0
    said = capsys.readouterr().out
    for words in ("are generated", "22 recordings to train and validate on, 2 to test", "said: ", "word error rate",
                  "character error rate", "speech.png", "gpulstm speech predict"):  # fmt: skip
        assert words in said
    assert {path.name for path in here.iterdir()} == {
        "d", "speech.safetensors", "speech.checkpoint.safetensors", "speech.png"
    }  # fmt: skip
    assert (here / "speech.png").read_bytes().startswith(b"\x89PNG")
    assert speech("predict", "speech.safetensors", "d/0.wav", "d/1.wav", "--picture", "a.png") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["d/0.wav", "d/1.wav"] and all("\t" in line for line in lines)
    assert (here / "a.png").read_bytes().startswith(b"\x89PNG")
    assert speech("predict", "speech.safetensors", "d/0.wav", "--beam", "4", "--picture", "a.png", "--force") == 0
    capsys.readouterr()
    assert speech("info", "speech.safetensors") == 0
    said = capsys.readouterr().out
    assert "Transcriber(" in said and "word_error_rate: " in said and "'generated': True" in said


def test_a_folder_a_zip_and_other_rates(here, capsys):
    assert speech("train", "d", *QUICK, "--out", "a.safetensors", "--test", "3") == 0
    assert "d: 12 recordings" in (said := capsys.readouterr().out) and "9 recordings to train" in said
    files = {f"{path.name}": path.read_bytes() for path in (here / "d").iterdir()}
    zipped(here / "d.zip", files)
    assert speech("train", "d.zip", *QUICK, "--out", "b.safetensors", "--test", "3", "-q") == 0
    assert capsys.readouterr().out == ""
    made = [load_arrays(here / f"{name}.safetensors")[0] for name in "ab"]
    assert all((made[0][name] == made[1][name]).all() for name in made[0])
    (here / "t.csv").write_text("".join(f"{k}.wav,one two\n" for k in range(10)))
    args = ["--transcripts", "t.csv", "--level", "word", "--sample-rate", "16000", "--noise", "-40", "-20"]
    assert speech("train", "d", *QUICK, *args, "--out", "c.safetensors") == 0
    assert "10 recordings" in (said := capsys.readouterr().out) and "2 WAV files without a transcript" in said
    assert Transcriber.load("c.safetensors", "cpu").tokens_ == ["one", "two"]
    (here / "fast.wav").write_bytes(wav(WAVES[0], 44100))
    assert speech("predict", "c.safetensors", "fast.wav") == 0


def test_a_prediction_of_what_was_learnt(here, capsys, learnt):
    learnt.save("m.safetensors")
    for text in ("ab", "bba"):
        (here / f"{text}.wav").write_bytes(wav(two_tones(text)))
    assert speech("predict", "m.safetensors", "ab.wav", "bba.wav") == 0
    assert capsys.readouterr().out == "ab.wav\tab\nbba.wav\tbba\n"
    assert speech("predict", "m.safetensors", "ab.wav", "--beam", "8") == 0
    assert capsys.readouterr().out == "ab.wav\tab\n"


def test_predictions_refuse_what_they_cannot_use(here, capsys, plain):
    plain.save("m.safetensors")
    (here / "text.wav").write_text("no recording")
    (here / "old.png").write_bytes(b"a picture")
    for args, words in (
        (["m.safetensors", "none.wav"], "none.wav"),
        (["m.safetensors", "d/0.wav", "text.wav"], "text.wav: expected a WAV file"),
        (["m.safetensors", "d"], "d"),
        (["m.safetensors", "m.safetensors"], "m.safetensors: expected a WAV file"),
        (["m.safetensors"], "Missing argument"),
        (["none.safetensors", "d/0.wav"], "none.safetensors"),
        (["d/0.wav", "d/0.wav"], "d/0.wav: not a whole safetensors file"),
        (["m.safetensors", "d/0.wav", "--beam", "0"], "beam: expected a whole number from 1"),
        (["m.safetensors", "d/0.wav", "--picture", "old.png"], "old.png: exists already"),
        (["m.safetensors", "d/0.wav", "--picture", "p.xyz"], "p.xyz"),
        (["m.safetensors", "d/0.wav", "--picture", "no/such/p.png"], "no/such/p.png"),
        (["m.safetensors", "d/0.wav", "--device", "cuda:99"], "cuda"),
    ):
        assert speech("predict", *args) == 2, args
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1 and words in said.err
    assert (here / "old.png").read_bytes() == b"a picture" and not (here / "p.xyz").exists()


def test_a_resumed_command_gives_the_same_bits(here, capsys):
    args = ["train", "d", *QUICK]
    assert speech(*args, "--out", "a.safetensors") == 0
    assert speech(*args, "--out", "b.safetensors", "--checkpoint-every", "1") == 0
    assert (here / "a.safetensors").read_bytes() == (here / "b.safetensors").read_bytes()
    assert speech(*args, "--out", "a.safetensors") == 2
    assert "a.safetensors" in capsys.readouterr().err
    assert speech(*args, "--out", "a.safetensors", "--resume") == 0
    assert (here / "a.safetensors").read_bytes() == (here / "b.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["none.zip"], "none.zip"),
        (["d/0.wav"], "d/0.wav: expected a folder or a zip of WAV files"),
        (["empty"], "expected transcripts.tsv or transcripts.csv in it"),
        (["d", "--transcripts", "none.tsv"], "none.tsv"),
        (["d", "--transcripts", "d/0.wav"], "d/0.wav: expected UTF-8 text"),
        (["d", "--transcripts", "d"], "d"),
        (["d", "--transcripts", "bad.tsv"], "bad.tsv: line 2: expected a file among the recordings"),
        (["d", "--transcripts", "short.tsv"], "d: 0.wav: expected at least 399 steps"),
        (["d", "--encoding", "utf-16"], "transcripts.tsv: line 1"),
        (["d", "--encoding", "klingon"], "klingon"),
        (["--transcripts", "bad.tsv"], "transcripts: expected DATA"),
        (["broken"], "broken: 0.wav: expected a WAV file"),
        (["d", "--sample-rate", "10"], "sample_rate"),
        (["d", "--level", "syllable"], "syllable"),
        (["d", "--bands", "900"], "bands"),
        (["d", "--high", "5000"], "low, high"),
        (["d", "--stack", "0"], "stack"),
        (["d", "--noise", "3"], "noise"),
        (["d", "--noise", "3", "1"], "noise: expected the lower level first"),
        (["d", "--speed", "2"], "speed"),
        (["d", "--beam", "0"], "beam_width"),
        (["d", "--test", "0"], "test: expected a share"),
        (["d", "--test", "1.5"], "test: expected a share"),
        (["d", "--test", "12"], "test: expected a share, or a number of recordings from 1 to 11"),
        (["d", "--validation", "1"], "validation_fraction"),
        (["d", "--hidden", "0"], "hidden_size"),
        (["d", "--batch", "x"], "batch"),
        (["d", "--seed", "-1"], "random_state"),
        (["d", "--out", "no/such/m.safetensors"], "cannot be written"),
        (["d", "--picture", "p.xyz"], "p.xyz"),
        (["d", "--plot", "speech.png", "--picture", "speech.png"], "--picture"),
        (["d", "--out", "old.safetensors"], "old.safetensors: exists already"),
        (["d", "--device", "cuda:99"], "cuda"),
    ],
)
def test_broken_input_is_refused_in_one_line(here, args, words, capsys):
    (here / "bad.tsv").write_text(f"0.wav\t1\n{'../' * 8}etc/passwd\t2\n")
    (here / "short.tsv").write_text(f"0.wav\t{'1 ' * 200}\n1.wav\t2\n2.wav\t2\n")
    (here / "old.safetensors").write_bytes(b"a model")
    (here / "empty").mkdir()
    (here / "broken").mkdir()
    (here / "broken" / "0.wav").write_bytes(struct.pack("<I", 7))
    (here / "broken" / "transcripts.tsv").write_text("0.wav\t1\n")
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    usual = [word for k in range(0, len(QUICK), 2) if QUICK[k] not in args for word in QUICK[k : k + 2]]
    assert speech("train", *args, *usual, *([] if "--test" in args else ["--test", "2"])) == 2
    error = capsys.readouterr().err
    last = error.strip().splitlines()[-1]
    assert last.startswith("gpulstm: error: ") and words in last
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


def test_predictions_start_at_once(here, plain):
    """Under a second on an idle machine; five where others are at work on it."""
    plain.save("m.safetensors")
    line = [sys.executable, "-m", "gpulstm", "speech", "predict", "m.safetensors", "d/0.wav", "--device", "cpu"]
    began = time.perf_counter()
    done = subprocess.run(line, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0 and done.stdout.startswith("d/0.wav\t"), done.stderr
    assert time.perf_counter() - began < 5


def test_the_benchmark_on_recordings_made_up(tmp_path, capsys):
    """Spoken digits of two speakers: the benchmark joins them, trains, and leaves its files."""
    from benchmarks import speech as benchmark

    digits = {
        f"recordings/{digit}_{speaker}_{take}.wav": wav(digit_wave(digit, RATE, 1, 1 + 0.01 * take))
        for digit in range(10)
        for speaker in ("george", "theo")
        for take in range(7)
    }
    zipped(tmp_path / "recordings.zip", digits)
    assert benchmark.main(["--data", str(tmp_path), "--quick", "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "speech-fsdd.json").read_text())
    assert [row["protocol"] for row in found["rows"]] == list(benchmark.GOALS)
    assert "| known speakers | 0 |" in (tmp_path / "out" / "speech-fsdd.md").read_text()
    takes = benchmark.protocols(benchmark.read(tmp_path / "recordings.zip"))
    known, unknown = takes.values()
    assert {len(waves) for waves in known[0].values()} == {2} and {len(waves) for waves in known[1].values()} == {5}
    assert {speaker for speaker, _ in unknown[0]} == {"george"} and {speaker for speaker, _ in unknown[1]} == {"theo"}
    wave, said = benchmark.string_of(known[0], 4, np.random.default_rng(0))
    silent = 4 * len(digit_wave(0, RATE, 1, 1))
    assert len(said) == 4 and silent + 3 * 240 <= len(wave) <= silent + 3 * 2000
    assert benchmark.main(["--data", str(tmp_path / "none.zip")]) == 2

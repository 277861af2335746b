"""The sentiment lab at work: killed runs, answers while one types, each device, and data that nobody meant to give."""

import contextlib
import csv
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from gpulstm.cli import _run
from gpulstm.errors import DTypeError, FormatError, ShapeError
from gpulstm.labs.estimator import Run
from gpulstm.labs.sentiment import SequenceClassifier, report
from gpulstm.labs.sentiment.bayes import NaiveBayes
from gpulstm.labs.sentiment.estimator import MOST_STEPS, _side_by_side
from gpulstm.labs.sentiment.texts import Labelled, generated, read_table
from gpulstm.labs.sentiment.words import read_vectors

DATA = generated(60, seed=1)
SIDES = [n % 2 for n in range(len(DATA))]
SMALL = {
    "hidden_size": 4, "embedding_size": 4, "ngram_buckets": 20, "min_count": 1, "epochs": 1, "batch_size": 16,
    "random_state": 0, "device": "cpu",
}  # fmt: skip
QUICK = ["--hidden", "4", "--embedding", "4", "--ngram-buckets", "20", "--device", "cpu"]


def fitted(X=DATA.texts, y=DATA.labels, *, run=None, **options):
    return SequenceClassifier(**{**SMALL, **options}).fit(X, y, run=run)


@pytest.fixture(scope="module")
def plain():
    return fitted()


@pytest.fixture
def here(tmp_path, monkeypatch, plain):
    """A folder to work in, with a table, the texts of each class, a model, and one of numbers."""
    monkeypatch.chdir(tmp_path)
    rows = [f"{text}\t{label}" for text, label in zip(DATA.texts, DATA.labels, strict=True)]
    (tmp_path / "t.tsv").write_text("\n".join(["text\tlabel", *rows]))
    for label in ("positive", "negative"):
        of_class = [text for text, other in zip(DATA.texts, DATA.labels, strict=True) if other == label]
        (tmp_path / f"{label}.txt").write_text("\n".join(of_class))
    (tmp_path / "v.txt").write_text("film 1 2\nstory 2 1\n")
    plain.save("m.safetensors")
    return tmp_path


def sentiment(*args):
    return _run(["sentiment", *args])


def command(*args):
    return [sys.executable, "-m", "gpulstm", "sentiment", *args]


# -- commands ------------------------------------------------------------------------------------------------


def test_a_killed_command_goes_on_to_the_same_bits(here):
    args = ["train", "t.tsv", *QUICK, "--epochs", "150", "--checkpoint-every", "20", "-q"]
    assert sentiment(*args, "--out", "a.safetensors") == 0
    process = subprocess.Popen(command(*args, "--out", "b.safetensors"))
    until = time.monotonic() + 60
    while not (here / "b.checkpoint.safetensors").exists() and time.monotonic() < until and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was over before it could be killed"
    assert not (here / "b.safetensors").exists()
    assert sentiment("info", "b.checkpoint.safetensors") == 0
    assert sentiment(*args, "--out", "b.safetensors", "--resume") == 0
    assert (here / "a.safetensors").read_bytes() == (here / "b.safetensors").read_bytes()


def test_each_line_is_answered_while_the_next_is_not_written(here):
    """All in about a second on an idle machine; ten where others work on it."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command("predict", "m.safetensors"), stdin=pipe, stdout=pipe, text=True) as process:
        watch = threading.Timer(10, process.kill)  # one that waits for more would never end
        watch.start()
        for line in ("a fine film", "not dull", "", "what a story", "zzz"):
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            assert process.stdout.readline().split("\t")[0] in ("positive", "negative")
        process.stdin.write("a\nb\nc\n")
        process.stdin.close()
        assert len(process.stdout.read().splitlines()) == 3
        watch.cancel()
    assert process.returncode == 0


def test_a_pipe_and_a_file_have_the_same_answers(here, capsys):
    lines = "".join(f"{text}\n" for text in DATA.texts * 5)
    (here / "l.txt").write_text(lines)
    assert sentiment("predict", "m.safetensors", "l.txt", "--device", "cpu") == 0
    args = command("predict", "m.safetensors", "--device", "cpu")
    piped = subprocess.run(args, input=lines, capture_output=True, text=True, check=True, env=os.environ)
    assert piped.stdout == capsys.readouterr().out and piped.stdout.count("\n") == len(DATA) * 5


def test_labels_cannot_break_the_table_of_answers(here, capsys):
    fitted(y=["a\tb" if side else "c\nd" for side in SIDES]).save("tabs.safetensors")
    (here / "l.txt").write_text("\n".join(DATA.texts))
    assert sentiment("predict", "tabs.safetensors", "l.txt") == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == len(DATA) and {len(row) for row in rows} == {2} and {row[0] for row in rows} <= {"a b", "c d"}


@pytest.mark.parametrize(
    "args",
    [
        ["train", "t.tsv", "--out", "t.tsv"],
        ["train", "t.tsv", "--log", "t.tsv"],
        ["train", "t.tsv", "--picture", "t.tsv"],
        ["train", "t.tsv", "--vectors", "v.txt", "--log", "v.txt"],
        ["train", "--class", "a=positive.txt", "--class", "b=negative.txt", "--out", "positive.txt"],
        ["predict", "m.safetensors", "t.tsv", "--html", "m.safetensors"],
        ["predict", "m.safetensors", "t.tsv", "--html", "t.tsv"],
    ],
)
def test_what_is_read_is_never_written_over_even_by_force(here, args, capsys):
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    assert sentiment(*args, "--force") == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "already" in said.err and said.out == ""
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before


@pytest.mark.parametrize(
    ("content", "args", "words"),
    [
        ("fine\tx\ndull\ty\nfine\tx\nbad\ty\n", ["x.tsv"], "line 1: expected a header with the names of the columns"),
        ("text\tlabel\na\tx\n\t\nb\ty\n", ["x.tsv"], "line 3: text: expected a value, got a missing one"),
        ("text\tlabel\na\tx\nb\t \n", ["x.tsv"], "line 3: label: expected a value"),
        ("text,label\nn/a,x\n", ["x.tsv"], "line 2: text: expected a value"),
        ('text,label\n"a\nb,x\n', ["x.tsv"], "line 3: expected 2 cells, got 1"),
        ("text,label\na\n", ["x.tsv"], "line 2: expected 2 cells, got 1"),
        ("text,label\n" + "a" * 1_000_001 + ",x\n", ["x.tsv"], "line 2: expected a row of a table"),
        ("one\na\nb\n", ["x.tsv"], "expected --text, one of the columns one"),
        ("a,b,label\n1,2,3\n", ["x.tsv"], "expected --text, one of the columns a, b, label"),
        ("a,b,text\n1,2,3\n", ["x.tsv"], "expected --label, one of the columns a, b, text"),
        (None, ["t.tsv", "--text", "0"], "expected --text, one of the columns"),
        (None, ["t.tsv", "--label", "text"], "label: expected another column than that of the text"),
        (None, ["t.tsv", "--epochs", "0"], "epochs: expected a whole number from 1 up, got 0"),
        (None, ["t.tsv", "--batch", "0"], "batch_size"),
        (None, ["t.tsv", "--layers", "-1"], "num_layers"),
        (None, ["t.tsv", "--dropout", "1"], "dropout"),
        (None, ["t.tsv", "--seed", "-1"], "random_state"),
        (None, ["t.tsv", "--hidden", "x"], "is not a valid integer"),
        (None, ["t.tsv", "--pooling", "sum"], "'sum' is not one of"),
        (None, ["t.tsv", "--label-smoothing", "2"], "label_smoothing"),
        (None, ["t.tsv", "--test", "nan"], "test: expected a number"),
        (None, ["t.tsv", "--device", "cuda:99"], "cuda:99"),
        (None, ["t.tsv", "--device", "tpu"], "tpu"),
        (None, ["t.tsv", "t.tsv"], "unexpected extra argument"),
        (None, ["t.tsv", "--vectors", "m.safetensors"], "m.safetensors: expected UTF-8 text"),
        (None, ["t.tsv", "--vectors", "t.tsv"], "t.tsv, line 1: expected a word and its numbers"),
        (None, ["t.tsv", "--vectors", "."], "."),
        (None, ["m.safetensors"], "m.safetensors: expected UTF-8 text"),
        (None, ["--class", "a=.", "--class", "b=positive.txt"], "m.safetensors: expected UTF-8 text, got binary data"),
        (None, ["--class", "=positive.txt"], "class: expected NAME=PATH"),
        (None, ["--class", "a=", "--class", "b=positive.txt"], "class: expected NAME=PATH, got 'a='"),
        (None, ["t.tsv", "--resume", "--out", "v.txt"], "v.txt: exists already"),
    ],
)
def test_broken_input_is_refused_in_one_line(here, content, args, words, capsys):
    if content is not None:
        (here / "x.tsv").write_text(content)
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    usual = [word for k in range(0, len(QUICK), 2) if QUICK[k] not in args for word in QUICK[k : k + 2]]
    assert sentiment("train", *args, *usual, *([] if "--epochs" in args else ["--epochs", "1"])) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and error[0].startswith("gpulstm: error: ") and words in error[0]
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before


def test_a_classifier_of_numbers_sorts_no_lines(here, capsys):
    fitted(np.zeros((60, 3)) + np.arange(60)[:, None], SIDES).save("n.safetensors")
    assert sentiment("predict", "n.safetensors", "t.tsv") == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "n.safetensors: expected a classifier of texts" in said.err
    assert sentiment("info", "n.safetensors") == 0


def test_the_benchmark_chooses_without_the_test_part(tmp_path, capsys, monkeypatch):
    from benchmarks import sentiment as benchmark

    data = Labelled([f"w{n}" for n in range(60)], ["a", "b"] * 30)
    learnt, scored = set(), set()
    fit = SequenceClassifier.fit
    monkeypatch.setattr(SequenceClassifier, "fit", lambda self, X, y: (learnt.update(X), fit(self, X, y))[1])
    monkeypatch.setattr(SequenceClassifier, "score", lambda self, X, y: (scored.update(X), 0.5)[1])
    monkeypatch.setattr(benchmark, "CHOICE_FOLDS", 1)
    monkeypatch.setattr(benchmark, "generated", lambda count: data)
    assert benchmark.main(["--quick", "--choose", "--out", str(tmp_path)]) == 0
    assert "the recipe beside others" in capsys.readouterr().out
    names = {"sentiment-rt-polarity-choice.json", "sentiment-rt-polarity-choice.md"}
    assert {path.name for path in tmp_path.iterdir()} == names
    test = {data.texts[n] for n in benchmark.folds(data.labels, 2)[0]}
    assert learnt and scored and not learnt & scored and learnt | scored == set(data.texts) - test


# -- tables and vectors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "options", "texts"),
    [
        ("text,label", {}, "t"),
        ("label,text", {}, "l"),
        ("label,review", {}, "l"),  # the other column is the text
        ("review,label", {}, "t"),
        ("text,stars", {}, "t"),
        ("review,stars", {}, "t"),
        ("review,stars", {"label": "review"}, "l"),
        ("review,stars", {"text": "2"}, "l"),
        ("t0,t1", {"label": "t1"}, "t"),  # asked for by its name, though a label is called so
    ],
)
def test_the_columns_of_a_table_of_two(tmp_path, header, options, texts):
    first, second = (("t", "l") if texts == "t" else ("l", "t")) if header != "t0,t1" else ("x", "t")
    rows = [f"{first}{n % 2},{second}{n % 2}" for n in range(6)]
    (tmp_path / "t.csv").write_text("\n".join([header, *rows]))
    read = read_table(tmp_path / "t.csv", **options)
    column = 0 if texts == "t" else 1
    assert read.texts == [row.split(",")[column] for row in rows]
    assert read.labels == [row.split(",")[1 - column] for row in rows]


def test_reading_a_table_leaves_pythons_limit_of_cells_alone(tmp_path):
    before = csv.field_size_limit(54_321)
    try:
        for text in ("text,label\n" + "a,x\nb,y\n" * 2, "text,label\na,x,y\n"):
            (tmp_path / "t.csv").write_text(text)
            with contextlib.suppress(FormatError):
                read_table(tmp_path / "t.csv")
            assert csv.field_size_limit() == 54_321
    finally:
        csv.field_size_limit(before)


def test_words_with_spaces_in_a_file_of_vectors(tmp_path):
    """GloVe's largest file has such words."""
    (tmp_path / "v.txt").write_text("fine 1 2\n. . . 3 4\nat name@example.org 5 6\n")
    found, size = read_vectors(tmp_path / "v.txt", ["fine", ". . .", "at"])
    assert size == 2 and {word: v.tolist() for word, v in found.items()} == {"fine": [1, 2], ". . .": [3, 4]}
    (tmp_path / "v.txt").write_text("fine 1 2\ndull 1 2 3\n")
    with pytest.raises(FormatError, match="line 2: expected 2 numbers, as in the lines before, got 3"):
        read_vectors(tmp_path / "v.txt", ["fine"])


def test_how_many_words_a_file_of_vectors_has_is_said(here):
    said: list[str] = []
    classifier = fitted(vectors="v.txt", run=Run(say=said.append))
    assert said == [f"vectors: v.txt has 2 of the {len(classifier._table.words)} words"]


def test_naive_bayes_adds_one_to_the_counts_of_words_and_pairs():
    bayes = NaiveBayes().fit(["A b", "b"], ["good", "bad"])
    order = [bayes._numbers[feature] for feature in ("b", "a", ("a", "b"))]
    np.testing.assert_allclose(np.exp(bayes._log_p[:, order]), [[2 / 4, 1 / 4, 1 / 4], [2 / 6, 2 / 6, 2 / 6]])
    assert bayes.predict(["a", "b b", "never met"]).tolist() == ["good", "bad", "bad"]


def test_rows_of_the_confusion_matrix_are_the_true_classes():
    class Fixed:
        classes_ = np.array(["bad", "good"])

        def predict(self, texts):
            return np.array(["good", "good", "bad"])

    said, counts = report.lines(Fixed(), DATA, Labelled(["a", "b", "c"], ["bad", "good", "bad"]))
    assert counts.tolist() == [[1, 1], [0, 1]]
    assert said[0] == "test: 3 texts" and any(line.startswith("LSTM") and line.endswith("66.7%") for line in said)


# -- the estimator -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["max", "mean", "attention"])
def test_on_every_device(device, pooling):
    options = {"pooling": pooling, "dropout": 0.0, "batch_size": 8}
    texts, labels = DATA.texts[:16], DATA.labels[:16]
    classifier = fitted(texts, labels, **{**options, "device": device.name})
    beside = fitted(texts, labels, **options)
    for a, b in zip(classifier.explain(texts), beside.explain(texts), strict=True):
        for one, other in zip(a, b, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("pooling", ["max", "mean", "attention"])
def test_the_weights_of_a_text_sum_to_one_though_words_are_repeated(pooling):
    weights = fitted(pooling=pooling, epochs=3).explain(["film film film film", "film", ""])[1]
    assert [w.sum() for w in weights] == pytest.approx([1, 1, 1], abs=1e-6)


@pytest.mark.parametrize("pooling", ["max", "mean", "attention"])
def test_what_fills_a_batch_up_has_no_share(pooling):
    """Neither in the logits nor in their gradient: it may hold any numbers."""
    from gpulstm.data import pad_sequences
    from gpulstm.tape import tensor

    model = fitted([np.ones((k % 3 + 1, 2)) for k in range(60)], SIDES, pooling=pooling).model_
    model.eval()
    padded, lengths = pad_sequences([np.ones((5, 2), np.float32), np.ones((2, 2), np.float32)])
    found = []
    for filler in (0.0, 100.0):
        x = padded.copy()
        x[2:, 1] = filler
        given = tensor(x, requires_grad=True)
        logits = model(given, lengths)
        logits.sum().backward()
        assert (given.grad[2:, 1] == 0).all() and (given.grad[:2, 1] != 0).any()
        found.append(logits.data.copy())
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("pooling", ["max", "mean", "attention"])
def test_a_longer_text_beside_it_changes_no_answer(pooling):
    classifier = fitted(pooling=pooling, epochs=3)
    alone, beside = classifier.explain(["not dull"]), classifier.explain(["not dull", "film " * 40])
    np.testing.assert_allclose(alone[0][0], beside[0][0], atol=1e-6)
    np.testing.assert_allclose(alone[1][0], beside[1][0], atol=1e-6)


def test_the_vector_of_a_word_is_its_own_and_the_mean_of_its_pieces():
    from gpulstm.labs.sentiment.model import WordVectors

    vectors = WordVectors(3, 5, 4, device="cpu")
    own, grams = vectors.own.weight.data, vectors.grams.weight.data
    found = vectors(np.array([2, 0, 1]), np.array([[1, 5, 3], [4, 0, 0], [0, 0, 0]])).data
    want = [own[2] + grams[[1, 5, 3]].mean(axis=0), own[0] + grams[4], own[1]]
    np.testing.assert_allclose(found, want, rtol=1e-5)


def test_numbers_are_standardised_by_the_training_part_alone():
    X = np.random.default_rng(0).standard_normal((60, 3)) * 7 + 100
    classifier = fitted(X, SIDES, validation_fraction=0.5)
    train, held = classifier._split(np.array(SIDES), np.random.default_rng(0))
    assert len(train) == len(held) == 30
    assert classifier._center == pytest.approx([X[train].mean()])
    assert classifier._scale == pytest.approx([X[train].std()])


def test_labels_are_smoothed_in_training_and_not_in_validation():
    usual, smooth = (fitted(label_smoothing=share, validation_fraction=0.5) for share in (0.0, 0.5))
    assert (usual.predict_proba(DATA.texts) != smooth.predict_proba(DATA.texts)).any()
    targets = np.unique(DATA.labels, return_inverse=True)[1]
    held = smooth._split(targets, np.random.default_rng(0))[1]
    loss = -np.log(smooth.predict_proba(DATA.texts)[held, targets[held]]).mean()
    assert smooth.history_[-1]["val_loss"] == pytest.approx(loss, rel=1e-4)


def test_a_long_text_is_classified_apart():
    lengths = [5] * 300 + [MOST_STEPS * 2, 7, 900, 900]
    groups = list(_side_by_side(lengths))
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(lengths)))
    sizes = [(len(group), max(lengths[n] for n in group)) for group in groups]
    assert all(count == 1 or (count <= 256 and count * longest <= MOST_STEPS) for count, longest in sizes)
    assert sizes[0] == (256, 5) and sizes[-1] == (1, MOST_STEPS * 2)


def test_weights_of_classes_are_those_of_labels_of_any_kind(tmp_path):
    """NumPy's integers are keys that JSON does not have; a loaded classifier can be fitted again."""
    for labels in (np.array([3, 7]), np.array(["a", "b"]), np.array([False, True]), np.array([1.0, 2.0])):
        weights = dict(zip(labels, (1.0, 3), strict=True))
        classifier = fitted(y=labels[SIDES], class_weight=weights)
        classifier.save(tmp_path / "c.safetensors")
        again = SequenceClassifier.load(tmp_path / "c.safetensors", "cpu")
        assert again.class_weight == weights
        again.fit(DATA.texts, labels[SIDES])
        assert (again.predict_proba(DATA.texts) == classifier.predict_proba(DATA.texts)).all()


def test_a_class_keeps_an_example_to_learn_from():
    classifier = fitted(y=["rare", *["common"] * 59], validation_fraction=0.99)
    assert classifier.history_[-1]["val_loss"] is not None
    targets = np.array([0] * 9 + [1])
    train, held = classifier._split(targets, np.random.default_rng(0))
    assert sorted(targets[train].tolist()) == [0, 1] and len(held) == 8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"class_weight": {0: 0.0}}, "class_weight: expected weights above 0, got 0 for 0"),
        ({"class_weight": {0: float("nan")}}, "class_weight: expected a number"),
        ({"class_weight": np.ones(2)}, "class_weight: expected None, 'balanced' or a dict"),
        ({"class_weight": [1, 2]}, "class_weight: expected None, 'balanced' or a dict"),
        ({"vectors": 5}, "vectors: expected a path or None, got 5"),
    ],
)
def test_wrong_parameters_are_named(options, words):
    with pytest.raises((ShapeError, DTypeError), match=words):
        fitted(y=SIDES, **options)


NAN = float("nan")


@pytest.mark.parametrize(
    ("X", "y", "words"),
    [
        ([NAN, "a"] * 2, [0, 1] * 2, r"X\[0\]: expected a string, got nan"),
        ([None, "a"] * 2, [0, 1] * 2, r"X\[0\]: expected a string, got None"),
        (["a", None] * 2, [0, 1] * 2, r"X\[1\]: expected a string, got None"),
        ([b"a", b"b"], [0, 1], "X: expected sequences of numbers, or texts in a plain list, got texts or bytes"),
        (np.array([["a"], ["b"]]), [0, 1], r"got texts or bytes \(2, 1\)"),
        (np.array([["a"], ["b"]], object), [0, 1], r"got texts or bytes \(2, 1\)"),
        ("ab", [0, 1], "got texts or bytes"),
        ([[[1, 2], [3]], [[1, 2], [3]]], [0, 1], "X: expected sequences .T,. or .T, D. of numbers"),
        ([[], [1.0]], [0, 1], r"X\[0\]: expected at least one row"),
        ([np.array([1.0]), np.array([1.0, NAN])], [0, 1], r"X\[1\]: expected finite numbers, got NaN in row 1"),
        ([[1e308], [-1e308]] * 9, [0, 1] * 9, "X: expected numbers whose squares fit in float64"),
        (["a", "b"], ["x", None], r"y\[1\]: expected a string, like the other labels, got None"),
        (["a", "b"], [NAN, "x"], r"y\[0\]: expected a string, like the other labels, got nan"),
        (["a", "b"], np.array(["x", NAN], object), r"y\[1\]: expected a string"),
        (["a", "b"], ["x", 1], r"y\[1\]: expected a string, like the other labels, got 1"),
        (["a", "b"], [None, None], "y: expected numbers or strings, got object"),
        (["a", "b"], [[1], [1, 2]], "y: expected .N,. labels, got lists of unequal lengths"),
    ],
)
def test_wrong_data_are_named(X, y, words):
    with pytest.raises((ShapeError, DTypeError), match=words):
        fitted(X, y)


def test_wrong_calls_are_named(plain):
    numbers = fitted(np.array([[0.0], [1.0]] * 30), SIDES)
    with pytest.raises(DTypeError, match="X: expected sequences of numbers"):
        numbers.predict(["a", "b"])
    with pytest.raises(ShapeError, match=r"X\[1\]: expected numbers that fit in float32 after standardisation"):
        numbers.predict([[0.0], [1e300]])
    for labels in (DATA.labels[:1], DATA.labels[:5]):  # one label would be compared with each text
        with pytest.raises(ShapeError, match="y: expected 60 labels, one for each sequence of X"):
            plain.score(DATA.texts, labels)

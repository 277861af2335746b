"""The sentiment lab: the SequenceClassifier, words and their vectors, texts as people have them, and the commands."""

import gzip
import io
import itertools
import json
import sys

import numpy as np
import pytest

from gpulstm.cli import _run
from gpulstm.errors import DTypeError, FormatError, NotFitted, ShapeError
from gpulstm.io.files import load_arrays, save_arrays
from gpulstm.labs.by_length import ByLength
from gpulstm.labs.estimator import Run
from gpulstm.labs.files import RunFiles
from gpulstm.labs.model_file import HEADER
from gpulstm.labs.sentiment import SequenceClassifier
from gpulstm.labs.sentiment.bayes import NaiveBayes
from gpulstm.labs.sentiment.report import Weighed, heaviest, page
from gpulstm.labs.sentiment.texts import generated, read_classes, read_table
from gpulstm.labs.sentiment.words import WordTable, pieces, read_vectors, split
from gpulstm.train.interrupt import Interrupted

DATA = generated(120, seed=1)
SMALL = {
    "hidden_size": 8, "embedding_size": 8, "ngram_buckets": 50, "min_count": 1, "epochs": 2, "batch_size": 16,
    "random_state": 0, "device": "cpu",
}  # fmt: skip


def fitted(X=DATA.texts, y=DATA.labels, **options):
    return SequenceClassifier(**{**SMALL, **options}).fit(X, y)


@pytest.fixture(scope="module")
def plain():
    return fitted()


# -- the estimator -------------------------------------------------------------------------------------------


def test_texts_are_learnt_whose_words_alone_do_not_tell():
    train, test = generated(600, seed=2).split(0.2, 0)
    options = {"hidden_size": 16, "embedding_size": 16, "epochs": 25, "learning_rate": 1e-2}
    for pooling in ("max", "attention"):
        assert fitted(train.texts, train.labels, pooling=pooling, **options).score(test.texts, test.labels) > 0.9
    bayes = NaiveBayes().fit(train.texts, train.labels).predict(test.texts)
    assert (bayes == test.labels).mean() < 0.9


def test_sequences_of_numbers_of_unequal_lengths():
    generator = np.random.default_rng(0)
    X = [generator.standard_normal((int(generator.integers(3, 9)), 2)) for _ in range(150)]
    y = np.array([int(x[-1, 0] > 0) for x in X])  # the last step tells
    classifier = fitted(X, y, epochs=25, learning_rate=1e-2, dropout=0.0, pooling="attention")
    assert classifier.score(X, y) > 0.9 and classifier.n_features_in_ == 2
    assert classifier.predict_proba(X[:3]).sum(axis=1) == pytest.approx([1, 1, 1])
    with pytest.raises(ShapeError, match="X has 3 features, but SequenceClassifier is expecting 2 features"):
        classifier.predict([np.zeros((4, 3))])
    assert fitted(np.zeros((20, 5, 3)) + generator.standard_normal((20, 5, 3)), y[:20]).n_features_in_ == 15


def test_the_answer_does_not_depend_on_company(plain):
    alone = np.concatenate([plain.predict_proba([text]) for text in DATA.texts[:20]])
    np.testing.assert_allclose(plain.predict_proba(DATA.texts)[:20], alone, rtol=1e-4, atol=1e-6)
    assert plain.predict([DATA.texts[0], "", "zzz qqq"]).shape == (3,)


def test_labels_of_any_kind():
    for labels in (["b", "a"], [3, 7], [True, False], np.array(["x", "y"], object)):
        y = [labels[n % 2] for n in range(len(DATA))]
        classifier = fitted(y=y, epochs=1)
        assert sorted(classifier.classes_.tolist()) == sorted(set(y))
        assert set(classifier.predict(DATA.texts[:9]).tolist()) <= set(y)
    assert fitted(y=["one"] * len(DATA), epochs=1).predict(["anything"]).tolist() == ["one"]


def test_the_same_seed_gives_the_same_bits(plain):
    assert (fitted().predict_proba(DATA.texts) == plain.predict_proba(DATA.texts)).all()
    assert (fitted(random_state=1).predict_proba(DATA.texts) != plain.predict_proba(DATA.texts)).any()


def test_the_part_held_out_has_no_share_in_the_words():
    """A word that only texts held out have is unknown."""
    texts = [f"word{n}" for n in range(40)]
    classifier = fitted(texts, [n % 2 for n in range(40)], validation_fraction=0.25)
    assert len(classifier._table.words) == 30


@pytest.mark.parametrize("pooling", ["max", "mean", "attention"])
def test_weights_of_the_words(pooling):
    classifier = fitted(pooling=pooling)
    texts = ["the film is not dull", "fine"]
    _, weights = classifier.explain(texts)
    assert [len(w) for w in weights] == [5, 1]
    assert all(w.sum() == pytest.approx(1, abs=0.2 if pooling == "max" else 1e-5) for w in weights)
    assert classifier.words(texts) == [["the", "film", "is", "not", "dull"], ["fine"]]
    assert heaviest(["a", "b", "c", "d"], np.array([0.1, 0.4, 0.2, 0.3])) == ["b", "c", "d"]


def test_the_weight_of_a_class_moves_the_answers():
    y = ["rare" if n % 10 == 0 else "common" for n in range(len(DATA))]
    usual, balanced = (
        fitted(y=y, epochs=4, class_weight=w).predict_proba(DATA.texts)[:, 1] for w in (None, "balanced")
    )
    given = fitted(y=y, epochs=4, class_weight={"rare": 5.0, "common": 5 / 9}).predict_proba(DATA.texts)[:, 1]
    assert balanced.mean() > usual.mean() + 0.1 and np.abs(given - balanced).mean() < 0.1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"embedding_size": 0}, "embedding_size"),
        ({"min_count": 0}, "min_count"),
        ({"ngram_buckets": -1}, "ngram_buckets"),
        ({"pooling": "sum"}, "pooling: expected"),
        ({"label_smoothing": 2}, "label_smoothing"),
        ({"class_weight": "even"}, "class_weight: expected None, 'balanced' or a dict"),
        ({"class_weight": {"none": 1.0}}, "class_weight: expected labels among"),
        ({"lowercase": "yes"}, "lowercase"),
        ({"hidden_size": 0}, "hidden_size"),
    ],
)
def test_wrong_parameters_are_named(options, words):
    with pytest.raises((ShapeError, DTypeError), match=words):
        fitted(**options)


@pytest.mark.parametrize(
    ("X", "y", "words"),
    [
        (["a", "b"], [0], "y: expected 2 labels"),
        (["a", 1], [0, 1], r"X\[1\]: expected a string, got 1"),
        (["a", "b"], [0, np.nan], "y: expected finite labels"),
        (["a", "b"], [0.5, 1.0], "expected classes, got continuous numbers"),
        (["a", "b"], None, "y: expected labels"),
        ([], [], "y: expected .N,. labels"),
        ([np.zeros((3, 1)), np.zeros((3, 2))], [0, 1], "X: expected sequences .T, D. with the same D"),
        ([[1.0, np.nan]], [0], "got NaN in row 0, column 1"),
        ([np.zeros((0, 2))], [0], "at least one row"),
    ],
)
def test_wrong_data_are_named(X, y, words):
    with pytest.raises((ShapeError, DTypeError), match=words):
        fitted(X, y)


def test_wrong_calls_are_named(plain):
    with pytest.raises(NotFitted):
        SequenceClassifier().predict(["a"])
    with pytest.raises(DTypeError, match="X: expected a list of texts"):
        plain.predict("a text")
    with pytest.raises(DTypeError, match="vectors: expected None, because X holds numbers"):
        fitted(np.zeros((4, 3)) + np.arange(4)[:, None], [0, 1, 0, 1], vectors="x.txt")


# scikit-learn would warn of a column of labels; here it is taken as it is.
TAKEN = {"check_supervised_y_2d"}


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of scikit-learn, on what is not installed
def test_scikit_learns_own_checks():
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    options = {
        "epochs": 30,
        "batch_size": 16,
        "learning_rate": 1e-2,
        "dropout": 0.0,
        "random_state": 0,
        "device": "cpu",
    }
    results = checks.check_estimator(SequenceClassifier(**options), on_fail=None)
    assert {result["check_name"] for result in results if result["status"] == "failed"} == TAKEN
    assert sum(result["status"] == "passed" for result in results) > 45


@pytest.mark.oracle
def test_in_pipelines_and_searches():
    pytest.importorskip("sklearn")
    from sklearn.model_selection import GridSearchCV, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    assert cross_val_score(SequenceClassifier(**SMALL), DATA.texts, DATA.labels, cv=2).shape == (2,)
    search = GridSearchCV(SequenceClassifier(**SMALL), {"pooling": ["max", "mean"]}, cv=2).fit(DATA.texts, DATA.labels)
    assert search.best_estimator_.predict(["a fine film"]).shape == (1,)
    shout = FunctionTransformer(lambda texts: [text.upper() for text in texts])
    assert make_pipeline(shout, SequenceClassifier(**SMALL)).fit(DATA.texts, DATA.labels).predict(["A"]).shape == (1,)


# -- words ---------------------------------------------------------------------------------------------------


def test_words_and_their_pieces():
    assert split("It isn't GOOD,  is it?", True) == ["it", "isn't", "good", ",", "is", "it", "?"]
    assert split("Good", False) == ["Good"]
    assert pieces("ab", 10**9) == pieces("ab", 10**9) and len(pieces("ab", 10**9)) == 2  # <ab, ab>
    assert len(pieces("abc", 10**9)) == 3 + 2  # <ab abc bc>, <abc abc>
    assert all(1 <= number <= 7 for number in pieces("something", 7))
    table = WordTable.learn(["a a b", "a c"], True, 2, 0)
    assert table.words == ["a"] and len(table) == 2
    encoded = table.encode(["b a", ""])
    assert [s.tolist() for s in encoded.sequences] == [[0, 1], [2]] and encoded.ids.tolist() == [0, 1, 0]
    assert encoded.grams.shape == (3, 0)


def test_words_begin_with_the_vectors_of_a_file(tmp_path):
    lines = ["fine 1 2 3", "other 4 5 6", "dull -1 -2 -3"]
    for text in ("\n".join(lines), "3 3\n" + "\n".join(lines)):  # GloVe's form and word2vec's
        (tmp_path / "v.txt.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
        found, size = read_vectors(tmp_path / "v.txt.gz", ["fine", "dull", "nowhere"])
        assert size == 3 and {word: v.tolist() for word, v in found.items()} == {
            "fine": [1, 2, 3],
            "dull": [-1, -2, -3],
        }
    classifier = fitted(vectors=tmp_path / "v.txt.gz", epochs=1, learning_rate=1e-9)
    number = classifier._table.words.index("fine") + 1
    np.testing.assert_allclose(classifier.model_.words.own.weight.data[number], [1, 2, 3], atol=1e-4)
    classifier.save(tmp_path / "c.safetensors")
    (tmp_path / "v.txt.gz").unlink()
    again = SequenceClassifier.load(tmp_path / "c.safetensors", "cpu")
    assert (again.predict_proba(DATA.texts) == classifier.predict_proba(DATA.texts)).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fine 1 2\ndull 1\n", "line 2: expected 2 numbers, as in the lines before, got 1"),
        ("fine 1 x\n", "line 1: expected numbers after the word"),
        ("fine 1 nan\n", "line 1: expected finite numbers"),
        ("other 1 2\n", "expected vectors of words in the training texts"),
        ("fine 1 2\n\n", "line 2: expected a word and its numbers"),
    ],
)
def test_broken_vectors_are_named_by_line(tmp_path, text, words):
    (tmp_path / "v.txt").write_text(text)
    with pytest.raises(FormatError, match=words):
        read_vectors(tmp_path / "v.txt", ["fine", "dull"])


def test_batches_have_examples_of_about_one_length():
    lengths = np.random.default_rng(0).integers(1, 50, 1000)
    batches = ByLength(lengths, 20, lambda numbers: numbers, np.random.default_rng(1))
    first, second = ([batch.tolist() for batch in batches] for _ in range(2))
    assert first != second and sorted(itertools.chain.from_iterable(first)) == list(range(1000))
    assert np.mean([np.ptp(lengths[batch]) for batch in first]) < 3
    other = ByLength(lengths, 20, lambda numbers: numbers, np.random.default_rng(1))
    passing = iter(other)
    for _ in range(7):
        next(passing)
    again = ByLength(lengths, 20, lambda numbers: numbers, np.random.default_rng(9))
    again.load_state_dict(other.state_dict())
    assert [batch.tolist() for batch in again] == first[7:]


# -- files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", [False, True])
def test_a_saved_classifier_is_the_same(tmp_path, plain, numbers):
    X = np.random.default_rng(0).standard_normal((30, 4)) if numbers else DATA.texts
    classifier = fitted(X, np.arange(30) % 3, num_layers=2, pooling="attention") if numbers else plain
    classifier.save(tmp_path / "c.safetensors")
    again = SequenceClassifier.load(tmp_path / "c.safetensors", "cpu")
    assert (again.predict_proba(X) == classifier.predict_proba(X)).all()
    assert again.classes_.tolist() == classifier.classes_.tolist()
    again.save(tmp_path / "d.safetensors")
    assert (tmp_path / "d.safetensors").read_bytes() == (tmp_path / "c.safetensors").read_bytes()


def test_files_of_strangers_are_refused_by_name(tmp_path, plain):
    file = tmp_path / "c.safetensors"
    plain.save(file)
    arrays, metadata = load_arrays(file)
    header = json.loads(metadata[HEADER])

    def changed(part, **values):
        return {**header, part: {**header[part], **values}}

    table = header["fitted"]["table"]
    cases = [
        ({**header, "kind": "forecaster"}, arrays),
        (changed("params", hidden_size=10**9), arrays),
        (changed("params", ngram_buckets=10**9), arrays),
        (changed("params", pooling="attention"), arrays),
        (changed("params", num_layers=3), arrays),
        (changed("fitted", table={**table, "words": table["words"][:-1]}), arrays),
        (changed("fitted", table={**table, "words": [1, 2]}), arrays),
        (changed("fitted", table={**table, "buckets": 7}), arrays),
        (changed("fitted", table=None), arrays),
        (changed("fitted", classes={"dtype": "<U8", "values": ["one"]}), arrays),
        (changed("fitted", classes={"dtype": "O", "values": ["one"]}), arrays),
        (changed("fitted", classes={"dtype": "nothing", "values": []}), arrays),
        (header, {name: array for name, array in arrays.items() if name != "linear.weight"}),
        (header, {**arrays, "linear.bias": arrays["linear.bias"] * np.nan}),
    ]
    for broken, others in cases:
        save_arrays(file, others, {HEADER: json.dumps(broken)})
        with pytest.raises(FormatError, match=r"c\.safetensors: expected"):
            SequenceClassifier.load(file, "cpu")


@pytest.mark.parametrize("step", [2, 9])
def test_a_run_stopped_in_any_step_goes_on_to_the_same_bits(tmp_path, monkeypatch, step):
    from gpulstm.labs.sentiment import estimator

    fit = {"run": Run(RunFiles.of(tmp_path / "a.safetensors"), checkpoint_every=3)}
    SequenceClassifier(**SMALL).fit(DATA.texts, DATA.labels, **fit)
    run = {"files": RunFiles.of(tmp_path / "b.safetensors"), "checkpoint_every": 3}
    calls, whole = iter(range(1, 1000)), estimator.cross_entropy

    def dying(*args, **options):
        if next(calls) == step:
            raise Interrupted
        return whole(*args, **options)

    monkeypatch.setattr(estimator, "cross_entropy", dying)
    with pytest.raises(Interrupted):
        SequenceClassifier(**SMALL).fit(DATA.texts, DATA.labels, run=Run(**run))
    monkeypatch.undo()
    SequenceClassifier(**SMALL).fit(DATA.texts, DATA.labels, run=Run(**run, resume=True))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


# -- texts ---------------------------------------------------------------------------------------------------


def test_tables_of_texts(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text('text,label\n"a, b",x\n"c\nd",y\ne,x\nf,y\n')
    assert read_table(file).texts == ["a, b", "c\nd", "e", "f"] and read_table(file).labels == ["x", "y", "x", "y"]
    file.write_bytes(gzip.compress("größe\tart\tsinn\nä\t1\tx\nö\t2\ty\nü\t1\tx\nß\t2\ty\n".encode("latin-1"), mtime=0))
    read = read_table(file, "größe", "3", encoding="latin-1")
    assert read.texts == ["ä", "ö", "ü", "ß"] and read.labels == ["x", "y", "x", "y"]


def test_a_file_or_a_folder_for_each_class(tmp_path):
    (tmp_path / "good.txt").write_text("one\n\ntwo\n")
    (tmp_path / "bad").mkdir()
    for name in ("b.txt", "a.txt"):
        (tmp_path / "bad" / name).write_text(f"{name}\nmore")
    read = read_classes([f"good={tmp_path / 'good.txt'}", f"bad={tmp_path / 'bad'}"])
    assert read.texts == ["one", "two", "a.txt more", "b.txt more"] and read.labels == ["good", "good", "bad", "bad"]


def test_made_texts_need_the_order_of_their_words():
    data = generated(1000)
    assert len(set(data.labels)) == 2 and data.labels.count("positive") == 500
    assert any("not" in text for text in data.texts) and generated(10).texts == generated(10).texts


def test_the_page_is_html_whatever_the_texts_say():
    text = page([Weighed("<b>", 0.5, ["<script>", "&"], np.array([1.0, 0.5]))])
    assert "<script>" not in text and "&lt;script&gt;" in text and "&amp;" in text and "&lt;b&gt; 50%" in text


# -- the commands --------------------------------------------------------------------------------------------

QUICK = ["--hidden", "8", "--embedding", "8", "--ngram-buckets", "20", "--epochs", "1", "--device", "cpu"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [f"{text}\t{label}" for text, label in zip(DATA.texts, DATA.labels, strict=True)]
    (tmp_path / "t.tsv").write_text("\n".join(["text\tlabel", *lines]))
    return tmp_path


def sentiment(*args):
    return _run(["sentiment", *args])


def test_the_default_command_and_predictions_line_by_line(here, capsys, monkeypatch):
    assert sentiment("train", *QUICK) == 0
    said = capsys.readouterr().out
    for words in ("generated from templates", "LSTM", "naive Bayes, words and pairs", "always "):
        assert words in said
    names = {"sentiment.safetensors", "sentiment.checkpoint.safetensors", "sentiment.png", "t.tsv"}
    assert {path.name for path in here.iterdir()} == names
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a fine film\n\nso <dull>\n")))
    assert sentiment("predict", "sentiment.safetensors", "--words", "--html", "p.html") == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 3 and rows[0][0] in ("positive", "negative") and rows[0][2] == "a fine film"
    assert "&lt;" in (here / "p.html").read_text()
    assert sentiment("predict", "sentiment.safetensors", "t.tsv", "--html", "p.html") == 2
    assert "p.html: exists already" in capsys.readouterr().err
    assert sentiment("info", "sentiment.safetensors") == 0


def test_a_resumed_command_gives_the_same_bits(here, capsys):
    args = ["train", "t.tsv", *QUICK, "--min-count", "1"]
    assert sentiment(*args, "--out", "a.safetensors", "--checkpoint-every", "1") == 0
    assert sentiment(*args, "--out", "b.safetensors") == 0
    assert (here / "a.safetensors").read_bytes() == (here / "b.safetensors").read_bytes()
    assert sentiment(*args, "--out", "a.safetensors") == 2
    assert sentiment(*args, "--out", "a.safetensors", "--resume") == 0
    assert (here / "a.safetensors").read_bytes() == (here / "b.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("content", "args", "words"),
    [
        (None, ["none.csv"], "none.csv"),
        (None, ["."], "."),
        ("", ["x.csv"], "expected a table, got an empty file"),
        ("text,label\n", ["x.csv"], "expected texts of at least two classes, got none"),
        ("text,label\na,x\nb,x\n", ["x.csv"], "expected texts of at least two classes, got x"),
        ("text,label\na,x\nb,x\nc,y\n", ["x.csv"], "expected at least 2 texts of each class, got 1 of 'y'"),
        ("text,label\na,x\n,y\n", ["x.csv"], "line 3: text: expected a value, got a missing one"),
        ("text,label\na,x\nb,NA\n", ["x.csv"], "line 3: label: expected a value"),
        ("text,label\na,x,z\n", ["x.csv"], "line 2: expected 2 cells, got 3"),
        ("a,b,c\n1,2,3\n", ["x.csv"], "expected --text, one of the columns a, b, c"),
        ("a,b,c\n1,2,3\n", ["x.csv", "--text", "a", "--label", "a"], "label: expected another column"),
        ("a,b,c\n1,2,3\n", ["x.csv", "--text", "a", "--label", "9"], "expected --label, one of the columns"),
        ("a\xff", ["x.csv"], "expected UTF-8 text"),
        (None, ["t.tsv", "--class", "a=b"], "class: expected either a table or --class"),
        (None, ["--class", "a"], "class: expected NAME=PATH, got 'a'"),
        (None, ["--class", "a=none.txt"], "none.txt"),
        (None, ["--class", "a=t.tsv"], "expected texts of at least two classes, got a"),
        (None, ["--class", "a=t.tsv", "--text", "x"], "expected none with --class"),
        (None, ["t.tsv", "--test", "0"], "test: expected a share"),
        (None, ["t.tsv", "--test", "1"], "test: expected a share"),
        (None, ["t.tsv", "--validation", "1"], "validation_fraction"),
        (None, ["t.tsv", "--vectors", "none.txt"], "none.txt"),
        (None, ["t.tsv", "--out", "t.tsv"], "t.tsv"),
        (None, ["t.tsv", "--out", "no/such/m.safetensors"], "cannot be written"),
        (None, ["t.tsv", "--delimiter", "ab"], "delimiter: expected one character"),
        (None, ["t.tsv", "--encoding", "klingon"], "encoding: expected"),
        (None, ["t.tsv", "--lr", "0"], "learning_rate"),
        (None, ["t.tsv", "--picture", "p.xyz"], "p.xyz"),
    ],
)
def test_broken_input_is_refused_in_one_line(here, content, args, words, capsys):
    if content is not None:
        (here / "x.csv").write_bytes(content.encode("latin-1"))
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    assert sentiment("train", *args, *QUICK) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and error[0].startswith("gpulstm: error: ") and words in error[0]
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before


@pytest.mark.parametrize("args", [["none.safetensors"], ["t.tsv"], ["m.safetensors", "none.txt"]])
def test_predictions_of_broken_input(here, plain, args, capsys):
    plain.save("m.safetensors")
    assert sentiment("predict", *args) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1


def test_the_benchmark_runs(tmp_path, capsys):
    from benchmarks import sentiment as benchmark

    assert benchmark.main(["--quick", "--out", str(tmp_path)]) == 0
    assert "naive Bayes" in capsys.readouterr().out
    rows = json.loads((tmp_path / "sentiment-rt-polarity.json").read_text())["rows"]
    assert [row["fold"] for row in rows if row["who"] == "gpulstm"] == [0, 1]
    parts = benchmark.folds(["a"] * 30 + ["b"] * 20, 10)
    assert sorted(np.concatenate(parts).tolist()) == list(range(50)) and {len(part) for part in parts} == {5}
    assert benchmark.main(["--data", str(tmp_path)]) == 2

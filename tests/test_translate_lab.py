"""The translation lab: its decoder, vocabularies, beam search, the Translator, and files of sentences."""

import datetime
import gzip
import importlib.util
import itertools
import json

import numpy as np
import pytest

from gpulstm import random
from gpulstm.errors import DTypeError, FormatError, NotFitted, ShapeError
from gpulstm.io.files import load_arrays, save_arrays
from gpulstm.labs.model_file import HEADER
from gpulstm.labs.translate import Translator
from gpulstm.labs.translate.bleu import bleu
from gpulstm.labs.translate.buckets import Buckets, tokens_in
from gpulstm.labs.translate.dates import dates, ordinal, written
from gpulstm.labs.translate.decoder import decode
from gpulstm.labs.translate.model import TranslationModel, log_softmax, translation_loss
from gpulstm.labs.translate.pairs import read_pairs
from gpulstm.labs.translate.report import Report
from gpulstm.labs.translate.search import penalty, search, translate
from gpulstm.labs.translate.sentences import held_out
from gpulstm.labs.translate.tokens import BEGIN, END, UNKNOWN, BytePairs, Words, split
from gpulstm.tape import no_grad
from gpulstm.train.batch import IGNORED
from tests.conftest import GPUS, require

RNG = np.random.default_rng(0)
NUMBERS = [" ".join(RNG.choice(["One", "Two", "Three"], RNG.integers(1, 5))) for _ in range(120)]
FIGURES = [line.replace("One", "1").replace("Two", "2").replace("Three", "3") for line in NUMBERS]
SMALL = {"hidden_size": 8, "embedding_size": 6, "epochs": 2, "batch_size": 16, "random_state": 0, "device": "cpu"}


def fitted(X=NUMBERS, y=FIGURES, **options):
    return Translator(**{**SMALL, **options}).fit(X, y)


@pytest.fixture(scope="module")
def plain():
    return fitted()


@pytest.fixture(scope="module")
def able():
    """One that has learnt to translate."""
    return fitted(hidden_size=32, embedding_size=32, epochs=60, learning_rate=1e-2)


# -- the decoder ---------------------------------------------------------------------------------------------

S, B, H, T, D = 3, 2, 4, 5, 3
SHAPES = [(S, B, 4 * H), (B, H), (B, H), (T, B, H), (T, B, D), (4 * H, H), (4 * H, D), (D, H)]
SEEN = np.arange(T) < np.array([[5], [3]])


def decoder_case(dtype=np.float64):
    generator = np.random.default_rng(3)
    arrays = [generator.normal(size=shape).astype(dtype) for shape in SHAPES]
    drop = (2.0 * (generator.random((S, B, D)) < 0.5)).astype(dtype)
    return arrays, drop, generator.normal(size=(S, B, D)).astype(dtype)


def test_the_decoder_is_its_equations():
    (zx, h, c, keys, values, w_hh, w_fed, w_out), drop, _ = decoder_case()
    (got, attention), _ = decode(zx, h, c, keys, values, w_hh, w_fed, w_out, drop, SEEN)
    for b, a in itertools.product(range(B), [np.zeros(D)]):
        hb, cb = h[b], c[b]
        for t in range(S):
            i, f, g, o = np.split(zx[t, b] + w_hh @ hb + w_fed @ a, 4)
            i, f, o = (1 / (1 + np.exp(-x)) for x in (i, f, o))
            cb = f * cb + i * np.tanh(g)
            hb = o * np.tanh(cb)
            n = SEEN[b].sum()
            weights = np.exp(keys[:n, b] @ hb)
            weights /= weights.sum()
            a = np.tanh(weights @ values[:n, b] + w_out @ hb) * drop[t, b]
            np.testing.assert_allclose(got[t, b], a, rtol=1e-12)
            np.testing.assert_allclose(attention[t, b], np.pad(weights, (0, T - n)), rtol=1e-12)


@pytest.mark.parametrize("case", ["dropped", "all seen", "neither"])
def test_the_decoders_gradients_are_central_differences(case):
    arrays, drop, dout = decoder_case()
    rest = {"dropped": (drop, SEEN), "all seen": (drop, None), "neither": (None, None)}[case]

    def loss(changed):
        return float((decode(*changed, *rest)[0][0] * dout).sum())

    gradients = decode(*arrays, *rest)[1](dout, None)
    assert gradients[8:] == (None, None)
    for k, gradient in enumerate(gradients[:8]):
        for index in np.ndindex(gradient.shape):
            up, down = ([x.copy() for x in arrays] for _ in range(2))
            up[k][index] += 1e-6
            down[k][index] -= 1e-6
            assert gradient[index] == pytest.approx((loss(up) - loss(down)) / 2e-6, rel=1e-5, abs=1e-8)


def test_the_decoder_is_the_same_on_every_device(device):
    arrays, drop, dout = decoder_case(np.float32)
    want, pullback = decode(*arrays, drop, SEEN)
    with device:
        got, pullback_there = decode(*map(device.asarray, (*arrays, drop, SEEN)))
        gradients = pullback_there(device.asarray(dout), None)
    for a, b in zip((*got, *gradients[:8]), (*want, *pullback(dout, None)[:8]), strict=True):
        np.testing.assert_allclose(device.to_numpy(a), b, rtol=1e-4, atol=1e-5)


def small_model(sources=7, targets=5, seed=0, tied=True, **options):
    sizes = {"embedding_size": 4, "hidden_size": 5, "num_layers": 1, "dropout": 0.0, "device": "cpu"}
    with random.using(np.random.default_rng(seed)):
        model = TranslationModel(sources, targets, tied=tied, dtype="float64", **{**sizes, **options})
    for parameter in model.parameters():
        parameter.data[...] *= 3  # far from uniform
    return model.eval()


@pytest.mark.parametrize("tied", [True, False])
def test_step_by_step_is_all_at_once_and_padding_changes_nothing(tied):
    model = small_model(tied=tied, num_layers=2)
    source, lengths = np.array([[3, 4], [5, 6], [6, 0]]), np.array([3, 2])
    target = np.array([[BEGIN, BEGIN], [3, 4], [4, 3]])
    with no_grad():
        want = model.logits(model(source, lengths, target)[0]).data
        state = model.start(source, lengths)
        for t in range(3):
            logits, state = model.step(target[t], state)
            np.testing.assert_allclose(logits, want[t], rtol=1e-12)
        alone = model.logits(model(source[:2, 1:], lengths[1:], target[:, 1:])[0]).data
    np.testing.assert_allclose(alone[:, 0], want[:, 1], rtol=1e-12)


def test_the_loss_is_of_the_tokens_that_count():
    model = small_model()
    source = (np.array([[3, 4], [5, 6]]), np.array([2, 2]))
    targets = np.array([[BEGIN, BEGIN], [3, 4], [END, 3], [IGNORED, END]])
    with no_grad():
        vectors, _ = model(*source, np.where(targets == IGNORED, 0, targets)[:-1])
        log_p = log_softmax(np, model.logits(vectors).data)
        found = [(t, b, targets[t + 1, b]) for t in range(3) for b in range(2) if targets[t + 1, b] != IGNORED]
        nats = [-log_p[place] for place in found]
        spread = [-log_p[t, b].mean() for t, b, _ in found]
        assert translation_loss(model, (source, targets), 0.0).item() == pytest.approx(np.mean(nats), rel=1e-12)
        smoothed = translation_loss(model, (source, targets), 0.1).item()
    assert smoothed == pytest.approx(0.9 * np.mean(nats) + 0.1 * np.mean(spread), rel=1e-12)
    assert tokens_in((source, targets)) == 5


def test_every_parameter_learns():
    for tied in (True, False):
        model = small_model(tied=tied)
        source = (np.array([[3, 4], [5, 6]]), np.array([2, 1]))
        translation_loss(model, (source, np.array([[BEGIN, BEGIN], [3, 4], [END, END]])), 0.1).backward()
        assert all(np.abs(parameter.grad.data).max() > 0 for parameter in model.parameters())


# -- beam search ---------------------------------------------------------------------------------------------


def all_translations(model, source, alpha, longest):
    """(score, tokens) of every translation that ends within ``longest`` tokens, or has so many."""
    found = []

    def grow(tokens, log_p, state):
        if len(tokens) == longest:
            found.append((log_p / penalty(longest, alpha), tokens))
            return
        logits, after = model.step(np.array([tokens[-1] if tokens else BEGIN]), state)
        row = log_softmax(np, logits)[0]
        found.append(((log_p + row[END]) / penalty(len(tokens) + 1, alpha), tokens))
        for token in range(END + 1, len(row)):
            grow([*tokens, token], log_p + row[token], after)

    with no_grad():
        grow([], 0.0, model.start(source[:, None], np.array([len(source)])))
    return max(found, key=lambda one: one[0])


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_finds_the_best_of_all_translations(alpha, seed):
    model = small_model(seed=seed)
    sources = [np.array([3, 4, 5]), np.array([6]), np.array([4, 4])]
    want = [all_translations(model, source, alpha, 4) for source in sources]
    found = search(model, sources, 40, alpha, 4)
    assert [tokens for _, tokens in found] == [tokens for _, tokens in want]
    assert [score for score, _ in found] == pytest.approx([score for score, _ in want], rel=1e-12)
    assert translate(model, sources, 40, alpha, 4) == [tokens for _, tokens in want]


@pytest.mark.parametrize("width", [2, 3, 5])
def test_a_beams_score_is_that_of_its_translation(width):
    """Hypotheses change places in every step: each keeps its own tokens and state."""
    for seed in range(6):
        model = small_model(targets=9, seed=seed)
        sources = [np.array([3, 4, 5]), np.array([6, 3])]
        with no_grad():
            for source, (score, tokens) in zip(sources, search(model, sources, width, 1.0, 8), strict=True):
                inputs = np.array([BEGIN, *tokens])[:, None]
                logits = model.logits(model(source[:, None], np.array([len(source)]), inputs)[0]).data[:, 0]
                wanted = [*tokens, END][: min(len(tokens) + 1, 8)]
                log_p = sum(row[token] for row, token in zip(log_softmax(np, logits), wanted, strict=False))
                assert score == pytest.approx(log_p / penalty(len(wanted), 1.0), rel=1e-12)


def test_greedy_search_takes_the_likeliest_token():
    for seed in range(5):
        model, source, tokens = small_model(seed=seed), np.array([3, 5]), []
        with no_grad():
            state = model.start(source[:, None], np.array([2]))
            while len(tokens) < 6:
                logits, state = model.step(np.array([tokens[-1] if tokens else BEGIN]), state)
                logits[0, [UNKNOWN, BEGIN]] = -np.inf
                if (token := int(logits[0].argmax())) == END:
                    break
                tokens.append(token)
        assert translate(model, [source], beam_width=1, max_length=6) == [tokens]


def test_sentences_are_translated_the_same_alone_and_together(able):
    together = able.predict(NUMBERS[:30])
    assert together == [able.predict([line])[0] for line in NUMBERS[:30]]
    assert able.predict([*NUMBERS[:2], "", *NUMBERS[2:4]]) == [*together[:2], "", *together[2:4]]


def test_the_length_penalty_of_wu_et_al():
    assert penalty(1, 0.6) == 1 and penalty(7, 1.0) == 2 and penalty(50, 0.0) == 1


# -- tokens --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sentence", "tokens"),
    [
        ("A man, in a hat.", ["▁A", "▁man", ",", "▁in", "▁a", "▁hat", "."]),
        ("it's 1999-03!", ["▁it", "'", "s", "▁1", "9", "9", "9", "-", "0", "3", "!"]),
        ("  zwei   Gräser_x ", ["▁zwei", "▁Gräser", "_", "x"]),
        ("漢字 (ok)", ["▁漢字", "▁(", "ok", ")"]),
    ],
)
def test_words_say_where_the_spaces_were(sentence, tokens):
    assert split(sentence, False) == tokens
    words = Words.learn([sentence], 100, 1, False)
    ids = words.encode(sentence)
    assert words.tokens(ids) == tokens and words.decode(ids) == " ".join(sentence.split())


def test_rare_words_are_unknown():
    words = Words.learn(["b a a", "A c"], 100, 2, True)
    assert words.tokens(words.encode("a b")) == ["▁a", "<unk>"] and len(words) == 4
    assert Words.learn(["b a a b c"], 5, 1, False).to_json() == {"words": ["▁a", "▁b"], "lowercase": False}
    again = Words.from_json(json.loads(json.dumps(words.to_json())))
    assert again.to_json() == words.to_json()


def test_byte_pairs_join_to_the_sentence():
    require("tokenizers")
    pairs = BytePairs.learn([*NUMBERS, "A hat, it's 12!"], 30, 1, False)
    for sentence in (*NUMBERS[:3], "A hat, it's 12!", "Threet hat"):
        assert pairs.decode(pairs.encode(sentence)) == sentence
    assert len(pairs) == 30 and pairs.tokens([UNKNOWN, BEGIN, END]) == ["<unk>", "<s>", "</s>"]
    assert (BytePairs.from_json(pairs.to_json()).encode("Three hat") == pairs.encode("Three hat")).all()
    assert BytePairs.learn(["ABC"] * 3, 20, 1, True).decode([3, 4, 5]) == "abc"


def test_without_tokenizers_and_sacrebleu_the_extra_is_named(plain, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        FormatError,
        match=r"level: expected the library tokenizers .* pip install tokenizers \(it is in the extra labs\)",
    ):
        fitted(level="bpe")
    with pytest.raises(
        FormatError, match=r"score: expected sacrebleu, .* pip install sacrebleu \(it is in the extra labs\)"
    ):
        plain.score(NUMBERS, FIGURES)
    assert "BLEU: sacrebleu is not installed" in Report.of(plain, NUMBERS[:3], FIGURES[:3]).lines()


# -- batches -------------------------------------------------------------------------------------------------


def ids(lengths):
    return [np.full(length, number, np.int64) for number, length in enumerate(lengths)]


def test_buckets_have_every_pair_once_and_little_padding():
    lengths = np.random.default_rng(0).integers(1, 30, 500)
    buckets = Buckets(ids(lengths), ids(lengths + 2), 16, np.random.default_rng(1))
    orders = []
    for _ in range(2):
        numbers, places, used = [], 0, 0
        for (source, sizes), targets in buckets:
            assert source.shape == (sizes.max(), len(sizes)) and targets.shape == (sizes.max() + 2, len(sizes))
            assert (source[0] == targets[0]).all()
            numbers += source[0].tolist()
            places, used = places + source.size, used + int(sizes.sum())
        assert sorted(numbers) == list(range(500)) and used / places > 0.9
        assert (np.diff(lengths[numbers[::16]]) < 0).sum() > 8  # batches of all lengths take turns
        orders.append(numbers)
    assert orders[0] != orders[1]
    assert len(buckets) == 32


def test_buckets_go_on_from_a_saved_position():
    lengths = np.random.default_rng(0).integers(1, 9, 50)
    first = Buckets(ids(lengths), ids(lengths), 4, np.random.default_rng(1))
    passing = iter(first)
    for _ in range(5):
        next(passing)
    second = Buckets(ids(lengths), ids(lengths), 4, np.random.default_rng(7))
    second.load_state_dict(first.state_dict())
    want = [batch[1].tobytes() for batch in passing] + [batch[1].tobytes() for batch in first]
    assert [batch[1].tobytes() for batch in second] + [batch[1].tobytes() for batch in second] == want


def test_what_is_held_out():
    chosen = held_out(10, 0.3, np.random.default_rng(0))
    assert chosen.sum() == 3 and held_out(1, 0.9, np.random.default_rng(0)).sum() == 0


# -- dates ---------------------------------------------------------------------------------------------------


def test_the_dates_are_different_and_right():
    sources, targets = dates(300, seed=1)
    assert len(set(sources)) == 300 and dates(300, seed=1) == (sources, targets)
    day = datetime.date(2013, 5, 7)
    assert written(day, "{weekday} {day} {month} {year}") == "Tuesday 7 May 2013"
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 22, 31)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "31st"
    ]  # fmt: skip
    assert all(datetime.date.fromisoformat(target) for target in targets)


# -- the estimator -------------------------------------------------------------------------------------------


def test_numbers_are_translated(able):
    right = np.mean([got == want for got, want in zip(able.predict(NUMBERS), FIGURES, strict=True)])
    assert right > 0.9
    targets, sources, weights = able.attention("Two Three One")
    assert targets == ["▁2", "▁3", "▁1", "</s>"] and sources == ["▁Two", "▁Three", "▁One"]
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    assert able.token_accuracy(NUMBERS, FIGURES) > 0.95
    assert able.predict(["Two Klingon"], beam_width=2, length_penalty=0)[0].startswith("2")


def test_bleu_by_sacrebleu(able):
    sacrebleu = require("sacrebleu")
    answers = able.predict(NUMBERS)
    assert able.score(NUMBERS, FIGURES) == sacrebleu.corpus_bleu(answers, [FIGURES]).score / 100 > 0.8
    assert bleu(["A B C D"], ["a b c d"], lowercase=True) == pytest.approx(100)
    assert bleu(["A B C D"], ["a b c d"]) < 50


def test_the_same_seed_gives_the_same_bits_and_leaves_the_default_generator_alone(plain):
    random.manual_seed(7)
    want = random.default_generator().random()
    random.manual_seed(7)
    again = fitted()
    assert random.default_generator().random() == want

    def bits(translator):
        return {name: array.tobytes() for name, array in translator.model_.state_dict().items()}

    assert bits(again) == bits(plain) != bits(fitted(random_state=1))


@pytest.mark.parametrize("device", GPUS, indirect=True)
def test_a_gpu_learns_and_writes_the_same(device):
    there, here = (fitted(NUMBERS[:24], FIGURES[:24], dropout=0.2, device=kind) for kind in ("cuda", "cpu"))
    assert there._backend().is_cuda
    arrays = there.model_.state_dict()
    for name, want in here.model_.state_dict().items():
        np.testing.assert_allclose(device.to_numpy(arrays[name]), want, rtol=1e-3, atol=1e-4)
    assert there.predict(NUMBERS[:4]) == here.predict(NUMBERS[:4])
    assert there.attention(NUMBERS[0])[:2] == here.attention(NUMBERS[0])[:2]
    assert there.token_accuracy(NUMBERS, FIGURES) == here.token_accuracy(NUMBERS, FIGURES)


def test_the_validation_loss_is_without_smoothing_and_dropout():
    translator = Translator(**SMALL, label_smoothing=0.3, dropout=0.5, patience=9)
    translator.fit(NUMBERS[16:], FIGURES[16:], validation=(NUMBERS[:16], FIGURES[:16]))
    (batch,) = Buckets(*translator._encoded(NUMBERS[:16], FIGURES[:16]), 16)
    with no_grad():
        loss = translation_loss(translator.model_, batch, 0.0).item()
    assert loss == pytest.approx(min(record["val_loss"] for record in translator.history_), rel=1e-6)


def test_other_options():
    for options in ({"tied": False}, {"num_layers": 2}, {"lowercase": True}, {"dtype": "float64"}):
        translator = fitted(**options)
        assert len(translator.predict(["One Two"])) == 1
    assert fitted(lowercase=True).source_vocabulary_.tokens([3])[0].islower()
    given = Translator(**SMALL).fit(NUMBERS[5:], FIGURES[5:], validation=(NUMBERS[:5], FIGURES[:5]))
    assert given.history_[-1]["val_loss"] is not None
    assert Translator(**SMALL, validation_fraction=0).fit(NUMBERS, FIGURES).history_[-1]["val_loss"] is None
    assert Translator(**SMALL).fit(np.array(NUMBERS), np.array(FIGURES, object)).left_out_ == 0
    short = Translator(**SMALL, max_length=2, validation_fraction=0).fit(NUMBERS, FIGURES)
    assert short.left_out_ == sum(len(line.split()) > 2 for line in NUMBERS)


def test_byte_pairs_in_the_estimator(tmp_path):
    require("tokenizers")
    translator = fitted(level="bpe", vocabulary_size=30)
    translator.save(tmp_path / "t.safetensors")
    again = Translator.load(tmp_path / "t.safetensors", "cpu")
    assert again.predict(NUMBERS[:9]) == translator.predict(NUMBERS[:9])
    arrays, metadata = load_arrays(tmp_path / "t.safetensors")
    header = json.loads(metadata[HEADER])
    for other in ("{}", "no JSON", 5, header["fitted"]["source"].replace("</s>", "<end>")):
        changed = {**header, "fitted": {**header["fitted"], "source": other}}
        save_arrays(tmp_path / "t.safetensors", arrays, {HEADER: json.dumps(changed)})
        with pytest.raises(FormatError, match=r"t\.safetensors: expected a gpulstm translator"):
            Translator.load(tmp_path / "t.safetensors", "cpu")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"level": "letter"}, "level: expected 'word' or 'bpe', got 'letter'"),
        ({"vocabulary_size": 3}, "vocabulary_size: expected a whole number from 4"),
        ({"min_count": 0}, "min_count: expected a whole number from 1"),
        ({"min_count": 999}, "min_count: expected at most the count of the most common token, got 999"),
        ({"embedding_size": 0}, "embedding_size"),
        ({"beam_width": 0}, "beam_width"),
        ({"max_length": 0}, "max_length"),
        ({"max_length": 1, "validation_fraction": 0}, "max_length: expected pairs of at most 1 tokens"),
        ({"label_smoothing": 1.5}, "label_smoothing"),
        ({"length_penalty": -1}, "length_penalty"),
        ({"lowercase": "yes"}, "lowercase: expected True or False"),
        ({"tied": 1}, "tied: expected True or False"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"dropout": 1}, "dropout"),
        ({"random_state": -1}, "random_state"),
    ],
)
def test_wrong_parameters_are_named(options, words):
    long = options.get("max_length") == 1
    with pytest.raises((ShapeError, DTypeError), match=words):
        fitted(["One two"] * 4 if long else NUMBERS, ["1 2"] * 4 if long else FIGURES, **options)


@pytest.mark.parametrize(
    ("X", "y", "words"),
    [
        ("One", ["1"], r"X: expected a list of sentences, e.g. \[sentence\], got str"),
        (None, ["1"], "X: expected a list of sentences, got NoneType"),
        ([], [], "X: expected at least one sentence"),
        (["One", " "], ["1", "2"], r"X\[1\]: expected a sentence, got an empty string"),
        (["One"], [""], r"y\[0\]: expected a sentence, got an empty string"),
        (["One", 2], ["1", "2"], r"X\[1\]: expected a string, got 2"),
        (["One", None], ["1", "2"], r"X\[1\]: expected a string, got None"),
        (["One"], ["1", "2"], "y: expected 1 sentences, one for each in X, got 2"),
        (np.array([["One"]]), ["1"], r"X: expected \(N,\)"),
        (["One"], None, "y: expected a list"),
    ],
)
def test_wrong_data_are_named(X, y, words):
    with pytest.raises((ShapeError, DTypeError), match=words):
        Translator(**SMALL).fit(X, y)


def test_wrong_calls_are_named(plain):
    with pytest.raises(NotFitted, match="Translator: expected a fitted one"):
        Translator().predict(["One"])
    with pytest.raises(ShapeError, match="beam_width"):
        plain.predict(["One"], beam_width=0)
    with pytest.raises(ShapeError, match=r"source\[0\]: expected a sentence, got an empty string"):
        plain.attention(" ")
    with pytest.raises(ShapeError, match=r"validation\[1\]: expected 1 sentences"):
        Translator(**SMALL).fit(NUMBERS, FIGURES, validation=(["a"], ["b", "c"]))


# -- scikit-learn --------------------------------------------------------------------------------------------


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")  # of scikit-learn, on input that is no table
def test_scikit_learns_own_checks():
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    results = checks.check_estimator(Translator(**SMALL), on_fail=None)
    assert not {result["check_name"] for result in results if result["status"] == "failed"}
    clone = pytest.importorskip("sklearn.base").clone(Translator(**SMALL))
    assert clone.get_params() == Translator(**SMALL).get_params()


@pytest.mark.oracle
def test_in_searches():
    pytest.importorskip("sklearn")
    require("sacrebleu")
    from sklearn.model_selection import GridSearchCV, cross_val_score

    assert cross_val_score(Translator(**SMALL), NUMBERS, FIGURES, cv=2).shape == (2,)
    search = GridSearchCV(Translator(**SMALL), {"hidden_size": [4, 8]}, cv=2).fit(NUMBERS, FIGURES)
    assert len(search.best_estimator_.predict(NUMBERS[:2])) == 2


# -- files of sentences --------------------------------------------------------------------------------------


def test_pairs_from_two_files_or_a_table(tmp_path):
    (tmp_path / "a").write_bytes("eins\r\nzwei für\n".encode("latin-1"))
    (tmp_path / "b.gz").write_bytes(gzip.compress("one\ntwo for \n".encode("latin-1"), mtime=0))
    want = ["eins", "zwei für"], ["one", "two for"]
    assert read_pairs(tmp_path / "a", tmp_path / "b.gz", "latin-1") == want
    (tmp_path / "c.tsv").write_text("\ufeffeins\tone\nzwei für\ttwo for\n", encoding="utf-8")
    assert read_pairs(tmp_path / "c.tsv") == want
    (tmp_path / "d.tsv").write_text("eins\tone\n\n\ttwo\nzwei für\ttwo for\ndrei\t\n", encoding="utf-8")
    assert read_pairs(tmp_path / "d.tsv", skip_empty=True) == want


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ("1\n2\n3\n", "x\n", "b: expected 3 lines, as many as .*a has, got 1"),
        ("1\n", "x\ny\nz\n", "a: expected 3 lines, as many as .*b has, got 1"),
        ("1\n\n3\n \n", "x\ny\n\nw\n", "got empty lines: .*a, line 2, .*b, line 3, .*a, line 4; --skip-empty"),
        ("\n" * 9, "\n" * 9, "line 5 and 4 more"),
        ("", "", "a: expected pairs of sentences, got none"),
        ("1\tx\n2\n", None, "line 2: expected a sentence, a tab and its translation, got 1 cell; for parallel"),
        ("1\tx\ty\n", None, "line 1: expected a sentence, a tab and its translation, got 3 cells"),
        ("1\tx\n2\t\n", None, "got empty lines: .*a, line 2"),
        (b"1\n\xff\n", "x\ny\n", "a: expected UTF-8 text, got byte 0xff"),
        (b"1\n\0\n", "x\ny\n", "a zero byte in line 2"),
        (gzip.compress(b"1\n" * 9999, mtime=0)[:-20], "x\n", "lines, as many as|whole gzip file"),
    ],
)
def test_faults_are_named_by_line(tmp_path, a, b, words):
    for name, text in (("a", a), ("b", b)):
        if text is not None:
            (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FormatError, match=words):
        read_pairs(tmp_path / "a", None if b is None else tmp_path / "b")


# -- the model's file ----------------------------------------------------------------------------------------


def test_a_saved_translator_is_the_same(tmp_path):
    translator = fitted(num_layers=2, tied=False, dropout=0.2, lowercase=True)
    translator.save(tmp_path / "t.safetensors")
    again = Translator.load(tmp_path / "t.safetensors", "cpu")
    assert again.predict(NUMBERS[:20]) == translator.predict(NUMBERS[:20])
    assert again.get_params() == translator.get_params()
    again.save(tmp_path / "u.safetensors")
    assert (tmp_path / "u.safetensors").read_bytes() == (tmp_path / "t.safetensors").read_bytes()
    with pytest.raises(NotFitted):
        Translator().save(tmp_path / "v.safetensors")


def broken(header, arrays):
    """(what is wrong, a header and arrays in which it is)."""

    def changed(part, **values):
        return {**header, part: {**header[part], **values}}

    words = header["fitted"]["source"]
    yield "kind", {**header, "kind": "forecaster"}, arrays
    yield "version", {**header, "version": 2}, arrays
    yield "no fitted", {k: v for k, v in header.items() if k != "fitted"}, arrays
    yield "an unknown parameter", changed("params", colour=1), arrays
    yield "another level", changed("params", level="letter"), arrays
    yield "byte pairs of words", changed("params", level="bpe"), arrays
    for name in ("hidden_size", "num_layers", "embedding_size"):
        yield f"{name} of a giant", changed("params", **{name: 10**9}), arrays
        yield f"{name} of zero", changed("params", **{name: 0}), arrays
    yield "a text for a number", changed("params", embedding_size="6"), arrays
    yield "no vocabulary", changed("fitted", source=None), arrays
    yield "no words", changed("fitted", source={"words": [1, 2], "lowercase": False}), arrays
    yield "a word twice", changed("fitted", source={**words, "words": ["a", "a"]}), arrays
    yield "too few words", changed("fitted", source={**words, "words": words["words"][1:]}), arrays
    yield "too many words", changed("fitted", target={**words, "words": list(map(str, range(10_000)))}), arrays
    yield "no flag", changed("fitted", source={**words, "lowercase": 1}), arrays
    yield "a missing array", header, {k: v for k, v in arrays.items() if k != "bias"}
    yield "an array too many", header, {**arrays, "more": np.zeros(3, np.float32)}
    yield "an array of another shape", header, {**arrays, "bias": np.zeros(3, np.float32)}
    yield "an array that is not finite", header, {**arrays, "bias": arrays["bias"] * np.nan}


def test_files_of_strangers_are_refused_by_name(tmp_path, plain):
    file = tmp_path / "t.safetensors"
    plain.save(file)
    arrays, metadata = load_arrays(file)
    for what, header, others in broken(json.loads(metadata[HEADER]), arrays):
        save_arrays(file, others, {HEADER: json.dumps(header)})
        with pytest.raises(FormatError, match=r"t\.safetensors: expected") as error:
            Translator.load(file, "cpu")
        assert "\n" not in str(error.value), what
    file.write_bytes(b"no model")
    with pytest.raises(FormatError):
        Translator.load(file)

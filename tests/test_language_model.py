"""LanguageModel: the text lab with scikit-learn's habits."""

import math

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import DTypeError, FormatError, NotFitted, ShapeError
from gpulstm.labs import text as lab
from gpulstm.labs.language_model import SETTINGS, WINDOW, LanguageModel
from gpulstm.labs.text_training import Settings

PROSE = "the cat sat on the mat. the dog sat on the log. " * 60
SMALL = {
    "hidden_size": 12, "embedding_size": 6, "steps": 60, "batch_size": 4, "window": 16, "warmup": 5,
    "learning_rate": 0.02, "validate_every": 20, "random_state": 0, "device": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def fitted():
    return LanguageModel(**SMALL).fit(PROSE)


def test_it_is_the_text_lab(fitted):
    settings = Settings(
        hidden=12, embedding=6, steps=60, batch=4, window=16, warmup=5, lr=0.02, validate_every=20, seed=0
    )
    other = lab.train(PROSE, settings, device="cpu", progress=False)
    for name, array in fitted.model_.state_dict().items():
        assert (array == other.state_dict()[name]).all()
    assert "".join(fitted.sample("the ", 30, seed=1)) == "".join(lab.sample(other, "the ", 30, seed=1))
    parts = LanguageModel(**SMALL).fit([PROSE[:1000], PROSE[1000:]])
    joined = LanguageModel(**SMALL).fit(PROSE[:1000] + "\n\n" + PROSE[1000:])
    assert parts.score(PROSE) == joined.score(PROSE)


def test_every_setting_of_the_lab_is_a_parameter_with_the_same_default():
    usual, mine = Settings(), LanguageModel().get_params()
    assert {name: getattr(usual, name) for name in SETTINGS} == {name: mine[p] for name, p in SETTINGS.items()}
    assert set(SETTINGS) == set(Settings.__dataclass_fields__)


def test_the_score_is_the_mean_log_probability_of_the_tokens(fitted):
    text = (PROSE * 2)[: WINDOW + 40]  # longer than what is read at once
    numbers = fitted.model_.vocabulary.encode(text)
    logits = fitted.model_(numbers[:-1, None])[0].data[:, 0].astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    want = log_p[np.arange(len(numbers) - 1), numbers[1:]].mean()
    assert fitted.score(text) == pytest.approx(want, rel=1e-5)
    assert fitted.perplexity(text) == pytest.approx(math.exp(-want), rel=1e-5)
    two = [text[:100], text[100:]]
    assert fitted.score(two) == pytest.approx(
        (fitted.score(two[0]) * 99 + fitted.score(two[1]) * (len(two[1]) - 1)) / (len(text) - 2)
    )


def test_the_likeliest_token_follows(fitted):
    assert fitted.predict(["the cat sa", "the d"]).shape == (2,)
    assert fitted.predict("the ca")[0] == "".join(fitted.sample("the ca", 1, temperature=0))


def test_files_are_those_of_the_command(fitted, tmp_path):
    fitted.save(tmp_path / "m.safetensors")
    again = LanguageModel.load(tmp_path / "m.safetensors", "cpu")
    assert again.get_params() == fitted.get_params() and again.score(PROSE) == fitted.score(PROSE)
    lab.train(PROSE, Settings(hidden=8, steps=4, batch=4, window=16), out=tmp_path / "t.safetensors", progress=False)
    from_command = LanguageModel.load(tmp_path / "t.safetensors", "cpu")
    assert from_command.hidden_size == 8 and from_command.steps == 4
    (tmp_path / "bad.safetensors").write_bytes(b"no model")
    with pytest.raises(FormatError):
        LanguageModel.load(tmp_path / "bad.safetensors")


def test_wrong_calls_are_named(fitted):
    with pytest.raises(NotFitted, match="LanguageModel: expected a fitted one"):
        LanguageModel().score("ab")
    with pytest.raises(DTypeError, match="y: expected None"):
        LanguageModel(**SMALL).fit(PROSE, [1])
    with pytest.raises(DTypeError, match="X: expected a text or a list of texts"):
        LanguageModel(**SMALL).fit([1, 2])
    with pytest.raises(ShapeError, match="X: expected a text of at least 2 tokens"):
        fitted.score("a")
    with pytest.raises(FormatError, match="expected characters in the vocabulary"):
        fitted.score("ΩΩ")
    with pytest.raises(ShapeError, match="hidden_size: expected at least 1"):
        LanguageModel(**{**SMALL, "hidden_size": 0}).fit(PROSE)
    assert gl.LanguageModel is LanguageModel


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")  # of scikit-learn, on input that is no table
def test_scikit_learns_own_checks():
    sklearn_checks = pytest.importorskip("sklearn.utils.estimator_checks")
    results = sklearn_checks.check_estimator(LanguageModel(**SMALL), on_fail=None)
    failed = {result["check_name"]: result["exception"] for result in results if result["status"] == "failed"}
    assert not failed
    clone = pytest.importorskip("sklearn.base").clone(LanguageModel(**SMALL))
    assert clone.get_params() == LanguageModel(**SMALL).get_params()

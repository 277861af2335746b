"""The page that shows the inside of a language model: what is in it, and how it behaves in a browser."""

import base64
import json
import re

import numpy as np
import pytest

from gpulstm.cli import _run
from gpulstm.errors import FormatError
from gpulstm.labs import text as lab
from gpulstm.labs.text_corpus import Vocabulary
from gpulstm.labs.text_inspect import LEVELS, inspect
from gpulstm.labs.text_model import TextModel

TEXT = 'a <b>"&\n</script>\tab'


@pytest.fixture(scope="module")
def model():
    characters = sorted(set(TEXT + "xyz"))
    made = TextModel(
        Vocabulary("char", characters),
        embedding=4,
        hidden=6,
        layers=2,
        device="cpu",
        generator=np.random.default_rng(0),
    )
    made.lstm.bias_ih_l0.data[:] *= 8  # cells that pass 1
    made.eval()
    return made


def data_of(page):
    return json.loads(re.search(r"const data = (.*);\n", page).group(1))


def test_the_page_holds_the_traced_values_and_the_predictions(model):
    page = inspect(model, TEXT)
    data = data_of(page)
    assert data["tokens"] == list(TEXT) and data["layers"] == 2 and data["hidden"] == 6
    numbers = model.prompt(TEXT)[:, None]
    traced = model.lstm.trace(model.embedding(numbers))
    assert set(data["values"]) == set(traced)
    for name, packed in data["values"].items():
        steps = np.frombuffer(base64.b64decode(packed["data"]), np.int8).reshape(len(TEXT), 6)
        most = np.array(packed["most"])
        np.testing.assert_allclose(steps / LEVELS * most, traced[name][:, 0], atol=most.max() / LEVELS)
    logits = model(numbers)[0].data[:, 0]
    for n, shown in enumerate(data["predictions"]):
        assert shown[0][0] == model.vocabulary.tokens[int(logits[n].argmax())]
        assert [p for _, p in shown] == sorted((p for _, p in shown), reverse=True)


def test_the_page_stands_alone_and_the_text_cannot_leave_its_place(model):
    page = inspect(model, TEXT)
    assert page.count("</script>") == 1 and "http" not in page.replace("http-equiv", "")
    assert "src=" not in page and "@import" not in page


def test_texts_that_cannot_be_shown_are_refused(model):
    with pytest.raises(FormatError, match="text: expected at least one token"):
        inspect(model, "")
    with pytest.raises(FormatError, match="expected characters in the model's vocabulary"):
        inspect(model, "Ω")
    with pytest.raises(FormatError, match="text: expected at most 55,555 tokens for a model of this size, got 60,000"):
        inspect(model, "a" * 60_000)


def test_the_command(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lab.save_model("m.safetensors", model)
    assert _run(["text", "inspect", "m.safetensors", "--text", TEXT, "--html", "page.html"]) == 0
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == inspect(model, TEXT)
    assert _run(["text", "inspect", "m.safetensors", "--html", "page.html"]) == 2
    assert "page.html: exists already; replace it with --force" in capsys.readouterr().err
    assert _run(["text", "inspect", "m.safetensors", "--html", "page.html", "--force"]) == 0
    assert len(data_of((tmp_path / "page.html").read_text(encoding="utf-8"))["tokens"]) == 300
    assert _run(["text", "inspect", "m.safetensors", "--text", "Ω", "--html", "other.html"]) == 2
    assert not (tmp_path / "other.html").exists()


# -- in a browser --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1200])
def test_a_person_picks_layer_value_and_unit_and_sees_the_text_coloured(browser, model, tmp_path, width):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    (tmp_path / "page.html").write_text(inspect(model, TEXT), encoding="utf-8")
    browser.set_window_size(width, 800)
    browser.get((tmp_path / "page.html").as_uri())
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    traced = model.lstm.trace(model.embedding(model.prompt(TEXT)[:, None]))
    spans = browser.find_elements(By.CSS_SELECTOR, "#text span")
    assert len(spans) == len(TEXT)

    def colours(name, unit):
        """What stands on the page: the share of the colour of each character, with its sign."""
        layer, value = name[-1], name[0]
        Select(browser.find_element(By.ID, "layer")).select_by_value(layer)
        Select(browser.find_element(By.ID, "value")).select_by_value(value)
        field = browser.find_element(By.ID, "unit")
        field.send_keys(Keys.CONTROL + "a")
        field.send_keys(str(unit + 1), Keys.TAB)
        shares = []
        for span in spans:
            red, _, blue, *alpha = map(float, re.findall(r"[\d.]+", span.value_of_css_property("background-color")))
            shares.append((alpha[0] if alpha else 1.0) * (1 if red > blue else -1))
        return np.array(shares)

    for name, unit in (("c_l0", 2), ("f_l0", 5), ("h_l1", 0)):
        values = traced[name][:, 0]
        most = 1.0 if np.abs(values).max() <= 1 else np.abs(values[:, unit]).max()
        want = values[:, unit] / most
        np.testing.assert_allclose(np.abs(colours(name, unit)), np.abs(want), atol=0.01)
        large = np.abs(want) > 0.02
        assert (np.sign(colours(name, unit))[large] == np.sign(want)[large]).all()
    area = browser.find_element(By.ID, "text")
    area.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    likely = data_of(inspect(model, TEXT))["predictions"][2][0]
    cells = browser.find_elements(By.CSS_SELECTOR, "#predictions tr:first-child td")
    assert cells[1].text == f"{100 * likely[1]:.1f} %"
    assert "(3 of 20;" in browser.find_element(By.ID, "at").text
    wide = browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert wide  # nothing to scroll sideways

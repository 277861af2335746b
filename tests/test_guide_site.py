"""The site of the guide and the API reference: it is built, and looked at in a real browser."""

import re
import warnings
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

import gpulstm as gl
from gpulstm.guide import PAGES, docstrings, page_title
from gpulstm.guide.__main__ import main
from tests.conftest import require

WIDTHS = (390, 1280)
require("latex2mathml")
require("pdoc")
require("matplotlib")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    from gpulstm.guide.site import build

    out = tmp_path_factory.mktemp("site")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        left_out = build(out)
    assert not [name for name in left_out if name not in ("gpulstm.io.onnx", "gpulstm.torch")]
    return out


class Links(HTMLParser):
    """The targets of links and pictures of a page, and the places in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.places |= {values["id"]} if "id" in values else set()
        if tag in ("a", "img", "link", "script"):
            self.targets += [values[name] for name in ("href", "src") if values.get(name)]


def read(site: Path) -> dict[Path, Links]:
    return {file.resolve(): Links(file.read_text(encoding="utf-8")) for file in site.rglob("*.html")}


def broken(site: Path) -> list[str]:
    """The links inside the site that lead nowhere."""
    pages, found = read(site), []
    for file, page in pages.items():
        for target in page.targets:
            if re.match(r"https?:|data:", target):
                continue
            path, _, place = target.partition("#")
            to = (file.parent / path).resolve() if path else file
            if not to.is_file() or (place and place not in pages[to].places):
                found.append(f"{file.relative_to(site.resolve())}: {target}")
    return found


def test_every_page_and_every_public_name_is_there_and_no_link_is_broken(site):
    for page in PAGES:
        text = (site / "gpulstm" / "guide" / f"{page}.html").read_text(encoding="utf-8")
        assert f"<title>{page_title(page)} – gpulstm</title>" in text
    places = read(site)[(site / "gpulstm.html").resolve()].places
    assert not set(gl.__all__) - places
    assert not broken(site)
    assert {file.suffix for file in site.rglob("*.*")} == {".html", ".js", ".png"}  # and nothing else that a page wrote


def test_a_broken_link_is_seen(tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html#here">b</a> <img src="c.png"> <a href="#no">no</a>')
    (tmp_path / "b.html").write_text('<p id="here"><a href="a.html">a</a></p>')
    assert broken(tmp_path) == ["a.html: c.png", "a.html: #no"]


def test_a_name_that_does_not_exist_is_an_error(site):
    from gpulstm.guide import site as builder

    context = {"module": type("M", (), {"modulename": "gpulstm"}), "all_modules": {}}
    with pytest.warns(UserWarning, match=r"gpulstm: there is no gl\.LTSM"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder.pdoc.render_helpers, "linkify", lambda context, html, **options: html)
        builder._linkify(context, "<p>See <code>gl.LTSM</code></p>")


def test_the_command(site, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    refused = CliRunner().invoke(main, ["--out", str(full), "--force"])
    assert refused.exit_code == 1 and "exists already and is not empty; name a new" in refused.output
    refused = CliRunner().invoke(main, ["--out", str(site)])
    assert refused.exit_code == 1 and "replace it with --force" in refused.output
    assert (full / "mine.txt").is_file() and (site / "index.html").is_file()


def test_docstrings_become_markdown():
    table = "Shapes:\n\n=== ======\nx   (T, B)\n    or (T,)\nh   L*K\n=== ======\n\nEnd"
    assert docstrings.markdown(table).split("\n")[3:8] == [
        "|  |  |",
        "| --- | --- |",
        "| `x` | (T, B) or (T,) |",
        r"| `h` | L\*K |",
        "",
    ]
    headed = "==== ====\nname what\n==== ====\na    b\n==== ===="
    assert "| name | what |\n| --- | --- |\n| `a` | b |" in docstrings.markdown(headed)
    arguments = "rate\n    The rate,\n    a number.\nh, c\n    States.\n"
    assert docstrings.markdown(arguments) == "- `rate`: The rate, a number.\n- `h`, `c`: States.\n"
    assert docstrings.markdown("a*b and ``a*b`` and *c*\n\n    x*y") == "a\\*b and ``a*b`` and *c*\n\n    x*y"


# -- in a browser ---------------------------------------------------------------------------------------------


def show(browser, file: Path, width: int, scheme: str) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme_is = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme_is)
    browser.get(file.as_uri())


CONTRAST = """
const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
const part = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
const light = colour => { const [r, g, b] = numbers(colour).map(part); return .2126 * r + .7152 * g + .0722 * b; };
const behind = element => { for (let e = element; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor, n = numbers(c);
    if (n.length < 4 || n[3] > 0) return c; } return "rgb(255, 255, 255)"; };
const poor = [];
for (const element of document.querySelectorAll(
    "main p, main li, main td, main code, main pre span, main h1, main h2, nav li a, .attr span")) {
    if (!element.textContent.trim() || !element.getClientRects().length) continue;
    const [a, b] = [light(getComputedStyle(element).color), light(behind(element))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 3) poor.push(element.outerHTML.slice(0, 120));
    if (poor.length > 4) break;
}
return poor;
"""


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_looks_right(browser, site, width, scheme):
    for file in sorted(site.rglob("*.html")):
        show(browser, file, width, scheme)
        name = f"{file.relative_to(site)}, {width} pixels wide, {scheme}"
        assert not [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")], name
        wide = "return document.documentElement.scrollWidth > window.innerWidth"
        assert not browser.execute_script(wide), f"{name}: scrolls sideways"
        broken = "return [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src)"
        assert not browser.execute_script(broken), f"{name}: a picture is missing"
        assert not browser.execute_script(CONTRAST), f"{name}: text that is hard to read"


@pytest.mark.slow
def test_text_that_is_hard_to_read_is_seen(browser, tmp_path):
    page = tmp_path / "page.html"
    words = '<p style="color: {}">words</p>'
    page.write_text(f"<main>{words.format('#999')}{words.format('#555')}</main>")
    show(browser, page, 400, "light")
    assert browser.execute_script(CONTRAST) == [words.format("#999")]


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
def test_a_reader_finds_a_name_and_moves_through_the_guide(browser, site, width):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    show(browser, site / "index.html", width, "light")
    WebDriverWait(browser, 10).until(lambda b: b.title.startswith(page_title(PAGES[0])))
    if width < 500:
        browser.find_element(By.ID, "navtoggle").click()
    browser.find_element(By.CSS_SELECTOR, "input[type=search]").send_keys("PeepholeLSTM")
    found = "main .search-result"
    WebDriverWait(browser, 20).until(lambda b: b.find_elements(By.CSS_SELECTOR, found))
    assert "PeepholeLSTM" in browser.find_element(By.CSS_SELECTOR, found).text
    show(browser, site / "gpulstm" / "guide" / f"{PAGES[0]}.html", width, "light")
    for page in PAGES[1:]:
        browser.get(browser.find_element(By.CSS_SELECTOR, ".turn span:last-child a").get_attribute("href"))
        assert browser.title.startswith(page_title(page))

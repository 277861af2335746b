"""The pages of the guide: their code is run, and what it prints, its errors and its sources are what the pages show.

``GPULSTM_GUIDE_UPDATE=1 pytest tests/test_guide.py`` writes the outputs into the pages instead; look at the difference.
"""

import inspect
import os
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

import gpulstm as gl
from gpulstm import engine, random
from gpulstm.cells import lstm
from gpulstm.errors import FormatError
from gpulstm.guide import PAGES, page_file, page_title, pages
from tests.conftest import require, skip
from tests.test_io_keras_versions import ARCHIVE

UPDATE = bool(os.environ.get("GPULSTM_GUIDE_UPDATE"))
EMULATED = ("gpu",)  # pages for a GPU
ERRORS = 20  # on the page of troubleshooting


def run(page: str, folder: Path) -> None:
    """Run a page in a folder, and compare it with what it should be."""
    with random.using(np.random.default_rng(0)):
        should_be = pages.run(page, folder)
    if UPDATE:
        page_file(page).write_text(should_be, encoding="utf-8")
    assert page_file(page).read_text(encoding="utf-8").splitlines() == should_be.splitlines()


@pytest.mark.parametrize("page", [page for page in PAGES if page not in EMULATED])
def test_the_code_of_a_page(page, tmp_path):
    if reason := engine.why_none() or engine.why_cannot_compile():
        skip(reason)
    if page == "from_pytorch":
        require("torch")
    if page == "from_keras":
        shutil.copy(keras_model(tmp_path), tmp_path / "model.keras")
    if "gl.plot" in page_file(page).read_text(encoding="utf-8"):
        require("matplotlib")
    run(page, tmp_path)


@pytest.mark.parametrize("page", EMULATED)
def test_the_code_of_a_page_for_a_gpu(page, tmp_path, emulated):
    run(page, tmp_path)


def keras_model(folder: Path) -> Path:
    """A model that Keras itself has saved."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        return Path(archive.extract("keras-3.15/masked.keras", folder / "keras"))


def test_a_wrong_output_a_missing_output_and_an_error_are_seen(tmp_path, monkeypatch):
    def page_with(text: str) -> str:
        (tmp_path / "page.md").write_text(text, encoding="utf-8")
        return pages.run("page", tmp_path)

    monkeypatch.setattr(pages, "page_file", lambda page: tmp_path / f"{page}.md")
    code = "```python\nx = 1\n```\n\nWords\n```python\nprint(x + 1)\n```\n```text\n{}```\n"
    assert page_with(code.format("2\n")) == code.format("2\n") == page_with(code.format("3\n"))
    error = "```python\nprint(1)\nraise ValueError('no')\n```\n"
    with pytest.raises(FormatError, match=r"page.md, line 2: ValueError: no"):
        page_with(error)
    assert page_with(f"{error}```text\n```\n").endswith("```text\n1\nValueError: no\n```\n")
    source = "<!-- source: gpulstm.cells.lstm:sigmoid -->\n```python\n{}```\n"
    assert page_with(source.format("")) == source.format(inspect.getsource(lstm.sigmoid))


def test_the_equations_stand_beside_lines_of_the_cell():
    table = re.findall(r"^\| .*\$ \| `(.*?)` \|", page_file("how_an_lstm_works").read_text(encoding="utf-8"), re.M)
    source = inspect.getsource(lstm.forward)
    assert len(table) == 4 and all(line in source for line in table)


def test_troubleshooting_has_its_errors_each_provoked_once():
    markdown = page_file("troubleshooting").read_text(encoding="utf-8")
    sections = re.split(r"^## ", markdown, flags=re.M)[1:]
    error = re.compile(r"^```text\n(?:.*\n)*?(\w+(?:Error|Kernel|Finite|Exists): .*)\n```$", re.M)
    provoked = {section: found[1] for section in sections if (found := error.search(section))}
    assert len(provoked) == len(set(provoked.values())) == ERRORS
    for section in provoked:
        assert "**Meaning.**" in section and "**Solution.**" in section, section.partition("\n")[0]


def test_every_page_is_listed_and_has_a_title():
    files = {file.stem for file in page_file("x").parent.glob("*.md")}
    assert files == set(PAGES) and len(set(PAGES)) == len(PAGES)
    assert all(page_file(page).read_text(encoding="utf-8").startswith("# ") for page in PAGES)
    assert len({page_title(page) for page in PAGES}) == len(PAGES)


def test_names_of_the_library_on_the_pages_exist():
    for page in PAGES:
        for path in re.findall(r"\bgl((?:\.[A-Za-z_]\w*)+)", page_file(page).read_text(encoding="utf-8")):
            place = gl
            for name in path[1:].split("."):
                assert hasattr(place, name), f"{page}: there is no gl{path}"
                place = getattr(place, name)

"""The guide: Markdown pages whose code the tests run, and the command that builds a site of pages and docstrings.

    pip install ".[docs]"
    python -m gpulstm.guide --out site

The pages are the ``.md`` files beside this one. ``PAGES`` lists them in reading order.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
PAGES = (
    "getting_started",
    "how_an_lstm_works",
    "different_lengths",
    "trainer_and_data",
    "writing_a_cell",
    "gpu",
    "several_processes",
    "from_pytorch",
    "from_keras",
    "reproducibility",
    "troubleshooting",
)


def page_file(page: str) -> Path:
    """The Markdown file of a page."""
    return FOLDER / f"{page}.md"


def page_title(page: str) -> str:
    """The title of a page: its first line, without the heading sign."""
    return page_file(page).read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


__all__ = ["FOLDER", "PAGES", "page_file", "page_title"]

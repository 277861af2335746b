"""Builds the site with pdoc: a page for each Markdown file of the guide, and one for each module of the reference."""

import importlib
import re
import shutil
import tempfile
import types
import warnings
from pathlib import Path
from typing import Any

import latex2mathml.converter
import pdoc.doc
import pdoc.render
import pdoc.render_helpers
from jinja2 import pass_context
from markupsafe import Markup
from pygments.formatters import HtmlFormatter

from gpulstm.errors import FileExists
from gpulstm.guide import FOLDER, PAGES, docstrings, page_file, page_title, pages, reference
from gpulstm.version import __version__

GUIDE = "gpulstm.guide"
MARK = "gpulstm-guide"  # a file with this name marks a folder as a site, which a later build may replace


def build(out: Path, force: bool = False) -> dict[str, str]:
    """Write the site to a folder, and return which modules of the reference were left out, and why.

    Warns if a page or a docstring mentions a name ``gl.name`` that does not exist. Raises FileExists if the folder is
    not empty, unless it is an older site and ``force`` is given.
    """
    _empty(out, force)
    names, left_out = reference.modules()
    _configure()
    documented = {f"{GUIDE}.{page}": _page_module(page) for page in PAGES}
    documented |= {name: _reference_module(name) for name in names}
    for name, module in documented.items():
        file = out / f"{name.replace('.', '/')}.html"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(pdoc.render.html_module(module, documented), encoding="utf-8")
    for page in PAGES:
        _draw(page, out / GUIDE.replace(".", "/"))
    (out / "search.js").write_text(pdoc.render.search_index(documented), encoding="utf-8")
    first = f"{GUIDE.replace('.', '/')}/{PAGES[0]}.html"
    (out / "index.html").write_text(_INDEX.format(first=first), encoding="utf-8")
    return left_out


_INDEX = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>gpulstm</title><meta http-equiv="refresh" content="0; url={first}"></head>
<body><a href="{first}">The guide of gpulstm</a></body>
</html>
"""


def _empty(out: Path, force: bool) -> None:
    """Make the folder, empty except for the mark of a site."""
    if out.exists() and any(out.iterdir()):
        if not (force and (out / MARK).is_file()):
            hint = "replace it with --force" if (out / MARK).is_file() else "name a new or an empty folder"
            raise FileExists(f"{out}: exists already and is not empty; {hint}")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).write_text("A site made by python -m gpulstm.guide\n", encoding="utf-8")


def _draw(page: str, folder: Path) -> None:
    """If a page shows pictures, run its code and copy the pictures to the folder."""
    pictures = re.findall(r"^!\[.*?\]\((.+?)\)$", page_file(page).read_text(encoding="utf-8"), re.M)
    if pictures:
        with tempfile.TemporaryDirectory() as place:
            pages.run(page, Path(place))
            for picture in pictures:
                shutil.copy(Path(place) / picture, folder)


def _page_module(page: str) -> pdoc.doc.Module:
    """Return a module whose docstring is the text of a page, because pdoc renders modules."""
    text = re.sub(r"<!-- source: .* -->\n", "", _with_equations(page_file(page).read_text(encoding="utf-8")))
    text = re.sub(rf"\]\(({'|'.join(PAGES)})\.md", r"](\1.html", text)  # links between pages
    return pdoc.doc.Module(types.ModuleType(f"{GUIDE}.{page}", text))


def _reference_module(name: str) -> pdoc.doc.Module:
    """Return a module of the library for pdoc, including names that the module imports lazily.

    pdoc finds names only in the module's own dict, so they are added to it for a moment.
    """
    loaded = importlib.import_module(name)
    later = [each for each in getattr(loaded, "__all__", ()) if each not in vars(loaded)]
    vars(loaded).update({each: getattr(loaded, each) for each in later})
    try:
        module = pdoc.doc.Module(loaded)
        _ = module.members  # pdoc caches them
        return module
    finally:
        for each in later:
            if not isinstance(vars(loaded)[each], types.ModuleType):
                del vars(loaded)[each]


def _with_equations(markdown: str) -> str:
    """Convert the equations of a page, between ``$$`` or ``$``, to MathML, which browsers display."""
    parts = re.split(r"(^```.*?^```$|`[^`\n]+`)", markdown, flags=re.M | re.S)
    for k in range(0, len(parts), 2):  # the text between code
        parts[k] = re.sub(r"\$\$(.+?)\$\$", lambda m: _mathml(m[1], "block"), parts[k], flags=re.S)
        parts[k] = re.sub(r"\$([^$\n]+)\$", lambda m: _mathml(m[1], "inline"), parts[k])
    return "".join(parts)


def _mathml(latex: str, display: str) -> str:
    made = latex2mathml.converter.convert(latex.strip(), display=display)
    return f'<div class="equation">{made}</div>' if display == "block" else made


def _configure() -> None:
    """Set pdoc's templates and filters."""
    version = f"gpulstm {__version__}"
    pdoc.render.configure(docformat="restructuredtext", footer_text=version, template_directory=FOLDER / "templates")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".pdoc-code")
    pdoc.render.env.globals |= {
        "guide": GUIDE,
        "pages": [(f"{GUIDE}.{page}", page_title(page)) for page in PAGES],
        "sections": reference.sections,
        "public_members": reference.public_members,
        "submodules": reference.submodules,
        "is_shown": reference.is_shown,
        "has_source": reference.has_source,
        "shown_members": reference.shown_members,
        "public_bases": reference.public_bases,
        "inherited_from": reference.inherited_from,
        "dark_code": Markup("\n".join(line for line in dark.splitlines() if line.startswith(".pdoc-code"))),
    }
    pdoc.render.env.filters["to_markdown"] = _to_markdown
    pdoc.render.env.filters["linkify"] = _linkify


@pass_context
def _to_markdown(context: Any, docstring: str) -> str:
    if not context["module"].modulename.startswith(f"{GUIDE}."):
        docstring = docstrings.markdown(docstring)
    return pdoc.render_helpers.to_markdown_with_context(context, docstring)


_NAME = r"gl((?:\.[A-Za-z_]\w*)+)(?:\(\))?"
# An element whose text must not change, a name that is a whole <code> element, or a name in the text.
_NAMES = re.compile(rf"<(pre|a)\b.*?</\1>|<code>{_NAME}</code>|<code>.*?</code>|<[^>]*>|(?<![\w./]){_NAME}", re.S)


@pass_context
def _linkify(context: Any, html: str, **options: Any) -> Markup:
    """Add pdoc's links, and a link for each ``gl.name`` in the text."""
    here, documented = context["module"].modulename, context["all_modules"]

    def linked(found: re.Match[str]) -> str:
        if not (name := found[2] or found[3]):
            return found[0]
        path = name[1:].split(".")
        module, qualname = _place(path, documented)
        if not module:
            if not _exists(path):
                warnings.warn(f"{here}: there is no gl{name}", stacklevel=2)
            return found[0]
        page = pdoc.render_helpers.relative_link(here, module)
        return f'<a href="{page}{"#" * bool(qualname)}{qualname}">{found[0]}</a>'

    made = pdoc.render_helpers.linkify(context, _NAMES.sub(linked, html), **options)
    return Markup(re.sub(r'(?<==gl)<a href="[^"]*">(\.[\w.]+)</a>', r"\1", made))  # pdoc links .name in =gl.name


def _place(path: list[str], documented: dict[str, pdoc.doc.Module]) -> tuple[str, str]:
    """Return (module, name in it) for the path of a name after ``gl.``, or ("", "") if the reference lacks it."""
    for count in range(len(path), -1, -1):
        module, rest = ".".join(["gpulstm", *path[:count]]), path[count:]
        if module not in documented:
            continue
        if not rest:
            return module, ""
        if rest[0] in documented[module].members:
            name = ".".join(rest[:2])
            return module, name if documented[module].get(name) else rest[0]
    return "", ""


def _exists(path: list[str]) -> bool:
    place: Any = importlib.import_module("gpulstm")
    for name in path:
        if not hasattr(place, name):
            return False
        place = getattr(place, name)
    return True

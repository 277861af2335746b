"""What the API reference contains, and in which order."""

import functools
import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterator
from typing import Any

MODULES = {  # the modules of the reference, with the packages that each needs
    "gpulstm": (),
    "gpulstm.data": (),
    "gpulstm.train": (),
    "gpulstm.labs": (),
    "gpulstm.io": (),
    "gpulstm.io.torch": (),
    "gpulstm.io.keras": (),
    "gpulstm.io.onnx": ("onnx",),
    "gpulstm.plot": (),
    "gpulstm.functional": (),
    "gpulstm.cells": (),
    "gpulstm.parallel": (),
    "gpulstm.torch": ("torch",),
    "gpulstm.classic": (),
}

# A pattern for the module that defines a public name, and the heading for the name; the first pattern that fits counts.
GROUPS = (
    (r"gpulstm\.nn\.(recurrent|lstm|variants|minimal|cells)", "Recurrent layers"),
    (r"gpulstm\.nn\.regularize", "Regularization of recurrent layers"),
    (r"gpulstm\.nn\.activations", "Activations"),
    (r"gpulstm\.nn\.functions", "Losses and functions"),
    (r"gpulstm\.nn\.", "Other layers"),
    (r"gpulstm\.tape", "Tensors and gradients"),
    (r"gpulstm\.(optim|clip|schedules|grad_scaler)", "Optimizers and schedules"),
    (r"gpulstm\.(train|io)\.", "Training, saving and loading"),
    (r"gpulstm\.labs\.", "Estimators"),
    (r"gpulstm\.errors", "Errors"),
    (r"", "Devices, precision, random numbers and checks"),
)
STEPS = "Single steps of recurrent layers"
HEADINGS = ["Recurrent layers", STEPS, *(heading for _, heading in GROUPS[1:])]


def modules() -> tuple[list[str], dict[str, str]]:
    """Return the modules of the reference that can be imported, and the reasons why others are left out."""
    missing = {m: [p for p in needs if importlib.util.find_spec(p) is None] for m, needs in MODULES.items()}
    left_out = {m: f"{', '.join(packages)} is not installed" for m, packages in missing.items() if packages}
    return [module for module in MODULES if module not in left_out], left_out


def heading(member: Any) -> str:
    """Return the heading for a member of the package gpulstm, a ``pdoc.doc.Doc``."""
    if inspect.isclass(member.obj) and member.name.endswith("Cell"):
        return STEPS
    origin = f"{getattr(member.obj, '__module__', '')}."
    if isinstance(member.obj, type) and issubclass(member.obj, Exception):
        origin = "gpulstm.errors."
    return next(words for pattern, words in GROUPS if re.match(pattern, origin))


def public_members(module: Any) -> list[Any]:
    """Return the members in ``__all__``, or without it those that have no underscore; a page of the guide has none."""
    if module.source_file is None:
        return []
    names = getattr(module.obj, "__all__", None)
    members = list(module.members.values())
    return [m for m in members if (not m.name.startswith("_") if names is None else m.name in names)]


def submodules(module: Any, documented: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the submodules in ``__all__``, each with the first sentence of its docstring."""
    found = [each for each in getattr(module.obj, "__all__", ()) if f"{module.modulename}.{each}" in documented]
    docs = [inspect.getdoc(documented[f"{module.modulename}.{each}"].obj) or "" for each in found]
    return [(each, " ".join(doc.partition("\n\n")[0].split())) for each, doc in zip(found, docs, strict=True)]


def is_shown(member: Any) -> bool:
    """Return whether the reference shows a member: it must be public, and a member of a class needs a docstring."""
    if member.kind == "module":
        return True
    if member.name == "__init__":
        return bool(member.docstring or member.signature_without_self.parameters)
    return not member.name.startswith("_") and ("." not in member.qualname or bool(member.docstring))


def has_source(member: Any) -> bool:
    """Return whether the page shows the source of a member: that of classes and functions, not of single methods."""
    return member.kind == "class" or (member.kind == "function" and "." not in member.qualname)


@functools.cache
def _places() -> dict[type, tuple[str, str]]:
    """Map every public class to the module and the name under which the reference shows it."""
    places: dict[type, tuple[str, str]] = {}
    for module in modules()[0]:
        loaded = importlib.import_module(module)
        for name in getattr(loaded, "__all__", ()):
            if inspect.isclass(value := getattr(loaded, name)):
                places.setdefault(value, (module, name))
    return places


def public_bases(cls: Any) -> list[tuple[str, str]]:
    """Return the places of the public base classes of a class."""
    return [_places()[base] for base in cls.obj.__bases__ if base in _places()]


def _inherited(cls: Any) -> Iterator[tuple[type | None, list[Any]]]:
    """Yield the members that a class inherits from classes of gpulstm, with the nearest public base that has them.

    The base is None if only private base classes have the members.
    """
    for (module, name), members in cls.inherited_members.items():
        base = next((b for b in cls.obj.__mro__ if (b.__module__, b.__qualname__) == (module, name)), None)
        shown = [m for m in members if m.name != "__init__" and is_shown(m)]
        if base is None or not module.startswith("gpulstm") or not shown:
            continue
        has = [b for b in cls.obj.__mro__[1:] if b in _places() and issubclass(b, base)]
        yield (has[-1] if has else None), shown


def shown_members(cls: Any) -> list[Any]:
    """Return the members to show under a class: its own, and those of private base classes."""
    own = [m for m in cls.own_members if m.kind != "class" and is_shown(m)]
    return own + [m for public, members in _inherited(cls) if public is None for m in members]


def inherited_from(cls: Any) -> dict[tuple[str, str], list[Any]]:
    """Return the members that a class inherits from public classes, by the place of each class."""
    found: dict[tuple[str, str], list[Any]] = {}
    for public, members in _inherited(cls):
        if public is not None:
            found.setdefault(_places()[public], []).extend(members)
    return found


def sections(module: Any, members: list[Any]) -> list[tuple[str, list[Any]]]:
    """Group the members of a module by heading; for modules other than gpulstm, the only heading is ""."""
    if module.modulename != "gpulstm":
        return [("", members)] if members else []
    found = [(words, [member for member in members if heading(member) == words]) for words in HEADINGS]
    return [(words, some) for words, some in found if some]

"""Every public name has a docstring with its shapes, its errors and an example, and the examples run as doctests.

The examples use ``gl`` and ``np``, as NumPy's own use ``np``, and those of gpulstm.torch use ``torch`` too. They run on
the processor, each in an empty folder. Those of the estimators take seconds: tests/test_labs_examples.py runs them.
"""

import doctest
import importlib
import inspect
import re
import types
from typing import Any

import numpy as np
import pytest

import gpulstm as gl
from gpulstm import random
from gpulstm.labs import ESTIMATORS
from tests.conftest import require

MODULES = (
    "", ".cells", ".classic", ".data", ".functional", ".io", ".io.keras", ".io.onnx", ".io.torch", ".optim",
    ".parallel", ".plot", ".schedules", ".torch", ".train",
)  # fmt: skip
NEEDS = {"gl.io.onnx": "onnx", "gl.plot": "matplotlib", "gl.torch": "torch"}  # what a module's examples need
MODULE_EXAMPLES = (  # modules whose own docstring has examples
    "gl", "gl.classic", "gl.data", "gl.io", "gl.io.keras", "gl.io.onnx", "gl.io.torch", "gl.parallel", "gl.torch",
)  # fmt: skip

# (T, B, D), (B,), (...), (3H, H), (L*K, B, P), (B, P|H); or "shapes and errors as for gl.Recurrent"
SIZE = r"[^\s(),]+(?: or [^\s(),]+)?"
SHAPE = re.compile(rf"(?<!\w)(?:\((?:\.\.\.)?\)|\((?:{SIZE}, ?)+(?:{SIZE})?\))")
SHAPES_OF = re.compile(r"\b[Ss]hapes?\b[^.;:]{0,30}(?:\bas for|\bof|\bas)\s(?:``|gl)")
ERRORS = re.compile(r"\b[Rr]aises?\b|\b[Ee]rrors?\b")
# Arguments that are arrays wherever they occur, of a function, of a layer's forward and of an estimator's fit.
ARRAYS = {
    "a", "b", "columns", "condition", "counts", "data", "gradient", "ids", "input", "keys", "log_probs", "observed",
    "prediction", "query", "sequences", "series", "target", "tensors", "values", "weight", "weights", "x", "X",
}  # fmt: skip
METHODS = ("forward", "fit")

NO_SHAPE = {  # name -> why its arguments have no shapes to tell
    "gl.cells.Product": "weight is a name",
    "gl.LanguageModel": "X is text",
    "gl.Translator": "X and y are texts",
    "gl.VariationalDropout": "input is a rate",
    "gl.load": "x is a model or a dict of anything",
    "gl.save": "x is a model or a dict of anything",
    "gl.tensor": "x is anything that holds numbers",
    "gl.torch.Module": "a layer of gpulstm decides",
}
# Names whose docstring is still to be rewritten: each leaves this list with its new docstring.


def public_names() -> dict[str, tuple[Any, str]]:
    """``gl.LSTM`` and all other names -> what it is, and what its examples need; each thing under its first name."""
    found: dict[str, tuple[Any, str]] = {}
    seen: set[int] = set()
    for ending in MODULES:
        prefix = f"gl{ending}"
        try:
            module = importlib.import_module(f"gpulstm{ending}")
        except ImportError:
            found[prefix] = (None, NEEDS[prefix])
            continue
        for name in getattr(module, "__all__", None) or defined_in(module):
            thing = getattr(module, name)
            if callable(thing) and id(thing) not in seen:
                seen.add(id(thing))
                found[f"{prefix}.{name}"] = (thing, NEEDS.get(prefix, ""))
    return found


def defined_in(module: types.ModuleType) -> list[str]:
    items = vars(module).items()
    return [name for name, x in items if name[0] != "_" and getattr(x, "__module__", "") == module.__name__]


NAMES = public_names()


def complaints(name: str, thing: Any) -> list[str]:
    """What the docstring lacks, in words."""
    text = inspect.getdoc(thing) if vars(thing).get("__doc__", thing.__doc__) else None
    if not text:
        return ["no docstring"]
    missing = []
    if not re.match(r"[^\n]*[.:]$", text.partition("\n")[0]):
        missing.append("no first sentence on a line of its own")
    parts = doctest.DocTestParser().parse(text)
    words = "".join(part for part in parts if isinstance(part, str))  # outputs of examples look like shapes
    if words == text:
        missing.append("no example")
    is_error = isinstance(thing, type) and issubclass(thing, Exception)
    if not is_error and not ERRORS.search(words):
        missing.append("no errors")
    if name not in NO_SHAPE and ARRAYS & arguments(thing) and not (SHAPE.search(words) or SHAPES_OF.search(words)):
        missing.append("no shapes")
    return missing


def arguments(thing: Any) -> set[str]:
    """The names of the arguments of a function, or of a class and of what its objects compute with."""
    parts = [thing, *(getattr(thing, method, None) for method in METHODS)]
    names: set[str] = set()
    for part in filter(None, parts):
        try:
            names |= set(inspect.signature(part).parameters)
        except ValueError:  # an exception has no signature
            continue
    return names


def failures(name: str, thing: Any, **names: Any) -> list[str]:
    """What doctest says of the examples in a docstring, of a class in its methods' too."""
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in doctest.DocTestFinder().find(thing, name, globs={"gl": gl, "np": np, **names}, module=False):
        runner.run(test, out=said.append)
    return said


@pytest.mark.parametrize("name", NAMES)
def test_a_docstring_has_an_example_errors_and_shapes(name):
    thing, needed = NAMES[name]
    if thing is None:
        require(needed)
    assert complaints(name, thing) == []


@pytest.mark.parametrize("name", [n for n in NAMES if n.rpartition(".")[2] not in ESTIMATORS])
def test_the_examples_of_a_docstring(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    thing, needed = NAMES[name]
    names = {needed: require(needed)} if needed else {}
    threads = gl.get_num_threads()
    with random.using(np.random.default_rng(0)):
        said = failures(name, thing, **names)
    gl.set_num_threads(threads)
    assert not said, "".join(said)


@pytest.mark.parametrize("name", MODULE_EXAMPLES)
def test_the_examples_of_a_module(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    needed = NEEDS.get(name, "")
    names = {needed: require(needed)} if needed else {}
    module = importlib.import_module(name.replace("gl", "gpulstm", 1))
    said: list[str] = []
    test = doctest.DocTestParser().get_doctest(module.__doc__, {"gl": gl, "np": np, **names}, name, None, 0)
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append)
    assert result.attempted >= 3 and not said, "".join(said)


def test_the_lists_of_exceptions_hold_names_that_exist():
    # Of a module whose library is missing NAMES has the module alone.
    assert not [name for name in NO_SHAPE if not {name, name.rpartition(".")[0]} & NAMES.keys()]


# -- each check finds its fault ------------------------------------------------------------------------------
def _good(x):
    """Add 1: x (T, B).

    Raises ShapeError.

    >>> 1 + 1
    2
    """


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (_good.__doc__, "", "no docstring"),
        ("Add 1: x (T, B).", "Add 1 to x (T, B)", "no first sentence on a line of its own"),
        (">>>", "", "no example"),
        ("Raises", "Knows", "no errors"),
        ("(T, B)", "(see above)", "no shapes"),
    ],
)
def test_a_docstring_that_lacks_something_is_found(old, new, fault):
    assert complaints("f", _good) == [] and failures("f", _good) == []

    def bad(x):
        pass

    bad.__doc__ = _good.__doc__.replace(old, new)
    assert fault in complaints("f", bad)


def test_an_example_with_another_output_is_found():
    def bad(x):
        pass

    bad.__doc__ = re.sub(r"^( *)2$", r"\g<1>3", _good.__doc__, flags=re.MULTILINE)  # Python 3.13 takes the spaces away
    assert failures("f", bad)

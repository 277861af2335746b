"""CONTRIBUTING's example of a new cell, done in a copy of the tree: the cell's tests run there, and can fail."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, skip
from tests.wheels import copy_tree

pytestmark = pytest.mark.slow  # it compiles the engine


def blocks(document: str, heading: str) -> list[str]:
    """The code blocks of a section."""
    text = (ROOT / document).read_text(encoding="utf-8")
    section = re.split(r"\n##+ ", text[text.index(heading) + len(heading) :])[0]
    return re.findall(r"```\w+\n(.*?)```", section, re.DOTALL)


def insert(path: Path, *places: tuple[str, str]) -> None:
    """Replace each place, which is there once."""
    text = path.read_text(encoding="utf-8")
    for old, new in places:
        assert text.count(old) == 1, f"{old!r} in {path.name}"
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of the tree with the cell in it, step by step as CONTRIBUTING says."""
    if not shutil.which("g++"):
        skip("g++ was not found: the engine is compiled with it")
    tree = copy_tree(tmp_path_factory.mktemp("tree"))
    shutil.copytree(ROOT / "tests", tree / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    python, text = blocks("README.md", "### A cell of your own")[:2]
    module, case, step = blocks("CONTRIBUTING.md", "## Adding a cell")
    functions = python[python.index("def forward") : python.index("leaky = Cell(")]
    (tree / "gpulstm/cells/leaky.py").write_text(module.replace("# forward and backward", functions))
    (tree / "kernels/cells/leaky.cuh").write_text(text)
    insert(tree / "gpulstm/cells/__init__.py", ("gru, layer_norm, lstm, ", "gru, layer_norm, leaky, lstm, "),
           ("mingru, general)\n", "mingru, general, leaky)\n"))  # fmt: skip
    insert(tree / "tests/cases.py", ("gru, layer_norm, lstm, ", "gru, layer_norm, leaky, lstm, "),
           ("CELL_CASES = (\n", f"CELL_CASES = (\n    {case}"))  # fmt: skip
    (tree / "tests/first_principles/leaky.py").write_text(step)
    return tree


def run(tree: Path, *arguments: str) -> subprocess.CompletedProcess:
    variables = {"PYTHONPATH": str(tree), "GPULSTM_CACHE": str(tree / "cache"), "GPULSTM_CXX": "g++ -O0"}
    variables |= {"GPULSTM_TEST_DEVICES": "cpu,emulated"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=tree, env=os.environ | variables, capture_output=True, text=True)


def test_the_tests_of_the_new_cell_pass(tree):
    done = run(tree, "-m", "pytest", "-x", "-q", "-k", "leaky or every_cell_has", "tests/test_cells.py",
               "tests/test_architecture.py")  # fmt: skip
    assert done.returncode == 0 and re.search(r"\b([5-9]|1\d) passed", done.stdout), done.stdout + done.stderr


def test_its_engine_is_checked(tree):
    done = run(tree, "-c", "import gpulstm as gl; print(gl.check_cell('leaky'))")
    assert "leaky: leaky agrees with the equations on the processor's engine" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("gpulstm/cells/leaky.py", "(0.9 * dh,)", "(0.8 * dh,)"),
        ("tests/first_principles/leaky.py", "0.9 * states[0]", "0.8 * states[0]"),
    ],
)
def test_a_mistake_in_it_is_found(tree, file, old, new):
    path = tree / file
    right = path.read_text()
    insert(path, (old, new))
    done = run(tree, "-m", "pytest", "-x", "-q", "-k", "leaky and first_principles", "tests/test_cells.py")
    path.write_text(right)
    assert done.returncode == 1 and "1 failed" in done.stdout, done.stdout + done.stderr

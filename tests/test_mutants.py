"""The planting of faults (tests/mutants.py): every kernel and cell has it, and it tells noticed from survived."""

import re
import subprocess
import sys

import pytest

from tests import mutants
from tests.mutants import HARMLESS, ROOT, TESTS


def test_every_kernel_and_cell_has_its_tests_and_every_row_its_file():
    files = [*ROOT.glob("kernels/*.cu"), *ROOT.glob("kernels/**/*.cuh"), *ROOT.glob("gpulstm/cells/*.py")]
    want = {file.relative_to(ROOT).as_posix() for file in files if file.name != "__init__.py"}
    assert sorted(want - TESTS.keys()) == [], "files without a row in TESTS"
    assert [file for file in TESTS if not (ROOT / file).exists()] == [], "rows of TESTS without a file"
    tests = {test for tests in TESTS.values() for test in tests}
    assert sorted(test for test in tests if not (ROOT / test).exists()) == [], "rows of TESTS without their test"


@pytest.mark.parametrize("file", sorted(HARMLESS))
def test_every_harmless_fault_is_one_that_is_planted(file, monkeypatch):
    assert mutants.stale(file) == []
    monkeypatch.setitem(HARMLESS, file, {("no such line;", "0 -> 1"): "planted"})
    assert mutants.stale(file) == [f"{file}: no fault is 0 -> 1 in 'no such line;'"]


@pytest.mark.parametrize("file", sorted(TESTS))
def test_a_fault_is_one_changed_token(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    for mutant in mutants.mutants(file):
        lines, planted = text.splitlines(), mutant.planted().splitlines()
        (changed,) = [k for k, line in enumerate(lines) if line != planted[k]]
        assert changed == mutant.line - 1 and len(lines) == len(planted)
        before, after = lines[changed][: mutant.column], lines[changed][mutant.column + len(mutant.old) :]
        assert planted[changed] == before + mutant.new + after


@pytest.mark.slow
def test_a_fault_is_noticed_and_a_harmless_one_survives(emulated):
    """Two lines of dropout.cu: the count of threads, two of whose faults change nothing, and what is written."""
    text = (ROOT / "kernels/dropout.cu").read_text(encoding="utf-8").splitlines()
    numbers = [k for k, line in enumerate(text, 1) if "FOR_EACH(four, (n + 3) / 4)" in line or "y[k] = " in line]
    names = [f"kernels/dropout.cu:{k}" for k in numbers]
    command = [sys.executable, str(ROOT / "tests" / "mutants.py"), *names, "--harmless", "--jobs", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    changes = {change: what for what, change in re.findall(r"(noticed|SURVIVED) .*?: (.* -> .*)", done.stdout)}
    assert changes == {
        "+ -> -": "noticed", "3 -> 4": "SURVIVED", "/ -> *": "SURVIVED", "4 -> 5": "noticed", ">= -> >": "noticed",
        "* -> /": "noticed", "0 -> 1": "noticed",
    }, done.stdout + done.stderr  # fmt: skip
    assert done.returncode == 2

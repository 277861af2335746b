"""The tests test the files of their own checkout, whatever gpulstm is installed beside it."""

import os
import subprocess
import sys

import pytest

import gpulstm
from tests.conftest import ROOT


def test_gpulstm_is_the_checkouts_own(tmp_path):
    """In this process, and in one that a test starts in another folder."""
    code = "import gpulstm; print(gpulstm.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == gpulstm.__file__ == str(ROOT / "gpulstm" / "__init__.py"), done.stderr


@pytest.mark.parametrize("call", [["-P", "-m", "pytest"], ["-m", "pytest"]], ids=["pytest", "python -m pytest"])
@pytest.mark.parametrize("beside", ["another is installed", "none is installed"])
def test_however_pytest_is_called(tmp_path, call, beside):
    """-P keeps the current folder off the path, as the command ``pytest`` does."""
    if beside == "another is installed":
        for package in ("gpulstm", "tests"):
            (tmp_path / package).mkdir()
            (tmp_path / package / "__init__.py").write_text("raise ImportError('not that of the checkout')")
    test = f"tests/test_checkout.py::{test_gpulstm_is_the_checkouts_own.__name__}"
    command = [sys.executable, *call, "-q", "-p", "no:cacheprovider", test]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "1 passed" in done.stdout, done.stdout + done.stderr

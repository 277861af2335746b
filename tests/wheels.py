"""Builds wheels from a copy of the tree, since building leaves files behind."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def copy_tree(folder: Path) -> Path:
    """What a wheel is built from, in ``folder``."""
    ignore = shutil.ignore_patterns("__pycache__", "_engine.*")
    for name in ("gpulstm", "kernels"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def build_wheel(folder: Path, **variables: str) -> tuple[Path, str]:
    """The wheel of the tree in ``folder``, and what the build said; ``variables`` go into its environment."""
    options = ["--no-deps", "--no-build-isolation", "--no-index", "-v", "--wheel-dir", folder / "dist"]
    command = [sys.executable, "-m", "pip", "wheel", *options, folder]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (folder / "dist").glob("*.whl")
    return path, done.stdout + done.stderr

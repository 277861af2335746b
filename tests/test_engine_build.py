"""An install compiles the engine into the package, or leaves a package that works without it and says what it lacks."""

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests import tiny_engine
from tests.conftest import ROOT, skip
from tests.wheels import build_wheel, copy_tree

pytestmark = pytest.mark.slow  # it builds wheels
TRAINS = """
import sys, numpy as np, gpulstm as gl
from gpulstm import engine
lstm = gl.LSTM(3, 5)
output, _ = lstm(np.ones((4, 2, 3), np.float32))
(output * output).sum().backward()
assert output.shape == (4, 2, 5) and abs(lstm.weight_hh_l0.grad).sum() > 0
print(engine.library() is not None, engine.library() and engine.origin(), engine.why_none(), sep="|")
"""


@pytest.fixture
def tree(tmp_path) -> Path:
    return copy_tree(tmp_path / "tree")


def tiny(tree: Path) -> Path:
    """The tree with an engine that compiles in a moment."""
    for part in ("cells", "host"):
        shutil.rmtree(tree / "kernels" / part)
        (tree / "kernels" / part).mkdir()
    tiny_engine.write(tree / "kernels")
    return tree


def install(wheel: Path, folder: Path) -> Path:
    """The Python of a fresh environment that has the wheel, and sees the libraries of this one behind it."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))"]
    site = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    (site / "libraries.pth").write_text(str(Path(np.__file__).parents[1]))
    # --ignore-installed: a gpulstm among those libraries would count as the one that is asked for.
    options = ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check", "--ignore-installed"]
    command = [sys.executable, "-m", "pip", "--python", python, "install", *options, wheel]
    subprocess.run(command, check=True, env=without_a_compiler())
    return python


def without_a_compiler() -> dict[str, str]:
    hidden = ("PYTHONPATH", "CXX", "GPULSTM_CXX", "GPULSTM_ISA")
    return {name: value for name, value in os.environ.items() if name not in hidden} | {"PATH": "/nowhere"}


def run(python: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [python, *arguments],
        cwd=python.parents[1],
        env=without_a_compiler() | variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done


def lacks_its_engine(wheel: Path, said: str, words: str, folder: Path) -> None:
    """The wheel is for every platform and works; the build, the package and ``gpulstm info`` say what is missing."""
    assert f"gpulstm is installed without its compiled engine for the processor: {words}" in said
    assert wheel.name.endswith("-py3-none-any.whl")
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if "_engine." in name or name.endswith(".o")]
    python = install(wheel, folder)
    why = "the package was installed without its compiled module, and no compiler was found"
    assert run(python, "-c", TRAINS).stdout.startswith(f"False|None|{why}")
    assert f"engine     none: {why}" in run(python, "-m", "gpulstm", "info").stdout


def test_a_wheel_with_its_engine(tree, tmp_path):
    if not shutil.which("g++"):
        skip("g++ was not found: the engine is compiled with it")
    wheel, said = build_wheel(tree)
    assert "without its compiled engine" not in said
    assert "-cp311-abi3-" in wheel.name
    (module,) = [entry for entry in zipfile.ZipFile(wheel).infolist() if "_engine." in entry.filename]
    assert module.filename == "gpulstm/_engine.abi3.so" and module.file_size < 3 * 2**20
    python = install(wheel, tmp_path / "fresh")
    done = run(python, "-c", TRAINS)
    site = Path(done.stdout.split("|")[1])
    assert done.stdout.startswith("True|") and site.is_relative_to(tmp_path / "fresh") and done.stderr == ""
    shown = run(python, "-m", "gpulstm", "info").stdout
    assert "code, threads: " in shown and f"from {site}" in shown
    assert "GPULSTM_ISA=none" in run(python, "-m", "gpulstm", "info", GPULSTM_ISA="none").stdout
    run(python, "-c", "import gpulstm._engine")


def test_a_wheel_without_a_compiler(tree, tmp_path):
    wheel, said = build_wheel(tree, PATH="/nowhere")
    lacks_its_engine(wheel, said, "no compiler was found: expected g++ or clang++ on the PATH", tmp_path / "fresh")


@pytest.mark.parametrize(
    ("compiler", "words"),
    [
        ("echo 'error: out of luck' >&2; exit 1", "the compiler failed: error: out of luck"),
        (
            'case "$*" in *f64*) echo half >"$0.o"; kill -9 $$;; *) exec g++ "$@";; esac',
            "the compiler failed: {} was killed",
        ),
        ('case "$*" in *-shared*) exit 1;; *) exec g++ "$@";; esac', "the compiler failed: {} printed no message"),
    ],
    ids=["at once", "half-way", "at the end"],
)
def test_a_wheel_whose_compiler_fails(tree, tmp_path, compiler, words):
    path = tiny_engine.script(tmp_path, compiler)
    wheel, said = build_wheel(tiny(tree), GPULSTM_CXX=path)
    lacks_its_engine(wheel, said, words.format(path), tmp_path / "fresh")


def test_an_earlier_builds_module_is_not_packed(tree, tmp_path):
    """Building leaves the module in build/, and the next build may fail."""
    if not shutil.which("g++"):
        skip("g++ was not found: the engine is compiled with it")
    first, _ = build_wheel(tiny(tree))
    assert list((tree / "build").rglob("_engine.*")) and "abi3" in first.name
    first.unlink()
    wheel, said = build_wheel(tree, GPULSTM_CXX="none")
    lacks_its_engine(wheel, said, "no compiler was found: GPULSTM_CXX names 'none'", tmp_path / "fresh")


def test_an_install_that_follows_the_checkout_compiles_nothing(tree):
    code = "from setuptools import build_meta; build_meta.build_editable('dist')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0 and "compiles its sources at first use" in done.stdout + done.stderr, done.stderr
    assert not list(tree.rglob("_engine.*"))


def test_a_source_distribution_is_complete(tree, tmp_path):
    code = "from setuptools import build_meta; print(build_meta.build_sdist('dist'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with tarfile.open(tree / "dist" / done.stdout.splitlines()[-1]) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    texts = (".cu", ".cuh", ".cpp", ".h", ".py")
    files = [p for part in ("gpulstm", "kernels") for p in (ROOT / part).rglob("*") if p.suffix in texts]
    missing = {p.relative_to(ROOT).as_posix() for p in files} | {"pyproject.toml", "README.md", "LICENSE"}
    assert missing - inside == set()

"""What the design promises of the tree itself: imports go down, every cell has its three parts, every file says
what it is for, and a wheel holds what it must."""

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gpulstm.cells import CELLS, STEPS
from gpulstm.launch import cell_files, kernel_files
from tests.cases import CELL_CASES
from tests.wheels import build_wheel, copy_tree

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gpulstm"
LEVELS = (
    ("building", "errors", "explain", "precision", "version"),
    (
        "build_command",
        "checks",
        "cublas",
        "dtypes",
        "engine",
        "kernel",
        "launch",
        "library_cache",
        "plain",
        "pool",
        "random",
        "shares",
        "threads",
    ),
    ("arguments", "backend"),
    ("cells",),
    ("functional",),
    ("tape", "cell_checks"),
    ("nn",),
    ("optim", "clip", "grad_scaler", "schedules", "data"),
    ("parallel",),
    ("train", "io", "plot", "classic", "torch"),
    ("labs", "info", "cli", "__main__", "guide"),
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
# Package-wide facts (the version, the public names) stand in gpulstm/__init__.py, above everything.
LEVEL["__init__"] = len(LEVELS)


def upward_imports(source: str, module: str) -> list[str]:
    """The imports of gpulstm in ``source``, a file of top-level part ``module``, that go up (inside functions too)."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "gpulstm":
            parts = node.module.split(".")
            targets = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            targets = [a.name.split(".")[1] for a in node.names if a.name.startswith("gpulstm.")]
            targets += ["__init__" for a in node.names if a.name == "gpulstm"]
        elif isinstance(node, ast.ImportFrom) and node.level:
            targets = ["a relative import"]
        else:
            continue
        for target in targets:
            level = LEVEL.get(target, LEVEL["__init__"])
            if level > LEVEL[module]:
                found.append(target)
    return found


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def texts() -> list[Path]:
    """The C++ and CUDA text."""
    return sorted(p for p in (ROOT / "kernels").rglob("*") if p.suffix in (".cu", ".cuh", ".cpp", ".h"))


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    up = upward_imports(path.read_text(), part(path))
    assert not up, f"{path.name} is at level {LEVEL[part(path)]} and imports upwards: {up}"


def test_an_upward_import_is_seen():
    assert upward_imports("from gpulstm.tape import Tensor", "functional") == ["tape"]
    assert upward_imports("def f():\n    from gpulstm import tape", "cells") == ["tape"]
    assert upward_imports("import gpulstm.nn.lstm", "tape") == ["nn"]
    assert upward_imports("import gpulstm as gl", "cli") == ["__init__"]
    assert upward_imports("from gpulstm import __version__", "labs") == ["__version__"]
    assert upward_imports("from gpulstm.backend import CPU\nimport numpy", "functional") == []


def test_only_the_backend_names_cupy_as_a_module():
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not any(a.name.split(".")[0] == "cupy" for a in node.names), path
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] != "cupy", path
            if isinstance(node, ast.Constant) and node.value == "cupy":
                assert path.name in ("backend.py", "info.py"), f"{path} names the module cupy"


def test_every_cell_has_its_equations_its_kernel_and_its_cases():
    files = {p.stem for p in (PACKAGE / "cells").glob("*.py")} - {"__init__", "cell", "activation", "row"}
    assert set(CELLS) == files
    scanned = {name for name, cell in CELLS.items() if not cell.recurrent}  # tests/test_scan.py has their cases
    assert {cell.kernel.file for name, cell in CELLS.items() if name not in scanned} == files - scanned
    assert {struct: cell.kernel.file for struct, cell in STEPS.items()} == cell_files()
    assert set(cell_files().values()) == files - scanned and {"scan", "step", "step_rows"} <= set(kernel_files())
    assert files - scanned == {case.file for case in CELL_CASES}


@pytest.mark.parametrize(
    "path",
    [*modules(), *texts(), *(ROOT / "tests").rglob("*.py")],
    ids=lambda p: p.name,
)
def test_every_file_opens_with_what_it_is_for(path):
    text = path.read_text()
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
        assert text, f"{path} has no docstring"
    else:
        assert text.startswith("//")
    assert text.splitlines()[0].rstrip().endswith((".", ":", ",", ";")) or len(text.splitlines()[0]) > 40


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel without the compiled engine, which tests/test_engine_build.py builds."""
    return build_wheel(copy_tree(tmp_path_factory.mktemp("wheel")), GPULSTM_CXX="none")[0]


def test_the_wheel_holds_kernels_and_types(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {f"gpulstm/{p.relative_to(ROOT).as_posix()}" for p in texts()} | {"gpulstm/py.typed"}
    guide = [p for ending in ("md", "css", "jinja2") for p in (PACKAGE / "guide").rglob(f"*.{ending}")]
    wanted |= {str(p.relative_to(ROOT)) for p in guide}
    wanted |= {str(p.relative_to(ROOT)) for p in modules()}
    assert wanted <= names, f"missing from the wheel: {sorted(wanted - names)}"
    assert not [n for n in names if not n.startswith(("gpulstm/", "gpulstm-"))]


def test_kernels_are_found_in_an_installed_wheel(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = "import gpulstm.launch as l; print(l.__file__, *l.kernel_files(), *l.cell_files()); l.source('step', 'lstm')"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    printed = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert printed.stdout.split() == [str(tmp_path / "gpulstm" / "launch.py"), *kernel_files(), *cell_files()]


@pytest.mark.parametrize("installed", [False, True])
def test_a_checkout_has_its_own_kernels(wheel, tmp_path, installed):
    checkout, site = tmp_path / "checkout", tmp_path / "site"
    for name in ("gpulstm", "kernels"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    (checkout / "kernels" / "scan.cu").write_text("// this checkout's")
    if installed:  # another gpulstm, kernels included
        zipfile.ZipFile(wheel).extractall(site)
    # -S leaves out site-packages, and with it any installed gpulstm; NumPy's folder comes back by hand.
    path = [str(site), str(Path(np.__file__).parents[1])]
    code = f"import sys; sys.path += {path}; import gpulstm.launch as l; print(l.source('scan'))"
    command = [sys.executable, "-S", "-c", code]
    printed = subprocess.run(command, cwd=checkout, env=os.environ | {"PYTHONPATH": ""}, capture_output=True, text=True)
    assert printed.stdout.strip() == "// this checkout's", printed.stderr

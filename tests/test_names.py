"""What ``import gpulstm as gl`` gives, what it leaves alone, and the names that messages send people to."""

import ast
import itertools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator

import pytest

import gpulstm as gl
from tests.conftest import ROOT

HEAVY = ("cupy", "tqdm", "click", "safetensors", "matplotlib", "ml_dtypes", "torch")


def test_every_public_name_is_there():
    assert len(gl.__all__) == len(set(gl.__all__))
    for name in gl.__all__:
        assert getattr(gl, name) is not None, name
    assert dir(gl) == sorted(gl.__all__)
    with pytest.raises(AttributeError, match="module 'gpulstm' has no attribute 'lstm_'"):
        _ = gl.lstm_


def test_importing_loads_nothing_that_array_code_does_not_need():
    code = f"import sys, gpulstm; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    late = "import sys, gpulstm as gl; gl.Trainer; gl.io; gl.data; print('gpulstm.train' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", late], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def told_to_install(source: str) -> Iterator[str]:
    """The packages that texts of a module say to install."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"pip install (?:-\S+ )*[\"']?([A-Za-z][\w.-]*)", node.value)
            yield from re.findall(r"\bgpulstm(?=\[)|\bcupy-[\w.-]*", node.value)


def test_messages_send_people_to_packages_that_exist():
    """gpulstm itself is on no package index; the others are among those that pyproject.toml declares."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    known = {re.match(r"[\w.-]+", requirement)[0] for requirement in declared}
    modules = (path.read_text(encoding="utf-8") for path in ROOT.glob("gpulstm/**/*.py"))
    named = {name for module in modules for name in told_to_install(module)}
    assert {"cupy-cuda12x", "cupy-cuda13x", "ml_dtypes", "matplotlib", "onnx"} <= named <= known


@pytest.mark.parametrize(
    "message", ["pip install 'gpulstm[plot]'", "install gpulstm[cuda12]", "pip install -U gpulstm"]
)
def test_advice_to_install_gpulstm_by_name_is_seen(message):
    assert set(told_to_install(f"raise E({message!r})")) == {"gpulstm"}

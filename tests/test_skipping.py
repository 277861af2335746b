"""What a machine lacks is skipped with the reason; under CI, or when asked for by name, it fails instead."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow  # it runs pytest itself many times

TESTS = """
import pytest
from tests.conftest import GPUS, require

def test_device(device):
    assert device.to_numpy(device.xp.ones(2)).tolist() == [1, 1]

@pytest.mark.oracle
def test_oracle():
    import torch

def test_required():
    require("no_such_module")

def test_own_import():
    pytest.importorskip("no_such_module")

@pytest.mark.skip(reason="no such thing")
def test_own_mark():
    pass

@pytest.mark.parametrize("k", range(5))
def test_many(k):
    require("no_such_module") if k < 3 else pytest.skip("no such thing")

@pytest.mark.parametrize("device", GPUS, indirect=True)
def test_gpus(device):
    pass
"""


def outcome(tmp_path, name, fakes=(), path=os.environ["PATH"], source=TESTS, **environment):
    """pytest's report on one of the tests above, with modules that fail to import and an environment."""
    (tmp_path / "test_probe.py").write_text(source)
    for fake in fakes:
        (tmp_path / f"{fake}.py").write_text(f"raise ImportError('{fake} is broken here')")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider",
               "-c", ROOT / "pyproject.toml", f"test_probe.py{name and '::test_'}{name}"]  # fmt: skip
    kept = {key: value for key, value in os.environ.items() if key not in ("CI", "GPULSTM_TEST_DEVICES")}
    environment = {**kept, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "PATH": path, **environment}
    return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True).stdout


def test_devices_can_be_chosen(tmp_path):
    assert "1 passed in" in outcome(tmp_path, "device", GPULSTM_TEST_DEVICES="cpu")
    assert "passed" not in outcome(tmp_path, "device", GPULSTM_TEST_DEVICES="gpu")


def test_without_a_gpu_cuda_is_skipped_with_the_reason_also_under_ci(tmp_path):
    report = outcome(tmp_path, "device", CI="true")
    assert "2 passed, 1 skipped" in report
    assert "this process has a GPU" in report or "no NVIDIA driver was found" in report


def test_without_a_gpu_cuda_fails_when_asked_for(tmp_path):
    report = outcome(tmp_path, "device", fakes=["cupy"], GPULSTM_TEST_DEVICES="cuda")
    assert "1 error" in report and "asks for cuda" in report and "cupy is broken here" in report


def test_without_cupy_emulated_is_skipped_but_not_under_ci(tmp_path):
    chosen = {"GPULSTM_TEST_DEVICES": "cpu,emulated"}
    report = outcome(tmp_path, "device", fakes=["cupy"], **chosen)
    assert "1 passed, 1 skipped" in report and "CuPy does not import: cupy is broken here" in report
    report = outcome(tmp_path, "device", fakes=["cupy"], CI="true", **chosen)
    assert "1 passed, 1 error" in report and "under CI nothing may be missing" in report


def test_without_a_compiler_emulated_is_skipped_but_not_under_ci(tmp_path):
    chosen = {"GPULSTM_TEST_DEVICES": "cpu,emulated", "path": str(tmp_path)}
    report = outcome(tmp_path, "device", **chosen)
    assert "1 passed, 1 skipped" in report and "g++ was not found" in report
    report = outcome(tmp_path, "device", CI="true", **chosen)
    assert "1 passed, 1 error" in report and "under CI nothing may be missing" in report


@pytest.mark.parametrize("name, fake, reason", [
    ("oracle", "torch", "torch is broken here"),
    ("required", "no_such_module", "no_such_module is broken here"),
])  # fmt: skip
def test_without_another_library_its_tests_are_skipped_but_not_under_ci(tmp_path, name, fake, reason):
    report = outcome(tmp_path, name, fakes=[fake])
    assert "1 skipped" in report and reason in report
    report = outcome(tmp_path, name, fakes=[fake], CI="true")
    assert "skipped" not in report and ("1 error" in report or "1 failed" in report) and reason in report


@pytest.mark.parametrize("name", ["import", "mark"])
def test_tests_that_skip_themselves_are_seen_under_ci_too(tmp_path, name):
    assert "1 skipped" in outcome(tmp_path, f"own_{name}")
    report = outcome(tmp_path, f"own_{name}", CI="true")
    assert ("1 failed" in report or "1 error" in report) and "under CI nothing may be missing" in report


def test_a_module_that_lacks_something_is_skipped_but_not_under_ci(tmp_path):
    module = TESTS + "require('no_such_module')\n"
    assert "1 skipped" in outcome(tmp_path, "", source=module)
    report = outcome(tmp_path, "", source=module, CI="true")
    assert "1 error" in report and "under CI nothing may be missing: no_such_module does not import" in report


def test_skipped_tests_are_summed_up_by_reason(tmp_path):
    lines = outcome(tmp_path, "many").splitlines()
    assert [line for line in lines if line.startswith("SKIPPED")] == [
        "SKIPPED [3] no_such_module does not import: No module named 'no_such_module'",
        "SKIPPED [2] no such thing",
    ]


def test_the_processor_alone_is_a_choice_that_ci_accepts(tmp_path):
    report = outcome(tmp_path, "gpus", CI="true", GPULSTM_TEST_DEVICES="cpu")
    assert "2 skipped" in report and "GPULSTM_TEST_DEVICES leaves out cuda" in report

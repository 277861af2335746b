"""What every test shares: the three devices, a seeded generator, and which tests may be skipped where.

GPULSTM_TEST_DEVICES, a comma-separated list, limits the devices; one named there is never skipped. Under
CI=true nothing but the real GPU may be missing: what cannot run there fails.
"""

import importlib
import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# Lets `from tests.cases import ...` work without the checkout on sys.path, which would hide an installed one.
if "tests" not in sys.modules:
    sys.modules["tests"] = types.ModuleType("tests")
    sys.modules["tests"].__path__ = [str(Path(__file__).parent)]

from gpulstm import backend
from tests import emulated_cuda

CI = os.environ.get("CI") == "true"
ALL_DEVICES = ("cpu", "emulated", "cuda")
NAMED = tuple(filter(None, os.environ.get("GPULSTM_TEST_DEVICES", "").replace(" ", "").split(",")))
# For @pytest.mark.parametrize("device", GPUS, indirect=True).
GPUS = tuple(name for name in NAMED or ALL_DEVICES if name != "cpu")
if unknown := set(NAMED) - set(ALL_DEVICES):
    raise pytest.UsageError(f"GPULSTM_TEST_DEVICES: want some of {', '.join(ALL_DEVICES)}, got {', '.join(unknown)}")


def skip(reason: str, allowed_in_ci: bool = False) -> None:
    """Skip the test, or fail it under CI."""
    if CI and not allowed_in_ci:
        pytest.fail(f"under CI nothing may be missing: {reason}", pytrace=False)
    pytest.skip(reason, allow_module_level=True)


def require(module: str) -> Any:
    """Import a module that only some machines have; skip where it is missing, fail under CI."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        return skip(f"{module} does not import: {error}")


@pytest.fixture(params=NAMED or ALL_DEVICES)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The Backend of one device: its xp, asarray, to_numpy and kernels."""
    if request.param == "cpu":
        yield backend.CPU
        return
    if request.param == "emulated":
        request.getfixturevalue("emulated")
    else:
        backend._forget_devices()
        if reason := backend.why_no_cuda():
            if "cuda" in NAMED:
                pytest.fail(f"GPULSTM_TEST_DEVICES asks for cuda: {reason}", pytrace=False)
            skip(reason, allowed_in_ci=True)
    yield backend.device("cuda").backend


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The emulated CuPy, in place of the real one until the test ends."""
    if reason := emulated_cuda.why_not():
        skip(reason)
    with monkeypatch.context() as patch:
        yield emulated_cuda.install(patch)
    backend._forget_devices()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20260)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("oracle"):
        require("torch")

"""What every test shares: the three devices, a seeded generator, and which tests may be skipped where.

GPULSTM_TEST_DEVICES, a comma-separated list, limits the devices; one named there is never skipped.
GPULSTM_TEST_AUTO=emulated makes "auto" an emulated GPU in every test, as on a machine with a GPU, and
GPULSTM_TEST_HARSH=1 makes the emulated GPU's arithmetic as poor as CUDA's may be. Under
CI=true nothing but a GPU or a kind of processor may be missing: a test that is skipped for another reason fails.
"""

import collections
import functools
import importlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from gpulstm import backend, engine
from gpulstm.functional import path_table
from tests import emulated_cuda

ROOT = Path(__file__).parents[1]
# pytest puts the checkout before an installed gpulstm (pyproject.toml); processes that tests start find it here.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))

CI = os.environ.get("CI") == "true"
ALL_DEVICES = ("cpu", "emulated", "cuda")
NAMED = tuple(filter(None, os.environ.get("GPULSTM_TEST_DEVICES", "").replace(" ", "").split(",")))
GPU_FOR_AUTO = os.environ.get("GPULSTM_TEST_AUTO") == "emulated"
HARSH = int(os.environ.get("GPULSTM_TEST_HARSH") == "1")
GPUS = ALL_DEVICES[1:]  # for @pytest.mark.parametrize("device", GPUS, indirect=True)
if unknown := set(NAMED) - set(ALL_DEVICES):
    raise pytest.UsageError(
        f"GPULSTM_TEST_DEVICES: expected some of {', '.join(ALL_DEVICES)}, got {', '.join(unknown)}"
    )


# A process has one CUDA: the emulated one where it is asked for, or where there is no other. It must be there before
# cupy is imported.
REAL_GPU = any(Path(file).exists() for file in ("/dev/nvidiactl", "/dev/dxg"))
if REAL_GPU and "emulated" not in NAMED:
    NO_EMULATION = "this process has a GPU; GPULSTM_TEST_DEVICES=cpu,emulated emulates one"
else:
    NO_EMULATION = emulated_cuda.why_not()


class NoDevice(pytest.skip.Exception):
    """The one skip that may happen under CI: no GPU or processor of a kind is there, or GPULSTM_TEST_DEVICES leaves the
    device out."""


def skip(reason: str) -> NoReturn:
    """Skip the test, or the module that calls this; under CI it fails (see below)."""
    pytest.skip(reason, allow_module_level=True)


def require(module: str) -> Any:
    """Import a module that only some machines have; skip where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        skip(f"{module} does not import: {error}")


def with_path(folder: Path) -> dict[str, str]:
    """For the environment of a process: it finds modules in ``folder`` first, and the checkout's after them."""
    return {"PYTHONPATH": f"{folder}{os.pathsep}{os.environ['PYTHONPATH']}"}


@pytest.fixture(params=NAMED or ALL_DEVICES)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The Backend of one device: its xp, asarray, to_numpy and kernels."""
    if request.param not in (NAMED or ALL_DEVICES):
        raise NoDevice(f"GPULSTM_TEST_DEVICES leaves out {request.param}")
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
            raise NoDevice(reason)
    yield backend.device("cuda").backend


def emulation() -> Any:
    """CuPy on the emulated CUDA; skips the test, or the module that calls this, where it is not to be had."""
    if REAL_GPU and NO_EMULATION:
        raise NoDevice(NO_EMULATION, allow_module_level=True)
    if NO_EMULATION:
        skip(NO_EMULATION)
    return emulated_cuda.prepare()


@pytest.fixture
def emulated() -> Any:
    """CuPy, on a emulated CUDA with two devices until the test ends."""
    cupy = emulation()
    with emulated_cuda.gpu(devices=2, harsh=HARSH):
        backend._forget_devices()
        cupy.cuda.Device(0).use()
        yield cupy
        cupy.cuda.Device(0).use()
        if fault := emulated_cuda.pending_fault():
            pytest.fail(fault)
    backend._forget_devices()


@pytest.fixture(scope="module")
def browser() -> Any:
    """Chromium, driven by selenium; its console is kept."""
    program, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if program is None or driver is None:
        skip("no chromium and chromedriver were found")
    webdriver = require("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver)) as started:
        yield started


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20260)


def pytest_sessionstart() -> None:
    """Compile the engine before any test: a process that compiles it says so, which no test expects."""
    engine.library()
    if REAL_GPU and NO_EMULATION and not backend.why_no_cuda():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # of the processes that tests start; this one has found its GPUs
    if GPU_FOR_AUTO:
        emulation()
        emulated_cuda.settings().devices = 2


@pytest.fixture(autouse=True)
def _no_measured_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured on this machine's GPU decides no test."""
    monkeypatch.setattr(path_table, "cache_folder", lambda: ROOT / "no such folder")


_OF_THE_PROCESSOR = "this test is one of the processor"


@pytest.fixture(autouse=True)
def _no_gpu_unasked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """On a machine with a GPU, "auto" is the processor in a test that asks for no GPU."""
    place = request.node.callspec.params.get("device", "") if hasattr(request.node, "callspec") else ""
    if not (REAL_GPU or GPU_FOR_AUTO) or "emulated" in request.fixturenames or place in GPUS:
        yield
        return
    found, genuine = backend.why_no_cuda, sys.modules.get("cupy")

    @functools.cache
    def why_no_cuda() -> str:
        another = sys.modules.get("cupy") is not genuine  # which a test may put there
        return found.__wrapped__() if another else _OF_THE_PROCESSOR

    monkeypatch.setattr(backend, "why_no_cuda", why_no_cuda)
    yield


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("oracle"):
        require("torch")


# -- skipped tests: none under CI, and one line a reason at the end ----------------------------------------
def _fail_if_skipped(report: Any, call: Any) -> Any:
    missing = report.skipped and not hasattr(report, "wasxfail") and not isinstance(call.excinfo.value, NoDevice)
    if CI and missing:
        report.outcome, report.longrepr = "failed", f"under CI nothing may be missing: {call.excinfo.value}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Iterator[None]:
    return _fail_if_skipped((yield), call)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    report = yield
    return _fail_if_skipped(report, report.call)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line for each reason to skip tests, with their number; pytest would list every place."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = collections.Counter(report.longrepr[2].partition(": ")[2] for report in skipped)
    if reasons:
        terminalreporter.section("skipped tests", sep="=", bold=True)
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"SKIPPED [{count}] {reason}")

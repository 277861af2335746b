"""Runs the tests on the GPU, as a part of benchmarks.gpu.

    python -m benchmarks.suite --out FILE

It runs every test that takes a device, on the device ``cuda`` only. The other tests need no GPU, and some need a
machine without one.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Any

from benchmarks.facts import ROOT
from benchmarks.part import Part, main


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """What makes this module a plug-in of pytest: keep the tests whose fixture ``device`` is cuda."""
    chosen = [item for item in items if hasattr(item, "callspec") and item.callspec.params.get("device") == "cuda"]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


def command(paths: Iterable[str] = ("tests",)) -> list[str]:
    """The call of pytest: quiet, one line for each failure at the end, nothing left in the checkout."""
    options = ["-q", "--tb=short", "-rfE", "--color=no", "-p", "no:cacheprovider", "-p", "benchmarks.suite"]
    return [sys.executable, "-m", "pytest", *options, *paths]


def environment() -> dict[str, str]:
    """What the tests run in: cuda alone, oracles may be missing, the checkout is found from any folder, and
    pytest loads no plug-in that merely happens to be installed."""
    kept = {name: value for name, value in os.environ.items() if name != "CI"}
    path = os.pathsep.join(filter(None, (str(ROOT), kept.get("PYTHONPATH"))))
    return {**kept, "GPULSTM_TEST_DEVICES": "cuda", "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def run_tests(part: Part, call: list[str], environment: dict[str, str]) -> None:
    """Run pytest and keep its summary; a test that fails, or no test at all, fails the part."""
    started = time.monotonic()
    left = max(1.0, part.end - started)
    try:
        done = subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=left)
        output, code = done.stdout + done.stderr, str(done.returncode)
    except subprocess.TimeoutExpired as stopped:
        output, code = (stopped.stdout or b"").decode(errors="replace"), f"stopped after {left:.0f} s"
    lines = output.splitlines()
    failed = [line for line in lines if line.startswith(("FAILED ", "ERROR "))]
    counts = counted(lines)
    part.add({"exit": code, "seconds": time.monotonic() - started, **counts, "failed_tests": failed})
    for line in failed:
        part.fail(line)
    if code != "0" and not failed:
        part.fail(f"pytest ended with {code}: " + " / ".join(lines[-15:]))
    elif not counts.get("passed"):
        part.fail("no test ran on cuda")
    part.note(f"tests on cuda: {lines[-1] if lines else 'no output'}")


def counted(lines: list[str]) -> dict[str, int]:
    """{"passed": n, "failed": n, ...} from the summary, the last line that has such counts."""
    for line in reversed(lines):
        found = re.findall(r"(\d+) (passed|failed|errors?|skipped|deselected|xfailed|warnings?)\b", line)
        if found:
            return {word.rstrip("s") if word.startswith(("err", "warn")) else word: int(n) for n, word in found}
    return {}


def work(part: Part, backend: Any) -> None:
    run_tests(part, command(), environment())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], "suite", work))

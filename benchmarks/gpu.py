"""Measures everything that needs an NVIDIA GPU, in one command and under 8 minutes.

    python -m benchmarks.gpu                    # writes gpu.json and gpu.md to benchmarks/results/
    python -m benchmarks.gpu --out FOLDER --commit 1a2b3c
    python -m benchmarks.gpu --only cudnn,losses
    python -m benchmarks.gpu --quick            # tiny sizes; checks that every part works

    warm        compiles the kernels, so that no other part waits for the compiler
    hardware    small measurements: copy, launches, host time, one product of each shape
    losses      the first 50 losses of the text lab, compared with those of the CPU
    suite       the tests on the device cuda
    cudnn       gpulstm's kernels compared with cuDNN, eager and in a CUDA graph

It runs in a checkout, without an installation. Each part is a separate process with a time limit. If a part fails,
crashes or takes too long, its error and the measurements so far are recorded, and the next part starts.

Exit code 0: every part passed. 1: some part failed. 2: wrong arguments, or no usable GPU.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import cudnn, facts, harness
from gpulstm import DeviceError, device

LIMIT = 460  # seconds for everything
# Part -> its limit in seconds, in the order they run; the last may take all that is left.
PARTS = {"warm": 30, "hardware": 50, "losses": 50, "suite": 180, "cudnn": LIMIT}
SHOWN = 5  # errors of a part in the table; the JSON has all
GRACE = 10  # seconds beside a part's own limit, in which it may end by itself

HARDWARE_COLUMNS = {
    "measurement": "measurement", "what": "what", "dtype": "dtype", "B": "B", "H": "H",
    "value": "value", "unit": "unit", "how": "how",
}  # fmt: skip
LOSS_COLUMNS = {
    "step": "step", "cuda": "cuda float32", "cpu": "cpu float32", "cpu_float64": "cpu float64",
    "difference": "cuda to cpu", "allowed": "allowed",
}  # fmt: skip


@dataclass
class Outcome:
    """What came of one part; it failed if there are errors."""

    part: str
    seconds: float
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def status(self) -> str:
        return "failed" if self.errors else "passed"

    def line(self, most: int | None = None) -> dict[str, Any]:
        """The part in one row, with at most so many errors."""
        shown = self.errors[:most]
        rest = [f"and {len(self.errors) - len(shown)} more"] if len(self.errors) > len(shown) else []
        said = " / ".join([*shown, *rest, *self.notes])
        return {"part": self.part, "status": self.status, "seconds": harness.rounded(self.seconds), "said": said}


def run_part(name: str, command: Sequence[str], seconds: float, folder: Path) -> Outcome:
    """Run one part to its end or its limit; whatever happens to it becomes the Outcome.

    ``command`` is given ``--out FILE --seconds N``; its output is shown once it has ended.
    """
    file, log = folder / f"{name}.json", folder / f"{name}.log"
    call = [*command, "--out", str(file), "--seconds", f"{seconds:.0f}"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    started, errors = time.monotonic(), []
    with log.open("w") as output:
        process = subprocess.Popen(
            call, cwd=facts.ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            code = process.wait(seconds + GRACE)
        except subprocess.TimeoutExpired:
            code = 0
            errors.append(f"stopped after {seconds + GRACE:.0f} s")
        finally:
            if process.poll() is None:  # out of time, or Ctrl-C
                os.killpg(process.pid, signal.SIGKILL)  # the part and whatever it has started
                process.wait()
    said = log.read_text(errors="replace")
    print(said, flush=True)
    left = _left_behind(file)
    errors += left["failures"]
    if code != 0 and not errors:
        errors.append(f"ended with {code}: {' / '.join(said.splitlines()[-5:])}")
    return Outcome(name, time.monotonic() - started, errors, left["notes"], left["rows"])


def _left_behind(file: Path) -> dict[str, list]:
    empty: dict[str, list] = {"notes": [], "failures": [], "rows": []}
    return empty | (harness.read(file) if file.exists() else {})


def run_parts(
    parts: Mapping[str, tuple[Sequence[str], float]], folder: Path, limit: float = LIMIT
) -> list[Outcome]:  # fmt: skip
    """Run the parts (name -> command, seconds) in turn, within the limit, also past one that fails."""
    end, outcomes = time.monotonic() + limit, []
    for name, (command, seconds) in parts.items():
        left = end - time.monotonic() - GRACE
        print(f"== {name}", flush=True)
        if left < 1:
            outcomes.append(Outcome(name, 0.0, ["not begun: no time was left"]))
        else:
            outcomes.append(run_part(name, command, min(seconds, left), folder))
        print(f"== {name}: {outcomes[-1].status} in {outcomes[-1].seconds:.0f} s\n", flush=True)
    return outcomes


def report(head: dict[str, Any], outcomes: Sequence[Outcome]) -> str:
    """The result as Markdown: how each part went, and the rows of those that have a table."""
    lines = ["# gpulstm on a GPU\n"]
    columns = {"part": "part", "status": "status", "seconds": "s", "said": ""}
    lines.append(harness.table([outcome.line(SHOWN) for outcome in outcomes], columns))
    rows = {outcome.part: outcome.rows for outcome in outcomes if outcome.rows}
    if "cudnn" in rows:
        lines += ["## Beside cuDNN\n", harness.table(cudnn.side_by_side(rows["cudnn"]), cudnn.COLUMNS)]
    if "losses" in rows:
        digits = [
            {key: f"{value:.7f}" if key.startswith("c") else value for key, value in row.items()}
            for row in rows["losses"]
        ]
        lines += ["## First losses of the text lab\n", harness.table(digits, LOSS_COLUMNS)]
    if "hardware" in rows:
        lines += ["## Small measurements\n", harness.table(rows["hardware"], HARDWARE_COLUMNS)]
    return "\n".join([*lines, harness.origin(head)])


def main(given: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="the folder for gpu.json and gpu.md")
    parser.add_argument("--only", default=",".join(PARTS), help="run only these parts: some of " + ", ".join(PARTS))
    parser.add_argument("--commit", default="", help="the commit to record if the checkout has no history")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; writes nothing without --out")
    options = parser.parse_args(given)
    chosen = options.only.split(",")
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"--only: expected some of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    head = facts.facts("benchmarks.gpu", given, options.commit)
    try:
        backend = device("cuda").backend
    except DeviceError as error:
        print(f"no GPU can be reached, so nothing was measured: {error}", file=sys.stderr)
        return 2
    head["machine"] |= facts.gpu(backend)
    quick = ["--quick"] if options.quick else []
    parts = {
        name: ([sys.executable, "-m", f"benchmarks.{name}", *quick], seconds)
        for name, seconds in PARTS.items()
        if name in chosen
    }
    with tempfile.TemporaryDirectory(prefix="gpulstm-benchmark-") as folder:
        outcomes = run_parts(parts, Path(folder))
    text = report(head, outcomes)
    print(text)
    out = options.out or (None if options.quick else harness.RESULTS)
    if out is not None:
        rows = [{"part": outcome.part, **row} for outcome in outcomes for row in outcome.rows]
        record = {**head, "parts": [outcome.line() for outcome in outcomes], "rows": rows}
        harness.write_json(out / "gpu.json", record)
        harness.write(out / "gpu.md", text)
    return 0 if all(outcome.status == "passed" for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

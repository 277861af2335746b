"""Shared by the parts of benchmarks.gpu: each part is a command of its own that writes one file.

    python -m benchmarks.<part> --out FILE [--seconds N] [--quick]

A part writes its file after every measurement, so that the results so far remain if it is stopped.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness
from gpulstm import DeviceError, device


class Part:
    """The results of a part as they come: rows, facts about them, and what failed."""

    def __init__(self, file: Path | None, seconds: float, quick: bool) -> None:
        self.file, self.quick = file, quick
        self.end = time.monotonic() + seconds
        self.rows: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.failures: list[str] = []

    def add(self, *rows: dict[str, Any]) -> None:
        """Keep the rows."""
        self.rows += rows
        self.save()

    def note(self, line: str) -> None:
        """Say something that a reader of the rows should know."""
        print(line, flush=True)
        self.notes.append(line)
        self.save()

    def fail(self, line: str) -> None:
        """Say what went wrong; the part goes on, and ends as failed."""
        print(f"FAILED: {line}", flush=True)
        self.failures.append(line)
        self.save()

    def attempt(self, what: str, measure: Callable[..., Sequence[dict[str, Any]]], *arguments: Any) -> None:
        """Keep the rows of one measurement, or the reason why there are none."""
        try:
            self.add(*measure(*arguments))
        except Exception as error:  # one measurement that breaks must not cost the others
            self.fail(f"{what}: {type(error).__name__}: {error}")

    def save(self) -> None:
        if self.file is not None:
            harness.write_json(self.file, {"notes": self.notes, "failures": self.failures, "rows": self.rows})


def main(given: Sequence[str], name: str, work: Callable[[Part, Any], None]) -> int:
    """Run a part from the command line: ``work(part, backend)``. 0: passed, 1: failed, 2: no GPU."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument("--out", type=Path, help="the file for the results")
    parser.add_argument("--seconds", type=float, default=240.0, help="start no new measurement after this time")
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    options = parser.parse_args(given)
    try:
        backend = device("cuda").backend
    except DeviceError as error:
        print(error, file=sys.stderr)
        return 2
    part = Part(options.out, options.seconds, options.quick)
    part.save()
    work(part, backend)
    return 1 if part.failures else 0

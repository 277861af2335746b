"""One LSTM layer beside its peers: speed, memory and error, on the processor or on a GPU.

    python -m benchmarks.recurrent                    # every shape below, both modes; 8 minutes
    python -m benchmarks.recurrent --quick            # that it works; seconds
    python -m benchmarks.recurrent --shapes 16,100,128,128 --peers torch --threads 1
    python -m benchmarks.recurrent --device cuda --precisions float32,bfloat16

Inference gives y, h_n and c_n; training gives these and the gradients of the four parameters, from a gradient
of y, and on no side one of the input. All implementations compute the same numbers, and one that does not
agree with a float64 reference of the same sequence is refused and not timed. Memory is what three calls used
at most, beside the library, the inputs and the parameters, in a process that did nothing else before.

Each implementation has a process of its own, and the processes take turns in short blocks: team.py says why.
An implementation that is not installed is left out, and the table says so. On a GPU there are two clocks: the
wall's, from the call to the end of its work, and the GPU's, between events around the call.

Exit code 0: all was measured. 1: something was refused or failed. 2: wrong arguments, or no such device.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import facts, harness
from benchmarks.peers import SERVES
from benchmarks.problem import AGREEMENT, MODES, Shape
from benchmarks.team import Missing, Team, WorkerFailed, take_turns
from gpulstm import DeviceError, device

SHAPES = (
    "1,100,128,128",
    "16,100,128,128",
    "64,100,128,256",
    "32,100,256,512",
    "64,100,512,1024",
    "128,50,1024,1024",
)
QUICK_SHAPES = ("1,10,16,16", "4,10,16,24")
BUSY = 0.5  # processes running before the run, on average over a minute
COLUMNS = {
    "B": "B", "T": "T", "D": "D", "H": "H", "dtype": "dtype", "mode": "mode",
    "implementation": "implementation",
    "path": "path", "p20_ms": "p20 ms", "p50_ms": "p50 ms", "p80_ms": "p80 ms", "us_per_step": "µs a step",
    "speed": "speed beside torch", "memory_mib": "memory MiB", "memory_ratio": "memory beside torch",
    "error": "error to float64",
}  # fmt: skip


@dataclass
class Comparison:
    """What to compare and how long, and what came of it."""

    device: str
    peers: Sequence[str]
    rounds: int = 8
    seconds: float = 0.5  # of one block
    end: float = float("inf")  # time.monotonic() after which nothing new is begun
    rows: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(
        default_factory=list
    )  # what disagreed, failed, or was not begun in time
    missing: dict[str, str] = field(default_factory=dict)  # implementation -> why it is not here

    def run(
        self, team: Team, shapes: Sequence[Shape], precisions: Sequence[str],
        keep: Callable[[list[dict[str, Any]]], None],
    ) -> None:  # fmt: skip
        """Measure every precision, shape and mode, and give the rows of each to ``keep`` as they come.

        Memory on the processor wants a new process for each; on a GPU the library's pool is emptied instead.
        """
        references: dict[Shape, str] = {}
        with tempfile.TemporaryDirectory(prefix="gpulstm-benchmark-") as folder:
            for precision, shape, mode in itertools.product(precisions, shapes, MODES):
                if time.monotonic() > self.end:
                    self._refuse("all", shape, mode, precision, "not begun: no time was left")
                    continue
                if shape not in references:
                    file = str(Path(folder) / f"{shape}.npz")
                    team.worker("reference").ask("reference", shape=str(shape), file=file, device=self.device)
                    references[shape] = file
                if self.device == "cpu":
                    team.dismiss()
                rows = self._compare(team, shape, mode, precision, references[shape])
                self.rows += rows
                keep(rows)

    def _compare(
        self, team: Team, shape: Shape, mode: str, precision: str, reference: str
    ) -> list[dict[str, Any]]:
        """All implementations of one sequence: load each, refuse what disagrees, and time the others in
        turn."""
        workers, loaded = {}, {}
        for name in self.peers:
            serves = SERVES[name]
            if mode not in serves.modes or precision not in serves.precisions or name in self.missing:
                continue
            worker = team.worker(name, tf32=precision == "tf32")
            try:
                loaded[name] = worker.ask(
                    "load",
                    peer=name,
                    shape=str(shape),
                    mode=mode,
                    device=self.device,
                    precision=precision,
                    reference=reference,
                )
            except Missing as error:
                self.missing[name] = str(error)
            except WorkerFailed as error:
                self._refuse(name, shape, mode, precision, str(error))
            else:
                error, worst = loaded[name]["error"], loaded[name]["worst"]
                if error <= AGREEMENT[precision]:
                    workers[name] = worker
                else:
                    why = f"{worst} is off by {error:.2g}, want at most {AGREEMENT[precision]:g}"
                    self._refuse(name, shape, mode, precision, why)
        timed = take_turns(workers, self.rounds, self.seconds)
        for name in [name for name in timed if "failed" in timed[name]]:
            self._refuse(name, shape, mode, precision, timed.pop(name)["failed"])
        rows = [
            harness.sequence_row(name, shape, mode, self.device, precision, loaded[name], samples)
            for name, samples in timed.items()
        ]
        harness.compare_with(rows, "torch")
        return rows

    def _refuse(self, name: str, shape: Shape, mode: str, precision: str, why: str) -> None:
        self.refused.append(
            {"implementation": name, "shape": str(shape), "mode": mode, "precision": precision, "why": why}
        )

    def complaints(self) -> list[str]:
        """A line for each thing that was refused."""
        return [" ".join(f"{value}" for value in refusal.values()) for refusal in self.refused]


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Say what was just measured, a line for each row."""
    for row in rows:
        what = (
            ",".join(str(row[key]) for key in ("B", "T", "D", "H"))
            + f" {'tf32' if row['tf32'] else row['dtype']}"
        )
        time = f"{row['p50_ms']:.3g} ms" + (f", GPU {row['gpu_p50_ms']:.3g} ms" if row["gpu_p50_ms"] else "")
        print(f"{what} {row['mode']}: {row['implementation']} {time}, error {row['error']:.1e}", flush=True)


def summary(rows: Sequence[dict[str, Any]]) -> list[str]:
    """gpulstm beside torch over all shapes, a line for each mode."""
    lines = []
    for mode in MODES:
        ours = [
            row for row in rows if row["implementation"] == "gpulstm" and row["mode"] == mode and row["speed"]
        ]
        if not ours:
            continue
        speeds = [row["speed"] for row in ours]
        memory = [row["memory_ratio"] for row in ours if row["memory_ratio"] is not None]
        median = statistics.median(speeds)
        line = f"{mode}: speed beside torch {min(speeds):.2f} at least, {median:.2f} in the median"
        lines.append(line + (f"; memory beside torch {max(memory):.2f} at most" if memory else ""))
    return lines


def report(head: dict[str, Any], comparison: Comparison) -> str:
    """The result as Markdown."""
    lines = [
        f"# One LSTM layer on {comparison.device}\n",
        *(f"{line}\n" for line in summary(comparison.rows)),
    ]
    lines.append(harness.table(comparison.rows, COLUMNS))
    lines += [f"{name} was left out: {why}\n" for name, why in comparison.missing.items()]
    if (head["load_before"] or 0) > BUSY:
        lines.append(
            f"The machine was busy before the run, load {head['load_before']}: trust no small difference.\n"
        )
    lines += [f"refused: {line}\n" for line in comparison.complaints()]
    return "\n".join([*lines, harness.origin(head)])


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.recurrent", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny shapes, seconds; writes only where --out says"
    )
    parser.add_argument(
        "--shapes", nargs="+", type=Shape.parse, metavar="B,T,D,H", help="the shapes to measure"
    )
    parser.add_argument(
        "--peers", default="torch,onnxruntime,numpy", help="beside gpulstm: some of " + ", ".join(SERVES)
    )
    parser.add_argument(
        "--threads", type=int, default=facts.cores(), help="of each implementation (all cores)"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precisions", default="float32", help="some of " + ", ".join(AGREEMENT))
    parser.add_argument("--out", type=Path, help="the folder for recurrent-<device>.json and .md")
    options = parser.parse_args(given)
    options.shapes = options.shapes or [
        Shape.parse(text) for text in (QUICK_SHAPES if options.quick else SHAPES)
    ]
    options.peers = ["gpulstm", *(name for name in options.peers.split(",") if name and name != "gpulstm")]
    options.precisions = options.precisions.split(",")
    for what, known, names in (
        ("peers", SERVES, options.peers),
        ("precisions", AGREEMENT, options.precisions),
    ):
        if unknown := [name for name in names if name not in known]:
            parser.error(f"--{what}: want some of {', '.join(known)}, got {', '.join(unknown)}")
    if options.device == "cpu" and "tf32" in options.precisions:
        parser.error("--precisions: tf32 is the GPU's")
    options.peers = [name for name in options.peers if options.device in SERVES[name].devices]
    options.out = options.out or (None if options.quick else harness.RESULTS)
    return options


def main(given: Sequence[str]) -> int:
    options = arguments(given)
    head = facts.facts("benchmarks.recurrent", given)
    try:
        backend = device(options.device).backend
    except DeviceError as error:
        print(error, file=sys.stderr)
        return 2
    if backend.is_cuda:
        head["machine"] |= facts.gpu(backend)
    comparison = Comparison(options.device, options.peers)
    if options.quick:
        comparison.rounds, comparison.seconds = 2, 0.02
    with Team(options.threads) as team:
        comparison.run(team, options.shapes, options.precisions, show)
    text = report(head, comparison)
    print("\n" + text)
    if options.out is not None:
        record = {
            **head,
            "threads": options.threads,
            "missing": comparison.missing,
            "refused": comparison.refused,
        }
        record["answers_without_sleep"] = team.restless
        harness.write_json(
            options.out / f"recurrent-{options.device}.json", {**record, "rows": comparison.rows}
        )
        harness.write(options.out / f"recurrent-{options.device}.md", text)
    return 1 if comparison.refused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

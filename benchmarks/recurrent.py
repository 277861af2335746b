"""Compares one LSTM layer with other implementations: speed, memory and error, on a CPU or on a GPU.

    python -m benchmarks.recurrent                    # every shape below, both modes; 8 minutes
    python -m benchmarks.recurrent --quick            # checks that it works; seconds
    python -m benchmarks.recurrent --shapes 16,100,128,128 --peers torch --threads 1,2
    python -m benchmarks.recurrent --device cuda --precisions float32,bfloat16
    python -m benchmarks.recurrent --threads 1 --update    # keep the file's rows of other numbers of threads, ...

Inference computes y, h_n and c_n. Training computes these and the gradients of the four parameters, from a gradient of
y. No implementation computes a gradient of the input. All implementations compute the same numbers. If one does not
agree with a float64 reference of the same sequence, it is rejected and not timed. Memory is the maximum that three
calls used, without the library, the inputs and the parameters, in a process that did nothing else before. The floor is
the shortest time that the products and the weights can take on this CPU (floor.py).

Each implementation has its own process, and the processes take turns in short blocks; team.py says why. If an
implementation is not installed, it is left out, and the table says so. On a GPU there are two clocks: the wall clock,
from the call to the end of its work, and the clock of the GPU, between events around the call.

Exit code 0: all was measured. 1: something was rejected or failed. 2: wrong arguments, or no such device.
"""

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import facts, harness
from benchmarks.comparison import Comparison, show, summary
from benchmarks.peers import SERVES
from benchmarks.problem import AGREEMENT, Shape
from benchmarks.team import Team
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
    "threads": "threads", "B": "B", "T": "T", "D": "D", "H": "H", "dtype": "dtype", "mode": "mode",
    "implementation": "implementation",
    "path": "path", "p20_ms": "p20 ms", "p50_ms": "p50 ms", "p80_ms": "p80 ms", "floor_ms": "floor ms",
    "us_per_step": "µs a step", "speed": "speed beside torch", "memory_mib": "memory MiB",
    "memory_ratio": "memory beside torch", "error": "error to float64", "after_sleep": "p90 / p50 after sleep",
}  # fmt: skip


def report(head: dict[str, Any], comparison: Comparison) -> str:
    """The result as Markdown."""
    lines = [
        f"# One LSTM layer on {comparison.device}\n",
        *(f"{line}\n" for line in summary(comparison.rows)),
    ]
    lines.append(harness.table(comparison.rows, COLUMNS))
    lines += [f"{name} was left out: {why}\n" for name, why in comparison.missing.items()]
    if (head["load_before"] or 0) > BUSY:
        lines.append(f"The machine was busy before the run, load {head['load_before']}: trust no small difference.\n")
    lines += [f"refused: {line}\n" for line in comparison.complaints()]
    return "\n".join([*lines, *harness.origins(head)])


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recurrent", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny shapes, seconds; writes nothing without --out")
    parser.add_argument("--shapes", nargs="+", type=Shape.parse_layer, metavar="B,T,D,H", help="the shapes to measure")
    parser.add_argument(
        "--peers", default=",".join(SERVES), help="compare gpulstm with some of these (those that the device can run)"
    )
    parser.add_argument(
        "--threads",
        default=str(facts.cores()),
        help="threads of each implementation, or several numbers with commas (default: all cores)",
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precisions", default="float32", help="some of " + ", ".join(AGREEMENT))
    parser.add_argument("--update", action="store_true", help="keep the file's rows of other threads and precisions")
    parser.add_argument("--out", type=Path, help="the folder for recurrent-<device>.json and .md")
    options = parser.parse_args(given)
    options.shapes = options.shapes or [Shape.parse(text) for text in (QUICK_SHAPES if options.quick else SHAPES)]
    options.peers = ["gpulstm", *(name for name in options.peers.split(",") if name and name != "gpulstm")]
    options.precisions = options.precisions.split(",")
    try:
        options.threads = [int(count) for count in options.threads.split(",")]
    except ValueError:
        parser.error(f"--threads: expected whole numbers, got {options.threads}")
    for what, known, names in (
        ("peers", SERVES, options.peers),
        ("precisions", AGREEMENT, options.precisions),
    ):
        if unknown := [name for name in names if name not in known]:
            parser.error(f"--{what}: expected some of {', '.join(known)}, got {', '.join(unknown)}")
    if options.device == "cpu" and "tf32" in options.precisions:
        parser.error("--precisions: tf32 is the GPU's")
    options.peers = [name for name in options.peers if options.device in SERVES[name].devices]
    options.out = options.out or (None if options.quick else harness.RESULTS)
    if options.update and not (options.out and (options.out / f"recurrent-{options.device}.json").exists()):
        parser.error(f"--update: expected a folder with recurrent-{options.device}.json, got {options.out}")
    return options


def earlier(options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """(the rows of the file that this run does not measure again, the runs they come from)."""
    old = harness.read(options.out / f"recurrent-{options.device}.json")
    again = set(itertools.product(options.threads, options.precisions))
    rows = [r for r in old["rows"] if (r["threads"], "tf32" if r["tf32"] else r["dtype"]) not in again]
    return rows, [*old.get("earlier", []), {key: old[key] for key in ("command", "commit", "load_before")}]


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
    if options.update:
        comparison.rows, head["earlier"] = earlier(options)
    if options.quick:
        comparison.rounds, comparison.seconds = 2, 0.02
    restless = 0
    for threads in options.threads:
        with Team(threads) as team:
            comparison.run(team, options.shapes, options.precisions, show)
        restless += team.restless
    text = report(head, comparison)
    print("\n" + text)
    if options.out is not None:
        record = {
            **head,
            "threads": options.threads,
            "missing": comparison.missing,
            "refused": comparison.refused,
        }
        record["answers_without_sleep"] = restless
        harness.write_json(options.out / f"recurrent-{options.device}.json", {**record, "rows": comparison.rows})
        harness.write(options.out / f"recurrent-{options.device}.md", text)
    return 1 if comparison.refused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Measures several processes on this machine: their all-reduces, and how much faster they train.

    python -m benchmarks.parallel              # five minutes on two cores of an otherwise idle machine
    python -m benchmarks.parallel --quick      # checks that it works; seconds

All-reduces are those of gpulstm.parallel.Group.begin_sum, on float32 arrays, over MPI's shared memory. Training is that
of the text lab with 512 units and global batches of 64 and of 128 sequences: by one process with one thread, by two
processes with one thread each, and by one process with two threads. They take turns, and every round starts new
processes. mpiexec is taken from the folder of this Python, or from the PATH.

Writes parallel-cpu.json and .md to benchmarks/results/ or --out. `python -m benchmarks.model --nodes` compares its
predictions with them. Exit code 0: measured. 1: a process failed. 2: no mpi4py, or no mpiexec.
"""

import argparse
import importlib.metadata
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks import facts, harness
from benchmarks.team import THREADS, WorkerFailed
from benchmarks.text import QUICK, RECIPE

NAME = "parallel-cpu"
BATCHES = (64, 128)  # sequences
SIZES = [4 << 10 << 2 * k for k in range(8)]  # bytes: 4 KB, 16 KB, ... 64 MB
PROCESSES = (2, 4)  # that sum
ALONE, TOGETHER, THREADED = WAYS = ((1, 1), (2, 1), (1, 2))  # (processes, threads of each) that train
GOAL = 1.8  # times the speed of one process, by two
TRAINING = {**RECIPE, "steps": 20, "validate_every": 5}  # a record at every validation; the first does not count
CHARACTERS = 100_000
PATIENCE = 600  # seconds that the processes may take
SUMS = {"processes": "processes", "kb": "KB", "p50_ms": "ms", "p20_ms": "20th percentile", "p80_ms": "80th percentile",
        "gb_per_second": "GB a second"}  # fmt: skip
TRAINED = {"batch": "batch", "processes": "processes", "threads": "threads of each",
           "tokens_per_second": "tokens a second",
           "p20": "20th percentile", "p80": "80th percentile", "speed": "speed beside one thread"}  # fmt: skip


def launcher() -> str | None:
    """mpiexec beside this Python, else on the PATH; None without one."""
    return shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")


def ask(processes: int, threads: int, **request: Any) -> Any:
    """What new processes answer to a request (parallel_worker.py). Raises WorkerFailed with what they said."""
    start = [str(launcher()), "-n", str(processes)] if processes > 1 else []
    done = subprocess.run(
        [*start, sys.executable, "-m", "benchmarks.parallel_worker", json.dumps(request)],
        cwd=facts.ROOT, env={**os.environ, **dict.fromkeys(THREADS, str(threads))},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    if done.returncode != 0:
        raise WorkerFailed(f"{request['do']} by {processes} processes: exit code {done.returncode}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def sums(sizes: Sequence[int], takes: int, rounds: int) -> list[dict[str, Any]]:
    """A row for every size and number of processes: milliseconds of an all-reduce on rank 0, of all rounds."""
    samples: dict[tuple[int, int], list[float]] = {}
    for _ in range(rounds):
        for processes in PROCESSES:
            for size, times in zip(sizes, ask(processes, 1, do="sums", sizes=sizes, takes=takes), strict=True):
                samples.setdefault((processes, size), []).extend(times)
    rows = []
    for (processes, size), times in sorted(samples.items()):
        p20, p50, p80 = map(harness.rounded, harness.percentiles(times))
        rows.append({
            "measurement": "all-reduce", "processes": processes, "bytes": size, "samples": len(times),
            "p20_ms": p20, "p50_ms": p50, "p80_ms": p80, "gb_per_second": harness.rounded(size / p50 / 1e6),
        })  # fmt: skip
    return rows


def training(settings: Mapping[str, Any], characters: int, rounds: int) -> list[dict[str, Any]]:
    """A row for each of WAYS: tokens a second, the median over the rounds."""
    samples: dict[tuple[int, int], list[float]] = {way: [] for way in WAYS}
    for k in range(rounds):
        for way in WAYS:
            got = ask(*way, do="train", settings=settings, characters=characters)
            samples[way].append(got["tokens_per_second"])
            print(f"round {k + 1} of {rounds}, {way}: {samples[way][-1]:,.0f} tokens a second", flush=True)
    rows = []
    for (processes, threads), speeds in samples.items():
        p20, p50, p80 = map(harness.rounded, harness.percentiles(speeds))
        rows.append({
            "measurement": "training", "processes": processes, "threads": threads, "samples": rounds,
            "hidden": settings["hidden"], "batch": settings["batch"], "window": settings["window"],
            "gradient_bytes": got["gradient_bytes"],
            "tokens_per_second": p50, "p20": p20, "p80": p80,
            "speed": harness.rounded(statistics.median(speeds) / statistics.median(samples[ALONE])),
        })  # fmt: skip
    return rows


def fitted(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of an all-reduce by two processes the latency (µs), the time of the smallest, and the bandwidth (GB/s), the
    median of the larger half."""
    two = [row for row in rows if row["measurement"] == "all-reduce" and row["processes"] == 2]
    bandwidth = statistics.median(row["gb_per_second"] for row in two[len(two) // 2 :])
    return {"latency_us": harness.rounded(1e3 * two[0]["p50_ms"]), "gb_per_second": harness.rounded(bandwidth)}


def speed_of(rows: Sequence[Mapping[str, Any]], way: tuple[int, int], batch: int) -> float:
    """How many times as fast as one process with one thread."""
    wanted = (*way, batch)
    return next(row["speed"] for row in rows if (row["processes"], row.get("threads"), row.get("batch")) == wanted)


def report(head: Mapping[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """The results as Markdown."""
    trained = [row for row in rows if row["measurement"] == "training"]
    summed = [{**row, "kb": row["bytes"] / 1024} for row in rows if row["measurement"] == "all-reduce"]
    fit = head["fit"]
    reached = " and ".join(f"{ratio:.2f} times with a batch of {batch}" for batch, ratio in head["ratios"].items())
    model = f"{trained[0]['hidden']} units and {trained[0]['window']} steps"
    return "\n".join([
        "# Several processes on cpu\n",
        f"Speed of two processes that train the text lab with {model}, beside one process: {reached} sequences in all. "
        f"The goal is {GOAL} times.\n",
        harness.table(trained, TRAINED),
        f"All-reduces of float32; by two processes about {fit['latency_us']:.3g} µs and then "
        f"{fit['gb_per_second']:.3g} GB a second.\n",
        harness.table(summed, SUMS),
        harness.origin(head),
    ])  # fmt: skip


def main(given: Sequence[str]) -> int:
    head = facts.facts("benchmarks.parallel", given)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parallel", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tiny model; writes nothing without --out")
    parser.add_argument("--rounds", type=int, help="rounds of every measurement (default: 5)")
    parser.add_argument("--out", type=Path, help="the folder for the results")
    options = parser.parse_args(given)
    for package in ("mpi4py", "mpich"):
        with suppress(importlib.metadata.PackageNotFoundError):
            head["versions"][package] = importlib.metadata.version(package)
    if "mpi4py" not in head["versions"] or launcher() is None:
        print(
            'several processes need mpi4py, and mpiexec on the PATH: pip install ".[mpi]" brings both', file=sys.stderr
        )
        return 2
    rounds = options.rounds or (1 if options.quick else 5)
    batches, settings, characters = BATCHES, TRAINING, CHARACTERS
    if options.quick:
        batches, settings, characters = (QUICK["batch"],), {**RECIPE, **QUICK}, 4000
    try:
        rows = [row for batch in batches for row in training({**settings, "batch": batch}, characters, rounds)]
        rows += sums(SIZES[:3], 3, rounds) if options.quick else sums(SIZES, 20, rounds)
    except (WorkerFailed, subprocess.TimeoutExpired) as error:
        print(error, file=sys.stderr)
        return 1
    head |= {"ratios": {batch: speed_of(rows, TOGETHER, batch) for batch in batches}, "fit": fitted(rows)}
    markdown = report(head, rows)
    print("\n" + markdown)
    out = options.out or (None if options.quick else harness.RESULTS)
    if out is not None:
        harness.write_json(out / f"{NAME}.json", {**head, "rows": rows})
        harness.write(out / f"{NAME}.md", markdown)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

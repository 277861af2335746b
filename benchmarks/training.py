"""Compares whole training steps of language models with torch, including everything around the recurrent layer.

    python -m benchmarks.training              # two models, a minute on two cores
    python -m benchmarks.training --quick      # checks that it works; seconds

The models are the default model of the text lab, and the small word model of Zaremba et al. 2014 (two layers of 200,
10,000 words). A step consists of embedding, LSTM, dropout, linear layer, cross-entropy, backward pass, gradient norm
and Adam. Both libraries start from the same weights, and must have the same losses without dropout before anything is
timed.

Writes training-cpu.json and .md to benchmarks/results/ or --out.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import facts, harness
from benchmarks.models import TASKS
from benchmarks.team import Missing, Team, WorkerFailed, take_turns

NAMES = ("gpulstm", "torch")
STEPS = 10  # whose losses must agree
AGREE = 1e-4  # relative
TITLES = {
    "task": "model", "implementation": "implementation", "p50_ms": "ms a step", "p20_ms": "20th percentile",
    "speed": "speed beside torch", "disagreement": "losses differ by",
}  # fmt: skip


def measure(team: Team, task: str, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """A row for each implementation. Raises WorkerFailed where their losses differ."""
    workers = {name: team.worker(name) for name in NAMES}
    losses = {name: np.array(w.ask("load_model", name=name, task=task, losses=STEPS)) for name, w in workers.items()}
    first, second = losses.values()
    disagreement = float(np.abs(first - second).max() / np.abs(second).max())
    if not disagreement <= AGREE:
        raise WorkerFailed(f"{task}: expected the same losses, got {first} and {second}")
    samples = take_turns(workers, rounds, seconds)
    rows: list[dict[str, Any]] = []
    for name in NAMES:
        if "failed" in samples[name]:
            raise WorkerFailed(f"{name}: {samples[name]['failed']}")
        p20, p50, p80 = harness.percentiles(samples[name]["wall"])
        rows.append(
            {
                "task": task, "implementation": name, "threads": team.threads, "samples": len(samples[name]["wall"]),
                "p20_ms": harness.rounded(p20), "p50_ms": harness.rounded(p50), "p80_ms": harness.rounded(p80),
                "disagreement": disagreement,
            }
        )  # fmt: skip
    rows[0]["speed"] = harness.rounded(rows[1]["p50_ms"] / rows[0]["p50_ms"])
    return rows


def report(head: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    words = f"Milliseconds of a whole training step, float32, {rows[0]['threads']} thread(s).\n"
    return "\n".join(["# Training steps on cpu\n", words, harness.table(rows, TITLES), harness.origin(head)])


def main(given: Sequence[str]) -> int:
    head = facts.facts("benchmarks.training", given)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tiny model; writes nothing without --out")
    parser.add_argument(
        "--threads", type=int, default=facts.cores(), help="threads of each implementation (default: all cores)"
    )
    parser.add_argument("--out", type=Path, help="the folder for the results")
    options = parser.parse_args(given)
    tasks = ["tiny"] if options.quick else [name for name in TASKS if name != "tiny"]
    rounds, seconds = (2, 0.05) if options.quick else (15, 1.0)
    try:
        with Team(options.threads) as team:
            rows = [row for task in tasks for row in measure(team, task, rounds, seconds)]
    except (Missing, WorkerFailed) as error:
        print(error, file=sys.stderr)
        return 1
    markdown = report(head, rows)
    print(markdown)
    out = options.out or (None if options.quick else harness.RESULTS)
    if out is not None:
        harness.write_json(out / "training-cpu.json", {**head, "rows": rows})
        harness.write(out / "training-cpu.md", markdown)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

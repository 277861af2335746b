"""Tables for training on many GPUs (cost_nodes.py), and for several processes, compared with measurements."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.cost_facts import PRECISIONS
from benchmarks.cost_links import ALGORITHMS, constants
from benchmarks.cost_nodes import (
    Model,
    buckets,
    gradient_bytes,
    rows_of,
    shared_all_reduce,
    speed_of_processes,
    step_of,
)
from benchmarks.cost_report import aligned, number
from benchmarks.problem import Shape

RESULTS = "parallel-cpu.json"  # what benchmarks.parallel leaves
LEGEND = """All numbers are of one training step; times are milliseconds. --constants lists what joins the GPUs.
  compute     forward and backward on each GPU, on the fastest path, without the optimiser
  ring, tree  the all-reduces of all buckets of gradients, by a ring or by a tree; NCCL takes the faster of the two
  hidden      how much of them goes on beside the backward pass
  step        compute and what is not hidden
  efficiency  the speed of all GPUs together over that of as many single ones
"""
COLUMNS = {"gpus": "GPUs", "nodes": "nodes", "compute_ms": "compute"} | {
    f"{algorithm}_{key}": name
    for algorithm in ALGORITHMS
    for key, name in {
        "ms": f"| {algorithm}", "hidden": "hidden", "step_ms": "step", "efficiency": "efficiency",
    }.items()
}  # fmt: skip


def section(
    model: Model, shapes: Sequence[Shape], nodes: int, per_node: int, scaling: str
) -> tuple[str, list[dict[str, Any]]]:
    """(text, rows) of one GPU in one precision."""
    text = [f"== {model.gpu}, {model.precision}, {model.cell}: up to {per_node} GPUs a node, {scaling} scaling\n"]
    rows = []
    for shape in shapes:
        these = rows_of(model, shape, nodes, per_node, scaling)
        text.append("\n".join(heading(model, shape, scaling)))
        text.append(aligned([shown(row) for row in these], COLUMNS, ()))
        rows += these
    return "\n".join(text), rows


def heading(model: Model, shape: Shape, scaling: str) -> list[str]:
    """The sequence, the gradients, and one GPU's step."""
    step = step_of(model, shape)
    of = "of each GPU" if scaling == "weak" else "of all GPUs together"
    words = f", a vocabulary of {model.vocabulary:,}" if model.vocabulary else ""
    forward, backward = (number(1e-3 * us) for us in (step.forward, step.compute - step.forward))
    count = len(buckets(step, PRECISIONS[model.precision]))
    return [
        f"B, T, D, H: {shape.words()}{words}; B is {of}",
        f"  one GPU: {forward} ms forward, {backward} ms backward;"
        f" gradients of {number(1e-6 * gradient_bytes(step))} MB in {count} buckets",
    ]


def shown(row: Mapping[str, Any]) -> dict[str, str]:
    """A row's cells as text."""
    cells = {"gpus": f"{row['gpus']:,}", "nodes": f"{row['nodes']:,}", "compute_ms": number(row["compute_ms"])}
    for algorithm in ALGORITHMS:
        hidden = row[f"{algorithm}_hidden"]
        cells |= {f"{algorithm}_{key}": number(row[f"{algorithm}_{key}"]) for key in ("ms", "step_ms")}
        cells[f"{algorithm}_hidden"] = "-" if hidden is None else f"{100 * hidden:.0f}%"
        cells[f"{algorithm}_efficiency"] = f"{100 * row[f'{algorithm}_efficiency']:.1f}%"
    return cells


def table_of_links() -> str:
    """Every constant of the links with its unit, its mark and its source."""
    columns = {key: key for key in ("of", "name", "value", "unit", "mark", "source")}
    rows = [{key: f"{row[key]:.3g}" if key == "value" else str(row[key]) for key in columns} for row in constants()]
    return aligned(rows, columns, ("of", "name", "unit", "mark", "source"), indent=0)


# -- processes on one machine ----------------------------------------------------------------------------------------


def read(folder: Path) -> dict[str, Any] | None:
    """What benchmarks.parallel measured; None where it has left nothing. Raises ValueError for another file."""
    file = folder / RESULTS
    if not file.exists():
        return None
    try:
        record = harness.read(file)
        return {"machine": record["machine"], "rows": [{**row} for row in record["rows"]]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: expected a result file of benchmarks.parallel, got {error!r}") from error


def processes(record: Mapping[str, Any] | None) -> tuple[str, list[dict[str, Any]]]:
    """(text, rows) of processes on one machine: all-reduces, and the text lab's training where it was measured."""
    title = "== Processes on one machine, NumPy arrays, MPICH over shared memory\n"
    sums = _sums([] if record is None else record["rows"])
    columns = {"processes": "processes", "kb": "KB", "predicted_ms": "all-reduce ms", "measured_ms": "measured"}
    text = [title, aligned([_cells(row, columns) for row in sums], columns, ())]
    trained = [] if record is None else _trained(record["rows"])
    if trained:
        columns = {"batch": "batch", "processes": "processes", "predicted": "tokens a second",
                   "measured": "measured", "speed": "speed", "measured_speed": "measured"}  # fmt: skip
        text.append("Training of the text lab; the prediction begins from the measured time of one process:\n")
        text.append(aligned([_cells(row, columns) for row in trained], columns, ()))
    if record is not None:
        text.append(f"Measured on {record['machine']['cores']} cores, {record['machine']['processor']}.\n")
    return "\n".join(text), [{"measurement": "processes", **row} for row in sums + trained]


def _sums(measured: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for every all-reduce that was measured, else for some of two processes."""
    summed = [row for row in measured if row["measurement"] == "all-reduce"]
    summed = summed or [{"processes": 2, "bytes": 4096 << 2 * k, "p50_ms": None} for k in range(8)]
    return [
        {
            "processes": row["processes"], "kb": row["bytes"] / 1024, "measured_ms": row["p50_ms"],
            "predicted_ms": 1e-3 * shared_all_reduce(row["bytes"], row["processes"]),
        }
        for row in summed
    ]  # fmt: skip


def _trained(measured: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each number of processes with one thread each."""
    trained = [row for row in measured if row["measurement"] == "training" and row["threads"] == 1]
    one = {row["batch"]: row for row in trained if row["processes"] == 1}
    rows = []
    for row in trained:
        if (alone := one.get(row["batch"])) is None:
            continue
        step_us = 1e6 * row["batch"] * row["window"] / alone["tokens_per_second"]
        speed = speed_of_processes(step_us, row["gradient_bytes"], row["processes"])
        rows.append({
            "batch": row["batch"], "processes": row["processes"], "predicted": speed * alone["tokens_per_second"],
            "measured": row["tokens_per_second"], "speed": speed, "measured_speed": row["speed"],
        })  # fmt: skip
    return rows


def _cells(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, str]:
    values = {key: row[key] for key in columns}
    return {
        key: "" if value is None else f"{value:,}" if isinstance(value, int) else number(value)
        for key, value in values.items()
    }

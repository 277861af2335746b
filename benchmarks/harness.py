"""Percentiles, rows, result files and tables: the common form of the results of all benchmarks."""

import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.facts import ROOT
from benchmarks.problem import Shape

RESULTS = ROOT / "benchmarks" / "results"

# One measured sequence. Times in milliseconds; None where a thing was not measured or has no meaning.
FIELDS = (
    "implementation", "path", "cell", "device", "threads", "T", "B", "D", "H", "layers", "directions",
    "dtype", "tf32", "mode", "samples",
    "p20_ms", "p50_ms", "p80_ms",  # from the call to the end of its work, on the clock on the wall
    "gpu_p20_ms", "gpu_p50_ms", "gpu_p80_ms",  # between GPU events around the call
    "us_per_step",  # the median (of the GPU's time, where there is one) over T, in microseconds
    "error",  # largest max|got - want| / max|want| over the results, against float64
    "memory_mib",  # the most that three calls used beside inputs and parameters
    "peer", "speed", "gpu_speed",  # the peer's median time over this one's: above 1 is faster
    "memory_ratio",  # this one's memory over the peer's
    "floor_ms",  # what its products and its weights cost at least on this processor (floor.py)
    "after_sleep",  # the 90th percentile of calls after 5 ms of sleep each, over their median
    "beside_lstm",  # the time of a cell over that of gpulstm's own LSTM in the same turns
)  # fmt: skip


def rounded(value: float) -> float:
    """Five digits, more than any clock here is worth."""
    return float(f"{value:.5g}")


def percentiles(samples: Sequence[float]) -> tuple[float, float, float]:
    """(p20, p50, p80), interpolated; raises ValueError without a sample or with one that is not finite."""
    if not samples or not all(math.isfinite(sample) for sample in samples):
        raise ValueError(f"samples: expected at least one, all finite, got {list(samples)[:5]}")
    p20, p50, p80 = np.percentile(samples, (20, 50, 80)).tolist()
    return p20, p50, p80


def sequence_row(
    implementation: str, shape: Shape, mode: str, device: str, precision: str,
    loaded: Mapping[str, Any], samples: Mapping[str, Sequence[float]],
) -> dict[str, Any]:  # fmt: skip
    """A row of FIELDS, not yet compared with a peer: from what a worker said on loading, and its samples."""
    row: dict[str, Any] = dict.fromkeys(FIELDS)
    row |= {"implementation": implementation, "path": loaded["path"], "cell": "lstm", "device": device}
    row["threads"] = loaded["threads"]
    row |= vars(shape)
    row |= {
        "dtype": "float32" if precision == "tf32" else precision,
        "tf32": precision == "tf32",
        "mode": mode,
    }
    row |= {"samples": len(samples["wall"]), "error": loaded["error"], "memory_mib": loaded["memory"] / 2**20}
    row |= zip(("p20_ms", "p50_ms", "p80_ms"), percentiles(samples["wall"]), strict=True)
    if samples["gpu"]:
        row |= zip(("gpu_p20_ms", "gpu_p50_ms", "gpu_p80_ms"), percentiles(samples["gpu"]), strict=True)
    row["us_per_step"] = 1e3 * (row["gpu_p50_ms"] or row["p50_ms"]) / shape.T
    return {key: rounded(value) if isinstance(value, float) else value for key, value in row.items()}


def compare_with(rows: Iterable[dict[str, Any]], peer: str) -> None:
    """Fill in what sets each row beside the peer's row; left None where the peer has none."""
    rows = list(rows)
    theirs = next((row for row in rows if row["implementation"] == peer), None)
    for row in rows if theirs is not None else ():
        row["peer"], row["speed"] = peer, rounded(theirs["p50_ms"] / row["p50_ms"])
        if row["gpu_p50_ms"] and theirs["gpu_p50_ms"]:
            row["gpu_speed"] = rounded(theirs["gpu_p50_ms"] / row["gpu_p50_ms"])
        if theirs["memory_mib"]:
            row["memory_ratio"] = rounded(row["memory_mib"] / theirs["memory_mib"])


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(part).chmod(0o644)  # mkstemp's is for this user alone
        Path(part).replace(path)
    finally:
        Path(part).unlink(missing_ok=True)


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a result file, the rows one a line. What is not finite becomes null."""
    rows = record.get("rows", [])
    head = json.dumps(_finite({**record, "rows": []}), indent=1)
    lines = ",\n  ".join(json.dumps(_finite(row)) for row in rows)
    write(path, head.replace('"rows": []', f'"rows": [\n  {lines}\n ]' if rows else '"rows": []') + "\n")


def read(path: Path) -> dict[str, Any]:
    """A result file."""
    return json.loads(path.read_text(encoding="utf-8"))


def _finite(value: Any) -> Any:
    """JSON knows no infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """A Markdown table; ``columns`` maps a row's key to the column's head. Numbers get three digits."""
    lines = [list(columns.values()), ["---"] * len(columns)]
    lines += [[_cell(row.get(key)) for key in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def origins(head: Mapping[str, Any]) -> list[str]:
    """``origin`` of a run, after the earlier runs whose rows the file still has."""
    words = "What the last run did not measure is of `{command}` at commit {commit}.\n"
    return [*(words.format(**run) for run in head.get("earlier", [])), origin(head)]


def origin(head: Mapping[str, Any]) -> str:
    """The head of a result file as a line of text to stand under a table."""
    machine = ", ".join(f"{key} {value}" for key, value in head["machine"].items())
    versions = ", ".join(f"{key} {value}" for key, value in head["versions"].items())
    return f"`{head['command']}`\n\nMachine: {machine}. Versions: {versions}. Commit: {head['commit']}.\n"

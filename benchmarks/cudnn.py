"""Compares gpulstm's kernels with cuDNN, as a part of benchmarks.gpu.

    python -m benchmarks.cudnn --out FILE

cuDNN is called through torch.nn.LSTM, eagerly and in a CUDA graph. In eager calls of short sequences the GPU waits for
the host, and the graph shows the time of the GPU alone. float32 is compared with float32 (TF32 off on both sides), and
TF32 with TF32.
"""

import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import facts
from benchmarks.comparison import Comparison, show
from benchmarks.part import Part, main
from benchmarks.problem import Shape
from benchmarks.team import Team

PEERS = ("gpulstm", "gpulstm fused", "gpulstm persistent", "torch", "torch graph")
PRECISIONS = ("float32", "bfloat16", "float16", "tf32")
# Small and large, odd ones too; (16, 1024, 768, 768) has published figures (FlashRNN's plot, on an H100). Then a stack
# of layers, and both directions of one.
SHAPES = (
    Shape(1, 512, 128, 128), Shape(16, 512, 256, 256), Shape(64, 512, 512, 512), Shape(16, 1024, 768, 768),
    Shape(64, 512, 1024, 1024), Shape(256, 256, 1024, 1024), Shape(33, 300, 500, 500),
    Shape(64, 512, 512, 512, layers=4), Shape(64, 512, 512, 512, directions=2),
)  # fmt: skip
QUICK_SHAPES = (Shape(2, 5, 16, 16), Shape(2, 5, 16, 16, layers=2), Shape(2, 5, 16, 16, directions=2))
ROUNDS, SECONDS = 2, 0.03  # an eager sequence takes milliseconds, and a GPU's times are steady
PACE = 0.9  # share of the part's time after which nothing new is begun

COLUMNS = {
    "B": "B", "T": "T", "H": "H", "layers": "layers", "directions": "directions", "precision": "precision",
    "mode": "mode",
    "ours_gpu": "gpulstm GPU ms", "ours_wall": "wall ms", "ours_us": "µs a step",
    "fused_gpu": "fused GPU ms", "persistent_gpu": "persistent GPU ms",
    "eager_gpu": "cuDNN GPU ms", "eager_wall": "wall ms",
    "graph_gpu": "cuDNN graph GPU ms", "graph_us": "µs a step",
    "speed": "speed beside eager", "graph_speed": "beside graph",
    "error": "error gpulstm", "their_error": "error cuDNN",
}  # fmt: skip


def side_by_side(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line for each sequence: gpulstm, cuDNN eager, cuDNN in a graph. Speeds are of the GPU's time."""
    lines: dict[tuple, dict[str, Any]] = {}
    for row in rows:
        shape, precision = Shape.of_row(row), "tf32" if row["tf32"] else row["dtype"]
        key = shape, precision, row["mode"]
        line = lines.setdefault(key, {**vars(shape), "precision": precision, "mode": row["mode"]})
        if row["implementation"] == "gpulstm":
            line |= {"ours_gpu": row["gpu_p50_ms"], "ours_wall": row["p50_ms"], "ours_us": row["us_per_step"]}
            line |= {"error": row["error"], "speed": row["gpu_speed"]}
        elif row["implementation"].startswith("gpulstm "):
            line[f"{row['implementation'].removeprefix('gpulstm ')}_gpu"] = row["gpu_p50_ms"]
        elif row["implementation"] == "torch":
            line |= {"eager_gpu": row["gpu_p50_ms"], "eager_wall": row["p50_ms"], "their_error": row["error"]}
        else:
            line |= {"graph_gpu": row["gpu_p50_ms"], "graph_us": row["us_per_step"]}
    for line in lines.values():
        if line.get("graph_gpu") and line.get("ours_gpu"):
            line["graph_speed"] = line["graph_gpu"] / line["ours_gpu"]
    return list(lines.values())


def compare(part: Part, team: Team, comparison: Comparison, shapes: Sequence[Shape], precisions: Sequence[str]) -> None:
    """Measure precision by precision, so that what time does not allow is the rarest; keep all rows."""

    def keep(rows: list[dict[str, Any]]) -> None:
        show(rows)
        part.add(*rows)

    comparison.run(team, shapes, precisions, keep)
    for name, why in comparison.missing.items():
        part.note(f"{name} is not here, so nothing is set beside it: {why}")
    for line in comparison.complaints():
        part.fail(line)
    for name, key in (("cuDNN eager", "speed"), ("cuDNN in a graph", "graph_speed")):
        speeds = [line[key] for line in side_by_side(comparison.rows) if line.get(key)]
        if speeds:
            spread = f"{min(speeds):.2f} to {max(speeds):.2f}, median {statistics.median(speeds):.2f}"
            part.note(f"gpulstm's speed beside {name} on {len(speeds)} sequences: {spread}")


def work(part: Part, backend: Any) -> None:
    rounds, seconds = (1, 0.005) if part.quick else (ROUNDS, SECONDS)
    left = part.end - time.monotonic()
    comparison = Comparison("cuda", PEERS, rounds, seconds, time.monotonic() + PACE * left)
    with Team(facts.cores()) as team:
        compare(part, team, comparison, QUICK_SHAPES if part.quick else SHAPES, PRECISIONS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], "cudnn", work))

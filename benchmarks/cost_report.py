"""Prints the predictions of the cost model as rows and as tables that fit a terminal."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.cost_beside import ELSEWHERE, Measured, cudnn_published
from benchmarks.cost_counts import PASSES, PATHS, Numbers, operations, outside
from benchmarks.cost_facts import GPUS, constants
from benchmarks.cost_times import outside_time, predict
from benchmarks.problem import Shape
from gpulstm.cells import CELLS

COLUMNS = {
    "path": "path", "pass": "pass", "kb": "KB", "launches": "launches", "loop_us": "loop µs", "bound": "bound by",
    "on_chip": "on chip", "whole_us": "whole µs", "measured_us": "measured",
}  # fmt: skip
LEGEND = """All numbers are of one time step, of all layers and directions together; times are microseconds.
  KB        bytes / 1000 that the loop moves, each number once for each kernel that reads or writes it
  launches  kernels that are started in a step; the persistent paths start one a sequence
  loop      the time loop alone, and what bounds it: its largest term
  on chip   share of the recurrent weights that stays in registers and shared memory for all steps
  whole     the loop and the large products: of the inputs before it, of the gradients after it
  measured  the whole, by a result file of `python -m benchmarks.gpu`; backward is training less inference
""" + "".join(f"\n  {path:8}  {what}" for path, what in PATHS.items()) + "\n"  # fmt: skip


def rows_of(
    gpu: str, cell: str, precision: str, shape: Shape, paths: Iterable[str], measured: Measured, input_gradient: bool
) -> list[dict[str, Any]]:
    """A row for each path and pass."""
    published, rows = cudnn_published(cell, precision, shape), []
    for path in paths:
        times = measured.times(gpu, cell, precision, shape, path)
        for way in PASSES:
            p = predict(GPUS[gpu], CELLS[cell], shape, path, way, precision, input_gradient)
            rows.append({
                "gpu": gpu, "cell": cell, "precision": precision,
                **vars(shape), "path": path, "pass": way,
                "bytes": p.bytes, "operations": p.operations, "launches": p.launches,
                "loop_us": p.loop, "outside_us": p.outside, "whole_us": p.whole, "bound": p.bound,
                "terms_us": dict(p.terms), "resident": p.resident, "tile": p.tile, "blocks": p.blocks,
                "reason": p.reason, "measured_us": times.get(way),
                "cudnn_published_us": published[way].value if way in published else None,
            })  # fmt: skip
    return rows


def heading(gpu: str, cell: str, precision: str, shape: Shape, measured: Measured, input_gradient: bool) -> list[str]:
    """What a sequence has in common on all paths: operations, the large products, cuDNN."""
    n, T = Numbers.of(CELLS[cell]), shape.T
    lines = [f"B, T, D, H: {shape.words()}"]
    for way in PASSES:
        all_of = operations(n, shape, way, input_gradient) / T / 1e6
        large = outside(n, shape, way, input_gradient)
        large_operations = sum(2 * M * N * K for M, N, K in large) / T / 1e6
        time = outside_time(GPUS[gpu], large, precision) / T
        where = "before" if way == "forward" else "after"
        lines.append(
            f"  {way:8}  million operations: {number(all_of - large_operations)} in the loop,"
            f" {number(large_operations)} {where} it, which take {number(time)} µs"
        )
    published = cudnn_published(cell, precision, shape)
    for way, fact in published.items():
        lines.append(f"  {way:8}  cuDNN, published: {number(fact.value)} µs ({fact.source})")
    for way, time in measured.cudnn(gpu, cell, precision, shape).items():
        lines.append(f"  {way:8}  cuDNN in a graph, measured: {number(time)} µs")
    return lines


def number(value: float) -> str:
    """Three digits and no more."""
    if math.isnan(value):
        return "-"
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def shown(row: Mapping[str, Any]) -> dict[str, str]:
    """A row's cells as text."""
    cells = {key: row[key] for key in ("path", "pass", "bound")}
    if row["pass"] == PASSES[1]:
        cells["path"] = ""
    cells["bound"] = row["bound"] or row["reason"]
    cells["kb"], cells["launches"] = f"{row['bytes'] / 1e3:,.0f}", f"{row['launches']:.0f}"
    cells["loop_us"], cells["whole_us"] = number(row["loop_us"]), number(row["whole_us"])
    cells["on_chip"] = f"{100 * row['resident']:.0f}%" if row["resident"] else ""
    cells["measured_us"] = "" if row["measured_us"] is None else number(row["measured_us"])
    return cells


def aligned(rows: Sequence[Mapping[str, str]], columns: Mapping[str, str], left: Iterable[str], indent: int = 2) -> str:
    """Columns side by side, words to the left and numbers to the right; a column that is empty is left out."""
    used = {key: name for key, name in columns.items() if any(row[key] for row in rows)}
    widths = {key: max(len(name), *(len(row[key]) for row in rows)) for key, name in used.items()}
    lines = []
    for row in [used, *rows]:
        cells = [row[key].ljust(width) if key in left else row[key].rjust(width) for key, width in widths.items()]
        lines.append((" " * indent + "  ".join(cells)).rstrip())
    return "\n".join(lines) + "\n"


def section(
    gpu: str, cell: str, precision: str, shapes: Iterable[Shape], paths: Sequence[str], measured: Measured,
    input_gradient: bool,
) -> tuple[str, list[dict[str, Any]]]:  # fmt: skip
    """(text, rows) of one GPU in one precision."""
    text, rows = [f"== {gpu}, {precision}, {cell}\n"], []
    for shape in shapes:
        these = rows_of(gpu, cell, precision, shape, paths, measured, input_gradient)
        text.append("\n".join(heading(gpu, cell, precision, shape, measured, input_gradient)))
        text.append(aligned([shown(row) for row in these], COLUMNS, ("path", "pass", "bound")))
        rows += these
    return "\n".join(text), rows


def fastest(rows: Sequence[Mapping[str, Any]]) -> str:
    """The fastest path of each sequence in each precision: its time forward and backward, large products included."""
    sums: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in rows:
        shape = f"{row['B']},{row['T']},{row['D']},{row['H']}"
        more = f" x{row['layers']}" * (row["layers"] > 1) + " both" * (row["directions"] > 1)
        of = sums.setdefault((row["gpu"], shape + more, row["precision"]), {})
        of[row["path"]] = of.get(row["path"], 0.0) + row["whole_us"]
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for (gpu, case, precision), of in sums.items():
        line = lines.setdefault((gpu, case), {"gpu": gpu, "case": case})
        if timed := {path: us for path, us in of.items() if not math.isnan(us)}:
            path = min(timed, key=timed.__getitem__)
            line[precision] = f"{path} {number(timed[path])}"
    columns = {"gpu": "GPU", "case": "B,T,D,H"} | {p: p for _, _, p in sums}
    table = [{key: line.get(key, "-") for key in columns} for line in lines.values()]
    return "== The fastest path: µs a step forward and backward, large products included\n\n" + aligned(
        table, columns, columns
    )


def elsewhere() -> str:
    """cuDNN's figures of other shapes."""
    lines = [f"  {what}: about {number(fact.value)} µs a step ({fact.source})" for what, fact in ELSEWHERE.items()]
    return "\n".join(["cuDNN on other shapes, as reported, with no published source at hand:", *lines]) + "\n"


def table_of_constants() -> str:
    """Every constant with its unit, its mark and its source."""
    columns = {key: key for key in ("of", "name", "value", "unit", "mark", "source")}
    rows = [{key: str(row[key]) for key in columns} for row in constants()]
    return aligned(rows, columns, ("of", "name", "unit", "mark", "source"), indent=0)

"""Compares the cells: the speed of each against torch, and how well each learns a text.

    python -m benchmarks.cells                        # every cell, every shape, and the task; half an hour and more
    python -m benchmarks.cells --quick                # checks that it works; a minute
    python -m benchmarks.cells --cells gru rnn --no-task --update   # measure these again, keep the file's others
    python -m benchmarks.cells --device cuda

Speed: a training step (forward and backward) of one layer in float32. It is compared with the fastest public way to get
the same cell in torch, and with gpulstm's own LSTM. For the GRU and the RNN this is torch.nn.GRU and torch.nn.RNN,
which are compared in inference too. For the LSTM it is torch.nn.LSTM on a packed sequence. For the other cells it is a
loop compiled by TorchScript (torch_loops.py). In float64, the same loops check every result before it is timed. team.py
says how the implementations take turns.

Task: the default run of the text lab (the language reference that comes with Python, character by character, the last
tenth held out), with each cell instead of the LSTM, and with the same number of units.

Writes cells-<device>.json and .md to benchmarks/results/ or --out.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gpulstm as gl
from benchmarks import facts, harness
from benchmarks.cell_peers import layer
from benchmarks.cell_problem import FORMS
from benchmarks.comparison import Comparison, show, summary
from benchmarks.problem import Shape
from benchmarks.recurrent import BUSY, QUICK_SHAPES, SHAPES
from benchmarks.team import Team
from gpulstm.labs.text_corpus import Corpus, default_corpus
from gpulstm.labs.text_training import Settings, new_model, new_trainer, streams

PEERS = ("torch", "gpulstm.torch")
NO_TASK = ("lstm, lengths",)  # the text is one sequence
TORCH_LAYERS = ("gru", "rnn")  # those that are also measured in inference
COLUMNS = {
    "cell": "cell", "B": "B", "T": "T", "D": "D", "H": "H", "mode": "mode", "implementation": "implementation",
    "path": "path", "p20_ms": "p20 ms", "p50_ms": "p50 ms", "p80_ms": "p80 ms", "floor_ms": "floor ms",
    "speed": "speed beside torch", "beside_lstm": "time beside LSTM", "memory_mib": "memory MiB",
    "memory_ratio": "memory beside torch", "error": "error to float64",
}  # fmt: skip
TASK_COLUMNS = {
    "cell": "cell", "parameters": "parameters of the layer", "val_loss": "nats a character",
    "seconds": "seconds of training", "tokens_per_second": "characters a second", "path": "path",
}  # fmt: skip
CHOICE_COLUMNS = {
    "cell": "cell", "parameters": "parameters", "val_loss": "nats a character", "rate": "characters a second",
    "memory": "memory MiB", "speed": "speed beside torch",
}  # fmt: skip


def speed(cell: str, options: argparse.Namespace) -> Comparison:
    """One cell beside torch's way to it, over all shapes."""
    modes = ("training", "inference") if cell in TORCH_LAYERS else ("training",)
    comparison = Comparison(options.device, ("gpulstm", *options.peers), cell=cell, modes=modes)
    comparison.rounds, comparison.seconds = (2, 0.02) if options.quick else (3, 0.2)
    with Team(options.threads) as team:
        print(f"-- {cell}", flush=True)
        comparison.run(team, options.shapes, ["float32"], show)
    return comparison


def task(cell: str, quick: bool, device: str) -> dict[str, Any]:
    """Train the text lab's model with this cell and say what came of it."""
    settings = Settings(**({"hidden": 16, "steps": 6, "validate_every": 3, "batch": 4} if quick else {}))
    text = default_corpus()
    corpus, place = Corpus.of(text[:20_000] if quick else text, settings.level, settings.vocabulary), gl.device(device)
    batches, validation = streams(corpus, settings)
    model = new_model(corpus, settings, place)
    if cell != "lstm":
        made = {"device": place, "generator": gl.manual_seed(settings.seed)}
        model.lstm = layer(cell, gl, settings.embedding, settings.hidden, **made)
    with gl.explain() as runs:
        model(place.backend.asarray(corpus.train[:4, None]))
    begun = time.monotonic()
    records = new_trainer(model, settings).fit(
        batches, settings.steps, validation=validation, validate_every=settings.validate_every, progress=False
    )
    seconds = time.monotonic() - begun
    return {
        "cell": cell, "hidden": settings.hidden, "device": device, "path": runs[0].path,
        "parameters": sum(p.size for p in model.lstm.parameters()),
        "val_loss": min(record["val_loss"] for record in records if record["val_loss"] is not None),
        "seconds": seconds, "tokens_per_second": settings.batch * settings.window * settings.steps / seconds,
    }  # fmt: skip


def verdicts(rows: Sequence[dict[str, Any]]) -> list[str]:
    """gpulstm beside torch over all shapes, a line for each cell."""
    lines = []
    for cell, form in FORMS.items():
        mine = [row for row in rows if row["cell"] == cell]
        peer = "torch's fused layer" if form.fused else "a scripted loop"
        lines += [f"{cell}, {line}" for line in summary(mine, peer)]
        beside = [row["beside_lstm"] for row in mine if row["mode"] == "training" and row.get("beside_lstm")]
        if beside:
            most, median = max(beside), statistics.median(beside)
            lines.append(f"{cell}, training: time beside gpulstm's LSTM {most:.2f} at most, {median:.2f} in the median")
    return lines


def choice(task: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> str:
    """A table to choose a cell by: the task's results, and over the shapes of ``rows`` the median of the speed beside
    torch's way to the cell (its least) and the largest memory of a training step."""
    lines = []
    for result in task:
        mine = [r for r in rows if (r["cell"], r["implementation"]) == (result["cell"], "gpulstm")]
        mine = [r for r in mine if (r["mode"], r["dtype"]) == ("training", "float32") and r["speed"]]
        most = max((r.get("threads", 0) for r in mine), default=0)  # 0: a file of before the rows said it
        mine = [r for r in mine if r.get("threads", 0) == most]
        speeds = [r["speed"] for r in mine]
        lines.append({
            "cell": result["cell"],
            "parameters": f"{result['parameters']:,}",
            "val_loss": f"{result['val_loss']:.3f}",
            "rate": f"{result['tokens_per_second']:,.0f}",
            "memory": f"{max(r['memory_mib'] for r in mine):.0f}" if mine else None,
            "speed": f"{statistics.median(speeds):.2f} ({min(speeds):.2f})" if mine else None,
        })  # fmt: skip
    return harness.table(lines, CHOICE_COLUMNS)


def earlier(options: argparse.Namespace) -> dict[str, Any]:
    """What the file has and this run does not measure again; under "earlier" the runs it comes from."""
    old = harness.read(options.out / f"cells-{options.device}.json")
    again = set(options.cells)
    return {
        "earlier": [*old.get("earlier", []), {key: old[key] for key in ("command", "commit", "load_before")}],
        "task": [r for r in old["task"] if options.no_task or r["cell"] not in again],
        "rows": [r for r in old["rows"] if options.no_speed or r["cell"] not in again],
        "refused": [line for line in old["refused"] if line.split(":")[0] not in again],
        "missing": old["missing"],
    }


def lstm_rows(folder: Path, device: str) -> list[dict[str, Any]]:
    """What benchmarks.recurrent measured of the LSTM, if its file is there."""
    path = folder / f"recurrent-{device}.json"
    return harness.read(path)["rows"] if path.exists() else []


def report(head: dict[str, Any], record: dict[str, Any], device: str) -> str:
    """The result as Markdown."""
    lines = [f"# The cells on {device}\n", *(f"{line}\n" for line in verdicts(record["rows"]))]
    if record["task"]:
        lines += [
            "To choose by; speed and memory of the training steps below, the LSTM's from benchmarks.recurrent:\n",
            choice(record["task"], [*lstm_rows(harness.RESULTS, device), *record["rows"]]),
            "The text lab's default run with each cell, the same number of units:\n",
            harness.table(record["task"], TASK_COLUMNS),
        ]
    lines.append(harness.table(record["rows"], COLUMNS))
    lines += [f"{name} was left out: {why}\n" for name, why in record["missing"].items()]
    if (head["load_before"] or 0) > BUSY:
        lines.append(f"The machine was busy before the run, load {head['load_before']}: trust no small difference.\n")
    lines += [f"refused: {line}\n" for line in record["refused"]]
    return "\n".join([*lines, *harness.origins(head | {"earlier": record.get("earlier", [])})])


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """The command line, checked."""
    every = ["lstm", *FORMS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cells", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="tiny shapes and a tiny task; writes nothing without --out"
    )
    parser.add_argument("--cells", nargs="+", choices=every, default=every, metavar="CELL", help=", ".join(every))
    parser.add_argument("--shapes", nargs="+", type=Shape.parse_layer, metavar="B,T,D,H", help="the shapes to measure")
    parser.add_argument("--peers", default="torch", help="compare with torch, gpulstm.torch or both (with a comma)")
    parser.add_argument("--no-speed", action="store_true", help="run only the task")
    parser.add_argument("--no-task", action="store_true", help="measure only the speed")
    parser.add_argument("--update", action="store_true", help="keep the file's results of other cells and parts")
    parser.add_argument(
        "--threads", type=int, default=facts.cores(), help="threads of each implementation (default: all cores)"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--out", type=Path, help="the folder for cells-<device>.json and .md")
    options = parser.parse_args(given)
    options.shapes = options.shapes or [Shape.parse(text) for text in (QUICK_SHAPES if options.quick else SHAPES)]
    options.peers = options.peers.split(",")
    if unknown := [name for name in options.peers if name not in PEERS]:
        parser.error(f"--peers: expected some of {', '.join(PEERS)}, got {', '.join(unknown)}")
    options.out = options.out or (None if options.quick else harness.RESULTS)
    if options.update and not (options.out and (options.out / f"cells-{options.device}.json").exists()):
        parser.error(f"--update: expected a folder with cells-{options.device}.json, got {options.out}")
    return options


def main(given: Sequence[str]) -> int:
    options = arguments(given)
    head = facts.facts("benchmarks.cells", given)
    try:
        backend = gl.device(options.device).backend
    except gl.DeviceError as error:
        print(error, file=sys.stderr)
        return 2
    if backend.is_cuda:
        head["machine"] |= facts.gpu(backend)
    record: dict[str, Any] = {**head, "threads": options.threads, "missing": {}, "refused": [], "task": [], "rows": []}
    if options.update:
        record |= earlier(options)

    def keep() -> str:
        """Write what there is: a run that is cut short leaves what it has measured."""
        text = report(head, record, options.device)
        if options.out is not None:
            harness.write_json(options.out / f"cells-{options.device}.json", record)
            harness.write(options.out / f"cells-{options.device}.md", text)
        return text

    for cell in [] if options.no_task else [cell for cell in options.cells if cell not in NO_TASK]:
        record["task"].append(task(cell, options.quick, options.device))
        print(", ".join(f"{value}" for value in record["task"][-1].values()), flush=True)
        keep()
    for cell in [] if options.no_speed else [cell for cell in options.cells if cell in FORMS]:
        comparison = speed(cell, options)  # the LSTM's is benchmarks.recurrent's
        record["rows"] += comparison.rows
        record["refused"] += [f"{cell}: {line}" for line in comparison.complaints()]
        record["missing"] |= comparison.missing
        keep()
    print("\n" + keep())
    return 1 if record["refused"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

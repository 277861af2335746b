"""Predicts the cost of a recurrent layer on a GPU for each path: bytes, operations, launches, microseconds a step.

    python -m benchmarks.model                                     # everything: all GPUs, precisions, paths, shapes
    python -m benchmarks.model --gpu h200 --precision bfloat16,float32
    python -m benchmarks.model --gpu t4 --cell gru --path fused,polling --shapes 32,100,256,256,2,1
    python -m benchmarks.model --constants                         # every constant with its source
    python -m benchmarks.model --gpu h200 --json model.json
    python -m benchmarks.model --nodes 128 --gpus-per-node 8 --gpu h200 --precision bfloat16   # 1 to 1,024 GPUs

No GPU is needed: this is a model, not a measurement. It adds the latencies of a step to the time for what the step
moves and computes (cost_times.py), with the constants of cost_facts.py. Many constants are estimates, and are marked as
such. If benchmarks/results/ contains a result file of benchmarks.gpu, its times are shown next to the predictions. As
in benchmarks.gpu, the input of the first layer has no gradient, unless --input-gradient asks for it.

With --nodes it predicts the time of a training step on many GPUs, and how much of the all-reduces is hidden behind the
backward pass (cost_nodes.py). The default is a stack of four layers, unless --shapes names others. --vocabulary adds an
embedding below and a linear layer above. B is the batch size of each GPU; with --scaling strong it is that of all GPUs
together.

Paths: step, graph, fused, barrier and polling (the last two are persistent); cost_counts.py describes each.

Exit code 0: the table was printed. 2: wrong arguments, or a file that cannot be read or written.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks import cost_links, cost_nodes, cost_nodes_report, cost_report, facts, harness
from benchmarks.cost_beside import Measured
from benchmarks.cost_counts import PATHS, why_not
from benchmarks.cost_facts import GPUS, PRECISIONS, constants, why_no
from benchmarks.cudnn import SHAPES
from benchmarks.problem import Shape
from gpulstm.cells import CELLS

NODES_SHAPES = (Shape(64, 512, 1024, 1024, layers=4),)


def shape(text: str) -> Shape:
    """A shape, or argparse's error with the reason."""
    try:
        return Shape.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def count(text: str) -> int:
    """A whole number above 0, or argparse's error with the reason."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def some_of(text: str, known: Iterable[str]) -> list[str]:
    """The names in a list with commas, "all" for all, in any case and without spaces; raises ValueError."""
    known = list(known)
    spelled = {name.lower().replace(" ", ""): name for name in known}
    asked = [word.lower().replace(" ", "") for word in text.split(",")]
    if asked == ["all"]:
        return known
    if unknown := [word for word in asked if word not in spelled]:
        raise ValueError(f"expected all, or some of {', '.join(spelled)}, got {', '.join(map(repr, unknown))}")
    return list(dict.fromkeys(spelled[word] for word in asked))


def add_nodes(group: argparse._ArgumentGroup) -> None:
    """The options of a prediction for many GPUs."""
    group.add_argument(
        "--nodes", type=count, metavar="N", help="largest number of nodes; without it, the tables are for one GPU"
    )
    group.add_argument(
        "--gpus-per-node", type=count, default=8, metavar="N", help="GPUs per node, connected by NVLink (default: 8)"
    )
    group.add_argument(
        "--scaling", choices=cost_nodes.SCALING, default="weak", help="B of each GPU (weak) or of all (strong)"
    )
    group.add_argument(
        "--vocabulary", type=count, default=0, metavar="N", help="vocabulary size (0: recurrent layers only)"
    )


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.model", description=__doc__.splitlines()[0])
    for name, known in (("gpu", GPUS), ("precision", PRECISIONS), ("path", PATHS)):
        parser.add_argument(f"--{name}", default="all", help="all, or some of " + ", ".join(known))
    parser.add_argument("--cell", default="lstm", help="one of " + ", ".join(c for c in CELLS if not why_not(CELLS[c])))
    more = "replace the nine default shapes; add layers,directions if there is more than one"
    parser.add_argument("--shapes", nargs="+", type=shape, metavar="B,T,D,H", help=more)
    parser.add_argument("--input-gradient", action="store_true", help="include the gradient of the first layer's input")
    add_nodes(parser.add_argument_group("training on many GPUs"))
    parser.add_argument(
        "--results", type=Path, default=harness.RESULTS, help="the folder with the measurements, gpu*.json"
    )
    parser.add_argument("--constants", action="store_true", help="print the constants and their sources instead")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write constants and predictions to this file")
    options = parser.parse_args(given)
    for name, known in (("gpu", GPUS), ("precision", PRECISIONS), ("path", PATHS)):
        try:
            setattr(options, name, some_of(getattr(options, name), known))
        except ValueError as error:
            parser.error(f"--{name}: {error}")
    if options.cell not in CELLS:
        parser.error(f"--cell: expected one of {', '.join(CELLS)}, got {options.cell!r}")
    if reason := why_not(CELLS[options.cell]):
        parser.error(f"--cell: the model has no numbers for {options.cell}: {reason}")
    if not options.results.is_dir():
        parser.error(f"--results: expected a folder, got {options.results}")
    if options.json is not None and options.json.is_dir():
        parser.error(f"--json: expected a file, got the folder {options.json}")
    options.shapes = options.shapes or (NODES_SHAPES if options.nodes else SHAPES)
    try:
        options.measured = Measured.read(options.results)
        options.processes = cost_nodes_report.read(options.results)
    except ValueError as error:
        parser.error(f"--results: {error}")
    return options


def predictions(options: argparse.Namespace) -> list[dict]:
    """Print a table for each GPU and precision, and the fastest paths; give the rows."""
    rows = []
    print(cost_report.LEGEND)
    for gpu in options.gpu:
        for precision in options.precision:
            if reason := why_no(gpu, precision):
                print(f"== {gpu}, {precision}, {options.cell}\n\n  {reason}\n")
                continue
            text, these = cost_report.section(
                gpu, options.cell, precision, options.shapes, options.path, options.measured, options.input_gradient
            )
            print(text)
            rows += these
    if rows:
        print(cost_report.fastest(rows))
    print(cost_report.elsewhere())
    return rows


def on_nodes(options: argparse.Namespace) -> list[dict]:
    """Print a table for each GPU and precision, and one of processes on one machine; give the rows."""
    rows = []
    print(cost_nodes_report.LEGEND)
    for gpu in options.gpu:
        for precision in options.precision:
            if reason := why_no(gpu, precision) or cost_nodes.why_no_links(gpu):
                print(f"== {gpu}, {precision}, {options.cell}\n\n  {reason}\n")
                continue
            of = cost_nodes.Model(gpu, options.cell, precision, tuple(options.path), options.vocabulary)
            text, these = cost_nodes_report.section(
                of, options.shapes, options.nodes, options.gpus_per_node, options.scaling
            )
            print(text)
            rows += these
    text, these = cost_nodes_report.processes(options.processes)
    print(text)
    return rows + these


def main(given: Sequence[str]) -> int:
    options = arguments(given)
    if options.constants:
        print(cost_report.table_of_constants())
        print(cost_nodes_report.table_of_links())
        rows = []
    else:
        rows = on_nodes(options) if options.nodes else predictions(options)
    if options.json is not None:
        head = {"command": facts.facts("benchmarks.model", given)["command"], "commit": facts.git_commit()}
        try:
            every = [*constants(), *cost_links.constants()]
            harness.write_json(options.json, {**head, "constants": every, "rows": rows})
        except OSError as error:
            print(f"--json: {options.json} cannot be written: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Measures which path is the fastest on this GPU, and writes the table that path="auto" uses here.

    python -m benchmarks.tune                       # writes to gpulstm's cache folder, under the GPU's name
    python -m benchmarks.tune --cells lstm --precisions bfloat16 --batch 32,64 --hidden 512
    python -m benchmarks.tune --quick --out FOLDER  # tiny sizes; checks that it works

For each cell, precision, batch size and hidden size (the input has the same size), it times the forward and the
backward pass of a layer on the paths graph, fused and persistent, which take turns. Each path is first compared with
the equations in float64. If it does not agree, it is rejected and not timed. If a path cannot compute a case, it is
left out, and the reason is recorded.

Most of the time goes into compiling kernels, once for each size. The table is written after every case, and keeps its
other cases. So you can stop a run, or measure single cases. Running programs use a new table only when they start
again. If you delete the file, path="auto" works as before.

Exit code 0: all was measured. 1: something was rejected or failed. 2: wrong arguments, no GPU, or a folder that cannot
be written.
"""

import argparse
import functools
import itertools
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import gpulstm as gl
from benchmarks import cell_peers, facts, harness, peers
from benchmarks.cell_problem import FORMS, CellProblem
from benchmarks.clock import TAKES, gpu_ms, repeat
from benchmarks.problem import AGREEMENT, Problem, Shape, disagreement
from gpulstm import NoKernel
from gpulstm.cells import CELLS
from gpulstm.errors import FormatError
from gpulstm.functional import fused_steps, path_table
from gpulstm.library_cache import cache_folder

KNOWN = tuple(name for name in ("lstm", *FORMS) if name in CELLS and not fused_steps.why_no_turns(CELLS[name]))
PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
USUAL = {"cells": "lstm,gru,rnn", "batch": "1,4,8,16,32,64,128,256", "hidden": "128,256,512,768,1024", "steps": "64"}
QUICK = {"cells": "lstm", "batch": "2", "hidden": "16", "steps": "4"}
SECONDS = 0.02  # of one take of one path


@dataclass
class Tuning:
    """A table as it is measured, and what was refused or failed."""

    backend: Any
    takes: int = TAKES
    seconds: float = SECONDS
    cases: dict[tuple, path_table.Case] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    def measure(self, cell: str, precision: str, shape: Shape) -> str:
        """Time the paths of one case and keep it; what was found, in a line."""
        dtype, name = ("float32", "tf32") if precision == "tf32" else (precision, "ieee")
        with gl.precision(name):
            ready, said = self._ready(cell, precision, shape)
            times = self._in_turns(ready, f"{cell} {precision} {shape}", shape.T)
        if "graph" in times:  # which the others are set beside
            case = path_table.Case(cell, dtype, name, shape.T, shape.B, shape.H, times)
            self.cases[case[:6]] = case
        said = [f"{path} {us:.3g} µs a step" for path, us in times.items()] + said
        return f"{cell} {precision} T={shape.T} B={shape.B} H={shape.H}: {', '.join(said)}"

    def _ready(self, cell: str, precision: str, shape: Shape) -> tuple[dict[str, Any], list[str]]:
        """(path -> the peer that takes it, for those that agree with the equations; why the others do not)."""
        ready, said, allowed = {}, [], AGREEMENT[precision]
        for path in path_table.PATHS:
            what = f"{cell} {precision} {shape} {path}"
            try:
                wanted, peer = reference(cell, shape), made(cell, shape, precision, path)
                error, worst = disagreement(results(peer, cell, shape), wanted, tuple(wanted))
            except NoKernel as reason:
                said.append(str(reason))
                continue
            except Exception as failure:  # out of memory, or whatever a path that is broken raises
                self._failed(what, failure)
                continue
            if error <= allowed:
                ready[path] = peer
            else:
                self.refused.append(f"{what}: {worst} is off by {error:.2g}, expected at most {allowed:g}")
        return ready, said

    def _in_turns(self, ready: dict[str, Any], what: str, T: int) -> dict[str, float]:
        """path -> microseconds a step: the median of takes of several calls each, the host's pauses included."""
        samples: dict[str, list[float]] = {path: [] for path in ready}
        for _, path in itertools.product(range(self.takes + 1), ready):
            if path not in samples:
                continue
            calls = max(1, int(1e3 * self.seconds / samples[path][-1])) if samples[path] else 1
            try:
                took = gpu_ms(self.backend, functools.partial(repeat, ready[path].training, calls))
            except Exception as failure:
                self._failed(f"{what} {path}", failure)
                del samples[path]
            else:
                samples[path].append(max(took / calls, 1e-6))
        return {path: harness.rounded(1e3 * statistics.median(ms[1:]) / T) for path, ms in samples.items()}

    def _failed(self, what: str, failure: Exception) -> None:
        self.refused.append(f"{what}: {type(failure).__name__}: {failure}")


@functools.lru_cache(1)
def problem(cell: str, shape: Shape) -> Any:
    """The numbers of the layer and of its inputs."""
    return Problem.of(shape) if cell == "lstm" else CellProblem(shape, cell)


def made(cell: str, shape: Shape, precision: str, path: str) -> Any:
    """A layer of that cell on the GPU, which takes that path, and its inputs."""
    kind = peers.Gpulstm if cell == "lstm" else cell_peers.GpulstmCell
    peer: Any = kind(problem(cell, shape), "cuda", precision)
    peer.layer.path = path
    return peer


def results(peer: Any, cell: str, shape: Shape) -> dict[str, np.ndarray]:
    """Outputs and gradients on the host, of the last of two calls: a graph is replayed the second time."""
    peer.training()
    return dict(zip(problem(cell, shape).names("training"), peer.host(peer.training()), strict=True))


@functools.lru_cache(1)
def reference(cell: str, shape: Shape) -> dict[str, np.ndarray]:
    """What every path is held against: the cell's equations in float64."""
    return results(made(cell, shape, "float64", "reference"), cell, shape)


def numbers(text: str) -> list[int]:
    """Whole numbers above 0, with commas between them; raises ValueError for anything else."""
    found = [int(part) for part in text.split(",")]
    if min(found) < 1:
        raise ValueError(text)
    return found


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tune", description=__doc__.splitlines()[0])
    parser.add_argument("--cells", help=f"some of {', '.join(KNOWN)} ({USUAL['cells']})")
    parser.add_argument("--precisions", help=f"some of {', '.join(PRECISIONS)} (all of them)")
    parser.add_argument("--batch", type=numbers, help=f"batch sizes ({USUAL['batch']})")
    parser.add_argument("--hidden", type=numbers, help=f"hidden sizes ({USUAL['hidden']})")
    parser.add_argument("--steps", type=numbers, help=f"sequence lengths ({USUAL['steps']})")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; writes nothing without --out")
    parser.add_argument("--out", type=Path, help="the folder to use instead of gpulstm's cache folder")
    options = parser.parse_args(given)
    usual = QUICK if options.quick else USUAL
    for name in ("batch", "hidden", "steps"):
        setattr(options, name, getattr(options, name) or numbers(usual[name]))
    options.cells = (options.cells or usual["cells"]).split(",")
    options.precisions = (options.precisions or ("float32" if options.quick else ",".join(PRECISIONS))).split(",")
    for what, known in (("cells", KNOWN), ("precisions", PRECISIONS)):
        if unknown := [name for name in getattr(options, what) if name not in known]:
            parser.error(f"--{what}: expected some of {', '.join(known)}, got {', '.join(unknown)}")
    options.out = options.out or (None if options.quick else cache_folder())
    return options


def earlier(file: Path, gpu: str) -> dict[tuple, path_table.Case]:
    """The cases that the table has; says so where it is none."""
    try:
        return {case[:6]: case for case in path_table.read(file, gpu)} if file.exists() else {}
    except FormatError as error:
        print(f"what is written takes the place of a table that cannot be read: {error}")
        return {}


def main(given: Sequence[str]) -> int:
    options = arguments(given)
    try:
        backend = gl.device("cuda").backend
    except gl.DeviceError as error:
        print(error, file=sys.stderr)
        return 2
    tuning = Tuning(backend, 1, 0.0) if options.quick else Tuning(backend)
    head = facts.facts("benchmarks.tune", given)
    head["machine"] |= facts.gpu(backend)
    file = None
    if options.out is not None:
        options.out.mkdir(mode=0o700, parents=True, exist_ok=True)  # as the compiled libraries want it
        file = path_table.file_of(backend.gpu, options.out)
        tuning.cases = earlier(file, backend.gpu)
    start = time.monotonic()
    sizes = itertools.product(options.cells, options.hidden, options.batch, options.steps, options.precisions)
    for cell, H, B, T, precision in sizes:
        print(tuning.measure(cell, precision, Shape(B, T, H, H)), flush=True)
        if file is not None:
            harness.write_json(file, head | path_table.contents(backend.gpu, tuning.cases.values()))
    for line in tuning.refused:
        print(f"refused: {line}")
    print(f"{len(tuning.cases)} cases in {file or 'no file'} after {time.monotonic() - start:.0f} s")
    return 1 if tuning.refused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

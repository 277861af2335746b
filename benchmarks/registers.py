"""The registers and the shared memory of the CUDA kernels, compiled by NVRTC for real GPUs; needs no GPU.

    python -m benchmarks.registers            # writes registers.json and registers.md to benchmarks/results/
    python -m benchmarks.registers --quick    # one architecture, one type, writes nothing

For each kernel, element type and architecture it reports the registers of a thread, the static shared memory, the bytes
that spill to local memory (there should be none), and the number of tensor core instructions in the PTX. Kernels of a
step are compiled for every cell. Kernels of a sequence (the product and the gates in one kernel) are compiled for the
LSTM, with each tile that they choose from, and with streamed weights.

Exit code 0: nothing spills. 1: something spills. 2: wrong arguments, or NVRTC is not available.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import facts, harness
from gpulstm import backend, info
from gpulstm.cells import lstm
from gpulstm.dtypes import as_dtype
from gpulstm.functional import fused_steps
from gpulstm.launch import REALS, options, source

ARCHITECTURES = (75, 80, 86, 90, 100, 120)
COLUMNS = {
    "kernel": "kernel", "entry": "entry", "dtype": "dtype", "registers": "registers (fewest to most)",
    "shared": "static shared bytes", "spilled": "spilled bytes", "mma": "matrix instructions",
}  # fmt: skip
_ENTRY = re.compile(r"Compiling entry function '(\w+)'")
_USED = re.compile(r"Used (\d+) registers(?:.*?(\d+) bytes smem)?")
_SPILLED = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")


class Compiled(NamedTuple):
    """One compilation: a text, what it is called, its macros, for a type and an architecture."""

    title: str
    file: str
    cell: str
    defines: tuple[str, ...]
    real: str
    architecture: int


def compilations(architectures: Sequence[int], reals: Sequence[str]) -> Iterator[Compiled]:
    """Everything that is compiled."""
    for architecture in architectures:
        for real in reals:
            for text in info.kernel_texts():
                if text.file not in fused_steps.FILES:
                    yield Compiled(text.title, text.file, text.cell, text.defines, real, architecture)
            for file in fused_steps.FILES:
                yield from _tiles(file, real, architecture)


def _tiles(file: str, real: str, architecture: int) -> Iterator[Compiled]:
    dtype, cell, direction = as_dtype(real), lstm.CELL, file.removeprefix("sequence_")
    assert cell.kernel is not None
    tensor = fused_steps.tensor_cores(dtype, architecture)
    for tile in fused_steps.tiles_of(cell, direction, dtype, tensor):
        defines = fused_steps.Turns(cell).compiled_with(direction, tile, 0, False, dtype, tensor)
        title = f"{file} {tile.units}x{8 * tile.tiles}"
        yield Compiled(title, file, cell.kernel.file, defines, real, architecture)


def measured(nvrtc: Any, one: Compiled) -> list[dict[str, Any]]:
    """A row for each entry of one compilation."""
    given = options(as_dtype(one.real), one.defines)
    include = [f"-I{folder}" for folder in info.cuda_headers()]
    code = source(one.file, one.cell)

    def compiled(architecture: str, *more: str) -> Any:
        program = nvrtc.createProgram(code, f"{one.file}.cu", (), ())
        try:
            nvrtc.compileProgram(program, (*given, "-ftz=true", f"-arch={architecture}", *more, *include))
            return nvrtc.getProgramLog(program), nvrtc.getPTX(program) if not more else b""
        finally:
            nvrtc.destroyProgram(program)

    log, _ = compiled(f"sm_{one.architecture}", "--ptxas-options=-v")
    mma = 0
    if one.file in fused_steps.FILES:
        mma = compiled(f"compute_{one.architecture}")[1].count(b"mma.sync")
    rows = []
    for entry, used, spilled in zip(_ENTRY.findall(log), _USED.findall(log), _SPILLED.findall(log), strict=True):
        rows.append({
            "kernel": one.title, "entry": entry, "dtype": one.real, "sm": one.architecture, "registers": int(used[0]),
            "shared": int(used[1] or 0), "spilled": sum(map(int, spilled)), "mma": mma,
        })  # fmt: skip
    return rows


def by_kernel(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line for each entry and type, over all architectures."""
    lines: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        lines.setdefault((row["kernel"], row["entry"], row["dtype"]), []).append(row)
    answer = []
    for (kernel, entry, dtype), of in lines.items():
        registers, mma = [row["registers"] for row in of], sorted({row["mma"] for row in of})
        answer.append({
            "kernel": kernel, "entry": entry, "dtype": dtype, "registers": f"{min(registers)} to {max(registers)}",
            "shared": max(row["shared"] for row in of), "spilled": max(row["spilled"] for row in of),
            "mma": " or ".join(map(str, mma)) if any(mma) else "",
        })  # fmt: skip
    return answer


def main(given: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.registers", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=harness.RESULTS, help="the folder for the results")
    parser.add_argument("--quick", action="store_true", help="one architecture and type; writes nothing")
    asked = parser.parse_args(given)
    backend.why_no_cuda()  # which imports CuPy where it is
    try:
        nvrtc = sys.modules["cupy"].cuda.nvrtc
        nvrtc.getVersion()
    except Exception as error:  # CuPy raises one of several exceptions where the library is missing
        print(f"NVRTC is not here (pip install '.[nvrtc]'): {error}", file=sys.stderr)
        return 2
    todo = list(compilations((90,) if asked.quick else ARCHITECTURES, REALS[:1] if asked.quick else REALS))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = [row for rows in pool.map(lambda one: measured(nvrtc, one), todo) for row in rows]
    table = harness.table(by_kernel(rows), COLUMNS)
    if asked.quick:
        print(table)
    else:
        harness.write_json(asked.out / "registers.json", facts.facts("benchmarks.registers", given) | {"rows": rows})
        harness.write(asked.out / "registers.md", f"# {__doc__.splitlines()[0]}\n\n{table}\n")
    return int(any(row["spilled"] for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

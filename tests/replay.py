"""Records what the processor's engine is asked for, and has tests/drivers/replay.cpp compute it: with sanitizers, with
wider vectors than this processor has, on another processor."""

import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from gpulstm import building
from gpulstm.functional import engine_loop
from tests.conftest import ROOT

SIZES = 0  # what no call is recorded for: the driver asks for the sizes itself
DRIVER, HOST = ROOT / "tests" / "drivers" / "replay.cpp", ROOT / "kernels" / "host"


@dataclass(frozen=True)
class Build:
    """One way to compile the driver: for one type, with vectors of ``bytes`` bytes."""

    name: str
    dtype: Any
    flags: tuple[str, ...] = ()
    threads: int = 1
    cells: tuple[str, ...] = ()  # none: all of them
    configurations: int = 48
    needs: str = ""  # a word of /proc/cpuinfo
    compiler: str = "g++"
    emulators: tuple[str, ...] = ()  # one of them runs the program

    def why_not(self) -> str:
        """Why this machine cannot make or run it, or ""."""
        if not shutil.which(self.compiler):
            return f"there is no {self.compiler}"
        if self.emulators and not any(map(shutil.which, self.emulators)):
            return f"there is no {' or '.join(self.emulators)}"
        cpuinfo = Path("/proc/cpuinfo")
        if self.needs and not (cpuinfo.exists() and self.needs in cpuinfo.read_text().split()):
            return f"this processor has no {self.needs}"
        return ""

    def compile(self, folder: Path) -> list[str]:
        """The command that runs the driver, but for the number of threads."""
        cells = [cell for cell in building.default_cells() if not self.cells or cell[1] in self.cells]
        (folder / "cells.inc").write_text(building.cells_header(cells))
        real = building.TYPES[(name := f"f{np.dtype(self.dtype).itemsize * 8}")]
        options = ["-O1", *building.FLAGS[1:], "-DGPULSTM_ISA=tested", f"-DREAL={real}", f"-DREAL_NAME={name}"]
        include = [f"-I{place}" for place in (folder, ROOT / "kernels", HOST)]
        program = folder / "replay"
        command = [self.compiler, *options, *self.flags, *include, str(DRIVER), "-pthread", "-o", str(program)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [*list(filter(shutil.which, self.emulators))[:1], str(program)]


@dataclass
class Record:
    """The calls of one sequence, forward and backward, and the arrays that they name."""

    arrays: dict[int, tuple[np.ndarray, bool]] = field(default_factory=dict)  # by address; whether it is a result
    calls: list[tuple[int, bytes, bytes]] = field(default_factory=list)  # what, the cell, Args
    loops: list[Any] = field(default_factory=list)  # alive, as the arrays are: no two have one address

    def name(self, array: np.ndarray, result: bool) -> None:
        self.arrays[array.__array_interface__["data"][0]] = array, result

    def results(self) -> list[np.ndarray]:
        return [array for array, result in self.arrays.values() if result]

    def packed(self) -> bytes:
        parts = [struct.pack("q", len(self.arrays))]
        for address, (array, result) in self.arrays.items():
            parts += [struct.pack("3q", address, array.nbytes, result), b"" if result else array.tobytes()]
        parts.append(struct.pack("q", len(self.calls)))
        for what, cell, args in self.calls:
            parts += [struct.pack("2q", what, len(args)), cell.ljust(32, b"\0"), args]
        return b"".join(parts)


@contextmanager
def recorded() -> Iterator[Record]:
    """What the engine is asked for meanwhile is not computed but recorded, whether or not there is one here. Its
    results hold anything until ``replayed`` has been there, so none may be copied before."""
    record, address_of = Record(), engine_loop._at

    def at(array: Any) -> int | None:
        if array is not None:
            record.name(array, result=True)
        return address_of(array)

    def call(loop: engine_loop.EngineLoop, what: int) -> None:
        args = loop.args
        if what == SIZES:
            args.saved_bytes = args.forward_bytes = args.backward_bytes = 1
            return
        options = [np.frombuffer(loop.plan.options)] if len(loop.plan.options) else []
        for array in (*loop.held, *options):
            record.name(array, result=False)
        record.loops.append(loop)
        record.calls.append((what, loop.plan.name, bytes(args)))

    with (
        mock.patch.object(engine_loop, "why_not", lambda cell: ""),
        mock.patch.object(engine_loop, "_entry", lambda kernel, dtype: None),
        mock.patch.object(engine_loop, "_plan", engine_loop._Plan),  # none with that entry is kept
        mock.patch.object(engine_loop, "_at", at),
        mock.patch.object(engine_loop.EngineLoop, "_call", call),
    ):
        yield record


def replayed(command: Sequence[str], threads: int, records: Sequence[Record]) -> None:
    """Writes what the driver makes of the calls into the records' arrays. What a sanitizer finds is an error."""
    sent = struct.pack("q", len(records)) + b"".join(record.packed() for record in records)
    done = subprocess.run([*command, str(threads)], input=sent, capture_output=True)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stderr.decode(errors='replace')[:8000]}"
    at = 0
    for array in (result for record in records for result in record.results()):
        got = np.frombuffer(done.stdout, array.dtype, array.size, at)
        array[...] = got.reshape(array.shape)
        at += array.nbytes
    assert at == len(done.stdout)

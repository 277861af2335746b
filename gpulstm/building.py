"""Compiles the C++ sources of kernels/ into the processor's engine: which files, flags and instruction sets.

This file imports the standard library only: an install loads it without the package, when NumPy may be missing (see
build_command.py). engine.py uses it to compile at first use.

Files of kernels/host are compiled once for each instruction set and each element type, with

    GPULSTM_ISA   baseline, avx2 or avx512: also the namespace that keeps the objects' inline functions apart
    REAL          float or double
    REAL_NAME     f32 or f64

except those in ONCE. Two headers are generated: cells.inc, which lists the cells, and text.inc, which holds the hash of
the sources.
"""

import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

WINDOWS, MACOS = os.name == "nt", sys.platform == "darwin"
FLAGS = (
    "-O3", "-std=c++17", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden",
    "-Wno-psabi",
)  # fmt: skip
ISA_FLAGS = {
    "baseline": (),  # SSE2, or NEON on ARM
    "avx2": ("-mavx2", "-mfma"),
    # Without GCC's SLP vectoriser: in GCC 12 it stores a constant such as {1, 1, 0, 0, 0, 0, 0, 0} as eight 1s. The
    # engine has explicit vector code and does not need it.
    "avx512": (
        "-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mavx2", "-mfma", "-mprefer-vector-width=512",
        "-fno-tree-slp-vectorize",
    ),
}  # fmt: skip
TYPES = {"f32": "float", "f64": "double"}
ONCE = ("pool.cpp", "processor.cpp")  # files without vector code
MODULE, BORROWED = "module.cpp", "borrowed_pool.cpp"  # for the package's module; for your own cell
_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
_CELL = re.compile(r"^struct (\w+) : Cell\b", re.MULTILINE)


class CannotCompile(Exception):
    """Raised when a library cannot be compiled; the message gives the reason in plain words."""


class Object(NamedTuple):
    """One file to compile, and its extra flags."""

    source: Path
    flags: tuple[str, ...] = ()


def kernel_folder() -> Path:
    """The folder of the C++ and CUDA sources of this package.

    It is inside an installed package, and beside the package in a checkout. A checkout never uses the kernels of
    another installed gpulstm.
    """
    inside = Path(__file__).with_name("kernels")
    return inside if inside.is_dir() else Path(__file__).parents[1] / "kernels"


def instruction_sets() -> tuple[str, ...]:
    """The instruction sets that this kind of processor may have, the most capable last."""
    return tuple(ISA_FLAGS) if platform.machine().lower() in ("x86_64", "amd64") else ("baseline",)


# -- the files to compile -----------------------------------------------------------------------------------
def engine_objects(isas: Sequence[str]) -> list[Object]:
    """The files of the whole engine for these instruction sets."""
    host = kernel_folder() / "host"
    several = sorted(path for path in host.glob("*.cpp") if path.name not in (*ONCE, MODULE, BORROWED))
    objects = [Object(path, _specific(isa, real)) for path in several for isa in isas for real in TYPES]
    return objects + [Object(host / name) for name in ONCE]


def module_objects() -> list[Object]:
    """The files of the package's module: the engine for every instruction set, and the code that Python imports."""
    include = (f"-I{sysconfig.get_path('include')}",)
    limited = () if sysconfig.get_config_var("Py_GIL_DISABLED") else ("-DPy_LIMITED_API=0x030b0000",)
    return [*engine_objects(instruction_sets()), Object(kernel_folder() / "host" / MODULE, include + limited)]


def own_objects(isa: str) -> list[Object]:
    """The files of the engine for your own cell. It uses the threads of the whole engine."""
    host = kernel_folder() / "host"
    engine = [Object(host / "engine.cpp", _specific(isa, real)) for real in TYPES]
    return [*engine, Object(host / BORROWED), Object(host / "processor.cpp")]


def processor_objects() -> list[Object]:
    """The file that tells which instruction sets this processor has."""
    return [Object(kernel_folder() / "host" / "processor.cpp")]


def _specific(isa: str, real: str) -> tuple[str, ...]:
    return (f"-DGPULSTM_ISA={isa}", f"-DREAL={TYPES[real]}", f"-DREAL_NAME={real}", *ISA_FLAGS[isa])


def cell_files() -> list[Path]:
    """The source files of the cells."""
    return sorted((kernel_folder() / "cells").glob("*.cuh"))


def structs(file: Path) -> list[str]:
    """The cells that a file defines: the names X of its lines ``struct X : Cell``."""
    return _CELL.findall(file.read_text(encoding="utf-8"))


def cells_header(cells: Sequence[tuple[Path, str]]) -> str:
    """cells.inc for these (file, struct): a line CELL(X) for each if CELL is defined, else includes of their files."""
    files = dict.fromkeys(file for file, _ in cells)
    calls = "".join(f"CELL({struct})\n" for _, struct in cells)
    return f"#ifdef CELL\n{calls}#else\n" + "".join(f'#include "{f.as_posix()}"\n' for f in files) + "#endif\n"


def text_hash(files: Sequence[Path]) -> str:
    """A hash of all sources of the engine for the cells in ``files``, including headers and flags."""
    digest = hashlib.sha256(repr((FLAGS, ISA_FLAGS)).encode())
    queue, seen = [*sorted((kernel_folder() / "host").glob("*.cpp")), *files], set()
    while queue:
        path = queue.pop(0)
        if path in seen:
            continue
        seen.add(path)
        text = path.read_text(encoding="utf-8")
        digest.update(f"{path.name} {len(text)}\n{text}".encode())
        for name in _INCLUDE.findall(text):
            found = (folder / name for folder in (path.parent, *_folders()))
            queue += [place.resolve() for place in found if place.is_file()][:1]
    return digest.hexdigest()[:32]


def _folders() -> tuple[Path, Path]:
    """The folders to search for headers."""
    return kernel_folder(), kernel_folder() / "host"


# -- the compiler -------------------------------------------------------------------------------------------
def compiler() -> list[str]:
    """The command of the C++ compiler: GPULSTM_CXX or CXX, which may contain options, else g++ or clang++.

    Raises CannotCompile if there is none. The engine's sources need GCC's vector extensions; on Windows use clang++.
    """
    for variable in ("GPULSTM_CXX", "CXX"):
        if words := shlex.split(os.environ.get(variable, ""), posix=not WINDOWS):
            if not shutil.which(words[0]):
                raise CannotCompile(f"no compiler was found: {variable} names {words[0]!r}, which does not exist")
            return words
    names = ("clang++",) if WINDOWS else ("g++", "clang++", "c++")
    for name in names:
        if path := shutil.which(name):
            return [path]
    raise CannotCompile(
        f"no compiler was found: expected {' or '.join(names[:2])} on the PATH, or its name in GPULSTM_CXX"
    )


def compiler_version(command: Sequence[str]) -> str:
    """The output of the compiler's --version."""
    return _run([*command, "--version"])


def build(output: Path, objects: Sequence[Object], cells: Sequence[tuple[Path, str]], text: str) -> None:
    """Compile and link ``output``; raises CannotCompile, with the reason, if that fails."""
    command, general = compiler(), (*FLAGS, *(() if WINDOWS else ("-fPIC",)))
    with tempfile.TemporaryDirectory(prefix="gpulstm-") as name:
        folder = Path(name)
        (folder / "cells.inc").write_text(cells_header(cells), encoding="utf-8")
        (folder / "text.inc").write_text(f'"{text}"\n', encoding="utf-8")
        include = [f"-I{path}" for path in (folder, *_folders())]

        def compiled(number: int) -> str:
            source, flags = objects[number]
            result = str(folder / f"{number}.o")
            # The user's options, which follow the compiler's name, come last, so that they override the others.
            _run([command[0], *general, *flags, *include, "-c", str(source), "-o", result, *command[1:]])
            return result

        with ThreadPoolExecutor(_processors()) as pool:
            try:
                results = list(pool.map(compiled, range(len(objects))))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # stop at the first failure
                raise
        _run([command[0], "-shared", *results, *_link_flags(), "-o", str(output), *command[1:]])


def default_cells() -> list[tuple[Path, str]]:
    """Every cell of kernels/cells, as (file, struct)."""
    return [(file, struct) for file in cell_files() for struct in structs(file)]


def _link_flags() -> list[str]:
    if WINDOWS:
        return [f"-L{Path(sys.base_prefix) / 'libs'}"]
    # Strip debug symbols. On macOS, Python's own symbols are resolved when it imports the module.
    return ["-Wl,-x", "-undefined", "dynamic_lookup"] if MACOS else ["-s", "-pthread"]


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run(command: Sequence[str]) -> str:
    """Run the command and return its output; raises CannotCompile with the line that says what went wrong."""
    # English messages, so that the line can be found; all other variables are the user's.
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment)
    except OSError as error:
        raise CannotCompile(f"the compiler failed: {command[0]} does not start ({error.strerror})") from None
    if done.returncode < 0:
        raise CannotCompile(f"the compiler failed: {command[0]} was killed by signal {-done.returncode}")
    if done.returncode:
        raise CannotCompile(f"the compiler failed: {first_error(done.stderr) or f'{command[0]} printed no message'}")
    return done.stdout


def first_error(log: str) -> str:
    """The line of a compiler's output that says what went wrong: the first error, else the first line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[0] if lines else "")

"""A checkout whose engine is a few lines, compiled in a moment, for the tests of how engines are compiled and found."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

ENGINE = """// Says which cell it knows (what = 0), its answer (1), or lets the pool count a call (2).
#include <cstring>
#include "exported.h"
#include "answer.h"
struct Args;
extern "C" void gpulstm_parallel(int, void (*)(void*, int, int), void*);
namespace GPULSTM_ISA {
struct Cell {};
#include "cells.inc"
}
EXPORTED int ENTRY(engine)(const char* cell, int what, Args*) {
    if (what == 1) return ANSWER + sizeof(REAL);
    if (what == 2) gpulstm_parallel(1, [](void*, int, int) {}, nullptr);
#define CELL(X) if (!strcmp(cell, #X)) return GPULSTM_ISA::X::number;
#include "cells.inc"
    return -1;
}
"""
POOL = """// Counts its calls.
#include "exported.h"
static int calls;
EXPORTED void gpulstm_parallel(int, void (*)(void*, int, int), void*) { ++calls; }
EXPORTED int gpulstm_num_threads(void) { return calls; }
EXPORTED void gpulstm_set_num_threads(int) {}
"""
CELLS = (
    "struct One : Cell { static constexpr int number = 1; };\nstruct Two : Cell { static constexpr int number = 2; };"
)
ANSWER = "#pragma once\n#ifndef ANSWER\n#define ANSWER 40\n#endif\n"
SHOW = "print(e.library() is not None, e.library() and e.isa(), e.library() and e.origin(), e.why_none(), sep='|')"


def make(folder: Path) -> Path:
    """A checkout in ``folder``: this one's Python that is about engines, and a text of a few lines."""
    package, host, cells = folder / "gpulstm", folder / "kernels" / "host", folder / "kernels" / "cells"
    for place in (package, host, cells):
        place.mkdir(parents=True)
    (package / "__init__.py").touch()  # the whole package would take each process longer to import
    for name in ("building.py", "checks.py", "engine.py", "errors.py", "library_cache.py", "threads.py"):
        shutil.copy(ROOT / "gpulstm" / name, package)
    write(folder / "kernels")
    return folder


def write(kernels: Path) -> None:
    """The tiny text: every engine's files that know no cell, and its own in place of the others."""
    for name in ("processor.cpp", "borrowed_pool.cpp", "module.cpp", "exported.h"):
        shutil.copy(ROOT / "kernels" / "host" / name, kernels / "host")
    (kernels / "host" / "engine.cpp").write_text(ENGINE)
    (kernels / "host" / "pool.cpp").write_text(POOL)
    (kernels / "host" / "answer.h").write_text(ANSWER)
    (kernels / "cells" / "both.cuh").write_text(CELLS)


def start(checkout: Path, code: str = SHOW, **variables: str) -> subprocess.Popen:
    """A process in the checkout that runs ``code``, with gpulstm.engine as e; its cache is the checkout's own."""
    environment = {name: value for name, value in os.environ.items() if name not in ("CXX", "GPULSTM_ISA")}
    environment |= {"PYTHONPATH": str(checkout), "GPULSTM_CACHE": str(checkout / "cache"), **variables}
    command = [sys.executable, "-c", f"import gpulstm.engine as e, gpulstm.building as b\n{code}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=checkout, env=environment, text=True, **pipes)


def run(checkout: Path, code: str = SHOW, **variables: str) -> tuple[str, str]:
    """What it printed, and what it said on standard error; it must succeed."""
    process = start(checkout, code, **variables)
    printed, said = process.communicate()
    assert process.returncode == 0, said
    return printed.strip(), said


def script(folder: Path, text: str) -> str:
    """A compiler of the test's own: a shell script, its path."""
    path = folder / "g++"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)

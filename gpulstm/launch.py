"""Finds, compiles, caches and launches a kernel of ``kernels/*.cu`` through CuPy's RawModule."""

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.building import first_error, kernel_folder
from gpulstm.errors import DTypeError, NoKernel
from gpulstm.kernel import Kernel, parameters

# dtype name -> the compiler options that set a kernel's types REAL (storage) and ACC (accumulation).
_TYPES = {
    "float32": ("-DREAL=float", "-DACC=float"),
    "float64": ("-DREAL=double", "-DACC=double", "-DREAL_IS_DOUBLE"),
    "float16": ("-DREAL=__half", "-DACC=float", "-DREAL_IS_HALF"),
    "bfloat16": ("-DREAL=__nv_bfloat16", "-DACC=float", "-DREAL_IS_BFLOAT16"),
}
REALS = tuple(_TYPES)
_INCLUDE = re.compile(r'#include (?:"([^"]+\.cuh)"|CELL_FILE\b)')
_STRUCT = re.compile(r"^struct (\w+) : Cell\b", re.MULTILINE)


def kernel_files() -> list[str]:
    """The names of the kernel files, without their ending."""
    return sorted(entry.name.removesuffix(".cu") for entry in kernel_folder().iterdir() if entry.name.endswith(".cu"))


def cell_files() -> dict[str, str]:
    """Cell struct -> its file in kernels/cells/; a struct is declared as ``struct <name> : Cell``."""
    files = sorted(entry.name.removesuffix(".cuh") for entry in (kernel_folder() / "cells").iterdir())
    return {struct: file for file in files for struct in _STRUCT.findall(_text(file, "cell"))}


@functools.cache
def source(file: str, cell: str = "", stamp: Any = None) -> str:
    """The source of kernels/<file>.cu, in which kernels/cells/<cell>.cuh replaces ``#include CELL_FILE``.

    You name your own file by its path, which ends in .cu or .cuh. The first ``#include "x.cuh"`` of each file in the
    kernels' folder, or in the folder of your cell, is replaced by its content, so that the compiler need not search for
    files. Your own file is read once for each ``stamp``. Raises NoKernel if a file does not exist.
    """
    return _included(_text(file, "kernel"), cell, set(), kernel_folder())


_PLACES = {"kernel": ("", ".cu"), "cell": ("cells", ".cuh")}


def _text(name: str, kind: str) -> str:
    """The content of a "kernel" or "cell" file, from the kernels' folder or from the user."""
    within, ending = _PLACES[kind]
    folder, own = kernel_folder() / within, Path(name)
    if own.suffix == ending:
        if not own.is_file():
            raise NoKernel(f"{kind} file: expected the path of a {ending} file, but there is no file at {name!r}")
        try:
            return own.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise NoKernel(f"{own.name}: expected a readable file in UTF-8, got: {error}") from None
    if not (folder / f"{name}{ending}").is_file():
        names = ", ".join(sorted({e.name.removesuffix(ending) for e in folder.iterdir() if e.name.endswith(ending)}))
        raise NoKernel(f"{kind} file: expected one of {names}, or the path of a {ending} file, got {name!r}")
    return (folder / f"{name}{ending}").read_text(encoding="utf-8")


def _included(text: str, cell: str, seen: set[Path], folder: Path) -> str:
    """Insert headers and the cell's file into ``text``, a file of ``folder``; ``seen`` are headers already inserted."""

    def header(match: re.Match) -> str:
        if match[1] is None:
            beside = Path(cell).parent if cell.endswith(".cuh") else kernel_folder()
            return _included(_text(cell, "cell"), cell, seen, beside)
        file = next((place / match[1] for place in (folder, kernel_folder()) if (place / match[1]).is_file()), None)
        if file is None:
            return match[0]  # not our file: the compiler finds it, or reports it missing
        if file in seen:
            return ""
        seen.add(file)
        return _included(file.read_text(encoding="utf-8"), cell, seen, file.parent)

    return _INCLUDE.sub(header, text.replace("#pragma once\n", ""))


def options(real: Any, defines: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The compiler's options for storage type ``real``; raises DTypeError for a type that kernels do not support."""
    name = np.dtype(real).name
    if name not in _TYPES:
        raise DTypeError(f"kernel storage type: expected one of {', '.join(_TYPES)}, got {name}")
    return ("-std=c++17", *_TYPES[name], *(f"-D{define}" for define in defines))


class Launcher:
    """The kernels of one device: ``launcher(file, entry, size, *args, real=dtype)`` finds one and launches it."""

    def __init__(self, cupy: Any, device: Any) -> None:
        self._cupy, self._device = cupy, device
        self._kernels: dict[tuple, Kernel] = {}
        self._failed: dict[tuple, str] = {}  # why a cell's kernel could not be compiled

    @functools.cached_property
    def multiprocessors(self) -> int:
        """The number of multiprocessors: so many thread blocks of any size run at once on this device."""
        return self._device.attributes["MultiProcessorCount"]

    @functools.cached_property
    def capability(self) -> int:
        """The compute capability of this device, for example 86 for 8.6."""
        return int(self._device.compute_capability)

    def kernel(
        self, file: str, entry: str, real: Any, defines: tuple[str, ...] = (), cell: str = "", stamp: Any = None,
        cooperative: bool = False,
    ) -> Kernel:  # fmt: skip
        """Return the kernel; the first call compiles it, and CuPy caches the result on disk.

        The thread blocks of a ``cooperative`` kernel must all fit on the device at once, or the launch fails.

        Raises NoKernel, with the compiler's first error, for a cell that cannot be compiled.
        """
        key = (file, entry, np.dtype(real).name, defines, cell, stamp, cooperative)
        if key in self._failed:
            raise NoKernel(self._failed[key])
        if key not in self._kernels:
            with self._device:
                more = {"enable_cooperative_groups": True} if cooperative else {}
                module = self._cupy.RawModule(code=source(file, cell, stamp), options=options(real, defines), **more)
                try:
                    function = module.get_function(entry)
                except self._cupy.cuda.compiler.CompileException as error:
                    if not cell:
                        raise
                    self._failed[key] = f"{Path(cell).name}: the compiler failed: {first_error(str(error))}"
                    raise NoKernel(self._failed[key]) from error
                name = f"{file.removesuffix('.cu')}.cu {entry}{f' of {cell}' if cell else ''}"
                listed = parameters(source(file, cell, stamp), entry, real)
                self._kernels[key] = Kernel(name, function, listed, self._cupy, self._device)
        return self._kernels[key]

    def __call__(
        self,
        file: str,
        entry: str,
        size: int,
        *args: Any,
        real: Any,
        defines: tuple[str, ...] = (),
        **limits: Any,
    ) -> None:
        """Find the kernel and launch it; ``limits`` are Kernel's threads=, blocks= and shared=."""
        self.kernel(file, entry, real, defines)(size, *args, **limits)

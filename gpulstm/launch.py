"""Finds, compiles, caches and launches a kernel of ``kernels/*.cu`` through CuPy's RawModule."""

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.building import first_error, kernel_folder
from gpulstm.errors import DTypeError, NoKernel
from gpulstm.kernel import Kernel, parameters

# dtype name -> what a kernel's REAL (storage) and ACC (accumulation) are.
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
    """The file of kernels/cells/ for every struct of a cell: what stands as ``struct <name> : Cell`` in one."""
    files = sorted(entry.name.removesuffix(".cuh") for entry in (kernel_folder() / "cells").iterdir())
    return {struct: file for file in files for struct in _STRUCT.findall(_text(file, "cell"))}


@functools.cache
def source(file: str, cell: str = "", stamp: Any = None) -> str:
    """The text of kernels/<file>.cu; where that says ``#include CELL_FILE`` stands kernels/cells/<cell>.cuh.

    A file of the user's own is named by its path, which ends in .cu or .cuh. Each ``#include "x.cuh"`` of the kernels'
    folder, or of the folder of a user's cell, is replaced by its text, where it stands first, so that nothing is looked
    up on disk. A file of the user's own is read once for each ``stamp``. Raises NoKernel for a file that is not there.
    """
    return _included(_text(file, "kernel"), cell, set(), kernel_folder())


_PLACES = {"kernel": ("", ".cu"), "cell": ("cells", ".cuh")}


def _text(name: str, kind: str) -> str:
    """The text of a "kernel" file or a "cell" file, of the kernels' folder or of the user's own."""
    within, ending = _PLACES[kind]
    folder, own = kernel_folder() / within, Path(name)
    if own.suffix == ending:
        if not own.is_file():
            raise NoKernel(f"{kind} file: expected the path of a {ending} file, and there is none at {name!r}")
        try:
            return own.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise NoKernel(f"{own.name}: expected text in UTF-8, which cannot be read here: {error}") from None
    if not (folder / f"{name}{ending}").is_file():
        names = ", ".join(sorted({e.name.removesuffix(ending) for e in folder.iterdir() if e.name.endswith(ending)}))
        raise NoKernel(f"{kind} file: expected one of {names}, or the path of a {ending} file, got {name!r}")
    return (folder / f"{name}{ending}").read_text(encoding="utf-8")


def _included(text: str, cell: str, seen: set[Path], folder: Path) -> str:
    """``text``, which lies in ``folder``, with headers and the cell's file in it; ``seen`` are those it has already."""

    def header(match: re.Match) -> str:
        if match[1] is None:
            beside = Path(cell).parent if cell.endswith(".cuh") else kernel_folder()
            return _included(_text(cell, "cell"), cell, seen, beside)
        file = next((place / match[1] for place in (folder, kernel_folder()) if (place / match[1]).is_file()), None)
        if file is None:
            return match[0]  # no file of ours: the compiler's to find, or to name
        if file in seen:
            return ""
        seen.add(file)
        return _included(file.read_text(encoding="utf-8"), cell, seen, file.parent)

    return _INCLUDE.sub(header, text.replace("#pragma once\n", ""))


def options(real: Any, defines: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The compiler's options for storage type ``real``; raises DTypeError for a type the kernels do not know."""
    name = np.dtype(real).name
    if name not in _TYPES:
        raise DTypeError(f"kernel storage type: expected one of {', '.join(_TYPES)}, got {name}")
    return ("-std=c++17", *_TYPES[name], *(f"-D{define}" for define in defines))


class Launcher:
    """The kernels of one device: ``launcher(file, entry, size, *args, real=dtype)`` looks up and launches."""

    def __init__(self, cupy: Any, device: Any) -> None:
        self._cupy, self._device = cupy, device
        self._kernels: dict[tuple, Kernel] = {}
        self._failed: dict[tuple, str] = {}  # why a cell's kernel could not be compiled

    @functools.cached_property
    def multiprocessors(self) -> int:
        """How many blocks, be they as large as they may, run at once on this device."""
        return self._device.attributes["MultiProcessorCount"]

    @functools.cached_property
    def capability(self) -> int:
        """The compute capability of this device, 8.6 as 86."""
        return int(self._device.compute_capability)

    def kernel(
        self, file: str, entry: str, real: Any, defines: tuple[str, ...] = (), cell: str = "", stamp: Any = None,
        cooperative: bool = False,
    ) -> Kernel:  # fmt: skip
        """The compiled kernel; compiles at the first call, CuPy keeps the result on disk.

        The blocks of a ``cooperative`` one are all on the device at once, or the launch fails.

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
        """Look up and launch; ``limits`` are Kernel's threads=, blocks=, shared=."""
        self.kernel(file, entry, real, defines)(size, *args, **limits)

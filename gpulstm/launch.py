"""Finds, compiles, caches and launches a kernel of ``kernels/*.cu`` through CuPy's RawModule."""

import functools
import importlib.resources
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.errors import DTypeError, NoKernel, ShapeError

# dtype name -> what a kernel's REAL (storage) and ACC (accumulation) are.
_TYPES = {
    "float32": ("-DREAL=float", "-DACC=float"),
    "float64": ("-DREAL=double", "-DACC=double"),
    "float16": ("-DREAL=__half", "-DACC=float", "-DREAL_IS_HALF"),
    "bfloat16": ("-DREAL=__nv_bfloat16", "-DACC=float", "-DREAL_IS_BFLOAT16"),
}
REALS = tuple(_TYPES)
_INCLUDE = re.compile(r'#include "([^"/]+\.cuh)"')
_WAVES = 32  # blocks of a grid-stride kernel for each multiprocessor; more would only queue


def kernel_folder() -> Any:
    """The folder of the CUDA text that belongs to this package: inside it where it is installed, beside it in a
    checkout. Another installed gpulstm never serves its kernels to a checkout."""
    inside = importlib.resources.files("gpulstm") / "kernels"
    return inside if inside.is_dir() else Path(__file__).parents[1] / "kernels"


def kernel_files() -> list[str]:
    """The names of the kernel files, without their ending."""
    return sorted(entry.name.removesuffix(".cu") for entry in kernel_folder().iterdir() if entry.name.endswith(".cu"))


@functools.cache
def source(file: str) -> str:
    """The text of kernels/<file>.cu, or of the user's own file where ``file`` is a path that ends in .cu.

    Each ``#include "x.cuh"`` of the kernels' folder is replaced by its text, where it stands first, so that nothing
    is looked up on disk. A file of the user's own is read once. Raises NoKernel for a file that is not there.
    """
    own, folder = Path(file), kernel_folder()
    if own.suffix == ".cu":
        if not own.is_file():
            raise NoKernel(f"kernel file: want the path of a .cu file, and there is none at {file!r}")
        return _included(own.read_text(encoding="utf-8"), folder, set())
    if not (folder / f"{file}.cu").is_file():
        raise NoKernel(f"kernel file: want one of {', '.join(kernel_files())}, or the path of a .cu file, got {file!r}")
    return _included((folder / f"{file}.cu").read_text(encoding="utf-8"), folder, set())


def _included(text: str, folder: Any, seen: set[str]) -> str:
    """``text`` with the folder's headers in it; ``seen`` are those that are in it already."""

    def header(match: re.Match) -> str:
        if match[1] in seen:
            return ""
        if not (folder / match[1]).is_file():
            return match[0]  # no file of ours: the compiler's to find, or to name
        seen.add(match[1])
        return _included((folder / match[1]).read_text(encoding="utf-8"), folder, seen)

    return _INCLUDE.sub(header, text)


def options(real: Any, defines: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The compiler's options for storage type ``real``; raises DTypeError for a type the kernels do not know."""
    name = np.dtype(real).name
    if name not in _TYPES:
        raise DTypeError(f"kernel storage type: want one of {', '.join(_TYPES)}, got {name}")
    return ("-std=c++17", *_TYPES[name], *(f"-D{define}" for define in defines))


class Kernel:
    """One compiled entry point on one device."""

    def __init__(self, name: str, function: Any, attributes: dict[str, int]) -> None:
        self.name, self.function = name, function
        self._max_threads = min(attributes["MaxThreadsPerBlock"], function.max_threads_per_block)
        self._max_blocks = attributes["MaxGridDimX"]
        self._max_shared = attributes["MaxSharedMemoryPerBlock"] - function.shared_size_bytes
        self._wave_blocks = _WAVES * attributes["MultiProcessorCount"]

    def __call__(self, size: int, *args: Any, threads: int = 256, blocks: int | None = None, shared: int = 0) -> None:
        """Launch with ``size`` elements for a grid-stride loop, or with an exact number of ``blocks``.

        Arrays pass their pointer, integers a ``long long``, floats a ``double``, None a null pointer. Raises
        NoKernel when the launch is over a limit of the device, ShapeError when an array is not contiguous.
        """
        grid = min(math.ceil(size / threads), self._wave_blocks) if blocks is None else blocks
        if grid == 0:
            return  # nothing to do, and CUDA refuses an empty grid
        for what, want, got in (
            ("threads in a block", self._max_threads, threads),
            ("blocks", self._max_blocks, grid),
            ("bytes of shared memory", self._max_shared, shared),
        ):
            if got > want:
                raise NoKernel(f"{self.name}: want at most {want} {what} on this device, got {got}")
        self.function((grid,), (threads,), tuple(self._packed(arg) for arg in args), shared_mem=shared)

    def _packed(self, arg: Any) -> Any:
        if arg is None:
            return np.uintp(0)
        if isinstance(arg, int | np.integer):
            return np.int64(arg)
        if isinstance(arg, float | np.floating):
            return np.float64(arg)
        if isinstance(arg, np.ndarray):  # CuPy would take one of a single element for a pointer
            raise DTypeError(f"{self.name}: want arrays on the GPU, got one of NumPy of shape {arg.shape}")
        if not arg.flags.c_contiguous:
            raise ShapeError(
                f"{self.name}: want C-contiguous arrays, got one of shape {arg.shape}, strides {arg.strides}"
            )
        return arg


class Launcher:
    """The kernels of one device: ``launcher(file, entry, size, *args, real=dtype)`` looks up and launches."""

    def __init__(self, cupy: Any, device: Any) -> None:
        self._cupy, self._device = cupy, device
        self._kernels: dict[tuple, Kernel] = {}

    def kernel(self, file: str, entry: str, real: Any, defines: tuple[str, ...] = ()) -> Kernel:
        """The compiled kernel; compiles at the first call, CuPy keeps the result on disk."""
        key = (file, entry, np.dtype(real).name, defines)
        if key not in self._kernels:
            with self._device:
                module = self._cupy.RawModule(code=source(file), options=options(real, defines))
                function = module.get_function(entry)
                self._kernels[key] = Kernel(f"{file.removesuffix('.cu')}.cu {entry}", function, self._device.attributes)
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

"""Puts the installed CuPy on the emulated CUDA: its imports, its compiler, its sorting."""

import ctypes
import functools
import importlib
import importlib.util
import os
import sys
import types
from importlib.machinery import ExtensionFileLoader
from typing import Any

import numpy as np

from . import build, compile

_RUNTIME = "cupy_backends.cuda.api.runtime"


class _Finder:
    """Finds our build of CuPy's extension for the CUDA runtime before the wheel's."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        if name != _RUNTIME:
            return None
        file = str(build.libraries() / "runtime.so")
        return importlib.util.spec_from_file_location(name, file, loader=ExtensionFileLoader(name, file))


@functools.cache
def why_not() -> str:
    """Why CuPy cannot run on the emulated CUDA here; empty when it can."""
    try:
        prepare()
    except build.NotBuilt as error:
        return str(error)
    return ""


@functools.cache
def prepare(without: str = "") -> types.ModuleType:
    """CuPy on the emulated CUDA, which has no device until ``control.gpu`` gives it some; raises NotBuilt.

    ``without`` is "cublas" for a machine that has none.
    """
    if "cupy" in sys.modules:
        raise RuntimeError("cupy is imported already: the emulated CUDA must be prepared before")
    folder = build.libraries()
    for name in ("libcuda.so.1", "libcublasLt.so.13", "libcublas.so.13"):
        if without and without in name:
            continue
        ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)  # whoever asks for this name gets this library
    # CUB's kernels come compiled for GPUs alone.
    os.environ["CUPY_ACCELERATORS"] = ""
    sys.meta_path.insert(0, _Finder())
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        raise build.NotBuilt(f"CuPy does not import: {error}") from error
    compiler = importlib.import_module("cupy.cuda.compiler")
    compiler._compile_with_cache_cuda = functools.partial(_compiled, compiler)
    sorting = importlib.import_module("cupy._core._routines_sorting")
    sorting.thrust = _thrust()
    cupy.cuda.set_allocator(_fenced)
    return cupy


def _fenced(size: int) -> Any:
    """Every array's memory is a block of its own, between fences; CuPy's pool would cut many out of one."""
    memory = sys.modules["cupy.cuda.memory"]
    return memory.MemoryPointer(memory.Memory(size), 0)


def _compiled(compiler: Any, source: str, options: tuple[str, ...], *rest: Any, **others: Any) -> Any:
    """What CuPy calls for the text of a kernel, its own or a user's."""
    if others.get("name_expressions"):
        raise NotImplementedError("the emulated CUDA has no templates of kernels")
    try:
        library = compile.build(source, (*options, "-ftz=true"))
    except compile.CompileError as error:
        raise compiler.CompileException(str(error), source, "kernel.cu", options, "nvrtc") from None
    module = sys.modules["cupy.cuda.function"].Module()
    module.load(f"emulated:{library}\0".encode())
    return module


def _thrust() -> types.SimpleNamespace:
    """cupy.cuda.thrust, whose kernels come compiled for GPUs alone, on the host."""

    def memory(address: int, dtype: Any, shape: Any) -> np.ndarray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        buffer = (ctypes.c_char * size).from_address(address) if size else b""
        return np.frombuffer(buffer, dtype).reshape(shape)

    def sort(dtype: Any, data: int, keys: int, shape: Any) -> None:
        values = memory(data, dtype, shape)
        values[...] = np.sort(values, axis=-1, kind="stable")

    def argsort(dtype: Any, places: int, data: int, keys: int, shape: Any) -> None:
        values = memory(data, dtype, shape)
        order = np.argsort(values, axis=-1, kind="stable")
        memory(places, np.int64, shape)[...] = order
        values[...] = np.take_along_axis(values, order, -1)

    return types.SimpleNamespace(sort=sort, argsort=argsort, available=True)

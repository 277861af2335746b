"""A stand-in for the part of CuPy that gpulstm uses, for machines without a GPU.

``install(monkeypatch)`` puts it at ``sys.modules["cupy"]``, and gpulstm/backend.py runs on it unmodified:
every line of the CUDA path is tested, and the kernels' own text runs, compiled for the processor.

    signatures.py   which of CuPy's names, with which signatures
    arrays.py       ndarray, which refuses to mix with NumPy's
    operators.py    its operators
    functions.py    NumPy's arithmetic under those names
    memory.py       blocks full of NaN between fences
    devices.py      cupy.cuda: two devices, their limits
    compile.py      CUDA text through g++, with include/ for CUDA's words
    raw.py          RawModule, RawKernel: checks and runs a launch
"""

import importlib
import sys
import types
from typing import Any

import numpy as np

from . import compile, devices, functions, operators, raw, signatures
from .arrays import FUNCTIONS, ndarray
from .raw import KernelFault

__all__ = ["KernelFault", "cupy", "install", "why_not"]


def _module() -> types.ModuleType:
    operators.add_operators()
    functions.fill_tables()
    module = types.ModuleType("cupy")
    module.__version__ = "14.2.0+emulated"
    module.ndarray, module.cuda = ndarray, devices.module(compile.CompileException)
    module.RawModule, module.RawKernel = raw.RawModule, raw.RawKernel
    module.get_default_memory_pool = lambda: devices.POOL
    for name in signatures.CONSTANTS:
        setattr(module, name, getattr(np, name))
    for name, function in FUNCTIONS.items():
        setattr(module, name, function)
    return module


cupy = _module()


def why_not() -> str:
    """Why the stand-in cannot run kernels here; empty when it can."""
    return "" if compile.compiler() else "g++ was not found: the emulated CUDA compiles kernels with it"


def install(monkeypatch: Any) -> types.ModuleType:
    """Make ``import cupy`` give the stand-in until the test ends, with device 0 current."""
    backend = importlib.import_module("gpulstm.backend")
    devices.set_current(0)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    backend._forget_devices()
    return cupy

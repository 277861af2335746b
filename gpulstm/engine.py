"""Finds and loads the processor's compiled engine, or says why there is none.

It first looks for the compiled module inside the package, which must come from the C++ sources of this package. Else it
compiles a library at first use, for this processor's instruction set only, and keeps it in the user's cache.
Environment variables:

    GPULSTM_ISA    baseline, avx2 or avx512, in place of the best that the processor has; none turns the engine off
    GPULSTM_CXX    the C++ compiler, with options if needed
    GPULSTM_CACHE  the folder for libraries that are compiled at first use
"""

import ctypes
import functools
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpulstm import building, library_cache, threads
from gpulstm.building import CannotCompile
from gpulstm.errors import DeviceError, DTypeError, NoKernel

_REALS = {"float32": "f32", "float64": "f64"}
_lock = threading.RLock()  # so that two Python threads do not compile the same


class _Engine(NamedTuple):
    library: ctypes.CDLL | None
    isa: str  # the instruction set whose code is used
    origin: str  # the path of the library
    why: str  # why there is no library


def library() -> ctypes.CDLL | None:
    """The engine's library, or None if there is none; the result is cached.

    Raises DeviceError if GPULSTM_ISA is unknown, or if this processor cannot run it.
    """
    return _engine().library


def why_none() -> str:
    """Why there is no engine, in plain words; "" if there is one."""
    return _engine().why


def origin() -> str:
    """The file the engine was loaded from."""
    return _there().origin


def isa() -> str:
    """The instruction set in use: baseline, avx2 or avx512. Raises NoKernel if there is no engine."""
    return _there().isa


def entry(dtype: Any, own: ctypes.CDLL | None = None) -> Any:
    """The C function ``int f(const char* cell, int what, Args*)`` for float32 or float64.

    ctypes releases the GIL during a call. ``own`` is the library of ``own_cell``, if any. Raises NoKernel if there is
    no engine, DTypeError for another type.
    """
    name = np.dtype(dtype).name
    if name not in _REALS:
        raise DTypeError(f"the engine's element type: expected {' or '.join(_REALS)}, got {name}")
    engine = _there()
    function = getattr(own or engine.library, f"gpulstm_engine_{engine.isa}_{_REALS[name]}")
    function.argtypes, function.restype = (ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p), ctypes.c_int
    return function


def function(name: str, dtype: Any) -> Callable[..., None] | None:
    """The compiled function ``name`` of kernels/host for float32 or float64, or None; then the caller uses NumPy.

    Arguments are those of the C function: C-contiguous arrays, None for a null pointer, integers (64 bits) and floats
    (64 bits).
    """
    real = _REALS.get(np.dtype(dtype).name)
    return None if real is None else _function(name, real)


@functools.cache
def _function(name: str, real: str) -> Callable[..., None] | None:
    engine = _engine()
    if engine.library is None:
        return None
    compiled = getattr(engine.library, f"gpulstm_{name}_{engine.isa}_{real}")
    compiled.restype = None
    return lambda *arguments: compiled(*map(_as_c, arguments))


def _as_c(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        assert x.flags.c_contiguous
        return ctypes.c_void_p(x.ctypes.data)
    return x if x is None else ctypes.c_double(x) if isinstance(x, float) else ctypes.c_longlong(x)


def own_cell(file: str | Path, struct: str, stamp: Any = None) -> ctypes.CDLL:
    """The library of your own cell, ``struct X : Cell`` in a .cuh file; compiles it at first use.

    The file is read once for each ``stamp``. Raises NoKernel, with the reason, if it cannot be compiled.
    """
    with _lock:
        found = _own(Path(file).absolute(), struct, stamp)
    if isinstance(found, str):
        raise NoKernel(found)
    return found


def why_no_own(file: str | Path, struct: str, stamp: Any = None) -> str:
    """Why ``own_cell`` has no library, or ""; compiles the library if necessary."""
    with _lock:
        found = _own(Path(file).absolute(), struct, stamp)
    return found if isinstance(found, str) else ""


def why_cannot_compile() -> str:
    """Why no cell of your own can be compiled on this machine, or ""; does not depend on the cell."""
    try:
        library_cache.check()
    except CannotCompile as reason:
        return str(reason)
    return ""


@functools.cache
def _own(file: Path, struct: str, stamp: Any) -> ctypes.CDLL | str:
    """The library, or the reason why there is none."""
    engine = _engine()
    if engine.library is None:
        return f"{file.name}: the processor's engine is missing: {engine.why}"
    if not file.is_file():
        return f"cell file: expected the path of a .cuh file, but there is no file at {str(file)!r}"
    try:
        if struct not in (there := building.structs(file)):
            return f"{file.name}: expected a line 'struct {struct} : Cell', got {', '.join(there) or 'no such struct'}"
        objects, text = building.own_objects(engine.isa), building.text_hash([file])
        own, _ = library_cache.load(objects, [(file, struct)], text, _announce(f"the cell {struct}"))
    except CannotCompile as reason:
        return f"{file.name}: {reason}"
    except (OSError, UnicodeDecodeError) as error:
        return f"{file.name}: expected a readable file in UTF-8, got: {error}"
    own.gpulstm_borrow(ctypes.cast(engine.library.gpulstm_parallel, ctypes.c_void_p))
    return own


def _there() -> _Engine:
    if (engine := _engine()).library is None:
        raise NoKernel(f"the processor's engine is missing: {engine.why}")
    return engine


@functools.cache
def _connected() -> _Engine:
    engine = _found()
    if engine.library is not None:
        threads.connect(engine.library)
    return engine


def _engine() -> _Engine:
    with _lock:
        return _connected()


def _found() -> _Engine:
    if os.environ.get("GPULSTM_ISA") == "none":
        return _Engine(None, "", "", "GPULSTM_ISA=none turns it off")
    text = building.text_hash(building.cell_files())
    module, path, why = _module(text)
    if module is not None:
        return _Engine(module, _instruction_set(module), path, "")
    try:
        isa = _instruction_set(library_cache.load(building.processor_objects(), [], text)[0])
        objects, cells = building.engine_objects([isa]), building.default_cells()
        compiled, where = library_cache.load(objects, cells, text, _announce(f"the processor's engine for {isa}"))
    except CannotCompile as reason:
        return _Engine(None, "", "", f"{why}, and {reason}")
    return _Engine(compiled, isa, str(where), "")


def _module(text: str) -> tuple[ctypes.CDLL | None, str, str]:
    """The module inside the package and its path, or None and the reason; one from other sources is never used."""
    endings = (".so", ".pyd")
    for path in sorted(path for path in Path(__file__).parent.glob("_engine.*") if path.suffix in endings):
        try:
            module = ctypes.CDLL(str(path))
            module.gpulstm_text.restype = ctypes.c_char_p
            built_from = module.gpulstm_text().decode()
        except (OSError, AttributeError) as error:
            return None, "", f"{path.name} does not load ({error})"
        if built_from != text:
            return None, "", f"{path.name} was compiled from other sources than those of this package"
        return module, str(path), ""
    return None, "", "the package was installed without its compiled module"


def _instruction_set(library: ctypes.CDLL) -> str:
    """The most capable instruction set of this processor, or the one that GPULSTM_ISA names."""
    runs = [isa for isa in building.instruction_sets() if library.gpulstm_supports(isa.encode())]
    wanted = os.environ.get("GPULSTM_ISA") or runs[-1]
    if wanted not in runs:
        raise DeviceError(
            f"GPULSTM_ISA: expected {', '.join(runs)} (which this processor runs) or none, got {wanted!r}"
        )
    return wanted


def _announce(what: str) -> Any:
    return lambda folder: print(f"gpulstm: compiling {what}, once, into {folder}", file=sys.stderr, flush=True)

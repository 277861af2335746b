"""What ``gpulstm info`` prints: versions, devices, memory, the processor's engine, and which kernels compile here."""

import functools
import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpulstm import engine
from gpulstm.backend import CPU, device, why_no_cuda
from gpulstm.cells import STEPS, Cell, lstm
from gpulstm.dtypes import as_dtype
from gpulstm.functional import fused_steps
from gpulstm.launch import REALS, kernel_files, options, source
from gpulstm.version import __version__

_ARCHITECTURE = "sm_80"  # the target of the compiler if there is no GPU


def lines() -> Iterator[str]:
    """Yield the report, line by line. If something is missing or broken, its line says so; there is no error."""
    reason = _or_reason(why_no_cuda)  # imports CuPy, if possible
    cupy = sys.modules.get("cupy")
    for name, find in (
        ("gpulstm", lambda: __version__),
        ("Python", lambda: f"{platform.python_version()} on {platform.platform()}"),
        ("NumPy", lambda: f"{np.__version__} with {_blas()}"),
        ("CuPy", lambda: cupy.__version__ if cupy else "not usable, see GPU"),
        ("CUDA", lambda: _cuda(cupy)),
        ("processor", lambda: f"{os.cpu_count()} cores, {_memory(CPU.memory())}"),
        ("engine", _engine),
    ):
        yield f"{name:<10} {_or_reason(find)}"
    if reason:
        yield f"{'GPU':<10} none: {reason}"
    else:
        yield from _gpus(cupy)
    compile_kernel, how = _compiler(cupy, works=not reason)
    yield f"{'kernels':<10} {how}"
    if compile_kernel is not None:
        for text in kernel_texts():
            yield f"  {text.title:<20} {', '.join(_compiled(compile_kernel, text, real) for real in REALS)}"


class _Text(NamedTuple):
    """Code to compile: a kernel file and, for the kernels of a step, the cell."""

    title: str
    file: str
    cell: str = ""
    defines: tuple[str, ...] = ()


def kernel_texts() -> Iterator[_Text]:
    """Yield every kernel file: those of a step once for each cell, those of a sequence for the LSTM only."""
    for file in kernel_files():
        cells = [(struct, cell) for struct, cell in STEPS.items() if _runs(cell, file)]
        for struct, cell in cells:
            assert cell.kernel is not None
            title = file if file in fused_steps.FILES else f"{file} {struct}"
            yield _Text(title, file, cell.kernel.file, cell.defines)
        if not cells:
            yield _Text(file, file)


def _runs(cell: Cell, file: str) -> bool:
    """Return whether the report compiles this file with this cell."""
    assert cell.kernel is not None
    return file == cell.kernel.program or (file in fused_steps.FILES and cell is lstm.CELL)


def _or_reason(find: Callable[[], str]) -> str:
    try:
        return find()
    except Exception as error:  # a broken installation can raise anything; the report continues
        return f"unknown: {_one_line(error)}"


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or '(no message)').splitlines()[0]}"


def _blas() -> str:
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"{blas['name']} {blas['version']}"


def _memory(free_and_total: tuple[int, int]) -> str:
    free, total = free_and_total
    return f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free" if total else "memory unknown"


def _engine() -> str:
    library = engine.library()
    if library is None:
        return f"none: {engine.why_none()}"
    return f"{engine.isa()} code, threads: {library.gpulstm_num_threads()}, from {engine.origin()}"


def _cuda(cupy: Any) -> str:
    if cupy is None:
        return "unknown without CuPy"
    runtime, driver = cupy.cuda.runtime.runtimeGetVersion(), cupy.cuda.runtime.driverGetVersion()
    return f"runtime {_version(runtime)}, driver {f'for up to {_version(driver)}' if driver else 'not found'}"


def _version(number: int) -> str:
    """Format CUDA's version number: 12040 becomes 12.4."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _gpus(cupy: Any) -> Iterator[str]:
    for index in range(cupy.cuda.runtime.getDeviceCount()):
        yield f"{f'cuda:{index}':<10} {_or_reason(functools.partial(_gpu, cupy, index))}"


def _gpu(cupy: Any, index: int) -> str:
    facts = cupy.cuda.runtime.getDeviceProperties(index)
    memory = _memory(device(f"cuda:{index}").backend.memory())
    return f"{facts['name'].decode()}, sm_{facts['major']}{facts['minor']}, {memory}"


def _compiled(compile_kernel: Callable[[_Text, str], None], text: _Text, real: str) -> str:
    try:
        compile_kernel(text, real)
    except Exception as error:  # compilers raise several types of exceptions
        return f"{real} FAILS ({_one_line(error)})"
    return real


def _compiler(cupy: Any, works: bool) -> tuple[Callable[[_Text, str], None] | None, str]:
    """Return the function that compiles code for an element type, or None, and a description for the report."""
    if works:
        return functools.partial(compile_on_device, cupy), "compile on this device for"
    if cupy is None:
        return None, "not compiled: this needs CuPy and NVRTC"
    try:
        nvrtc = cupy.cuda.nvrtc
        version = ".".join(map(str, nvrtc.getVersion()))
    except Exception as error:  # the type differs between releases of CuPy
        return None, f"not compiled: NVRTC does not load ({_one_line(error)})"
    how = f"compile without a device, by NVRTC {version} for {_ARCHITECTURE}, for"
    return functools.partial(_compile_by_nvrtc, nvrtc), how


def compile_on_device(cupy: Any, text: _Text, real: str) -> None:
    code = source(text.file, text.cell)
    cupy.RawModule(code=code, options=options(as_dtype(real), text.defines)).compile()


def _compile_by_nvrtc(nvrtc: Any, text: _Text, real: str) -> None:
    include = [f"-I{folder}" for folder in cuda_headers()]
    program = nvrtc.createProgram(source(text.file, text.cell), f"{text.file}.cu", (), ())
    try:
        nvrtc.compileProgram(program, (*options(as_dtype(real), text.defines), f"-arch={_ARCHITECTURE}", *include))
    except nvrtc.NVRTCError as error:
        raise RuntimeError(nvrtc.getProgramLog(program).strip() or str(error)) from error
    finally:
        nvrtc.destroyProgram(program)


def cuda_headers() -> list[Path]:
    """Return the folders that contain cuda_fp16.h, among those of NVIDIA's wheels and of a CUDA toolkit."""
    wheels = [Path(entry) / "nvidia" for entry in sys.path]
    folders = [wheel / part / "include" for wheel in wheels for part in ("cu13", "cuda_runtime")]
    folders.append(Path(os.environ.get("CUDA_PATH", "/usr/local/cuda")) / "include")
    return [folder for folder in folders if (folder / "cuda_fp16.h").is_file()]

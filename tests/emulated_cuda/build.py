"""Builds the emulated CUDA's libraries, and CuPy's extension for the CUDA runtime on them, once for a version of CuPy.

CuPy's wheel loads CUDA's driver and cuBLAS by name, where ours can stand, but holds the CUDA runtime inside one of its
extensions, cupy_backends.cuda.api.runtime. So that extension is built again, from the sources of the same version of
CuPy, which pip downloads together with what builds them into an environment that goes again.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

from .folder import compiler, folder, fused, locked

_SOURCES = Path(__file__).with_name("libraries")
_WHEELS = ("cupy-cuda13x", "cupy-cuda12x")
# CuPy's sources tell pip their name with the help of setuptools below 81, Cython and these.
_BUILDERS = ("setuptools>=77,<81", "wheel", "cython", "numpy", "fastrlock")
_HEADERS = {"13": ("nvidia-cuda-runtime>=13,<14", "nvidia-cuda-crt>=13,<14")}
_FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared", "-ffp-contract=fast", *fused())
_PROFILER = 'extern "C" { cudaError_t cudaProfilerStart(void); cudaError_t cudaProfilerStop(void); }\n'
_CYTHONIZE = """
import sys
import Cython
from Cython.Compiler.Main import CompilationOptions, compile
environment = {"CUPY_USE_CUDA_PYTHON": False, "CUPY_CUFFT_STATIC": False, "CUPY_CYTHON_VERSION": Cython.__version__,
               "CUPY_CUDA_VERSION": 13020, "CUPY_HIP_VERSION": 0}
directives = {"embedsignature": True, "c_api_binop_methods": True, "binding": False, "warn.deprecated.IF": False,
              "freethreading_compatible": True, "language_level": 3}
options = CompilationOptions(compiler_directives=directives, compile_time_env=environment, cplus=True,
                             include_path=["."], output_file=sys.argv[1])
sys.exit(compile("cupy_backends/cuda/api/runtime.pyx", options,
                 full_module_name="cupy_backends.cuda.api.runtime").num_errors)
"""


class NotBuilt(Exception):
    """Why the libraries cannot be built here."""


@functools.cache
def libraries() -> Path:
    """The folder of libcuda.so.1, the two libraries of cuBLAS and runtime.so; raises NotBuilt with the reason."""
    if compiler() is None:
        raise NotBuilt("g++ was not found: the emulated CUDA and its kernels are compiled with it")
    built = folder() / f"cuda-{_key()}"
    with locked("cuda"):
        if not built.exists():
            with tempfile.TemporaryDirectory(dir=folder()) as work:
                _build(Path(work))
                (Path(work) / "done").rename(built)
    return built


@functools.cache
def _wheel() -> tuple[str, str]:
    """(name, version) of the installed wheel of CuPy."""
    for name in _WHEELS:
        try:
            return name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    raise NotBuilt(f"CuPy is not installed: the emulated CUDA runs {' or '.join(_WHEELS)}")


def _key() -> str:
    """A name for everything that goes into the libraries."""
    name, version = _wheel()
    if name != "cupy-cuda13x":
        raise NotBuilt(f"the emulated CUDA is one of CUDA 13: expected cupy-cuda13x, found {name}")
    files = [Path(__file__), *sorted(_SOURCES.iterdir()), _SOURCES.parent / "include" / "grid.h"]
    parts = [version, sys.version, *(file.read_text(encoding="utf-8") for file in files)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _build(work: Path) -> None:
    done = work / "done"
    done.mkdir()
    headers, sources, python = _downloaded(work)
    include = [f"-I{path}" for path in headers]
    ours = [str(file) for file in sorted(_SOURCES.glob("*.cpp")) if file.stem != "cublas"]
    cuda = done / "libcuda.so.1"
    runtime, generated = done / "runtime.so", work / "runtime.cpp"
    _run([str(python), "-c", _CYTHONIZE, str(generated)], cwd=sources)
    (work / "cuda_profiler_api.h").write_text(f"#pragma once\n#include <cuda_runtime_api.h>\n{_PROFILER}")
    backends = sources / "cupy_backends"
    own = [f"-I{path}" for path in (sysconfig.get_path("include"), work, sources, backends / "cuda")]
    _run(["g++", *_FLAGS, "-w", *own, *include, f"-I{backends}/cuda/api", str(generated), "-o", str(runtime)])
    stubs = _stubs(work / "cuda_stubs.cpp", runtime, "cuda", _names_in(ours))
    _run(["g++", *_FLAGS, "-Wall", *include, *ours, stubs, "-Wl,-soname,libcuda.so.1", "-ldl", "-o", str(cuda)])
    cublas = str(_SOURCES / "cublas.cpp")
    (wheel,) = Path(_package("cupy_backends"), "cuda", "libs").glob("cublas.*.so")
    stubs = _stubs(work / "cublas_stubs.cpp", wheel, "cublas", _names_in([cublas]))
    script = work / "versions"
    script.write_text("libcublas.so.13 { global: *; };\n")
    named = ["-Wl,-soname,libcublas.so.13", f"-Wl,--version-script={script}", "-o", str(done / "libcublas.so.13")]
    _run(["g++", *_FLAGS, "-Wall", *include, cublas, stubs, f"-L{done}", "-l:libcuda.so.1", *named])
    empty = work / "empty.cpp"
    empty.write_text("")  # CuPy loads it before cuBLAS, which needs it; ours does not
    lt = done / "libcublasLt.so.13"
    _run(["g++", *_FLAGS, str(empty), f"-Wl,-soname,{lt.name}", "-o", str(lt)])


def _downloaded(work: Path) -> tuple[list[Path], Path, Path]:
    """(folders of CUDA's headers, CuPy's sources, the Python with Cython)."""
    _, version = _wheel()
    venv.create(work / "builder", with_pip=True)
    python = work / "builder" / "bin" / "python"
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    try:
        _run([*pip, "install", *_BUILDERS, *_HEADERS["13"]])
        source = [f"cupy=={version}", "--no-deps", "--no-build-isolation", "--no-binary", ":all:", "-d", str(work)]
        # The stub makes no use of CUDA, which is not here.
        _run([*pip, "download", *source], env={**os.environ, "CUPY_INSTALL_USE_STUB": "1"})
    except subprocess.CalledProcessError as error:
        raise NotBuilt(f"CuPy's sources could not be downloaded: {error.stderr.strip()[-300:]}") from error
    (archive,) = work.glob("cupy-*.tar.gz")
    shutil.unpack_archive(archive, work, filter="data")
    (headers,) = (work / "builder").glob("lib/python*/site-packages/nvidia/cu13/include")
    return [headers], work / f"cupy-{version}", python


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def _names_in(files: list[str]) -> set[str]:
    return {name for file in files for name in re.findall(r"\b(cu\w+)\(", Path(file).read_text(encoding="utf-8"))}


def _stubs(file: Path, library: Path, prefix: str, ours: set[str]) -> str:
    """A file with a function for every other name that the library wants: nothing of gpulstm's calls it."""
    symbols = _run(["nm", "-D", "--undefined-only", str(library)])
    names = sorted(set(re.findall(rf"\bU ({prefix}\w+)", symbols)) - ours)
    lines = [
        f'int {name}() {{ fprintf(stderr, "emulated CUDA: {name} is not there\\n"); return 801; }}' for name in names
    ]
    file.write_text('#include <cstdio>\nextern "C" {\n' + "\n".join(lines) + "\n}\n")
    return str(file)


def _run(command: list[str], **options: object) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout

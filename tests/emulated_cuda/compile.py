"""Compiles CUDA text for the processor: g++ with the headers of include/, cached by everything that goes in.

The text is preprocessed first, so that kernels, their parameters and shared memory are read where no macro
hides them. What is left of CUDA is then rewritten and compiled to a library that raw.py loads.
"""

import ctypes
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

_INCLUDE = Path(__file__).with_name("include")
_FLAGS = ("-O1", "-fno-strict-aliasing", "-ffp-contract=off", "-fPIC", "-shared", "-fvisibility=hidden", "-w")
# Options of NVRTC that mean nothing here; any other is refused, as NVRTC would.
_IGNORED = ("-arch", "--gpu-architecture", "--ptxas-options", "-lineinfo", "--maxrregcount")
_KERNEL = re.compile(r"((?:extern\s+\"C\"|EMULATED_GLOBAL|EMULATED_BOUNDS\s*\([^)]*\)|\s)*)void\s+"
                     r"(EMULATED_BOUNDS\s*\([^)]*\)\s*)?(\w+)\s*\(([^)]*)\)\s*{")  # fmt: skip
_DYNAMIC = re.compile(r"extern\s+EMULATED_SHARED\s+([^;\[]*?)\b(\w+)\s*\[\s*\]\s*;")


class CompileException(Exception):
    """cupy.cuda.compiler.CompileException: the compiler's log is the message."""

    def __init__(self, msg: str, source: str, name: str, options: tuple[str, ...], backend: str = "nvrtc") -> None:
        self._msg, self.source, self.name, self.options, self.backend = msg, source, name, options, backend
        super().__init__()

    def __str__(self) -> str:
        return self._msg

    get_message = __str__


@dataclass(frozen=True)
class Kernel:
    """What the text says of one kernel, beside its parameters' types."""

    name: str
    parameters: list[str]  # names
    restricted: list[bool]  # declared __restrict__
    max_threads: int


def compiler() -> str | None:
    """The path of g++, or None."""
    return shutil.which("g++")


@functools.cache
def load(code: str, options: tuple[str, ...]) -> tuple[ctypes.PyDLL, dict[str, Kernel]]:
    """The library that ``code`` compiles to, and its kernels; raises CompileException with the log."""
    library = ctypes.PyDLL(str(build(code, options)))  # PyDLL keeps the GIL: launches take turns
    library.emulated_about.restype = ctypes.c_char_p
    return library, {about["name"]: Kernel(**about) for about in json.loads(library.emulated_about())}


def build(code: str, options: tuple[str, ...]) -> Path:
    """The library's path; compiles only what was never compiled before."""
    flags = _flags(code, options)
    library = _folder() / f"{_key(code, flags)}.so"
    if not library.exists():
        source = '#include "emulation.h"\n#line 1 "kernel.cu"\n' + code
        text = _rewritten(_run(["-E", f"-I{_INCLUDE}", *flags, "-x", "c++", "-"], source, options))
        with tempfile.NamedTemporaryFile(dir=_folder(), suffix=".part", delete=False) as part:
            pass
        try:
            _run([*_FLAGS, *flags, "-x", "c++-cpp-output", "-", "-o", part.name], text, options)
            Path(part.name).replace(library)  # at once: another process may compile the same
        finally:
            Path(part.name).unlink(missing_ok=True)
    return library


def _key(code: str, flags: list[str]) -> str:
    """A name for everything that goes into a library."""
    return hashlib.sha256("\0".join([code, *flags, *_FLAGS, _environment()]).encode()).hexdigest()[:32]


@functools.cache
def _environment() -> str:
    version = subprocess.run([compiler() or "g++", "--version"], capture_output=True, text=True).stdout
    files = [Path(__file__), *sorted(_INCLUDE.iterdir())]
    return version + "".join(file.read_text(encoding="utf-8") for file in files)


def _flags(code: str, options: tuple[str, ...]) -> list[str]:
    flags = ["-std=c++17"]
    for option in options:
        if option.startswith("-D") or option.lstrip("-").startswith("std="):
            flags.append("-" + option.lstrip("-"))
        elif not option.startswith(_IGNORED):
            raise CompileException(f"nvrtc: error: invalid value for --gpu-options ({option})", code, "", options)
    return flags


def _run(arguments: list[str], text: str, options: tuple[str, ...]) -> str:
    done = subprocess.run([compiler() or "g++", *arguments], input=text, capture_output=True, text=True)
    if done.returncode:
        raise CompileException(done.stderr, text, "kernel.cu", options)
    return done.stdout


def _rewritten(text: str) -> str:
    """Preprocessed text with CUDA's marks replaced, and an entry for every kernel."""
    kernels = []
    for before, bounds, name, parameters in _KERNEL.findall(text):
        if "EMULATED_GLOBAL" not in before:
            continue
        declared = [part for part in parameters.split(",") if part.strip()]
        limit = re.search(r"EMULATED_BOUNDS\s*\(\s*(\d+)", before + bounds)
        names = [re.findall(r"\w+", part)[-1] for part in declared]
        restricted = ["__restrict" in part for part in declared]
        kernels.append(Kernel(name, names, restricted, int(limit[1]) if limit else 1024))
    text = _DYNAMIC.sub(r"static \1* const \2 = (\1*)emulated::dynamic_shared;", text)
    text = text.replace("EMULATED_SHARED", 'static __attribute__((used, section("emulated_shared")))')
    text = re.sub(r"EMULATED_BOUNDS\s*\([^)]*\)", "", text).replace("EMULATED_GLOBAL", "")
    return text + "".join(_entry(kernel.name) for kernel in kernels) + _entries_of_the_module(kernels)


_EXPORTED = '\nextern "C" __attribute__((visibility("default")))'


def _entry(name: str) -> str:
    """What ctypes calls to launch a kernel and to learn its parameters' types."""
    return (
        f"{_EXPORTED} int emulated_launch_{name}(emulated::Launch* launch, void** args)"
        f" {{ return emulated::Entry<{name}>::launch(*launch, args); }}"
        f"{_EXPORTED} const char* emulated_parameters_{name}()"
        f" {{ return emulated::Entry<{name}>::parameters(); }}"
    )


def _entries_of_the_module(kernels: list[Kernel]) -> str:
    about = json.dumps([asdict(kernel) for kernel in kernels])
    return (
        f"{_EXPORTED} size_t emulated_static_shared() {{ return emulated::static_shared(); }}"
        f'{_EXPORTED} const char* emulated_about() {{ return R"about({about})about"; }}\n'
    )


@functools.cache
def _folder() -> Path:
    """The cache: a folder of this user's alone, since what lies there is loaded and run."""
    folder = Path(tempfile.gettempdir()) / f"gpulstm-emulated-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o022:
        raise PermissionError(f"{folder}: want a folder only this user can write to")
    return folder

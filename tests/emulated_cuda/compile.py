"""Compiles CUDA text for the processor: g++ with the headers of include/, cached by everything that goes in.

The text is preprocessed first, so that kernels, their parameters and shared memory are read where no macro
hides them. What is left of CUDA is then rewritten and compiled to a library that libraries/modules.cpp loads.
"""

import functools
import hashlib
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .folder import compiler, folder, fused

_INCLUDE = Path(__file__).with_name("include")
# NVRTC joins a product and a sum into one operation, and so does g++ here. Calls of these functions go to harsh.cpp.
_FUNCTIONS = "exp exp2 exp10 expm1 log log2 log10 log1p tanh sinh cosh sin cos tan pow erf erfc"
_WRAPPED = [f"-Wl,--wrap={name}{kind}" for name in _FUNCTIONS.split() for kind in ("", "f")]
_FLAGS = ("-O1", "-fno-strict-aliasing", "-fno-builtin", "-ffp-contract=fast", "-fPIC", "-shared",
          "-fvisibility=hidden", "-w")  # fmt: skip
# Options of NVRTC that mean nothing here; any other is refused, as NVRTC would.
_IGNORED = ("-arch", "--gpu-architecture", "--ptxas-options", "-lineinfo", "--maxrregcount", "-ftz=true")
_KERNEL = re.compile(r"((?:extern\s+\"C\"|EMULATED_GLOBAL|EMULATED_BOUNDS\s*\([^)]*\)|\s)*)void\s+"
                     r"(EMULATED_BOUNDS\s*\([^)]*\)\s*)?(\w+)\s*\(([^)]*)\)\s*{")  # fmt: skip
_DYNAMIC = re.compile(r"extern\s+EMULATED_SHARED\s+([^;\[]*?)\b(\w+)\s*\[\s*\]\s*;")


class CompileError(Exception):
    """The compiler's log."""


@dataclass(frozen=True)
class Kernel:
    """What the text says of one kernel, beside its parameters' types."""

    name: str
    parameters: list[str]  # names
    max_threads: int


def build(code: str, options: tuple[str, ...]) -> Path:
    """The library of ``code``; compiles only what was never compiled before. Raises CompileError."""
    flags = _flags(options)
    library = folder() / f"{_key(code, flags)}.so"
    if not library.exists():
        source = '#include "emulation.h"\n#line 1 "kernel.cu"\n' + code
        text = _rewritten(_run(["-E", f"-I{_INCLUDE}", *flags, "-x", "c++", "-"], source))
        with tempfile.NamedTemporaryFile(dir=folder(), suffix=".part", delete=False) as part:
            pass
        try:
            _run([*_FLAGS, *fused(), *flags, "-x", "c++-cpp-output", "-", *_WRAPPED, "-o", part.name], text)
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
    files = [Path(__file__), *sorted(_INCLUDE.rglob("*.*h"))]
    return version + "".join(file.read_text(encoding="utf-8") for file in files)


def _flags(options: tuple[str, ...]) -> list[str]:
    flags = ["-std=c++17"]
    for option in options:
        if option.startswith(("-D", "-I")) or option.lstrip("-").startswith("std="):
            flags.append("-" + option.lstrip("-"))
        elif not option.startswith(_IGNORED):
            raise CompileError(f"nvrtc: error: invalid value for --gpu-options ({option})")
    return flags


def _run(arguments: list[str], text: str) -> str:
    done = subprocess.run([compiler() or "g++", *arguments], input=text, capture_output=True, text=True)
    if done.returncode:
        raise CompileError(done.stderr)
    return done.stdout


def _rewritten(text: str) -> str:
    """Preprocessed text with CUDA's marks replaced, and an entry for every kernel."""
    kernels = []
    for before, bounds, name, parameters in _KERNEL.findall(text):
        if "EMULATED_GLOBAL" in before:
            limit = re.search(r"EMULATED_BOUNDS\s*\(\s*(\d+)", before + bounds)
            kernels.append(Kernel(name, _names(parameters), int(limit[1]) if limit else 1024))
    text = _DYNAMIC.sub(r"static \1* const \2 = (\1*)emulated::dynamic_shared;", text)
    text = text.replace("EMULATED_SHARED", 'static __attribute__((used, section("emulated_shared")))')
    text = re.sub(r"EMULATED_BOUNDS\s*\([^)]*\)", "", text).replace("EMULATED_GLOBAL", "")
    return text + "".join(_entry(kernel) for kernel in kernels) + _MODULE


def _names(parameters: str) -> list[str]:
    """The parameters' names; commas of templates divide nothing."""
    flat = parameters
    while "<" in flat:
        flat, found = re.subn(r"<[^<>]*>", "", flat)
        if not found:
            break
    return [re.findall(r"\w+", part)[-1] for part in flat.split(",") if part.strip()]


_EXPORTED = '\nextern "C" __attribute__((visibility("default")))'
_MODULE = f"{_EXPORTED} size_t emulated_static_shared() {{ return emulated::static_shared(); }}\n"


def _entry(kernel: Kernel) -> str:
    """What the emulated driver calls to launch a kernel and to learn its parameters."""
    names = "".join(f'"{name}", ' for name in kernel.parameters)
    return (
        f"{_EXPORTED} int emulated_launch_{kernel.name}(emulated::Launch* launch, void** args)"
        f" {{ return emulated::Entry<{kernel.name}>::launch(*launch, args); }}"
        f"{_EXPORTED} const emulated::Parameter* emulated_parameters_{kernel.name}()"
        f" {{ static const char* const names[] = {{{names}nullptr}};"
        f" return emulated::Entry<{kernel.name}>::parameters(names); }}"
        f"{_EXPORTED} int emulated_most_threads_{kernel.name}() {{ return {kernel.max_threads}; }}"
    )

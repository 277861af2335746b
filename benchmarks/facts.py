"""Records where a figure comes from: the machine, the versions of all libraries involved, and the commit."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGES = ("numpy", "cupy-cuda13x", "cupy-cuda12x", "torch", "onnxruntime", "ml_dtypes", "safetensors")
CODE = ("gpulstm", "kernels", "benchmarks", ":!benchmarks/results")


def facts(program: str, given: Sequence[str], commit: str = "") -> dict[str, Any]:
    """What every row of a result file has in common, to stand once at its head.

    The command is that given, but of files only the names: where they lay is nobody's business.
    """
    return {
        "command": " ".join(["python -m", program, *(Path(word).name if "/" in word else word for word in given)]),
        "machine": machine(),
        "load_before": _load(),
        "versions": versions(),
        "commit": commit or git_commit(),
    }


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "processor": _processor(),
        "cores": cores(),
        "memory_gib": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _load() -> float | None:
    """Processes that wanted a core in the last minute, on average; None where the system does not say."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def _processor() -> str:
    """The model's name; where the system has none, the architecture."""
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        facts = dict(line.split(":", 1) for line in listing.read_text().splitlines() if ":" in line)
        names = {key.strip(): value.strip() for key, value in facts.items()}
        if "model name" in names:
            family = f"family {names.get('cpu family', '?')} model {names.get('model', '?')}"
            return f"{names['model name']} ({family})"
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """The versions of what is installed; looking them up imports nothing."""
    from gpulstm import __version__

    found = {"python": platform.python_version(), "gpulstm": __version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    found["blas"] = _blas()
    return found


def _blas() -> str:
    """NumPy's BLAS, and what the environment tells it: OPENBLAS_CORETYPE alone can cost a third of the speed."""
    import numpy as np

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    told = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("OPENBLAS_")]
    return " ".join([blas["name"], blas["version"], *told])


def git_commit() -> str:
    """The commit, with "-dirty" where the code differs from it; "unknown" where the checkout has no
    history."""
    head = _git("rev-parse", "HEAD")
    if not head:
        return "unknown"
    return f"{head}-dirty" if _git("status", "--porcelain", "--", *CODE) else head


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except OSError:  # no git on this machine
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def gpu(backend: Any) -> dict[str, Any]:
    """The GPU of a CuPy backend: its name, its size, and the CUDA versions in use."""
    runtime = backend.xp.cuda.runtime
    properties = runtime.getDeviceProperties(backend.index)
    return {
        "gpu": backend.gpu,
        "compute_capability": f"{properties['major']}.{properties['minor']}",
        "multiprocessors": backend.device.attributes["MultiProcessorCount"],
        "gpu_memory_gib": round(backend.memory()[1] / 2**30, 1),
        "cuda_runtime": runtime.runtimeGetVersion(),
        "cuda_driver": runtime.driverGetVersion(),
    }

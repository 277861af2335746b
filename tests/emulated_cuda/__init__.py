"""The real CuPy on a emulated CUDA, for machines without a GPU.

CuPy's wheel runs as it is, but for its extension for the CUDA runtime, which is built again (build.py). Below it stand
libraries of ours: libraries/ has the runtime, the driver and cuBLAS, whose device memory is host memory, and
compile.py turns the text of every kernel, CuPy's own too, into a library that g++ compiles and our driver runs.

    build.py        builds the libraries, once for a version of CuPy
    compile.py      CUDA text through g++, with include/ for CUDA's words
    cupys_side.py   puts CuPy on it: its imports, its compiler, its sorting
    control.py      what tests set (devices, limits) and read (launches, copies, waits)
    folder.py       where what was compiled is kept
"""

from .build import NotBuilt
from .control import Counts, counted, gpu, pending_fault, settings
from .cupys_side import prepare, why_not

__all__ = ["Counts", "NotBuilt", "counted", "gpu", "pending_fault", "prepare", "settings", "why_not"]

"""Compiles gpulstm's kernels before anything is timed, as a part of benchmarks.gpu; CuPy keeps them on disk.

python -m benchmarks.warm --out FILE
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.part import Part, main
from gpulstm import info
from gpulstm.launch import REALS


def work(part: Part, backend: Any) -> None:
    """Every kernel for every storage type, or with --quick for one, on all cores."""
    texts = [(text, real) for text in info.kernel_texts() for real in REALS[: 1 if part.quick else None]]
    start = time.monotonic()

    def compile_one(text: Any, real: str) -> str:
        with backend:
            try:
                info.compile_on_device(backend.xp, text, real)
            except Exception as error:  # a compiler's complaint comes as one of several exceptions
                return f"{text.title} {real}: {type(error).__name__}: {error}"
        return ""

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for failure in pool.map(compile_one, *zip(*texts, strict=True)):
            if failure:
                part.fail(failure)
    part.note(f"{len(texts)} kernels compiled, or found on disk, in {time.monotonic() - start:.1f} s")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], "warm", work))

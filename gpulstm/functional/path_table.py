"""The table of paths measured on a GPU by ``python -m benchmarks.tune``, which "auto" follows there.

A table is a JSON file in the cache folder, named after the GPU's model; the versions of CuPy and CUDA do not matter. It
holds only numbers and names and runs no code. A table that is broken, of another format or of another GPU is ignored,
and ``gl.explain()`` shows the reason.

A case applies to sequences of the same cell, dtype and precision whose batch size and hidden size are within a factor
of two of its own; the nearest case counts. It does not apply to much shorter sequences, where a path's fixed costs are
a larger part.
"""

import functools
import json
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from gpulstm.backend import CupyBackend
from gpulstm.cells import Cell
from gpulstm.errors import FormatError
from gpulstm.library_cache import cache_folder
from gpulstm.precision import IEEE, current

FORMAT = 1
PATHS = ("graph", "fused", "persistent")  # those that are measured
_LARGEST = 1 << 22  # bytes of a file, some 20,000 cases
_FACTOR = 2  # between the sizes of a case and of the sequences that it applies to
_WORTH = 0.95  # the largest share of graph's time that counts as faster; a smaller gain is noise


class Case(NamedTuple):
    """One measured sequence: the microseconds per step of each path, forward and backward together."""

    cell: str
    dtype: str
    precision: str  # gl.precision for float32, "ieee" for other dtypes
    T: int
    B: int
    H: int
    us_per_step: dict[str, float]


class Answer(NamedTuple):
    """The paths that are faster than "graph", the fastest first, and what the table says in words, or ""."""

    paths: tuple[str, ...]
    words: str


def file_of(gpu: str, folder: Path | None = None) -> Path:
    """The file of the table for a GPU of that name; in the cache folder unless another folder is given."""
    return (folder or cache_folder()) / f"paths-{re.sub('[^a-z0-9]+', '-', gpu.lower()).strip('-')}.json"


def table_of(backend: CupyBackend) -> "Table":
    """The table of a GPU, read once and kept with its backend."""
    if backend.path_table is None:
        try:
            file = file_of(backend.gpu)
            backend.path_table = Table(read(file, backend.gpu) if file.exists() else ())
        except (FormatError, OSError, RuntimeError) as error:  # RuntimeError if the cache has no home directory
            backend.path_table = Table((), f"the table of measured paths is ignored: {error}")
    return backend.path_table


class Table:
    """The cases of one GPU; ``fault`` says why the table's file could not be used."""

    def __init__(self, cases: Iterable[Case], fault: str = "") -> None:
        self._cases: dict[tuple[str, ...], list[Case]] = {}
        for case in cases:
            self._cases.setdefault(case[:3], []).append(case)
        self._none = Answer((), fault)
        self._near = functools.lru_cache(4096)(self._nearest)

    def answer(self, cell: Cell, dtype: Any, T: int, B: int, H: int) -> Answer:
        """The table's answer for B sequences of T steps and H units; a user's own cell is not in the table."""
        if not self._cases:
            return self._none
        if cell.kernel is not None and cell.kernel.own:
            return _SILENT
        return self._near(cell.name, dtype, current(), T, B, H)

    def _nearest(self, cell: str, dtype: Any, precision: str, T: int, B: int, H: int) -> Answer:
        """The answer of the nearest case; of several equally near ones, that with the longest sequences."""

        def distance(case: Case) -> tuple[float, int]:
            return math.hypot(math.log(B / case.B), math.log(H / case.H)), -case.T

        kind = (dtype.name, precision if dtype.name == "float32" else IEEE)
        cases = self._cases.get((cell, *kind), ())
        near = [c for c in cases if _within(B, c.B) and _within(H, c.H) and c.T <= _FACTOR * T]
        if not near:
            return _SILENT
        case = min(near, key=distance)
        times = dict(sorted(case.us_per_step.items(), key=lambda item: item[1]))
        said = ", ".join(f"{path} {us:.3g}" for path, us in times.items())
        words = f"measured on this GPU at B={case.B} H={case.H}, µs a step: {said}"
        paths = tuple(path for path, us in times.items() if us < _WORTH * times["graph"])
        return Answer(paths, words)


_SILENT = Answer((), "the table of measured paths has no case near this one")


def _within(size: int, other: int) -> bool:
    return size <= _FACTOR * other and other <= _FACTOR * size


# -- the file ----------------------------------------
def contents(gpu: str, cases: Iterable[Case]) -> dict[str, Any]:
    """The contents of a table's file; a reader ignores further fields."""
    return {"format": FORMAT, "gpu": gpu, "rows": [case._asdict() for case in cases]}


def read(file: Path, gpu: str) -> list[Case]:
    """The cases of a file. Raises FormatError, naming what is wrong with it, or OSError."""
    if not file.is_file():
        raise FormatError(f"{file} is not a file")
    with file.open("rb") as opened:
        text = opened.read(_LARGEST + 1)
    if len(text) > _LARGEST:
        raise FormatError(f"{file}: expected at most {_LARGEST} bytes")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{file} is not JSON: {error}") from None
    if not isinstance(record, dict) or not isinstance(record.get("rows"), list):
        raise FormatError(f"{file}: expected a table with rows, as written by benchmarks.tune")
    if record.get("format") != FORMAT:
        raise FormatError(f"{file}: expected format {FORMAT}, got {record.get('format')!r:.40}; run benchmarks.tune")
    if record.get("gpu") != gpu:
        raise FormatError(f"{file}: expected a table of {gpu}, got one of {record.get('gpu')!r:.80}")
    return [_case(row, f"{file}: row {number}") for number, row in enumerate(record["rows"])]


def _is_name(value: Any) -> bool:
    return isinstance(value, str)


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value < 1 << 31


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < 1e12


def _are_times(value: Any) -> bool:
    if not isinstance(value, dict) or "graph" not in value:
        return False
    return set(value) <= set(PATHS) and all(map(_is_time, value.values()))


_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "cell": ("a name", _is_name),
    "dtype": ("a name", _is_name),
    "precision": ("a name", _is_name),
    **dict.fromkeys(("T", "B", "H"), ("a whole number above 0", _is_size)),
    "us_per_step": (f"a time above 0 for graph, and optionally for {', '.join(PATHS[1:])}", _are_times),
}


def _case(row: Any, where: str) -> Case:
    if not isinstance(row, dict):
        raise FormatError(f"{where}: expected an object, got {row!r:.40}")
    for name, (want, fits) in _FIELDS.items():
        if not fits(row.get(name)):
            raise FormatError(f"{where}: {name}: expected {want}, got {row.get(name)!r:.40}")
    return Case(*(row[name] for name in _FIELDS))

"""The times to compare with the cost model's predictions: those published for cuDNN, and those of benchmarks.gpu."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.cost_counts import PASSES
from benchmarks.cost_facts import Fact, estimated, published
from benchmarks.problem import Shape

_PLOT = "FlashRNN's plot, one layer on an H100, the large products included"
# Shape, cell, precision -> microseconds a step of cuDNN forward, and forward and backward together.
CUDNN = {
    (Shape(16, 1024, 768, 768), "lstm", "float16"): (
        published(2010 / 1024, "µs", _PLOT),
        published(5190 / 1024, "µs", _PLOT),
    ),
}
# Of other shapes.
ELSEWHERE = {
    "cuDNN's standard algorithm in a CUDA graph, B 256, H 128, bfloat16, forward": estimated(3.4, "µs", "an H100"),
    "cuDNN eager, H 129 to 256, float32, forward, backward and optimiser": estimated(19, "µs", "16 to 22, an A100"),
}
# The model's name of a path that the library reports by another; its persistent kernel has a barrier.
PATHS = {"kernel": "step", "persistent": "barrier"}
MODES = ("inference", "training")


@dataclass(frozen=True)
class Key:
    """Which sequence was measured, on which GPU's name."""

    gpu: str
    cell: str
    precision: str
    shape: Shape


class Measured:
    """The rows of the result files of benchmarks.gpu, by sequence, implementation and path."""

    def __init__(self) -> None:
        self._times: dict[Key, dict[tuple[str, str], dict[str, float]]] = {}

    @classmethod
    def read(cls, folder: Path) -> "Measured":
        """Of every ``gpu*.json`` in the folder; raises ValueError, naming the file, for one that is none of its."""
        found = cls()
        for file in sorted(folder.glob("gpu*.json")):
            try:
                record = harness.read(file)
                found.add(record["machine"]["gpu"], record["rows"])
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{file}: expected a result file of benchmarks.gpu, got {error!r}") from error
        return found

    def add(self, gpu: str, rows: Iterable[dict[str, Any]]) -> None:
        """Take the rows that are measured sequences; the other parts' rows are something else."""
        for row in rows:
            if row.get("part") != "cudnn" or row.get("us_per_step") is None:
                continue
            precision = "tf32" if row["tf32"] else row["dtype"]
            key = Key(gpu, row["cell"], precision, Shape.of_row(row))
            way = row["implementation"], PATHS.get(row["path"], row["path"])
            self._times.setdefault(key, {}).setdefault(way, {})[row["mode"]] = float(row["us_per_step"])

    def times(self, gpu: str, cell: str, precision: str, shape: Shape, path: str) -> dict[str, float]:
        """{pass: microseconds a step} of gpulstm on the path; backward is training less inference."""
        return self._passes(gpu, cell, precision, shape, lambda way: way[0].startswith("gpulstm") and way[1] == path)

    def cudnn(self, gpu: str, cell: str, precision: str, shape: Shape) -> dict[str, float]:
        """The same of cuDNN in a CUDA graph."""
        return self._passes(gpu, cell, precision, shape, lambda way: way[0] == "torch graph")

    def _passes(self, gpu: str, cell: str, precision: str, shape: Shape, wanted: Any) -> dict[str, float]:
        passes = {}
        for key, ways in self._times.items():
            same = (key.cell, key.precision, key.shape) == (cell, precision, shape)
            if not same or not re.search(rf"\b{gpu}\b", key.gpu):  # H200, and no GH200
                continue
            for modes in (modes for way, modes in ways.items() if wanted(way)):
                if "inference" in modes:
                    passes["forward"] = modes["inference"]
                if "inference" in modes and "training" in modes:
                    passes["backward"] = modes["training"] - modes["inference"]
        return passes


def cudnn_published(cell: str, precision: str, shape: Shape) -> dict[str, Fact]:
    """{pass: fact} of cuDNN's published time of this very sequence; backward is the difference of two."""
    both = CUDNN.get((shape, cell, precision))
    if both is None:
        return {}
    forward, training = both
    difference = Fact(training.value - forward.value, training.unit, training.mark, training.source)
    return dict(zip(PASSES, (forward, difference), strict=True))

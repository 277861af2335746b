"""Measures, as one of several processes, all-reduces or the training of the text lab.

    mpiexec -n 2 python -m benchmarks.parallel_worker '{"do": "sums", "sizes": [4096], "takes": 5}'

parallel.py starts it; it is not meant for users. Rank 0 prints the result as a line of JSON, the last line of its
output.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm import parallel
from gpulstm.labs import text as lab

WARM = 3  # all-reduces that do not count: the first ones find memory and map it


def sums(sizes: list[int], takes: int) -> list[list[float]]:
    """For each size in bytes, the milliseconds of ``takes`` all-reduces of float32, begun together."""
    group = parallel.group()
    every = []
    for size in sizes:
        array, samples = np.full(size // 4, 0, np.float32), []
        for _ in range(WARM + takes):
            group.sum([0])
            start = time.perf_counter()
            group.begin_sum(array)()
            samples.append(1e3 * (time.perf_counter() - start))
        every.append(samples[WARM:])
    return every


def train(settings: dict[str, Any], characters: int) -> dict[str, float]:
    """Train the text lab on the beginning of its own text: {tokens_per_second, gradient_bytes}.

    The speed is the median of all records but the first, in whose steps memory is found.
    """
    with tempfile.TemporaryDirectory(prefix="gpulstm-benchmark-") as folder:
        log = Path(parallel.group().broadcast(folder)) / "log.jsonl"
        text = lab.default_corpus()[:characters]
        model = lab.train(text, lab.Settings(**settings), device="cpu", log=log, progress=False)
        records = parallel.group().on_root(lambda: log.read_text(encoding="utf-8")).splitlines()
    speed = statistics.median(json.loads(record)["tokens_per_second"] for record in records[1:])
    return {"tokens_per_second": speed, "gradient_bytes": sum(p.data.nbytes for p in model.parameters())}


def main() -> None:
    request = json.loads(sys.argv[1])
    group = parallel.init()
    result = {"sums": sums, "train": train}[request.pop("do")](**request)
    if group.is_root:
        print(json.dumps(result))


if __name__ == "__main__":
    main()

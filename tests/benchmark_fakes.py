"""What several tests of the benchmarks use."""

import json
from pathlib import Path

import numpy as np

from benchmarks import harness, peers, team, worker
from benchmarks.comparison import Comparison
from benchmarks.problem import MODES, Shape

ROOT = Path(__file__).parents[1]
SHAPE = Shape(3, 6, 5, 4)


def sequence_row(
    name: str, ms: float, gpu: float | None = None, mib: int = 1, shape: Shape = SHAPE, **changes
) -> dict:  # fmt: skip
    loaded = {"path": "way", "error": 1e-7, "memory": mib * 2**20, "threads": 2}
    samples = {"wall": [ms] * 3, "gpu": [gpu] * 3 if gpu else []}
    return harness.sequence_row(name, shape, "training", "cuda", "tf32", loaded, samples) | changes


def results_of(peer: peers.Peer, mode: str, names: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    return dict(zip(names or MODES[mode], peer.host(getattr(peer, mode)()), strict=True))


class HereTeam:
    """A team whose workers answer in this process, so that what they do can be exchanged."""

    restless = 0

    def __init__(self) -> None:
        self._workers: dict = {}

    def worker(self, name: str, tf32: bool = False) -> "HereTeam.Worker":
        return self._workers.setdefault((name, tf32), HereTeam.Worker())

    def dismiss(self) -> None:
        self._workers.clear()

    def end(self, name: str, tf32: bool = False) -> None:
        del self._workers[name, tf32]

    def __enter__(self) -> "HereTeam":
        return self

    def __exit__(self, *exception: object) -> None:
        self.dismiss()

    class Worker:
        def __init__(self) -> None:
            self.service = worker.Service()
            self.asked: list[str] = []

        def ask(self, do: str, **arguments):
            self.asked.append(do)
            return team.result(do, json.loads(json.dumps(self.service.answer({"do": do, **arguments}))))


def comparison(device: str = "cpu", names: tuple = ("gpulstm", "numpy"), **changes) -> Comparison:
    return Comparison(device, names, rounds=2, seconds=0.001, **changes)

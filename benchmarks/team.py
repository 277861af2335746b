"""Starts a process for every implementation and lets them take turns, so that all run under the same conditions.

Why processes: NumPy's OpenBLAS and torch each have a thread pool whose threads spin for a while after every task. In
one process on few cores, the two pools take up to half of each other's time. Why turns: the speed of a machine drifts
with other work and with its clocks, so a ratio of two runs minutes apart measures the drift. Therefore each
implementation has its own process, and they run short blocks in turn. A block begins only when the process before it is
asleep (worker.py).
"""

import json
import os
import subprocess
import sys
import threading
from typing import Any

from benchmarks.facts import ROOT

# Every library that the workers use reads its number of threads from one of these.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
PATIENCE = 300  # seconds that one request may take


class Missing(Exception):
    """The implementation cannot run here: a library or a GPU is not there."""


class WorkerFailed(Exception):
    """The implementation raised, died, or took too long."""


def result(do: str, answer: dict[str, Any]) -> Any:
    """What a worker's answer to the request ``do`` holds; raises Missing or WorkerFailed in its place."""
    if "missing" in answer:
        raise Missing(answer["missing"])
    if "error" in answer:
        raise WorkerFailed(f"{do}: {answer['error']}")
    return answer["ok"]


class Worker:
    """One process. ``ask`` sends a request of worker.Service and waits for its answer."""

    def __init__(self, threads: int, tf32: bool = False) -> None:
        environment = {**os.environ, **dict.fromkeys(THREADS, str(threads)), "CUPY_TF32": str(int(tf32))}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.restless = 0  # answers after which the process did not fall asleep

    def ask(self, do: str, patience: float = PATIENCE, **arguments: Any) -> Any:
        """The result of a request. Raises Missing, or WorkerFailed: then the process may be gone."""
        assert self.process.stdin is not None and self.process.stdout is not None
        alarm = threading.Timer(patience, self.process.kill)
        alarm.start()
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except OSError:  # the process died before it read the request
            line = ""
        finally:
            alarm.cancel()
        if not line:
            code = self.process.wait()
            raise WorkerFailed(f"{do}: the process ended with {code}, within {patience:.0f} s that it had")
        answer = json.loads(line)
        self.restless += not answer["asleep"]
        return result(do, answer)

    def close(self) -> None:
        """End the process."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Team:
    """Workers by name, started when they are first asked for. A context manager that ends them all."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.restless = 0  # answers after which a process did not fall asleep, of those dismissed
        self._workers: dict[tuple[str, bool], Worker] = {}

    def __enter__(self) -> "Team":
        return self

    def __exit__(self, *exception: object) -> None:
        self.dismiss()

    def worker(self, name: str, tf32: bool = False) -> Worker:
        """The process of that name, a new one where it has ended; ``tf32`` is set for a whole process."""
        key = name, tf32
        if key in self._workers and self._workers[key].process.poll() is not None:
            self.end(*key)
        if key not in self._workers:
            self._workers[key] = Worker(self.threads, tf32)
        return self._workers[key]

    def dismiss(self) -> None:
        """End all processes."""
        for key in list(self._workers):
            self.end(*key)

    def end(self, name: str, tf32: bool = False) -> None:
        """End one process: what has failed may be in no state to go on."""
        worker = self._workers.pop((name, tf32))
        worker.close()
        self.restless += worker.restless


def take_turns(workers: dict[str, Worker], rounds: int, seconds: float) -> dict[str, dict[str, list[float]]]:
    """Give every worker ``rounds`` blocks of so many seconds, in turn: {name: {"wall": [ms], "gpu": [ms]}}.

    A worker that fails is left out of the answer from then on, its reason under "failed".
    """
    samples: dict[str, dict[str, Any]] = {name: {"wall": [], "gpu": []} for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            if "failed" in samples[name]:
                continue
            try:
                block = worker.ask("block", seconds=seconds)
            except WorkerFailed as error:
                samples[name]["failed"] = str(error)
                continue
            for clock in ("wall", "gpu"):
                samples[name][clock] += block[clock] or []
    return samples

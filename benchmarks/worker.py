"""The process of one implementation: it answers requests over a pipe, one line of JSON each way.

    python -m benchmarks.worker         started by team.py; not meant for users

Its answers are ``{"ok": ...}``, ``{"missing": reason}`` if a library or a GPU is not available, and ``{"error": ...}``.
Thread pools spin for a while after their last task, which would take time from the process whose turn is next. So an
answer waits until this process uses no more processor time, and the process then sleeps.
"""

import json
import os
import sys
import time
import traceback
from typing import Any

import numpy as np

import gpulstm as gl
from benchmarks import floor, memory, peers
from benchmarks.cell_problem import CellProblem
from benchmarks.models import MODELS, TASKS
from benchmarks.per_gate import PerGate
from benchmarks.problem import Problem, Shape, disagreement

TINY = Shape(2, 2, 8, 8)
CALLS_FOR_MEMORY = 3  # a step that keeps something for the next shows by the third
QUIET = 0.05  # share of one core under which a process counts as asleep
SLEEP = 0.005  # seconds between calls that find the threads asleep
SLEEPS = 100


class Service:
    """What a worker can be asked to do; one method a request."""

    def __init__(self) -> None:
        self.peer: Any = None  # a peers.Peer, or a model
        self.mode = ""

    def reference(self, shape: str, file: str, device: str = "cpu", cell: str = "lstm") -> None:
        """Compute the sequence in float64 and leave all its results in a file."""
        problem = _problem(Shape.parse(shape), cell)
        peer = (PerGate if cell == "lstm" else peers.find("torch", cell))(problem, device, "float64")
        results = peer.host(peer.training())
        np.savez(file, **dict(zip(problem.names("training"), results, strict=True)))

    def load(
        self, peer: str, shape: str, mode: str, device: str, precision: str, reference: str, cell: str = "lstm"
    ) -> dict[str, Any]:  # fmt: skip
        """Make an implementation ready: {path, note, error, worst, memory (bytes)}.

        ``error`` is that of its last call against the reference, ``memory`` the most that three calls used
        beside the library, the inputs and the parameters.
        """
        kind = peers.find(peer, cell)
        self.peer, self.mode = None, mode  # first, so that what the last one held is given back
        warm = kind(_problem(TINY, cell), device, precision)
        getattr(warm, mode)()
        del warm
        problem = _problem(Shape.parse(shape), cell)
        self.peer = kind(problem, device, precision)
        results, used = self._measure_memory()  # before anything else: what was computed once leaves memory behind
        self.peer.learn_path()
        names = problem.names(mode)
        host = dict(zip(names, self.peer.host(results), strict=True))
        with np.load(reference) as wanted:
            error, worst = disagreement(host, wanted, names)
        self.peer.timed()
        return {
            "path": self.peer.path,
            "note": self.peer.note,
            "error": error,
            "worst": worst,
            "memory": used,
            "threads": _threads(),
        }

    def load_model(self, name: str, task: str, losses: int) -> list[float]:
        """Make a whole model ready (models.py); the losses of its first steps without dropout."""
        kind, found = MODELS[name], TASKS[task]
        first = kind(found, 0.0).losses(losses)
        self.peer, self.mode = kind(found, found.dropout), "step"
        self.peer.step()
        return first

    def floor(self, shape: str, mode: str, precision: str, cell: str = "lstm") -> dict[str, Any]:
        """What the floor of the sequence is made from (floor.py)."""
        problem = _problem(Shape.parse(shape), cell)
        return floor.measure(problem.shape, problem.matrices(), mode, precision, _threads())

    def _measure_memory(self) -> tuple[tuple, int]:
        on_gpu = self.peer.gpu_event() is not None
        if on_gpu:
            self.peer.free_device_memory()
        memory.forget()
        before = self.peer.device_memory() if on_gpu else memory.in_use()
        results: tuple = ()
        for _ in range(CALLS_FOR_MEMORY):
            del results
            results = getattr(self.peer, self.mode)()
        after = self.peer.device_memory() if on_gpu else memory.most()
        return results, max(0, after - before)

    def block(self, seconds: float, least: int = 1) -> dict[str, list[float] | None]:
        """Call for so many seconds, and at least so often: {wall, gpu} in ms.

        The first call wakes threads and fills caches and does not count, unless it is longer than the block:
        then that hardly matters to it.
        """
        samples = [self._timed()]
        if samples[0][0] < 1e3 * seconds:
            samples.clear()
        end = time.perf_counter() + seconds
        while len(samples) < least or time.perf_counter() < end:
            samples.append(self._timed())
        wall, gpu = zip(*samples, strict=True)
        return {"wall": list(wall), "gpu": None if gpu[0] is None else list(gpu)}

    def after_sleep(self) -> float:
        """The 90th percentile of calls that each follow a sleep, over their median."""
        samples = []
        for _ in range(SLEEPS):
            time.sleep(SLEEP)
            samples.append(self._timed()[0])
        p50, p90 = np.percentile(samples, (50, 90))
        return float(p90 / p50)

    def _timed(self) -> tuple[float, float | None]:
        """Milliseconds of one call: until its work has ended, and of the GPU."""
        start = time.perf_counter()
        first = self.peer.gpu_event()
        getattr(self.peer, self.mode)()
        gpu = None if first is None else self.peer.elapsed(first, self.peer.gpu_event())
        return 1e3 * (time.perf_counter() - start), gpu

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request, ``{"do": name, ...arguments}``."""
        try:
            return {"ok": getattr(self, request.pop("do"))(**request)}
        except ImportError as error:
            return {"missing": str(error)}
        except Exception as error:  # whatever it is, the process that asked decides what it means
            return {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}


def _threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


def _problem(shape: Shape, cell: str) -> Any:
    return Problem.of(shape) if cell == "lstm" else CellProblem(shape, cell)


def fall_asleep(limit: float = 3.0) -> bool:
    """Wait until this process uses no processor time; False when it still does after ``limit`` seconds."""
    end = time.perf_counter() + limit
    while time.perf_counter() < end:
        used, since = time.process_time(), time.perf_counter()
        time.sleep(0.01)
        if time.process_time() - used < QUIET * (time.perf_counter() - since):
            return True
    return False


def main() -> None:
    # The answers' pipe is kept apart, so that a library that prints does no harm.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    service = Service()
    # What team.py tells CuPy's products by the environment holds for gpulstm's too.
    with gl.precision("tf32" if os.environ.get("CUPY_TF32") == "1" else "ieee"):
        for line in sys.stdin:
            answer = service.answer(json.loads(line))
            answer["asleep"] = fall_asleep()
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()

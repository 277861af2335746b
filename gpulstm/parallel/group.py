"""A group of processes that train one model together, and what they say to one another, over MPI.

No call here waits for ever: a process that does not come within the group's timeout is named, and all are ended.
"""

import atexit
import os
import pickle
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

import numpy as np

from gpulstm.backend import backend_of
from gpulstm.errors import ProcessError
from gpulstm.parallel import nccl

Value = TypeVar("Value")

TIMEOUT = 600.0  # seconds
_SPIN = 2e-3  # seconds in which a wait looks again at once: a sum goes on only while one looks
_PAUSE = 1e-3  # the longest sleep between two looks after that, in seconds
_let_others: Callable[[], None] = getattr(os, "sched_yield", lambda: time.sleep(0))  # another may need this core
_GRACE = 3.0  # seconds in which the others can say that they wait too
_ASK, _HERE, _LEFT = 1, 2, 3  # tags: "do you wait too?", "yes", "I have ended"


class Group:
    """``size`` processes, of which this one is number ``rank``; ``comm`` is an mpi4py communicator, None for one alone.

    ``timeout`` is how long, in seconds, they wait for one that does not come.
    """

    def __init__(self, comm: Any = None) -> None:
        self.rank: int = 0 if comm is None else comm.Get_rank()
        self.size: int = 1 if comm is None else comm.Get_size()
        self.timeout, self.machine, self._comm = TIMEOUT, socket.gethostname(), comm
        self._names = [f"{self.machine}, process {os.getpid()}"]
        self._left: set[int] = set()  # the ranks that have ended
        self._nccl: dict[str, Any] = {}  # the connection of each device; None where there is none
        if comm is not None:
            self._names = comm.allgather(self._names[0])
            # One for each kind of call, so that calls of different kinds wait for one another instead of meeting.
            self._roll, self._numbers, self._arrays, self._values, self._gathered = (comm.Dup() for _ in range(5))
            atexit.register(self._leave)

    def __repr__(self) -> str:
        return f"Group(rank {self.rank} of {self.size})"

    @property
    def is_root(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.rank == 0

    def name(self, rank: int) -> str:
        """A process in words: its rank, its machine, and its number there."""
        return f"rank {rank} of {self.size} ({self._names[rank]})"

    def sum(self, values: Any) -> np.ndarray:
        """The sums over all processes of numbers, an array of float64; every process gets the same bits."""
        total = np.array(values, np.float64)
        if self.size > 1:
            self._wait(self._numbers.Iallreduce(_in_place(), total), "a sum of numbers")
        return total

    def begin_sum(self, array: np.ndarray) -> Callable[[], None]:
        """Begin to sum an array over all processes, in place; what is returned waits until it is there.

        An array of a GPU is summed by NCCL on a stream of its own where every process has a GPU of its own and NCCL is
        there, else by way of the host. All processes begin the same sums in the same order.
        """
        if self.size == 1:
            return lambda: None
        if not isinstance(array, np.ndarray):
            return self._begin_device_sum(array)
        request = self._arrays.Iallreduce(_in_place(), array)
        return lambda: self._wait(request, "a sum of gradients")

    def _begin_device_sum(self, array: Any) -> Callable[[], None]:
        device = backend_of(array).name
        if device not in self._nccl:
            self._nccl[device] = nccl.connect(self, array)
        if (connection := self._nccl[device]) is not None:
            return connection.begin_sum(array)
        host = backend_of(array).to_numpy(array)
        finish = self.begin_sum(host)

        def copy_back() -> None:
            finish()
            array.set(host)

        return copy_back

    def broadcast(self, value: Value) -> Value:
        """The value of rank 0, on every process; the others give anything."""
        if self.size == 1:
            return value
        sent = np.frombuffer(pickle.dumps(value), np.uint8) if self.is_root else None
        size = np.array([0 if sent is None else sent.size], np.int64)
        self._wait(self._values.Ibcast(size), "rank 0's answer")
        came = np.empty(int(size[0]), np.uint8) if sent is None else sent.copy()
        self._wait(self._values.Ibcast(came), "rank 0's answer")
        return value if self.is_root else pickle.loads(came.tobytes())

    def on_root(self, work: Callable[[], Value]) -> Value:
        """What ``work()`` returns on rank 0, on every process; an exception that it raises there is raised on all."""
        if self.size == 1:
            return work()
        result, error = None, None
        if self.is_root:
            try:
                result = work()
            except Exception as failure:
                error = failure
        told, reason = self.broadcast((result, None if error is None else _portable(error)))
        if reason is not None:
            raise error or reason
        return told  # type: ignore[return-value]

    def gather(self, value: Value) -> list[Value]:
        """The value of every process, in the order of their ranks, on every process."""
        if self.size == 1:
            return [value]
        mine = np.frombuffer(pickle.dumps(value), np.uint8)
        sizes = np.zeros(self.size, np.int64)
        self._wait(self._gathered.Iallgather(np.array([mine.size], np.int64), sizes), "answers")
        all_of_them = np.empty(int(sizes.sum()), np.uint8)
        starts = np.cumsum(sizes) - sizes
        self._wait(self._gathered.Iallgatherv(mine, [all_of_them, (sizes, starts)]), "answers")
        parts = zip(starts.tolist(), sizes.tolist(), strict=True)
        return [pickle.loads(all_of_them[start : start + size].tobytes()) for start, size in parts]

    def check_same(self, what: str, facts: Any) -> None:
        """Raise ProcessError, naming the ranks, where the facts of processes, plain values, are not the same."""
        every = self.gather(repr(facts))
        if other := [rank for rank, one in enumerate(every) if one != every[0]]:
            names = ", ".join(map(self.name, other))
            raise ProcessError(f"{what}: expected the same in all processes, got others than rank 0's in {names}")

    # -- waiting -----------------------------------------------------------------------------------------------------

    def _wait(self, request: Any, what: str) -> None:
        began, pause, alone_since = time.monotonic(), 1e-5, None
        while not request.Test():
            now = time.monotonic()
            if now - began > self.timeout:
                self._end(what)
            if now - began <= _SPIN:
                _let_others()
                continue
            self._answer()
            if self._left:  # its last words may still be on their way
                alone_since = alone_since or now
                if now - alone_since > min(_GRACE, self.timeout / 2):
                    who = ", ".join(map(self.name, sorted(self._left)))
                    self.give_up(f"{who} ended while this one waits for {what}")
            time.sleep(pause)
            pause = min(2 * pause, _PAUSE)

    def _answer(self) -> None:
        """Tell those who ask that this process waits too, and note who has ended."""
        for source in self._said(_ASK):
            self._roll.isend(None, source, tag=_HERE)
        self._left.update(self._said(_LEFT))

    def _said(self, tag: int) -> Iterator[int]:
        """The ranks that have sent a message of that tag."""
        while self._roll.Iprobe(tag=tag):
            status = _status()
            self._roll.recv(tag=tag, status=status)
            yield status.Get_source()

    def _leave(self) -> None:
        """At the end of the program: whoever still waits for this process need not wait for the timeout."""
        for rank in set(range(self.size)) - {self.rank}:
            self._roll.isend(None, rank, tag=_LEFT)

    def _end(self, what: str) -> None:
        """Ask who waits too, name those who do not, and end all."""
        missing = set(range(self.size)) - {self.rank}
        asked = [self._roll.isend(None, rank, tag=_ASK) for rank in missing]
        until = time.monotonic() + _GRACE
        while time.monotonic() < until:
            self._answer()
            missing.difference_update(self._said(_HERE))
            for one in asked:
                one.Test()
            time.sleep(_PAUSE)
        late = ", ".join(map(self.name, sorted(missing))) or "no process: all wait, but for different things"
        waiting = [rank for rank in range(self.size) if rank not in missing]
        if self.rank != waiting[0]:
            time.sleep(_GRACE)  # one says it, and ends this process too
        self.give_up(f"waited {self.timeout:g} s for {what} from {late}")

    def give_up(self, why: str) -> NoReturn:
        """Say in one line on standard error why, and end all processes of the group with exit code 1."""
        self.end(1, f"gpulstm: error: {self.name(self.rank)}: {why}\n")

    def end(self, code: int, words: str) -> NoReturn:
        """End all processes of the group with that exit code, after these words on standard error.

        Where all fail alike rank 0 says it: the others wait a moment, in which they are ended.
        """
        if not self.is_root:
            time.sleep(_GRACE / 4)
        print(words, end="", file=sys.__stderr__, flush=True)
        self._comm.Abort(code)
        raise SystemExit(code)  # Abort does not return


def _in_place() -> Any:
    from mpi4py import MPI

    return MPI.IN_PLACE


def _status() -> Any:
    from mpi4py import MPI

    return MPI.Status()


def _portable(error: Exception) -> Exception:
    """The error, or one that says the same where it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error

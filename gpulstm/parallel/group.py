"""A group of processes that train one model together, and their communication over MPI.

No call waits for ever: if a process does not arrive within the group's timeout, a message names it and all end.
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
_SPIN = 2e-3  # seconds of busy waiting: MPI continues a sum only while one tests for its end
_PAUSE = 1e-3  # the longest sleep between two tests after that, in seconds
_let_others: Callable[[], None] = getattr(os, "sched_yield", lambda: time.sleep(0))  # another may need this core
_GRACE = 3.0  # seconds that the others have to answer that they wait too
_ASK, _HERE, _LEFT = 1, 2, 3  # tags: "do you wait too?", "yes", "I have ended"


class Group:
    """A group of ``size`` processes, of which this one has the number ``rank``, counted from 0.

    ``comm`` is an mpi4py communicator, None for a single process. ``timeout`` is the time in seconds that the processes
    wait for one that does not arrive. ``gl.parallel.init`` makes a group.

    Raises ProcessError if the processes differ where they must not. If one fails or does not arrive, all of them end.

    >>> gl.parallel.Group().size
    1
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
            # One communicator per kind of call: calls of different kinds then wait, instead of being mixed up.
            self._roll, self._numbers, self._arrays, self._values, self._gathered = (comm.Dup() for _ in range(5))
            atexit.register(self._leave)

    def __repr__(self) -> str:
        return f"Group(rank {self.rank} of {self.size})"

    @property
    def is_root(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.rank == 0

    def name(self, rank: int) -> str:
        """Describe a process: its rank, its machine, and its process number there."""
        return f"rank {rank} of {self.size} ({self._names[rank]})"

    def sum(self, values: Any) -> np.ndarray:
        """Sum numbers over all processes, as a float64 array; every process gets the same bits."""
        total = np.array(values, np.float64)
        if self.size > 1:
            self._wait(self._numbers.Iallreduce(_in_place(), total), "a sum of numbers")
        return total

    def begin_sum(self, array: np.ndarray) -> Callable[[], None]:
        """Start summing an array over all processes, in place; return a function that waits for the sum.

        If every process has its own GPU and NCCL is available, NCCL sums GPU arrays on a separate stream; otherwise
        they are summed on the host. All processes must start the same sums in the same order.
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
        """Return the value of rank 0 in every process; the other processes' values are ignored."""
        if self.size == 1:
            return value
        sent = np.frombuffer(pickle.dumps(value), np.uint8) if self.is_root else None
        size = np.array([0 if sent is None else sent.size], np.int64)
        self._wait(self._values.Ibcast(size), "rank 0's answer")
        came = np.empty(int(size[0]), np.uint8) if sent is None else sent.copy()
        self._wait(self._values.Ibcast(came), "rank 0's answer")
        return value if self.is_root else pickle.loads(came.tobytes())

    def on_root(self, work: Callable[[], Value]) -> Value:
        """Call ``work()`` on rank 0 only, and return its result, or raise its exception, in every process."""
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
        """Return the values of all processes, in the order of their ranks, in every process."""
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
        """Raise ProcessError, naming the ranks, if the processes' ``facts`` (plain values) are not the same."""
        every = self.gather(repr(facts))
        if other := [rank for rank, one in enumerate(every) if one != every[0]]:
            names = ", ".join(map(self.name, other))
            raise ProcessError(f"{what}: expected the same in all processes, got other values than rank 0's in {names}")

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
            if self._left:  # its last message may still be on the way
                alone_since = alone_since or now
                if now - alone_since > min(_GRACE, self.timeout / 2):
                    who = ", ".join(map(self.name, sorted(self._left)))
                    self.give_up(f"{who} ended while this process waits for {what}")
            time.sleep(pause)
            pause = min(2 * pause, _PAUSE)

    def _answer(self) -> None:
        """Answer the processes that ask whether this one waits too, and note which ones have ended."""
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
        """At exit, tell the others that this process has ended, so that they do not wait for the timeout."""
        for rank in set(range(self.size)) - {self.rank}:
            self._roll.isend(None, rank, tag=_LEFT)

    def _end(self, what: str) -> None:
        """Ask which processes wait too, name those that do not, and end all processes."""
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
            time.sleep(_GRACE)  # that process prints the message, and ends this one too
        self.give_up(f"waited {self.timeout:g} s for {what} from {late}")

    def give_up(self, why: str) -> NoReturn:
        """Print the reason in one line on standard error, and end all processes of the group with exit code 1."""
        self.end(1, f"gpulstm: error: {self.name(self.rank)}: {why}\n")

    def end(self, code: int, words: str) -> NoReturn:
        """Print these words on standard error, and end all processes of the group with this exit code.

        The other ranks wait a moment first: if all fail alike, rank 0 ends them before they print.
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
    """The error, or one with the same message if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error

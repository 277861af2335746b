"""The group that this process belongs to, and how it is joined."""

import os
import sys
import traceback
from contextlib import suppress
from types import TracebackType
from typing import Any

from gpulstm import checks, random, threads
from gpulstm.backend import device, why_no_cuda
from gpulstm.errors import ProcessError, ShapeError
from gpulstm.parallel.environment import OF_RANKS, local_rank, own_cores, size_asked
from gpulstm.parallel.group import Group

MOST_NAMED = 16  # processes

_ALONE = Group()
_group = _ALONE
_axes: Any = None


def group() -> Group:
    """The group of this process: itself alone until ``init`` finds others."""
    return _group


def rank() -> int:
    """The number of this process in its group, from 0."""
    return _group.rank


def size() -> int:
    """The number of processes in the group."""
    return _group.size


def batch_axes() -> Any:
    """Where the sequences are in batches of data sets that do not say so; see ``init``."""
    return _axes


def init(timeout: float | None = None, batch_axes: Any = None) -> Group:
    """Join the processes that mpiexec (or srun) started together; of one alone this changes nothing.

    From here on an uncaught exception in one process ends all of them, with one line that names it. So does a process
    that has ended, and one that the others have waited for longer than ``timeout`` seconds (600 at first); it must be
    more than writing a checkpoint takes. The default generator is that of rank 0. Where a machine has several of the
    processes, each computes on cores of its own, and with the GPU of its number there.

    ``batch_axes`` is the axis of the sequences in a batch, for data sets without an attribute of that name (those of
    ``gl.data`` have one): 1 for arrays (T, B, ...), 0 for (B, ...), or a nest like a batch with one for each array. In
    an array of one dimension it is always 0.

    Raises ShapeError for a timeout of 0 or below, and ProcessError where the environment tells of several processes and
    MPI does not, or mpi4py is missing.
    """
    global _group, _axes
    if timeout is not None and checks.number("timeout", timeout) == 0:
        raise ShapeError("timeout: expected a number of seconds above 0, got 0")
    _axes = _axes if batch_axes is None else batch_axes
    comm = None if _group.size > 1 else _world()
    if comm is not None:
        here = comm.Split_type(_mpi().COMM_TYPE_SHARED)
        _group = Group(comm)
        sys.excepthook = _end_all
        _say_who(_group)
        _take_cores(here.Get_rank(), here)
        told = local_rank()
        _take_gpu(here.Get_rank() if told is None else told)
        state = _group.broadcast(random.generator_state(random.default_generator()))
        random.set_generator_state(random.default_generator(), state)
        for name in OF_RANKS:  # programs that this one starts are none of the processes
            os.environ.pop(name, None)
    _group.timeout = _group.timeout if timeout is None else float(timeout)
    return _group


def leave() -> None:
    """Go on alone: what follows is no longer done together."""
    global _group
    _group = _ALONE


def _world() -> Any:
    """All processes, as an mpi4py communicator; None for one alone."""
    asked, name = size_asked()
    if asked == 1 and "mpi4py.MPI" not in sys.modules:
        return None
    try:
        world = _mpi().COMM_WORLD
    except (ImportError, RuntimeError) as error:
        raise ProcessError(
            f'{name}={asked} tells of several processes, which need mpi4py: pip install ".[mpi]" ({error})'
        ) from error
    if world.Get_size() == 1 and asked > 1:
        raise ProcessError(
            f"{name}={asked} tells of several processes, but MPI knows of this one alone; start them with "
            f"mpiexec -n {asked}, under Slurm with srun --mpi=pmi2 (torchrun starts them without MPI)"
        )
    return world if world.Get_size() > 1 else None


def _mpi() -> Any:
    from mpi4py import MPI

    return MPI


def _take_cores(number: int, here: Any) -> None:
    """Share out the cores of this machine, unless its user or the launcher has; ``here`` are its processes."""
    if "OMP_NUM_THREADS" in os.environ or not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    if len(set(map(tuple, here.allgather(cores)))) == 1:
        mine = own_cores(cores, number, here.Get_size())
        if len(mine) < len(cores):
            os.sched_setaffinity(0, mine)
        limit = max(1, len(cores) // here.Get_size())
        threads.set_num_threads(limit)
        if "OPENBLAS_NUM_THREADS" not in os.environ:
            with suppress(ImportError):  # it comes with the extra "mpi"
                from threadpoolctl import threadpool_limits

                threadpool_limits(limit, user_api="blas")


def _take_gpu(number: int) -> None:
    if not why_no_cuda():
        cuda = device("cuda").backend.xp.cuda
        cuda.Device(number % cuda.runtime.getDeviceCount()).use()


def _say_who(group: Group) -> None:
    """Whom the launcher means where it tells of a process that died: it knows their numbers, not their ranks."""
    if group.is_root and group.size <= MOST_NAMED:
        print("gpulstm: " + ", ".join(map(group.name, range(group.size))), file=sys.stderr, flush=True)


def _end_all(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """``sys.excepthook`` of one of several processes: what is not caught here ends them all."""
    if getattr(error, "together", False):  # a signal that stops all; see train/interrupt.py
        if _group.is_root:
            sys.__excepthook__(kind, error, trace)
        return
    words = "".join(traceback.format_exception(kind, error, trace))
    _group.end(1, f"{words}gpulstm: error: {_group.name(_group.rank)}: {kind.__name__}: {error}\n")

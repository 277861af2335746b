"""The group that this process belongs to, and how to join it."""

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
    """Return the group of this process; until ``init`` finds others, the process is alone in it.

    Raises no errors.

    >>> gl.parallel.group().is_root
    True
    """
    return _group


def rank() -> int:
    """Return the number of this process in its group, counted from 0.

    Raises no errors.

    >>> gl.parallel.rank()
    0
    """
    return _group.rank


def size() -> int:
    """Return the number of processes in the group.

    Raises no errors.

    >>> gl.parallel.size()
    1
    """
    return _group.size


def batch_axes() -> Any:
    """The ``batch_axes`` given to ``init``, for data sets without an attribute of that name."""
    return _axes


def init(timeout: float | None = None, batch_axes: Any = None) -> Group:
    """Join the processes that mpiexec (or srun) started together, and return their group.

    With a single process this changes nothing. With several, gpulstm's default generator continues from rank 0's state
    in all of them. On a machine with several processes each uses its own cores and, by its number there, its own GPU.

    An uncaught exception in one process ends all of them, with one line that names the process. So does a process that
    ends early, or that keeps the others waiting for more than ``timeout`` seconds (default 600; it must be longer than
    writing a checkpoint takes).

    ``batch_axes`` is the axis of the sequences in the arrays of a batch: 1 for (T, B, ...), 0 for (B, ...), or tuples,
    lists and dicts structured like a batch, with one axis per array. In a one-dimensional array it is always 0. The
    data sets of ``gl.data`` do not need it, as they have an attribute of that name.

    Raises ShapeError unless the timeout is above 0, and ProcessError if environment variables say that there are
    several processes but MPI does not, or mpi4py is missing.

    >>> gl.parallel.init()  # started without mpiexec
    Group(rank 0 of 1)
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
        for name in OF_RANKS:  # programs started from here are not members of the group
            os.environ.pop(name, None)
    _group.timeout = _group.timeout if timeout is None else float(timeout)
    return _group


def leave() -> None:
    """Leave the group: from here on this process works alone.

    Raises no errors, also if ``init`` was never called.

    >>> gl.parallel.leave()
    >>> gl.parallel.size()
    1
    """
    global _group
    _group = _ALONE


def _world() -> Any:
    """The mpi4py communicator of all processes; None for a single process."""
    asked, name = size_asked()
    if asked == 1 and "mpi4py.MPI" not in sys.modules:
        return None
    try:
        world = _mpi().COMM_WORLD
    except (ImportError, RuntimeError) as error:
        raise ProcessError(
            f'{name}={asked} says that there are several processes, which need mpi4py: pip install ".[mpi]" ({error})'
        ) from error
    if world.Get_size() == 1 and asked > 1:
        raise ProcessError(
            f"{name}={asked} says that there are several processes, but MPI finds only this one; start them with "
            f"mpiexec -n {asked}, under Slurm with srun --mpi=pmi2 (torchrun starts them without MPI)"
        )
    return world if world.Get_size() > 1 else None


def _mpi() -> Any:
    from mpi4py import MPI

    return MPI


def _take_cores(number: int, here: Any) -> None:
    """Take this process's share of the machine's cores, unless the user or the launcher has assigned cores.

    ``number`` is its number among the machine's processes, ``here`` their communicator.
    """
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
            with suppress(ImportError):  # threadpoolctl comes with the extra "mpi"
                from threadpoolctl import threadpool_limits

                threadpool_limits(limit, user_api="blas")


def _take_gpu(number: int) -> None:
    if not why_no_cuda():
        cuda = device("cuda").backend.xp.cuda
        cuda.Device(number % cuda.runtime.getDeviceCount()).use()


def _say_who(group: Group) -> None:
    """Print which process has which rank: if one dies, the launcher names it by its process number alone."""
    if group.is_root and group.size <= MOST_NAMED:
        print("gpulstm: " + ", ".join(map(group.name, range(group.size))), file=sys.stderr, flush=True)


def _end_all(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The ``sys.excepthook`` of a process in a group: an uncaught exception ends all processes."""
    if getattr(error, "together", False):  # a signal that stops all processes; see train/interrupt.py
        if _group.is_root:
            sys.__excepthook__(kind, error, trace)
        return
    words = "".join(traceback.format_exception(kind, error, trace))
    _group.end(1, f"{words}gpulstm: error: {_group.name(_group.rank)}: {kind.__name__}: {error}\n")

"""Reads from environment variables how many processes mpiexec, srun or torchrun started, and which one this is."""

import os
from collections.abc import Mapping, Sequence

SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "WORLD_SIZE")
RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")  # set by the launchers of MPI
OF_RANKS = ("PMI_RANK", "PMI_SIZE", "PMI_FD", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")
LOCAL_RANKS = ("MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID", "LOCAL_RANK")


def size_asked(environment: Mapping[str, str] = os.environ) -> tuple[int, str]:
    """(number of processes started, the variable that says so); (1, "") if no variable does."""
    sizes = [(_number(environment, name), name) for name in SIZES]
    size, name = max(((size or 1, name) for size, name in sizes), key=lambda one: one[0])
    return (size, name) if size > 1 else (1, "")


def rank_asked(environment: Mapping[str, str] = os.environ) -> int:
    """The number of this process among those that an MPI launcher started; 0 without a launcher."""
    return next((rank for name in RANKS if (rank := _number(environment, name)) is not None), 0)


def local_rank(environment: Mapping[str, str] = os.environ) -> int | None:
    """The number of this process among those on its machine; None if no variable says so."""
    return next((rank for name in LOCAL_RANKS if (rank := _number(environment, name)) is not None), None)


def own_cores(cores: Sequence[int], rank: int, size: int) -> list[int]:
    """The cores for process ``rank`` of ``size`` processes that share ``cores``; all cores if there are too few."""
    return list(cores if len(cores) < size else cores[len(cores) * rank // size : len(cores) * (rank + 1) // size])


def _number(environment: Mapping[str, str], name: str) -> int | None:
    value = environment.get(name, "")
    return int(value) if value.isdecimal() else None

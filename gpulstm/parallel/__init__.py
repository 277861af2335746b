"""Several processes that train one model together, on MPI and NCCL.

    mpiexec -n 4 gpulstm text train book.txt
    mpiexec -n 4 python mine.py

One line in ``mine.py``, before anything random: ``gl.parallel.init()``. From there on ``Trainer.fit`` gives each
process its share of every batch and sums the gradients over all of them while the backward pass goes on. The result is
that of one process with the whole batch, but for rounding: the same losses, the same dropout, the same order of the
data. Progress, logs and files come from rank 0 alone. A run saved by n processes goes on with m.

A module of your own that draws numbers for each sequence draws them for the whole batch and takes its part: in a step
``gl.parallel.share()`` is this process's ``Share(first, count, whole)`` of the sequences, None for all of them.

Needs mpi4py and an MPI (``pip install ".[mpi]"`` brings both).
"""

from gpulstm.parallel.current import group, init, leave, rank, size
from gpulstm.parallel.group import TIMEOUT, Group
from gpulstm.shares import current as share

__all__ = ["TIMEOUT", "Group", "group", "init", "leave", "rank", "share", "size"]

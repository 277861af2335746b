"""Data-parallel training: several processes train one model together, over MPI and NCCL.

Start the same program in every process with ``mpiexec``:

    mpiexec -n 4 gpulstm text train book.txt
    mpiexec -n 4 python mine.py

In ``mine.py`` call ``gl.parallel.init()`` once, before anything draws random numbers. From then on ``Trainer.fit``
gives each process its share of every batch, and sums the gradients over all processes during the backward pass. The
results are those of one process with the whole batch, apart from rounding: the same losses, the same dropout, the same
order of the data. Only rank 0 shows progress and writes logs and files. A run saved by n processes can be resumed by m.

>>> group = gl.parallel.init()  # started without mpiexec: a single process
>>> gl.parallel.rank(), gl.parallel.size()
(0, 1)
>>> gl.parallel.share() is None  # this process computes whole batches
True

If a module of your own draws random numbers for each sequence, draw them for the whole batch and keep this process's
part. During a step ``gl.parallel.share()`` returns that part, ``Share(first, count, whole)``; None means all sequences.

Training with several processes needs mpi4py and an MPI library; ``pip install ".[mpi]"`` brings both.
"""

from gpulstm.parallel.current import group, init, leave, rank, size
from gpulstm.parallel.group import TIMEOUT, Group
from gpulstm.shares import current as share

__all__ = ["TIMEOUT", "Group", "group", "init", "leave", "rank", "share", "size"]

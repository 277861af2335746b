"""Sums over the GPUs of several processes with NCCL, through CuPy's binding."""

import importlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from gpulstm.backend import Array, backend_of


class Connection:
    """The NCCL connection of a group's processes, each with the GPU that its arrays are on."""

    def __init__(self, nccl: Any, cupy: Any, group: Any) -> None:
        self._nccl, self._cupy = nccl, cupy
        self._comm = nccl.NcclCommunicator(group.size, group.on_root(nccl.get_unique_id), group.rank)
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._types = {np.dtype(np.float32): nccl.NCCL_FLOAT32, np.dtype(np.float64): nccl.NCCL_FLOAT64}

    def begin_sum(self, array: Array) -> Callable[[], None]:
        """Start summing an array in place, on a separate stream; the function returned lets the current stream wait."""
        cupy, here = self._cupy, self._cupy.cuda.get_current_stream()
        self._stream.wait_event(here.record())
        pointer, kind = array.data.ptr, self._types[array.dtype]
        self._comm.allReduce(pointer, pointer, array.size, kind, self._nccl.NCCL_SUM, self._stream.ptr)
        done = self._stream.record()
        return lambda: cupy.cuda.get_current_stream().wait_event(done)


def connect(group: Any, array: Array) -> Connection | None:
    """Connect the processes; return None if NCCL is missing in any of them or two of them share a GPU."""
    with backend_of(array) as backend:
        cupy = backend.xp
        nccl = importlib.import_module(f"{cupy.__name__}.cuda.nccl")  # its ``available`` tells if the library is there
        place = group.machine, os.environ.get("CUDA_VISIBLE_DEVICES", ""), array.device.id
        everywhere = group.gather((bool(nccl.available), place))
        if not all(can for can, _ in everywhere) or len({place for _, place in everywhere}) < group.size:
            return None
        return Connection(nccl, cupy, group)

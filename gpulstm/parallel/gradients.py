"""Sums gradients over processes, in buckets, during the backward pass."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from gpulstm.backend import backend_of
from gpulstm.dtypes import accumulator
from gpulstm.errors import ProcessError
from gpulstm.parallel.group import Group
from gpulstm.tape import Tensor

BUCKET = 4 << 20  # bytes


class _Bucket:
    """Gradients of one type on one device that are summed as one array."""

    def __init__(self, parameters: list[Tensor]) -> None:
        self.parameters, self.waiting = parameters, len(parameters)
        self.backend, dtype = backend_of(parameters[0].data), accumulator(parameters[0].dtype)
        ends = np.cumsum([p.size for p in parameters]).tolist()
        self._places = [slice(end - p.size, end) for p, end in zip(parameters, ends, strict=True)]
        self.sums: Any = None
        self._size, self._dtype = ends[-1], dtype
        self.finish: Callable[[], None] = lambda: None

    def begin(self, begin_sum: Callable[[Any], Callable[[], None]]) -> None:
        """Start summing the current gradients; a parameter without one counts as zeros."""
        with self.backend as backend:
            if self.sums is None:
                self.sums = backend.empty((self._size,), self._dtype)
            for parameter, place in zip(self.parameters, self._places, strict=True):
                self.sums[place] = 0 if parameter.grad is None else parameter.grad.reshape(-1)
            self.finish = begin_sum(self.sums)

    def end(self, has_one: Iterable[bool]) -> None:
        """Wait for the sums, and store them in the parameters that have a gradient in some process."""
        self.finish()
        with self.backend:
            for parameter, place, has in zip(self.parameters, self._places, has_one, strict=True):
                sums, own = self.sums[place].reshape(parameter.shape), parameter.grad
                if has and own is None:
                    parameter.grad = sums.astype(parameter.dtype)
                elif has and own is not None:  # in place: allocating memory takes longer than the sum
                    own[...] = sums


class Gradients:
    """The gradients of a model's parameters, summed over the processes of a group.

    A bucket's sum starts once all its gradients are ready. The last parameters come first, as in the backward pass. The
    order of the buckets is the same in every process, whichever gradients are ready first.
    """

    def __init__(self, group: Group, parameters: Iterable[Tensor]) -> None:
        self._group = group
        self._parameters = [p for p in dict.fromkeys(parameters) if p.requires_grad][::-1]
        self._buckets = [_Bucket(some) for some in _alike(self._parameters)]
        self._of = {id(p): bucket for bucket in self._buckets for p in bucket.parameters}
        self._begun = 0
        layout = [(p.shape, str(p.dtype)) for p in self._parameters]
        if len(set(map(str, group.gather(layout)))) > 1:
            want = "the same ones with requires_grad in all processes"
            raise ProcessError(f"parameters: expected {want}, got different ones")

    def ready(self, parameter: Tensor) -> None:
        """Note that a parameter's gradient is final, and start the sums of the buckets that are complete."""
        bucket = self._of.get(id(parameter))
        if bucket is None:
            return
        bucket.waiting -= 1
        while self._begun < len(self._buckets) and self._buckets[self._begun].waiting == 0:
            self._begin_next()

    def sum(self) -> None:
        """Finish the sums of all gradients; a gradient that no process has stays None."""
        while self._begun < len(self._buckets):
            self._begin_next()
        there = self._group.sum([p.grad is not None for p in self._parameters]) > 0
        first = 0
        for bucket in self._buckets:
            last = first + len(bucket.parameters)
            bucket.end(there[first:last])
            bucket.waiting, first = len(bucket.parameters), last
        self._begun = 0

    def _begin_next(self) -> None:
        bucket = self._buckets[self._begun]
        bucket.begin(lambda sums: self._group.begin_sum(sums))
        self._begun += 1


def _alike(parameters: list[Tensor]) -> list[list[Tensor]]:
    """The parameters in order, split into buckets where type or device change and where a bucket is full."""
    buckets: list[list[Tensor]] = []
    size, kind = 0, None
    for parameter in parameters:
        its = parameter.dtype, backend_of(parameter.data).name
        if its != kind or size >= BUCKET:
            buckets.append([])
            size, kind = 0, its
        buckets[-1].append(parameter)
        size += parameter.data.nbytes
    return buckets

"""A whole sequence as one CUDA graph: the launches of all its steps are captured once and replayed with new data.

A time loop makes the same launches for every sequence of one shape, so the host need not make them one by one again.
The first sequence of a shape runs without a graph. The second one is captured, with memory of its own. From then on a
sequence costs the host a few launches: its inputs are copied in, the graph is launched, and its outputs are copied out.
The same holds for the backward pass. A graph reads the weights in place, so its key contains their addresses.
"""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from gpulstm.backend import Array, CupyBackend
from gpulstm.functional.loop import Loop
from gpulstm.functional.products import Weights
from gpulstm.precision import current

_MOST_PLANS, _MOST_SEEN = 64, 1024
_SHARE = 0.25  # of the device's memory that all plans together may hold
_ALIGNED = 256  # bytes: the alignment of each array in a packed buffer


def graphed(
    loop: Loop, x: Array, states: list, weights: Weights, inference: bool, at_once: bool = False
) -> tuple[Any, str]:
    """Run a sequence as a graph -> ((outputs, pullback), ""), or (None, why not).

    The first sequence of a shape is captured only with ``at_once``.
    """
    return graphs_of(loop.seq.backend).run(loop, x, states, weights, inference, at_once)


def graphs_of(backend: Any) -> "Graphs":
    """The graphs of a GPU, which live as long as its backend."""
    if backend.graphs is None:
        backend.graphs = Graphs(backend)
    return backend.graphs


class _Packed:
    """Several arrays in one buffer, so that one copy moves them all; an array may be None."""

    def __init__(self, xp: Any, arrays: tuple) -> None:
        """Allocates, and copies the arrays in."""
        self.places: list[Any] = []
        end, dtype = 0, next((a.dtype for a in arrays if a is not None), np.dtype(np.float32))
        for array in arrays:
            self.places.append(None if array is None else (end, array.shape, array.size))
            end += 0 if array is None else -(-array.nbytes // _ALIGNED) * _ALIGNED // dtype.itemsize
        self.flat = xp.empty((end,), dtype)
        for view, array in zip(self._views(self.flat), arrays, strict=True):
            if array is not None:
                view[...] = array

    def copies(self) -> tuple:
        """The arrays as they are now, in new memory."""
        return tuple(self._views(self.flat.copy()))

    def _views(self, flat: Any) -> list:
        return [p if p is None else flat[p[0] : p[0] + p[2]].reshape(p[1]) for p in self.places]


class _Plan:
    """A captured loop: its memory, and its graphs for the forward and the backward pass."""

    def __init__(self, loop: Loop, x: Array, states: list, weights: Weights) -> None:
        self.loop, self.cupy = loop, loop.seq.backend.xp
        self.pool, self.stream = self.cupy.cuda.MemoryPool(), self.cupy.cuda.Stream(non_blocking=True)
        self.busy = False
        self.backwards: dict[tuple[bool, ...], tuple | None] = {}
        self.arrays = loop.seq.arrays  # they belong to this plan from now on
        with self.stream, self.cupy.cuda.using_allocator(self.pool.malloc):
            self.inputs = [None if a is None else self.cupy.empty(a.shape, a.dtype) for a in (x, *states)]
        first, *rest = self.inputs
        self.graph, self.outputs = self._captured(lambda: loop.run(first, rest, weights), 1)

    def forward(self, loop: Loop, x: Array, states: list) -> tuple:
        """The outputs for new inputs; ``loop`` has this sequence's modes."""
        _copy((*self.inputs, *self.arrays), (x, *states, *loop.seq.arrays))
        self.graph.launch()
        return _copies(self.outputs)

    def backward(self, *cotangents: Array | None) -> tuple:
        """The gradients of the inputs and the weights."""
        given = tuple(d is not None for d in cotangents)
        if given not in self.backwards:
            self.backwards[given] = self._way_back(cotangents)
        if (way := self.backwards[given]) is None:
            return self.loop.pullback(*cotangents)
        room, graph, gradients = way
        _copy(room, cotangents)
        graph.launch()
        return _copies(gradients)

    def _way_back(self, cotangents: tuple) -> tuple | None:
        """Capture the backward pass -> (buffers for the cotangents, graph, gradients), or None if that fails."""
        with self.stream, self.cupy.cuda.using_allocator(self.pool.malloc):
            room = [None if d is None else self.cupy.empty(d.shape, self.loop.seq.dtype) for d in cotangents]
        try:
            return (room, *self._captured(lambda: self.loop.pullback(*room), len(self.inputs)))
        except Exception:  # whatever cannot be captured runs without a graph
            return None

    def _captured(self, work: Callable[[], tuple], cut: int) -> tuple[Any, list[_Packed]]:
        """Capture what ``work`` launches -> (the graph, the arrays that ``work`` returns).

        The arrays before ``cut`` and the rest are packed separately, since the rest lives longer: states live longer
        than the outputs of all steps, and the weights' gradients live longer than the input's.
        """
        backend: Any = self.loop.seq.backend
        backend.lend_products(self.stream)
        with self.stream, self.cupy.cuda.using_allocator(self.pool.malloc):
            self.stream.begin_capture()
            try:
                arrays = work()
                packed = [_Packed(self.cupy, part) for part in (arrays[:cut], arrays[cut:])]
            except BaseException:
                _abandon(self.stream)
                raise
            return self.stream.end_capture(), packed


class _Pullback:
    """The pullback of one sequence; no other sequence uses the plan while this object exists."""

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan

    def __call__(self, *cotangents: Array | None) -> tuple:
        return self._plan.backward(*cotangents)

    def __del__(self) -> None:
        self._plan.busy = False


class Graphs:
    """The plans of one GPU by key; the least recently used are dropped when there are too many."""

    def __init__(self, backend: CupyBackend) -> None:
        self._backend = backend
        self._most_bytes = int(_SHARE * backend.memory()[1])
        self._plans: OrderedDict[tuple, list[_Plan]] = OrderedDict()
        self._seen: OrderedDict[tuple, str] = OrderedDict()  # key -> why it cannot be captured, or ""
        self._lock = threading.Lock()

    def run(
        self, loop: Loop, x: Array, states: list, weights: Weights, inference: bool, at_once: bool
    ) -> tuple[Any, str]:
        """See ``graphed``."""
        key = (*_key(loop, x, states, weights), inference)
        with self._lock, self._backend:
            if at_once and key not in self._seen:
                loop.run(x, states, weights)  # the first run sets up things that a capture cannot
                self._seen[key] = ""
            why = self._why_not(key)
            plan = None if why else self._free_plan(key) or self._made(key, loop, x, states, weights)
            if plan is None:
                return None, why or self._seen[key]
            outputs = plan.forward(loop, x, states)
            plan.busy = not inference
        return (outputs, _Pullback(plan) if plan.busy else plan.backward), ""

    def _why_not(self, key: tuple) -> str:
        if key in self._seen:
            self._seen.move_to_end(key)
            return self._seen[key]
        self._seen[key] = ""
        while len(self._seen) > _MOST_SEEN:
            self._seen.popitem(last=False)
        return "the first sequence of its shape; the next one is captured as a CUDA graph"

    def _free_plan(self, key: tuple) -> _Plan | None:
        if key in self._plans:
            self._plans.move_to_end(key)
        return next((plan for plan in self._plans.get(key, []) if not plan.busy), None)

    def _made(self, key: tuple, loop: Loop, x: Array, states: list, weights: Weights) -> _Plan | None:
        try:
            plan = _Plan(loop, x, states, weights)
        except Exception as error:  # whatever cannot be captured runs without a graph
            self._seen[key] = f"its capture as a CUDA graph failed: {type(error).__name__}: {error}"
            return None
        # The backward pass takes about as much memory again.
        if 2 * plan.pool.total_bytes() > self._most_bytes:
            self._seen[key] = "its CUDA graph would hold more than a quarter of the device's memory"
            return None
        self._plans.setdefault(key, []).append(plan)
        self._evict()
        return plan

    def _evict(self) -> None:
        """Drop the least recently used plans if there are too many or they are too large."""

        def held() -> tuple[int, int]:
            plans = [plan for each in self._plans.values() for plan in each]
            return len(plans), sum(plan.pool.total_bytes() for plan in plans)

        while len(self._plans) > 1 and (held()[0] > _MOST_PLANS or held()[1] > self._most_bytes):
            self._plans.popitem(last=False)


def _key(loop: Loop, x: Array, states: list, weights: Weights) -> tuple:
    """Everything that decides what a loop launches, except the values that are copied in."""
    seq, modes = loop.seq, loop.seq.modes
    arrays = (weights.w_ih, weights.w_hh, weights.b_ih, weights.b_hh, weights.w_hr, *weights.extra)
    # A step's launches depend on whether every sequence is alive, and on whether one begins there.
    masks = (None if modes.alive is None else modes.alive.all(axis=1).tobytes(),
             None if modes.clear is None else modes.clear.any(axis=1).tobytes())  # fmt: skip
    return (
        type(loop), getattr(loop, "make_steps", None), loop.input_gradient, seq.cell, seq.dtype.name,
        (seq.T, seq.B, seq.H, seq.P, x.shape[2]), seq.reverse, *masks,
        *((a.shape, a.dtype.name) for a in seq.arrays), *(state is None for state in states),
        *((a if a is None else (a.data.ptr, a.shape, a.strides)) for a in arrays),
        seq.backend.xp.cuda.get_current_stream().ptr, current(),
    )  # fmt: skip


def _copies(packed: list[_Packed]) -> tuple:
    return tuple(array for each in packed for array in each.copies())


def _copy(to: Any, given: Any) -> None:
    for room, array in zip(to, given, strict=True):
        if room is not None and room is not array:
            room[...] = array


def _abandon(stream: Any) -> None:
    """End a capture that went wrong."""
    with contextlib.suppress(Exception):  # the error only repeats that the capture is invalid
        stream.end_capture()

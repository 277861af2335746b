"""Predicts a training step on many GPUs: the time of one GPU (cost_times.py) and the all-reduces of the gradients.

The gradients of a layer are ready when its part of the backward pass ends; the last layer comes first. They are summed
in buckets, which are those of gpulstm.parallel.gradients. An all-reduce begins when its bucket is full and the one
before has ended, while the backward pass is still running. The part that remains after the backward pass makes the step
longer.

The time of an all-reduce is the latency of its hops plus its bytes over the slowest link, as in NCCL's own model, for
the fastest of NCCL's protocols. In a ring of n GPUs the data makes 2 (n - 1) hops. In a tree it goes along the GPUs of
a node and up through the nodes, and back.

Not counted: the optimizer, reading the batches, the two small MPI sums of every step, the multiprocessors that NCCL's
kernels use, and the sums inside NVLink (NVLS), which make an all-reduce within a node a third faster.
"""

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.cost_counts import PASSES, Numbers
from benchmarks.cost_facts import GPUS, PRECISIONS
from benchmarks.cost_links import ALGORITHMS, LINKS, POST, PROTOCOLS, SHARED, Links, Protocol
from benchmarks.cost_times import outside_time, predict
from benchmarks.problem import Shape
from gpulstm.cells import CELLS
from gpulstm.parallel.gradients import BUCKET

SUM = 4  # bytes of a number in an all-reduce: gradients are summed in float32, however they are stored
SCALING = ("weak", "strong")


@dataclass(frozen=True)
class Model:
    """Recurrent layers, and with a vocabulary the embedding below and the linear layer above them."""

    gpu: str
    cell: str
    precision: str
    paths: tuple[str, ...]
    vocabulary: int = 0


@dataclass(frozen=True)
class Part:
    """A part of the backward pass: its microseconds, and the sizes of the parameters that then have their gradients."""

    us: float
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """A training step of one GPU: the forward pass in microseconds, and the backward pass in its order."""

    forward: float
    parts: tuple[Part, ...]

    @property
    def compute(self) -> float:
        """Microseconds of both passes."""
        return self.forward + sum(part.us for part in self.parts)


# -- all-reduces -----------------------------------------------------------------------------------------------------


def all_reduce(links: Links, algorithm: str, nbytes: int, nodes: int, per_node: int) -> float:
    """Microseconds of an all-reduce by nodes of ``per_node`` GPUs each; 0 for one GPU alone."""
    if nodes * per_node == 1:
        return 0.0
    return min(_by(protocol, links, algorithm, nbytes, nodes, per_node) for protocol in PROTOCOLS[algorithm].values())


def _by(protocol: Protocol, links: Links, algorithm: str, nbytes: int, nodes: int, per_node: int) -> float:
    gpus, bus = nodes * per_node, links.nvlink.value
    if nodes > 1:
        bus = min(bus, per_node * links.adapter.value)
    if algorithm == "ring":
        hops = 2 * (gpus - 1)
        far = min(hops, 2 * nodes) if nodes > 1 else 0
        near_us = max(protocol.nvlink.value, POST.value if nodes > 1 else 0.0)
        latency, sent = (hops - far) * near_us + far * protocol.network.value, hops / gpus
    else:
        up = (per_node - 1) * protocol.nvlink.value + math.ceil(math.log2(nodes)) * protocol.network.value
        latency, sent = 2 * up, 2.0
    return protocol.base.value + latency + sent * nbytes / (bus * protocol.share.value * 1e3)


def shared_all_reduce(nbytes: int, processes: int) -> float:
    """Microseconds of an all-reduce by processes of one machine, with a core each; 0 for one alone."""
    sent = 2 * (processes - 1) / processes * nbytes
    return SHARED.latency.value * math.ceil(math.log2(processes)) + sent / (SHARED.bandwidth.value * 1e3)


# -- a step ----------------------------------------------------------------------------------------------------------


@functools.cache
def step_of(model: Model, shape: Shape) -> Step:
    """A step of one GPU, on the fastest of the model's paths; the precision is one that the GPU has."""
    gpu, n, H = GPUS[model.gpu], Numbers.of(CELLS[model.cell]), shape.H
    forward, parts = 0.0, []
    if model.vocabulary:
        rows, wide = shape.B * shape.T, H * shape.directions
        up = [(rows, model.vocabulary, wide)]
        down = [(model.vocabulary, wide, rows), (rows, wide, model.vocabulary)]
        forward += outside_time(gpu, up, model.precision)
        head_us = outside_time(gpu, down, model.precision)
        parts.append(Part(head_us, (model.vocabulary, model.vocabulary * wide)))
    for layer in reversed(range(shape.layers)):
        inputs = shape.D if layer == 0 else H * shape.directions
        one = replace(shape, D=inputs, layers=1)
        up_us, down_us = (_fastest(model, one, way, layer > 0 or model.vocabulary > 0) for way in PASSES)
        forward += up_us
        weights = (n.V * H, n.G * H, n.G * H, n.W * H * H, n.G * H * inputs)
        parts.append(Part(down_us, tuple(filter(None, weights * shape.directions))))
    if model.vocabulary:
        parts.append(Part(0.0, (model.vocabulary * shape.D,)))
    return Step(forward, tuple(parts))


def _fastest(model: Model, shape: Shape, way: str, input_gradient: bool) -> float:
    """Microseconds of a pass through one layer; infinite where no path can serve it."""
    found = (
        predict(GPUS[model.gpu], CELLS[model.cell], shape, path, way, model.precision, input_gradient).whole
        for path in model.paths
    )
    return shape.T * min((us for us in found if not math.isnan(us)), default=math.inf)


def buckets(step: Step, size: int) -> list[tuple[int, float]]:
    """(bytes to sum, microseconds from the step's begin until they are there); ``size`` is that of a stored number.

    A bucket is full when it has BUCKET bytes of parameters, as in gpulstm.parallel.gradients.
    """
    found: list[tuple[int, float]] = []
    now, stored = step.forward, BUCKET
    for part in step.parts:
        now += part.us
        for numbers in part.sizes:
            if stored >= BUCKET:
                found.append((0, now))
                stored = 0
            found[-1] = found[-1][0] + SUM * numbers, now
            stored += size * numbers
    return found


def end_of_sums(full: Iterable[tuple[int, float]], time: Callable[[int], float]) -> float:
    """When the last sum ends: each begins when its bucket is full and the one before has ended."""
    end = 0.0
    for nbytes, ready in full:
        end = max(end, ready) + time(nbytes)
    return end


# -- many GPUs -------------------------------------------------------------------------------------------------------


def sizes(nodes: int, per_node: int) -> list[tuple[int, int]]:
    """(nodes, GPUs of each), from one GPU to the most by doubling."""

    def doubled(most: int) -> list[int]:
        return sorted({*(1 << k for k in range(most.bit_length())), most})

    return [(1, gpus) for gpus in doubled(per_node)] + [(count, per_node) for count in doubled(nodes)[1:]]


def rows_of(model: Model, shape: Shape, nodes: int, per_node: int, scaling: str) -> list[dict[str, Any]]:
    """A row for each number of GPUs. The shape's batch is that of each GPU, or with strong scaling of all together."""
    alone, rows = step_of(model, shape).compute, []
    for count, each in sizes(nodes, per_node):
        gpus = count * each
        if scaling == "strong" and gpus > shape.B:
            break
        batch = math.ceil(shape.B / gpus) if scaling == "strong" else shape.B
        step = step_of(model, replace(shape, B=batch))
        row = {**vars(model), **vars(shape), "scaling": scaling, "nodes": count, "gpus": gpus, "batch_of_each": batch}
        row["compute_ms"] = 1e-3 * step.compute
        ideal = alone / gpus if scaling == "strong" else alone
        for algorithm in ALGORITHMS:
            row |= _with(step, model, algorithm, count, each, ideal)
        rows.append(row)
    return rows


def _with(step: Step, model: Model, algorithm: str, nodes: int, per_node: int, ideal: float) -> dict[str, Any]:
    """The columns of one algorithm; ``ideal`` is the step in microseconds if nothing were lost."""
    full = buckets(step, PRECISIONS[model.precision])
    time = functools.partial(all_reduce, LINKS[model.gpu], algorithm, nodes=nodes, per_node=per_node)
    summing = sum(time(nbytes) for nbytes, _ in full)
    whole = max(step.compute, end_of_sums(full, time))
    return {
        f"{algorithm}_ms": 1e-3 * summing,
        f"{algorithm}_hidden": 1 - (whole - step.compute) / summing if summing else None,
        f"{algorithm}_step_ms": 1e-3 * whole,
        f"{algorithm}_efficiency": ideal / whole,
    }


def speed_of_processes(step_us: float, gradient_bytes: int, processes: int) -> float:
    """How many times as fast as one process, whose step takes ``step_us``, several train with a core each.

    Nothing is hidden: MPI moves bytes only while a process waits for them.
    """
    return step_us / (step_us / processes + shared_all_reduce(gradient_bytes, processes))


def gradient_bytes(step: Step) -> int:
    """Bytes that all sums of a step move together."""
    return sum(SUM * numbers for part in step.parts for numbers in part.sizes)


def why_no_links(gpu: str) -> str:
    """Why there is no prediction for several of the GPU, or ""."""
    return "" if gpu in LINKS else f"the model has no numbers for what joins several {gpu}: it has no NVLink"

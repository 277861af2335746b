"""The constants of an all-reduce between GPUs and processes, each with its source and a mark (see cost_facts.py).

Bandwidths are what nccl-tests calls the bus bandwidth: what one GPU sends, and at the same time receives. Latencies
come from NCCL's own model: a sum has a fixed start-up time (``base``), and then goes from one GPU to the next. NCCL has
three protocols; a protocol with more bandwidth has a longer latency per hop. "NCCL #1" and "nccl-tests #1" are issues
on GitHub in which NCCL's developers or users report measurements.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

from benchmarks.cost_facts import Fact, measured, published


@dataclass(frozen=True)
class Links:
    """What joins the GPUs of one kind."""

    nvlink: Fact  # of one GPU, inside a node
    adapter: Fact  # of one InfiniBand adapter; every GPU has one


LINKS = {
    "H200": Links(
        nvlink=published(370, "GB/s", "nccl-tests #212, H100: a ring on NVLink 4, which has 450 in one direction"),
        adapter=published(47, "GB/s", "nccl-tests #290: 46 to 48 of NDR's 400 Gb/s"),
    ),
    "A100": Links(
        nvlink=published(232.5, "GB/s", "nccl-tests #175: eight GPUs on NVLink 3, which has 300 in one direction"),
        adapter=published(24, "GB/s", "NCCL #812: 192 by the eight adapters of a DGX A100, HDR's 200 Gb/s each"),
    ),
}
ALGORITHMS = ("ring", "tree")
_NCCL = "NCCL 2.20, src/graph/tuning.cc"


@dataclass(frozen=True)
class Protocol:
    """One way in which NCCL sends numbers."""

    base: Fact
    nvlink: Fact  # of a hop inside a node
    network: Fact  # of a hop from node to node
    share: Fact  # of the bandwidth


def _protocol(base: float, nvlink: float, network: float, share: float) -> Protocol:
    latencies = (published(us, "µs", _NCCL) for us in (base, nvlink, network))
    return Protocol(*latencies, share=published(share, "", _NCCL))


# A tree has 0.92 of a ring's bandwidth before its protocol takes a share.
PROTOCOLS = {
    "ring": {
        "LL": _protocol(6.6, 0.6, 2.7, 1 / 4),
        "LL128": _protocol(14.0, 1.9, 4.0, 0.92),
        "Simple": _protocol(8.4, 3.4, 14.0, 1.0),
    },
    "tree": {
        "LL": _protocol(6.8, 0.6, 5.0, 0.92 / 3.8),
        "LL128": _protocol(14.0, 1.25, 8.5, 0.92 * 120 / 128),
        "Simple": _protocol(0.0, 28.0, 28.0, 0.92),
    },
}
POST = published(1.0, "µs", _NCCL + ": a step of a ring over several nodes takes the host at least so long")


@dataclass(frozen=True)
class Shared:
    """An all-reduce of NumPy arrays by processes of one machine, MPICH over shared memory."""

    latency: Fact  # of two processes
    bandwidth: Fact


SHARED = Shared(
    latency=measured(18.6, "µs", "benchmarks/results/parallel-cpu.md: two cores of an EPYC 7001"),
    bandwidth=measured(2.25, "GB/s", "benchmarks/results/parallel-cpu.md: two cores of an EPYC 7001"),
)


def constants() -> Iterator[dict[str, object]]:
    """Every fact as a row: of, name, value, unit, mark, source."""
    holders = [*LINKS.items(), ("processes", SHARED)]
    named = [(of, f.name, getattr(facts, f.name)) for of, facts in holders for f in fields(facts)]
    for algorithm, protocols in PROTOCOLS.items():
        for name, protocol in protocols.items():
            named += [(f"{algorithm}, {name}", f.name, getattr(protocol, f.name)) for f in fields(protocol)]
    for of, name, fact in [*named, ("ring", "post", POST)]:
        yield {"of": of, "name": name, **vars(fact)}

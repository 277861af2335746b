"""The constants of the cost model, each with its source and a mark that says how it is known.

measured    on this project's own code
published   by the named source
estimated   from similar published figures, or from the compiler's output; to be replaced by a measurement

Rates are for dense products with sums in float32. A measurement of `python -m benchmarks.gpu` should replace an
estimate here.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

PRECISIONS = {"float32": 4, "tf32": 4, "bfloat16": 2, "float16": 2}  # bytes of a stored number


@dataclass(frozen=True)
class Fact:
    """A number with its unit, its mark and where it comes from."""

    value: float
    unit: str
    mark: str
    source: str


def published(value: float, unit: str, source: str) -> Fact:
    return Fact(value, unit, "published", source)


def estimated(value: float, unit: str, source: str) -> Fact:
    return Fact(value, unit, "estimated", source)


def measured(value: float, unit: str, source: str) -> Fact:
    return Fact(value, unit, "measured", source)


@dataclass(frozen=True)
class Gpu:
    """One GPU. A rate that is None is a precision its tensor cores do not have."""

    multiprocessors: Fact
    clock: Fact
    dram: Fact
    l2_size: Fact
    l2: Fact  # bandwidth of all multiprocessors together
    l2_latency: Fact  # from a load to its number
    registers: Fact  # of a multiprocessor
    shared: Fact  # the most that one block can have
    float32: Fact
    tf32: Fact | None
    bfloat16: Fact | None
    float16: Fact
    mma: Fact  # share of the tensor cores' rate that a kernel with mma.sync reaches
    stream: Fact  # from one kernel to the next in a stream
    node: Fact  # from one kernel to the next in a CUDA graph
    barrier: Fact  # of all blocks of a cooperative kernel, with flags in L2
    polling: Fact  # from a block's store to another block that waits for the number itself


_GUIDE = "CUDA programming guide, compute capability "
_BUBBLES = "Hazy Research, Look Ma, No Bubbles, 2025 (an H100)"
_NEIGHBOUR = "the H100's figure, scaled by clock and size"
_MACHINE_CODE = "instructions of an early version's machine code"

GPUS = {
    "H200": Gpu(
        multiprocessors=published(132, "", "H100 white paper"),
        clock=estimated(1.83, "GHz", "the published tensor rate over the number of tensor cores"),
        dram=published(4.8, "TB/s", "H200 datasheet"),
        l2_size=published(50, "MB", "H100 white paper"),
        l2=estimated(5.5, "TB/s", "microbenchmarks of the H100"),
        l2_latency=estimated(0.16, "µs", "about 270 cycles"),
        registers=published(256, "KB", _GUIDE + "9.0"),
        shared=published(227, "KB", _GUIDE + "9.0"),
        float32=published(67, "TFLOP/s", "H200 datasheet"),
        tf32=published(494.5, "TFLOP/s", "H200 datasheet, half the rate with sparsity"),
        bfloat16=published(989.5, "TFLOP/s", "H200 datasheet, half the rate with sparsity"),
        float16=published(989.5, "TFLOP/s", "H200 datasheet, half the rate with sparsity"),
        mma=estimated(0.62, "", "the full rate needs wgmma"),
        stream=published(2.1, "µs", _BUBBLES),
        node=published(1.3, "µs", _BUBBLES),
        barrier=estimated(1.0, "µs", "about six times the latency of L2"),
        polling=estimated(0.55, "µs", "a store, a load that misses it, and one that finds it"),
    ),
    "A100": Gpu(
        multiprocessors=published(108, "", "A100 datasheet, 80 GB SXM"),
        clock=published(1.41, "GHz", "A100 white paper"),
        dram=published(2.039, "TB/s", "A100 datasheet, 80 GB SXM"),
        l2_size=published(40, "MB", "A100 white paper"),
        l2=estimated(3.5, "TB/s", "half of the white paper's 5,120 bytes a clock"),
        l2_latency=estimated(0.16, "µs", "about 220 cycles"),
        registers=published(256, "KB", _GUIDE + "8.0"),
        shared=published(163, "KB", _GUIDE + "8.0"),
        float32=published(19.5, "TFLOP/s", "A100 datasheet"),
        tf32=published(156, "TFLOP/s", "A100 datasheet"),
        bfloat16=published(312, "TFLOP/s", "A100 datasheet"),
        float16=published(312, "TFLOP/s", "A100 datasheet"),
        mma=estimated(0.9, "", "mma.sync is the A100's own instruction"),
        stream=estimated(2.4, "µs", _NEIGHBOUR),
        node=estimated(1.5, "µs", _NEIGHBOUR),
        barrier=estimated(1.2, "µs", _NEIGHBOUR),
        polling=estimated(0.65, "µs", _NEIGHBOUR),
    ),
    "RTX 4090": Gpu(
        multiprocessors=published(128, "", "Ada white paper"),
        clock=published(2.52, "GHz", "Ada white paper"),
        dram=published(1.008, "TB/s", "Ada white paper"),
        l2_size=published(72, "MB", "Ada white paper"),
        l2=estimated(5.0, "TB/s", "microbenchmarks of the generation"),
        l2_latency=estimated(0.12, "µs", "about 300 cycles"),
        registers=published(256, "KB", _GUIDE + "8.9"),
        shared=published(99, "KB", _GUIDE + "8.9"),
        float32=published(82.6, "TFLOP/s", "Ada white paper"),
        tf32=published(82.6, "TFLOP/s", "Ada white paper"),
        bfloat16=published(165.2, "TFLOP/s", "Ada white paper"),
        float16=published(165.2, "TFLOP/s", "Ada white paper"),
        mma=estimated(0.9, "", "mma.sync is the generation's own instruction"),
        stream=estimated(2.1, "µs", _NEIGHBOUR),
        node=estimated(1.3, "µs", _NEIGHBOUR),
        barrier=estimated(1.0, "µs", _NEIGHBOUR),
        polling=estimated(0.55, "µs", _NEIGHBOUR),
    ),
    "T4": Gpu(
        multiprocessors=published(40, "", "Turing white paper"),
        clock=estimated(1.3, "GHz", "between the base of 0.585 and the boost of 1.59, at 70 W"),
        dram=published(0.32, "TB/s", "T4 datasheet"),
        l2_size=published(4, "MB", "Turing white paper"),
        l2=estimated(1.2, "TB/s", "microbenchmarks of the generation"),
        l2_latency=estimated(0.2, "µs", "about 240 cycles"),
        registers=published(256, "KB", _GUIDE + "7.5"),
        shared=published(64, "KB", _GUIDE + "7.5"),
        float32=published(8.1, "TFLOP/s", "T4 datasheet"),
        tf32=None,
        bfloat16=None,
        float16=published(65, "TFLOP/s", "T4 datasheet"),
        mma=estimated(0.65, "", "the clock that 70 W allow, and 0.8 of what is then left"),
        stream=estimated(3.0, "µs", _NEIGHBOUR),
        node=estimated(2.0, "µs", _NEIGHBOUR),
        barrier=estimated(1.5, "µs", _NEIGHBOUR),
        polling=estimated(0.8, "µs", _NEIGHBOUR),
    ),
}


@dataclass(frozen=True)
class Common:
    """What is taken to be the same on every GPU."""

    l2_port: Fact
    shared_port: Fact
    dram_share: Fact
    cublas: Fact
    fma: Fact
    exposed: Fact
    gates: Fact
    threads: Fact
    own_registers: Fact
    host_launch: Fact
    host_product: Fact
    host_call: Fact


COMMON = Common(
    l2_port=published(64, "bytes a clock", "NVIDIA's white papers: from L2 into one multiprocessor"),
    shared_port=published(128, "bytes a clock", "NVIDIA's white papers: shared memory of one multiprocessor"),
    dram_share=estimated(0.9, "", "share of the memory's bandwidth that a kernel reaches"),
    cublas=estimated(0.8, "", "share of the peak rate that a large product of cuBLAS reaches"),
    fma=estimated(0.7, "", "share of the float32 rate that a kernel without tensor cores reaches"),
    exposed=estimated(0.25, "", "share of the shorter of loads and arithmetic that the longer does not hide"),
    gates=estimated(0.3, "µs", _MACHINE_CODE + ": from the sums to the stored h"),
    threads=estimated(256, "", "threads of a block, of which a multiprocessor has one"),
    own_registers=estimated(75, "", _MACHINE_CODE + ": of a thread, beside sums and weights"),
    host_launch=estimated(2.25, "µs", "the driver's part of a launch, on the host"),
    host_product=estimated(4.0, "µs", "cuBLAS's and the driver's part of a product, on the host"),
    host_call=measured(155, "µs", "a layer's call beside its steps; emulated CUDA, B 32, D 128, H 256"),
)
_LOOP = "the Python of a step, no driver's time in it; emulated CUDA, B 32, D 128, H 256"
# Cell -> the host's time for a step forward and backward; a cell that is not here has the LSTM's.
HOST = {
    "lstm": (measured(23, "µs", _LOOP), measured(22, "µs", _LOOP)),
    "gru": (measured(21, "µs", _LOOP), measured(21, "µs", _LOOP)),
    "rnn": (measured(19, "µs", _LOOP), measured(19, "µs", _LOOP)),
    "slstm": (measured(31, "µs", _LOOP), measured(24, "µs", _LOOP)),
}


def why_no(gpu: str, precision: str) -> str:
    """Why the GPU cannot compute in the precision, or ""."""
    if getattr(GPUS[gpu], precision) is not None:
        return ""
    return f"the {gpu} has no {precision}: its tensor cores take float16 alone"


def constants() -> Iterator[dict[str, object]]:
    """Every fact as a row: of, name, value, unit, mark, source."""
    named = [(gpu, f.name, getattr(facts, f.name)) for gpu, facts in GPUS.items() for f in fields(facts)]
    named += [("all GPUs", f.name, getattr(COMMON, f.name)) for f in fields(COMMON)]
    named += [("host", f"{cell} {way}", fact) for cell, pair in HOST.items()
              for way, fact in zip(("forward", "backward"), pair, strict=True)]  # fmt: skip
    for of, name, fact in named:
        if fact is not None:
            yield {
                "of": of,
                "name": name,
                "value": fact.value,
                "unit": fact.unit,
                "mark": fact.mark,
                "source": fact.source,
            }

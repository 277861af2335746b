"""The cost model: what it counts, that its times behave, what it prints and what it refuses."""

import dataclasses
import itertools
import math
import re

import pytest

from benchmarks import cost_beside, cost_counts, cost_facts, cost_report, cost_tiles, cost_times, floor, harness, model
from benchmarks.cost_counts import PASSES, PATHS, PERSISTENT, Numbers
from benchmarks.cost_facts import GPUS, PRECISIONS
from benchmarks.problem import Shape
from gpulstm.cells import CELLS
from tests.benchmark_fakes import ROOT, sequence_row

CELL_NAMES = tuple(name for name, cell in CELLS.items() if not cost_counts.why_not(cell))
pytestmark = pytest.mark.slow  # a harness that no version of a dependency changes

SMALL = Shape(2, 5, 3, 4)  # B, T, D, H


def numbers(name: str) -> Numbers:
    return Numbers.of(CELLS[name])


def usual(**wanted: str) -> list[tuple]:
    """(gpu, precision, case, path, pass) of the default run, only those that have the values wanted."""
    names = ("gpu", "precision", "case", "path", "way")
    every = itertools.product(GPUS, PRECISIONS, model.SHAPES, PATHS, PASSES)
    return [
        each for each in every
        if not cost_facts.why_no(*each[:2]) and wanted.items() <= dict(zip(names, each, strict=True)).items()
    ]  # fmt: skip


def time_of(gpu, precision, case, path, way, cell="lstm") -> float:
    return cost_times.predict(gpu, CELLS[cell], case, path, way, precision).loop


# -- what is counted
# ---------------------------------------------------------------------------------------------
def test_the_cells_that_the_model_knows_are_the_ones_with_one_product_and_one_kernel():
    assert {"lstm", "gru", "rnn", "peephole", "coupled", "slstm", "general"} == set(CELL_NAMES)
    assert numbers("lstm") == Numbers(G=4, S=2, K=4, V=0, W=4, split=0, direct=0)
    assert numbers("gru") == Numbers(G=3, S=1, K=4, V=0, W=3, split=1, direct=1)
    assert "scan" in cost_counts.why_not(CELLS["minlstm"]) and "norms" in cost_counts.why_not(CELLS["layer_norm"])


# B * H = 8 units; 4 H * H = 64 weights; float32 is 4 bytes and a float16 number 2, but c and dc are 4 always.
BY_HAND = {
    # zx 4, kept 4, h out, c in and out, zr out and in 8, h in: 20 numbers a unit
    ("lstm", "step", "forward", "float32"): 8 * 20 * 4 + 64 * 4,
    ("lstm", "graph", "forward", "float16"): 8 * (18 * 2 + 2 * 4) + 64 * 2,
    # without zr
    ("lstm", "fused", "forward", "float32"): 8 * 12 * 4 + 64 * 4,
    # without the old c, and without weights
    ("lstm", "polling", "forward", "float32"): 8 * 11 * 4,
    ("lstm", "barrier", "forward", "bfloat16"): 8 * (10 * 2 + 4),
    # kept 4, dy, c before, dz out 4 and in 4, dc in and out, dh out and in: 18 numbers
    ("lstm", "step", "backward", "tf32"): 8 * 18 * 4 + 64 * 4,
    ("lstm", "fused", "backward", "float16"): 8 * (13 * 2 + 3 * 4) + 64 * 2,
    ("lstm", "barrier", "backward", "float32"): 8 * 14 * 4,
    # zx 3, kept 4, h out, zr 6, h for the product and for the gates; 3 H * H = 48 weights
    ("gru", "step", "forward", "float32"): 8 * 16 * 4 + 48 * 4,
    # kept 4, dy, dzx 3, dzr 3 and in 3, h_prev, direct in and out, dh out and in
    ("gru", "graph", "backward", "float32"): 8 * 19 * 4 + 48 * 4,
    ("rnn", "fused", "forward", "float32"): 8 * 4 * 4 + 16 * 4,  # zx, kept, h out, h in
}


@pytest.mark.parametrize("case", BY_HAND, ids="-".join)
def test_bytes_are_those_counted_by_hand(case):
    cell, path, way, precision = case
    resident = 1.0 if path in PERSISTENT else 0.0
    assert cost_counts.step_bytes(numbers(cell), SMALL, path, way, precision, resident) == BY_HAND[case]


def stated(kernel: str, n: Numbers) -> int:
    """The values a unit that the head of a kernel in step.cu says it moves."""
    text = (ROOT / "kernels" / "step.cu").read_text()
    head = text[: text.index(f"void {kernel}(")]
    formula = re.findall(r"// Moves ([\dGSKV+\- ]+) values a unit", head)[-1]
    return eval(re.sub(r"(\d) ([A-Z])", r"\1*\2", formula), dataclasses.asdict(n))


@pytest.mark.parametrize("cell", [c for c in CELL_NAMES if CELLS[c].row["states"] == 2])
@pytest.mark.parametrize("way", PASSES)
def test_the_gate_kernel_moves_what_its_head_says(cell, way):
    n = dataclasses.replace(numbers(cell), V=0)  # sums of vectors are stated apart
    of_kernel = {**cost_counts.streamed(n, way, 4), **cost_counts.carried(n, "step", way, 4)}
    half = {"zr": 2, "dh": 2}  # the product writes them, the gate kernel reads them
    values = sum(nbytes / 4 / half.get(name, 1) for name, nbytes in of_kernel.items())
    assert values == stated(f"step_{way}", n)


def test_operations_are_those_counted_by_hand():
    n, case = numbers("lstm"), SMALL
    assert cost_counts.step_operations(n, SMALL) == 2 * 2 * 16 * 4
    # x (10, 3) by W_ih (16, 3) transposed, and five steps of h (2, 4) by W_hh (16, 4) transposed
    assert cost_counts.operations(n, case, "forward") == 2 * 10 * 16 * 3 + 5 * 2 * 2 * 16 * 4
    assert cost_counts.outside(n, case, "backward") == [(16, 3, 10), (16, 4, 10)]
    assert cost_counts.outside(n, case, "backward", input_gradient=True)[-1] == (10, 3, 16)


@pytest.mark.parametrize("shape", [Shape(64, 512, 512, 512), Shape(3, 7, 5, 5)])
def test_operations_of_training_are_48_H2_B_T_where_D_is_H(shape):
    n = numbers("lstm")
    training = sum(cost_counts.operations(n, shape, way, input_gradient=True) for way in PASSES)
    assert training == 48 * shape.H**2 * shape.B * shape.T


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_operations_are_those_of_the_processors_floor(cell):
    rows = len(CELLS[cell].gates) * SMALL.H
    weights = [(rows, SMALL.D), (rows, SMALL.H)]
    forward, backward = (cost_counts.operations(numbers(cell), SMALL, way) for way in PASSES)
    assert forward == floor.operations(SMALL, weights, "inference")
    assert forward + backward == floor.operations(SMALL, weights, "training")


def test_layers_and_directions_add_up():
    n, shape = numbers("lstm"), Shape(2, 5, 3, 4)
    stack = dataclasses.replace(shape, layers=3, directions=2)
    assert stack.inputs() == [3, 3, 8, 8, 8, 8] and stack.loops == 6
    first, above = dataclasses.replace(shape, directions=2), Shape(2, 5, 8, 4, directions=2)
    whole = cost_counts.operations(n, stack, "forward")
    assert whole == sum(cost_counts.operations(n, case, "forward") for case in (first, above, above))
    dx = sum(M * N * K for M, N, K in cost_counts.outside(n, above, "backward", True)[2::3])
    one_less = cost_counts.outside(n, stack, "backward")
    assert sum(M * N * K for M, N, K in one_less if N == 8 and M == 10) == 2 * dx
    one = cost_times.predict(GPUS["H200"], CELLS["lstm"], shape, "fused", "forward", "float32")
    six = cost_times.predict(GPUS["H200"], CELLS["lstm"], stack, "fused", "forward", "float32")
    assert (six.bytes, six.operations, six.launches) == (6 * one.bytes, 6 * one.operations, 6 * one.launches)
    assert six.loop == pytest.approx(6 * one.loop) and stack.words() == "2,5,3,4, 3 layers, both directions"


@pytest.mark.parametrize("cell", CELL_NAMES)
@pytest.mark.parametrize("path", PATHS)
def test_a_larger_batch_never_moves_fewer_bytes(cell, path):
    for way, precision in itertools.product(PASSES, PRECISIONS):
        moved = [cost_counts.step_bytes(numbers(cell), Shape(B, 9, 64, 64), path, way, precision) for B in range(1, 70)]
        assert moved == sorted(set(moved))


def test_a_path_that_keeps_more_on_the_chip_moves_less():
    for way, precision in itertools.product(PASSES, PRECISIONS):
        moved = [cost_counts.step_bytes(numbers("lstm"), SMALL, path, way, precision) for path in PATHS]
        step, graph, fused, barrier, polling = moved
        assert step == graph > fused > barrier == polling
    assert [cost_counts.launches(path) for path in PATHS] == [2, 2, 1, 0, 0]


# -- how long it takes
# -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("gpu", GPUS)
def test_every_case_has_a_time_above_0_or_a_reason(gpu):
    for cell, (_, precision, case, path, way) in itertools.product(("lstm", "gru", "rnn"), usual(gpu=gpu)):
        p = cost_times.predict(GPUS[gpu], CELLS[cell], case, path, way, precision)
        if p.reason:
            assert math.isnan(p.loop) and path in PERSISTENT
            continue
        assert 0 < p.loop < 1e4 and 0 < p.outside < 1e4 and p.bytes > 0 and p.operations > 0
        assert p.bound in p.terms and all(math.isfinite(term) and term >= 0 for term in p.terms.values())
        largest = max((term for term in p.terms if term != "host"), key=lambda term: p.terms[term])
        assert p.bound in ("host", largest) and (p.bound == "host") == (p.loop == p.terms["host"])
        assert 0 <= p.resident <= 1 and (p.resident > 0) == (path in PERSISTENT)
        assert p.loop >= max(p.terms["host"], p.terms[largest]) * (1 - 1e-12), "less than one of its parts"
    known = {precision for precision in PRECISIONS if not cost_facts.why_no(gpu, precision)}
    assert known == (set(PRECISIONS) - {"tf32", "bfloat16"} if gpu == "T4" else set(PRECISIONS))


def test_blocks_that_cannot_all_be_on_the_gpu_are_a_reason():
    case = Shape(4096, 8, 4096, 4096)
    p = cost_times.predict(GPUS["T4"], CELLS["lstm"], case, "barrier", "forward", "float16")
    assert math.isnan(p.loop) and "cannot all be on the GPU" in p.reason and p.bytes > 0
    assert time_of(GPUS["T4"], "float16", case, "fused", "forward") > 0


FASTER = ("dram", "l2", "l2_size", "float32", "tf32", "bfloat16", "float16", "mma", "clock")
SLOWER = ("l2_latency", "stream", "node", "barrier", "polling")


@pytest.mark.parametrize("name", [*FASTER, *SLOWER])
def test_more_bandwidth_is_never_slower_and_less_latency_neither(name):
    better = 0
    for gpu, precision, case, path, way in usual(gpu="H200") + usual(gpu="T4"):
        if case not in model.SHAPES[:6:2]:
            continue  # three sizes are enough
        old = GPUS[gpu]
        fact = getattr(old, name)
        if fact is None:
            continue
        factor = 2 if name in FASTER else 0.5
        new = dataclasses.replace(old, **{name: dataclasses.replace(fact, value=factor * fact.value)})
        before, after = (time_of(each, precision, case, path, way) for each in (old, new))
        assert after <= before * (1 + 1e-12), (gpu, precision, str(case), path, way)
        better += after < before * 0.999
    assert better, f"{name} changes nothing anywhere"


@pytest.mark.parametrize("path", PATHS)
def test_a_larger_batch_is_never_faster(path):
    for way, precision in itertools.product(PASSES, ("float32", "bfloat16")):
        times = [time_of(GPUS["H200"], precision, Shape(B, 64, 512, 512), path, way) for B in (1, 7, 8, 16, 33, 64)]
        assert times == sorted(times)


def test_weights_stay_on_the_chip_while_they_fit():
    def share(gpu: str, H: int, precision: str) -> float:
        case = Shape(16, 64, H, H)
        return cost_times.predict(GPUS[gpu], CELLS["lstm"], case, "polling", "forward", precision).resident

    assert share("H200", 1024, "bfloat16") == share("H200", 512, "float32") == share("T4", 256, "float16") == 1
    shares = [share("H200", H, "float32") for H in (512, 1024, 2048, 4096)]
    assert shares == sorted(shares, reverse=True) and shares[-1] < 0.5


def test_weights_come_from_memory_where_l2_is_too_small():
    product = cost_tiles.Product(1024, 16, 4, 1024, 4, plain=True)
    tile = cost_tiles.Tile(16, 16, 8, 1, 1)
    far = {gpu: cost_tiles.work(GPUS[gpu], product, tile, 1e6, False).terms["weights (DRAM)"] for gpu in GPUS}
    assert far == {"H200": 0, "A100": 0, "RTX 4090": 0, "T4": pytest.approx(4 * 1024**2 * 4 / (0.32e6 * 0.9))}


def test_one_tile_by_hand():
    """64 rows and 512 units on 132 multiprocessors: 16 units and 32 rows a block, 32 x 2 blocks."""
    gpu, peak = GPUS["H200"], 1e9
    tile = cost_tiles.Tile(16, 32, 8, 1, 1)
    got = cost_tiles.work(gpu, cost_tiles.Product(512, 64, 4, 512, 2, plain=False), tile, peak, False)
    port = min(64 * 1830, 5.5e6 / 64)  # bytes a microsecond
    assert got.blocks == 64 and got.resident == 0
    assert got.terms == {
        "weights (L2)": pytest.approx(64 * 512 * 2 / port),
        "weights (DRAM)": 0,
        "exchange": pytest.approx(32 * 512 * 2 / port),
        "arithmetic": pytest.approx(2 * 64 * 32 * 512 / (peak / 132)),
        "shared memory": pytest.approx(2 * 4 * 8 * 64 * 32 / (128 * 1830)),
    }
    resident = cost_tiles.work(gpu, cost_tiles.Product(512, 64, 4, 512, 2, plain=False), tile, peak, True)
    assert resident.resident == 1 and resident.terms == got.terms | {"weights (L2)": 0}
    many = cost_tiles.work(gpu, cost_tiles.Product(512, 600, 4, 512, 2, plain=False), tile, peak, False)
    assert many.blocks == 608 and many.terms["arithmetic"] == 5 * got.terms["arithmetic"]  # 608 on 132: five waves
    assert many.terms["weights (L2)"] == pytest.approx(5 * 64 * 512 * 2 / (5.5e6 / 132))
    loads = got.terms["weights (L2)"] + got.terms["exchange"]
    others = (got.terms["arithmetic"], got.terms["shared memory"], 0.5)
    assert got.longest_with(0.5) == pytest.approx(
        max(loads, *others) + 0.25 * (loads + sum(others) - max(loads, *others))
    )


def test_a_step_by_hand():
    """Two kernels of a graph, then one kernel, at B 64 and H 512 in bfloat16; zx, kept, h and c are the sequence's."""
    case, units = Shape(64, 512, 512, 512), 64 * 512
    streamed = units * (2 * (4 + 4 + 1) + 4) / (4.8e6 * 0.9)
    graph, fused = (
        cost_times.predict(GPUS["H200"], CELLS["lstm"], case, path, "forward", "bfloat16")
        for path in ("graph", "fused")
    )
    passed = units * (2 * (4 + 4 + 1) + 4 + 2 * 8 + 4) / 5.5e6  # with zr, twice, and the old c: all goes through L2
    assert fused.terms["sequence data"] == pytest.approx(streamed)
    assert graph.terms["sequence data"] == pytest.approx(passed) and passed > streamed
    assert (graph.terms["launch"], fused.terms["launch"]) == (2 * 1.3, 1.3)
    assert graph.terms["latency"] == pytest.approx(2 * 0.16 + 0.3) and fused.terms["latency"] == pytest.approx(
        0.16 + 0.3
    )
    for p in (graph, fused):
        t = p.terms
        beside, after = (0.0, passed) if p is graph else (streamed, 0.0)
        parts = (t["weights (L2)"] + t["exchange"], t["arithmetic"], t["shared memory"], beside)
        work = max(parts) + 0.25 * (sum(parts) - max(parts))
        assert p.loop == pytest.approx(t["launch"] + t["latency"] + work + after)
    # (64 x 512, 512) by (512, 4 x 512), at 0.8 of the peak, after one launch, over 512 steps
    assert graph.outside == pytest.approx((2.1 + 2 * 64 * 512 * 512 * 2048 / (989.5e6 * 0.8)) / 512)


def test_the_host_bounds_short_steps_and_a_graph_takes_it_away():
    case = Shape(1, 512, 128, 128)
    step, graph = (
        cost_times.predict(GPUS["H200"], CELLS["lstm"], case, path, "forward", "float32") for path in ("step", "graph")
    )
    assert step.bound == "host" and step.loop == pytest.approx(23 + 2.25 + 4 + 155 / 512)
    assert graph.bound == "launch" and graph.loop == pytest.approx(2 * 1.3 + 2 * 0.16 + 0.3, rel=0.1)
    assert time_of(GPUS["H200"], "float32", case, "polling", "forward") < time_of(
        GPUS["H200"], "float32", case, "barrier", "forward"
    )


def test_every_constant_has_a_source_and_a_mark():
    rows = list(cost_facts.constants())
    assert len(rows) > 70 and {row["mark"] for row in rows} == {"measured", "published", "estimated"}
    assert all(row["source"] and row["value"] > 0 for row in rows)
    assert len({(row["of"], row["name"]) for row in rows}) == len(rows)


# -- what stands beside
# ------------------------------------------------------------------------------------------
def results(folder, gpu: str = "NVIDIA H200", **changes) -> None:
    """A result file as benchmarks.gpu writes it: two sequences of gpulstm and cuDNN, and a row of another part."""
    times = [("gpulstm", "kernel", "inference", 41.0), ("gpulstm", "kernel", "training", 93.0),
             ("torch graph", "cuDNN", "inference", 3.25), ("torch", "cuDNN", "inference", 7.75)]  # fmt: skip
    shape = {"B": 64, "T": 512, "D": 512, "H": 512, "dtype": "bfloat16", "tf32": False}
    rows = [
        {"part": "cudnn"} | sequence_row(name, 1.0, gpu=1.0)
        | {"path": path, "mode": mode, "us_per_step": us} | shape | changes
        for name, path, mode, us in times
    ]  # fmt: skip
    rows.append({"part": "hardware", "measurement": "copy", "value": 4000.0})
    harness.write_json(folder / "gpu.json", {"machine": {"gpu": gpu}, "rows": rows})


def test_measured_times_stand_beside(tmp_path, capsys):
    results(tmp_path)
    asked = ["--gpu", "h200,a100", "--precision", "bfloat16", "--path", "step,graph", "--results", str(tmp_path)]
    file = tmp_path / "out" / "model.json"
    assert model.main([*asked, "--shapes", "64,512,512,512", "--json", str(file)]) == 0
    text = capsys.readouterr().out
    h200, a100 = text.split("== A100")
    assert re.search(r"step +forward .* 41\.0$", h200, re.M) and re.search(r"^ +backward .* 52\.0$", h200, re.M)
    assert "cuDNN in a graph, measured: 3.25 µs" in h200 and "7.75" not in h200
    assert not re.search(r"whole µs +measured", a100.split("== The fastest")[0])
    rows = harness.read(file)["rows"]
    measured = {(r["gpu"], r["path"], r["pass"]): r["measured_us"] for r in rows}
    assert measured["H200", "step", "forward"] == 41 and measured["H200", "step", "backward"] == 52
    assert [value for value in measured.values() if value is not None] == [41, 52]
    (row,) = [r for r in rows if (r["gpu"], r["path"], r["pass"]) == ("H200", "step", "forward")]
    assert row["bound"] == "host" and row["whole_us"] == pytest.approx(row["loop_us"] + row["outside_us"])


@pytest.mark.parametrize(
    "change", [{"gpu": "NVIDIA GH200 480GB"}, {"cell": "gru"}, {"tf32": True}, {"H": 256}, {"part": "losses"}]
)
def test_times_of_something_else_do_not(tmp_path, change):
    results(tmp_path, **change)
    measured = cost_beside.Measured.read(tmp_path)
    case = Shape(64, 512, 512, 512)
    assert measured.times("H200", "lstm", "bfloat16", case, "step") == {}
    results(tmp_path)
    measured = cost_beside.Measured.read(tmp_path)
    assert measured.times("H200", "lstm", "bfloat16", case, "step") == {"forward": 41, "backward": 52}
    assert measured.times("H200", "lstm", "bfloat16", case, "fused") == {}
    stack = dataclasses.replace(case, layers=4)
    assert measured.times("H200", "lstm", "bfloat16", stack, "step") == {}
    results(tmp_path, layers=4)
    measured = cost_beside.Measured.read(tmp_path)
    assert measured.times("H200", "lstm", "bfloat16", stack, "step") == {"forward": 41, "backward": 52}
    assert measured.times("H200", "lstm", "bfloat16", case, "step") == {}


def test_a_path_that_was_asked_for_stands_beside_its_prediction(tmp_path):
    results(tmp_path, implementation="gpulstm persistent", path="persistent")
    measured = cost_beside.Measured.read(tmp_path)
    times = measured.times("H200", "lstm", "bfloat16", Shape(64, 512, 512, 512), "barrier")
    assert times.keys() == {"forward", "backward"}


def test_cudnns_published_times_stand_beside(capsys):
    assert model.main(["--gpu", "h200", "--precision", "float16,bfloat16", "--shapes", "16,1024,768,768"]) == 0
    half, brain = capsys.readouterr().out.split("== H200, bfloat16")
    assert re.search(r"forward +cuDNN, published: 1\.96 µs", half)
    assert re.search(r"backward +cuDNN, published: 3\.11 µs", half)
    assert "published: " not in brain


# -- the command
# -------------------------------------------------------------------------------------------------
def test_the_bare_command_shows_everything_in_a_terminals_width(capsys):
    assert model.main([]) == 0
    text = capsys.readouterr().out
    for gpu, precision in itertools.product(GPUS, PRECISIONS):
        assert f"== {gpu}, {precision}, lstm\n" in text
    assert text.count("B, T, D, H: ") == 14 * len(model.SHAPES)
    assert "the T4 has no tf32" in text and "the T4 has no bfloat16" in text
    assert max(map(len, text.splitlines())) <= 120 and "nan" not in text
    tables = [line for line in text.splitlines() if line.startswith(("  step", "  polling", "           "))]
    assert max(map(len, tables)) <= 100


def test_a_path_without_a_time_says_why(capsys):
    asked = ["--gpu", "t4", "--precision", "float16", "--path", "barrier", "--shapes", "4096,8,4096,4096"]
    assert model.main(asked) == 0
    text = capsys.readouterr().out
    assert re.search(r"barrier +forward .* - +its blocks cannot all be on the GPU at once", text)
    assert re.search(r"T4 +4096,8,4096,4096 +-$", text, re.M) and "nan" not in text


def test_the_constants_are_printed(capsys):
    assert model.main(["--constants"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^H200 +dram +4\.8 +TB/s +published +H200 datasheet$", text, re.M)
    assert len(text.splitlines()) > 70 and "B, T, D, H" not in text


def test_the_fastest_path_is_the_fastest(capsys):
    rows = [
        {"gpu": "G", "precision": "p", "B": 1, "T": 2, "D": 3, "H": 4, "layers": 2, "directions": 1, "path": path,
         "whole_us": us}
        for path, us in (("slow", 1.0), ("fast", 2.0), ("none", math.nan), ("slow", 9.0), ("fast", 3.0))
    ]  # fmt: skip
    assert re.search(r"G +1,2,3,4 x2 +fast 5\.00", cost_report.fastest(rows))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--gpu", "h201"], "--gpu: expected all, or some of h200, a100, rtx4090, t4, got 'h201'"),
        (
            ["--precision", "float64"],
            "--precision: expected all, or some of float32, tf32, bfloat16, float16, got 'float64'",
        ),
        (["--path", "fused,"], "--path: expected all, or some of step, graph, fused, barrier, polling, got ''"),
        (["--cell", "ltsm"], "--cell: expected one of lstm, gru"),
        (["--cell", "mingru"], "the model has no numbers for mingru: mingru has no recurrent product"),
        (["--shapes", "1,2,3"], "--shapes: shape: expected B,T,D,H, four whole numbers above 0, or with"),
        (["--results", "nowhere"], "--results: expected a folder, got nowhere"),
        (["--json", "."], "--json: expected a file, got the folder ."),
    ],
)
def test_wrong_arguments_are_named(given, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        model.main(given)
    assert ended.value.code == 2 and said in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize("text", ["{", "[]", '{"machine": {}, "rows": []}', '{"machine": {"gpu": "x"}, "rows": [1]}'])
def test_a_result_file_that_is_none_is_named(text, tmp_path, capsys):
    (tmp_path / "gpu.json").write_text(text)
    with pytest.raises(SystemExit):
        model.main(["--results", str(tmp_path)])
    assert "gpu.json: expected a result file of benchmarks.gpu" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert model.main(["--constants", "--json", str(tmp_path / "file" / "model.json")]) == 2
    assert "model.json cannot be written" in capsys.readouterr().err

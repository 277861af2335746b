"""The model of training on many GPUs: its limits, its units, its buckets, and what is printed."""

import math
import re

import pytest

import gpulstm as gl
from benchmarks import cost_links, cost_nodes, cost_times, harness, model
from benchmarks.cost_facts import GPUS
from benchmarks.cost_links import ALGORITHMS, LINKS
from benchmarks.cost_nodes import BUCKET, Model, Part, Step, all_reduce
from benchmarks.problem import Shape
from gpulstm.cells import CELLS
from gpulstm.parallel import gradients

pytestmark = pytest.mark.slow  # harnesses that no version of a dependency changes

H200 = LINKS["H200"]
SHAPE = Shape(64, 512, 1024, 1024, layers=4)
KB, MB, GB = 1 << 10, 1 << 20, 1 << 30
CLUSTERS = [(1, 2), (1, 8), (2, 8), (4, 1), (16, 8), (128, 8)]  # (nodes, GPUs of each)


def model_of(gpu="H200", precision="bfloat16", **more):
    return Model(gpu, "lstm", precision, ("graph", "fused", "polling"), **more)


# -- all-reduces
# ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gpu", LINKS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_all_reduce_costs_nothing_alone_and_more_for_more_bytes_and_more_gpus(gpu, algorithm):
    assert all_reduce(LINKS[gpu], algorithm, GB, 1, 1) == 0
    for nbytes in (4 * KB, 4 * MB, GB):
        times = [all_reduce(LINKS[gpu], algorithm, nbytes, 1 << k, 8) for k in range(8)]
        assert times == sorted(set(times)) and times[0] > 0
        assert all_reduce(LINKS[gpu], algorithm, nbytes, 1, 2) <= times[0]
    for cluster in CLUSTERS:
        times = [all_reduce(LINKS[gpu], algorithm, 4 << k, *cluster) for k in range(30)]
        assert times == sorted(set(times))


def test_an_all_reduce_by_hand():
    """1 GB, where latency hardly counts, and 4 bytes, where nothing else does. 370 GB/s are 370,000 bytes a µs."""
    # a ring of 8: 14 hops of 3.4 µs, and 2 * 7 / 8 of the bytes through one GPU's links
    assert all_reduce(H200, "ring", 10**9, 1, 8) == pytest.approx(8.4 + 14 * 3.4 + 1.75e9 / 370e3)
    # a tree with a share of 0.92: all bytes up and down, through 7 GPUs each way
    assert all_reduce(H200, "tree", 10**9, 1, 8) == pytest.approx(2 * 7 * 28 + 2e9 / (0.92 * 370e3))
    # one GPU a node: the adapter's 47 GB/s; in the ring every hop is one of the network
    assert all_reduce(H200, "ring", 10**9, 4, 1) == pytest.approx(8.4 + 6 * 14 + 1.5e9 / 47e3)
    # 16 nodes of 8: 254 hops, 32 of them from node to node, the others as long as the host takes to post them
    assert all_reduce(H200, "ring", 4, 16, 8) == pytest.approx(6.6 + 222 * 1.0 + 32 * 2.7, rel=1e-4)
    assert all_reduce(H200, "tree", 4, 16, 8) == pytest.approx(6.8 + 2 * (7 * 0.6 + 4 * 5.0), rel=1e-4)
    # 8 adapters of 24 GB/s are less than NVLink's 232.5
    slower = all_reduce(LINKS["A100"], "ring", 10**10, 16, 8)
    assert slower == pytest.approx(8.4 + 222 * 3.4 + 32 * 14 + (254 / 128) * 1e10 / 192e3)


def test_a_large_sum_reaches_the_bus_bandwidth_that_was_measured():
    for gpu, nodes, want in (("H200", 1, 370), ("A100", 1, 232.5), ("A100", 2, 192)):
        gpus, nbytes = 8 * nodes, 16 * GB
        us = all_reduce(LINKS[gpu], "ring", nbytes, nodes, 8)
        assert 2 * (gpus - 1) / gpus * nbytes / us / 1e3 == pytest.approx(want, rel=0.02)


def test_ring_and_tree_cross_where_they_should():
    """A ring's latency grows with the GPUs and a tree's with their logarithm; a large sum in a ring sends less."""

    def faster(nbytes, nodes, per_node=8):
        return min(ALGORITHMS, key=lambda algorithm: all_reduce(H200, algorithm, nbytes, nodes, per_node))

    assert faster(4 * KB, 128) == faster(4 * MB, 128) == faster(4 * KB, 4) == "tree"
    assert {faster(GB, 1, gpus) for gpus in (2, 4, 8)} == {faster(4 * MB, 1, 2)} == {"ring"}
    for nodes in (4, 16, 128):
        chosen = [faster(4 << k, nodes) for k in range(38)]  # up to 512 GB
        assert chosen[0] == "tree" and chosen[-1] == "ring" and chosen == sorted(chosen, reverse=True)
    crossings = [next(k for k in range(38) if faster(4 << k, nodes) == "ring") for nodes in (4, 16, 128)]
    assert crossings == sorted(set(crossings)), "the more nodes, the longer a tree is the faster"


# -- a step, its buckets and what they hide
# ------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [SHAPE, Shape(8, 16, 40, 24, layers=2, directions=2)])
def test_a_step_is_that_of_the_layers_together(shape):
    step = cost_nodes.step_of(Model("H200", "lstm", "float32", ("fused",)), shape)
    passes = [
        shape.T * cost_times.predict(GPUS["H200"], CELLS["lstm"], shape, "fused", way, "float32").whole
        for way in ("forward", "backward")
    ]
    assert step.forward == pytest.approx(passes[0]) and step.compute == pytest.approx(sum(passes))
    assert len(step.parts) == shape.layers


def test_the_fastest_path_counts():
    paths = ("step", "graph", "fused", "barrier", "polling")
    each = [cost_nodes.step_of(Model("H200", "lstm", "float32", (path,)), SHAPE).compute for path in paths]
    best = cost_nodes.step_of(Model("H200", "lstm", "float32", paths), SHAPE).compute
    assert best <= min(each) and math.isinf(each[3]) == math.isinf(each[4])


class Stack(gl.Module):
    def __init__(self, vocabulary, shape, dtype):
        made = {"dtype": dtype, "device": "cpu"}
        self.embedding = gl.Embedding(vocabulary, shape.D, **made)
        self.lstm = gl.LSTM(shape.D, shape.H, shape.layers, bidirectional=shape.directions > 1, **made)
        self.linear = gl.Linear(shape.directions * shape.H, vocabulary, **made)


@pytest.mark.parametrize("dtype, precision, size", [("float32", "float32", 4), ("float16", "float16", 2)])
@pytest.mark.parametrize("directions", [1, 2])
def test_buckets_are_those_of_the_library(dtype, precision, size, directions):
    shape = Shape(4, 8, 512, 512, layers=3, directions=directions)
    parameters = [*Stack(3000, shape, dtype).parameters()][::-1]
    want = [sum(4 * p.size for p in bucket) for bucket in gradients._alike(parameters)]
    step = cost_nodes.step_of(model_of(precision=precision, vocabulary=3000), shape)
    assert [nbytes for nbytes, _ in cost_nodes.buckets(step, size)] == want
    assert cost_nodes.gradient_bytes(step) == sum(want) == sum(4 * p.size for p in parameters)


def test_buckets_are_there_when_their_last_gradient_is():
    step = Step(10.0, (Part(5.0, (BUCKET // 4,)), Part(7.0, (10, BUCKET // 2)), Part(1.0, (3,))))
    assert step.compute == 23
    assert cost_nodes.buckets(step, 4) == [(BUCKET, 15.0), (40 + 2 * BUCKET, 22.0), (12, 23.0)]
    # half types fill a bucket later, and are summed as float32 all the same
    assert cost_nodes.buckets(step, 2) == [(BUCKET + 40 + 2 * BUCKET, 22.0), (12, 23.0)]


def test_sums_wait_for_their_bucket_and_for_one_another():
    full = [(1, 10.0), (2, 11.0), (1, 30.0)]
    assert cost_nodes.end_of_sums(full, lambda nbytes: 5.0 * nbytes) == 35  # 10 to 15, 15 to 25, 30 to 35
    assert cost_nodes.end_of_sums(full, lambda nbytes: 20.0 * nbytes) == 90  # 10 to 30, to 70, to 90
    assert cost_nodes.end_of_sums([], float) == 0


@pytest.mark.parametrize("scaling", cost_nodes.SCALING)
@pytest.mark.parametrize("gpu, precision, vocabulary", [("H200", "bfloat16", 0), ("A100", "float32", 50_000)])
def test_efficiency_falls_with_the_number_of_gpus(scaling, gpu, precision, vocabulary):
    rows = cost_nodes.rows_of(model_of(gpu, precision, vocabulary=vocabulary), SHAPE, 128, 8, scaling)
    assert [row["gpus"] for row in rows] == [1 << k for k in range(11 if scaling == "weak" else 7)]
    for algorithm in ALGORITHMS:
        first, *others = rows
        assert first[f"{algorithm}_ms"] == 0 and first[f"{algorithm}_hidden"] is None
        assert first[f"{algorithm}_efficiency"] == pytest.approx(1, rel=1e-12)
        assert first[f"{algorithm}_step_ms"] == pytest.approx(first["compute_ms"], rel=1e-12)
        efficiencies = [row[f"{algorithm}_efficiency"] for row in rows]
        assert efficiencies == sorted(set(efficiencies), reverse=True) and efficiencies[-1] > 0
        for row in others:
            summing, hidden, whole = (row[f"{algorithm}_{key}"] for key in ("ms", "hidden", "step_ms"))
            assert 0 <= hidden < 1 and whole == pytest.approx(row["compute_ms"] + (1 - hidden) * summing)


def test_weak_scaling_keeps_a_gpus_batch_and_strong_scaling_shares_it():
    weak, strong = (cost_nodes.rows_of(model_of(), Shape(12, 64, 256, 256), 4, 4, way) for way in cost_nodes.SCALING)
    assert [(row["gpus"], row["batch_of_each"]) for row in weak] == [(n, 12) for n in (1, 2, 4, 8, 16)]
    assert [(row["gpus"], row["batch_of_each"]) for row in strong] == [(1, 12), (2, 6), (4, 3), (8, 2)]
    assert len({row["compute_ms"] for row in weak}) == 1
    alone, eight = strong[0], strong[-1]
    for algorithm in ALGORITHMS:
        whole = eight[f"{algorithm}_step_ms"]
        assert eight[f"{algorithm}_efficiency"] == pytest.approx(alone["compute_ms"] / 8 / whole)


def test_the_numbers_of_gpus_end_with_the_most():
    assert cost_nodes.sizes(1, 1) == [(1, 1)]
    assert cost_nodes.sizes(3, 6) == [(1, 1), (1, 2), (1, 4), (1, 6), (2, 6), (3, 6)]


# -- the table
# ----------------------------------------------------------------------------------------------------


def test_the_command_prints_one_table_for_each_gpu_and_precision(capsys, tmp_path):
    file = tmp_path / "nodes.json"
    asked = ["--nodes", "128", "--precision", "bfloat16,float16", "--results", str(tmp_path), "--json", str(file)]
    assert model.main(asked) == 0
    text = capsys.readouterr().out
    assert len(re.findall(r"^ +1,024 +128 ", text, re.M)) == 4 and "nan" not in text and "inf" not in text
    assert "the T4 has no bfloat16" in text and "what joins several RTX 4090: it has no NVLink" in text
    assert re.search(r"^ +1 +1 +[\d.]+ +0 +- +[\d.]+ +100\.0%", text, re.M)
    assert max(map(len, text.splitlines())) <= 120 and "measured" not in text.split("== Processes")[1]
    record = harness.read(file)
    rows = [row for row in record["rows"] if "gpus" in row]
    assert {row["gpus"] for row in rows} == {1 << k for k in range(11)} and len(rows) == 4 * 11
    assert {"H200", "A100", "processes", "ring", "tree, LL"} <= {row["of"] for row in record["constants"]}


def test_every_link_has_a_source_and_a_mark():
    rows = [*cost_links.constants()]
    assert all(row["source"] and row["mark"] in ("measured", "published", "estimated") for row in rows)
    assert len({(row["of"], row["name"]) for row in rows}) == len(rows) > 25


@pytest.mark.parametrize("given", [["--nodes", "0"], ["--nodes", "x"], ["--nodes", "2", "--gpus-per-node", "-1"]])
def test_numbers_that_are_none_are_refused(given, capsys):
    with pytest.raises(SystemExit):
        model.main(given)
    assert "expected a whole number above 0" in capsys.readouterr().err

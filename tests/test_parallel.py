"""Several processes train as one does: the same losses and parameters, whatever their number."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import gpulstm as gl
from gpulstm import parallel, shares
from gpulstm.data import Batches, Streams, Windows
from gpulstm.errors import ProcessError, ShapeError
from gpulstm.functional import dropout
from gpulstm.functional.sequence import Noise
from gpulstm.parallel.environment import local_rank, own_cores, size_asked
from gpulstm.parallel.group import Group
from gpulstm.parallel.nccl import Connection
from gpulstm.parallel.split import Splitter
from gpulstm.shares import Share
from tests.conftest import ROOT, emulation, require


def launch(n, *command, **environment):
    """Begin to run a command in n processes."""
    require("mpi4py")
    launcher = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
    assert launcher, "mpi4py is there, but no mpiexec: pip install mpich"
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        [launcher, "-n", str(n), *map(str, command)], cwd=ROOT, env=os.environ | threads | environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def mpiexec(n, *command, timeout=100, given="", **environment):
    """Run a command in n processes; what it said, and its exit code. ``given`` is its standard input."""
    with launch(n, *command, **environment) as process:
        try:
            said, errors = process.communicate(given, timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, said, errors)


def results(n, name, folder, *rest):
    """What a function of tests/parallel_runs.py returns on rank 0 of n processes."""
    out = folder / f"{name}-{n}-{'-'.join(rest)}.json"
    done = mpiexec(n, sys.executable, "-m", "tests.parallel_runs", name, out, *rest)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


def assert_same(got, want, rtol):
    """Two nests of numbers, alike."""
    if isinstance(want, dict):
        assert got.keys() == want.keys()
        for name in want:
            assert_same(got[name], want[name], rtol)
    elif isinstance(want, list):
        assert len(got) == len(want)
        for one, other in zip(got, want, strict=True):
            assert_same(one, other, rtol)
    elif isinstance(want, float):
        np.testing.assert_allclose(got, want, rtol=rtol)
    else:
        assert got == want


@pytest.mark.parametrize("accumulate", ["1", "2"])
def test_training_does_not_depend_on_the_number_of_processes(tmp_path, accumulate):
    one = results(1, "train", tmp_path, accumulate)
    for n in (2, 3):
        assert_same(results(n, "train", tmp_path, accumulate), one, 1e-12)
    assert_same(results(3, "train", tmp_path, accumulate), results(3, "train", tmp_path, accumulate), 0)


def test_float32_agrees_to_rounding(tmp_path):
    assert_same(results(2, "train", tmp_path, "1", "float32"), results(1, "train", tmp_path, "1", "float32"), 2e-4)


def test_lists_of_batches_and_parameters_that_some_processes_do_not_use(tmp_path):
    two = results(2, "plain_lists", tmp_path)
    assert_same(two, results(2, "plain_lists", tmp_path), 0)
    assert np.isfinite([loss for _, loss, _ in two["losses"]]).all()


def test_fewer_sequences_than_processes(tmp_path):
    three, one = (results(n, "too_few", tmp_path) for n in (3, 1))
    words = "batch: expected at least 3 sequences, one for each process, as the state is carried on, got 2"
    assert three.pop("error") == words
    assert_same(three["losses"], one["losses"], 1e-12)


def test_several_fits_and_data_sets_that_stand_anywhere(tmp_path):
    one = results(1, "again", tmp_path)
    for n in (2, 3):
        assert_same(results(n, "again", tmp_path), one, 1e-12)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("data", "position in the data, learning rate, shapes and first batch: expected the same in all processes"),
        ("rate", "position in the data, learning rate, shapes and first batch: expected the same in all processes"),
        ("frozen", "parameters: expected the same ones with requires_grad in all processes"),
        ("parameters", "parameters: expected the same in all processes, got other values than rank 0's in rank 1 of 2"),
        ("draws", "random generator: expected the same in all processes, got other values than rank 0's in rank 1 of"),
    ],
)
def test_processes_that_are_not_alike_are_told(tmp_path, what, words):
    assert results(2, "differ", tmp_path, what).startswith(words)


@pytest.mark.slow
def test_every_lab(tmp_path):
    one = results(1, "labs", tmp_path)
    assert {len(found["losses"]) > 0 for name, found in one.items() if name != "text"} == {True}
    for n in (2, 3):
        assert_same(results(n, "labs", tmp_path), one, 1e-9)


def test_sums_begin_while_the_backward_pass_goes_on(tmp_path):
    found = results(2, "gradients", tmp_path)
    assert found["error"] < 1e-15
    assert 0 < found["begun"][found["parameters"] // 2] < found["parameters"]


# -- GPUs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["nccl", "host"])
def test_training_on_two_gpus(tmp_path, by):
    emulation()
    two = results(2, "on_gpus", tmp_path, by)
    summed, numbers = two.pop("by NCCL"), two.pop("numbers of a step")
    assert summed == (24 * numbers if by == "nccl" else 0)  # twelve steps of two trainings
    assert_same(two, results(1, "on_gpus", tmp_path, "alone"), 1e-11)
    assert_same(two, results(1, "train", tmp_path), 1e-9)


def test_a_sum_by_nccl_waits_for_the_gradients_and_the_optimiser_for_the_sum():
    said = []

    class Stream:
        def __init__(self, name):
            self.ptr = self.name = name

        def record(self):
            said.append(f"record {self.name}")
            return f"event of {self.name}"

        def wait_event(self, event):
            said.append(f"{self.name} waits for {event}")

    class Nccl(SimpleNamespace):
        NCCL_SUM, NCCL_FLOAT32, NCCL_FLOAT64 = 0, 7, 8

        def NcclCommunicator(self, size, identity, rank):
            said.append(f"join {identity} as {rank} of {size}")
            return SimpleNamespace(allReduce=lambda *given: said.append(("sum", *given)))

    cuda = SimpleNamespace(Stream=lambda non_blocking: Stream("own"), get_current_stream=lambda: Stream("current"))
    group = SimpleNamespace(size=2, rank=1, on_root=lambda work: work())
    connection = Connection(Nccl(get_unique_id=lambda: "id"), SimpleNamespace(cuda=cuda), group)
    array = SimpleNamespace(data=SimpleNamespace(ptr=64), dtype=np.dtype(np.float32), size=5)
    finish = connection.begin_sum(array)
    begun = [
        "join id as 1 of 2", "record current", "own waits for event of current", ("sum", 64, 64, 5, 7, 0, "own"),
        "record own",
    ]  # fmt: skip
    assert said == begun
    finish()
    assert said == [*begun, "current waits for event of own"]


# -- parts of a batch --------------------------------------------------------------------------------------------


class Of(Group):
    """One of several processes that say nothing."""

    def __init__(self, rank, size):
        super().__init__()
        self.rank, self.size = rank, size


def parts(batches, size, axes=None):
    """For each batch the parts of all processes."""
    splitters = [Splitter(Of(rank, size), batches, axes) for rank in range(size)]
    return [[split(batch) for split in splitters] for batch in batches]


@pytest.mark.parametrize("size", [2, 3, 7])
def test_parts_make_up_the_batch(rng, size):
    x, labels = rng.standard_normal((11, 4, 3)), np.arange(11)
    sequences = [rng.standard_normal((n, 2)) for n in (3, 1, 5, 2, 4, 4, 1, 2, 5, 3, 1)]
    sets = [
        (Windows(np.arange(60), 6, 4), 1), (Windows(np.arange(60), 6, 4, batch_first=True), 0),
        (Batches(x, labels, batch_size=4), 0), (Batches(sequences, labels, batch_size=4), None),
    ]  # fmt: skip
    for batches, axis in sets:
        for batch, cut in zip(batches, parts(batches, size), strict=True):
            counted = [part for part in cut if part.counts]
            assert sum(part.share.count for part in counted) == counted[0].share.whole
            if axis is None:
                (padded, lengths), target = batch
                joined = np.concatenate([part.batch[0][0] for part in counted], 1)
                np.testing.assert_array_equal(joined, padded)
                np.testing.assert_array_equal(np.concatenate([part.batch[0][1] for part in counted]), lengths)
                np.testing.assert_array_equal(np.concatenate([part.batch[1] for part in counted]), target)
                continue
            for k, array in enumerate(batch):
                joined = np.concatenate([part.batch[k] for part in counted], min(axis, array.ndim - 1))
                np.testing.assert_array_equal(joined, array)


def test_parts_of_streams_are_read_apart():
    streams = Streams(np.arange(101), 7, 5)
    for size in (1, 2, 3):
        splitters = [Splitter(Of(rank, size), streams) for rank in range(size)]
        for batch, *own in zip(streams, *(split.batches for split in splitters), strict=True):
            for whole, *columns in zip(batch, *own, strict=True):
                np.testing.assert_array_equal(np.concatenate(columns, 1), whole)
        assert size == 1 or all(split.batches is not streams for split in splitters)


def test_a_batch_that_says_nothing_of_its_axes_is_refused():
    with pytest.raises(ShapeError, match=r"batch_axes: expected the axis .* got None"):
        parts([(np.ones((3, 4)), np.ones((3, 4)))], 2)
    with pytest.raises(ShapeError, match=r"the same number of sequences in all arrays, at least 1, got \[4, 5\]"):
        parts([(np.ones((3, 4)), np.ones((3, 5)))], 2, 1)
    with pytest.raises(ShapeError, match="batch_axes: expected 2 axes, one per part of a batch, got 1"):
        parts([(np.ones((3, 4)), np.ones((3, 5)))], 2, [1])


# -- draws of a part of a batch --------------------------------------------------------------------------------------


def own(array, axis, share):
    return np.take(array, range(share.first, share.first + share.count), axis)


SHARES = [Share(0, 3, 8), Share(3, 1, 8), Share(5, 3, 8), Share(0, 8, 8)]


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("shape, axis", [((5, 8, 7), 1), ((5, 8, 4), 1), ((8, 7), 0), ((8,), 0), ((3000, 8, 3), 1)])
def test_dropout_of_a_part_is_that_of_the_whole(device, rng, share, shape, axis):
    x = rng.standard_normal(shape).astype(np.float32)
    whole, _ = dropout(device.asarray(x), 0.4, 2**63 + 7)
    mine = device.asarray(np.ascontiguousarray(own(x, axis, share)))
    y, pullback = dropout(mine, 0.4, 2**63 + 7, share.draws(mine.shape, axis))
    np.testing.assert_array_equal(device.to_numpy(y), own(device.to_numpy(whole), axis, share))
    np.testing.assert_array_equal(device.to_numpy(pullback(mine)[0]), device.to_numpy(y))


@pytest.mark.parametrize("share", SHARES)
def test_noise_of_a_part_is_that_of_the_whole(device, rng, share):
    T, B, D, H = 6, 8, 3, 5
    x = rng.standard_normal((T, B, D)).astype(np.float32)
    weights = [rng.standard_normal(s).astype(np.float32) for s in ((4 * H, D), (4 * H, H))]

    def y(x, share, recompute):
        noise = [Noise(0.3, seed, share=share) for seed in (1, 2, 3)]
        arguments = [None, None, *map(device.asarray, weights)]
        (y, *_), _ = gl.functional.recurrent(
            device.asarray(x), *arguments, zoneout=(noise[0], noise[1]), recurrent_dropout=noise[2], recompute=recompute
        )
        return device.to_numpy(y)

    for recompute in (False, True):
        part = y(np.ascontiguousarray(own(x, 1, share)), share, recompute)
        np.testing.assert_allclose(part, own(y(x, None, recompute), 1, share), rtol=1e-5, atol=1e-6)


def test_the_batch_is_found_in_the_arrays_of_a_model():
    share, first = Share(2, 3, 9), Share(2, 3, 9, batch_first=True)
    assert [share.axis_of(shape) for shape in ((5, 3, 4), (3, 4), (15, 4), (4, 3), (3,), (3, 5, 4))] == [
        1,
        0,
        0,
        1,
        0,
        0,
    ]
    assert share.draws_of((15, 4), 0) == share.draws((5, 3, 4), 1)
    assert share.draws_of((6, 3), 0) == share.draws((2, 3, 3), 1)
    assert share.draws_of((3, 3, 4), -2) == share.draws((3, 3, 4), 1)
    assert first.draws_of((15, 4), 0) == first.draws((1, 3, 20), 1)
    assert share.axis_of((3, 3, 4)) == 1
    for one, shape in ((first, (3, 3, 4)), (share, (3, 3)), (share, (6, 3))):  # two readings: neither is taken ...
        with pytest.raises(ShapeError, match=r"cannot tell which axis is the batch axis .* batch_axis=1"):
            one.axis_of(shape)
        assert one.axis_of(shape, known=1) == 1  # ... unless one has been met before
    with pytest.raises(ShapeError, match=r"cannot find the batch axis in shape \(4, 5\); .* 3 of 9 sequences"):
        share.axis_of((4, 5))
    with shares.computing(share), pytest.raises(ShapeError, match="expected 3, this process's share of 9, got 2"):
        gl.LSTM(2, 4, num_layers=2, dropout=0.5)(np.ones((5, 2, 2), np.float32))
    x = np.ones((3, 3), np.float32)
    with shares.computing(share):
        gl.manual_seed(0)
        weights = gl.Dropout(0.5, batch_axis=None)(x).numpy()
        gl.manual_seed(0)
        rows = gl.Dropout(0.5, batch_axis=0)(x).numpy()
    gl.manual_seed(0)
    np.testing.assert_array_equal(weights, gl.Dropout(0.5)(x).numpy())
    gl.manual_seed(0)
    np.testing.assert_array_equal(rows, gl.Dropout(0.5)(np.ones((9, 3), np.float32)).numpy()[2:5])


# -- the environment -------------------------------------------------------------------------------------------------


def test_what_launchers_say():
    assert size_asked({}) == (1, "")
    assert size_asked({"PMI_SIZE": "4", "SLURM_STEP_NUM_TASKS": "1"}) == (4, "PMI_SIZE")
    assert size_asked({"WORLD_SIZE": "8"}) == (8, "WORLD_SIZE")
    assert size_asked({"SLURM_STEP_NUM_TASKS": "x"}) == (1, "")
    assert local_rank({"SLURM_LOCALID": "3"}) == 3
    assert local_rank({"LOCAL_RANK": "0", "SLURM_LOCALID": "3"}) == 3
    assert local_rank({}) is None
    assert [own_cores(range(5), rank, 2) for rank in (0, 1)] == [[0, 1], [2, 3, 4]]
    assert own_cores([0, 1], 2, 3) == [0, 1]


def test_processes_that_mpi_does_not_know_are_refused():
    require("mpi4py")
    code = "import gpulstm as gl; gl.parallel.init()"
    for name, want in (("WORLD_SIZE", "torchrun starts them without MPI"), ("SLURM_STEP_NUM_TASKS", "srun --mpi=pmi2")):
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {name: "4"}, capture_output=True, text=True, cwd=ROOT
        )
        words = f"{name}=4 says that there are several processes"
        assert done.returncode == 1 and words in done.stderr and want in done.stderr


def test_alone_nothing_changes():
    before = parallel.group()
    assert parallel.init() is before and (parallel.rank(), parallel.size()) == (0, 1)
    assert before.sum([1, 2]).tolist() == [1, 2] and before.gather(3) == [3] and before.on_root(lambda: 4) == 4
    for bad in (0, -1, "x"):
        with pytest.raises(ShapeError, match="timeout"):
            parallel.init(timeout=bad)
    assert issubclass(ProcessError, RuntimeError)

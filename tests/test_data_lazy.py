"""Streams of a series on disk, which are those of the series in memory, and the shares of several processes."""

import copy
import itertools
import json
import pickle

import numpy as np
import pytest

from gpulstm.data import LazyStreams, Streams
from gpulstm.errors import DTypeError, FormatError, GpulstmError, ShapeError

CASES = [
    (steps, streams, window, ahead, fill)
    for steps, streams, window in [(41, 4, 5), (43, 4, 5), (44, 4, 50), (14, 13, 1), (6, 5, 1), (9, 4, 3), (2, 1, 1)]
    for ahead in (0, 1, 3)
    for fill in (None, 7)
    if steps - ahead >= streams
]


def bits(batches):
    return [[(part.shape, part.dtype.name, part.tobytes()) for part in batch] for batch in batches]


class Watched:
    """A series that notes which slices are read."""

    def __init__(self, series):
        self.series, self.read = series, []

    def __len__(self):
        return len(self.series)

    def __getitem__(self, part):
        assert isinstance(part, slice)
        self.read.append((part.start, part.stop))
        return self.series[part]


@pytest.fixture
def mapped(tmp_path):
    """What puts an array into a file and maps that."""

    def map_(array):
        array.tofile(tmp_path / "series")
        return np.memmap(tmp_path / "series", array.dtype, "r", shape=array.shape)

    return map_


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(("steps", "streams", "window", "ahead", "fill"), CASES)
def test_the_batches_are_those_of_streams(mapped, steps, streams, window, ahead, fill, batch_first):
    options = {"ahead": ahead, "fill": fill, "batch_first": batch_first}
    for shape in ((steps,), (steps, 2)):
        series = np.random.default_rng(0).integers(0, 1000, shape).astype(np.uint16)
        want = Streams(series, streams, window, **options)
        for same in (series, mapped(series), Watched(series)):
            got = LazyStreams(same, streams, window, **options)
            assert len(got) == len(want) and bits(got) == bits(want)
            assert all(part.flags.c_contiguous and type(part) is np.ndarray for batch in got for part in batch)
        lazy = LazyStreams(series, streams, window, **options)
        assert repr(lazy) == "Lazy" + repr(want)


def test_drop_last_and_lists():
    assert bits(LazyStreams(range(41), 4, 3, drop_last=True)) == bits(Streams(np.arange(41), 4, 3, drop_last=True))
    assert bits(LazyStreams(list(range(41)), 4, 3)) == bits(Streams(list(range(41)), 4, 3))


def test_a_batch_reads_its_own_steps_alone():
    series = Watched(np.arange(101))
    batches = LazyStreams(series, 4, 5)
    series.read.clear()
    next(iter(batches))
    assert series.read == [(0, 6), (25, 31), (50, 56), (75, 81)]
    series.read.clear()
    next(iter(batches.share(1, 2)))
    assert series.read == [(50, 56), (75, 81)]


def test_what_is_written_to_a_batch_stays_in_it():
    series = np.arange(25)
    for x, y in LazyStreams(series, 1, 9):
        x[...] = y[...] = -1
    np.testing.assert_array_equal(series, np.arange(25))


def test_arrays_on_a_gpu(device):
    series = device.asarray(np.arange(43))
    for (x, y), (want_x, want_y) in zip(
        LazyStreams(series, 4, 5, fill=-1), Streams(series, 4, 5, fill=-1), strict=True
    ):
        for got, want in ((x, want_x), (y, want_y)):
            assert type(got) is type(want)
            np.testing.assert_array_equal(device.to_numpy(got), device.to_numpy(want))


@pytest.mark.parametrize("kind", [Streams, LazyStreams])
class TestShares:
    @pytest.mark.parametrize("batch_first", [False, True])
    @pytest.mark.parametrize(("streams", "size"), [(4, 1), (4, 2), (5, 2), (7, 3), (3, 3), (8, 5)])
    def test_the_shares_are_the_batch(self, kind, streams, size, batch_first):
        whole = kind(np.arange(83), streams, 4, fill=-1, batch_first=batch_first)
        shares = [whole.share(rank, size) for rank in range(size)]
        assert all(type(share) is kind and len(share) == len(whole) for share in shares)
        axis = 0 if batch_first else 1
        for rank, share in enumerate(shares):
            first, last = streams * rank // size, streams * (rank + 1) // size
            assert share.streams == last - first
            for batch, part in zip(whole, share, strict=True):
                for of_whole, of_part in zip(batch, part, strict=True):
                    np.testing.assert_array_equal(of_part, of_whole.take(range(first, last), axis))
                    assert of_part.flags.c_contiguous

    def test_a_share_of_a_share(self, kind):
        whole = kind(np.arange(83), 8, 4)
        assert bits(whole.share(1, 2).share(1, 2)) == bits(whole.share(3, 4))
        assert "streams=4" in repr(whole.share(0, 2)) and "streams=8" in repr(whole)

    def test_a_state_of_the_whole_fits_a_share_and_the_other_way_round(self, kind):
        whole = kind(np.arange(83), 6, 4)
        share = whole.share(1, 3)
        for taken, other in ((whole, share), (share, whole)):
            next(iter(taken))
            saved = json.loads(json.dumps(taken.state_dict()))
            other.load_state_dict(saved)
            want = list(itertools.islice(other.share(0, 1) if other is share else whole.share(0, 1), 1, None))
            assert bits(other) == bits(want)

    def test_a_share_begins_with_a_whole_pass_and_moves_nothing(self, kind):
        whole = kind(np.arange(83), 6, 4)
        going = iter(whole)
        next(going)
        share = whole.share(2, 3)
        assert share.state_dict()["position"] is None and len(list(share)) == len(whole)
        assert whole.state_dict()["position"] == 1 and len(list(going)) == len(whole) - 1

    @pytest.mark.parametrize(
        ("rank", "size", "words"),
        [
            (0, 7, "size: expected from 1 to 6 processes, the number of streams, got 7"),
            (0, 0, "size: expected from 1 to 6 processes"),
            (2, 2, "rank: expected 0 <= rank < 2, got 2"),
            (-1, 2, "rank: expected 0 <= rank < 2, got -1"),
            (True, 2, "rank: expected 0 <= rank < 2, got True"),
            (0, 1.5, "size: expected from 1 to 6"),
        ],
    )
    def test_shares_that_there_are_not(self, kind, rank, size, words):
        with pytest.raises(ShapeError, match=words):
            kind(np.arange(83), 6, 4).share(rank, size)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda data: pickle.loads(pickle.dumps(data))])
def test_going_on_from_a_saved_position_and_copies(copied):
    lazy = LazyStreams(np.arange(50), 4, 2)
    whole = bits(lazy)
    for stop in range(len(lazy) + 1):
        first = LazyStreams(np.arange(50), 4, 2)
        going = iter(first)
        for _ in range(stop):
            next(going)
        resumed = copied(LazyStreams(np.arange(50), 4, 2))
        resumed.load_state_dict(first.state_dict())
        assert bits(resumed) == whole[stop:]
        assert bits(copied(first)) == whole
        Streams(np.arange(50), 4, 2).load_state_dict(first.state_dict())


def test_what_is_refused():
    for series, error, words in (
        (np.arange(1), ShapeError, "series: expected at least 2 steps, got 1"),
        (np.arange(5), ShapeError, "series: expected at least 6 steps for 5 streams, got 5"),
        (np.ones(()), ShapeError, r"series: expected \(N, ...\) with N steps, got \(\)"),
        ("abcdefghi", DTypeError, r"series: expected an object with len\(\) and slices, .* got str"),
        ({1: 2}, DTypeError, r"series: expected an object with len\(\) and slices, .* got dict"),
        (3, DTypeError, r"series: expected an object with len\(\) and slices, .* got int"),
        (None, DTypeError, r"series: expected an object with len\(\) and slices, .* got NoneType"),
    ):
        with pytest.raises(error, match=words):
            LazyStreams(series, 5, 1)
    with pytest.raises(ShapeError, match="series: expected at least 45 steps for one window with drop_last, got 41"):
        LazyStreams(np.arange(41), 4, 11, drop_last=True)
    with pytest.raises(DTypeError, match="fill: expected a number that uint8, the type of series, can hold, got -100"):
        LazyStreams(np.arange(9, dtype=np.uint8), 2, 1, fill=-100)
    with pytest.raises(FormatError):
        LazyStreams(np.arange(50), 4, 2).load_state_dict(Streams(np.arange(90), 4, 2).state_dict())


def test_a_series_that_is_shorter_than_it_says():
    class Cut(Watched):
        def __len__(self):
            return 50

    batches = LazyStreams(Cut(np.arange(40)), 4, 2)
    with pytest.raises(ShapeError, match=r"series: expected \d steps in series\[\d+:\d+\], got \d"):
        list(batches)
    with pytest.raises(GpulstmError, match="series: expected "):
        LazyStreams(Watched(np.full(9, None)), 2, 2)

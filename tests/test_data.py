"""Batches: every example, step and target once a pass, and a position that can be saved and restored."""

import copy
import itertools
import json
import pickle

import numpy as np
import pytest

from gpulstm.data import Batches, Passes, Streams, Windows, pad_sequences
from gpulstm.errors import DeviceError, DTypeError, FormatError, ShapeError


def host(device, tree):
    """The same nest with NumPy arrays."""
    if isinstance(tree, tuple | list):
        return tuple(host(device, item) for item in tree)
    return tree if isinstance(tree, np.ndarray) else device.to_numpy(tree)


def bits(tree):
    """Something that is equal for equal batches only."""
    if isinstance(tree, tuple | list):
        return tuple(bits(item) for item in tree)
    return tree.shape, tree.dtype.name, tree.tobytes()


# -- padding -------------------------------------------------------------------------------------------------


def test_padding():
    padded, lengths = pad_sequences([[1, 2, 3], [], np.array([4])], value=-1)
    np.testing.assert_array_equal(padded, [[1, -1, 4], [2, -1, -1], [3, -1, -1]])
    np.testing.assert_array_equal(lengths, [3, 0, 1])
    assert lengths.dtype == np.int64


def test_padding_of_vectors():
    rng = np.random.default_rng(0)
    sequences = [rng.standard_normal((n, 3, 2)).astype(np.float32) for n in (2, 5, 1)]
    padded, lengths = pad_sequences(sequences)
    assert padded.shape == (5, 3, 3, 2) and padded.dtype == np.float32
    for b, sequence in enumerate(sequences):
        np.testing.assert_array_equal(padded[: lengths[b], b], sequence)
        assert (padded[lengths[b] :, b] == 0).all()


def test_padding_refuses():
    with pytest.raises(ShapeError, match="sequences: expected at least one, got none"):
        pad_sequences([])
    with pytest.raises(ShapeError, match=r"sequences\[1\]: expected \(steps, 2\), got \(3,\)"):
        pad_sequences([np.ones((1, 2)), np.ones(3)])
    with pytest.raises(ShapeError, match=r"sequences\[0\]: expected \(steps\), got \(\)"):
        pad_sequences([1.0, 2.0])


# -- batches -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize(("examples", "batch_size"), [(10, 3), (9, 3), (1, 4), (7, 1), (0, 2)])
def test_batches_have_every_example_once(device, examples, batch_size, shuffled):
    x = device.asarray(np.arange(2.0 * examples).reshape(examples, 2))
    labels = np.arange(examples).tolist()
    generator = np.random.default_rng(0) if shuffled else None
    batches = Batches(x, labels, batch_size=batch_size, generator=generator)
    orders = []
    for _ in range(2):
        got = [host(device, batch) for batch in batches]
        assert len(got) == len(batches) == -(-examples // batch_size)
        assert all(len(y) == batch_size for _, y in got[:-1])
        rows = np.concatenate([y for _, y in got] or [np.zeros(0)])
        assert sorted(rows) == labels
        for part, y in got:
            np.testing.assert_array_equal(part, np.stack([2.0 * y, 2.0 * y + 1], axis=1))
        orders.append(rows.tolist())
    if examples > 5:
        assert (orders[0] == orders[1]) is not shuffled


def test_batches_of_sequences():
    sequences = [[1, 2], [3], [], [4, 5, 6]]
    got = list(Batches(sequences, np.arange(4), batch_size=3))
    np.testing.assert_array_equal(got[0][0][0], [[1, 3, 0], [2, 0, 0]])
    np.testing.assert_array_equal(got[0][0][1], [2, 1, 0])
    np.testing.assert_array_equal(got[1][0][0], [[4], [5], [6]])
    np.testing.assert_array_equal(got[1][1], [3])


@pytest.mark.parametrize("examples", [6, 7, 8])
def test_a_single_column_and_drop_last(examples):
    batches = Batches(np.arange(examples), batch_size=3, drop_last=True)
    np.testing.assert_array_equal(list(batches), [[0, 1, 2], [3, 4, 5]])
    assert len(batches) == 2


def test_batches_refuse():
    with pytest.raises(
        ShapeError, match=r"columns: expected at least one, and all of the same length, got lengths \[3, 2\]"
    ):
        Batches(np.ones(3), np.ones(2), batch_size=1)
    with pytest.raises(ShapeError, match=r"got lengths \[\]"):
        Batches(batch_size=1)
    for bad in (0, 2.0, True, "2", None):
        with pytest.raises(ShapeError, match=f"batch_size: expected a whole number from 1 up, got {bad!r}"):
            Batches(np.ones(3), batch_size=bad)
    with pytest.raises(DTypeError, match="drop_last: expected True or False, got 1"):
        Batches(np.ones(3), batch_size=2, drop_last=1)


GENERATORS = (0, np.random.RandomState(0), np.random.PCG64(0), "0")


@pytest.mark.parametrize("bad", GENERATORS, ids=lambda bad: type(bad).__name__)
def test_generators_refused(bad):
    for make in (
        lambda: Batches(np.ones(3), batch_size=2, generator=bad),
        lambda: Windows([1, 2], 1, 1, generator=bad),
    ):
        with pytest.raises(DTypeError, match=r"^generator: expected a numpy.random.Generator, .* or None, got "):
            make()


def test_sizes_may_be_numpys():
    two = np.int8(2)
    for kind in (
        lambda n: Batches(np.arange(300), batch_size=n),
        lambda n: Windows(np.arange(300), n, n, ahead=n, stride=n, horizon=n),
        lambda n: Streams(np.arange(300), n, n, ahead=n),
    ):
        assert bits(list(kind(two))) == bits(list(kind(2))) and len(kind(two)) == len(kind(2))


# -- windows -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize(
    ("N", "window", "batch_size"), [(25, 4, 2), (26, 4, 2), (26, 5, 5), (5, 4, 3), (4, 9, 2), (2, 1, 1), (40, 1, 7)]
)
def test_windows_have_every_target_once(device, N, window, batch_size, shuffled):
    generator = np.random.default_rng(1) if shuffled else None
    windows = Windows(device.asarray(np.arange(N)), window, batch_size, generator=generator)
    for _ in range(2):
        got = [host(device, batch) for batch in windows]
        assert len(got) == len(windows)
        for x, y in got:
            np.testing.assert_array_equal(y, x + 1)  # targets are inputs shifted by one
            np.testing.assert_array_equal(np.diff(x, axis=0), 1)  # windows are contiguous
            assert x.size and x.shape[1] <= batch_size and (len(x) == window or (x.shape[1] == 1 and x is got[-1][0]))
        assert sorted(np.concatenate([y.ravel() for _, y in got])) == list(range(1, N))


def test_windows_of_other_targets(device):
    series = np.random.default_rng(0).standard_normal((30, 3))
    targets = series[:, :1] * 10
    got = list(Windows(device.asarray(series), 7, 2, targets=device.asarray(targets), ahead=5))
    assert [batch[0].shape for batch in got] == [(7, 2, 3), (7, 1, 3), (4, 1, 3)]
    got = [host(device, batch) for batch in got]
    x, y = (np.concatenate([np.concatenate(list(b[k].swapaxes(0, 1))) for b in got]) for k in (0, 1))
    np.testing.assert_array_equal(x, series[:25])
    np.testing.assert_array_equal(y, targets[5:])
    x, y = next(iter(Windows(device.asarray(series), 7, 2, ahead=0)))
    np.testing.assert_array_equal(device.to_numpy(x), device.to_numpy(y))


@pytest.mark.parametrize(
    ("N", "window", "stride", "starts", "last"),
    [
        (11, 4, 1, [0, 1, 2, 3, 4, 5, 6], None),
        (11, 4, 2, [0, 2, 4, 6], None),
        (12, 4, 2, [0, 2, 4, 6], 8),
        (13, 4, 3, [0, 3, 6], 9),
        (11, 4, 4, [0, 4], 8),
        (11, 3, 5, [0, 5], None),
        (12, 3, 5, [0, 5], 10),
        (3, 4, 1, [], 0),
    ],
)
@pytest.mark.parametrize("shuffled", [False, True])
def test_windows_that_overlap(device, N, window, stride, starts, last, shuffled):
    generator = np.random.default_rng(0) if shuffled else None
    options = {"stride": stride, "generator": generator}
    got = [host(device, batch) for batch in Windows(device.asarray(np.arange(N)), window, 3, **options)]
    if last is not None:
        x, y = got.pop()
        np.testing.assert_array_equal(x, np.arange(last, N - 1)[:, None])
        np.testing.assert_array_equal(y, x + 1)
    for x, y in got:
        np.testing.assert_array_equal(x, x[0] + np.arange(window)[:, None])
        np.testing.assert_array_equal(y, x + 1)
    found = [start for x, _ in got for start in x[0].tolist()]
    assert sorted(found) == starts and (shuffled or found == starts)
    kept = (
        [host(device, batch) for batch in Windows(device.asarray(np.arange(N)), window, 1, drop_last=True, **options)]
        if starts
        else []
    )
    assert sorted(start for x, _ in kept for start in x[0].tolist()) == starts


def test_windows_of_what_is_to_be_forecast(device):
    series = np.arange(20.0)
    windows = Windows(device.asarray(series), 6, 4, stride=3, horizon=5)
    got = [host(device, batch) for batch in windows]
    assert [x.shape for x, _ in got] == [(6, 4)] and len(windows) == 1
    for x, y in got:
        np.testing.assert_array_equal(x[0], [0, 3, 6, 9])
        np.testing.assert_array_equal(y, x[-1] + 1 + np.arange(5)[:, None])
    for x, y in Windows(series, 6, 4, targets=-series, ahead=3, stride=1, horizon=1, batch_first=True):
        np.testing.assert_array_equal(y, -x[:, -1:] - 3)
    for x, y in Windows(series, 6, 4, ahead=0, horizon=1):
        np.testing.assert_array_equal(y, x[-1:])
    with pytest.raises(ShapeError, match="series: expected at least 21 steps, got 20"):
        Windows(series, 10, 4, horizon=9, ahead=3)
    assert len(Windows(series, 10, 4, horizon=9, ahead=2)) == 1


def test_windows_of_one_shape():
    series = np.arange(29)
    shapes = {x.shape for x, _ in Windows(series, 4, 3, drop_last=True)}
    assert shapes == {(4, 3)}
    assert len(Windows(series, 4, 3)) == 3 and len(Windows(series, 4, 3, drop_last=True)) == 2
    with pytest.raises(ShapeError, match="series: expected at least 33 steps for one batch with drop_last, got 29"):
        Windows(series, 4, 8, drop_last=True)
    assert len(Windows(np.arange(33), 4, 8, drop_last=True)) == 1


# -- streams -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("N", "streams", "window"),
    [(41, 4, 5), (43, 4, 5), (44, 4, 50), (14, 13, 1), (6, 5, 1), (9, 4, 3), (2, 1, 1)],
)
def test_streams_have_every_target_once(device, N, streams, window):
    tokens = device.asarray(np.arange(N))
    batches = Streams(tokens, streams, window, fill=-100)
    got = [host(device, batch) for batch in batches]
    assert len(got) == len(batches)
    assert all(x.shape == y.shape == (window, streams) for x, y in got[:-1])
    assert len(got[-1][0]) <= window
    kept = [(x, y, y != -100) for x, y in got]
    for x, y, real in kept:
        np.testing.assert_array_equal(y[real], x[real] + 1)  # targets are inputs shifted by one
        assert (x[~real] == 0).all()
    assert sorted(np.concatenate([y[real] for _, y, real in kept])) == list(range(1, N))
    # Row b of a window goes on where row b of the window before ended: the state can be carried.
    x, y = (np.concatenate([batch[k] for batch in got]) for k in (0, 1))
    steps = -(-(N - 1) // streams)
    assert x.shape == (steps, streams)
    for b in range(streams):
        real = y[:, b] != -100
        np.testing.assert_array_equal(x[real, b], np.arange(b * steps, min((b + 1) * steps, N - 1)))
        assert not real[real.sum() :].any()  # what is filled up stands at the end


@pytest.mark.parametrize(("N", "streams", "left_out"), [(41, 4, 0), (43, 4, 2), (8, 7, 0), (14, 7, 6)])
def test_streams_without_fill_leave_out_the_end(device, N, streams, left_out):
    got = [host(device, batch) for batch in Streams(device.asarray(np.arange(N)), streams, 3)]
    assert sorted(np.concatenate([y.ravel() for _, y in got])) == list(range(1, N - left_out))
    np.testing.assert_array_equal(np.concatenate([y for _, y in got]), np.concatenate([x for x, _ in got]) + 1)


def test_streams_of_vectors_with_targets(device):
    rng = np.random.default_rng(0)
    series, targets = rng.standard_normal((23, 3)).astype(np.float32), rng.standard_normal((23, 2))
    streams = Streams(device.asarray(series), 2, 4, targets=device.asarray(targets), ahead=3)
    got = [host(device, batch) for batch in streams]
    assert [x.shape for x, _ in got] == [(4, 2, 3), (4, 2, 3), (2, 2, 3)] and got[0][0].dtype == np.float32
    x, y = (np.concatenate([batch[k] for batch in got]) for k in (0, 1))
    np.testing.assert_array_equal(np.concatenate([x[:, 0], x[:, 1]]), series[:20])
    np.testing.assert_array_equal(np.concatenate([y[:, 0], y[:, 1]]), targets[3:])


def test_streams_of_vectors_are_filled_up(device):
    series = np.random.default_rng(0).standard_normal((10, 2, 3))
    ((x, y),) = (host(device, batch) for batch in Streams(device.asarray(series), 2, 9, ahead=1, fill=7))
    np.testing.assert_array_equal(x[:, 1], [*series[5:9], np.zeros((2, 3))])
    np.testing.assert_array_equal(y[:, 1], [*series[6:10], np.full((2, 3), 7)])


def test_windows_of_streams_are_contiguous(device):
    for x, y in Streams(device.asarray(np.arange(41)), 4, 5):
        assert x.flags.c_contiguous and y.flags.c_contiguous


def test_streams_of_one_shape():
    assert [len(x) for x, _ in Streams(np.arange(41), 4, 3)] == [3, 3, 3, 1]
    assert [len(x) for x, _ in Streams(np.arange(41), 4, 3, drop_last=True)] == [3, 3, 3]
    with pytest.raises(ShapeError, match="series: expected at least 45 steps for one window with drop_last, got 41"):
        Streams(np.arange(41), 4, 11, drop_last=True)
    assert len(Streams(np.arange(45), 4, 11, drop_last=True)) == 1


def test_what_is_written_to_a_batch_stays_in_it():
    series = np.arange(25)
    for data in (Batches(series, batch_size=5), Windows(series, 7, 2), Streams(series, 1, 9), Streams(series, 2, 9)):
        before = bits(list(data))
        for batch in data:
            for array in batch if isinstance(batch, tuple) else (batch,):
                array[...] = -1
        assert bits(list(data)) == before
    np.testing.assert_array_equal(series, np.arange(25))


def test_series_of_other_libraries():
    (batch,) = Streams([0, 1, 2, 3], 1, 9)
    np.testing.assert_array_equal(batch[1], [[1], [2], [3]])


@pytest.mark.oracle
def test_a_series_from_torch():
    torch = pytest.importorskip("torch")
    (batch,) = Windows(torch.arange(4), 9, 1)
    np.testing.assert_array_equal(batch[1], [[1], [2], [3]])


@pytest.mark.parametrize("kind", [Windows, Streams])
def test_series_refused(kind, emulated):
    from gpulstm import backend

    def make(series, first=2, second=2, **options):
        return kind(series, first, second, **options)

    with pytest.raises(ShapeError, match="series: expected at least 2 steps, got 1"):
        make(np.arange(1))
    with pytest.raises(ShapeError, match="series: expected at least 6 steps, got 5"):
        make(np.arange(5), ahead=5)
    with pytest.raises(ShapeError, match="targets: expected 5 steps, as many as the series, got 4"):
        make(np.arange(5), targets=np.arange(4))
    with pytest.raises(ShapeError, match="ahead: expected a whole number from 0 up, got -1"):
        make(np.arange(5), ahead=-1)
    with pytest.raises(ShapeError, match="window: expected a whole number from 1 up, got 0"):
        make(np.arange(5), **({"first": 0} if kind is Windows else {"second": 0}))
    with pytest.raises(DeviceError, match="targets: expected cpu, the device of series, got cuda:0"):
        make(np.arange(5), targets=backend.device("cuda").backend.asarray(np.arange(5)))


def test_streams_refused():
    with pytest.raises(ShapeError, match="series: expected at least 6 steps for 5 streams, got 5"):
        Streams(np.arange(5), 5, 1)
    with pytest.raises(ShapeError, match="streams: expected a whole number from 1 up, got 0"):
        Streams(np.arange(5), 0, 1)
    with pytest.raises(DTypeError, match="fill: expected a number that uint8, the type of series, can hold, got -100"):
        Streams(np.arange(6, dtype=np.uint8), 2, 1, fill=-100)


# -- positions -----------------------------------------------------------------------------------------------


def all_kinds(generator=None):
    """One of each kind, with a generator of its own."""
    rng, data = np.random.default_rng, np.arange(50)
    return {
        "batches": lambda: Batches(data, batch_size=7),
        "shuffled batches": lambda: Batches(data, batch_size=7, generator=generator or rng(3)),
        "sequences": lambda: Batches([data[:k] for k in range(9)], batch_size=2, generator=generator or rng(3)),
        "windows": lambda: Windows(data, 3, 2),
        "shuffled windows": lambda: Windows(data, 3, 2, generator=generator or rng(3)),
        "streams": lambda: Streams(data, 4, 2),
    }


def passes(batches, count):
    """So many batches, pass after pass."""
    return list(itertools.islice(itertools.chain.from_iterable(iter(batches) for _ in itertools.count()), count))


@pytest.mark.parametrize("kind", all_kinds())
def test_going_on_from_a_saved_position(kind):
    make = all_kinds()[kind]
    size = len(make())
    whole = bits(passes(make(), 3 * size))
    for stop in range(2 * size + 1):
        first = make()
        stream = itertools.chain.from_iterable(iter(first) for _ in itertools.count())
        for _ in range(stop):
            next(stream)
        saved = json.loads(json.dumps(first.state_dict()))
        resumed = make()
        next(iter(resumed))  # whatever it did before counts no more
        resumed.load_state_dict(saved)
        assert bits(passes(resumed, 3 * size - stop)) == whole[stop:], f"stopped after {stop}"


def test_a_saved_position_does_not_disturb_a_shared_generator():
    """The generator may serve others, such as dropout, which restore it themselves."""

    def run(steps, batches, generator):
        seen = []
        for batch in itertools.islice(itertools.chain.from_iterable(iter(batches) for _ in range(9)), steps):
            seen.append((bits(batch), generator.random()))
        return seen

    generator = np.random.default_rng(8)
    whole = run(20, Batches(np.arange(50), batch_size=7, generator=generator), generator)
    generator = np.random.default_rng(8)
    batches = Batches(np.arange(50), batch_size=7, generator=generator)
    run(11, batches, generator)
    saved, state = batches.state_dict(), generator.bit_generator.state
    generator = np.random.default_rng(0)
    batches = Batches(np.arange(50), batch_size=7, generator=generator)
    batches.load_state_dict(saved)
    generator.bit_generator.state = state
    assert run(9, batches, generator) == whole[11:]


def test_a_pass_given_up_starts_anew():
    batches = Batches(np.arange(6), batch_size=2)
    first = next(iter(batches))
    assert bits(next(iter(batches))) == bits(first)
    assert len(list(batches)) == 3


def test_a_finished_pass_is_followed_by_a_whole_one():
    batches = Batches(np.arange(6), batch_size=2)
    assert len(list(batches)) == 3
    saved = batches.state_dict()
    other = Batches(np.arange(6), batch_size=2)
    other.load_state_dict(saved)
    assert len(list(other)) == 3


@pytest.mark.parametrize("kind", all_kinds())
def test_two_passes_at_once(kind):
    data = all_kinds()[kind]()
    expected = all_kinds()[kind]()
    first, second = list(expected), list(expected)
    one, other = iter(data), iter(data)
    assert bits(next(one)) == bits(first[0])
    assert bits(next(other)) == bits(second[0])
    assert data.state_dict()["position"] == 1
    assert bits(list(one)) == bits(first[1:])  # its end does not touch the position of the other
    assert data.state_dict()["position"] == 1
    resumed = all_kinds()[kind]()
    resumed.load_state_dict(data.state_dict())
    assert bits(list(resumed)) == bits(second[1:]) == bits(list(other))
    assert data.state_dict()["position"] is None


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda data: pickle.loads(pickle.dumps(data))])
@pytest.mark.parametrize("kind", all_kinds())
def test_a_copy_begins_with_a_whole_pass(kind, copied):
    data = all_kinds()[kind]()
    for loaded in (False, True):
        going = iter(data)
        next(going)
        if loaded:
            data.load_state_dict(data.state_dict())
        other = copied(data)
        assert other.state_dict()["position"] is None and repr(other) == repr(data)
        assert len(list(other)) == len(data) == len(other)
        assert len(list(data if loaded else going)) == len(data) - 1


def test_a_data_set_of_ones_own():
    class Numbers(Passes):
        def _order(self, generator):
            return np.arange(3) if generator is None else generator.permutation(3)

        def _batch(self, order, k):
            return int(order[k])

    assert list(Numbers(3)) == [0, 1, 2] and repr(Numbers(3)) == "Numbers(3 batches)"
    assert sorted(Numbers(3, np.random.default_rng(0))) == [0, 1, 2]


def test_reprs():
    generator = np.random.default_rng(0)
    shown = {
        "Batches(4 batches, shuffled: 10 examples, 2 columns, batch_size=3, batch_first=True)": Batches(
            np.ones(10), np.ones(10), batch_size=3, generator=generator
        ),
        "Batches(1 batch: 3 examples, 1 column, batch_size=3, drop_last=True, batch_first=True)": Batches(
            [[1], [2], []], batch_size=3, drop_last=True, batch_first=True
        ),
        "Windows(3 batches: 25 steps, window=4, batch_size=8, ahead=2, stride=1, batch_first=True)": Windows(
            np.ones(25), 4, 8, stride=1, ahead=2, batch_first=True
        ),
        "Streams(3 batches: 25 steps, streams=2, window=5)": Streams(np.ones(25), 2, 5),
    }
    for text, data in shown.items():
        assert repr(data) == text


def test_the_same_seed_gives_the_same_order():
    rng = np.random.default_rng
    one, other = (passes(Batches(np.arange(90), batch_size=9, generator=rng(5)), 20) for _ in range(2))
    assert bits(one) == bits(other)
    assert bits(one[:10]) != bits(one[10:])


def test_states_that_do_not_fit():
    batches = Batches(np.arange(10), batch_size=2, generator=np.random.default_rng(0))
    good = batches.state_dict()
    faults = [
        ({"batches": 6}, "expected a state of 5 batches, got one of 6"),
        ({"position": 6}, "expected a position from 0 to 5, got 6"),
        ({"position": -1}, "expected a position from 0 to 5, got -1"),
        ({"position": "3"}, "expected a position from 0 to 5, got 3"),
        ({"position": True}, "expected a position from 0 to 5, got True"),
        ({"position": 3, "seed": -1}, "expected a seed from 0 to"),
        ({"position": 3, "seed": "abc"}, "expected a seed from 0 to"),
        ({"generator": None}, "expected data and state both shuffled or neither"),
        ({"position": 3, "seed": None}, "expected data and state both shuffled or neither"),
        ({"position": None, "seed": 3}, "expected data and state both shuffled or neither"),
        ({"generator": {"bit_generator": "MT19937"}}, "expected a state of .*PCG64.*, got another"),
        ({"more": 1}, "state of batches: expected"),
    ]
    for change, message in faults:
        with pytest.raises(FormatError, match=message):
            batches.load_state_dict({**good, **change})
    with pytest.raises(FormatError, match="state of batches: expected"):
        batches.load_state_dict(None)
    batches.load_state_dict(good)
    for position, left in ((0, 5), (2, 3), (5, 0)):
        batches.load_state_dict({**good, "position": position, "seed": 7})
        assert len(list(batches)) == left

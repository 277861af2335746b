"""Sequences of different lengths: their common type, what fills them up, and what is refused."""

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.data import Batches, Streams, Windows, pad_sequences
from gpulstm.errors import DeviceError, DTypeError, GpulstmError, ShapeError, TapeError

FILLED_UP = {
    "pad_sequences": lambda sequences, value: pad_sequences(sequences, value=value, batch_first=True),
    "Batches": lambda sequences, value: next(iter(Batches(sequences, batch_size=9, value=value, batch_first=True))),
    "Batches of columns": lambda sequences, value: next(
        iter(Batches(np.zeros(len(sequences)), sequences, batch_size=9, value=[None, value], batch_first=True))
    )[1],
}


@pytest.fixture(params=FILLED_UP)
def fill_up(request):
    return FILLED_UP[request.param]


# -- axes ----------------------------------------------------------------------------------------------------


def test_time_comes_first_unless_the_batch_is_asked_for(rng):
    sequences = [rng.standard_normal((n, 3)) for n in (2, 4)]
    padded, lengths = pad_sequences(sequences)
    other, same = pad_sequences(sequences, batch_first=True)
    assert padded.shape == (4, 2, 3) and other.shape == (2, 4, 3) and other.flags.c_contiguous
    np.testing.assert_array_equal(other, padded.swapaxes(0, 1))
    np.testing.assert_array_equal(lengths, same)
    for batch_first, want in ((None, padded), (False, padded), (True, other)):
        ((batch, _), rows), *_ = Batches(sequences, np.ones((2, 5)), batch_size=2, batch_first=batch_first)
        np.testing.assert_array_equal(batch, want)
        assert rows.shape == (2, 5)


@pytest.mark.parametrize("kind", [Windows, Streams])
@pytest.mark.parametrize("steps", [24, 27])
def test_batch_first_of_series(device, kind, steps):
    series = device.asarray(np.arange(2.0 * steps).reshape(steps, 2))
    plain, swapped = kind(series, 4, 3), kind(series, 4, 3, batch_first=True)
    assert len(plain) == len(swapped) > 1
    for one, other in zip(plain, swapped, strict=True):
        for a, b in zip(one, other, strict=True):
            assert b.flags.c_contiguous
            np.testing.assert_array_equal(device.to_numpy(a).swapaxes(0, 1), device.to_numpy(b))


def test_every_data_set_says_its_axes():
    for make in (
        lambda **axes: Batches([[1], [2]], np.ones(2), batch_size=2, **axes),
        lambda **axes: Windows(np.ones(9), 2, 2, **axes),
        lambda **axes: Streams(np.ones(9), 2, 2, **axes),
    ):
        assert make().batch_first is make(batch_first=False).batch_first is False
        assert make(batch_first=True).batch_first is True
        with pytest.raises(DTypeError, match="batch_first: expected True or False, got 1"):
            make(batch_first=1)
    assert Batches(np.ones((3, 4, 2)), batch_size=2).batch_first is True  # rows of arrays
    with pytest.raises(ShapeError, match="batch_first: expected True or None, as a batch holds rows"):
        Batches(np.ones((3, 4, 2)), batch_size=2, batch_first=False)


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_layer_reads_batches_as_the_docstring_says(batch_first):
    sentences = [[1, 2, 3], [], [4]]
    lstm, table = gl.LSTM(4, 5, batch_first=batch_first), gl.Embedding(10, 4)
    for ids, lengths in Batches(sentences, batch_size=2, batch_first=batch_first):
        output, _ = lstm(table(ids), lengths=lengths)
        assert output.shape == (*ids.shape, 5)


# -- types ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sequences", "dtype"),
    [
        ([[1, 2], [], [3]], np.int64),
        ([[], [], [3]], np.int64),
        ([[1, 2], np.array([]), [3]], np.int64),  # no element of it is a float
        ([np.array([1, 2], np.int8), np.array([], np.float64)], np.int8),
        ([np.array([1, 2], np.int8), np.array([300], np.int16)], np.int16),
        ([np.array([1, 2], np.uint8), np.array([3], np.int8)], np.int16),
        ([[1, 2], [0.5]], np.float64),
        ([[0.5], [2**53]], np.float64),
        ([np.array([2**24], np.int32), np.array([0.5], np.float32)], np.float64),
        ([np.array([0.5], np.float32), np.array([], np.float64)], np.float32),
        ([np.array([1.5], ">f4")], np.float32),
        ([[True], [False, True]], np.bool_),
        ([[True], []], np.bool_),
        ([np.array([], np.float32), []], np.float32),
        ([[], []], np.int64),
    ],
)
def test_the_type_of_what_is_there(fill_up, sequences, dtype):
    padded, lengths = fill_up(sequences, 0)
    assert padded.dtype == dtype and padded.dtype.isnative
    np.testing.assert_array_equal(lengths, [len(sequence) for sequence in sequences])
    for row, sequence in zip(padded, sequences, strict=True):
        np.testing.assert_array_equal(row[: len(sequence)], sequence)
        assert not row[len(sequence) :].any()


def test_a_batch_of_empty_sequences_has_the_type_of_the_column():
    sentences = [[1, 2], [], [], [3]]
    for (ids, lengths), _ in Batches(sentences, np.arange(4), batch_size=1, batch_first=True):
        assert ids.dtype == np.int64 and ids.shape == (1, max(1, lengths[0]))
    vectors = [np.ones((2, 3), np.float32), [], np.ones((1, 3), np.float32), []]
    lstm = gl.LSTM(3, 4, batch_first=True)
    for x, lengths in Batches(vectors, batch_size=1, batch_first=True):
        assert x.dtype == np.float32 and x.shape == (1, max(1, lengths[0]), 3)
        output, (h, _) = lstm(x, lengths=lengths)
        assert output.shape[:2] == x.shape[:2]
        assert bool(h.numpy().any()) == bool(lengths[0])


def test_sequences_of_arrays_of_any_library(device):
    on_device = [device.asarray(np.array([1, 2])), device.asarray(np.array([3])), []]
    padded, lengths = pad_sequences(on_device)
    assert isinstance(lengths, np.ndarray)
    np.testing.assert_array_equal(device.to_numpy(padded), [[1, 3, 0], [2, 0, 0]])
    padded, _ = pad_sequences([gl.Tensor(array) for array in on_device[:2]], batch_first=True)
    np.testing.assert_array_equal(device.to_numpy(padded), [[1, 2], [3, 0]])


def test_anything_with_a_length_is_a_sequence():
    for sequences in ([range(2), range(2)], [(0, 1), [0, 1]], [np.arange(2), (0, 1)]):
        ((padded, lengths),) = Batches(sequences, batch_size=2, batch_first=True)
        np.testing.assert_array_equal(padded, [[0, 1], [0, 1]])
        np.testing.assert_array_equal(lengths, [2, 2])


def test_an_array_of_lists_is_a_list_of_sequences():
    ragged = np.empty(2, object)
    ragged[:] = [[1, 2], [3]]
    for padded, lengths in (pad_sequences(ragged, batch_first=True), *Batches(ragged, batch_size=2, batch_first=True)):
        np.testing.assert_array_equal(padded, [[1, 2], [3, 0]])
        np.testing.assert_array_equal(lengths, [2, 1])


@pytest.mark.oracle
def test_sequences_from_torch():
    torch = pytest.importorskip("torch")
    padded, _ = pad_sequences([torch.arange(3), torch.arange(1)])
    np.testing.assert_array_equal(padded, [[0, 0], [1, 0], [2, 0]])
    with pytest.raises(GpulstmError, match=r"sequences\[1\]: .*detach"):
        pad_sequences([torch.ones(3), torch.ones(3, requires_grad=True)])


# -- what fills up -------------------------------------------------------------------------------------------

REFUSED = [
    (np.int64, 0.5),
    (np.int64, np.nan),
    (np.int64, np.inf),
    (np.int64, 2**63),
    (np.uint8, -1),
    (np.uint8, 256),
    (np.int8, 300),
    (np.int8, np.int64(-129)),
    (np.bool_, 2),
    (np.float16, 1e10),
    (np.float16, 1e-10),
    (np.float32, 1e39),
    (np.float32, 1j),
    (np.float32, "0"),
    (np.float32, None),
    (np.float32, [0.0, 1.0, 2.0]),
    (np.int64, np.array([0, 1])),
]
HELD = [
    (np.int64, 1.0),
    (np.int64, np.float32(-3)),
    (np.uint8, 255),
    (np.int8, np.int64(-128)),
    (np.bool_, True),
    (np.float16, 1e4),
    (np.float32, 0.1),
    (np.float32, np.nan),
    (np.float16, -np.inf),
    (np.float64, np.array(2)),
]


@pytest.mark.parametrize(("dtype", "value"), REFUSED)
def test_a_value_that_the_type_cannot_hold(fill_up, dtype, value):
    with pytest.raises(GpulstmError, match=r"^value: expected "):
        fill_up([np.zeros(2, dtype), np.zeros(1, dtype)], value)


@pytest.mark.parametrize(("dtype", "value"), [case for case in REFUSED if case[1] is not None])
def test_a_fill_that_the_type_cannot_hold(dtype, value):
    with pytest.raises(DTypeError, match=r"^fill: expected a number that"):
        Streams(np.zeros(9, dtype), 2, 2, fill=value)
    with pytest.raises(DTypeError, match=r"^fill: expected a number that .* the type of targets"):
        Streams(np.zeros(8), 2, 2, targets=np.zeros(8, dtype), fill=value)  # nothing is to be filled up


@pytest.mark.parametrize(("dtype", "value"), HELD)
def test_a_value_that_the_type_can_hold(fill_up, dtype, value):
    padded, _ = fill_up([np.zeros(2, dtype), np.zeros(1, dtype)], value)
    assert padded.dtype == dtype
    np.testing.assert_array_equal(padded[1, 1], np.asarray(value).astype(dtype))
    (*_, (_, y)) = Streams(np.zeros(8, dtype), 2, 2, fill=value)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y[-1, 1], np.asarray(value).astype(dtype))


def test_a_value_for_every_column():
    ids, targets = [[1, 2], [3]], [[4, 5], [6]]
    (((x, _), (y, _), labels),) = Batches(ids, targets, [7, 8], batch_size=2, value=[0, -100, None], batch_first=True)
    np.testing.assert_array_equal(x, [[1, 2], [3, 0]])
    np.testing.assert_array_equal(y, [[4, 5], [6, -100]])
    np.testing.assert_array_equal(labels, [7, 8])
    with pytest.raises(ShapeError, match=r"value: expected one number, or 3, one per column, got 2"):
        Batches(ids, targets, [7, 8], batch_size=2, value=[0, -100])
    with pytest.raises(ShapeError, match=r"value\[1\]: expected None, as columns\[1\] is an array"):
        Batches(ids, [7, 8], batch_size=2, value=[0, -100])
    with pytest.raises(ShapeError, match="value: expected 0, as there is no column of sequences to pad, got -1"):
        Batches([7, 8], batch_size=2, value=-1)


# -- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sequences", "error", "message"),
    [
        ([[1, 2], ["a"]], DTypeError, r"\[1\]: expected numbers or booleans, got str"),
        ([[1, 2], [None]], DTypeError, r"\[1\]: expected numbers or booleans, got object"),
        ([[1, 2], [1j]], DTypeError, r"\[1\]: expected numbers or booleans, got complex128"),
        ([[1], [2**70]], DTypeError, r"\[1\]: expected numbers or booleans, got object"),
        ([[1], [[1], [2, 3]]], ShapeError, r"\[1\]: expected equal shapes in a list, got \[\[1\], \[2, 3\]\]"),
        ([[1], "abc"], DTypeError, r"\[1\]: expected an array or a list of numbers or booleans, got str"),
        ([[1], {"a": 1}], DTypeError, r"\[1\]: expected an array or a list of numbers or booleans, got dict"),
        ([[1], None], DTypeError, r"\[1\]: expected an array or a list of numbers or booleans, got NoneType"),
        ([[1], 2], ShapeError, r"\[1\]: expected \(steps\), got \(\)"),
        ([[1], [[1, 2]]], ShapeError, r"\[1\]: expected \(steps\), got \(1, 2\)"),
        ([np.ones((1, 2)), np.ones((0, 3))], ShapeError, r"\[1\]: expected \(steps, 2\), got \(0, 3\)"),
        ([[1, 2], [True]], DTypeError, r"\[1\]: expected int64 as .*\[0\] has, got bool"),
        ([[0.5], [2**60]], DTypeError, r"\[1\]: expected float64 as .*\[0\] has, got int64"),
        ([[0.5], [-(2**53) - 1]], DTypeError, r"\[1\]: expected float64 as .*\[0\] has, got int64"),
        ([np.array([1], np.uint64), [2**60]], DTypeError, r"\[1\]: expected uint64 as .*\[0\] has, got int64"),
    ],
)
@pytest.mark.parametrize("kind", ["sequences", "columns[0]"])
def test_sequences_that_are_refused(kind, sequences, error, message):
    name = kind.replace("[", r"\[").replace("]", r"\]")
    with pytest.raises(error, match=f"^{name}{message}"):
        pad_sequences(sequences) if kind == "sequences" else Batches(sequences, batch_size=1)


@pytest.mark.parametrize(
    ("column", "error", "message"),
    [
        (None, DTypeError, r"^columns\[1\]: expected an array or a list of sequences, got NoneType"),
        ((n for n in range(3)), DTypeError, r"^columns\[1\]: expected an array or a list of sequences, got generator"),
        ("abc", DTypeError, r"^columns\[1\]: expected an array or a list of numbers or booleans, got str"),
        (["a", "b", "c"], DTypeError, r"^columns\[1\]: expected numbers or booleans, got str"),
        ([1, None, 2], DTypeError, r"^columns\[1\]: expected numbers or booleans, got object"),
        (np.array([1, None, 2]), DTypeError, r"^columns\[1\]: expected numbers or booleans, got object"),
        (np.ones(3, complex), DTypeError, r"^columns\[1\]: expected numbers or booleans, got complex128"),
        ([[1], 2, [3]], ShapeError, r"^columns\[1\]\[1\]: expected \(steps\), got \(\)"),
    ],
)
def test_columns_that_are_refused(column, error, message):
    with pytest.raises(error, match=message):
        Batches(np.ones(3), column, batch_size=2)


@pytest.mark.parametrize("kind", [Windows, Streams])
@pytest.mark.parametrize("name", ["series", "targets"])
def test_series_that_are_refused(kind, name):
    def make(bad):
        given = {"series": np.ones(4), "targets": np.ones(4), name: bad}
        return kind(given["series"], 2, 2, targets=given["targets"])

    for bad in ("abcd", ["a", "b", "c", "d"], np.ones(4, complex), np.array([1, None, 2, 3]), {1: 2}, set()):
        with pytest.raises(DTypeError, match=f"^{name}: expected "):
            make(bad)
    with pytest.raises(ShapeError, match=f"^{name}: expected equal shapes"):
        make([[1], [2, 3], [4], [5]])
    with pytest.raises(ShapeError, match=rf"^{name}: expected \(N, ...\) with N steps, got \(\)"):
        make(np.ones(()))
    with pytest.raises(TapeError, match=rf"^{name}: expected data, .*detach\(\)"):
        make(gl.Parameter(np.ones(4)))


def test_sequences_on_two_devices(emulated):
    there = gl.tensor([1, 2], device="cuda").data
    with pytest.raises(DeviceError, match=r"^sequences\[1\]: expected cpu, the device of the others, got cuda:0"):
        pad_sequences([[1], there])
    with pytest.raises(DeviceError, match=r"^columns\[0\]\[1\]: expected cuda:0, the device of the others, got cpu"):
        Batches([there, [1]], batch_size=2)


def test_faults_of_a_sequence_name_it():
    masked = np.ma.array([1, 2], mask=[False, True])
    with pytest.raises(DTypeError, match=r"sequences\[1\]: expected a plain array, got a MaskedArray"):
        pad_sequences([[1], masked])
    with pytest.raises(DTypeError, match=r"sequences\[0\]: expected numbers that float64, the common type .* int64"):
        pad_sequences([np.array([2**60 + 1]), np.array([0.5])])

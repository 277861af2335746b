"""embedding: rows by id; the gradient adds every token once, in one order, for any mix of ids."""

import ml_dtypes
import numpy as np
import pytest

from gpulstm import backend as gl_backend
from gpulstm.errors import DTypeError, ShapeError
from gpulstm.functional import embedding
from tests.tolerances import assert_ratio


def skewed_ids(rng, V, shape):
    """Ids as words are: a few make up most of a text, many do not come at all."""
    share = 1 / np.arange(1, V + 1) ** 1.5
    return rng.permutation(V)[rng.choice(V, shape, p=share / share.sum())]


def gradient_by_definition(ids, dy, V):
    dtable = np.zeros((V, dy.shape[-1]))
    for v, row in zip(ids.reshape(-1), dy.reshape(ids.size, dy.shape[-1]).astype(np.float64), strict=True):
        dtable[v] += row
    return dtable


# (V, D, shape of ids): a table far larger than the text, far smaller, one row, one token, one column, none
CASES = [
    (500, 3, (7,)), (3, 5, (40, 11)), (1, 4, (300,)), (10, 3, ()), (6, 1, (1,)), (5, 4, (0,)), (4, 0, (3,)),
    (0, 4, (0, 2)), (50, 2, (2, 3, 4)), (2, 3, (17,)), (300, 128, (60, 9)),
]  # fmt: skip


@pytest.mark.parametrize(("V", "D", "shape"), CASES)
def test_value_and_gradient(device, V, D, shape):
    rng = np.random.default_rng(V + D)
    table = rng.standard_normal((V, D))
    ids = skewed_ids(rng, V, shape) if V else np.zeros(shape, np.int64)
    dy = rng.integers(-9, 10, (*shape, D)) * 1.0  # whole numbers: every order gives the same sums
    y, pullback = embedding(device.asarray(ids), device.asarray(table))
    np.testing.assert_array_equal(device.to_numpy(y), table[ids])
    for _ in range(2):
        none, dtable = pullback(device.asarray(dy))
        assert none is None
        np.testing.assert_array_equal(device.to_numpy(dtable), gradient_by_definition(ids, dy, V))


@pytest.mark.parametrize("seed", range(12))
def test_gradient_for_random_mixes_of_ids(device, seed):
    rng = np.random.default_rng(seed)
    V, N, D = int(rng.integers(1, 40)), int(rng.integers(1, 600)), int(rng.integers(1, 5))
    ids = np.minimum(rng.geometric(rng.choice([0.05, 0.3, 0.9]), N) - 1, V - 1)
    dy = rng.integers(-9, 10, (N, D)).astype(np.float32)
    _, pullback = embedding(device.asarray(ids), device.xp.zeros((V, D), np.float32))
    want = gradient_by_definition(ids, dy, V)
    np.testing.assert_array_equal(device.to_numpy(pullback(device.asarray(dy))[1]), want)


def test_gradient_has_the_same_bits_every_time(device):
    rng = np.random.default_rng(3)
    ids = skewed_ids(rng, 30, (2000,))
    dy = rng.standard_normal((2000, 8)).astype(np.float32) * 10.0 ** rng.integers(-6, 6, (2000, 1))
    table, dy = device.xp.zeros((30, 8), np.float32), device.asarray(dy.astype(np.float32))
    runs = [device.to_numpy(embedding(device.asarray(ids), table)[1](dy)[1]).tobytes() for _ in range(4)]
    assert len(set(runs)) == 1
    # The comparison can fail: the same tokens the other way round give other bits.
    turned = embedding(device.asarray(ids[::-1].copy()), table)[1](device.xp.flip(dy, axis=0))[1]
    assert device.to_numpy(turned).tobytes() != runs[0]


@pytest.mark.parametrize(("V", "N"), [(2, 20000), (60, 20000), (4000, 500)])
def test_gradient_is_as_exact_as_numpys(device, V, N):
    rng = np.random.default_rng(V)
    ids, dy = skewed_ids(rng, V, (N,)), rng.standard_normal((N, 3)).astype(np.float32)
    _, pullback = embedding(device.asarray(ids), device.xp.zeros((V, 3), np.float32))
    plain = np.zeros((V, 3), np.float32)
    np.add.at(plain, ids, dy)
    assert_ratio(pullback(device.asarray(dy))[1], plain, gradient_by_definition(ids, dy, V), "dtable")


@pytest.mark.parametrize("first", [0, 1, 63])
def test_the_kernel_sums_a_frequent_id_in_pieces(emulated, first):
    """One long run would be slow; it would also lose 2^-24 beside 1 every time, which whole pieces do not."""
    backend = gl_backend.device("cuda").backend
    ids = np.repeat([0, 1], [first, 63 * 64 - first])  # 63 pieces of 64 tokens
    dy = np.full((63 * 64, 1), 2.0**-24, np.float32)
    dy[first] = 1  # in the first piece, of which the rest is lost; all others are whole
    table = backend.xp.zeros((2, 1), np.float32)
    dtable = embedding(backend.asarray(ids), table)[1](backend.asarray(dy))[1]
    np.testing.assert_array_equal(backend.to_numpy(dtable[1]), np.float32([1 + 62 * 64 * 2.0**-24]))


@pytest.mark.parametrize("padding_idx", [0, 4, -1, -5, np.int32(2)])
def test_padding_gets_no_gradient(device, padding_idx):
    rng = np.random.default_rng(0)
    ids, table, dy = rng.integers(0, 5, (6, 50)), rng.standard_normal((5, 3)), rng.standard_normal((6, 50, 3))
    y, pullback = embedding(device.asarray(ids), device.asarray(table), padding_idx=padding_idx)
    np.testing.assert_array_equal(device.to_numpy(y), table[ids])
    want = gradient_by_definition(ids, dy, 5)
    want[padding_idx] = 0
    np.testing.assert_allclose(device.to_numpy(pullback(device.asarray(dy))[1]), want, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_accumulate_in_float32(device, dtype):
    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    table = np.random.default_rng(0).standard_normal((3, 4)).astype(dtype)
    ids = np.array([0, 1] * 2048 + [0])
    y, pullback = embedding(device.asarray(ids), device.asarray(table))
    np.testing.assert_array_equal(device.to_numpy(y), table[ids])
    dtable = pullback(device.xp.ones((4097, 4), dtype))[1]
    assert dtable.dtype == dtype
    # A running sum of ones in half precision stops at 2048 (float16) or 256 (bfloat16).
    want = np.array([2049, 2048, 0], np.float32)[:, None].astype(dtype)
    np.testing.assert_array_equal(device.to_numpy(dtable), np.broadcast_to(want, (3, 4)))


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.uint64])
def test_ids_of_any_integer_type(device, kind):
    ids = np.array([[2, 0], [1, 2]], kind)
    table = np.arange(6.0).reshape(3, 2)
    y, pullback = embedding(device.asarray(ids), device.asarray(table))
    np.testing.assert_array_equal(device.to_numpy(y), table[ids])
    np.testing.assert_array_equal(device.to_numpy(pullback(y)[1]), table * [[1], [1], [2]])


def test_arrays_need_not_be_contiguous(device):
    rng = np.random.default_rng(0)
    ids, table, dy = rng.integers(0, 9, (4, 30)), rng.standard_normal((5, 9)), rng.standard_normal((5, 30, 8))
    y, pullback = embedding(device.asarray(ids).T[:, ::2], device.asarray(table).T)
    np.testing.assert_array_equal(device.to_numpy(y), table.T[ids.T[:, ::2]])
    dtable = pullback(device.asarray(dy).transpose(1, 2, 0)[:, ::4])[1]
    want = gradient_by_definition(ids.T[:, ::2], dy.transpose(1, 2, 0)[:, ::4], 9)
    np.testing.assert_allclose(device.to_numpy(dtable), want, rtol=1e-12)


@pytest.mark.oracle
@pytest.mark.parametrize("padding_idx", [None, 3])
def test_matches_torch(device, padding_idx):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    ids, table = skewed_ids(rng, 20, (7, 30)), rng.standard_normal((20, 6))
    dy = rng.standard_normal((7, 30, 6))
    tensor = torch.tensor(table, requires_grad=True)
    out = torch.nn.functional.embedding(torch.tensor(ids), tensor, padding_idx=padding_idx)
    out.backward(torch.tensor(dy))
    y, pullback = embedding(device.asarray(ids), device.asarray(table), padding_idx=padding_idx)
    np.testing.assert_array_equal(device.to_numpy(y), out.detach().numpy())
    got = device.to_numpy(pullback(device.asarray(dy))[1])
    np.testing.assert_allclose(got, tensor.grad.numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("bad", [5, -1, 2**40, -(2**63)])
def test_an_id_out_of_range_is_named(device, bad):
    ids = np.array([[0, 4, 1], [2, bad, 3]])
    message = rf"ids: expected 0 <= index < 5, the rows of the table, got {bad} at \(1, 1\)"
    with pytest.raises(ShapeError, match=message):
        embedding(device.asarray(ids), device.xp.zeros((5, 2), np.float32))


def test_no_id_fits_an_empty_table(device):
    with pytest.raises(ShapeError, match="ids: expected 0 <= index < 0, the rows of the table, got 0 at 0"):
        embedding(device.asarray(np.array([0, 0, 0])), device.xp.zeros((0, 2), np.float32))


def test_bad_arguments(device):
    ids, table = device.asarray(np.array([1])), device.xp.zeros((5, 2), np.float32)
    with pytest.raises(ShapeError, match=r"table: expected \(V, D\) = \(ids, features\), got \(2,\)"):
        embedding(ids, table[0])
    with pytest.raises(ShapeError, match="padding_idx: expected -5 <= padding_idx < 5, rows of the table, got 5"):
        embedding(ids, table, padding_idx=5)
    with pytest.raises(DTypeError, match="ids: expected integers, got float32"):
        embedding(ids.astype(np.float32), table)
    with pytest.raises(DTypeError, match="table: expected float32, float64, float16, bfloat16, got int64"):
        embedding(ids, table.astype(np.int64))
    with pytest.raises(DTypeError, match="ids: expected"):
        embedding([1], table)

"""dropout: the mask is a known function of the seed, the same on every device, and statistically sound."""

import math

import ml_dtypes
import numpy as np
import pytest

from gpulstm.errors import DTypeError, ShapeError
from gpulstm.functional import dropout
from gpulstm.functional.dropout import GAMMA, words
from gpulstm.shares import Share

SEEDS = (0, 1, 1234567, 2**63 - 1, 2**63, 2**64 - 1)


def split_mix(seed: int, count: int) -> list[int]:
    """The first words of SplitMix64 in Python's whole numbers, as the paper's listing writes it."""
    state, result = seed, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        result.append(z ^ (z >> 31))
    return result


def kept(seed: int, rate: float, size: int) -> np.ndarray:
    """The mask by the definition: four draws a word, the lowest 16 bits first."""
    draws = [word >> 16 * part & 0xFFFF for word in split_mix(seed, -(-size // 4)) for part in range(4)]
    return np.array(draws[:size], np.int64) >= round(rate * 65536)


def test_split_mix_gives_the_published_words():
    # The first outputs for seed 1234567 as several independent implementations of SplitMix64 publish them.
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert split_mix(1234567, 5) == published
    steps = np.arange(5, dtype=np.uint64) * np.uint64(GAMMA)
    assert words(1234567, 0, steps).tolist() == published
    assert words(1234567, 2, steps[:3]).tolist() == published[2:]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.999])
def test_mask_is_the_definitions(device, seed, rate):
    for size in (1, 3, 4, 5, 1001):
        x = np.random.default_rng(size).standard_normal(size).astype(np.float32)
        y, pullback = dropout(device.asarray(x), rate, seed)
        factor = kept(seed, rate, size) * np.float32(1 / (1 - rate))
        np.testing.assert_array_equal(device.to_numpy(y), x * factor)
        (dx,) = pullback(device.asarray(2 * x))
        np.testing.assert_array_equal(device.to_numpy(dx), 2 * x * factor)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_draw_at_the_threshold_is_kept(device, seed):
    x = device.xp.ones(4, np.float32)
    for part in range(4):
        draw = split_mix(seed, 1)[0] >> 16 * part & 0xFFFF
        assert device.to_numpy(dropout(x, draw / 65536, seed)[0])[part] != 0
        assert device.to_numpy(dropout(x, (draw + 1) / 65536, seed)[0])[part] == 0


def test_mask_of_a_large_array(device):
    size = 3 * 65536 + 7  # several chunks in NumPy, several rounds of the grid in the kernel
    y, _ = dropout(device.xp.ones(size, np.float32), 0.3, 77)
    np.testing.assert_array_equal(device.to_numpy(y) != 0, kept(77, 0.3, size))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_mask_is_the_same_for_every_type(device, dtype):
    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    x = np.linspace(-3, 3, 999).astype(dtype)
    y, pullback = dropout(device.asarray(x), 0.2, 5)
    assert y.dtype == dtype
    wide = np.float64 if dtype == np.float64 else np.float32
    want = (x.astype(wide) * (kept(5, 0.2, 999) * wide(1 / 0.8))).astype(dtype)
    np.testing.assert_array_equal(device.to_numpy(y), want)
    np.testing.assert_array_equal(device.to_numpy(pullback(device.asarray(x))[0]), want)


def test_gradient_uses_the_same_mask(device):
    x = device.xp.ones((13, 7, 5), np.float32)
    y, pullback = dropout(x, 0.4, 99)
    for _ in range(2):
        np.testing.assert_array_equal(device.to_numpy(pullback(x)[0]), device.to_numpy(y))
    assert 0 < np.count_nonzero(device.to_numpy(y)) < y.size


@pytest.mark.parametrize(("first", "last"), [(0, 3), (2, 5), (3, 8), (7, 8)])
@pytest.mark.parametrize("before", [0, 1])
def test_the_share_of_a_batch_has_the_draws_of_its_place_in_the_whole(device, first, last, before):
    """An array (T, B, D) of the sequences first to last of 8, after ``before`` steps; no row is a whole word."""
    T, B, D = 5, 8, 3
    want = kept(11, 0.4, (before + T) * B * D).reshape(before + T, B, D)[before:, first:last]
    draws = Share(first, last - first, B).draws(want.shape, 1, before)
    y, pullback = dropout(device.xp.ones(want.shape, np.float64), 0.4, 11, draws)
    np.testing.assert_array_equal(device.to_numpy(y) != 0, want)
    np.testing.assert_array_equal(device.to_numpy(pullback(device.xp.ones(want.shape, np.float64))[0]) != 0, want)


def test_input_need_not_be_contiguous(device):
    x = np.random.default_rng(0).standard_normal((6, 10)).astype(np.float32)
    want = x.T * (kept(3, 0.5, 60) * np.float32(2)).reshape(10, 6)
    y, pullback = dropout(device.asarray(x).T, 0.5, 3)
    np.testing.assert_array_equal(device.to_numpy(y), want)
    np.testing.assert_array_equal(device.to_numpy(pullback(device.asarray(x).T)[0]), want)


def test_numbers_may_be_numpys(device):
    x = device.xp.ones(100, np.float32)
    y, _ = dropout(x, np.float32(0.25), np.uint64(2**63 + 5))
    np.testing.assert_array_equal(device.to_numpy(y), kept(2**63 + 5, 0.25, 100) * np.float32(1 / 0.75))


def test_rates_at_the_ends(device):
    x = device.asarray(np.arange(1, 10, dtype=np.float32))
    y, pullback = dropout(x, 0, 1)
    np.testing.assert_array_equal(device.to_numpy(y), device.to_numpy(x))
    np.testing.assert_array_equal(device.to_numpy(pullback(x)[0]), device.to_numpy(x))
    y, pullback = dropout(x, 1, 1)
    assert not device.to_numpy(y).any() and not device.to_numpy(pullback(x)[0]).any()


def test_empty_input(device):
    y, pullback = dropout(device.xp.zeros((0, 3), np.float32), 0.5, 1)
    assert y.shape == (0, 3) and pullback(y)[0].shape == (0, 3)


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
def test_mask_is_random_enough(rate):
    """Share kept, runs at short distances, agreement of seeds: each within five standard deviations."""
    size = 1 << 18
    ones = np.ones(size)
    masks = [dropout(ones, rate, seed)[0] != 0 for seed in (0, 1, 2, 2**40 + 1)]
    share, spread = 1 - rate, math.sqrt(rate * (1 - rate) / size)
    for mask in masks:
        assert abs(mask.mean() - share) < 5 * spread + 1 / 131072  # the rate is met to 1/131072
        z = (mask - share) / math.sqrt(rate * share)
        for distance in (1, 2, 3, 4, 5, 8, 64, 1000, 65536):
            assert abs((z[distance:] * z[:-distance]).mean()) < 5 / math.sqrt(size - distance)
    for k, mask in enumerate(masks):
        for other in masks[:k]:
            product = (mask - share) * (other - share) / (rate * share)
            assert abs(product.mean()) < 5 / math.sqrt(size)


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_rate_out_of_range(device, rate):
    with pytest.raises(ShapeError, match=r"rate: expected 0 <= rate <= 1, got"):
        dropout(device.xp.ones(3, np.float32), rate, 0)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_out_of_range(device, seed):
    with pytest.raises(ShapeError, match=r"seed: expected 0 <= seed < 2\*\*64, got"):
        dropout(device.xp.ones(3, np.float32), 0.5, seed)


def test_integers_are_refused(device):
    with pytest.raises(DTypeError, match="x: expected float32, float64, float16, bfloat16, got int64"):
        dropout(device.xp.ones(3, np.int64), 0.5, 0)


def test_an_array_without_dimensions_keeps_its_shape(device):
    y, pullback = dropout(device.asarray(np.float32(2)), 0.5, 3)
    assert y.shape == pullback(y)[0].shape == () and device.to_numpy(y).item() in (0, 4)

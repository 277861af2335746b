"""The memory pool of the NumPy backend: ordinary arrays whose memory comes back."""

import gc
import threading

import numpy as np
import pytest

from gpulstm import pool

LARGE = pool.SMALLEST // 4 + 1  # float32 values: just over the pool's threshold


@pytest.fixture(autouse=True)
def fresh_pool(monkeypatch):
    monkeypatch.setattr(pool, "POOL", pool.Pool(limit=1 << 30))


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_arrays_are_ordinary_and_aligned():
    for shape, dtype in (
        ((3, LARGE), np.float32),
        ((LARGE,), np.float64),
        ((7, LARGE), np.uint8),
        ((2, 3), np.float32),
    ):
        array = pool.empty(shape, dtype)
        assert (array.shape, array.dtype) == (shape, dtype) and array.flags.c_contiguous and array.flags.writeable
        array[...] = 1
        assert array.sum() == array.size
    assert address(pool.empty((LARGE,), np.float32)) % pool.ALIGNMENT == 0


def test_bfloat16_is_served():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    array = pool.empty((4, LARGE), bfloat16)
    array[...] = 1
    assert array.dtype == bfloat16 and (array == 1).all()


def test_memory_is_used_again_when_the_last_view_dies():
    array = pool.empty((LARGE,), np.float32)
    where, view = address(array), array[5:10]
    del array
    assert address(pool.empty((LARGE,), np.float32)) != where  # the view still holds it
    del view
    assert address(pool.empty((LARGE,), np.float32)) == where


def test_two_live_arrays_never_share():
    arrays = [pool.empty((LARGE,), np.float32) for _ in range(20)]
    for number, array in enumerate(arrays):
        array[...] = number
    assert all((array == number).all() for number, array in enumerate(arrays))


def test_free_memory_stays_under_the_limit():
    pool.POOL.limit = 3 * pool.rounded(4 * LARGE)
    arrays = [pool.empty((LARGE,), np.float32) for _ in range(10)]
    del arrays
    gc.collect()
    assert pool.POOL.held == pool.POOL.limit
    pool.POOL.clear()
    assert pool.POOL.held == 0


@pytest.mark.parametrize("size", [1, 4095, 4096, 100_000, 262_144, 262_145, 1 << 20, (1 << 20) + 1, 10**9])
def test_blocks_are_a_little_larger_than_asked(size):
    block = pool.rounded(size)
    assert size <= block <= max(size * 1.126, size + 4096)
    assert pool.rounded(block) == block


def test_threads_get_memory_of_their_own():
    wrong = []

    def work(number):
        for _ in range(50):
            array = pool.empty((LARGE,), np.float32)
            array[...] = number
            if not (array == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong

"""The emulated CUDA refuses what CUDA refuses, counts what the host asks, and lets CuPy be CuPy."""

import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from tests import emulated_cuda
from tests.conftest import ROOT, emulation

xp = emulation()
pytestmark = pytest.mark.usefixtures("emulated")
Error = xp.cuda.runtime.CUDARuntimeError


def stream():
    return xp.cuda.Stream(non_blocking=True)


# -- CuPy as it is ----------------------------------------
def test_it_is_cupys_own_code_that_runs():
    assert xp.__version__.partition(".")[0] == "14" and "site-packages" in xp.__file__
    x = xp.ones(3, ml_dtypes.bfloat16)
    assert xp.where(x > 0, x, x).dtype == np.float32  # CuPy has no loop for it
    assert xp.ascontiguousarray(xp.ones((), np.float32)).shape == (1,)
    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(x)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
def test_products_are_those_of_numpy(rng, dtype, transposed):
    shapes = [(5, 7), (7, 4)]
    a, b = (
        rng.integers(-4, 5, shape[::-1] if t else shape).astype(dtype)
        for shape, t in zip(shapes, transposed, strict=True)
    )
    left, right = (m.T if t else m for m, t in zip((a, b), transposed, strict=True))
    there = [xp.asarray(m).T if t else xp.asarray(m) for m, t in zip((a, b), transposed, strict=True)]
    want = left.astype(np.float64) @ right.astype(np.float64)
    np.testing.assert_array_equal((there[0] @ there[1]).get().astype(np.float64), want)


def test_products_of_tf32_lose_their_last_bits():
    x = xp.full((1, 1), 1 + 2**-12, np.float32)
    exact = float(xp.matmul(x, xp.ones((1, 1), np.float32))[0, 0])
    handle = xp.cuda.device.get_cublas_handle()
    cublas = sys.modules["cupy_backends.cuda.libs.cublas"]
    one, zero, out = np.ones(1, np.float32), np.zeros(1, np.float32), xp.empty((1, 1), np.float32)
    y = xp.ones(1, np.float32)
    alpha, beta = one.ctypes.data, zero.ctypes.data
    cublas.gemmEx(handle, 0, 0, 1, 1, 1, alpha, x.data.ptr, 0, 1, y.data.ptr, 0, 1, beta, out.data.ptr, 0, 1, 77, -1)
    assert exact == 1 + 2**-12 and float(out[0, 0]) == 1


# -- devices ----------------------------------------
def test_two_devices_have_their_own_memory():
    x = xp.ones(3)
    with xp.cuda.Device(1):
        with pytest.raises(ValueError, match="different from the current device"):
            x + x
        y = xp.asarray(x)
        assert y.device.id == 1 and float(y.sum()) == 3
    assert x.device.id == 0


def test_a_kernel_of_another_device_is_refused():
    kernel = xp.RawModule(code='extern "C" __global__ void probe(float* y) { y[0] = 1; }').get_function("probe")
    y = xp.zeros(1, np.float32)
    function = kernel.kernel
    with xp.cuda.Device(1), pytest.raises(xp.cuda.driver.CUDADriverError, match="INVALID_HANDLE"):
        function((1,), (1,), (y,))
    function((1,), (1,), (y,))
    assert y.item() == 1


def test_memory_ends():
    free, total = xp.cuda.Device().mem_info
    with emulated_cuda.gpu(memory=total - free + (1 << 20)):
        assert xp.cuda.Device().mem_info == (1 << 20, total - free + (1 << 20))
        with pytest.raises(Error, match="MemoryAllocation"):
            xp.empty(1 << 20, np.float32)


def test_a_write_beside_a_block_is_found_when_it_is_freed():
    x = xp.ones(4, np.float32)
    host = np.frombuffer((np.ctypeslib.ctypes.c_float * 5).from_address(x.data.ptr), np.float32)
    host[4] = 1
    del x
    assert "written beside" in emulated_cuda.pending_fault()
    assert not emulated_cuda.pending_fault()


# -- streams and graphs ----------------------------------------
def capture(work):
    """(the stream, the graph of what ``work`` launches on it)."""
    on = stream()
    with on:
        on.begin_capture()
        work()
        return on, on.end_capture()


def test_a_graph_replays_with_new_data():
    x, y = xp.ones(4, np.float32), xp.zeros(4, np.float32)
    xp.multiply(x, 2, out=y)  # compiled before
    y.fill(0)
    on, graph = capture(lambda: xp.multiply(x, 2, out=y))
    assert not y.any()
    for value in (3, 5):
        x.fill(value)
        graph.launch(on)
        np.testing.assert_array_equal(y.get(), 2 * value)


@pytest.mark.parametrize("wait", [
    lambda x: xp.cuda.runtime.streamSynchronize(xp.cuda.get_current_stream().ptr),
    lambda x: xp.cuda.runtime.deviceSynchronize(),
    lambda x: xp.cuda.runtime.memcpyAsync(np.empty(3).ctypes.data, x.data.ptr, 24, 2, xp.cuda.get_current_stream().ptr),
    lambda x: xp.cuda.runtime.memcpyAsync(x.data.ptr, np.empty(3).ctypes.data, 24, 1, xp.cuda.get_current_stream().ptr),
])  # fmt: skip
def test_waiting_in_a_capture_is_refused(wait):
    x, on = xp.ones(3), stream()
    with on:
        on.begin_capture()
        with pytest.raises(Error, match="StreamCaptureUnsupported"):
            wait(x)
        with pytest.raises(Error, match="StreamCaptureInvalidated"):
            on.end_capture()


def test_the_default_stream_cannot_be_captured_nor_used_beside_a_capture():
    with pytest.raises((Error, RuntimeError)):
        xp.cuda.Stream.null.begin_capture()
    blocking = xp.cuda.Stream()
    x = xp.ones(3)
    with blocking:
        blocking.begin_capture()
        with xp.cuda.Stream.null, pytest.raises(xp.cuda.driver.CUDADriverError, match="StreamCaptureImplicit"):
            x.fill(2)
        with pytest.raises(Error, match="StreamCaptureInvalidated"):
            blocking.end_capture()


def test_cupys_own_products_cannot_be_captured():
    a = xp.ones((2, 2), np.float32)
    a @ a
    on = stream()
    with on:
        on.begin_capture()
        with pytest.raises(NotImplementedError):
            a @ a
        on.end_capture()
    assert float((a @ a)[0, 0]) == 2


def forked(join, wait=True):
    """What two streams of one capture compute: y = 2 x on the second, z = y + 1 on the first, after or without it."""
    x, y, z = xp.ones(4, np.float32), xp.zeros(4, np.float32), xp.zeros(4, np.float32)
    xp.multiply(x, 2, out=y), xp.add(y, 1, out=z)
    y.fill(0), z.fill(0)
    one, other = stream(), stream()
    with one:
        one.begin_capture()
        other.wait_event(one.record())
        with other:
            xp.multiply(x, 2, out=y)
        if wait:
            one.wait_event(other.record())
        xp.add(y, 1, out=z)
        if join:
            one.wait_event(other.record())
        graph = one.end_capture()
    seen = set()
    for _ in range(20):
        y.fill(0)
        graph.launch(one)
        seen.add(float(z[0]))
    return seen


def test_a_wait_that_is_missing_in_a_graph_shows():
    assert forked(join=True) == {3.0}
    assert forked(join=True, wait=False) == {1.0, 3.0}
    with pytest.raises(Error, match="StreamCaptureUnjoined"):
        forked(join=False, wait=False)


# -- cooperative launches ----------------------------------------
MEET = """
extern "C" __global__ void meet(volatile unsigned* arrived, float* y) {
    if (threadIdx.x == 0) {
        arrived[blockIdx.x] = 1;
        for (unsigned k = 0; k < gridDim.x; ++k) while (!arrived[k]) emulated::pause();
    }
    __syncthreads();
    y[blockIdx.x * blockDim.x + threadIdx.x] = 1;
}"""


def test_blocks_of_a_cooperative_launch_wait_for_each_other():
    module = xp.RawModule(code=MEET, enable_cooperative_groups=True)
    arrived, y = xp.zeros(8, np.uint32), xp.zeros(8 * 64, np.float32)
    module.get_function("meet")((8, 1), (64, 1), (arrived, y))
    assert (y.get() == 1).all()


def test_a_cooperative_launch_that_does_not_fit_is_refused():
    module = xp.RawModule(code=MEET, enable_cooperative_groups=True)
    with emulated_cuda.gpu(multiprocessors=1), pytest.raises(Exception, match="exceeds the limit"):
        module.get_function("meet")((64, 2), (1024, 1), (xp.zeros(128, np.uint32), xp.zeros(1, np.float32)))


# -- counts, and a harsher arithmetic ----------------------------------------
def test_launches_products_copies_and_waits_are_counted():
    a = xp.ones((3, 3), np.float32)
    a @ a, a + a
    with emulated_cuda.counted() as counts:
        b = a @ a
        b + a
        b.get()
        b[0] = 2
    assert (counts.products, counts.launches, counts.copies) == (1, 2, 1) and counts.waits >= 1
    with emulated_cuda.counted() as counts:
        xp.empty(10)
    assert (counts.allocations, counts.waits, counts.most_bytes) == (1, 0, 80)


def test_nothing_runs_when_only_the_hosts_time_counts():
    y = xp.zeros(3, np.float32)
    with emulated_cuda.gpu(idle=1):
        y += 1
        xp.matmul(xp.ones((3, 3), np.float32), xp.ones((3, 3), np.float32))
    assert not y.any()


def test_the_harsher_arithmetic_flushes_denormals_and_is_off_by_an_ulp():
    x = xp.linspace(-3, 3, 1000, dtype=np.float32)
    tiny = xp.full(3, 1e-40, np.float32)
    with emulated_cuda.gpu(harsh=0):
        kind = xp.exp(x).get()
        assert (tiny * 1).get().all()
    with emulated_cuda.gpu(harsh=1):
        off = np.abs(xp.exp(x).get() - kind) / np.spacing(kind)
        assert off.max() == 1 and off.mean() > 0.9
        assert not (tiny * 1).get().any()
        edges = xp.tanh(xp.asarray([np.nan, 20, -20, 0], np.float32)).get()
    assert np.isnan(edges[0]) and (np.abs(edges[1:3]) <= 1).all() and edges[3] == 0


# -- what is missing ----------------------------------------
PROBE = """
from tests import emulated_cuda
emulated_cuda.prepare(without={without!r})
import gpulstm as gl
with emulated_cuda.gpu(devices={devices}):
    found = gl.device("auto")
    print(found, "|", found.reason)
"""


@pytest.mark.parametrize(("devices", "without", "words"), [
    (1, "", ""),
    (0, "", "no NVIDIA driver was found"),
    (1, "cublas", "CuPy cannot multiply matrices (is cuBLAS installed?"),
])  # fmt: skip
def test_a_library_that_is_missing_is_named(devices, without, words):
    program = PROBE.format(devices=devices, without=without)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    name, _, reason = done.stdout.strip().partition(" | ")
    assert (name == "cpu") == bool(words) and words in reason and bool(words) == bool(reason.strip("| "))


# -- streams whose work runs late ----------------------------------------
def crossed(fork=True, join=True, times=30):
    """The sums that one stream sees of what another computes from its numbers; 6 is right."""
    seen = set()
    with emulated_cuda.gpu(late=1):
        here, side = stream(), stream()
        for _ in range(times):
            with here:
                x, y, z = (xp.zeros(1, np.float32) for _ in range(3))
                here.synchronize()
                x += 1
                x += 1
                if fork:
                    side.wait_event(here.record())
                with side:
                    xp.multiply(x, 3, out=y)
                if join:
                    here.wait_event(side.record())
                z += y
                seen.add(z.item())
                side.synchronize()
    return seen


def test_work_of_streams_runs_in_the_order_of_their_waits_alone():
    assert crossed() == {6.0}
    assert len(crossed(fork=False)) > 1
    assert len(crossed(join=False)) > 1


def test_late_work_is_done_when_the_host_has_waited():
    with emulated_cuda.gpu(late=1):
        one = stream()
        for wait in (one.synchronize, xp.cuda.Device().synchronize, lambda: one.record().synchronize()):
            with one:
                x = xp.zeros(4, np.float32)
                x += 1
            wait()
            seen = np.empty(4, np.float32)
            xp.cuda.runtime.memcpy(seen.ctypes.data, x.data.ptr, x.nbytes, 2)
            assert (seen == 1).all()
        with one:
            x = xp.zeros(4, np.float32)
            x += 1
            assert (x.get() == 1).all()

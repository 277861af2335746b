"""The launcher finds, compiles, caches and launches kernels, and refuses a launch that CUDA would."""

import re

import ml_dtypes
import numpy as np
import pytest

from gpulstm import backend, kernel, launch
from gpulstm.dtypes import as_dtype
from gpulstm.errors import DeviceError, DTypeError, NoKernel, ShapeError
from tests.conftest import GPUS

PROBES = """// Kernels for tests of the launcher.
#include "common.cuh"

extern "C" __global__ void scale(const REAL* x, REAL* y, double factor, long long n) {
    FOR_EACH(k, n) y[k] = store(factor * load(x[k]));
}

extern "C" __global__ void sizes(long long* blocks, long long* threads, long long* defined) {
#ifdef CHOICE
    long long choice = CHOICE;
#else
    long long choice = -1;
#endif
    if (blockIdx.x || threadIdx.x) return;
    *blocks = gridDim.x;
    *threads = blockDim.x;
    *defined = choice;
}

extern "C" __global__ void arguments(const REAL* absent, double real, long long integer, double* y) {
    if (blockIdx.x == 0 && threadIdx.x == 0) *y = (absent ? 1000 : 0) + real + integer;
}

// scratch holds 4 * blockDim.x values; those after the first blockDim.x must not count
extern "C" __global__ void totals(const ACC* x, ACC* sums, ACC* largest, ACC* squares) {
    extern __shared__ ACC scratch[];
    long long k = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    for (int more = 1; more < 4; ++more) scratch[threadIdx.x + more * blockDim.x] = 1e300;
    sums[k] = block_sum(x[k], scratch);
    largest[k] = block_max(-x[k], scratch);
    squares[k] = block_sum(x[k] * x[k], scratch);
}

extern "C" __global__ void __launch_bounds__(64) small(double* y) {
    __shared__ double kept[100];
    kept[threadIdx.x] = threadIdx.x;
    y[threadIdx.x] = kept[threadIdx.x];
}
"""


@pytest.fixture
def probes(tmp_path, monkeypatch):
    """kernels/ as a folder with the headers and the kernels above in probes.cu."""
    for header in launch.kernel_folder().iterdir():
        if header.name.endswith(".cuh"):
            (tmp_path / header.name).write_text(header.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "probes.cu").write_text(PROBES, encoding="utf-8")
    launch.source.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(launch, "kernel_folder", lambda: tmp_path)
        yield
    launch.source.cache_clear()


on_gpus = pytest.mark.parametrize("device", GPUS, indirect=True)


def launched_sizes(device, size, **limits):
    """(blocks, threads, CHOICE) of one launch of the kernel ``sizes``."""
    outs = [device.zeros((1,), np.int64) for _ in range(3)]
    with device:
        device.kernels("probes", "sizes", size, *outs, real=np.float32, **limits)
    return tuple(int(out[0]) for out in outs)


# -- finding ----------------------------------------
def test_kernels_are_found_and_their_headers_stand_in_them():
    folder, names = launch.kernel_folder(), launch.kernel_files()
    assert {"step", "cross_entropy", "embedding", "adam", "dropout", "norm"} <= set(names) and "common" not in names
    for name in names:
        text, own = launch.source(name, "lstm"), (folder / f"{name}.cu").read_text(encoding="utf-8")
        assert ".cuh" not in "".join(re.findall("#include.*", text)) and "#define FOR_EACH" in text
        assert all(part in text for part in re.split(r'#include "[\w/]+\.cuh"', own))


def test_every_struct_of_a_cell_is_found_with_its_file():
    assert launch.cell_files()["Lstm"] == "lstm" and launch.cell_files()["GruBefore"] == "gru"
    for struct, file in launch.cell_files().items():
        assert f"struct {struct} : Cell {{" in launch.source("step", file)


def test_an_unknown_file_is_refused_with_those_there_are():
    with pytest.raises(NoKernel, match=r"expected one of .*step.*, got 'lsmt'"):
        launch.source("lsmt")


@pytest.mark.parametrize("real, options", [
    (np.float32, {"-DREAL=float", "-DACC=float"}),
    (np.float64, {"-DREAL=double", "-DACC=double"}),
    (np.float16, {"-DREAL=__half", "-DACC=float"}),
    (ml_dtypes.bfloat16, {"-DREAL=__nv_bfloat16", "-DACC=float"}),
])  # fmt: skip
def test_types_become_macros(real, options):
    assert options <= set(launch.options(real))
    assert {"-DROWS=4", "-DFAST"} <= set(launch.options(real, ("ROWS=4", "FAST")))


@pytest.mark.parametrize("real", [np.int32, np.complex64, np.bool_])
def test_other_types_are_refused(real):
    with pytest.raises(DTypeError, match="expected one of float32, float64, float16, bfloat16, got"):
        launch.options(real)


# -- launching ----------------------------------------
@on_gpus
@pytest.mark.parametrize("real", launch.REALS)
def test_every_storage_type_computes(device, probes, rng, real):
    dtype = as_dtype(real)
    x = rng.standard_normal((7, 11)).astype(dtype)
    y = device.empty(x.shape, dtype)
    device.kernels("probes", "scale", x.size, device.asarray(x), y, 2.5, x.size, real=dtype, threads=32)
    wide = np.float64 if real == "float64" else np.float32
    np.testing.assert_array_equal(device.to_numpy(y), (2.5 * x.astype(np.float64)).astype(wide).astype(dtype))


@on_gpus
@pytest.mark.parametrize("threads", [1, 2, 64, 256])
def test_reductions_over_a_block(device, probes, rng, threads):
    """Of every block size, wherever the largest stands, and of nothing that lies behind the block's values."""
    x = rng.integers(-500, 500, (64, threads)).astype(np.float64)
    x[np.arange(64), np.arange(64) * threads // 64] = -1000  # the largest of -x, in every part of a block
    outs = [device.empty(x.shape, np.float64) for _ in range(3)]
    limits = {"threads": threads, "shared": 4 * threads * 8}
    device.kernels("probes", "totals", x.size, device.asarray(x), *outs, real=np.float64, **limits)
    for out, want in zip(outs, (x.sum(axis=1), -x.min(axis=1), (x * x).sum(axis=1)), strict=True):
        np.testing.assert_array_equal(device.to_numpy(out), np.repeat(want[:, None], threads, axis=1))


@on_gpus
@pytest.mark.parametrize("size, limits, want", [
    (1, {}, (1, 256)),
    (256, {}, (1, 256)),
    (257, {}, (2, 256)),
    (1000, {"threads": 64}, (16, 64)),
    (10, {"blocks": 3}, (3, 256)),
    (10, {"blocks": 5, "threads": 32}, (5, 32)),
])  # fmt: skip
def test_the_grid_fits_the_size(device, probes, size, limits, want):
    assert launched_sizes(device, size, **limits)[:2] == want


@on_gpus
def test_a_grid_is_no_larger_than_fills_the_device(device, probes):
    most = kernel._WAVES * device.device.attributes["MultiProcessorCount"]
    blocks, threads, _ = launched_sizes(device, most * 2 + 1, threads=1)
    assert (blocks, threads) == (most, 1)
    x = np.arange(most * 2 + 1, dtype=np.float32)  # a grid-stride loop serves all the same
    y = device.empty(x.shape, x.dtype)
    device.kernels("probes", "scale", x.size, device.asarray(x), y, 1.0, x.size, real=x.dtype, threads=1)
    np.testing.assert_array_equal(device.to_numpy(y), x)


@on_gpus
def test_nothing_to_do_launches_nothing(device, probes):
    assert launched_sizes(device, 0) == (0, 0, 0)
    assert launched_sizes(device, 0, blocks=1)[0] == 1


@on_gpus
def test_macros_make_another_kernel(device, probes):
    assert [launched_sizes(device, 1, defines=defines)[2] for defines in ((), ("CHOICE=4",), ("CHOICE=7",))] == [
        -1,
        4,
        7,
    ]


@on_gpus
def test_arguments_of_every_kind_pass(device, probes):
    y = device.zeros((1,), np.float64)
    for absent, real, integer, want in (
        (None, 0.5, 2**40, 0.5 + 2**40),
        (y, 0.25, -3, 997.25),
        (None, np.float64(0.5), np.int64(3), 3.5),
        (None, np.float32(0.5), np.int32(-3), -2.5),
        (None, 2.0, True, 3.0),
    ):
        with device:
            device.kernels("probes", "arguments", 1, absent, real, integer, y, real=np.float64)
        assert float(y[0]) == want


@on_gpus
def test_kernels_are_compiled_once(device, probes):
    first = device.kernels.kernel("probes", "scale", np.float32)
    assert device.kernels.kernel("probes", "scale", np.dtype("float32")) is first
    others = [
        device.kernels.kernel("probes", "scale", np.float64),
        device.kernels.kernel("probes", "sizes", np.float32),
        device.kernels.kernel("probes", "scale", np.float32, ("X",)),
        device.kernels.kernel("probes", "scale", np.float32, cell="another"),
    ]
    assert len({id(kernel) for kernel in (first, *others)}) == 5


# -- refusing ----------------------------------------
@on_gpus
@pytest.mark.parametrize("limits, what", [
    ({"threads": 1025}, "1024 threads in a block on this device, got 1025"),
    ({"blocks": 2**31}, "2147483647 blocks on this device, got 2147483648"),
    ({"shared": 10**6}, "bytes of shared memory on this device, got 1000000"),
])  # fmt: skip
def test_a_launch_beyond_a_limit_is_refused(device, probes, limits, what):
    with pytest.raises(NoKernel, match=f"probes.cu sizes: expected at most .*{what}"):
        launched_sizes(device, 10, **limits)


@on_gpus
def test_limits_of_the_kernel_count_beside_the_devices(device, probes):
    small, y = device.kernels.kernel("probes", "small", np.float32), device.zeros((64,), np.float64)
    with device:
        small(64, y, threads=64)
    np.testing.assert_array_equal(device.to_numpy(y), np.arange(64))
    with pytest.raises(NoKernel, match="small: expected at most 64 threads in a block on this device, got 65"):
        small(65, y, threads=65)
    free = device.device.attributes["MaxSharedMemoryPerBlock"] - 800  # what __shared__ double kept[100] leaves
    with pytest.raises(
        NoKernel, match=f"small: expected at most {free} bytes of shared memory on this device, got {free + 1}"
    ):
        small(64, y, threads=64, shared=free + 1)


@on_gpus
@pytest.mark.parametrize("view", [lambda x: x.T, lambda x: x[:, ::2], lambda x: x[:, 1:], lambda x: x[::-1]])
def test_an_array_with_gaps_is_refused(device, probes, view):
    x, y = device.zeros((6, 4), np.float32), device.zeros((6, 4), np.float32)
    for given in ((view(x), y), (x, view(y))):
        with pytest.raises(
            ShapeError, match=r"probes.cu scale: [xy]: expected a C-contiguous array, got one of shape \(\d, \d\)"
        ):
            device.kernels("probes", "scale", 4, *given, 1.0, 4, real=np.float32)
    with device:
        device.kernels("probes", "scale", 4, x[2], y[3], 1.0, 4, real=np.float32)  # a row of an array has none


@on_gpus
@pytest.mark.parametrize("change, message", [
    (lambda x, y: (x, y, 2.0), "expected 4 arguments, got 3"),
    (lambda x, y: (x, y, 2.0, 10, None), "expected 4 arguments, got more"),
    (lambda x, y: (x, y, 10, 2.0), "factor: expected a float, got int"),
    (lambda x, y: (x, y, 2.0, 10.0), "n: expected an integer, got float"),
    (lambda x, y: (x, y, 2.0, None), "n: expected an integer, got NoneType"),
    (lambda x, y: (x, 2.0, 2.0, 10), "y: expected an array of float32 on the GPU, got float"),
    (lambda x, y: (2, y, 2.0, 10), "x: expected an array of float32 on the GPU, got int"),
    (lambda x, y: (x, y, x, 10), "factor: expected a float, got ndarray"),
    (lambda x, y: (x.get(), y, 2.0, 10), "x: expected an array of float32 on the GPU, got ndarray"),
    (lambda x, y: (x.astype(np.float64), y, 2.0, 10), "x: expected an array of float32 on the GPU, got one of float64"),
    (lambda x, y: (x, y.view(np.int32), 2.0, 10), "y: expected an array of float32 on the GPU, got one of int32"),
])  # fmt: skip
def test_an_argument_that_does_not_fit_the_kernels_own_parameter_is_refused(device, probes, change, message):
    """CUDA would take the bits for what the kernel calls them."""
    x, y = device.zeros((10,), np.float32), device.zeros((10,), np.float32)
    scale = device.kernels.kernel("probes", "scale", np.float32)
    with pytest.raises((ShapeError, DTypeError), match=f"^probes.cu scale: {message}$"):
        scale(10, *change(x, y))
    assert not device.to_numpy(y).any()


def test_an_array_of_another_gpu_is_refused(emulated, probes):
    first, second = (backend.device(f"cuda:{k}").backend for k in range(2))
    x, y = first.zeros((10,), np.float32), second.zeros((10,), np.float32)
    with pytest.raises(DeviceError, match=r"^probes.cu scale: x: expected an array on cuda:1, got one on cuda:0$"):
        second.kernels("probes", "scale", 10, x, y, 2.0, 10, real=np.float32)


@pytest.mark.parametrize(("real", "names"), [
    ("float16", ["float16", "float32"]), ("float64", ["float64", "float64"]), ("bfloat16", ["bfloat16", "float32"]),
])  # fmt: skip
def test_a_kernels_parameters_are_read_from_its_text(real, names):
    text = """extern "C" __global__ void __launch_bounds__(THREADS, 1) other(int n) {}
    extern "C" __global__ void probe(
        const REAL* __restrict__ x, ACC* sums, const bool* alive, long long n, double factor, Thing* what) {}"""
    found = kernel.parameters(text, "probe", as_dtype(real))
    assert [p.name for p in found] == ["x", "sums", "alive", "n", "factor", "what"]
    assert [p.dtype for p in found] == [*names, "bool", "int64", "float64", ""]
    assert [p.pointer for p in found] == [True, True, True, False, False, True]
    with pytest.raises(NoKernel, match="probe2: expected a kernel of this name"):
        kernel.parameters(text, "probe2", np.float32)


@on_gpus
def test_a_host_array_is_refused(device, probes):
    y = device.zeros((4,), np.float32)
    for host in (
        np.zeros(4, np.float32),
        np.zeros(1, np.float32),
    ):  # CuPy would pass one of one element by value
        with pytest.raises((TypeError, DTypeError)):
            device.kernels("probes", "scale", 1, host, y, 1.0, 1, real=np.float32)


@on_gpus
def test_an_unknown_kernel_or_type_is_refused(device, probes):
    with pytest.raises(NoKernel, match=r"expected one of probes.*, got 'prob'"):
        device.kernels.kernel("prob", "scale", np.float32)
    with pytest.raises(DTypeError, match="got int32"):
        device.kernels.kernel("probes", "scale", np.int32)


def test_kernels_run_on_the_device_they_belong_to(emulated, probes):
    second = backend.device("cuda:1").backend
    x = second.asarray(np.arange(5, dtype=np.float32))
    with second:
        y = second.empty((5,), np.float32)
        second.kernels("probes", "scale", 5, x, y, 2.0, 5, real=np.float32)
    assert y.get().tolist() == [0, 2, 4, 6, 8]
    assert emulated.cuda.Device().id == 0

"""The emulated CUDA runs kernels as a GPU would, and reports what a GPU would not: each fault is planted once."""

import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tests.conftest import ROOT, emulation
from tests.emulated_cuda import compile

xp = emulation()
pytestmark = pytest.mark.usefixtures("emulated")
PRELUDE = """
#define FOR_EACH(k, n) for (long long k = (long long)blockIdx.x * blockDim.x + threadIdx.x; k < (n); \\
                            k += (long long)gridDim.x * blockDim.x)
"""


def fault(message):
    """The error of a launch that went wrong, with the fake driver's words."""
    return pytest.raises(xp.cuda.driver.CUDADriverError, match=f"CUDA_ERROR_LAUNCH_FAILED: .*{message}")


def kernel(signature, body, options=("-DREAL=float",), before="", cooperative=False):
    """The kernel ``extern "C" __global__ void probe(signature) { body }``."""
    code = f'{PRELUDE}{before}\nextern "C" __global__ void probe({signature})\n{{\n{body}\n}}\n'
    return xp.RawModule(code=code, options=options, enable_cooperative_groups=cooperative).get_function("probe")


SCALE = ("const REAL* x, REAL* y, double factor, long long n", "FOR_EACH(k, n) y[k] = factor * x[k];")


# -- what runs ----------------------------------------
@pytest.mark.parametrize("grid, block", [((1,), (1,)), ((1,), (256,)), ((7,), (32,)), ((3, 2, 2), (4, 2, 3))])
def test_every_thread_of_the_grid_runs_once(grid, block):
    count = kernel(
        "long long* seen",
        """long long b = blockIdx.x + (long long)gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
           long long t = threadIdx.x + (long long)blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
           seen[b * blockDim.x * blockDim.y * blockDim.z + t] += 1;""",
    )
    seen = xp.zeros(int(np.prod(grid) * np.prod(block)), np.int64)
    count(grid, block, (seen,))
    assert (seen.get() == 1).all()


@pytest.mark.parametrize("real, dtype", [("float", np.float32), ("double", np.float64)])
def test_a_grid_stride_loop_computes(rng, real, dtype):
    scale = kernel(*SCALE, options=("-std=c++17", f"-DREAL={real}"))
    x, y = rng.standard_normal(1000).astype(dtype), xp.empty(1000, dtype)
    scale((3,), (64,), (xp.asarray(x), y, 2.5, 1000))
    np.testing.assert_array_equal(y.get(), (2.5 * x.astype(np.float64)).astype(dtype))


SUM = """
    scratch[threadIdx.x] = x[blockIdx.x * blockDim.x + threadIdx.x];
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) scratch[threadIdx.x] += scratch[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) y[blockIdx.x] = scratch[0];
"""


@pytest.mark.parametrize("declared, dynamic", [("__shared__ REAL", 0), ("extern __shared__ REAL", 4 * 256)])
def test_blocks_meet_at_barriers_and_share_memory(rng, declared, dynamic):
    size = "[]" if dynamic else "[256]"
    add = kernel("const REAL* x, REAL* y", f"{declared} scratch{size};{SUM}")
    assert add.shared_size_bytes == (0 if dynamic else 4 * 256)
    x = rng.integers(0, 100, (5, 256)).astype(np.float32)
    y = xp.empty(5, np.float32)
    add((5,), (256,), (xp.asarray(x), y), shared_mem=dynamic)
    np.testing.assert_array_equal(y.get(), x.sum(axis=1))


def test_a_barrier_inside_a_function_keeps_each_threads_values(rng):
    turn = kernel(
        "long long* y",
        """long long mine = 0;
           for (int k = 0; k < 5; ++k) { int own = threadIdx.x * 10 + k; wait(); mine += own; wait(); }
           y[threadIdx.x] = mine;""",
        before="__device__ __forceinline__ void wait() { __syncthreads(); }",
    )
    y = xp.empty(64, np.int64)
    turn((1,), (64,), (y,))
    np.testing.assert_array_equal(y.get(), np.arange(64) * 50 + 10)


def test_threads_run_in_another_order_every_time():
    order = kernel("long long* y, long long* next", "y[next[0]++] = threadIdx.x + blockDim.x * blockIdx.x;")
    orders = set()
    for _ in range(10):
        y, first = xp.empty(32, np.int64), xp.zeros(1, np.int64)
        order((4,), (8,), (y, first))
        assert sorted(y.tolist()) == list(range(32))
        orders.add(tuple(y.tolist()))
    assert len(orders) == 10 and tuple(range(32)) not in orders


def test_null_pointers_and_scalars_of_every_kind_pass():
    probe = kernel(
        "const REAL* none, double a, long long b, bool c, int d, float e, double* y",
        "y[0] = (none ? 1000 : 0) + a + b + c + d + e;",
    )
    for nothing in (None, np.uintp(0), xp.empty(0, np.float32)):
        y = xp.empty(1)
        probe((1,), (1,), (nothing, 0.5, 2**40, True, np.int32(4), np.float32(0.25), y))
        assert y.item() == 0.5 + 2**40 + 1 + 4 + 0.25


def test_a_grid_of_no_blocks_runs_one_as_cupy_makes_it():
    y = xp.zeros(1, np.int64)
    kernel("long long* y", "y[0] += 1;")((0,), (1,), (y,))
    assert y.item() == 1


# -- warps and cooperative launches ----------------------------------------
SWAP = "emulated::exchange(__LINE__, &mine, &got, 1, [](int lane) { return lane ^ 5; });"


def test_the_lanes_of_a_warp_exchange_values():
    turns = f"for (int k = 0; k < 3; ++k) {{ {SWAP} mine = got; }}"
    body = f"unsigned mine = 3 * threadIdx.x, got = 0; {turns} y[threadIdx.x] = got;"
    y = xp.empty(96, np.uint32)
    kernel("unsigned* y", body)((1,), (96,), (y,))
    np.testing.assert_array_equal(y.get(), 3 * (np.arange(96) ^ 5))


@pytest.mark.parametrize("a_words", [2, 4])
@pytest.mark.parametrize("per", [1, 2])
def test_fragments_are_those_of_the_ptx_manual(rng, a_words, per):
    """Rows and columns of every element as the manual says them of mma.m16n8k8 and k16, for 16 and 32 bits."""
    K = 2 * per * a_words
    multiply = kernel(
        "const unsigned* A, const unsigned* B, float* C",
        f"""const int g = threadIdx.x / 4, t = threadIdx.x % 4;
        unsigned a[4] = {{0, 0, 0, 0}}, b[2] = {{0, 0}};
        for (int i = 0; i < {per * a_words}; ++i) {{
            int row = i / {per} % 2 ? g + 8 : g, col = t * {per} + i % {per} + (i >= {2 * per} ? {4 * per} : 0);
            a[i / {per}] |= A[row * {K} + col] << (16 * (i % {per}));
        }}
        for (int i = 0; i < {per * a_words // 2}; ++i)
            b[i / {per}] |= B[(t * {per} + i % {per} + (i >= {per} ? {4 * per} : 0)) * 8 + g] << (16 * (i % {per}));
        float c[4];
        for (int i = 0; i < 4; ++i) c[i] = C[(i < 2 ? g : g + 8) * 8 + t * 2 + (i & 1)];
        emulated::multiply_fragments<{per}, {a_words}>(__LINE__, c, a, b,
            [](unsigned word, int n) {{ return (float)({per} == 1 ? word : word >> 16 * n & 0xffff); }});
        for (int i = 0; i < 4; ++i) C[(i < 2 ? g : g + 8) * 8 + t * 2 + (i & 1)] = c[i];""",
    )
    a, b, c = (rng.integers(0, 100, shape).astype(np.uint32) for shape in ((16, K), (K, 8), (16, 8)))
    got = xp.asarray(c.astype(np.float32))
    multiply((1,), (32,), (xp.asarray(a), xp.asarray(b), got))
    np.testing.assert_array_equal(got.get(), a @ b + c)


@pytest.mark.parametrize("body, message", [
    ("if (threadIdx.x != 3) MEET", "31 threads wait in line 7 for the rest of their warp, 0 at a barrier"),
    ("if (threadIdx.x != 3) MEET else __syncthreads();", "31 threads wait in line 7 for the rest of their warp, 1 at"),
    ("if (threadIdx.x % 2) MEET\nelse MEET", "lanes of a warp meet in lines"),
])  # fmt: skip
def test_a_warp_that_does_not_meet_is_caught(body, message):
    broken = kernel("unsigned* y", "unsigned mine = 0, got;" + body.replace("MEET", f"{{ {SWAP} }}"))
    with fault(message):
        broken((1,), (32,), (xp.zeros(1, np.uint32),))


RING = """
    for (unsigned turn = 1; turn <= 5; ++turn) {
        volatile unsigned *from = y + (1 - turn % 2) * gridDim.x, *to = y + turn % 2 * gridDim.x;
        if (threadIdx.x == 0) to[blockIdx.x] = from[(blockIdx.x + 1) % gridDim.x] + 1;
        __syncthreads();
        if (threadIdx.x == 0) {
            ++*count;
            while (*(volatile unsigned*)count < turn * gridDim.x) emulated::pause();
        }
        __syncthreads();
    }
"""


def test_the_blocks_of_a_cooperative_launch_wait_for_one_another():
    sums = {}
    for name, body in (("whole", RING), ("racing", RING.replace("turn * gridDim.x", "0"))):
        ring, sums[name] = kernel("unsigned* y, unsigned* count", body, cooperative=True), set()
        for _ in range(20):
            y, count = xp.asarray(np.array([[0, 10, 20, 30], [0] * 4], np.uint32)), xp.zeros(1, np.uint32)
            ring((4,), (32,), (y, count))
            sums[name].add(tuple(y.get()[1]))
    assert sums["whole"] == {(15, 25, 35, 5)} and len(sums["racing"]) > 1


def test_shared_memory_is_each_blocks_own_while_blocks_take_turns():
    body = """extern __shared__ float mine[]; __shared__ float too[32];
    mine[threadIdx.x] = too[threadIdx.x] = blockIdx.x;
    for (int k = 0; k < 20; ++k) __syncthreads();
    y[blockIdx.x * 32 + threadIdx.x] = mine[threadIdx.x] + too[threadIdx.x];"""
    y = xp.zeros(128, np.float32)
    kernel("float* y", body, cooperative=True)((4,), (32,), (y,), shared_mem=128)
    np.testing.assert_array_equal(y.get(), np.repeat(2 * np.arange(4), 32))


# -- half types ----------------------------------------
_HALVES = [("float16", "cuda_fp16.h", "__half"), (ml_dtypes.bfloat16, "cuda_bf16.h", "__nv_bfloat16")]
_WIDER = {"__half": "__half2float", "__nv_bfloat16": "__bfloat162float"}
_NARROWER = {"__half": "__float2half", "__nv_bfloat16": "__float2bfloat16"}


@pytest.mark.parametrize("dtype, header, name", _HALVES)
def test_every_half_becomes_its_float(dtype, header, name):
    body = f"FOR_EACH(k, n) y[k] = {_WIDER[name]}(x[k]);"
    widen = kernel(f"const {name}* x, float* y, long long n", body, before=f"#include <{header}>")
    x = np.arange(2**16, dtype=np.uint16).view(dtype)
    y = xp.empty(x.size, np.float32)
    widen((64,), (256,), (xp.asarray(x), y, x.size))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(y.get(), x.astype(np.float32))


@pytest.mark.parametrize("dtype, header, name", _HALVES)
def test_floats_round_to_the_nearest_half_ties_to_even(rng, dtype, header, name):
    body = f"FOR_EACH(k, n) y[k] = {_NARROWER[name]}(x[k]);"
    narrow = kernel(f"const float* x, {name}* y, long long n", body, before=f"#include <{header}>")
    with np.errstate(all="ignore"):
        halves = np.arange(2**16, dtype=np.uint16).view(dtype).astype(np.float32)
        finite = np.sort(halves[np.isfinite(halves)])
        ties = (finite[1:] + finite[:-1]) / 2  # exact in float32
        near = [np.nextafter(ties, np.float32(way)) for way in (-np.inf, np.inf)]
        any_bits = rng.integers(0, 2**32, 100_000, np.uint32).view(np.float32)
        x = np.concatenate([halves, ties, *near, any_bits, [65519.0, 65520.0, 3.4e38, 1e-45]]).astype(np.float32)
        want = x.astype(dtype)
    y = xp.empty(x.size, dtype)
    narrow((64,), (256,), (xp.asarray(x), y, x.size))
    nan = np.isnan(x)
    np.testing.assert_array_equal(y.get()[~nan].view(np.uint16), want[~nan].view(np.uint16))
    assert (y.get()[nan].view(np.uint16) == 0x7FFF).all()


# -- planted faults: memory ----------------------------------------
@pytest.mark.parametrize("body, message", [
    ("y[n] = 1;", "wrote beside the memory of y"),
    ("y[n + 5] = 1;", "wrote beside the memory of y"),
    ("y[-1] = 1;", "wrote beside the memory of y"),
    ("y[n] += 1;", "wrote beside the memory of y"),
    ("y[n] = x[n] + 1;", "wrote beside the memory of y"),
    ("((float*)x)[0] = 1;", "wrote to the memory of x, which is const"),
])  # fmt: skip
def test_a_write_outside_an_array_is_caught(body, message):
    x, y = xp.zeros(10, np.float32), xp.zeros(10, np.float32)
    broken = kernel("const float* x, float* y, long long n", body)
    for _ in range(2):  # the fence is whole again after a fault
        with fault(f"probe: {message}"):
            broken((1,), (1,), (x, y, 10))
    np.testing.assert_array_equal(y.get(), 0)


def test_memory_that_was_freed_is_known():
    x, y = xp.zeros(10, np.float32), xp.zeros(10, np.float32)
    address = x.data.ptr
    del x
    with fault("x points to no live memory"):
        kernel(*SCALE)((1,), (10,), (np.uintp(address), y, 2.0, np.int64(10)))
    with fault("y points to no live memory"):
        kernel(*SCALE)((1,), (10,), (y, np.zeros(10, np.float32).ctypes.data, 2.0, 10))


def test_new_memory_holds_nan():
    assert np.isnan(xp.empty(5, np.float32).get()).all() and np.isnan(xp.empty(5, np.float16).get()).all()


def test_a_read_outside_an_array_gives_nan():
    x, y = xp.zeros(10, np.float32), xp.zeros(1, np.float32)
    kernel("const float* x, float* y, long long n", "y[0] = x[n];")((1,), (1,), (x, y, 10))
    assert np.isnan(y.item())


def test_an_element_that_is_not_written_shows():
    y = xp.empty(10, np.float32)
    kernel("float* y, long long n", "FOR_EACH(k, n) if (k != 3) y[k] = 1;")((1,), (4,), (y, 10))
    assert np.flatnonzero(np.isnan(y.get())).tolist() == [3]


def test_shared_memory_begins_as_nan_in_every_block():
    keep = kernel("float* y", "__shared__ float kept[2]; y[blockIdx.x] = kept[threadIdx.x]; kept[threadIdx.x] = 1;")
    y = xp.zeros(8, np.float32)
    keep((8,), (1,), (y,))
    assert np.isnan(y.get()).all()


def test_a_write_beyond_dynamic_shared_memory_is_caught():
    over = kernel(
        "float* y",
        "extern __shared__ float kept[]; kept[threadIdx.x] = 1; y[threadIdx.x] = kept[threadIdx.x];",
    )
    y = xp.zeros(8, np.float32)
    over((1,), (8,), (y,), shared_mem=32)
    with fault("wrote 0 bytes beyond the 28 bytes of dynamic shared memory"):
        over((1,), (8,), (y,), shared_mem=28)


# -- planted faults: threads ----------------------------------------
@pytest.mark.parametrize("body, message", [
    ("if (threadIdx.x < 5) __syncthreads();", "5 threads wait at the barrier in line 7, 3 have ended"),
    ("if (threadIdx.x == 0) return; __syncthreads();", "7 threads wait"),
    ("if (threadIdx.x % 2) __syncthreads();\nelse\n__syncthreads();", "wait at different barriers, in lines"),
    ("for (unsigned k = 0; k < threadIdx.x; ++k) __syncthreads();", "threads wait"),
    ("for (;;) __syncthreads();", "does not end"),
])  # fmt: skip
def test_a_barrier_that_not_all_threads_reach_is_caught(body, message):
    diverging = kernel("float* y", body)
    y = xp.zeros(1, np.float32)
    with fault(message):
        diverging((2,), (8,), (y,))
    test_blocks_meet_at_barriers_and_share_memory(np.random.default_rng(0), "__shared__ REAL", 0)  # nothing is stuck


@pytest.mark.parametrize("missing", ["first", "in the loop"])
def test_a_missing_barrier_gives_a_wrong_sum(rng, missing):
    barrier = "    __syncthreads();\n    for" if missing == "first" else "        __syncthreads();\n    }"
    assert SUM.count(barrier) == 1
    racing = SUM.replace(barrier, barrier.replace("__syncthreads();", ""))
    add = kernel("const REAL* x, REAL* y", f"__shared__ REAL scratch[64];{racing}")
    x, y = rng.integers(1, 100, (20, 64)).astype(np.float32), xp.empty(20, np.float32)
    add((20,), (64,), (xp.asarray(x), y))
    assert (y.get() != x.sum(axis=1)).any()  # some blocks happen to run their threads in an order that is well


def test_threads_that_add_to_one_place_without_order_show_it():
    """A sum in float32 whose order is left to chance: what atomics would do."""
    chance = kernel("const float* x, float* y", "y[0] += x[threadIdx.x];")
    x = np.float32(10) ** np.linspace(-8, 8, 64, dtype=np.float32)
    sums = set()
    for _ in range(20):
        y = xp.zeros(1, np.float32)
        chance((1,), (64,), (xp.asarray(x), y))
        sums.add(y.item())
    assert len(sums) > 1


# -- planted faults: the launch ----------------------------------------
def test_an_array_of_another_device_is_caught():
    x = xp.ones(10, np.float32)
    with xp.cuda.Device(1):
        y = xp.zeros(10, np.float32)
        with fault("x lives on device 0, the kernel on device 1"):
            kernel(*SCALE)((1,), (10,), (x, y, 2.0, 10))


@pytest.mark.parametrize("grid, block, shared", [
    ((1,), (1025,), 0),
    ((1,), (32, 33), 0),
    ((1,), (1, 1, 65), 0),
    ((2**31,), (1,), 0),
    ((1, 65536), (1,), 0),
    ((1, 1, 65536), (1,), 0),
    ((1,), (1,), 49153),
])  # fmt: skip
def test_a_launch_beyond_the_devices_limits_is_refused(grid, block, shared):
    with pytest.raises(xp.cuda.driver.CUDADriverError, match="CUDA_ERROR_INVALID_VALUE"):
        kernel(*SCALE)(grid, block, (None, None, 1.0, 0), shared_mem=shared)


def test_launch_bounds_and_static_shared_memory_count():
    code = """extern "C" __global__ void __launch_bounds__(128) probe(float* y) {
        __shared__ float s[12200];
        s[0] = 1;
        y[0] = s[0];
    }"""
    bounded = xp.RawModule(code=code).get_function("probe")
    assert bounded.max_threads_per_block == 128
    for block, shared in ((129, 0), (1, 49152 - 4 * 12200 + 1)):
        with pytest.raises(xp.cuda.driver.CUDADriverError):
            bounded((1,), (block,), (xp.empty(1, np.float32),), shared_mem=shared)
    bounded((1,), (128,), (xp.empty(1, np.float32),), shared_mem=4)


# -- planted faults: the text ----------------------------------------
@pytest.mark.parametrize("body", [
    "y[0] = undefined_name;",
    "x[0] = 1;",  # const
    "y[0] = 1",
    "atomicAdd(y, 1.0f);",
    "y[0] = __shfl_down_sync(0xffffffff, y[0], 1);",
    'printf("no");',
])  # fmt: skip
def test_text_that_does_not_compile_is_refused_with_the_log(body):
    with pytest.raises(xp.cuda.compiler.CompileException, match=r"kernel\.cu:\d+:\d+: error"):
        kernel("const float* x, float* y", body)


def test_an_unknown_option_or_kernel_is_refused():
    module = xp.RawModule(code='extern "C" __global__ void probe() {}', options=("-fno-such-option",))
    with pytest.raises(xp.cuda.compiler.CompileException, match="no-such-option"):
        module.compile()
    with pytest.raises(xp.cuda.driver.CUDADriverError, match="NOT_FOUND"):
        xp.RawModule(code='extern "C" __global__ void probe() {}').get_function("prob")


def test_macros_choose_the_kernels_and_their_types():
    code = """
    #ifdef WIDE
    #define KERNEL(name) extern "C" __global__ void name(double* y)
    #else
    #define KERNEL(name) extern "C" __global__ void name(float* y, long long n)
    #endif
    /* extern "C" __global__ void commented(float* y) {} */
    KERNEL(probe) { y[0] = 1; }
    """
    for options, arguments in (((), (xp.empty(1, np.float32), 1)), (("-DWIDE",), (xp.empty(1),))):
        module = xp.RawModule(code=code, options=options)
        module.get_function("probe")((1,), (1,), arguments)
        assert arguments[0].item() == 1
        with pytest.raises(xp.cuda.driver.CUDADriverError):
            module.get_function("commented")


# -- the cache ----------------------------------------
def test_what_is_compiled_is_kept_by_text_and_options(tmp_path, monkeypatch):
    monkeypatch.setattr(compile, "folder", lambda: tmp_path)
    built = set()
    for number, options in ((1, ()), (2, ()), (1, ("-DX",)), (1, ())):
        built.add(compile.build(f'extern "C" __global__ void probe(int* y) {{ y[0] = {number}; }}', options))
    assert len(built) == 3 and set(tmp_path.iterdir()) == built


def test_processes_that_compile_the_same_at_once_all_get_it(tmp_path):
    program = (
        "from tests.emulated_cuda import compile\n"
        "print(compile.build('extern \"C\" __global__ void probe(long long* y) { y[0] = 7; }', ()))\n"
    )
    command = [sys.executable, "-c", program]
    path = str(Path(compile.compiler()).parent) + ":/usr/bin:/bin"
    environment = {"TMPDIR": str(tmp_path), "PATH": path, "PYTHONPATH": str(ROOT)}
    runs = [subprocess.Popen(command, env=environment) for _ in range(3)]
    assert [run.wait(timeout=120) for run in runs] == [0, 0, 0]
    assert [entry.suffix for entry in next(tmp_path.iterdir()).iterdir()] == [".so"]

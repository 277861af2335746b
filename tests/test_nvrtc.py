"""Every kernel compiles with NVRTC for real GPUs, on any machine, and keeps everything in registers.

NVRTC needs no GPU. The text and options are those that launch.py gives CuPy, with what CuPy itself adds.
"""

import re

import pytest

import gpulstm as gl
from gpulstm import info, launch
from gpulstm.cells import STEPS, general, gru, lstm, rnn
from gpulstm.dtypes import as_dtype
from gpulstm.functional import fused_steps
from tests.conftest import require, skip

pytestmark = pytest.mark.slow  # no version of Python or NumPy changes it
ARCHITECTURES = ("75", "80", "90", "100", "120")
# The macros that callers choose, beside the defaults that stand in the text: functional/cross_entropy.py, ctc.py.
VARIANTS = {
    "cross_entropy": [
        (*sizes, *place)
        for sizes in (("THREADS=128", "LANES=4"), ("THREADS=128", "LANES=32"), ("THREADS=512", "LANES=512"))
        for place in ((), ("IN_PLACE",))
    ],
    "ctc": [("THREADS=64",), ("THREADS=256",)],
}
CELLS = [
    general.cell(("hard_sigmoid", "elu", "softplus"), 1.5),
    general.cell(("softsign", "scaled_tanh", "leaky_relu"), None, True, True),
    gru.cell(update="cho"),
    gru.cell("before", activations=("hard_sigmoid", "thresholded_relu"), clip=0.5),
    *(rnn.cell(name, clip) for name, clip in (("relu", None), ("softplus", 0.5), ("elu", 2.0))),
]
SERVED = [cell for cell in (*STEPS.values(), *CELLS) if not fused_steps.why_no_turns(cell)]
_FUNCTION = re.compile(r"Compiling entry function '(\w+)'")
_LOCAL = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")


@pytest.fixture(scope="module")
def nvrtc():
    """CuPy's binding of NVRTC, once it has found the library."""
    library = require("cupy_backends.cuda.libs.nvrtc")
    try:
        library.getVersion()
    except Exception as error:  # CuPy raises one of several exceptions where the library is missing
        skip(f"NVRTC is not installed (pip install '.[nvrtc]'): {error}")
    return library


def headers():
    """The folder of cuda_fp16.h, as CuPy finds it."""
    return require("cuda.pathfinder").find_nvidia_header_directory("cudart")


def compile_for(nvrtc, architecture, code, options):
    """(cubin, log) of one compilation; raises RuntimeError with the log of one that fails."""
    program = nvrtc.createProgram(code, "kernel.cu", (), ())
    added = ("-ftz=true", f"-I{headers()}", f"-arch=sm_{architecture}", "--ptxas-options=-v")
    try:
        nvrtc.compileProgram(program, (*options, *added))
        return nvrtc.getCUBIN(program), nvrtc.getProgramLog(program)
    except nvrtc.NVRTCError as error:
        raise RuntimeError(nvrtc.getProgramLog(program)) from error
    finally:
        nvrtc.destroyProgram(program)


def local_bytes(log):
    """{kernel: bytes of local memory, by stack frame or spilled registers} from ptxas's report."""
    names, sizes = _FUNCTION.findall(log), _LOCAL.findall(log)
    assert len(names) == len(sizes), f"ptxas's report reads otherwise than expected:\n{log}"
    return {name: sum(map(int, size)) for name, size in zip(names, sizes, strict=True)}


def entries(code):
    return set(re.findall(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)", code))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("real", launch.REALS)
@pytest.mark.parametrize("text", list(info.kernel_texts()), ids=lambda text: text.title)
def test_kernels_compile_and_spill_nothing(nvrtc, text, real, architecture):
    code = launch.source(text.file, text.cell)
    cubin, log = compile_for(nvrtc, architecture, code, launch.options(as_dtype(real), text.defines))
    used = local_bytes(log)
    assert set(used) == entries(code) and used
    assert all(name.encode() in cubin for name in used)
    assert not any(used.values()), f"{text.title} keeps values in local memory: {used}"


@pytest.mark.parametrize("real", launch.REALS)
@pytest.mark.parametrize("file, cell, defines", [
    *((file, "", defines) for file in VARIANTS for defines in VARIANTS[file]),
    *((cell.kernel.program, cell.kernel.file, cell.defines) for cell in CELLS),
])  # fmt: skip
def test_variants_compile_and_spill_nothing(nvrtc, file, cell, defines, real):
    _, log = compile_for(nvrtc, "90", launch.source(file, cell), launch.options(as_dtype(real), defines))
    assert not any(local_bytes(log).values())


@pytest.mark.parametrize(("defines", "message"), [
    *((f"ROW={row}", f"{what}: the struct and the row in Python") for what, row in {
        "gates": "3,2,0,0,0,0,0,0,0", "states": "4,3,0,0,0,0,0,0,0", "vectors": "4,2,3,0,0,0,0,0,0",
        "kept": "4,2,0,1,0,0,0,0,0", "split": "4,2,0,0,1,0,0,0,0", "direct": "4,2,0,0,0,1,0,0,0",
        "inner": "4,2,0,0,0,0,1,0,0", "normed": "4,2,0,0,0,0,0,1,0", "options": "4,2,0,0,0,0,0,0,1",
    }.items()),
    ("OPTIONS=1.0", "OPTIONS: expected as many numbers as the cell reads"),
])  # fmt: skip
def test_a_row_that_is_not_the_structs_is_refused(nvrtc, defines, message):
    code = launch.source("step", "lstm")
    compile_for(nvrtc, "90", code, launch.options("float32", ("CELL=Lstm", "ROW=4,2,0,0,0,0,0,0,0")))
    with pytest.raises(RuntimeError, match=message):
        compile_for(nvrtc, "90", code, launch.options("float32", ("CELL=Lstm", defines)))


def test_every_macro_that_callers_may_choose_has_variants():
    for file in launch.kernel_files():
        own = (launch.kernel_folder() / f"{file}.cu").read_text(encoding="utf-8")
        chosen = set(re.findall(r"#ifndef (\w+)", own))
        for defines in VARIANTS.get(file, [()]):
            valued = {define.partition("=")[0] for define in defines if "=" in define}  # the others switch something on
            assert valued == chosen, f"{file}.cu has macros {chosen}"


# -- the product and the gates in one kernel ----------------------------------------
def fused(nvrtc, architecture, kind, cell, direction, H, persistent):
    """(tile, whether on tensor cores, bytes of local memory, machine code) of every tile there is for the case."""
    precision = gl.precision("tf32" if kind == "tf32" else "ieee")
    real, capability = as_dtype("float32" if kind == "tf32" else kind), int(architecture)
    with precision:
        tensor = fused_steps.tensor_cores(real, capability)
    turns = fused_steps.Turns(cell)
    code = launch.source(f"sequence_{direction}", cell.kernel.file)
    for tile in fused_steps.tiles_of(cell, direction, real, tensor):
        with precision:
            defines = turns.compiled_with(direction, tile, H, persistent, real, tensor)
        if persistent and "RESIDENT=0" in defines:
            continue  # as if it were not
        cubin, log = compile_for(nvrtc, architecture, code, launch.options(real, defines))
        yield tile, tensor, local_bytes(log), cubin


@pytest.mark.parametrize("architecture", ("75", "80", "86", "90", "100", "120"))
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("kind", (*launch.REALS, "tf32"))
def test_no_tile_of_the_fused_kernels_spills(nvrtc, kind, direction, architecture):
    for H, persistent in ((128, False), (128, True), (512, True), (1024, True)):
        for tile, _, used, _ in fused(nvrtc, architecture, kind, lstm.CELL, direction, H, persistent):
            assert len(used) >= 2 and not any(used.values()), f"{tile} keeps values in local memory: {used}"


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
@pytest.mark.parametrize("cell", SERVED, ids=lambda cell: cell.kernel.struct)
def test_no_tile_of_the_fused_kernels_of_any_cell_spills(nvrtc, cell, kind, direction):
    for H, persistent in ((128, False), (128, True), (512, True), (1024, True)):
        for tile, _, used, _ in fused(nvrtc, "90", kind, cell, direction, H, persistent):
            assert not any(used.values()), f"{tile} keeps values in local memory: {used}"


@pytest.mark.parametrize(("kind", "architecture", "instruction"), [
    ("float16", "75", "m16n8k8.row.col.f32.f16.f16.f32"), ("float16", "80", "m16n8k16.row.col.f32.f16.f16.f32"),
    ("bfloat16", "80", "m16n8k16.row.col.f32.bf16.bf16.f32"), ("tf32", "80", "m16n8k8.row.col.f32.tf32.tf32.f32"),
    ("bfloat16", "75", None), ("float32", "80", None), ("float64", "90", None),
])  # fmt: skip
def test_tensor_cores_multiply_where_they_should(nvrtc, monkeypatch, kind, architecture, instruction):
    monkeypatch.setattr(nvrtc, "getCUBIN", nvrtc.getPTX)
    for direction in ("forward", "backward"):
        for _, tensor, _, ptx in fused(nvrtc, architecture, kind, lstm.CELL, direction, 128, False):
            found = set(re.findall(r"mma\.sync\.aligned\.([\w.]+)", ptx.decode() if isinstance(ptx, bytes) else ptx))
            assert found == ({instruction} if instruction else set()) and tensor == bool(instruction)


# -- the checks above can fail ----------------------------------------
def test_a_run_time_index_into_registers_is_reported(nvrtc):
    code = """extern "C" __global__ void indexed(float* x, long long n) {
        float held[64];
        for (int k = 0; k < 64; ++k) held[k] = x[k];
        for (long long k = 0; k < n; ++k) x[k] = held[k * 7 % 64];
    }"""
    _, log = compile_for(nvrtc, "90", code, ())
    assert local_bytes(log)["indexed"] >= 256


def test_too_many_registers_are_reported(nvrtc):
    sums = "\n".join(f"float a{k} = x[{k}] * x[n + {k}];" for k in range(200))
    uses = " + ".join(f"a{k} * sinf(a{(k * 37 + 11) % 200})" for k in range(200))
    code = f"""extern "C" __global__ void __launch_bounds__(1024) crowded(float* x, long long n) {{
        {sums}
        __syncthreads();
        x[n] = {uses};
    }}"""
    _, log = compile_for(nvrtc, "90", code, ())
    assert local_bytes(log)["crowded"] > 0


@pytest.mark.parametrize("fault", ["missing semicolon", "unknown name", "const written"])
def test_a_broken_kernel_is_refused(nvrtc, fault):
    code = launch.source("step", "lstm")
    broken = {
        "missing semicolon": code.replace("keep[0] = i;", "keep[0] = i"),
        "unknown name": code.replace("tanh_(c);", "tanh_(c_neu);"),
        "const written": code.replace("dzx[0] =", "keep[0] = dzx[0] ="),
    }[fault]
    assert broken != code
    with pytest.raises(RuntimeError, match=r"kernel.cu\(\d+\): error"):
        compile_for(nvrtc, "90", broken, launch.options("float32", ("CELL=Lstm",)))


def test_a_report_in_other_words_is_not_taken_for_a_good_one():
    with pytest.raises(AssertionError, match="reads otherwise"):
        local_bytes("ptxas info : Compiling entry function 'f' for 'sm_90'\nptxas info : all is well")

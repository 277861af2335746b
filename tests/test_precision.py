"""gl.precision: the factors of float32 products on a GPU, in every function, its pullback, CUDA graphs and threads."""

import ast
import threading

import ml_dtypes
import numpy as np
import pytest

import gpulstm as gl
from gpulstm import functional as F
from gpulstm.backend import CPU, backend_of
from gpulstm.cublas import Cublas
from gpulstm.errors import DTypeError, NoKernel, ShapeError
from gpulstm.functional import recurrent
from gpulstm.functional.arithmetic import matmul
from gpulstm.functional.linear import product
from gpulstm.labs.translate.decoder import decode
from gpulstm.precision import PRECISIONS, current
from tests import emulated_cuda
from tests.conftest import GPUS, ROOT
from tests.tolerances import assert_close, assert_factors

ON_GPU = pytest.mark.parametrize("device", GPUS, indirect=True)
ROUGH = [name for name in PRECISIONS if name != "ieee"]


def draw(rng, *shape):
    return np.asarray(rng.standard_normal(shape) / np.sqrt(shape[-1] if shape else 1))


def linear_cross_entropy(x, weight):
    return F.linear_cross_entropy(x, weight, backend_of(x).asarray(np.arange(len(x))), reduction="none")


# -- the functions that multiply: name -> (a call on arrays of one device, the shapes of its arrays)
T, B, D, H = 5, 4, 33, 9
LSTM_SHAPES = [(T, B, D), (B, H), (B, H), (4 * H, D), (4 * H, H), (4 * H,), (4 * H,)]
PROJECTED_SHAPES = [(T, B, D), (B, 6), (B, H), (4 * H, D), (4 * H, 6), (4 * H,), (4 * H,), (6, H)]
FUNCTIONS = {
    "linear": (F.linear, [(7, 65), (6, 65), (6,)]),
    "matmul": (matmul, [(7, 65), (65, 6)]),
    "matmul of stacks": (matmul, [(3, 7, 65), (3, 65, 6)]),
    "matmul that broadcasts": (matmul, [(2, 1, 7, 65), (3, 65, 6)]),
    "attention": (lambda *a: F.attention(a[0], a[1], kind="dot"), [(3, B, D), (T, B, D)]),
    "additive attention": (F.attention, [(3, B, D), (T, B, D), (T, B, D), (H, D), (H, D), (H,)]),
    "lstm": (recurrent, LSTM_SHAPES),
    "lstm with a projection": (recurrent, PROJECTED_SHAPES),
    "minlstm": (lambda *a: F.minimal(a[0], None, a[1], a[2]), [(T, B, D), (3 * H, D), (3 * H,)]),
    "linear cross-entropy": (linear_cross_entropy, [(8, D), (11, D)]),
    "decoder": (decode, [(T, B, 4 * H), (B, H), (B, H), (7, B, H), (7, B, D), (4 * H, H), (4 * H, D), (D, H)]),
}


def values(device, name, dtype, seed=0):
    """[outputs, gradients] of a function, as arrays of the host; the same numbers on every device."""
    call, shapes = FUNCTIONS[name]
    rng = np.random.default_rng(seed)
    arrays = [device.asarray(draw(rng, *shape).astype(dtype)) for shape in shapes]
    outputs, pullback = call(*arrays)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    d = [device.asarray(draw(rng, *outputs[0].shape).astype(dtype)), *[None] * (len(outputs) - 1)]
    gradients = [g for g in pullback(*d) if g is not None]
    return [[device.to_numpy(array) for array in arrays] for arrays in (outputs, gradients)]


def as_bytes(parts):
    return [array.tobytes() for part in parts for array in part]


@ON_GPU
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_function_multiplies_in_the_precision_in_force(device, name, precision):
    with gl.precision(precision):
        got = values(device, name, np.float32)
    for part, mine, want in zip(("outputs", "gradients"), got, values(CPU, name, np.float64), strict=True):
        assert_factors(mine, want, precision, f"{part} of {name}")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_product_is_the_librarys_own(emulated, monkeypatch, name):
    """CuPy's products, which know no precision, are never asked for."""
    device, seen = gl.device("cuda").backend, []
    single, stacks = Cublas._call, Cublas.multiply_stacks

    def counting(self, *args):
        call = single(self, *args)
        return lambda *addresses: (seen.append(1), call(*addresses))

    def counting_stacks(self, a, b, out):
        stacks(self, a, b, out)
        seen.extend([1] * len(a) if out.size else [])

    monkeypatch.setattr(Cublas, "_call", counting)
    monkeypatch.setattr(Cublas, "multiply_stacks", counting_stacks)
    with emulated_cuda.counted() as counts:
        values(device, name, np.float32)
    assert counts.products == len(seen) > 0


ROUND = {
    "ieee": lambda x: x,
    "bf16": lambda x: x.astype(ml_dtypes.bfloat16).astype(np.float32),
    "fp16": lambda x: x.astype(np.float16).astype(np.float32),
    # Ten bits after the point: what is left of a sum with a number 2^13 times as large.
    "tf32": lambda x: (x * np.float32(2**13 + 1)) - (x * np.float32(2**13 + 1) - x),
}


@ON_GPU
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("stacked", [False, True])
def test_the_factors_are_rounded_and_the_sum_is_float32(device, rng, precision, stacked):
    a, b = rng.standard_normal((5, 3)).astype(np.float32), rng.standard_normal((3, 4)).astype(np.float32)
    want = ROUND[precision](a).astype(np.float64) @ ROUND[precision](b).astype(np.float64)
    a, b = (device.asarray(m[None] if stacked else m) for m in (a, b))
    with gl.precision(precision):
        got = device.matmul(a, b)[0] if stacked else product(device, a, b)
    assert_close(device.to_numpy(got), want.astype(np.float32), rtol=1e-6)


@ON_GPU
@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize("name", ["linear", "matmul of stacks", "attention", "lstm", "minlstm"])
def test_other_types_are_multiplied_as_always(device, name, dtype):
    plain = as_bytes(values(device, name, gl.as_dtype(dtype)))
    for precision in ROUGH:
        device.graphs = None
        with gl.precision(precision):
            assert as_bytes(values(device, name, gl.as_dtype(dtype))) == plain


@ON_GPU
@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_products_of_other_types_know_no_precision(device, rng, dtype):
    a, b = (device.asarray(rng.standard_normal(shape).astype(gl.as_dtype(dtype))) for shape in ((3, 4), (4, 2)))

    def both():
        return [device.to_numpy(y).tobytes() for y in (product(device, a, b), device.matmul(a[None], b[None]))]

    plain = both()
    for precision in ROUGH:
        with gl.precision(precision):
            assert both() == plain


@ON_GPU
@pytest.mark.parametrize("layout", ["plain", "turned", "gaps", "backwards", "repeated", "one", "empty", "no sum"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_stacks_of_any_layout(device, rng, layout, dtype):
    make = {
        "plain": lambda m, k: m,
        "turned": lambda m, k: m.transpose(0, 2, 1).copy().transpose(0, 2, 1),
        "gaps": lambda m, k: np.repeat(np.repeat(m, 2, 1), 3, 2)[:, ::2, ::3],
        "backwards": lambda m, k: m[::-1],
        "repeated": lambda m, k: m[:1] if k else m,
        "one": lambda m, k: m[:1, :1, :1],
        "empty": lambda m, k: m[:0],
        "no sum": lambda m, k: m[:, :0] if k else m[:, :, :0],
    }[layout]
    whole = [rng.integers(-3, 4, shape) for shape in ((3, 6, 4), (3, 4, 8))]
    a, b = (make(device.asarray(m.astype(gl.as_dtype(dtype))), k) for k, m in enumerate(whole))
    want = np.matmul(*(make(m, k) for k, m in enumerate(whole)))
    got = device.matmul(a, b)
    assert got.dtype == a.dtype
    np.testing.assert_array_equal(device.to_numpy(got).astype(np.float64), want)


# -- the switch itself ----------------------------------------
def test_blocks_nest_and_end():
    assert current() == "ieee"
    with gl.precision("bf16"):
        with gl.precision("ieee"), pytest.raises(RuntimeError):
            assert current() == "ieee"
            raise RuntimeError
        assert current() == "bf16"
        seen = []
        thread = threading.Thread(target=lambda: seen.append(current()))
        thread.start()
        thread.join()
    assert current() == seen[0] == "ieee"


def test_it_decorates_functions():
    @gl.precision("tf32")
    def inside(again):
        return [current(), *(inside(False) if again else [])]

    assert inside(True) == ["tf32", "tf32"] and current() == "ieee"

    def generator():
        yield current()

    for wrong in (generator, None, int):
        with pytest.raises(DTypeError, match=r"^precision: expected a plain function to decorate"):
            gl.precision("tf32")(wrong)


@pytest.mark.parametrize("name", ["fp32", "", "BF16", None, 16, np.float16])
def test_an_unknown_name_is_refused(name):
    error = ShapeError if isinstance(name, str) else DTypeError
    with pytest.raises(error, match=r"^name: expected one of ieee, tf32, bf16, fp16, got"):
        gl.precision(name)


# -- pullbacks ----------------------------------------
@ON_GPU
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_raw_pullback_has_the_precision_of_the_call(device, name):
    call, shapes = FUNCTIONS[name]
    bits = []
    for outside in ("bf16", "ieee"):
        rng = np.random.default_rng(1)
        arrays = [device.asarray(draw(rng, *shape).astype(np.float32)) for shape in shapes]
        with gl.precision("bf16"):
            outputs, pullback = call(*arrays)
        first = outputs[0] if isinstance(outputs, tuple) else outputs
        nothing = [None] * (len(outputs) - 1) if isinstance(outputs, tuple) else []
        with gl.precision(outside):
            gradients = pullback(device.asarray(draw(rng, *first.shape).astype(np.float32)), *nothing)
        bits.append([device.to_numpy(g).tobytes() for g in gradients if g is not None])
    assert bits[0] == bits[1]


@ON_GPU
def test_backward_has_the_precision_of_the_call(device, rng):
    def multiplied(x, w):
        """A function of the user's own, whose pullback asks for products by itself."""
        return product(device, x, w), lambda dy: (product(device, dy, w.T), product(device, x.T, dy))

    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 9), (9, 4)))
    gradients = {}
    for forward, backward in (("ieee", "ieee"), ("bf16", "bf16"), ("bf16", "ieee"), ("ieee", "bf16")):
        left, right = (gl.tensor(m, requires_grad=True, device=device.name) for m in (x, w))
        with gl.precision(forward):
            loss = (gl.apply(multiplied, left, right) ** 2).sum()
        with gl.precision(backward):
            loss.backward()
        assert current() == "ieee"
        gradients[forward, backward] = device.to_numpy(left.grad).tobytes()
    assert gradients["bf16", "bf16"] == gradients["bf16", "ieee"] != gradients["ieee", "ieee"]
    assert gradients["ieee", "bf16"] == gradients["ieee", "ieee"]


# -- paths ----------------------------------------
@ON_GPU
def test_a_graph_is_of_one_precision(device):
    """Captured in one precision, asked for in the other: each gives the bits of its own launches."""
    graph = {}
    for path in ("kernel", "graph", "graph"):
        for precision in ("ieee", "bf16", "tf32"):
            rng = np.random.default_rng(3)
            arrays = [device.asarray(draw(rng, *shape).astype(np.float32)) for shape in LSTM_SHAPES]
            kept = graph.setdefault("arrays", arrays)  # a graph belongs to the addresses of its weights
            with gl.precision(precision):
                outputs, pullback = recurrent(*kept, path=path)
            gradients = pullback(outputs[0], None, None)  # outside of the block
            bits = [device.to_numpy(a).tobytes() for a in (*outputs, *gradients) if a is not None]
            assert graph.setdefault(precision, bits) == bits, (path, precision)
    assert graph["ieee"] != graph["bf16"] != graph["tf32"] != graph["ieee"]


@ON_GPU
@pytest.mark.parametrize("path", ["fused", "persistent"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_kernels_with_a_product_of_their_own_refuse_what_they_have_not(device, path, precision):
    arrays = [device.asarray(np.zeros(shape, np.float32)) for shape in LSTM_SHAPES]
    with gl.precision(precision), pytest.raises(NoKernel, match=f"float32 arrays in ieee or tf32, not in {precision}"):
        recurrent(*arrays, path=path)
    half = [array.astype(np.float16) for array in arrays]
    with gl.precision(precision):
        recurrent(*half, path=path)
    with gl.precision("tf32"):
        recurrent(*arrays, path=path)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_processor_computes_as_always_and_says_so(name):
    plain = as_bytes(values(CPU, name, np.float32))
    with gl.explain() as quiet:
        values(CPU, name, np.float32)
    assert not quiet.notes
    for precision in ROUGH:
        with gl.explain() as runs, gl.precision(precision):
            assert as_bytes(values(CPU, name, np.float32)) == plain
        (line,) = runs.notes
        assert (
            line == f"products of float32 on cpu are IEEE float32; precision {precision!r} takes effect on a GPU only"
        )
        assert line in str(runs)
        with gl.explain() as runs, gl.precision(precision):
            values(CPU, name, np.float64)
        assert not runs.notes


def test_a_product_by_itself_says_so_too(rng):
    x = rng.standard_normal((3, 3)).astype(np.float32)
    for multiply in (product, lambda backend, a, b: backend.matmul(a, b)):
        with gl.explain() as runs, gl.precision("tf32"):
            multiply(CPU, x, x)
            multiply(CPU, x, x)
        assert len(runs.notes) == 1


@ON_GPU
def test_a_gpu_has_nothing_to_say(device):
    with gl.explain() as runs, gl.precision("bf16"):
        values(device, "lstm", np.float32)
    assert not runs.notes and len(runs) == 1


# -- the texts ----------------------------------------
# NumPy alone, on the host.
ON_HOST = {"clip.py", "cell_checks/equations.py", "functional/cross_entropy.py", "labs/forecast/baselines.py",
           "labs/speech/features.py", "train/rows.py"}  # fmt: skip
PRODUCTS = {"matmul", "dot", "vdot", "inner", "tensordot", "einsum"}


def products_of_others(source):
    """The lines that multiply matrices by another library than ours: ``a @ b``, ``xp.matmul``."""
    for node in ast.walk(ast.parse(source)):
        operator = isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.MatMult)
        named = isinstance(node, ast.Attribute) and node.attr in PRODUCTS
        if operator or (named and ast.unparse(node.value) in ("xp", "np", "backend.xp", "be.xp", "on.xp", "self.xp")):
            yield node.lineno


@pytest.mark.parametrize("folder", ["", "cell_checks", "functional", "nn", "optim", "train", "labs", "classic", "io"])
def test_no_module_asks_another_library_for_products(folder):
    root = ROOT / "gpulstm"
    files = (root / folder).rglob("*.py") if folder else root.glob("*.py")
    found = {str(f.relative_to(root)): list(products_of_others(f.read_text(encoding="utf-8"))) for f in files}
    known = {name for name, lines in found.items() if lines}
    assert known <= ON_HOST | {"backend.py"}, found


def test_products_of_others_are_seen():
    assert list(products_of_others("y = a @ b\nz = xp.dot(a, b)\nw = backend.xp.matmul(a, b)")) == [1, 2, 3]
    assert not list(products_of_others("y = backend.matmul(a, b)\n@decorated\ndef f(): pass"))

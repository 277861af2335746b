"""The minimal LSTM and GRU: the parallel scan against the steps one after another, both against the equations
written out number by number, and the gradients against central differences and torch's."""

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.backend import CPU
from gpulstm.errors import DTypeError, NoKernel, ShapeError
from gpulstm.functional import scan as scans
from gpulstm.functional.minimal import minimal
from gpulstm.nn.minimal import MinGRU, MinGRUCell, MinLSTM, MinLSTMCell
from tests.conftest import require
from tests.tolerances import assert_close, assert_gradient, assert_ratio, central_differences

CELLS = {"minlstm": 3, "mingru": 2}  # the number of gates
NAMES = ("y", "h_n", "dx", "dh0", "dw_ih", "db_ih")


@dataclass(frozen=True)
class Case:
    """One sequence to compute."""

    name: str
    T: int = 5
    B: int = 3
    D: int = 4
    H: int = 5
    lengths: tuple[int, ...] | None = None
    masked: bool = False  # steps that do not count anywhere, in place of lengths
    reset: bool = False
    reverse: bool = False
    bias: bool = True
    state: bool = True
    strided: bool = False
    through: tuple[bool, bool] = (True, True)  # gradient arrives by y, h_n

    def __str__(self) -> str:
        return self.name


# Chunks of a kernel have 32 steps at these sizes; a vector of the engine has 2 to 16 units.
CASES = (
    Case("plain"),
    Case("one step", T=1),
    Case("one step reversed", T=1, reverse=True, lengths=(1, 0, 1)),
    Case("two steps", T=2),
    Case("one less than a chunk", T=31),
    Case("a chunk", T=32),
    Case("one more than a chunk", T=33),
    Case("two chunks", T=64, reverse=True),
    Case("two chunks and one", T=65, reverse=True, lengths=(65, 33, 0)),
    Case("long", T=2050, B=2, D=2, H=3, lengths=(2049, 7)),
    Case("long reversed with resets", T=1030, B=1, D=2, H=2, reset=True, reverse=True),
    Case("wide", T=40, B=4, D=3, H=301, lengths=(40, 1, 0, 33)),  # more units than a block has threads
    Case("odd units", T=40, H=37, lengths=(40, 3, 17), reverse=True),
    Case("odd units with resets", T=40, H=19, B=2, masked=True, reset=True),
    Case("one sequence", B=1, T=70),
    Case("one unit", H=1, D=1, T=40),
    Case("no sequences", B=0, T=40),
    Case("no bias", bias=False),
    Case("zero state", state=False, T=40, lengths=(0, 40, 20)),
    Case("reversed", reverse=True),
    Case("ragged", lengths=(2, 5, 0)),
    Case("ragged reversed", lengths=(0, 4, 1), reverse=True),
    Case("all ended", lengths=(0, 0, 0)),
    Case("masked", T=67, masked=True),
    Case("masked reversed with resets", T=67, masked=True, reset=True, reverse=True),
    Case("resets", T=67, reset=True),
    Case("strided", strided=True, T=40),
    Case("through y only", through=(True, False), T=40, lengths=(2, 35, 0)),
    Case("through h_n only", through=(False, True), T=40, lengths=(2, 35, 0)),
    Case("through h_n only, reversed", through=(False, True), T=40, lengths=(2, 35, 0), reverse=True),
)


def masks(case, rng):
    """(mask, reset), (T, B) bool or None."""
    mask = rng.random((case.T, case.B)) < 0.7 if case.masked else None
    return mask, rng.random((case.T, case.B)) < 0.1 if case.reset else None


def arguments(case, cell, rng):
    """([x, h0, w_ih, b_ih], (dy, dh_n)) in float64 on the host, None where not given."""
    make, GH = rng.standard_normal, CELLS[cell] * case.H
    given = [
        make((case.T, case.B, case.D)),
        make((case.B, case.H)) if case.state else None,
        make((GH, case.D)),
        make(GH) if case.bias else None,
    ]
    cotangents = make((case.T, case.B, case.H)), make((case.B, case.H))
    return given, tuple(d if wanted else None for d, wanted in zip(cotangents, case.through, strict=True))


def run(backend, case, cell, given, cotangents, path="auto", dtype=np.float64, mask=None, reset=None):
    """[y, h_n, dx, ...] on the host, computed on ``backend``."""

    def there(array):
        if array is None:
            return None
        if case.strided:  # every second column of a wider array
            array = np.repeat(array, 2, axis=-1)
            return backend.asarray(array, dtype)[..., ::2]
        return backend.asarray(array, dtype)

    lengths = None if case.lengths is None else np.array(case.lengths)
    options: dict[str, Any] = {"lengths": lengths, "mask": mask, "reset": reset, "reverse": case.reverse}
    with backend:
        outputs, pullback = minimal(*map(there, given), cell=cell, path=path, **options)
        gradients = pullback(*map(there, cotangents))
    return [None if a is None else backend.to_numpy(a) for a in (*outputs, *gradients)]


def paths(backend, case=None):
    if backend.is_cuda and case is not None and case.T > 1000:
        return ["kernel"]  # thousands of steps one by one take the stand-in seconds
    return ["kernel", "reference"] if backend.is_cuda else ["engine", "reference"]


# -- the equations, number by number ----------------------------------------
def log_sigmoid(z):
    return min(z, 0.0) - math.log1p(math.exp(-abs(z)))


def one_unit(cell, z, h):
    """The next h of one unit from its pre-activations in the order of the gates."""
    if cell == "mingru":
        z_z, n = z
        return math.exp(log_sigmoid(-z_z)) * h + math.exp(log_sigmoid(z_z)) * n
    z_f, z_i, n = z
    log_f, log_i = log_sigmoid(z_f), log_sigmoid(z_i)
    return math.exp(log_sigmoid(log_f - log_i)) * h + math.exp(log_sigmoid(log_i - log_f)) * n


def by_number(cell, x, h0, w_ih, b_ih, lengths=None, mask=None, reset=None, reverse=False):
    """(y, h_n) for float64 NumPy arrays."""
    (T, B, D), G = x.shape, CELLS[cell]
    H = w_ih.shape[0] // G
    y, h_n = np.zeros((T, B, H)), np.zeros((B, H))
    for b in range(B):
        h = [0.0] * H if h0 is None else list(h0[b])
        for t in reversed(range(T)) if reverse else range(T):
            begins = t + 1 if reverse else t  # backwards a sequence that begins at t + 1 has ended before t
            if reset is not None and begins < T and reset[begins, b]:
                h = [0.0] * H
            if (lengths is not None and t >= lengths[b]) or (mask is not None and not mask[t, b]):
                continue
            for j in range(H):
                rows = range(j, G * H, H)
                z = [sum(w_ih[r, d] * x[t, b, d] for d in range(D)) + (0 if b_ih is None else b_ih[r]) for r in rows]
                h[j] = one_unit(cell, z, h[j])
            y[t, b] = h
        h_n[b] = h
    return y, h_n


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("case", [c for c in CASES if c.H < 100 and c.T < 2000], ids=str)
def test_reference_equals_the_equations_by_number(case, cell, rng):
    given, cotangents = arguments(case, cell, rng)
    mask, reset = masks(case, rng)
    want = by_number(cell, *given, case.lengths, mask, reset, case.reverse)
    got = run(CPU, case, cell, given, cotangents, "reference", mask=mask, reset=reset)
    for name, a, b in zip(NAMES, got[:2], want, strict=False):
        assert_close(a, b, name=name)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_scan_equals_the_steps_in_float64(device, case, cell, rng):
    given, cotangents = arguments(case, cell, rng)
    mask, reset = masks(case, rng)
    want = run(CPU, case, cell, given, cotangents, "reference", mask=mask, reset=reset)
    for path in paths(device, case):
        got = run(device, case, cell, given, cotangents, path, mask=mask, reset=reset)
        for name, a, b in zip(NAMES, got, want, strict=True):
            if b is None:
                assert a is None, f"{path}: {name}"
            else:
                # Two orders of the same sums: y of a few hundred steps differs in the last digits alone.
                assert_close(a, b, name=f"{path}: {name}", rtol=1e-12)


# -- one hundred random configurations, gradients by central differences ----------------------------------------
@functools.cache
def random_configuration(number):
    """(case, cell, given, cotangents, mask, reset, [y, h_n, dx, ...]), the gradients by central differences."""
    rng = np.random.default_rng(number)
    T, B = int(rng.integers(1, 10)), int(rng.integers(1, 4))
    flags = dict(zip(("reverse", "bias", "state", "masked", "reset"), (rng.random(5) < 0.5).tolist(), strict=True))
    ragged = not flags["masked"] and rng.random() < 0.5
    lengths = tuple(rng.integers(0, T + 1, B).tolist()) if ragged else None
    case = Case(str(number), T=T, B=B, D=int(rng.integers(1, 3)), H=int(rng.integers(1, 3)), lengths=lengths, **flags)
    cell = ("minlstm", "mingru")[number % 2]
    given, cotangents = arguments(case, cell, rng)
    mask, reset = masks(case, rng)

    def outputs():
        return by_number(cell, *given, case.lengths, mask, reset, case.reverse)

    def loss(_):
        return sum((o * d).sum() for o, d in zip(outputs(), cotangents, strict=True))

    gradients = [None if array is None else central_differences(loss, array) for array in given]
    return case, cell, given, cotangents, mask, reset, [*outputs(), *gradients]


@pytest.mark.parametrize("tens", range(10))
def test_gradients_are_central_differences_in_random_configurations(device, tens, monkeypatch):
    monkeypatch.setattr(scans.KernelScan, "SHORTEST", 2)  # so that these short sequences have several chunks
    for number in range(10 * tens, 10 * tens + 10):
        case, cell, given, cotangents, mask, reset, want = random_configuration(number)
        for path in paths(device):
            got = run(device, case, cell, given, cotangents, path, mask=mask, reset=reset)
            for name, a, b in zip(NAMES, got, want, strict=True):
                where = f"configuration {number}, {path}: {name}"
                if b is None:
                    assert a is None, where
                elif name in ("y", "h_n"):
                    assert_close(a, b, name=where)
                else:
                    assert_gradient(a, b, name=where)


def test_random_configurations_reach_every_input():
    reached = [random_configuration(number)[-1] for number in range(100)]
    for place, name in enumerate(NAMES):
        large = [r[place] is not None and np.abs(r[place]).max() > 0.1 for r in reached]
        assert sum(large) > 30, name


@pytest.mark.oracle
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_are_torchs(device, cell, rng):
    torch = require("torch")
    case = Case("torch", T=75, B=3, D=4, H=6)
    given, cotangents = arguments(case, cell, rng)
    x, h, w, b = leaves = [torch.tensor(a, requires_grad=True) for a in given]
    y = []
    for x_t in x:
        *gates, n = (x_t @ w.T + b).chunk(CELLS[cell], dim=1)
        gates = [torch.sigmoid(z) for z in gates]
        keep, take = (1 - gates[0], gates[0]) if cell == "mingru" else (g / (gates[0] + gates[1]) for g in gates)
        h = keep * h + take * n
        y.append(h)
    y = torch.stack(y)
    ((y * torch.tensor(cotangents[0])).sum() + (h * torch.tensor(cotangents[1])).sum()).backward()
    want = [y.detach().numpy(), h.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)]
    for name, a, b in zip(NAMES, run(device, case, cell, given, cotangents), want, strict=True):
        assert_close(a, b, name=name)


# -- precision ----------------------------------------
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("case", [c for c in CASES if c.B > 0][::2], ids=str)
def test_float32_error_is_within_the_ratio(device, case, cell, rng):
    given, cotangents = arguments(case, cell, rng)
    mask, reset = masks(case, rng)
    exact = run(CPU, case, cell, given, cotangents, "reference", mask=mask, reset=reset)
    plain = run(CPU, case, cell, given, cotangents, "reference", np.float32, mask, reset)
    for path in paths(device, case):
        got = run(device, case, cell, given, cotangents, path, np.float32, mask, reset)
        for name, a, b, c in zip(NAMES, got, plain, exact, strict=True):
            if c is not None:
                assert a.dtype == np.float32
                assert_ratio(a, b, c, name=f"{path}: {name}")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_are_stored_as_such_and_computed_wider(device, dtype, cell, rng):
    dtype = gl.as_dtype(dtype)
    case = Case("half", T=40, B=4, D=8, H=8, lengths=(40, 2, 0, 35))
    given, cotangents = arguments(case, cell, rng)
    # The exact result for the numbers as they are stored.
    rounded = [a.astype(dtype).astype(np.float64) for a in (*given, *cotangents)]
    exact = run(CPU, case, cell, rounded[:4], rounded[4:], "reference")
    for path in paths(device):
        got = run(device, case, cell, given, cotangents, path, dtype)
        unit = 2.0**-10 if dtype.name == "float16" else 2.0**-7  # one unit in the last place of 1
        for name, a, b in zip(NAMES, got, exact, strict=True):
            assert a.dtype == dtype, name
            scale = np.abs(b).max()
            # A step rounds z, h and the gradient once each; the scan itself is wider, so forty steps add nothing.
            assert np.abs(a.astype(np.float64) - b).max() <= 6 * unit * scale, name
            assert scale > 0, name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("cell", CELLS)
def test_extreme_gates_keep_every_digit(device, cell, dtype):
    """h from h_prev = 0 and n = 1 is the share taken, from h_prev = 1 and n = 0 the share kept."""
    values = [-1e4, -200.0, -90.0, -20.0, -1.0, 0.0, 1.5, 20.0, 90.0, 1e4]
    G = CELLS[cell]
    z = np.array(np.meshgrid(*[values] * (G - 1))).reshape(G - 1, -1).T  # (N, G - 1) every combination
    smallest = float(np.finfo(dtype).tiny)
    for h_prev, n in ((0.0, 1.0), (1.0, 0.0)):
        want = np.array([one_unit(cell, (*row, n), h_prev) for row in z])
        x = np.concatenate([z, np.full((len(z), 1), n)], axis=1)[None]  # one step; the weights pass it on
        arrays = [device.asarray(a, dtype) for a in (x, np.full((len(z), 1), h_prev), np.eye(G))]
        for path in paths(device):
            (_, h), pullback = minimal(*arrays, cell=cell, path=path)
            got = device.to_numpy(h)[:, 0].astype(np.float64)
            normal = want > smallest
            # exp of a large number rounded to the dtype: an error of 200 units in the last place of 200.
            error = np.abs(got[normal] / want[normal] - 1).max()
            assert error <= 200 * np.finfo(dtype).eps, (path, h_prev, error)
            assert (got[~normal] <= smallest).all() and (got >= 0).all()
            gradients = pullback(device.xp.ones_like(h)[None], None)
            assert all(np.isfinite(device.to_numpy(g)).all() for g in gradients if g is not None)


def test_threads_share_the_units_and_change_no_bit(rng):
    case = Case("threads", T=40, B=3, D=2, H=301, lengths=(40, 7, 33))
    given, cotangents = arguments(case, "minlstm", rng)
    number = gl.get_num_threads()
    try:
        one, several = [], []
        for n, results in ((1, one), (5, several)):
            gl.set_num_threads(n)
            results += run(CPU, case, "minlstm", given, cotangents, "engine")
    finally:
        gl.set_num_threads(number)
    want = run(CPU, case, "minlstm", given, cotangents, "reference")
    for name, a, b, c in zip(NAMES, one, several, want, strict=True):
        assert_close(a, c, name=name)
        assert (a == b).all() or name in ("dw_ih", "db_ih"), name  # those are products, and BLAS's


# -- what holds for every function ----------------------------------------
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("reverse", [False, True])
def test_padding_is_never_read(device, cell, reverse, rng):
    case = Case("padding", T=40, lengths=(2, 0, 33), reverse=reverse)
    given, cotangents = arguments(case, cell, rng)
    for path in paths(device):
        want = run(device, case, cell, given, cotangents, path)
        padded, ended = [a.copy() for a in (given[0], cotangents[0])], np.arange(40)[:, None] >= np.array(case.lengths)
        for array in padded:
            array[ended] = np.nan
        got = run(device, case, cell, [padded[0], *given[1:]], (padded[1], cotangents[1]), path)
        for name, a, b in zip(NAMES, got, want, strict=True):
            assert_close(a, b, name=f"{path}: {name}")


def test_chunks_with_carried_state_equal_the_whole(device, rng):
    case = Case("whole", T=80)
    given, _ = arguments(case, "minlstm", rng)
    y, h_n = run(device, case, "minlstm", given, (None, None))[:2]
    x, h, *weights = given
    parts = []
    for chunk in (x[:2], x[2:70], x[70:]):
        part, h = run(device, case, "minlstm", [chunk, h, *weights], (None, None))[:2]
        parts.append(part)
    assert_close(np.concatenate(parts), y)
    assert_close(h, h_n)


def test_pullback_can_be_called_again_and_leaves_arguments(device, rng):
    case = Case("twice", T=40, lengths=(40, 0, 2))
    given, cotangents = arguments(case, "minlstm", rng)
    for path in paths(device):
        arrays = [device.asarray(a.copy()) for a in (*given, *cotangents)]
        _, pullback = minimal(*arrays[:4], lengths=case.lengths, path=path)
        first, second = pullback(*arrays[4:]), pullback(*arrays[4:])
        for a, b in zip(first, second, strict=True):
            assert (device.to_numpy(a) == device.to_numpy(b)).all()
        for array, before in zip(arrays, (*given, *cotangents), strict=True):
            assert (device.to_numpy(array) == before).all()


def test_input_gradient_can_be_left_out(device, rng):
    given, cotangents = arguments(CASES[0], "mingru", rng)
    _, pullback = minimal(*map(device.asarray, given), cell="mingru", input_gradient=False)
    gradients = pullback(*map(device.asarray, cotangents))
    assert gradients[0] is None and gradients[2] is not None


def test_lengths_may_be_on_the_device_and_are_a_mask(device, rng):
    case = Case("lengths", T=40, lengths=(5, 0, 40))
    given, _ = arguments(case, "minlstm", rng)
    arrays = [device.asarray(a) for a in given]
    alive = np.arange(40)[:, None] < np.array(case.lengths)
    outputs = [
        minimal(*arrays, **options)[0][0]
        for options in (
            {"lengths": list(case.lengths)},
            {"lengths": device.asarray(np.array(case.lengths, np.int32))},
            {"mask": alive},
            {"mask": device.asarray(alive)},
        )
    ]
    for y in outputs[1:]:
        assert (device.to_numpy(y) == device.to_numpy(outputs[0])).all()
    with pytest.raises(ShapeError, match="mask: expected lengths or mask, got both"):
        minimal(*arrays, lengths=list(case.lengths), mask=alive)


def test_explain_names_the_path_and_the_reason(device, rng):
    given, _ = arguments(CASES[0], "minlstm", rng)
    arrays = [device.asarray(a) for a in given]
    with gl.explain() as runs:
        minimal(*arrays)
        minimal(*arrays, path="reference", reverse=True)
    fast = "kernel" if device.is_cuda else "engine"
    assert [r.path for r in runs] == [fast, "reference"]
    assert runs[0].why_not_faster == "" and "asked for" in runs[1].why_not_faster
    assert str(runs).splitlines()[0] == f"minlstm T=5 B=3 D=4 H=5 float64 on {device.name}: {fast}"
    other, why = ("engine", "NumPy arrays") if device.is_cuda else ("kernel", "CuPy arrays")
    with pytest.raises(NoKernel, match=f"cannot serve this minlstm.*{why}"):
        minimal(*arrays, path=other)
    with pytest.raises(NoKernel, match=r"expected one of auto, graph, kernel, .*engine, reference, got 'fast'"):
        minimal(*arrays, path="fast")
    with pytest.raises(NoKernel, match="cell: expected one of minlstm, mingru, got 'lstm'"):
        minimal(*arrays, cell="lstm")


@pytest.mark.parametrize(
    ("index", "replacement", "error", "message"),
    [
        (0, np.zeros((5, 3)), ShapeError, r"x: expected \(T, B, D\) with T > 0, got \(5, 3\)"),
        (0, np.zeros((0, 3, 4)), ShapeError, r"x: expected \(T, B, D\) with T > 0, got \(0, 3, 4\)"),
        (0, np.zeros((5, 3, 4), int), DTypeError, "x: expected float32, float64, float16, bfloat16, got int64"),
        (1, np.zeros((3, 4)), ShapeError, r"h0: expected \(3, 5\) = \(batch, hidden\), got \(3, 4\)"),
        (
            2,
            np.zeros((15, 3)),
            ShapeError,
            r"w_ih: expected \(3 \* hidden, 4\) = \(gates\*hidden, input\), got \(15, 3\)",
        ),
        (2, np.zeros((14, 4)), ShapeError, r"w_ih: expected \(3 \* hidden, 4\)"),
        (
            2,
            np.zeros((15, 4), np.float32),
            DTypeError,
            "w_ih: expected float64, the type of x, got float32; convert one",
        ),
        (3, np.zeros(5), ShapeError, r"b_ih: expected \(15,\) = \(gates\*hidden,\), got \(5,\)"),
    ],
)
def test_bad_arguments_are_named(device, rng, index, replacement, error, message):
    given, _ = arguments(CASES[0], "minlstm", rng)
    given[index] = replacement
    with pytest.raises(error, match=message):
        minimal(*map(device.asarray, given))


def test_chunks_fill_a_gpu_without_a_long_way_between_them():
    threads = 1024 * 132
    sizes = ((1, 1), (100, 64), (5000, 64), (10**5, 1), (10**5, 40), (10**5, 4000), (512, 16_384), (40, 10**6))
    for T, units in sizes:
        chunk = scans.chunk_steps(T, units, threads, 32)
        count = -(-T // chunk)
        assert 1 <= chunk <= T and count <= max(chunk, 1) * 1.1 + 1  # the way through one is the longer
        # Half of the threads have work, or more chunks would be too short to be worth it.
        assert 2 * units * count >= threads or chunk <= max(33, math.isqrt(T)), (T, units)
        assert units * count < 2 * threads or count == 1
    # Several chunks read z twice, so half of the threads will do without.
    assert scans.chunk_steps(512, threads // 2, threads, 32) == 512 > scans.chunk_steps(512, threads // 3, threads, 32)


# -- layers ----------------------------------------
LAYERS = {"minlstm": MinLSTM, "mingru": MinGRU}
STEPS = {"minlstm": MinLSTMCell, "mingru": MinGRUCell}


@pytest.mark.parametrize("cell", CELLS)
def test_parameters_are_named_and_drawn_as_promised(cell):
    layer = LAYERS[cell](4, 25, num_layers=2, bidirectional=True, device="cpu", generator=np.random.default_rng(1))
    rows = CELLS[cell] * 25
    want = {}
    for k, width in ((0, 4), (1, 50)):
        for suffix in ("", "_reverse"):
            want |= {f"weight_ih_l{k}{suffix}": (rows, width), f"bias_ih_l{k}{suffix}": (rows,)}
    assert {name: p.shape for name, p in layer.named_parameters()} == want
    for p in layer.parameters():
        assert 0.15 < np.abs(p.numpy()).max() <= 0.2 and p.dtype == np.float32
    assert dict(LAYERS[cell](2, 3, bias=False, device="cpu").named_parameters()).keys() == {"weight_ih_l0"}
    assert repr(layer) == f"{type(layer).__name__}(4, 25, num_layers=2, bidirectional=True)"
    assert layer.output_size == 50


@pytest.mark.parametrize("cell", CELLS)
def test_a_stack_of_two_directions_is_made_of_sequences(device, cell, rng):
    options: dict[str, Any] = {"device": device.name, "dtype": "float64", "generator": rng}
    layer = LAYERS[cell](3, 4, num_layers=2, bidirectional=True, **options)
    x, h_0, lengths = rng.standard_normal((6, 2, 3)), rng.standard_normal((4, 2, 4)), [6, 2]
    output, h_n = layer(device.asarray(x), device.asarray(h_0), lengths=lengths)
    state = {name: device.to_numpy(value) for name, value in layer.state_dict().items()}
    below, row = x, 0
    for k in range(2):
        beside = []
        for suffix in ("", "_reverse"):
            weights = state[f"weight_ih_l{k}{suffix}"], state[f"bias_ih_l{k}{suffix}"]
            y, h = by_number(cell, below, h_0[row], *weights, lengths, reverse=suffix != "")
            assert_close(h_n.numpy()[row], h)
            beside.append(y)
            row += 1
        below = np.concatenate(beside, axis=2)
    assert_close(output.numpy(), below)


@pytest.mark.parametrize("cell", CELLS)
def test_layouts_agree(device, cell, rng):
    x, h_0 = rng.standard_normal((6, 2, 3)), rng.standard_normal((2, 2, 4))
    options: dict[str, Any] = {"bidirectional": True, "device": device.name, "dtype": "float64"}
    layer = LAYERS[cell](3, 4, **options)
    turned = LAYERS[cell](3, 4, batch_first=True, **options)
    turned.load_state_dict(layer.state_dict())
    output, h_n = layer(device.asarray(x), device.asarray(h_0))
    assert output.shape == (6, 2, 8) and h_n.shape == (2, 2, 4)
    other, other_h = turned(device.asarray(x).transpose(1, 0, 2), device.asarray(h_0))
    assert_close(other.numpy(), output.numpy().transpose(1, 0, 2))
    assert_close(other_h.numpy(), h_n.numpy())
    single, single_h = turned(device.asarray(x[:, 1]), device.asarray(h_0[:, 1]))
    assert_close(single.numpy(), output.numpy()[:, 1])
    assert_close(single_h.numpy(), h_n.numpy()[:, 1])


@pytest.mark.parametrize("cell", CELLS)
def test_steps_equal_the_layer_with_their_gradients(device, cell, rng):
    options: dict[str, Any] = {"device": device.name, "dtype": "float64", "generator": rng}
    layer, step = LAYERS[cell](3, 4, **options), STEPS[cell](3, 4, **options)
    step.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})
    x = [gl.tensor(device.asarray(rng.standard_normal((5, 2, 3))), requires_grad=True) for _ in range(2)]
    x[1].data[...] = x[0].data
    output, _ = layer(x[0])
    h, loss = None, 0.0
    for t in range(5):
        h = step(x[1][t], h)
        assert_close(h.numpy(), output.numpy()[t])
        loss = (h * h).sum() + loss
    loss.backward()
    (output * output).sum().backward()
    assert_close(device.to_numpy(x[1].grad), device.to_numpy(x[0].grad))
    for name, parameter in layer.named_parameters():
        want = dict(step.named_parameters())[name.removesuffix("_l0")].grad
        assert_close(device.to_numpy(want), device.to_numpy(parameter.grad), name=name)
        assert np.abs(device.to_numpy(want)).max() > 1e-3
    assert_close(step(x[1][0].reshape(2, 3)[1]).numpy(), output.numpy()[0, 1])  # a single sequence
    assert repr(step) == f"{type(step).__name__}(3, 4)"


@pytest.mark.parametrize("cell", CELLS)
def test_modes_of_a_layer(device, cell, rng):
    x, mask, reset = rng.standard_normal((6, 2, 3)), rng.random((6, 2)) < 0.7, rng.random((6, 2)) < 0.3
    layer = LAYERS[cell](3, 4, batch_first=True, bidirectional=True, merge="sum", device=device.name, dtype="float64")
    given = device.asarray(x.transpose(1, 0, 2))
    output, _ = layer(given, mask=mask.T, reset=reset.T)
    state = {name: device.to_numpy(value) for name, value in layer.state_dict().items()}
    want = []
    for suffix in ("", "_reverse"):
        weights = state[f"weight_ih_l0{suffix}"], state[f"bias_ih_l0{suffix}"]
        want.append(by_number(cell, x, None, *weights, mask=mask, reset=reset, reverse=suffix != "")[0])
    assert_close(output.numpy(), (want[0] + want[1]).transpose(1, 0, 2))
    for options, message in (
        ({"recompute": True}, "recompute: expected False"),
        ({"regularize": gl.nn.regularize.Zoneout(0.1)}, "expected only VariationalDropout.input=.... for a"),
        ({"regularize": gl.nn.regularize.WeightDrop(0.1)}, "expected only VariationalDropout.input=.... for a"),
        (
            {"regularize": gl.nn.regularize.VariationalDropout(recurrent=0.1)},
            "expected only VariationalDropout.input=.... for a",
        ),
    ):
        with pytest.raises(ShapeError, match=message):
            LAYERS[cell](3, 4, device="cpu", **options)
    with pytest.raises(ShapeError, match="proj_size: expected 0"):
        gl.nn.recurrent.Recurrent(layer.cell, 3, 4, proj_size=2, device="cpu")
    varied = LAYERS[cell](3, 4, regularize=gl.nn.regularize.VariationalDropout(0.5), device=device.name)
    narrow = given.astype(np.float32)
    assert np.abs(varied(narrow)[0].numpy() - varied(narrow)[0].numpy()).max() > 0


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_trace_shows_what_makes_h(device, cell, dtype, rng):
    layer = LAYERS[cell](3, 4, num_layers=2, bidirectional=True, device=device.name, dtype=dtype)
    x = device.asarray(rng.standard_normal((6, 2, 3)), dtype)
    traced, (output, _) = layer.trace(x, lengths=[6, 2]), layer(x, lengths=[6, 2])
    gates = {"minlstm": "fin", "mingru": "zn"}[cell]
    assert set(traced) == {f"{name}_l{k}{s}" for name in (*gates, "h") for k in (0, 1) for s in ("", "_reverse")}
    assert all(values.shape == (6, 2, 4) and values.dtype == dtype for values in traced.values())
    alive = (np.arange(6)[:, None] < np.array([6, 2]))[:, :, None]
    tolerance = {"float64": 1e-12, "float16": 4e-3}[dtype]
    for suffix, before in (("", slice(0, -1)), ("_reverse", slice(1, None))):
        *shares, n, h = (traced[f"{name}_l1{suffix}"].astype(np.float64) for name in (*gates, "h"))
        keep, take = shares if cell == "minlstm" else (1 - shares[0], shares[0])
        after = slice(1, None) if suffix == "" else slice(0, -1)
        want = np.where(alive[after], keep[after] * h[before] + take[after] * n[after], h[before])
        np.testing.assert_allclose(h[after], want, rtol=0, atol=tolerance)
        assert not n[~alive[:, :, 0]].any() and np.abs(n).max() > 0.01
        columns = output.numpy()[:, :, :4] if suffix == "" else output.numpy()[:, :, 4:]
        np.testing.assert_allclose(columns, np.where(alive, h, 0), rtol=0, atol=tolerance)


def test_dropout_acts_between_layers_in_training(device, rng):
    layer = MinGRU(3, 64, num_layers=2, dropout=0.5, device=device.name, generator=rng)
    x = device.asarray(rng.standard_normal((4, 2, 3)), np.float32)
    first, second = layer(x)[0].numpy(), layer(x)[0].numpy()
    assert np.abs(first - second).max() > 1e-3
    layer.eval()
    calm = layer(x)[0].numpy()
    assert (calm == layer(x)[0].numpy()).all()
    plain = MinGRU(3, 64, num_layers=2, device=device.name)
    plain.load_state_dict(layer.state_dict())
    assert (plain(x)[0].numpy() == calm).all()
    with pytest.warns(UserWarning, match="it has no effect, because this MinLSTM has one layer"):
        MinLSTM(3, 4, dropout=0.5, device="cpu")


@pytest.mark.parametrize("cell", CELLS)
def test_bad_arguments_of_layers_are_named(cell):
    layer, step = LAYERS[cell](3, 4, device="cpu"), STEPS[cell](3, 4, device="cpu")
    x = np.zeros((5, 2, 3), np.float32)
    for call, error, message in (
        (lambda: layer(x[..., :2]), ShapeError, "x: expected 3 = input_size in the last axis"),
        (lambda: layer(x[None]), ShapeError, r"x: expected \(T, B, D\), or \(T, D\)"),
        (lambda: layer(x[:0]), ShapeError, "x: expected at least one step"),
        (lambda: layer(x.astype(np.float64)), DTypeError, "x: expected float32, the type of the weights, got float64"),
        (lambda: layer([1.0]), DTypeError, "x: expected an array or a Tensor, got list"),
        (lambda: layer(x, np.zeros((2, 4), np.float32)), ShapeError, r"h_0: expected \(1, 2, 4\) = \(layers\*dir"),
        (
            lambda: layer(x[:, 0], np.zeros((1, 1, 4), np.float32)),
            ShapeError,
            r"h_0: expected \(1, 4\) .* for a single sequence",
        ),
        (lambda: layer(x, lengths=[1, 6]), ShapeError, "lengths: expected 0 <= length <= 5"),
        (lambda: layer(x[:, 0], lengths=[5]), ShapeError, "lengths: expected None with a single sequence"),
        (lambda: LAYERS[cell](0, 4), ShapeError, "input_size: expected an integer above 0, got 0"),
        (lambda: LAYERS[cell](3, 4, bias=1), DTypeError, "bias: expected True or False, got 1"),
        (lambda: step(x), ShapeError, r"x: expected \(B, 3\) or \(3,\)"),
        (lambda: step(x[0], np.zeros((1, 4), np.float32)), ShapeError, r"h: expected \(2, 4\), got \(1, 4\)"),
        (lambda: STEPS[cell](3, 0), ShapeError, "hidden_size: expected an integer above 0"),
    ):
        with pytest.raises(error, match=message):
            call()

"""Optimisers: PyTorch's numbers, the formulas as sums, one launch for all, resuming bit for bit."""

import json
import math
import tracemalloc

import ml_dtypes
import numpy as np
import pytest

from gpulstm import optim
from gpulstm.backend import CPU, CupyBackend
from gpulstm.errors import DeviceError, DTypeError, FormatError, ShapeError, TapeError
from gpulstm.io import load_arrays, save_arrays
from gpulstm.launch import Launcher
from gpulstm.optim import optimizer, table
from gpulstm.tape import Tensor
from tests.tolerances import assert_close, assert_ratio

CHUNK = table.CHUNK
CASES = [
    ("SGD", {}),
    ("SGD", {"lr": 0.05, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.05, "momentum": 0.9}),
    ("SGD", {"lr": 0.05, "momentum": 0.7, "dampening": 0.3, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("Adagrad", {}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.2, "weight_decay": 0.1, "eps": 1e-3}),
    ("Adagrad", {"initial_accumulator_value": 0.5, "eps": 0.1}),
    ("RMSprop", {}),
    ("RMSprop", {"alpha": 0.8, "eps": 1e-3, "weight_decay": 0.1}),
    ("RMSprop", {"alpha": 0.8, "momentum": 0.6}),
    ("RMSprop", {"alpha": 0.8, "eps": 1e-3, "centered": True, "momentum": 0.6, "weight_decay": 0.1}),
    ("Adam", {}),
    ("Adam", {"lr": 0.02, "betas": (0.7, 0.9), "eps": 1e-2, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.02, "betas": (0.3, 0.6), "amsgrad": True}),
    ("Adam", {"lr": 0.02, "betas": (0.0, 0.0)}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.02, "betas": (0.7, 0.9), "eps": 1e-2, "weight_decay": 0.3, "amsgrad": True}),
]  # fmt: skip
IDS = [f"{name} {options}" for name, options in CASES]
STEPS = 20
# No dimension, nothing, one, odd; one less, as many and one more than a block of the kernel serves.
SHAPES = [(), (0,), (1,), (3, 5), (CHUNK - 1,), (2, CHUNK // 2), (CHUNK + 1,), (4, 0, 2)]
SMALL = [(3,), (2, 5)]


def parameters(device, arrays, dtype=np.float64):
    return [Tensor(device.xp.asarray(array.astype(dtype)), requires_grad=True) for array in arrays]


def random_run(shapes, steps=STEPS, seed=0):
    """Starting values, and a gradient for each at every step; the last but one has none at odd steps."""
    rng = np.random.default_rng(seed)
    start = [rng.standard_normal(shape) for shape in shapes]
    grads = [[rng.standard_normal(shape) * rng.choice([0.1, 1, 3]) for shape in shapes] for _ in range(steps)]
    for step in grads[1::2]:
        step[-2] = None
    return [np.asarray(array) for array in start], grads


def give(device, params, grads):
    """Set the gradients of one step."""
    for p, grad in zip(params, grads, strict=True):
        p.grad = None if grad is None else device.xp.asarray(np.asarray(grad).astype(p.data.dtype))


def train(device, name, options, start, grads, dtype=np.float64):
    params = parameters(device, start, dtype)
    optimiser = getattr(optim, name)(params, **options)
    for step in grads:
        give(device, params, step)
        optimiser.step()
    return [device.to_numpy(p.data) for p in params]


def by_definition(name, o, p, grads):
    """Parameter values by the papers' sums over all gradients so far, in float64, as slow as can be."""
    defaults = dict(vars(getattr(optim, name)([Tensor(np.zeros(1), requires_grad=True)]))["defaults"])
    o, seen, updates, largest = {**defaults, **o}, [], [], 0.0
    for g in [g for g in grads if g is not None]:
        if name == "AdamW":
            p = p - o["lr"] * o["weight_decay"] * p
        seen.append(g + (0 if name == "AdamW" else o["weight_decay"]) * p)
        t, g = len(seen), seen[-1]
        if name == "SGD":
            first, rest = seen[0] * o["momentum"] ** (t - 1), list(enumerate(seen, 1))[1:]
            b = first + (1 - o["dampening"]) * sum(o["momentum"] ** (t - s) * x for s, x in rest)
            p = p - o["lr"] * (g + o["momentum"] * b if o["nesterov"] else b)
        elif name == "Adagrad":
            size = np.sqrt(o["initial_accumulator_value"] + sum(x**2 for x in seen)) + o["eps"]
            p = p - o["lr"] / (1 + (t - 1) * o["lr_decay"]) * g / size
        elif name == "RMSprop":
            mean = _average(seen, o["alpha"]) if o["centered"] else 0
            updates.append(g / (np.sqrt(_average([x**2 for x in seen], o["alpha"]) - mean**2) + o["eps"]))
            p = p - o["lr"] * sum(o["momentum"] ** (t - s) * x for s, x in enumerate(updates, 1))
        else:
            m, v = _average(seen, o["betas"][0]), _average([x**2 for x in seen], o["betas"][1])
            largest = np.maximum(largest, v) if o["amsgrad"] else v
            m, v = m / (1 - o["betas"][0] ** t), largest / (1 - o["betas"][1] ** t)
            p = p - o["lr"] * m / (np.sqrt(v) + o["eps"])
    return p


def _average(values, share):
    """The running average that starts at 0: (1 - share) * sum of share^(t - s) x_s."""
    t = len(values)
    return sum((1 - share) * share ** (t - s) * x for s, x in enumerate(values, 1))


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_the_formulas_written_out(device, name, options):
    start, grads = random_run(SHAPES)
    got = train(device, name, options, start, grads)
    for k, (p, array) in enumerate(zip(start, got, strict=True)):
        want = by_definition(name, options, p, [step[k] for step in grads])
        assert_close(array, np.asarray(want), f"parameter {k}", rtol=1e-12)


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_pytorch_gives_the_same_numbers(device, name, options):
    torch = pytest.importorskip("torch")
    start, grads = random_run(SHAPES)
    theirs = [torch.tensor(array, requires_grad=True) for array in start]
    groups = [{"params": theirs[:3], "lr": 0.07}, {"params": theirs[3:], "weight_decay": 0.2}]
    oracle = getattr(torch.optim, name)(groups, **options)
    params = parameters(device, start)
    groups = [{"params": params[:3], "lr": 0.07}, {"params": params[3:], "weight_decay": 0.2}]
    optimiser = getattr(optim, name)(groups, **options)
    for step in grads:
        give(device, params, step)
        for tensor, grad in zip(theirs, step, strict=True):
            tensor.grad = None if grad is None else torch.tensor(grad)
        optimiser.step()
        oracle.step()
    for k, (p, tensor) in enumerate(zip(params, theirs, strict=True)):
        assert_close(p.data, tensor.detach().numpy(), f"parameter {k}", rtol=1e-12)
        for key, array in optimiser.state[k].items():
            if key == "step" and name != "SGD":
                assert array == oracle.state[tensor]["step"]
            elif key != "step":
                assert_close(array, oracle.state[tensor][key].numpy(), f"{key} of parameter {k}", rtol=1e-12)


@pytest.mark.oracle
@pytest.mark.parametrize("name", sorted({name for name, _ in CASES}))
def test_pytorch_has_the_same_options_in_the_same_order(name):
    import inspect

    torch = pytest.importorskip("torch")
    theirs = inspect.signature(getattr(torch.optim, name)).parameters
    ours = inspect.signature(getattr(optim, name)).parameters
    assert list(ours)[1:] == list(theirs)[1 : len(ours)]
    assert [p.default for p in ours.values()] == [p.default for p in list(theirs.values())[: len(ours)]]


def test_the_defaults():
    p = Tensor(np.ones(1), requires_grad=True)
    assert optim.SGD([p]).defaults == {
        "lr": 1e-3, "momentum": 0, "dampening": 0, "weight_decay": 0, "nesterov": False,
    }  # fmt: skip
    assert optim.Adagrad([p]).defaults == {
        "lr": 1e-2, "lr_decay": 0, "weight_decay": 0, "initial_accumulator_value": 0, "eps": 1e-10,
    }  # fmt: skip
    assert optim.RMSprop([p]).defaults == {
        "lr": 1e-2, "alpha": 0.99, "eps": 1e-8, "weight_decay": 0, "momentum": 0, "centered": False,
    }  # fmt: skip
    adam = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "amsgrad": False}
    assert optim.Adam([p]).defaults == adam
    assert optim.AdamW([p]).defaults == {**adam, "weight_decay": 1e-2}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_other_types(device, name, options, dtype):
    """By the ratio rule for float32. Half types: one step, computed in float32 and rounded once."""
    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    start, grads = random_run([(301,), (7,), (3, 5)], steps=STEPS if dtype == np.float32 else 1)
    start = [p.astype(dtype).astype(np.float64) for p in start]
    grads = [[None if g is None else g.astype(dtype).astype(np.float64) for g in step] for step in grads]
    got = train(device, name, options, start, grads, dtype)
    for k, array in enumerate(got):
        mine = [step[k] for step in grads]
        want, plain = by_definition(name, options, start[k], mine), np.float32(start[k])
        plain = by_definition(name, options, plain, [None if g is None else np.float32(g) for g in mine])
        if dtype == np.float32:
            assert_ratio(array, np.float32(plain), want, f"parameter {k}")
        else:
            assert array.dtype == dtype
            half_ulp = np.abs(np.spacing(np.asarray(want, dtype)).astype(np.float64)) / 2
            float32_error = 2e-6 * (1 + np.abs(want))  # may carry a value over a tie, to a neighbour as near
            assert (np.abs(array.astype(np.float64) - want) <= half_ulp + float32_error).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["SGD", "Adagrad", "RMSprop", "Adam", "AdamW"])
def test_half_parameters_have_float32_states(device, name, dtype):
    params = parameters(device, [np.ones(5)], np.dtype(getattr(ml_dtypes, dtype, dtype)))
    optimiser = getattr(optim, name)(params, **({"momentum": 0.9} if name == "SGD" else {}))
    for _ in range(40):
        give(device, params, [np.full(5, 1e-3)])
        optimiser.step()
    (state,) = optimiser.state
    arrays = [value for key, value in state.items() if key != "step"]
    assert arrays and all(array.dtype == np.float32 for array in arrays)
    assert all((device.to_numpy(array) != 0).all() for array in arrays)  # 1e-6 is nothing in float16's sums


@pytest.fixture
def launches(device, monkeypatch):
    """The kernels launched, by name, and "copy" for every array brought to the device."""
    names = []
    call, asarray = Launcher.__call__, CupyBackend.asarray

    def counted(self, file, entry, *args, **kwargs):
        names.append(entry)
        return call(self, file, entry, *args, **kwargs)

    monkeypatch.setattr(Launcher, "__call__", counted)
    monkeypatch.setattr(CupyBackend, "asarray", lambda *args: names.append("copy") or asarray(*args))
    return names


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_thousands_of_parameters_in_one_launch(device, launches, name):
    rng = np.random.default_rng(0)
    start, grads = random_run([(int(n),) for n in rng.integers(0, 9, 1500)] + [(5000,), (3,)], steps=2)
    got = train(device, name, {"lr": 0.1}, start, grads)
    for k, p in enumerate(start):
        want = by_definition(name, {"lr": 0.1}, p, [step[k] for step in grads])
        assert_close(got[k], want, f"parameter {k}", rtol=1e-12)
    assert launches == (["copy", "adam", "copy", "adam"] if device.is_cuda else [])


def test_types_do_not_mix_in_a_launch(device, launches):
    start, grads = random_run(SMALL, steps=1)
    params = parameters(device, start[:1], np.float32) + parameters(device, start[1:], np.float64)
    optimiser = optim.Adam(params, lr=0.1)
    give(device, params, grads[0])
    optimiser.step()
    for p, x, g in zip(params, start, grads[0], strict=True):
        assert_close(p.data, by_definition("Adam", {"lr": 0.1}, x, [g]).astype(p.data.dtype))
    assert launches == (["copy", "adam", "copy", "adam"] if device.is_cuda else [])


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_nothing_else_is_written(device, name, options):
    """The gradient stays, and so does what lies beside the parameter and its state in memory."""
    n = table.CHUNK + 7
    around = device.xp.full((n + 600,), 7.0)
    p = Tensor(around[300:-300], requires_grad=True)
    grad = device.asarray(np.linspace(-1, 1, n))
    p.grad = grad.copy()
    optimiser = getattr(optim, name)([p], **options)
    optimiser.step()
    around_state = {}
    for key, value in optimiser.state[0].items():
        if key != "step":
            around_state[key] = device.xp.full((n + 600,), 7.0)
            around_state[key][300:-300] = value
            optimiser.state[0][key] = around_state[key][300:-300]
    before = device.to_numpy(p.data).copy()
    optimiser.step()
    np.testing.assert_array_equal(device.to_numpy(p.grad), device.to_numpy(grad))
    assert (device.to_numpy(p.data) != before).mean() > 0.99
    for array in (around, *around_state.values()):
        whole = device.to_numpy(array)
        assert (whole[:300] == 7).all() and (whole[-300:] == 7).all()


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_arrays_need_not_be_contiguous(device, name, options):
    start, grads = random_run([(6, 8), (5, 4), (4, 3)], steps=4)
    want = train(device, name, options, start, grads)
    wide = device.asarray(np.repeat(start[0], 2, axis=1))
    params = [Tensor(wide[:, ::2], requires_grad=True), *parameters(device, start[1:])]
    params[1].data = device.asarray(np.ascontiguousarray(start[1].T)).T
    optimiser = getattr(optim, name)(params, **options)
    for step in grads:
        give(device, params, step)
        params[2].grad = device.asarray(np.ascontiguousarray(step[2].T)).T
        optimiser.step()
    for p, array in zip(params, want, strict=True):
        np.testing.assert_array_equal(device.to_numpy(p.data), array)
    np.testing.assert_array_equal(device.to_numpy(wide[:, 1::2]), start[0])


@pytest.mark.parametrize("n", [optimizer.CHUNK - 1, optimizer.CHUNK, 2 * optimizer.CHUNK + 3])
def test_a_parameter_cut_in_chunks_is_updated_whole(n):
    start, grads = random_run([(n,), (1,), (2,)], steps=2)
    for name, options in CASES:
        want = by_definition(name, options, start[0], [step[0] for step in grads])
        assert_close(train(CPU, name, options, start, grads)[0], want, f"{name} {options}", rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_a_step_in_numpy_takes_no_large_memory(name, options, dtype):
    p = Tensor(np.ones((1000, 1000), dtype), requires_grad=True)
    p.grad = np.full((1000, 1000), 0.5, dtype)
    optimiser = getattr(optim, name)([p], **options)
    optimiser.step()
    tracemalloc.start()
    optimiser.step()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 600_000  # bytes; the parameter itself has 4,000,000


def to_file(path, state_dict):
    """Write an optimiser's state as a checkpoint would: arrays to safetensors, the rest to its header."""
    arrays = {}

    def packed(tree, name):
        if isinstance(tree, dict):
            return {key: packed(value, f"{name}/{key}") for key, value in tree.items()}
        if hasattr(tree, "dtype"):
            arrays[name] = tree
            return name
        return tree

    tree = json.dumps(packed(state_dict, ""))
    save_arrays(path, arrays, {"tree": tree})


def from_file(path):
    arrays, metadata = load_arrays(path)

    def unpacked(tree):
        if isinstance(tree, dict):
            return {key: unpacked(value) for key, value in tree.items()}
        return arrays[tree] if isinstance(tree, str) else tree

    return unpacked(json.loads(metadata["tree"]))


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_resuming_gives_the_same_bits(device, tmp_path, name, options, dtype):
    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    start, grads = random_run(SHAPES, steps=8)
    want = train(device, name, options, start, grads, dtype)
    half = train(device, name, options, start, grads[:5], dtype)
    params = parameters(device, start, dtype)
    first = getattr(optim, name)(params, **options)
    for step in grads[:5]:
        give(device, params, step)
        first.step()
    to_file(tmp_path / "state", first.state_dict())
    params = parameters(device, half, dtype)
    resumed = getattr(optim, name)(params, lr=123.0)  # the saved options count
    resumed.load_state_dict(from_file(tmp_path / "state"))
    for step in grads[5:]:
        give(device, params, step)
        resumed.step()
    for p, array in zip(params, want, strict=True):
        assert device.to_numpy(p.data).tobytes() == array.tobytes()


def test_a_loaded_state_is_a_copy(device):
    params = parameters(device, [np.ones(3)])
    one, other = optim.Adam(params), optim.Adam(params)
    give(device, params, [np.ones(3)])
    one.step()
    saved = one.state_dict()
    kept = device.to_numpy(saved["state"][0]["exp_avg"]).copy()
    other.load_state_dict(saved)
    other.step()
    np.testing.assert_array_equal(device.to_numpy(one.state[0]["exp_avg"]), kept)
    assert one.state[0]["step"] == 1 and other.state[0]["step"] == 2


def test_an_optimiser_without_a_step_can_be_saved(device, tmp_path):
    params = parameters(device, [np.ones(3)])
    to_file(tmp_path / "state", optim.Adam(params, lr=0.5).state_dict())
    fresh = optim.Adam(params)
    fresh.load_state_dict(from_file(tmp_path / "state"))
    assert fresh.lr == 0.5 and fresh.state == [{}]


def test_groups_and_the_learning_rate(device):
    params = parameters(device, [np.ones(2), np.ones(2), np.ones(2)])
    optimiser = optim.SGD([{"params": params[0], "lr": 1.0}, {"params": params[1:2]}], lr=0.5)
    optimiser.add_param_group({"params": [params[2]], "weight_decay": 1.0})
    assert optimiser.lr == 1.0
    assert [group["params"] for group in optimiser.state_dict()["param_groups"]] == [[0], [1], [2]]
    give(device, params, [np.ones(2)] * 3)
    optimiser.step()
    assert [float(p.data[0]) for p in params] == [0.0, 0.5, 0.0]
    optimiser.lr = 0.25
    optimiser.step()
    assert [float(p.data[0]) for p in params] == [-0.25, 0.25, -0.25]
    optimiser.zero_grad()
    assert all(p.grad is None for p in params)
    optimiser.step()
    assert [float(p.data[0]) for p in params] == [-0.25, 0.25, -0.25]


@pytest.mark.parametrize(
    ("name", "options", "want"),
    [
        ("SGD", {"momentum": 0.5, "dampening": 0.25}, {"momentum_buffer": 0.5 * 2 + 0.75 * -4}),
        ("Adagrad", {"initial_accumulator_value": 1.0}, {"sum": 1.0 + 4 + 16}),
        (
            "RMSprop",
            {"alpha": 0.5, "centered": True},
            {"square_avg": 0.5 * 2 + 0.5 * 16, "grad_avg": 0.5 * 1 - 0.5 * 4},
        ),
        ("Adam", {"betas": (0.5, 0.75)}, {"exp_avg": 0.5 * 1 - 0.5 * 4, "exp_avg_sq": 0.75 * 1 + 0.25 * 16}),
        ("Adam", {"betas": (0.5, 0.0), "amsgrad": True}, {"exp_avg_sq": 16.0, "max_exp_avg_sq": 16.0}),
    ],
)
def test_states_by_hand(device, name, options, want):
    params = parameters(device, [np.ones(1)])
    optimiser = getattr(optim, name)(params, **options)
    for gradient in (2.0, -4.0):
        give(device, params, [np.array([gradient])])
        optimiser.step()
    assert optimiser.state[0]["step"] == 2
    assert {key: float(optimiser.state[0][key][0]) for key in want} == want


def test_equal_gradients_do_not_break_centered_rmsprop(device):
    params = parameters(device, [np.ones(9)], np.float32)
    optimiser = optim.RMSprop(params, alpha=0.5, centered=True)
    for _ in range(60):
        give(device, params, [np.linspace(0.1, 0.9, 9)])
        optimiser.step()
    assert np.isfinite(device.to_numpy(params[0].data)).all()


def test_gradients_that_are_not_finite_spread_without_a_warning(device):
    params = parameters(device, [np.ones(3)], np.float32)
    optimiser = optim.Adam(params)
    give(device, params, [np.array([np.nan, 1e30, np.inf])])
    optimiser.step()
    np.testing.assert_array_equal(np.isnan(device.to_numpy(params[0].data)), [True, False, True])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("SGD", {"lr": -1.0}, "lr: expected a number from 0 up, got -1.0"),
        ("Adam", {"lr": float("nan")}, "lr: expected a number from 0 up, got nan"),
        ("Adam", {"lr": "fast"}, "lr: expected a number from 0 up, got 'fast'"),
        ("SGD", {"momentum": -0.1}, "momentum: expected"),
        ("SGD", {"nesterov": True}, "nesterov: expected a momentum above 0"),
        ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "nesterov: expected .* dampening 0.1"),
        ("Adagrad", {"lr_decay": -1}, "lr_decay: expected"),
        ("Adagrad", {"initial_accumulator_value": -1}, "initial_accumulator_value: expected"),
        ("RMSprop", {"alpha": 1.0}, "alpha: expected a number from 0 to below 1, got 1.0"),
        ("RMSprop", {"eps": -1e-8}, "eps: expected"),
        ("Adam", {"betas": (1.0, 0.9)}, r"betas\[0\]: expected a number from 0 to below 1, got 1.0"),
        ("AdamW", {"betas": (0.9, -0.1)}, r"betas\[1\]: expected a number from 0 to below 1, got -0.1"),
        ("Adam", {"betas": 0.9}, "betas: expected two numbers, got 0.9"),
        ("AdamW", {"weight_decay": -1}, "weight_decay: expected"),
        ("SGD", {"lr": True}, "lr: expected a number from 0 up, got True"),
        ("SGD", {"lr": None}, "lr: expected a number from 0 up, got None"),
        ("SGD", {"lr": [0.1]}, "lr: expected a number from 0 up"),
        ("SGD", {"lr": np.complex64(1)}, "lr: expected a number from 0 up"),
    ],
)
def test_options_out_of_range(name, options, message):
    p = Tensor(np.ones(2), requires_grad=True)
    with pytest.raises(ShapeError, match=message):
        getattr(optim, name)([p], **options)
    good = getattr(optim, name)([p])
    state_dict = good.state_dict()
    state_dict["param_groups"][0].update(options)
    with pytest.raises(ShapeError, match=message):
        good.load_state_dict(state_dict)
    with pytest.raises(ShapeError, match=message):
        good.add_param_group({"params": [Tensor(np.ones(2), requires_grad=True)], **options})


def test_parameters_that_are_none(device):
    (p,) = parameters(device, [np.ones(2)])
    with pytest.raises(ShapeError, match="parameters: expected at least one, got none"):
        optim.Adam(iter([]))
    with pytest.raises(ShapeError, match=r"parameter 1: expected every Parameter once, got one of shape \(2,\)"):
        optim.Adam([p, p])
    with pytest.raises(ShapeError, match="parameter 0: expected every Parameter once"):
        optim.Adam([{"params": [p]}, {"params": [p]}])
    with pytest.raises(DTypeError, match="parameter 0: expected a Parameter, got ndarray"):
        optim.Adam([p.data])
    with pytest.raises(TapeError, match="parameter 1: expected a Parameter, got the result of an operation"):
        optim.Adam([p, p * 2])
    for given in (p, object()):
        with pytest.raises(DTypeError, match=r"parameters: expected a list of Parameters or of groups, e.g. .*, got"):
            optim.Adam(given)
    with pytest.raises(DTypeError, match="parameter group: expected a dict with 'params', got"):
        optim.Adam([{"params": [p]}, p])
    with pytest.raises(DTypeError, match="parameter group: expected a dict with 'params', got dict"):
        optim.Adam([{"lr": 1}])
    with pytest.raises(ShapeError, match=r"options: expected some of lr, betas, .*, got learning_rate"):
        optim.Adam([{"params": [p], "learning_rate": 1}])


def test_gradients_that_do_not_fit_change_nothing(device):
    params = parameters(device, [np.ones(3), np.ones((2, 2))])
    optimiser = optim.Adam(params)
    for bad, error, message in (
        (np.ones((3, 2)), ShapeError, r"gradient of parameter 1: expected \(2, 2\), got \(3, 2\)"),
        (np.ones((2, 2), np.float32), DTypeError, "gradient of parameter 1: expected float64, got float32"),
    ):
        params[0].grad, params[1]._grad = device.asarray(np.ones(3)), device.asarray(bad)
        with pytest.raises(error, match=message):
            optimiser.step()
    np.testing.assert_array_equal(device.to_numpy(params[0].data), np.ones(3))
    assert optimiser.state == [{}, {}]


def test_a_parameter_that_changed_its_type_or_device(emulated):
    from gpulstm import backend

    (p,) = params = parameters(backend.CPU, [np.ones(3)], np.float32)
    optimiser = optim.Adam(params)
    give(backend.CPU, params, [np.ones(3)])
    optimiser.step()
    p.data, p.grad = p.data.astype(np.float64), p.grad.astype(np.float64)
    with pytest.raises(DTypeError, match="exp_avg of parameter 0: expected float64, got float32; convert"):
        optimiser.step()
    gpu = backend.device("cuda").backend
    p.data, p.grad = gpu.asarray(np.ones(3, np.float32)), gpu.asarray(np.ones(3, np.float32))
    with pytest.raises(
        DeviceError, match="exp_avg of parameter 0: expected cuda:0, the device of the parameter, got cpu"
    ):
        optimiser.step()
    optimiser.load_state_dict(optimiser.state_dict())  # as the message says
    optimiser.step()


def test_states_that_do_not_fit_change_nothing(device):
    params = parameters(device, [np.ones(3), np.ones((2, 2))])
    optimiser = optim.Adam(params)
    give(device, params, [np.ones(3), np.ones((2, 2))])
    optimiser.step()

    def saved():
        state_dict = optimiser.state_dict()
        return {**state_dict, "state": {k: dict(state) for k, state in state_dict["state"].items()}}

    faults = [
        (lambda d: d.pop("state"), FormatError, "expected the result of state_dict"),
        (lambda d: d["param_groups"].pop(), FormatError, r"expected groups of \[2\] parameters, got \[\]"),
        (
            lambda d: d["param_groups"][0].update(params=[0]),
            FormatError,
            r"expected groups of \[2\] .*, got \[1\]",
        ),
        (lambda d: d["param_groups"][0].pop("eps"), FormatError, "expected the options"),
        (lambda d: d["param_groups"][0].update(gamma=1), FormatError, "expected the options"),
        (lambda d: d["state"].update({2: d["state"][1]}), FormatError, "expected parameters 0 to 1, got"),
        (lambda d: d["state"].update({-1: d["state"][1]}), FormatError, "expected parameters 0 to 1, got"),
        (lambda d: d["state"][1].pop("exp_avg"), FormatError, "state of parameter 1: expected"),
        (lambda d: d["state"][1].update(exp_avg=np.ones(4)), ShapeError, r"exp_avg of parameter 1: expected"),
        (lambda d: d["state"][1].update(exp_avg="zeros"), DTypeError, r"exp_avg of parameter 1: expected"),
        (
            lambda d: d["state"][1].update(exp_avg=np.ones((2, 2), complex)),
            DTypeError,
            "exp_avg of parameter 1: expected",
        ),
        (lambda d: d["state"][1].update(mu_product=np.ones((2, 2))), FormatError, "state of parameter 1: expected"),
        (lambda d: d["state"][1].update(step=-1), FormatError, "step of parameter 1: expected a whole number"),
        (lambda d: d["state"][1].update(step=1.5), FormatError, "step of parameter 1: expected a whole number"),
        (lambda d: d["state"][1].update(step=math.nan), FormatError, "step of parameter 1: expected a whole number"),
        (lambda d: d["state"][1].update(step=True), FormatError, "step of parameter 1: expected a whole number"),
        (lambda d: d["state"][1].update(step=np.ones(2)), FormatError, "step of parameter 1: expected a whole number"),
        (lambda d: d["state"][1].pop("step"), FormatError, "state of parameter 1: expected"),
    ]
    for spoil, error, message in faults:
        state_dict = saved()
        state_dict["param_groups"][0]["lr"] = 9.0
        spoil(state_dict)
        with pytest.raises(error, match=message):
            optimiser.load_state_dict(state_dict)
        assert optimiser.lr == 1e-3
    optimiser.load_state_dict(saved())

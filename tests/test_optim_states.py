"""States of PyTorch's optimisers go on here; what an optimiser is shown as; what its parameters must be."""

import numpy as np
import pytest

import gpulstm as gl
from gpulstm import optim
from gpulstm.errors import DTypeError, FormatError, GpulstmError, ShapeError
from tests.test_optim import CASES, IDS, SHAPES, give, parameters, random_run
from tests.tolerances import assert_close


def their_run(torch, name, options, start, grads, dtype):
    """Their parameters and their optimiser after some steps."""
    params = [torch.nn.Parameter(torch.tensor(array, dtype=dtype)) for array in start]
    optimiser = getattr(torch.optim, name)(params, **options)
    their_steps(torch, params, optimiser, grads)
    return params, optimiser


def their_steps(torch, params, optimiser, grads):
    for step in grads:
        for p, grad in zip(params, step, strict=True):
            p.grad = None if grad is None else torch.tensor(grad, dtype=p.dtype)
        optimiser.step()


@pytest.mark.oracle
@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_a_state_of_pytorch_goes_on(device, tmp_path, name, options, steps):
    torch = pytest.importorskip("torch")
    start, grads = random_run(SHAPES[:5], steps=6)
    theirs, their_optimiser = their_run(torch, name, options, start, grads[:steps], torch.float64)
    torch.save(their_optimiser.state_dict(), tmp_path / "state.pt")
    runs = []
    for state in (their_optimiser.state_dict(), gl.io.torch.load(tmp_path / "state.pt")):
        params = parameters(device, [p.detach().numpy() for p in theirs])
        optimiser = getattr(optim, name)(params, lr=123.0)  # the saved options count
        optimiser.load_state_dict(state)
        runs.append((params, optimiser))
    their_steps(torch, theirs, their_optimiser, grads[steps:])
    for params, optimiser in runs:
        for step in grads[steps:]:
            give(device, params, step)
            optimiser.step()
        for p, want in zip(params, theirs, strict=True):
            assert_close(device.to_numpy(p.data), want.detach().numpy(), f"{name} {options}", rtol=1e-9)


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("LSTM", {"num_layers": 2, "bidirectional": True, "proj_size": 2}),
        ("GRU", {"num_layers": 2, "bias": False}),
        ("RNN", {"bidirectional": True}),
    ],
)
def test_parameters_stand_in_pytorchs_order(kind, options):
    torch = pytest.importorskip("torch")
    theirs, ours = getattr(torch.nn, kind)(3, 4, **options), getattr(gl, kind)(3, 4, **options)
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]


@pytest.mark.oracle
def test_options_of_pytorch():
    torch = pytest.importorskip("torch")

    def theirs(name, **options):
        return getattr(torch.optim, name)([torch.nn.Parameter(torch.ones(2))], **options)

    def load(name, optimiser):
        ours = getattr(optim, name)([gl.Parameter(np.ones(2, np.float32))])
        ours.load_state_dict(optimiser.state_dict())
        return ours

    for options in ({"foreach": True}, {"fused": True}, {"differentiable": True}, {"capturable": True}):
        assert load("Adam", theirs("Adam", lr=0.25, **options)).lr == 0.25
    scheduled = theirs("SGD", lr=0.5)
    torch.optim.lr_scheduler.StepLR(scheduled, 3)
    assert load("SGD", scheduled).lr == 0.5
    with_names = torch.optim.SGD(torch.nn.Linear(1, 1).named_parameters())
    optim.SGD(gl.Linear(1, 1).parameters()).load_state_dict(with_names.state_dict())
    assert load("Adam", theirs("Adam", lr=torch.tensor(0.25))).lr == 0.25
    assert type(load("Adam", theirs("Adam", lr=torch.tensor(0.25))).lr) is float

    for name in ("SGD", "Adagrad", "RMSprop", "Adam", "AdamW"):
        with pytest.raises(FormatError, match=f"maximize: expected False, which is all that {name} supports, got True"):
            load(name, theirs(name, maximize=True))
    for name, other, want in (("Adam", "AdamW", False), ("AdamW", "Adam", True)):
        with pytest.raises(
            FormatError, match=f"decoupled_weight_decay: expected {want}, .* {name} supports, got {not want}"
        ):
            load(name, theirs(other))
    for name, other in (("Adam", "SGD"), ("SGD", "RMSprop"), ("Adam", "NAdam"), ("Adagrad", "Adadelta")):
        with pytest.raises(FormatError, match=r"expected the options .*; is it another optimiser's\?"):
            load(name, theirs(other))


@pytest.mark.oracle
def test_a_half_type_of_pytorch():
    torch = pytest.importorskip("torch")
    p = torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    theirs = torch.optim.Adam([p])
    p.grad = torch.ones(2, dtype=torch.bfloat16)
    theirs.step()
    ours = optim.Adam([gl.Parameter(np.ones(2, np.float32))])
    ours.load_state_dict(theirs.state_dict())
    assert ours.state[0]["exp_avg"].dtype == np.float32
    np.testing.assert_allclose(ours.state[0]["exp_avg"], 0.1, rtol=1e-2)


def test_states_of_older_versions():
    """SGD kept None for a buffer that it did not use; steps were integers; some options were not there yet."""
    ours = optim.SGD([gl.Parameter(np.ones(2))])
    group = {"lr": 0.5, "momentum": 0, "dampening": 0, "weight_decay": 0, "nesterov": False, "params": [0]}
    ours.load_state_dict({"state": {0: {"momentum_buffer": None}}, "param_groups": [group]})
    assert ours.lr == 0.5 and ours.state == [{}]
    ours = optim.Adam([gl.Parameter(np.ones(2))])
    group = {"lr": 0.5, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "amsgrad": False, "params": [0]}
    state = {"step": 7, "exp_avg": np.ones(2), "exp_avg_sq": np.ones(2)}
    ours.load_state_dict({"state": {0: state}, "param_groups": [group]})
    assert ours.state[0]["step"] == 7


# -- what is shown -------------------------------------------------------------------------------------------


def test_reprs():
    p, q = gl.Parameter(np.ones(2)), gl.Parameter(np.ones(2))
    optimiser = optim.SGD([{"params": [p]}, {"params": [q], "lr": 0.5}], momentum=0.9)
    shared = "    momentum: 0.9\n    nesterov: False\n    weight_decay: 0.0\n"
    assert repr(optimiser) == (
        f"SGD (\nParameter Group 0\n    dampening: 0.0\n    lr: 0.001\n{shared}"
        f"Parameter Group 1\n    dampening: 0.0\n    lr: 0.5\n{shared})"
    )


# -- parameters ----------------------------------------------------------------------------------------------


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (gl.Linear(2, 3), DTypeError, "parameters: expected a list of Parameters .* got Linear"),
        (gl.Sequential(gl.Linear(2, 3)), DTypeError, "parameters: expected a list of Parameters .* got Sequential"),
        ("weight", DTypeError, "parameters: expected a list of Parameters .* got str"),
        (None, DTypeError, "parameters: expected a list of Parameters .* got NoneType"),
        (3, DTypeError, "parameters: expected a list of Parameters .* got int"),
        (np.ones(3), DTypeError, "parameter 0: expected a Parameter, got float64"),
        (list(gl.Linear(2, 3).named_parameters()), DTypeError, "parameter 0: expected a Parameter, got tuple"),
        ([gl.Tensor(np.ones(2, int))], DTypeError, "parameter 0: expected float32, .*, got int64"),
        ([gl.Tensor(read_only(np.ones(2)))], DTypeError, "parameter 0: expected a writable array"),
        ([{"params": None}], DTypeError, "params: expected a list of Parameters, .* got NoneType"),
        ([{"params": "weight"}], DTypeError, "params: expected a list of Parameters, .* got str"),
        ([{"params": gl.Linear(2, 3)}], DTypeError, "params: expected a list of Parameters, .* got Linear"),
    ],
)
def test_parameters_refused(given, error, message):
    for make in (optim.SGD, optim.Adam):
        with pytest.raises(error, match=f"^{message}"):
            make(given)


def test_a_step_changes_all_or_nothing():
    one, two = gl.Parameter(np.ones(2)), gl.Parameter(np.ones(2))
    optimiser = optim.SGD([one, two], lr=1.0)
    for bad, message in (
        ([1.0, 1.0], "grad: expected a NumPy or CuPy array, got list"),
        (gl.Tensor(np.ones(2)), "grad: expected a raw array, got a Tensor"),
        (1.0, "grad: expected an array, got float"),
        (np.ones(2, np.float32), "grad: expected float64, the tensor's type, got float32"),
    ):
        with pytest.raises(GpulstmError, match=f"^{message}"):
            two.grad = bad
    one.grad = two.grad = np.ones(2)
    two.data, two.grad = read_only(two.data), np.ones(2)
    with pytest.raises(DTypeError, match=r"^parameter 1: expected a writable array, got a read-only one"):
        optimiser.step()
    two.data = two.data.copy()
    optimiser.param_groups[0]["lr"] = "fast"
    with pytest.raises(ShapeError, match=r"^lr: expected a number from 0 up, got 'fast'"):
        optimiser.step()
    with pytest.raises(ShapeError, match=r"^lr: expected a number from 0 up, got nan"):
        optimiser.lr = float("nan")
    np.testing.assert_array_equal([one.data, two.data], np.ones((2, 2)))
    optimiser.lr = np.float32(0.5)
    optimiser.step()
    np.testing.assert_array_equal([one.data, two.data], np.full((2, 2), 0.5))

"""Schedules: their formulas, PyTorch's numbers, and going on from a saved state."""

import json
import math

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import DTypeError, FormatError, ShapeError
from gpulstm.optim import SGD
from gpulstm.schedules import ConstantLR, CosineWarmup, ReduceLROnPlateau, StepLR
from gpulstm.tape import Tensor

LRS = (0.5, 0.02)
STEPS = 25
SCHEDULES = [
    (ConstantLR, {}),
    (ConstantLR, {"factor": 0.5, "total_iters": 3}),
    (ConstantLR, {"factor": 1}),
    (StepLR, {"step_size": 3, "gamma": 0}),
    (StepLR, {"step_size": 4}),
    (StepLR, {"step_size": 1, "gamma": 0.9}),
    (CosineWarmup, {"warmup_steps": 5, "total_steps": 20, "min_lr": 0.01}),
    (CosineWarmup, {"warmup_steps": 0, "total_steps": 21}),
]
METRICS = [5, 4, 4, 4, 3.9999, 3, 3.2, 3.1, math.nan, 3.3, 2, *[2.1] * 6, 1.99, *[5] * 4]
PLATEAUS = [
    {},
    {"patience": 1},
    {"patience": 0, "factor": 0.5, "min_lr": 0.1},
    {"patience": 1, "cooldown": 2, "factor": 0.3},
    {"patience": 2, "threshold": 0.3},
    {"patience": 1, "threshold": 0.15, "threshold_mode": "abs"},
    {"patience": 1, "mode": "max", "factor": 0.7},
    {"patience": 1, "mode": "max", "threshold_mode": "abs", "threshold": 0.5},
    {"patience": 0, "factor": 0.2, "eps": 0.005},
    {"patience": 0, "threshold": 0},
    {"patience": 0, "threshold": 0, "mode": "max"},
]


def optimiser():
    params = [Tensor(np.ones(1), requires_grad=True) for _ in LRS]
    return SGD([{"params": p, "lr": lr} for p, lr in zip(params, LRS, strict=True)])


def lrs(opt):
    return [group["lr"] for group in opt.param_groups]


def run(schedule, steps):
    """The rates in force at each step from here on."""
    seen = []
    for _ in range(steps):
        seen.append(lrs(schedule.optimizer))
        schedule.step()
    return np.array(seen)


def formula(kind, options, base, k):
    if kind is ConstantLR:
        return base * (options.get("factor", 1 / 3) if k < options.get("total_iters", 5) else 1)
    if kind is StepLR:
        for _ in range(k // options["step_size"]):
            base *= options.get("gamma", 0.1)
        return base
    W, N, low = options["warmup_steps"], options["total_steps"], options.get("min_lr", 0.0)
    if k < W:
        return base * (k + 1) / (W + 1)
    return low + (base - low) * math.cos(math.pi / 2 * min(1, (k - W) / (N - W))) ** 2


@pytest.mark.parametrize(("kind", "options"), SCHEDULES)
def test_the_formula(kind, options):
    want = [[formula(kind, options, base, k) for base in LRS] for k in range(STEPS)]
    np.testing.assert_allclose(run(kind(optimiser(), **options), STEPS), want, rtol=1e-13, atol=1e-16)


def test_a_cosine_with_warm_up_by_its_corners():
    seen = run(CosineWarmup(optimiser(), warmup_steps=4, total_steps=10, min_lr=0.01), 13)[:, 0]
    assert seen[0] == pytest.approx(0.1) and seen[3] == pytest.approx(0.4)
    assert seen[4] == seen.max() == 0.5
    assert seen[7] == pytest.approx((0.5 + 0.01) / 2)  # half way down
    assert (np.diff(seen[:5]) > 0).all() and (np.diff(seen[4:11]) < 0).all()
    assert (seen[10:] == 0.01).all()


@pytest.mark.oracle
@pytest.mark.parametrize(("kind", "options"), SCHEDULES)
def test_pytorch_gives_the_same_numbers(kind, options):
    torch = pytest.importorskip("torch")
    params = [torch.ones(1, requires_grad=True) for _ in LRS]
    oracle = torch.optim.SGD([{"params": [p], "lr": lr} for p, lr in zip(params, LRS, strict=True)])
    scheduler = torch.optim.lr_scheduler
    if kind is CosineWarmup:
        shares = [lambda k, base=base: formula(kind, options, base, k) / base for base in LRS]
        theirs = scheduler.LambdaLR(oracle, shares)
    else:
        theirs = getattr(scheduler, kind.__name__)(oracle, **options)
    want = []
    for _ in range(STEPS):
        want.append(lrs(oracle))
        oracle.step()
        theirs.step()
    np.testing.assert_allclose(run(kind(optimiser(), **options), STEPS), want, rtol=1e-12, atol=1e-16)


@pytest.mark.oracle
@pytest.mark.parametrize("options", PLATEAUS, ids=str)
def test_pytorch_reduces_at_the_same_metrics(options):
    torch = pytest.importorskip("torch")
    params = [torch.ones(1, requires_grad=True) for _ in LRS]
    oracle = torch.optim.SGD([{"params": [p], "lr": lr} for p, lr in zip(params, LRS, strict=True)])
    theirs, opt = torch.optim.lr_scheduler.ReduceLROnPlateau(oracle, **options), optimiser()
    mine = ReduceLROnPlateau(opt, **options)
    for metric in METRICS:
        theirs.step(metric)
        mine.step(metric)
        assert lrs(opt) == lrs(oracle)


@pytest.mark.parametrize(
    ("options", "metrics", "reductions"),
    [
        ({"patience": 1}, [3, 3, 3, 3, 3], [2, 4]),  # after the metrics of these numbers
        ({"patience": 0}, [3, 2, 1, 2, 1], [3, 4]),
        ({"patience": 0, "cooldown": 2}, [1, 1, 1, 1, 1, 1, 1, 1], [1, 4, 7]),
        ({"patience": 0, "threshold": 0.5}, [8, 5, 3.9, 3, 1.9], [1, 3]),
        ({"patience": 0, "threshold": 2.0, "threshold_mode": "abs"}, [8, 7, 5, 4], [1, 3]),
        ({"patience": 0, "mode": "max", "threshold": 0.5}, [1, 1.4, 1.6, 2.5], [1]),
        ({"patience": 0, "mode": "max", "threshold": 0.5, "threshold_mode": "abs"}, [-1, -0.6, -0.4], [1]),
        ({"patience": 0, "threshold": 0}, [3, 3, 2.9, 2.9], [1, 3]),  # an equal metric is no better
        ({"patience": 0, "threshold": 0, "mode": "max"}, [3, 3, 3.1, 3.1], [1, 3]),
        ({"patience": 1}, [math.nan, math.nan, 1, math.nan, math.nan], [1, 4]),
        ({"patience": 0, "min_lr": 0.002}, [1, 1, 1, 1], [1, 2]),
        ({"patience": 0, "eps": 0.005}, [1, 1, 1, 1], [1]),
    ],
)
def test_a_plateau(options, metrics, reductions):
    opt = SGD([Tensor(np.ones(1), requires_grad=True)], lr=0.05)
    schedule, before, found = ReduceLROnPlateau(opt, **options), 0.05, []
    for number, metric in enumerate(metrics):
        schedule.step(np.float32(metric))
        if opt.lr != before:
            assert opt.lr == max(before * 0.1, options.get("min_lr", 0))
            before = opt.lr
            found.append(number)
    assert found == reductions


def test_the_edges_of_the_options():
    """What is just in range: a change by eps is too small, min_lr may be the rate itself, a factor may be 0."""
    opt = SGD([Tensor(np.ones(1), requires_grad=True)], lr=0.5)
    for eps, want in ((0.25, 0.5), (0.249, 0.25)):
        schedule = ReduceLROnPlateau(opt, patience=0, factor=0.5, eps=eps)
        schedule.step(1.0)
        schedule.step(1.0)
        assert opt.lr == want
    assert run(CosineWarmup(opt, 0, 3, min_lr=0.25), 5).tolist() == [[0.25]] * 5
    schedule = ReduceLROnPlateau(opt, patience=0, factor=0)
    schedule.step(1.0)
    schedule.step(1.0)
    assert opt.lr == 0
    opt.lr = 0.5
    assert run(ConstantLR(opt, factor=0, total_iters=1), 2).tolist() == [[0.0], [0.5]]


def test_groups_added_after_the_schedule():
    opt = optimiser()
    schedule = StepLR(opt, 2)
    opt.add_param_group({"params": [Tensor(np.ones(1), requires_grad=True)]})
    with pytest.raises(ShapeError, match="groups: expected 2, as at the schedule's start, got 3"):
        schedule.step()


@pytest.mark.parametrize("stop", [0, 1, 7])
@pytest.mark.parametrize(("kind", "options"), SCHEDULES)
def test_going_on_from_a_saved_state(kind, options, stop):
    want = run(kind(optimiser(), **options), STEPS)
    first = kind(optimiser(), **options)
    run(first, stop)
    saved = json.loads(json.dumps(first.state_dict()))
    opt = optimiser()
    opt.lr = 99.0
    resumed = kind(opt, **options)
    resumed.load_state_dict(saved)
    assert run(resumed, STEPS - stop).tobytes() == want[stop:].tobytes()


@pytest.mark.parametrize("stop", range(0, len(METRICS), 3))
@pytest.mark.parametrize("options", PLATEAUS, ids=str)
def test_a_plateau_goes_on_from_a_saved_state(options, stop):
    whole, opt = [], optimiser()
    schedule = ReduceLROnPlateau(opt, **options)
    for number, metric in enumerate(METRICS):
        if number == stop:
            saved = json.loads(json.dumps([schedule.state_dict(), opt.state_dict()]))
        schedule.step(metric)
        whole.append(lrs(opt))
    opt = optimiser()
    schedule = ReduceLROnPlateau(opt, **options)
    schedule.load_state_dict(saved[0])
    opt.load_state_dict(saved[1])
    rest = []
    for metric in METRICS[stop:]:
        schedule.step(metric)
        rest.append(lrs(opt))
    assert rest == whole[stop:]


def test_which_schedules_take_a_metric():
    assert ReduceLROnPlateau.needs_metric
    assert not any(kind.needs_metric for kind, _ in SCHEDULES)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda opt: ConstantLR(opt, factor=1.5), "factor: expected a number from 0 to 1, got 1.5"),
        (lambda opt: ConstantLR(opt, total_iters=-1), "total_iters: expected a whole number from 0 up, got -1"),
        (lambda opt: StepLR(opt, 0), "step_size: expected a whole number from 1 up, got 0"),
        (lambda opt: StepLR(opt, 2.5), "step_size: expected a whole number from 1 up, got 2.5"),
        (lambda opt: StepLR(opt, 2, gamma=-1), "gamma: expected a number from 0 up, got -1"),
        (lambda opt: CosineWarmup(opt, -1, 10), "warmup_steps: expected a whole number from 0 up, got -1"),
        (lambda opt: CosineWarmup(opt, 10, 10), "total_steps: expected a whole number from 11 up, got 10"),
        (lambda opt: CosineWarmup(opt, 1, 10, min_lr=0.1), "min_lr: expected at most 0.02, .*, got 0.1"),
        (lambda opt: CosineWarmup(opt, 1, 10, min_lr=math.nan), "min_lr: expected a number from 0 up, got nan"),
        (lambda opt: ReduceLROnPlateau(opt, mode="least"), "mode: expected 'min' or 'max', got 'least'"),
        (lambda opt: ReduceLROnPlateau(opt, threshold_mode="x"), "expected 'rel' or 'abs', got 'x'"),
        (lambda opt: ReduceLROnPlateau(opt, factor=1.0), "factor: expected a number from 0 to below 1, got 1.0"),
        (lambda opt: ReduceLROnPlateau(opt, patience=-1), "patience: expected a whole number from 0 up, got -1"),
        (lambda opt: ReduceLROnPlateau(opt, threshold=-1), "threshold: expected a number from 0 up, got -1"),
        (lambda opt: StepLR(opt, True), "step_size: expected a whole number from 1 up, got True"),
        (lambda opt: StepLR(opt, "3"), "step_size: expected a whole number from 1 up, got '3'"),
        (lambda opt: StepLR(opt, 3, gamma="0.1"), "gamma: expected a number from 0 up, got '0.1'"),
        (lambda opt: StepLR(opt, 3, gamma=None), "gamma: expected a number from 0 up, got None"),
        (lambda opt: ConstantLR(opt, factor=None), "factor: expected a number from 0 to 1, got None"),
        (lambda opt: ConstantLR(opt, factor=1j), "factor: expected a number from 0 to 1, got 1j"),
        (lambda opt: ReduceLROnPlateau(opt, factor="half"), "factor: expected a number from 0 to below 1, got 'half'"),
        (lambda opt: ReduceLROnPlateau(opt, mode=None), "mode: expected 'min' or 'max', got None"),
        (lambda opt: ReduceLROnPlateau(opt, eps=math.inf), "eps: expected a number from 0 up, got inf"),
    ],
)
def test_options_out_of_range(make, message):
    opt = optimiser()
    with pytest.raises(ShapeError, match=message):
        make(opt)
    assert lrs(opt) == list(LRS)


def test_states_of_other_schedules():
    step, plateau = StepLR(optimiser(), 2), ReduceLROnPlateau(optimiser())
    wrong = [(step, plateau.state_dict()), (plateau, step.state_dict()), (step, None), (plateau, [])]
    for schedule, state in wrong:
        with pytest.raises(FormatError, match="schedule state: expected"):
            schedule.load_state_dict(state)
    for state, name in (
        ({"k": -1, "base_lrs": [0.5, 0.5]}, "k"),
        ({"k": "3", "base_lrs": [0.5, 0.5]}, "k"),
        ({"k": 1, "base_lrs": ["a", "b"]}, "base_lrs"),
        ({"k": 1, "base_lrs": None}, "base_lrs"),
    ):
        with pytest.raises(FormatError, match=f"^schedule state: {name}: expected "):
            step.load_state_dict(state)
    for change in ({"best": "low"}, {"bad": 1.5}, {"cooldown_left": None}):
        with pytest.raises(FormatError, match=f"^schedule state: {next(iter(change))}: expected "):
            plateau.load_state_dict({**plateau.state_dict(), **change})
    with pytest.raises(FormatError, match="expected 2 base_lrs, one per group, got 1"):
        step.load_state_dict({"k": 3, "base_lrs": [0.5]})
    assert step.k == 0


@pytest.mark.parametrize(
    "make", [ConstantLR, ReduceLROnPlateau, lambda o: StepLR(o, 2), lambda o: CosineWarmup(o, 1, 2)]
)
@pytest.mark.parametrize("bad", [None, [], {}, 0.1, "Adam", gl.Linear(2, 3)])
def test_what_is_no_optimiser(make, bad):
    with pytest.raises(
        DTypeError, match=r"^optimizer: expected an optimiser, e\.g\. gl\.Adam\(model\.parameters\(\)\), got "
    ):
        make(bad)


def test_numbers_of_numpy():
    two, half = np.int32(2), np.float32(0.5)
    for make in (
        lambda n, x: ConstantLR(optimiser(), x, n),
        lambda n, x: StepLR(optimiser(), n, x),
        lambda n, x: CosineWarmup(optimiser(), n, 2 * n, x / 64),
        lambda n, x: ReduceLROnPlateau(optimiser(), factor=x, patience=n, cooldown=n),
    ):
        assert repr(make(two, half)) == repr(make(2, 0.5))


def test_metrics():
    for bad in ("low", None, [1.0], np.ones(2), {}):
        with pytest.raises(DTypeError, match=r"^metric: expected a number, got "):
            ReduceLROnPlateau(optimiser()).step(bad)
    for good in (1, 1.0, np.float32(1), np.ones(()), np.ones((1, 1)), gl.Tensor(np.ones(1))):
        plateau = ReduceLROnPlateau(optimiser())
        plateau.step(good)
        assert plateau.best == 1.0


def test_reprs():
    opt = optimiser()
    schedule = StepLR(opt, 2)
    schedule.step()
    assert repr(schedule) == "StepLR(step_size=2, gamma=0.1, k=1, lr=[0.5, 0.02])"
    cosine = CosineWarmup(optimiser(), 0, 9)
    assert repr(cosine) == "CosineWarmup(warmup_steps=0, total_steps=9, min_lr=0.0, k=0, lr=[0.5, 0.02])"
    assert repr(ReduceLROnPlateau(optimiser(), patience=3)) == (
        "ReduceLROnPlateau(mode='min', factor=0.1, patience=3, threshold=0.0001, threshold_mode='rel', cooldown=0, "
        "min_lr=0.0, eps=1e-08, best=None, bad=0, lr=[0.5, 0.02])"
    )

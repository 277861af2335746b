"""gl.GradScaler: PyTorch's numbers, whole steps or none, and Trainer's runs in every precision."""

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.clip import clip_grad_norm
from gpulstm.errors import DTypeError, FormatError, NotFinite, ShapeError
from gpulstm.io import tree
from gpulstm.precision import PRECISIONS, current
from gpulstm.train import Trainer
from tests import emulated_cuda
from tests.conftest import GPUS, require

SMALL = {"init_scale": 4.0, "growth_interval": 2}


def made(device="cpu", lr=1.0):
    """(a parameter of (3,), its optimiser)."""
    p = gl.Parameter(gl.device(device).backend.asarray(np.ones(3, np.float32)))
    return p, gl.SGD([p], lr=lr)


def step(scaler, p, optimizer, slope):
    """One step on a loss with that slope; whether it was made."""
    optimizer.zero_grad()
    with np.errstate(all="ignore"):
        scaler.scale((p * slope).sum()).backward()
    done = scaler.step(optimizer)
    scaler.update()
    return done


def host(x):
    return gl.tensor(x).to("cpu").numpy()


# -- the scaler ----------------------------------------
def test_scales_and_steps_are_those_of_torch():
    torch = require("torch")
    mine, theirs = gl.GradScaler(**SMALL), torch.amp.GradScaler("cpu", **SMALL)
    (p, optimizer), q = made(), torch.nn.Parameter(torch.ones(3))
    other = torch.optim.SGD([q], lr=1.0)
    for slope in (0.5, 3e38, 0.25, 1.0, np.inf, 3e38, 0.5, 0.5, 0.5, np.nan, 1.0, 1.0):
        other.zero_grad()
        theirs.scale((q * slope).sum()).backward()
        theirs.step(other)
        theirs.update()
        step(mine, p, optimizer, slope)
        assert mine.get_scale() == theirs.get_scale()
        np.testing.assert_array_equal(p.numpy(), q.detach().numpy())
    assert mine.skipped_steps == 4
    state = mine.state_dict()
    assert state.pop("skipped_steps") == 4 and state == theirs.state_dict()
    again = gl.GradScaler()
    again.load_state_dict(theirs.state_dict())
    assert again.get_scale() == theirs.get_scale() and again.skipped_steps == 0


def test_a_step_is_whole_or_not_at_all(device):
    p, optimizer = made(device.name)
    q = gl.Parameter(device.asarray(np.ones(2, np.float32)))
    optimizer.add_param_group({"params": [q]})
    scaler = gl.GradScaler(**SMALL)
    p.grad, q.grad = device.asarray(np.full(3, 4, np.float32)), device.asarray(np.array([4, np.inf], np.float32))
    assert scaler.step(optimizer) is False
    scaler.update()
    assert (scaler.get_scale(), scaler.skipped_steps) == (2, 1)
    np.testing.assert_array_equal(host(p.detach()), [1, 1, 1])
    p.grad, q.grad = device.asarray(np.full(3, 4, np.float32)), device.asarray(np.full(2, 8, np.float32))
    assert scaler.step(optimizer) is True
    np.testing.assert_array_equal(host(p.detach()), [-1, -1, -1])
    np.testing.assert_array_equal(host(q.detach()), [-3, -3])


def test_unscaled_gradients_are_clipped_and_not_unscaled_again(device):
    p, optimizer = made(device.name)
    other = gl.Parameter(device.asarray(np.ones(1, np.float32)))
    scaler = gl.GradScaler(init_scale=8)
    scaler.scale((p * 2).sum() + (other * 3).sum()).backward()
    scaler.unscale_(optimizer, [other, p])
    np.testing.assert_array_equal(device.to_numpy(p.grad), [2, 2, 2])
    np.testing.assert_array_equal(device.to_numpy(other.grad), [3])
    with pytest.raises(ShapeError, match=r"^unscale_: expected one call between updates"):
        scaler.unscale_(optimizer)
    clip_grad_norm([p], 1.0)
    scaler.step(optimizer)
    np.testing.assert_allclose(host(p.detach()), 1 - 1 / np.sqrt(3), rtol=1e-6)
    scaler.update()
    scaler.unscale_(optimizer)


def test_a_gpu_waits_once_a_step(emulated):
    model = gl.LSTM(3, 4, device="cuda")
    optimizer, scaler = gl.SGD(model.parameters(), lr=0.1), gl.GradScaler()
    x = gl.tensor(np.ones((2, 2, 3), np.float32), device="cuda")
    waits = []
    for _ in range(3):  # what is compiled or set up at first is not counted
        optimizer.zero_grad()
        scaler.scale((model(x)[0] ** 2).mean()).backward()
        with emulated_cuda.counted() as counts:
            scaler.unscale_(optimizer)
        assert counts.waits == 0
        with emulated_cuda.counted() as counts:
            scaler.step(optimizer)
        scaler.update()
        waits.append(counts.waits)
    with emulated_cuda.counted() as counts:
        bool(gl.device("cuda").backend.zeros((), np.bool_))  # one number comes to the host
    assert waits[-1] == counts.waits > 0


def test_a_scaler_that_is_off_changes_nothing():
    p, optimizer = made()
    scaler = gl.GradScaler(enabled=False)
    loss = (p * 2).sum()
    assert scaler.scale(loss) is loss and scaler.get_scale() == 1 and not scaler.is_enabled()
    loss.backward()
    scaler.unscale_(optimizer)
    assert scaler.step(optimizer)
    scaler.update()
    assert p.numpy().tolist() == [-1, -1, -1] and scaler.state_dict() == {}


def test_what_cannot_be_scaled_is_named():
    p, _ = made()
    scaler = gl.GradScaler()
    with pytest.raises(ShapeError, match=r"^update: expected a call of step\(\) first"):
        scaler.update()
    for bad in (None, gl.SGD, p):
        with pytest.raises(DTypeError, match=r"^optimizer: expected e\.g\. gl\.Adam"):
            scaler.step(bad)
    with pytest.raises(DTypeError, match=r"^loss: expected a Tensor, got float"):
        scaler.scale(1.0)
    half = gl.Parameter(np.ones(3, np.float16))
    half.grad = np.ones(3, np.float16)
    with pytest.raises(DTypeError, match=r"^unscale_: expected float32 gradients.*keep the parameters in float32"):
        scaler.step(gl.SGD([half], lr=1.0))
    for name, bad in {"growth_factor": 1, "backoff_factor": 1.5, "init_scale": 0, "growth_interval": 0}.items():
        with pytest.raises(ShapeError, match=rf"^{name}: expected"):
            gl.GradScaler(**{name: bad})
    for bad in ({}, None, {"scale": 1.0}, {**scaler.state_dict(), "more": 1}):
        with pytest.raises(FormatError, match=r"^scaler state: expected"):
            scaler.load_state_dict(bad)
    with pytest.raises(ShapeError, match=r"^scale: expected a number above 0"):
        scaler.load_state_dict({**scaler.state_dict(), "scale": 0})
    assert scaler.get_scale() == 65536


def test_gradients_that_overflow_at_every_scale_end_the_run():
    p, optimizer = made()
    scaler = gl.GradScaler(init_scale=1e-30)
    with pytest.raises(
        NotFinite, match=r"^gradients: expected finite numbers, got infinity or NaN at every scale down to"
    ):
        for _ in range(100):
            step(scaler, p, optimizer, np.inf)
    grown = gl.GradScaler(init_scale=2.0**127, growth_interval=1)
    p.grad = np.zeros(3, np.float32)
    grown.step(optimizer)
    grown.update()
    assert grown.get_scale() == 2.0**127  # float32 holds no more
    grown.update(8)
    assert grown.get_scale() == 8


@pytest.mark.parametrize("device", GPUS, indirect=True)
def test_small_gradients_live_where_they_are_scaled(device):
    """A slope of 1e-9 is no float16; 65536 times that is one."""
    x = gl.tensor(np.ones((4, 3), np.float32), device=device.name)
    layer = gl.Linear(3, 2, device=device.name)
    optimizer, slopes = gl.SGD(layer.parameters(), lr=1.0), {}
    for name, enabled in (("ieee", False), ("fp16", False), ("fp16", True)):
        optimizer.zero_grad()
        scaler = gl.GradScaler(enabled=enabled)
        with gl.precision(name):
            scaler.scale(layer(x).sum() * 1e-9).backward()
        scaler.unscale_(optimizer)
        slopes[name, enabled] = device.to_numpy(layer.weight.grad)
    assert not slopes["fp16", False].any()
    np.testing.assert_allclose(slopes["fp16", True], slopes["ieee", False], rtol=1e-3)
    np.testing.assert_allclose(slopes["ieee", False], 4e-9, rtol=1e-6)


# -- Trainer ----------------------------------------
SEEN: list[str] = []


def loss(model, batch, state):
    SEEN.append(current())
    x, y = batch
    return gl.mse(model(x)[0], y), None


def overflowing(model, batch, state):
    """The gradient of a loss above 1 is infinite where the scale is 65536 or more."""
    value, state = loss(model, batch, state)
    return (value * 1e-34) * 1e34, state


def batches(n=4):
    rng = np.random.default_rng(0)
    return [tuple(rng.standard_normal((3, 2, k)).astype(np.float32) for k in (3, 4)) for _ in range(n)]


def trainer(precision="ieee", function=loss, device="cpu", **options):
    model = gl.LSTM(3, 4, device=device, generator=np.random.default_rng(5))
    return Trainer(model, gl.Adam(model.parameters(), lr=0.01), function, precision=precision, **options)


def bits(run):
    return {name: host(gl.tensor(value)).tobytes() for name, value in run.model.state_dict().items()}


def without_clock(records):
    return [{k: v for k, v in record.items() if k not in ("seconds", "tokens_per_second")} for record in records]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_run_computes_in_its_precision(device, precision):
    SEEN.clear()
    run = trainer(precision, device=device.name)
    here = [tuple(device.asarray(part) for part in batch) for batch in batches()]
    with gl.precision("tf32"):
        records = run.fit(here, 3, validation=here[:1], progress=False)
    assert set(SEEN) == {precision} and current() == "ieee"
    plain = trainer(device=device.name)
    other = plain.fit(here, 3, validation=here[:1], progress=False)
    assert abs(records[-1]["val_loss"] - other[-1]["val_loss"]) < 2e-2
    # On the processor products are those of float32, and a scale that is a power of two changes no bit.
    assert (bits(run) == bits(plain)) == (precision == "ieee" or not device.is_cuda)
    assert ("skipped_steps" in records[-1], "loss_scale" in records[-1]) == (precision == "fp16",) * 2


def test_clipping_sees_the_gradients_as_they_are():
    """Those that only the model has, too: they count in the norm."""

    def only_weights(precision):
        run = trainer(precision, clip_norm=0.05, clip_value=0.02)
        run.optimizer = gl.Adam([run.model.weight_ih_l0], lr=0.01)
        run.fit(batches(), 5, progress=False)
        return bits(run)

    assert only_weights("fp16") == only_weights("ieee")


def test_steps_that_overflow_are_skipped_and_told(capsys):
    run = trainer("fp16", overflowing)
    before = bits(run)
    schedule = run.schedule = gl.StepLR(run.optimizer, 2)
    (record,) = run.fit(batches(), 3, progress=True)
    skipped = record["skipped_steps"]
    assert 0 < skipped <= 3 and record["loss_scale"] == 65536 / 2**skipped and run.scaler.skipped_steps == skipped
    assert (bits(run) == before) == (skipped == 3)
    assert schedule.state_dict() != gl.StepLR(trainer().optimizer, 2).state_dict()  # it counts steps, made or not
    assert f"{skipped} step{'s' * (skipped > 1)} skipped" in capsys.readouterr().err


def test_gradients_that_never_fit_name_the_step():
    def hopeless(model, batch, state):
        value, state = loss(model, batch, state)
        return value * 1e-38 * 1e-38 * 1e-38 * 1e38 * 1e38 * 1e38, state

    run = trainer("fp16", hopeless)
    run.scaler.update(1e-36)
    with pytest.raises(NotFinite, match=r"at step \d+"):
        run.fit(batches(), 20, progress=False)


@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_run_has_the_bits_of_a_whole_one(tmp_path, stop):
    whole = trainer("fp16", overflowing)
    records = whole.fit(batches(), 6, progress=False, log_every=2)
    file = tmp_path / "run.safetensors"
    trainer("fp16", overflowing).fit(batches(), stop, progress=False, log_every=2, checkpoint=file)
    again = trainer("fp16", overflowing)
    got = again.fit(batches(), 6, progress=False, log_every=2, checkpoint=file, resume=True)
    assert bits(again) == bits(whole) and again.scaler.state_dict() == whole.scaler.state_dict()
    assert without_clock(got)[-1] == without_clock(records)[-1]


def test_resuming_in_another_precision_is_refused(tmp_path):
    file = tmp_path / "run.safetensors"
    trainer("bf16").fit(batches(), 2, progress=False, checkpoint=file)
    for other in ("ieee", "fp16"):
        with pytest.raises(FormatError, match=f"precision: expected bf16, as at the start, got {other}|has no scaler"):
            trainer(other).fit(batches(), 3, progress=False, checkpoint=file, resume=True)


def test_checkpoints_from_before_there_were_precisions_go_on(tmp_path):
    file = tmp_path / "run.safetensors"
    trainer().fit(batches(), 2, progress=False, checkpoint=file)
    old = tree.load(file)
    assert old["facts"].pop("precision") == "ieee" and "scaler" not in old
    tree.save(file, old)
    again, whole = trainer(), trainer()
    again.fit(batches(), 4, progress=False, checkpoint=file, resume=True)
    whole.fit(batches(), 4, progress=False)
    assert bits(again) == bits(whole)
    tree.save(file, old)
    with pytest.raises(FormatError, match="precision: expected ieee, as at the start, got tf32"):
        trainer("tf32").fit(batches(), 4, progress=False, checkpoint=file, resume=True)


def test_a_trainer_refuses_what_is_no_precision():
    for bad, error in (("fp32", ShapeError), (None, DTypeError), (16, DTypeError)):
        with pytest.raises(error, match=r"^precision: expected one of ieee, tf32, bf16, fp16, got"):
            trainer(bad)
    assert "precision=bf16" in repr(trainer("bf16")) and "precision" not in repr(trainer())

    class Own:
        lr = 0.1

        def step(self):
            pass

    Trainer(gl.Linear(2, 2), Own(), loss, precision="bf16")
    with pytest.raises(DTypeError, match=r"^optimizer: expected one with param_groups"):
        Trainer(gl.Linear(2, 2), Own(), loss, precision="fp16")

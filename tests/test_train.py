"""Training: the loop, its records, and runs that stop anywhere and go on with the same bits."""

import errno
import io
import json
import math
import signal
from threading import Thread

import numpy as np
import pytest

from gpulstm import random
from gpulstm.backend import CPU, Device, backend_of
from gpulstm.data import Streams
from gpulstm.errors import FormatError, NotFinite, ShapeError
from gpulstm.nn import LSTM, Dropout, Linear, Module, mse
from gpulstm.optim import SGD, Adam
from gpulstm.schedules import CosineWarmup, ReduceLROnPlateau, StepLR
from gpulstm.train import Trainer, checkpoint, loop
from gpulstm.train.report import Log, Progress, clock
from tests.tolerances import assert_close

STEPS = 23


class Forecast(Module):
    """A small network with everything a run has to remember: a state that is carried, and dropout."""

    def __init__(self, place: Device, generator: np.random.Generator) -> None:
        self.lstm = LSTM(1, 6, device=place, generator=generator)
        self.dropout = Dropout(0.3)
        self.linear = Linear(6, 1, device=place, generator=generator)

    def forward(self, x, state=None):
        y, state = self.lstm(x, state)
        return self.linear(self.dropout(y)), state


def forecast_loss(model, batch, state):
    x, y = batch
    prediction, state = model(x, state)
    return mse(prediction, y), state


def series(backend, steps=200):
    wave = np.sin(np.arange(steps) / 3) + np.random.default_rng(3).normal(0, 0.1, steps)
    return backend.asarray(wave[:, None].astype(np.float32))


def new_run(backend=CPU, loss=forecast_loss, make_schedule=lambda optimizer: CosineWarmup(optimizer, 5, STEPS)):
    """A fresh (trainer, batches, validation), the same every time, as a new process would make it."""
    generator = random.manual_seed(11)
    model = Forecast(Device(backend.name, backend), generator)
    optimizer = Adam(model.parameters(), lr=0.02)
    trainer = Trainer(model, optimizer, loss, schedule=make_schedule(optimizer), clip_norm=1.0)
    data = series(backend)
    return trainer, Streams(data[:150], 4, 5), Streams(data[150:], 3, 6, fill=0.0)


PLAN = {"validate_every": 6, "checkpoint_every": 4, "log_every": 5, "progress": False}


def fit(run, steps=STEPS, **options):
    trainer, batches, validation = run
    return trainer.fit(batches, steps, validation=validation, **PLAN | options)


def bits(trainer):
    return {name: np.array(trainer.model.state_dict()[name]).tobytes() for name in trainer.model.state_dict()}


def without_clock(records):
    return [{k: v for k, v in record.items() if k not in ("seconds", "tokens_per_second")} for record in records]


class Stopped(Exception):
    """Stands for a process that is killed."""


def stopping_at(step, error=Stopped):
    """The loss function that dies in the middle of that step, counted from 1."""
    done = iter(range(1, 10_000))

    def loss(model, batch, state):
        if model.training and next(done) == step:
            raise error
        return forecast_loss(model, batch, state)

    return loss


@pytest.fixture(scope="module")
def whole():
    """(bits, records) of a run that is never stopped."""
    run = new_run()
    records = fit(run)
    return bits(run[0]), without_clock(records)


# -- records -------------------------------------------------------------------------------------------------


def test_a_run_learns_and_keeps_records(tmp_path):
    run = new_run()
    records = fit(run, 60, log=tmp_path / "log.jsonl")
    assert [r["step"] for r in records][:5] == [5, 6, 10, 12, 15] and records[-1]["step"] == 60
    assert records[-1]["loss"] < 0.5 * records[0]["loss"]
    assert [r["step"] for r in records if r["val_loss"] is not None] == list(range(6, 61, 6))
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == records
    seconds = [r["seconds"] for r in records]
    assert seconds == sorted(seconds) and all(r["tokens_per_second"] > 0 for r in records)


def test_records_hold_means_and_the_rates_that_were_used():
    losses = []

    def loss(model, batch, state):
        value, state = forecast_loss(model, batch, state)
        losses.append(value.item())
        return value, state

    trainer, batches, _ = new_run(loss=loss, make_schedule=lambda optimizer: StepLR(optimizer, 5, 0.5))
    records = trainer.fit(batches, 12, **PLAN)
    assert [r["step"] for r in records] == [5, 10, 12]
    assert [r["lr"] for r in records] == [0.02, 0.01, 0.005]
    for record, first in zip(records, (0, 5, 10), strict=True):
        weights = [20, 20, 20, 20, 20, 20, 20, 8, 20, 20, 20, 20][first : record["step"]]  # the last window is short
        assert record["loss"] == pytest.approx(np.average(losses[first : record["step"]], weights=weights), rel=1e-12)


def test_ten_steps_give_the_processors_losses(device):
    trainer, batches, _ = new_run()
    want = [r["loss"] for r in trainer.fit(batches, 10, **PLAN | {"log_every": 1})]
    trainer, batches, _ = new_run(device)
    got = [r["loss"] for r in trainer.fit(batches, 10, **PLAN | {"log_every": 1})]
    assert_close(np.float32(got), np.float32(want), "losses")


def test_losses_are_read_together(monkeypatch, emulated):
    """No step waits for the device: losses come to the host with the records and the checkpoints alone."""
    from gpulstm.backend import device

    reads = []
    place = device("cuda").backend
    monkeypatch.setattr(
        backend_of(place.zeros((1,), np.float32)), "to_numpy", lambda x: reads.append(x.shape) or x.get()
    )
    trainer, batches, _ = new_run(place)
    trainer.fit(batches, 12, **PLAN)
    assert reads == [(5,), (5,), (2,)]


def test_evaluation_carries_the_state_counts_tokens_and_drops_nothing():
    trainer, _, validation = new_run()
    want, count, state = 0.0, 0, None
    trainer.model.eval()
    for x, y in validation:
        prediction, state = trainer.model(x, state)
        want, count = want + float(((prediction.data - y) ** 2).sum()), count + y.size
    trainer.model.train()
    got = trainer.evaluate(validation)
    assert got == pytest.approx(want / count, rel=1e-5)
    assert trainer.model.training
    assert trainer.evaluate(list(validation)[:1]) != pytest.approx(got, rel=1e-3)
    with pytest.raises(ShapeError, match="batches: expected at least one item to average over"):
        trainer.evaluate([])


def test_the_state_is_carried_detached_and_fresh_at_every_pass():
    seen = []

    def loss(model, batch, state):
        value, new = forecast_loss(model, batch, state)
        seen.append((state, new))
        return value, {"states": [new]}

    def unpacked(model, batch, state):
        return loss(model, batch, None if state is None else state["states"][0])

    trainer, batches, _ = new_run(loss=unpacked)
    trainer.fit(batches, 2 * len(batches), **PLAN)
    for k, (state, _) in enumerate(seen):
        if k % len(batches) == 0:
            assert state is None, f"step {k} begins a pass"
            continue
        for carried, made in zip(state, seen[k - 1][1], strict=True):
            assert np.array_equal(carried.data, made.data)
            assert made.requires_grad and not carried.requires_grad


# -- stopping and going on -----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 4, 5, 7, 8, 9, 12, 13, 17, 21, 23])
def test_a_run_killed_at_a_step_goes_on_with_the_same_bits(tmp_path, whole, step):
    file = tmp_path / "run.safetensors"
    with pytest.raises(Stopped):
        fit(new_run(loss=stopping_at(step)), checkpoint=file)
    assert file.exists() == (step > 4)
    run = new_run()
    records = fit(run, checkpoint=file, resume=True, log=tmp_path / "log.jsonl")
    assert bits(run[0]) == whole[0]
    assert without_clock(records) == whole[1]
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == records


PATIENT = {"steps": 40, "patience": 2, "checkpoint_every": 19}  # ends after step 24 with the model of step 12


def new_patient_run(loss=forecast_loss):
    run = new_run(loss=loss)
    run[0].evaluate = lambda batches, **_: {"loss": abs(run[0].optimizer.state[0]["step"] - 12.0)}
    return run


@pytest.fixture(scope="module")
def patient():
    run = new_patient_run()
    records = fit(run, **PATIENT)
    assert records[-1]["step"] == 24
    return bits(run[0]), without_clock(records)


PARTS = ("model", "optimizer", "schedule", "batches", "generator")
FIELDS = ("step", "epoch", "drawn", "state", "rows", "best", "best_model", "worse", "history")


@pytest.mark.parametrize("forgotten", ["nothing", *PARTS, *FIELDS])
def test_whatever_a_checkpoint_forgets_is_seen(tmp_path, patient, monkeypatch, forgotten):
    """Sabotage: with one part as a fresh run has it, the run does not end as one that is never stopped."""
    file, fresh = tmp_path / "run.safetensors", tmp_path / "fresh.safetensors"
    with pytest.raises(Stopped):  # within a pass, within a record, after one of two validations without a better loss
        fit(new_patient_run(loss=stopping_at(20)), **PATIENT, checkpoint=file)
    trainer, batches, validation = new_patient_run()
    plan = loop.Plan(40, None, 6, 2, True, "val_loss", "min", fresh, 19, 5, {}, {})
    unstarted = loop.Run(trainer, batches, validation, plan)
    unstarted._begin()
    unstarted._save(fresh)
    kept, new = checkpoint.load(file), checkpoint.load(fresh)
    if forgotten in PARTS:
        kept[forgotten] = new[forgotten]
    elif forgotten in FIELDS:
        kept["run"][forgotten] = new["run"][forgotten]
    if forgotten == "drawn":  # serves batches that cannot tell where they are
        batches = list(batches)
    monkeypatch.setattr(checkpoint, "load", lambda path: kept)
    try:
        records = fit((trainer, batches, validation), **PATIENT, checkpoint=file, resume=True)
        same = bits(trainer) == patient[0] and without_clock(records) == patient[1]
    except ShapeError as error:  # a pass that has more batches than it should
        same = "got more" not in str(error)
    assert same == (forgotten == "nothing")


def test_batches_that_cannot_tell_where_they_are_are_counted(tmp_path, whole):
    file = tmp_path / "run.safetensors"
    trainer, batches, validation = new_run(loss=stopping_at(14))
    with pytest.raises(Stopped):
        fit((trainer, list(batches), validation), checkpoint=file)
    trainer, batches, validation = new_run()
    fit((trainer, list(batches), validation), checkpoint=file, resume=True)
    assert bits(trainer) == whole[0]


def test_a_finished_run_resumes_to_its_end_at_once(tmp_path, whole):
    file = tmp_path / "run.safetensors"
    fit(new_run(), checkpoint=file)
    run = new_run(loss=stopping_at(1))
    records = fit(run, checkpoint=file, resume=True)
    assert bits(run[0]) == whole[0] and without_clock(records) == whole[1]


def test_resuming_on_another_device(tmp_path, device):
    file = tmp_path / "run.safetensors"
    with pytest.raises(Stopped):
        fit(new_run(loss=stopping_at(8)), steps=10, checkpoint=file)
    run = new_run(device)
    fit(run, steps=10, checkpoint=file, resume=True)
    on_cpu = new_run()
    fit(on_cpu, steps=10, checkpoint=file, resume=True)
    for name, array in run[0].model.state_dict().items():
        assert_close(device.to_numpy(array), on_cpu[0].model.state_dict()[name], name)


def test_notes_must_be_the_same(tmp_path):
    file = tmp_path / "run.safetensors"
    fit(new_run(), steps=4, checkpoint=file, notes={"hidden": 6, "corpus": "abc"})
    with pytest.raises(FormatError, match=r"run.safetensors: .*: hidden: expected 6, as at the start, got 7"):
        fit(new_run(), steps=8, checkpoint=file, notes={"hidden": 7, "corpus": "abc"}, resume=True)


def test_checkpoints_of_other_models_and_other_files_are_refused(tmp_path):
    file = tmp_path / "run.safetensors"
    checkpoint.save(file, {"notes": {}, "model": {}, "optimizer": {}, "schedule": {}, "batches": {}})
    with pytest.raises(FormatError, match=r"of this run: it has no .*generator, .*run, "):
        fit(new_run(), checkpoint=file, resume=True)
    fit(new_run(), steps=4, checkpoint=file, force=True)
    tree = checkpoint.load(file)
    for damage in (
        {"run": {}},
        {"notes": None},
        {"generator": {"state": 1}},
        {"batches": []},
        {"model": [1]},
    ):
        checkpoint.save(file, tree | damage)
        with pytest.raises(FormatError, match=r"run.safetensors: expected a checkpoint of this run: "):
            fit(new_run(), checkpoint=file, resume=True)
    from gpulstm.io.files import save_arrays

    for metadata in ({}, {"gpulstm": "{"}, {"gpulstm": '{"kind": "text model"}'}, {"gpulstm": "[]"}):
        save_arrays(file, {"a": np.zeros(1)}, metadata)
        with pytest.raises(FormatError, match="expected a gpulstm checkpoint"):
            fit(new_run(), checkpoint=file, resume=True)


def test_a_checkpoint_keeps_every_kind_of_value(tmp_path):
    tree = {
        "numbers": [1, 2.5, -math.inf, True, None, "text", 2**127],
        "arrays": (np.arange(6.0).reshape(2, 3).T, np.array(3, np.int8), np.zeros((0, 2))),
        3: {"empty": [{}, (), []]},
    }
    checkpoint.save(tmp_path / "a", tree)
    got = checkpoint.load(tmp_path / "a")
    assert got["numbers"] == tree["numbers"] and got[3] == tree[3]
    assert isinstance(got["arrays"], tuple)
    for a, b in zip(got["arrays"], tree["arrays"], strict=True):
        assert a.dtype == b.dtype and np.array_equal(a, b)


# -- Ctrl-C, numbers that are not finite ---------------------------------------------------------------------


def pressing_ctrl_c_at(step, times=1):
    count = iter(range(1, 10_000))

    def loss(model, batch, state):
        if model.training and next(count) == step:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        return forecast_loss(model, batch, state)

    return loss


def test_ctrl_c_saves_and_the_run_goes_on_with_the_same_bits(tmp_path, whole):
    file, before = tmp_path / "run.safetensors", signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=rf"stopped after step 7 of {STEPS}; saved: .*run.safetensors"):
        fit(new_run(loss=pressing_ctrl_c_at(7)), checkpoint=file)
    assert signal.getsignal(signal.SIGINT) is before
    assert checkpoint.load(file)["run"]["step"] == 7
    run = new_run()
    fit(run, checkpoint=file, resume=True)
    assert bits(run[0]) == whole[0]


def test_ctrl_c_without_a_checkpoint_says_so_and_a_second_one_stops_at_once():
    with pytest.raises(KeyboardInterrupt, match="after step 2 of 23; saved: nothing, as no checkpoint= was given"):
        fit(new_run(loss=pressing_ctrl_c_at(2)))
    trainer, batches, _ = new_run(loss=pressing_ctrl_c_at(2, times=2))
    with pytest.raises(KeyboardInterrupt) as stop:
        trainer.fit(batches, STEPS, progress=False)
    assert str(stop.value) == "stopped in step 2; no checkpoint was written" and stop.value.checkpoint is None


def test_ctrl_c_in_the_last_step_lets_the_run_end(whole):
    run = new_run(loss=pressing_ctrl_c_at(STEPS))
    fit(run)
    assert bits(run[0]) == whole[0]


def test_a_run_outside_the_main_thread_is_no_less_a_run(whole):
    from threading import Thread

    run = new_run()
    thread = Thread(target=fit, args=(run,))
    thread.start()
    thread.join()
    assert bits(run[0]) == whole[0]


def scaled_at(step, factor):
    count = iter(range(1, 10_000))

    def loss(model, batch, state):
        value, state = forecast_loss(model, batch, state)
        return (value * factor if model.training and next(count) == step else value), state

    return loss


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_its_step_and_the_last_good_checkpoint(tmp_path, value, device):
    file = tmp_path / "run.safetensors"
    with pytest.raises(
        NotFinite, match=rf"{value} at step 7; the last good checkpoint is .*run.safetensors, from step 4"
    ):
        fit(new_run(device, loss=scaled_at(7, value)), checkpoint=file)
    good = checkpoint.load(file)
    assert good["run"]["step"] == 4
    assert all(np.isfinite(array).all() for array in good["model"].values())
    with pytest.raises(NotFinite, match="at step 3; no checkpoint was written"):
        fit(new_run(device, loss=scaled_at(3, value)))


def test_parameters_that_are_not_finite_are_never_saved(tmp_path):
    """An infinite bias opens a gate for good and leaves the loss finite."""
    file = tmp_path / "run.safetensors"

    def loss(model, batch, state):
        model.lstm.bias_hh_l0.data[0] = math.inf
        return forecast_loss(model, batch, state)

    message = r"lstm\.bias_hh_l0: expected finite numbers, got NaN or infinity after step 4; no checkpoint was written"
    with pytest.raises(NotFinite, match=message):
        fit(new_run(loss=loss), checkpoint=file)
    assert not file.exists()


def test_a_validation_loss_that_is_not_finite_stops_the_run():
    trainer, batches, validation = new_run()
    broken = [(x, y * math.nan) for x, y in validation]
    with pytest.raises(NotFinite, match="validation loss: expected a finite number, got nan in batch 1, at step 6"):
        fit((trainer, batches, broken))


# -- early stop, schedules, clipping -------------------------------------------------------------------------


def test_patience_stops_the_run_and_the_best_model_is_kept():
    def run(steps, losses, **options):
        trainer, batches, validation = new_run()
        values = iter(losses)
        trainer.evaluate = lambda batches, **_: {"loss": next(values)}
        return fit((trainer, batches, validation), steps, **options), bits(trainer)

    records, best = run(100, [3.0, 2.0, 2.5, 2.0, 1.0], patience=2)  # the equal loss of step 24 is no better
    assert [r["val_loss"] for r in records if r["val_loss"] is not None] == [3.0, 2.0, 2.5, 2.0]
    assert records[-1]["step"] == 24
    assert best == run(12, [3.0, 2.0], keep_best=False)[1]
    assert best != run(24, [3.0, 2.0, 2.5, 2.0], keep_best=False)[1]


def test_a_plateau_schedule_goes_by_the_validation_loss():
    def plateau(optimizer):
        return ReduceLROnPlateau(optimizer, factor=0.5, patience=0)

    trainer, batches, validation = new_run(make_schedule=plateau)
    values = iter([3.0, 2.0, 2.5, 1.0])
    trainer.evaluate = lambda batches, **_: {"loss": next(values)}
    records = fit((trainer, batches, validation), 24)
    assert {r["step"]: r["lr"] for r in records if r["val_loss"]} == {6: 0.02, 12: 0.02, 18: 0.02, 24: 0.01}
    trainer, batches, _ = new_run(make_schedule=plateau)
    with pytest.raises(ShapeError, match="as ReduceLROnPlateau needs the validation loss, got None"):
        trainer.fit(batches, 3, **PLAN)


def test_gradients_are_clipped_by_norm_and_by_value():
    def step(**clips):
        trainer, batches, _ = new_run()
        trainer = Trainer(trainer.model, SGD(trainer.model.parameters(), lr=1.0), forecast_loss, **clips)
        before = [p.data.copy() for p in trainer.model.parameters()]
        trainer.fit(batches, 1, **PLAN)
        return np.concatenate([(b - p.data).ravel() for b, p in zip(before, trainer.model.parameters(), strict=True)])

    free = step()
    assert np.linalg.norm(step(clip_norm=1e-3)) == pytest.approx(1e-3, rel=1e-2)
    assert np.abs(step(clip_value=1e-3)).max() == pytest.approx(1e-3, rel=1e-2)
    assert np.linalg.norm(free) > 1e-2 and np.abs(free).max() > 1e-2


@pytest.mark.parametrize("name", ["steps", "validate_every", "checkpoint_every", "log_every", "patience"])
def test_counts_below_one_are_refused(name):
    trainer, batches, validation = new_run()
    with pytest.raises(ShapeError, match=f"{name}: expected at least 1, got 0"):
        trainer.fit(batches, **{"steps": 3, "validation": validation, name: 0})


def test_no_batches_are_refused():
    trainer, batches, _ = new_run()
    with pytest.raises(ShapeError, match="batches: expected at least one in every pass, got none"):
        trainer.fit([], 3, progress=False)
    with pytest.raises(ShapeError, match="batches: expected at least one"):
        trainer.fit(iter(list(batches)), 100, progress=False)  # a second pass over it gives nothing


# -- what is shown -------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_and_a_file_gets_lines():
    stream = Terminal()
    fit(new_run(), progress=stream)
    shown = stream.getvalue()
    assert "23/23" in shown and "tokens/s" in shown and "validation" in shown and "\r" in shown
    stream = io.StringIO()
    fit(new_run(), progress=stream)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 8 and "\r" not in stream.getvalue()
    assert lines[0].startswith("step  5/23  loss ") and lines[0].endswith(" left") and "tokens/s" in lines[0]
    assert lines[1].startswith("step  6/23  loss ") and "validation " in lines[1]


def test_a_terminal_that_is_closed_leaves_others_free_to_draw():
    """Whatever part of a drawing fails first: an error inside tqdm would leave its lock held for ever."""
    from tqdm import tqdm

    class Closing(Terminal):
        left = 0

        def write(self, text):
            self.left -= 1
            if self.left < 0:
                raise BrokenPipeError(errno.EPIPE, "Broken pipe")
            return super().write(text)

        def flush(self):
            self.write("")

    for left in range(12):
        stream = Closing()
        stream.left = left
        progress = Progress(stream, 0, 3, epochs=2)
        progress._bar.mininterval = 0  # every step draws
        for _ in range(3):
            progress.step()
        progress.record({"epoch": 1, "step": 3, "loss": 1.0, "val_loss": 1.0, "tokens_per_second": 1.0}, 0.1)
        progress.close()
        assert stream.left < 0
        other = Thread(target=lambda: tqdm(total=1, file=Terminal()).close(), daemon=True)
        other.start()
        other.join(10)
        assert not other.is_alive()


def test_no_stream_shows_nothing(capsys):
    fit(new_run())
    assert capsys.readouterr() == ("", "")


def test_times_and_lines():
    assert [clock(s) for s in (0, 59.6, 61, 3600, 36_061)] == ["0:00", "1:00", "1:01", "1:00:00", "10:01:01"]
    stream = io.StringIO()
    progress = Progress(stream, 0, 10)
    progress.line("a line")
    progress.close()
    assert stream.getvalue() == "a line\n"


def test_a_log_that_cannot_be_written_is_named():
    log = Log("/dev/full", [])
    with pytest.raises(OSError, match="/dev/full cannot be written: No space left on device"):
        log.write({"step": 1})
    log.close()


def test_a_log_is_replaced_and_flushed_line_by_line(tmp_path):
    file = tmp_path / "log.jsonl"
    file.write_text("old\n")
    log = Log(file, [{"step": 1}])
    log.write({"step": 2})
    assert file.read_text() == '{"step": 1}\n{"step": 2}\n'
    log.close()

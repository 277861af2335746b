"""The precision of the labs' estimators and commands: it reaches the Trainer and is saved, and a run keeps its own."""

from dataclasses import replace

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.cli import _run
from gpulstm.errors import FileExists, FormatError, GpulstmError
from gpulstm.io import tree
from gpulstm.labs import text
from gpulstm.labs.estimator import Run
from gpulstm.labs.files import RunFiles, checkpoint_path
from gpulstm.train import Trainer

WAVE = np.sin(np.arange(80) / 3)
PROSE = "the cat sat on the mat, and the dog lay by the door. " * 40
SMALL = {"hidden_size": 3, "epochs": 2, "batch_size": 32, "random_state": 0, "device": "cpu"}
TINY = text.Settings(embedding=4, hidden=4, batch=4, window=8, steps=3, validate_every=3, warmup=1)
LABS = ("text", "forecast", "translate", "sentiment", "speech")


@pytest.fixture
def made(monkeypatch):
    """The precisions of the Trainers that were made."""
    seen, init = [], Trainer.__init__

    def watched(self, *args, **kwargs):
        init(self, *args, **kwargs)
        seen.append(self.precision)

    monkeypatch.setattr(Trainer, "__init__", watched)
    return seen


def forecaster(**options):
    return gl.Forecaster(**{**SMALL, "window": 8, "horizon": 2, **options})


@pytest.mark.parametrize("lab", LABS)
def test_every_training_command_has_the_option(lab, capsys):
    assert _run([lab, "train", "--help"]) == 0
    assert "--precision [ieee|tf32|bf16|fp16]" in capsys.readouterr().out
    assert _run([lab, "train", "--precision", "fp8"]) == 2
    assert "'fp8' is not one of 'ieee', 'tf32', 'bf16', 'fp16'" in capsys.readouterr().err


def test_an_estimator_trains_in_its_precision_and_keeps_it(tmp_path, made):
    estimator = forecaster(precision="fp16").fit(WAVE)
    assert made == ["fp16"] and estimator.history_[-1]["loss_scale"] == 65536
    estimator.save(tmp_path / "f.safetensors")
    assert gl.Forecaster.load(tmp_path / "f.safetensors").precision == "fp16"
    plain = forecaster().fit(WAVE)
    assert made[1:] == ["ieee"] and (plain.predict() == estimator.predict()).all()  # on the processor
    for bad in ("fp8", None):
        with pytest.raises(GpulstmError, match=r"^precision: expected one of ieee, tf32, bf16, fp16, got"):
            forecaster(precision=bad).fit(WAVE)


def test_the_text_lab_likewise(tmp_path, made):
    model = gl.LanguageModel(
        embedding_size=4, hidden_size=4, batch_size=4, window=8, steps=3, device="cpu", precision="bf16"
    )
    model.fit(PROSE).save(tmp_path / "m.safetensors")
    assert made == ["bf16"] and gl.LanguageModel.load(tmp_path / "m.safetensors").precision == "bf16"
    with pytest.raises(GpulstmError, match=r"^precision: expected one of ieee, tf32, bf16, fp16, got 'half'"):
        gl.LanguageModel(precision="half").fit(PROSE)


def test_a_run_goes_on_in_its_own_precision_alone(tmp_path, monkeypatch, capsys, made):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prose.txt").write_text(PROSE)
    options = ["--embedding", "4", "--hidden", "4", "--batch", "4", "--window", "8", "--device", "cpu", "-q"]
    begin = ["text", "train", "prose.txt", "--out", "m.safetensors"]
    assert _run([*begin, *options, "--steps", "3", "--precision", "tf32"]) == 0
    assert _run([*begin, "--device", "cpu", "-q", "--resume", "--steps", "5"]) == 0  # the options it began with
    assert made == ["tf32", "tf32"]
    capsys.readouterr()
    assert _run([*begin, "--device", "cpu", "-q", "--resume", "--steps", "7", "--precision", "bf16"]) == 2
    assert "precision: expected tf32, as at the start, got bf16" in capsys.readouterr().err
    assert _run(["text", "info", "m.safetensors"]) == 0
    assert "precision: tf32" in capsys.readouterr().out

    files = {"files": RunFiles.of(tmp_path / "f.safetensors")}
    forecaster(precision="bf16").fit(WAVE, run=Run(**files))
    with pytest.raises(FormatError, match="precision: expected bf16, as at the start, got ieee"):
        forecaster().fit(WAVE, run=Run(**files, resume=True))
    forecaster(precision="bf16", epochs=3).fit(WAVE, run=Run(**files, resume=True))


def without_precision(file):
    """Write the checkpoint as it was before there were precisions."""
    old = tree.load(file)
    for facts in (old["facts"], old["notes"], old["about"].get("settings", {})):
        facts.pop("precision", None)
    for about in old["about"].values():
        if isinstance(about, dict) and "params" in about:
            del about["params"]["precision"]
    tree.save(file, old)


def test_runs_from_before_there_were_precisions_go_on(tmp_path):
    out = tmp_path / "f.safetensors"
    estimator = forecaster().fit(WAVE, run=Run(files=RunFiles.of(out)))
    facts = {name: fact for name, fact in estimator._made_by.items() if name != "precision"}
    estimator.save(out, facts)
    without_precision(checkpoint_path(out))
    forecaster(epochs=3).fit(WAVE, run=Run(files=RunFiles.of(out), resume=True))

    out = tmp_path / "m.safetensors"
    model = text.train(PROSE, TINY, device="cpu", out=out, progress=False)
    made = {name: fact for name, fact in text.model_facts(out).items() if name != "precision"}
    text.save_model(out, model, made)
    without_precision(checkpoint_path(out))
    assert text.kept_settings(out) == TINY
    with pytest.raises(FormatError, match="precision: expected ieee, as at the start, got fp16"):
        text.train(PROSE, replace(TINY, precision="fp16"), device="cpu", out=out, resume=True, progress=False)
    text.train(PROSE, replace(TINY, steps=5), device="cpu", out=out, resume=True, progress=False)
    text.save_model(out, model, {**made, "precision": "bf16"})
    with pytest.raises(FileExists, match="belongs to another run than"):
        text.train(PROSE, replace(TINY, steps=6), device="cpu", out=out, resume=True, progress=False)

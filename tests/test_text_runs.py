"""Runs of the text lab over their whole life: nothing is overwritten, and every run can go on."""

import io
import json
import re
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest

from gpulstm import random
from gpulstm.cli import _run
from gpulstm.errors import DTypeError, FileExists, FormatError, GpulstmError, NotFinite, ShapeError
from gpulstm.labs import text as lab
from gpulstm.labs import text_training as training
from gpulstm.labs.text_file import model_facts
from gpulstm.nn import Linear
from gpulstm.train import checkpoint

PROSE = "It isn't far:  2 miles, he said...\n\n   Let's go (now) -- why not?\n" * 20
OTHER = "why not? It isn't far, he said: 2 miles.\n" * 30  # no character that PROSE lacks
TINY = lab.Settings(embedding=4, hidden=8, dropout=0.1, batch=4, window=8, steps=8, lr=0.02, warmup=2, validate_every=4)
OPTIONS = [
    "--embedding", "4", "--hidden", "8", "--dropout", "0.1", "--batch", "4", "--window", "8", "--steps", "8",
    "--lr", "0.02", "--warmup", "2", "--validate-every", "4", "--device", "cpu",
]  # fmt: skip


def train(text=PROSE, settings=TINY, **options):
    return lab.train(text, settings, **{"device": "cpu", "progress": False, "checkpoint_every": 3, **options})


def bits(model):
    return {name: array.tobytes() for name, array in model.state_dict().items()}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in, with both texts as files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prose.txt").write_text(PROSE)
    (tmp_path / "other.txt").write_text(OTHER)
    return tmp_path


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """A folder with every file of a whole run."""
    folder = tmp_path_factory.mktemp("whole")
    train(out=folder / "m.safetensors", log=folder / "log.jsonl", plot=folder / "loss.png")
    return folder


@pytest.fixture
def finished(here, whole_run):
    """A folder to work in, with every file of a whole run and both texts."""
    shutil.copytree(whole_run, here, dirs_exist_ok=True)
    return here


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def command(*args):
    """The exit code of ``gpulstm text train`` with these arguments."""
    return _run(["text", "train", *OPTIONS, *args])


class Killed(Exception):
    """Stands for a process that is killed."""


def killed_in_step(monkeypatch, step):
    """The lab's loss dies in that step, counted from 1 over all runs from here on."""
    whole, count = training.language_loss, iter(range(1, 10_000))

    def loss(model, batch, state):
        if model.training and next(count) == step:
            raise Killed
        return whole(model, batch, state)

    monkeypatch.setattr(training, "language_loss", loss)


# -- nothing is overwritten unasked --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m.safetensors", "m.checkpoint.safetensors", "log.jsonl", "loss.png"])
def test_no_file_of_another_run_is_overwritten(finished, name, capsys):
    for path in finished.iterdir():
        if path.name not in (name, "prose.txt", "other.txt"):
            path.unlink()
    before = contents(finished)
    with pytest.raises(FileExists, match=rf"{name}: exists already; .*--force \(force=True\)"):
        train(OTHER, out="m.safetensors", log="log.jsonl", plot="loss.png")
    files = ("--out", "m.safetensors", "--log", "log.jsonl", "--plot", "loss.png")
    assert command("other.txt", *files) == 2
    assert f"{name}: exists already" in capsys.readouterr().err
    assert contents(finished) == before
    plot = "loss.png" if name == "loss.png" else None
    model = train(OTHER, out="m.safetensors", log="log.jsonl", plot=plot, force=True)
    assert model_facts("m.safetensors")["corpus"] == model_facts("m.checkpoint.safetensors")["corpus"]
    assert bits(lab.load_model("m.safetensors", "cpu")) == bits(model)


def test_the_message_names_everything_and_the_choices(finished):
    with pytest.raises(FileExists) as error:
        train(out="m.safetensors", log="log.jsonl", plot="loss.png")
    words = str(error.value)
    for word in ("m.safetensors", "m.checkpoint.safetensors", "log.jsonl", "loss.png", "--resume", "--force", "--out"):
        assert word in words


def test_resuming_is_advised_where_there_is_a_checkpoint_alone(finished):
    (finished / "m.checkpoint.safetensors").unlink()
    with pytest.raises(
        FileExists, match=r"m.safetensors: exists already; train the model further with --from"
    ) as error:
        train(out="m.safetensors")
    assert "--resume" not in str(error.value)


def test_an_interrupted_run_is_finished_work_too(here, monkeypatch):
    killed_in_step(monkeypatch, 5)
    with pytest.raises(Killed):
        train(out="m.safetensors")
    before = contents(here)
    with pytest.raises(FileExists, match=r"m.checkpoint.safetensors: exists already; continue the run with --resume"):
        train(out="m.safetensors")
    assert contents(here) == before


def test_one_file_under_two_names_is_refused(here, capsys):
    for files in ({"out": "a", "log": "a"}, {"out": "a.x", "log": "a.checkpoint.x"}, {"log": "a.png", "plot": "a.png"}):
        with pytest.raises(FormatError, match="expected a file of its own"):
            train(**files)
    assert command("prose.txt", "--out", "m.safetensors", "--log", "m.checkpoint.safetensors") == 2
    assert command("prose.txt", "--out", "m.safetensors", "--from", "x", "--log", "x") == 2
    assert "x is already --from" in capsys.readouterr().err


# -- going on ------------------------------------------------------------------------------------------------


def test_a_finished_run_goes_on_from_its_model_with_more_steps(finished, capsys):
    before = model_facts("m.safetensors")["validation_loss"]
    files = ("--out", "m.safetensors", "--log", "log.jsonl", "--plot", "loss.png", "--checkpoint-every", "3")
    assert command("prose.txt", *files, "--steps", "12", "--resume") == 0
    shown = capsys.readouterr().out
    assert "resuming from m.checkpoint.safetensors, after step 8 of 12" in shown
    facts = model_facts("m.safetensors")
    assert facts["validation_loss"] <= before and facts["steps"] == 12
    log = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in log] == [4, 8, 12]
    # The learning rate follows the curve of a run of twelve steps from there.
    assert log[-1]["lr"] < log[0]["lr"]


def test_resuming_a_finished_run_with_nothing_left_to_do_changes_nothing(finished, capsys):
    before = contents(finished)
    assert command("prose.txt", "--out", "m.safetensors", "--log", "log.jsonl", "--resume") == 0
    assert "the run is finished: give more --steps" in capsys.readouterr().out
    assert contents(finished) == before
    assert command("prose.txt", "--out", "m.safetensors", "--steps", "7", "--resume") == 2
    assert "steps: expected at least 8, as many as m.checkpoint.safetensors has done, got 7" in capsys.readouterr().err
    assert contents(finished) == before


def test_a_resumed_run_has_the_options_it_began_with(finished, capsys):
    assert _run(["text", "train", "prose.txt", "--out", "m.safetensors", "--resume", "--steps", "12"]) == 0
    assert model_facts("m.safetensors")["steps"] == 12 and model_facts("m.safetensors")["hidden"] == 8
    assert lab.kept_settings("m.safetensors") == replace(TINY, steps=12) and lab.kept_settings("other") is None
    train(settings=None, out="m.safetensors", resume=True)
    assert model_facts("m.safetensors")["steps"] == 12
    (finished / "m.checkpoint.safetensors").unlink()
    checkpoint.save("m.checkpoint.safetensors", {"about": {}})
    with pytest.raises(
        FormatError, match=r"m.checkpoint.safetensors: expected the checkpoint of a run of the text lab"
    ):
        train(settings=None, out="m.safetensors", resume=True)


@pytest.mark.parametrize("steps", [6, 8, 11])
def test_an_interrupted_run_may_be_longer_or_shorter(here, monkeypatch, steps):
    killed_in_step(monkeypatch, 5)
    with pytest.raises(Killed):
        train(out="m.safetensors")
    settings = replace(TINY, steps=steps, patience=7, validate_every=2)
    model = train(settings=settings, out="m.safetensors", resume=True)
    assert model_facts("m.safetensors")["steps"] == steps
    assert bits(lab.load_model("m.safetensors", "cpu")) == bits(model)


def test_what_decides_the_result_is_refused_by_name(finished, capsys):
    before = contents(finished)
    with pytest.raises(FormatError) as error:
        train(OTHER, replace(TINY, hidden=9, lr=0.03), out="m.safetensors", resume=True)
    for words in (
        "corpus: expected",
        "give the text that the run started with, or train on another text with --from",
        "hidden: expected 8, as at the start, got 9",
        "lr: expected 0.02, as at the start, got 0.03",
    ):
        assert words in str(error.value)
    assert command("prose.txt", "--out", "m.safetensors", "--resume", "--seed", "4") == 2
    assert "seed: expected 0, as at the start, got 4" in capsys.readouterr().err
    assert contents(finished) == before


def test_a_model_without_its_checkpoint_is_not_begun_anew(finished):
    (finished / "m.checkpoint.safetensors").unlink()
    before = contents(finished)
    with pytest.raises(FileExists, match=r"no checkpoint m.checkpoint.safetensors to resume from; .*--from"):
        train(settings=replace(TINY, steps=20), out="m.safetensors", resume=True)
    assert contents(finished) == before


def test_resuming_writes_over_its_own_files_alone(finished, monkeypatch):
    model, longer = (finished / "m.safetensors").read_bytes(), {"settings": replace(TINY, steps=10), "resume": True}
    train(OTHER, out="other.safetensors", log="other.jsonl", plot="other.png")
    with monkeypatch.context() as patch:
        patch.setattr(lab, "new_model", None)  # it is found before any work
        for files in ({"log": "other.jsonl"}, {"plot": "other.png"}):
            with pytest.raises(FileExists, match=r"exists already and is not (the log|a picture) of this run"):
                train(out="m.safetensors", **files, **longer)
    (finished / "m.safetensors").write_bytes((finished / "other.safetensors").read_bytes())
    with pytest.raises(FileExists, match="belongs to another run than"):
        train(out="m.safetensors", **longer)
    (finished / "m.safetensors").write_bytes(model)
    train(out="m.safetensors", log="log.jsonl", plot="loss.png", **longer)
    train(out="m.safetensors", plot="other.png", **longer, force=True)


@pytest.mark.parametrize("moment", ["before the model", "in the model", "after it"])
def test_no_moment_loses_both_the_checkpoint_and_the_model(here, monkeypatch, moment):
    """A run that dies around the writing of its model leaves what it takes to end it."""
    save = lab.save_model

    def dies(path, *args):
        if moment == "after it":
            save(path, *args)
        if moment == "in the model":
            (here / ".half.tmp").write_bytes(b"half")
        raise Killed

    monkeypatch.setattr(lab, "save_model", dies)
    with pytest.raises(Killed):
        train(out="m.safetensors")
    monkeypatch.setattr(lab, "save_model", save)
    model = train(out="m.safetensors", resume=True)
    whole = train(out="whole.safetensors")
    assert bits(model) == bits(whole)
    assert (here / "m.safetensors").read_bytes() == (here / "whole.safetensors").read_bytes()


class Gone(io.StringIO):
    """A stream that nobody reads any more."""

    def __init__(self, terminal):
        super().__init__()
        self.isatty = lambda: terminal

    def write(self, text):
        raise BrokenPipeError


@pytest.mark.parametrize("terminal", [False, True])
def test_a_run_whose_words_nobody_reads_is_finished_all_the_same(here, terminal):
    """What cannot be shown is not shown; and the model is written before anything is said of it."""

    def say(line):
        if line.startswith("best validation loss"):
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        train(out="m.safetensors", progress=Gone(terminal), say=say)
    assert model_facts("m.safetensors")["steps"] == 8


@pytest.mark.parametrize("options", [{}, {"force": True}, {"resume": True}])
def test_of_two_runs_at_once_the_second_is_refused(here, monkeypatch, options):
    """It is refused although the first has written nothing yet."""
    whole, refused = training.language_loss, []

    def loss(model, batch, state):
        if not refused:
            refused.append(True)
            with pytest.raises(FileExists, match=r"m.checkpoint.safetensors: another run is writing it now; wait"):
                train(out="m.safetensors", **options)
            with pytest.raises(FileExists, match=r"log.jsonl: another run is writing it now; wait"):
                train(out="n.safetensors", log="log.jsonl", **options)
        return whole(model, batch, state)

    monkeypatch.setattr(training, "language_loss", loss)
    train(out="m.safetensors", log="log.jsonl")
    names = {"m.safetensors", "m.checkpoint.safetensors", "log.jsonl", "prose.txt", "other.txt"}
    assert refused and {path.name for path in here.iterdir()} == names


# -- training a model further on other text ------------------------------------------------------------------


def test_a_model_is_trained_further_on_other_text(finished, capsys):
    before = (finished / "m.safetensors").read_bytes()
    base = lab.load_model("m.safetensors", "cpu")
    files = ("--from", "m.safetensors", "--out", "n.safetensors")
    assert _run(["text", "train", "other.txt", *files, "--steps", "6", "--batch", "2", "--device", "cpu"]) == 0
    model = lab.load_model("n.safetensors", "cpu")
    assert model.vocabulary.tokens == base.vocabulary.tokens and model.config == base.config
    assert bits(model) != bits(base) and (finished / "m.safetensors").read_bytes() == before
    facts = model_facts("n.safetensors")
    assert facts["hidden"] == 8 and facts["steps"] == 6 and facts["from"]


def test_resuming_needs_the_model_that_a_run_began_from_no_more(finished, monkeypatch):
    """Its vocabulary is that of the first model, not of the text alone; it may be gone, or be the run's own file."""
    few = "why not? " * 80  # fewer characters than the model knows
    settings, longer = replace(TINY, dropout=0.4), replace(TINY, dropout=0.4, steps=12)
    train(few, settings, model="m.safetensors", out="n.safetensors")
    shutil.copy("n.checkpoint.safetensors", "o.checkpoint.safetensors")
    with_it = train(few, longer, model="m.safetensors", out="n.safetensors", resume=True)
    assert bits(train(few, longer, out="o.safetensors", resume=True)) == bits(with_it)
    assert with_it.vocabulary.tokens == lab.load_model("m.safetensors", "cpu").vocabulary.tokens
    train(few, settings, model="m.safetensors", out="m.safetensors", force=True)
    with pytest.raises(
        FormatError,
        match=r"from: expected .*; from is the model that the run started from: leave out --from \(model=\)",
    ):
        train(few, longer, model="m.safetensors", out="m.safetensors", resume=True)
    assert bits(train(few, longer, out="m.safetensors", resume=True)) == bits(with_it)


def test_training_further_begins_at_the_loss_that_was_reached(finished):
    long = train(settings=replace(TINY, steps=50), out="long.safetensors")
    settings = replace(lab.settings_of(long), steps=1, batch=4, window=8, lr=1e-9, validate_every=1)
    lab.train(PROSE, settings, model=long, device="cpu", out="on.safetensors", progress=False)
    reached = model_facts("long.safetensors")["validation_loss"]
    assert model_facts("on.safetensors")["validation_loss"] == pytest.approx(reached, rel=1e-3)


def test_a_model_that_is_given_is_not_changed(finished):
    base = lab.load_model("m.safetensors", "cpu")
    before = bits(base)
    train(OTHER, model=base)
    train(OTHER, model="m.checkpoint.safetensors")
    assert bits(base) == before


def test_a_run_from_a_model_is_resumed_from_its_checkpoint(finished, monkeypatch):
    settings = replace(TINY, dropout=0.4)  # may be another
    whole = train(OTHER, settings, model="m.safetensors", out="whole.safetensors")
    killed_in_step(monkeypatch, 5)
    with pytest.raises(Killed):
        train(OTHER, settings, model="m.safetensors", out="n.safetensors")
    assert bits(train(OTHER, settings, model="m.safetensors", out="n.safetensors", resume=True)) == bits(whole)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--hidden", "9"], "hidden: expected 8, as the model has, got 9"),
        (["--layers", "2", "--embedding", "5"], "embedding: expected 4, as the model has, got 5; layers: expected 1"),
        (["--level", "word"], "level: expected char, as the model has, got word"),
        (["--dtype", "float64"], "dtype: expected float32, as the model has, got float64"),
        (["--vocabulary", "50"], "vocabulary: expected --level word"),
    ],
)
def test_options_that_contradict_the_model_are_refused(finished, options, words, capsys):
    args = ["text", "train", "other.txt", "--from", "m.safetensors", "--out", "n.safetensors", "--device", "cpu"]
    assert _run([*args, *options]) == 2
    assert words in capsys.readouterr().err
    assert not (finished / "n.safetensors").exists()


def test_characters_that_the_model_does_not_know_are_named(finished):
    with pytest.raises(FormatError, match="text: expected characters in the model's vocabulary, got also 'X', 'ß'"):
        train(OTHER + "Xß", None, model="m.safetensors")


def test_words_that_the_model_does_not_know_are_unknown_and_counted(here):
    words = replace(TINY, level="word", batch=2)
    base, said = train(settings=words), []
    more = replace(lab.settings_of(base), batch=2, window=8, steps=2)
    model = train(OTHER + "Entirely new words. " * 5, more, model=base, say=said.append)
    assert model.vocabulary.tokens == base.vocabulary.tokens
    assert any("words to train on; they become <unk>" in line for line in said)


def test_a_model_with_nan_says_so(finished):
    model = lab.load_model("m.safetensors", "cpu")
    model.linear.bias.data[0] = np.nan
    with pytest.raises(NotFinite, match=r"linear\.bias: expected finite numbers"):
        lab.sample(model, "It")
    with pytest.raises(NotFinite, match=r"linear\.bias: expected finite numbers"):
        train(OTHER, None, model=model)
    lab.save_model("nan.safetensors", model)
    for act in (lambda: lab.load_model("nan.safetensors"), lambda: train(OTHER, None, model="nan.safetensors")):
        with pytest.raises(GpulstmError, match=r"linear\.bias: expected finite numbers"):
            act()
    model.linear.bias.data[:], model.lstm.bias_ih_l0.data[:] = 0, 10
    for row, weight in ((0, 3e38), (slice(None), -3e38)):  # one logit is infinite; then all are, below zero
        model.linear.weight.data[row] = weight
        with pytest.raises(NotFinite, match="logits: expected finite numbers, got others"), np.errstate(all="ignore"):
            list(lab.sample(model, "It", 3))


def test_arguments_of_another_kind_are_named():
    with pytest.raises(DTypeError, match="text: expected a string, got list"):
        train(["a"])
    with pytest.raises(FormatError, match="resume: expected out="):
        train(resume=True)
    with pytest.raises(ShapeError, match="hidden: expected 8, as the model has, got 256"):
        train(settings=lab.Settings(embedding=4), model=train())
    with pytest.raises(DTypeError, match=r"settings: expected Settings\(...\) or None, got {'hidden': 3}"):
        train(settings={"hidden": 3})
    with pytest.raises(DTypeError, match="model: expected a TextModel, its file or None, got Linear"):
        train(model=Linear(2, 2))


# -- sampling ------------------------------------------------------------------------------------------------


def test_sampling_in_training_mode_is_as_in_use_and_moves_no_generator(finished, monkeypatch):
    model = lab.load_model("m.safetensors", "cpu")
    want = "".join(lab.sample(model, "It ", 30, seed=1))
    model.dropout.rate, _ = 0.9, model.train()
    before = random.generator_state(random.default_generator())
    pieces = lab.sample(model, "It ", 30, seed=1)
    got = next(pieces)
    assert model.training and model.dropout.training  # between two tokens, not only at the end
    got += "".join(pieces)
    assert got == want and model.training
    assert random.generator_state(random.default_generator()) == before
    monkeypatch.setattr(lab.TextModel, "forward", lambda *_: {}["no such"])
    with pytest.raises(KeyError):
        next(lab.sample(model, "It"))
    assert model.training and model.dropout.training


def test_a_checkpoint_is_sampled_and_described_like_a_model(here, monkeypatch, capsys):
    killed_in_step(monkeypatch, 8)
    with pytest.raises(Killed):
        train(out="m.safetensors")
    tree = checkpoint.load("m.checkpoint.safetensors")
    model = lab.load_model("m.checkpoint.safetensors", "cpu")
    assert tree["run"]["step"] == 6 and bits(model) == {n: a.tobytes() for n, a in tree["run"]["best_model"].items()}
    args = ["m.checkpoint.safetensors", "--length", "9", "--prompt", "It", "--device", "cpu"]
    assert _run(["text", "sample", *args]) == 0
    assert len(capsys.readouterr().out) == 12
    assert _run(["text", "info", "m.checkpoint.safetensors"]) == 0
    shown = capsys.readouterr().out
    assert "step: 6" in shown and "hidden: 8" in shown and "tokens of level char" in shown
    checkpoint.save("foreign", {"model": {}, "run": {}})
    with pytest.raises(FormatError, match="foreign: expected a gpulstm text model, got "):
        lab.load_model("foreign")


# -- what is said --------------------------------------------------------------------------------------------


def test_quiet_says_nothing(here, capsys):
    assert command("prose.txt", "--out", "m.safetensors", "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    assert command("prose.txt", "--out", "m.safetensors", "-q") == 2
    assert capsys.readouterr().err.startswith("gpulstm: error: m.safetensors")


def test_an_early_stop_is_told(here, capsys):
    files = ("--out", "m.safetensors", "--patience", "1", "--validate-every", "1", "--lr", "1e-30")
    assert _run(["text", "train", "prose.txt", *OPTIONS, *files]) == 0
    out, err = capsys.readouterr()
    assert re.search(r"stopped early, after step \d of 8 steps: 1 validation without a better val_loss; the model", err)
    assert re.search(r"best validation loss: .*, at step \d of \d", out)


def test_an_option_without_use_is_refused(here, capsys):
    assert command("prose.txt", "--vocabulary", "50") == 2
    assert "vocabulary: expected --level word" in capsys.readouterr().err


def test_no_command_is_printed_that_cannot_work(here, monkeypatch, capsys):
    """Two Ctrl-C before the first checkpoint, and one or two after it."""
    monkeypatch.setattr("sys.argv", ["gpulstm", "text", "train", "prose.txt"])
    whole = training.language_loss

    def pressing(times, step):
        count = iter(range(1, 1000))

        def loss(model, batch, state):
            for _ in range(times if model.training and next(count) == step else 0):
                signal.raise_signal(signal.SIGINT)
            return whole(model, batch, state)

        monkeypatch.setattr(training, "language_loss", loss)

    for times, step, printed in ((2, 2, False), (2, 5, True), (1, 2, True)):
        pressing(times, step)
        assert command("prose.txt", "--out", f"{times}{step}.safetensors", "--checkpoint-every", "3") == 130
        shown = capsys.readouterr().err
        assert ("resume with: gpulstm text train prose.txt --resume" in shown) == printed, shown
        assert ("no checkpoint was written" in shown) == (not printed)


def test_a_file_whose_name_begins_with_a_dash_is_no_option_of_the_command_printed(here, monkeypatch, capsys):
    whole = training.language_loss

    def loss(model, batch, state):
        signal.raise_signal(signal.SIGINT)
        return whole(model, batch, state)

    (here / "-t.txt").write_text(PROSE)
    monkeypatch.setattr(training, "language_loss", loss)
    monkeypatch.setattr("sys.argv", ["gpulstm", "text", "train", "--out", "m.safetensors", "--", "-t.txt"])
    assert command("--out", "m.safetensors", "--", "-t.txt") == 130
    assert "resume with: gpulstm text train --out m.safetensors --resume -- -t.txt" in capsys.readouterr().err

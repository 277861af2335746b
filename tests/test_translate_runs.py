"""The commands of the translation lab, broken input, and runs that are stopped and go on."""

import gzip
import json
import re
import subprocess
import sys
import time

import pytest

from benchmarks import translate as benchmark
from gpulstm.cli import _run
from gpulstm.errors import FileExists, FormatError
from gpulstm.labs.estimator import Run
from gpulstm.labs.files import RunFiles
from gpulstm.labs.translate import Translator
from gpulstm.train.interrupt import Interrupted
from tests.conftest import require
from tests.test_translate_lab import FIGURES, NUMBERS, SMALL

QUICK = ["--hidden", "8", "--embedding", "6", "--epochs", "2", "--batch", "16", "--device", "cpu"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in, with two parallel files and a table."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("".join(f"{line}\n" for line in NUMBERS))
    (tmp_path / "b.txt").write_text("".join(f"{line}\n" for line in FIGURES))
    rows = zip(NUMBERS, FIGURES, strict=True)
    (tmp_path / "t.tsv.gz").write_bytes(gzip.compress("".join(f"{a}\t{b}\n" for a, b in rows).encode()))
    return tmp_path


def translate(*args):
    return _run(["translate", *args])


def files_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# -- the commands --------------------------------------------------------------------------------------------


def test_the_default_command_and_what_it_leaves(here, capsys):
    before = set(files_in(here))
    assert translate("train", "--pairs", "200", *QUICK) == 0
    said = capsys.readouterr().out
    for words in (
        "200 dates, generated", "180 to train and validate on, 20 to test", "exact matches: ", "BLEU: ",
        "token accuracy", "    -> ", "picture: translate.png", "gpulstm translate predict translate.safetensors",
    ):  # fmt: skip
        assert words in said
    assert set(files_in(here)) - before == {
        "translate.safetensors", "translate.checkpoint.safetensors", "translate.png"
    }  # fmt: skip
    assert (here / "translate.png").read_bytes().startswith(b"\x89PNG")
    assert translate("info", "translate.safetensors") == 0
    assert "Translator(" in capsys.readouterr().out


def test_files_and_what_predict_makes_of_them(here, capsys, monkeypatch):
    options = [*QUICK, "--lr", "0.02", "--hidden", "32", "--embedding", "32", "--epochs", "40", "--test", "9", "-q"]
    assert translate("train", "a.txt", "b.txt", *options, "--out", "m.safetensors") == 0
    assert capsys.readouterr() == ("", "")
    assert translate("train", "t.tsv.gz", *options, "--out", "n.safetensors", "--lowercase", "--untied") == 0
    capsys.readouterr()
    (here / "new.txt").write_text("Two Three\n\nOne\n")
    assert translate("predict", "m.safetensors", "new.txt", "new.txt") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and lines[1] == "" and lines[:3] == lines[3:] and lines[2] == "1"
    assert translate("predict", "m.safetensors", "new.txt", "--beam", "1", "--length-penalty", "0") == 0
    assert capsys.readouterr().out.splitlines()[2] == "1"
    assert translate("predict", "m.safetensors", "new.txt", "--picture", "p.png") == 0
    capsys.readouterr()
    assert (here / "p.png").read_bytes().startswith(b"\x89PNG")
    picture = (here / "p.png").read_bytes()
    assert translate("predict", "m.safetensors", "a.txt", "--picture", "p.png") == 2
    assert "p.png: exists already" in capsys.readouterr().err and (here / "p.png").read_bytes() == picture
    assert translate("predict", "m.safetensors", "a.txt", "--picture", "p.png", "--force") == 0
    assert len(capsys.readouterr().out.splitlines()) == len(NUMBERS)
    command = [sys.executable, "-m", "gpulstm", "translate", "predict", "m.safetensors"]
    done = subprocess.run(command, input="One\nTwo\n", capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "2"]


def test_a_model_starts_quickly(here):
    """In a second on a machine at rest; what it takes of the processor does not depend on what else runs."""
    Translator(**SMALL).fit(NUMBERS, FIGURES).save("m.safetensors")
    code = (
        "import sys, time, gpulstm.cli as c; "
        "code = c._run(['translate', 'predict', 'm.safetensors', 'a.txt']); "
        "print(time.process_time(), 'torch' in sys.modules, 'tokenizers' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, torch, tokenizers = done.stderr.split()
    assert float(seconds) < 2 and (torch, tokenizers) == ("False", "False")


def test_the_first_pairs_and_empty_ones(here, capsys):
    (here / "a.txt").write_text("\n" + (here / "a.txt").read_text())
    (here / "b.txt").write_text("x\n" + (here / "b.txt").read_text())
    assert translate("train", "a.txt", "b.txt", "--skip-empty", "--pairs", "50", *QUICK) == 0
    assert "pairs: 50; 45 to train and validate on, 5 to test" in capsys.readouterr().out
    assert translate("train", "a.txt", "b.txt", "--skip-empty", "--max-length", "2", "--force", *QUICK) == 0
    assert re.search(r"left out: \d+ pairs of more than 2 tokens", capsys.readouterr().out)


# -- broken input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["none.txt", "b.txt"], "none.txt"),
        (["a.txt", "none.txt"], "none.txt"),
        (["."], "."),
        (["a.txt"], "a.txt, line 1: expected a sentence, a tab and its translation, got 1 cell"),
        (["a.txt", "a.txt"], "target: expected another file than source"),
        (["a.txt", "b.txt", "t.tsv.gz"], "files: expected SOURCE and TARGET, or one TSV, got 3 files"),
        (["a.txt", "short.txt"], "short.txt: expected 120 lines, as many as a.txt has, got 2"),
        (["short.txt", "b.txt"], "short.txt: expected 120 lines, as many as b.txt has, got 2"),
        (["a.txt", "gaps.txt"], "got empty lines: gaps.txt, line 2, gaps.txt, line 4; --skip-empty"),
        (["empty.txt"], "empty.txt: expected pairs of sentences, got none"),
        (["empty.txt", "b.txt"], "empty.txt: expected 120 lines, as many as"),
        (["latin.txt", "b.txt"], "latin.txt: expected UTF-8 text, got byte 0xfc"),
        (["zero.txt", "b.txt"], "zero.txt: expected UTF-8 text, got binary data"),
        (["cut.tsv.gz"], "cut.tsv.gz: expected a whole gzip file"),
        (["columns.tsv"], "columns.tsv, line 2: expected a sentence, a tab and its translation, got 3 cells"),
        (["a.txt", "b.txt", "--encoding", "klingon"], "encoding: expected e.g. utf-8"),
        (["a.txt", "b.txt", "--encoding", "utf-16"], "utf-16"),
        (["a.txt", "b.txt", "--level", "letter"], "letter"),
        (["a.txt", "b.txt", "--pairs", "3"], "pairs: expected a whole number from 4"),
        (["a.txt", "b.txt", "--test", "0"], "test: expected a share below 1, or a number of pairs from 1 to 118"),
        (["a.txt", "b.txt", "--test", "119"], "test: expected a share below 1"),
        (["a.txt", "b.txt", "--test", "1.5"], "test: expected a share below 1"),
        (["a.txt", "b.txt", "--validation", "1"], "validation_fraction"),
        (["a.txt", "b.txt", "--hidden", "0"], "hidden_size"),
        (["a.txt", "b.txt", "--epochs", "0"], "epochs"),
        (["a.txt", "b.txt", "--batch", "0"], "batch"),
        (["a.txt", "b.txt", "--batch", "x"], "batch"),
        (["a.txt", "b.txt", "--beam", "0"], "beam_width"),
        (["a.txt", "b.txt", "--vocabulary", "1"], "vocabulary_size"),
        (["a.txt", "b.txt", "--min-count", "999"], "min_count"),
        (["a.txt", "b.txt", "--smoothing", "2"], "label_smoothing"),
        (["a.txt", "b.txt", "--length-penalty", "-1"], "length_penalty"),
        (["a.txt", "b.txt", "--seed", "-1"], "random_state"),
        (["a.txt", "b.txt", "--out", "no/such/m.safetensors"], "cannot be written"),
        (["a.txt", "b.txt", "--out", "a.txt"], "a.txt"),
        (["a.txt", "b.txt", "--log", "b.txt"], "b.txt"),
        (["a.txt", "b.txt", "--out", "b.txt", "--force"], "b.txt is already an input FILE"),
        (["a.txt", "b.txt", "--picture", "p.xyz"], "p.xyz"),
        (["a.txt", "b.txt", "--picture", "p.png", "--plot", "p.png"], "--picture"),
        (["a.txt", "b.txt", "--device", "cuda:99"], "cuda"),
        (["--pairs", "2"], "pairs: expected a whole number from 4"),
    ],
)
def test_broken_input_is_refused_in_one_line(here, args, words, capsys):
    (here / "short.txt").write_text("1\n2\n")
    (here / "gaps.txt").write_text("1\n\n3\n \n" + "5\n" * (len(NUMBERS) - 4))
    (here / "empty.txt").write_text("")
    (here / "latin.txt").write_bytes("für\n".encode("latin-1") * len(NUMBERS))
    (here / "zero.txt").write_bytes(b"1\n\0\n")
    (here / "cut.tsv.gz").write_bytes((here / "t.tsv.gz").read_bytes()[:-20])
    (here / "columns.tsv").write_text("a\tb\na\tb\tc\n")
    before = files_in(here)
    usual = [
        word for name, value in zip(QUICK[::2], QUICK[1::2], strict=True) if name not in args for word in (name, value)
    ]
    assert translate("train", *args, *usual) == 2
    said = capsys.readouterr()
    assert said.err.startswith("gpulstm: error: ") and said.err.count("\n") == 1 and words in said.err
    assert files_in(here) == before


def test_predict_refuses_what_it_cannot_use(here, capsys):
    Translator(**SMALL).fit(NUMBERS, FIGURES).save("m.safetensors")
    (here / "empty.txt").write_text("")
    (here / "zero.txt").write_bytes(b"\0\n")
    before = files_in(here)
    for args, words in (
        (["none.safetensors"], "none.safetensors"),
        (["a.txt"], "a.txt: not a whole safetensors file"),
        (["m.safetensors", "none.txt"], "none.txt"),
        (["m.safetensors", "zero.txt"], "zero.txt: expected UTF-8 text, got binary data"),
        (["m.safetensors", "a.txt", "--beam", "0"], "beam: expected a whole number from 1"),
        (["m.safetensors", "a.txt", "--length-penalty", "-1"], "length_penalty"),
        (["m.safetensors", "a.txt", "--encoding", "x"], "encoding: expected"),
        (["m.safetensors", "a.txt", "--picture", "p.xyz"], "p.xyz: expected a picture"),
        (
            ["m.safetensors", "empty.txt", "--picture", "p.png"],
            "picture: expected a sentence to draw, got none in empty",
        ),
        (["m.safetensors", "a.txt", "--device", "cuda:99"], "cuda"),
    ):
        assert translate("predict", *args) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1 and words in said.err
    assert files_in(here) == before


# -- runs that are stopped -----------------------------------------------------------------------------------


def dying_in_step(monkeypatch, step, error=Interrupted):
    calls, loss = iter(range(1, 1000)), Translator._loss

    def dying(self, model, batch, state):
        if model.training and next(calls) == step:
            raise error
        return loss(self, model, batch, state)

    monkeypatch.setattr(Translator, "_loss", dying)


@pytest.mark.parametrize("step", [3, 8, 15])
def test_a_run_stopped_in_any_step_goes_on_to_the_same_bits(tmp_path, monkeypatch, step):
    options = {**SMALL, "dropout": 0.2, "epochs": 3}
    run = {"files": RunFiles.of(tmp_path / "b.safetensors"), "checkpoint_every": 2}
    whole = Translator(**options).fit(NUMBERS, FIGURES, run=Run(RunFiles.of(tmp_path / "a.safetensors")))
    dying_in_step(monkeypatch, step)
    with pytest.raises(Interrupted):
        Translator(**options).fit(NUMBERS, FIGURES, run=Run(**run))
    monkeypatch.undo()
    best_so_far = Translator.load(tmp_path / "b.checkpoint.safetensors", "cpu")
    assert len(best_so_far.predict(["One"])) == 1
    resumed = Translator(**options).fit(NUMBERS, FIGURES, run=Run(**run, resume=True))
    assert resumed.predict(NUMBERS[:9]) == whole.predict(NUMBERS[:9])
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_run_of_other_data_or_parameters_is_not_gone_on_with(tmp_path):
    run = {"files": RunFiles.of(tmp_path / "a.safetensors")}
    Translator(**SMALL).fit(NUMBERS, FIGURES, run=Run(**run))
    with pytest.raises(FileExists, match=r"a\.safetensors"):
        Translator(**SMALL).fit(NUMBERS, FIGURES, run=Run(**run))
    with pytest.raises(FormatError, match="the training data differ"):
        Translator(**SMALL).fit(NUMBERS, FIGURES[::-1], run=Run(**run, resume=True))
    with pytest.raises(FormatError, match=r"label_smoothing: expected 0\.1, as at the start, got 0\.2"):
        Translator(**SMALL, label_smoothing=0.2).fit(NUMBERS, FIGURES, run=Run(**run, resume=True))
    assert Translator(**{**SMALL, "epochs": 4}).fit(NUMBERS, FIGURES, run=Run(**run, resume=True)).n_iter_ == 4


def test_a_stopped_command_goes_on_to_the_same_bits(here, monkeypatch, capsys):
    args = ["train", "a.txt", "b.txt", *QUICK, "--dropout", "0.2", "--checkpoint-every", "1"]
    monkeypatch.setattr("sys.argv", ["gpulstm", "translate", *args, "--out", "b.safetensors"])
    assert translate(*args, "--out", "a.safetensors") == 0
    dying_in_step(monkeypatch, 9, KeyboardInterrupt)
    assert translate(*args, "--out", "b.safetensors") == 130
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert not (here / "b.safetensors").exists() and not (here / "b.png").exists()
    assert translate(*args, "--out", "b.safetensors") == 2
    assert "continue the run with --resume" in capsys.readouterr().err
    assert translate(*args, "--out", "b.safetensors", "--resume") == 0
    assert "resuming from b.checkpoint.safetensors, after step 8" in capsys.readouterr().out
    assert (here / "a.safetensors").read_bytes() == (here / "b.safetensors").read_bytes()
    assert (here / "a.png").read_bytes() == (here / "b.png").read_bytes()
    assert translate(*args, "--out", "a.safetensors", "--resume") == 0  # the run is finished: tested again


def test_a_second_run_into_the_same_files_is_refused_before_any_work(here, capsys):
    assert translate("train", "a.txt", "b.txt", *QUICK, "-q") == 0
    before, began = files_in(here), time.perf_counter()
    assert translate("train", "a.txt", "b.txt", *QUICK, "-q") == 2
    assert "translate.safetensors" in capsys.readouterr().err and files_in(here) == before
    assert time.perf_counter() - began < 5


def test_the_benchmark_works(here, capsys):
    require("sacrebleu")
    assert benchmark.main(["--quick", "--hidden-size", "12", "--out", "results"]) == 0
    (row,) = json.loads((here / "results" / "translate-dates.json").read_text())["rows"]
    assert row["hidden_size"] == 12 and 0 <= row["test_beam"] <= 100 and row["pairs"] == 100
    assert "| gpulstm, this run |" in (here / "results" / "translate-dates.md").read_text()
    assert len((here / "results" / "translate-dates.log.jsonl").read_text().splitlines()) == 2
    assert benchmark.main(["--data", "nowhere", "--validation-only"]) == 2

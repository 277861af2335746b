"""The commands, driven as processes: what they print, where they end, and what they leave behind."""

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpulstm.io.files import save_arrays
from tests.conftest import with_path

PROSE = "It isn't far: 2 miles, he said.\nLet's go now, why not?\n" * 60
TINY = [
    "--embedding", "6", "--hidden", "12", "--batch", "4", "--window", "16", "--steps", "60", "--lr", "0.02",
    "--warmup", "5", "--validate-every", "15", "--checkpoint-every", "7", "--device", "cpu",
]  # fmt: skip
# One thread a process: these tests run beside each other, and tiny products gain nothing from two.
ENVIRONMENT = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}


def with_ctrl_c() -> None:
    """A shell that runs the tests in the background lets them ignore Ctrl-C; these processes must not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*args, **options):
    """A process under way, to be used as a context; its streams are text."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8", "env": ENVIRONMENT}
    return subprocess.Popen(command(*args), preexec_fn=with_ctrl_c, **pipes | options)


def command(*args):
    return [sys.executable, "-m", "gpulstm", *map(str, args)]


def run(*args, **options):
    options = {
        "capture_output": True,
        "text": True,
        "encoding": "utf-8",
        "env": ENVIRONMENT,
        "timeout": 120,
    } | options
    return subprocess.run(command(*args), **options)


def refused(done, *words):
    """Exit code 2, and one line on standard error that has the words."""
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert done.stderr.startswith("gpulstm: error: ") and done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr, (word, done.stderr)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "prose.txt"
    path.write_text(PROSE, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory, corpus):
    """(the model's file, the finished process, the folder) of a run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("trained")
    args = ["--out", "m.safetensors", "--log", "log.jsonl", "--plot", "loss.png"]
    done = run("text", "train", corpus, *TINY, *args, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "m.safetensors", done, folder


# -- gpulstm, gpulstm info -----------------------------------------------------------------------------------


def test_version_and_help():
    assert re.fullmatch(r"gpulstm,? (version )?\d+\.\d+\.\d+\n", run("--version").stdout)
    shown = run("text", "train", "--help").stdout
    for option in ("--hidden", "--layers", "--resume", "--plot", "[default: 256]"):
        assert option in shown
    done = run()
    assert "text" in done.stderr + done.stdout and "info" in done.stderr + done.stdout


def test_info_tells_what_is_here():
    done = run("info")
    assert done.returncode == 0 and done.stderr == ""
    for line in ("gpulstm", "Python", "NumPy", "CuPy", "CUDA", "processor", "engine", "kernels"):
        assert re.search(rf"^{line} +\S", done.stdout, re.MULTILINE), line
    assert re.search(r"^(GPU +none: \S|cuda:0 +\S)", done.stdout, re.MULTILINE)
    if "not compiled" not in done.stdout:
        assert re.search(r"^  step Lstm +float32", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise ModuleNotFoundError(\"No module named 'cupy'\", name='cupy')", "CuPy is not installed"),
        ("raise ImportError('libcuda is cut\\nin two')", "cannot be imported: ImportError: libcuda is cut"),
        (
            "__version__ = '14.0'",
            "GPU +none: unknown: AttributeError|GPU +none: CUDA does not start|GPU +none: CuPy",
        ),
    ],
)
def test_info_survives_every_kind_of_broken_cupy(tmp_path, source, reason):
    (tmp_path / "cupy.py").write_text(source)
    done = run("info", env=ENVIRONMENT | with_path(tmp_path))
    assert done.returncode == 0, done.stderr
    assert re.search(reason, done.stdout) and "not compiled" in done.stdout


def test_shells_complete_by_clicks_own_mechanism():
    for shell, word in (("bash", "complete -o nosort"), ("zsh", "compdef"), ("fish", "complete --no-files")):
        done = run(env={**ENVIRONMENT, "_GPULSTM_COMPLETE": f"{shell}_source"})
        assert done.returncode == 0 and word in done.stdout and done.stderr == "", done.stderr
    words = {"_GPULSTM_COMPLETE": "bash_complete", "COMP_WORDS": "gpulstm text train --re", "COMP_CWORD": "3"}
    assert run(env={**ENVIRONMENT, **words}).stdout == "plain,--resume\n"
    words |= {"COMP_WORDS": "gpulstm te", "COMP_CWORD": "1"}
    assert run(env={**ENVIRONMENT, **words}).stdout == "plain,text\n"


# -- gpulstm text train, sample ------------------------------------------------------------------------------


def test_train_tells_what_it_does_and_leaves_a_model(trained):
    _, done, folder = trained
    for words in (
        "3,300 characters, vocabulary of",
        "330 held out",
        "device: cpu",
        "lstm",
        "validation loss",
        "nats per char",
    ):
        assert words in done.stdout, words
    assert "sample from it: gpulstm text sample m.safetensors" in done.stdout
    assert re.search(r"step +15/60  loss \d\.\d+  validation \d\.\d+  [\d,]+ tokens/s  0:\d\d left", done.stderr)
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert records[-1]["step"] == 60 and records[-1]["val_loss"] < records[0]["loss"]
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    names = ["log.jsonl", "loss.png", "m.checkpoint.safetensors", "m.safetensors"]
    assert sorted(p.name for p in folder.iterdir()) == names


def test_sample_writes_after_the_prompt(trained):
    model, *_ = trained
    options = ["--prompt", "It is", "--length", "40", "--seed", "7", "--device", "cpu"]
    done = run("text", "sample", model, *options)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith("It is") and len(done.stdout) == 46 and done.stdout.endswith("\n")
    assert run("text", "sample", model, *options).stdout == done.stdout
    for extra in (["--temperature", "0"], ["--top-k", "1"], ["--top-p", "0.0001"]):
        likeliest = run("text", "sample", model, *options, *extra).stdout
        assert likeliest == run("text", "sample", model, *options[:-4], "--temperature", "0", "--device", "cpu").stdout


def test_text_comes_as_it_is_made(trained):
    """The first characters arrive while the process is still at work on the rest."""
    with start("text", "sample", trained[0], "--length", "100000000", "--seed", "1") as process:
        assert len(process.stdout.read(50)) == 50 and process.poll() is None
        process.kill()


def test_standard_input_and_several_files(corpus, tmp_path):
    other = tmp_path / "other.txt"
    other.write_bytes(b"\xef\xbb\xbf" + "Ein Satz mit ä, ö und ü.\r\n".encode() * 30)
    done = run("text", "train", "-", other, *TINY, "--steps", "2", "--out", tmp_path / "m.safetensors", input=PROSE)
    assert done.returncode == 0, done.stderr
    assert f"{len(PROSE) + 2 + 30 * 25:,} characters" in done.stdout


def test_words_of_a_prompt_that_are_unknown_are_named(corpus, tmp_path):
    model = tmp_path / "words.safetensors"
    done = run("text", "train", corpus, *TINY, "--level", "word", "--steps", "2", "--out", model)
    assert done.returncode == 0 and "perplexity" in done.stdout, done.stderr
    done = run("text", "sample", model, "--prompt", "It isn't zyxw", "--length", "3", "--device", "cpu")
    assert done.returncode == 0 and done.stdout.startswith("It isn't zyxw")
    assert done.stderr == "gpulstm: not in the vocabulary, read as <unk>: ' zyxw'\n"


def test_a_prompt_and_a_sample_that_the_terminal_cannot_show(trained):
    done = run("text", "sample", trained[0], "--length", "5", env={**ENVIRONMENT, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr


# -- stopping at any moment ----------------------------------------------------------------------------------


def start_training(corpus, folder, *extra):
    args = ["text", "train", corpus, *TINY, "--out", "m.safetensors", "--log", "log.jsonl", *extra]
    return start(*args, cwd=folder)


def interrupt_training(corpus, folder, number=signal.SIGINT):
    """Send a signal after the first line of progress; return the exit code and what went to standard error."""
    with start_training(corpus, folder) as process:
        process.stderr.readline()
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def test_killed_at_random_moments_and_resumed_it_leaves_the_same_bytes(trained, corpus, tmp_path):
    moments, killed = random.Random(0), 0
    for _ in range(6):
        with start_training(corpus, tmp_path, "--resume") as process:
            process.stdout.readline()  # starting Python takes longer than all the rest
            time.sleep(moments.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
            process.communicate()
        killed += process.returncode == -signal.SIGKILL
    with start_training(corpus, tmp_path, "--resume") as process:
        process.communicate()
    assert process.returncode == 0 and killed >= 1
    assert (tmp_path / "m.safetensors").read_bytes() == trained[0].read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_says_how_to_go_on_and_exits_with_its_number(trained, corpus, tmp_path, number):
    code, errors = interrupt_training(corpus, tmp_path, number)
    assert code == 128 + number and "Traceback" not in errors, errors
    assert re.search(r"stopped after step \d+ of 60; saved: m.checkpoint.safetensors", errors)
    (line,) = [line for line in errors.splitlines() if line.startswith("resume with: ")]
    assert line.endswith("--log log.jsonl --resume")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.jsonl", "m.checkpoint.safetensors"]
    with start_training(corpus, tmp_path, "--resume") as process:
        shown, progress = process.communicate()
    assert process.returncode == 0 and "resuming from m.checkpoint.safetensors" in shown
    assert "60/60" in progress and "15/60" not in progress  # it was seen before the key was pressed
    assert (tmp_path / "m.safetensors").read_bytes() == trained[0].read_bytes()


def test_resuming_with_other_options_or_another_text_is_refused(corpus, tmp_path):
    assert interrupt_training(corpus, tmp_path)[0] == 130
    args = ["text", "train", corpus, *TINY, "--out", "m.safetensors", "--resume"]
    refused(run(*args, "--hidden", "13", cwd=tmp_path), "hidden: expected 12, as at the start, got 13")
    other = tmp_path / "other.txt"
    other.write_text(PROSE + "More.")
    args[2] = other
    refused(run(*args, cwd=tmp_path), "corpus: expected")


def test_ctrl_c_while_sampling_is_quiet(trained):
    with start("text", "sample", trained[0], "--length", "100000000") as process:
        process.stdout.read(5)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors.strip() == ""


def test_a_reader_that_goes_away_is_quiet(trained):
    with start("text", "sample", trained[0], "--length", "100000000") as process:
        process.stdout.read(5)
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_a_loss_that_is_not_finite_exits_with_1_and_one_line(corpus, tmp_path):
    args = ["--lr", "1e38", "--clip", "1e38", "--out", tmp_path / "m.safetensors", "--checkpoint-every", "1"]
    done = run("text", "train", corpus, *TINY, *args)
    assert done.returncode == 1, done.stderr
    assert (
        re.search(r"^gpulstm: error: .*expected .*finite.*step \d+; ", done.stderr, re.MULTILINE)
        and "Traceback" not in done.stderr
    )


# -- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["bad.txt: expected text, got an empty file"]),
        (b"\x7fELF\0\0", ["bad.txt: expected UTF-8 text, got binary data"]),
        (b"caf\xe9", ["bad.txt: expected UTF-8 text, got byte 0xe9 at 3"]),
        (b"too small", ["corpus: expected at least 11 tokens"]),
        (
            b"shorter than a window" * 2,
            ["expected at least 65 tokens to train on, for 4 streams of 16", "got 37"],
        ),
    ],
)
def test_texts_that_cannot_be_used(tmp_path, content, words):
    (tmp_path / "bad.txt").write_bytes(content)
    refused(run("text", "train", "bad.txt", *TINY, cwd=tmp_path), *words)
    assert [p.name for p in tmp_path.iterdir()] == ["bad.txt"]


def test_texts_that_cannot_be_read(tmp_path):
    refused(run("text", "train", "missing.txt", *TINY, cwd=tmp_path), "missing.txt: No such file or directory")
    refused(run("text", "train", "two\nlines", *TINY, cwd=tmp_path), "two lines: No such file or directory")
    refused(run("text", "train", ".", *TINY, cwd=tmp_path), ".: expected a folder that `gpulstm text prepare` wrote")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--hidden", "0"], ["hidden: expected at least 1, got 0"]),
        (["--hidden", "many"], ["'--hidden'", "'many'", "gpulstm text train --help"]),
        (["--dropout", "1.5"], ["dropout: expected 0 <= dropout < 1, got 1.5"]),
        (["--lr", "nan"], ["lr: expected a number above 0, got nan"]),
        (["--level", "line"], ["'--level'", "'line'"]),
        (["--checkpoint-every", "0"], ["checkpoint_every: expected at least 1, got 0"]),
        (["--device", "tpu"], ["device: expected 'auto', 'cpu', 'cuda'", "got 'tpu'"]),
        (["--out", "no/such/folder/m.safetensors"], ["no/such/folder/m.safetensors"]),
        (["--out", "."], ["it is a folder"]),
        (["--log", "no/such/log"], ["no/such/log"]),
        (["--plot", "no/such/loss.png"], ["no/such/loss.png"]),
        (["--plot", "loss.doc"], ["loss.doc: expected a picture"]),
        (["--out", "prose.txt"], ["--out", "prose.txt is already an input FILE"]),
        (["--log", "text.safetensors"], ["--log", "is already --out"]),
        (["--nonsense"], ["--nonsense"]),
    ],
)
def test_train_options_that_cannot_be_used(tmp_path, corpus, options, words):
    (tmp_path / "prose.txt").write_text(PROSE)
    refused(run("text", "train", "prose.txt", *TINY, *options, cwd=tmp_path), *words)
    assert [p.name for p in tmp_path.iterdir()] == ["prose.txt"]  # found out before anything is trained or written


def test_cuda_without_a_gpu_gives_the_reason(trained, tmp_path):
    (tmp_path / "cupy.py").write_text("raise ImportError('no libcudart here')")
    environment = ENVIRONMENT | with_path(tmp_path)
    for args in (["train", *TINY], ["sample", trained[0]]):
        done = run("text", *args, "--device", "cuda", env=environment, cwd=tmp_path)
        refused(done, "device 'cuda' cannot be used", "no libcudart here")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--prompt", "It ßX漢"], ["prompt: expected characters in the model's vocabulary, got 'X', 'ß', '漢'"]),
        (["--temperature", "-1"], ["temperature: expected a number from 0 up"]),
        (["--top-k", "0"], ["top_k: expected 1 or more"]),
        (["--top-p", "2"], ["top_p: expected a share above 0"]),
        (["--length", "-5"], ["length: expected 0 or more"]),
        (["--seed", "-1"], ["seed: expected 0 or more"]),
        (["--seed", "x"], ["'--seed'"]),
    ],
)
def test_sample_options_that_cannot_be_used(trained, options, words):
    done = run("text", "sample", trained[0], *options)
    refused(done, *words)
    assert done.stdout == ""


def test_model_files_that_cannot_be_used(trained, tmp_path):
    whole = trained[0].read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text").write_text(PROSE)
    (tmp_path / "empty").write_bytes(b"")
    save_arrays(tmp_path / "foreign", {})
    refused(run("text", "sample", tmp_path / "cut"), "cut: ", "safetensors", "cut off")
    refused(run("text", "sample", tmp_path / "text"), "text: ", "safetensors")
    refused(run("text", "sample", tmp_path / "empty"), "empty: ", "safetensors")
    refused(run("text", "sample", tmp_path / "foreign"), "foreign: expected a gpulstm text model")
    refused(run("text", "sample", tmp_path / "missing"), "missing: No such file")
    refused(run("text", "sample", tmp_path), "Is a directory")


def test_a_full_disk_ends_in_one_line_and_harms_nothing(corpus, tmp_path):
    """A limit on the size of files stands for the disk: the checkpoint of step 7 is over it."""
    (tmp_path / "m.safetensors").write_bytes(b"old")
    done = run(
        "text", "train", corpus, *TINY, "--out", "m.safetensors", "--force", cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "m.checkpoint.safetensors cannot be written: File too large" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"] and (
        tmp_path / "m.safetensors"
    ).read_bytes() == b"old"


def test_streams_that_are_closed_or_full_do_not_end_a_run(corpus, tmp_path):
    for number, streams in enumerate([">&-", "2>&-", "2>/dev/full", ">&- 2>&-"]):
        line = f'exec "$@" --out {number}.safetensors {streams}'
        train = command("text", "train", corpus, *TINY, "--steps", 8)
        done = subprocess.run(
            ["sh", "-c", line, "sh", *train], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, timeout=120
        )
        assert (done.returncode, b"Traceback" in done.stderr) == (0, False), (streams, done.stderr)
        assert (tmp_path / f"{number}.safetensors").exists()


def test_a_plot_without_matplotlib_is_refused_before_training(corpus, tmp_path):
    # A finder that knows no matplotlib stands for a machine that has none.
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'matplotlib' else find(name, *a)\n"
    )
    environment = ENVIRONMENT | with_path(tmp_path)
    done = run("text", "train", corpus, *TINY, "--plot", "loss.png", cwd=tmp_path, env=environment)
    refused(done, "plot: expected matplotlib", "pip install matplotlib")


def test_info_on_a_machine_with_a_device(emulated, monkeypatch):
    from gpulstm import info

    monkeypatch.setattr(info, "kernel_files", lambda: ["dropout"])
    shown = list(info.lines())
    (gpu,) = [line for line in shown if line.startswith("cuda:0 ")]
    assert "GiB free" in gpu and "unknown" not in gpu
    assert shown[-2:] == [
        "kernels    compile on this device for",
        "  dropout              float32, float64, float16, bfloat16",
    ]


def test_info_names_the_kernel_that_does_not_compile(monkeypatch):
    from gpulstm import info

    def compile_kernel(text, real):
        if (text.title, real) == ("step Gru", "float16"):
            raise RuntimeError("step.cu(3): error: no such word\nand more")

    monkeypatch.setattr(info, "_compiler", lambda cupy, works: (compile_kernel, "compile here for"))
    shown = [line for line in info.lines() if line.startswith("  ")]
    assert [line[2:22].rstrip() for line in shown] == [text.title for text in info.kernel_texts()]
    assert {"adam", "step GruBefore", "step_rows LayerNorm"} <= {text.title for text in info.kernel_texts()}
    (line,) = [line for line in shown if line.startswith("  step Gru ")]
    fault = "float16 FAILS (RuntimeError: step.cu(3): error: no such word)"
    assert line == f"  step Gru             float32, float64, {fault}, bfloat16"

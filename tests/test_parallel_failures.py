"""A process that fails, dies or hangs ends all of them, and the run goes on from its checkpoint to the same bits."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from gpulstm.labs.files import checkpoint_path
from gpulstm.train import checkpoint
from tests.conftest import ROOT
from tests.test_parallel import launch, mpiexec

STEPS = 40
WORDS = {
    "raise": r"gpulstm: error: rank {rank} of {n} \(.*, process \d+\): ValueError: planted",
    "sleep": r"gpulstm: error: rank \d of {n} .*: waited 5 s for .* from rank {rank} of {n} \(",
    "STOP": r"gpulstm: error: rank \d of {n} .*: waited 5 s for .* from rank {rank} of {n} \(",
    "leave": r"rank \d of {n} .*: rank {rank} of {n} .* ended while this process waits for ",
    # The launcher tells of these, if it does: their processes are named at the beginning.
    "KILL": r"rank {rank} of {n} \([^)]*, process \d+\)",
    "exit": r"rank {rank} of {n} \([^)]*, process \d+\)",
}


def run(folder, n=2, *what, timeout="30", seconds=100):
    command = [sys.executable, "-m", "tests.parallel_runs", "long_run", folder, *map(str, what)]
    return mpiexec(n, *command, timeout=seconds, TEST_TIMEOUT=timeout)


def bound(what):
    """Seconds to wait for a process: few where it will not come, many where a loaded machine is slow."""
    return "5" if what in ("sleep", "STOP", "leave") else "30"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a run that nothing happens to leaves, by the number of processes."""
    digests = {}
    for n in (1, 2, 3):
        folder = tmp_path_factory.mktemp(f"whole{n}")
        done = run(folder, n)
        assert done.returncode == 0, done.stderr
        digests[n] = (folder / "digest").read_text()
    return digests


def check_goes_on(folder, n, whole, what):
    """The checkpoint is whole, or not there yet, and the run goes on from it to the same bits."""
    if (folder / "run.safetensors").exists():
        assert 0 < checkpoint.load(folder / "run.safetensors")["run"]["step"] <= STEPS, what
    done = run(folder, n)
    assert done.returncode == 0, done.stderr
    assert (folder / "digest").read_text() == whole[n], what
    log = (folder / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == list(range(1, STEPS + 1)), what


@pytest.mark.parametrize("what", WORDS)
@pytest.mark.parametrize("rank", [0, 1])
def test_one_process_ends_all(tmp_path, whole, what, rank):
    began = time.monotonic()
    done = run(tmp_path, 2, what, 8, rank, timeout=bound(what))
    assert done.returncode != 0
    assert time.monotonic() - began < 40
    assert re.search(WORDS[what].format(rank=rank, n=2), done.stderr), done.stderr
    if what == "KILL":
        number = re.search(rf"rank {rank} of 2 .*?process (\d+)", done.stderr)[1]
        assert f"PID {number} RUNNING" in done.stdout
    check_goes_on(tmp_path, 2, whole, what)


@pytest.mark.slow
def test_failures_at_random(tmp_path, whole):
    drawn = random.Random(7)
    for number in range(12):
        folder = tmp_path / str(number)
        folder.mkdir()
        n, what, step = drawn.choice([2, 3]), drawn.choice([*WORDS]), drawn.randrange(1, STEPS)
        planted = f"{what} in {n} processes at step {step}"
        assert run(folder, n, what, step, drawn.randrange(n), timeout=bound(what)).returncode != 0, planted
        check_goes_on(folder, n, whole, planted)


def test_killed_from_outside_at_any_moment(tmp_path, whole):
    drawn = random.Random(3)
    for number in range(4):
        folder = tmp_path / str(number)
        folder.mkdir()
        process = launch(2, sys.executable, "-m", "tests.parallel_runs", "long_run", folder)
        time.sleep(drawn.uniform(0.5, 2.5))
        process.kill()  # the launcher itself; its processes go with it
        process.communicate()
        time.sleep(0.5)
        check_goes_on(folder, 2, whole, f"killed, number {number}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_after_the_same_step(tmp_path, whole, number):
    done = run(tmp_path, 2, number.name.removeprefix("SIG"), 8, 1)
    assert done.returncode != 0
    step = checkpoint.load(tmp_path / "run.safetensors")["run"]["step"]
    assert step in (9, 10)
    if number == signal.SIGINT:  # SIGTERM ends a program without a word
        words = f"stopped after step {step} of {STEPS}; saved: {tmp_path / 'run.safetensors'}"
        assert done.stderr.count(words) == 1
    assert run(tmp_path, 2).returncode == 0
    assert (tmp_path / "digest").read_text() == whole[2]


def test_a_run_goes_on_with_other_numbers_of_processes(tmp_path, whole):
    for n, steps in ((3, 10), (1, 17), (2, 25), (3, STEPS)):
        done = run(tmp_path, n, "", "", -1, steps)
        assert done.returncode == 0, done.stderr
    numbers = [
        [float(x) for x in re.findall(r"\d\.\d+", text)] for text in ((tmp_path / "digest").read_text(), whole[1])
    ]
    assert len(numbers[0]) > 10 and numbers[0] == pytest.approx(numbers[1], rel=1e-12)


# -- the command -----------------------------------------------------------------------------------------------------

TINY = (
    "--embedding", "4", "--hidden", "8", "--batch", "4", "--window", "8", "--steps", "12", "--warmup", "2",
    "--validate-every", "4", "--device", "cpu", "--dtype", "float64",
)  # fmt: skip


def command(n, *arguments, **options):
    return mpiexec(n, sys.executable, "-m", "gpulstm", *arguments, **options)


def test_the_command_speaks_once(tmp_path):
    out = tmp_path / "m.safetensors"
    train = ("text", "train", "--out", out, "--log", tmp_path / "log", "--plot", tmp_path / "p.png", *TINY)
    done = command(3, *train)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("corpus: ") == 1 and done.stdout.count(f"model: {out}") == 1
    assert done.stderr.count("step 12/12") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["m.safetensors", checkpoint_path(out).name, "log", "p.png"]
    )
    again = command(2, *train)
    assert again.returncode == 2
    assert again.stderr.count("gpulstm: error:") == 1 and "exists already" in again.stderr


def test_bad_input_ends_in_one_line(tmp_path):
    done = command(2, "text", "train", tmp_path / "none.txt", *TINY)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("gpulstm: error:")]
    assert len(lines) == 1 and re.match(r"gpulstm: error: rank 0 of 2 \(.*\): .*none.txt: No such file", lines[0])


def test_standard_input_reaches_all(tmp_path):
    text = "the cat sat on the mat. " * 40
    done = command(2, "text", "train", "-", "--out", tmp_path / "m.safetensors", *TINY, given=text)
    assert done.returncode == 0, done.stderr
    assert f"corpus: {len(text)} characters" in done.stdout


def test_a_full_disk_on_the_first_process_ends_all(tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", full], capture_output=True)
    if mounted.returncode != 0:  # only the superuser may
        pytest.skip(f"no file system of a size: {mounted.stderr.decode().strip()}")
    try:
        began = time.monotonic()
        done = command(2, "text", "train", "--out", full / "m.safetensors", *TINY, "--hidden", "64")
        assert done.returncode == 2 and time.monotonic() - began < 30
        assert "No space left on device" in done.stderr and done.stderr.count("gpulstm: error:") == 1
    finally:
        subprocess.run(["umount", full], check=True)


def test_commands_that_do_not_train_are_for_one_process(tmp_path):
    (tmp_path / "text.txt").write_text("the cat sat on the mat. " * 40)
    done = command(3, "text", "prepare", tmp_path / "text.txt", "--out", tmp_path / "corpus")
    assert done.returncode == 0 and done.stdout.count("train on it: ") == 1, done.stderr
    done = command(2, "text", "train", tmp_path / "corpus", "--out", tmp_path / "m.safetensors", *TINY)
    assert done.returncode == 0 and done.stdout.count("corpus: ") == 1, done.stderr
    for arguments in (("--version",), ("text", "train", "--help")):
        done = command(2, *arguments)
        assert done.returncode == 0 and len(done.stdout) > 10
        alone = subprocess.run(
            [sys.executable, "-m", "gpulstm", *arguments], env=os.environ | {"WORLD_SIZE": "4"}, capture_output=True,
            text=True, cwd=ROOT,
        )  # fmt: skip
        assert done.stdout == alone.stdout


def test_the_bound_on_waiting_is_an_option():
    done = command(1, "text", "train", "--timeout", "0")
    assert done.returncode == 2 and "--timeout" in done.stderr
    assert ROOT.is_dir()

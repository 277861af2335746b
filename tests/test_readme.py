"""The README: every example is run as it stands there, and twenty everyday tasks are found in it."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpulstm as gl
from tests.conftest import require

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")

ELSEWHERE = "Import and export"

# What a newcomer wants to do -> the section that says how, and what must stand in an example or a command there.
TASKS = {
    "install it": ("", "pip install ."),
    "train an LSTM": ("", "optimizer.step()"),
    "generate text": ("Train a text generator", "gpulstm text sample"),
    "continue a run that was stopped": ("Train a text generator", "--resume"),
    "write a model": ("Train a model", "class Regression(gl.Module)"),
    "clip gradients": ("Train a model", "gl.clip_grad_norm("),
    "schedule the learning rate": ("Train a model", "gl.CosineWarmup("),
    "predict without dropout": ("Train a model", "model.eval()"),
    "make results reproducible": ("Train a model", "gl.manual_seed(0)"),
    "save and load a model": ("Save and load", 'gl.load("model.safetensors", model)'),
    "save an optimiser": ("Save and load", '"optimizer": optimizer'),
    "batch sequences of different lengths": ("Sequences of different lengths", "gl.data.pad_sequences("),
    "classify sequences": ("Sequences of different lengths", "return_sequences=False"),
    "let the Trainer run the loop": ("The Trainer", "trainer.fit("),
    "stop early": ("The Trainer", "patience="),
    "forecast a series": ("Forecasts", "gl.Forecaster("),
    "use another cell": ("Cells and modes", "gl.PeepholeLSTM("),
    "write a cell": ("A cell of your own", "gl.check_cell("),
    "see where it runs, and why": ("On a GPU", "gl.explain()"),
    "train in half precision": ("On a GPU", 'gl.precision("bf16")'),
    "train with several processes": ("Several processes", "gl.parallel.init()"),
    "search for the best sizes": ("Many trainings at once", "GridSearchCV("),
    "take over PyTorch's weights": (
        "Import and export",
        "load_state_dict(torch_lstm.state_dict())",
    ),
    "export to ONNX": ("Import and export", "gl.io.onnx.save("),
    "use it inside PyTorch": ("Inside PyTorch", "from gpulstm.torch import LSTM"),
}
SWEEPS = "Many trainings at once"  # tests/test_sweeps.py runs its example


def sections(text: str) -> dict[str, str]:
    """Each heading's own text; "" is what stands before the first one."""
    found, title, fenced = {"": ""}, "", False
    for line in text.splitlines(keepends=True):
        fenced ^= line.startswith("```")
        if not fenced and (heading := re.match(r"#{2,3} (.*)", line)):
            found[title := heading[1]] = ""
        found[title] += line
    return found


SECTIONS = sections(README)


def blocks(title: str, language: str = "python") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", SECTIONS[title], re.DOTALL)


@pytest.mark.parametrize("task", TASKS)
def test_a_newcomer_finds(task):
    title, words = TASKS[task]
    assert words in SECTIONS[title], f"{task}: expected {words!r} in the section {title!r}"


def test_every_link_leads_somewhere():
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in SECTIONS}
    targets = re.findall(r"\]\(([^)\s]+)\)", README)
    assert len(targets) > 30
    for target in targets:
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif not target.startswith("http"):
            assert (Path(__file__).parents[1] / target).exists(), target


def run(names: dict[str, Any], *titles: str, steps: int | None = None) -> dict[str, Any]:
    """Run the examples of sections in their order."""
    for title in titles:
        for code in blocks(title):
            if steps is not None:
                code = re.sub(r"in range\(\d+\)|epochs=\d+", lambda m: re.sub(r"\d+", str(steps), m[0]), code)
            exec(code, names)
    return names


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


LIBRARY = ("", "Train a model", "Save and load", "Sequences of different lengths", "The Trainer", "On a GPU")


def test_the_library(device, here):
    names = run({}, *LIBRARY, steps=3 if device.is_cuda else None)
    assert names["model"].device == device.name and names["classifier"].device == device.name
    assert names["last"].shape == (3, 16) and names["state"]["step"] == 50
    assert np.isfinite(names["error"].item())
    assert (here / "model.safetensors").is_file() and (here / "run.safetensors").is_file()
    if not device.is_cuda:
        assert names["trainer"].evaluate(names["batches"]) < 0.1
        assert "engine" in str(names["runs"]) or "reference" in str(names["runs"])


def beginning() -> dict[str, Any]:
    """The names that the first example leaves."""
    return run({}, "", steps=2)


def test_cells_and_modes(here):
    names = beginning()
    names |= {"lengths": np.full(16, 50), "new": np.zeros((50, 16), bool)}
    names = run(names, "Cells and modes")
    assert names["gates"].shape[:2] == (50, 16)


def test_a_cell_of_your_own(here, capsys):
    names = beginning()
    (text,) = blocks("A cell of your own", "cpp")
    (here / "leaky.cuh").write_text(text)
    first, check = blocks("A cell of your own")
    exec(first.replace("range(100)", "range(3)"), names)
    exec(check, names)
    assert "leaky" in capsys.readouterr().out


def test_the_forecaster(here):
    names = beginning() | {"series": np.sin(np.arange(200) / 5)[:, None]}
    (code,) = blocks("Forecasts")
    exec(code.replace("random_state=0", "random_state=0, epochs=1"), names)
    assert names["low"].shape == (12,) or names["low"].shape == (12, 1)


@pytest.mark.oracle
def test_inside_pytorch(here):
    require("torch")
    names = run(beginning(), "Inside PyTorch")
    assert names["scores"].shape == (20, 3, 5)


@pytest.mark.oracle
def test_weights_from_elsewhere(here):
    torch = require("torch")
    require("onnx")
    names = beginning()
    torch_lstm = torch.nn.LSTM(8, 64)
    torch_adam = torch.optim.Adam(torch_lstm.parameters())
    torch_lstm(torch.ones(3, 2, 8))[0].sum().backward()
    torch_adam.step()
    torch.save({f"encoder.rnn.{name}": value for name, value in torch_lstm.state_dict().items()}, "model.pt")
    embedding = gl.Embedding(8, 8)
    names |= {"torch": torch, "torch_lstm": torch_lstm, "torch_adam": torch_adam, "embedding": embedding}
    both, files = blocks(ELSEWHERE)
    exec(both, names)
    pytorch, keras, onnx = files.split("\n\n")
    exec(pytorch, names)
    assert names["encoder"].hidden_size == 64
    exec(onnx.splitlines()[1], names)
    shutil.copy("model.onnx", "rnn.onnx")
    loaded = gl.io.onnx.load("rnn.onnx")
    assert "LSTM" in str(loaded)
    assert keras.count("gl.io.keras.load(") == 2  # tests/test_io_keras.py has the files


def test_no_example_is_left_out():
    run_here = {*LIBRARY, "Cells and modes", "A cell of your own", "Forecasts", "Inside PyTorch"}
    run_here |= {ELSEWHERE, "Several processes", SWEEPS}
    assert {title for title in SECTIONS if blocks(title)} <= run_here
    for code in blocks("Several processes"):
        exec(code, {})

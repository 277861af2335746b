"""help() and editors show every argument with its default, and a user's script type-checks in strict mode."""

import inspect
import subprocess
import sys

import pytest

import gpulstm as gl
from tests.conftest import ROOT, require

ANY = {"Sequential", "apply"}  # take any number of layers, of a function's arguments
LAYERS = [
    "LSTM", "GRU", "RNN", "PeepholeLSTM", "CoupledLSTM", "LayerNormLSTM", "SLSTM", "GeneralLSTM", "MinLSTM", "MinGRU",
]  # fmt: skip


def test_no_public_name_hides_an_argument():
    shown = 0
    for name in gl.__all__:
        thing = getattr(gl, name)
        if inspect.ismodule(thing) or not callable(thing) or name in ANY:
            continue
        if isinstance(thing, type) and issubclass(thing, Exception):
            continue
        kinds = {parameter.kind for parameter in inspect.signature(thing).parameters.values()}
        assert not kinds & {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}, name
        shown += 1
    assert shown > 80


@pytest.mark.parametrize("name", LAYERS)
def test_layers_show_what_they_hand_on(name):
    parameters = inspect.signature(getattr(gl, name)).parameters
    usual = inspect.signature(gl.Recurrent).parameters
    for option in ("merge", "return_sequences", "regularize", "init", "forget_bias", "recompute", "device", "dtype"):
        assert parameters[option].default == usual[option].default, option
        assert parameters[option].kind is inspect.Parameter.KEYWORD_ONLY
    given = {n: p.default for n, p in parameters.items() if p.default is not p.empty}
    assert repr(getattr(gl, name)(3, 4, **given)) == repr(getattr(gl, name)(3, 4))


def test_cells_show_what_they_hand_on():
    for name in [name for name in gl.__all__ if name.endswith("Cell") and name != "RecurrentCell"]:
        assert list(inspect.signature(getattr(gl, name)).parameters)[-6:] == [
            "init", "forget_bias", "device", "dtype", "generator", "path",
        ], name  # fmt: skip


def test_help_shows_them():
    code = "import gpulstm as gl; help(gl.LSTM)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stdout
    own = " ".join(shown.split("inherited from")[0].split())
    assert own.count("merge: str = 'concat'") == 2 and "**options" not in own.replace("__init_subclass__(**options", "")


def test_a_subclass_with_options_of_its_own_keeps_its_signature():
    class Mine(gl.LSTM):
        def __init__(self, size: int, **options: float) -> None:
            super().__init__(size, size)

    assert list(inspect.signature(Mine).parameters) == ["size", "options"]


SCRIPT = """
import numpy as np

import gpulstm as gl


class Model(gl.Module):
    def __init__(self, size: int) -> None:
        self.lstm = gl.LSTM(size, 32, num_layers=2, dropout=0.1, merge="concat", device="cpu", dtype="float32")
        self.linear = gl.Linear(32, 1)

    def forward(self, x: gl.Tensor) -> gl.Tensor:
        output, (h, c) = self.lstm(x)
        prediction: gl.Tensor = self.linear(output)
        return prediction


def loss(model: Model, batch: tuple[np.ndarray, np.ndarray], state: None) -> tuple[gl.Tensor, None]:
    return gl.mse(model(gl.tensor(batch[0])), batch[1]), None


model = Model(3)
optimizer = gl.AdamW(model.parameters(), lr=1e-3)
schedule = gl.CosineWarmup(optimizer, 10, 100)
trainer = gl.Trainer(model, optimizer, loss, schedule=schedule, clip_norm=1.0)
batches = gl.data.Streams(np.zeros((50, 3), np.float32), 2, 5)
records = trainer.fit(batches, 3, progress=False)
last: float = records[-1]["loss"]
gl.save(model, "model.safetensors")
forecaster = gl.Forecaster(hidden_size=8, epochs=1).fit(np.arange(100.0)[:, None])
"""


@pytest.mark.slow
def test_a_users_script_type_checks_in_strict_mode(tmp_path):
    require("mypy")
    (tmp_path / "mine.py").write_text(SCRIPT)
    for mistake, words in (("", ""), ("gl.LSTM(3, 4, merged=1)", "merged"), ("gl.Linear('a', 1)", "Linear")):
        (tmp_path / "mine.py").write_text(SCRIPT + mistake + "\n")
        done = subprocess.run(
            [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "mine.py"],
            cwd=tmp_path, capture_output=True, text=True, env=None,
        )  # fmt: skip
        assert (done.returncode != 0) == bool(mistake), done.stdout + done.stderr
        assert words in done.stdout

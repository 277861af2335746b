"""The figures: what is drawn is what was given, pictures are written, and what does not fit is named."""

import datetime

import numpy as np
import pytest

import gpulstm as gl
from gpulstm import plot
from gpulstm.errors import FormatError, ShapeError
from tests.conftest import require

require("matplotlib")
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.image import imread  # noqa: E402

RECORDS = [{"step": k, "loss": 3.0 / k, "val_loss": 2.0 / k if k % 2 else None} for k in (1, 2, 3)]


@pytest.fixture
def axes():
    return Figure().add_subplot()


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_losses(axes):
    plot.losses(axes, RECORDS, unit="bits")
    training, validation = axes.lines
    assert training.get_xydata().tolist() == [[1, 3], [2, 1.5], [3, 1]]
    assert validation.get_xydata().tolist() == [[1, 2], [3, 2 / 3]] and axes.get_ylabel() == "loss (bits)"


def test_a_forecast_with_intervals(axes):
    times = np.array(["2020-01-01", "2020-02-01", "2020-03-01"], "M8[D]")
    later = [datetime.date(2020, 4, 1), datetime.date(2020, 5, 1)]
    plot.forecast(axes, times, [1, 2, 3], later, gl.tensor([4.0, 5.0]), {0.5: ([3, 4], [5, 6]), 0.9: ([2, 3], [6, 7])})
    observed, predicted = axes.lines
    assert observed.get_ydata().tolist() == [1, 2, 3] and predicted.get_ydata().tolist() == [4, 5]
    wide, narrow = (area.get_paths()[0].vertices[:, 1] for area in axes.collections)
    assert (wide.min(), wide.max(), narrow.min(), narrow.max()) == (2, 7, 3, 6)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["observed", "90%", "50%", "predicted"]


def test_a_confusion_matrix(axes):
    plot.confusion_matrix(axes, [[8, 2], [0, 0]], labels=["no", "a $"])
    assert axes.images[0].get_array().tolist() == [[0.8, 0.2], [0, 0]]
    assert [text.get_text() for text in axes.texts] == ["8", "2", "0", "0"]
    assert ticks(axes.xaxis) == ticks(axes.yaxis) == ["no", r"a \$"]


def test_attention_and_its_words(axes):
    layer = gl.Attention(4, 4, kind="dot")
    _, weights = layer(gl.tensor(np.ones((1, 4), np.float32)), gl.tensor(np.ones((3, 1, 4), np.float32)))
    plot.attention(axes, weights.detach(), sources=["der", " ", "\n"], targets=["the"])
    assert np.allclose(axes.images[0].get_array(), 1 / 3)
    assert ticks(axes.xaxis) == ["der", "␣", r"\n"] and ticks(axes.yaxis) == ["the"]


def test_gates_over_time(device):
    lstm = gl.LSTM(2, 3, device=device.name)
    traced = lstm.trace(device.asarray(np.ones((5, 1, 2), np.float32)))
    axes = Figure().add_subplot()
    plot.gates(axes, traced["i_l0"], steps="hello", name="i")
    assert np.array_equal(axes.images[0].get_array(), traced["i_l0"][:, 0].T)
    assert axes.images[0].get_clim() == (0, 1) and ticks(axes.xaxis) == list("hello") and axes.get_title() == "i"
    axes = Figure().add_subplot()
    plot.gates(axes, [[0.5, -2.0], [1.0, 0.0]])
    assert axes.images[0].get_clim() == (-2, 2)


def test_an_alignment_shows_the_classes_that_are_heard_in_their_order(axes):
    probabilities = np.full((6, 4), 0.01)
    probabilities[[0, 1, 4, 5], 3] = 0.97  # the blank
    probabilities[2, 1] = probabilities[3, 0] = 0.97
    plot.alignment(axes, np.log(probabilities), labels=["a", "b", "c", "-"], blank=3, seconds_a_step=0.5)
    assert ticks(axes.yaxis) == ["b", "a", "blank"] and axes.get_xlim() == (0, 3)
    assert np.allclose(axes.images[0].get_array(), probabilities[:, [1, 0, 3]].T)


def test_pictures_are_written(tmp_path):
    plot.plot_losses(RECORDS, tmp_path / "loss.png")
    plot.save(tmp_path / "matrix.png", lambda axes: plot.confusion_matrix(axes, np.eye(100)), size=(3, 2))
    assert imread(tmp_path / "loss.png").shape == (675, 1050, 4)
    assert imread(tmp_path / "matrix.png").shape == (300, 450, 4) and imread(tmp_path / "matrix.png")[..., :3].std() > 0
    with pytest.raises(FormatError, match=r"loss.doc: expected a picture ending in one of .*png"):
        plot.save(tmp_path / "loss.doc", lambda axes: None)


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda a: plot.forecast(a, [1, 2], [1, 2, 3], [3], [4]), r"observed: expected \(2,\), got \(3,\)"),
        (lambda a: plot.forecast(a, [1], [1], [3], [4], {0.8: ([1, 2], [3])}), r"intervals\[0.8\]: expected \(1,\)"),
        (lambda a: plot.confusion_matrix(a, [[1, 2]]), r"counts: expected \(K, K\), got \(1, 2\)"),
        (lambda a: plot.confusion_matrix(a, [[1]], ["a", "b"]), "labels: expected 1, got 2"),
        (lambda a: plot.attention(a, [1, 2]), r"weights: expected \(any, any\), got \(2,\)"),
        (lambda a: plot.attention(a, [[1, 2]], sources=["a"]), "sources: expected 2, got 1"),
        (lambda a: plot.gates(a, np.zeros((3, 2, 4))), r"values: expected \(any, any\), got \(3, 2, 4\)"),
        (lambda a: plot.gates(a, [[1], [1, 2]]), "values: expected an array, or a list with rows of one length"),
        (lambda a: plot.alignment(a, np.zeros((3, 2)), blank=2), "blank: expected a class, 0 <= blank < 2, got 2"),
    ],
)
def test_what_does_not_fit_is_named(axes, draw, words):
    with pytest.raises(ShapeError, match=f"^{words}"):
        draw(axes)

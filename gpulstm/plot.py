"""Plots of losses, forecasts and gates, drawn on matplotlib axes; ``save`` writes one to a file. Needs matplotlib.

>>> figure, axes = plt.subplots()
>>> gl.plot.confusion_matrix(axes, [[8, 2], [1, 9]], labels=["no", "yes"])
>>> gl.plot.save("matrix.png", lambda axes: gl.plot.confusion_matrix(axes, [[8, 2], [1, 9]]))

Arrays may be NumPy arrays, CuPy arrays, Tensors or lists.
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.backend import backend_of
from gpulstm.errors import FormatError, ShapeError
from gpulstm.tape import Tensor

FEW = 40  # an axis with more words or labels than this shows none
SELDOM = 0.05  # an alignment has no row for a class whose probability never exceeds this


def check_plot(path: str | Path) -> None:
    """Raise FormatError if ``save`` cannot write this picture: matplotlib is missing, or the file ending is unknown.

    >>> gl.plot.check_plot("losses.png")
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise FormatError("plot: expected matplotlib, which is not installed; pip install matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    ending = Path(path).suffix.removeprefix(".").lower()
    if ending not in (known := FigureCanvasAgg.get_supported_filetypes()):
        raise FormatError(f"{path}: expected a picture ending in one of .{', .'.join(sorted(known))}, got {ending!r}")


def save(path: str | Path, draw: Callable[[Any], None], size: tuple[float, float] = (7, 4.5)) -> None:
    """Create axes, draw on them with ``draw(axes)``, and write the picture in the format of the path's ending.

    ``size`` is in inches. Raises FormatError without matplotlib or for an unknown ending, OSError if the file cannot be
    written.

    >>> gl.plot.save("line.png", lambda axes: axes.plot([0, 1]))
    """
    check_plot(path)
    # A figure without pyplot needs no window system and leaves no global state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    draw(figure.add_subplot())
    figure.savefig(path, dpi=150)


def losses(axes: Any, records: Sequence[Mapping[str, Any]], unit: str = "nats") -> None:
    """Plot the training and validation losses of a run's records, as ``Trainer.fit`` returns them.

    ``unit`` is the unit of the loss. Raises KeyError for a record without "step", "loss" and "val_loss".

    >>> records = [{"step": 10, "loss": 2.0, "val_loss": None}, {"step": 20, "loss": 1.5, "val_loss": 1.6}]
    >>> gl.plot.save("losses.png", lambda axes: gl.plot.losses(axes, records))
    """
    axes.plot([r["step"] for r in records], [r["loss"] for r in records], label="training")
    validated = [r for r in records if r["val_loss"] is not None]
    if validated:
        values = [r["step"] for r in validated], [r["val_loss"] for r in validated]
        axes.plot(*values, marker="o", markersize=3, label="validation")
    axes.set(xlabel="step", ylabel=f"loss ({unit})")
    axes.legend()
    axes.grid(alpha=0.3)


def forecast(
    axes: Any,
    times: Any,
    observed: Any,
    predicted_times: Any,
    predicted: Any,
    intervals: Mapping[float, tuple[Any, Any]] | None = None,
) -> None:
    """Plot a series, its forecast and prediction intervals.

    times and observed are (N,), predicted_times and predicted (M,); times are numbers or dates. ``intervals`` maps a
    coverage, such as 0.8 for 80 %, to (lower, upper), each (M,). Raises ShapeError for arrays that do not fit.

    >>> data = [0, 1, 2], [5.0, 6.0, 7.0], [3, 4], [7.5, 8.0], {0.8: ([7.0, 7.0], [8.0, 9.0])}
    >>> gl.plot.save("forecast.png", lambda axes: gl.plot.forecast(axes, *data))
    """
    from matplotlib.ticker import MaxNLocator

    x, y = _lines("times", times, "observed", observed)
    px, py = _lines("predicted_times", predicted_times, "predicted", predicted)
    axes.plot(x, y, color="black", linewidth=1, label="observed")
    for k, coverage in enumerate(sorted(intervals or {}, reverse=True)):
        low, high = (_array(f"intervals[{coverage}]", bound, (len(px),)) for bound in (intervals or {})[coverage])
        axes.fill_between(px, low, high, alpha=0.2 + 0.15 * k, color="tab:blue", linewidth=0, label=f"{coverage:.0%}")
    axes.plot(px, py, color="tab:blue", linewidth=1.5, label="predicted")
    if x.dtype.kind in "biuf":
        axes.xaxis.set_major_locator(MaxNLocator(integer=x.dtype.kind in "iu"))
    axes.legend()
    axes.grid(alpha=0.3)


def confusion_matrix(axes: Any, counts: Any, labels: Sequence[str] | None = None) -> None:
    """Plot a confusion matrix: counts (K, K) with a row per true class and a column per predicted class.

    The colours show the share of each count in its row. Raises ShapeError for another shape or number of labels.

    >>> gl.plot.save("c.png", lambda axes: gl.plot.confusion_matrix(axes, [[8, 2], [1, 9]], ["bad", "good"]))
    """
    counts = _array("counts", counts, (None, None))
    if counts.shape[0] != counts.shape[1]:
        raise ShapeError(f"counts: expected (K, K), got {counts.shape}")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(counts) <= FEW:
        for row, column in np.ndindex(counts.shape):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{counts[row, column]:g}", ha="center", va="center", color=color)
    names = None if labels is None else _labels("labels", labels, len(counts))
    _ticks(axes.xaxis, names, len(counts), rotation=45)
    _ticks(axes.yaxis, names, len(counts))
    axes.set(xlabel="predicted", ylabel="true")


def attention(
    axes: Any, weights: Any, sources: Sequence[str] | None = None, targets: Sequence[str] | None = None
) -> None:
    """Plot attention weights (targets, sources) from 0 to 1, with a row per target.

    ``sources`` and ``targets`` are the words at the axes. Raises ShapeError for another shape or number of words.

    >>> gl.plot.save("a.png", lambda axes: gl.plot.attention(axes, [[0.9, 0.1]], ["un", "chat"], ["cat"]))
    """
    weights = _array("weights", weights, (None, None))
    axes.imshow(weights, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    for name, axis, words, count, rotation in (
        ("sources", axes.xaxis, sources, weights.shape[1], 90),
        ("targets", axes.yaxis, targets, weights.shape[0], 0),
    ):
        _ticks(axis, None if words is None else _labels(name, words, count), count, rotation)
    axes.set(xlabel="source", ylabel="target")


def gates(axes: Any, values: Any, steps: Sequence[str] | None = None, name: str = "") -> None:
    """Plot a gate or a state over time: values (T, units) or (T, 1, units) of one sequence.

    ``layer.trace`` returns such values. Non-negative values, such as gates, are shown from white to black, others from
    blue over white to red. ``steps`` are the words or characters of the steps. Raises ShapeError for another shape or
    number of steps.

    >>> gates = gl.LSTM(3, 4).trace(np.ones((5, 1, 3), np.float32))
    >>> gl.plot.save("f.png", lambda axes: gl.plot.gates(axes, gates["f_l0"], name="forget gate"))
    """
    values = _host("values", values)
    values = values[:, 0] if values.ndim == 3 and values.shape[1] == 1 else _array("values", values, (None, None))
    most = float(np.abs(values).max(initial=0)) or 1.0
    signed = bool((values < 0).any())
    colours = {"cmap": "RdBu_r", "vmin": -most, "vmax": most} if signed else {"cmap": "Greys", "vmin": 0, "vmax": 1}
    if not signed and most > 1:
        colours["vmax"] = most
    image = axes.imshow(values.T, aspect="auto", interpolation="nearest", **colours)
    axes.figure.colorbar(image, ax=axes)
    _ticks(axes.xaxis, None if steps is None else _labels("steps", steps, len(values)), len(values))
    axes.set(xlabel="step", ylabel="unit", title=name)


def alignment(
    axes: Any, log_probs: Any, labels: Sequence[str] | None = None, blank: int = 0, seconds_a_step: float | None = None
) -> None:
    """Plot when a model trained with ``gl.ctc_loss`` recognises which class: log_probs (T, C), a row per class.

    Classes that never become probable are left out; the blank is the bottom row. ``seconds_a_step`` labels the time
    axis in seconds. Raises ShapeError for another shape or number of labels.

    >>> log_probs = np.log([[0.1, 0.9], [0.8, 0.2]])
    >>> gl.plot.save("b.png", lambda axes: gl.plot.alignment(axes, log_probs, ["blank", "a"]))
    """
    probabilities = np.exp(_array("log_probs", log_probs, (None, None)).astype(np.float64))
    T, C = probabilities.shape
    if not 0 <= blank < C:
        raise ShapeError(f"blank: expected a class, 0 <= blank < {C}, got {blank}")
    names = [str(c) for c in range(C)] if labels is None else _labels("labels", labels, C)
    heard = [c for c in range(C) if c != blank and probabilities[:, c].max(initial=0) > SELDOM]
    heard.sort(key=lambda c: int(probabilities[:, c].argmax()))
    rows = [*heard, blank]
    end = T * (seconds_a_step or 1)
    axes.imshow(
        probabilities[:, rows].T, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest",
        extent=(0, end, len(rows) - 0.5, -0.5),
    )  # fmt: skip
    _ticks(axes.yaxis, [*(names[c] for c in heard), "blank"], len(rows))
    axes.set(xlabel="step" if seconds_a_step is None else "seconds", ylabel="class")


def plot_losses(records: list[dict[str, Any]], path: str | Path, unit: str = "nats") -> None:
    """Write a picture of ``losses`` to ``path``; raises the errors of ``save``.

    >>> gl.plot.plot_losses([{"step": 10, "loss": 2.0, "val_loss": None}], "losses.png")
    """
    save(path, lambda axes: losses(axes, records, unit))


def _host(name: str, x: Any) -> np.ndarray:
    """Convert x to a NumPy array; raises ShapeError for rows of different lengths."""
    if isinstance(x, Tensor):
        x = x.data
    try:
        return backend_of(x).to_numpy(x) if hasattr(x, "dtype") and hasattr(x, "ndim") else np.asarray(x)
    except ValueError as error:
        raise ShapeError(f"{name}: expected an array, or a list with rows of one length, got {x!r:.60}") from error


def _array(name: str, x: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    """Convert x to an array and check its shape, in which None stands for any size."""
    array = _host(name, x)
    if len(shape) != array.ndim or any(n is not None and n != m for n, m in zip(shape, array.shape, strict=True)):
        want = ", ".join("any" if n is None else str(n) for n in shape)
        raise ShapeError(f"{name}: expected ({want}{',' * (len(shape) == 1)}), got {array.shape}")
    return array


def _lines(x_name: str, x: Any, y_name: str, y: Any) -> tuple[np.ndarray, np.ndarray]:
    xs = _array(x_name, x, (None,))
    return xs, _array(y_name, y, (len(xs),))


def _labels(name: str, words: Sequence[str], count: int) -> list[str]:
    if len(words) != count:
        raise ShapeError(f"{name}: expected {count}, got {len(words)}")
    return [_shown(str(word)) for word in words]


def _shown(word: str) -> str:
    """The word with visible spaces at its ends, and with escaped dollar signs, which would start a formula."""
    if word.strip() != word:
        word = repr(word)[1:-1].replace(" ", "␣")
    return word.replace("$", r"\$")


def _ticks(axis: Any, words: list[str] | None, count: int, rotation: float = 0) -> None:
    """Label the ticks with words, or with whole numbers if there are no words or too many."""
    from matplotlib.ticker import MaxNLocator

    if words is None or count > FEW:
        axis.set_major_locator(MaxNLocator(integer=True))
    else:
        axis.set_ticks(range(count), words, rotation=rotation)

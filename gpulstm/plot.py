"""The loss curve as a picture; needs matplotlib."""

import importlib.util
from pathlib import Path
from typing import Any

from gpulstm.errors import FormatError


def check_plot(path: str | Path) -> None:
    """Raise FormatError, before any work is done, where ``plot_losses`` could not write that picture."""
    if importlib.util.find_spec("matplotlib") is None:
        raise FormatError("plot: want matplotlib, which is not installed: pip install matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    ending = Path(path).suffix.removeprefix(".").lower()
    if ending not in (known := FigureCanvasAgg.get_supported_filetypes()):
        raise FormatError(f"{path}: want a picture ending in one of .{', .'.join(sorted(known))}, got {ending!r}")


def plot_losses(records: list[dict[str, Any]], path: str | Path, unit: str = "nats") -> None:
    """Draw the losses of a run's records (see Trainer.fit) into a picture; the ending of the path sets its
    kind.

    ``unit`` is the name on the loss axis. Raises FormatError without matplotlib or for an unknown ending,
    OSError.
    """
    check_plot(path)
    # A figure without pyplot: no window system is asked for and no global state is left behind.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel=f"loss ({unit})")
    axes.plot([r["step"] for r in records], [r["loss"] for r in records], label="training")
    validated = [r for r in records if r["val_loss"] is not None]
    if validated:
        steps, losses = [r["step"] for r in validated], [r["val_loss"] for r in validated]
        axes.plot(steps, losses, marker="o", markersize=3, label="validation")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)

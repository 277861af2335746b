"""The text lab: train a language model on any text, and let it write."""

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from gpulstm.backend import Device
from gpulstm.backend import device as find_device
from gpulstm.io.files import check_writable
from gpulstm.labs.text_corpus import Corpus, default_corpus, read_texts
from gpulstm.labs.text_model import TextModel, load_model, save_model
from gpulstm.labs.text_sample import sample
from gpulstm.labs.text_training import Settings, new_model, new_trainer, streams
from gpulstm.nn.summary import table
from gpulstm.plot import check_plot, plot_losses

__all__ = [
    "Settings", "TextModel", "checkpoint_path", "default_corpus", "load_model", "read_texts", "sample",
    "save_model", "train",
]  # fmt: skip


def train(
    text: str | None = None,
    settings: Settings | None = None,
    *,
    device: str | Device = "auto",
    out: str | Path | None = None,
    checkpoint_every: int = 250,
    resume: bool = False,
    log: str | Path | None = None,
    plot: str | Path | None = None,
    progress: bool | TextIO = True,
    say: Callable[[str], None] = lambda line: None,
) -> TextModel:
    """Train a language model on a text, by default the Python language reference; return the best one met.

    The model is written to ``out``; a checkpoint stands beside it (see ``checkpoint_path``) until then, and
    with ``resume`` the run goes on from that. ``log`` and ``plot`` are files for the losses, as lines of JSON
    and as a picture. ``say`` is given facts about the run, a line at a time. The default generator is seeded.

    Raises what ``Trainer.fit`` raises, and FormatError for a text shorter than the windows asked for. Files
    that cannot be written are found before training begins.

    >>> model = train(open("book.txt").read(), Settings(hidden=512), out="book.safetensors")
    >>> print("".join(sample(model, "It was ", 200, seed=1)))
    """
    settings = settings or Settings()
    checkpoint = _check_targets(out, log, plot)
    place = find_device(device)
    say(f"device: {place}" + (f" ({place.reason})" if place.reason else ""))
    corpus = Corpus.of(default_corpus() if text is None else text, settings.level, settings.vocabulary)
    say(f"corpus: {corpus}")
    batches, validation = streams(corpus, settings)
    model = new_model(corpus, settings, place)
    say(table(model))
    if resume and checkpoint is not None:
        there = checkpoint.exists()
        say(f"going on from {checkpoint}" if there else f"no checkpoint at {checkpoint}: from the beginning")
    facts = {**asdict(settings), "corpus": corpus.digest}
    records = new_trainer(model, settings).fit(
        batches,
        settings.steps,
        validation=validation,
        validate_every=settings.validate_every,
        patience=settings.patience,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        resume=resume,
        log=log,
        progress=progress,
        notes=facts,
    )
    model.eval()
    best = min(record["val_loss"] for record in records if record["val_loss"] is not None)
    say(f"validation loss: {_in_words(best, settings.level)}, after {records[-1]['seconds']:.0f} s")
    if out is not None and checkpoint is not None:
        save_model(out, model, {**facts, "validation_loss": best})
        checkpoint.unlink(missing_ok=True)
    if plot is not None:
        plot_losses(records, plot, unit=_unit(settings.level))
    return model


def checkpoint_path(out: str | Path) -> Path:
    """Where the checkpoint stands of a run that writes its model to ``out``: for a.safetensors
    a.checkpoint.safetensors."""
    return Path(out).with_name(f"{Path(out).stem}.checkpoint{Path(out).suffix}")


def _check_targets(out: Any, log: Any, plot: Any) -> Path | None:
    """Find now what could not be written later; return where the checkpoint goes."""
    for target in (out, log, plot):
        if target is not None:
            check_writable(target)
    if plot is not None:
        check_plot(plot)
    if out is None:
        return None
    checkpoint = checkpoint_path(out)
    check_writable(checkpoint)
    return checkpoint


def _unit(level: str) -> str:
    return "nats a character" if level == "char" else "nats a token"


def _in_words(nats: float, level: str) -> str:
    other = f"{nats / math.log(2):.4f} bits" if level == "char" else f"perplexity {math.exp(nats):.1f}"
    return f"{nats:.4f} {_unit(level)} ({other})"

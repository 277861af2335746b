"""The text lab: train a language model on any text, and generate text with it.

These are the functions behind ``gpulstm text``. ``gl.LanguageModel`` wraps them as a scikit-learn-style estimator.

>>> model = gl.labs.text.train(open("book.txt").read(), out="book.safetensors")
>>> print("".join(gl.labs.text.sample(model, "It was ", 200, seed=1)))
"""

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from gpulstm import parallel
from gpulstm.backend import Device
from gpulstm.backend import device as find_device
from gpulstm.errors import DTypeError, FormatError
from gpulstm.labs.files import RunFiles, checkpoint_path
from gpulstm.labs.text_corpus import UNKNOWN, Corpus, default_corpus, digest_of, read_texts
from gpulstm.labs.text_file import KIND, description, load_model, model_digest, model_facts, save_model
from gpulstm.labs.text_model import TextModel
from gpulstm.labs.text_prepare import prepare
from gpulstm.labs.text_prepared import open_corpus
from gpulstm.labs.text_sample import sample
from gpulstm.labs.text_training import (
    MOST_HELD_OUT,
    Settings,
    check_settings_for,
    check_settings_of,
    new_model,
    new_trainer,
    settings_for,
    settings_of,
    streams,
)
from gpulstm.labs.text_vocabulary import Vocabulary
from gpulstm.nn.summary import table
from gpulstm.train import checkpoint
from gpulstm.train.saved import check_finite

__all__ = [
    "Settings", "TextModel", "checkpoint_path", "default_corpus", "kept_settings", "load_model", "open_corpus",
    "prepare", "read_texts", "sample", "save_model", "settings_for", "settings_of", "train",
]  # fmt: skip

# Settings that only say how long to train and how often to validate; they may differ when a run is resumed.
FREE = ("steps", "validate_every", "patience")
FURTHER = "train the model further with --from (model=) and another --out"
# What to do if a digest differs, because a digest itself tells the reader nothing.
ADVICE = {
    "corpus": "corpus is the text: give the text that the run started with, or train on another text with --from "
    "(model=)",
    "from": "from is the model that the run started from: leave out --from (model=), the checkpoint has what is needed",
}


def train(
    text: str | None = None,
    settings: Settings | None = None,
    *,
    corpus: str | Path | None = None,
    model: TextModel | str | Path | None = None,
    device: str | Device = "auto",
    out: str | Path | None = None,
    checkpoint_every: int = 250,
    resume: bool = False,
    force: bool = False,
    log: str | Path | None = None,
    plot: str | Path | None = None,
    progress: bool | TextIO = True,
    say: Callable[[str], None] = lambda line: None,
) -> TextModel:
    """Train a language model on a text, by default the Python language reference; return the best model.

    ``corpus`` replaces the text: a folder that ``prepare`` wrote. It is read as it is needed, so it may be larger than
    memory, and it trains the same model as its text. The last tenth of the tokens is held out; the validation loss is
    measured on its first million tokens.

    The model is written to ``out``, with a checkpoint beside it (see ``checkpoint_path``). ``resume`` continues from
    the checkpoint, if there is one: an interrupted run continues to its end, a finished run continues to a larger
    ``settings.steps``, which counts from the start of the run. Without ``settings``, a resumed run keeps its settings.
    The learning rate then follows the schedule of the new number of steps. steps, validate_every, patience and the
    other arguments here may differ from the first run; all other settings and the text must be the same.

    ``model`` (a TextModel, its file or a checkpoint) is trained further on this text, in a run of its own. The new
    model keeps its vocabulary and sizes, and ``model`` itself is not changed. Words that it does not know become
    "<unk>". Resuming such a run does not need ``model``.

    ``log`` and ``plot`` are files for the losses, as lines of JSON and as a picture. ``say`` receives facts about the
    run, one line per call. The default generator is seeded.

    Raises FileExists, before any work, if a file of another run would be overwritten, unless with ``force``;
    FormatError for a text too short for the batch size and the window, for characters that ``model`` does not know, and
    for a checkpoint of another run (the message names what differs); ShapeError for settings that contradict ``model``
    or ``corpus``; OSError, before training, if a file cannot be written; and the errors of ``Trainer.fit``.

    >>> model = train(open("book.txt").read(), Settings(hidden=512), out="book.safetensors")
    >>> print("".join(sample(model, "It was ", 200, seed=1)))
    """
    base = load_model(model, "cpu") if isinstance(model, str | Path) else model
    if not isinstance(base, TextModel | None):
        raise DTypeError(f"model: expected a TextModel, its file or None, got {base!r:.80}")
    if not isinstance(settings, Settings | None):
        raise DTypeError(f"settings: expected Settings(...) or None, got {settings!r:.80}")
    origin = None if base is None else model_digest(base)
    if resume and out is not None:
        settings = settings or kept_settings(out)
        if base is None and (origin := _kept_origin(out)) is not None:
            base = load_model(
                checkpoint_path(out), "cpu"
            )  # it has the vocabulary of the model that the run started from
    if base is not None:
        check_finite(base.state_dict())
        settings = settings or settings_of(base)
        check_settings_of(base, settings)
    prepared = None if corpus is None else open_corpus(corpus)
    if prepared is not None:
        settings = settings or settings_for(prepared)
        check_settings_for(prepared, settings, base)
    settings = settings or Settings()
    text = _checked_text(text, corpus)
    digest = digest_of(text) if prepared is None else prepared.digest
    files, facts = RunFiles.of(out, log, plot), {**asdict(settings), "corpus": digest, "from": origin}
    notes = {name: fact for name, fact in facts.items() if name not in FREE}
    group = parallel.group()
    group.check_same("settings and text", facts)
    done = group.on_root(lambda: files.claim(notes, model_facts, ADVICE, resume=resume, force=force, further=FURTHER))

    place = find_device(device)
    say(f"device: {place}" + (f" ({place.reason})" if place.reason else ""))
    known = None if base is None else base.vocabulary
    if done is not None and settings.level == "bpe" and files.checkpoint is not None:
        known = load_model(files.checkpoint, "cpu").vocabulary  # another version of tokenizers might learn another
    read = prepared or Corpus.of(text, settings.level, settings.vocabulary, known)
    _describe(read, known, say)
    batches, validation = streams(read, settings)
    new = new_model(read, settings, place)
    if base is not None:
        new.load_state_dict(base.state_dict())
    say(table(new))
    if resume:
        say(_beginning(files.checkpoint, done, settings.steps))
    trainer = new_trainer(new, settings)
    records = trainer.fit(
        batches,
        settings.steps,
        validation=validation,
        validate_every=settings.validate_every,
        patience=settings.patience,
        checkpoint=files.checkpoint,
        checkpoint_every=checkpoint_every,
        resume=resume,
        force=force,
        log=log,
        progress=progress,
        notes=notes,
        about={KIND: description(new), "settings": asdict(settings), **files.about()},
    )
    new.eval()
    best = min((r for r in records if r["val_loss"] is not None), key=lambda record: record["val_loss"])
    if (target := files.out) is not None:
        group.on_root(lambda: save_model(target, new, {**facts, "validation_loss": best["val_loss"]}))
    group.on_root(lambda: files.finish(records, _unit(settings.level)))
    say(
        f"best validation loss: {_in_words(best['val_loss'], settings.level)}, at step {best['step']} of "
        f"{records[-1]['step']}; trained for {records[-1]['seconds']:.0f} s"
    )
    return new


def kept_settings(out: str | Path) -> Settings | None:
    """Return the settings in the checkpoint beside the model ``out``, or None without a checkpoint.

    Raises FormatError for another file, OSError if it cannot be read.
    """
    file = checkpoint_path(out)

    def found() -> dict[str, Any] | None:
        return checkpoint.load(file)["about"]["settings"] if file.exists() and file.stat().st_size > 0 else None

    try:
        kept = parallel.group().on_root(found)
        return None if kept is None else Settings(**kept)
    except (KeyError, TypeError) as error:
        raise FormatError(
            f"{file}: expected the checkpoint of a run of the text lab, got another checkpoint"
        ) from error


def _kept_origin(out: str | Path) -> str | None:
    """Return the digest of the model that the run of this checkpoint started from, or None if there is none."""
    file = checkpoint_path(out)
    notes = checkpoint.load(file).get("notes") if file.exists() and file.stat().st_size > 0 else None
    return notes.get("from") if isinstance(notes, dict) else None


def _checked_text(text: str | None, corpus: str | Path | None) -> str:
    """Return the text to train on, empty with a corpus.

    Raises DTypeError for a text beside a corpus and for anything but a string.
    """
    if text is None:
        return default_corpus() if corpus is None else ""
    if corpus is not None:
        raise DTypeError("text: expected None with corpus=, got a text; give either")
    if not isinstance(text, str):
        raise DTypeError(f"text: expected a string, got {type(text).__name__}; read files with read_texts([...])")
    return text


def _describe(corpus: Corpus, known: Vocabulary | None, say: Callable[[str], None]) -> None:
    """Report the corpus to train on; ``known`` is the vocabulary of the model to train further, if any."""
    say(f"corpus: {corpus}")
    if len(corpus.held_out) > MOST_HELD_OUT:
        say(f"validation uses the first {MOST_HELD_OUT + 1:,} held-out tokens")
    if known is None or known.level != "word" or not isinstance(corpus.train, np.ndarray):
        return
    if unknown := int((corpus.train == 0).sum()):
        say(
            f"the model does not know {unknown:,} of the {corpus.train.size:,} words to train on; they become {UNKNOWN}"
        )


def _beginning(checkpoint: Path | None, done: int | None, steps: int) -> str:
    if done is None:
        return f"no checkpoint at {checkpoint}: starting from the beginning"
    more = "" if done != steps else "; the run is finished: give more --steps to train further"
    return f"resuming from {checkpoint}, after step {done} of {steps}{more}"


def _unit(level: str) -> str:
    return "nats per character" if level == "char" else "nats per token"


def _in_words(nats: float, level: str) -> str:
    other = f"{nats / math.log(2):.4f} bits" if level == "char" else f"perplexity {math.exp(nats):.1f}"
    return f"{nats:.4f} {_unit(level)} ({other})"

"""The text lab: train a language model on any text, and sample text from it."""

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

# Settings that only say how long to train and how often to look: a run may be resumed with others.
FREE = ("steps", "validate_every", "patience")
FURTHER = "train the model further with --from (model=) and another --out"
# What to do where a digest differs, which tells a reader nothing.
ADVICE = {
    "corpus": "corpus is the text: give the one it began with, or train a model on another with --from (model=)",
    "from": "from is the model it began from: leave --from (model=) out, the checkpoint holds what is needed",
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
    """Train a language model on a text, by default the Python language reference; return the best one met.

    ``corpus`` is, in place of a text, a folder that ``prepare`` wrote: it is read as it is needed, so it may be larger
    than memory, and trains the same model as its text would. The last tenth of the tokens is held out, and of that
    the first million are what the validation loss is of.

    The model is written to ``out``, and a checkpoint beside it (see ``checkpoint_path``). With ``resume`` the
    run goes on from that, if it is there: an interrupted one to its end, a finished one to more
    ``settings.steps``, which count from the run's beginning. Without ``settings`` it has those it began with.
    The learning rate follows the curve of the new number of steps from there. Everything that decides what is
    computed must be as it was; steps, validate_every, patience and the other arguments here may differ.

    ``model`` (one made before, a file or a checkpoint) is trained further on this text, in a run of its own;
    its vocabulary and sizes stay, and it itself is not changed. Words that it does not know become "<unk>".
    Resuming such a run needs it no more.

    ``log`` and ``plot`` are files for the losses, as lines of JSON and as a picture. ``say`` is given facts
    about the run, a line at a time. The default generator is seeded.

    Raises what ``Trainer.fit`` raises; FileExists, before any work, where a file of another run would be
    overwritten, unless with ``force``; FormatError for a text shorter than the windows asked for, for
    characters that ``model`` does not know, and for a checkpoint of another run, naming what differs;
    ShapeError for settings that ``model`` or ``corpus`` does not have. Files that cannot be written are found before
    training begins.

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
            base = load_model(checkpoint_path(out), "cpu")  # its vocabulary is that of the model it began from
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
        known = load_model(files.checkpoint, "cpu").vocabulary  # another version of the library might learn another
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
        f"validation loss: {_in_words(best['val_loss'], settings.level)}, the best, of step {best['step']} of "
        f"{records[-1]['step']}, after {records[-1]['seconds']:.0f} s"
    )
    return new


def kept_settings(out: str | Path) -> Settings | None:
    """The settings in the checkpoint of the run that writes its model to ``out``; None without one.

    Raises FormatError for a file that is none, OSError.
    """
    file = checkpoint_path(out)

    def found() -> dict[str, Any] | None:
        return checkpoint.load(file)["about"]["settings"] if file.exists() and file.stat().st_size > 0 else None

    try:
        kept = parallel.group().on_root(found)
        return None if kept is None else Settings(**kept)
    except (KeyError, TypeError) as error:
        raise FormatError(f"{file}: expected the checkpoint of a run of the text lab, got another") from error


def _kept_origin(out: str | Path) -> str | None:
    """The digest of the model that the run in the checkpoint began from; None for a run, or a file, without."""
    file = checkpoint_path(out)
    notes = checkpoint.load(file).get("notes") if file.exists() and file.stat().st_size > 0 else None
    return notes.get("from") if isinstance(notes, dict) else None


def _checked_text(text: str | None, corpus: str | Path | None) -> str:
    """The text to train on, empty where a corpus takes its place. Raises DTypeError for both, and for no text."""
    if text is None:
        return default_corpus() if corpus is None else ""
    if corpus is not None:
        raise DTypeError("text: expected None beside a corpus, got a text too")
    if not isinstance(text, str):
        raise DTypeError(f"text: expected a string, got {type(text).__name__}; read files with read_texts([...])")
    return text


def _describe(corpus: Corpus, known: Vocabulary | None, say: Callable[[str], None]) -> None:
    """Say what is trained on; ``known`` is the vocabulary of a model to be trained further."""
    say(f"corpus: {corpus}")
    if len(corpus.held_out) > MOST_HELD_OUT:
        say(f"validation is on the first {MOST_HELD_OUT + 1:,} tokens that are held out")
    if known is None or known.level != "word" or not isinstance(corpus.train, np.ndarray):
        return
    if unknown := int((corpus.train == 0).sum()):
        say(f"{unknown:,} of {corpus.train.size:,} words to train on are unknown to the model: {UNKNOWN}")


def _beginning(checkpoint: Path | None, done: int | None, steps: int) -> str:
    if done is None:
        return f"no checkpoint at {checkpoint}: from the beginning"
    more = "" if done != steps else "; nothing is left to do: give more --steps to train further"
    return f"going on from {checkpoint}, after step {done} of {steps}{more}"


def _unit(level: str) -> str:
    return "nats a character" if level == "char" else "nats a token"


def _in_words(nats: float, level: str) -> str:
    other = f"{nats / math.log(2):.4f} bits" if level == "char" else f"perplexity {math.exp(nats):.1f}"
    return f"{nats:.4f} {_unit(level)} ({other})"

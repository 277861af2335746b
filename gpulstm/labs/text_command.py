"""The commands of the text lab: train, prepare, sample, inspect, info."""

import shlex
from dataclasses import replace
from typing import Any

import click

from gpulstm.errors import FormatError, ShapeError
from gpulstm.io.files import atomic_write
from gpulstm.labs import text
from gpulstm.labs.command import (
    DEVICE,
    ENCODING,
    FILE,
    check_apart,
    check_output,
    given,
    run_options,
    training,
)
from gpulstm.labs.estimator import silent
from gpulstm.labs.text_file import model_facts
from gpulstm.labs.text_inspect import inspect as make_page
from gpulstm.labs.text_prepared import is_prepared, vocabulary_in
from gpulstm.labs.text_vocabulary import LEVELS
from gpulstm.nn.summary import table

DEFAULT = text.Settings()
LEVEL = click.option("--level", type=click.Choice(LEVELS), default=DEFAULT.level, help="Token type.")
VOCABULARY = click.option(
    "--vocabulary", default=DEFAULT.vocabulary, help="Maximum vocabulary size with --level word or bpe."
)


@click.group(name="text")
def text_lab() -> None:
    """Train language models on text and sample from them."""


@text_lab.command()
@click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path(allow_dash=True))
@ENCODING
@click.option("--from", "start", type=FILE, help="Continue training this model on the given text.")
@LEVEL
@VOCABULARY
@click.option("--embedding", default=DEFAULT.embedding, help="Embedding size.")
@click.option("--hidden", default=DEFAULT.hidden, help="Hidden size of the LSTM.")
@click.option("--layers", default=DEFAULT.layers, help="Number of LSTM layers.")
@click.option("--dropout", default=DEFAULT.dropout, help="Dropout rate on the output of each LSTM layer.")
@click.option("--batch", default=DEFAULT.batch, help="Batch size: sequences trained on in parallel.")
@click.option("--window", default=DEFAULT.window, help="Truncated backpropagation length, in tokens.")
@click.option("--steps", default=DEFAULT.steps, help="Total number of training steps, also with --resume.")
@click.option("--lr", default=DEFAULT.lr, help="Peak learning rate of Adam, followed by a cosine decay.")
@click.option("--warmup", default=DEFAULT.warmup, help="Warm-up steps, in which the learning rate rises.")
@click.option("--clip", default=DEFAULT.clip, help="Maximum gradient norm.")
@click.option("--seed", default=DEFAULT.seed, help="Random seed; the same seed gives the same model.")
@click.option(
    "--dtype", type=click.Choice(["float32", "float64"]), default=DEFAULT.dtype, help="Type of the parameters."
)
@click.option("--validate-every", default=DEFAULT.validate_every, help="Steps between validations.")
@click.option("--patience", type=int, help="Stop after this many validations without improvement.")
@run_options(out="text.safetensors")
def train(
    files: tuple[str, ...],
    encoding: str,
    start: str | None,
    device: str,
    out: str,
    checkpoint_every: int,
    resume: bool,
    force: bool,
    log: str | None,
    plot: str | None,
    quiet: bool,
    **knobs: Any,
) -> None:
    """Train a language model on text FILEs, or on the Python language reference.

    FILEs are plain or compressed by gzip or zstd; - is standard input. Instead of FILEs you can name the folder of a
    corpus that `gpulstm text prepare` wrote, which can be larger than memory.

    The last tenth of the text is held out for validation, and the model with the lowest validation loss is kept.
    Ctrl-C and SIGTERM save a checkpoint. The same command with --resume continues from it; options that you leave out
    keep their values. To train a finished model for longer, use --resume with more --steps. To train a model further
    on other text, use --from MODEL with another --out.
    """
    check_apart(files, start, out=out, log=log, plot=plot)
    base = None if start is None else text.load_model(start, "cpu")
    chosen, corpus = given(knobs), _corpus(files, **given({"encoding": encoding}))
    usual = (text.kept_settings(out) if resume else None) or (base and text.settings_of(base))
    usual = usual or (DEFAULT if corpus is None else text.settings_for(text.open_corpus(corpus)))
    settings = replace(usual, **chosen)
    _check_vocabulary(chosen, settings.level)
    with training():
        model = text.train(
            text.read_texts(files, encoding) if files and corpus is None else None,
            settings,
            corpus=corpus,
            model=base,
            device=device,
            out=out,
            checkpoint_every=checkpoint_every,
            resume=resume,
            force=force,
            log=log,
            plot=plot,
            progress=not quiet,
            say=silent if quiet else click.echo,
        )
    if not quiet:
        click.echo("\n" + "".join(text.sample(model, "", 400, temperature=0.8, seed=0)) + "\n")
        click.echo(f"model: {out}\nsample from it: {shlex.join(['gpulstm', 'text', 'sample', out])}")


def _corpus(files: tuple[str, ...], encoding: str | None = None) -> str | None:
    """Return the folder of a prepared corpus, or None if the files are texts."""
    folders = [file for file in files if is_prepared(file)]
    if folders and (len(files) > 1 or encoding is not None):
        other = "the other FILEs" if len(files) > 1 else "--encoding"
        raise FormatError(
            f"{folders[0]}: expected a prepared corpus alone, got it together with {other}; leave out {other}"
        )
    return folders[0] if folders else None


def _check_vocabulary(chosen: dict[str, Any], level: str) -> None:
    if "vocabulary" in chosen and level == "char":
        raise ShapeError(
            "vocabulary: expected --level word or bpe, got --level char, which keeps all characters; leave it out"
        )


@text_lab.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(allow_dash=True))
@click.option("--out", default="corpus", type=FILE, help="Folder of the corpus.")
@ENCODING
@click.option("--from", "start", type=FILE, help="Use the vocabulary of this model or prepared corpus.")
@LEVEL
@VOCABULARY
@click.option("--resume", is_flag=True, help="Continue an unfinished corpus, if there is one.")
@click.option("--force", is_flag=True, help="Overwrite an existing corpus.")
@click.option("--quiet", "-q", is_flag=True, help="Print errors only.")
def prepare(
    files: tuple[str, ...],
    out: str,
    encoding: str,
    start: str | None,
    resume: bool,
    force: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Encode text FILEs of any size as a corpus of tokens, so that `gpulstm text train` starts at once.

    FILEs are plain or compressed by gzip or zstd; - is standard input. Memory stays below 300 MB. The same command with
    --resume continues after Ctrl-C or a crash.
    """
    chosen, usual = given(options), None if start is None else vocabulary_in(start)
    if usual is not None and (unused := sorted(chosen)):
        raise ShapeError(
            f"{unused[0]}: expected --from alone, which has its own vocabulary, got --{unused[0]} too; leave it out"
        )
    _check_vocabulary(chosen, options["level"])
    corpus = text.prepare(
        files,
        out,
        level=options["level"],
        vocabulary=options["vocabulary"] if usual is None else usual,
        encoding=encoding,
        resume=resume,
        force=force,
        say=silent if quiet else click.echo,
    )
    if not quiet:
        click.echo(f"corpus: {corpus}\ntrain on it: {shlex.join(['gpulstm', 'text', 'train', out])}")


@text_lab.command()
@click.argument("model", type=FILE)
@click.option("--prompt", default="", help="Text to continue.")
@click.option("--length", default=500, help="Number of tokens to sample after the prompt.")
@click.option("--temperature", default=0.8, help="Sampling temperature; 0 always takes the most likely token.")
@click.option("--top-k", type=int, help="Sample from the K most likely tokens only.")
@click.option("--top-p", default=1.0, help="Sample from the most likely tokens whose probabilities add up to P.")
@click.option("--seed", type=int, help="Random seed; the same seed gives the same text.  [default: random]")
@DEVICE
def sample(model: str, prompt: str, device: str, **options: Any) -> None:
    """Sample text from a MODEL, or from the checkpoint of a run, and print it token by token."""
    writer = text.load_model(model, device)
    pieces = text.sample(writer, prompt, **options)
    if unseen := writer.unseen(prompt):  # with level "char", sample has raised an error
        click.echo(f"gpulstm: not in the vocabulary, read as <unk>: {unseen}", err=True)
    click.echo(prompt, nl=False)
    for piece in pieces:
        click.echo(piece, nl=False)
    click.echo()


@text_lab.command()
@click.argument("model", type=FILE)
@click.option("--text", "words", help="Text to show.  [default: text sampled from the model]")
@click.option("--html", default="inspect.html", type=FILE, help="Write the page to this file.")
@click.option("--force", is_flag=True, help="Overwrite an existing page.")
def inspect(model: str, words: str | None, html: str, force: bool) -> None:
    """Write a web page that shows the gates, states and predictions of a MODEL over a text.

    Open the page in a browser, and select a layer, a gate and a unit. The page colors each token by the value of this
    unit of the gate.
    """
    check_output("html", html, (model,), force)
    loaded = text.load_model(model, "cpu")
    words = "".join(text.sample(loaded, "", 300, temperature=0.8, seed=0)) if words is None else words
    page = make_page(loaded, words).encode("utf-8")
    atomic_write(html, lambda file: file.write(page))
    click.echo(f"page: {html}")


@text_lab.command()
@click.argument("model", type=FILE)
def info(model: str) -> None:
    """Print the layers of a MODEL or a checkpoint, and how it was trained; or describe a prepared corpus."""
    if is_prepared(model):
        click.echo(f"corpus: {text.open_corpus(model)}")
        return
    loaded = text.load_model(model, "cpu")
    click.echo(f"vocabulary: {len(loaded.vocabulary):,} tokens of level {loaded.vocabulary.level}")
    click.echo(table(loaded))
    for name, fact in model_facts(model).items():
        click.echo(f"{name}: {fact}")

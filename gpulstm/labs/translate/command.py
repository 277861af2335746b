"""The commands of the translation lab: train, predict, info."""

import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import click
import numpy as np

from gpulstm import checks
from gpulstm.errors import FormatError, ShapeError
from gpulstm.labs import reading
from gpulstm.labs.command import (
    DEVICE,
    ENCODING,
    FILE,
    check_output,
    describe,
    parameter_options,
    parameters,
    picture_option,
    run_of,
    run_options,
    training,
)  # fmt: skip
from gpulstm.labs.translate.dates import dates
from gpulstm.labs.translate.estimator import Translator
from gpulstm.labs.translate.pairs import Pairs, read_pairs
from gpulstm.labs.translate.report import Report, draw

DATES = 5000  # pairs in the default data
TESTED = 1000  # largest number of test pairs if --test is a fraction
LINES = 64  # lines to read, translate and print together
STEPS = 800  # without --epochs, a run has as many epochs as these steps need, and at least EPOCHS
EPOCHS = 10
USUAL = Translator(hidden_size=64, embedding_size=32, dropout=0.1, learning_rate=5e-3, random_state=0)


@click.group(name="translate")
def translate_lab() -> None:
    """Translate sentences with an LSTM with attention."""


@translate_lab.command()
@click.argument("files", nargs=-1, metavar="[SOURCE TARGET | TSV]", type=click.Path(allow_dash=True))
@ENCODING
@click.option("--skip-empty", is_flag=True, help="Skip pairs with an empty side, instead of an error.")
@click.option("--pairs", type=int, help="Use this many pairs, the first ones.  [default: all; without FILES: 5,000]")
@click.option("--level", type=click.Choice(["word", "bpe"]), default="word", help="Token type: words or byte pairs.")
@click.option("--vocabulary", default=USUAL.vocabulary_size, help="Maximum vocabulary size of each language.")
@click.option("--min-count", default=USUAL.min_count, help="Minimum count of a token to be in the vocabulary.")
@click.option("--lowercase", is_flag=True, help="Convert all text to lower case.")
@click.option("--max-length", default=USUAL.max_length, help="Maximum length in tokens; longer pairs are left out.")
@click.option("--embedding", default=USUAL.embedding_size, help="Embedding size.")
@click.option("--untied", is_flag=True, help="Do not share the output weights with the target embedding.")
@click.option("--smoothing", default=USUAL.label_smoothing, help="Label smoothing.")
@click.option("--beam", default=USUAL.beam_width, help="Beam width; 1 is greedy.")
@click.option(
    "--length-penalty", default=USUAL.length_penalty, help="Larger values favor long translations; 0 turns it off."
)
@click.option("--validation", default=0.1, help="Fraction of the training pairs, to choose the best epoch.")
@click.option("--test", default=0.1, help="Pairs used for the test: a fraction (at most 1,000 pairs) or a number.")
@parameter_options(replace(USUAL, epochs=None), epochs="  [default: enough for 800 steps]")  # type: ignore[arg-type]
@picture_option("the attention over the first test sentence")
@run_options(out="translate.safetensors")
def train(
    files: tuple[str, ...],
    encoding: str,
    skip_empty: bool,
    pairs: int | None,
    test: float,
    picture: str | None,
    out: str,
    **others: Any,
) -> None:
    """Train a translator on two parallel text files, or on one file with a tab between the two sentences of a line.

    Parallel files have one sentence per line. Without files it trains on generated dates and learns to rewrite them in
    the ISO format. Some random pairs are held out, and translated at the end to test the model.
    """
    run, others = run_of(out, picture, others, files=files)
    sources, targets = _pairs(files, encoding, skip_empty, pairs)
    if not files:
        run.say(f"data: {len(sources):,} dates, generated (not from any real text), to write as YYYY-MM-DD")
    translator = Translator(**_parameters(others))
    tested = _test_part(test, len(sources), translator._generator())
    X, y = ([side[n] for n in np.flatnonzero(~tested)] for side in (sources, targets))
    if others["epochs"] is None:
        learnt = len(X) - round(translator.validation_fraction * len(X))
        translator.epochs = max(EPOCHS, -(-STEPS // max(1, learnt // checks.count("batch", others["batch"], 1))))
    run.say(f"pairs: {len(sources):,}; {len(X):,} to train and validate on, {int(tested.sum()):,} to test")
    with training():
        translator.fit(X, y, run=run)
    if translator.left_out_:
        run.say(f"left out: {translator.left_out_:,} pairs of more than {translator.max_length} tokens")
    report = Report.of(translator, *([side[n] for n in np.flatnonzero(tested)] for side in (sources, targets)))
    for line in report.lines():
        run.say(line)
    if run.files.picture is not None:
        draw(translator, report.sources[0], run.files.picture)
        run.say(f"picture: {run.files.picture}")
    run.say(f"model: {out}\ntranslate with it: {shlex.join(['gpulstm', 'translate', 'predict', out])}")


@translate_lab.command()
@click.argument("model", type=FILE)
@click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path(allow_dash=True))
@ENCODING
@click.option("--beam", type=int, help="Beam width; 1 is greedy.  [default: as in training]")
@click.option("--length-penalty", type=float, help="Larger values favor long translations.  [default: as in training]")
@click.option("--picture", type=FILE, help="Plot the attention over the first sentence (needs matplotlib).")
@click.option("--force", is_flag=True, help="Overwrite an existing picture.")
@DEVICE
def predict(
    model: str,
    files: tuple[str, ...],
    encoding: str,
    beam: int | None,
    length_penalty: float | None,
    picture: str | None,
    force: bool,
    device: str,
) -> None:
    """Translate each line of FILEs, or of standard input, with a MODEL. Empty lines stay empty."""
    if picture is not None:
        check_output("picture", picture, (model, *files), force)
    translator = Translator.load(model, device)
    if beam is not None:
        translator.beam_width = checks.count("beam", beam, 1)
    if length_penalty is not None:
        translator.length_penalty = checks.number("length_penalty", length_penalty)
    for block in _blocks(files or ("-",), encoding):
        first = next((line for line in block if line), None)
        if picture is not None and first is not None:
            draw(translator, first, picture)
            picture = None
        for line in translator.predict(block):
            click.echo(line)
    if picture is not None:
        raise FormatError(
            f"picture: expected a sentence to draw, got none in {', '.join(map(reading.name_of, files or '-'))}"
        )


@translate_lab.command()
@click.argument("model", type=FILE)
def info(model: str) -> None:
    """Print the layers of a MODEL or a checkpoint, and how it was trained."""
    describe(Translator.load(model, "cpu"), model)


def _pairs(files: tuple[str, ...], encoding: str, skip_empty: bool, count: int | None) -> Pairs:
    """Return the pairs of the files, or generated dates if there are no files."""
    if count is not None:
        checks.count("pairs", count, 4)
    if not files:
        return dates(checks.integer("pairs", count or DATES, 4, 10**6), seed=0)
    if len(files) > 2:
        raise FormatError(f"files: expected SOURCE and TARGET, or one TSV, got {len(files)} files")
    source, target = read_pairs(files[0], files[1] if len(files) == 2 else None, encoding, skip_empty=skip_empty)
    return source[:count], target[:count]


def _parameters(options: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of the Translator from the options of the command."""
    names = {"vocabulary": "vocabulary_size", "embedding": "embedding_size", "smoothing": "label_smoothing"}
    names |= {"beam": "beam_width", "validation": "validation_fraction"}
    taken = {names.get(name, name): value for name, value in parameters(options).items()}
    tied = not taken.pop("untied")
    return {**taken, "epochs": 1 if taken["epochs"] is None else taken["epochs"], "tied": tied}


def _test_part(test: float, N: int, generator: np.random.Generator) -> np.ndarray:
    """Draw the test pairs, (N,) bool: a fraction or a number. At least two pairs remain to train on."""
    count = max(1, min(round(test * N), TESTED)) if 0 < test < 1 else test
    if not (checks.number("test", test) and float(count).is_integer() and 1 <= count <= N - 2):
        raise ShapeError(f"test: expected a share below 1, or a number of pairs from 1 to {N - 2}, got {test:g}")
    chosen = np.zeros(N, bool)
    chosen[generator.permutation(N)[: int(count)]] = True
    return chosen


def _blocks(files: tuple[str, ...], encoding: str) -> Iterator[list[str]]:
    """Yield the lines of the files, a few at a time, because the files may be larger than memory."""
    for file in files:
        typed = file == "-" and sys.stdin.isatty()  # at a terminal, translate line by line
        block: list[str] = []
        for line in reading.lines(file, encoding):
            block.append(line.strip())
            if len(block) == (1 if typed else LINES):
                yield block
                block = []
        if block:
            yield block

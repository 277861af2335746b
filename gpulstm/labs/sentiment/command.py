"""The commands of the sentiment lab: train, predict, info."""

import select
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import click

from gpulstm import checks
from gpulstm.errors import FormatError, ShapeError
from gpulstm.io.files import atomic_write
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
from gpulstm.labs.sentiment import report
from gpulstm.labs.sentiment.estimator import SequenceClassifier
from gpulstm.labs.sentiment.model import POOLINGS
from gpulstm.labs.sentiment.texts import Labelled, generated, read_classes, read_table

GENERATED = 2000  # sentences in the default data
TOGETHER = 64  # largest number of lines that predict classifies together
STEPS, EPOCHS = 800, 4  # without --epochs, a run has as many epochs as these steps need, and at least EPOCHS
USUAL = SequenceClassifier(clip_norm=3.0, weight_decay=0.0, warmup=0.1, random_state=0)


@click.group(name="sentiment")
def sentiment_lab() -> None:
    """Classify texts, for example into good and bad."""


def _model_options(command: Callable) -> Callable:
    for option in reversed([
        click.option("--embedding", default=USUAL.embedding_size, help="Embedding size."),
        click.option("--min-count", default=USUAL.min_count, help="Minimum count of a word to get its own vector."),
        click.option("--keep-case", is_flag=True, help="Distinguish upper case and lower case."),
        click.option("--ngram-buckets", default=USUAL.ngram_buckets, help="Vectors for character n-grams; 0 for none."),
        click.option("--vectors", type=FILE, help="Pretrained word vectors, a text file in GloVe format."),
        click.option("--pooling", type=click.Choice(POOLINGS), default=USUAL.pooling, help="Pooling over the steps."),
        click.option("--label-smoothing", default=USUAL.label_smoothing, help="Label smoothing."),
        click.option("--balanced", is_flag=True, help="Give each class the same total weight in the loss."),
    ]):  # fmt: skip
        command = option(command)
    return command


@sentiment_lab.command()
@click.argument("file", required=False, metavar="[TABLE]", type=click.Path(allow_dash=True))
@click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="NAME=PATH",
    help="Texts of a class: a file with one text per line, or a folder of files. Use once for each class.",
)
@click.option("--text", help="Column of the texts, by name or position (from 1).  [default: text]")
@click.option("--label", help="Column of the labels, by name or position (from 1).  [default: label]")
@click.option("--delimiter", help="Character between columns.  [default: detected in the first line]")
@ENCODING
@click.option("--test", default=0.1, help="Fraction of the texts of each class, used for the test.")
@click.option("--validation", default=USUAL.validation_fraction, help="Fraction of the rest, to choose the best epoch.")
@_model_options
@parameter_options(replace(USUAL, epochs=None), epochs="  [default: enough for 800 steps]")  # type: ignore[arg-type]
@picture_option("the confusion matrix")
@run_options(out="sentiment.safetensors")
def train(
    file: str | None,
    classes: tuple[str, ...],
    text: str | None,
    label: str | None,
    delimiter: str | None,
    encoding: str,
    test: float,
    validation: float,
    embedding: int,
    keep_case: bool,
    balanced: bool,
    picture: str | None,
    out: str,
    **others: Any,
) -> None:
    """Train a classifier on the texts of a TABLE (CSV or TSV with a header) or of --class files, and test it.

    Without texts it trains on film reviews that are generated from templates. The test compares it with naive Bayes and
    with always choosing the most frequent class.
    """
    if file is not None and classes:
        raise FormatError(f"class: expected either a table or --class, got both {file} and {classes[0]!r:.60}")
    if classes and (text or label or delimiter):
        raise FormatError("text, label, delimiter: expected none with --class, whose files have no columns")
    if checks.number("test", test) <= 0 or test >= 1:
        raise ShapeError(f"test: expected a share above 0 and below 1, got {test:g}")
    given = [file or "-", *(one.partition("=")[2] for one in classes), others["vectors"] or "-"]
    run, others = run_of(out, picture, others, files=tuple(path for path in given if path))
    epochs = others.pop("epochs")
    classifier = SequenceClassifier(
        **parameters(others),
        epochs=1 if epochs is None else epochs,
        embedding_size=embedding,
        lowercase=not keep_case,
        class_weight="balanced" if balanced else None,
        validation_fraction=validation,
    )
    classifier.check_params()
    if file is not None:
        data = read_table(file, text, label, delimiter=delimiter, encoding=encoding)
    elif classes:
        data = read_classes(classes, encoding)
    else:
        run.say(f"no texts given: {GENERATED:,} film reviews are generated from templates")
        data = generated(GENERATED)
    learnt, tested = data.split(test, 0)
    if epochs is None:
        steps = max(1, round((1 - validation) * len(learnt) / classifier.batch_size))
        classifier.epochs = max(EPOCHS, -(-STEPS // steps))
    run.say(f"texts: {len(learnt):,} to train and validate on, {len(tested):,} to test; classes: {_classes(data)}")
    with training():
        classifier.fit(learnt.texts, learnt.labels, run=run)
    words, counts = report.lines(classifier, learnt, tested)
    for line in words:
        run.say(line)
    if run.files.picture is not None:
        report.picture(run.files.picture, counts, [str(c) for c in classifier.classes_])
        run.say(f"picture: {run.files.picture}")
    use = f"echo 'a fine film' | {shlex.join(['gpulstm', 'sentiment', 'predict', out])}"
    run.say(f"model: {out}\nclassify texts with it: {use}")


@sentiment_lab.command()
@click.argument("model", type=FILE)
@click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path(allow_dash=True))
@ENCODING
@click.option("--words", is_flag=True, help="Show the words that influenced each result most.")
@click.option("--html", type=FILE, help="Write a web page that marks the words of each text by their influence.")
@click.option("--force", is_flag=True, help="Overwrite an existing page.")
@DEVICE
def predict(
    model: str, files: tuple[str, ...], encoding: str, words: bool, html: str | None, force: bool, device: str
) -> None:
    """Classify each line of FILEs, or of standard input; print class and probability, separated by a tab."""
    if html is not None:
        check_output("html", html, (model, *files), force)
    classifier = SequenceClassifier.load(model, device)
    found: list[report.Weighed] = []
    if hasattr(classifier, "n_features_in_"):
        raise FormatError(f"{model}: expected a classifier of texts, got one of sequences of numbers")
    for texts in _together(files or ("-",), encoding):
        probabilities, weights = classifier.explain(texts)
        cut = classifier.words(texts)
        for k, p in enumerate(probabilities):
            label = classifier.classes_[p.argmax()]
            row = [" ".join(str(label).split()), f"{p.max():.3f}"]
            if words:
                row.append(" ".join(report.heaviest(cut[k], weights[k])))
            click.echo("\t".join(row))
            if html is not None:
                found.append(report.Weighed(str(label), float(p.max()), cut[k], weights[k]))
    if html is not None:
        content = report.page(found).encode("utf-8")
        atomic_write(html, lambda page: page.write(content))


@sentiment_lab.command()
@click.argument("model", type=FILE)
def info(model: str) -> None:
    """Print the layers of a MODEL or a checkpoint, and how it was trained."""
    describe(SequenceClassifier.load(model, "cpu"), model)


def _together(files: tuple[str, ...], encoding: str) -> Iterator[list[str]]:
    """Yield a few lines at a time. From standard input, yield the lines that have arrived, without waiting for more."""
    for file in files:
        some: list[str] = []
        for line in reading.lines(file, encoding):
            some.append(line)
            if len(some) == TOGETHER or (file == "-" and not _more_is_there()):
                yield some
                some = []
        if some:
            yield some


def _more_is_there() -> bool:
    """Return whether standard input can be read without waiting; False if the system cannot tell."""
    try:
        return bool(select.select([sys.stdin.buffer.fileno()], [], [], 0)[0])
    except (OSError, ValueError):
        return False


def _classes(data: Labelled) -> str:
    names = sorted(set(data.labels))
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")

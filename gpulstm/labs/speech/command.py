"""The commands of the speech lab: train, predict, info."""

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from gpulstm import checks, plot
from gpulstm.errors import ShapeError
from gpulstm.labs import model_file
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
from gpulstm.labs.speech.estimator import BLOCK, Transcriber
from gpulstm.labs.speech.rates import character_error_rate, word_error_rate
from gpulstm.labs.speech.recordings import read_recordings
from gpulstm.labs.speech.tones import tone_strings
from gpulstm.labs.speech.wave import read_wave

GENERATED = 600  # recordings in the default data
STEPS = 1500  # without --epochs, a run on DATA has as many epochs as these steps need, and at least EPOCHS
EPOCHS = 10
USUAL = Transcriber(random_state=0)
SHOWN = 3  # number of test recordings whose texts are printed


@click.group(name="speech")
def speech_lab() -> None:
    """Transcribe recordings of speech."""


def _hearing_options(command: Callable) -> Callable:
    """The options for the features and the decoding, which are parameters of the Transcriber."""
    options = [
        click.option("--sample-rate", default=USUAL.sample_rate, help="Sample rate after resampling, in Hz."),
        click.option("--level", default=USUAL.level, type=click.Choice(["char", "word"]), help="Token type."),
        click.option("--bands", default=USUAL.bands, help="Number of mel bands."),
        click.option("--low", default=USUAL.low, help="Lowest frequency, in Hz."),
        click.option("--high", type=float, help="Highest frequency, in Hz.  [default: almost half the sample rate]"),
        click.option("--stack", default=USUAL.stack, help="Frames of 10 ms that the LSTM reads as one step."),
        click.option(
            "--noise",
            default=USUAL.noise,
            nargs=2,
            type=float,
            help="Lowest and highest level of the noise added in training, in dB relative to a recording.",
        ),
        click.option("--speed", default=USUAL.speed, help="Largest relative change of speed in training."),
        click.option("--warp", default=USUAL.warp, help="Largest relative shift of frequencies in training."),
        click.option("--beam", "beam_width", default=USUAL.beam_width, help="Beam width; 1 is greedy."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@speech_lab.command()
@click.argument("data", required=False, metavar="[DATA]", type=FILE)
@click.option(
    "--transcripts", type=FILE, help="TSV or CSV file: name of the WAV file, text.  [default: transcripts.tsv in DATA]"
)
@ENCODING
@_hearing_options
@click.option("--validation", default=0.1, help="Fraction of the training recordings, to choose the best epoch.")
@click.option("--test", default=0.1, help="Random recordings, used for the test: a fraction or a number.")
@parameter_options(replace(USUAL, epochs=None), epochs="  [default: enough for 1,500 steps]")  # type: ignore[arg-type]
@picture_option("the alignment of a test recording")
@run_options(out="speech.safetensors")
def train(
    data: str | None,
    transcripts: str | None,
    encoding: str,
    validation: float,
    test: float,
    picture: str | None,
    out: str,
    **others: Any,
) -> None:
    """Train a transcriber on the recordings in DATA, a folder or a zip of WAV files, and test it.

    Without DATA it trains on generated recordings: strings of digits, in which each digit is a short pattern of tones.
    """
    read = tuple(file for file in (data, transcripts) if file is not None)
    run, others = run_of(out, picture, others, {"speech": {"generated": data is None, "test": test}}, read)
    epochs = others.pop("epochs")
    transcriber = Transcriber(**parameters(others), epochs=epochs or 1, validation_fraction=validation)
    transcriber.check_params()
    waves, texts = _recordings(data, transcripts, encoding, transcriber, run.say)
    chosen = _test_part(test, len(waves), transcriber.random_state)
    rest = np.setdiff1d(np.arange(len(waves)), chosen)
    if epochs is None:
        batches = -(-(len(rest) - round(validation * len(rest))) // transcriber.batch_size)
        transcriber.epochs = EPOCHS if data is None else max(EPOCHS, -(-STEPS // batches))
    run.say(f"{len(rest):,} recordings to train and validate on, {len(chosen):,} to test")
    with training():
        transcriber.fit([waves[n] for n in rest], [texts[n] for n in rest], run=run)
    heard, truth = [waves[n] for n in chosen], [texts[n] for n in chosen]
    predicted = transcriber.predict(heard)
    words, characters = word_error_rate(predicted, truth), character_error_rate(predicted, truth)
    for said, text in list(zip(truth, predicted, strict=True))[:SHOWN]:
        run.say(f"  said: {said}\n  heard: {text}")
    run.say(f"test: word error rate {words:.2%}, character error rate {characters:.2%}")
    rates = {"word_error_rate": words, "character_error_rate": characters}
    transcriber.save(out, {**model_file.facts(out, Transcriber.kind), **rates})
    if run.files.picture is not None:
        draw_alignment(transcriber, heard[0], truth[0], run.files.picture)
        run.say(f"picture: {run.files.picture}")
    run.say(f"model: {out}\ntranscribe with it: {shlex.join(['gpulstm', 'speech', 'predict', out])} FILES")


@speech_lab.command()
@click.argument("model", type=FILE)
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option("--beam", type=int, help="Beam width; 1 is greedy and fastest.  [default: as in training]")
@click.option("--picture", type=FILE, help="Plot the alignment of the first WAV file (needs matplotlib).")
@click.option("--force", is_flag=True, help="Overwrite an existing picture.")
@DEVICE
def predict(
    model: str, files: tuple[str, ...], beam: int | None, picture: str | None, force: bool, device: str
) -> None:
    """Transcribe WAV files; print the name of each file, a tab, and its text."""
    if picture is not None:
        check_output("picture", picture, (model, *files), force)
    transcriber = Transcriber.load(model, device)
    if beam is not None:
        transcriber.set_params(beam_width=checks.count("beam", beam, 1))
    for start in range(0, len(files), BLOCK):
        some = files[start : start + BLOCK]
        waves = [read_wave(file, transcriber.sample_rate) for file in some]
        for file, text in zip(some, transcriber.predict(waves), strict=True):
            click.echo(f"{file}\t{text}")
        if picture is not None and start == 0:
            draw_alignment(transcriber, waves[0], Path(files[0]).name, Path(picture))


@speech_lab.command()
@click.argument("model", type=FILE)
def info(model: str) -> None:
    """Print the layers of a MODEL or a checkpoint, and how it was trained."""
    describe(Transcriber.load(model, "cpu"), model)


def draw_alignment(transcriber: Transcriber, wave: np.ndarray, title: str, path: Path) -> None:
    """Plot the alignment of a recording; raises the errors of plot.save."""
    log_probs = transcriber.predict_log_proba([wave])[0]
    labels = ["blank", *("space" if token == " " else token for token in transcriber.tokens_)]

    def draw(axes: Any) -> None:
        plot.alignment(axes, log_probs, labels, seconds_a_step=transcriber.seconds_a_step)
        axes.set(title=title)

    plot.save(path, draw, size=(9, 4))


def _recordings(
    data: str | None, transcripts: str | None, encoding: str, transcriber: Transcriber, say: Callable[[str], None]
) -> tuple[list[np.ndarray], list[str]]:
    """Return (waves, texts) from DATA, or generated ones if there is no DATA."""
    sample_rate = transcriber.sample_rate
    if data is None:
        if transcripts is not None:
            raise ShapeError(f"transcripts: expected DATA with the recordings, got only {transcripts}; name DATA")
        say(f"no DATA: {GENERATED} strings of digits are generated, each digit a short pattern of tones")
        return tone_strings(GENERATED, sample_rate)
    found = read_recordings(data, transcripts, sample_rate, encoding)
    transcriber.check_fits(found.waves, found.texts, [f"{data}: {name}" for name in found.names])
    seconds = sum(map(len, found.waves)) / sample_rate
    unused = f"; {found.unused:,} WAV files without a transcript are left out" if found.unused else ""
    say(f"{data}: {len(found.waves):,} recordings, {seconds / 60:.1f} minutes{unused}")
    return found.waves, found.texts


def _test_part(test: float, count: int, seed: Any) -> np.ndarray:
    """Draw the recordings to test on. Raises ShapeError if there would be none to test or to train on."""
    chosen = round(test * count) if test < 1 else test
    if not checks.number("test", test) or not float(chosen).is_integer() or not 1 <= chosen < count:
        raise ShapeError(f"test: expected a share, or a number of recordings from 1 to {count - 1}, got {test:g}")
    generator = np.random.default_rng(checks.count("random_state", seed))
    return generator.permutation(count)[: int(chosen)]

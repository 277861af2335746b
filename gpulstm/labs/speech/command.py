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

GENERATED = 600  # strings of tones, where no data are given
STEPS = 1500  # that a run on DATA has, in whole epochs and at least EPOCHS of them, where --epochs says nothing
EPOCHS = 10
USUAL = Transcriber(random_state=0)
SHOWN = 3  # test recordings whose texts are printed


@click.group(name="speech")
def speech_lab() -> None:
    """Turn recordings into text."""


def _hearing_options(command: Callable) -> Callable:
    """The options for how recordings are heard, which are parameters of the Transcriber."""
    options = [
        click.option("--sample-rate", default=USUAL.sample_rate, help="Recordings are resampled to this rate, in Hz."),
        click.option("--level", default=USUAL.level, type=click.Choice(["char", "word"]), help="What is recognised."),
        click.option("--bands", default=USUAL.bands, help="Mel bands."),
        click.option("--low", default=USUAL.low, help="Lowest frequency, in Hz."),
        click.option("--high", type=float, help="Highest frequency, in Hz.  [default: just below half the rate]"),
        click.option("--stack", default=USUAL.stack, help="Frames of 10 ms that the LSTM reads as one step."),
        click.option(
            "--noise",
            default=USUAL.noise,
            nargs=2,
            type=float,
            help="Least and most noise put on recordings in training, in dB.",
        ),
        click.option("--speed", default=USUAL.speed, help="Share by which the speed is changed in training."),
        click.option("--warp", default=USUAL.warp, help="Share by which frequencies are moved in training."),
        click.option("--beam", "beam_width", default=USUAL.beam_width, help="Texts that the search follows."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@speech_lab.command()
@click.argument("data", required=False, metavar="[DATA]", type=FILE)
@click.option(
    "--transcripts", type=FILE, help="TSV or CSV: a recording's file, its text.  [default: transcripts.tsv in DATA]"
)
@ENCODING
@_hearing_options
@click.option("--validation", default=0.1, help="Share of the training recordings that choose the best epoch.")
@click.option("--test", default=0.1, help="Recordings to test on, drawn at random: a share, or a number of them.")
@parameter_options(replace(USUAL, epochs=None), epochs="  [default: enough for 1,500 steps]")  # type: ignore[arg-type]
@picture_option("when a test recording is heard to say what")
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

    Without DATA the recordings are generated: strings of digits, each digit a short pattern of tones.
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
@click.option("--beam", type=int, help="Texts that the search follows; 1 is quickest.  [default: as in training]")
@click.option("--picture", type=FILE, help="Picture of the first file's alignment (needs matplotlib).")
@click.option("--force", is_flag=True, help="Overwrite an existing picture.")
@DEVICE
def predict(
    model: str, files: tuple[str, ...], beam: int | None, picture: str | None, force: bool, device: str
) -> None:
    """Print for each WAV file its name, a tab, and the text that is heard in it."""
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
    """Draw when the wave is heard to say what; raises as plot.save does."""
    log_probs = transcriber.predict_log_proba([wave])[0]
    labels = ["blank", *("space" if token == " " else token for token in transcriber.tokens_)]

    def draw(axes: Any) -> None:
        plot.alignment(axes, log_probs, labels, seconds_a_step=transcriber.seconds_a_step)
        axes.set(title=title)

    plot.save(path, draw, size=(9, 4))


def _recordings(
    data: str | None, transcripts: str | None, encoding: str, transcriber: Transcriber, say: Callable[[str], None]
) -> tuple[list[np.ndarray], list[str]]:
    """(waves, texts) from DATA, or generated ones."""
    sample_rate = transcriber.sample_rate
    if data is None:
        if transcripts is not None:
            raise ShapeError(f"transcripts: expected DATA, the recordings of {transcripts}, got none")
        say(f"no DATA: {GENERATED} strings of digits are generated, each digit a short pattern of tones")
        return tone_strings(GENERATED, sample_rate)
    found = read_recordings(data, transcripts, sample_rate, encoding)
    transcriber.check_fits(found.waves, found.texts, [f"{data}: {name}" for name in found.names])
    seconds = sum(map(len, found.waves)) / sample_rate
    unused = f"; {found.unused:,} WAV files without a transcript are left out" if found.unused else ""
    say(f"{data}: {len(found.waves):,} recordings, {seconds / 60:.1f} minutes{unused}")
    return found.waves, found.texts


def _test_part(test: float, count: int, seed: Any) -> np.ndarray:
    """The recordings to test on, drawn at random. Raises ShapeError where none is left for either part."""
    chosen = round(test * count) if test < 1 else test
    if not checks.number("test", test) or not float(chosen).is_integer() or not 1 <= chosen < count:
        raise ShapeError(f"test: expected a share, or a number of recordings from 1 to {count - 1}, got {test:g}")
    generator = np.random.default_rng(checks.count("random_state", seed))
    return generator.permutation(count)[: int(chosen)]

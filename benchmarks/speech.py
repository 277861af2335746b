"""The speech lab on strings of spoken digits, joined from the recordings of the Free Spoken Digit Dataset.

    python -m benchmarks.speech --data FOLDER           # with recordings.zip in it; four minutes a seed on two cores
    python -m benchmarks.speech --data FOLDER --quick   # checks that it works; seconds

A string consists of 3 to 7 digits of one speaker, with 30 to 250 ms of silence between them. There are two protocols:
the official split, in which the recordings 0 to 4 of every digit and speaker are the test data, and one in which the
speaker theo is not in the training data. Training strings are drawn again in every epoch; in the first epochs they have
1 to 3 digits. The tokens are words. Both protocols use one configuration, which was fixed before the first test. The
model of the last step is measured: nothing is chosen on the test data.

Writes speech-fsdd.json (a row for each protocol and seed) and .md to benchmarks/results/ or --out.
"""

import argparse
import sys
import time
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import facts, harness
from gpulstm import FormatError
from gpulstm.labs.speech import Transcriber, character_error_rate, word_error_rate
from gpulstm.labs.speech.utterances import Hearing, Utterances, at_speed
from gpulstm.labs.speech.wave import wave_in

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RATE = 8000
HELD_OUT = "theo"
GOALS = {"known speakers": 0.01, "a speaker never heard": 0.08}
RECIPE = {
    "hidden_size": 128, "num_layers": 2, "dropout": 0.3, "learning_rate": 3e-3, "weight_decay": 1e-4, "batch_size": 16,
    "warmup": 0.05, "epochs": 12, "level": "word", "sample_rate": RATE, "noise": (-60.0, -15.0), "speed": 0.1,
    "warp": 0.1,
}  # fmt: skip
SIZES = {"strings": 2000, "short_passes": 2, "digit_speed": 0.05, "test_strings": 500}
QUICK = {"hidden_size": 8, "num_layers": 1, "epochs": 2}
QUICK_SIZES = {"strings": 32, "short_passes": 1, "test_strings": 10}

Takes = dict[tuple[str, int], list[np.ndarray]]  # recordings by speaker and digit


def read(file: Path) -> dict[tuple[str, int, int], np.ndarray]:
    """The recordings of the zip by speaker, digit and index. Raises FormatError and OSError."""
    found = {}
    try:
        with zipfile.ZipFile(file) as packed:
            for name in sorted(name for name in packed.namelist() if name.endswith(".wav")):
                digit, speaker, index = Path(name).stem.split("_")
                found[speaker, int(digit), int(index)] = wave_in(packed.read(name), name, RATE)
    except (zipfile.BadZipFile, ValueError) as error:
        raise FormatError(
            f"{file}: expected the zip of digit_speaker_index.wav, got something else: {error}"
        ) from error
    return found


def takes_of(recordings: dict[tuple[str, int, int], np.ndarray], chosen: Iterable[tuple[str, int, int]]) -> Takes:
    takes: Takes = {}
    for speaker, digit, index in chosen:
        takes.setdefault((speaker, digit), []).append(recordings[speaker, digit, index])
    return takes


def string_of(
    takes: Takes, count: int, generator: np.random.Generator, digit_speed: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """(a wave of ``count`` digits of one speaker with silences between, the digits)."""
    speakers = sorted({speaker for speaker, _ in takes})
    speaker = speakers[generator.integers(len(speakers))]
    digits = generator.integers(10, size=count)
    parts: list[np.ndarray] = []
    for digit in digits.tolist():
        choices = takes[speaker, digit]
        wave = choices[generator.integers(len(choices))]
        parts += [np.zeros(int(generator.uniform(0.03, 0.25) * RATE), np.float32)] if parts else []
        parts.append(at_speed(wave, 1 + digit_speed * generator.uniform(-1, 1)) if digit_speed else wave)
    return np.concatenate(parts), digits


class Strings(Utterances):
    """Training strings, drawn anew in every pass; short ones in the first ``short_passes``."""

    def __init__(
        self, hearing: Hearing, numbers: dict[str, int], takes: Takes, sizes: dict[str, Any], batch_size: int,
        generator: np.random.Generator,
    ) -> None:  # fmt: skip
        self._takes, self._sizes = takes, sizes
        self._classes = np.array([numbers[word] for word in WORDS])
        # The counts of digits stand in for lengths, which are not known before a string is drawn.
        super().__init__(hearing, [np.zeros(1)] * sizes["strings"], [np.zeros(1)], batch_size, generator)

    def _example(self, number: int, generator: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray]:
        assert generator is not None
        low, high = (1, 3) if self._passes <= self._sizes["short_passes"] else (3, 7)
        wave, digits = string_of(
            self._takes, int(generator.integers(low, high + 1)), generator, self._sizes["digit_speed"]
        )
        return wave, self._classes[digits]


def run(protocol: str, training: Takes, test: Takes, recipe: dict[str, Any], sizes: dict[str, Any], seed: int) -> dict:
    """Train with one seed and transcribe the test strings; a row of the results."""
    transcriber = Transcriber(**recipe, random_state=seed, verbose=True, device="cpu")
    began = time.perf_counter()
    transcriber.learn(
        sorted(WORDS),
        lambda hearing, numbers, generator: (
            Strings(hearing, dict(numbers), training, sizes, transcriber.batch_size, generator),
            None,
        ),
        "strings of digits",
    )
    seconds = time.perf_counter() - began
    drawn = np.random.default_rng(2026)  # the same test strings for all seeds
    strings = [string_of(test, int(drawn.integers(3, 8)), drawn) for _ in range(sizes["test_strings"])]
    waves, truth = [wave for wave, _ in strings], [" ".join(WORDS[d] for d in digits) for _, digits in strings]
    row = {"protocol": protocol, "seed": seed, "strings": len(strings), "words": sum(len(d) for _, d in strings)}
    for width in (1, 8):
        predicted = transcriber.set_params(beam_width=width).predict(waves)
        row[f"wer_beam_{width}"] = word_error_rate(predicted, truth)
        row[f"cer_beam_{width}"] = character_error_rate(predicted, truth)
    return {**row, "goal": GOALS[protocol], "steps": transcriber.history_[-1]["step"], "seconds": round(seconds, 1)}


def protocols(recordings: dict[tuple[str, int, int], np.ndarray]) -> dict[str, tuple[Takes, Takes]]:
    """Training and test recordings of each protocol."""
    return {
        "known speakers": (
            takes_of(recordings, (key for key in recordings if key[2] > 4)),
            takes_of(recordings, (key for key in recordings if key[2] <= 4)),
        ),
        "a speaker never heard": (
            takes_of(recordings, (key for key in recordings if key[0] != HELD_OUT)),
            takes_of(recordings, (key for key in recordings if key[0] == HELD_OUT)),
        ),
    }


def report(head: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = ["# The speech lab on strings of spoken digits\n"]
    lines.append("Word error rate on strings of 3 to 7 digits of one speaker, joined from FSDD's recordings.\n")
    shown = []
    for row in rows:
        rates = {name: f"{100 * row[name]:.2f} %" for name in ("wer_beam_1", "wer_beam_8")}
        shown.append({**row, **rates, "goal": f"{100 * row['goal']:.0f} %", "seconds": f"{row['seconds']:.0f}"})
    columns = {
        "protocol": "protocol", "seed": "seed", "wer_beam_1": "greedy", "wer_beam_8": "beam of 8", "goal": "goal",
        "words": "words", "steps": "steps", "seconds": "seconds of training",
    }  # fmt: skip
    return "\n".join([*lines, *means(rows), "", harness.table(shown, columns), harness.origin(head)])


def means(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each protocol: the mean over its seeds of the greedy word error rate, and its spread."""
    lines = []
    for protocol in dict.fromkeys(row["protocol"] for row in rows):
        rates = [100 * row["wer_beam_1"] for row in rows if row["protocol"] == protocol]
        seeds = f"mean of {len(rates)} seeds" if len(rates) > 1 else "one seed"
        lines.append(
            f"- {protocol}: {np.mean(rates):.2f} ± {np.std(rates):.2f} %, {seeds}; goal {100 * GOALS[protocol]:.0f} %"
        )
    return lines


def main(given: Sequence[str]) -> int:
    head = facts.facts("benchmarks.speech", given)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speech", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder with recordings.zip, or the zip")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds to train with")
    parser.add_argument("--only", choices=GOALS, help="run only this protocol")
    parser.add_argument("--epochs", type=int, help="epochs of 2,000 strings (default: 12)")
    parser.add_argument("--quick", action="store_true", help="a tiny model; writes nothing without --out")
    parser.add_argument("--out", type=Path, help="the folder for the results")
    options = parser.parse_args(given)
    recipe, sizes = {**RECIPE, **(QUICK if options.quick else {})}, {**SIZES, **(QUICK_SIZES if options.quick else {})}
    recipe |= {"epochs": options.epochs} if options.epochs else {}
    try:
        recordings = read(options.data / "recordings.zip" if options.data.is_dir() else options.data)
    except (FormatError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    rows = []
    for protocol, (training, test) in protocols(recordings).items():
        if options.only in (None, protocol):
            rows += [run(protocol, training, test, recipe, sizes, seed) for seed in options.seeds]
    markdown = report(head, rows)
    print("\n" + markdown)
    out = options.out or (None if options.quick else harness.RESULTS)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        harness.write_json(out / "speech-fsdd.json", {**head, "recipe": {**recipe, **sizes}, "rows": rows})
        harness.write(out / "speech-fsdd.md", markdown)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

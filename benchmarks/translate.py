"""The translation lab on Multi30k, German to English, compared with a published result.

    python -m benchmarks.translate --data multi30k --model m.safetensors     # about 20 minutes on two cores
    python -m benchmarks.translate --data multi30k --model m.safetensors --resume
    python -m benchmarks.translate --quick                                   # checks that it works, on dates; seconds

29,000 captions are for training. 1,014 choose the epoch; with ``--validation-only`` they also chose the settings. The
1,000 captions of test 2016 are translated once, with beam search. BLEU is that of sacrebleu, ignoring case, with the
13a tokenizer. Every parameter of Translator is an option (``--hidden-size 256 --dropout 0.4``).

Writes translate-multi30k.json (the row, the command, all parameters), .log.jsonl (the losses) and .md to
benchmarks/results/ or --out.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from benchmarks import facts, harness
from gpulstm import FormatError, GpulstmError
from gpulstm.labs.estimator import Run
from gpulstm.labs.files import RunFiles
from gpulstm.labs.translate import Translator
from gpulstm.labs.translate.bleu import bleu, check_bleu
from gpulstm.labs.translate.dates import dates
from gpulstm.labs.translate.pairs import read_pairs

RECIPE = {
    "level": "bpe", "vocabulary_size": 6000, "min_count": 2, "lowercase": True, "embedding_size": 256,
    "hidden_size": 256, "dropout": 0.4, "label_smoothing": 0.1, "epochs": 14, "batch_size": 64, "learning_rate": 2e-3,
    "weight_decay": 1e-4, "warmup": 0.05, "beam_width": 5, "length_penalty": 1.0, "random_state": 0, "device": "cpu",
}  # fmt: skip
QUICK = {"hidden_size": 16, "embedding_size": 8, "epochs": 2, "random_state": 0, "device": "cpu"}
PARTS = {"training": "train", "validation": "val", "test": "test_2016_flickr"}
PUBLISHED = [(28.0, "an attention RNN, tutorial", "20 M parameters, words, no beam search, on a GPU")]
Pairs = tuple[list[str], list[str]]


def parts_of(folder: Path) -> dict[str, Pairs]:
    """The three parts of Multi30k in a folder. Raises FormatError and OSError."""
    return {part: read_pairs(*(folder / f"{name}.{side}.gz" for side in ("de", "en"))) for part, name in PARTS.items()}


def run(parts: dict[str, Pairs], options: dict[str, Any], files: RunFiles, resume: bool, test: bool) -> dict[str, Any]:
    """Train, and translate the validation part, and with ``test`` the test part; the row of the results."""
    began = time.perf_counter()
    settings = Run(files, resume=resume, force=not resume, progress=True, say=print)
    translator = Translator(**options).fit(*parts["training"], validation=parts["validation"], run=settings)
    seconds = translator.history_[-1]["seconds"]
    losses = [record["val_loss"] for record in translator.history_ if record["val_loss"] is not None]
    row = {
        "corpus": "multi30k de-en", "pairs": len(parts["training"][0]), "val_loss": min(losses),
        "parameters": sum(parameter.size for parameter in translator.model_.parameters()),
        "seconds": seconds,
        "tokens_per_second": statistics.harmonic_mean(r["tokens_per_second"] for r in translator.history_),
    }  # fmt: skip
    for part in ("validation", "test")[: 1 + test]:
        sources, references = parts[part]
        for name, width in (("greedy", 1), ("beam", translator.beam_width)):
            before = time.perf_counter()
            answers = translator.predict(sources, beam_width=width)
            row[f"{part}_{name}_seconds"] = time.perf_counter() - before
            row[f"{part}_{name}"] = bleu(answers, references, lowercase=True)
    return {**row, "all_seconds": time.perf_counter() - began, **translator.get_params()}


def report(head: dict[str, Any], row: dict[str, Any]) -> str:
    """The result as Markdown."""
    how = f"{row['level']} of {row['vocabulary_size']:,}, {row['hidden_size']} units, {row['epochs']} epochs"
    lines = [{"bleu": f"{row['test_beam']:.2f}", "who": "gpulstm, this run", "how": f"{how}, {row['device']}"}]
    lines += [{"bleu": f"about {score:g}", "who": who, "how": words} for score, who, words in PUBLISHED]
    found = ", ".join(
        f"{part} {row[f'{part}_beam']:.2f} with a beam of {row['beam_width']}, {row[f'{part}_greedy']:.2f} greedy"
        for part in ("validation", "test")
    )
    pace = f"Trained in {row['seconds'] / 60:.0f} minutes ({row['tokens_per_second']:,.0f} tokens a second), "
    pace += f"{row['parameters'] / 1e6:.1f} M parameters; the test part takes {row['test_beam_seconds']:.0f} s.\n"
    return "\n".join(
        [
            f"# The translation lab on {row['corpus']}\n",
            f"BLEU (sacrebleu, letter case ignored, 13a): {found}.\n",
            harness.table(lines, {"bleu": "BLEU, test 2016", "who": "who", "how": "how"}),
            pace,
            harness.origin(head),
        ]
    )


def arguments(given: Sequence[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The command line, and Translator's parameters from it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.translate", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the folder with Multi30k's files, such as train.de.gz")
    parser.add_argument("--model", type=Path, help="keep the model and its checkpoint here")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint of --model")
    parser.add_argument(
        "--validation-only", action="store_true", help="do not use the test data; writes losses only with --out"
    )
    parser.add_argument("--quick", action="store_true", help="dates, two epochs; writes nothing without --out")
    parser.add_argument("--out", type=Path, help="the folder for the results")
    usual = Translator()
    knobs = [knob.name for knob in fields(Translator) if knob.name != "verbose"]
    for name in knobs:
        value = getattr(usual, name)
        kind = (lambda word: word == "True") if isinstance(value, bool) else int if value is None else type(value)
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=None, metavar="VALUE")
    options = parser.parse_args(given)
    if options.data is None and not options.quick:
        parser.error("--data: expected the folder of Multi30k, or --quick")
    chosen = {name: getattr(options, name) for name in knobs if getattr(options, name) is not None}
    return options, {**(QUICK if options.quick else RECIPE), **chosen}


def main(given: Sequence[str]) -> int:
    head = facts.facts("benchmarks.translate", given)
    options, recipe = arguments(given)
    name = "translate-dates" if options.quick else "translate-multi30k"
    out = options.out or (None if options.quick or options.validation_only else harness.RESULTS)
    with tempfile.TemporaryDirectory(prefix="gpulstm-benchmark-") as folder:
        files = RunFiles.of(options.model or Path(folder) / "m.safetensors", out and out / f"{name}.log.jsonl")
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
        try:
            check_bleu()
            if options.quick:
                X, y = dates(400, seed=0)
                parts = {part: (X[k::4], y[k::4]) for k, part in enumerate(PARTS)}
            else:
                parts = parts_of(options.data)
            row = run(parts, recipe, files, options.resume, not options.validation_only)
        except (GpulstmError, FormatError, OSError) as error:
            print(error, file=sys.stderr)
            return 2
    if options.validation_only:
        print(row)
        return 0
    markdown = report(head, row)
    print("\n" + markdown)
    if out is not None:
        harness.write_json(out / f"{name}.json", {**head, "published": PUBLISHED, "rows": [row]})
        harness.write(out / f"{name}.md", markdown)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

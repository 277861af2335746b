"""The text lab on a corpus, compared with published results of character models.

    python -m benchmarks.text --corpus input.txt        # one layer of 512 units; half an hour on two cores
    python -m benchmarks.text                           # the text that comes with Python
    python -m benchmarks.text --quick                   # checks that it works; seconds

The settings are those of the character models to compare with: 64 streams of 64 characters, Adam with a learning rate
of 3e-3, a warm-up and a cosine decay, gradients clipped to a norm of 1, 3,000 steps. The last tenth of the text is held
out. Every setting of the lab is an option (``--hidden 512 --dropout 0.2 --seed 0``).

Writes text-<name>.json (a row for the run, the command, all settings), text-<name>.log.jsonl (the losses during the
run) and text-<name>.md to benchmarks/results/ or --out. The name is that of the corpus, or --name.
"""

import argparse
import hashlib
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from benchmarks import facts, harness
from gpulstm import DeviceError, FormatError, ShapeError, device
from gpulstm.labs import text as lab
from gpulstm.labs.text_training import Settings

RECIPE = {"hidden": 512, "batch": 64, "window": 64, "steps": 3000, "lr": 3e-3, "warmup": 100, "clip": 1.0}
QUICK = {"hidden": 16, "embedding": 8, "batch": 4, "window": 16, "steps": 6, "warmup": 2, "validate_every": 3}
QUICK_CHARACTERS = 4000

# SHA-256 of a corpus -> its name, and the nats a character that others publish for it: (nats, who, how).
PUBLISHED = {
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed": (
        "tinyshakespeare",
        (
            (1.47, "nanoGPT, README", "Transformer of 6 layers of 384, the same split, on a GPU"),
            (
                1.88,
                "nanoGPT, README",
                "Transformer of 4 layers of 128, the same split, its recipe for a processor",
            ),
            (1.548, "minGRU, arXiv 2410.01201", "test loss, its own split"),
            (1.555, "minLSTM, arXiv 2410.01201", "test loss, its own split"),
        ),
    )
}


def run(text: str, settings: Settings, name: str, where: str, log: Path, quiet: bool = False) -> dict[str, Any]:
    """Train on the text and give the row of the run; the losses go to the file ``log``."""
    say = (lambda line: None) if quiet else print
    lab.train(text, settings, device=where, log=log, force=True, progress=not quiet, say=say)  # results are made anew
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    validated = [record for record in records if record["val_loss"] is not None]
    best = min(validated, key=lambda record: record["val_loss"])
    return {
        "lab": "text", "corpus": name, "characters": len(text), "sha256": digest(text), "device": where,
        "val_loss": best["val_loss"], "bits": best["val_loss"] / math.log(2), "best_step": best["step"],
        "last_val_loss": validated[-1]["val_loss"], "last_loss": records[-1]["loss"],
        "seconds": records[-1]["seconds"],
        "tokens_per_second": settings.batch * settings.window * settings.steps / records[-1]["seconds"],
        **asdict(settings),
    }  # fmt: skip


def digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def beside(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The run among what others publish for the same corpus, the best first."""
    how = f"LSTM, {row['layers']} layer(s) of {row['hidden']}, {row['steps']:,} steps, on {row['device']}"
    lines = [{"nats": row["val_loss"], "who": "gpulstm, this run", "how": how}]
    _, figures = PUBLISHED.get(row["sha256"], ("", ()))
    lines += [{"nats": nats, "who": who, "how": words} for nats, who, words in figures]
    return sorted(lines, key=lambda line: line["nats"])


def report(head: dict[str, Any], row: dict[str, Any]) -> str:
    """The result as Markdown."""
    token = "character" if row["level"] == "char" else "token"
    best = f"{row['val_loss']:.4f} nats a {token} ({row['bits']:.4f} bits) at step {row['best_step']:,}"
    pace = f"{row['seconds']:,.0f} s, {row['tokens_per_second']:,.0f} {token}s a second"
    shown = [{**line, "nats": f"{line['nats']:.4g}"} for line in beside(row)]
    lines = [
        f"# The text lab on {row['corpus']}\n",
        f"Held-out loss: {best}; {pace}.\n",
        harness.table(shown, {"nats": f"nats a {token}", "who": "who", "how": "how"}),
        harness.origin(head),
    ]
    return "\n".join(lines)


def arguments(given: Sequence[str]) -> tuple[argparse.Namespace, Settings]:
    """The command line, and the lab's settings from it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--corpus", type=Path, help="a UTF-8 text (default: the language reference that comes with Python)"
    )
    parser.add_argument("--name", help="name of the result files (default: the corpus's name)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--quick", action="store_true", help="a tiny model on a little text; writes nothing without --out"
    )
    parser.add_argument("--out", type=Path, help="the folder for the results")
    for knob in fields(Settings):
        kind = int if knob.name == "patience" else type(knob.default)
        parser.add_argument(f"--{knob.name.replace('_', '-')}", type=kind, default=None, metavar="VALUE")
    options = parser.parse_args(given)
    chosen = {knob.name: getattr(options, knob.name) for knob in fields(Settings)}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    return options, Settings(**{**RECIPE, **(QUICK if options.quick else {}), **chosen})


def main(given: Sequence[str]) -> int:
    head = facts.facts("benchmarks.text", given)
    try:
        options, settings = arguments(given)
        place = device(options.device)
        text = lab.default_corpus() if options.corpus is None else lab.read_texts([options.corpus])
    except (DeviceError, FormatError, ShapeError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    if place.backend.is_cuda:
        head["machine"] |= facts.gpu(place.backend)
    text = text[:QUICK_CHARACTERS] if options.quick else text
    known, _ = PUBLISHED.get(digest(text), ("", ()))
    name = options.name or known or (options.corpus.stem if options.corpus else "python-topics")
    out = options.out or (None if options.quick else harness.RESULTS)
    with tempfile.TemporaryDirectory(prefix="gpulstm-benchmark-") as folder:
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
        row = run(text, settings, name, str(place), (out or Path(folder)) / f"text-{name}.log.jsonl")
    markdown = report(head, row)
    print("\n" + markdown)
    if out is not None:
        harness.write_json(out / f"text-{name}.json", {**head, "published": beside(row), "rows": [row]})
        harness.write(out / f"text-{name}.md", markdown)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

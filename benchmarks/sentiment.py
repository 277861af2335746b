"""The sentiment lab on the film reviews of rt-polarity: ten folds, compared with naive Bayes and published results.

    python -m benchmarks.sentiment --data rt-polarity             # the folder with rt-polarity.pos, .neg; two minutes
    python -m benchmarks.sentiment --data rt-polarity --choose    # compares configurations; four minutes
    python -m benchmarks.sentiment --quick                        # checks that it works, on generated texts; seconds

Ten-fold cross-validation with the same proportion of classes in each fold (Kim 2014 and others). Word vectors are
learned from scratch: the vector of a word is the mean of its own vector and those of its character n-grams. Nothing is
chosen on the test data: there is no validation, and the number of epochs is fixed. --choose instead compares the
configuration with similar ones, on a ninth of the training texts of the first folds, and never on the test data of a
fold.

Writes sentiment-rt-polarity.json (a row for each fold) and .md to benchmarks/results/ or --out. --choose writes
sentiment-rt-polarity-choice.json and .md.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import facts, harness
from gpulstm import FormatError
from gpulstm.labs import reading
from gpulstm.labs.sentiment import SequenceClassifier
from gpulstm.labs.sentiment.bayes import NaiveBayes
from gpulstm.labs.sentiment.texts import Labelled, generated

FOLDS = 10
RECIPE = {
    "epochs": 4, "clip_norm": 3.0, "weight_decay": 0.0, "warmup": 0.12, "validation_fraction": 0.0, "random_state": 0,
    "device": "cpu",
}  # fmt: skip
NEIGHBOURS: dict[str, dict[str, Any]] = {
    "the recipe": {}, "attention": {"pooling": "attention"}, "mean": {"pooling": "mean"}, "3 epochs": {"epochs": 3},
    "6 epochs": {"epochs": 6}, "64 units": {"hidden_size": 64}, "words alone": {"ngram_buckets": 0},
}  # fmt: skip
CHOICE_FOLDS = 3
QUICK = {"epochs": 1, "hidden_size": 8, "ngram_buckets": 50, "random_state": 0, "device": "cpu"}
PUBLISHED = (
    (0.815, "CNN, vectors from news, fine-tuned", "Kim 2014"),
    (0.761, "CNN, vectors from scratch", "Kim 2014"),
    (0.75, "LSTM, vectors from scratch", "about; several"),
)


def folds(labels: Sequence[str], count: int) -> list[np.ndarray]:
    """The numbers of the examples of each fold, each class shared out evenly."""
    order = np.random.default_rng(0).permutation(len(labels))
    names = np.array(labels)
    parts = [np.array_split(order[names[order] == label], count) for label in sorted(set(labels))]
    return [np.concatenate(fold) for fold in zip(*parts, strict=True)]


def run(data: Labelled, fold: np.ndarray, number: int, options: dict[str, Any]) -> list[dict[str, Any]]:
    """Train on all but one fold and test on it; the rows of the classifier and of naive Bayes."""
    test = data.chosen(fold)
    train = data.chosen(np.setdiff1d(np.arange(len(data)), fold))
    began = time.perf_counter()
    classifier = SequenceClassifier(**options).fit(train.texts, train.labels)
    seconds = time.perf_counter() - began
    bayes = NaiveBayes().fit(train.texts, train.labels).predict(test.texts)
    return [
        {"who": "gpulstm", "fold": number, "accuracy": classifier.score(test.texts, test.labels), "seconds": seconds},
        {"who": "naive Bayes, words and pairs", "fold": number, "accuracy": float((bayes == test.labels).mean())},
    ]


def choose(data: Labelled, recipe: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """The accuracy of the recipe and its neighbours on a part held out of each fold's training texts."""
    rows = []
    for number, fold in enumerate(folds(data.labels, count)[:CHOICE_FOLDS]):
        train = data.chosen(np.setdiff1d(np.arange(len(data)), fold))
        validation = folds(train.labels, max(2, count - 1))[0]
        learnt, held = train.chosen(np.setdiff1d(np.arange(len(train)), validation)), train.chosen(validation)
        for who, changes in NEIGHBOURS.items():
            classifier = SequenceClassifier(**{**recipe, **changes}).fit(learnt.texts, learnt.labels)
            rows.append({"who": who, "fold": number, "accuracy": classifier.score(held.texts, held.labels)})
            print(f"fold {number}, {who}: {rows[-1]['accuracy']:.4f}", flush=True)
    return rows


def report(head: dict[str, Any], rows: list[dict[str, Any]], data: str, *, chosen: bool = False) -> str:
    """The results as Markdown: the mean of the folds, beside the others; ``chosen`` are those of ``choose``."""
    shown = []
    for who in dict.fromkeys(row["who"] for row in rows):
        values = [100 * row["accuracy"] for row in rows if row["who"] == who]
        how = f"mean of {len(values)} folds ± {np.std(values):.2f}"
        shown.append({"percent": f"{np.mean(values):.2f}", "who": who, "how": how})
    if data == "rt-polarity" and not chosen:
        shown += [{"percent": f"{100 * share:.1f}", "who": who, "how": how} for share, who, how in PUBLISHED]
    shown.sort(key=lambda row: -float(row["percent"]))
    seconds = np.mean([row["seconds"] for row in rows if "seconds" in row] or [0.0])
    lines = [
        f"# The sentiment lab on {data}{': the recipe beside others, by validation' if chosen else ''}\n",
        "Share of texts held out of a fold's training part that are sorted rightly. Its test part has no share in it. "
        "With a thousand texts in each, a difference of a point may be chance.\n"
        if chosen
        else f"Share of texts that are sorted rightly. A fold takes {seconds:.0f} s.\n",
    ]
    table = harness.table(shown, {"percent": "per cent", "who": "classifier", "how": "how"})
    return "\n".join([*lines, table, harness.origin(head)])


def main(given: Sequence[str]) -> int:
    head = facts.facts("benchmarks.sentiment", given)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sentiment", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the folder with rt-polarity.pos and rt-polarity.neg")
    parser.add_argument("--choose", action="store_true", help="compare configurations on validation data")
    parser.add_argument(
        "--quick", action="store_true", help="generated sentences, two folds; writes nothing without --out"
    )
    parser.add_argument("--out", type=Path, help="the folder for the results")
    options = parser.parse_args(given)
    if options.data is None and not options.quick:
        parser.error("--data: expected the folder of rt-polarity, or --quick")
    if options.quick:
        data, recipe, name, count = generated(60), QUICK, "made sentences", 2
    else:
        recipe, name, count = RECIPE, "rt-polarity", FOLDS
        try:
            files = {label: options.data / f"rt-polarity.{label}" for label in ("neg", "pos")}
            found = {label: list(reading.lines(file, "latin-1")) for label, file in files.items()}
        except (FormatError, OSError) as error:
            print(error, file=sys.stderr)
            return 2
        labels = [label for label, texts in found.items() for _ in texts]
        data = Labelled([text for texts in found.values() for text in texts], labels)
    rows: list[dict[str, Any]] = choose(data, recipe, count) if options.choose else []
    for number, fold in enumerate([] if options.choose else folds(data.labels, count)):
        rows += run(data, fold, number, recipe)
        print(f"fold {number}: {rows[-2]['accuracy']:.4f}, naive Bayes {rows[-1]['accuracy']:.4f}", flush=True)
    markdown = report(head, rows, name, chosen=options.choose)
    file = "sentiment-rt-polarity-choice" if options.choose else "sentiment-rt-polarity"
    print("\n" + markdown)
    out = options.out or (None if options.quick else harness.RESULTS)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        harness.write_json(out / f"{file}.json", {**head, "recipe": recipe, "rows": rows})
        harness.write(out / f"{file}.md", markdown)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Counting the words of a text of any size: in memory up to a bound, sorted into files above it, merged at the end."""

import heapq
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from operator import itemgetter
from pathlib import Path
from typing import Any

from gpulstm.io.files import atomic_write
from gpulstm.labs.text_stream import BEGIN, Place, Reading
from gpulstm.labs.text_vocabulary import split

MOST_WORDS = 1 << 19  # different words in memory: about 100 MB
MOST_TOKENS = 1 << 25  # counted before they go to a file, so that little is counted again

Run = dict[str, Any]  # the tokens, the characters and their SHA-256 in the text up to where a file of words ends


def count_words(read: Callable[[Place], Reading], folder: Path, runs: list[Run], save: Callable[[], None]) -> Place:
    """Count all words, from where the last of the ``runs`` ends; give the end of the text.

    A run is a file in ``folder`` with the words of a stretch of the text and how often they are there. Each new one is
    added to ``runs``, and then ``save`` is called.
    """
    reading = read(_place(runs[-1]) if runs else BEGIN)
    counts: Counter[str] = Counter()
    tokens = first = runs[-1]["tokens"] if runs else 0
    for piece in reading:
        words = split(piece, "word")
        counts.update(words)
        tokens += len(words)
        if len(counts) >= MOST_WORDS or tokens - first >= MOST_TOKENS:
            _add_run(folder, runs, counts, tokens, reading.place)
            save()
            counts, first = Counter(), tokens
    if counts:
        _add_run(folder, runs, counts, tokens, reading.place)
        save()
    return reading.place


def first_words(
    read: Callable[[Place], Reading], folder: Path, runs: list[Run], tokens: int
) -> Iterator[tuple[str, int]]:
    """The first so many words of a text that was counted, each once, with how often they are there."""
    whole = [run for run in runs if run["tokens"] <= tokens]
    place, counted = (_place(whole[-1]), whole[-1]["tokens"]) if whole else (BEGIN, 0)
    words = itertools.chain.from_iterable(split(piece, "word") for piece in read(place))
    rest = sorted(Counter(itertools.islice(words, tokens - counted)).items())
    with ExitStack() as opened:
        files = [opened.enter_context(_run_file(folder, k).open(encoding="utf-8")) for k in range(len(whole))]
        merged = heapq.merge(rest, *(map(json.loads, file) for file in files), key=itemgetter(0))
        for word, same in itertools.groupby(merged, key=itemgetter(0)):
            yield word, sum(count for _, count in same)


def remove_runs(folder: Path) -> None:
    """Delete the files of words."""
    for file in folder.glob("words-*.jsonl"):
        file.unlink()


def _run_file(folder: Path, number: int) -> Path:
    return folder / f"words-{number:05d}.jsonl"


def _add_run(folder: Path, runs: list[Run], counts: Counter[str], tokens: int, place: Place) -> None:
    lines = (json.dumps(item).encode() + b"\n" for item in sorted(counts.items()))
    atomic_write(_run_file(folder, len(runs)), lambda file: file.writelines(lines))
    runs.append({"tokens": tokens, **asdict(place)})


def _place(run: Run) -> Place:
    return Place(run["characters"], run["sha256"])

"""The words of a text of any size: split once, numbered in the order of their first occurrence, then renumbered.

Memory is bounded: the text is processed in stretches, whose words and numbers go to files. Merging the sorted words of
all files gives the counts that the vocabulary is made from. Then the numbers become the ids of the vocabulary.
"""

import heapq
import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from operator import itemgetter
from pathlib import Path

import numpy as np

from gpulstm.io.files import atomic_write
from gpulstm.labs.text_tokens import write_numbers
from gpulstm.labs.text_vocabulary import Vocabulary, split

MOST_WORDS = 1 << 19  # different words in a stretch: about 100 MB in memory
MOST_TOKENS = 1 << 25  # tokens in a stretch; a run that was killed resumes after its last stretch
AT_ONCE = 1 << 20  # numbers read from a file
NUMBERS = np.dtype("<u4")


def cut_words(folder: Path, number: int, pieces: Iterable[str]) -> None:
    """Write the words of stretch ``number`` to files in the folder; the stretch ends when it has enough words."""
    words: defaultdict[str, int] = defaultdict(itertools.count().__next__)
    write_numbers(_file(folder, number, "bin"), _numbered(pieces, words), NUMBERS)
    counts = _counts(folder, number, len(words))
    lines = (json.dumps([word, int(counts[n]), n]).encode() + b"\n" for word, n in sorted(words.items()))
    atomic_write(_file(folder, number, "jsonl"), lambda file: file.writelines(lines))


def tokens_in(folder: Path, number: int) -> int:
    """Return the number of tokens in a stretch."""
    return _file(folder, number, "bin").stat().st_size // NUMBERS.itemsize


def first_words(folder: Path, stretches: int, tokens: int) -> Iterator[tuple[str, int]]:
    """Yield each different word among the first ``tokens`` tokens of the text, with its count."""
    with ExitStack() as opened:
        files = []
        for number in range(stretches):
            lines = map(json.loads, opened.enter_context(_file(folder, number, "jsonl").open(encoding="utf-8")))
            left, tokens = tokens, tokens - tokens_in(folder, number)
            if left > 0:
                files.append(lines if tokens >= 0 else _recounted(folder, number, lines, left))
        merged = heapq.merge(*files, key=itemgetter(0))
        for word, same in itertools.groupby(merged, key=itemgetter(0)):
            yield word, sum(count for _, count, _ in same)


def numbers_in(folder: Path, number: int, vocabulary: Vocabulary) -> Iterator[np.ndarray]:
    """Yield the tokens of a stretch as ids of the vocabulary, in arrays (n,)."""
    with _file(folder, number, "jsonl").open(encoding="utf-8") as file:
        words, _, numbers = zip(*map(json.loads, file), strict=True)
    anew = np.empty(len(words), np.int64)
    anew[list(numbers)] = vocabulary.encode(words)
    return (anew[array] for array in _arrays(folder, number))


def remove_words(folder: Path) -> None:
    """Delete the files of words."""
    for file in folder.glob("words-*"):
        file.unlink()


def _numbered(pieces: Iterable[str], words: defaultdict[str, int]) -> Iterator[np.ndarray]:
    """Yield the numbers of the words of one stretch; ``words`` gives each new word the next number."""
    tokens = 0
    for piece in pieces:
        found = split(piece, "word")
        yield np.fromiter(map(words.__getitem__, found), NUMBERS, len(found))
        tokens += len(found)
        if len(words) >= MOST_WORDS or tokens >= MOST_TOKENS:
            return


def _recounted(folder: Path, number: int, lines: Iterable[list], tokens: int) -> Iterator[list]:
    """Yield the words among the first ``tokens`` tokens of a stretch, with their counts."""
    lines = list(lines)
    counts = _counts(folder, number, len(lines), tokens)
    return ([word, int(counts[n]), n] for word, _, n in lines if counts[n])


def _counts(folder: Path, number: int, words: int, tokens: int | None = None) -> np.ndarray:
    """Count each number among the first ``tokens`` tokens of a stretch, by default all; returns (words,)."""
    counts, left = np.zeros(words, np.int64), tokens
    for array in _arrays(folder, number):
        counts += np.bincount(array[:left], minlength=words)
        left = None if left is None else max(0, left - len(array))
    return counts


def _arrays(folder: Path, number: int) -> Iterator[np.ndarray]:
    """Yield the numbers of a stretch, as they were written."""
    with _file(folder, number, "bin").open("rb") as file:
        while (array := np.fromfile(file, NUMBERS, AT_ONCE)).size:
            yield array


def _file(folder: Path, number: int, kind: str) -> Path:
    return folder / f"words-{number:05d}.{kind}"

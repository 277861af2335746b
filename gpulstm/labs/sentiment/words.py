"""Words in: cutting texts, numbering words and the pieces of their spelling, and vectors from a file."""

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from gpulstm.errors import FormatError
from gpulstm.labs import reading

WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
UNKNOWN = "<unk>"
SHORTEST, LONGEST = 3, 5  # letters of a piece of a word
MOST_PIECES = 64  # of one word; a longer word has no more


def split(text: str, lowercase: bool) -> list[str]:
    """The words and signs of a text."""
    return WORD.findall(text.lower() if lowercase else text)


def pieces(word: str, buckets: int) -> list[int]:
    """The numbers, from 1, of the buckets of a word's 3- to 5-grams, its ends marked (Bojanowski et al. 2017)."""
    marked = f"<{word}>"
    grams = [
        marked[k : k + n] for n in range(SHORTEST, LONGEST + 1) for k in range(len(marked) - n + 1) if n < len(marked)
    ]
    return [zlib.crc32(gram.encode("utf-8", "surrogatepass")) % buckets + 1 for gram in grams[:MOST_PIECES]]


@dataclass(frozen=True)
class Texts:
    """Texts as numbers: of the different words that are in them, and what those are made of."""

    sequences: list[np.ndarray]  # each (n,), n >= 1: numbers of words among the U different ones
    words: list[str]  # (U,)
    ids: np.ndarray  # (U,): the vector of its own that a word has, 0 for the unknown word's
    grams: np.ndarray  # (U, G): the vectors of its pieces, filled up with 0


class WordTable:
    """The words that have a vector of their own: those met ``min_count`` times, the commonest first."""

    def __init__(self, words: Sequence[str], lowercase: bool, buckets: int) -> None:
        """``words`` come after UNKNOWN. Raises FormatError for words twice, or that are no texts."""
        if not all(isinstance(word, str) for word in words) or len(set(words)) != len(words):
            raise FormatError("words: expected different texts, got others")
        self.words, self.lowercase, self.buckets = list(words), lowercase, buckets
        self._numbers = {word: number for number, word in enumerate(self.words, 1)}

    @classmethod
    def learn(cls, texts: Iterable[str], lowercase: bool, min_count: int, buckets: int) -> Self:
        """The table of training texts."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(split(text, lowercase))
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return cls([word for word in ranked if counts[word] >= min_count], lowercase, buckets)

    def __len__(self) -> int:
        return len(self.words) + 1

    def encode(self, texts: Sequence[str]) -> Texts:
        """Any texts as numbers; one without words is one unknown word."""
        found: dict[str, int] = {}
        sequences = []
        for text in texts:
            words = split(text, self.lowercase) or [UNKNOWN]
            sequences.append(np.array([found.setdefault(word, len(found)) for word in words], np.int64))
        names = list(found)
        ids = np.array([self._numbers.get(word, 0) for word in names], np.int64)
        spelt = [pieces(word, self.buckets) if self.buckets and word != UNKNOWN else [] for word in names]
        grams = np.zeros((len(names), max(map(len, spelt), default=0)), np.int64)
        for row, numbers in zip(grams, spelt, strict=True):
            row[: len(numbers)] = numbers
        return Texts(sequences, names, ids, grams)


def read_vectors(path: str | Path, wanted: Sequence[str]) -> tuple[dict[str, np.ndarray], int]:
    """(vectors by word, their size) of a text file of word vectors, plain or gzip'd: a word and its numbers a line.

    That is the form of GloVe's files, and of word2vec's, whose first line has two numbers. Only the wanted words are
    kept in memory. Raises FormatError, naming the line, for other lines and where no wanted word is found.
    """
    name, size, found, keep = reading.name_of(path), 0, {}, set(wanted)
    for number, line in enumerate(reading.lines(path), 1):
        word, *values = line.rstrip().split(" ")
        if number == 1 and len(values) == 1:
            continue  # word2vec's: how many vectors, of what size
        if not values:
            raise FormatError(f"{name}, line {number}: expected a word and its numbers, got {line!r:.40}")
        extra = len(values) - size
        if size and extra > 0 and not _is_number(values[0]):  # GloVe has words with spaces: ". . ."
            word, values = " ".join([word, *values[:extra]]), values[extra:]
        if size and len(values) != size:
            raise FormatError(
                f"{name}, line {number}: expected {size} numbers, as in the lines before, got {len(values)}"
            )
        size = len(values)
        if word not in keep:
            continue
        found[word] = _vector(f"{name}, line {number}", values)
    if not found:
        raise FormatError(f"{name}: expected vectors of words in the training texts, got none of them")
    return found, size


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _vector(where: str, values: list[str]) -> np.ndarray:
    try:
        vector = np.array(values, np.float64)
    except ValueError as error:
        raise FormatError(f"{where}: expected numbers after the word, got others: {error}") from error
    if not np.isfinite(vector).all():
        raise FormatError(f"{where}: expected finite numbers, got others")
    return vector


def to_json(table: WordTable | None) -> Any:
    """The table as JSON values."""
    return None if table is None else {"words": table.words, "lowercase": table.lowercase, "buckets": table.buckets}

"""Words of the classifier: split texts, number words and their character n-grams, read word vectors from a file."""

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
SHORTEST, LONGEST = 3, 5  # characters of an n-gram
MOST_PIECES = 64  # the maximum number of n-grams per word


def split(text: str, lowercase: bool) -> list[str]:
    """Split a text into words and punctuation marks."""
    return WORD.findall(text.lower() if lowercase else text)


def pieces(word: str, buckets: int) -> list[int]:
    """Return the hash buckets, from 1, of a word's 3- to 5-grams (Bojanowski et al. 2017).

    < and > mark the ends of the word.
    """
    marked = f"<{word}>"
    grams = [
        marked[k : k + n] for n in range(SHORTEST, LONGEST + 1) for k in range(len(marked) - n + 1) if n < len(marked)
    ]
    return [zlib.crc32(gram.encode("utf-8", "surrogatepass")) % buckets + 1 for gram in grams[:MOST_PIECES]]


@dataclass(frozen=True)
class Texts:
    """Texts as sequences of word numbers, with the embedding indices of each different word."""

    sequences: list[np.ndarray]  # each (n,), n >= 1: indices into the U different words
    words: list[str]  # (U,)
    ids: np.ndarray  # (U,): the index of the word's own embedding, 0 for an unknown word
    grams: np.ndarray  # (U, G): the indices of the embeddings of its n-grams, padded with 0


class WordTable:
    """The words that have their own embedding: those that occur at least ``min_count`` times, the most common first."""

    def __init__(self, words: Sequence[str], lowercase: bool, buckets: int) -> None:
        """``words`` are numbered from 1; 0 is UNKNOWN. Raises FormatError for repeated words and for other values."""
        if not all(isinstance(word, str) for word in words) or len(set(words)) != len(words):
            raise FormatError("words: expected different strings, got repeated ones or other values")
        self.words, self.lowercase, self.buckets = list(words), lowercase, buckets
        self._numbers = {word: number for number, word in enumerate(self.words, 1)}

    @classmethod
    def learn(cls, texts: Iterable[str], lowercase: bool, min_count: int, buckets: int) -> Self:
        """Make the table from the training texts."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(split(text, lowercase))
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return cls([word for word in ranked if counts[word] >= min_count], lowercase, buckets)

    def __len__(self) -> int:
        return len(self.words) + 1

    def encode(self, texts: Sequence[str]) -> Texts:
        """Encode texts as numbers; a text without words becomes one unknown word."""
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
    """Read word vectors from a text file, plain or compressed; returns (vectors by word, their size).

    Each line holds a word and its numbers, as in GloVe's files and in word2vec's text files, whose first line has two
    numbers. Only the wanted words are kept in memory. Raises FormatError, naming the line, for other lines, and if the
    file has none of the wanted words.
    """
    name, size, found, keep = reading.name_of(path), 0, {}, set(wanted)
    for number, line in enumerate(reading.lines(path), 1):
        word, *values = line.rstrip().split(" ")
        if number == 1 and len(values) == 1:
            continue  # word2vec's header: the number of vectors and their size
        if not values:
            raise FormatError(f"{name}, line {number}: expected a word and its numbers, got {line!r:.40}")
        extra = len(values) - size
        if size and extra > 0 and not _is_number(values[0]):  # some GloVe words contain spaces: ". . ."
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
        raise FormatError(f"{name}: expected vectors of words in the training texts, got none")
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
        raise FormatError(f"{where}: expected numbers after the word, got other text: {error}") from error
    if not np.isfinite(vector).all():
        raise FormatError(f"{where}: expected finite numbers, got NaN or infinity")
    return vector


def to_json(table: WordTable | None) -> Any:
    """Return the table as JSON values."""
    return None if table is None else {"words": table.words, "lowercase": table.lowercase, "buckets": table.buckets}

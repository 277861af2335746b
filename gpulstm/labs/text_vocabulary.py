"""Split text into tokens (characters or words), and encode the tokens as ids with a vocabulary."""

import functools
import heapq
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from gpulstm.errors import FormatError

LEVELS = ("char", "word", "bpe")
UNKNOWN = "<unk>"
# A word, or a run of one punctuation mark, each with the single space before it; or a run of white space up to that
# space. Joining the tokens gives the text back.
_WORDS = re.compile(r" ?\w+(?:['’]\w+)*| ?([^\w\s])\1*|\s+(?= \S)|\s+")

# White space, before which a token always ends at the levels "word" and "bpe", whatever the context.
CUT = re.compile(r"\S(?=[ \n])")


def last_cut(text: str) -> int:
    """Return the last place where the text can be split between tokens, or 0 if there is none."""
    start, width = len(text), 1 << 12
    while start > 0:
        start, width = max(0, len(text) - width), width * 8
        place = 0
        for cut in CUT.finditer(text, start):
            place = cut.end()
        if place:
            return place
    return 0


def split(text: str, level: str) -> Sequence[str]:
    """Split the text into characters, or into words, punctuation marks and white space; joined, they give the text."""
    return text if level == "char" else [match.group() for match in _WORDS.finditer(text)]


def code_points(text: str) -> np.ndarray:
    """Return the Unicode code points of the text, (N,) uint32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


class Vocabulary:
    """The tokens that a model knows; the id of a token is its index in ``tokens``.

    At level "char" the tokens are single characters in the order of their code points. At level "word" the
    first token is "<unk>", which stands for every word that is not in the list. For level "bpe" see ``BytePairs``.
    """

    def __init__(self, level: str, tokens: Sequence[str]) -> None:
        """Raises FormatError for tokens that are invalid at this level."""
        if level not in LEVELS:
            raise FormatError(f"level: expected one of {', '.join(LEVELS)}, got {level!r}")
        if not tokens or not all(isinstance(token, str) and token for token in tokens):
            raise FormatError("vocabulary: expected at least one token, and no empty tokens")
        if len(set(tokens)) != len(tokens):
            raise FormatError("vocabulary: expected different tokens, got one twice")
        if level == "char" and any(len(token) != 1 for token in tokens):
            raise FormatError("vocabulary: expected single characters at level 'char'")
        if level == "char" and list(tokens) != sorted(tokens):
            raise FormatError("vocabulary: expected characters in the order of their code points")
        if level == "word" and (tokens[0] != UNKNOWN or len(tokens) < 2):
            raise FormatError(
                f"vocabulary: expected {UNKNOWN!r}, then words that occur more than once, got {tokens[:3]}"
            )
        self.level = level
        self.tokens = list(tokens)
        self._numbers = {token: number for number, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    def to_json(self) -> Any:
        """Return the vocabulary as JSON values, which ``text_corpus.vocabulary_from`` reads."""
        return self.tokens

    @classmethod
    def of(cls, pieces: Sequence[str], level: str, limit: int) -> "Vocabulary":
        """Make the vocabulary of a corpus split into ``pieces``: every character, or at most ``limit`` words.

        The most frequent words are kept. Words that occur once become "<unk>", so that training sees "<unk>".
        """
        return cls(level, sorted(set(pieces))) if level == "char" else cls.of_counts(Counter(pieces).items(), limit)

    @classmethod
    def of_counts(cls, counts: Iterable[tuple[str, int]], limit: int) -> "Vocabulary":
        """Make a vocabulary of words from pairs (word, count), one pair for each word."""
        met = ((-count, token) for token, count in counts if count > 1)
        return cls("word", [UNKNOWN, *(token for _, token in heapq.nsmallest(limit - 1, met))])

    def split(self, text: str) -> Sequence[str]:
        """Split the text into tokens; joined, they give the text."""
        return split(text, self.level)

    def numbers(self, text: str) -> np.ndarray:
        """Return the ids of the text's tokens, (N,) int64; see ``encode`` for unknown tokens."""
        return self.encode(self.split(text))

    def encode(self, pieces: Sequence[str]) -> np.ndarray:
        """Return the ids of the pieces, (N,) int64.

        Unknown words become "<unk>". Raises FormatError for unknown characters.
        """
        if self.level == "word":
            return np.fromiter(map(self._numbers.get, pieces, itertools.repeat(0)), np.int64, len(pieces))
        text = pieces if isinstance(pieces, str) else "".join(pieces)
        numbers = self._by_code_point.take(code_points(text), mode="clip")
        if numbers.size and numbers.min() < 0:
            raise FormatError(f"text: expected characters in the vocabulary, got {self.unseen(pieces)}")
        return numbers

    @functools.cached_property
    def _by_code_point(self) -> np.ndarray:
        """The id of each code point up to the vocabulary's last one, -1 for unknown ones; a last -1 for all others."""
        known = code_points("".join(self.tokens))
        numbers = np.full(int(known.max()) + 2, -1)
        numbers[known] = np.arange(len(known))
        return numbers

    def decode(self, numbers: Iterable[int]) -> str:
        """Return the text of the ids."""
        return "".join(self.stream(numbers))

    def stream(self, numbers: Iterable[int]) -> Iterator[str]:
        """Yield the text of each id."""
        return (self.tokens[number] for number in numbers)

    def unseen(self, pieces: Sequence[str]) -> str:
        """Return the pieces that are not in the vocabulary, quoted for a message; empty if there are none."""
        missing = sorted(set(pieces) - self._numbers.keys())
        shown = ", ".join(ascii(piece) if not piece.isprintable() else repr(piece) for piece in missing[:10])
        return shown + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")

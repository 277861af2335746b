"""Text in tokens: cutting it into characters or words, and the vocabulary that numbers them."""

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
# A word, or a run of one sign, each with the single space before it; or a run of white space up to that
# space. Nothing is lost: joining the tokens gives the text back.
_WORDS = re.compile(r" ?\w+(?:['’]\w+)*| ?([^\w\s])\1*|\s+(?= \S)|\s+")

# Where a token ends at the levels "word" and "bpe", whatever stands before and behind: before white space.
CUT = re.compile(r"\S(?=[ \n])")


def last_cut(text: str) -> int:
    """The last place in the text where it can be cut without cutting a token; 0 without one."""
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
    """The tokens of the text, which joined are the text: its characters, or words, signs and white space."""
    return text if level == "char" else [match.group() for match in _WORDS.finditer(text)]


def code_points(text: str) -> np.ndarray:
    """The numbers of the text's characters in Unicode, (N,) uint32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


class Vocabulary:
    """The tokens a model knows; a token's number is its place in ``tokens``.

    At level "char" the tokens are single characters in the order of their code points. At level "word" the
    first is "<unk>", which stands for every word that is not in the list. For level "bpe" see ``BytePairs``.
    """

    def __init__(self, level: str, tokens: Sequence[str]) -> None:
        """Raises FormatError for tokens that no vocabulary of that level can have."""
        if level not in LEVELS:
            raise FormatError(f"level: expected one of {', '.join(LEVELS)}, got {level!r}")
        if not tokens or not all(isinstance(token, str) and token for token in tokens):
            raise FormatError("vocabulary: expected at least one token, and no empty one")
        if len(set(tokens)) != len(tokens):
            raise FormatError("vocabulary: expected different tokens, got one twice")
        if level == "char" and any(len(token) != 1 for token in tokens):
            raise FormatError("vocabulary: expected single characters at level 'char'")
        if level == "char" and list(tokens) != sorted(tokens):
            raise FormatError("vocabulary: expected characters in the order of their code points")
        if level == "word" and (tokens[0] != UNKNOWN or len(tokens) < 2):
            raise FormatError(f"vocabulary: expected {UNKNOWN!r} and then words met more than once, got {tokens[:3]}")
        self.level = level
        self.tokens = list(tokens)
        self._numbers = {token: number for number, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    def to_json(self) -> Any:
        """What ``text_corpus.vocabulary_from`` makes the vocabulary of again, in JSON values."""
        return self.tokens

    @classmethod
    def of(cls, pieces: Sequence[str], level: str, limit: int) -> "Vocabulary":
        """The vocabulary of a corpus cut into ``pieces``: every character, or at most ``limit`` words.

        Words are taken by frequency; those met once become "<unk>", which is trained by them.
        """
        return cls(level, sorted(set(pieces))) if level == "char" else cls.of_counts(Counter(pieces).items(), limit)

    @classmethod
    def of_counts(cls, counts: Iterable[tuple[str, int]], limit: int) -> "Vocabulary":
        """The vocabulary of words that are met so often, each listed once."""
        met = ((-count, token) for token, count in counts if count > 1)
        return cls("word", [UNKNOWN, *(token for _, token in heapq.nsmallest(limit - 1, met))])

    def split(self, text: str) -> Sequence[str]:
        """The text in pieces, one a token, which joined are the text."""
        return split(text, self.level)

    def numbers(self, text: str) -> np.ndarray:
        """The numbers of the text's tokens, (N,) int64; as ``encode`` for unseen ones."""
        return self.encode(self.split(text))

    def encode(self, pieces: Sequence[str]) -> np.ndarray:
        """The numbers of the pieces, (N,) int64; an unseen word is <unk>; FormatError for characters."""
        if self.level == "word":
            return np.fromiter(map(self._numbers.get, pieces, itertools.repeat(0)), np.int64, len(pieces))
        text = pieces if isinstance(pieces, str) else "".join(pieces)
        numbers = self._by_code_point.take(code_points(text), mode="clip")
        if numbers.size and numbers.min() < 0:
            raise FormatError(f"text: expected characters of the vocabulary, got {self.unseen(pieces)}")
        return numbers

    @functools.cached_property
    def _by_code_point(self) -> np.ndarray:
        """The number of every character up to the vocabulary's last, -1 for none; at the end -1, for all others."""
        known = code_points("".join(self.tokens))
        numbers = np.full(int(known.max()) + 2, -1)
        numbers[known] = np.arange(len(known))
        return numbers

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of the numbers."""
        return "".join(self.stream(numbers))

    def stream(self, numbers: Iterable[int]) -> Iterator[str]:
        """The text of each number in turn."""
        return (self.tokens[number] for number in numbers)

    def unseen(self, pieces: Sequence[str]) -> str:
        """The pieces that are not in the vocabulary, each once, quoted for a message; empty without any."""
        missing = sorted(set(pieces) - self._numbers.keys())
        shown = ", ".join(ascii(piece) if not piece.isprintable() else repr(piece) for piece in missing[:10])
        return shown + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")

"""Text in: reading files, cutting text into tokens, and the vocabulary that numbers them."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpulstm.errors import FormatError
from gpulstm.labs import reading

LEVELS = ("char", "word")
UNKNOWN = "<unk>"
# A word, or a run of one sign, each with the single space before it; or a run of white space up to that
# space. Nothing is lost: joining the tokens gives the text back.
_WORDS = re.compile(r" ?\w+(?:['’]\w+)*| ?([^\w\s])\1*|\s+(?= \S)|\s+")


def default_corpus() -> str:
    """The language reference that ships inside Python: the topics in name order, joined by a blank line."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def read_texts(files: Iterable[str | Path], encoding: str = "utf-8") -> str:
    """The files' text, joined by a blank line; "-" is standard input.

    Files are plain or gzip'd, in that encoding, with or without a byte order mark; line ends become "\\n". Raises
    FormatError for a file that is empty, binary or in another encoding, and OSError for one that cannot be read.
    """
    return "\n\n".join(_read_text(file, encoding) for file in files)


def _read_text(file: str | Path, encoding: str) -> str:
    text = reading.read(file, encoding)
    if not text.strip():
        got = "white space only" if text else "an empty file"
        raise FormatError(f"{reading.name_of(file)}: want text, got {got}")
    return text


def split(text: str, level: str) -> Sequence[str]:
    """The tokens of the text, which joined are the text: its characters, or words, signs and white space."""
    return text if level == "char" else [match.group() for match in _WORDS.finditer(text)]


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


class Vocabulary:
    """The tokens a model knows; a token's number is its place in ``tokens``.

    At level "char" the tokens are single characters in the order of their code points. At level "word" the
    first is "<unk>", which stands for every word that is not in the list.
    """

    def __init__(self, level: str, tokens: Sequence[str]) -> None:
        """Raises FormatError for tokens that no vocabulary of that level can have."""
        if level not in LEVELS:
            raise FormatError(f"level: want one of {', '.join(LEVELS)}, got {level!r}")
        if not tokens or not all(isinstance(token, str) and token for token in tokens):
            raise FormatError("vocabulary: want at least one token, and no empty one")
        if len(set(tokens)) != len(tokens):
            raise FormatError("vocabulary: want different tokens, got one twice")
        if level == "char" and any(len(token) != 1 for token in tokens):
            raise FormatError("vocabulary: want single characters at level 'char'")
        if level == "char" and list(tokens) != sorted(tokens):
            raise FormatError("vocabulary: want characters in the order of their code points")
        if level == "word" and (tokens[0] != UNKNOWN or len(tokens) < 2):
            raise FormatError(f"vocabulary: want {UNKNOWN!r} and then words met more than once, got {tokens[:3]}")
        self.level = level
        self.tokens = list(tokens)
        self._numbers = {token: number for number, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def of(cls, pieces: Sequence[str], level: str, limit: int) -> "Vocabulary":
        """The vocabulary of a corpus cut into ``pieces``: every character, or at most ``limit`` words.

        Words are taken by frequency; those met once become "<unk>", which is trained by them.
        """
        if level == "char":
            return cls(level, sorted(set(pieces)))
        counts = {token: count for token, count in Counter(pieces).items() if count > 1}
        by_frequency = sorted(counts, key=lambda token: (-counts[token], token))
        return cls(level, [UNKNOWN, *by_frequency[: limit - 1]])

    def encode(self, pieces: Sequence[str]) -> np.ndarray:
        """The numbers of the pieces, (N,) int64; an unseen word is <unk>; FormatError for characters."""
        if self.level == "word":
            return np.fromiter((self._numbers.get(piece, 0) for piece in pieces), np.int64, len(pieces))
        if unseen := self.unseen(pieces):
            raise FormatError(f"text: want characters of the vocabulary, got {unseen}")
        return np.searchsorted(_code_points("".join(self.tokens)), _code_points("".join(pieces)))

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of the numbers."""
        return "".join(self.tokens[number] for number in numbers)

    def unseen(self, pieces: Sequence[str]) -> str:
        """The pieces that are not in the vocabulary, each once, quoted for a message; empty without any."""
        missing = sorted(set(pieces) - self._numbers.keys())
        shown = ", ".join(ascii(piece) if not piece.isprintable() else repr(piece) for piece in missing[:10])
        return shown + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")


def digest_of(text: str) -> str:
    """A text's SHA-256, to know it again."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Corpus:
    """A text as numbers: the first nine tenths of its tokens to train on, the last tenth held out."""

    vocabulary: Vocabulary
    train: np.ndarray  # (N,) int64
    held_out: np.ndarray  # (M,) int64
    characters: int
    digest: str  # of the text, to know it again

    @classmethod
    def of(cls, text: str, level: str = "char", limit: int = 10_000, vocabulary: Vocabulary | None = None) -> "Corpus":
        """Cut and number a text. The words of level "word" are chosen by the training part alone.

        A ``vocabulary`` that is given, that of a model to be trained further, is used as it is. Raises
        FormatError for a text too short to hold anything out, and for characters that are not in it.
        """
        pieces = split(text, level)
        cut = len(pieces) * 9 // 10
        if len(pieces) - cut < 2:
            raise FormatError(f"corpus: want at least 11 tokens of level {level!r}, got {len(pieces)}")
        if vocabulary is None:
            vocabulary = Vocabulary.of(pieces if level == "char" else pieces[:cut], level, limit)
        elif level == "char" and (unseen := vocabulary.unseen(pieces)):
            raise FormatError(
                f"text: want the characters that the model knows, got also {unseen}; take them out of the text, or "
                "train a new model"
            )
        numbers = vocabulary.encode(pieces)
        return cls(vocabulary, numbers[:cut], numbers[cut:], len(text), digest_of(text))

    def __str__(self) -> str:
        tokens = (
            "" if self.vocabulary.level == "char" else f"{self.train.size + self.held_out.size:,} words and signs, "
        )
        return (
            f"{self.characters:,} characters, {tokens}vocabulary of {len(self.vocabulary):,}; "
            f"{self.train.size:,} to train on, {self.held_out.size:,} held out"
        )

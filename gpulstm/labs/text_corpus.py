"""The text lab's corpora: a text as numbers, in memory or prepared on disk; and where texts come from."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.errors import FormatError
from gpulstm.labs import reading
from gpulstm.labs.text_byte_pairs import BytePairs
from gpulstm.labs.text_tokens import Tokens
from gpulstm.labs.text_vocabulary import LEVELS, UNKNOWN, Vocabulary, split

__all__ = [
    "LEVELS", "UNKNOWN", "Corpus", "Vocabulary", "default_corpus", "digest_of", "held_out_from", "read_texts",
    "sample_of", "split", "vocabulary_from",
]  # fmt: skip

SAMPLE, STRETCH = 1 << 24, 1 << 16  # most characters that a vocabulary of level "bpe" is learnt from, and neighbours


def default_corpus() -> str:
    """The language reference that ships inside Python: the topics in name order, joined by a blank line."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def read_texts(files: Iterable[str | Path], encoding: str = "utf-8") -> str:
    """The files' text, joined by a blank line; "-" is standard input.

    Files are plain, or compressed by gzip or zstd, in that encoding, with or without a byte order mark; line ends
    become "\\n". Raises FormatError for a file that is empty, binary or in another encoding, and OSError for one that
    cannot be read.
    """
    return "".join(text_pieces(files, encoding))


def text_pieces(files: Iterable[str | Path], encoding: str = "utf-8") -> Iterator[str]:
    """What ``read_texts`` gives, piece by piece."""
    for number, file in enumerate(files):
        if number:
            yield "\n\n"
        blank, empty = True, True
        for piece in reading.pieces(file, encoding):
            blank, empty = blank and piece.isspace(), False
            yield piece
        if blank:
            got = "an empty file" if empty else "white space only"
            raise FormatError(f"{reading.name_of(file)}: expected text, got {got}")


def vocabulary_from(level: Any, kept: Any) -> Vocabulary:
    """The vocabulary whose ``to_json`` a file has. Raises FormatError for what no vocabulary can be."""
    if level == "bpe":
        return BytePairs(kept)
    if not isinstance(kept, list):
        raise FormatError(f"vocabulary: expected a list of tokens, got {kept!r:.60}")
    return Vocabulary(level, kept)


def digest_of(text: str) -> str:
    """A text's SHA-256, to know it again."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def digest_with(digest: str, vocabulary: Vocabulary) -> str:
    """The SHA-256 of a text's tokens, by its own and the vocabulary."""
    return digest_of(json.dumps([digest, vocabulary.level, vocabulary.to_json()]))


def held_out_from(tokens: int, level: str) -> int:
    """Where the last tenth begins, which is held out. Raises FormatError for a text too short to hold anything out."""
    cut = tokens * 9 // 10
    if tokens - cut < 2:
        raise FormatError(f"corpus: expected at least 11 tokens of level {level!r}, got {tokens}")
    return cut


def sample_of(characters: int) -> list[range]:
    """The stretches of a text from which a vocabulary of level "bpe" is learnt, spread over its first nine tenths.

    A short text is one stretch; of a longer one every stretch has ``STRETCH`` characters, ``SAMPLE`` all together.
    """
    training = characters * 9 // 10
    if training <= SAMPLE:
        return [range(training)]
    count = SAMPLE // STRETCH
    starts = (k * (training - STRETCH) // (count - 1) for k in range(count))
    return [range(start, start + STRETCH) for start in starts]


@dataclass(frozen=True)
class Corpus:
    """A text as numbers: the first nine tenths of its tokens to train on, the last tenth held out."""

    vocabulary: Vocabulary
    train: np.ndarray | Tokens  # (N,) int64
    held_out: np.ndarray | Tokens  # (M,) int64
    characters: int
    digest: str  # of the text, to know it again
    limit: int | None = None  # most tokens that the vocabulary might have; None for one that was given

    @classmethod
    def of(cls, text: str, level: str = "char", limit: int = 10_000, vocabulary: Vocabulary | None = None) -> "Corpus":
        """Cut and number a text. The vocabularies of words and byte pairs are learnt from the training part alone.

        A ``vocabulary`` that is given, that of a model to be trained further, is used as it is. Raises
        FormatError for a text too short to hold anything out, and for characters that are not in it.
        """
        learnt = None if vocabulary is not None else limit
        if level == "bpe":
            stretches = (text[stretch.start : stretch.stop] for stretch in sample_of(len(text)))
            vocabulary = vocabulary or BytePairs.learn(stretches, limit)
            numbers = vocabulary.numbers(text)
            cut = held_out_from(len(numbers), level)
        else:
            pieces = split(text, level)
            cut = held_out_from(len(pieces), level)
            vocabulary = vocabulary or Vocabulary.of(pieces if level == "char" else pieces[:cut], level, limit)
            if learnt is None:
                check_known(vocabulary, text)
            numbers = vocabulary.encode(pieces)
        return cls(vocabulary, numbers[:cut], numbers[cut:], len(text), digest_of(text), learnt)

    def __str__(self) -> str:
        what = {"char": "", "word": "words and signs, ", "bpe": "tokens, "}[self.vocabulary.level]
        tokens = what and f"{len(self.train) + len(self.held_out):,} {what}"
        return (
            f"{self.characters:,} characters, {tokens}vocabulary of {len(self.vocabulary):,}; "
            f"{len(self.train):,} to train on, {len(self.held_out):,} held out"
        )


def check_known(vocabulary: Vocabulary, text: str) -> None:
    """Raise FormatError for characters that a model's vocabulary does not have; unseen words are "<unk>"."""
    if vocabulary.level == "char" and (unseen := vocabulary.unseen(text)):
        raise FormatError(
            f"text: expected the characters that the model knows, got also {unseen}; take them out of the text, or "
            "train a new model"
        )

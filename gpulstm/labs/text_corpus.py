"""The text lab's corpora: read texts, and turn a text into token ids, in memory or prepared on disk."""

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

SAMPLE, STRETCH = 1 << 24, 1 << 16  # characters that level "bpe" learns its vocabulary from, in all and in a row


def default_corpus() -> str:
    """Return the language reference that ships inside Python: its topics in name order, joined by blank lines."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def read_texts(files: Iterable[str | Path], encoding: str = "utf-8") -> str:
    """Return the text of all files, joined by blank lines; "-" is standard input.

    Files may be plain or compressed by gzip or zstd, with or without a byte order mark. Line ends become "\\n". Raises
    FormatError for a file that is empty, binary or in another encoding, OSError for a file that cannot be read.
    """
    return "".join(text_pieces(files, encoding))


def text_pieces(files: Iterable[str | Path], encoding: str = "utf-8") -> Iterator[str]:
    """Yield the text that ``read_texts`` returns, in pieces."""
    for number, file in enumerate(files):
        if number:
            yield "\n\n"
        blank, empty = True, True
        for piece in reading.pieces(file, encoding):
            blank, empty = blank and piece.isspace(), False
            yield piece
        if blank:
            got = "an empty file" if empty else "only white space"
            raise FormatError(f"{reading.name_of(file)}: expected text, got {got}")


def vocabulary_from(level: Any, kept: Any) -> Vocabulary:
    """Restore a vocabulary from the value of its ``to_json``. Raises FormatError for an invalid value."""
    if level == "bpe":
        return BytePairs(kept)
    if not isinstance(kept, list):
        raise FormatError(f"vocabulary: expected a list of tokens, got {kept!r:.60}")
    return Vocabulary(level, kept)


def digest_of(text: str) -> str:
    """Return the SHA-256 of a text, which identifies it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def digest_with(digest: str, vocabulary: Vocabulary) -> str:
    """Return the SHA-256 that identifies a text's tokens, from the digest of the text and the vocabulary."""
    return digest_of(json.dumps([digest, vocabulary.level, vocabulary.to_json()]))


def held_out_from(tokens: int, level: str) -> int:
    """Return where the held-out last tenth starts. Raises FormatError for a text too short to hold anything out."""
    cut = tokens * 9 // 10
    if tokens - cut < 2:
        raise FormatError(f"corpus: expected at least 11 tokens of level {level!r}, got {tokens}")
    return cut


def sample_of(characters: int) -> list[range]:
    """Return the parts of a text from which level "bpe" learns its vocabulary, spread over the first nine tenths.

    A short text has one part. A longer text has parts of ``STRETCH`` characters each, ``SAMPLE`` characters in all.
    """
    training = characters * 9 // 10
    if training <= SAMPLE:
        return [range(training)]
    count = SAMPLE // STRETCH
    starts = (k * (training - STRETCH) // (count - 1) for k in range(count))
    return [range(start, start + STRETCH) for start in starts]


@dataclass(frozen=True)
class Corpus:
    """A text as token ids: the first nine tenths for training, the last tenth held out for validation."""

    vocabulary: Vocabulary
    train: np.ndarray | Tokens  # (N,) int64
    held_out: np.ndarray | Tokens  # (M,) int64
    characters: int
    digest: str  # identifies the text
    limit: int | None = None  # the maximum size for learning the vocabulary; None if it was given

    @classmethod
    def of(cls, text: str, level: str = "char", limit: int = 10_000, vocabulary: Vocabulary | None = None) -> "Corpus":
        """Split a text into tokens and encode them. Words and byte pairs are learnt from the training part alone.

        A given ``vocabulary``, for instance that of a model to train further, is used unchanged. Raises FormatError for
        a text too short to hold anything out, and for characters that are not in the vocabulary.
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
        what = {"char": "", "word": "words and punctuation marks, ", "bpe": "tokens, "}[self.vocabulary.level]
        tokens = what and f"{len(self.train) + len(self.held_out):,} {what}"
        return (
            f"{self.characters:,} characters, {tokens}vocabulary of {len(self.vocabulary):,}; "
            f"{len(self.train):,} to train on, {len(self.held_out):,} held out"
        )


def check_known(vocabulary: Vocabulary, text: str) -> None:
    """Raise FormatError for characters that the vocabulary does not have; unknown words become "<unk>"."""
    if vocabulary.level == "char" and (unseen := vocabulary.unseen(text)):
        raise FormatError(
            f"text: expected characters in the model's vocabulary, got also {unseen}; remove them from the text, or "
            "train a new model"
        )

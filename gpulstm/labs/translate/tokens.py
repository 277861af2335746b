"""Vocabularies of the Translator: words and punctuation marks, or byte pairs, and their ids."""

import collections
import importlib.util
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from gpulstm.errors import FormatError, ShapeError

UNKNOWN, BEGIN, END = range(3)
SPECIAL = ("<unk>", "<s>", "</s>")
SPACE = "▁"  # starts a token that follows a space, so that tokens keep the spaces (Kudo & Richardson 2018)
# A word, a digit or a punctuation mark. Numbers are split into digits, because few numbers occur often enough.
PIECE = re.compile(rf"{SPACE}?(?:[^\W\d_]+|\d|[^\w\s{SPACE}]|_)|{SPACE}")


class Vocabulary(Protocol):
    """The tokens of one language and their ids from 0: unknown, begin, end, then the others."""

    level: ClassVar[str]

    def __len__(self) -> int: ...

    def encode(self, sentence: str) -> np.ndarray:
        """Return the ids (n,) of a sentence's tokens, int64, without begin and end."""

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Return the tokens of these ids; ▁ stands for the space before a token."""

    def decode(self, ids: Sequence[int]) -> str:
        """Join the tokens of these ids to a sentence."""

    def to_json(self) -> Any:
        """Return the vocabulary as a JSON value."""


class Words:
    """A vocabulary of words, digits and punctuation marks, the most common first."""

    level: ClassVar[str] = "word"

    def __init__(self, words: Sequence[str], lowercase: bool) -> None:
        """``words`` are the tokens after the special ones."""
        self.lowercase, self._tokens = lowercase, [*SPECIAL, *words]
        self._numbers = {token: number for number, token in enumerate(self._tokens)}

    @classmethod
    def learn(cls, sentences: Iterable[str], size: int, min_count: int, lowercase: bool) -> Self:
        """Make a vocabulary of the most common tokens that occur at least ``min_count`` times.

        ``size`` is the maximum number of tokens, special tokens included.
        """
        counts: collections.Counter[str] = collections.Counter()
        for sentence in sentences:
            counts.update(split(sentence, lowercase))
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return cls([token for token, count in ranked if count >= min_count][: max(0, size - len(SPECIAL))], lowercase)

    def __len__(self) -> int:
        return len(self._tokens)

    def encode(self, sentence: str) -> np.ndarray:
        """See Vocabulary; tokens that are not in it become UNKNOWN."""
        return np.array([self._numbers.get(token, UNKNOWN) for token in split(sentence, self.lowercase)], np.int64)

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """See Vocabulary."""
        return [self._tokens[number] for number in ids]

    def decode(self, ids: Sequence[int]) -> str:
        """See Vocabulary."""
        return "".join(self.tokens(ids)).replace(SPACE, " ").strip()

    def to_json(self) -> Any:
        """See Vocabulary."""
        return {"words": self._tokens[len(SPECIAL) :], "lowercase": self.lowercase}

    @classmethod
    def from_json(cls, kept: Any) -> Self:
        """Restore a vocabulary from the value of ``to_json``; raises FormatError for other values."""
        words, lowercase = kept["words"], kept["lowercase"]
        if (
            not isinstance(words, list)
            or not all(isinstance(word, str) for word in words)
            or len(set(words)) < len(words)
        ):
            raise FormatError("vocabulary: expected a list of different words, got another value")
        if not isinstance(lowercase, bool):
            raise FormatError(f"lowercase: expected true or false, got {lowercase!r:.40}")
        return cls(words, lowercase)


def split(sentence: str, lowercase: bool) -> list[str]:
    """Split a sentence into words, digits and punctuation marks, with ▁ in place of the space before each."""
    words = (sentence.lower() if lowercase else sentence).split()
    return PIECE.findall("".join(f"{SPACE}{word}" for word in words))


class BytePairs:
    """A vocabulary of parts of words, by byte-pair encoding (Sennrich et al. 2016) with the library ``tokenizers``."""

    level: ClassVar[str] = "bpe"

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    @classmethod
    def learn(cls, sentences: Iterable[str], size: int, min_count: int, lowercase: bool) -> Self:
        """Learn ``size`` tokens, special tokens and all characters included, from pairs seen ``min_count`` times."""
        library = tokenizers_library()
        tokenizer = library.Tokenizer(library.models.BPE(unk_token=SPECIAL[UNKNOWN]))
        changes = [library.normalizers.NFC()] + ([library.normalizers.Lowercase()] if lowercase else [])
        tokenizer.normalizer = library.normalizers.Sequence(changes)
        before, after = library.pre_tokenizers, library.decoders
        tokenizer.pre_tokenizer = before.Sequence(
            [before.WhitespaceSplit(), before.Metaspace(), before.Punctuation(), before.Digits(individual_digits=True)]
        )
        tokenizer.decoder = after.Metaspace()
        options = {"vocab_size": size, "min_frequency": min_count, "show_progress": False}
        trainer = library.trainers.BpeTrainer(special_tokens=list(SPECIAL), **options)
        tokenizer.train_from_iterator(sentences, trainer)
        return cls(tokenizer)

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, sentence: str) -> np.ndarray:
        """See Vocabulary; characters that are not in it become UNKNOWN."""
        return np.array(self._tokenizer.encode(sentence, add_special_tokens=False).ids, np.int64)

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """See Vocabulary."""
        return [self._tokenizer.id_to_token(int(number)) for number in ids]

    def decode(self, ids: Sequence[int]) -> str:
        """See Vocabulary."""
        return "".join(self.tokens(ids)).replace(SPACE, " ").strip()

    def to_json(self) -> Any:
        """See Vocabulary: the tokenizer's own JSON."""
        return self._tokenizer.to_str()

    @classmethod
    def from_json(cls, kept: Any) -> Self:
        """Restore a vocabulary from the value of ``to_json``.

        Raises FormatError for other values, and if tokenizers is not installed.
        """
        library = tokenizers_library()
        try:
            tokenizer = library.Tokenizer.from_str(json.dumps(json.loads(kept)))
        except Exception as error:  # tokenizers raises plain Exception
            raise FormatError(f"vocabulary: expected the JSON of a tokenizer, got another value: {error}") from error
        if [tokenizer.id_to_token(number) for number in range(len(SPECIAL))] != list(SPECIAL):
            raise FormatError(f"vocabulary: expected {', '.join(SPECIAL)} as the first tokens, got other tokens")
        return cls(tokenizer)


LEVELS: dict[str, Any] = {kind.level: kind for kind in (Words, BytePairs)}


def check_level(level: str) -> None:
    """Raise ShapeError for an unknown level, FormatError if the library that it needs is not installed."""
    if not isinstance(level, str) or level not in LEVELS:
        raise ShapeError(f"level: expected {' or '.join(map(repr, LEVELS))}, got {level!r}")
    if level == BytePairs.level:
        tokenizers_library()


def tokenizers_library() -> Any:
    """Return the library tokenizers. Raises FormatError if it is not installed."""
    if importlib.util.find_spec("tokenizers") is None:
        raise FormatError(
            "level: expected the library tokenizers for 'bpe', which is not installed: pip install tokenizers (it is "
            "in the extra labs), or use level='word'"
        )
    import tokenizers

    return tokenizers

"""What sentences are made of: words and signs, or byte pairs; and the numbers that stand for them."""

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
SPACE = "▁"  # begins a token that follows a space, so that tokens say where the spaces were (Kudo & Richardson 2018)
# A word, a digit or a sign. Numbers are read digit by digit: few are met often enough to be learnt as words.
PIECE = re.compile(rf"{SPACE}?(?:[^\W\d_]+|\d|[^\w\s{SPACE}]|_)|{SPACE}")


class Vocabulary(Protocol):
    """The tokens of one language and their numbers, from 0: unknown, begin, end, then the others."""

    level: ClassVar[str]

    def __len__(self) -> int: ...

    def encode(self, sentence: str) -> np.ndarray:
        """The numbers (n,) of a sentence's tokens, int64, without begin and end."""

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """The tokens of these numbers; a space before one is shown as ▁."""

    def decode(self, ids: Sequence[int]) -> str:
        """The sentence that these tokens make."""

    def to_json(self) -> Any:
        """The vocabulary as a JSON value."""


class Words:
    """Words, digits and signs, the commonest first."""

    level: ClassVar[str] = "word"

    def __init__(self, words: Sequence[str], lowercase: bool) -> None:
        """``words`` are the tokens after the special ones."""
        self.lowercase, self._tokens = lowercase, [*SPECIAL, *words]
        self._numbers = {token: number for number, token in enumerate(self._tokens)}

    @classmethod
    def learn(cls, sentences: Iterable[str], size: int, min_count: int, lowercase: bool) -> Self:
        """The ``size`` commonest tokens, the special ones among them, that come ``min_count`` times at least."""
        counts: collections.Counter[str] = collections.Counter()
        for sentence in sentences:
            counts.update(split(sentence, lowercase))
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return cls([token for token, count in ranked if count >= min_count][: max(0, size - len(SPECIAL))], lowercase)

    def __len__(self) -> int:
        return len(self._tokens)

    def encode(self, sentence: str) -> np.ndarray:
        """See Vocabulary; tokens that were not learnt are UNKNOWN."""
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
        """What ``to_json`` gave; raises FormatError for others."""
        words, lowercase = kept["words"], kept["lowercase"]
        if (
            not isinstance(words, list)
            or not all(isinstance(word, str) for word in words)
            or len(set(words)) < len(words)
        ):
            raise FormatError("vocabulary: expected a list of different words, got another")
        if not isinstance(lowercase, bool):
            raise FormatError(f"lowercase: expected true or false, got {lowercase!r:.40}")
        return cls(words, lowercase)


def split(sentence: str, lowercase: bool) -> list[str]:
    """The words, digits and signs of a sentence, each with ▁ before it where a space was."""
    words = (sentence.lower() if lowercase else sentence).split()
    return PIECE.findall("".join(f"{SPACE}{word}" for word in words))


class BytePairs:
    """Pieces of words by byte-pair encoding (Sennrich, Haddow & Birch 2016), of the library ``tokenizers``."""

    level: ClassVar[str] = "bpe"

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    @classmethod
    def learn(cls, sentences: Iterable[str], size: int, min_count: int, lowercase: bool) -> Self:
        """``size`` pieces, the special ones and all characters among them, from pairs that come ``min_count`` times."""
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
        """See Vocabulary; characters that were not learnt are UNKNOWN."""
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
        """What ``to_json`` gave; raises FormatError for others, and without the library."""
        library = tokenizers_library()
        try:
            tokenizer = library.Tokenizer.from_str(json.dumps(json.loads(kept)))
        except Exception as error:  # the library raises Exception itself
            raise FormatError(f"vocabulary: expected the JSON of a tokenizer, got another: {error}") from error
        if [tokenizer.id_to_token(number) for number in range(len(SPECIAL))] != list(SPECIAL):
            raise FormatError(f"vocabulary: expected {', '.join(SPECIAL)} to come first, got others")
        return cls(tokenizer)


LEVELS: dict[str, Any] = {kind.level: kind for kind in (Words, BytePairs)}


def check_level(level: str) -> None:
    """Raise ShapeError for a level that there is not, FormatError where its library is not installed."""
    if not isinstance(level, str) or level not in LEVELS:
        raise ShapeError(f"level: expected {' or '.join(map(repr, LEVELS))}, got {level!r}")
    if level == BytePairs.level:
        tokenizers_library()


def tokenizers_library() -> Any:
    """The library for byte pairs; raises FormatError where it is not installed."""
    if importlib.util.find_spec("tokenizers") is None:
        raise FormatError(
            "level: expected the library tokenizers for 'bpe', which is not installed: pip install tokenizers (of the "
            "extra labs), or use level='word'"
        )
    import tokenizers

    return tokenizers

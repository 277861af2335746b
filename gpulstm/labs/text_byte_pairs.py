"""The vocabulary of level "bpe": byte-pair encoding, with the library ``tokenizers``."""

import codecs
import functools
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from gpulstm.errors import FormatError, ShapeError
from gpulstm.labs.text_vocabulary import CUT, Vocabulary
from gpulstm.labs.translate.tokens import tokenizers_library

BYTES = 256  # the tokens before the first merge
LONGEST = 256  # the maximum number of bytes in a token
BATCH = 1 << 14  # characters that the library encodes at once


def _alphabet() -> dict[str, int]:
    """Return the byte that each of 256 printable characters stands for, as in GPT-2 (Radford et al. 2019)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(BYTES) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(BYTES + n): byte for n, byte in enumerate(others)}


ALPHABET = _alphabet()


class BytePairs(Vocabulary):
    """Byte-pair encoding of the text's bytes (Sennrich, Haddow & Birch 2016; Radford et al. 2019).

    The first tokens are the 256 bytes, in the order of the characters that stand for them in ``tokens``. Each merge
    makes a new token from two earlier ones. Every text can be encoded, and joining its tokens gives the text back.
    """

    def __init__(self, merges: Sequence[Sequence[str]]) -> None:
        """``merges`` are pairs of tokens, in the order of merging. Raises FormatError for anything else."""
        numbers = {token: number for number, token in enumerate(sorted(ALPHABET))}
        self.merges = [_pair(merge) for merge in (merges if isinstance(merges, list | tuple) else [merges])]
        for first, second in self.merges:
            if first not in numbers or second not in numbers or len(first + second) > LONGEST:
                raise FormatError(
                    f"vocabulary: expected pairs of earlier tokens, of at most {LONGEST} bytes together, got "
                    f"{[first, second]!r:.60}"
                )
            numbers.setdefault(first + second, len(numbers))
        self.level, self.tokens, self._numbers = "bpe", list(numbers), numbers

    @classmethod
    def learn(cls, stretches: Iterable[str], limit: int) -> "BytePairs":
        """Learn a vocabulary of at most ``limit`` tokens, which is 256 or more, from these texts.

        Raises ShapeError for a lower limit, FormatError if tokenizers is not installed.
        """
        if limit < BYTES:
            raise ShapeError(
                f"vocabulary: expected at least {BYTES} tokens at level 'bpe', one for every byte, got {limit}"
            )
        library = tokenizers_library()
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = library.trainers.BpeTrainer(
            vocab_size=limit, initial_alphabet=sorted(ALPHABET), max_token_length=LONGEST, show_progress=False
        )
        tokenizer.train_from_iterator(itertools.chain.from_iterable(map(_batches, stretches)), trainer)
        return cls(json.loads(tokenizer.to_str())["model"]["merges"])

    def to_json(self) -> Any:
        return self.merges

    def numbers(self, text: str) -> np.ndarray:
        """Return the ids of the text's tokens, (N,) int64. Raises FormatError if tokenizers is not installed."""
        try:
            found = self._tokenizer.encode_batch_fast(list(_batches(text)), add_special_tokens=False)
        except (UnicodeEncodeError, TypeError) as error:
            raise FormatError("text: expected characters that UTF-8 can encode, got others") from error
        return np.concatenate([np.empty(0, np.int64), *(np.array(one.ids, np.int64) for one in found)])

    @functools.cached_property
    def _tokenizer(self) -> Any:
        library = tokenizers_library()
        tokenizer = library.Tokenizer(library.models.BPE(vocab=self._numbers, merges=self.merges))
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        return tokenizer

    def split(self, text: str) -> list[str]:
        """Return the text of each token. A character that spans several tokens is in the last of them."""
        return list(self.stream(self.numbers(text)))

    def stream(self, numbers: Iterable[int]) -> Iterator[str]:
        """Yield the text of each id, characters as soon as they are complete; invalid UTF-8 becomes "\ufffd"."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for number in numbers:
            yield decoder.decode(bytes(ALPHABET[character] for character in self.tokens[number]))
        if rest := decoder.decode(b"", final=True):
            yield rest

    def unseen(self, pieces: Sequence[str]) -> str:
        """Return an empty string: every text can be encoded."""
        return ""


def _pair(merge: Any) -> tuple[str, str]:
    if isinstance(merge, list | tuple) and len(merge) == 2 and all(isinstance(token, str) for token in merge):
        return merge[0], merge[1]
    raise FormatError(f"vocabulary: expected pairs of tokens at level 'bpe', got {merge!r:.60}")


def check_installed() -> None:
    """Raise FormatError if tokenizers is not installed."""
    tokenizers_library()


def _batches(text: str) -> Iterator[str]:
    """Split the text where tokens end; the library encodes many short parts faster than one long text."""
    start = 0
    while start < len(text):
        cut = CUT.search(text, start + BATCH)
        end = cut.end() if cut else len(text)
        yield text[start:end]
        start = end

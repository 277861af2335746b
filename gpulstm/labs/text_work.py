"""Prepare a corpus: learn the vocabulary, then write the files of tokens, one stretch after the other."""

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from gpulstm.labs.text_byte_pairs import BytePairs
from gpulstm.labs.text_corpus import check_known, held_out_from, sample_of, text_pieces
from gpulstm.labs.text_prepared import Description
from gpulstm.labs.text_stream import BEGIN, Place, Reading, another, parts_of
from gpulstm.labs.text_tokens import Tokens, dtype_for, shard_file, write_numbers
from gpulstm.labs.text_vocabulary import Vocabulary, code_points
from gpulstm.labs.text_words import cut_words, first_words, numbers_in, tokens_in


class Work:
    """The steps from a text to a corpus; a resumed run continues after the last finished step.

    Each step updates ``told`` and writes it to disk. Raises FormatError if the text differs from the one that the work
    started with, and for files that are not text or too short; OSError if a file cannot be read or written.
    """

    def __init__(
        self, folder: Path, told: Description, files: Sequence[str | Path], encoding: str, say: Callable[[str], None]
    ) -> None:
        self._folder, self._told, self._files, self._encoding, self._say = folder, told, files, encoding, say
        # A vocabulary of words is counted while the text is read once; otherwise the text is read twice.
        self._learns, self._by_words = told.limit is not None, told.level == "word" and told.limit is not None

    def run(self) -> None:
        """Do the remaining steps."""
        told = self._told
        if told.state == "learning":
            self._say("reading the text" + (" to learn its vocabulary" if self._learns else ""))
            self._learn()
            self._enter("writing")
        assert told.vocabulary is not None
        self._say(f"text: {told.end.characters:,} characters, vocabulary of {len(told.vocabulary):,}")
        if told.state == "complete":
            self._check_end(self._read(told.end))
            return
        Tokens(
            self._folder, [shard["tokens"] for shard in told.shards], len(told.vocabulary)
        )  # checks the files of an earlier run
        if self._by_words:
            for number in range(len(told.shards), len(told.stretches)):
                self._write_shard(told.vocabulary, numbers_in(self._folder, number, told.vocabulary))
        else:
            self._write_text(told.vocabulary)
        held_out_from(self._tokens(), told.level)
        self._enter("complete")

    def _enter(self, state: str) -> None:
        self._told.state = state
        self._told.save(self._folder)

    def _tokens(self) -> int:
        return sum(shard["tokens"] for shard in self._told.shards)

    def _read(self, begin: Place = BEGIN, level: str | None = None) -> Reading:
        return Reading(text_pieces(self._files, self._encoding), level or self._told.level, begin)

    # -- the vocabulary ------------------------------------------------------------------------------------------

    def _learn(self) -> None:
        """Read the text, and learn the vocabulary unless it was given."""
        told, by_characters = self._told, self._told.level == "char"
        seen = np.zeros(sys.maxunicode + 1, bool)  # the characters in the text
        if by_characters and self._learns and told.vocabulary is not None:
            seen[code_points("".join(told.vocabulary.tokens))] = True
        reading = self._read(told.end)
        for pieces in reading.stretches(whole=self._by_words):
            if self._by_words:
                cut_words(self._folder, len(told.stretches), pieces)
            else:
                for piece in pieces:
                    if by_characters:
                        seen[code_points(piece)] = True
            if by_characters and self._learns:
                told.vocabulary = Vocabulary("char", [chr(character) for character in np.flatnonzero(seen)])
            told.stretches.append(reading.place)
            told.save(self._folder)
        if by_characters and told.vocabulary is not None:
            held_out_from(told.end.characters, told.level)
            check_known(told.vocabulary, "".join(map(chr, np.flatnonzero(seen))))
        elif told.limit is not None:
            told.vocabulary = (self._of_words if self._by_words else self._of_byte_pairs)(told.limit)

    def _of_words(self, limit: int) -> Vocabulary:
        count = len(self._told.stretches)
        first = held_out_from(sum(tokens_in(self._folder, number) for number in range(count)), "word")
        return Vocabulary.of_counts(first_words(self._folder, count, first), limit)

    def _of_byte_pairs(self, limit: int) -> BytePairs:
        return BytePairs.learn(parts_of(self._read(level="char"), sample_of(self._told.end.characters)), limit)

    # -- the files -----------------------------------------------------------------------------------------------

    def _write_text(self, vocabulary: Vocabulary) -> None:
        """Read the text again, and write the missing files."""
        told, first = self._told, len(self._told.shards)
        reading = self._read(told.stretches[first - 1] if first else BEGIN)
        stretches = reading.stretches()
        for _, pieces in zip(told.stretches[first:], stretches, strict=False):
            self._write_shard(vocabulary, (vocabulary.numbers(piece) for piece in pieces), reading)
        self._check_end(itertools.chain.from_iterable(stretches))

    def _write_shard(
        self, vocabulary: Vocabulary, arrays: Iterator[np.ndarray], reading: Reading | None = None
    ) -> None:
        """Write the next file; a ``reading`` must end at the same place as the first time."""
        told, number = self._told, len(self._told.shards)
        shard = write_numbers(shard_file(self._folder, number), arrays, dtype_for(len(vocabulary)))
        if reading is not None and reading.place != told.stretches[number]:
            raise another(told.stretches[number])
        told.shards.append(shard)
        told.save(self._folder)
        done = told.stretches[number].characters
        self._say(f"{self._folder}: wrote {self._tokens():,} tokens of {done:,} characters")

    def _check_end(self, rest: Iterable[str]) -> None:
        """Raise FormatError if the text is longer or shorter than when it was first read."""
        if next(iter(rest), None) is not None or len(self._told.shards) != len(self._told.stretches):
            raise another(self._told.end)

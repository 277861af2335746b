"""Preparing a corpus: text of any size becomes files of tokens once, in bounded memory; a killed work goes on."""

import hashlib
import itertools
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpulstm import checks
from gpulstm.errors import DTypeError, FileExists, FormatError, ShapeError
from gpulstm.io.files import as_path, atomic_write, hold
from gpulstm.labs import text_byte_pairs, text_tokens
from gpulstm.labs.reading import check_encoding
from gpulstm.labs.text_byte_pairs import BYTES, BytePairs
from gpulstm.labs.text_corpus import Corpus, digest_with, held_out_from, sample_of, text_pieces
from gpulstm.labs.text_counts import count_words, first_words, remove_runs
from gpulstm.labs.text_prepared import FILE, Description, open_corpus
from gpulstm.labs.text_stream import BEGIN, Place, Reading, stretches
from gpulstm.labs.text_tokens import Tokens, dtype_for, shard_file
from gpulstm.labs.text_vocabulary import LEVELS, Vocabulary, code_points
from gpulstm.train.saved import differences

COPY = "standard-input"  # in the folder, while it is being prepared
OURS = (FILE, COPY, "tokens-*.bin", "words-*.jsonl", ".gpulstm-*.tmp")


def prepare(
    files: Sequence[str | Path],
    out: str | Path,
    *,
    level: str = "char",
    vocabulary: int | Vocabulary = 10_000,
    encoding: str = "utf-8",
    resume: bool = False,
    force: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Corpus:
    """Write the text of ``files``, joined by a blank line, as a corpus of tokens to the folder ``out``.

    Files are plain, or compressed by gzip or zstd, in that encoding; "-" is standard input. ``level`` is "char", "word"
    or "bpe", ``vocabulary`` the most words or byte pairs, or a Vocabulary to be used as it is, e.g. that of a model.
    Otherwise it is learnt as by ``train``, from the first nine tenths: the corpus has the same tokens as the text has
    there.

    Memory stays below 300 MB for any size. The text is read twice or, for words and byte pairs, a little more often,
    so standard input is copied into the folder, until the corpus is finished. Killed at any moment, ``resume`` goes on
    after the last whole file of tokens (of ``text_tokens.SHARD``) to the same bits.

    ``say`` is given facts, a line at a time. Returns the corpus.

    Raises FileExists for a folder with a corpus, unless with ``resume`` or ``force``, and always for one with other
    files; FormatError for a text that is empty, too short to hold anything out, or not the one that the work was begun
    with, and for characters that a given vocabulary lacks; ShapeError and DTypeError for arguments; OSError.

    >>> prepare(["book.txt.gz"], "corpus", level="word")
    >>> train(corpus="corpus")
    """
    folder = as_path(out, name="out")
    wanted = _description(level, vocabulary)
    given = [str(as_path(file, name="files")) for file in _listed(files)]
    check_encoding(encoding)
    for file in given:
        if file != "-":
            Path(file).open("rb").close()  # what cannot be read is found before any work
    if folder.exists() and not folder.is_dir():
        raise FileExists(f"{folder}: is a file; give another folder with --out (out=)")
    folder.mkdir(exist_ok=True)
    with hold(folder / FILE):
        told = _claim(folder, wanted, resume, force)
        try:
            _Work(folder, told, _with_copy(given, folder, say), encoding, say).run()
        except KeyboardInterrupt as stop:
            words = f"stopped after {told.done.characters:,} characters; go on with --resume (resume=True)"
            raise KeyboardInterrupt(words) from stop
        except Exception:
            if told is wanted and not told.shards and not told.counted:
                _clear(folder)  # nothing is lost, and the next try is no second one
            raise
    return open_corpus(folder)


class _Work:
    """The steps from a text to a corpus, each begun where the one before ended, maybe in another process."""

    def __init__(
        self, folder: Path, told: Description, files: list[Path | str], encoding: str, say: Callable[[str], None]
    ) -> None:
        self.folder, self.told, self.files, self.encoding, self.say = folder, told, files, encoding, say

    def run(self) -> None:
        """Do what is left to do."""
        told = self.told
        if told.text is None:
            self.say("reading the text" + ("" if told.vocabulary else " to learn its vocabulary"))
            told.text, told.vocabulary = self._learnt()
            told.counted = []
            self._save()
        else:
            self.say("reading the text once, to see that it is the one that the corpus was begun with")
            for _ in self._read(level="char"):
                pass
        remove_runs(self.folder)
        assert told.vocabulary is not None
        self.say(f"text: {told.text.characters:,} characters, vocabulary of {len(told.vocabulary):,}")
        if not told.complete:
            self._write(told.vocabulary)
            held_out_from(self._tokens(), told.level)
            told.complete = True
            self._save()
        (self.folder / COPY).unlink(missing_ok=True)

    def _save(self) -> None:
        self.told.save(self.folder)

    def _tokens(self) -> int:
        return sum(shard["tokens"] for shard in self.told.shards)

    def _read(self, begin: Place = BEGIN, level: str | None = None) -> Reading:
        return Reading(text_pieces(self.files, self.encoding), level or self.told.level, begin, self.told.text)

    def _learnt(self) -> tuple[Place, Vocabulary]:
        """The end of the text, and its vocabulary."""
        told = self.told
        if told.level == "word" and told.vocabulary is None:
            text = count_words(self._read, self.folder, told.counted, self._save)
            first = held_out_from(told.counted[-1]["tokens"] if told.counted else 0, told.level)
            words = first_words(self._read, self.folder, told.counted, first)
            return text, Vocabulary.of_counts(words, told.limit or 0)
        reading, seen = self._read(level="char"), np.zeros(sys.maxunicode + 1, bool)
        for piece in reading:
            if told.level == "char":
                seen[code_points(piece)] = True
        if told.vocabulary is not None:
            return reading.place, told.vocabulary
        if told.level == "char":
            held_out_from(reading.place.characters, told.level)
            return reading.place, Vocabulary("char", [chr(character) for character in np.flatnonzero(seen)])
        sample = stretches(self._read(level="char"), sample_of(reading.place.characters))
        return reading.place, BytePairs.learn(sample, told.limit or 0)

    def _write(self, vocabulary: Vocabulary) -> None:
        """Write the files of tokens that are not there yet."""
        told = self.told
        Tokens(self.folder, [shard["tokens"] for shard in told.shards], len(vocabulary))  # are they as they were?
        reading = self._read(told.done)
        pieces = iter(reading)
        for piece in pieces:
            file = shard_file(self.folder, len(told.shards))
            told.shards.append(_write_shard(file, itertools.chain([piece], pieces), vocabulary))
            told.done = reading.place
            self._save()
            self.say(f"{file}: {self._tokens():,} tokens, {told.done.characters:,} characters")


def _write_shard(file: Path, pieces: Iterator[str], vocabulary: Vocabulary) -> dict[str, Any]:
    """Write the pieces' tokens until the file is large enough; give its number of tokens and its SHA-256."""
    known, tokens, dtype = hashlib.sha256(), 0, dtype_for(len(vocabulary))

    def write(opened: BinaryIO) -> None:
        nonlocal tokens
        for piece in pieces:
            numbers = vocabulary.numbers(piece).astype(dtype)
            opened.write(numbers.data)
            known.update(numbers.data)
            tokens += len(numbers)
            if tokens >= text_tokens.SHARD:
                return

    atomic_write(file, write)
    return {"tokens": tokens, "sha256": known.hexdigest()}


def _description(level: str, vocabulary: int | Vocabulary) -> Description:
    """What the arguments ask for."""
    if isinstance(vocabulary, Vocabulary):
        return Description(vocabulary.level, None, vocabulary)
    checks.choice("level", level, LEVELS)
    limit = checks.count("vocabulary", vocabulary, BYTES if level == "bpe" else 2)
    if level == "bpe":
        text_byte_pairs.check_installed()
    return Description(level, limit)


def _listed(files: Sequence[str | Path]) -> list[str | Path]:
    if isinstance(files, str | bytes | Path) or not isinstance(files, Sequence):
        raise DTypeError(f"files: want a list of files, got {type(files).__name__}")
    if not files or [str(file) for file in files].count("-") > 1:
        raise ShapeError(f"files: want at least one, and standard input (-) once, got {list(map(str, files))}")
    return list(files)


def _claim(folder: Path, wanted: Description, resume: bool, force: bool) -> Description:
    """The description to begin with, or to go on from; nothing that is no part of this work is overwritten."""
    mine = {file for pattern in (*OURS, f".{FILE}.lock") for file in folder.glob(pattern)}
    if others := sorted(file.name for file in folder.iterdir() if file not in mine):
        raise FileExists(f"{folder}: holds other files, as {others[0]}; give an empty or new folder with --out (out=)")
    for file in folder.glob(".gpulstm-*.tmp"):  # of a work that was killed
        file.unlink()
    if (folder / FILE).exists() and resume:
        told = Description.load(folder)
        if words := differences(_facts(told), _facts(wanted)):
            raise FormatError(f"{folder}: want the work that was begun: {words}")
        return told
    if (folder / FILE).exists() and not force:
        raise FileExists(
            f"{folder}: holds a corpus already; go on with --resume (resume=True) if it is unfinished, replace it with "
            "--force (force=True), or write elsewhere with --out (out=)"
        )
    _clear(folder)
    wanted.save(folder)
    return wanted


def _clear(folder: Path) -> None:
    """Delete what a work wrote; the description first, as the rest is no corpus without it."""
    for file in itertools.chain.from_iterable(map(folder.glob, OURS)):
        file.unlink()


def _facts(told: Description) -> dict[str, str | int | None]:
    """What decides the tokens of a text."""
    given = None if told.limit is not None or told.vocabulary is None else digest_with("", told.vocabulary)
    return {"level": told.level, "vocabulary": None if told.level == "char" else told.limit, "from": given}


def _with_copy(files: list[str], folder: Path, say: Callable[[str], None]) -> list[Path | str]:
    """The files, with a copy in the folder for standard input, which can be read once only."""
    copy = folder / COPY
    if "-" in files and copy.exists():
        say(f"standard input is not read again: {copy} is its copy")
    elif "-" in files:
        say(f"standard input is copied to {copy} until the corpus is finished")
        atomic_write(copy, lambda file: shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20))
    return [copy if file == "-" else file for file in files]

"""Encodes a text of any size as files of tokens, in bounded memory; an interrupted preparation can be resumed."""

import itertools
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from gpulstm import checks
from gpulstm.errors import DTypeError, FileExists, FormatError, ShapeError
from gpulstm.io.files import as_path, atomic_write, hold
from gpulstm.labs import text_byte_pairs
from gpulstm.labs.reading import check_encoding
from gpulstm.labs.text_byte_pairs import BYTES
from gpulstm.labs.text_corpus import Corpus, digest_with
from gpulstm.labs.text_prepared import FILE, Description, open_corpus
from gpulstm.labs.text_vocabulary import LEVELS, Vocabulary
from gpulstm.labs.text_words import remove_words
from gpulstm.labs.text_work import Work
from gpulstm.train.saved import differences

COPY = "standard-input"  # a copy in the folder, until the corpus is finished
OURS = (FILE, COPY, "tokens-*.bin", "words-*", ".gpulstm-*.tmp")


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
    """Encode the text of ``files``, joined by a blank line, and write the tokens to the folder ``out``.

    Files are plain, or compressed by gzip or zstd, with this ``encoding``; "-" is standard input. ``level`` is "char",
    "word" or "bpe". ``vocabulary`` is the maximum number of words or byte pairs, or a Vocabulary to use, such as a
    model's. Without one, the function learns the vocabulary as ``train`` does, from the first nine tenths of the text.
    The tokens are then those that ``train`` makes of the same text.

    Memory stays below 300 MB for any text. The text is read more than once. The folder therefore holds a copy of
    standard input, and the numbers of all words (four bytes each), until the corpus is finished. If the process is
    killed, ``resume`` continues after the last complete file, and the result has the same bits.

    ``say`` receives facts about the work, one line at a time. Returns the corpus.

    Raises FileExists for a folder that contains a corpus, unless with ``resume`` or ``force``, and always for one with
    other files. Raises FormatError if the text is empty, too short to hold out a part, or not the text that the work
    began with, and for characters that a given vocabulary lacks. Raises ShapeError and DTypeError for wrong arguments,
    and OSError if a file cannot be read or written.

    >>> prepare(["book.txt.gz"], "corpus", level="word")
    >>> train(corpus="corpus")
    """
    folder = as_path(out, name="out")
    wanted = _description(level, vocabulary)
    given = [str(as_path(file, name="files")) for file in _listed(files)]
    check_encoding(encoding)
    for file in given:
        if file != "-":
            Path(file).open("rb").close()  # raises OSError before any work if the file cannot be read
    if folder.exists() and not folder.is_dir():
        raise FileExists(f"{folder}: is a file; give another folder with --out (out=)")
    folder.mkdir(exist_ok=True)
    with hold(folder / FILE):
        told = _claim(folder, wanted, resume, force)
        try:
            Work(folder, told, _with_copy(given, folder, say), encoding, say).run()
            remove_words(folder)
            (folder / COPY).unlink(missing_ok=True)
        except KeyboardInterrupt as stop:
            words = f"stopped after {told.end.characters:,} characters; continue with --resume (resume=True)"
            raise KeyboardInterrupt(words) from stop
        except FormatError:
            if told is wanted and told.state == "learning":
                _clear(folder)  # the files are not text: a next try must not need --force
            raise
    return open_corpus(folder)


def _description(level: str, vocabulary: int | Vocabulary) -> Description:
    """Return the description of the corpus that the arguments ask for."""
    if isinstance(vocabulary, Vocabulary):
        return Description(vocabulary.level, None, vocabulary)
    checks.choice("level", level, LEVELS)
    limit = checks.count("vocabulary", vocabulary, BYTES if level == "bpe" else 2)
    if level == "bpe":
        text_byte_pairs.check_installed()
    return Description(level, limit)


def _listed(files: Sequence[str | Path]) -> list[str | Path]:
    if isinstance(files, str | bytes | Path) or not isinstance(files, Sequence):
        raise DTypeError(f"files: expected a list of files, got {type(files).__name__}")
    if not files or [str(file) for file in files].count("-") > 1:
        raise ShapeError(
            f"files: expected at least one file, and standard input (-) at most once, got {list(map(str, files))}"
        )
    return list(files)


def _claim(folder: Path, wanted: Description, resume: bool, force: bool) -> Description:
    """Return the description to start with, or with ``resume`` the saved one, and clear the folder if needed.

    Raises FileExists if another file would be lost.
    """
    mine = {file for pattern in (*OURS, f".{FILE}.lock") for file in folder.glob(pattern)}
    if others := sorted(file.name for file in folder.iterdir() if file not in mine):
        raise FileExists(
            f"{folder}: contains other files, such as {others[0]}; give an empty or new folder with --out (out=)"
        )
    for file in folder.glob(".gpulstm-*.tmp"):  # left by a process that was killed
        file.unlink()
    if (folder / FILE).exists() and resume:
        told = Description.load(folder)
        if words := differences(_facts(told), _facts(wanted)):
            raise FormatError(f"{folder}: cannot resume with other options: {words}")
        return told
    if (folder / FILE).exists() and not force:
        raise FileExists(
            f"{folder}: contains a corpus already; continue with --resume (resume=True) if it is unfinished, replace "
            "it with --force (force=True), or write elsewhere with --out (out=)"
        )
    _clear(folder)
    wanted.save(folder)
    return wanted


def _clear(folder: Path) -> None:
    """Delete the files of a corpus; the description first, because without it the rest is not a corpus."""
    for file in itertools.chain.from_iterable(map(folder.glob, OURS)):
        file.unlink()


def _facts(told: Description) -> dict[str, str | int | None]:
    """The facts that determine the tokens of a text."""
    given = None if told.limit is not None or told.vocabulary is None else digest_with("", told.vocabulary)
    return {"level": told.level, "vocabulary": None if told.level == "char" else told.limit, "from": given}


def _with_copy(files: list[str], folder: Path, say: Callable[[str], None]) -> list[Path | str]:
    """Replace standard input, which can be read only once, by a copy in the folder."""
    copy = folder / COPY
    if "-" in files and copy.exists():
        say(f"reading {copy}, the copy of standard input")
    elif "-" in files:
        say(f"copying standard input to {copy}; the copy is deleted when the corpus is finished")
        atomic_write(copy, lambda file: shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20))
    return [copy if file == "-" else file for file in files]

"""Preparing a corpus: text of any size becomes files of tokens once, in bounded memory; a killed work goes on."""

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

COPY = "standard-input"  # in the folder, while it is being prepared
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
    """Write the text of ``files``, joined by a blank line, as a corpus of tokens to the folder ``out``.

    Files are plain, or compressed by gzip or zstd, in that encoding; "-" is standard input. ``level`` is "char", "word"
    or "bpe", ``vocabulary`` the most words or byte pairs, or a Vocabulary to be used as it is, e.g. that of a model.
    Otherwise it is learnt as by ``train``, from the first nine tenths: the corpus has the same tokens as the text has
    there.

    Memory stays below 300 MB for any size. The text is read more than once, so standard input is copied into the
    folder until the corpus is finished; so are words, as numbers of four bytes. Killed at any moment, ``resume`` goes
    on after the last whole file to the same bits.

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
            Work(folder, told, _with_copy(given, folder, say), encoding, say).run()
            remove_words(folder)
            (folder / COPY).unlink(missing_ok=True)
        except KeyboardInterrupt as stop:
            words = f"stopped after {told.end.characters:,} characters; go on with --resume (resume=True)"
            raise KeyboardInterrupt(words) from stop
        except FormatError:
            if told is wanted and told.state == "learning":
                _clear(folder)  # it is no text, and the next try is no second one
            raise
    return open_corpus(folder)


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
        raise DTypeError(f"files: expected a list of files, got {type(files).__name__}")
    if not files or [str(file) for file in files].count("-") > 1:
        raise ShapeError(f"files: expected at least one, and standard input (-) once, got {list(map(str, files))}")
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
            raise FormatError(f"{folder}: expected the work that was begun: {words}")
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

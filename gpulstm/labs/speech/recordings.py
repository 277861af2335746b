"""Read recordings and their transcripts: WAV files in a folder or a zip, and a TSV or CSV table of texts."""

import csv
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from gpulstm.errors import FormatError
from gpulstm.labs import reading
from gpulstm.labs.speech.wave import MOST_BYTES, wave_in

USUAL = ("transcripts.tsv", "transcripts.csv")  # looked for beside the recordings
HEADERS = ("file", "filename", "file_name", "name", "path", "wav", "audio")
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)
MOST_TABLE = 2**26  # bytes of the transcripts in a zip
MOST_MEMORY = 2**33  # bytes of all waves: 8 GiB, three days at 8 kHz


@dataclass(frozen=True)
class Recordings:
    """Waves at one sample rate, their texts and the names of their files."""

    names: list[str]
    waves: list[np.ndarray]
    texts: list[str]
    unused: int  # WAV files without a transcript


def read_recordings(
    data: str | Path, transcripts: str | Path | None, sample_rate: int, encoding: str = "utf-8"
) -> Recordings:
    """Read the recordings of a folder or a zip, resampled to ``sample_rate``. A zip is never unpacked to disk.

    ``transcripts`` is a table with one line per recording: the file's path in the folder or zip, a tab, the text. If
    the table's name ends in .csv, a comma separates them. None means transcripts.tsv or transcripts.csv in the folder
    or zip. Raises FormatError, naming the file or the line, for any other table, for names without a file, and for
    damaged or too large recordings; OSError if a file cannot be read.
    """
    with _opened(Path(data)) as (names, read):
        if transcripts is not None:
            table = _rows(reading.lines(transcripts, encoding), str(transcripts))
        else:
            usual = next((name for name in USUAL if name in names), None)
            if usual is None:
                raise FormatError(
                    f"{data}: expected {' or '.join(USUAL)} in it, got neither; or give --transcripts with a line for "
                    "each recording: its file's name, a tab, its text"
                )
            table = _rows(_table_lines(read(usual, MOST_TABLE), f"{data}: {usual}", encoding), f"{data}: {usual}")
        texts = _texts(table, names, str(transcripts or usual))
        waves, room = [], MOST_MEMORY
        for name in texts:
            waves.append(wave_in(read(name, MOST_BYTES), f"{data}: {name}", sample_rate))
            if (room := room - waves[-1].nbytes) < 0:
                raise FormatError(f"{data}: expected recordings of at most {MOST_MEMORY:,} bytes in memory, got more")
    unused = sum(name.lower().endswith(".wav") for name in names) - sum(n.lower().endswith(".wav") for n in texts)
    return Recordings(list(texts), waves, list(texts.values()), unused)


@contextmanager
def _opened(data: Path) -> Iterator[tuple[set[str], Callable[[str, int], bytes]]]:
    """Yield (the file names, a function that reads at most ``most`` + 1 bytes of a file)."""
    if data.is_dir():
        files = {path.relative_to(data).as_posix(): path for path in data.rglob("*") if path.is_file()}

        def read_file(name: str, most: int) -> bytes:
            with files[name].open("rb") as raw:
                return raw.read(most + 1)

        yield set(files), read_file
        return
    with data.open("rb") as raw:
        try:
            packed = zipfile.ZipFile(raw)
        except DAMAGED as error:
            raise FormatError(f"{data}: expected a folder or a zip of WAV files, got another file ({error})") from error
        with packed:
            infos = {info.filename: info for info in packed.infolist() if not info.is_dir()}

            def read_packed(name: str, most: int) -> bytes:
                # The size stated in the zip may be false, so the read below is limited too.
                if infos[name].file_size > most:
                    size = f"{infos[name].file_size:,}"
                    raise FormatError(
                        f"{data}: {name}: expected at most {most // 2**20} MiB, got {size} bytes unpacked"
                    )
                try:
                    with packed.open(infos[name]) as member:
                        return member.read(most + 1)
                except DAMAGED as error:
                    raise FormatError(f"{data}: {name}: expected a whole file, got a damaged one ({error})") from error

            yield set(infos), read_packed


def _table_lines(data: bytes, name: str, encoding: str) -> Iterator[str]:
    if len(data) > MOST_TABLE:
        raise FormatError(f"{name}: expected at most {MOST_TABLE // 2**20} MiB, got more")
    try:
        text = data.decode(reading.check_encoding(encoding))
    except UnicodeError as error:
        raise FormatError(f"{name}: expected {encoding} text, got other bytes; {reading.ADVICE}") from error
    return iter(io.StringIO(text, newline=None).read().split("\n"))


def _rows(lines: Iterator[str], name: str) -> Iterator[tuple[str, str, str]]:
    """Yield (place, file, text) for each line that is not empty."""
    separator = "," if name.lower().removesuffix(".gz").endswith(".csv") else "\t"
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{name}: line {number}"
        try:
            cells = next(csv.reader([line])) if separator == "," else line.split("\t")
        except csv.Error as error:
            raise FormatError(f"{where}: expected a file's name, a comma and its text, got {error}") from error
        if len(cells) != 2:
            want = "a comma" if separator == "," else "a tab"
            raise FormatError(f"{where}: expected a file's name, {want} and its text, got {len(cells)} cells")
        if number == 1 and cells[0].strip().lower() in HEADERS:
            continue
        yield where, cells[0].strip(), " ".join(cells[1].split())


def _texts(rows: Iterator[tuple[str, str, str]], names: set[str], table: str) -> dict[str, str]:
    """Return the text of each file.

    Raises FormatError, naming the line, for an empty text, for a name without a file and for a repeated name.
    """
    texts: dict[str, str] = {}
    for where, name, text in rows:
        name = str(PurePosixPath(name))
        if name not in names:  # no name in it contains ".."
            raise FormatError(f"{where}: expected a file among the recordings, got {name!r}")
        if name in texts:
            raise FormatError(f"{where}: expected each file once, got {name!r} again")
        if not text:
            raise FormatError(f"{where}: expected a text for {name!r}, got none")
        texts[name] = text
    if not texts:
        raise FormatError(f"{table}: expected a line for each recording, got none")
    return texts

"""A prepared corpus on disk: a folder with files of tokens and corpus.json, which says what they are."""

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gpulstm.errors import FormatError
from gpulstm.io.files import LARGEST_HEADER, atomic_write
from gpulstm.labs.text_corpus import Corpus, digest_with, held_out_from, vocabulary_from
from gpulstm.labs.text_file import load_model
from gpulstm.labs.text_stream import BEGIN, Place
from gpulstm.labs.text_tokens import Tokens, dtype_for
from gpulstm.labs.text_vocabulary import LEVELS, Vocabulary

FILE = "corpus.json"
KIND, VERSION = "gpulstm text corpus", 1
STATES = ("learning", "writing", "complete")


@dataclass
class Description:
    """What corpus.json says, at every moment of the work, which goes on from there.

    The text is taken in stretches, each of which becomes a file of tokens. In the state "learning" it is read, to learn
    the vocabulary; then the files are written, until the corpus is "complete".
    """

    level: str
    limit: int | None  # most tokens that the vocabulary might have; None for one that was given
    vocabulary: Vocabulary | None = None
    stretches: list[Place] = field(default_factory=list)  # where each ends
    shards: list[dict[str, Any]] = field(default_factory=list)  # "tokens" and "sha256" of each file
    state: str = STATES[0]

    @property
    def end(self) -> Place:
        """The end of what is read of the text."""
        return self.stretches[-1] if self.stretches else BEGIN

    def save(self, folder: Path) -> None:
        """Write it, atomically. Raises OSError."""
        values = {name: value for name, value in vars(self).items() if name != "vocabulary"}
        values["stretches"] = [asdict(place) for place in self.stretches]
        if self.vocabulary is not None:
            facts = {"dtype": dtype_for(len(self.vocabulary)).name, "tokens": sum(s["tokens"] for s in self.shards)}
            values |= facts | {"vocabulary": self.vocabulary.to_json()}
        data = json.dumps({"kind": KIND, "version": VERSION, **values}).encode()
        atomic_write(folder / FILE, lambda file: file.write(data))

    @classmethod
    def load(cls, folder: Path) -> "Description":
        """What ``save`` wrote. Raises FormatError, saying what is wrong, for anything else; OSError."""
        file = folder / FILE
        try:
            if (size := file.stat().st_size) > LARGEST_HEADER:
                raise FormatError(f"expected at most {LARGEST_HEADER:,} bytes, got {size:,}")
            return _checked(json.loads(file.read_bytes()))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else error
            raise FormatError(f"{file}: expected the description of a {KIND}: {what}") from error


def is_prepared(path: str | Path) -> bool:
    """Whether the path is a folder, as prepared corpora are."""
    return str(path) != "-" and Path(path).is_dir()


def vocabulary_in(path: str | Path) -> Vocabulary:
    """The vocabulary of a model's file, or of a prepared corpus. Raises FormatError for others, OSError."""
    if not is_prepared(path):
        return load_model(path, "cpu").vocabulary
    vocabulary = Description.load(Path(path)).vocabulary
    if vocabulary is None:
        raise FormatError(f"{path}: expected a corpus with a vocabulary, got one that is still to be learnt")
    return vocabulary


def open_corpus(folder: str | Path) -> Corpus:
    """The corpus that ``prepare`` wrote, of which nothing but its description and its files' sizes is read yet.

    Nothing in it can run code. Raises FormatError for a folder without a finished corpus, and for files of other sizes;
    on reading, for numbers out of the vocabulary; OSError for what cannot be read.
    """
    folder = Path(folder)
    if not (folder / FILE).is_file():
        raise FormatError(f"{folder}: expected a folder that `gpulstm text prepare` wrote, got one without {FILE}")
    told = Description.load(folder)
    if told.state != "complete" or told.vocabulary is None:
        raise FormatError(
            f"{folder}: expected a finished corpus, got a part of one; go on with `gpulstm text prepare --resume`"
        )
    tokens = Tokens(folder, [shard["tokens"] for shard in told.shards], len(told.vocabulary))
    cut = held_out_from(len(tokens), told.level)
    # With its level and the limit a text decides the numbers of its tokens, so it is known by its own digest; another
    # version of the library might learn other byte pairs.
    decided = told.limit is not None and told.level != "bpe"
    digest = told.end.sha256 if decided else digest_with(told.end.sha256, told.vocabulary)
    return Corpus(told.vocabulary, tokens.part(0, cut), tokens.part(cut), told.end.characters, digest, told.limit)


def _checked(values: dict[str, Any]) -> Description:
    """The description in JSON values, each of which may be anything."""
    for name, want in (("kind", KIND), ("version", VERSION)):
        if values[name] != want:
            raise FormatError(f"{name}: expected {want!r}, got {values[name]!r:.60}")
    for name, choices in (("level", LEVELS), ("state", STATES)):
        if values[name] not in choices:
            raise FormatError(f"{name}: expected one of {', '.join(choices)}, got {values[name]!r:.60}")
    vocabulary = None
    if "vocabulary" in values:
        vocabulary = vocabulary_from(values["level"], values["vocabulary"])
        if values["dtype"] != (want := dtype_for(len(vocabulary)).name):
            raise FormatError(
                f"dtype: expected {want} for a vocabulary of {len(vocabulary):,}, got {values['dtype']!r:.60}"
            )
    shards = [_shard(shard) for shard in values["shards"]]
    if vocabulary is not None and values["tokens"] != (want := sum(shard["tokens"] for shard in shards)):
        raise FormatError(f"tokens: expected {want}, those of all files, got {values['tokens']!r:.60}")
    stretches = [_place(place) for place in values["stretches"]]
    if values["state"] == "complete" and (vocabulary is None or len(shards) != len(stretches)):
        raise FormatError("state: expected a vocabulary and a file for every stretch in a complete corpus, got others")
    limit = None if values["limit"] is None else _count("limit", values["limit"])
    return Description(values["level"], limit, vocabulary, stretches, shards, values["state"])


def _count(name: str, value: Any) -> int:
    if type(value) is not int or value < 0:
        raise FormatError(f"{name}: expected a whole number from 0 up, got {value!r:.60}")
    return value


def _sha256(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
        raise FormatError(f"sha256: expected 64 hexadecimal digits, got {value!r:.80}")
    return value


def _place(value: Any) -> Place:
    return Place(_count("characters", value["characters"]), _sha256(value["sha256"]))


def _shard(value: Any) -> dict[str, Any]:
    return {"tokens": _count("tokens", value["tokens"]), "sha256": _sha256(value["sha256"])}

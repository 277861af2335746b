"""A prepared corpus on disk: a folder with files of token ids, and corpus.json, which describes them."""

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
    """The contents of corpus.json, which is updated after every part of the work, so that the work can be resumed.

    The text is processed in stretches, and each stretch becomes a file of token ids (a shard). In the state "learning"
    the text is read and the vocabulary learnt; in the state "writing" the shards are written; then the corpus is
    "complete".
    """

    level: str
    limit: int | None  # the maximum size for learning the vocabulary; None if it was given
    vocabulary: Vocabulary | None = None
    stretches: list[Place] = field(default_factory=list)  # the end of each stretch
    shards: list[dict[str, Any]] = field(default_factory=list)  # "tokens" and "sha256" of each shard
    state: str = STATES[0]

    @property
    def end(self) -> Place:
        """The end of the part of the text that has been read."""
        return self.stretches[-1] if self.stretches else BEGIN

    def save(self, folder: Path) -> None:
        """Write corpus.json atomically. Raises OSError."""
        values = {name: value for name, value in vars(self).items() if name != "vocabulary"}
        values["stretches"] = [asdict(place) for place in self.stretches]
        if self.vocabulary is not None:
            facts = {"dtype": dtype_for(len(self.vocabulary)).name, "tokens": sum(s["tokens"] for s in self.shards)}
            values |= facts | {"vocabulary": self.vocabulary.to_json()}
        data = json.dumps({"kind": KIND, "version": VERSION, **values}).encode()
        atomic_write(folder / FILE, lambda file: file.write(data))

    @classmethod
    def load(cls, folder: Path) -> "Description":
        """Read the file that ``save`` wrote.

        Raises FormatError, with the reason, for any other file, OSError if it cannot be read.
        """
        file = folder / FILE
        try:
            if (size := file.stat().st_size) > LARGEST_HEADER:
                raise FormatError(f"expected at most {LARGEST_HEADER:,} bytes, got {size:,}")
            return _checked(json.loads(file.read_bytes()))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else error
            raise FormatError(f"{file}: expected the description of a {KIND}, got a damaged one: {what}") from error


def is_prepared(path: str | Path) -> bool:
    """Return whether the path is a folder; prepared corpora are folders."""
    return str(path) != "-" and Path(path).is_dir()


def vocabulary_in(path: str | Path) -> Vocabulary:
    """Return the vocabulary of a model file or a prepared corpus. Raises FormatError for other files, OSError."""
    if not is_prepared(path):
        return load_model(path, "cpu").vocabulary
    vocabulary = Description.load(Path(path)).vocabulary
    if vocabulary is None:
        raise FormatError(f"{path}: expected a corpus with a vocabulary, got one whose vocabulary is not learnt yet")
    return vocabulary


def open_corpus(folder: str | Path) -> Corpus:
    """Open a corpus that ``prepare`` wrote; its tokens are read later, as they are needed.

    Opening never runs code from the folder. Raises FormatError for a folder without a finished corpus and for shards of
    a wrong size; reading tokens raises FormatError for ids outside the vocabulary. Raises OSError if a file cannot be
    read.
    """
    folder = Path(folder)
    if not (folder / FILE).is_file():
        raise FormatError(f"{folder}: expected a folder that `gpulstm text prepare` wrote, got a folder without {FILE}")
    told = Description.load(folder)
    if told.state != "complete" or told.vocabulary is None:
        raise FormatError(
            f"{folder}: expected a finished corpus, got an unfinished one; run `gpulstm text prepare --resume`"
        )
    tokens = Tokens(folder, [shard["tokens"] for shard in told.shards], len(told.vocabulary))
    cut = held_out_from(len(tokens), told.level)
    # The text, the level and the limit decide the token ids, so the digest of the text identifies them. Byte pairs are
    # the exception: another version of tokenizers might learn other pairs.
    decided = told.limit is not None and told.level != "bpe"
    digest = told.end.sha256 if decided else digest_with(told.end.sha256, told.vocabulary)
    return Corpus(told.vocabulary, tokens.part(0, cut), tokens.part(cut), told.end.characters, digest, told.limit)


def _checked(values: dict[str, Any]) -> Description:
    """Check a description in JSON values, each of which may be anything."""
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
        raise FormatError(f"tokens: expected {want}, the sum over all files, got {values['tokens']!r:.60}")
    stretches = [_place(place) for place in values["stretches"]]
    if values["state"] == "complete" and (vocabulary is None or len(shards) != len(stretches)):
        raise FormatError(
            "state: expected a vocabulary and a file for every stretch in a complete corpus, got a corpus without"
        )
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

"""A long text read piece by piece, from its beginning or from a place that was met before."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gpulstm.errors import FormatError
from gpulstm.labs.text_vocabulary import last_cut

LONGEST = 1 << 24  # most characters without a place to cut, where words are not to be cut


@dataclass(frozen=True)
class Place:
    """A place in a text: how many characters stand before it, and the SHA-256 of their UTF-8."""

    characters: int = 0
    sha256: str = hashlib.sha256().hexdigest()


BEGIN = Place()


class Reading:
    """One reading of a text: going over it with ``for`` gives pieces, and ``place`` is behind the last of them.

    At the levels "word" and "bpe" no token goes on from one piece to the next. A reading that begins at a place met
    before gives the same pieces from there as a reading of the whole text.

    Raises FormatError where the text is not the one that ``begin``, and ``whole``, its end, were met in; and for more
    than ``LONGEST`` characters without white space at these levels.
    """

    def __init__(self, pieces: Iterable[str], level: str, begin: Place = BEGIN, whole: Place | None = None) -> None:
        self._begin, self._whole, self._hash = begin, whole, hashlib.sha256()
        self._characters = 0
        after = self._after_begin(iter(pieces))
        self._pieces = after if level == "char" else _whole_words(after)

    @property
    def place(self) -> Place:
        return Place(self._characters, self._hash.hexdigest())

    def __iter__(self) -> Iterator[str]:
        for piece in self._pieces:
            self._pass(piece)
            if self._whole is not None and self._characters > self._whole.characters:
                raise _another(self._whole, f"more than {self._whole.characters:,} characters")
            yield piece
        if self._whole is not None and self.place != self._whole:
            raise _another(self._whole, f"{self._characters:,} characters, or others")

    def _pass(self, text: str) -> None:
        self._hash.update(text.encode("utf-8", "surrogatepass"))
        self._characters += len(text)

    def _after_begin(self, pieces: Iterator[str]) -> Iterator[str]:
        """The pieces behind the place to begin at; what stands before it is held against that place."""
        rest = ""
        while self._characters < self._begin.characters and (piece := next(pieces, "")):
            missing = self._begin.characters - self._characters
            self._pass(piece[:missing])
            rest = piece[missing:]
        if self.place != self._begin:
            raise _another(self._begin, "another beginning")
        if rest:
            yield rest
        yield from pieces


def _another(want: Place, got: str) -> FormatError:
    return FormatError(
        f"text: want the one that was read before, {want.characters:,} characters with SHA-256 {want.sha256[:12]}..., "
        f"got {got}; give the same files in the same order, or begin anew with --force (force=True)"
    )


def _whole_words(pieces: Iterable[str]) -> Iterator[str]:
    """The same text in pieces that end where a token ends."""
    rest = ""
    for piece in pieces:
        rest += piece
        if cut := last_cut(rest):
            yield rest[:cut]
            rest = rest[cut:]
        elif len(rest) > LONGEST:
            raise FormatError(
                f"text: want white space at least every {LONGEST:,} characters at the levels word and bpe, got none "
                "for longer; use level char"
            )
    if rest:
        yield rest


def stretches(pieces: Iterable[str], wanted: Iterable[range]) -> Iterator[str]:
    """The characters of a text that stand in these ranges, which follow each other."""
    passed, found = 0, ""
    left = list(reversed(list(wanted)))
    for piece in pieces:
        while left and left[-1].start < passed + len(piece):
            found += piece[max(0, left[-1].start - passed) : left[-1].stop - passed]
            if left[-1].stop > passed + len(piece):
                break
            yield found
            found = ""
            left.pop()
        if not left:
            return
        passed += len(piece)

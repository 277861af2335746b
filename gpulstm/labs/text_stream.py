"""A long text read piece by piece, from its beginning or from a place that was met before."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gpulstm.errors import FormatError
from gpulstm.labs.text_vocabulary import last_cut

LONGEST = 1 << 24  # most characters without a place to cut, where words are not to be cut
STRETCH = 1 << 26  # characters whose tokens go to one file


@dataclass(frozen=True)
class Place:
    """A place in a text: how many characters stand before it, and the SHA-256 of their UTF-8."""

    characters: int = 0
    sha256: str = hashlib.sha256().hexdigest()


BEGIN = Place()


class Reading:
    """One reading of a text, from its beginning or a place met before; ``place`` is behind what was read of it.

    At the levels "word" and "bpe" no token goes on from one piece to the next. A reading that begins at a place met
    before gives the same pieces from there as a reading of the whole text.

    Raises FormatError where the text is not the one that ``begin`` was met in; and for more than ``LONGEST``
    characters without white space at these levels.
    """

    def __init__(self, pieces: Iterable[str], level: str, begin: Place = BEGIN) -> None:
        self._begin, self._characters, self._hash = begin, 0, hashlib.sha256()
        after = self._after_begin(iter(pieces))
        self._pieces = after if level == "char" else _whole_words(after)

    @property
    def place(self) -> Place:
        return Place(self._characters, self._hash.hexdigest())

    def __iter__(self) -> Iterator[str]:
        for piece in self._pieces:
            self._pass(piece)
            yield piece

    def stretches(self, whole: bool = False) -> Iterator[Iterator[str]]:
        """The pieces in stretches of ``STRETCH`` characters or a few more; each is to be gone over before the next.

        With ``whole`` the text is one stretch, and who goes over it ends it where he likes.
        """
        pieces = iter(self)
        for piece in pieces:
            text = itertools.chain([piece], pieces)
            yield text if whole else _until(text, STRETCH)

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
            raise another(self._begin)
        if rest:
            yield rest
        yield from pieces


def another(want: Place) -> FormatError:
    """The error of a text that is not the one in which a place was met."""
    return FormatError(
        f"text: expected the one that was read before, of which the first {want.characters:,} characters have the "
        f"SHA-256 {want.sha256[:12]}..., got another; give the same files in the same order, or begin anew with "
        "--force (force=True)"
    )


def _until(pieces: Iterable[str], characters: int) -> Iterator[str]:
    """The first pieces, until they have so many characters."""
    for piece in pieces:
        yield piece
        characters -= len(piece)
        if characters <= 0:
            return


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
                f"text: expected white space at least every {LONGEST:,} characters at the levels word and bpe, got "
                "none for longer; use level char"
            )
    if rest:
        yield rest


def parts_of(pieces: Iterable[str], wanted: Iterable[range]) -> Iterator[str]:
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

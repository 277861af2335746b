"""Read a long text in pieces, from its start or from a place that an earlier reading reached."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gpulstm.errors import FormatError
from gpulstm.labs.text_vocabulary import last_cut

LONGEST = 1 << 24  # the maximum number of characters without a place to split between tokens
STRETCH = 1 << 26  # characters per stretch, whose tokens go to one file


@dataclass(frozen=True)
class Place:
    """A place in a text: the number of characters before it, and the SHA-256 of their UTF-8."""

    characters: int = 0
    sha256: str = hashlib.sha256().hexdigest()


BEGIN = Place()


class Reading:
    """One reading of a text, from its start or from a place that an earlier reading reached.

    Iterate over it for the pieces of the text; ``place`` is the end of what was read so far. At the levels "word" and
    "bpe" no token spans two pieces. A reading that starts at an earlier place yields the same pieces from there as a
    reading of the whole text.

    Raises FormatError if ``begin`` is a place in another text, and at the levels "word" and "bpe" for more than
    ``LONGEST`` characters without white space.
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
        """Yield the pieces in stretches of about ``STRETCH`` characters; exhaust each stretch before the next.

        With ``whole`` a stretch has no limit: it ends where the caller stops reading it.
        """
        pieces = iter(self)
        for piece in pieces:
            text = itertools.chain([piece], pieces)
            yield text if whole else _until(text, STRETCH)

    def _pass(self, text: str) -> None:
        self._hash.update(text.encode("utf-8", "surrogatepass"))
        self._characters += len(text)

    def _after_begin(self, pieces: Iterator[str]) -> Iterator[str]:
        """Yield the pieces after the place to begin at; check that the text before it is the same as before."""
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
    """Return the error for a text that differs from the one in which a place was reached."""
    return FormatError(
        f"text: expected the text that was read before, whose first {want.characters:,} characters have the SHA-256 "
        f"{want.sha256[:12]}..., got another text; give the same files in the same order, or start again with "
        "--force (force=True)"
    )


def _until(pieces: Iterable[str], characters: int) -> Iterator[str]:
    """Yield pieces until they have this many characters."""
    for piece in pieces:
        yield piece
        characters -= len(piece)
        if characters <= 0:
            return


def _whole_words(pieces: Iterable[str]) -> Iterator[str]:
    """Yield the same text in pieces that end where a token ends."""
    rest = ""
    for piece in pieces:
        rest += piece
        if cut := last_cut(rest):
            yield rest[:cut]
            rest = rest[cut:]
        elif len(rest) > LONGEST:
            raise FormatError(
                f"text: expected white space at least every {LONGEST:,} characters at the levels word and bpe, got "
                "a longer stretch without; use level char"
            )
    if rest:
        yield rest


def parts_of(pieces: Iterable[str], wanted: Iterable[range]) -> Iterator[str]:
    """Yield the characters of a text in these ranges, which are in increasing order."""
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

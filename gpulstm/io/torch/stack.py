"""The pickle interpreter's stack and memo, and the arguments that it reads from the file."""

import pickle
import struct
import sys
from typing import Any, BinaryIO

from gpulstm.errors import FormatError
from gpulstm.io.torch import budget as cost
from gpulstm.io.torch.budget import Budget
from gpulstm.io.torch.unread import Unfinished

FARTHEST = 64  # places of the memo that may be skipped; Python numbers them in order
_FREE = object()


class Stack:
    """The stack, the stacks below its marks, and the memo; every value counts in the budget."""

    def __init__(self, file: BinaryIO, size: int, budget: Budget) -> None:
        self.file, self.size, self.spend = file, size, budget.spend
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: list[Any] = []

    # -- arguments in the file

    def read(self, count: int) -> bytes:
        """Read ``count`` bytes; memory is allocated only if the file has them."""
        if count > self.size - self.file.tell():
            raise FormatError(f"expected {count} more bytes, got the end")
        return self.file.read(count)

    def number(self, layout: str) -> Any:
        data = self.file.read(struct.calcsize(layout))
        if len(data) < struct.calcsize(layout):
            raise FormatError(f"expected {struct.calcsize(layout)} more bytes, got the end")
        return struct.unpack(layout, data)[0]

    def text(self, data: bytes) -> str:
        try:
            return data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise FormatError(f"expected a string in UTF-8, got {error}") from error

    # -- values on the stack

    def push(self, value: Any, taken: int) -> None:
        self.spend(taken)
        self.stack.append(value)

    def push_number(self, layout: str) -> None:
        value = self.number(layout)
        self.push(value, cost.SLOT if -5 <= value <= 256 else cost.NUMBER)  # CPython keeps the small ones

    def push_long(self) -> None:
        value = pickle.decode_long(self.read(self.number("<B")))
        self.push(value, cost.NUMBER if abs(value) < 2**30 else cost.SLOT + sys.getsizeof(value))

    def push_float(self) -> None:
        self.push(self.number(">d"), cost.NUMBER)

    def push_text(self, layout: str) -> None:
        value = self.text(self.read(self.number(layout)))
        self.push(value, cost.TEXT + sys.getsizeof(value))

    def push_bytes(self, layout: str) -> None:
        value = self.read(self.number(layout))
        self.push(value, cost.TEXT + sys.getsizeof(value))

    def push_bytearray(self) -> None:
        value = bytearray(self.read(self.number("<Q")))
        self.push(value, cost.TEXT + sys.getsizeof(value))

    def push_old_text(self, layout: str) -> None:
        """A string of Python 2; bytes if it is not UTF-8: then it is the content of a number or an array."""
        data = self.read(self.number(layout))
        try:
            value: str | bytes = data.decode()
        except UnicodeDecodeError:
            value = data
        self.push(value, cost.TEXT + sys.getsizeof(value))

    def push_tuple(self, count: int | None = None) -> None:
        items = self.pop_to_mark() if count is None else self.pop(count)
        self.push(tuple(items) if items else (), cost.TUPLE if items else cost.SLOT)

    def pop(self, count: int) -> list[Any]:
        """Remove the topmost entries, and return them in the order in which they were pushed."""
        if len(self.stack) < count:
            raise FormatError(f"expected {count} entries on the stack, got {len(self.stack)}")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def pop_to_mark(self) -> list[Any]:
        """Remove the last mark and all entries above it, and return the entries."""
        if not self.below:
            raise FormatError("expected a mark on the stack, got none")
        taken, self.stack = self.stack, self.below.pop()
        self.spend(-cost.MARK)
        return taken

    def top(self, want: str, *kinds: type) -> Any:
        """The topmost entry, which stays on the stack and must be of one of these types."""
        if not self.stack or not isinstance(self.stack[-1], kinds):
            got = type(self.stack[-1]).__name__ if self.stack else "nothing"
            raise FormatError(f"expected a {want} on the stack, got {got}")
        return self.stack[-1]

    def mark(self) -> None:
        self.spend(cost.MARK)
        self.below.append(self.stack)
        self.stack = []

    def drop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_to_mark()

    def drop_to_mark(self) -> None:
        self.pop_to_mark()

    def again(self) -> None:
        (value,) = self.pop(1)
        self.stack.append(value)
        self.push(value, cost.SLOT)

    # -- the memo

    def note_at(self, layout: str) -> None:
        place = self.number(layout)
        if place > len(self.memo) + FARTHEST:
            raise FormatError(f"expected places of the memo in order, got place {place} after {len(self.memo)}")
        while place >= len(self.memo):
            self.spend(cost.SLOT)
            self.memo.append(_FREE)
        self.set_note(place)

    def note(self) -> None:
        self.spend(cost.SLOT)
        self.memo.append(_FREE)
        self.set_note(len(self.memo) - 1)

    def set_note(self, place: int) -> None:
        if not self.stack:
            raise FormatError("expected an entry on the stack for the memo, got none")
        self.memo[place] = self.stack[-1]
        if isinstance(self.stack[-1], Unfinished):
            self.spend(cost.LIST)
            self.stack[-1].places.append(place)

    def noted(self, layout: str) -> None:
        place = self.number(layout)
        if place >= len(self.memo) or self.memo[place] is _FREE:
            raise FormatError(f"expected a filled place of the memo, got place {place}")
        self.push(self.memo[place], cost.SLOT)

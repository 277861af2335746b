"""Pickles from strangers: an interpreter of the opcodes that hold data; it imports nothing and calls nothing.

A pickle is a program for a machine with a stack and a memo; Python's module pickle describes each opcode. Here
they are carried out on lists, dicts, sets, tuples, numbers and texts alone. What a file names
(``torch.FloatStorage``) stays a name: the reader's own table, never the file, decides what stands for it.
"""

import pickle
import struct
import sys
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO, Protocol

import numpy as np

from gpulstm.errors import FormatError
from gpulstm.io.torch import budget as cost
from gpulstm.io.torch.budget import Budget
from gpulstm.io.torch.keys import Keys
from gpulstm.io.torch.unread import Named, Unfinished, Unread

LARGEST = 1 << 26  # bytes, and instructions, of a pickle
LONGEST_NAME = 1000  # characters
FARTHEST = 64  # places of the memo that may stay free; Python numbers them one after the other


class Names(Protocol):
    """What stands for the names in a pickle; the methods may raise FormatError."""

    def named(self, text: str) -> Any:
        """For a name alone."""

    def call(self, name: Unread, arguments: tuple[Any, ...]) -> Any:
        """For a name applied to arguments."""

    def persistent(self, identity: Any) -> Any:
        """For data kept elsewhere in the file."""


def unpickle(file: BinaryIO, size: int, where: str, names: Names, budget: Budget) -> Any:
    """The value that a pickle describes; afterwards ``file``, which has ``size`` bytes, stands behind it.

    Raises FormatError, with ``where`` and about the byte, for opcodes that hold no data, for damage, and for
    values that take more memory than the budget has.
    """
    try:
        return _Machine(file, size, names, budget).run()
    except FormatError as error:
        raise FormatError(f"{where}, byte {file.tell()}: {error}") from error


class _Machine:
    """The stack, the stacks below its marks, and the memo."""

    def __init__(self, file: BinaryIO, size: int, names: Names, budget: Budget) -> None:
        self.file, self.size, self.names, self.spend = file, size, names, budget.spend
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: list[Any] = []
        self.known: dict[str, Any] = {}
        self.keys = Keys(budget)
        self.methods = self._methods()

    def _methods(self) -> dict[bytes, Callable[[], None]]:
        """What to do for each opcode."""
        numbers = {pickle.BININT: "<i", pickle.BININT1: "<B", pickle.BININT2: "<H"}
        texts = {pickle.BINUNICODE: "<I", pickle.SHORT_BINUNICODE: "<B", pickle.BINUNICODE8: "<Q"}
        raw = {pickle.BINBYTES: "<I", pickle.SHORT_BINBYTES: "<B", pickle.BINBYTES8: "<Q"}
        old = {pickle.BINSTRING: "<I", pickle.SHORT_BINSTRING: "<B"}
        constants = {pickle.NONE: None, pickle.NEWTRUE: True, pickle.NEWFALSE: False, pickle.EMPTY_TUPLE: ()}
        tuples = {pickle.TUPLE1: 1, pickle.TUPLE2: 2, pickle.TUPLE3: 3}
        return {
            pickle.PROTO: partial(self.number, "<B"), pickle.FRAME: partial(self.number, "<Q"),
            **{code: partial(self.push, value, cost.SLOT) for code, value in constants.items()},
            **{code: partial(self.push_number, layout) for code, layout in numbers.items()},
            **{code: partial(self.push_text, layout) for code, layout in texts.items()},
            **{code: partial(self.push_bytes, layout) for code, layout in raw.items()},
            **{code: partial(self.push_old_text, layout) for code, layout in old.items()},
            **{code: partial(self.push_tuple, count) for code, count in tuples.items()},
            pickle.BINFLOAT: self.push_float, pickle.LONG1: self.push_long, pickle.BYTEARRAY8: self.push_bytearray,
            pickle.MARK: self.mark, pickle.TUPLE: self.push_tuple, pickle.EMPTY_LIST: self.empty_list,
            pickle.EMPTY_DICT: self.empty_dict, pickle.EMPTY_SET: self.empty_set, pickle.FROZENSET: self.frozenset,
            pickle.APPEND: self.append, pickle.APPENDS: self.appends, pickle.ADDITEMS: self.add_items,
            pickle.SETITEM: self.set_item, pickle.SETITEMS: self.set_items,
            pickle.POP: self.drop, pickle.POP_MARK: self.drop_to_mark, pickle.DUP: self.again,
            pickle.BINPUT: partial(self.note_at, "<B"), pickle.LONG_BINPUT: partial(self.note_at, "<I"),
            pickle.MEMOIZE: self.note, pickle.BINGET: partial(self.noted, "<B"),
            pickle.LONG_BINGET: partial(self.noted, "<I"), pickle.GLOBAL: self.name,
            pickle.STACK_GLOBAL: self.name_of_texts, pickle.REDUCE: self.reduce, pickle.NEWOBJ: self.reduce,
            pickle.NEWOBJ_EX: self.reduce_with_names, pickle.OBJ: self.reduce_to_mark,
            pickle.BUILD: self.build, pickle.BINPERSID: self.persistent_id,
        }  # fmt: skip

    def run(self) -> Any:
        """Carry out the instructions up to the end."""
        read, methods = self.file.read, self.methods
        for _ in range(LARGEST):
            code = read(1)
            if code == pickle.STOP:
                (result,) = self.pop(1)
                if self.stack or self.below:
                    raise FormatError("want one value, got more on the stack")
                return result
            method = methods.get(code)
            if method is None:
                raise FormatError(f"want data alone, got {f'the instruction {code!r}' if code else 'the end'}")
            method()
        raise FormatError(f"want at most {LARGEST} instructions, got more")

    # -- arguments in the file

    def read(self, count: int) -> bytes:
        """So many bytes; memory is taken only for bytes that are there."""
        if count > self.size - self.file.tell():
            raise FormatError(f"want {count} bytes more, got the end")
        return self.file.read(count)

    def number(self, layout: str) -> Any:
        data = self.file.read(struct.calcsize(layout))
        if len(data) < struct.calcsize(layout):
            raise FormatError(f"want {struct.calcsize(layout)} bytes more, got the end")
        return struct.unpack(layout, data)[0]

    def text(self, data: bytes) -> str:
        try:
            return data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise FormatError(f"want a text in UTF-8, got {error}") from error

    # -- values

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
        self.push(value, 2 * cost.TEXT + sys.getsizeof(value))

    def push_bytes(self, layout: str) -> None:
        value = self.read(self.number(layout))
        self.push(value, cost.TEXT + sys.getsizeof(value))

    def push_bytearray(self) -> None:
        value = bytearray(self.read(self.number("<Q")))
        self.push(value, cost.TEXT + sys.getsizeof(value))

    def push_old_text(self, layout: str) -> None:
        """A text of Python 2, which is bytes: of a number's or an array's content, if it is no UTF-8."""
        data = self.read(self.number(layout))
        try:
            value: str | bytes = data.decode()
        except UnicodeDecodeError:
            value = data
        self.push(value, cost.TEXT + sys.getsizeof(value))

    def push_tuple(self, count: int | None = None) -> None:
        items = self.pop_to_mark() if count is None else self.pop(count)
        self.push(tuple(items) if items else (), cost.TUPLE if items else cost.SLOT)

    def empty_list(self) -> None:
        self.push([], cost.LIST)

    def empty_dict(self) -> None:
        self.push({}, cost.DICT)

    def empty_set(self) -> None:
        self.push(set(), cost.SET)

    def frozenset(self) -> None:
        made: set[Any] = set()
        self.keys.add(made, self.pop_to_mark())
        self.push(frozenset(made), cost.SET + sys.getsizeof(made))

    # -- the stack

    def pop(self, count: int) -> list[Any]:
        """The topmost entries, taken off the stack, in the order they were put there."""
        if len(self.stack) < count:
            raise FormatError(f"want {count} entries on the stack, got {len(self.stack)}")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def pop_to_mark(self) -> list[Any]:
        """All entries above the last mark, taken off with it."""
        if not self.below:
            raise FormatError("want a mark on the stack, got none")
        taken, self.stack = self.stack, self.below.pop()
        self.spend(-cost.MARK)
        return taken

    def top(self, want: str, *kinds: type) -> Any:
        """The topmost entry, which stays; it must be of one of these types."""
        if not self.stack or not isinstance(self.stack[-1], kinds):
            got = type(self.stack[-1]).__name__ if self.stack else "nothing"
            raise FormatError(f"want a {want} on the stack, got {got}")
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

    # -- lists, dicts and sets

    def append(self) -> None:
        self.extend(self.pop(1))

    def appends(self) -> None:
        self.extend(self.pop_to_mark())

    def extend(self, items: list[Any]) -> None:
        target = self.top("list", list, Unread)
        if isinstance(target, Unread):
            target = self.items_of(target, list)
        if not target:
            self.spend(cost.FIRST_ITEMS)
        target.extend(items)

    def add_items(self) -> None:
        items = self.pop_to_mark()
        self.keys.add(self.top("set", set), items)

    def set_item(self) -> None:
        self.put(self.pop(2))

    def set_items(self) -> None:
        self.put(self.pop_to_mark())

    def put(self, items: list[Any]) -> None:
        """Put keys and values, by turns, into the dict on the stack."""
        if len(items) % 2:
            raise FormatError("want keys and values in pairs, got a key alone")
        target = self.top("dict", dict, Unread)
        if isinstance(target, Unread):
            target = self.items_of(target, dict)
        self.keys.put(target, items)

    def items_of(self, unread: Unread, kind: type) -> Any:
        """What a class of lists or dicts that is not made holds."""
        if unread.items is None:
            self.spend(cost.DICT)
            unread.items = kind()
        if type(unread.items) is not kind or isinstance(unread, Named):
            raise FormatError(f"want a list or dict on the stack, got {unread}")
        return unread.items

    # -- the memo

    def note_at(self, layout: str) -> None:
        place = self.number(layout)
        if place > len(self.memo) + FARTHEST:
            raise FormatError(f"want places noted in turn, got place {place} after {len(self.memo)}")
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
            raise FormatError("want an entry on the stack to note, got none")
        self.memo[place] = self.stack[-1]
        if isinstance(self.stack[-1], Unfinished):
            self.spend(cost.LIST)
            self.stack[-1].places.append(place)

    def noted(self, layout: str) -> None:
        place = self.number(layout)
        if place >= len(self.memo) or self.memo[place] is _FREE:
            raise FormatError(f"want a place noted before, got place {place}")
        self.push(self.memo[place], cost.SLOT)

    # -- names

    def name(self) -> None:
        lines = [self.file.readline(LONGEST_NAME) for _ in range(2)]
        if not all(line.endswith(b"\n") for line in lines):
            raise FormatError("want a name in two lines, got something else")
        self.push_name(*(self.text(line[:-1]) for line in lines))

    def name_of_texts(self) -> None:
        module, name = self.pop(2)
        if type(module) is not str or type(name) is not str or len(module) + len(name) > LONGEST_NAME:
            raise FormatError("want a name of two texts, got something else")
        self.push_name(module, name)

    def push_name(self, module: str, name: str) -> None:
        text = f"{module}.{name}"
        if text not in self.known:
            self.spend(cost.OBJECT + cost.MOST_ITEM + cost.TEXT + sys.getsizeof(text))
            self.known[text] = self.names.named(text)
        self.push(self.known[text], cost.SLOT)

    def reduce(self) -> None:
        name, arguments = self.pop(2)
        if not isinstance(name, Unread) or type(arguments) is not tuple:
            raise FormatError("want a name and its arguments on the stack, got something else")
        value = self.names.call(name, arguments)
        # Arrays are counted where they are made.
        self.push(value, cost.SLOT if isinstance(value, np.ndarray) else cost.TEXT + sys.getsizeof(value))

    def reduce_with_names(self) -> None:
        """Arguments in a tuple and in a dict; the dict stays beside the others."""
        name, arguments, named = self.pop(3)
        if type(arguments) is not tuple:
            raise FormatError("want a name and its arguments on the stack, got something else")
        self.stack += [name, (*arguments, named) if named else arguments]
        self.spend(cost.TUPLE + cost.SLOT * len(arguments))
        self.reduce()

    def reduce_to_mark(self) -> None:
        """An object of Python 2."""
        items = self.pop_to_mark()
        self.spend(cost.TUPLE + cost.SLOT * len(items))
        self.stack += [*items[:1], tuple(items[1:])]
        self.reduce()

    def build(self) -> None:
        """Attributes of an object. Those of tensors and dicts (PyTorch's notes about versions) are left out."""
        (state,) = self.pop(1)
        target = self.top("value with attributes", Unread, Namespace, dict, set, np.ndarray)
        if isinstance(target, Named):
            raise FormatError(f"want an object on the stack, got {target}")
        if isinstance(target, Unfinished) and (value := target.finish(state)) is not None:
            self.stack[-1] = value
            for place in target.places:
                self.memo[place] = value
        elif isinstance(target, Unread):
            target.state = state
        elif isinstance(target, Namespace):
            if type(state) is not dict or not all(type(key) is str for key in state):
                raise FormatError("want attributes by name, got something else")
            self.keys.put(vars(target), [part for pair in state.items() for part in pair])

    def persistent_id(self) -> None:
        (identity,) = self.pop(1)
        self.push(self.names.persistent(identity), cost.SLOT)


_FREE = object()

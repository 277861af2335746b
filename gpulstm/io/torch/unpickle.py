"""Pickles from strangers: an interpreter of the few opcodes that hold data; it imports nothing and calls nothing.

A pickle is a program for a machine with a stack and a memo. Here its instructions are carried out on lists,
dicts, tuples, numbers and texts alone. What a file names (``torch.FloatStorage``) stays a name: the caller's
functions, never the file, decide what stands for it.
"""

import pickle
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from gpulstm.errors import FormatError
from gpulstm.io.torch.pickle_codes import instructions

LARGEST = 1 << 26  # bytes of a pickle; each may become an object of up to a hundred bytes
DEEPEST = 100  # lists inside lists; deeper ones break the programs that print or copy them
REPEATED = 16  # entries of the whole tree a byte of the pickle may stand for, when parts are named again

_CONSTANTS: dict[bytes, Any] = {
    pickle.NONE: None, pickle.NEWTRUE: True, pickle.NEWFALSE: False, pickle.EMPTY_TUPLE: (),
}  # fmt: skip
_LITERALS = {
    pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT, pickle.BINUNICODE,
    pickle.SHORT_BINUNICODE, pickle.BINUNICODE8,
}  # fmt: skip
_TUPLES = {pickle.TUPLE1: 1, pickle.TUPLE2: 2, pickle.TUPLE3: 3}


class Name:
    """What a pickle names by module and name, ``torch.FloatStorage``, and nothing more than that."""

    def __init__(self, text: str) -> None:
        self.text = text


def unpickle(
    data: bytes,
    where: str,
    names: Collection[str],
    call: Callable[[str, tuple[Any, ...]], Any],
    persistent: Callable[[Any], Any],
) -> Any:
    """The dicts, lists, tuples, numbers, texts and arrays that a pickle describes.

    ``names`` are all the names that it may hold; ``call(name, arguments)`` gives what stands for one applied
    to arguments, ``persistent(id)`` what stands for data kept elsewhere; both may raise FormatError. Raises
    FormatError, with ``where`` and the byte, for anything else: other names and opcodes, damage, nesting
    without end.
    """
    if len(data) > LARGEST:
        raise FormatError(f"{where}: want at most {LARGEST} bytes, got {len(data)}")
    machine = _Machine(names, call, persistent, REPEATED * len(data))
    try:
        for code, argument, place in instructions(data):
            machine.step(code, argument, place)
    except FormatError as error:
        raise FormatError(f"{where}, {error}") from error
    return machine.result


class _Machine:
    """The stack, the stacks below its marks, and the memo."""

    def __init__(
        self, names: Collection[str], call: Callable[..., Any], persistent: Callable[..., Any], largest: int
    ) -> None:
        self.names, self.call, self.persistent, self.largest = names, call, persistent, largest
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.result: Any = None
        self.methods: dict[bytes, Callable[[Any], None]] = {
            pickle.PROTO: self.ignore, pickle.FRAME: self.ignore, pickle.STOP: self.stop, pickle.MARK: self.mark,
            pickle.EMPTY_LIST: self.empty_list, pickle.EMPTY_DICT: self.empty_dict, pickle.TUPLE: self.tuple,
            pickle.APPEND: self.append, pickle.APPENDS: self.appends, pickle.SETITEM: self.set_item,
            pickle.SETITEMS: self.set_items, pickle.BINPUT: self.note, pickle.LONG_BINPUT: self.note,
            pickle.MEMOIZE: self.note_next, pickle.BINGET: self.noted, pickle.LONG_BINGET: self.noted,
            pickle.GLOBAL: self.name, pickle.STACK_GLOBAL: self.name_of_texts, pickle.REDUCE: self.reduce,
            pickle.BUILD: self.build, pickle.BINPERSID: self.persistent_id,
        }  # fmt: skip

    def step(self, code: bytes, argument: Any, place: int) -> None:
        """Carry out one instruction; raises FormatError with its place."""
        try:
            if code in _CONSTANTS:
                self.stack.append(_CONSTANTS[code])
            elif code in _LITERALS:
                self.stack.append(argument)
            elif code in _TUPLES:
                self.stack.append(tuple(self.pop(_TUPLES[code])))
            else:
                self.methods[code](argument)
        except FormatError as error:
            raise FormatError(f"byte {place}: {error}") from error

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
        return taken

    def top(self, kind: type) -> Any:
        """The topmost entry, which stays; it must be of this type."""
        if not self.stack or type(self.stack[-1]) is not kind:
            got = type(self.stack[-1]).__name__ if self.stack else "nothing"
            raise FormatError(f"want a {kind.__name__} on the stack, got {got}")
        return self.stack[-1]

    def ignore(self, _: int) -> None:
        """The protocol's version and the size of a part: each instruction is checked by itself."""

    def stop(self, _: None) -> None:
        (self.result,) = self.pop(1)
        if self.stack or self.below:
            raise FormatError("want one value, got more on the stack")
        _check_tree(self.result, self.largest)

    def mark(self, _: None) -> None:
        self.below.append(self.stack)
        self.stack = []

    def empty_list(self, _: None) -> None:
        self.stack.append([])

    def empty_dict(self, _: None) -> None:
        self.stack.append({})

    def tuple(self, _: None) -> None:
        items = self.pop_to_mark()
        self.stack.append(tuple(items))

    def append(self, _: None) -> None:
        items = self.pop(1)
        self.top(list).extend(items)

    def appends(self, _: None) -> None:
        items = self.pop_to_mark()
        self.top(list).extend(items)

    def set_item(self, _: None) -> None:
        self.put(self.pop(2))

    def set_items(self, _: None) -> None:
        self.put(self.pop_to_mark())

    def put(self, items: list[Any]) -> None:
        """Put keys and values, by turns, into the dict on the stack."""
        if len(items) % 2:
            raise FormatError("want keys and values in pairs, got a key alone")
        for key in items[::2]:
            # Others could make a hash that takes for ever: tuples of tuples, numbers made to collide.
            if type(key) is not str and not (type(key) is int and -(2**63) <= key < 2**63):
                raise FormatError(f"want texts or numbers of 64 bits as keys, got {type(key).__name__}")
        self.top(dict).update(zip(items[::2], items[1::2], strict=True))

    def note(self, place: int) -> None:
        if not self.stack:
            raise FormatError("want an entry on the stack to note, got none")
        self.memo[place] = self.stack[-1]

    def note_next(self, _: None) -> None:
        self.note(len(self.memo))

    def noted(self, place: int) -> None:
        if place not in self.memo:
            raise FormatError(f"want a place noted before, got place {place}")
        self.stack.append(self.memo[place])

    def name_of_texts(self, _: None) -> None:
        module, name = self.pop(2)
        if type(module) is not str or type(name) is not str:
            raise FormatError("want a name of two texts, got something else")
        self.name(f"{module}.{name}")

    def name(self, text: str) -> None:
        """A name, if it is one of those that may occur."""
        if text not in self.names:
            raise FormatError(f"want tensors, numbers, texts, lists and dicts alone, got {text!r:.200}")
        self.stack.append(Name(text))

    def reduce(self, _: None) -> None:
        name, arguments = self.pop(2)
        if not isinstance(name, Name) or type(arguments) is not tuple:
            raise FormatError("want a name and its arguments on the stack, got something else")
        self.stack.append(self.call(name.text, arguments))

    def build(self, _: None) -> None:
        """Attributes for a dict: PyTorch's notes about versions of modules, which say nothing about the values."""
        (attributes,) = self.pop(1)
        self.top(dict)
        if type(attributes) is not dict:
            raise FormatError(f"want a dict of attributes, got {type(attributes).__name__}")

    def persistent_id(self, _: None) -> None:
        (identity,) = self.pop(1)
        self.stack.append(self.persistent(identity))


def _check_tree(value: Any, largest: int) -> None:
    """Raises FormatError unless the value can be walked through: no cycle, no part repeated until it fills memory."""
    todo, count = [(value, 0)], 1
    while todo:
        node, depth = todo.pop()
        if type(node) in (dict, list, tuple):
            inner = list(node.values()) if type(node) is dict else node
            count += len(inner)
            if depth >= DEEPEST:
                raise FormatError(f"want lists and dicts at most {DEEPEST} deep, got deeper ones")
            if count > largest:
                raise FormatError(f"want at most {largest} entries in all, got lists that repeat themselves")
            todo.extend((part, depth + 1) for part in inner)
        elif type(node) not in (str, int, float, bool, type(None), np.ndarray):
            got = node.text if isinstance(node, Name) else type(node).__name__
            raise FormatError(f"want tensors, numbers, texts, lists and dicts alone, got {got!r} as a value")

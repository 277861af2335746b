"""Interprets pickles from untrusted files: only the opcodes that hold data; it imports nothing and calls nothing.

A pickle is a program for a machine with a stack and a memo; Python's module pickle describes each opcode. This
interpreter makes only lists, dicts, sets, tuples, numbers and strings. A name in the file (``torch.FloatStorage``)
stays a name: the reader's own table, never the file, decides what it stands for.
"""

import pickle
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
from gpulstm.io.torch.stack import Stack
from gpulstm.io.torch.unread import Named, Unfinished, Unread

LARGEST = 1 << 26  # bytes, and instructions, of a pickle
LONGEST_NAME = 1000  # characters


class Names(Protocol):
    """Decides what the names in a pickle stand for; the methods may raise FormatError."""

    def named(self, text: str) -> Any:
        """The value of a name."""

    def call(self, name: Unread, arguments: tuple[Any, ...]) -> Any:
        """The result of calling a name with arguments."""

    def finish(self, target: Unfinished, state: Any) -> Any:
        """The value that follows from an object's state; None if it stays as it is."""

    def persistent(self, identity: Any) -> Any:
        """The data that is stored elsewhere in the file."""


def unpickle(file: BinaryIO, size: int, where: str, names: Names, budget: Budget) -> Any:
    """Return the value that a pickle describes; ``file``, which has ``size`` bytes, is then positioned after it.

    Raises FormatError, with ``where`` and the byte or one near it, for opcodes that hold no data, for damage, and for
    values that take more memory than the budget has.
    """
    try:
        return _Machine(file, size, names, budget).run()
    except FormatError as error:
        raise FormatError(f"{where}, byte {file.tell()}: {error}") from error


class _Machine(Stack):
    """The interpreter: what each opcode does."""

    def __init__(self, file: BinaryIO, size: int, names: Names, budget: Budget) -> None:
        super().__init__(file, size, budget)
        self.names, self.keys = names, Keys(budget)
        self.known: dict[str, Any] = {}
        self.methods = self._methods()

    def _methods(self) -> dict[bytes, Callable[[], None]]:
        """The method for each opcode."""
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
                    raise FormatError("expected one value, got more on the stack")
                return result
            method = methods.get(code)
            if method is None:
                raise FormatError(f"expected only data, got {f'the instruction {code!r}' if code else 'the end'}")
            method()
        raise FormatError(f"expected at most {LARGEST} instructions, got more")

    # -- lists, dicts and sets

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
        """Put alternating keys and values into the dict on the stack."""
        if len(items) % 2:
            raise FormatError("expected keys and values in pairs, got a key alone")
        target = self.top("dict", dict, Unread)
        if isinstance(target, Unread):
            target = self.items_of(target, dict)
        self.keys.put(target, items)

    def items_of(self, unread: Unread, kind: type) -> Any:
        """The items of an object that is not created, whose class is a kind of list or dict."""
        if unread.items is None:
            self.spend(cost.DICT)
            unread.items = kind()
        if type(unread.items) is not kind or isinstance(unread, Named):
            raise FormatError(f"expected a list or dict on the stack, got {unread}")
        return unread.items

    # -- names

    def name(self) -> None:
        lines = [self.file.readline(LONGEST_NAME) for _ in range(2)]
        if not all(line.endswith(b"\n") for line in lines):
            raise FormatError("expected a name in two lines, got something else")
        self.push_name(*(self.text(line[:-1]) for line in lines))

    def name_of_texts(self) -> None:
        module, name = self.pop(2)
        if type(module) is not str or type(name) is not str or len(module) + len(name) > LONGEST_NAME:
            raise FormatError("expected a name of two strings, got something else")
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
            raise FormatError("expected a name and its arguments on the stack, got something else")
        value = self.names.call(name, arguments)
        # Arrays are counted where they are made.
        self.push(value, cost.SLOT if isinstance(value, np.ndarray) else cost.TEXT + sys.getsizeof(value))

    def reduce_with_names(self) -> None:
        """Call with a tuple and a dict of arguments; the dict becomes the last argument."""
        name, arguments, named = self.pop(3)
        if type(arguments) is not tuple:
            raise FormatError("expected a name and its arguments on the stack, got something else")
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
        """Set the attributes of an object. Those of tensors and dicts (PyTorch's version notes) are left out."""
        (state,) = self.pop(1)
        target = self.top("value with attributes", Unread, Namespace, dict, set, np.ndarray)
        if isinstance(target, Named):
            raise FormatError(f"expected an object on the stack, got {target}")
        if isinstance(target, Unfinished) and (value := self.names.finish(target, state)) is not None:
            self.stack[-1] = value
            for place in target.places:
                self.memo[place] = value
        elif isinstance(target, Unread):
            target.state = state
        elif isinstance(target, Namespace):
            if type(state) is not dict or not all(type(key) is str for key in state):
                raise FormatError("expected attributes by name, got something else")
            self.keys.put(vars(target), [part for pair in state.items() for part in pair])

    def persistent_id(self) -> None:
        (identity,) = self.pop(1)
        self.push(self.names.persistent(identity), cost.SLOT)

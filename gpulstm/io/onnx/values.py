"""The arrays of a graph by name: those in the file, and those that its nodes compute from them, each once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpulstm.backend import backend_of
from gpulstm.errors import FormatError
from gpulstm.io.onnx.call import Call
from gpulstm.io.onnx.constants import OPERATORS
from gpulstm.io.onnx.moves import MOVES
from gpulstm.io.onnx.proto import MOST_AXES, tensor_array, text
from gpulstm.io.onnx.scopes import Graph, Node, Scope
from gpulstm.io.onnx.source import Source

# The limit for all computed arrays of a file.
BASE, FACTOR = 1 << 23, 12  # bytes; times the file's size


@dataclass(frozen=True)
class Open:
    """An array that the file does not determine, and why.

    ``zeros``: it is zeros, but its shape is not determined. ``held``: it is other numbers of the file, in such a shape.
    ``left_out``: the call of a function leaves it out.
    """

    why: str
    zeros: bool = False
    held: bool = False
    left_out: bool = False


_LEFT_OUT = Open("an input that a call leaves out", left_out=True)
_PENDING = Open("")


class Values:
    """The arrays that names stand for, in the scopes of a graph.

    ``given`` holds arrays for names that the graph does not determine.
    """

    def __init__(self, source: Source, graph: Graph, given: Mapping[str, Any] | None = None) -> None:
        self.source, self.graph, self.given = source, graph, dict(given or {})
        self.used: set[str] = set()  # the names in ``given`` that were needed
        self.shared: dict[Any, np.ndarray] = {}  # weights of operators, by the array and part they come from
        self._known: dict[tuple[Scope, str], np.ndarray | Open] = {}
        self._taken = 0  # bytes of computed arrays

    def array(self, scope: Scope, name: str) -> np.ndarray | Open:
        """The array with this name, or why there is none; raises FormatError for invalid nodes."""
        asked = scope.find(name)
        left = [asked]
        while left:
            key = left[-1]
            if self._known.get(key, _PENDING) is not _PENDING:
                left.pop()
                continue
            node = self._settle(*key)
            if node is None:
                continue
            inputs = [node.scope.find(text(each)) if each else None for each in node.proto.input]
            missing = [each for each in inputs if each is not None and each not in self._known]
            if missing:
                self._known[key] = _PENDING
                left += missing
            elif any(each is not None and self._known[each] is _PENDING for each in inputs):
                raise FormatError(f"{node.where}: expected a node that does not need its own output, got a cycle")
            else:
                self._compute(node, [None if each is None else self._known[each] for each in inputs])
        return self._known[asked]

    def _settle(self, scope: Scope, name: str) -> Node | None:
        """Note what a name stands for; return its node if that must be computed first."""
        key, body = (scope, name), scope.body
        if name in self.given and scope.depth == 0:  # a function's names are its own
            self.used.add(name)
            self._known[key] = backend_of(self.given[name]).to_numpy(self.given[name])
        elif not name:
            self._known[key] = _LEFT_OUT
        elif name in body.tensors:
            self._known[key] = self._tensor(scope, name)
        elif name in body.makers:
            number = body.makers[name]
            node = Node(scope, number, body.proto.node[number])
            if node.kind in OPERATORS and not self.graph.is_call(node):
                return node
            self._known[key] = Open(f"{name!r:.100}, which a {node.kind:.100} computes")
        else:
            what = "an input of the model" if scope is self.graph.main else "an input of a loop or branch"
            self._known[key] = Open(f"{name!r:.100}, {what if name in body.inputs else 'which no node computes'}")
        return None

    def _tensor(self, scope: Scope, name: str) -> np.ndarray:
        """An initializer's array."""
        number = scope.body.tensors[name]
        if number is None:
            raise FormatError(f"{scope.body.where}, tensor {name!r:.100}: expected a dense array, got a sparse one")
        where = f"{scope.body.where}, tensor {name!r:.100}"
        return self._own(scope, tensor_array(scope.body.proto.initializer[number], where, self.source))

    def _own(self, scope: Scope, array: np.ndarray) -> np.ndarray:
        """An array of the file; inside a function, which may be called many times, it counts as computed."""
        if scope.depth:
            self.reserve(array.nbytes)
        return array

    def _compute(self, node: Node, inputs: list[Any]) -> None:
        """Compute a node's outputs and note them."""
        names = [text(name) for name in node.proto.output]
        results: Sequence[np.ndarray | Open] = _unsettled(node, inputs)
        if not results:
            known, function = OPERATORS[node.kind]
            if node.kind == "Cast" and node.version < 6:
                known = {"to": "s"}
            given = [None if each is _LEFT_OUT else each for each in inputs]
            options = node.attributes(known)
            call = Call(node.where, node.version, given, len(names), options, self.reserve, self.source)
            results = _computed(call, function)
            if node.kind == "Constant":
                self._own(node.scope, results[0])
        if len(results) != len(names):
            raise FormatError(f"{node.where}: expected {len(results)} outputs, got {len(names)}")
        for name, result in zip(names, results, strict=True):
            self._known[node.scope, name] = result

    def reserve(self, size: int) -> None:
        """Reserve bytes for a computed array; raises FormatError for too many."""
        self._taken += size
        if self._taken > (most := BASE + FACTOR * self.source.size):
            raise FormatError(f"{self.source.where}: expected computed arrays of at most {most} bytes in all, got more")


def _unsettled(node: Node, inputs: list[Any]) -> list[Open]:
    """The outputs of a node with inputs that are not determined; an empty list if all are."""
    unknown = [each for each in inputs if isinstance(each, Open) and each is not _LEFT_OUT]
    if not unknown:
        return []
    kind, from_file = node.kind, []
    if kind == "ConstantOfShape":
        value = node.attributes({"value": "t"}).get("value")
        from_file = [np.zeros(1) if value is None else tensor_array(value, node.where)]
    elif kind in MOVES:
        from_file = inputs[:1]
    elif kind == "Concat":
        from_file = inputs
    zeros, held = (bool(from_file) and all(map(of, from_file)) for of in (_is_zeros, _is_held))
    if kind == "Gather" and any(isinstance(each, Open) for each in inputs[1:2]):  # the data choose the rows
        held = False
    return [Open(unknown[0].why, zeros, held and not zeros)] * len(node.proto.output)


def _is_zeros(value: Any) -> bool:
    return value.zeros if isinstance(value, Open) else value is not None and not np.any(value != 0)


def _is_held(value: Any) -> bool:
    return value.zeros or value.held if isinstance(value, Open) else value is not None


def _computed(call: Call, function: Callable[[Call], Any]) -> list[np.ndarray]:
    """The outputs of a call; an error that NumPy raises becomes a FormatError."""
    try:
        with np.errstate(all="ignore"):
            result = function(call)
    except FormatError:
        raise
    except (ValueError, TypeError, IndexError, OverflowError, AttributeError) as error:
        raise FormatError(f"{call.where}: expected inputs that fit, got others: {error}") from error
    results = result if isinstance(result, list) else [result]
    if any(each.ndim > MOST_AXES for each in results):
        raise FormatError(f"{call.where}: expected at most {MOST_AXES} axes, got more")
    return results

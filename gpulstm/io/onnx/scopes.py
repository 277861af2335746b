"""Finds the node that computes a name: in a model's graph, the branches and loops in its nodes, and its functions."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from gpulstm.errors import FormatError
from gpulstm.io.onnx.proto import attributes, field_of, text
from gpulstm.io.onnx.source import Source

MOST_NODES = 500_000  # nodes visited; those of a function count at each call
DEEPEST = 30  # nested calls of functions
LONGEST = 1000  # characters of a name

OWN = ("", "ai.onnx")  # the domain of ONNX' own operators has two names


class Body:
    """A graph or a function of the file, with an index of its names."""

    def __init__(self, proto: Any, where: str) -> None:
        self.proto, self.where = proto, where
        self._inner: dict[int, list[tuple[str, Body]]] = {}

    @cached_property
    def inputs(self) -> dict[str, int]:
        """The position of each input by name."""
        return {text(getattr(each, "name", each)): place for place, each in enumerate(self.proto.input)}

    @cached_property
    def tensors(self) -> dict[str, int | None]:
        """The number of each initializer by name; None for a sparse one."""
        found: dict[str, int | None] = {}
        for number, tensor in enumerate(getattr(self.proto, "initializer", ())):
            if (name := text(tensor.name)) in found and name:
                raise FormatError(f"{self.where}, initializer {name!r:.100}: expected each name once, got it twice")
            found[name] = number
        for sparse in getattr(self.proto, "sparse_initializer", ()):
            found.setdefault(text(sparse.values.name), None)
        return found

    @cached_property
    def makers(self) -> dict[str, int]:
        """The number of the node that has each name as an output."""
        found: dict[str, int] = {}
        for number, node in enumerate(self.proto.node):
            for name in filter(None, map(text, node.output)):
                if found.setdefault(name, number) != number or name in self.tensors:
                    raise FormatError(f"{self.where}, {name!r:.100}: expected each name as one output, got it twice")
        return found

    def inner(self, node: "Node") -> list[tuple[str, "Body"]]:
        """The graphs in a node's attributes, as (attribute's name, Body).

        Each graph has one Body however often a function is called, as its index may be large.
        """
        if node.number in self._inner:
            return self._inner[node.number]
        found = []
        for attribute in node.proto.attribute:
            field = field_of(attribute)
            for graph in [attribute.g] if field == "g" else attribute.graphs if field == "graphs" else ():
                found.append((text(attribute.name), Body(graph, self.where)))
        if found:
            self._inner[node.number] = found
        return found


class Scope:
    """A graph, branch or called function, which knows where its outer names come from.

    ``parent`` is the scope around a branch, whose names the branch can use. ``call`` is the node that calls a function,
    which can use only that node's inputs. ``path`` is the prefix of its nodes' names.
    """

    def __init__(
        self, body: Body, versions: dict[str, int], path: str = "", parent: "Scope | None" = None,
        call: "Node | None" = None,
    ) -> None:  # fmt: skip
        self.body, self.versions, self.path, self.parent, self.call = body, versions, path, parent, call
        self.bound: dict[str, Any] | None = parent.bound if parent is not None else None
        self.depth: int = parent.depth if parent is not None else 0  # of calls
        if call is not None:
            self.bound, self.depth = _bound(body.proto, call), call.scope.depth + 1

    def nodes(self) -> Iterator["Node"]:
        """The nodes in the file's order."""
        for number, proto in enumerate(self.body.proto.node):
            yield Node(self, number, proto)

    def find(self, name: str) -> "tuple[Scope, str]":
        """The scope that defines a name, and the name there; "" if a call leaves it out."""
        scope = self
        while True:
            body = scope.body
            if not name or name in body.tensors or name in body.makers:
                return scope, name
            if name in body.inputs:
                if scope.call is None:
                    return scope, name
                place, given = body.inputs[name], scope.call.proto.input
                name = text(given[place]) if place < len(given) else ""
                scope = scope.call.scope
            elif scope.parent is None:
                return scope, name
            else:
                scope = scope.parent


class Node:
    """A node in its scope."""

    def __init__(self, scope: Scope, number: int, proto: Any) -> None:
        self.scope, self.number, self.proto = scope, number, proto

    @property
    def kind(self) -> str:
        """The operator, with its domain in front unless it is ONNX' own."""
        domain, kind = text(self.proto.domain), text(self.proto.op_type)
        return kind if domain in OWN else f"{domain}.{kind}"

    @property
    def name(self) -> str:
        """The node's name, or that of its first output, or its operator and number."""
        names = filter(None, (self.proto.name, *self.proto.output[:3]))
        name = text(next(names, f"{text(self.proto.op_type)}_{self.number}"))
        if len(name) > LONGEST:
            raise FormatError(f"{self.where}: expected a name of at most {LONGEST} characters, got {len(name)}")
        return name

    @property
    def where(self) -> str:
        """For messages: the file, the place in it, the operator and the name."""
        inside = f", in {self.scope.path[:-1]}" if self.scope.path else ""
        what = f"{self.kind:.100} {text(self.proto.name)!r:.100}"
        return f"{self.scope.body.where}{inside:.200}, node {self.number} ({what})"

    @property
    def version(self) -> int:
        """The version of ONNX' own operators."""
        return self.scope.versions.get("", 0)

    def attributes(self, known: dict[str, str], others: bool = False) -> dict[str, Any]:
        """See proto.attributes."""
        return attributes(self.proto, self.where, known, others, self.scope.bound)


class Graph:
    """The scopes and nodes of a model; raises FormatError for anything but a model."""

    def __init__(self, source: Source) -> None:
        model, self.where = source.model, source.where
        versions = _versions(model.opset_import, self.where)
        if not versions and model.ir_version < 3:  # such files do not say it
            versions = {"": 1}
        if not versions:
            raise FormatError(f"{self.where}: expected an ONNX model, got a file with no version of any operators")
        self.main = Scope(Body(model.graph, self.where), versions)
        self.functions = {}
        for function in model.functions:
            self.functions[_key(function, function.name)] = Body(function, self.where)

    def nodes(self) -> Iterator[Node]:
        """All nodes in the file's order; those inside a node follow it."""
        left, seen = [self.main.nodes()], 0
        while left:
            node = next(left[-1], None)
            if node is None:
                left.pop()
                continue
            seen += 1
            if seen > MOST_NODES or node.scope.depth > DEEPEST:
                want = f"at most {MOST_NODES} nodes, those of functions at each call, and {DEEPEST} nested calls"
                raise FormatError(f"{self.where}: expected {want}, got more")
            yield node
            left.append(inside for scope in self._inner(node) for inside in scope.nodes())

    def is_call(self, node: Node) -> bool:
        """Whether the node calls a function of the file."""
        return _key(node.proto, node.proto.op_type) in self.functions

    def _inner(self, node: Node) -> Iterator[Scope]:
        """The scopes inside a node."""
        function = self.functions.get(_key(node.proto, node.proto.op_type))
        if function is not None:
            versions = _versions(function.proto.opset_import, self.where) or node.scope.versions
            yield Scope(function, versions, f"{node.scope.path}{node.name}.", call=node)
            return
        for name, body in node.scope.body.inner(node):
            yield Scope(body, node.scope.versions, f"{node.scope.path}{node.name}.{name:.{LONGEST}}.", node.scope)


def _key(proto: Any, name: str) -> tuple[str, str, str]:
    """The key that a function shares with the nodes that call it."""
    domain = text(proto.domain)
    return "" if domain in OWN else domain, text(name), text(getattr(proto, "overload", ""))


def _versions(imports: Any, where: str) -> dict[str, int]:
    """The version of each domain's operators."""
    found: dict[str, int] = {}
    for entry in imports:
        domain = "" if text(entry.domain) in OWN else text(entry.domain)
        if found.setdefault(domain, entry.version) != entry.version:
            got = f"{found[domain]} and {entry.version}"
            raise FormatError(f"{where}: expected one version of the operators of {domain or 'ONNX'}, got {got}")
    return found


def _bound(function: Any, call: Node) -> dict[str, Any]:
    """The attributes that a function's nodes may refer to: those of the call, else the function's defaults."""
    bound = {text(attribute.name): attribute for attribute in getattr(function, "attribute_proto", ())}
    for attribute in call.proto.attribute:
        given: Any = attribute
        if attribute.ref_attr_name:
            given = (call.scope.bound or {}).get(text(attribute.ref_attr_name))
        if given is not None:
            bound[text(attribute.name)] = given
    return bound

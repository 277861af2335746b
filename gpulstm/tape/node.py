"""The tape: nodes, each of which is one call of a function, and the backward pass through them.

A node is a whole sequence, a whole matrix product or a whole loss, so the tape costs time per layer, not per step.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

import numpy as np

from gpulstm.arguments import input_names
from gpulstm.backend import Array, Backend, backend_of
from gpulstm.errors import ShapeError, TapeError
from gpulstm.functional.needs import needs_of
from gpulstm.precision import current, run_in
from gpulstm.tape.versions import Version, owner_of

_numbers = itertools.count()

# Where an input's gradient goes: to an output of an older node, or to a leaf. This is not the input itself, so that
# data that no pullback holds can be freed before backward.
Target: TypeAlias = "tuple[Node, int] | Any"


class Node:
    """One call of ``fn`` on Tensors and other inputs; older nodes have smaller numbers."""

    __slots__ = ("backend", "fn", "likes", "needed", "number", "outputs", "precision", "pullback", "targets", "view")

    def __init__(self, fn: Callable, backend: Backend, pullback: Callable, inputs: tuple, outputs: tuple) -> None:
        """``inputs`` and ``outputs`` are Tensors; an input that is not a Tensor is None."""
        self.fn, self.backend, self.outputs, self.number = fn, backend, len(outputs), next(_numbers)
        self.precision = current()  # the pullback uses the precision of the forward call
        self.pullback: Callable | None = pullback
        wanted = [x if x is not None and x.requires_grad else None for x in inputs]
        self.targets: list[Target] = [None if x is None else x._source or x for x in wanted]
        self.likes = [None if x is None else (x.shape, x.dtype) for x in wanted]  # shapes and dtypes of the gradients
        self.needed = _needed(fn, inputs, wanted, outputs)
        self.view = needs_of(fn).view and _share_memory(inputs, outputs)

    @property
    def name(self) -> str:
        """The name of the function."""
        return getattr(self.fn, "__name__", repr(self.fn))

    def check(self) -> None:
        """Raise TapeError if the node was freed, or if a value that the pullback needs was modified in place."""
        if self.pullback is None:
            raise TapeError(
                f"backward() already ran through this graph and freed it, here a {self.name}; detach the carried "
                "state, call backward once on the sum of the losses, or keep the graph with backward(retain_graph=True)"
            )
        for place, shape, version, count in self.needed:
            if version.count != count:
                name = "result" if place < 0 else f"input {input_names(self.fn, place + 1)[place]}"
                raise TapeError(
                    f"backward: {self.name} needs its {name} {shape} as it was when the loss was "
                    "computed, but it was modified since (by an optimiser's step, load_state_dict, to() or an "
                    "in-place operation); call backward before that, or compute the loss again"
                )

    def gradients(self, cotangents: list[Array | None], retain: bool) -> Iterator[tuple[Target, Array, bool]]:
        """Run the pullback and yield (target, gradient, whether its memory is shared) for each input.

        Unless ``retain``, this frees the pullback.
        """
        pullback, targets = self.pullback, self.targets
        if not retain:
            self.pullback, self.targets = None, []
        if pullback is None or all(c is None for c in cotangents):
            return  # no gradient arrived here
        with self.backend as backend:
            gradients = [as_array(g) for g in run_in(self.precision, pullback, *cotangents)]
            if len(gradients) < len(targets):  # more are allowed, for optional inputs not given
                raise ShapeError(f"pullback of {self.name}: expected {len(targets)} gradients, got {len(gradients)}")
            given = [*enumerate(gradients), *((-1, c) for c in cotangents)]
            near = [(place, g) for place, g in given if g is not None and backend_of(g) is backend]
            for k, (target, gradient) in enumerate(zip(targets, gradients, strict=False)):
                if target is None or gradient is None:
                    continue
                if (got := (gradient.shape, gradient.dtype)) != self.likes[k]:
                    raise ShapeError(f"pullback of {self.name}: expected gradient {k} {self.likes[k]}, got {got}")
                if isinstance(target, tuple):
                    yield target, gradient, True  # to a node; only leaves keep the memory
                    continue
                others = [g for place, g in near if place != k]
                shared = retain or any(bool(backend.xp.may_share_memory(gradient, g)) for g in others)
                yield target, gradient, shared


def _needed(fn: Callable, inputs: tuple, wanted: list, outputs: tuple) -> list[tuple[int, tuple, Version, int]]:
    """(position, shape, version, its count) of the values that the pullback needs; negative positions are outputs."""
    needs = needs_of(fn)
    if needs.inputs == {} and needs.outputs == ():
        return []
    gradients = {k for k, x in enumerate(wanted) if x is not None}

    def needed(users: tuple[int, ...] | None) -> bool:
        return users is None or not gradients.isdisjoint(users)

    of_input = dict.fromkeys(range(len(inputs))) if needs.inputs is None else needs.inputs
    places = [(k, inputs[k]) for k, users in of_input.items() if k < len(inputs) and needed(users)]
    if needed(needs.outputs):
        places += [(~k, y) for k, y in enumerate(outputs)]
    return [(k, x.shape, x.version, x.version.count) for k, x in places if x is not None]


def _share_memory(inputs: tuple, outputs: tuple) -> bool:
    owners = {id(owner_of(x.data)) for x in inputs if x is not None}
    return any(id(owner_of(y.data)) in owners for y in outputs)


def as_array(x: Any) -> Any:
    """Turn a NumPy scalar, which NumPy's arithmetic returns for shape (), back into an array."""
    return np.asarray(x) if isinstance(x, np.generic) else x


def _newest_first(roots: Iterable[Node]) -> list[Node]:
    """The roots and all nodes behind them, newest first; checks each of them."""
    found = set(roots)
    stack = [*found]
    while stack:
        node = stack.pop()
        node.check()
        for target in node.targets:
            if isinstance(target, tuple) and target[0] not in found:
                found.add(target[0])
                stack.append(target[0])
    return sorted(found, key=lambda node: node.number, reverse=True)


# Called with each leaf as soon as its gradient is complete; see ``watching``.
_watcher: ContextVar[Callable[[Any], None] | None] = ContextVar("gpulstm_watcher", default=None)


@contextmanager
def watching(watcher: Callable[[Any], None]) -> Iterator[None]:
    """In this block, a backward pass calls ``watcher(leaf)`` as soon as the leaf's gradient is complete."""
    before = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(before)


def run_backwards(given: dict[tuple[Node, int], Array], retain: bool) -> None:
    """Run the backward pass and add to the ``grad`` of every leaf.

    ``given`` maps (node, number of its output) to the gradient of that output; this function empties it.
    """
    nodes, watcher = _newest_first({node for node, _ in given}), _watcher.get()
    uses = Counter(id(leaf) for node in nodes for leaf in _leaves(node)) if watcher is not None else Counter()
    for node in nodes:
        leaves = _leaves(node) if watcher is not None else []
        cotangents = [given.pop((node, k), None) for k in range(node.outputs)]
        for target, gradient, shared in node.gradients(cotangents, retain):
            if not isinstance(target, tuple):
                target._accumulate(gradient, shared)
            elif target in given:
                given[target] = as_array(given[target] + gradient)
            else:
                given[target] = gradient
        for leaf in leaves:
            uses[id(leaf)] -= 1
            if watcher is not None and uses[id(leaf)] == 0:
                watcher(leaf)


def _leaves(node: Node) -> list[Any]:
    return [target for target in node.targets if target is not None and not isinstance(target, tuple)]

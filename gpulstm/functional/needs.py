"""Which inputs and outputs a pullback reads, so that the tape can tell whether an in-place change spoils a gradient."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

Function = TypeVar("Function", bound=Callable)


class Needs(NamedTuple):
    """Which arrays a pullback reads, and for the gradients of which inputs; None means all arrays, for every gradient.

    ``inputs``: the number of each input that is read -> the numbers of the inputs whose gradients need it.
    ``outputs``: the numbers of the inputs whose gradients need the outputs.
    ``view``: whether an output may share memory with an input.
    """

    inputs: Mapping[int, tuple[int, ...]] | None = None
    outputs: tuple[int, ...] | None = None
    view: bool = True


_EVERYTHING = Needs()


def needs(
    inputs: Mapping[int, tuple[int, ...]] | None, outputs: tuple[int, ...] | None = (), view: bool = False
) -> Callable:
    """Decorates a function of this folder; see ``Needs``. A function without it needs all inputs and outputs."""

    def decorate(function: Function) -> Function:
        function.needs = Needs(inputs, outputs, view)  # type: ignore[attr-defined]
        return function

    return decorate


def needs_of(function: Callable) -> Needs:
    """What the pullback of any function needs."""
    return getattr(function, "needs", _EVERYTHING)

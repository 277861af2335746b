"""What a pullback needs of its function's inputs and outputs, so that the tape can tell whether a write harms it."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

Function = TypeVar("Function", bound=Callable)


class Needs(NamedTuple):
    """What is needed, and for the gradients of which inputs; None: everything, for any of them.

    ``inputs``: the number of each input that is needed -> the numbers of the inputs whose gradients need it.
    ``outputs``: the numbers of the inputs whose gradients need the outputs.
    ``view``: whether an output may be memory of an input.
    """

    inputs: Mapping[int, tuple[int, ...]] | None = None
    outputs: tuple[int, ...] | None = None
    view: bool = True


_EVERYTHING = Needs()


def needs(
    inputs: Mapping[int, tuple[int, ...]] | None, outputs: tuple[int, ...] | None = (), view: bool = False
) -> Callable:
    """Decorates a function of this folder; see ``Needs``. What is not decorated needs all inputs and outputs."""

    def decorate(function: Function) -> Function:
        function.needs = Needs(inputs, outputs, view)  # type: ignore[attr-defined]
        return function

    return decorate


def needs_of(function: Callable) -> Needs:
    """What the pullback of any function needs."""
    return getattr(function, "needs", _EVERYTHING)

"""Contexts around modules: evaluation mode for a while, and a look at the calls of their forward methods."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from gpulstm.nn.module import Module


@contextmanager
def evaluation(module: Module) -> Iterator[None]:
    """Evaluation mode inside the block; at its end, also after an error, every layer has its own mode back."""
    before = [(layer, layer.training) for layer in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for layer, training in before:
            layer.training = training


@contextmanager
def watching(
    modules: Iterable[Module],
    *,
    before: Callable[[Module, tuple, dict], None] | None = None,
    after: Callable[[Module, Any], None] | None = None,
) -> Iterator[None]:
    """Inside the block call ``before(module, args, kwargs)`` and ``after(module, result)`` around each forward.

    What they raise comes out of the call. The modules compute as they did: nothing is changed or copied.
    """
    watched = list(modules)
    try:
        for module in watched:
            object.__setattr__(module, "forward", _watched(module, module.forward, before, after))
        yield
    finally:
        for module in watched:
            vars(module).pop("forward", None)


def _watched(module: Module, forward: Callable, before: Callable | None, after: Callable | None) -> Callable:
    def call(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before(module, args, kwargs)
        result = forward(*args, **kwargs)
        if after is not None:
            after(module, result)
        return result

    return call

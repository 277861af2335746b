"""Functions that are called before and after a layer's forward."""

import itertools
from collections.abc import Callable
from typing import Any

from gpulstm.errors import DTypeError

_numbers = itertools.count()


class Hooks:
    """The hooks of one module, in the order in which they are called: number -> (function, whether it gets kwargs)."""

    def __init__(self) -> None:
        self.before: dict[int, tuple[Callable, bool]] = {}
        self.after: dict[int, tuple[Callable, bool]] = {}

    def __bool__(self) -> bool:
        return bool(self.before or self.after)

    def add(self, when: str, function: Any, prepend: bool, with_kwargs: bool) -> "Handle":
        """Add a function to the hooks "before" or "after", at the end, or at the start with ``prepend``."""
        if not callable(function):
            raise DTypeError(f"hook: expected a function, got {type(function).__name__}")
        hooks, number = getattr(self, when), next(_numbers)
        rest = dict(hooks)
        hooks.clear()
        hooks.update(
            {number: (function, with_kwargs), **rest} if prepend else {**rest, number: (function, with_kwargs)}
        )
        return Handle(hooks, number)

    def call(self, module: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Call the hooks before, ``module.forward``, and the hooks after."""
        for function, with_kwargs in list(self.before.values()):
            given = function(module, args, kwargs) if with_kwargs else function(module, args)
            if given is None:
                continue
            if not with_kwargs:
                args = given if isinstance(given, tuple) else (given,)
            elif isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], dict):
                args, kwargs = given
            else:
                raise DTypeError(f"forward pre-hook with kwargs: expected None or (args, kwargs), got {given!r:.80}")
        output = module.forward(*args, **kwargs)
        for function, with_kwargs in list(self.after.values()):
            given = function(module, args, kwargs, output) if with_kwargs else function(module, args, output)
            output = output if given is None else given
        return output


class Handle:
    """The result of ``register_forward_hook``: ``remove()``, or the end of a ``with`` block, removes the hook."""

    def __init__(self, hooks: dict[int, Any], number: int) -> None:
        self._hooks, self._number = hooks, number

    def remove(self) -> None:
        """Remove the hook; a second call does nothing."""
        self._hooks.pop(self._number, None)

    def __enter__(self) -> "Handle":
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

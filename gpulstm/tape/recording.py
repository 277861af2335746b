"""``no_grad`` and ``enable_grad``: blocks and decorators that switch the tape off and on."""

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from contextvars import ContextVar
from typing import Any

from gpulstm.errors import DTypeError

# The modes of the blocks that this thread or task is in, the innermost last. This is a tuple and not one token per
# block, because a block may be left in another context than it was entered in, for example by a generator that is
# closed late.
_modes: ContextVar[tuple[bool, ...]] = ContextVar("gpulstm_recording", default=(True,))


def recording() -> bool:
    """Whether recording is on here."""
    return _modes.get()[-1]


class no_grad:
    """Turns off the recording of gradients in a ``with`` block or a decorated function, as ``torch.no_grad``.

    Results computed there have no gradient, and take less memory. Other threads and asyncio tasks are not affected. One
    object may serve several blocks, also nested ones.

    ``@gl.no_grad`` and ``@gl.no_grad()`` do the same. They decorate functions, generators, coroutines and asynchronous
    generators. Recording is off only while the decorated code itself runs, not while a generator's caller does. Raises
    DTypeError for anything but a function.

    >>> x = gl.tensor([1.0], requires_grad=True)
    >>> with gl.no_grad():
    ...     y = 2 * x
    >>> y.requires_grad
    False
    """

    _recording = False

    def __new__(cls, function: Callable | None = None) -> Any:
        """Return a block, or the decorated function if one is given."""
        block = super().__new__(cls)
        return block if function is None else block(function)

    def __enter__(self) -> None:
        _modes.set((*_modes.get(), self._recording))

    def __exit__(self, *exception: object) -> None:
        _modes.set(_modes.get()[:-1] or (True,))

    def __call__(self, function: Callable) -> Callable:
        if not callable(function) or isinstance(function, type):
            raise DTypeError(f"{type(self).__name__}: expected a function to decorate, got {function!r}")
        return functools.wraps(function)(_decorated(function, self._recording))


class enable_grad(no_grad):
    """Turns on the recording of gradients again inside a ``no_grad`` block, as ``torch.enable_grad``.

    It works as a ``with`` block and as a decorator. The decorator raises DTypeError for anything but a function.

    >>> x = gl.tensor([1.0], requires_grad=True)
    >>> with gl.no_grad(), gl.enable_grad():
    ...     y = 2 * x
    >>> y.requires_grad
    True
    """

    _recording = True


class _Body:
    """The modes of a function body that runs in pieces; between the pieces, the modes of its caller hold."""

    def __init__(self, recording: bool) -> None:
        self.modes: tuple[bool, ...] = (recording,)

    def run(self, function: Callable, *args: Any, **kwargs: Any) -> Any:
        """Call the function under the body's modes."""
        outside = _modes.get()
        _modes.set(self.modes)
        try:
            return function(*args, **kwargs)
        finally:
            self.modes = _modes.get()
            _modes.set(outside)

    def iterate(self, body: Any) -> Generator[Any, Any, Any]:
        """Run a generator so that each piece of it runs under the body's modes."""
        piece, given = body.send, None
        while True:
            try:
                item = self.run(piece, given)
            except StopIteration as end:
                return end.value
            try:
                piece, given = body.send, (yield item)
            except GeneratorExit:
                self.run(body.close)
                raise
            except BaseException as error:
                piece, given = body.throw, error


class _Awaited:
    """Awaits ``awaitable`` under the modes of a body."""

    def __init__(self, body: _Body, awaitable: Any) -> None:
        self.body, self.awaitable = body, awaitable

    def __await__(self) -> Generator[Any, Any, Any]:
        return self.body.iterate(self.awaitable.__await__())


def _decorated(function: Callable, recording: bool) -> Callable:
    """Return a function of the same kind that runs ``function`` with recording on or off."""
    is_function = inspect.isroutine(function) or isinstance(function, functools.partial)
    call: Any = function if is_function else type(function).__call__  # for an object with __call__

    def plain(*args: Any, **kwargs: Any) -> Any:
        return _Body(recording).run(function, *args, **kwargs)

    def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        return (yield from _Body(recording).iterate(function(*args, **kwargs)))

    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        return await _Awaited(_Body(recording), function(*args, **kwargs))

    async def async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        produced: Any = function(*args, **kwargs)
        body, given = _Body(recording), None
        piece: Any = produced.asend
        while True:
            try:
                item = await _Awaited(body, piece(given))
            except StopAsyncIteration:
                return
            try:
                piece, given = produced.asend, (yield item)
            except GeneratorExit:
                await _Awaited(body, produced.aclose())
                raise
            except BaseException as error:
                piece, given = produced.athrow, error

    if inspect.isasyncgenfunction(call):
        return async_generator
    if inspect.iscoroutinefunction(call):
        return coroutine
    return generator if inspect.isgeneratorfunction(call) else plain

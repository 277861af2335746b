"""Whether functions are recorded on the tape: ``no_grad`` and ``enable_grad``, for blocks and as decorators."""

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from contextvars import ContextVar
from typing import Any

from gpulstm.errors import DTypeError

# The modes of the blocks that this thread or task is in, the innermost last. A tuple, not a token for each block: a
# block may be left in another context than it was entered in, as by a generator that is closed late.
_modes: ContextVar[tuple[bool, ...]] = ContextVar("gpulstm_recording", default=(True,))


def recording() -> bool:
    """Whether what is computed now is recorded."""
    return _modes.get()[-1]


class no_grad:
    """Turns the recording of gradients off in a block or a decorated function, as ``torch.no_grad``.

    It does not affect other threads and tasks. One object serves any number of blocks, also nested ones. It decorates
    functions, generators, coroutines and asynchronous generators: recording is off while their own code runs, and
    unchanged for the caller in between. ``@no_grad`` and ``@no_grad()`` are the same. Raises DTypeError for anything
    but a function.

    >>> x = gl.tensor([1.0], requires_grad=True)
    >>> with gl.no_grad():
    ...     y = 2 * x
    >>> y.requires_grad
    False
    """

    _recording = False

    def __new__(cls, function: Callable | None = None) -> Any:
        """A block; or, of a function, that function decorated."""
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
    """Turns the recording of gradients on again inside a ``no_grad`` block, as ``torch.enable_grad``.

    For a block or a decorated function. Raises DTypeError for anything but a function.

    >>> x = gl.tensor([1.0], requires_grad=True)
    >>> with gl.no_grad(), gl.enable_grad():
    ...     y = 2 * x
    >>> y.requires_grad
    True
    """

    _recording = True


class _Body:
    """The modes of a body that runs piece by piece; between its pieces stand those of its caller."""

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
        """A generator, each piece of it run under the body's modes."""
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
    """A function of the same kind that runs the body of ``function`` in that mode."""
    is_function = inspect.isroutine(function) or isinstance(function, functools.partial)
    call: Any = function if is_function else type(function).__call__  # of an object with that method

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

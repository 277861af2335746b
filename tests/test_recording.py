"""no_grad and enable_grad: on blocks, functions, generators, coroutines; in threads, tasks and contexts."""

import asyncio
import contextlib
import contextvars
import functools
import inspect
import threading

import pytest

import gpulstm as gl
from gpulstm.errors import DTypeError


@pytest.fixture
def x():
    return gl.tensor([1.0, 2.0], requires_grad=True)


def recorded(x):
    return (x * 2).requires_grad


def test_in_a_block_nested_and_after_an_error(x):
    with gl.no_grad():
        assert not recorded(x)
        with gl.no_grad():
            pass
        assert not recorded(x)
        with gl.enable_grad():
            assert recorded(x)
        assert not recorded(x)
    assert recorded(x)
    with contextlib.suppress(ZeroDivisionError), gl.no_grad():
        _ = 1 / 0
    assert recorded(x)


def test_one_object_serves_many_blocks(x):
    block = gl.no_grad()
    for _ in range(2):
        with block:
            with block, gl.enable_grad(), block:
                assert not recorded(x)
            assert not recorded(x)
        assert recorded(x)


def test_one_object_serves_many_threads(x):
    block, both, seen = gl.no_grad(), threading.Barrier(2), []

    def work(rounds):
        for _ in range(rounds):
            both.wait(10)
            with block:
                both.wait(10)
                seen.append(recorded(x))
            seen.append(not recorded(x))

    threads = [threading.Thread(target=work, args=(20,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 80 and not any(seen) and recorded(x)


def test_holds_in_one_thread(x):
    inside, go_on, seen = threading.Event(), threading.Event(), []

    def other():
        seen.append((x * 2).requires_grad)  # started under no_grad, not bound by it
        with gl.no_grad():
            inside.set()
            go_on.wait(10)
            seen.append((x * 2).requires_grad)

    with gl.no_grad():
        thread = threading.Thread(target=other)
        thread.start()
        inside.wait(10)
    assert (x * 2).requires_grad  # the other thread is in its block
    go_on.set()
    thread.join()
    assert seen == [True, False]


@pytest.mark.parametrize("decorator", [gl.no_grad, gl.no_grad()], ids=["no_grad", "no_grad()"])
def test_functions_of_every_kind(x, decorator):
    @decorator
    def function(t, depth=1):
        """Words."""
        assert depth == 0 or not recorded(function(t, depth - 1))
        return t * 2

    class Layer:
        @decorator
        def __call__(self, t):
            return t * 2

        @classmethod
        @decorator
        def made(cls, t):
            return t * 2

    assert (function.__name__, function.__doc__) == ("function", "Words.")
    for call in (function, Layer(), Layer.made, decorator(functools.partial(function, depth=0)), decorator(Layer())):
        assert not call(x).requires_grad and recorded(x)

    @gl.enable_grad()
    def on(t):
        return t * 2

    with gl.no_grad():
        assert on(x).requires_grad and not recorded(x)


def test_what_is_no_function_is_refused():
    for wrong in (3, "f", gl.Linear):
        with pytest.raises(DTypeError, match="no_grad: expected a function to decorate, got"):
            gl.no_grad()(wrong)


# -- bodies that run piece by piece --------------------------------------------------------------------------
def test_generators(x):
    seen = []

    @gl.no_grad()
    def body(t):
        try:
            given = yield recorded(t)
            with gl.enable_grad():  # stays the body's, over a yield
                seen.append((given, recorded(t)))
                yield recorded(t)
            seen.append(recorded(t))
            try:
                yield
            except KeyError:
                seen.append(recorded(t))
                yield "caught"
        finally:
            seen.append(recorded(t))
        return "end"

    assert inspect.isgeneratorfunction(body)
    pieces = body(x)
    assert next(pieces) is False and recorded(x)
    assert pieces.send("given") is True and recorded(x)
    with gl.no_grad():
        next(pieces)
        assert not recorded(x)
    assert pieces.throw(KeyError("k")) == "caught" and recorded(x)
    with pytest.raises(StopIteration) as end:
        next(pieces)
    assert end.value.value == "end" and recorded(x)
    assert seen == [("given", True), False, False, False]

    seen.clear()
    pieces = body(x)
    next(pieces)
    pieces.close()
    assert seen == [False] and recorded(x)

    @gl.no_grad()
    def outer(t):
        return (yield from body(t))

    pieces = outer(x)
    assert not next(pieces) and recorded(x)
    with pytest.raises(ZeroDivisionError):
        pieces.throw(ZeroDivisionError)
    assert recorded(x)


def test_coroutines(x):
    seen = []

    @gl.no_grad()
    async def body(t):
        seen.append(recorded(t))
        await asyncio.sleep(0)
        seen.append(recorded(t))
        return recorded(t)

    async def other(t):
        for _ in range(3):
            seen.append(not recorded(t))
            await asyncio.sleep(0)

    async def main():
        result = await body(x)
        seen.append(not recorded(x))
        await asyncio.gather(body(x), other(x), body(x))
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(forever(x), 0.01)
        return result

    @gl.no_grad()
    async def forever(t):
        try:
            await asyncio.sleep(100)
        finally:
            seen.append(recorded(t))

    assert inspect.iscoroutinefunction(body)
    assert asyncio.run(main()) is False and len(seen) == 11 and not any(seen) and recorded(x)


def test_asynchronous_generators(x):
    seen = []

    @gl.no_grad()
    async def body(t):
        try:
            given = yield recorded(t)
            await asyncio.sleep(0)
            seen.append((given, recorded(t)))
            try:
                yield recorded(t)
            except KeyError:
                yield "caught"
        finally:
            await asyncio.sleep(0)
            seen.append(recorded(t))

    async def main():
        assert [piece async for piece in body(x)] == [False, False] and recorded(x)
        assert seen == [(None, False), False]
        pieces = body(x)
        assert await pieces.asend(None) is False and recorded(x)
        assert await pieces.asend("given") is False and recorded(x)
        assert await pieces.athrow(KeyError("k")) == "caught"
        await pieces.aclose()
        assert seen[2:] == [("given", False), False] and recorded(x)

    assert inspect.isasyncgenfunction(body)
    asyncio.run(main())


def test_a_block_left_in_another_context(x):
    def body():
        with gl.no_grad():
            yield recorded(x)

    pieces, elsewhere = body(), contextvars.copy_context()
    assert elsewhere.run(next, pieces) is False
    assert recorded(x)
    pieces.close()  # leaves the block here, where it was not entered
    assert recorded(x)
    with gl.no_grad():
        assert not recorded(x)
    assert recorded(x)

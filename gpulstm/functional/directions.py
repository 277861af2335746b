"""Both directions of a layer on a GPU at the same time: one of them runs on a stream of its own.

The steps of a small batch leave most of a GPU idle, and the two directions do not depend on each other.
"""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from gpulstm.backend import Array, Backend, CupyBackend, backend_of
from gpulstm.functional.needs import needs
from gpulstm.functional.recurrent import recurrent

_MOST_STREAMS = 8
Answer = TypeVar("Answer")


@needs(None, None)
def both(*arrays: Array | None, modes: tuple[dict[str, Any], dict[str, Any]]) -> tuple[tuple, Callable]:
    """Make two calls of ``recurrent`` at the same time, with these options; see ``serves``.

    ``arrays`` has x and the other arguments of the first call, then all those of the second. The second call is
    launched first. Outputs and gradients are those of the first call, then those of the second, with the same bits as
    those of two separate calls. Raises what ``recurrent`` raises.
    """
    sides, half = _sides_of(backend_of(*arrays)), len(arrays) // 2
    (two, second), (one, first) = sides.run(
        lambda: recurrent(*arrays[half:], **modes[1]), lambda: recurrent(*arrays[:half], **modes[0])
    )

    def pullback(*cotangents: Array | None) -> tuple:
        d_one, d_two = cotangents[: len(one)], cotangents[len(one) :]
        # Each runs on the stream of its forward pass, for which a graph was captured.
        of_second, of_first = sides.run(lambda: second(*d_two), lambda: first(*d_one))
        return (*of_first[:half], *of_second[:half])

    return (*one, *two), pullback


def serves(backend: Backend) -> bool:
    """Whether two streams may be used: only CuPy's own pool never gives one stream memory that the other still uses."""
    if not isinstance(backend, CupyBackend):
        return False
    cuda = backend.xp.cuda
    return cuda.get_allocator() == backend.xp.get_default_memory_pool().malloc


def _sides_of(backend: Any) -> "_Sides":
    if backend.sides is None:
        backend.sides = _Sides(backend)
    return backend.sides


class _Sides:
    """The second streams of one GPU: each thread has one for every stream that was current in it.

    Memory of a second stream is reused by that stream alone, and only after it has waited for its first stream, which
    may have read that memory. So a second stream belongs to one thread and one first stream.
    """

    def __init__(self, backend: CupyBackend) -> None:
        self._backend, self._mine = backend, threading.local()

    def run(self, there: Callable[[], Answer], here: Callable[[], Answer]) -> tuple[Answer, Answer]:
        """Run there() on the second stream and here() on the current one -> (there(), here())."""
        cuda = self._backend.xp.cuda
        with self._backend:
            stream = cuda.get_current_stream()
            side = self._beside(stream)
            side.wait_event(stream.record(cuda.Event(disable_timing=True)))
            try:
                with side:
                    done = there()
                return done, here()
            finally:
                stream.wait_event(side.record(cuda.Event(disable_timing=True)))

    def _beside(self, stream: Any) -> Any:
        streams = self._mine.__dict__.setdefault("streams", {})
        if stream.ptr not in streams:
            if len(streams) >= _MOST_STREAMS:
                self._backend.synchronize()  # after this none of them is in use
                streams.clear()
            streams[stream.ptr] = self._backend.xp.cuda.Stream(non_blocking=True)
        return streams[stream.ptr]

"""Both directions of a layer on a GPU, side by side: the work of one goes to a stream of its own.

The steps of a small batch leave most of a GPU idle, and the two directions need nothing of each other.
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
    """Two calls of ``recurrent``, with these options, side by side; see ``serves``.

    ``arrays`` has x and the other arguments of the first, then all those of the second, which is begun before the
    first. The outputs and the gradients are those of the first, then those of the second: the same bits as of two
    calls. Raises what ``recurrent`` raises.
    """
    sides, half = _sides_of(backend_of(*arrays)), len(arrays) // 2
    (two, second), (one, first) = sides.run(
        lambda: recurrent(*arrays[half:], **modes[1]), lambda: recurrent(*arrays[:half], **modes[0])
    )

    def pullback(*cotangents: Array | None) -> tuple:
        d_one, d_two = cotangents[: len(one)], cotangents[len(one) :]
        # Each on the stream of its way there, for which a graph was captured.
        of_second, of_first = sides.run(lambda: second(*d_two), lambda: first(*d_one))
        return (*of_first[:half], *of_second[:half])

    return (*one, *two), pullback


def serves(backend: Backend) -> bool:
    """Whether work may go to two streams: CuPy's own pool does not give one what the other still uses."""
    if not isinstance(backend, CupyBackend):
        return False
    cuda = backend.xp.cuda
    return cuda.get_allocator() == backend.xp.get_default_memory_pool().malloc


def _sides_of(backend: Any) -> "_Sides":
    if backend.sides is None:
        backend.sides = _Sides(backend)
    return backend.sides


class _Sides:
    """The second streams of one GPU: of each thread, one beside each stream that is current there.

    Memory of a second stream is used again by that stream alone, and only after it has waited for the stream that it
    stands beside, where the memory may have been read since: so neither may be another's.
    """

    def __init__(self, backend: CupyBackend) -> None:
        self._backend, self._mine = backend, threading.local()

    def run(self, there: Callable[[], Answer], here: Callable[[], Answer]) -> tuple[Answer, Answer]:
        """(there(), here()): what the first launches may run beside what the second does on the current stream."""
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
                self._backend.synchronize()  # none of them is in use
                streams.clear()
            streams[stream.ptr] = self._backend.xp.cuda.Stream(non_blocking=True)
        return streams[stream.ptr]

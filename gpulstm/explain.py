"""``gl.explain``: which path computed each sequence, why a faster one was not used, and which arrays were moved."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from gpulstm.precision import current, stays_ieee


@dataclass(frozen=True)
class Run:
    """One call of a recurrent layer and direction: the path that computed it, and its shape (T, B, D, H).

    ``why_not_faster`` says why a faster path was not used, or is "". ``measured`` is what the table of paths measured
    on this GPU says about it, or "" if there is no table.
    """

    cell: str
    path: str
    device: str
    dtype: str
    shape: tuple[int, int, int, int]
    reverse: bool
    why_not_faster: str
    measured: str = ""

    def __str__(self) -> str:
        T, B, D, H = self.shape
        direction = "reversed " if self.reverse else ""
        why = "".join(f" ({words})" for words in (self.why_not_faster, self.measured) if words)
        return f"{self.cell} {direction}T={T} B={B} D={D} H={H} {self.dtype} on {self.device}: {self.path}{why}"


class Explanation(list[Run]):
    """The list of runs in order; ``print`` shows one line for each, and for each entry of the other two lists.

    ``moved`` lists arrays that were copied from the host to a GPU. ``notes`` says where ``gl.precision`` had no effect.
    """

    def __init__(self) -> None:
        super().__init__()
        self.moved: list[str] = []
        self.notes: list[str] = []

    def __str__(self) -> str:
        return "\n".join([*map(str, self), *self.moved, *self.notes]) or "no sequence was computed"


_collectors: ContextVar[tuple[Explanation, ...]] = ContextVar("gpulstm_explain", default=())


@contextlib.contextmanager
def explain() -> Iterator[Explanation]:
    """Collect which path computes each sequence inside the block, and why a faster one is not used; raises nothing.

    ``runs`` is a list with one entry per call, layer and direction; ``print`` shows it. ``runs.moved`` lists the arrays
    that were copied from the host to a GPU. ``runs.notes`` says where ``gl.precision`` had no effect.

    >>> lstm = gl.LSTM(3, 4, path="reference")
    >>> with gl.explain() as runs:
    ...     _ = lstm(np.zeros((5, 2, 3), np.float32))
    >>> print(runs)
    lstm T=5 B=2 D=3 H=4 float32 on cpu: reference (path='reference' was asked for)
    """
    runs = Explanation()
    token = _collectors.set((*_collectors.get(), runs))
    try:
        yield runs
    finally:
        _collectors.reset(token)


def record(
    cell: str, path: str, device: str, dtype: Any, shape: tuple[int, int, int, int], reverse: bool, why: str,
    measured: str = "",
) -> None:  # fmt: skip
    """Add a Run with these fields to every open ``explain`` block."""
    if collectors := _collectors.get():
        note_precision(device != "cpu", device, dtype)
        run = Run(cell, path, device, dtype.name, shape, reverse, why, measured)
        for runs in collectors:
            runs.append(run)


def record_move(name: str, shape: tuple[int, ...], dtype: Any, device: str) -> None:
    """Tell every open ``explain`` block that this argument was copied from the host to the device."""
    for runs in _collectors.get():
        runs.moved.append(f"{name} {shape} {dtype.name} was copied from the host to {device}")


def note_precision(is_cuda: bool, device: str, dtype: Any) -> None:
    """Tell every open ``explain`` block, once, if products of this type stay IEEE float32 despite ``gl.precision``."""
    if (collectors := _collectors.get()) and stays_ieee(is_cuda, dtype):
        line = f"products of float32 on {device} are IEEE float32; precision {current()!r} takes effect on a GPU only"
        for runs in collectors:
            if line not in runs.notes:
                runs.notes.append(line)

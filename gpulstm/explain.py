"""Says which path every sequence took, for which shape, why not a faster one, and what was done besides."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from gpulstm.precision import current, stays_ieee


@dataclass(frozen=True)
class Run:
    """One sequence computed: the path taken, its shape (T, B, D, H), why no faster one served it, or "", and what the
    table of the paths measured on this GPU says of it, or "" where there is none."""

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
    """The runs in order; ``print`` shows a line for each, and for what stands in the two lists.

    ``moved`` has what came from the host to a GPU, ``notes`` says where ``gl.precision`` had no effect.
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
    """Collect which path computed every sequence inside the block, and why no faster one; raises nothing.

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
    """Tell every collector that is listening; the arguments are the fields of a Run."""
    if collectors := _collectors.get():
        note_precision(device != "cpu", device, dtype)
        run = Run(cell, path, device, dtype.name, shape, reverse, why, measured)
        for runs in collectors:
            runs.append(run)


def record_move(name: str, shape: tuple[int, ...], dtype: Any, device: str) -> None:
    """Tell every collector that the argument of that name came from the host and was moved to the device."""
    for runs in _collectors.get():
        runs.moved.append(f"{name} {shape} {dtype.name} came from the host and was moved to {device}")


def note_precision(is_cuda: bool, device: str, dtype: Any) -> None:
    """Tell every collector, once, where products of this type are computed in IEEE float32 against ``gl.precision``."""
    if (collectors := _collectors.get()) and stays_ieee(is_cuda, dtype):
        line = f"products of float32 on {device} are IEEE float32; precision {current()!r} takes effect on a GPU only"
        for runs in collectors:
            if line not in runs.notes:
                runs.notes.append(line)

"""Says which path every sequence took, for which shape, and why not a faster one."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Run:
    """One sequence computed: the path taken, its shape (T, B, D, H), and why no faster one served it, or ""."""

    cell: str
    path: str
    device: str
    dtype: str
    shape: tuple[int, int, int, int]
    reverse: bool
    why_not_faster: str

    def __str__(self) -> str:
        T, B, D, H = self.shape
        direction = "reversed " if self.reverse else ""
        why = f" ({self.why_not_faster})" if self.why_not_faster else ""
        return f"{self.cell} {direction}T={T} B={B} D={D} H={H} {self.dtype} on {self.device}: {self.path}{why}"


class Explanation(list[Run]):
    """The runs in order, and in ``moved`` what came from the host to a GPU; ``print`` shows a line for each."""

    def __init__(self) -> None:
        super().__init__()
        self.moved: list[str] = []

    def __str__(self) -> str:
        return "\n".join([*map(str, self), *self.moved]) or "no sequence was computed"


_collectors: ContextVar[tuple[Explanation, ...]] = ContextVar("gpulstm_explain", default=())


@contextlib.contextmanager
def explain() -> Iterator[Explanation]:
    """Collect which path every sequence takes inside the block.

    >>> with gl.explain() as runs:
    ...     lstm(x)
    >>> print(runs)
    lstm T=100 B=16 D=128 H=128 float32 on cuda:0: kernel
    """
    runs = Explanation()
    token = _collectors.set((*_collectors.get(), runs))
    try:
        yield runs
    finally:
        _collectors.reset(token)


def record(
    cell: str, path: str, device: str, dtype: Any, shape: tuple[int, int, int, int], reverse: bool, why: str
) -> None:
    """Tell every collector that is listening; the arguments are the fields of a Run."""
    if collectors := _collectors.get():
        run = Run(cell, path, device, dtype.name, shape, reverse, why)
        for runs in collectors:
            runs.append(run)


def record_move(name: str, shape: tuple[int, ...], dtype: Any, device: str) -> None:
    """Tell every collector that the argument of that name came from the host and was moved to the device."""
    for runs in _collectors.get():
        runs.moved.append(f"{name} {shape} {dtype.name} came from the host and was moved to {device}")

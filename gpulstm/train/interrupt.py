"""Ctrl-C and SIGTERM during training: they may come at any time and take effect between two steps."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """Raised when Ctrl-C stopped a run. ``checkpoint`` is the file to continue from, or None."""

    checkpoint: Path | None = None
    together = False  # whether all processes have stopped


class Terminated(SystemExit):
    """Raised when SIGTERM stopped a run; uncaught, it ends the program with status 143, as the signal itself does.

    ``checkpoint`` is the file to continue from, or None.
    """

    checkpoint: Path | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = 128 + signal.SIGTERM


class Interrupt:
    """A context in which the first Ctrl-C or SIGTERM only sets ``number``; the second raises KeyboardInterrupt.

    If the program has its own handler for SIGTERM, that one stays. Outside the main thread, where Python handles no
    signals, this does nothing.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if number == signal.SIGINT or signal.getsignal(number) is signal.SIG_DFL:
                    self._before[number] = signal.signal(number, self._serve)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @staticmethod
    def error(number: int, message: str, checkpoint: Path | None) -> BaseException:
        """The exception to raise for a signal."""
        stop = (Terminated if number == signal.SIGTERM else Interrupted)(message)
        stop.checkpoint = checkpoint
        return stop

    def _serve(self, number: int, frame: FrameType | None) -> None:
        again, self.number = self.number is not None, number
        if again:
            raise KeyboardInterrupt

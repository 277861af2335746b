"""Ctrl-C and SIGTERM during training: asked for at any moment, served between two steps."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C has stopped a run. ``checkpoint`` is the file to go on from, or None."""

    checkpoint: Path | None = None
    together = False  # whether all processes have stopped


class Terminated(SystemExit):
    """SIGTERM has stopped a run; not caught, it ends the program with status 143, as the signal itself does.

    ``checkpoint`` is the file to go on from, or None.
    """

    checkpoint: Path | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = 128 + signal.SIGTERM


class Interrupt:
    """A context in which the first Ctrl-C or SIGTERM only sets ``number``, and the second stops the program.

    A handler of SIGTERM that the program has set by itself stays in force. Outside the main thread, where
    Python serves no signals, this changes nothing.
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
        """What to raise for a signal."""
        stop = (Terminated if number == signal.SIGTERM else Interrupted)(message)
        stop.checkpoint = checkpoint
        return stop

    def _serve(self, number: int, frame: FrameType | None) -> None:
        again, self.number = self.number is not None, number
        if again:
            raise KeyboardInterrupt

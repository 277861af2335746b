"""What a run tells while it goes: a progress bar or plain lines, and a log of one JSON object a line."""

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from gpulstm.errors import DTypeError, FileExists

Record = dict[str, Any]


class _Lasting:
    """A text stream to which writing does not fail: what can no longer be written is dropped.

    An error in the middle of a bar's drawing would leave tqdm's lock held, and whoever draws a bar after it waiting.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


class Progress:
    """A tqdm bar where the stream is a terminal, a line a record where it is not, nothing for None.

    A stream that can no longer be written to (nobody reads on, the terminal is closed) ends the showing, not the run.

    ``steps`` is how many the run has in all, None where that is not known; ``epochs`` is given for a run that
    is counted in them.
    """

    def __init__(self, stream: TextIO | None, step: int, steps: int | None, epochs: int | None = None) -> None:
        self._stream = None if stream is None else _Lasting(stream)
        self._steps, self._epochs, self._bar = steps, epochs, None
        if stream is not None and stream.isatty():
            from tqdm import tqdm

            class Bar(tqdm):
                monitor_interval = 0  # no thread that looks for slow steps: each step looks at the clock

            self._bar = Bar(total=steps, initial=step, file=self._stream, unit="step", dynamic_ncols=True, miniters=1)

    def step(self) -> None:
        """One more step is done."""
        if self._bar is not None:
            self._bar.update()

    def record(self, record: Record, seconds_a_step: float) -> None:
        """Show a record of the log; see Trainer."""
        facts, validated = _words(record, ""), _words(record, "val_")
        rate = f"{record['tokens_per_second']:,.0f} tokens/s"
        if skipped := record.get("skipped_steps"):
            facts += f", {skipped} step{'s'[: skipped > 1]} skipped"
        validated = f"  validation {validated.removeprefix('loss ')}" if validated else ""
        if self._bar is None:
            left = "" if self._steps is None else f"  {clock(seconds_a_step * (self._steps - record['step']))} left"
            self.line(f"{self._place(record)}  {facts}{validated}  {rate}{left}")
            return
        if self._epochs is not None:
            self._bar.set_description(f"epoch {record['epoch']}/{self._epochs}")
        self._bar.set_postfix_str(f"{facts}, {rate}")
        if validated:
            self.line(f"{self._place(record)}: {facts}{validated}")

    def _place(self, record: Record) -> str:
        epoch = f"epoch {record['epoch']:>{len(str(self._epochs))}}/{self._epochs}  " if self._epochs else ""
        if self._steps is None or self._bar is not None:
            return f"{epoch}step {record['step']}"
        return f"{epoch}step {record['step']:>{len(str(self._steps))}}/{self._steps}"

    def line(self, text: str) -> None:
        """Show a line of text without harming the bar."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        elif self._stream is not None:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _words(record: Record, prefix: str) -> str:
    """The loss and the metrics of a record, "loss 0.1234, accuracy 0.9"; empty without any."""
    known = {"step", "epoch", "lr", "tokens_per_second", "seconds", "skipped_steps", "loss_scale"}
    names = [name for name in record if name not in known and not name.startswith("val_")]
    values = [(name, record[prefix + name]) for name in names]
    return ", ".join(f"{name} {value:.4f}" for name, value in values if value is not None)


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Log:
    """A JSON-lines file: one record a line, each flushed. Starting over a file replaces it; see ``check_log``."""

    def __init__(self, path: str | Path | None, records: list[Record]) -> None:
        """Open the file and write the records that a resumed run had made before; raises OSError."""
        self._file = None if path is None else Path(path).open("w", encoding="utf-8")  # noqa: SIM115
        for record in records:
            self.write(record)

    def write(self, record: Record) -> None:
        """One more line; raises OSError."""
        if self._file is None:
            return
        try:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        except OSError as error:
            with suppress(OSError):  # it would write once more
                self._file.close()
            raise OSError(error.errno, f"{self._file.name} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def check_log(path: str | Path, records: list[Record]) -> None:
    """Raise FileExists where a log that is there is not that of the run that made these records before.

    A log is of this run if it begins with the run's first record. An empty file may always be replaced.
    """
    file = Path(path)
    if not file.exists() or file.stat().st_size == 0:
        return
    with file.open(encoding="utf-8", errors="replace") as log:
        first = log.readline()
    if not records or first.strip() != json.dumps(records[0]):
        choices = "give force=True to replace it, or another name"
        raise FileExists(f"{path}: exists already, and is not this run's log; {choices}")


def stream_of(progress: bool | TextIO) -> TextIO | None:
    """True means standard error, False no stream, anything else is the stream. Raises DTypeError for no stream."""
    if isinstance(progress, bool):
        return sys.stderr if progress else None
    if not hasattr(progress, "write"):
        raise DTypeError(f"progress: expected True, False or a text stream, got {progress!r:.80}")
    return progress

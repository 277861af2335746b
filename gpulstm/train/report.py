"""The output of a run: a progress bar or plain lines, and a log with one JSON object per line."""

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from gpulstm.errors import DTypeError, FileExists

Record = dict[str, Any]


class _Lasting:
    """A text stream whose writes never fail: text that cannot be written is dropped.

    An error while tqdm draws a bar would leave its lock held, and the next bar would wait for ever.
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
    """Shows a tqdm bar on a terminal, one line per record on another stream, and nothing for None.

    If the stream can no longer be written to (a closed pipe or terminal), the output stops and the run continues.

    ``steps`` is the total number of steps, None if unknown; ``epochs`` is given for a run that is counted in epochs.
    """

    def __init__(self, stream: TextIO | None, step: int, steps: int | None, epochs: int | None = None) -> None:
        self._stream = None if stream is None else _Lasting(stream)
        self._steps, self._epochs, self._bar = steps, epochs, None
        if stream is not None and stream.isatty():
            from tqdm import tqdm

            class Bar(tqdm):
                monitor_interval = 0  # no monitor thread: every step checks the clock

            self._bar = Bar(total=steps, initial=step, file=self._stream, unit="step", dynamic_ncols=True, miniters=1)

    def step(self) -> None:
        """Count one more step."""
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
        """Print a line of text without breaking the bar."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        elif self._stream is not None:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _words(record: Record, prefix: str) -> str:
    """The loss and the metrics of a record as text, "loss 0.1234, accuracy 0.9000"; empty if there are none."""
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
    """A JSON Lines file: one record per line, flushed each time. It replaces an existing file; see ``check_log``."""

    def __init__(self, path: str | Path | None, records: list[Record]) -> None:
        """Open the file and write the earlier records of a resumed run; raises OSError."""
        self._file = None if path is None else Path(path).open("w", encoding="utf-8")  # noqa: SIM115
        for record in records:
            self.write(record)

    def write(self, record: Record) -> None:
        """Write one record as a line; raises OSError."""
        if self._file is None:
            return
        try:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        except OSError as error:
            with suppress(OSError):  # closing tries to write again
                self._file.close()
            raise OSError(error.errno, f"{self._file.name} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def check_log(path: str | Path, records: list[Record]) -> None:
    """Raise FileExists if the log exists and does not belong to the run that made these records.

    It belongs to that run if its first line is the run's first record. An empty file may always be replaced.
    """
    file = Path(path)
    if not file.exists() or file.stat().st_size == 0:
        return
    with file.open(encoding="utf-8", errors="replace") as log:
        first = log.readline()
    if not records or first.strip() != json.dumps(records[0]):
        choices = "give force=True to replace it, or another name"
        raise FileExists(f"{path}: exists already and is not the log of this run; {choices}")


def stream_of(progress: bool | TextIO) -> TextIO | None:
    """Standard error for True, None for False, else the stream given. Raises DTypeError for anything else."""
    if isinstance(progress, bool):
        return sys.stderr if progress else None
    if not hasattr(progress, "write"):
        raise DTypeError(f"progress: expected True, False or a text stream, got {progress!r:.80}")
    return progress

"""What a run tells while it goes: a progress bar or plain lines, and a log of one JSON object a line."""

import json
import sys
from pathlib import Path
from typing import Any, TextIO


class Progress:
    """A tqdm bar where the stream is a terminal, a line a record where it is not, nothing for None."""

    def __init__(self, stream: TextIO | None, step: int, steps: int) -> None:
        self._stream, self._steps, self._bar = stream, steps, None
        if stream is not None and stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=steps, initial=step, unit="step", file=stream, dynamic_ncols=True)

    def step(self) -> None:
        """One more step is done."""
        if self._bar is not None:
            self._bar.update()

    def record(self, record: dict[str, Any], seconds_left: float) -> None:
        """Show a record of the log; see Trainer."""
        facts = f"loss {record['loss']:.4f}"
        rate = f"{record['tokens_per_second']:,.0f} tokens/s"
        validated = f"  validation {record['val_loss']:.4f}" if record["val_loss"] is not None else ""
        if self._bar is not None:
            self._bar.set_postfix_str(f"{facts}, {rate}")
            if validated:
                self._bar.write(f"step {record['step']}: {facts}{validated}", file=self._stream)
        else:
            place = f"step {record['step']:>{len(str(self._steps))}}/{self._steps}"
            self.line(f"{place}  {facts}{validated}  {rate}  {clock(seconds_left)} left")

    def line(self, text: str) -> None:
        """Show a line of text without harming the bar."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        elif self._stream is not None:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Log:
    """A JSON-lines file: one record a line, each flushed. Starting over a file replaces it."""

    def __init__(self, path: str | Path | None, records: list[dict[str, Any]]) -> None:
        """Open the file and write the records that a resumed run had made before; raises OSError."""
        self._file = None if path is None else Path(path).open("w", encoding="utf-8")  # noqa: SIM115
        for record in records:
            self.write(record)

    def write(self, record: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def stream_of(progress: bool | TextIO) -> TextIO | None:
    """True means standard error, False no stream, anything else is the stream."""
    if isinstance(progress, bool):
        return sys.stderr if progress else None
    return progress

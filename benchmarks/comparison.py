"""Runs implementations side by side: the same sequences, checked against float64, timed in turns.

If an implementation is rejected, left out or stopped, the reason is recorded with the rows. Nothing is dropped
silently.
"""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.floor import Floors
from benchmarks.peers import SERVES
from benchmarks.problem import MODES, Shape, agreement
from benchmarks.team import Missing, Team, Worker, WorkerFailed, take_turns

LSTM = "gpulstm's LSTM"  # takes turns with every other cell


@dataclass
class Comparison:
    """What to compare and how long, and what came of it."""

    device: str
    peers: Sequence[str]
    rounds: int = 8
    seconds: float = 0.5  # of one block
    end: float = float("inf")  # time.monotonic() after which nothing new is begun
    rows: list[dict[str, Any]] = field(default_factory=list)
    # What disagreed, failed, or was not begun in time.
    refused: list[dict[str, Any]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)  # implementation -> why it is not here
    cell: str = "lstm"
    modes: Sequence[str] = tuple(MODES)
    short: float = 10.0  # ms; calls up to so long are also timed after a sleep each

    def run(
        self, team: Team, shapes: Sequence[Shape], precisions: Sequence[str],
        keep: Callable[[list[dict[str, Any]]], None],
    ) -> None:  # fmt: skip
        """Measure every precision, shape and mode, and give the rows of each to ``keep`` as they come.

        Memory on the processor wants a new process for each; on a GPU the library's pool is emptied instead.
        """
        references: dict[Shape, dict[str, str]] = {}  # cell -> file
        before, floors, measured = len(self.rows), Floors(), {}
        with tempfile.TemporaryDirectory(prefix="gpulstm-benchmark-") as folder:
            for precision, shape, mode in itertools.product(precisions, shapes, self.modes):
                case = {"shape": str(shape), "mode": mode, "precision": precision}
                if time.monotonic() > self.end:
                    self._refuse("all", "not begun: no time was left", case)
                    continue
                try:
                    if shape not in references:
                        files = {cell: str(Path(folder) / f"{cell} {shape}.npz") for cell in {self.cell, "lstm"}}
                        for cell, file in files.items():
                            self._reference(team, shape, file, cell)
                        references[shape] = files
                except WorkerFailed as error:
                    self._refuse("all", f"there is no reference: {error}", case)
                    continue
                if self.device == "cpu":
                    key = (*case.values(), self.cell)
                    measured[key] = team.worker("floor").ask("floor", cell=self.cell, **case)
                    floors.add(measured[key])
                rows = self._compare(team, shape, case, references[shape])
                self.rows += rows
                keep(rows)
        for row in self.rows[before:] if self.device == "cpu" else ():
            shape = Shape.of_row(row)
            row["floor_ms"] = harness.rounded(
                floors.milliseconds(measured[str(shape), row["mode"], row["dtype"], self.cell])
            )

    def _reference(self, team: Team, shape: Shape, file: str, cell: str) -> None:
        try:
            team.worker("reference").ask("reference", shape=str(shape), file=file, device=self.device, cell=cell)
        except WorkerFailed:
            team.end("reference")
            raise

    def _compare(
        self, team: Team, shape: Shape, case: dict[str, str], references: dict[str, str]
    ) -> list[dict[str, Any]]:  # fmt: skip
        """The rows of one sequence: load the implementations, and time in turn those that agree."""
        if self.device == "cpu":
            team.dismiss()
        tf32 = case["precision"] == "tf32"
        loaded = self._load(team, case, tf32, references[self.cell])
        workers = {name: team.worker(name, tf32) for name in loaded}
        if self.cell != "lstm" and "gpulstm" in loaded:
            options = {"peer": "gpulstm", "device": self.device, "reference": references["lstm"], "cell": "lstm"}
            if self._asked(LSTM, case, team.worker(LSTM, tf32), "load", **options, **case):
                workers[LSTM] = team.worker(LSTM, tf32)
        timed = take_turns(workers, self.rounds, self.seconds)
        lstm = timed.pop(LSTM, {"failed": ""})
        for name in [name for name in timed if "failed" in timed[name]]:
            self._refuse(name, timed.pop(name)["failed"], case)
            team.end(name, tf32)
        rows = [
            harness.sequence_row(name, shape, case["mode"], self.device, case["precision"], loaded[name], samples)
            | {"cell": self.cell}
            for name, samples in timed.items()
        ]
        harness.compare_with(rows, "torch")
        for row in rows:
            if row["implementation"] == "gpulstm" and "failed" not in lstm:
                row["beside_lstm"] = harness.rounded(row["p50_ms"] / harness.percentiles(lstm["wall"])[1])
            if self.device == "cpu" and row["p50_ms"] <= self.short:
                name = row["implementation"]
                ratio = self._asked(name, case, workers[name], "after_sleep")
                row["after_sleep"] = None if ratio is None else harness.rounded(ratio)
        return rows

    def _asked(self, name: str, case: dict[str, str], worker: Worker, do: str, **arguments: Any) -> Any:
        """What a worker answers; None, and refused, where it fails."""
        try:
            return worker.ask(do, **arguments)
        except WorkerFailed as error:
            self._refuse(name, str(error), case)
            return None

    def _load(self, team: Team, case: dict[str, str], tf32: bool, reference: str) -> dict[str, dict[str, Any]]:
        """What the implementations that are here and agree say of themselves, by name."""
        loaded = {}
        for name in self.peers:
            serves = SERVES[name]
            serving = case["mode"] in serves.modes and case["precision"] in serves.precisions
            if not serving or name in self.missing:
                continue
            try:
                worker = team.worker(name, tf32)
                said = worker.ask("load", peer=name, device=self.device, reference=reference, cell=self.cell, **case)
            except Missing as error:
                self.missing[name] = str(error)
                continue
            except WorkerFailed as error:
                self._refuse(name, str(error), case)
                team.end(name, tf32)
                continue
            allowed = agreement(self.cell, case["precision"])
            if said["error"] <= allowed:
                loaded[name] = said
            else:
                self._refuse(name, f"{said['worst']} is off by {said['error']:.2g}, expected at most {allowed:g}", case)
        return loaded

    def _refuse(self, name: str, why: str, case: dict[str, str]) -> None:
        self.refused.append({"implementation": name, **case, "why": why})

    def complaints(self) -> list[str]:
        """A line for each thing that was refused."""
        return [" ".join(f"{value}" for value in refusal.values()) for refusal in self.refused]


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Say what was just measured, a line for each row."""
    for row in rows:
        what = f"{Shape.of_row(row).words()} {'tf32' if row['tf32'] else row['dtype']}"
        time = f"{row['p50_ms']:.3g} ms" + (f", GPU {row['gpu_p50_ms']:.3g} ms" if row["gpu_p50_ms"] else "")
        print(f"{what} {row['mode']}: {row['implementation']} {time}, error {row['error']:.1e}", flush=True)


def summary(rows: Sequence[dict[str, Any]], peer: str = "torch") -> list[str]:
    """gpulstm beside the peer over all shapes, a line for each number of threads, type and mode."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["implementation"] in ("gpulstm", "gpulstm.torch") and row["speed"]:
            name = "" if row["implementation"] == "gpulstm" else f"{row['implementation']}, "
            count = row.get("threads") if row["device"] == "cpu" else None  # rows of older files do not say it
            threads = f"{count} thread{'s' if count > 1 else ''}, " if count else ""
            group = f"{name}{row['mode']}, {threads}{'tf32' if row['tf32'] else row['dtype']}"
            groups.setdefault(group, []).append(row)
    lines = []
    for group, ours in groups.items():
        speeds = [row["speed"] for row in ours]
        memory = [row["memory_ratio"] for row in ours if row["memory_ratio"] is not None]
        median = statistics.median(speeds)
        line = f"{group}: speed beside {peer} {min(speeds):.2f} at least, {median:.2f} in the median"
        lines.append(line + (f"; memory {max(memory):.2f} at most" if memory else ""))
    return lines

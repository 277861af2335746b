"""The files that a lab's run writes (model, checkpoint, log, pictures), with checks against overwriting others."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpulstm.errors import FileExists, FormatError
from gpulstm.io.files import check_writable
from gpulstm.plot import check_plot, plot_losses
from gpulstm.train import checkpoint
from gpulstm.train.report import check_log
from gpulstm.train.saved import differences

Facts = dict[str, Any]


def checkpoint_path(out: str | Path) -> Path:
    """Return the path of the checkpoint beside the model ``out``: a.checkpoint.safetensors for a.safetensors."""
    return Path(out).parent / f"{Path(out).stem}.checkpoint{Path(out).suffix}"


@dataclass(frozen=True)
class RunFiles:
    """Where a run writes.

    The model goes to ``out``, with the checkpoint beside it; the losses go to ``log`` and ``plot``; a picture of the
    result goes to ``picture``. The checkpoint stays after the model is written, so that a finished run can continue.
    """

    out: Path | None
    log: Path | None
    plot: Path | None
    picture: Path | None = None

    @classmethod
    def of(
        cls,
        out: str | Path | None = None,
        log: str | Path | None = None,
        plot: str | Path | None = None,
        picture: str | Path | None = None,
    ) -> "RunFiles":
        return cls(*(None if path is None else Path(path) for path in (out, log, plot, picture)))

    @property
    def checkpoint(self) -> Path | None:
        """The path of the checkpoint; None for a run that writes no model."""
        return None if self.out is None else checkpoint_path(self.out)

    def claim(
        self,
        notes: Facts,
        facts_of: Callable[[Path], Facts],
        advice: dict[str, str],
        *,
        resume: bool,
        force: bool,
        further: str = "",
    ) -> int | None:
        """Check, before any work, that every file can be written and that no other run's file would be overwritten.

        ``notes`` are the facts that decide what the run computes; ``facts_of`` reads the same facts from a finished
        model. ``advice`` says, by the name of a fact, what to do if that fact differs. ``further`` says how the lab
        trains a finished model further, if it can.

        Returns the number of steps in the checkpoint to resume from, or None without one. Raises FileExists, with the
        options; FormatError if the checkpoint belongs to a run with other notes (the message names every difference),
        if two arguments name one file, and for an unknown image format; OSError if a file cannot be written.
        """
        self._check_apart()
        for picture in (self.plot, self.picture):
            if picture is not None:
                check_plot(picture)
        for path in self._named().values():
            check_writable(path)
        if resume and self.checkpoint is None:
            raise FormatError("resume: expected out=..., the model file of the run to resume, got out=None")
        if resume and self.checkpoint is not None and _holds(self.checkpoint):
            return self._check_same_run(notes, facts_of, advice, force)
        if not force:
            self._check_new(resume, further)
        return None

    def about(self) -> Facts:
        """Return what the checkpoint stores about the files, so that a resumed run recognises its own pictures."""
        pictures = {"plot": self.plot, "picture": self.picture}
        return {name: self._relative(path) for name, path in pictures.items()}

    def _relative(self, path: Path | None) -> str | None:
        """Return the path relative to the model's folder, so that the folder can be moved."""
        return None if path is None or self.out is None else os.path.relpath(path, self.out.parent)

    def _named(self) -> dict[str, Path]:
        """Return the files that the run will write, by argument name."""
        names = ("out", "checkpoint", "log", "plot", "picture")
        return {name: path for name in names if (path := getattr(self, name)) is not None}

    def finish(self, records: list[dict[str, Any]], unit: str) -> None:
        """Plot the losses, after the model is written."""
        if self.plot is not None:
            plot_losses(records, self.plot, unit=unit)

    def _check_apart(self) -> None:
        taken: dict[Path, str] = {}
        for name, path in self._named().items():
            if (other := taken.setdefault(path.resolve(), name)) != name:
                raise FormatError(f"{name}: expected a file of its own, got {path}, which {other} uses already")

    def _check_new(self, resume: bool, further: str) -> None:
        """Raise FileExists if a new run would overwrite a file."""
        found = [path for path in self._named().values() if _holds(path)]
        if not found:
            return
        names = " and ".join(map(str, found))
        options = ", ".join(
            f"--{name}" for name in ("out", "log", "plot", "picture") if getattr(self, name) is not None
        )
        ways = ["replace with --force (force=True)", f"write elsewhere with {options}"]
        if further and (resume or (self.checkpoint not in found and self.out in found)):
            ways.insert(0, further)
        if resume:
            raise FileExists(
                f"{names}: exists already, and there is no checkpoint {self.checkpoint} to resume from; "
                f"{', or '.join(ways)}"
            )
        if self.checkpoint in found:
            ways.insert(
                0, "continue the run with --resume (resume=True), with more --steps or --epochs if it is finished"
            )
        raise FileExists(f"{names}: exists already; {', or '.join(ways)}")

    def _check_same_run(
        self, notes: Facts, facts_of: Callable[[Path], Facts], advice: dict[str, str], force: bool
    ) -> int:
        """Check that the existing files belong to the run to resume; return its number of steps."""
        assert self.checkpoint is not None and self.out is not None
        tree = checkpoint.load(self.checkpoint)
        kept = tree.get("notes")
        if not isinstance(kept, dict):
            raise FormatError(f"{self.checkpoint}: expected a checkpoint of this run, got another kind of checkpoint")
        if words := differences(kept, notes):
            ways = [way for name, way in advice.items() if kept.get(name) != notes.get(name)]
            raise FormatError(f"{self.checkpoint}: expected a checkpoint of this run: {'; '.join([words, *ways])}")
        step = int(tree.get("run", {}).get("step", 0))
        if force:
            return step
        if _holds(self.out):
            had = {name: value for name, value in _facts_or_none(facts_of, self.out).items() if name in notes}
            if differences(had, notes):
                raise FileExists(
                    f"{self.out}: exists already, and belongs to another run than {self.checkpoint}; replace it with "
                    "--force (force=True), or write elsewhere with --out"
                )
        if self.log is not None:
            check_log(self.log, tree.get("run", {}).get("history", []))
        kept_pictures = tree.get("about", {})
        for name, relative in self.about().items():
            picture = getattr(self, name)
            if picture is not None and _holds(picture) and kept_pictures.get(name) != relative:
                raise FileExists(
                    f"{picture}: exists already and is not a picture of this run; replace it with --force "
                    f"(force=True), or write elsewhere with --{name}"
                )
        return step


def _holds(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _facts_or_none(facts_of: Callable[[Path], Facts], path: Path) -> Facts:
    try:
        return facts_of(path)
    except FormatError:  # the file holds no model
        return {}

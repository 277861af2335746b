"""The checkpoint of a run: its contents, how it is restored, and the settings that must match to resume from it."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpulstm import parallel, random
from gpulstm.backend import Array, backend_of
from gpulstm.errors import FormatError, GpulstmError, NotFinite, ShapeError
from gpulstm.parallel.split import own_part
from gpulstm.precision import IEEE
from gpulstm.train import checkpoint
from gpulstm.train.plan import Memory, Plan

if TYPE_CHECKING:
    from gpulstm.train.trainer import Trainer

OPTIONAL = {"validation"}  # may be added or left out on resuming
USUAL = {"precision": IEEE}  # settings that older checkpoints and models do not store, and their values then


def check_finite(arrays: Mapping[str, Array], when: str = "") -> None:
    """Raise NotFinite, naming the first array that holds NaN or an infinity."""
    for name, values in arrays.items():
        # On the host, where the checkpoint needs them anyway; on a GPU CuPy would compile a reduction for seconds.
        if not np.isfinite(backend_of(values).to_numpy(values)).all():
            raise NotFinite(f"{name}: expected finite numbers, got NaN or infinity{when}")


def differences(had: Mapping[str, Any], have: Mapping[str, Any]) -> str:
    """Describe how the settings a run is resumed with differ from those it began with; "" if they do not."""
    had, have = {**USUAL, **had}, {**USUAL, **have}
    names = [name for name in sorted(had.keys() | have.keys()) if had.get(name) != have.get(name)]
    return "; ".join(f"{name}: expected {had.get(name)}, as at the start, got {have.get(name)}" for name in names)


class Saved:
    """The objects of a run that have a state, and the settings that decide its results."""

    def __init__(self, trainer: "Trainer", plan: Plan, batches: Any, validation: Any, callbacks: list[Any]) -> None:
        self._trainer, self._plan = trainer, plan
        parts = {"model": trainer.model, "optimizer": trainer.optimizer, "schedule": trainer.schedule}
        parts |= {
            "scaler": trainer.scaler,
            "batches": batches,
            "validation": None if validation is batches else validation,
        }
        self._parts = {name: part for name, part in parts.items() if hasattr(part, "load_state_dict")}
        self._callbacks = [callback for callback in callbacks if hasattr(callback, "load_state_dict")]
        self._facts = _facts(trainer, plan)

    def save(self, file: Path, memory: Memory) -> None:
        """Write everything, atomically. Raises OSError."""
        tree: dict[str, Any] = {name: part.state_dict() for name, part in self._parts.items()}
        tree["callbacks"] = [callback.state_dict() for callback in self._callbacks]
        tree["generator"] = random.generator_state(self._trainer.generator)
        tree["run"] = {field.name: getattr(memory, field.name) for field in fields(Memory)}
        tree |= {"facts": self._facts, "notes": self._plan.notes, "about": self._plan.about}
        checkpoint.save(file, tree)

    def restore(self, file: Path) -> Memory:
        """Restore the run from a checkpoint.

        Raises FormatError for a checkpoint of another run (nothing is changed if its settings or notes differ), and
        ShapeError for fewer steps or epochs than it has already done.
        """
        tree = parallel.group().on_root(lambda: checkpoint.load(file))
        try:
            self._check(tree)
            done = {"steps": int(tree["run"]["step"]), "epochs": int(tree["run"]["epoch"])}
        except (GpulstmError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{file}: expected a checkpoint of this run: {error}") from error
        for name, count in done.items():
            goal = getattr(self._plan, name)
            if goal is not None and goal < count:
                raise ShapeError(f"{name}: expected at least {count}, as many as {file} has done, got {goal}")
        try:
            return self._restored(tree)
        except (GpulstmError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{file}: expected a checkpoint of this run: {error}") from error

    def _check(self, tree: dict[str, Any]) -> None:
        missing = (self._parts.keys() - OPTIONAL | {"callbacks", "facts", "generator", "notes", "run"}) - tree.keys()
        missing |= {field.name for field in fields(Memory)} - tree.get("run", {}).keys()
        if missing:
            raise FormatError(f"it has no {', '.join(sorted(missing))}")
        if words := differences({**tree["facts"], **tree["notes"]}, {**self._facts, **self._plan.notes}):
            raise FormatError(words)

    def _restored(self, tree: dict[str, Any]) -> Memory:
        for name, part in self._parts.items():
            if name in tree:
                part.load_state_dict(tree[name])
        states = tree["callbacks"]
        if states and self._callbacks:
            if len(states) != len(self._callbacks):
                raise FormatError(f"callbacks: expected {len(states)} with a state, got {len(self._callbacks)}")
            for callback, state in zip(self._callbacks, states, strict=True):
                callback.load_state_dict(state)
        random.set_generator_state(self._trainer.generator, tree["generator"])
        memory = Memory(**tree["run"])
        backend = backend_of(*self._trainer.model.state_dict().values())
        memory.state = checkpoint.on_device(own_part(parallel.group(), memory.state), backend)
        if memory.goal != self._plan.goal and memory.stopped:  # a new goal cancels the early stop
            memory.stopped, memory.worse = "", 0
        return memory


def _facts(trainer: "Trainer", plan: Plan) -> dict[str, Any]:
    """The settings that decide a run's results; loading an optimiser's state would replace its options unnoticed."""
    options = ("accumulate", "clip_norm", "clip_value", "precision")
    facts: dict[str, Any] = {name: getattr(trainer, name) for name in options}
    facts |= {"monitor": plan.monitor, "mode": plan.mode, "keep_best": plan.keep_best}
    facts["metrics"] = ", ".join(trainer.metrics) or None
    for name in ("optimizer", "schedule"):
        part = getattr(trainer, name)
        facts[name] = None if part is None else type(part).__name__
    for name, value in getattr(trainer.optimizer, "defaults", {}).items():
        if value is None or isinstance(value, bool | int | float | str | tuple):
            facts[f"optimizer {name}"] = value
    return facts
